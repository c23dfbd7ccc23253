package acl

import (
	"fmt"
	"strings"
	"testing"
)

// Each entry of `who` means those it should and nobody else.
func TestWho(t *testing.T) {
	people := []string{"", "ana@example.com", "bo@example.com", "ana@example.net", "ana@sub.example.com", "anonymous@example.com", "anyone@example.com"}
	for _, c := range []struct{ who, want string }{
		{"anyone", "1111111"},
		{"*", "1111111"},
		{"*@*", "0111111"},
		{"anonymous", "1000000"},
		{"*@example.com", "0110011"},
		{"*@Example.COM.", "0110011"},
		{"ana@example.com", "0100000"},
		{"ANA", "0100000"},
		{"group:staff", "0010100"},
		{"anonymous@example.com", "0000010"},
		{"anyone@example.com", "0000001"},
		{"anonymous, group:staff", "1010100"},
	} {
		entries := `"` + strings.ReplaceAll(c.who, ", ", `", "`) + `"`
		p := mustParse(t, fmt.Sprintf(`
groups: {staff: [bo, ana@sub.example.com]}
rules:
  - {id: r, allow: [publish], who: [%s], topic: [x]}
`, entries))
		got := ""
		for _, principal := range people {
			d := p.Decide(Who{Principal: principal}, Publish, "x", morning)
			got += map[bool]string{true: "1", false: "0"}[d.Allow]
			why, _ := p.rules[0].who.why(principal)
			if not := strings.HasSuffix(why, "is not listed"); not == d.Allow {
				t.Errorf("%s by %q: %v, because %s", c.who, principal, d.Allow, why)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.who, got, c.want)
		}
	}
}
