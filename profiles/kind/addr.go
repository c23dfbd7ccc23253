package kind

import (
	"fmt"
	"strings"

	"github.com/bellwire/bellwire/acl"
)

// An Addr is the canonical address of a principal: a name in PRECIS
// UsernameCaseMapped (RFC 8265) and a domain in lower-case A-labels. Two
// addresses are one principal exactly if they are equal. A URI's scheme is not
// in it: pres:bob@example.com and im:bob@example.com are bob's.
//
// The zero Addr is nobody: a watcher who has not authenticated.
type Addr struct{ Local, Domain string }

// Of returns the address of a principal whose canonical form is known already,
// such as the one a session has authenticated as. It checks nothing; of a
// string without an @ it makes the zero Addr.
func Of(principal string) Addr {
	i := strings.LastIndexByte(principal, '@')
	if i < 0 {
		return Addr{}
	}
	return Addr{Local: principal[:i], Domain: principal[i+1:]}
}

// ParseAddr reads an address as people write it: bob@example.com,
// Bob@EXAMPLE.com., pres:bob@example.com, im:j%C3%BCrgen@example.com?subject=x
// (what follows the ? takes no part in identity). In a URI percent-escapes are
// resolved. A slash or a # must be escaped in one, for a reader would take them
// for the end of the name, and so must a colon, for what stands before it would
// be a scheme. The error wraps ErrAddress.
func ParseAddr(s string) (Addr, error) {
	scheme, a, err := parseURI(s)
	if err == nil && a.IsZero() {
		err = addressf("%s: URIs name nobody here: write a name and domain, such as bob@example.com", short(scheme))
	}
	return a, err
}

// ParseURI is ParseAddr for places where only a URI will do (RFC 4745 section
// 7.1): the scheme, in lower case, must be there. For schemes that are not ours
// (Ours) the address is zero and err is nil: they are somebody's names, but no
// principal's.
func ParseURI(s string) (scheme string, a Addr, err error) {
	scheme, a, err = parseURI(s)
	if err == nil && scheme == "" {
		err = addressf("%q is no URI: write pres:%s", short(s), short(s))
	}
	return scheme, a, err
}

// Ours says whether a URI scheme names principals here.
func Ours(scheme string) bool {
	switch scheme {
	case "pres", "im", "evt":
		return true
	}
	return false
}

func parseURI(s string) (scheme string, a Addr, err error) {
	if len(s) > 3*acl.MaxAddress {
		return "", Addr{}, addressf("an address of %d bytes: at most %d are possible", len(s), acl.MaxAddress)
	}
	rest := s
	if i := strings.IndexByte(s, ':'); i > 0 && isScheme(s[:i]) {
		scheme = strings.ToLower(s[:i])
		if !Ours(scheme) {
			if len(s) == i+1 {
				err = addressf("%q is no URI", short(s))
			}
			return scheme, Addr{}, err
		}
		rest, _, _ = strings.Cut(s[i+1:], "?")
	}
	if i := strings.IndexAny(rest, "/#"); i >= 0 {
		return "", Addr{}, addressf("%q in an address: in a URI write %%%02X", rest[i:i+1], rest[i])
	}
	if scheme != "" {
		if rest, err = percentDecoded(rest); err != nil {
			return "", Addr{}, err
		}
	}
	canonical, err := acl.ParseAddress(rest, "")
	if err != nil {
		return "", Addr{}, addressf("%v", err)
	}
	return scheme, Of(canonical), nil
}

// isScheme says whether s is a scheme by RFC 3986 section 3.1.
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// percentDecoded resolves the percent-escapes of a URI.
func percentDecoded(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		high, low := -1, -1
		if i+2 < len(s) {
			high, low = hexDigit(s[i+1]), hexDigit(s[i+2])
		}
		if high < 0 || low < 0 {
			return "", addressf("%q has a %% that two hexadecimal digits do not follow", short(s))
		}
		b = append(b, byte(high<<4|low))
		i += 2
	}
	return string(b), nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// IsZero says whether a is nobody.
func (a Addr) IsZero() bool { return a == Addr{} }

// String returns the address as a principal is written: bob@example.com.
func (a Addr) String() string {
	if a.IsZero() {
		return ""
	}
	return a.Local + "@" + a.Domain
}

// URI returns the address as a URI, in ASCII: pres:bob@example.com. What RFC
// 3986 does not allow in a path, and / and %, are percent-escaped.
func (a Addr) URI(scheme string) string {
	b := make([]byte, 0, len(scheme)+len(a.Local)+len(a.Domain)+2)
	b = append(append(b, scheme...), ':')
	for i := range len(a.Local) {
		if c := a.Local[i]; inPath(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(append(append(b, '@'), a.Domain...))
}

const upperHex = "0123456789ABCDEF"

// inPath says whether a byte stands for itself in the name part of a URI.
func inPath(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("-._~!$&'()*+,;=:", c) >= 0
}

func addressf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrAddress, fmt.Sprintf(format, args...))
}

// short returns s short enough for a message.
func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
