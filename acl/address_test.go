package acl

import (
	"strings"
	"testing"
)

// An address has one canonical form however it is written, and what cannot be
// one is refused.
func TestParseAddress(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"ana@example.com", "ana@example.com"},
		{"Ana@EXAMPLE.com", "ana@example.com"},
		{"ana@example.com.", "ana@example.com"},
		{"ana", "ana@home.example"},
		{"thermo-17", "thermo-17@home.example"},
		{"a+b/c#d%e$f@example.com", "a+b/c#d%e$f@example.com"},
		{"JÖRG@bücher.example", "jörg@xn--bcher-kva.example"},
		{"ｂｏ@example.com", "bo@example.com"}, // full width
		{"bo@XN--BCHER-KVA.example", "bo@xn--bcher-kva.example"},
		{"bo@localhost", "bo@localhost"},
		{"", ""},
		{"@example.com", ""},
		{"ana@", ""},
		{"ana@.", ""},
		{"ana@exa mple.com", ""},
		{"ana@-example.com", ""},
		{"ana@example-.com", ""},
		{"ana@example..com", ""},
		{"ana@exam_ple.com", ""},
		{"ana@" + strings.Repeat("a", 64) + ".com", ""},
		{"ana@" + strings.Repeat("a.", 127) + "com", ""},
		{"a b@example.com", ""},
		{"a@b@example.com", ""},
		{"*@example.com", ""},
		{"a\x00b@example.com", ""},
		{"a\xffb@example.com", ""},
		{strings.Repeat("a", 1012) + "@example.com", ""},
		{strings.Repeat("a", 1011) + "@example.com", strings.Repeat("a", 1011) + "@example.com"},
	} {
		got, err := ParseAddress(c.in, "home.example")
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v, want %q", c.in, got, err, c.want)
		}
		if err == nil {
			if again, err := ParseAddress(got, ""); again != got || err != nil {
				t.Errorf("%q is not canonical: becomes %q, %v", got, again, err)
			}
		}
	}
	if _, err := ParseAddress("ana", ""); err == nil || !strings.Contains(err.Error(), "has no domain") {
		t.Errorf("a bare name without a domain: %v", err)
	}
}
