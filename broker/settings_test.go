package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// Machines that are configured otherwise do the same once the log has settings:
// their bounds decide, on every node, and in a node's next life.
func TestSettingsAreAgreed(t *testing.T) {
	one, other := openMachine(t, disk.Memory(), "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n2")
	other.begin = Limits{Sessions: 3, SubscriptionsPerSession: 1, RetainedTopics: 1, QueueEvents: 5000, QueueBytes: 1 << 40}.WithDefaults()
	if err := other.load(); err != nil {
		t.Fatal(err)
	}
	d := drive(t, one, other)
	settings := Limits{Sessions: 2, SubscriptionsPerSession: 3, RetainedTopics: 4, QueueEvents: 5, QueueBytes: 1 << 20}.Settings("")
	d.entry(&settings)
	o := d.connect(event.Connect{Client: "c1", Expiry: 3600, ReceiveMax: 1})
	d.connect(event.Connect{Client: "c2", Expiry: 3600})
	if a := d.entry(&event.Connect{Client: "c3"}); !errors.Is(a[0].err, ErrQuota) {
		t.Errorf("a third session: %v, want ErrQuota", a[0].err)
	}
	var subs []event.Subscription
	for i := range 4 {
		subs = append(subs, event.Subscription{Filter: fmt.Sprint("t/", i), QoS: 1})
	}
	if a := d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: subs}); !errors.Is(a[0].err, ErrQuota) {
		t.Errorf("four subscriptions: %v, want ErrQuota", a[0].err)
	}
	if a := d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: subs[:3]}); a[0].err != nil {
		t.Error(a[0].err)
	}
	for i := range 5 {
		p := publishing(fmt.Sprint("r/", i), "v", 0)
		p.Event.Retain = true
		if a := d.entry(p); errors.Is(a[0].err, ErrQuota) != (i == 4) || i == 4 && !strings.Contains(a[0].err.Error(), ": at most 4 topics") {
			t.Errorf("retained topic %d: %v", i, a[0].err)
		}
	}
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	queued := func() uint64 { return one.sessions["c1"].queue.count }
	for range 9 {
		d.entry(publishing("t/1", "v", 1))
	}
	d.entry(&event.Tick{})
	if queued() != 5 {
		t.Errorf("%d events are queued, want 5", queued())
	}
	settings.QueueEvents = 2
	d.entry(&settings)
	d.entry(&event.Tick{})
	if queued() != 2 {
		t.Errorf("%d events are queued after the bound became 2", queued())
	}
	other.begin = modelLimits
	if err := other.load(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.entry(publishing("t/1", "v", 1))
	}
	if *other.settings != settings {
		t.Errorf("in the next life settings are %+v, want %+v", *other.settings, settings)
	}
}

// Queues that a lower bound leaves far too long are trimmed in pieces, one entry
// after the other, of which the log is made to have as many as it takes; what else
// is queued meanwhile is no hindrance, and a node that begins anew in the middle
// does the same.
func TestLoweredBoundIsTrimmedInPieces(t *testing.T) {
	const sessions, events, bound = 3, 2 * trimPerEntry, 10
	anew := openMachine(t, disk.Memory(), "/data/state", "n2")
	d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"), anew)
	settings := Limits{QueueEvents: 2 * events}.Settings("")
	d.entry(&settings)
	for i := range sessions {
		o := d.connect(event.Connect{Client: fmt.Sprint("c", i), Principal: "alice", Expiry: event.Never})
		d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "t", QoS: 1}}})
		d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	}
	burst := make([]event.Command, 4096)
	for i := range burst {
		burst[i] = publishing("t", "v", 1)
	}
	for range events / len(burst) {
		d.entry(burst...)
	}
	m := d.machines[0]
	queued := func() (n int) {
		for _, r := range m.sessions {
			n += int(r.queue.count)
		}
		return n
	}
	settings.QueueEvents = bound
	d.entry(&settings)
	entries := 0
	for before := queued(); before > sessions*bound; entries++ {
		if next := m.NextWake(); next == 0 || next > m.now {
			t.Fatalf("%d are queued, and the log waits until %d for what else comes", before, next)
		}
		added := []event.Command{&event.Tick{}}
		if entries%2 == 0 {
			added = burst[:10]
		}
		d.entry(added...)
		trimmed := before + sessions*(len(added)-len(added)%10) - queued()
		if most := trimPerEntry + sessions*10; trimmed > most {
			t.Errorf("an entry drops %d events, want %d at most", trimmed, most)
		} else if left := queued(); trimmed < trimPerEntry && left > sessions*(bound+10) {
			t.Errorf("an entry drops %d events, and leaves %d", trimmed, left)
		}
		must(t, anew.load())
		before = queued()
	}
	if least := sessions * events / trimPerEntry; entries < least {
		t.Errorf("all were dropped by %d entries, want %d at least", entries, least)
	}
	d.entry(&event.Tick{})
	for name, r := range m.sessions {
		if r.queue.count != bound || r.queue.dropped < events-bound {
			t.Errorf("%s has %d queued and %d dropped, want %d, and that all others are counted", name, r.queue.count, r.queue.dropped, bound)
		}
	}
	if next := m.NextWake(); next != 0 {
		t.Errorf("a wake is left, at %d", next)
	}
}

