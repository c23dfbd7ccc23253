package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/disk"
)

// A kept is what a log keeps of one entry.
type kept struct {
	stamp   int64
	batches [][]byte
}

// A soloLog is the least that orders batches: one node, an entry for each
// batch, kept in memory, so that a node that lost its state replays it. What is
// replicated and synced is tested in cluster and against the built binary.
type soloLog struct {
	m       *Machine
	now     func() time.Time
	kept    *[]kept
	batches chan []byte
	done    chan struct{}

	mu   sync.Mutex    // held while an entry is applied: a test that takes it stops the log
	lost bool          // batches vanish: the log is not to be heard of again
	held chan struct{} // not nil: what comes waits until it is closed, which a bubble sees

	// With heard, batches are ordered and told there, and m hears only of the
	// next few.
	heard chan struct{}
	few   int

	grown   chan struct{} // closed once there are grownTo entries
	grownTo int
}

// newSoloLog applies to m what it has not of kept, and then what is submitted.
func newSoloLog(m *Machine, now func() time.Time, entries *[]kept) *soloLog {
	l := &soloLog{m: m, now: now, kept: entries, batches: make(chan []byte, 16), done: make(chan struct{})}
	for i, e := range *entries {
		m.Apply(uint64(i+1), 1, e.stamp, e.batches)
	}
	go func() {
		defer close(l.done)
		for b := range l.batches {
			l.apply(b)
		}
	}()
	return l
}

func (l *soloLog) apply(b []byte) {
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held != nil {
		<-held
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost {
		return
	}
	e := kept{stamp: l.now().UnixNano(), batches: [][]byte{b}}
	*l.kept = append(*l.kept, e)
	if l.heard != nil {
		if l.few--; l.few < 0 {
			l.heard <- struct{}{}
			return
		}
	}
	l.m.Apply(uint64(len(*l.kept)), 1, e.stamp, e.batches)
	if l.grown != nil && len(*l.kept) >= l.grownTo {
		close(l.grown)
		l.grown = nil
	}
}

// grows returns what is closed when so many entries more are applied.
func (l *soloLog) grows(entries int) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grown, l.grownTo = make(chan struct{}), len(*l.kept)+entries
	return l.grown
}

// hold has the log stand still until goOn is called.
func (l *soloLog) hold() (goOn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(chan struct{})
	l.held = held
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.held = nil
		close(held)
	}
}

func (l *soloLog) Submit(b []byte, _ func(error)) { l.batches <- slices.Clone(b) }
func (l *soloLog) Leader() bool                   { return true }

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
	t        testing.TB
	name     string // n1, if nothing else is said
	fs       *disk.FS
	clock    *clock
	entries  []kept // of its log
	policies map[string]*rules
	limits   Limits
	profiles []Profile
	tap      Tap
	patience time.Duration
	streams  streams // how those of its Machine are made, see there; not what they are

	segmentBits uint8 // of bodies, see Machine; 0 for what it has of itself
	survivors   int
	items       int // budget of an entry of its Machine; 0 for the usual
	pieces      int // see inPieces
	*Broker
	log *soloLog
}

func newNode(t testing.TB, limits Limits) *node {
	t.Helper()
	return newNodeWith(t, limits)
}

func newNodeWith(t testing.TB, limits Limits, profiles ...Profile) *node {
	t.Helper()
	n := bareNode(t, limits, profiles...)
	n.patience = time.Minute // a slow machine makes no outcome unknown
	n.config.Patience = n.patience
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	if err := n.Raise(context.Background(), NewestLevel); err != nil { // as what starts a cluster does
		t.Fatal(err)
	}
	n.policy("all")
	return n
}

// bareNode returns a node without a log.
func bareNode(t testing.TB, limits Limits, profiles ...Profile) *node {
	t.Helper()
	n := &node{
		t: t, name: "n1", profiles: profiles, fs: disk.Memory(), clock: &clock{at: time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)},
		policies: map[string]*rules{"all": parseRules("allow * #")}, limits: limits,
	}
	n.open()
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.open()
	n.serve()
}

