package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// Who may not have an event is passed over, and where nobody may, a group with a
// durable member keeps it until somebody does: by the clock, by another policy, or
// because he has come.
func TestSharedPermission(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["lunch"] = parseRules("allow pub jobs/#\nallow day jobs/#\ndeny day jobs/# 12:30-13:00 subscribe\nallow night jobs/# 18:00-19:00 subscribe")
	n.policies["no day"] = parseRules("allow pub jobs/#\nallow night jobs/#")
	n.policy("lunch")
	pub, _ := n.connect("pub", true, 0)
	day, _ := n.connect("day", true, 3600)
	day.subscribe(jobs, 1)
	night, _ := n.connect("night", true, 3600)
	night.subscribe(jobs, 1)
	publishJobs(t, pub, 0, 2) // 12:00
	wantPayloads(t, day, "0", "1")
	day.ackAll()
	n.pass(35 * time.Minute)
	publishJobs(t, pub, 2, 4) // nobody may, and the events were not for night
	n.pass(30 * time.Minute)
	publishJobs(t, pub, 4, 5)
	wantPayloads(t, day, "0", "1", "4")
	n.policy("no day")
	publishJobs(t, pub, 5, 7)
	wantPayloads(t, night, "5", "6")
	wantPayloads(t, day, "0", "1", "4")
}

// A copy that waits is given to a member when its window opens, if it might have had
// the event when that was published.
func TestSharedWaitsForAWindow(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["morning"] = parseRules("allow pub jobs/#\nallow one jobs/#\nallow two jobs/#\ndeny two jobs/# 12:01-12:30 subscribe")
	n.policy("morning")
	pub, _ := n.connect("pub", true, 0)
	one, _ := n.connect("one", true, 60)
	one.subscribe(jobs, 1)
	two, _ := n.connect("two", true, 0)
	two.subscribe(jobs, 1)
	one.full = true
	two.full = true
	publishJobs(t, pub, 0, 4)
	n.tick()
	n.pass(2 * time.Minute)
	two.full = false // its window has closed while it took nothing
	var w Wave
	two.s.Drained(&w)
	w.Flush()
	n.told()
	two.want()
	one.s.Close(false, false, 0)
	n.tick()
	n.catchUp()
	two.want()
	n.pass(30 * time.Minute)
	two.await(4)
	two.ackAll()
	n.quiet()
}

// A policy that forbids a member what it was given but not sent has another get it;
// so has an UNSUBSCRIBE, and a user that is removed loses all.
func TestSharedIsTakenAway(t *testing.T) {
	for name, take := range map[string]func(n *node, one *client){
		"policy": func(n *node, one *client) { n.policy("not one") },
		"unsubscribed": func(n *node, one *client) {
			if existed, err := one.s.Unsubscribe([]string{jobs, "$share/other/jobs/#"}); err != nil || !existed[0] || existed[1] {
				n.t.Errorf("unsubscribe: %v, %v", existed, err)
			}
		},
	} {
		for durable, expiry := range map[string]uint32{"durable": 3600, "brief": 0} {
			t.Run(name+" "+durable, func(t *testing.T) {
				n := newNode(t, Limits{})
				n.policies["not one"] = parseRules("allow * #\ndeny one jobs/# subscribe")
				pub, _ := n.connect("pub", true, 0)
				one, _ := n.connect("one", true, expiry)
				one.subscribe(jobs, 1)
				publishJobs(t, pub, 0, 1)
				wantPayloads(t, one, "0")
				one.full = true
				publishJobs(t, pub, 1, 4)
				other, _ := n.connect("other", true, 0)
				other.subscribe(jobs, 1)
				take(n, one)
				one.full = false
				var w Wave
				one.s.Drained(&w)
				w.Flush()
				n.told()
				wantPayloads(t, other, "1", "2", "3")
				wantPayloads(t, one, "0")
				one.ackAll()
				other.ackAll()
				n.quiet()
			})
		}
	}
}

// What a member's connection has given back, and the log has not been told of, when
// another takes over from it, others of the group get all the same.
func TestSharedReturnedBeforeATakeover(t *testing.T) {
	n := newNode(t, Limits{SettleEvery: time.Hour})
	n.policies["not one"] = parseRules("allow * #\ndeny one jobs/# subscribe")
	pub, _ := n.connect("pub", true, 0)
	one, _ := n.connect("one", true, 3600)
	one.subscribe(jobs, 1)
	one.full = true
	publishJobs(t, pub, 0, 3)
	n.tick()
	other, _ := n.connect("other", true, 0)
	other.subscribe(jobs, 1)
	n.policy("not one")
	one.full = false
	var w Wave
	one.s.Drained(&w)
	w.Flush()
	n.connect("one", false, 3600)
	n.told()
	wantPayloads(t, other, "0", "1", "2")
	other.ackAll()
	n.quiet()
}

