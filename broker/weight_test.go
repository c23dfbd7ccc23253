package broker

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// What an entry of the log becomes is bounded by the sessions that it goes to, not
// by its bytes alone: a burst of small events for many durable sessions is ordered
// in pieces. All of it arrives.
//
// In a bubble, where no time passes while the Machine works: a slow machine would
// need longer for it than the proposer waits.
func TestBurstIsOrderedInPieces(t *testing.T) { bubble.Test(t, burstInPieces) }

func burstInPieces(t *testing.T) {
	sessions, events := 400, 300
	if effort.Soaking() {
		sessions, events = 5000, 400
	}
	n := newNode(t, Limits{})
	n.machine.streams.crowd = sessions + 1 // or they would have a stream when they are gone
	for i := range sessions {
		c, _ := n.connect(fmt.Sprint(i), true, 3600)
		c.subscribe("burst", 1)
		if i > 0 {
			c.s.Close(false, false, 0)
		}
	}
	n.tick()
	before := len(n.entries)
	n.log.mu.Lock()
	for i := range events {
		e := &event.Event{Topic: "burst", Payload: fmt.Append(nil, i), QoS: 1, At: n.now()}
		if err := n.propose(&event.Publish{Event: e}, call{}, false); err != nil {
			t.Fatal(err)
		}
	}
	n.log.mu.Unlock()
	n.tick()
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	total := 0
	for _, e := range n.entries[before:] {
		batch, err := event.ReadBatch(e.batches[0])
		if err != nil {
			t.Fatal(err)
		}
		commands := 0
		for kind, _, ok := batch.Next(); ok; kind, _, ok = batch.Next() {
			if kind == event.KindPublish {
				commands++
			}
		}
		if commands > 1 && commands*sessions > batchWeight {
			t.Errorf("an entry of %d events becomes %d queue entries, want %d at most", commands, commands*sessions, batchWeight)
		}
		total += commands
	}
	if total != events {
		t.Errorf("%d events were ordered, want %d", total, events)
	}
	if got := n.machine.sessions["1"].queue.next; got != uint64(events) {
		t.Errorf("%d events are queued for one session, want %d", got, events)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d events for %d sessions: %d MiB taken from the system", events, sessions, m.Sys>>20)
}

// Events that few subscribe to are not weighed, and the heaviest is ordered alone.
func TestWeights(t *testing.T) {
	log := &sink{}
	p := newProposer(log, "n1", 1, 1<<20)
	defer p.close(ErrClosing)
	weight := 0
	p.weigh = func(event.Command) int { return weight }
	for _, weight = range []int{0, 0, batchWeight / 2, batchWeight / 2, 1, 0, 5 * batchWeight, 0, 1} {
		if err := p.propose(&event.Tick{}, call{}, false); err != nil {
			t.Fatal(err)
		}
	}
	// Two that fly with what came first; then what waits.
	var got []int
	for _, b := range append(append([]*batch{}, p.flying...), p.waiting...) {
		got = append(got, len(b.calls))
	}
	if want := []int{1, 1, 2, 2, 1, 2}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("batches of %v commands, want %v", got, want)
	}
}

// A sink is a log that takes batches and orders none.
type sink struct{}

func (*sink) Submit([]byte, func(error)) {}
func (*sink) Leader() bool               { return true }
