package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// A node that hears of no leader shows nothing that is its owner's to permit: the
// owner may have forbidden it since. When it hears again everybody is shown what is
// permitted then, and nothing that was not.
func TestSilenceHoldsWhatOwnersPermit(t *testing.T) {
	for name, forbidden := range map[string]bool{"still permitted": false, "forbidden meanwhile": true} {
		for _, expiry := range []uint32{0, 3600} {
			for qos := range uint8(2) {
				t.Run(name, func(t *testing.T) {
					bubble.Test(t, func(t *testing.T) { silenceHolds(t, forbidden, expiry, qos) })
				})
			}
		}
	}
}

func silenceHolds(t *testing.T, forbidden bool, expiry uint32, qos uint8) {
	l, n := newCluster(t, 1, 3, notes{}, post{})
	bob := n[0].person("bob", 0)
	allow(bob, `{"ann@x.org":{"From":13,"Until":24}}`)
	must(t, bob.publish("note/x.org/bob", "hello", 0))
	ann := n[1].person("ann", expiry)
	ann.subscribe("note/x.org/bob", qos)
	ann.subscribe("post/ann@x.org/#", qos)
	ann.subscribe("plain", 0)
	near := n[1].person("near", 0)
	l.settle()
	before := ann.await(1)

	l.cutOff(n[1])
	elapse(holdAfter + 2*lookEvery)
	if forbidden {
		allow(bob, `{}`)
	}
	l.clock.advance(time.Hour + time.Minute) // to when ann may see it, as far as her node knows
	elapse(time.Second)
	must(t, near.publish("post/ann@x.org/now", "typing", 0))
	must(t, near.publish("plain", "1", 0))
	elapse(time.Second)
	fetch := func() error {
		_, err := n[1].Fetch(Who{Principal: "ann@x.org"}, "note/x.org/bob")
		_, all := n[1].FetchAll(Who{Principal: "ann@x.org"}, "note/x.org/+", "", func(string, Shown) bool { return true })
		return cmp.Or(err, all)
	}
	if err := fetch(); !errors.Is(err, ErrNoCommit) {
		t.Errorf("while no leader was heard of ann could fetch: %v", err)
	}
	before = append(before, "plain=1 q0")
	if got := ann.await(len(before)); !slices.Equal(got, before) {
		t.Errorf("while no leader was heard of ann got %q, want %q", got, before)
	}

	l.heal(n[1])
	l.settle()
	must(t, fetch())
	if !forbidden {
		want := "note/x.org/bob=hello q0 expires39536"
		if qos == 1 {
			want = "note/x.org/bob=hello q1 expires39536"
		}
		before = append(before, want)
	}
	if got := ann.await(len(before)); !slices.Equal(got, before) {
		t.Errorf("after it ann got %q, want %q", got, before)
	}
	if got := n[1].Stats().Silences.Load(); got != 1 {
		t.Errorf("%d silences counted, want 1", got)
	}
	must(t, near.publish("post/ann@x.org/now", "typing again", 0))
	ann.await(len(before) + 1)
	if ann.ended != nil {
		t.Errorf("ann was sent away: %v", ann.ended)
	}
}

// A message that waits in a queue is its owner's to permit too: it stays there,
// whatever room the client makes, and comes when a leader is heard of again.
func TestSilenceHoldsQueues(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		bubble.Test(t, func(t *testing.T) {
			l, n := newCluster(t, 1, 3, post{})
			ann, _ := n[1].connect("ann", true, expiry, receiveMax(1), func(r *ConnectRequest) { r.Principal = "ann" })
			ann.subscribe("post/ann", 1)
			bob, _ := n[0].connect("bob", true, 0)
			must(t, bob.publish("post/ann", "1", 1))
			must(t, bob.publish("post/ann", "2", 1))
			l.settle()
			ann.await(1)
			l.cutOff(n[1])
			elapse(holdAfter + 2*lookEvery)
			ann.ackAll()
			elapse(time.Second)
			if got := ann.await(1); len(got) != 1 {
				t.Errorf("while no leader was heard of ann got %q", got)
			}
			l.heal(n[1])
			if got := ann.await(2); got[1] != "post/ann=2 q1" {
				t.Errorf("ann got %q", got)
			}
		})
	}
}

