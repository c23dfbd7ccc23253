package authn

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// A listIssuer is an authority that revokes.
type listIssuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newListIssuer(t testing.TB, name string, parent *listIssuer) *listIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &listIssuer{key: key}
	if parent == nil {
		parent = i
	}
	i.cert = parent.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(100), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte(name),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, key.Public())
	return i
}

func (i *listIssuer) issue(t testing.TB, template *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter = noon.Add(-time.Hour), noon.Add(1000*time.Hour)
	parent := i.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, i.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (i *listIssuer) client(t testing.TB, n int64) *x509.Certificate {
	t.Helper()
	return i.issue(t, &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: "client"}}, edKey.Public())
}

// list is one that revokes numbers, from noon for an hour unless change says otherwise.
func (i *listIssuer) list(t testing.TB, change func(*x509.RevocationList), revoked ...int64) []byte {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}
	for _, n := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: noon.Add(-time.Minute)})
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func inPEM(lists ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range lists {
		_ = pem.Encode(&b, &pem.Block{Type: pemList, Bytes: der}) // to memory
	}
	return b.Bytes()
}

// reasonOf is the reason of a *Refusal, ok for nil.
func reasonOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		t.Fatalf("%v is no Refusal", err)
	}
	return r.Reason
}

// A certificate that its issuer's list names is not good, nor one below such a certificate, nor
// one of whose issuer there is no list, or one whose time is over unless the operator
// accepts that; what was revoked stays so. (RFC 5280, 5 and 6.3.)
func TestRevokedCertificates(t *testing.T) {
	root, other := newListIssuer(t, "root", nil), newListIssuer(t, "other", nil)
	below := newListIssuer(t, "below", root)
	authorities := []*x509.Certificate{root.cert, other.cert, below.cert}
	good, bad := root.client(t, 1), root.client(t, 2)
	chain := func(certs ...*x509.Certificate) [][]*x509.Certificate { return [][]*x509.Certificate{certs} }
	leaf := below.client(t, 2)
	never := func(l *x509.RevocationList) { l.NextUpdate = noon.Add(500 * time.Hour) }
	for name, c := range map[string]struct {
		files []RevokedFile
		late  bool
		chain [][]*x509.Certificate
		after time.Duration
		want  string
	}{
		"not named":                 {[]RevokedFile{{"a", root.list(t, nil, 2)}}, false, chain(good, root.cert), 0, "ok"},
		"named":                     {[]RevokedFile{{"a", root.list(t, nil, 7, 2)}}, false, chain(bad, root.cert), 0, "certificate_revoked"},
		"in PEM":                    {[]RevokedFile{{"a", inPEM(other.list(t, nil), root.list(t, nil, 2))}}, false, chain(bad, root.cert), 0, "certificate_revoked"},
		"in a second file":          {[]RevokedFile{{"a", root.list(t, nil)}, {"b", inPEM(root.list(t, nil, 2))}}, false, chain(bad, root.cert), 0, "certificate_revoked"},
		"by another issuer":         {[]RevokedFile{{"a", inPEM(root.list(t, nil), other.list(t, nil, 2))}}, false, chain(bad, root.cert), 0, "ok"},
		"no list of the issuer":     {[]RevokedFile{{"a", other.list(t, nil)}}, false, chain(good, root.cert), 0, "crl_missing"},
		"no list of the one above":  {[]RevokedFile{{"a", below.list(t, nil)}}, false, chain(leaf, below.cert, root.cert), 0, "ok"},
		"the one above is named":    {[]RevokedFile{{"a", inPEM(below.list(t, nil), root.list(t, nil, 100))}}, false, chain(leaf, below.cert, root.cert), 0, "certificate_revoked"},
		"and trusted by itself":     {[]RevokedFile{{"a", inPEM(below.list(t, nil), root.list(t, nil, 100))}}, false, chain(leaf, below.cert), 0, "certificate_revoked"},
		"in one chain of two":       {[]RevokedFile{{"a", inPEM(root.list(t, nil), below.list(t, nil, 2))}}, false, append(chain(good, root.cert), []*x509.Certificate{leaf, below.cert}), 0, "certificate_revoked"},
		"just not stale":            {[]RevokedFile{{"a", root.list(t, nil)}}, false, chain(good, root.cert), time.Hour, "ok"},
		"stale":                     {[]RevokedFile{{"a", root.list(t, nil)}}, false, chain(good, root.cert), time.Hour + 1, "crl_stale"},
		"stale and accepted":        {[]RevokedFile{{"a", root.list(t, nil, 2)}}, true, chain(good, root.cert), 2 * time.Hour, "ok"},
		"stale and revoked":         {[]RevokedFile{{"a", root.list(t, nil, 2)}}, true, chain(bad, root.cert), 2 * time.Hour, "certificate_revoked"},
		"one of two is stale":       {[]RevokedFile{{"a", inPEM(root.list(t, nil), root.list(t, never))}}, false, chain(good, root.cert), 2 * time.Hour, "crl_stale"},
		"another issuer's is stale": {[]RevokedFile{{"a", inPEM(root.list(t, never), other.list(t, nil))}}, false, chain(good, root.cert), 2 * time.Hour, "ok"},
		"the one above is stale":    {[]RevokedFile{{"a", inPEM(root.list(t, nil), below.list(t, never))}}, false, chain(leaf, below.cert, root.cert), 2 * time.Hour, "crl_stale"},
		"held":                      {[]RevokedFile{{"a", root.list(t, func(l *x509.RevocationList) { l.RevokedCertificateEntries[0].ReasonCode = 6 }, 2)}}, false, chain(bad, root.cert), 0, "certificate_revoked"},
	} {
		r, err := ReadRevoked(c.files, authorities, c.late, noon)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := reasonOf(t, r.Check(c.chain, noon.Add(c.after))); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if got := reasonOf(t, r.Find(c.chain)); (got == "certificate_revoked") != (c.want == "certificate_revoked") {
			t.Errorf("%s: found %s", name, got)
		}
	}
	r, err := ReadRevoked([]RevokedFile{{"a", inPEM(root.list(t, nil, 1, 2), other.list(t, never, 3))}}, authorities, false, noon)
	if err != nil || r.Len() != 3 || !r.NextUpdate().Equal(noon.Add(time.Hour)) {
		t.Errorf("%d revoked until %v, %v", r.Len(), r.NextUpdate(), err)
	}
	if got := r.Stale(noon.Add(2 * time.Hour)); !slices.Equal(got, []string{"CN=root"}) {
		t.Errorf("stale: %q", got)
	}
}