// Settings that nobody could want, or under whose domain the policy means
// nothing, are refused and change nothing; under another domain the policy is
// read anew.
func TestSettingsAreChecked(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["all example.com"] = parseRules("allow * # subscribe")
	good := Limits{}.Settings("example.com")
	bad := []event.Settings{{}, good, good, Limits{}.Settings("example.org")}
	bad[1].QueueEvents, bad[2].QueueBytes = 0, 1<<63
	for _, s := range bad {
		if err := n.SetSettings(context.Background(), s); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v: %v, want ErrRefused", s, err)
		}
	}
	if in, ok := n.Settings(); ok {
		t.Errorf("settings are in force: %+v", in)
	}
	if err := n.SetSettings(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if in, ok := n.Settings(); !ok || in != good {
			t.Errorf("settings are %+v, want %+v", in, good)
		}
		c, _ := n.connect("c", true, 0)
		if err := c.publish("x", "v", 1); !errors.Is(err, ErrRefused) {
			t.Errorf("published under the policy of no domain: %v", err)
		}
		n.restart()
	}
}

// No more than half of a queue's bound is under way at once, whatever the client
// takes; and of what is over, the log is told before so much is that it would
// drop what is under way.
func TestUnderWayIsBounded(t *testing.T) {
	const bound = 40 // 20 under way, 10 over and untold
	n := newNode(t, Limits{QueueEvents: bound, SettleEvery: time.Hour})
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("x", 1)
	pub, _ := n.connect("pub", true, 0)
	for i := range bound {
		if err := pub.publish("x", fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	n.tick()
	if got := len(sub.await(20)); got != 20 {
		t.Fatalf("%d are under way, want 20", got)
	}
	n.log.mu.Lock() // the log hears nothing
	for i := range 20 {
		if err := sub.answer(uint16(i+1), Acked); err != nil {
			t.Error(err)
		}
	}
	if got := len(sub.await(20)); got != 20+9 {
		t.Errorf("%d were sent while the log did not hear of 20 acknowledgements, want 29", got)
	}
	n.log.mu.Unlock()
	sub.await(bound)
	for i := range bound {
		if i >= 20 {
			if err := sub.answer(uint16(i+1), Acked); err != nil {
				t.Error(err)
			}
		}
	}
	for i := range bound {
		if err := pub.publish("x", fmt.Sprint(bound+i), 1); err != nil {
			t.Fatal(err)
		}
		sub.await(bound + i + 1)
		sub.ackAll()
	}
	if got := n.Stats().QueueDropped.Load(); got != 0 {
		t.Errorf("%d events were dropped, and the client kept up", got)
	}
}

// What is over and untold counts over takeovers too: a client that is back again
// and again before the log is told of the little that it took drives nothing out
// of its queue.
func TestUnderWayIsBoundedOverTakeovers(t *testing.T) {
	const bound, each = 40, 5 // 10 over and untold; the log is told at once of more than 5
	n := newNode(t, Limits{QueueEvents: bound, SettleEvery: time.Hour})
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("x", 1)
	pub, _ := n.connect("pub", true, 0)
	for round := range 2 * bound / each {
		for i := range each {
			must(t, pub.publish("x", fmt.Sprint(round*each+i), 1))
		}
		sub.await(each)
		sub.ackAll()
		sub, _ = n.connect("sub", false, 3600)
	}
	n.tick()
	if got := n.Stats().QueueDropped.Load(); got != 0 {
		t.Errorf("%d events were dropped, and the client kept up", got)
	}
	if got := sub.await(0); len(got) != 0 {
		t.Errorf("after all had been acknowledged came %q", got)
	}
}

// Who is removed from the policy loses his sessions: connected or away, with
// queue, subscriptions and will, although a rule still covers his name. Others,
// and who is back in time, lose nothing.
func TestRemovedUserLosesHisSessions(t *testing.T) {
	for name, expiry := range map[string]uint32{"durable": 3600, "ends with its connection": 0} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Limits{})
			n.policies["both"] = parseRules("user bob b\nuser eve e\nallow * #")
			n.policies["bob"] = parseRules("user bob b\nallow * #")
			n.policy("both")
			eve := func(r *ConnectRequest) { r.Principal = "eve" }
			bob := func(r *ConnectRequest) { r.Principal = "bob" }
			watcher, _ := n.connect("watcher", true, 3600, bob)
			watcher.subscribe("#", 1)
			live, _ := n.connect("live", true, expiry, eve, will(event.Will{Topic: "will", Payload: []byte("live")}))
			live.subscribe("x", 1)
			away, _ := n.connect("away", true, 3600, eve, will(event.Will{Topic: "will", Payload: []byte("away"), Delay: 60}))
			away.subscribe("x", 1)
			away.s.Close(true, false, 0)
			if err := watcher.publish("x", "1", 1); err != nil {
				t.Fatal(err)
			}
			n.policy("bob")
			if err := live.awaitEnd(); !errors.Is(err, ErrRefused) {
				t.Errorf("the connection ended with %v, want ErrRefused", err)
			}
			n.catchUp()
			n.catchUp()
			if _, ok := n.machine.sessions["live"]; ok || n.SessionsKnown() != 1 {
				t.Errorf("%d sessions are left, want the watcher's", n.SessionsKnown())
			}
			if got := len(keysOf(n.config.Store, store.Queue)); got != 1 {
				t.Errorf("%d events are queued, want the watcher's", got)
			}
			n.pass(time.Hour)
			watcher.want("x=1 q1")
			if got := n.Stats().Takeovers.Load(); got != 0 {
				t.Errorf("%d takeovers are counted", got)
			}
		})
	}
}

