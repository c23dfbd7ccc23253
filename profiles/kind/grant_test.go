package kind

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

var somePermissions = []Permission{
	{Name: "services", Type: PermSet},
	{Name: "note", Type: PermBool},
	{Name: "userInput", Type: PermMax, Words: []string{"none", "bare", "thresholds", "full"}},
	{Name: "radius", Type: PermMin, Max: 1e6},
	{Name: "retention", Type: PermMax, Max: 86400},
}

func drawGrant(t *rapid.T, label string) Grant {
	var perms []Perm
	for _, p := range somePermissions {
		if rapid.Bool().Draw(t, label+" "+p.Name) {
			perms = append(perms, drawPerm(t, p))
		}
	}
	return NewGrant(perms...)
}

func drawPerm(t *rapid.T, p Permission) Perm {
	perm := Perm{Name: p.Name, Type: p.Type}
	switch p.Type {
	case PermMax:
		perm.N = rapid.Int64Range(0, min(3, p.Most())).Draw(t, "level")
	case PermMin:
		perm.N = rapid.Int64Range(0, 3).Draw(t, "min")
	case PermSet:
		perm.Set = rapid.SliceOfN(rapid.SampledFrom([]string{"im", "sip", "tel", "*"}), 0, 3).Draw(t, "set")
	}
	return perm
}

// A grant is itself, and what was made alike need not be.
func TestIs(t *testing.T) {
	g, h := NewGrant(Perm{Name: "a", Type: PermBool}), NewGrant(Perm{Name: "a", Type: PermBool})
	if !g.Is(g) || !g.Is(g.Union(Grant{})) || g.Is(Grant{}) || g.Is(h) || !(Grant{}).Is(Grant{}) {
		t.Error("one value is not itself, or another")
	}
	if !Together(Grant{}, g, Grant{}).Is(g) || !Together().Is(Grant{}) || !Together(Grant{}).IsZero() {
		t.Error("together with nothing it is another")
	}
}

// Grants combine like sets: the order of rules, and one rule twice, make no
// difference; a union covers its parts and nothing less does.
func TestGrantsCombine(t *testing.T) {
	most := Most(somePermissions)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawGrant(t, "a"), drawGrant(t, "b"), drawGrant(t, "c")
		same := func(what string, g, h Grant) {
			if g.Class() != h.Class() || !g.Covers(h) || !h.Covers(g) {
				t.Errorf("%s: %+v is not %+v", what, g, h)
			}
		}
		u := a.Union(b)
		same("commutative", u, b.Union(a))
		same("associative", u.Union(c), a.Union(b.Union(c)))
		same("together", u.Union(c), Together(c, a, Grant{}, b, a))
		for _, name := range []string{"im", "sip", "tel", Everything} { // as a set has them that is not in order
			for _, g := range []Grant{a, u, Together(a, b, c)} {
				if set := g.Set("services"); g.Allows("services", name) != (slices.Contains(set, Everything) || slices.Contains(set, name)) {
					t.Errorf("whether %+v allows %s", g, name)
				}
			}
		}
		same("idempotent", a, a.Union(a))
		same("nothing", a, a.Union(Grant{}))
		if !u.Covers(a) || !u.Covers(b) || !most.Covers(u) {
			t.Errorf("%+v does not cover %+v and %+v, or most does not cover it", u, a, b)
		}
		if c.Covers(a) && c.Covers(b) && !c.Covers(u) {
			t.Errorf("%+v covers the parts and not the union", c)
		}
		if a.Covers(b) && b.Covers(a) != (a.Class() == b.Class()) {
			t.Errorf("classes of %+v and %+v", a, b)
		}
		for _, p := range u.Perms() {
			if p.Type == PermSet && !slices.IsSorted(p.Set) {
				t.Errorf("%q is not in order", p.Set)
			}
		}
		if a.IsZero() != (a.Class() == Grant{}.Class()) {
			t.Errorf("%+v is not nothing, yet of its class", a)
		}
	})
}

// Each type of permission combines in its own way, and reads back in a policy's
// form.
func TestUnionByType(t *testing.T) {
	a := NewGrant(Perm{Name: "userInput", Type: PermMax, N: 1}, Perm{Name: "services", Type: PermSet, Set: []string{"sip", "im"}},
		Perm{Name: "radius", Type: PermMin, N: 5000}, Perm{Name: "services", Type: PermSet, Set: []string{"im"}})
	b := NewGrant(Perm{Name: "userInput", Type: PermMax, N: 2}, Perm{Name: "services", Type: PermSet, Set: []string{"*"}},
		Perm{Name: "radius", Type: PermMin, N: 10}, Perm{Name: "note", Type: PermBool}, Perm{Name: "empty", Type: PermSet})
	for _, c := range []struct {
		g    Grant
		want string
	}{
		{a, `{"radius":5000,"services":["im","sip"],"userInput":"bare"}`},
		{b, `{"note":true,"radius":10,"services":["*"],"userInput":"thresholds"}`},
		{a.Union(b), `{"note":true,"radius":10,"services":["*","im","sip"],"userInput":"thresholds"}`},
		{Most(somePermissions), `{"note":true,"radius":0,"retention":86400,"services":["*"],"userInput":"full"}`},
		{Grant{}, `{}`},
	} {
		if got := string(c.g.Append(nil, somePermissions)); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
	u := a.Union(b)
	if n, ok := u.Min("radius"); n != 10 || !ok || u.Max("userInput") != 2 || !u.Has("note") || !u.Allows("services", "tel") || a.Allows("services", "tel") {
		t.Errorf("%+v", u)
	}
	if _, ok := a.Min("other"); ok || a.Max("other") != 0 || a.Set("other") != nil || a.Has("other") {
		t.Error("what is not granted is granted")
	}
}

// A class is written into caches and keys of every node: it does not change
// with the program.
func TestClassesAreForGood(t *testing.T) {
	for _, c := range []struct {
		g    Grant
		want string
	}{
		{Grant{}, "faf854ff055b7b16af5d384faf5a9f05"},
		{Most(somePermissions), "8bbaed54f2f380a03da2344ff50d75d5"},
		{NewGrant(Perm{Name: "services", Type: PermSet, Set: []string{"im", "*"}}), "f866eb7d2927f3143831323ccba17c8f"},
		{NewGrant(Perm{Name: "services", Type: PermSet, Set: []string{"*"}}), "f866eb7d2927f3143831323ccba17c8f"},
		{NewGrant(Perm{Name: "radius", Type: PermMin, N: 0}), "595f61ad976f95ac582967ed210ad477"},
	} {
		if got := c.g.Class().String(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.g, got, c.want)
		}
	}
}
