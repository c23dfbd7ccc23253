package life

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/golden"
)

// A filter is of a pattern exactly if it matches resources, and then the four patterns of a
// resource are those of all filters that match it.
func TestPatterns(t *testing.T) {
	words := []string{"presence", "location", "example.com", "bob", "+", "#", ""}
	resources := []string{"presence/example.com/bob", "presence/example.net/bob", "presence/example.com/ann", "location/example.com/bob", "presence/bob/example.com"}
	filters := map[string]bool{}
	var add func(levels []string)
	add = func(levels []string) {
		if f := strings.Join(levels, "/"); topic.ValidFilter(f) == nil && topic.HasWildcard(f) {
			filters[f] = true
		}
		if len(levels) < 5 {
			for _, w := range words {
				add(append(slices.Clone(levels), w))
			}
		}
	}
	add(nil)
	tried := 0
	for f := range filters {
		pattern, ok := PatternOf("presence", f)
		for _, r := range resources {
			patterns := PatternsOf(r)
			is := ok && strings.HasPrefix(r, "presence/") && slices.Contains(patterns[:], pattern)
			if matches := topic.Match(f, r) && strings.HasPrefix(r, "presence/"); is != matches {
				t.Errorf("%s is of %q (%t): concerns %s: %t, matches: %t", f, pattern, ok, r, is, matches)
			}
			tried++
		}
	}
	if tried < 1000 {
		t.Errorf("only %d were tried", tried)
	}
}

// Whatever happens, there is one subscription by a pattern for each watcher who has asked
// and has not ended it, whose time is not over; how many there are, the index by watcher and
// the wakes say the same; bounds hold; and whoever ends is told of.
func TestWide(t *testing.T) {
	type part struct {
		watcher, pattern, filter string
		session                  uint64
	}
	filters := []string{"presence/#", "presence/+/+", "presence/example.com/+", "presence/example.com/#", "presence/+/bob", "#", "presence/example.com/bob/#"}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		l := newLedger()
		var told []string
		book := func() *Book {
			b := l.book(nil, Limits{Wides: 4, WidesBy: 2, SessionsSharing: 3, MostExpires: time.Hour})
			b.Widened = func(pattern string) { told = append(told, pattern) }
			return b
		}
		model := map[part]int64{} // when it is over, 0 for never
		count := func(of func(p part) bool) int {
			found := map[string]bool{}
			for p := range model {
				if of(p) {
					found[p.watcher+" "+p.pattern] = true
				}
			}
			return len(found)
		}
		for step := range 400 {
			p := part{watcher: fmt.Sprintf("w%d@example.net", r.IntN(6)), filter: filters[r.IntN(len(filters))], session: uint64(1 + r.IntN(5))}
			p.pattern, _ = PatternOf("presence", p.filter)
			told = nil
			switch r.IntN(5) {
			case 0, 1, 2:
				asked := Request{Topic: p.filter, Watcher: p.watcher, Session: p.session}
				until := int64(0)
				if r.IntN(2) == 0 {
					asked.Bounded, asked.Expires = true, time.Duration(1+r.IntN(100))*time.Minute
					until = l.now + int64(min(asked.Expires, time.Hour))
				}
				_, had := model[p]
				fresh := count(func(q part) bool { return q.watcher == p.watcher && q.pattern == p.pattern }) == 0
				parts := 0
				for q := range model {
					if q.watcher == p.watcher && q.pattern == p.pattern {
						parts++
					}
				}
				full := fresh && (count(func(q part) bool { return q.pattern == p.pattern }) >= 4 || count(func(q part) bool { return q.watcher == p.watcher }) >= 2) || !had && parts >= 3
				_, err := book().Widen(p.pattern, asked)
				if full != errors.Is(err, ErrQuota) || !full && err != nil {
					t.Fatalf("seed %d, step %d: %v, full: %t", seed, step, err, full)
				}
				if err == nil {
					model[p] = until
				}
				if (err == nil) != slices.Equal(told, []string{p.pattern}) {
					t.Fatalf("seed %d, step %d: told of %q", seed, step, told)
				}
			case 3:
				_, had := model[p]
				book().Narrow(p.pattern, p.watcher, p.session, p.filter)
				delete(model, p)
				l.pass(0, book)
				if had != (len(told) == 1) {
					t.Fatalf("seed %d, step %d: told of %q, had %t", seed, step, told, had)
				}
			default:
				l.ended = nil
				l.pass(time.Duration(r.IntN(30))*time.Minute, book)
				var over []string
				for q, until := range model {
					if until != 0 && until <= l.now {
						over = append(over, fmt.Sprint(q.session, " ", q.filter))
						delete(model, q)
					}
				}
				slices.Sort(over)
				if slices.Sort(l.ended); !slices.Equal(l.ended, over) {
					t.Fatalf("seed %d, step %d: ended %q, want %q", seed, step, l.ended, over)
				}
			}
			checkWides(t, l, len(model), count(func(part) bool { return true }))
		}
		for p := range model {
			book().Narrow(p.pattern, p.watcher, p.session, p.filter)
		}
		l.pass(0, book)
		if len(l.keys) > 0 || len(l.wakes) > 0 {
			t.Fatalf("seed %d: nobody watches, and there is %v, %v", seed, l.keys, l.wakes)
		}
	}
}

