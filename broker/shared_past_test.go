package broker

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// What was published while a window was closed to the only member who is there waits
// for another, who is away: that the window opens brings nothing about, not even once,
// since what is over cannot open any more.
func TestClosedThenIsClosedForGood(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		n.policies["breaks"] = parseRules("allow * #\ndeny shut jobs/# 12:10-12:20 subscribe")
		n.policy("breaks")
		away, _ := n.connect("away", true, 1<<30)
		away.subscribe(jobs, 1)
		away.s.Close(false, false, 0)
		shut, _ := n.connect("shut", true, 1<<30)
		shut.subscribe(jobs, 1)
		pub, _ := n.connect("pub", true, 0)
		for n.clock.now().Minute() < 15 {
			n.pass(time.Minute)
		}
		must(t, pub.publish("jobs/1", "x", 1))
		n.tick()
		before := len(n.entries)
		for range 3 { // past 12:20, when they may
			n.pass(5 * time.Minute)
		}
		if made := len(n.entries) - before; made > 20 {
			t.Errorf("%d entries to wait for nothing", made)
		}
		if got := shut.awaitGot(0); len(got) > 0 {
			t.Errorf("got %v, which was published while it was shut", got)
		}
		back, _ := n.connect("away", false, 1<<30)
		if got := back.awaitGot(1); got[0].payload != "x" {
			t.Errorf("who was away gets %v, want x", got)
		}
	})
}
