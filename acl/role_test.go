package acl

import (
	"strings"
	"testing"
)

// A role is for those whom it names, about one domain; one for everybody, without a
// domain or with another's id is a fault.
func TestRoles(t *testing.T) {
	p := parsed(t, `
groups: {it: [ana, cy@y.org]}
roles:
  - {id: x, who: [group:it], domain: X.org}
  - {id: y, who: [cy@y.org], domain: y.org}
  - {id: z, who: ["*@z.org"], domain: y.org}
`)
	for who, want := range map[string]string{"ana@x.org": "x.org", "cy@y.org": "x.org y.org", "q@z.org": "y.org", "bo@x.org": "", "": ""} {
		if got := strings.Join(p.Administers(who), " "); got != want {
			t.Errorf("%q administers %q, want %q", who, got, want)
		}
	}
	_, err := Parse("policy.yaml", []byte(`roles:
  - {id: a, who: [anyone], domain: x.org}
  - {id: a, who: [ana@x.org]}
  - {id: b, who: [ana@x.org], domain: "no domain"}
  - {who: ["*@*"], domain: x.org, admin: y}
`), "")
	bad, ok := err.(*FileError)
	if !ok {
		t.Fatal(err)
	}
	for _, want := range []string{":2:", "a role for everybody", ":3:", "without a domain", `a second role with id "a"`, ":4:", "is not a domain", ":5:", "admin"} {
		if !strings.Contains(bad.Error(), want) {
			t.Errorf("no %q in\n%v", want, bad)
		}
	}
}

// Of who may do something, an administrator sees the people of the domain: named ones,
// those whom a pattern of the domain or of everybody stands for, and exceptions.
func TestOfDomains(t *testing.T) {
	for _, c := range []struct{ answers, want string }{
		{"ana@x.org bo@y.org anonymous", "bo@y.org"},
		{"*@* !bo@y.org !ana@x.org", "!bo@y.org *@y.org"},
		{"*@* !*@y.org bo@y.org", "bo@y.org"},
		{"*@y.org !bo@y.org *@x.org", "!bo@y.org *@y.org"},
		{"*@sub.y.org bo@not-y.org", ""},
	} {
		if got := strings.Join(OfDomains(strings.Fields(c.answers), []string{"y.org"}), " "); got != c.want {
			t.Errorf("of %s: %q, want %q", c.answers, got, c.want)
		}
	}
}