func (n *node) open() {
	n.t.Helper()
	s, err := store.Open(n.storeOptions())
	if err != nil {
		n.t.Fatal(err)
	}
	n.Broker, err = New(Config{
		Node: n.name, Store: s, Limits: n.limits, Now: n.clock.now, Logger: slog.New(slog.DiscardHandler), Reserved: []string{"presence"}, Profiles: n.profiles, Tap: n.tap,
		Patience: n.patience,
		Compile: func(name []byte, domain string) (Authorizer, error) {
			if p := n.policies[strings.TrimSpace(string(name)+" "+domain)]; p != nil {
				return p, nil
			}
			return nil, fmt.Errorf("no policy %q", name)
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.machine.streams.madeLike(&n.streams)
	n.machine.budget.perEntry = n.items
	n.machine.budget.perPiece, n.machine.budget.perBack = n.pieces, n.pieces
	n.loopInPieces()
	if n.segmentBits != 0 {
		n.machine.segmentBits, n.machine.survivors = n.segmentBits, n.survivors
		must(n.t, n.machine.load())
	}
}

// smallSegments has the node, and its later lives, keep bodies in segments of 1<<bits,
// which are nearly empty when so many refer to them.
func (n *node) smallSegments(bits uint8, survivors int) {
	n.t.Helper()
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	n.segmentBits, n.survivors = bits, survivors
	n.machine.segmentBits, n.machine.survivors = bits, survivors
	must(n.t, n.machine.load())
}

// inPieces has the node, and its later lives, end and bring back sessions with more than so
// many subscriptions in pieces of as many.
func (n *node) inPieces(subs int) {
	n.log.mu.Lock()
	n.pieces = subs
	n.machine.budget.perPiece, n.machine.budget.perBack = subs, subs
	n.log.mu.Unlock()
	n.loopInPieces()
}

func (n *node) loopInPieces() {
	if n.pieces > 0 {
		n.loop.call(func(*Wave) { n.loop.leaving.atOnce = n.pieces })
	}
}

// makeStreams has the node, and its later lives, make streams as like says.
func (n *node) makeStreams(like streams) {
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	n.streams = like
	n.machine.streams.madeLike(&like)
}

func (s *streams) madeLike(o *streams) { s.crowd, s.ahead, s.piece = o.crowd, o.ahead, o.piece }

func (n *node) storeOptions() store.Options {
	return store.Options{Dir: "state", FS: n.fs, Newest: uint8(NewestLevel), Logger: slog.New(slog.DiscardHandler), Die: func(r string) { panic(r) }}
}

func (n *node) serve() {
	n.t.Helper()
	n.log = newSoloLog(n.Machine(), n.clock.now, &n.entries)
	if err := n.Start(context.Background(), n.log); err != nil {
		n.t.Fatal(err)
	}
}

// stop ends the node without a word to the log: what it knew of its sessions
// and has not told is lost. Without flush the state is lost, too, and the next
// life replays the log.
func (n *node) stop(flush bool) {
	n.t.Helper()
	n.Broker.Close()
	n.log.close()
	if flush {
		if err := n.machine.Flush(); err != nil {
			n.t.Error(err)
		}
	}
	if err := n.config.Store.Close(); err != nil {
		n.t.Error(err)
	}
}

// restart is a stop of the process that the state survives, crash one that it
// does not.
func (n *node) restart() { n.t.Helper(); n.stop(true); n.start() }

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
	n.catchUp()
}

// catchUp returns when all that is under way has come to rest: what is due, what
// the log holds, and what it gave to deliver.
func (n *node) catchUp() {
	n.t.Helper()
	if err := n.CatchUp(context.Background()); err != nil {
		n.t.Fatal(err)
	}
	n.tick()
}

// tick puts an empty entry through the log: all that was proposed before is
// delivered when it returns.
func (n *node) tick() {
	n.t.Helper()
	if err := n.do(context.Background(), &event.Tick{}); err != nil {
		n.t.Fatal(err)
	}
}

// A client is a Sink that keeps what it is sent.
type client struct {
	n  *node
	s  *Session
	id string

	mu       sync.Mutex
	changed  *sync.Cond
	got      []got
	released []uint16
	ended    error
	log      []string // everything that came, in words
	full     bool     // take nothing
	lost     int      // events that were not taken and will not come again
	largest  int      // payloads above are too large; 0 for none
	dropped  uint64   // told at connect
}

type got struct {
	topic, payload string
	qos            uint8
	retain, dup    bool
	id             uint16
	ids            string
	expiry         uint32
	expires        bool
	props          string
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
	if g.expires {
		s += fmt.Sprint(" expires", g.expiry)
	}
	return s
}

func (c *client) Deliver(d *Delivery, w *Wave) Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return Full
	}
	if c.largest > 0 && len(d.Event.Payload) > c.largest {
		return TooLarge
	}
	if c.full {
		if d.QoS == 0 && !d.Wanted {
			c.lost++
		}
		return Full
	}
	g := got{
		topic: string([]byte(d.Event.Topic)), payload: string(d.Event.Payload), qos: d.QoS, retain: d.Retain, dup: d.Dup,
		id: d.PacketID, expiry: d.Expiry, expires: d.Expires, props: string(d.Event.Props),
	}
	if len(d.IDs) > 0 {
		g.ids = fmt.Sprint(d.IDs)
	}
	c.got = append(c.got, g)
	c.log = append(c.log, g.String())
	c.changed.Broadcast()
	return Sent
}

func (c *client) Release(id uint16, w *Wave) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = append(c.released, id)
	c.log = append(c.log, fmt.Sprint("release ", id))
	c.changed.Broadcast()
}

func (c *client) Flush() {}