// What a bound pushes out of a member's queue others get.
func TestSharedIsDisplaced(t *testing.T) {
	n := newNode(t, Limits{QueueEvents: 12})
	pub, _ := n.connect("pub", true, 0)
	one, _ := n.connect("one", true, 3600, receiveMax(2))
	one.subscribe("t", 1)
	one.subscribe(jobs, 1)
	if err := pub.publish("t", "first", 1); err != nil {
		t.Fatal(err)
	}
	publishJobs(t, pub, 0, 1)
	one.await(2)
	one.s.Close(false, false, 0)
	n.tick()
	one, _ = n.connect("one", false, 3600, receiveMax(1))
	one.await(1)
	other, _ := n.connect("other", true, 0)
	other.subscribe(jobs, 1)
	one.s.Close(false, false, 0)
	n.tick()
	for range 40 {
		if err := pub.publish("t", "more", 1); err != nil {
			t.Fatal(err)
		}
	}
	n.catchUp()
	n.tick()
	if got := n.stats.QueueDropped.Load(); got == 0 {
		t.Error("nothing was pushed out")
	}
	again, _ := n.connect("one", false, 3600)
	again.await(1)
	if got := len(other.awaitGot(0)); got+copies(again, "0") != 1 {
		t.Errorf("the copy is %d times with the other, %d with its member", got, copies(again, "0"))
	}
}

func copies(c *client, payload string) (n int) {
	for _, p := range c.payloads() {
		if p == payload {
			n++
		}
	}
	return n
}

// At QoS 0 each event goes to one member by turns, as long as that is there, takes
// something, and may; so it does when it is ordered because of the event before it.
func TestSharedQoS0(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["not two"] = parseRules("allow * #\ndeny two jobs/# subscribe")
	pub, _ := n.connect("pub", true, 0)
	one, _ := n.connect("one", true, 0)
	one.subscribe(jobs, 1)
	two, _ := n.connect("two", true, 3600)
	two.subscribe(jobs, 0, func(s *event.Subscription) { s.ID = 7 })
	send := func(qos uint8, payloads string) {
		t.Helper()
		for p := range strings.FieldsSeq(payloads) {
			if err := pub.publish("jobs/1", p, qos); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, "a b c d")
	one.await(2)
	two.await(2)
	two.full = true
	send(0, "e f")
	one.await(4)
	n.policy("not two")
	two.full = false
	send(0, "g h")
	one.await(6)
	send(1, "i j")
	one.await(8)
	one.ackAll()
	n.policy("all")
	one.s.Close(false, false, 0)
	n.tick()
	send(1, "k")
	two.await(3)
	if got := two.await(0)[2]; got != "jobs/1=k q0 ids[7]" {
		t.Errorf("two got %s", got)
	}
	two.s.Close(false, false, 0)
	for len(n.local.LookupString("jobs/1").groups) > 0 {
		n.tick() // until it is known here that two is gone: till then what is for the group is lost, and counted
	}
	send(0, "l")
	send(1, "m") // for nobody: two subscribes at QoS 0, and is not there
	back, _ := n.connect("two", false, 3600)
	back.want()
	if lost := n.stats.SharedLost.Load(); lost != 0 {
		t.Errorf("%d were lost", lost)
	}
}

// Shared subscriptions are not to be had before all nodes know them, nor to what is
// shown to each as it may see it, nor more of them than one session may have.
func TestSharedRefused(t *testing.T) {
	n := bareNode(t, Limits{})
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	n.policies["some"] = parseRules("allow c a/#")
	n.policy("some")
	c, _ := n.connect("c", true, 0)
	if err := c.trySubscribe("$share/g/a/b", 1); !errors.Is(err, ErrNotShared) || n.SharedAvailable() {
		t.Errorf("before the level is reached: %v, want ErrNotShared", err)
	}
	if err := n.Raise(context.Background(), NewestLevel); err != nil {
		t.Fatal(err)
	}
	for filter, want := range map[string]error{
		"$share/g/a/b": nil, "$share/g/#": ErrRefused, "$share/g/presence/x": ErrBadEvent, "$share/g/$me/policy/x": ErrNotShared,
	} {
		if err := c.trySubscribe(filter, 1); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", filter, err, want)
		}
	}
	for i := range groupsPerSession - 1 {
		if err := c.trySubscribe("$share/g"+strings.Repeat("x", i%100+1)+strings.Repeat("y", i/100)+"/a/b", 0); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := c.trySubscribe("$share/more/a/b", 1); !errors.Is(err, ErrQuota) {
		t.Errorf("one too many: %v, want ErrQuota", err)
	}
	if err := c.trySubscribe("$share/g/a/b", 0); err != nil {
		t.Errorf("the same again: %v", err)
	}
	// $share/g/# matches no topic that begins with $.
	n.policy("all")
	if err := c.trySubscribe("$share/g/$SYS/#", 1); err == nil {
		t.Error("one too many again, of another filter")
	}
}

// A principal may have founded so many groups, over all its sessions; others join them,
// and found their own. One that has ended counts no more; a machine that starts counts
// the same.
func TestSharedFounded(t *testing.T) {
	u, twin, d := sharedTwins(t, Limits{})
	open := func(i int, principal string) *opened {
		return d.connect(event.Connect{Client: fmt.Sprint(principal, i), Principal: principal, ReceiveMax: 1})
	}
	try := func(o *opened, filters ...string) error {
		subs := make([]event.Subscription, len(filters))
		for i, f := range filters {
			subs[i] = event.Subscription{Filter: f, QoS: 1}
		}
		return d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: subs})[0].err
	}
	var first *opened
	for n := 0; n < groupsPerPrincipal; n += groupsPerSession {
		o := open(n, "alice")
		if first == nil {
			first = o
		}
		var filters []string
		for i := range groupsPerSession {
			filters = append(filters, fmt.Sprintf("$share/g%d/jobs/#", n+i))
		}
		must(t, try(o, filters...))
	}
	more, bob := open(-1, "alice"), open(0, "bob")
	must(t, twin.load())
	if err := try(more, "$share/more/jobs/#"); !errors.Is(err, ErrQuota) {
		t.Errorf("one too many: %v, want ErrQuota", err)
	}
	must(t, try(more, "$share/g1/jobs/#"))
	must(t, try(bob, "$share/g0/jobs/#", "$share/bob/jobs/#"))
	d.entry(&event.Unsubscribe{Session: first.session, Epoch: first.epoch, Filters: []string{"$share/g0/jobs/#", "$share/g1/jobs/#"}})
	if err := try(more, "$share/more/jobs/#"); !errors.Is(err, ErrQuota) {
		t.Errorf("others are in what it left: %v, want ErrQuota", err)
	}
	d.entry(&event.Unsubscribe{Session: bob.session, Epoch: bob.epoch, Filters: []string{"$share/g0/jobs/#"}})
	must(t, try(more, "$share/more/jobs/#"))
	for n := 0; n <= groupsPerPrincipal; n += groupsPerSession { // nobody takes nobody's
		o := open(n, "")
		for i := range groupsPerSession {
			must(t, try(o, fmt.Sprintf("$share/n%d/jobs/#", n+i)))
		}
		if err := try(o, "$share/over/jobs/#"); !errors.Is(err, ErrQuota) {
			t.Errorf("a session's one too many: %v, want ErrQuota", err)
		}
	}
	if got := u.founded["alice"]; got != groupsPerPrincipal {
		t.Errorf("%d are counted, want %d", got, groupsPerPrincipal)
	}
}

