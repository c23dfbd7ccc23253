package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/internal/bubble"
)

// together has the log order commands as one entry.
func (n *node) together(commands ...event.Command) {
	n.t.Helper()
	n.log.mu.Lock() // what is proposed meanwhile gathers behind the two batches under way
	for range batchesInFlight {
		if err := n.propose(&event.Tick{}, call{}, false); err != nil {
			n.t.Error(err)
		}
	}
	for _, c := range commands {
		if err := n.propose(c, call{}, false); err != nil {
			n.t.Error(err)
		}
	}
	n.log.mu.Unlock()
	n.tick()
}

// What is retained right before a policy that opens its topic, or right after,
// reaches a subscriber that waited for that. (A durable session's scan takes what
// is retained when its turn comes, so it may get the latter twice.)
func TestPolicyOpensWithinAnEntry(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		n.policies["closed"] = parseRules("allow * #\ndeny sub x/#")
		n.policy("closed")
		sub, _ := n.connect("sub", true, expiry)
		sub.subscribe("#", 1)
		retained := func(name string) event.Command {
			return &event.Publish{Event: &event.Event{Topic: name, Payload: []byte("v"), QoS: 1, Retain: true, At: n.now()}}
		}
		n.together(retained("x/before"), &event.Policy{Data: []byte("all")}, retained("x/after"))
		got := map[string]int{}
		sub.await(2)
		n.catchUp()
		for _, g := range sub.awaitGot(2) {
			got[g.topic]++
		}
		if all := sub.await(2); got["x/before"] != 1 || got["x/after"] == 0 || expiry == 0 && len(all) != 2 {
			t.Errorf("expiry %d: got %v, want x/before and x/after", expiry, all)
		}
	}
}

// ending is a policy whose windows end subscriptions: bob may read w/# from
// eight to five. The clock of a test begins at noon.
const ending = "allow * # publish\nallow * free\nallow bob w/# 08:00-17:00 outside=end"

// subsOf returns the subscriptions that the log has of a client.
func (n *node) subsOf(id string) (filters []string) {
	n.t.Helper()
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	r := n.machine.sessions[id]
	for _, f := range n.machine.filters(r) {
		if _, ok := n.machine.durable.Value(f, r.session); ok {
			filters = append(filters, f)
		}
	}
	if int(r.subs) != len(filters) {
		n.t.Errorf("%s: %d subscriptions are counted, and there are %q", id, r.subs, filters)
	}
	return filters
}

// endsDue counts the subscriptions that are to end.
func (n *node) endsDue() (due int) {
	for _, key := range keysOf(n.config.Store, store.Wakes) {
		if key[8] == wakeEnd {
			due++
		}
	}
	return due
}

// A subscription that ends with its window ends at the edge: with its client
// connected, away, or while the node is down; with its state kept or replayed from
// the log. What happens after the edge is not queued for it, though the window is
// open again by then.
func TestWindowEndsSubscriptions(t *testing.T) {
	for name, restart := range map[string]func(n *node){
		"running":        func(n *node) { n.pass(21 * time.Hour) },
		"stopped":        func(n *node) { n.stop(true); n.clock.advance(21 * time.Hour); n.start() },
		"state lost":     func(n *node) { n.stop(false); n.clock.advance(21 * time.Hour); n.start() },
		"edge, then off": func(n *node) { n.pass(5 * time.Hour); n.stop(true); n.clock.advance(16 * time.Hour); n.start() },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Limits{})
			n.policies["ending"] = parseRules(ending)
			n.policy("ending")
			bob, _ := n.connect("bob", true, 1<<20)
			away, _ := n.connect("away", true, 1<<20, func(r *ConnectRequest) { r.Principal = "bob" })
			for _, c := range []*client{bob, away} {
				c.subscribe("w/#", 1)
				c.subscribe("free", 1)
			}
			away.s.Close(false, false, 0)
			pub, _ := n.connect("pub", true, 0)
			if err := pub.publish("w/1", "in time", 1); err != nil {
				t.Fatal(err)
			}
			bob.want("w/1=in time q1 expires18000")
			restart(n) // now it is nine o'clock the next morning
			pub, _ = n.connect("pub", true, 0)
			for _, topic := range []string{"w/1", "free"} {
				if err := pub.publish(topic, "next day", 1); err != nil {
					t.Fatal(err)
				}
			}
			told := `$me/sub/w/%23={"state":"terminated","window":"open","next":"2026-03-10T17:00:00Z"} q0`
			for _, id := range []string{"bob", "away"} {
				if got := n.subsOf(id); !slices.Equal(got, []string{"free"}) {
					t.Errorf("%s subscribes to %q, want only what has not ended", id, got)
				}
				c, want := bob, []string{"w/1=in time q1 expires18000", told, "free=next day q1"}
				if id == "away" || name != "running" {
					c, _ = n.connect(id, false, 1<<20, func(r *ConnectRequest) { r.Principal = "bob" })
					want = want[2:]
				}
				c.want(want...)
				c.subscribe("w/#", 1)
				if err := pub.publish("w/1", "anew", 1); err != nil {
					t.Fatal(err)
				}
				c.want(append(want, "w/1=anew q1 expires28800")...)
				c.s.Close(false, false, 0)
				n.tick()
			}
			if got := n.endsDue(); got != 2 {
				t.Errorf("%d subscriptions are to end, want both", got)
			}
		})
	}
}

