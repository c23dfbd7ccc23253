package authn

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
)

// certificate is one as it comes over the wire, with names.
func certificate(t testing.TB, cn string, uris, emails, dns []string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotAfter: noon.Add(time.Hour), EmailAddresses: emails, DNSNames: dns}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, edKey.Public(), edKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A certificate names one principal of a domain that it may name, at the first place that
// names any; what names nobody, or several there, proves nobody (REQUIREMENTS S84).
func TestCertificatesName(t *testing.T) {
	type list = []string
	domains := list{"example.com", "plant.example"}
	for name, c := range map[string]struct {
		cert  *x509.Certificate
		order list
		want  string
	}{
		"pres":                       {certificate(t, "", list{"pres:Ana@Example.com"}, nil, nil), acl.Names, "ana@example.com"},
		"im":                         {certificate(t, "", list{"im:ana@example.com"}, nil, nil), acl.Names, "ana@example.com"},
		"pres and im alike":          {certificate(t, "", list{"pres:ana@example.com", "im:ana@example.com"}, nil, nil), acl.Names, "ana@example.com"},
		"two of one place":           {certificate(t, "ana", list{"pres:ana@example.com", "pres:bo@example.com"}, nil, nil), acl.Names, ""},
		"another scheme":             {certificate(t, "", list{"https://ana@example.com", "sip:ana@example.com"}, nil, nil), acl.Names, ""},
		"email":                      {certificate(t, "x", nil, list{"ana@example.com"}, nil), acl.Names, "ana@example.com"},
		"dns":                        {certificate(t, "", nil, nil, list{"thermo-17.plant.example"}), acl.Names, "thermo-17@plant.example"},
		"dns of the domain itself":   {certificate(t, "", nil, nil, list{"plant.example"}), acl.Names, ""},
		"a wildcard":                 {certificate(t, "", nil, nil, list{"*.plant.example"}), acl.Names, ""},
		"common name":                {certificate(t, "thermo-17", nil, nil, nil), acl.Names, "thermo-17@example.com"},
		"common name with a domain":  {certificate(t, "thermo-17@plant.example", nil, nil, nil), acl.Names, "thermo-17@plant.example"},
		"common name of others":      {certificate(t, "ana@example.org", nil, nil, nil), acl.Names, ""},
		"no address":                 {certificate(t, "Ana of Example", nil, nil, nil), acl.Names, ""},
		"URI before the common name": {certificate(t, "bo", list{"pres:ana@example.com"}, nil, nil), acl.Names, "ana@example.com"},
		"as the order says":          {certificate(t, "bo", list{"pres:ana@example.com"}, nil, nil), list{"cn", "uri"}, "bo@example.com"},
		"not asked for":              {certificate(t, "bo", list{"pres:ana@example.com"}, nil, nil), list{"email"}, ""},
		"others' before ours":        {certificate(t, "bo", list{"pres:ana@example.org"}, nil, nil), acl.Names, "bo@example.com"},
		"nobody":                     {certificate(t, "", nil, nil, nil), acl.Names, ""},
	} {
		got, err := Certified(c.cert, &acl.Login{Names: c.order, Domains: domains}, "example.com")
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}
