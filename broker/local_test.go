package broker

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

func withNoLocal(s *event.Subscription) { s.NoLocal = true }

// What a client has retained is its own in all its later sessions, however they come to be
// shown it: as they subscribe, or when a window opens.
func TestRetainedIsNotLocal(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		p, _ := n.connect("p", true, expiry)
		other, _ := n.connect("other", true, 0)
		must(t, p.publish("a/1", "its own", 1, retain))
		must(t, other.publish("a/2", "another's", 1, retain))

		again, _ := n.connect("p", true, expiry)
		again.subscribe("a/+", 1, withNoLocal)
		n.catchUp()
		again.want("a/2=another's q1 retain")
		again.subscribe("+/1", 0)
		n.catchUp()
		again.want("a/2=another's q1 retain", "a/1=its own q0 retain")

		n.policies["hours"] = parseRules("allow * a/# subscribe 13:00-17:00\nallow * # publish")
		n.policy("hours")
		again, _ = n.connect("p", true, expiry)
		again.subscribe("a/+", 1, withNoLocal)
		n.catchUp()
		again.want()
		n.pass(time.Hour)
		n.catchUp()
		again.want("a/2=another's q1 retain expires14400") // with the window
	}
}

// Before all nodes know of it what is retained says of which session it is, and no more.
func TestRetainedLocalNeedsItsLevel(t *testing.T) {
	n := bareNode(t, Limits{})
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	n.policies["all"] = parseRules("allow * #")
	n.policy("all")
	p, _ := n.connect("p", true, 0)
	must(t, p.publish("a/1", "its own", 1, retain))
	p.subscribe("a/1", 1, withNoLocal)
	n.catchUp()
	p.want()
	again, _ := n.connect("p", true, 0)
	again.subscribe("a/1", 1, withNoLocal)
	n.catchUp()
	again.want("a/1=its own q1 retain")
	must(t, n.Raise(t.Context(), LevelLocal))
	must(t, again.publish("a/1", "its own again", 1, retain))
	last, _ := n.connect("p", true, 0)
	last.subscribe("a/1", 1, withNoLocal)
	n.catchUp()
	last.want()
}
