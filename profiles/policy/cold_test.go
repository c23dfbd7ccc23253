package policy

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
)

// A look at somebody who has set no policy parses one about as often as looks at others do
// of late: always after a start, never while all are in memory, and so it changes no answer.
func TestLooksAreAsCold(t *testing.T) {
	k := presence.New(nil)
	c := NewCache(k)
	documents := map[kind.Addr][]byte{}
	for i := range 500 {
		a := kind.Of(fmt.Sprintf("u%d@example.com", i))
		documents[a] = []byte(fmt.Sprintf(`{"v":1,"rules":[{"id":"r%d","then":{"handling":"allow"}}]}`, i))
	}
	nobodies := 0
	// decoys returns how many of n looks at addresses that nobody has have parsed something.
	decoys := func(n int) (parsed int) {
		for range n {
			nobodies++
			a := kind.Of(fmt.Sprintf("n%d@example.com", nobodies))
			before := c.cold.given
			if p := c.Read(a, k.DefaultPolicy(a)); p == nil || p.owner != a || !p.standard {
				t.Fatalf("of %s is read %+v", a, p)
			}
			parsed += c.cold.given - before
		}
		return parsed
	}
	if n := decoys(10); n != 0 {
		t.Errorf("where nobody has a policy %d of 10 looks parse one", n)
	}
	for a, document := range documents { // each the first, and again with the same look
		for range warmAfter {
			c.Read(a, document)
		}
	}
	if n := decoys(100); n < 95 {
		t.Errorf("while all are cold %d of 100 looks parse one", n)
	}
	for range 3 {
		for a, document := range documents {
			c.Read(a, document)
		}
	}
	if n := decoys(100); n > 2 {
		t.Errorf("while all are in memory %d of 100 looks parse one", n)
	}
	for i := range 400 { // of every two one is cold
		a := kind.Of(fmt.Sprintf("v%d@example.com", i))
		c.Read(a, []byte(fmt.Sprintf(`{"v":1,"rules":[{"id":"v%d","then":{"handling":"allow"}}]}`, i)))
		c.Read(kind.Of("u1@example.com"), documents[kind.Of("u1@example.com")])
	}
	if n := decoys(100); n < 40 || n > 60 {
		t.Errorf("while half are cold %d of 100 looks parse one", n)
	}
	// Whoever sets another policy has not been looked at.
	share := c.cold.share
	c.Read(kind.Of("u1@example.com"), []byte(`{"v":1}`))
	if c.cold.share != share {
		t.Errorf("another policy counts as a look: %v, before %v", c.cold.share, share)
	}
}

// Fillers are policies that each kind takes, of the lengths that they are to have; to parse a
// short policy and what fills it takes about what a long one takes.
func TestFillers(t *testing.T) {
	k := presence.New(nil)
	owner := kind.Of("bob@example.com")
	all := newFillers()
	for i, f := range all {
		if want := (i + 1) * fillerStep; len(f) > want || want > 128 && len(f) != want {
			t.Errorf("filler %d has %d bytes, want %d: %s", i, len(f), want, f)
		}
		if _, err := Parse(f, k, owner); err != nil {
			t.Errorf("filler %d: %v\n%s", i, err, f)
		}
	}
	c := NewCache(k)
	cost := func(document string) float64 {
		return testing.AllocsPerRun(50, func() {
			if _, err := c.parseFirst([]byte(document), owner); err != nil {
				t.Fatal(err)
			}
		})
	}
	least, most := 1e9, 0.0
	for _, d := range []string{
		`{"v":1,"rules":[{"id":"r","then":{"handling":"polite-block"}}]}`,
		`{"v":1,"rules":[{"id":"r","then":{"handling":"allow"},"show":{"services":["*"]}}]}`,
		`{"v":1,"rules":[{"id":"r","if":{"weekly":{"tz":"UTC","windows":[{"days":["sat"],"start":"08:00","end":"09:00"}]}},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`,
		`{"v":1,"rules":[{"id":"r","then":{"handling":"block","style":"ignore"}}]}`,
		`{"v":1,"defaults":{"handling":"confirm"}}`,
	} {
		n := cost(d)
		t.Logf("%3.0f allocations: %s", n, d)
		least, most = min(least, n), max(most, n)
	}
	if most > 1.35*least {
		t.Errorf("from %v to %v allocations", least, most)
	}
}
