package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A burst is shown at once, and after it one change for each interval, the last
// one never left out; a resource that rests has its burst again.
func TestPacer(t *testing.T) {
	const interval = 5 * time.Second
	var p pacer
	now := int64(1e18)
	for i := range 3 {
		if ok, _ := p.take("a", 3, interval, now); !ok {
			t.Fatalf("change %d of a burst is held", i)
		}
	}
	ok, at := p.take("a", 3, interval, now)
	if ok || at != now+int64(interval) {
		t.Fatalf("the fourth: %v, shown %v later", ok, time.Duration(at-now))
	}
	if ok, _ := p.take("b", 3, interval, now); !ok {
		t.Error("another resource is held")
	}
	if ok, again := p.take("a", 3, interval, now+1); ok || again != at {
		t.Errorf("the fifth: %v, shown %v later", ok, time.Duration(again-now))
	}
	if !p.late("a", interval) || p.late("a", interval) {
		t.Error("what was held is shown once")
	}
	if ok, again := p.take("a", 3, interval, at); ok || again != at+int64(interval) {
		t.Errorf("the sixth: %v, shown %v later", ok, time.Duration(again-now))
	}
	rested := at + int64(10*interval)
	for i := range 4 {
		if ok, _ := p.take("a", 3, interval, rested); ok != (i < 3) {
			t.Errorf("after a rest, change %d: %v", i, ok)
		}
	}
}

// The number of resources that are counted is bounded.
func TestPacerIsBounded(t *testing.T) {
	var p pacer
	for i := range 2*bucketsKept + 10 {
		p.take(fmt.Sprint(i), 10, time.Second, int64(i))
	}
	if n := len(p.buckets); n > bucketsKept {
		t.Errorf("%d are kept", n)
	}
}

// pacedNotes are notes of which every third change is shown.
type pacedNotes struct{ notes }

func (pacedNotes) Pace() (int, time.Duration) { return 2, 5 * time.Second }

// Of a flood each watcher is shown the beginning, then now and then what is
// true, and at last what stays true, once: whoever has a queue, too.
func TestFloodIsCoalesced(t *testing.T) { marksAndBeside(t, floodIsCoalesced) }

func floodIsCoalesced(t *testing.T, level Level) {
	for _, expiry := range []uint32{0, 3600} {
		t.Run(fmt.Sprint("expiry ", expiry), func(t *testing.T) {
			n := atLevel(t, level, pacedNotes{})
			bob, ann := n.person("bob", 0), n.person("ann", expiry)
			allow(bob, `{"ann@x.org":{}}`)
			ann.subscribe("note/x.org/bob", 1)
			ann.want("note/x.org/bob= q1 retain")
			for i := range 50 {
				must(t, bob.publish("note/x.org/bob", fmt.Sprint(i), 1))
			}
			want := []string{"note/x.org/bob= q1 retain", "note/x.org/bob=0 q1", "note/x.org/bob=1 q1"}
			ann.want(want...)
			n.pass(5 * time.Second)
			ann.ackAll()
			want = append(want, "note/x.org/bob=49 q1")
			if got := ann.await(4); len(got) != 4 || !strings.HasPrefix(got[3], want[3]) {
				t.Errorf("got %q, want %q", got, want)
			}
			if held := n.Stats().Coalesced.Load(); held != 48 {
				t.Errorf("%d changes were held, want 48", held)
			}
			n.pass(time.Minute)
			ann.ackAll()
			must(t, bob.publish("note/x.org/bob", "rested", 1))
			if got := ann.await(5); len(got) != 5 || got[4] != "note/x.org/bob=rested q1" {
				t.Errorf("got %q, want one more", got)
			}
		})
	}
}

// What is replayed when a node starts is no flood: the first change after it is shown at
// once, however many there were.
func TestReplayIsNoFlood(t *testing.T) {
	n := newNodeWith(t, Limits{}, pacedNotes{})
	bob := n.person("bob", 0)
	allow(bob, `{"ann@x.org":{}}`)
	for i := range 20 {
		must(t, bob.publish("note/x.org/bob", fmt.Sprint(i), 1))
	}
	n.crash()
	bob, ann := n.person("bob", 0), n.person("ann", 0)
	ann.subscribe("note/x.org/bob", 1)
	ann.want("note/x.org/bob=19 q1 retain")
	must(t, bob.publish("note/x.org/bob", "after", 1))
	ann.want("note/x.org/bob=19 q1 retain", "note/x.org/bob=after q1")
}

// What an owner takes from somebody is taken at once, however often what they
// watch has changed.
func TestFloodDelaysNoPolicy(t *testing.T) { marksAndBeside(t, floodDelaysNoPolicy) }

func floodDelaysNoPolicy(t *testing.T, level Level) {
	for _, expiry := range []uint32{0, 3600} {
		n := atLevel(t, level, pacedNotes{})
		bob, ann := n.person("bob", 0), n.person("ann", expiry)
		allow(bob, `{"ann@x.org":{}}`)
		ann.subscribe("note/x.org/bob", 1)
		ann.want("note/x.org/bob= q1 retain")
		for i := range 50 {
			must(t, bob.publish("note/x.org/bob", fmt.Sprint(i), 1))
		}
		ann.await(3)
		ann.ackAll()
		allow(bob, "{}")
		if got := ann.await(4); got[3] != "note/x.org/bob= q1" {
			t.Errorf("expiry %d: got %q, want it taken back", expiry, got)
		}
	}
}

// Where more resources change than are counted, room is made for many at once: to look at all
// of them for each change would be quadratic.
func TestPacerMakesRoomForMany(t *testing.T) {
	var p pacer
	now := int64(1e18)
	for i := range bucketsKept {
		p.take(fmt.Sprint("r", i), 2, time.Second, now+int64(i))
	}
	now += int64(time.Second)
	for i := range 100 { // one more is full again with each
		p.take(fmt.Sprint("s", i), 2, time.Second, now+int64(i))
		if most := bucketsKept/2 + i + 1; len(p.buckets) > most {
			t.Fatalf("%d buckets are left after change %d, want at most %d", len(p.buckets), i, most)
		}
	}
}
