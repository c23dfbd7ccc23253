package acl

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
)

// NoDomain ends what is wrong with a bare name where there is no domain of bare names: who reads files
// for a command line can say then with which flag it is set.
const NoDomain = "has no domain"

// MaxAddress is the longest address, in bytes.
const MaxAddress = 1023

// ParseAddress returns the canonical form of an address: "Ana@Example.COM." is
// ana@example.com. A bare name such as "ana" takes domain; without one it is
// refused. The part before the @ follows PRECIS UsernameCaseMapped (RFC 8265),
// the domain is returned in A-labels (RFC 5890); both depend on the Unicode
// version this program is built with. Two addresses are one principal exactly
// if their canonical forms are equal.
func ParseAddress(s, domain string) (string, error) {
	if len(s) > MaxAddress {
		return "", problemf("an address of %d bytes", len(s)).Hint("at most %d are possible", MaxAddress)
	}
	local := s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		local, domain = s[:i], s[i+1:]
	} else if domain == "" {
		return "", problemf("%q "+NoDomain, s).Hint("write %s@example.com, for there is no domain of bare names", s)
	}
	local, err := parseLocalPart(local)
	if err != nil {
		return "", err
	}
	domain, err = ParseDomain(domain)
	if err != nil {
		return "", err
	}
	if len(local)+1+len(domain) > MaxAddress {
		return "", problemf("an address of %d bytes", len(local)+1+len(domain)).Hint("at most %d are possible", MaxAddress)
	}
	return local + "@" + domain, nil
}

// parseLocalPart returns what stands before the @ in canonical form.
func parseLocalPart(s string) (string, error) {
	if s == "" {
		return "", problemf("nothing before the @").Hint("an address is name@domain")
	}
	// '@' would make two addresses of one; the others would have to be
	// quoted wherever an address is shown, and '*' is a pattern.
	if i := strings.IndexAny(s, "@*\"<>\\!"); i >= 0 {
		return "", problemf("%q in a name", s[i:i+1]).Hint("names may have letters, digits and most signs, but none of @ * \" < > \\ !")
	}
	if isPlainName(s) {
		return s, nil
	}
	name, err := precis.UsernameCaseMapped.String(s)
	if err != nil {
		return "", problemf("%q is no name", s).Hint("letters, digits and signs only, no spaces (RFC 8265)")
	}
	return name, nil
}

// isPlainName spares ordinary names the tables: printable ASCII without
// capitals maps to itself.
func isPlainName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// ParseDomain returns the canonical form of a domain: lower case, A-labels, no
// final dot.
func ParseDomain(s string) (string, error) {
	d := strings.TrimSuffix(s, ".")
	if d == "" || !utf8.ValidString(d) {
		return "", problemf("%q is not a domain", s).Hint("write for example example.com")
	}
	if !isPlainDomain(d) {
		ascii, err := idna.Lookup.ToASCII(d)
		if err != nil {
			return "", problemf("%q is not a domain", s).Hint("letters, digits and hyphens between dots, for example example.com")
		}
		d = ascii
	}
	if len(d) > 253 || !isPlainDomain(d) {
		return "", problemf("%q is not a domain", s).Hint("labels of 1 to 63 letters, digits and hyphens, 253 characters in all")
	}
	return d, nil
}

// isPlainDomain says whether s is a domain in canonical form that needs no
// tables: no capitals, nothing but letters, digits and hyphens.
func isPlainDomain(s string) bool {
	label := 0 // bytes of this one so far
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 || s[i-1] == '-' {
				return false
			}
			label = 0
			continue
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-' && label > 0:
			label++
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return label > 0 && s[len(s)-1] != '-'
}