// Without a leader a node takes nothing that it could not order: publishes and new
// clients are told so at once, after a time in which they may wait. Then its clients
// are sent away. When it hears again it serves as before.
func TestSilenceRefusesAndSendsAway(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		pub, _ := n[1].connect("pub", true, 3600)
		mortal, _ := n[1].connect("mortal", true, 3600, will(willOn("will/mortal")))
		watcher, _ := n[0].connect("watcher", true, 0)
		watcher.subscribe("will/#", 1)
		l.settle()
		l.cutOff(n[1])
		elapse(refuseAfter + 2*lookEvery)
		began := time.Now()
		if err := pub.publish("t", "x", 1); !errors.Is(err, ErrNoCommit) {
			t.Errorf("a publish was told %v, want ErrNoCommit", err)
		}
		if _, _, err := n[1].tryConnect("new", true, 0); !errors.Is(err, ErrNoCommit) {
			t.Errorf("a client was told %v, want ErrNoCommit", err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("to say so took %v", took)
		}
		elapse(graceDefault)
		for _, c := range []*client{pub, mortal} {
			if err := c.awaitEnd(); !errors.Is(err, ErrAway) {
				t.Errorf("%s ended with %v, want ErrAway", c.id, err)
			}
			c.s.Close(true, false, 0) // as its protocol does
		}
		n[2].connect("pub", false, 3600)
		l.heal(n[1])
		if got := watcher.await(1); got[0] != "will/mortal=gone q1" {
			t.Errorf("the will: %q", got)
		}
		elapse(2 * lookEvery)
		again, present := n[1].connect("pub", false, 3600)
		if !present {
			t.Error("the session of pub is gone")
		}
		must(t, again.publish("t", "x", 1))
		l.settle()
		l.checkDigests()
	})
}

// What a subscriber is to be shown of the present state while the log takes nothing it
// is shown when that goes on, and whoever cannot be told what became of it comes again.
func TestSilenceOutlastsScans(t *testing.T) {
	for name, refused := range map[string]bool{"refused": true, "outcome unknown": false} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { silenceOutlastsScans(t, refused) })
		})
	}
}

func silenceOutlastsScans(t *testing.T, refused bool) {
	l, n := newCluster(t, 1, 3)
	pub, _ := n[0].connect("pub", true, 0)
	want := make([]string, 5)
	for i := range want {
		name := fmt.Sprint("t/", i)
		must(t, pub.publish(name, "x", 1, retain))
		want[i] = name + "=x q1 retain"
	}
	ann, _ := n[1].connect("ann", true, 3600)
	l.settle()
	ann.full = true
	ann.s.out.mu.Lock()
	ann.s.out.full = true // as it is after a delivery that found no room
	ann.s.out.mu.Unlock()
	ann.subscribe("t/#", 1)
	l.cutOff(n[1])
	if refused {
		elapse(refuseAfter + 2*lookEvery)
	}
	ann.full = false
	var w Wave
	ann.s.Drained(&w)
	w.Flush()
	if elapse(lookEvery); !refused {
		elapse(releaseAfter)
	}
	l.heal(n[1])
	elapse(4 * lookEvery)
	l.settle()
	if !refused {
		if err := ann.awaitEnd(); !errors.Is(err, ErrMissed) {
			t.Fatalf("ann ended with %v, want ErrMissed", err)
		}
		ann.s.Close(false, false, 0)
		l.settle()
		ann, _ = n[1].connect("ann", false, 3600)
	}
	if got := ann.await(len(want)); !slices.Equal(got, want) {
		t.Errorf("ann got %q, want %q", got, want)
	}
	must(t, pub.publish("t/5", "x", 1))
	l.settle()
	ann.await(len(want) + 1)
	if ann.ended != nil {
		t.Errorf("ann was sent away: %v", ann.ended)
	}
}
