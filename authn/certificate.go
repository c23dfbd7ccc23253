package authn

import (
	"crypto/x509"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/acl"
)

// Certified returns the principal that a client certificate names, which TLS has verified
// and by is about. The first place in the order of by.Names that names anybody whom a
// certificate may name decides, and it must name one. bare is the domain of bare names.
// The error is a *Refusal.
func Certified(cert *x509.Certificate, by *acl.Login, bare string) (principal string, err error) {
	for _, place := range by.Names {
		var found []string
		for _, name := range names(cert, place) {
			address, err := acl.ParseAddress(name, bare)
			if err != nil {
				continue
			}
			_, domain, _ := strings.Cut(address, "@")
			if slices.Contains(by.Domains, domain) && !slices.Contains(found, address) {
				found = append(found, address)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return "", refuse("certificate_name", "it names %d principals: %.200q", len(found), found)
		}
	}
	return "", refuse("certificate_name", "it names nobody whom a certificate may name")
}

// names returns what a certificate has in one of acl.Names, as addresses.
func names(cert *x509.Certificate, place string) (all []string) {
	switch place {
	case "uri":
		for _, u := range cert.URIs {
			if (u.Scheme == "pres" || u.Scheme == "im") && u.Opaque != "" {
				all = append(all, u.Opaque)
			}
		}
	case "email":
		all = cert.EmailAddresses
	case "dns":
		for _, name := range cert.DNSNames {
			if host, domain, ok := strings.Cut(name, "."); ok && host != "*" {
				all = append(all, host+"@"+domain)
			}
		}
	case "cn":
		if cert.Subject.CommonName != "" {
			all = []string{cert.Subject.CommonName}
		}
	}
	return all
}
