package broker

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// A scan sends a subscription the present state of what it matches: at
// SUBSCRIBE, when a session resumes, and when a window or a new policy opens.
//
// It may be long (a hundred thousand topics), so it goes in pieces, each read
// by the scan's own goroutine when the client has room for it, and delivered by
// the delivery loop. What makes it hard is order: per topic, the retained event
// must never come after a newer live one. A piece is older than what the loop
// delivers between reading and delivering it; so while a piece is under way the
// session notes which topics live events were retained on (touch), and those
// are left out of the piece: the client has them, or a newer one. (A live event that
// is not retained changes no state, and comes before it or after.) Events
// ordered up to since are the scan's, later ones are live. A live one that is
// lost meanwhile, at QoS 0 and for want of room, would be nobody's: it is owed.
//
// What a durable session gets at QoS 1 or 2 must go through its queue, for it
// is kept until acknowledged. The queue is the Machine's, so for those topics
// the scan proposes Replay, which names them; the Machine adds their present
// values in log order, and with the subscription remembers how far it is.
type scan struct {
	sub     *localSub
	since   uint64
	after   string // the last topic looked at, or empty
	initial bool   // of a SUBSCRIBE, also resumed: its position is kept with the subscription
	owed    bool   // of no subscription, but of what scanState.owed names

	// resumed says that the client was away meanwhile: what was ordered after
	// since, and does not come from its queue, it has missed.
	resumed bool

	// opened, if not nil, says whether topicName has just been opened to the
	// subscriber: only those topics are sent.
	opened func(topicName string) bool
}

// A piece is what one read found for one or several scans.
type piece struct {
	scans   []*pieceOf
	direct  []found    // to be sent at once
	watched []resource // to be shown at once
	looked  int        // keys read
	bytes   int        // of what it holds
	held    int        // of direct: those that the session may hold after they were sent

	*pieceMemory
}

// A pieceMemory is what pieces are read into, one after the other: what is sent at QoS 0
// is in the client's output when the piece has been delivered, and nobody refers to it
// any more. It is of a pool, so that no scan has one while it waits for its client.
type pieceMemory struct {
	found []found
	bytes []byte // of topics, properties and payloads
	last  []byte // the key that was looked at last
	name  string // the same, if it is in bytes already; else empty
}

// keep copies b, and is a string of the copy.
func (m *pieceMemory) keep(b []byte) string {
	at := len(m.bytes)
	m.bytes = append(m.bytes, b...)
	kept := m.bytes[at:len(m.bytes):len(m.bytes)]
	return unsafe.String(unsafe.SliceData(kept), len(kept))
}

// before is the key that was looked at last, or empty.
func (m *pieceMemory) before() string {
	if m.name == "" && len(m.last) > 0 {
		m.name = m.keep(m.last)
	}
	return m.name
}

// own gives e memory of m's.
func (m *pieceMemory) own(e *event.Event) {
	at := len(m.bytes)
	m.bytes = append(append(append(m.bytes, e.Topic...), e.Props...), e.Payload...)
	all := m.bytes[at:len(m.bytes):len(m.bytes)]
	props, payload := len(e.Topic), len(e.Topic)+len(e.Props)
	e.Topic = unsafe.String(unsafe.SliceData(all), props)
	if e.Props != nil {
		e.Props = all[props:payload:payload]
	}
	e.Payload = all[payload:]
}

// newPieceMemory returns one of the pool's.
func (n *scanner) newPieceMemory() *pieceMemory {
	if m, ok := n.memory.Get().(*pieceMemory); ok {
		return m
	}
	return &pieceMemory{found: make([]found, 0, pieceEvents)}
}

// release gives the memory of a piece back that was delivered. The pool holds none that
// somebody may still refer to.
func (n *scanner) release(p *piece) {
	if m := p.pieceMemory; p.held == 0 && n.b.config.Tap == nil && cap(m.bytes) <= 2*pieceBytes {
		clear(p.direct)
		m.bytes, m.last, m.name = m.bytes[:0], m.last[:0], ""
		n.memory.Put(m)
	}
	p.direct, p.pieceMemory = nil, nil
}

// room says whether a piece takes more.
func (p *piece) room() bool {
	return p.looked < pieceLookedAt && p.bytes < pieceBytes && len(p.direct) < pieceEvents &&
		p.held+len(p.watched)+p.replays() < pieceTopics
}

