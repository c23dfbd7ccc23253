package broker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// A proposer packs this node's commands into numbered batches and keeps two of
// them on their way through the log.
//
// Nobody waits for a timer: a command leaves at once if a slot is free, and
// otherwise with all the others that come until one is. So an idle node takes
// one commit per command, and a busy one packs hundreds into each.
//
// What must hold: batches are applied in the order of their numbers, each
// once, whatever fails in between; and whoever proposed hears once. A batch
// never changes after it was submitted, and is submitted again until it is seen
// in the log: the Machine drops repeats. If no batch is seen for patience
// the clients are released (the outcome is unknown to them) but the batches are
// not given up: the number of one would be a gap that stops this node for good.
//
// The backlog is bounded: past it propose blocks, which is how publishers are
// held back. What frees resources is exempt (urgent): there is at most one such
// command per session and kind under way. It is taken while the log stands
// still, too, or a client that goes then would stay connected in the log.
type proposer struct {
	log      Log
	weigh    func(event.Command) int // how many queue entries it may become; nil: none
	header   event.Header            // of the next batch
	limit    int                     // bytes of commands that may wait
	patience time.Duration
	cut      *atomic.Bool // the log is out of reach: nothing but what is urgent is taken
	again    atomic.Bool  // a resend is to come

	mu      sync.Mutex // guards the following
	space   sync.Cond
	waiting []*batch // to be submitted; only the last is still open
	flying  []*batch // submitted, oldest first; at most batchesInFlight
	spare   []*batch
	bytes   int         // in waiting and flying
	crowded atomic.Bool // the backlog is full: read without mu, as a hint
	closed  error
	stalled bool        // no batch has been seen for patience
	watch   *time.Timer // runs while something flies; then stall
}

const (
	batchesInFlight = 2
	batchBytes      = 256 << 10 // about the size of one of many commands
	batchWeight     = 64 << 10  // about the queue entries that many commands become
	resendAfter     = 20 * time.Millisecond
	releaseAfter    = 5 * time.Second
)

// A batch is commands on their way.
type batch struct {
	seq      uint64
	weight   int // queue entries that its commands may become
	buf      []byte
	calls    []call
	released bool // its callers were told ErrUnknown
	again    bool // it was submitted more than once: the log may still hold buf
}

// A call is somebody who waits for a command's outcome.
type call struct {
	c   Completer // nil if nobody does
	tag uint64
	s   *Session // whose publish it is; nil for others
	id  uint16   // its packet id, to be forgotten if it is refused; 0 for none
}

func newProposer(log Log, node string, life uint64, limit int) *proposer {
	p := &proposer{log: log, header: event.Header{Node: node, Incarnation: life}, limit: limit, patience: releaseAfter, cut: new(atomic.Bool)}
	p.space.L = &p.mu
	p.watch = time.AfterFunc(time.Hour, p.stall)
	p.watch.Stop()
	return p
}

// propose adds c to the log. who hears of the outcome, unless an error is
// returned: then c will not be ordered. It blocks while the backlog is full,
// unless urgent.
//
// Errors: ErrNoCommit while the log stands still, unless urgent; ErrQuota for a
// command that no batch could carry; what close was called with.
func (p *proposer) propose(c event.Command, who call, urgent bool) error {
	weight := 0
	if p.weigh != nil {
		weight = p.weigh(c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.bytes >= p.limit && !urgent && p.closed == nil && !p.stalled && !p.cut.Load() {
		p.space.Wait()
	}
	if p.closed != nil {
		return p.closed
	}
	if (p.stalled || p.cut.Load()) && !urgent {
		return ErrNoCommit
	}
	b := p.open(weight)
	before := len(b.buf)
	b.buf = event.AppendCommand(b.buf, c)
	size := len(b.buf) - before
	if len(b.buf) > MaxBatch {
		if size+headerLen(p.header) > MaxBatch {
			b.buf = b.buf[:before]
			return fmt.Errorf("a command of %d bytes, of at most %d: %w", size, MaxBatch-headerLen(p.header), ErrQuota)
		}
		full := b
		b = p.begin()
		b.buf = append(b.buf, full.buf[before:]...)
		full.buf = full.buf[:before]
	}
	b.calls = append(b.calls, who)
	b.weight += weight
	p.bytes += size
	if p.bytes >= p.limit {
		p.crowded.Store(true)
	}
	p.pump()
	return nil
}

// open returns the batch that takes the next command: the last that waits, but
// not one whose callers have been told, for they would be told no more; nor one
// that would become too much. An entry of the log is one transaction, and what a
// few bytes of events become is up to who subscribes to them: 250 KB of them for
// 5,000 sessions would be millions of queue entries. (One event, however many
// sessions it goes to, is not divided.)
func (p *proposer) open(weight int) *batch {
	if n := len(p.waiting); n > 0 {
		b := p.waiting[n-1]
		light := b.weight == 0 || b.weight+weight <= batchWeight
		if light && len(b.buf) < batchBytes-4<<10 && !b.released {
			return b
		}
	}
	return p.begin()
}

// begin adds an empty batch to those that wait.
func (p *proposer) begin() *batch {
	var b *batch
	if n := len(p.spare); n > 0 {
		b, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		b = &batch{buf: make([]byte, 0, 4<<10)}
	}
	p.header.Seq++
	*b = batch{seq: p.header.Seq, buf: event.AppendHeader(b.buf[:0], p.header), calls: b.calls[:0]}
	p.waiting = append(p.waiting, b)
	return b
}

// pump submits what there are slots for. p.mu is held, so that batches are
// submitted in order; Submit does not block.
func (p *proposer) pump() {
	if len(p.flying) == 0 && len(p.waiting) > 0 {
		p.watch.Reset(p.patience)
	}
	for len(p.flying) < batchesInFlight && len(p.waiting) > 0 {
		b := p.waiting[0]
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[1:])]
		p.flying = append(p.flying, b)
		p.submit(b)
	}
}