// A list that is not complete, not its issuer's, from the future, damaged, too large or no list
// is refused, and the error says which file and what is wrong.
func TestListsAreRefused(t *testing.T) {
	root, other := newListIssuer(t, "root", nil), newListIssuer(t, "other", nil)
	forger := newListIssuer(t, "root", nil)
	weak := newListIssuer(t, "weak", nil)
	mayNot := *weak.cert
	mayNot.KeyUsage = x509.KeyUsageCertSign
	authorities := []*x509.Certificate{root.cert, &mayNot}
	with := func(id asn1.ObjectIdentifier, critical bool, value ...byte) []byte {
		return root.list(t, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: id, Critical: critical, Value: value}}
		})
	}
	good := root.list(t, nil, 2)
	damaged := slices.Clone(good)
	damaged[len(damaged)-1] ^= 1
	text := inPEM(good, good)
	for name, c := range map[string]struct {
		data []byte
		want string // empty if it is good
	}{
		"good":                 {good, ""},
		"good PEM":             {text, ""},
		"a part by place":      {with(oidPart, true, 0x30, 0x05, 0xa0, 0x03, 0xa0, 0x01, 0x00), ""},
		"of users' alone":      {with(oidPart, true, 0x30, 0x03, 0x81, 0x01, 0xff), ""},
		"something else":       {with(asn1.ObjectIdentifier{1, 2, 3}, false, 0x05, 0x00), ""},
		"empty":                {nil, "no list of revoked certificates"},
		"text":                 {[]byte("revoked: 2\n"), "neither in PEM nor in DER"},
		"half of it":           {good[:len(good)/2], "no list of revoked certificates"},
		"more behind it":       {append(slices.Clone(good), 0), "something behind the list"},
		"another bit":          {damaged, "not signed by it"},
		"half of a PEM":        {text[:len(text)-40], "cut off or damaged"},
		"damage in a PEM":      {bytes.Replace(text, []byte("\nM"), []byte("\n*"), 1), "cut off or damaged"},
		"a certificate":        {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.cert.Raw}), "only lists of revoked certificates"},
		"a certificate in DER": {root.cert.Raw, "no list of revoked certificates"},
		"of another":           {other.list(t, nil, 2), "of none of the client authorities"},
		"forged":               {forger.list(t, nil, 2), "not signed by it"},
		"who may not":          {weak.list(t, nil, 2), "not signed by it"},
		"from the future":      {root.list(t, func(l *x509.RevocationList) { l.ThisUpdate = noon.Add(10 * time.Minute) }), "begins at"},
		"a delta":              {with(oidDelta, true, 0x02, 0x01, 0x01), "is a delta"},
		"of authorities' only": {with(oidPart, true, 0x30, 0x03, 0x82, 0x01, 0xff), "leaves out"},
		"of some reasons":      {with(oidPart, true, 0x30, 0x04, 0x83, 0x02, 0x01, 0x02), "leaves out"},
		"indirect":             {with(oidPart, true, 0x30, 0x03, 0x84, 0x01, 0xff), "several issuers"},
		"a damaged part":       {with(oidPart, true, 0x30, 0x09), "malformed issuing distribution point"},
		"critical and unknown": {with(asn1.ObjectIdentifier{1, 2, 3}, true, 0x05, 0x00), "critical extension 1.2.3"},
		"an entry of another's": {root.list(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}
		}, 2), "critical extension 2.5.29.29"},
		"a long number": {root.list(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].SerialNumber = new(big.Int).Lsh(big.NewInt(1), 160)
		}, 2), "serial number"},
		"too large": {make([]byte, MaxRevokedFile+1), "larger than"},
		"too many":  {bytes.Repeat(inPEM(good), MaxRevokedLists+1), "more than"},
	} {
		r, err := ReadRevoked([]RevokedFile{{"lists.pem", c.data}}, authorities, false, noon.Add(time.Minute))
		switch {
		case c.want == "" && (err != nil || r == nil):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "lists.pem: ")):
			t.Errorf("%s: %v does not say %q", name, err, c.want)
		}
	}
}

// Whatever a file holds, reading it ends, and what comes out answers.
func FuzzRevoked(f *testing.F) {
	root := newListIssuer(f, "root", nil)
	good := root.list(f, nil, 1, 2)
	f.Add(good)
	f.Add(inPEM(good, good))
	f.Add(root.list(f, func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: oidPart, Critical: true, Value: []byte{0x30, 0x03, 0x81, 0x01, 0xff}}}
	}))
	chain := [][]*x509.Certificate{{root.client(f, 2), root.cert}}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ReadRevoked([]RevokedFile{{"x", data}}, []*x509.Certificate{root.cert}, false, noon)
		if err == nil {
			_ = r.Check(chain, noon)
		}
		_ = checkPart(data)
	})
}
