package life

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/golden"
)

// Whatever owners cut and bar, and watchers ask for, end and ask for again: there is a cut
// exactly of what was cut and not asked for since, and is still watched or barred; the index
// by watcher and the wakes say the same; and when nobody watches and no bar is left there is
// nothing.
func TestCuts(t *testing.T) {
	filters := []string{"presence/#", "presence/+/+", "presence/example.com/+", "presence/+/bob", "presence/example.com/bob/#"}
	owners := []string{"presence/example.com/bob", "presence/example.com/carol", "presence/example.net/bob"}
	type pair struct{ topic, watcher string }
	type cut struct {
		until int64
		again bool
	}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		l := newLedger()
		book := func() *Book {
			b := l.book(nil, Limits{})
			b.Widened = func(string) {}
			return b
		}
		model, watched := map[pair]cut{}, map[string]map[string]bool{} // by watcher: filters
		isWatched := func(p pair) bool {
			for f := range watched[p.watcher] {
				pattern, _ := PatternOf("presence", f)
				for _, of := range PatternsOf(p.topic) {
					if of == pattern {
						return true
					}
				}
			}
			return false
		}
		tidy := func() {
			for p, c := range model {
				c.again = c.again || !isWatched(p)
				if model[p] = c; c.again && c.until <= l.now {
					delete(model, p)
				}
			}
		}
		for step := range 300 {
			watcher, filter := fmt.Sprintf("w%d@example.net", r.IntN(4)), filters[r.IntN(len(filters))]
			pattern, _ := PatternOf("presence", filter)
			switch r.IntN(6) {
			case 0, 1:
				if _, err := book().Widen(pattern, Request{Topic: filter, Watcher: watcher, Session: 1}); err != nil {
					t.Fatal(err)
				}
				if watched[watcher] == nil {
					watched[watcher] = map[string]bool{}
				}
				watched[watcher][filter] = true
				for p, c := range model {
					if patterns := PatternsOf(p.topic); p.watcher == watcher && strings.Contains(strings.Join(patterns[:], " ")+" ", pattern+" ") {
						c.again = true
						model[p] = c
					}
				}
			case 2:
				book().Narrow(pattern, watcher, 1, filter)
				delete(watched[watcher], filter)
				l.pass(0, book)
			case 3, 4:
				p := pair{owners[r.IntN(len(owners))], watcher}
				if _, is := model[p]; is || !isWatched(p) {
					continue // its owner does not see it
				}
				c := Cut{Topic: p.topic, Watcher: watcher, ID: "s-x", Event: Deactivated}
				if r.IntN(2) == 0 {
					c.Until = l.now + int64(time.Duration(1+r.IntN(90))*time.Minute)
				}
				if err := book().Cut(c); err != nil {
					t.Fatal(err)
				}
				model[p] = cut{until: c.Until}
			default:
				l.pass(time.Duration(r.IntN(40))*time.Minute, book)
			}
			tidy()
			b := book()
			found, index := 0, 0
			l.Each(cutPrefix, "", func(key string, value []byte) bool {
				c := ReadCut(key, value)
				is, ok := model[pair{c.Topic, c.Watcher}]
				if !ok || is != (cut{c.Until, c.Again}) {
					t.Fatalf("seed %d, step %d: there is %+v, want %+v %t", seed, step, c, is, ok)
				}
				if c.Until > l.now && l.wakes[fmt.Sprintf("%020d %s", c.Until, wakeCut+c.Topic+"\x00"+c.Watcher)] == 0 {
					t.Fatalf("seed %d, step %d: %+v has no wake", seed, step, c)
				}
				if until := max(0, c.Until); b.barred(c.Topic, c.Watcher) != until && until > l.now {
					t.Fatalf("seed %d, step %d: %+v bars until %d", seed, step, c, b.barred(c.Topic, c.Watcher))
				}
				found++
				return true
			})
			l.Each(cutByPrefix, "", func(string, []byte) bool { index++; return true })
			if found != len(model) || index != found {
				t.Fatalf("seed %d, step %d: %d cuts, %d by watcher, want %v", seed, step, found, index, model)
			}
		}
		for watcher := range watched {
			for filter := range watched[watcher] {
				pattern, _ := PatternOf("presence", filter)
				book().Narrow(pattern, watcher, 1, filter)
			}
		}
		l.pass(2*time.Hour, book)
		if len(l.keys) > 0 || len(l.wakes) > 0 {
			t.Fatalf("seed %d: nobody watches, and there is %q, %v", seed, l.keys, l.wakes)
		}
	}
}

// Whom very many owners have cut asks by one SUBSCRIBE, which looks through them in pieces;
// what is cut while it does stands.
func TestCutsInPieces(t *testing.T) {
	l := newLedger()
	book := func() *Book {
		b := l.book(nil, Limits{})
		b.Widened = func(string) {}
		return b
	}
	const watcher, pattern = "w@example.net", "example.com/+"
	ask := func() {
		if _, err := book().Widen(pattern, Request{Topic: "presence/example.com/+", Watcher: watcher, Session: 1}); err != nil {
			t.Fatal(err)
		}
	}
	cut := func(i int) {
		if err := book().Cut(Cut{Topic: fmt.Sprintf("presence/example.com/o%04d", i), Watcher: watcher, ID: "s-x", Event: Deactivated}); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int) {
		l.Each(cutPrefix, "", func(string, []byte) bool { n++; return true })
		return n
	}
	ask()
	for i := range 300 {
		cut(i)
	}
	ask()
	if n := left(); n != 300-followPiece {
		t.Errorf("%d are left at once", n)
	}
	cut(250)
	l.pass(0, book)
	l.pass(0, book)
	if n := left(); n != 1 {
		t.Errorf("%d are left, want the one that was cut meanwhile", n)
	}
	// Whoever has the name later was cut by nobody, and has cut nobody.
	if err := book().Cut(Cut{Topic: "presence/example.com/w", Watcher: "other@example.net", ID: "s-x", Event: Probation, Until: l.now + int64(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if !book().Forget("presence/example.com/w", watcher) || left() != 0 {
		t.Errorf("%d are left of who is forgotten", left())
	}
}

// The binary form stays as it is.
func TestCutForms(t *testing.T) {
	c := &Cut{
		Topic: "presence/example.com/bob", Watcher: "?1a", ID: "s-x", As: Somebody, Client: "pc", Event: Probation,
		Asked: 1, At: 2, Until: 3, Again: true, changed: 300,
	}
	golden.Forms(t, "cut.txt", []golden.Form{
		{Name: "cut/full/4", Bytes: c.encode()},
		{Name: "cut/empty/4", Bytes: (&Cut{}).encode()},
	})
	if is := ReadCut(cutKey(c.Topic, c.Watcher), c.encode()); *is != *c {
		t.Errorf("read as %+v, was %+v", is, c)
	}
}
