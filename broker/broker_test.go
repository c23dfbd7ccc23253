package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/disk"
)

// A soloLog is the least that orders batches: one node, nothing kept, an entry
// for each batch. What is replicated and synced is tested in cluster and
// against the built binary.
type soloLog struct {
	m       *Machine
	now     func() time.Time
	batches chan []byte
	done    chan struct{}
}

func newSoloLog(m *Machine, now func() time.Time) *soloLog {
	l := &soloLog{m: m, now: now, batches: make(chan []byte, 16), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for b := range l.batches {
			m.Apply(m.Applied()+1, 1, l.now().UnixNano(), [][]byte{b})
		}
	}()
	return l
}

func (l *soloLog) Submit(b []byte, _ func(error)) { l.batches <- slices.Clone(b) }
func (l *soloLog) Leader() bool                   { return true }
func (l *soloLog) close()                         { close(l.batches); <-l.done }

// rules are a policy for tests: who may do what while, a rule per line.
type rules struct {
	list []rule
}

type rule struct {
	who, filter string
	from, until int64 // open in [from, until) of each day if until > 0, ns of the day
	outside     Outside
}

const day = int64(24 * time.Hour)

func (r *rules) Decide(who Who, _ Action, name string, at int64) Decision {
	d := Decision{Reason: "no rule"}
	for _, x := range r.list {
		if x.who != "*" && x.who != who.Principal || !topic.Match(x.filter, name) && x.filter != name {
			continue
		}
		if x.until == 0 {
			return Decision{Allow: true}
		}
		t := at % day
		d = Decision{Windowed: true, Outside: x.outside, Reason: "closed"}
		switch {
		case t < x.from:
			d.Until = at - t + x.from
		case t < x.until:
			d.Allow, d.Until = true, at-t+x.until
		default:
			d.Until = at - t + day + x.from
		}
		if d.Allow {
			return d
		}
	}
	return d
}

func (r *rules) Grant(who Who, filter string, at int64) Decision {
	for _, x := range r.list {
		if (x.who == "*" || x.who == who.Principal) && topic.Covers(x.filter, filter) {
			return Decision{Allow: true, Windowed: x.until > 0, Outside: x.outside}
		}
	}
	return Decision{Reason: "no rule covers " + filter}
}

func (r *rules) Authenticate(string, []byte) (string, error) { return "", ErrBadCredentials }

func (r *rules) NextEdge(after int64) int64 {
	next := int64(0)
	for _, x := range r.list {
		if x.until == 0 {
			continue
		}
		for _, edge := range [...]int64{x.from, x.until} {
			at := after - after%day + edge
			if at <= after {
				at += day
			}
			next = earlier(next, at)
		}
	}
	return next
}

// A clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// A node is a broker on a file system in memory, whose policies are named.
type node struct {
	t        *testing.T
	fs       *disk.FS
	clock    *clock
	policies map[string]*rules
	limits   Limits
	*Broker
	log *soloLog
}

func newNode(t *testing.T, limits Limits) *node {
	n := &node{
		t: t, fs: disk.Memory(), clock: &clock{at: time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)},
		policies: map[string]*rules{"all": {list: []rule{{who: "*", filter: "#"}}}}, limits: limits,
	}
	n.start()
	t.Cleanup(n.stop)
	n.policy("all")
	return n
}

