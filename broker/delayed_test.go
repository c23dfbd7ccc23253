package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// waiting lists what waits of somebody, of all if principal is empty.
func (n *node) waiting(principal string) (list []Delayed) {
	must(n.t, n.DelayedEvents(principal, "", func(d Delayed) bool { list = append(list, d); return true }))
	return list
}

// A list that is read in pages goes on where it was, whatever has become of the event there: it
// loses none, and tells none twice. Where it goes on is good for who was told it.
func TestDelayedListGoesOn(t *testing.T) {
	n := newNode(t, Limits{})
	const each = 300 // more than a byte counts, so that a number ends in zeros
	for _, who := range []string{"a@a.org", "b@b.org"} {
		p, _ := n.connect(who, true, 0)
		for i := range each {
			must(t, p.publish("$delayed/10/a", fmt.Sprint(i), 1))
		}
	}
	for _, who := range []string{"a@a.org", ""} {
		all, after := n.waiting(who), ""
		for i, want := range all {
			var got Delayed
			must(t, n.DelayedEvents(who, after, func(d Delayed) bool { got = d; return false }))
			if got.Name != want.Name {
				t.Fatalf("the list of %q goes on with %+v after %d events, want %+v", who, got, i, want)
			}
			after = n.AfterDelayed(who, got)
			if i%2 == 0 {
				_, err := n.Undelay(t.Context(), "", got.Name)
				must(t, err)
			}
		}
		must(t, n.DelayedEvents(who, after, func(d Delayed) bool { t.Errorf("after all of %q comes %+v", who, d); return false }))
		for _, other := range []string{"b@b.org", "c"} {
			if err := n.DelayedEvents(other, after, func(Delayed) bool { return true }); !errors.Is(err, ErrTopicName) {
				t.Errorf("what %q was told is good for %q: %v", who, other, err)
			}
		}
	}
	if err := n.DelayedEvents("a@a.org", "0123456789", func(Delayed) bool { return true }); !errors.Is(err, ErrTopicName) {
		t.Errorf("it goes on anywhere: %v", err)
	}
}

// budgetOf has an entry do so many items.
func (n *node) budgetOf(items int) {
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	n.items, n.machine.budget.perEntry = items, items
}

func (n *node) lives(seconds uint32) func(*event.Event) {
	return func(e *event.Event) { e.Expires = event.ExpiresAt(n.now(), seconds) }
}

// What is delayed is published once, at its time and not before, in the order in which it
// came, as it was published, to who was away, too; its expiry begins then. A stop of the node
// and the loss of its state change nothing of that.
func TestDelayed(t *testing.T) {
	for _, end := range []string{"", "restart", "crash"} {
		t.Run(end, func(t *testing.T) {
			n := newNode(t, Limits{})
			away, _ := n.connect("away", true, 3600)
			away.subscribe("#", 2)
			p, _ := n.connect("p", true, 3600)
			user := func(e *event.Event) { e.Props = event.AppendUserProperty(nil, "k", "v") }
			must(t, p.publish("$delayed/10/a/b", "one", 1, user))
			must(t, p.publish("$delayed/5/a/b", "first", 2, n.lives(60)))
			must(t, p.publish("$delayed/5/a/b", "first", 2, n.lives(60))) // the client has not heard
			must(t, p.publish("$delayed/10/a/b", "two", 1, retain))
			must(t, p.publish("$delayed/0010/q0", "three", 0))
			must(t, p.publish("$delayed/0/now", "x", 1))
			n.catchUp()
			away.want("now=x q1")
			list := n.waiting("p")
			if len(list) != 4 || list[0].Topic != "a/b" || list[1].QoS != 2 || !list[2].Retain || list[3].Due != n.now()+10e9 {
				t.Fatalf("%+v", list)
			}
			away.ackAll()
			away.s.Close(true, false, 0)
			n.tick()
			switch end {
			case "restart":
				n.restart()
			case "crash":
				n.stop(false)
				n.start()
			}
			live, _ := n.connect("live", true, 0)
			live.subscribe("#", 2)
			n.pass(5*time.Second - 1)
			live.want()
			n.pass(1)
			live.want("a/b=first q2 expires60")
			must(t, live.answer(live.awaitGot(1)[0].id, Received))
			n.pass(5 * time.Second)
			all := []string{"a/b=first q2 expires60", "a/b=one q1", "a/b=two q1", "q0=three q0"}
			live.want(all...)
			if g := live.awaitGot(4); g[1].props != string(event.AppendUserProperty(nil, "k", "v")) {
				t.Errorf("properties %q", g[1].props)
			}
			n.pass(10 * time.Minute)
			live.want(all...)
			again, present := n.connect("away", false, 3600)
			if !present {
				t.Fatal("the session that was away is gone")
			}
			again.await(2)
			kept, _ := n.connect("kept", true, 0)
			kept.subscribe("a/#", 1)
			kept.want("a/b=two q1 retain")
			if events, bytes := n.DelayedCount(); events != 0 || bytes != 0 || len(n.waiting("")) != 0 {
				t.Errorf("%d events, %d bytes still wait", events, bytes)
			}
		})
	}
}

