package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// A driver feeds one or several machines the same entries, each of one batch
// of node n1.
type driver struct {
	t        testing.TB
	machines []*machineUnderTest
	index    uint64
	now      int64
	seq      uint64
	kept     []kept // entries, but in a benchmark
}

func drive(t testing.TB, machines ...*machineUnderTest) *driver {
	t.Helper()
	d := &driver{t: t, machines: machines, now: time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC).UnixNano()}
	for _, m := range machines {
		m.life = 1 << lifeBits
		t.Cleanup(func() { m.close(t) })
	}
	d.entry(&event.NodeUp{At: d.now}, &event.Policy{Data: []byte("all")})
	return d
}

// entry applies commands as one entry and returns the first machine's answers.
func (d *driver) entry(commands ...event.Command) (answers []step) {
	d.t.Helper()
	d.seq++
	b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 1 << lifeBits, Seq: d.seq})
	for _, c := range commands {
		if r, is := c.(*event.Raise); is && r.Secret == nil {
			c = raising(Level(r.Level))
		}
		b = event.AppendCommand(b, c)
	}
	return d.raw(b)
}

func (d *driver) raw(batches ...[]byte) (answers []step) {
	d.t.Helper()
	d.index++
	if _, test := d.t.(*testing.T); test {
		d.kept = append(d.kept, kept{d.now, batches})
	}
	for i, m := range d.machines {
		m.Apply(d.index, 1, d.now, batches)
		for _, a := range m.steps {
			for _, s := range a.steps {
				if i == 0 && s.kind == stepDone {
					answers = append(answers, s)
				}
			}
		}
		m.steps = nil
	}
	for _, m := range d.machines[1:] {
		want, _ := d.machines[0].store.Digest(nil)
		if got, _ := m.store.Digest(nil); got != want {
			d.t.Errorf("entry %d: machines differ:\n%s", d.index, difference(m.store, d.machines[0].store))
		}
	}
	return answers
}

// connect connects a client and returns its session.
func (d *driver) connect(c event.Connect) *opened {
	d.t.Helper()
	a := d.entry(&c)
	if len(a) != 1 || a[0].err != nil {
		d.t.Fatalf("connect: %+v", a)
	}
	return a[0].value.(*opened)
}

// raising returns what raises the level, with the same secret each time.
func raising(to Level) *event.Raise {
	c := &event.Raise{Level: uint8(to)}
	if to >= LevelSecret {
		c.Secret = secret.Secret(strings.Repeat("0123456789abcdef", secret.Size/16))
	}
	return c
}

func publishing(name, payload string, qos uint8) *event.Publish {
	return &event.Publish{Event: &event.Event{Topic: name, Payload: []byte(payload), QoS: qos}}
}

func keysOf(s *store.Store, space store.Space) (keys []string) {
	s.Scan([]byte{byte(space)}, []byte{byte(space) + 1}, func(k, _ []byte) bool {
		keys = append(keys, string(k[1:]))
		return true
	})
	return keys
}

// A command that panics is rolled back alone: the others of its entry happen,
// before it and after it, on every machine alike; the node lives, and the
// failure is recorded.
func TestPanickingCommandIsRolledBackAlone(t *testing.T) {
	twin := openMachine(t, disk.Memory(), "/data/state", "n1")
	d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"), twin)
	m := d.machines[0]
	o := d.connect(event.Connect{Client: "c1", Principal: "alice", Expiry: 3600, ReceiveMax: 10})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "#", QoS: 2}}})
	d.entry(&event.Policy{Data: []byte("trap")})
	before := m.sessions["c1"].queue.next

	retained := publishing("trap/retained", "x", 1)
	retained.Event.Retain = true
	a := d.entry(
		publishing("a/1", "first", 1),
		retained, // retains, then panics when it is to be queued
		publishing("a/2", "second", 1),
		publishing("trap/2", "y", 2),
		&event.Connect{Client: "c2", Principal: "bob", Expiry: 60},
	)
	for i, want := range []error{nil, ErrFailed, nil, ErrFailed, nil} {
		if !errors.Is(a[i].err, want) {
			t.Errorf("command %d: answered %v, want %v", i, a[i].err, want)
		}
	}
	if got := m.sessions["c1"].queue.next - before; got != 2 {
		t.Errorf("%d events queued, want the 2 that did not panic", got)
	}
	if keysOf(m.store, store.Retained) != nil || m.retained.Load() != 0 {
		t.Error("half of the command that panicked is left: a retained event")
	}
	if m.sessions["c2"] == nil {
		t.Error("the command after it has not happened")
	}
	if got := m.Failures(); got != 2 || len(keysOf(m.store, store.Failures)) != 2 {
		t.Errorf("%d failures counted, want 2", got)
	}
	again, err := newMachine(m.store, m.compile, modelLimits, "", m.logger)
	if err != nil || again.Failures() != 2 {
		t.Errorf("after a restart: %v failures, %v, want 2", again.Failures(), err)
	}
	// And it goes on.
	if a := d.entry(publishing("a/3", "third", 1)); a[0].err != nil {
		t.Error(a[0].err)
	}
}