// checkWides compares what a state says of them with itself, and with how many there are.
func checkWides(t *testing.T, l *ledger, parts, all int) {
	t.Helper()
	many, index, counted := map[string]int{}, 0, 0
	l.Each(widePrefix, "", func(key string, value []byte) bool {
		w := ReadWide(key, value)
		many[w.Pattern]++
		parts -= len(w.Parts)
		if l.Get(WideBy(w.Watcher)+w.Pattern) == nil {
			t.Fatalf("%s is not found by its watcher", key)
		}
		if w.wake != 0 && l.wakes[fmt.Sprintf("%020d %s", w.wake, wakeWide+w.Pattern+"\x00"+w.Watcher)] == 0 {
			t.Fatalf("%s has no wake", key)
		}
		return true
	})
	l.Each(wideByPrefix, "", func(string, []byte) bool { index++; return true })
	l.Each(widePlacePrefix, "", func(key string, value []byte) bool {
		n, _ := ReadWidePlace(value)
		if counted += n; n != many[key[len(widePlacePrefix):]] {
			t.Fatalf("%q: counted are %d of %d", key, n, many[key[len(widePlacePrefix):]])
		}
		return true
	})
	if parts != 0 || index != all || counted != all {
		t.Fatalf("%d parts too few, %d in the index, %d counted, want %d", parts, index, counted, all)
	}
}

// Two owners cannot tell that they are watched by one filter, and one owner knows a
// subscription from the next.
func TestWideIDs(t *testing.T) {
	l := newLedger()
	b := l.book(nil, Limits{})
	b.Widened = func(string) {}
	ids := map[string]bool{}
	for range 2 {
		w, err := b.Widen("example.com/+", Request{Topic: "presence/example.com/+", Watcher: "ann@example.net", Session: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, topicName := range []string{"presence/example.com/bob", "presence/example.com/carol"} {
			if ids[w.IDFor(topicName)] = true; w.IDFor(topicName) != ReadWide(wideKey(w.Pattern, w.Watcher), w.encode()).IDFor(topicName) {
				t.Error("it has another id when it is read")
			}
		}
		b.Narrow("example.com/+", "ann@example.net", 1, "presence/example.com/+")
		l.place++
	}
	if len(ids) != 4 {
		t.Errorf("there are %d ids: %v", len(ids), ids)
	}
}

// The binary form stays as it is.
func TestWideForms(t *testing.T) {
	w := &Wide{
		Pattern: "example.com/+", Watcher: "ann@example.net", Asked: 1, Note: "hi", seed: []byte("seed"), changed: 300, wake: 7,
		Parts: []Part{{1, "presence/example.com/+", 7}, {2, "presence/example.com/#", 0}},
	}
	golden.Forms(t, "wide.txt", []golden.Form{
		{Name: "wide/full/4", Bytes: w.encode()},
		{Name: "wide/empty/4", Bytes: (&Wide{}).encode()},
	})
	if is := ReadWide(wideKey(w.Pattern, w.Watcher), w.encode()); fmt.Sprint(is) != fmt.Sprint(w) {
		t.Errorf("read as %+v, was %+v", is, w)
	}
}