func (n *node) start() {
	n.t.Helper()
	s, err := store.Open(store.Options{Dir: "state", FS: n.fs, Logger: slog.New(slog.DiscardHandler), Die: func(r string) { panic(r) }})
	if err != nil {
		n.t.Fatal(err)
	}
	n.Broker, err = New(Config{
		Node: "n1", Store: s, Limits: n.limits, Now: n.clock.now, Logger: slog.New(slog.DiscardHandler), Reserved: []string{"presence"},
		Compile: func(name []byte) (Authorizer, error) {
			if p := n.policies[string(name)]; p != nil {
				return p, nil
			}
			return nil, fmt.Errorf("no policy %q", name)
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.log = newSoloLog(n.Machine(), n.clock.now)
	if err := n.Start(context.Background(), n.log); err != nil {
		n.t.Fatal(err)
	}
}

// stop ends the node as a crash after a flush would: sessions are not closed.
func (n *node) stop() {
	n.t.Helper()
	n.Broker.Close()
	n.log.close()
	if err := n.machine.Flush(); err != nil {
		n.t.Error(err)
	}
	if err := n.config.Store.Close(); err != nil {
		n.t.Error(err)
	}
}

func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.start()
}

func (n *node) policy(name string) {
	n.t.Helper()
	if err := n.SetPolicy(context.Background(), []byte(name)); err != nil {
		n.t.Fatal(err)
	}
}

// pass moves the clock and brings about what is due.
func (n *node) pass(d time.Duration) {
	n.t.Helper()
	n.clock.advance(d)
	if err := n.CatchUp(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

// A client is a Sink that keeps what it is sent.
type client struct {
	n  *node
	s  *Session
	mu sync.Mutex

	got      []got
	released []uint16
	ended    error
	acks     bool // acknowledge what comes
	changed  *sync.Cond
}

type got struct {
	topic, payload string
	qos            uint8
	retain, dup    bool
	id             uint16
	ids            string
	expiry         uint32
}

func (g got) String() string {
	s := fmt.Sprintf("%s=%s q%d", g.topic, g.payload, g.qos)
	if g.retain {
		s += " retain"
	}
	if g.dup {
		s += " dup"
	}
	if g.ids != "" {
		s += " ids" + g.ids
	}
	return s
}

func (c *client) Deliver(d *Delivery, w *Wave) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := got{topic: string([]byte(d.Event.Topic)), payload: string(d.Event.Payload), qos: d.QoS, retain: d.Retain, dup: d.Dup, id: d.PacketID, expiry: d.Expiry}
	if len(d.IDs) > 0 {
		g.ids = fmt.Sprint(d.IDs)
	}
	c.got = append(c.got, g)
	c.changed.Broadcast()
	return Sent
}

func (c *client) Release(id uint16, w *Wave) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = append(c.released, id)
	c.changed.Broadcast()
}

func (c *client) Flush() {}

func (c *client) End(cause error) {
	c.mu.Lock()
	c.ended = cause
	c.changed.Broadcast()
	c.mu.Unlock()
}

// connect connects a client with a session expiry of expiry seconds.
func (n *node) connect(id string, clean bool, expiry uint32, with ...func(*ConnectRequest)) (*client, bool) {
	n.t.Helper()
	c := &client{n: n}
	c.changed = sync.NewCond(&c.mu)
	r := ConnectRequest{Client: id, Principal: id, Version: 5, Clean: clean, Expiry: expiry, ReceiveMax: 100}
	for _, f := range with {
		f(&r)
	}
	s, present, _, err := n.Connect(r, c)
	if err != nil {
		n.t.Fatalf("connect %s: %v", id, err)
	}
	c.s = s
	var w Wave
	s.Start(&w)
	w.Flush()
	return c, present
}

func (c *client) subscribe(filter string, qos uint8, with ...func(*event.Subscription)) {
	c.n.t.Helper()
	s := event.Subscription{Filter: filter, QoS: qos}
	for _, f := range with {
		f(&s)
	}
	c.s.Subscribe([]event.Subscription{s}, func(r []SubResult, _ *Wave) {
		if r[0].Err != nil {
			c.n.t.Errorf("subscribe %s: %v", filter, r[0].Err)
		}
	})
}

// outcome is a Completer somebody waits for.
type outcome struct{ ch chan error }

func (o outcome) Complete(_ uint64, err error, _ *Wave) { o.ch <- err }

func (c *client) publish(name, payload string, qos uint8, with ...func(*event.Event)) error {
	c.n.t.Helper()
	e := &event.Event{Topic: name, Payload: []byte(payload), QoS: qos}
	for _, f := range with {
		f(e)
	}
	o := outcome{make(chan error, 1)}
	var w Wave
	logged, err := c.s.Publish(e, 1, o, 0, &w)
	w.Flush()
	if !logged {
		return err
	}
	return <-o.ch
}

func retain(e *event.Event) { e.Retain = true }

// await returns what the client has got when there are n of it.
func (c *client) await(n int) []string {
	c.n.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.got) < n {
		c.changed.Wait()
	}
	out := make([]string, len(c.got))
	for i, g := range c.got {
		out[i] = g.String()
	}
	return out
}

func (c *client) want(want ...string) {
	c.n.t.Helper()
	if got := c.await(len(want)); !slices.Equal(got, want) {
		c.n.t.Errorf("client %s got\n %q, want\n %q", c.s.who.Client, got, want)
	}
}

// ackAll acknowledges everything got so far.
func (c *client) ackAll() {
	c.n.t.Helper()
	c.mu.Lock()
	gots := slices.Clone(c.got)
	c.mu.Unlock()
	var w Wave
	for _, g := range gots {
		if g.qos == 1 {
			if err := c.s.Settle(g.id, Acked, &w); err != nil && !errors.Is(err, ErrNoPacketID) {
				c.n.t.Error(err)
			}
		}
	}
	w.Flush()
}

// An event reaches whoever subscribed to it, once, at the lower of both QoS.
func TestPublishReachesSubscribers(t *testing.T) {
	n := newNode(t, Limits{})
	a, _ := n.connect("a", true, 0)
	b, _ := n.connect("b", true, 3600)
	a.subscribe("x/#", 1)
	b.subscribe("x/+", 2)
	for qos := range uint8(3) {
		if err := a.publish("x/1", fmt.Sprint("m", qos), qos); err != nil {
			t.Fatal(err)
		}
	}
	a.want("x/1=m0 q0", "x/1=m1 q1", "x/1=m2 q1")
	b.want("x/1=m0 q0", "x/1=m1 q1", "x/1=m2 q2")
}

// What was queued for a durable session while it was away comes in order when
// it returns, also after a restart of the node; what it did not acknowledge
// comes again, as a duplicate, first.
func TestDurableSessionResumes(t *testing.T) {
	n := newNode(t, Limits{})
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("x", 1)
	pub, _ := n.connect("pub", true, 0)
	if err := pub.publish("x", "0", 1); err != nil {
		t.Fatal(err)
	}
	sub.want("x=0 q1")
	sub.s.Close(true, false, 0)
	for i := 1; i < 200; i++ {
		if err := pub.publish("x", fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	n.restart()
	sub, present := n.connect("sub", false, 3600)
	if !present {
		t.Error("session not present after a restart")
	}
	got := sub.await(100)
	if len(got) != 100 {
		t.Errorf("%d under way, want Receive Maximum 100", len(got))
	}
	sub.ackAll()
	got = sub.await(200)
	want := []string{"x=0 q1 dup"}
	for i := 1; i < 200; i++ {
		want = append(want, fmt.Sprintf("x=%d q1", i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A subscriber gets the retained event of each topic it matches, and clearing
// one removes it.
func TestRetained(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	for i := range 300 {
		if err := pub.publish(fmt.Sprintf("r/%03d", i), "v", 1, retain); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.publish("r/007", "", 1, retain); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id     string
		expiry uint32
		qos    uint8
	}{{"volatile0", 0, 0}, {"volatile1", 0, 1}, {"durable1", 3600, 1}, {"durable0", 3600, 0}} {
		sub, _ := n.connect(c.id, true, c.expiry)
		sub.subscribe("r/#", c.qos)
		seen := map[string]bool{}
		for len(seen) < 299 {
			got := sub.await(min(len(seen)+1, 299))
			for _, g := range got {
				seen[g] = true
			}
			sub.ackAll()
		}
		if len(sub.got) != 299 || seen[fmt.Sprintf("r/007=v q%d retain", c.qos)] {
			t.Errorf("%s got %d retained events, want 299 without r/007", c.id, len(sub.got))
		}
	}
}