// What is recorded of failures is bounded: the latest 1,000.
func TestFailuresAreBounded(t *testing.T) {
	d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"))
	m := d.machines[0]
	o := d.connect(event.Connect{Client: "c1", Principal: "alice", Expiry: 3600})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "#", QoS: 2}}})
	d.entry(&event.Policy{Data: []byte("trap")})
	for _, before := range []uint64{999, 1999} {
		c := m.counters
		c.failure = before
		tx := m.store.Begin()
		tx.Set(countersKey, c.append(nil))
		tx.Commit()
		if err := m.load(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			d.entry(publishing("trap/1", "x", 1))
		}
		if got := len(keysOf(m.store, store.Failures)); got != 3 || m.Failures() != before+3 {
			t.Errorf("%d kept, %d counted, want the same 3 places used again, and %d", got, m.Failures(), before+3)
		}
	}
}

// What falls due and panics happens all the same, but for the wills that it
// would publish: nothing that is due stops the log for ever.
func TestPanickingWakeHappensWithoutItsWills(t *testing.T) {
	d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n2"))
	m := d.machines[0]
	o := d.connect(event.Connect{
		Client: "c1", Principal: "alice", Expiry: 60,
		Will: &event.Will{Topic: "trap/will", Payload: []byte("gone"), QoS: 1, Delay: 30},
	})
	d.connect(event.Connect{Client: "c2", Principal: "alice", Expiry: 0, Will: &event.Will{Topic: "trap/2", Payload: []byte("x")}})
	d.entry(&event.Policy{Data: []byte("trap")})
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch, PublishWill: true})
	d.now += 31e9
	if a := d.entry(publishing("a/1", "x", 1)); a[0].err != nil {
		t.Error(a[0].err)
	}
	if s := m.sessions["c1"]; s == nil || s.will != nil || s.willAt != 0 {
		t.Errorf("session %+v: want it without its will", s)
	}
	// The node begins anew: the sweep that ends c2's connection publishes its will.
	b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 2 << lifeBits, Seq: 1})
	d.raw(event.AppendCommand(b, &event.NodeUp{}))
	d.now += 30e9 // c1 expires, too
	b = event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 2 << lifeBits, Seq: 2})
	d.raw(event.AppendCommand(b, &event.Tick{}))
	if len(m.sessions) != 0 {
		t.Errorf("%d sessions are left, want none", len(m.sessions))
	}
	if m.Failures() != 2 {
		t.Errorf("%d failures, want 2: the will that was due, and the sweep", m.Failures())
	}
}

// A node that does not know a command, or cannot read a batch, stops: to pass
// over it would be to differ from the others.
func TestUnknownAndDamagedStopTheNode(t *testing.T) {
	header := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 1 << lifeBits, Seq: 2})
	whole := event.AppendCommand(slices.Clone(header), publishing("a/1", "x", 1))
	for name, batch := range map[string][]byte{
		"unknown kind":     append(slices.Clone(header), 200, 0, 0, 0, 0),
		"unknown level":    event.AppendCommand(slices.Clone(header), raising(NewestLevel+1)),
		"no secret":        append(slices.Clone(header), byte(event.KindRaise), 0, 0, 0, 1, byte(LevelSecret)),
		"cut short":        whole[:len(whole)-1],
		"damaged command":  append(slices.Clone(header), byte(event.KindPublish), 0, 0, 0, 1, 0),
		"version":          append([]byte{99}, whole[1:]...),
		"after a good one": append(slices.Clone(whole), 200, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"))
			before, _ := d.machines[0].store.Digest(nil)
			defer func() {
				if why, died := recover().(string); !died || why == "" {
					t.Errorf("it went on, or stopped for another reason: %v", why)
				}
				if after, _ := d.machines[0].store.Digest(nil); after != before {
					t.Error("something of the entry is in the store")
				}
			}()
			d.raw(batch)
		})
	}
}

