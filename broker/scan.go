package broker

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"

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
// are left out of the piece: the client has them, or a newer one. Events
// ordered up to since are the scan's, later ones are live.
//
// What a durable session gets at QoS 1 or 2 must go through its queue, for it
// is kept until acknowledged. The queue is the Machine's, so for those topics
// the scan proposes Replay, which names them; the Machine adds their present
// values in log order, and with the subscription remembers how far it is.
type scan struct {
	sub     *localSub
	since   uint64
	after   string // the last topic looked at, or empty
	initial bool   // at SUBSCRIBE: its position is kept with the subscription

	// opened, if not nil, says whether topicName has just been opened to the
	// subscriber: only those topics are sent.
	opened func(topicName string) bool
}

// A piece is what one read of a scan found.
type piece struct {
	direct []event.Event // to be sent at once
	replay []string      // to be queued by the Machine
	last   string        // topic looked at last
	done   bool
}

const (
	pieceTopics   = 128  // sent by one piece
	pieceLookedAt = 2048 // keys read for one piece at most
	readsAtOnce   = 4    // pieces read at a time on this node
	roomForPiece  = 256  // a piece is read when fewer deliveries wait
)

// A scanner bounds and counts the scans of a node.
type scanner struct {
	b     *Broker
	slots chan struct{}
	ctx   context.Context
	stop  context.CancelFunc

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
	active  atomic.Bool // touch is needed
	touched map[string]struct{}
	room    chan struct{} // the client took something

	mu      sync.Mutex // guards the following
	started bool
	queue   []scan
	running bool
	stopped bool
}

func (t *scanState) init(s *Session) { t.s = s }

// touch notes that a live event was retained on a topic. In the delivery loop.
func (t *scanState) touch(topicName string) {
	if t.touched != nil {
		t.touched[cloneString(topicName)] = struct{}{}
	}
}

// add appends a scan. In the delivery loop.
func (t *scanState) add(s scan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.queue = append(t.queue, s)
	}
}

// run works off the scans, once the session has started.
func (t *scanState) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.started = true
	if len(t.queue) == 0 || t.running || t.stopped {
		return
	}
	if t.room == nil {
		t.room = make(chan struct{}, 1)
	}
	t.running = t.s.b.scans.start(t.work)
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
	t.queue = nil
	room := t.room
	t.mu.Unlock()
	if room != nil {
		select {
		case room <- struct{}{}:
		default:
		}
	}
}

func (t *scanState) next() (s scan, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 || t.stopped {
		t.running = false
		t.active.Store(false)
		t.queue = nil
		return s, false
	}
	s, t.queue = t.queue[0], t.queue[1:]
	t.active.Store(true)
	return s, true
}

func (t *scanState) work() {
	defer t.s.b.scans.ended()
	for {
		s, ok := t.next()
		if !ok {
			return
		}
		for t.piece(&s) {
		}
	}
}

// piece does one piece of s and says whether there is more.
func (t *scanState) piece(s *scan) bool {
	b := t.s.b
	if !t.waitForRoom() {
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
	p := t.read(s)
	<-b.scans.slots
	if !b.loop.call(func(w *Wave) { t.deliver(s, &p, w) }) {
		return false
	}
	s.after = p.last
	if len(p.replay) > 0 || s.initial && t.s.durable {
		t.replay(s, &p)
	}
	return !p.done
}

// waitForRoom waits until the client has taken most of what it was sent.
func (t *scanState) waitForRoom() bool {
	for {
		if n, full := t.s.out.waiting(); n < roomForPiece && !full {
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

// read reads one piece.
func (t *scanState) read(s *scan) (p piece) {
	filter := s.sub.sub.Filter
	lower, upper := retainedRange(filter, s.after)
	now := t.s.b.now()
	looked, found := 0, 0
	p.done = true
	var e event.Event
	t.s.b.config.Store.Scan(lower, upper, func(key, value []byte) bool {
		name := string(key[1:])
		if looked++; looked > pieceLookedAt || found >= pieceTopics {
			p.done = false
			return false
		}
		p.last = name
		if !topic.Match(filter, name) {
			return true
		}
		if err := decodeRetained(value, &e); err != nil {
			panic(fatal{"retained event: " + err.Error()})
		}
		if e.Position > s.since || e.Expired(now) || s.opened != nil && !s.opened(name) {
			return true
		}
		if !t.s.b.decide(t.s.who, ActSubscribe, name, now).Allow {
			t.s.b.stats.Withheld.Add(1)
			return true
		}
		found++
		if t.s.durable && min(e.QoS, s.sub.sub.QoS) > 0 {
			p.replay = append(p.replay, name)
		} else {
			p.direct = append(p.direct, *clone(&e))
		}
		return true
	})
	return p
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
func (t *scanState) deliver(s *scan, p *piece, w *Wave) {
	touched := t.touched
	t.touched = nil
	sub := t.s.subs[s.sub.sub.Filter]
	if t.s.closed.Load() || sub == nil {
		p.done, p.replay = true, nil // unsubscribed
		return
	}
	s.sub = sub // its options may have been set anew
	now := t.s.b.now()
	var ids []uint32
	if id := s.sub.sub.ID; id != 0 {
		ids = []uint32{id}
	}
	for i := range p.direct {
		e := &p.direct[i]
		if _, newer := touched[e.Topic]; newer || e.Expired(now) {
			continue
		}
		d := t.s.b.decide(t.s.who, ActSubscribe, e.Topic, now)
		if !d.Allow {
			t.s.b.stats.Withheld.Add(1)
			continue
		}
		out := &w.delivery
		*out = Delivery{Event: e, QoS: min(e.QoS, s.sub.sub.QoS), Retain: true, IDs: ids}
		out.limitTo(e.Expires, d.Until, now)
		t.s.hear(out, d.Until, w)
		t.s.b.stats.Replayed.Add(1)
	}
}

// replay has the Machine queue the topics of a piece, and remember how far the
// scan is.
func (t *scanState) replay(s *scan, p *piece) {
	cmd := &event.Replay{
		Session: t.s.number, Epoch: t.s.epoch, Filter: s.sub.sub.Filter,
		After: s.since, Topics: p.replay, At: t.s.b.now(),
	}
	if s.initial {
		cmd.Position, cmd.Final = p.last, p.done
	}
	if err := t.s.b.do(t.s.b.scans.ctx, cmd); err != nil {
		p.done = true // the session or the node is over; the position is kept
	}
	t.s.b.stats.Replayed.Add(uint64(len(p.replay)))
}

// sinceOpening is the since of a scan for what has just been opened to s. What
// was ordered meanwhile but happened while it was closed a durable session's
// queue does not get, so its scan takes that too.
func (s *Session) sinceOpening() uint64 {
	if s.durable {
		return math.MaxUint64
	}
	return s.b.loop.position()
}

// position returns the end of what the loop has delivered, as a place in the
// log.
func (l *loop) position() uint64 { return event.EndOf(l.index.Load()) }