// What cannot be delayed is refused as such, at once.
func TestDelayedRefused(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["some"] = parseRules("allow * a/#\nallow * $delayed/#")
	n.policy("some")
	p, _ := n.connect("p", true, 0)
	for name, want := range map[string]error{
		"$delayed/":                      ErrTopicName,
		"$delayed/10":                    ErrTopicName,
		"$delayed/10/":                   ErrTopicName,
		"$delayed//a":                    ErrTopicName,
		"$delayed/-1/a":                  ErrTopicName,
		"$delayed/+1/a":                  ErrTopicName,
		"$delayed/1.5/a":                 ErrTopicName,
		"$delayed/1e3/a":                 ErrTopicName,
		"$delayed/ten/a":                 ErrTopicName,
		"$delayed/1/$SYS/a":              ErrTopicName,
		"$delayed/1/$delayed/1/a":        ErrTopicName,
		"$delayed/1/$me/policy/presence": ErrTopicName,
		"$delayed/1/$share/g/a":          ErrTopicName,
		"$delayed/4294968/a":             ErrQuota,
		"$delayed/" + strings.Repeat("9", 30) + "/a": ErrQuota,
		"$delayed/1/b":                        ErrRefused, // by the policy, of the topic itself
		"$delayed/1/presence/example.com/bob": ErrBadEvent,
		"$delayed/4294967/a":                  nil,
	} {
		err := p.publish(name, "x", 1)
		if want == nil && err != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if _, _, err := n.tryConnect("w", true, 0, will(event.Will{Topic: "$delayed/1/a"})); !errors.Is(err, ErrTopicName) {
		t.Errorf("as a will: %v", err)
	}
}

// Who may not publish to the topic when the time has come does not, which is counted; who
// is removed from the policy has nothing left that waits.
func TestDelayedIsJudgedAtItsTime(t *testing.T) {
	n := newNode(t, Limits{})
	n.budgetOf(20)
	n.policies["both"] = parseRules("user p 1\nuser q 1\nallow * #")
	n.policies["not a"] = parseRules("user p 1\nuser q 1\nallow * #\ndeny p a publish")
	n.policies["not q"] = parseRules("user p 1\nallow * #")
	n.policy("both")
	sub, _ := n.connect("sub", true, 0)
	sub.subscribe("#", 1)
	p, _ := n.connect("p", true, 0)
	q, _ := n.connect("q", true, 0)
	must(t, p.publish("$delayed/10/a", "no", 1))
	must(t, p.publish("$delayed/10/b", "yes", 1))
	for range 100 {
		must(t, q.publish("$delayed/10/c", "no", 1))
	}
	n.policy("not a")
	n.catchUp()
	if len(n.waiting("q")) != 100 {
		t.Error("another policy takes away what it does not say anything of")
	}
	n.policy("not q")
	n.catchUp()
	if list := n.waiting(""); len(list) != 2 {
		t.Errorf("of who is removed %d events wait", len(list)-2)
	}
	n.policy("not a")
	n.pass(10 * time.Second)
	sub.want("b=yes q1")
	if refused, published := n.Stats().DelayedRefused.Load(), n.Stats().DelayedPublished.Load(); refused != 101 || published != 1 {
		t.Errorf("refused %d, published %d", refused, published)
	}
}

// Clients without a name, who may be as many as they like, leave half of the room to those
// who have one.
func TestDelayedOfNobodyIsHalf(t *testing.T) {
	n := newNode(t, Limits{})
	policy := parseRules("allow * #")
	policy.delay = DelayLimits{OwnerEvents: 3, Events: 10}
	n.policies["ten"] = policy
	n.policy("ten")
	for i := range 6 {
		c, _, err := n.tryConnect(fmt.Sprint("c", i), true, 0, func(q *ConnectRequest) { q.Principal = "" })
		must(t, err)
		if err := c.publish("$delayed/60/t", "", 1); (err == nil) != (i < 5) || err != nil && !errors.Is(err, ErrQuota) {
			t.Errorf("%d: %v, want five to be taken", i, err)
		}
		if i == 3 {
			n.restart()
		}
	}
	a, _ := n.connect("a@a.org", true, 0)
	must(t, a.publish("$delayed/60/t", "", 1))
	n.pass(2 * time.Minute)
	n.recount("a.org")
	c, _, err := n.tryConnect("c", true, 0, func(q *ConnectRequest) { q.Principal = "" })
	must(t, err)
	must(t, c.publish("$delayed/60/t", "", 1))
}

// Who has no name is of no domain, whatever its client's looks like: a node that was started
// again counts what that has waiting as it did before, and as all others do.
func TestDelayedOfNobody(t *testing.T) {
	n := newNode(t, Limits{})
	policy := quotas(DomainQuota{Delayed: 1})
	n.policies["one"] = policy
	n.policy("one")
	nobody := func(q *ConnectRequest) { q.Principal = "" }
	c, _, err := n.tryConnect("x@a.org", true, 0, nobody)
	must(t, err)
	for range 3 {
		must(t, c.publish("$delayed/60/t", "nobody's", 1))
	}
	n.restart()
	if is, want := n.recount("a.org"); is != want || is[useDelayed] != 0 {
		t.Errorf("counted %v, there is %v, want nothing", is, want)
	}
	a, _ := n.connect("a@a.org", true, 0)
	must(t, a.publish("$delayed/60/t", "the one there may be", 1))
	if err := a.publish("$delayed/60/t", "one more", 1); !errors.Is(err, ErrQuota) {
		t.Errorf("%v, want %v", err, ErrQuota)
	}
}

// What is counted of an event has the names that are kept with it, and is given back whole.
func TestDelayedCountsNames(t *testing.T) {
	n := newNode(t, Limits{})
	policy := quotas(DomainQuota{Delayed: 4})
	n.policies["few"] = policy
	n.policy("few")
	name := strings.Repeat("n", 1000) + "@a.org"
	c, _ := n.connect(name, true, 3600)
	must(t, c.publish("$delayed/60/t", "x", 1))
	if events, bytes := n.DelayedCount(); events != 1 || bytes < 2*int64(len(name)) {
		t.Errorf("%d events of %d bytes, want one with its owner's name of %d bytes, which is kept twice", events, bytes, len(name))
	}
	for _, d := range n.waiting("") {
		if _, err := n.Undelay(t.Context(), "", d.Name); err != nil {
			t.Fatal(err)
		}
	}
	if events, bytes := n.DelayedCount(); events != 0 || bytes != 0 {
		t.Errorf("%d events of %d bytes, want none", events, bytes)
	}
}

// There is no more of it than the policy lets wait, of one or of all; what is refused is one
// too many, and there is room again when one has been published or taken back.
func TestDelayedIsBounded(t *testing.T) {
	n := newNode(t, Limits{})
	policy := quotas(DomainQuota{Delayed: 4})
	policy.delay = DelayLimits{OwnerEvents: 3, Events: 6, Longest: 100, OwnerBytes: 1021, Bytes: 1542}
	n.policies["few"] = policy
	n.policy("few")
	of := func(name string) *client { c, _ := n.connect(name, true, 3600); return c }
	a, b, c := of("a@a.org"), of("b@a.org"), of("c@b.org")
	try := func(c *client, seconds, size int) error {
		return c.publish(fmt.Sprintf("$delayed/%d/t", seconds), strings.Repeat("x", size), 1)
	}
	for i, step := range []struct {
		c       *client
		seconds int
		size    int
		refused bool
	}{
		{a, 101, 1, true},
		{a, 10, 1, false},
		{a, 20, 1, false},
		{a, 30, 968, true},
		{a, 30, 1, false},
		{a, 40, 1, true}, // of one
		{b, 10, 1, false},
		{b, 10, 1, true}, // of the domain
		{c, 10, 900, false},
		{c, 10, 400, true},
		{c, 10, 1, false},
		{c, 10, 1, true}, // of all
	} {
		if err := try(step.c, step.seconds, step.size); errors.Is(err, ErrQuota) != step.refused || err != nil && !step.refused {
			t.Errorf("%d: %v", i, err)
		}
	}
	check := func(events int64, domain int64) {
		t.Helper()
		if got, _ := n.DelayedCount(); got != events {
			t.Errorf("%d wait, want %d", got, events)
		}
		if is, want := n.recount("a.org"); is != want || is[useDelayed] != domain {
			t.Errorf("counted %v, there is %v; want %d", is, want, domain)
		}
	}
	check(6, 4)
	ctx := context.Background()
	name := n.waiting("a@a.org")[1].Name
	if _, err := n.Undelay(ctx, "b@a.org", name); !errors.Is(err, ErrNoDelayed) {
		t.Errorf("somebody else's is taken back: %v", err)
	}
	if d, err := n.Undelay(ctx, "a@a.org", name); err != nil || d.Due != n.now()+20e9 {
		t.Errorf("%+v %v", d, err)
	}
	if _, err := n.Undelay(ctx, "", name); !errors.Is(err, ErrNoDelayed) {
		t.Errorf("it is taken back twice: %v", err)
	}
	check(5, 3)
	last := n.waiting("c@b.org")[0]
	undelay := &event.Undelay{Owner: "c@b.org", Number: last.number}
	n.together(undelay, undelay, &event.Undelay{Owner: "a@a.org", Number: n.waiting("c@b.org")[1].number})
	check(4, 3)
	if err := try(a, 20, 1); err != nil {
		t.Error(err)
	}
	n.restart()
	check(5, 4)
	n.pass(10 * time.Second)
	check(2, 2)
	n.pass(20 * time.Second)
	check(0, 0)
}

// Much that is due at once is published in pieces, each with an entry of its own, in order.
func TestDelayedInPieces(t *testing.T) {
	const events, items = 1_000, 100
	n := newNode(t, Limits{})
	n.budgetOf(items)
	sub, _ := n.connect("sub", true, 3600, receiveMax(65535))
	sub.subscribe("#", 1)
	p, _ := n.connect("p", true, 0)
	var want []string
	for i := range events {
		must(t, p.publish("$delayed/60/t", fmt.Sprint(i), 1))
		want = append(want, fmt.Sprintf("t=%d q1", i))
	}
	n.clock.advance(time.Minute)
	before := n.machine.Applied()
	n.catchUp()
	if entries := n.machine.Applied() - before; entries < events/items {
		t.Errorf("%d events are published by %d entries", events, entries)
	}
	if got := sub.await(events); !slices.Equal(got, want) {
		t.Errorf("out of order: %.200v", got)
	}
}

// Who is away is given what was due at once in the order in which it came, also where it is of
// several filters, each of which has a stream of its own; and wills likewise.
func TestDelayedInOrderOverStreams(t *testing.T) {
	n := newNode(t, Limits{})
	n.makeStreams(streams{crowd: 1})
	away, _ := n.connect("away", true, 3600)
	away.subscribe("a/+", 1)
	away.subscribe("b/+", 1)
	away.s.Close(false, false, 0)
	p, _ := n.connect("p", true, 0)
	var want []string
	for i := range 6 {
		name := []string{"b/1", "a/1"}[i%2]
		must(t, p.publish("$delayed/60/"+name, fmt.Sprint(i), 1))
		want = append(want, fmt.Sprintf("%s=%d q1", name, i))
	}
	for i := range 4 {
		name := []string{"b/will", "a/will"}[i%2]
		gone, _ := n.connect(fmt.Sprint("gone", i), true, 60, will(event.Will{Topic: name, Payload: []byte("gone"), QoS: 1, Delay: 60}))
		gone.s.Close(true, false, 0)
		want = append(want, name+"=gone q1")
	}
	n.tick()
	n.pass(time.Minute)
	want = append(want[6:], want[:6]...) // of the same instant wills come first
	again, _ := n.connect("away", false, 3600)
	if got := again.await(len(want)); !slices.Equal(got, want) {
		t.Errorf("got\n %s, want\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// Who subscribes with No Local is not given what it has delayed itself, also if it is away
// when the time comes and others' events come to it from a stream.
func TestDelayedIsNotLocal(t *testing.T) {
	n := newNode(t, Limits{})
	n.makeStreams(streams{crowd: 1})
	noLocal := func(s *event.Subscription) { s.NoLocal = true }
	p, _ := n.connect("p", true, 3600)
	p.subscribe("a/+", 1, noLocal)
	other, _ := n.connect("other", true, 0)
	must(t, p.publish("$delayed/60/a/1", "its own", 1))
	must(t, other.publish("$delayed/60/a/1", "another's", 1))
	p.s.Close(false, false, 0)
	n.tick()
	n.pass(time.Minute)
	again, _ := n.connect("p", false, 3600)
	again.want("a/1=another's q1")

	must(t, again.publish("$delayed/60/a/1", "its own", 1))
	must(t, other.publish("$delayed/60/a/1", "another's again", 1))
	anew, _ := n.connect("p", true, 3600)
	anew.subscribe("a/+", 1, noLocal)
	n.pass(time.Minute)
	anew.want("a/1=another's again q1")
}

// Before all nodes know of it nothing is delayed, and what has come to such a topic is what
// it was.
func TestDelayedNeedsItsLevel(t *testing.T) {
	n := bareNode(t, Limits{})
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	n.policies["old"] = parseRules("allow * #\nallow * $delayed/#")
	n.policy("old")
	p, _ := n.connect("p", true, 0)
	if err := p.publish("$delayed/1/a", "x", 1); !errors.Is(err, ErrBadEvent) {
		t.Errorf("%v", err)
	}
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("$delayed/#", 1)
	publish := func(ahead int64) { // by a clock that is ahead of the log's
		at := n.now() + ahead
		n.together(&event.Publish{Epoch: p.s.epoch, Event: &event.Event{Topic: "$delayed/1/a", QoS: 1, At: at, Expires: at + 50e9, Origin: p.s.number}})
	}
	publish(0)
	publish(10e9)
	sub.want("$delayed/1/a= q1 expires50", "$delayed/1/a= q1 expires60")
}