func (p *piece) replays() (n int) {
	for _, s := range p.scans {
		n += len(s.replay)
	}
	return n
}

// A resource is one that a scan is to show.
type resource struct {
	of    *pieceOf
	topic string
}

// A pieceOf is what a piece holds of one scan.
type pieceOf struct {
	scan
	replay []string // topics to be queued by the Machine
	done   bool     // nothing is left of it

	// Retained events come first, then the resources of each viewer that the
	// filter may match: viewers says of which, once begun; key is the last one
	// looked at.
	begun   bool
	viewers []Viewer
	key     string
}

// A found is an event that a scan is to send.
type found struct {
	of    *pieceOf
	event event.Event // of one that is owed: without a payload if the topic has been cleared

	// Where the scan was before it: to go back to if the client has no room.
	after   string
	replays int

	// By which policy it was found that the subscriber may have it, and until when; nil
	// if there is more to ask than the policy.
	by    *policy
	until int64
}

const (
	pieceTopics   = 128  // of one piece, that cost more than a copy: what a session keeps, queues or renders
	pieceEvents   = 512  // sent by one piece, which takes the loop a tenth of a millisecond
	pieceLookedAt = 2048 // keys read for one piece at most
	pieceBytes    = 256 << 10
	pieceScans    = 64  // scans that share one piece
	readsAtOnce   = 4   // pieces read at a time on this node
	roomForPiece  = 256 // a piece is read when fewer deliveries wait

	// A session is owed so many topics that are not a profile's. One more is lost,
	// as live events at QoS 0 are, and counted as they are.
	owedMost = 4096

	// And of so many topics at all, resources for the most part. With one more the
	// connection ends with ErrSlow.
	owedKept = shownKept
)

// A scanner bounds and counts the scans of a node.
type scanner struct {
	b      *Broker
	slots  chan struct{}
	memory sync.Pool // of *pieceMemory
	ctx    context.Context
	stop   context.CancelFunc

	mu      sync.Mutex
	running int
	idle    chan struct{} // closed when running falls to 0
}

func (n *scanner) init(b *Broker) {
	n.b = b
	n.slots = make(chan struct{}, readsAtOnce)
	n.ctx, n.stop = context.WithCancel(context.Background())
}

func (n *scanner) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stop()
}

// start runs work in a goroutine that is counted, unless the node is closing.
func (n *scanner) start(work func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return false
	}
	if n.running++; n.running == 1 {
		n.idle = make(chan struct{})
	}
	n.b.running.Go(work)
	return true
}

func (n *scanner) ended() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running--; n.running == 0 {
		close(n.idle)
	}
}

