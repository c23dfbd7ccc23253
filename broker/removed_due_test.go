package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// Of who is removed from the policy nothing is published that was due before, and is late
// because much is: no delayed event and no will, though the rules, which are about everybody,
// would let him. What others have due is.
func TestRemovedWhenDue(t *testing.T) {
	const each, budget = 100, 20
	n := newNode(t, Limits{})
	n.policies["both"] = parseRules("user p 1\nuser q 1\nuser sub 1\nallow * #")
	n.policies["not q"] = parseRules("user p 1\nuser sub 1\nallow * #")
	n.policy("both")
	sub, _ := n.connect("sub", true, 0)
	sub.subscribe("#", 1)
	q, _ := n.connect("q", true, 0)
	for range each {
		must(t, q.publish("$delayed/10/q", "no", 1))
	}
	for i := range each {
		c, _, err := n.tryConnect(fmt.Sprint("w", i), true, 3600, will(event.Will{Topic: "q", Payload: []byte("will"), QoS: 1, Delay: 10}),
			func(r *ConnectRequest) { r.Principal = "q" })
		must(t, err)
		c.s.Close(true, false, 0)
	}
	p, _ := n.connect("p", true, 0)
	must(t, p.publish("$delayed/11/p", "yes", 1))
	n.tick()
	n.budgetOf(budget)
	n.clock.advance(12 * time.Second)
	n.policy("not q") // what is due and goes with the entry that brings it comes before it
	n.catchUp()
	q1, yes := 0, 0
	for _, g := range sub.await(1) {
		if g == "p=yes q1" {
			yes++
		} else {
			q1++
		}
	}
	if q1 > budget || yes != 1 {
		t.Errorf("%d events and wills of who is removed are published, want %d at most, and %d of who is not", q1, budget, yes)
	}
	if events, _ := n.DelayedCount(); events != 0 {
		t.Errorf("%d events still wait", events)
	}
	if late := n.Stats().DelayedRefused.Load(); late < each-budget {
		t.Errorf("%d events are counted as refused, want %d at least", late, each-budget)
	}
}

// A will whose delay is over is published also if its client comes back before its turn has
// come, because much is due at once: it is late, and not taken back (5.0 [MQTT-3.1.2-8]).
func TestWillIsDueWhenItsClientComesBack(t *testing.T) {
	const wills = 100
	n := newNode(t, Limits{})
	sub, _ := n.connect("sub", true, 0)
	sub.subscribe("#", 1)
	last := fmt.Sprint("w", wills-1)
	for i := range wills {
		id := fmt.Sprint("w", i)
		c, _ := n.connect(id, true, 3600, will(event.Will{Topic: id, QoS: 1, Delay: 10}))
		c.s.Close(true, false, 0)
	}
	n.tick()
	n.budgetOf(20)
	n.clock.advance(10 * time.Second)
	if _, present := n.connect(last, false, 3600); !present {
		t.Error("its session is gone")
	}
	n.catchUp()
	if got := sub.await(1); len(got) != wills || !slices.Contains(got, last+"= q1") {
		t.Errorf("%d wills are published, want %d, with that of %s: %q", len(got), wills, last, got)
	}
}