func (c *client) End(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = cause
		c.log = append(c.log, "ended: "+cause.Error())
	}
	c.changed.Broadcast()
}

// connect connects a client with a session expiry of expiry seconds.
func (n *node) connect(id string, clean bool, expiry uint32, with ...func(*ConnectRequest)) (*client, bool) {
	n.t.Helper()
	c, present, err := n.tryConnect(id, clean, expiry, with...)
	if err != nil {
		n.t.Fatalf("connect %s: %v", id, err)
	}
	return c, present
}

func (n *node) tryConnect(id string, clean bool, expiry uint32, with ...func(*ConnectRequest)) (c *client, present bool, err error) {
	c = &client{n: n, id: id}
	c.changed = sync.NewCond(&c.mu)
	r := ConnectRequest{Client: id, Principal: id, Version: 5, Clean: clean, Expiry: expiry, ReceiveMax: 100}
	for _, f := range with {
		f(&r)
	}
	if c.s, present, c.dropped, err = n.Connect(r, c); err != nil {
		return nil, false, err
	}
	var w Wave
	c.s.Start(&w)
	w.Flush()
	return c, present, nil
}

func (c *client) subscribe(filter string, qos uint8, with ...func(*event.Subscription)) {
	c.n.t.Helper()
	if err := c.trySubscribe(filter, qos, with...); err != nil {
		c.n.t.Errorf("subscribe %s: %v", filter, err)
	}
}

func (c *client) trySubscribe(filter string, qos uint8, with ...func(*event.Subscription)) (err error) {
	s := event.Subscription{Filter: filter, QoS: qos}
	for _, f := range with {
		f(&s)
	}
	c.s.Subscribe([]event.Subscription{s}, func(r []SubResult, _ *Wave) { err = r[0].Err })
	return err
}

// outcome is a Completer somebody waits for.
type outcome struct{ ch chan error }

func (o outcome) Complete(_ uint64, err error, _ *Wave) { o.ch <- err }

func (c *client) publish(name, payload string, qos uint8, with ...func(*event.Event)) error {
	c.n.t.Helper()
	return c.publishID(1, name, payload, qos, with...)
}

func (c *client) publishID(id uint16, name, payload string, qos uint8, with ...func(*event.Event)) error {
	e := &event.Event{Topic: name, Payload: []byte(payload), QoS: qos}
	for _, f := range with {
		f(e)
	}
	o := outcome{make(chan error, 1)}
	var w Wave
	logged, err := c.s.Publish(e, id, o, 0, &w)
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
	return words(c.awaitGot(n))
}

func (c *client) awaitGot(n int) []got {
	c.n.t.Helper()
	var all []got
	c.wait(fmt.Sprintf("%d deliveries", n), func() bool { all = slices.Clone(c.got); return len(all) >= n })
	return all
}

// wait waits until ok, which is called with mu held, and gives up, with the
// test, after a time that is long for any machine.
func (c *client) wait(what string, ok func() bool) {
	c.n.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok() {
		return
	}
	late := false
	timer := time.AfterFunc(time.Minute, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		late = true
		c.changed.Broadcast()
	})
	defer timer.Stop()
	for !ok() {
		if late {
			c.n.t.Fatalf("client %s waits for %s in vain; so far:\n %s", c.id, what, strings.Join(c.log[max(0, len(c.log)-50):], "\n "))
		}
		c.changed.Wait()
	}
}

func words(gots []got) []string {
	out := make([]string, len(gots))
	for i, g := range gots {
		out[i] = g.String()
	}
	return out
}

// want waits until as much has come as is wanted, lets what is under way come
// to rest, and compares.
func (c *client) want(want ...string) {
	c.n.t.Helper()
	c.await(len(want))
	c.n.tick()
	if got := c.await(0); !slices.Equal(got, want) {
		c.n.t.Errorf("client %s got\n %s, want\n %s", c.id, strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

// answer says what to the delivery with id.
func (c *client) answer(id uint16, what Settlement) error {
	var w Wave
	defer w.Flush()
	return c.s.Settle(id, what, &w)
}

// ackAll acknowledges every QoS 1 delivery got so far.
func (c *client) ackAll() {
	c.n.t.Helper()
	for _, g := range c.awaitGot(0) {
		if g.qos == 1 {
			if err := c.answer(g.id, Acked); err != nil && !errors.Is(err, ErrNoPacketID) {
				c.n.t.Error(err)
			}
		}
	}
}

func receiveMax(n uint16) func(*ConnectRequest) { return func(r *ConnectRequest) { r.ReceiveMax = n } }

func will(w event.Will) func(*ConnectRequest) { return func(r *ConnectRequest) { r.Will = &w } }

// awaitEnd waits until the connection is ended and returns the cause.
func (c *client) awaitEnd() (cause error) {
	c.n.t.Helper()
	c.wait("its end", func() bool { cause = c.ended; return cause != nil })
	return cause
}

func (l *soloLog) close() { close(l.batches); <-l.done }