// A policy that names a user again before his sessions are gone keeps them.
func TestUserIsBackInTime(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["both"] = parseRules("user bob b\nuser eve e\nallow * #")
	n.policies["bob"] = parseRules("user bob b\nallow * #")
	n.policy("both")
	c, _ := n.connect("c", true, 3600, func(r *ConnectRequest) { r.Principal = "eve" })
	c.subscribe("x", 1)
	c.s.Close(false, false, 0)
	n.tick()
	n.together(&event.Policy{Data: []byte("bob")}, &event.Policy{Data: []byte("both")})
	n.catchUp()
	if got := n.subsOf("c"); !slices.Equal(got, []string{"x"}) {
		t.Errorf("subscriptions %q are left, want x", got)
	}
}

// Who had signed in before the policy that removed him, and is connected after
// it, is disconnected, and nothing stays of the session.
func TestSignedInBeforeRemoval(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["both"] = parseRules("user bob b\nuser eve e\nallow * #")
	n.policies["bob"] = parseRules("user bob b\nallow * #")
	n.policy("both")
	before := n.Policy()
	n.policy("bob")
	n.catchUp()
	c, _ := n.connect("c", true, 3600, func(r *ConnectRequest) { r.Principal, r.Proved = "eve", before })
	if err := c.awaitEnd(); !errors.Is(err, ErrRefused) {
		t.Errorf("the connection ended with %v, want ErrRefused", err)
	}
	n.tick()
	if n.SessionsKnown() != 0 {
		t.Errorf("%d sessions are left", n.SessionsKnown())
	}
}

// An admitted is a client of which a policy of one name does not let in by one way.
type admitted struct {
	*client
	policy, way string
}

func (a *admitted) MayStay(_ Who, way string, policy Authorizer) bool {
	return way != a.way || policy != a.n.policies[a.policy]
}

// Whose way in a policy closes is disconnected when it comes into force, also if it did
// after the client had signed in and before its session was opened; the session is kept.
func TestWayInIsClosed(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["open"] = parseRules("allow * #")
	n.policies["closed"] = parseRules("allow * #")
	n.policy("open")
	before := n.Policy()
	open := func(id, way string) *client {
		c := &client{n: n, id: id}
		c.changed = sync.NewCond(&c.mu)
		r := ConnectRequest{Client: id, Principal: id, Way: way, Version: 5, Expiry: 3600, ReceiveMax: 100, Proved: before}
		var err error
		if c.s, _, c.dropped, err = n.Connect(r, &admitted{c, "closed", "front"}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	front, back := open("front", "front"), open("back", "back")
	n.policy("closed")
	n.catchUp()
	late := open("late", "front")
	for _, c := range []*client{front, late} {
		if err := c.awaitEnd(); !errors.Is(err, ErrRefused) {
			t.Errorf("%s ended with %v, want ErrRefused", c.id, err)
		}
	}
	back.mu.Lock()
	defer back.mu.Unlock()
	if back.ended != nil {
		t.Errorf("who came by another way ended with %v", back.ended)
	}
	n.tick()
	if n.SessionsKnown() != 3 {
		t.Errorf("%d sessions are left, want 3", n.SessionsKnown())
	}
}
