package cluster

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// slots is how many entries may be on their way: see mayLaunch. With two, one is
// written while the one before is applied and the next gathers; more would only make
// entries smaller.
const slots = 2

// A proposer packs batches that wait into entries, and hands these to Raft.
//
// It has no goroutine of its own: whoever submits a batch, or learns that an
// entry is through, packs the next if a slot is free. That happens under mu, which
// makes the order of Submit calls that of the log; Raft's channel has more room
// than there are slots, so nobody waits in there.
type proposer struct {
	node *Node

	mu      sync.Mutex // guards the following
	waiting []proposal
	bytes   int  // of waiting
	away    int  // bytes handed to the leader, of which nothing has been heard
	gate    bool // open: this node leads and has caught up
	closing bool
	reign   uint64        // counts elections won and lost
	leads   atomic.Uint64 // term in which this node leads; 0 if it does not
	flying  map[*flight]struct{}
	idle    chan struct{} // closed when closing and nothing flies

	entries, batches, size, failed uint64
}

// A proposal is a batch that was submitted.
type proposal struct {
	batch  []byte
	failed func(error)

	// foreign says that another node handed it over, and wants to know what became
	// of it in any case: done is called in place of failed, with nil if the batch
	// has been applied here. A batch of this node is seen by its Machine, and what
	// else became of it told to failed.
	foreign bool
	done    func(error)
}

// fail tells what became of p. err is not nil.
func (p *proposal) fail(err error) {
	if p.foreign {
		p.done(err)
		return
	}
	p.failed(err)
}

// A flight is an entry, or a barrier, on its way through Raft.
type flight struct {
	proposals []proposal // none for a barrier
	bytes     int        // of the batches
	landed    bool       // its outcome is known, or it was abandoned
}

func newProposer(n *Node) *proposer {
	return &proposer{node: n, flying: map[*flight]struct{}{}, idle: make(chan struct{})}
}

func (p *proposer) submit(batch []byte, failed func(error)) {
	if err := p.accept(proposal{batch: batch, failed: failed}); err != nil {
		failed(err)
	}
}

// submitFor takes a batch of another node, which thinks that this one leads. done
// is told what became of it.
func (p *proposer) submitFor(batch []byte, done func(error)) {
	if err := p.accept(proposal{batch: batch, foreign: true, done: done}); err != nil {
		done(err)
	}
}

func (p *proposer) accept(new proposal) error {
	batch := new.batch
	if len(batch) > MaxBatch {
		return ErrTooLarge
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	switch {
	case p.closing:
		err = ErrNoCommit
	case new.foreign && !p.gate && p.node.raft.State() != raft.Leader:
		err = ErrNoCommit
	case p.bytes+p.away+len(batch) > p.node.cfg.Backlog:
		err = ErrBusy
	}
	if err != nil {
		p.failed++
		return err
	}
	p.waiting = append(p.waiting, new)
	p.bytes += len(batch)
	p.launch()
	if !p.gate {
		p.node.wakeForward()
	}
	return nil
}

// hasForLeader says whether something waits that another node has to order.
func (p *proposer) hasForLeader() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.gate && !p.closing && len(p.waiting) > 0
}

// takeForLeader takes what goes to the leader next. What others had handed to this
// node goes back to them: they know better who leads.
func (p *proposer) takeForLeader() (own []proposal) {
	p.mu.Lock()
	if p.gate || p.closing {
		p.mu.Unlock()
		return nil
	}
	var foreign []proposal
	for _, w := range p.take() {
		if w.foreign {
			foreign = append(foreign, w)
			continue
		}
		own = append(own, w)
		p.away += len(w.batch)
	}
	p.mu.Unlock()
	fail(foreign, ErrNoCommit)
	return own
}

// settled is told what became of a batch that takeForLeader has taken.
func (p *proposer) settled(w proposal, err error) {
	p.mu.Lock()
	p.away -= len(w.batch)
	if err != nil {
		p.failed++
	}
	p.mu.Unlock()
	if err != nil {
		w.fail(err)
	}
}

// mayLaunch says whether an entry of what waits may go now. One at a time may always
// go. A second beside it must be as large: each entry costs all nodes a sync and
// several messages, whatever is in it, and a small one that goes early keeps that
// from the larger one that a moment later it would have been. So entries of a busy
// node grow, and on an idle one, where all are small, nothing waits. Requires mu.
func (p *proposer) mayLaunch() bool {
	if !p.gate || p.closing || len(p.waiting) == 0 || len(p.flying) >= slots {
		return false
	}
	for f := range p.flying {
		if p.bytes < min(f.bytes, packBytes) {
			return false
		}
	}
	return true
}

// launch packs what waits while it may go. Requires mu.
func (p *proposer) launch() {
	for p.mayLaunch() {
		before := p.bytes
		proposals := p.take()
		batches := make([][]byte, len(proposals))
		for i := range proposals {
			batches[i] = proposals[i].batch
		}
		entry := pack(p.node.clock.stamp(), batches)
		p.entries++
		p.batches += uint64(len(batches))
		p.size += uint64(len(entry))
		p.track(&flight{proposals: proposals, bytes: before - p.bytes}, p.node.raft.Apply(entry, 0))
	}
}