func (p *proposer) submit(b *batch) {
	p.log.Submit(b.buf, func(error) {
		// Not now: Submit may call this while we hold mu.
		if !p.again.Swap(true) {
			time.AfterFunc(resendAfter, p.resend)
		}
	})
}

// resend submits everything in flight once more, in order, because one or more
// of it failed. Which one does not matter: those behind it were refused as out
// of sequence, of which nobody is told, and those before it are dropped if they
// are seen twice.
func (p *proposer) resend() {
	p.again.Store(false) // first: what fails from here on is to be sent again
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.flying {
		b.again = true
		p.submit(b)
	}
}

// stall releases everybody: no batch has been seen for too long. What flies is
// submitted again, in case the log has lost it and does not know.
func (p *proposer) stall() {
	p.mu.Lock()
	if p.closed != nil || len(p.flying) == 0 {
		p.mu.Unlock()
		return
	}
	p.stalled = true
	told := p.release()
	p.space.Broadcast()
	p.watch.Reset(p.patience)
	p.mu.Unlock()
	tell(told, ErrUnknown)
	p.resend()
}

// release returns the calls of all batches that have not been completed, and
// sees to it that they are not completed again.
func (p *proposer) release() (told []call) {
	for _, b := range append(append([]*batch{}, p.flying...), p.waiting...) {
		if !b.released {
			b.released = true
			told = append(told, b.calls...)
		}
	}
	return told
}

// tell completes calls outside the delivery loop.
func tell(calls []call, err error) {
	var w Wave
	for _, c := range calls {
		c.complete(err, nil, &w)
	}
	w.Flush()
}

// done completes the n-th command of batch seq and says whether anybody was
// still waiting for that. The delivery loop calls it, in order.
func (p *proposer) done(seq uint64, n int, err error, value any, w *Wave) bool {
	p.mu.Lock()
	if len(p.flying) == 0 || p.flying[0].seq != seq || p.flying[0].released {
		p.mu.Unlock()
		return false
	}
	c := p.flying[0].calls[n]
	p.flying[0].calls[n] = call{s: c.s} // release must not complete it again
	p.mu.Unlock()
	c.complete(err, value, w)
	return true
}

// caughtUp deals with what was applied up to batch seq without being seen here.
// Of each command it is known that it was applied, and not how: whoever waits is
// told that the outcome is unknown.
func (p *proposer) caughtUp(seq uint64, w *Wave) {
	p.mu.Lock()
	var told []call
	for len(p.flying) > 0 && p.flying[0].seq <= seq {
		if !p.flying[0].released {
			told = append(told, p.flying[0].calls...)
		}
		p.landed()
	}
	p.goOn()
	p.mu.Unlock()
	for _, c := range told {
		c.complete(ErrUnknown, nil, w)
	}
}

// batchDone frees the slot of batch seq.
func (p *proposer) batchDone(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.flying) == 0 || p.flying[0].seq != seq {
		return
	}
	b := p.landed()
	if !b.again && cap(b.buf) <= 2*batchBytes && len(p.spare) < batchesInFlight+1 {
		p.spare = append(p.spare, b)
	}
	p.goOn()
}

// landed takes the oldest batch off those that fly.
func (p *proposer) landed() *batch {
	b := p.flying[0]
	p.flying = p.flying[:copy(p.flying, p.flying[1:])]
	p.bytes -= len(b.buf) - headerLen(p.header)
	p.crowded.Store(p.bytes >= p.limit)
	for i := range b.calls {
		// Only now: a QoS 0 event of the same client that takes the short way
		// must not overtake what the batch delivered.
		if s := b.calls[i].s; s != nil {
			s.pending.Add(-1)
		}
	}
	clear(b.calls)
	return b
}

// goOn submits what may be submitted now that the log has moved.
func (p *proposer) goOn() {
	p.stalled = false
	p.watch.Stop()
	if len(p.flying) > 0 {
		p.watch.Reset(p.patience)
	}
	p.pump()
	p.space.Broadcast()
}

func headerLen(h event.Header) int { return 1 + uvarintLen(len(h.Node)) + len(h.Node) + 16 }

func uvarintLen(n int) int {
	l := 1
	for n >= 0x80 {
		n >>= 7
		l++
	}
	return l
}

// close refuses what comes and tells everybody who waits that the outcome is
// unknown.
func (p *proposer) close(err error) {
	p.mu.Lock()
	if p.closed != nil {
		p.mu.Unlock()
		return
	}
	p.closed = err
	p.watch.Stop()
	told := p.release()
	p.flying, p.waiting = nil, nil
	p.space.Broadcast()
	p.mu.Unlock()
	tell(told, ErrUnknown)
}

func (c *call) complete(err error, value any, w *Wave) {
	if c.s != nil && err != nil && c.id != 0 {
		c.s.forget(c.id)
	}
	switch who := c.c.(type) {
	case nil:
	case valued:
		who.completeWith(value, err, w)
	default:
		if props, ok := value.([]byte); ok {
			if a, ok := c.c.(Answerer); ok {
				a.Answer(c.tag, props)
			}
		}
		who.Complete(c.tag, err, w)
	}
}

// A valued is a Completer of ours that wants the Machine's answer too.
type valued interface {
	Completer
	completeWith(value any, err error, w *Wave)
}
