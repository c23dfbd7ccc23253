package link

import (
	"errors"
	"testing"
)

// A node of another cluster that looks for a member of that by our name, at our address,
// is told of; nobody else is, whatever they say.
func TestSeekers(t *testing.T) {
	const old, two = "id of what a was", "cluster two"
	lost := Member{ID: old, Name: "a", Address: "set below", Since: 1}
	for name, test := range map[string]struct {
		change func(c *Config, lost *Member)
		told   bool
	}{
		"who has lost us":              {func(*Config, *Member) {}, true},
		"of a cluster that has a name": {func(c *Config, _ *Member) { c.Called = "bees" }, true},
		"who looks for another":        {func(_ *Config, lost *Member) { lost.Name = "c" }, false},
		"who looks for us as we are":   {func(_ *Config, lost *Member) { lost.ID = "id of a" }, false},
		"of our cluster":               {func(c *Config, _ *Member) { c.Cluster = clusterOne }, false},
		"of no cluster":                {func(c *Config, _ *Member) { c.Cluster = "" }, false},
		"who calls itself as we do":    {func(c *Config, _ *Member) { c.Self.Name = "a" }, false},
		"who does not say what it is":  {func(c *Config, _ *Member) { c.Self.Name = "" }, false},
		"who says that it was us":      {func(c *Config, _ *Member) { c.Self.ID = "id of a" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan Seeker, 10)
			a := newEnd(t, "a", func(c *Config) { c.Sought = func(s Seeker) { told <- s } })
			is := lost
			var cfg Config
			b := newEnd(t, "b", func(c *Config) {
				c.Cluster = two
				test.change(c, &is)
				is.Address = a.self().Address
				c.Book.Learn(is)
				cfg = *c
			})
			c, err := b.Dial(t.Context(), is.ID, planeTest)
			if err == nil {
				c.Close()
				t.Fatal("it is welcome")
			}
			if err := a.Close(); err != nil { // whoever was to be told has been
				t.Fatal(err)
			}
			if got := len(told) == 1; got != test.told || len(told) > 1 {
				t.Fatalf("told %d times, want %v: %v", len(told), test.told, err)
			}
			if !test.told {
				return
			}
			if s := <-told; s.Self != b.self() || s.Cluster != two || s.Called != cfg.Called || s.Wanted != old {
				t.Errorf("told %+v", s)
			}
			if r, ok := errors.AsType[*RefusedError](err); !ok || r.Code != RefusedNode || r.Elsewhere != clusterOne {
				t.Errorf("who looks is told %v", err)
			}
		})
	}
}

// With certificates it is the name that the other's proves: who shows another gets no
// further, whomever it looks for.
func TestSeekerIsProved(t *testing.T) {
	a := newEnd(t, "a", func(c *Config) { c.Sought = func(s Seeker) { t.Errorf("told of %+v", s) } })
	a.cfg.TLS = &TLS{} // judge asks only whether there is one
	defer func() { a.cfg.TLS = nil }()
	was := Member{ID: "id of what a was", Name: "a", Address: "x"}
	h := hello{Version: helloVersion, Cluster: "cluster two", To: was.ID, Self: Member{ID: "id of b", Name: "b", Address: "y"}, Plane: planeTest, Members: []Member{was}}
	for cert, want := range map[string]Refusal{"b": RefusedNode, "a": RefusedName, "mallory": RefusedName, "": RefusedName} {
		if code, _ := a.judge(&h, cert); code != want {
			t.Errorf("by the certificate of %q: %s, want %s; only who is refused by %s is told of", cert, code, want, RefusedNode)
		}
	}
	if _, ok := a.seeker(&h); !ok {
		t.Error("the genuine one is not seen: this shows nothing")
	}
}

// That a node is in another cluster now is believed of who proves its name, and of no
// other.
func TestElsewhereIsProved(t *testing.T) {
	b := newEnd(t, "b", nil)
	b.cfg.TLS = &TLS{} // check asks only whether there is one
	defer func() { b.cfg.TLS = nil }()
	there := Member{ID: "id of a", Name: "a", Address: "x", Since: 1}
	for name, test := range map[string]struct {
		cert string
		said answer
		want string
	}{
		"genuine":            {"a", answer{Refusal: RefusedNode, Cluster: "two", Self: Member{ID: "new", Name: "a"}}, "two"},
		"of another's name":  {"mallory", answer{Refusal: RefusedNode, Cluster: "two", Self: Member{ID: "new", Name: "a"}}, ""},
		"another is there":   {"c", answer{Refusal: RefusedNode, Cluster: "two", Self: Member{ID: "new", Name: "c"}}, ""},
		"of our own cluster": {"a", answer{Refusal: RefusedNode, Cluster: clusterOne, Self: Member{ID: "new", Name: "a"}}, ""},
		"for another reason": {"a", answer{Refusal: RefusedLevel, Cluster: "two", Self: Member{ID: "new", Name: "a"}}, ""},
	} {
		r, ok := errors.AsType[*RefusedError](b.check(&test.said, there, test.cert))
		if !ok || r.Elsewhere != test.want {
			t.Errorf("%s: %+v, want %q", name, r, test.want)
		}
	}
}
