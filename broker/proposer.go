package broker

import (
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
// in the log: the Machine drops repeats. If that takes too long the clients are
// released (the outcome is unknown to them) but the batch is not given up: its
// number would be a gap that stops this node for good.
//
// The backlog is bounded: past it propose blocks, which is how publishers are
// held back. What frees resources is exempt (urgent): there is at most one such
// command per session and kind under way.
type proposer struct {
	log    Log
	header event.Header // of the next batch
	limit  int          // bytes of commands that may wait

	mu      sync.Mutex // guards the following
	space   sync.Cond
	waiting []*batch // to be submitted; only the last is still open
	flying  []*batch // submitted, oldest first; at most batchesInFlight
	spare   []*batch
	bytes   int         // in waiting and flying
	misses  int         // failures since a batch was last applied
	crowded atomic.Bool // the backlog is full: read without mu, as a hint
	closed  error
}

const (
	batchesInFlight = 2
	batchBytes      = 256 << 10
	resendAfter     = 20 * time.Millisecond
	releaseAfter    = 250 // misses: about five seconds without a leader
)

// A batch is commands on their way.
type batch struct {
	seq      uint64
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
	p := &proposer{log: log, header: event.Header{Node: node, Incarnation: life}, limit: limit}
	p.space.L = &p.mu
	return p
}

// propose adds c to the log. who hears of the outcome, unless an error is
// returned: then c will not be ordered. It blocks while the backlog is full,
// unless urgent.
func (p *proposer) propose(c event.Command, who call, urgent bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.bytes >= p.limit && !urgent && p.closed == nil {
		p.space.Wait()
	}
	if p.closed != nil {
		return p.closed
	}
	if p.misses >= releaseAfter {
		return ErrNoCommit
	}
	b := p.open()
	before := len(b.buf)
	b.buf = event.AppendCommand(b.buf, c)
	b.calls = append(b.calls, who)
	p.bytes += len(b.buf) - before
	if p.bytes >= p.limit {
		p.crowded.Store(true)
	}
	p.pump()
	return nil
}

// open returns the batch that takes the next command.
func (p *proposer) open() *batch {
	if n := len(p.waiting); n > 0 && len(p.waiting[n-1].buf) < batchBytes-4<<10 {
		return p.waiting[n-1]
	}
	var b *batch
	if n := len(p.spare); n > 0 {
		b, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		b = &batch{buf: make([]byte, 0, 4<<10)}
	}
	p.header.Seq++
	b.seq, b.released = p.header.Seq, false
	b.buf, b.calls = event.AppendHeader(b.buf[:0], p.header), b.calls[:0]
	p.waiting = append(p.waiting, b)
	return b
}

// pump submits what there are slots for. p.mu is held, so that batches are
// submitted in order; Submit does not block.
func (p *proposer) pump() {
	for len(p.flying) < batchesInFlight && len(p.waiting) > 0 {
		b := p.waiting[0]
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[1:])]
		p.flying = append(p.flying, b)
		p.submit(b)
	}
}

func (p *proposer) submit(b *batch) {
	seq := b.seq
	p.log.Submit(b.buf, func(err error) {
		// Not now: Submit may call this while we hold mu.
		time.AfterFunc(resendAfter, func() { p.resend(seq, err) })
	})
}

// resend submits everything in flight once more, in order: a batch that came
// after the one that failed was refused as out of sequence.
func (p *proposer) resend(seq uint64, err error) {
	p.mu.Lock()
	if p.closed != nil || len(p.flying) == 0 || p.flying[0].seq > seq {
		p.mu.Unlock()
		return
	}
	p.misses++
	var told []call
	if p.misses == releaseAfter {
		for _, b := range append(append([]*batch{}, p.flying...), p.waiting...) {
			told = append(told, p.release(b)...)
		}
		p.space.Broadcast()
	}
	// Only the oldest is a reason to go on: each failure reports itself.
	if p.flying[0].seq == seq {
		for _, b := range p.flying {
			b.again = true
			p.submit(b)
		}
	}
	p.mu.Unlock()
	tell(told, ErrUnknown)
}

func (p *proposer) release(b *batch) []call {
	if b.released {
		return nil
	}
	b.released = true
	return b.calls
}

// tell completes calls outside the delivery loop.
func tell(calls []call, err error) {
	var w Wave
	for _, c := range calls {
		c.complete(err, nil, &w)
	}
	w.Flush()
}

// done completes the n-th command of batch seq. The delivery loop calls it, in
// order.
func (p *proposer) done(seq uint64, n int, err error, value any, w *Wave) {
	p.mu.Lock()
	var c call
	if len(p.flying) > 0 && p.flying[0].seq == seq && !p.flying[0].released {
		c = p.flying[0].calls[n]
		p.flying[0].calls[n].c = nil // told: close and release leave it alone
	}
	p.mu.Unlock()
	c.complete(err, value, w)
}

// batchDone frees the slot of batch seq.
func (p *proposer) batchDone(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.flying) == 0 || p.flying[0].seq != seq {
		return
	}
	b := p.flying[0]
	p.flying = p.flying[:copy(p.flying, p.flying[1:])]
	p.bytes -= len(b.buf) - headerLen(p.header)
	p.crowded.Store(p.bytes >= p.limit)
	p.misses = 0
	for i := range b.calls {
		// Only now: a QoS 0 event of the same client that takes the short way
		// must not overtake what the batch delivered.
		if s := b.calls[i].s; s != nil {
			s.pending.Add(-1)
		}
	}
	clear(b.calls)
	if !b.again && cap(b.buf) <= 2*batchBytes && len(p.spare) < batchesInFlight+1 {
		p.spare = append(p.spare, b)
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
	var told []call
	for _, b := range append(p.flying, p.waiting...) {
		told = append(told, p.release(b)...)
	}
	p.flying, p.waiting = nil, nil
	p.space.Broadcast()
	p.mu.Unlock()
	tell(told, ErrUnknown)
}

// backlog returns the bytes of commands under way.
func (p *proposer) backlog() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
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
		who.Complete(c.tag, err, w)
	}
}

// A valued is a Completer of ours that wants the Machine's answer too.
type valued interface {
	Completer
	completeWith(value any, err error, w *Wave)
}