// A policy that changes the window changes the end, of all subscriptions there
// are; a window that it has moved into the past ends nothing that it did not shut.
// (In a bubble, for the proposer gives up after five seconds, and a machine that has
// much to do takes longer for this under the race detector.)
func TestPolicyMovesTheEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		n.policies["ending"] = parseRules(ending)

		n.policies["later"] = parseRules("allow * # publish\nallow bob w/# 08:00-18:00 outside=end")
		n.policies["earlier"] = parseRules("allow * # publish\nallow bob w/# 08:00-11:00 outside=end")
		n.policy("ending")
		const subs = 2*itemsPerWake + 10
		bob, _ := n.connect("bob", true, 1<<20)
		var all []event.Subscription
		for i := range subs {
			all = append(all, event.Subscription{Filter: fmt.Sprint("w/", i), QoS: 1})
		}
		bob.s.Subscribe(all, func([]SubResult, *Wave) {})
		ends := func(want int, what string) {
			t.Helper()
			n.catchUp()
			if got := n.endsDue(); got != want {
				t.Errorf("%s: %d subscriptions are to end, want %d", what, got, want)
			}
			if got := len(n.subsOf("bob")); got != want {
				t.Errorf("%s: %d subscriptions, want %d", what, got, want)
			}
		}
		ends(subs, "subscribed")
		n.policy("later")
		n.pass(5*time.Hour + time.Minute)
		ends(subs, "past the former edge")
		n.policy("earlier") // 17:01: closed, until tomorrow at eight, until eleven
		ends(subs, "closed by a policy, not by an edge")
		n.restart()
		n.pass(16 * time.Hour)
		ends(subs, "open again")
		n.pass(2 * time.Hour)
		ends(0, "past the new edge")
	})
}

// A session that was connected when its node died, and whose window closed and
// opened while that was down, is shown the present state when it is back.
func TestStateAfterAWindowOpenedWhileDown(t *testing.T) {
	for _, flush := range []bool{true, false} {
		n := newNode(t, Limits{})
		n.policies["office"] = parseRules("allow * # publish\nallow bob w/# 08:00-17:00")
		n.policy("office")
		bob, _ := n.connect("bob", true, 1<<20)
		bob.subscribe("w/#", 1)
		pub, _ := n.connect("pub", true, 0)
		if err := pub.publish("w/state", "v", 1, retain); err != nil {
			t.Fatal(err)
		}
		bob.await(1) // and dies with it
		n.stop(flush)
		n.clock.advance(21 * time.Hour)
		n.start()
		bob, _ = n.connect("bob", false, 1<<20)
		bob.want("w/state=v q1 retain expires28800")
		bob.ackAll()
		bob.s.Close(false, false, 0)
		n.tick()
		bob, _ = n.connect("bob", false, 1<<20)
		bob.want() // nothing has opened since
	}
}