// wait returns when no scan runs.
func (n *scanner) wait(ctx context.Context) error {
	n.mu.Lock()
	idle, running := n.idle, n.running
	n.mu.Unlock()
	if running == 0 {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A scanState is the scans of one session, done one after the other.
type scanState struct {
	s       *Session
	active  atomic.Bool // there are scans: touch is needed
	touched map[string]struct{}
	room    chan struct{} // the client took something

	mu      sync.Mutex // guards the following
	started bool
	owed    map[string]bool // topics of which the newest did not find room; whether that cleared the topic
	owing   bool            // there is a scan for them
	queue   scanQueue
	running bool
	stopped bool
}

func (t *scanState) init(s *Session) { t.s = s }

// touch notes that a live event may have been retained on its topic. Anywhere; but
// what is retained comes by in the delivery loop.
func (t *scanState) touch(e *event.Event) {
	if !e.Retain || !t.active.Load() {
		return
	}
	if t.touched != nil {
		t.touched[cloneString(e.Topic)] = struct{}{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.owed, e.Topic)
}

// add appends a scan. In the delivery loop.
func (t *scanState) add(s scan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	if s.opened != nil {
		// Of a client that is slow, or it would have begun: one scan of all
		// there is takes the place of one for each edge.
		if waits := t.queue.of(s.sub.sub.Filter); waits != nil {
			waits.opened, waits.since = nil, max(waits.since, s.since)
			return
		}
	}
	t.queue.tidy(t.s.subs)
	t.append(s)
}

// append adds a scan. mu is held. From here on it must not miss anything.
func (t *scanState) append(s scan) {
	if t.room == nil {
		t.room = make(chan struct{}, 1)
	}
	t.queue.add(s)
	t.active.Store(true)
}

// run works off the scans, once the session has started.
func (t *scanState) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.started = true
	if len(t.queue.list) == 0 || t.running || t.stopped {
		return
	}
	t.running = t.s.b.scans.start(t.work)
}

// idle says that the session has started, and has no scans.
func (t *scanState) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started && !t.stopped && !t.running && len(t.queue.list) == 0
}

// runIfStarted is run for scans that are not the client's own doing.
func (t *scanState) runIfStarted() {
	t.mu.Lock()
	started := t.started
	t.mu.Unlock()
	if started {
		t.run()
	}
}

// kick says that the client has room for more.
func (t *scanState) kick() {
	if !t.active.Load() {
		return
	}
	select {
	case t.room <- struct{}{}:
	default:
	}
}

func (t *scanState) stop() {
	t.mu.Lock()
	t.stopped = true
	t.queue = scanQueue{}
	room := t.room
	t.mu.Unlock()
	if room != nil {
		select {
		case room <- struct{}{}:
		default:
		}
	}
}

// next returns the scans to go on with: those of left that are not done, and
// new ones. None means that the work is over.
func (t *scanState) next(left []*pieceOf) []*pieceOf {
	left = slices.DeleteFunc(left, func(s *pieceOf) bool { return s.done })
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(left) < pieceScans && len(t.queue.list) > 0 {
		left = append(left, &pieceOf{scan: t.queue.take()})
	}
	if len(left) == 0 || t.stopped {
		t.running, t.queue = false, scanQueue{}
		t.active.Store(false)
		return nil
	}
	return left
}

func (t *scanState) work() {
	defer t.s.b.scans.ended()
	var scans []*pieceOf
	for {
		if scans = t.next(scans); scans == nil {
			return
		}
		if !t.piece(scans) {
			t.stop()
		}
	}
}

// piece does one piece of scans and returns false if the session is over.
func (t *scanState) piece(scans []*pieceOf) bool {
	b := t.s.b
	if !t.waitForRoom(scans) {
		return false
	}
	// Between here and the delivery of the piece live events are noted.
	if !b.loop.call(func(*Wave) { t.touched = map[string]struct{}{} }) {
		return false
	}
	select {
	case b.scans.slots <- struct{}{}:
	case <-b.scans.ctx.Done():
		return false
	}
	p := t.read(scans)
	<-b.scans.slots
	if !b.loop.call(func(w *Wave) { t.deliver(&p, w); t.showAll(&p, w) }) {
		return false
	}
	b.scans.release(&p)
	return t.replay(&p)
}

// waitForRoom waits until the client has taken most of what it was sent, and until
// scans may be shown.
func (t *scanState) waitForRoom(scans []*pieceOf) bool {
	held := func(s *pieceOf) bool { return t.s.b.holdsScan(&s.scan) }
	for {
		if n, full := t.s.out.waiting(); n < roomForPiece && !full && !slices.ContainsFunc(scans, held) {
			return !t.s.closed.Load()
		}
		select {
		case <-t.room:
			if t.s.closed.Load() {
				return false
			}
		case <-t.s.b.scans.ctx.Done():
			return false
		}
	}
}

// read reads one piece: of each scan in turn, as far as there is room in it.
func (t *scanState) read(scans []*pieceOf) (p piece) {
	now := t.s.b.now()
	p.pieceMemory = t.s.b.scans.newPieceMemory()
	p.direct = p.found[:0]
	for _, s := range scans {
		if !p.room() {
			break
		}
		p.scans = append(p.scans, s)
		s.replay, s.done = nil, false
		if s.owed {
			s.done = t.readOwed(&p, s, now)
			continue
		}
		if !s.begun && !t.readRetained(&p, s, now) {
			continue
		}
		if !s.begun {
			s.begun, s.viewers = true, t.viewers(s.sub.sub.Filter)
		}
		for len(s.viewers) > 0 && t.readResources(&p, s, s.viewers[0], now) {
			s.viewers, s.key = s.viewers[1:], ""
		}
		s.done = len(s.viewers) == 0
	}
	return p
}

// readRetained reads retained events and says whether there are no more.
func (t *scanState) readRetained(p *piece, s *pieceOf, now int64) (done bool) {
	done = true
	filter := s.sub.sub.Filter
	if isSystem(filter) {
		return t.readSystem(p, s, now)
	}
	lower, upper := retainedRange(filter, s.after)
	p.last, p.name = append(p.last[:0], s.after...), s.after
	t.s.b.config.Store.Scan(lower, upper, func(key, value []byte) bool {
		if p.looked++; !p.room() {
			done = false
			return false
		}
		taken, name := "", key[1:]
		if topic.Match(filter, unsafe.String(unsafe.SliceData(name), len(name))) {
			taken = t.take(p, s, value, now)
		}
		p.last, p.name = append(p.last[:0], name...), taken
		return true
	})
	s.after = string(p.last)
	return done
}

// take adds a retained event to a piece if the subscriber is to have it, and returns its
// topic, if that is in the piece's memory.
func (t *scanState) take(p *piece, s *pieceOf, value []byte, now int64) string {
	p.direct = append(p.direct, found{of: s, replays: len(s.replay)})
	f := &p.direct[len(p.direct)-1]
	if err := decodeRetained(value, &f.event); err != nil {
		panic(fatal{"retained event: " + err.Error()})
	}
	direct, queued := t.wants(s, f, now)
	switch {
	case queued:
		name := cloneString(f.event.Topic)
		s.replay = append(s.replay, name)
		p.bytes += len(name)
	case direct && min(f.event.QoS, s.sub.sub.QoS) > 0: // the session may have to send it again
		f.after = p.before()
		f.event = *clone(&f.event)
		p.bytes += f.event.Size()
		p.held++
		return ""
	case direct:
		f.after = p.before()
		p.own(&f.event)
		p.bytes += f.event.Size()
		return f.event.Topic
	}
	*f = found{}
	p.direct = p.direct[:len(p.direct)-1]
	return ""
}

// wants says whether the subscriber is to be sent a retained event, or to have it queued.
func (t *scanState) wants(s *pieceOf, f *found, now int64) (direct, queued bool) {
	b, e := t.s.b, &f.event
	if s.sub.sub.NoLocal && isOwn(e.Origin, t.s.number, t.s.who.Client) {
		return false, false
	}
	queued = t.s.durable && min(e.QoS, s.sub.sub.QoS) > 0
	if live := e.Position > s.since && (queued || !s.resumed); live || e.Expired(now) || s.opened != nil && !s.opened(e.Topic) {
		return false, false
	}
	if profileOf(b.machine.profiles, e.Topic) == nil {
		f.by = b.policy.Load()
	}
	d := b.decide(t.s.who, ActSubscribe, e.Topic, now)
	if !d.Allow {
		if s.opened == nil { // else it was closed before, and nothing was due
			t.s.withheld(e, d.Until != 0, now)
		}
		return false, false
	}
	f.until = d.Until
	return !queued, queued
}

// retainedRange returns the keys among which filter's matches after a topic
// lie: its levels before the first wildcard are a prefix of all of them.
func retainedRange(filter, after string) (lower, upper []byte) {
	prefix := filter
	if i := strings.IndexAny(filter, "+#"); i >= 0 {
		prefix = strings.TrimSuffix(filter[:i], "/")
		upper = store.End(retainedKey(nil, prefix))
	} else {
		upper = append(retainedKey(nil, prefix), 0)
	}
	lower = retainedKey(nil, prefix)
	if after != "" {
		lower = append(retainedKey(nil, after), 0)
	}
	return lower, upper
}

// deliver sends what a piece found, but for topics that live events were
// retained on since it was read. In the delivery loop.
func (t *scanState) deliver(p *piece, w *Wave) {
	touched := t.touched
	t.touched = nil
	for _, s := range p.scans {
		if s.owed {
			continue
		}
		sub := t.s.subs[s.sub.sub.Filter]
		if t.s.closed.Load() || sub == nil {
			s.done, s.replay, s.initial = true, nil, false // unsubscribed
			continue
		}
		s.sub = sub // its options may have been set anew
	}
	now := t.s.b.now()
	sys := &t.s.b.system
	sys.mu.Lock() // nor must what the broker tells of itself come after what it has told since
	defer sys.mu.Unlock()
	for i := range p.direct {
		f := &p.direct[i]
		e := &f.event
		if isSystem(e.Topic) {
			text, ok := sys.present(e.Topic)
			if !ok {
				continue
			}
			e.Payload = []byte(text)
		}
		if _, newer := touched[e.Topic]; newer || e.Expired(now) {
			continue
		}
		out := &w.delivery
		if f.of.owed {
			*out = t.lateDelivery(e)
		} else {
			*out = t.delivery(e, &f.of.sub.sub)
		}
		if out.Event == nil {
			continue
		}
		until := f.until
		if f.by == nil || f.by != t.s.b.policy.Load() || until != 0 && now >= until {
			d := t.s.b.decide(t.s.who, ActSubscribe, e.Topic, now)
			if until = d.Until; !d.Allow {
				t.s.withheld(e, until != 0, now)
				continue
			}
		}
		out.limitTo(e, until, now)
		if !t.s.hear(out, until, w) {
			t.goBack(p.direct[i:], touched)
			return
		}
		t.s.b.stats.Replayed.Add(1)
	}
}

// delivery returns what of the present state is sent for a subscription, nothing
// if that is gone. In the delivery loop.
func (t *scanState) delivery(e *event.Event, sub *event.Subscription) (d Delivery) {
	if t.s.subs[sub.Filter] == nil {
		return d
	}
	d = Delivery{Event: e, QoS: min(e.QoS, sub.QoS), Retain: true, Wanted: true}
	if sub.ID != 0 {
		d.IDs = []uint32{sub.ID}
	}
	return d
}

// goBack has the scans of what was not delivered begin there again, but for what
// is owed if a newer event went by.
func (t *scanState) goBack(left []found, touched map[string]struct{}) {
	seen := map[*pieceOf]bool{}
	for i := range left {
		f := &left[i]
		if _, newer := touched[f.event.Topic]; f.of.owed && !newer {
			t.owe(f.event.Topic, len(f.event.Payload) == 0)
		}
		if s := f.of; !s.owed && !seen[s] {
			seen[s] = true
			s.after, s.replay = cloneString(f.after), s.replay[:f.replays]
			s.begun, s.done, s.viewers, s.key = false, false, nil, ""
		}
	}
}

// replay has the Machine queue the topics of a piece, and remember how far each
// scan is. It returns false if the session or the node is over; the positions
// are kept with the subscriptions. If nobody knows what became of a Replay, the
// connection ends.
func (t *scanState) replay(p *piece) bool {
	b := t.s.b
	var waits []*wait
	for _, s := range p.scans {
		if len(s.replay) == 0 && !(s.initial && t.s.durable) {
			continue
		}
		cmd := &event.Replay{
			Session: t.s.number, Epoch: t.s.epoch, Filter: s.sub.sub.Filter,
			After: s.since, Topics: s.replay, At: b.now(),
		}
		if s.initial {
			// Resources have no position: to mark one again is to mark it once.
			cmd.Position, cmd.Final = s.after, s.done
		}
		w := newWait()
		if !t.propose(cmd, w) {
			return false
		}
		waits = append(waits, w)
		b.stats.Replayed.Add(uint64(len(s.replay)))
	}
	for _, w := range waits {
		select {
		case <-w.done:
		case <-b.scans.ctx.Done():
			return false
		}
		if errors.Is(w.err, ErrUnknown) {
			t.s.sink.End(ErrMissed) // when it is back, it goes on where the log says
		}
		if w.err != nil {
			return false
		}
	}
	return true
}

// propose has cmd ordered, for w, and waits while the log takes nothing: a client that
// stays is shown the rest by nobody else. It returns false if the session or the node
// is over.
func (t *scanState) propose(cmd *event.Replay, w *wait) bool {
	for {
		err := t.s.p.propose(cmd, call{c: w}, false)
		if !errors.Is(err, ErrNoCommit) {
			return err == nil
		}
		select {
		case <-time.After(lookEvery):
		case <-t.s.b.scans.ctx.Done():
			return false
		}
		if t.s.closed.Load() {
			return false
		}
		cmd.At = t.s.b.now()
	}
}

// sinceOpening is the since of a scan for what has just been opened to s at the
// place here in the log. What was ordered meanwhile but happened while it was
// closed a durable session's queue does not get, so its scan takes that too.
func (s *Session) sinceOpening(here uint64) uint64 {
	if s.durable {
		return math.MaxUint64
	}
	return here
}

// position returns the end of what the loop has delivered, as a place in the
// log.
func (l *loop) position() uint64 { return event.EndOf(l.index.Load()) }
