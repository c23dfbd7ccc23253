package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// A new policy is a walk through all subscriptions, however they are spread: no task of the
// delivery loop looks at more than a piece of them, and each is looked at.
func TestPolicyIsReviewedInPieces(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["before"], n.policies["after"] = parseRules("allow * #"), parseRules("allow * #")
	n.policy("before")
	all := 0
	for i, many := range []int{3*walkPiece + 10, 0, walkPiece - 2, 700, 700, 700, 1} {
		c, _ := n.connect(fmt.Sprint("c", i), true, 0)
		if subs, _ := manyFilters(many); many > 0 {
			c.subscribeMany(subs)
		}
		all += many
	}
	looked, before, widest, over := 0, 0, 0, false
	n.policies["after"].granted = func() { looked++ } // in the loop
	var between func(*Wave)
	between = func(*Wave) {
		widest, before = max(widest, looked-before), looked
		if !over {
			n.loop.do(between)
		}
	}
	n.loop.do(between)
	n.policy("after")
	n.catchUp()
	n.loop.call(func(*Wave) { over = true })
	n.loop.call(func(*Wave) {})
	if looked != all || widest > walkPiece {
		t.Errorf("%d subscriptions were looked at, by one task %d; want %d, and no more than %d", looked, widest, all, walkPiece)
	}
}

// Whoever subscribes before it is their turn is shown once what is new to them: who has
// subscribed before what was opened, also if that is by another subscription now, who has not
// what there is. Of policies that follow each other at once all that they opened is shown.
func TestSubscribedBeforeItsReview(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		n.policies["x closed"], n.policies["y closed"] = parseRules("allow * #\ndeny * x subscribe"), parseRules("allow * #\ndeny * y subscribe")
		n.policy("x closed")
		pub, _ := n.connect("pub", true, 0)
		must(t, pub.publish("x", "1", 0, retain))
		must(t, pub.publish("y", "1", 0, retain))
		again, _ := n.connect("again", true, expiry)
		again.subscribe("+", 0)
		again.want("y=1 q0 retain")
		n.edges.mu.Lock() // nobody begins it
		n.policy("y closed")
		n.policy("x closed")
		n.policy("y closed")
		never := []event.Subscription{{Filter: "+", RetainHandling: 2}}
		again.s.Subscribe(never, func([]SubResult, *Wave) {})
		other, _ := n.connect("other", true, expiry)
		other.subscribe("+", 0)
		other.want("x=1 q0 retain")
		gone, _ := n.connect("gone", true, expiry)
		gone.subscribe("+", 0)
		gone.want("x=1 q0 retain")
		_, err := gone.s.Unsubscribe([]string{"+"})
		must(t, err)
		n.edges.mu.Unlock()
		n.catchUp()
		other.want("x=1 q0 retain")
		again.want("y=1 q0 retain", "x=1 q0 retain")
		gone.want("x=1 q0 retain")
		n.edges.mu.Lock()
		n.policy("x closed")
		n.policy("y closed")
		n.edges.mu.Unlock()
		n.catchUp()
		again.want("y=1 q0 retain", "x=1 q0 retain", "x=1 q0 retain") // it may have missed something
	}
}

// A window that opens before it is known of, because a new policy has it, is passed after
// that.
func TestWindowOfANewPolicyOpensAtOnce(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["open"], n.policies["hours"] = parseRules("allow * #"), parseRules("allow * # publish\nallow * x subscribe 13:00-17:00")
	n.policy("open")
	pub, _ := n.connect("pub", true, 0)
	c, _ := n.connect("c", true, 0)
	c.subscribe("x", 0)
	must(t, pub.publish("x", "1", 0, retain))
	c.want("x=1 q0")
	n.edges.mu.Lock()
	n.policy("hours")
	must(t, pub.publish("x", "2", 0, retain))
	n.tick()
	n.clock.advance(2 * 60 * 60 * 1e9) // from noon
	n.edges.mu.Unlock()
	n.catchUp()
	if got := c.await(2); !slices.Contains(got, "x=2 q0 retain expires10800") {
		t.Errorf("got %q", got)
	}
}
