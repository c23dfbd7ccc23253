package life

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/policy"
)

// hours is a verdict about a window that is open in every even hour of the log's time.
func hours(now int64, then Windowed) Verdict {
	const hour = int64(time.Hour)
	v := Verdict{Handling: policy.Allow, Windowed: then}
	next := (now/hour + 1) * hour
	v.Edge = next
	if open := now/hour%2 == 0; !open {
		v.Window, v.Closes, v.Opens = Shut, 0, next
		v.Ended = then.Ended
	} else {
		v.Window, v.Ended = Open, false
		if then.Ended {
			v.Closes = next
		}
	}
	return v
}

// edges returns the wakes that are set because of windows.
func (l *ledger) edges() (n int) {
	for name := range l.wakes {
		if strings.Contains(name, wakeEdge) {
			n++
		}
	}
	return n
}

// However many watch a resource, one wake is set for all their windows, at the first
// edge, and each of them is told once at each edge.
func TestOneWakeForAllWindows(t *testing.T) {
	l := newLedger()
	book := func() *Book {
		return l.book(func(string, string) Verdict { return hours(l.now, Windowed{}) }, Limits{})
	}
	const topic, many = "presence/example.com/bob", 20
	for i := range many {
		if _, _, err := book().Subscribe(Request{Topic: topic, Watcher: fmt.Sprintf("w%02d@example.net", i), Session: uint64(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	for edge := range 5 {
		if n := l.edges(); n != 1 {
			t.Fatalf("%d wakes for %d watchers' windows", n, many)
		}
		l.told = nil
		l.pass(59*time.Minute, book)
		if len(l.told) != 0 {
			t.Fatalf("told %v before edge %d", l.told, edge)
		}
		l.pass(time.Minute, book)
		if slices.Sort(l.told); len(l.told) != many || len(slices.Compact(slices.Clone(l.told))) != many {
			t.Fatalf("edge %d is told %d times: %v", edge, len(l.told), l.told)
		}
	}
	for i := range many {
		book().Leave(topic, fmt.Sprintf("w%02d@example.net", i), uint64(i+1), false)
	}
	l.told = nil
	if l.pass(3*time.Hour, book); len(l.told) != 0 || l.edges() != 0 {
		t.Errorf("nobody watches, and %v are told, by %d wakes", l.told, l.edges())
	}
}

// What ends with its window has ended for all sessions at the first edge, whatever the
// time at which the log passes it; where the policy is another before that, it does not.
func TestWindowEnds(t *testing.T) {
	const topic, watcher = "presence/example.com/bob", "ann@example.net"
	for _, late := range []time.Duration{0, time.Minute, time.Hour, 2 * time.Hour} {
		l := newLedger()
		ends := true
		book := func() *Book {
			return l.book(func(string, string) Verdict { return hours(l.now, Windowed{Ended: ends}) }, Limits{})
		}
		ask := func(session uint64) error {
			_, _, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: session})
			return err
		}
		if err := ask(1); err != nil {
			t.Fatal(err)
		}
		if err := ask(2); err != nil {
			t.Fatal(err)
		}
		l.pass(time.Hour+late, book)
		e := book().Get(topic, watcher)
		if e.Status != Terminated || e.Event != Probation || len(l.ended) != 2 {
			t.Fatalf("late by %s: %+v, ended for %v", late, e, l.ended)
		}
		if shut := l.now / int64(time.Hour) % 2; (ask(3) == nil) == (shut == 1) {
			t.Errorf("late by %s it is granted: %t", late, shut == 1)
		}
	}
	l := newLedger()
	ends := true
	book := func() *Book {
		return l.book(func(string, string) Verdict { return hours(l.now, Windowed{Ended: ends}) }, Limits{})
	}
	if _, _, err := book().Subscribe(Request{Topic: topic, Watcher: watcher, Session: 1}); err != nil {
		t.Fatal(err)
	}
	ends = false
	book().Follow(topic)
	l.pass(time.Hour, book)
	if e := book().Get(topic, watcher); e.Status != Active {
		t.Errorf("the policy does not end it any more: %+v", e)
	}
}

// A watcher is told that a window closes soon, is shut, or is open again; not that it is
// open as it was, nor of one of which nothing is told.
func TestToldOfWindows(t *testing.T) {
	told := map[[2]Window]bool{
		{NoWindow, Closing}: true, {NoWindow, Shut}: true,
		{Open, Closing}: true, {Open, Shut}: true,
		{Closing, Open}: true, {Closing, Shut}: true,
		{Shut, Open}: true, {Shut, Closing}: true,
	}
	for was := NoWindow; was <= Shut; was++ {
		for is := NoWindow; is <= Shut; is++ {
			if got := is.told(was); got != told[[2]Window{was, is}] {
				t.Errorf("from %d to %d: told %t", was, is, got)
			}
		}
	}
}