// What matches everything does not match what begins with $ (5.0 [MQTT-4.7.2-1]), shared
// or not.
func TestSharedAndReserved(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["all and $x"] = parseRules("allow * #\nallow * $x/#")
	n.policy("all and $x")
	c, _ := n.connect("c", true, 0)
	c.subscribe("$share/g/#", 1)
	c.subscribe("$share/h/+/jobs", 1)
	c.subscribe("$share/g/$x/#", 0)
	pub, _ := n.connect("pub", true, 0)
	for qos := range uint8(2) {
		e := event.Event{Topic: "$x/jobs", Payload: []byte("x"), QoS: qos, At: n.clock.now().UnixNano()}
		if qos == 0 {
			n.loop.call(func(w *Wave) { n.deliverHere(&e, n.now(), w) })
			continue
		}
		done := newWait()
		must(t, n.propose(&event.Publish{Event: &e}, call{c: done}, false))
		<-done.done
		must(t, done.err)
	}
	must(t, pub.publish("x/jobs", "y", 1))
	c.want("$x/jobs=x q0", "$x/jobs=x q0", "x/jobs=y q1", "x/jobs=y q1")
}

// What nobody who is there may have does not hold what came after it, of which others
// may have some; what those make room for comes in its order.
func TestSharedHoldsNobodyElse(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["divided"] = parseRules("allow pub jobs/#\nallow away jobs/#\nallow here jobs/1")
	n.policy("divided")
	pub, _ := n.connect("pub", true, 0)
	away, _ := n.connect("away", true, 3600)
	away.subscribe("$share/g/jobs/1", 1)
	here, _ := n.connect("here", true, 0, receiveMax(2))
	here.subscribe("$share/g/jobs/1", 1)
	n.policies["all jobs"] = parseRules("allow pub jobs/#\nallow away jobs/#\nallow here jobs/#")
	n.policy("all jobs")
	away.subscribe(jobs, 1)
	here.subscribe(jobs, 1)
	n.policy("divided")
	if _, err := away.s.Unsubscribe([]string{"$share/g/jobs/1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := here.s.Unsubscribe([]string{"$share/g/jobs/1"}); err != nil {
		t.Fatal(err)
	}
	away.s.Close(false, false, 0)
	n.tick()
	publishJobs(t, pub, 0, 12) // of three topics by turns
	wantPayloads(t, here, "1", "4")
	here.ackAll()
	wantPayloads(t, here, "1", "4", "7", "10")
	here.ackAll()
	back, _ := n.connect("away", false, 3600)
	wantPayloads(t, back, "0", "2", "3", "5", "6", "8", "9", "11")
}
