package acl

import "testing"

// Who is of a group is asked by the address in its canonical form.
func TestIn(t *testing.T) {
	p, err := Parse("policy", []byte("groups:\n  operators: [ana, Bo@Example.org]\n  empty-ish: [x@example.com]\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]bool{"ana@example.com": true, canonical(t, "Bo@Example.org"): true, "x@example.com": false, "": false, "ana": false} {
		if got := p.In("operators", who); got != want {
			t.Errorf("%q: %t", who, got)
		}
	}
	if p.In("nobody", "ana@example.com") {
		t.Error("a group that there is not has a member")
	}
}

func canonical(t *testing.T, address string) string {
	t.Helper()
	c, err := ParseAddress(address, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}