// take removes the batches of one entry from those that wait: as many as come to
// packBytes, and at least one. Requires mu.
func (p *proposer) take() []proposal {
	size, n := 0, 0
	for n < len(p.waiting) && (n == 0 || size+len(p.waiting[n].batch) <= packBytes) {
		size += len(p.waiting[n].batch)
		n++
	}
	taken := append([]proposal(nil), p.waiting[:n]...)
	rest := copy(p.waiting, p.waiting[n:])
	clear(p.waiting[rest:]) // let go of what was taken
	p.waiting = p.waiting[:rest]
	p.bytes -= size
	return taken
}

// track waits for future in a goroutine, which ends with it. Raft forgets futures
// that it has taken but not handled when it is shut down, and then it does not
// end: that is why close waits for what flies before Raft is shut down. Where that
// takes longer than Config.Patience, as on a disk that hangs, a goroutine is left for
// each of what flew, slots and one barrier at most, and holds their batches. That is let
// be: nothing but Raft could end them, and who closes a node ends the process, within a
// time of its own. Requires mu.
func (p *proposer) track(f *flight, future raft.Future) {
	p.flying[f] = struct{}{}
	go func() { p.land(f, future.Error()) }()
}

// land is called when the outcome of f is known.
func (p *proposer) land(f *flight, err error) {
	p.mu.Lock()
	if f.landed { // abandoned
		p.mu.Unlock()
		return
	}
	f.landed = true
	delete(p.flying, f)
	if err != nil {
		p.failed += uint64(len(f.proposals))
	}
	p.launch()
	if p.closing && len(p.flying) == 0 {
		p.closeIdle()
	}
	p.mu.Unlock()
	if err != nil {
		fail(f.proposals, outcome(err))
		return
	}
	for _, w := range f.proposals {
		if w.foreign {
			w.done(nil)
		}
	}
}

// outcome says what Raft's error means for a batch. All that is not certain is
// unknown, and so is ErrRaftShutdown: it is what an entry gets, too, that is
// committed and not yet applied.
func outcome(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader),
		errors.Is(err, raft.ErrLeadershipTransferInProgress),
		errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrAbortedByRestore):
		return ErrNoCommit
	}
	return ErrUnknown
}

func fail(proposals []proposal, err error) {
	for i := range proposals {
		proposals[i].fail(err)
	}
}

// elected is called when this node has won an election. barrier is through when
// all that earlier leaders ordered has been applied here: only then may it stamp
// entries, and the gate opens, unless it has lost its leadership meanwhile.
func (p *proposer) elected(barrier raft.Future) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reign++
	reign, f := p.reign, &flight{}
	p.flying[f] = struct{}{}
	go func() {
		err := barrier.Error()
		p.land(f, err)
		if err == nil {
			p.lead(reign)
		}
	}()
}

func (p *proposer) lead(reign uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reign != reign || p.closing {
		return
	}
	p.node.clock.lead()
	p.gate = true
	p.leads.Store(leadTerm(p.node.raft))
	p.node.announce(true)
	p.launch()
}

// lost is called when this node is no longer the leader.
func (p *proposer) lost() {
	p.mu.Lock()
	p.reign++
	p.gate = false
	p.leads.Store(0)
	p.node.clock.follow()
	p.node.announce(false)
	var foreign []proposal
	own := p.waiting[:0]
	for _, w := range p.waiting {
		if w.foreign {
			foreign = append(foreign, w)
			p.bytes -= len(w.batch)
			continue
		}
		own = append(own, w)
	}
	clear(p.waiting[len(own):])
	p.waiting = own
	p.failed += uint64(len(foreign))
	p.mu.Unlock()
	if len(foreign) > 0 {
		// It goes over links, which may be full, and Raft waits for this goroutine.
		p.node.tasks.Go(func() { fail(foreign, ErrNoCommit) })
	}
	p.node.wakeForward()
}

// leadTerm returns the term in which r leads; 0 if it no longer does. Raft leaves
// the role before it takes a later term, and terms do not decrease: so a term that
// is the same before and after it is seen to lead is the one in which it does.
func leadTerm(r *raft.Raft) uint64 {
	term := r.CurrentTerm()
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return 0
	}
	return term
}

// term returns the term in which this node leads; 0 if it does not.
func (p *proposer) term() uint64 { return p.leads.Load() }

func (p *proposer) isOpen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate
}

// close fails what waits and gives what flies some time to land. It returns
// whether all of it did.
func (p *proposer) close(patience time.Duration) bool {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting, p.bytes, p.closing, p.gate = nil, 0, true, false
	p.failed += uint64(len(waiting))
	if len(p.flying) == 0 {
		p.closeIdle()
	}
	p.mu.Unlock()
	fail(waiting, ErrNoCommit)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.idle:
		return true
	case <-timer.C:
		return false
	}
}

func (p *proposer) closeIdle() {
	select {
	case <-p.idle:
	default:
		close(p.idle)
	}
}

// abandon declares unknown what still flies, after Raft has ended.
func (p *proposer) abandon() {
	p.mu.Lock()
	var left []proposal
	for f := range p.flying {
		f.landed = true
		left = append(left, f.proposals...)
	}
	clear(p.flying)
	p.failed += uint64(len(left))
	p.mu.Unlock()
	fail(left, ErrUnknown)
}

func (p *proposer) stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{Entries: p.entries, Batches: p.batches, Bytes: p.size, Failed: p.failed, Waiting: p.bytes}
}
