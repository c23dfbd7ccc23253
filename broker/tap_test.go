package broker

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// A watchedTap keeps what it is shown, a line each.
type watchedTap struct {
	mu                  sync.Mutex
	lines               []string
	delivered, withheld uint64
}

func (w *watchedTap) add(line string) { w.lines = append(w.lines, line) }

func (w *watchedTap) Routed(e *event.Event, heard int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.add(fmt.Sprintf("routed %s=%s to %d", e.Topic, e.Payload, heard))
}

func (w *watchedTap) Delivered(to Who, e *event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delivered++
	w.add(fmt.Sprintf("delivered %s=%s to %s", e.Topic, e.Payload, to.Client))
}

func (w *watchedTap) Withheld(from Who, e *event.Event, now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.withheld++
	w.add(fmt.Sprintf("withheld %s=%s from %s at %s", e.Topic, e.Payload, from.Client, time.Unix(0, now).UTC().Format("15:04")))
}

// The tap is shown what the counters count: live events, state at SUBSCRIBE and
// at an opening, and what waits for a client and may not be sent any more. A
// policy that changes nothing for a subscriber withholds nothing.
func TestTapShowsWhatIsCounted(t *testing.T) {
	n := newNode(t, Limits{}) // at noon
	tap := &watchedTap{}
	n.tap = tap
	n.restart()
	n.policies["day"] = parseRules("allow * # publish\nallow clerk t/# subscribe\ndeny clerk t/secret subscribe\nallow boss t/# subscribe 13:00-14:00")
	n.policies["same"] = n.policies["day"]
	n.policy("day")
	pub, _ := n.connect("pub", true, 0)
	must(t, pub.publish("t/a", "1", 1, retain))
	must(t, pub.publish("t/secret", "2", 1, retain))
	clerk, _ := n.connect("clerk", true, 0)
	boss, _ := n.connect("boss", true, 0, receiveMax(3))

	step := func(name string, want ...string) {
		t.Helper()
		n.catchUp()
		tap.mu.Lock()
		defer tap.mu.Unlock()
		if !slices.Equal(tap.lines, want) {
			t.Errorf("%s:\n got  %s\n want %s", name, strings.Join(tap.lines, "\n      "), strings.Join(want, "\n      "))
		}
		tap.lines = nil
	}
	step("nobody subscribes", "routed t/a=1 to 0", "routed t/secret=2 to 0")
	clerk.subscribe("t/#", 1)
	step("state, but for what is denied", "withheld t/secret=2 from clerk at 12:00", "delivered t/a=1 to clerk")
	boss.subscribe("t/#", 1)
	step("state behind a closed window", "withheld t/a=1 from boss at 12:00", "withheld t/secret=2 from boss at 12:00")
	must(t, pub.publish("t/a", "3", 0))
	step("a live event", "delivered t/a=3 to clerk", "withheld t/a=3 from boss at 12:00", "routed t/a=3 to 1")
	n.clock.advance(time.Hour)
	step("the window opens", "delivered t/a=1 to boss", "delivered t/secret=2 to boss")
	n.policy("same")
	step("a policy that changes nothing")
	for _, payload := range []string{"4", "5"} { // the second finds the client's Receive Maximum used up
		must(t, pub.publish("t/b", payload, 1))
	}
	step("two more than it takes", "delivered t/b=4 to clerk", "delivered t/b=4 to boss", "routed t/b=4 to 2", "delivered t/b=5 to clerk", "routed t/b=5 to 2")
	n.clock.advance(time.Hour)
	n.catchUp()
	boss.ackAll()
	step("what waited when the window closed", "withheld t/b=5 from boss at 14:00")

	var delivered uint64
	for i := range n.stats.Delivered {
		delivered += n.stats.Delivered[i].Load()
	}
	if withheld := n.stats.Withheld.Load(); tap.delivered != delivered || tap.withheld != withheld || delivered == 0 || withheld == 0 {
		t.Errorf("the tap was shown %d deliveries and %d withheld, the counters say %d and %d", tap.delivered, tap.withheld, delivered, withheld)
	}
}
