package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// The queue of scans finds the last of each filter, gives them out in their order, and keeps
// no more than there are filters: beside a list that is looked through.
func TestScanQueue(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q scanQueue
		var plain []scan
		subs := map[string]*localSub{}
		many := 1 + r.IntN(40)
		for step := range 2000 {
			filter := fmt.Sprint("f/", r.IntN(many))
			switch op := r.IntN(20); {
			case op == 0:
				delete(subs, filter)
			case op == 1:
				q.add(scan{owed: true})
				plain = append(plain, scan{owed: true})
			case op < 8 && len(plain) > 0:
				got, want := q.take(), plain[0]
				plain = plain[1:]
				if got.owed != want.owed || got.sub != want.sub || got.since != want.since {
					t.Fatalf("seed %d, step %d: took %+v, want %+v", seed, step, got, want)
				}
			default:
				if subs[filter] == nil {
					subs[filter] = &localSub{sub: event.Subscription{Filter: filter}}
				}
				s := scan{sub: subs[filter], since: uint64(step)}
				q.tidy(subs)
				if len(q.list) < len(plain) {
					plain = lastOfEach(plain, subs)
				}
				q.add(s)
				plain = append(plain, s)
			}
			var want *scan
			for i := range plain {
				if !plain[i].owed && plain[i].sub.sub.Filter == filter {
					want = &plain[i]
				}
			}
			if got := q.of(filter); (got == nil) != (want == nil) || got != nil && got.since != want.since {
				t.Fatalf("seed %d, step %d: of %s there is %+v, want %+v", seed, step, filter, got, want)
			}
			if len(q.list) != len(plain) {
				t.Fatalf("seed %d, step %d: %d scans, want %d", seed, step, len(q.list), len(plain))
			}
		}
	}
}

// lastOfEach leaves the last scan of each filter that there is.
func lastOfEach(scans []scan, subs map[string]*localSub) (left []scan) {
	for i, s := range scans {
		if !s.owed && (subs[s.sub.sub.Filter] == nil || slices.ContainsFunc(scans[i+1:], func(o scan) bool { return !o.owed && o.sub.sub.Filter == s.sub.sub.Filter })) {
			continue
		}
		left = append(left, s)
	}
	return left
}

// A client that takes nothing, and subscribes again and again, has no more scans waiting than
// filters, and is shown all that is retained when it goes on.
func TestScansThatWaitAreBounded(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	must(t, pub.publish("kept", "is", 1, func(e *event.Event) { e.Retain = true }))
	c, _ := n.connect("c", true, 0, func(r *ConnectRequest) { r.ReceiveMax = 1 })
	c.subscribe("x", 1)
	const waiting = roomForPiece + 10
	for range waiting {
		must(t, pub.publish("x", "x", 1))
	}
	n.tick()
	for i := range 1000 {
		c.subscribe("kept", 1)
		c.subscribe(fmt.Sprint("gone/", i), 1)
		if _, err := c.s.Unsubscribe([]string{fmt.Sprint("gone/", i)}); err != nil {
			t.Fatal(err)
		}
	}
	c.s.scanning.mu.Lock()
	waits := len(c.s.scanning.queue.list)
	c.s.scanning.mu.Unlock()
	if most := 2 * (3 + placesFrom); waits > most {
		t.Errorf("%d scans wait for 2 filters, want at most %d", waits, most)
	}
	for range 2 * waiting {
		if slices.ContainsFunc(c.awaitGot(0), func(g got) bool { return g.topic == "kept" }) {
			return
		}
		c.ackAll()
		n.tick()
	}
	t.Error("what is retained was not shown")
}