// A copy brings its own time and its own wakes: one that is due before any that
// the machine had known is not missed.
func TestRestoredWakesAreNotMissed(t *testing.T) {
	fs := disk.Memory()
	d := drive(t, openMachine(t, fs, "/data/state", "n1"))
	o := d.connect(event.Connect{Client: "c1", Expiry: 60})
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	if _, _, err := d.machines[0].Checkpoint("/data/copy"); err != nil {
		t.Fatal(err)
	}
	other := openMachine(t, fs, "/data/other", "n1")
	e := drive(t, other)
	o = e.connect(event.Connect{Client: "c1", Expiry: 7200})
	e.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	if err := other.Restore("/data/copy"); err != nil {
		t.Fatal(err)
	}
	if got, want := other.NextWake(), d.machines[0].NextWake(); got != want {
		t.Errorf("next wake at %d, want %d", got, want)
	}
	b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 1 << lifeBits, Seq: d.seq + 1})
	other.Apply(d.index+1, 1, d.now+61e9, [][]byte{event.AppendCommand(b, &event.Tick{})})
	if len(other.sessions) != 0 {
		t.Error("the session has not expired")
	}
}

// A node's 3,000 sessions lose their connections a bounded number an entry, all
// in the end, and each once.
func TestSweepIsBounded(t *testing.T) {
	d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"))
	m := d.machines[0]
	const sessions = 3000
	m.limits.Sessions, m.limits.RetainedTopics = sessions, sessions
	var connects []event.Command
	for i := range sessions {
		connects = append(connects, &event.Connect{
			Client: fmt.Sprint("c", i), Expiry: 3600, Will: &event.Will{Topic: fmt.Sprint("w/", i), Payload: []byte("gone"), Retain: true},
		})
	}
	d.entry(connects...)
	b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 2 << lifeBits, Seq: 1})
	d.raw(event.AppendCommand(b, &event.NodeUp{}))
	left := sessions
	for seq := uint64(2); left > 0; seq++ {
		if next := m.NextWake(); next == 0 || next > d.now {
			t.Fatalf("%d connections are left and nothing is due", left)
		}
		b := event.AppendHeader(nil, event.Header{Node: "n1", Incarnation: 2 << lifeBits, Seq: seq})
		d.raw(event.AppendCommand(b, &event.Tick{}))
		n := len(keysOf(m.store, store.Held))
		if left-n > itemsPerWake || n >= left {
			t.Fatalf("an entry ended %d connections, want 1 to %d", left-n, itemsPerWake)
		}
		left = n
	}
	if got := m.retained.Load(); got != sessions {
		t.Errorf("%d wills are retained, want %d", got, sessions)
	}
}

// The memory of an entry is let go of when it is delivered: nothing that is kept
// refers to it.
func TestEntryMemoryIsNotKept(t *testing.T) {
	d := drive(t, openMachine(t, disk.Memory(), "/data/state", "n1"))
	m := d.machines[0]
	d.entry(&event.Policy{Data: []byte("all")})
	spoil := func(node string, seq uint64, commands ...event.Command) {
		b := event.AppendHeader(nil, event.Header{Node: node, Incarnation: 1 << lifeBits, Seq: seq})
		for _, c := range commands {
			b = event.AppendCommand(b, c)
		}
		d.raw(b)
		for i := range b {
			b[i] = 0xee
		}
	}
	spoil("n2", 1, &event.NodeUp{}, &event.Connect{
		Client: "client", Principal: "alice", Expiry: 3600, ReceiveMax: 9, Will: &event.Will{Topic: "a/will", Payload: []byte("will"), Props: []byte("p")},
	})
	r := m.sessions["client"]
	if r == nil {
		t.Fatalf("sessions: %v", m.sessions)
	}
	spoil("n2", 2, &event.Subscribe{Session: r.session, Epoch: r.epoch, Subs: []event.Subscription{{Filter: "a/+", QoS: 1, ID: 7}}},
		&event.Publish{Event: &event.Event{Topic: "a/1", Payload: []byte("one"), QoS: 1, Retain: true}})
	spoil("n2", 3, &event.Replay{Session: r.session, Epoch: r.epoch, Filter: "a/+", After: 1 << 60, Topics: []string{"a/1"}, Position: "a/1"})
	words := fmt.Sprintf("%+v %+v %+v %+v", *r, *r.will, m.nodes, func() (subs []storedSub) {
		for _, f := range m.filters(r) {
			s, _ := m.durable.Value(f, r.session)
			subs = append(subs, s)
		}
		return subs
	}())
	if strings.Contains(words, "\xee") {
		t.Errorf("what is kept refers to the entry's memory: %q", words)
	}
	if r.node != "n2" || m.nodes["n2"].seq != 3 {
		t.Errorf("node %q, %+v", r.node, m.nodes)
	}
	// What the next entry of that node finds.
	spoil("n2", 4, &event.Disconnect{Session: r.session, Epoch: r.epoch, PublishWill: true})
	if r.connected() || len(keysOf(m.store, store.Held)) != 0 {
		t.Error("the connection has not ended")
	}
}
