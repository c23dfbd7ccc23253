package broker

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
)

// A loop is the delivery loop: one goroutine that carries out what log entries
// gave this node to do, in their order, for the clients connected here.
//
// One goroutine, because all subscribers of a topic are to see durable events
// in one order, and because it makes the rest simple: whatever must happen
// between two entries (a subscription begins, a piece of a retained scan goes
// out, a session is taken over) is a task of the loop, and needs no lock
// against delivery. It never waits for a client: sinks queue, and write only
// what the socket takes at once. It does not read from the disk either:
// whoever does (scans, queues) does so elsewhere and brings the result.
//
// The Machine hands over entries through a channel of fixed length. When it is
// full Apply waits, the log's slots stay taken, the proposer's backlog fills,
// and publishers are not read: that is all the back-pressure there is, and it
// reaches everybody who causes the load.
type loop struct {
	b       *Broker
	entries chan *applied
	tasks   chan func(w *Wave)
	pool    *sync.Pool // not in the struct: a Pool that is used is kept by the runtime, and all it is part of

	begun atomic.Uint64 // the entry that is being delivered, or was last

	// Of the last entry delivered. Read by anybody.
	stamp atomic.Int64
	index atomic.Uint64

	stopped chan struct{} // closed to end the loop
	over    chan struct{} // closed when it has ended, and runs nothing any more

	// The loop's own.
	live map[uint64]*Session // by number: the sessions connected here

	principals byPrincipal[*Session] // the same
	ended      *Session              // the last that this entry ended

	counted map[string]int // names below countsTree, and how many sessions here subscribe to each

	givenTold bool // that there was no room for what a client is given

	parting partings
	leaving leaving
	pacer   pacer
	wave    Wave
}

const (
	entriesQueued = 16
	tasksQueued   = 256
)

func (l *loop) init(b *Broker) {
	l.b = b
	l.entries, l.tasks = make(chan *applied, entriesQueued), make(chan func(*Wave), tasksQueued)
	l.pool = &sync.Pool{New: func() any { return new(applied) }}
	l.live, l.principals = map[uint64]*Session{}, byPrincipal[*Session]{}
	l.stopped, l.over = make(chan struct{}), make(chan struct{})
	l.leaving.init()
	l.stamp.Store(b.machine.Now())
	l.index.Store(b.machine.Applied())
	l.begun.Store(b.machine.Applied())
}

// spare gives the Machine an empty applied to fill in.
func (l *loop) spare() *applied { return l.pool.Get().(*applied) }

// deliver takes an entry's effects from the Machine. After close it drops
// them: nobody is connected any more.
func (l *loop) deliver(a *applied) {
	select {
	case l.entries <- a:
	case <-l.stopped:
	}
}

// do runs task in the loop, after all entries handed over so far, and returns
// false if the loop has ended. It does not wait for the task.
func (l *loop) do(task func(w *Wave)) bool {
	select {
	case <-l.stopped:
		return false
	case l.tasks <- task:
		return true
	}
}

// call runs task in the loop, waits for it, and returns false if the loop ended
// first. Then task has not run and never will: what it writes is the caller's.
func (l *loop) call(task func(w *Wave)) bool {
	done := make(chan struct{})
	if !l.do(func(w *Wave) { task(w); close(done) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-l.over:
	}
	select {
	case <-done: // it was the loop's last task
		return true
	default:
		return false
	}
}

// close ends the loop; what it has not delivered is lost to the connections,
// which are over, and to nobody else.
func (l *loop) close() { close(l.stopped) }

func (l *loop) run() {
	defer l.endSessions()
	defer close(l.over)
	for {
		select {
		case a := <-l.entries:
			l.entry(a)
		case task := <-l.tasks:
			task(&l.wave)
		case <-l.leaving.due():
			l.leaveSome()
		case <-l.stopped:
			return
		}
		l.wave.Flush()
	}
}

func (l *loop) endSessions() {
	for _, s := range l.live {
		s.closed.Store(true)
		s.sink.End(ErrClosing)
	}
}

func (l *loop) entry(a *applied) {
	l.stamp.Store(a.stamp)
	l.begun.Store(a.index)
	now := l.b.now()
	for i := range a.steps {
		l.step(a, &a.steps[i], now)
	}
	l.b.stats.Queued.Add(uint64(len(a.queued)) + a.paid)
	l.b.stats.QueueDropped.Add(a.queueDropped)
	l.b.stats.PublishRefused.Add(a.willsRefused)
	l.b.stats.DelayedPublished.Add(a.delayedPublished)
	l.b.stats.DelayedRefused.Add(a.delayedRefused)
	l.b.stats.GivenRefused.Add(a.givenRefused)
	l.b.stats.SharedReturned.Add(a.sharedReturned)
	l.b.stats.SharedRefused.Add(a.sharedRefused)
	l.b.stats.BodiesCopied.Add(a.copied)
	l.b.stats.BytesCopied.Add(a.copiedBytes)
	l.b.stats.Expired.Add(a.sharedExpired)
	l.ended = nil
	if next := l.b.machine.NextWake(); next != 0 && next <= now {
		l.b.Kick() // an entry that leaves work for the next one need not wait for it
	}
	l.index.Store(a.index)
	if l.b.relays.waiting.Load() > 0 {
		l.b.relays.drain(&l.wave)
	}
	a.reset()
	l.pool.Put(a)
}

func (l *loop) step(a *applied, s *step, now int64) {
	b, w := l.b, &l.wave
	switch s.kind {
	case stepEvent:
		w.share(s.event)
		defer w.share(nil)
		if s.event.Retain {
			b.edges.openings.touch(s.event.Topic)
		}
		audience := b.local.LookupString(s.event.Topic)
		audience.deliver(b, s.event, now, w)
		l.offer(audience, a.queued[s.from:s.until], s.event, now)
		l.hand(audience, a.handed[s.handedFrom:s.handedUntil], s.event, now)
	case stepReplayed:
		for i := range a.queued[s.from:s.until] {
			q := &a.queued[s.from+i]
			if session := l.live[q.session]; session != nil {
				session.offer(q, s.event, nil, now, w)
			}
		}
		if handed := a.handed[s.handedFrom:s.handedUntil]; len(handed) > 0 {
			l.hand(b.local.LookupString(s.event.Topic), handed, s.event, now)
		}
	case stepEnded:
		if session := l.live[s.session]; session != nil && session.epoch == s.epoch {
			if errors.Is(s.cause, ErrStale) {
				b.stats.Takeovers.Add(1)
			}
			// First of all it stops: once its filters are gone, what it reads
			// from its queue would look unsubscribed, and be over.
			session.out.stop()
			l.remove(session)
			l.ended = session
			session.sink.End(s.cause)
		} else if session := l.parting.find(s.session); session != nil && session.epoch == s.epoch {
			l.ended = session
		}
	case stepDone:
		if !b.proposer.Load().done(s.batch, s.n, b.deniedInLog(s.err), s.value, w) {
			l.unheard(s)
		}
	case stepBatchDone:
		b.proposer.Load().batchDone(s.batch)
	case stepChanged:
		b.watch.forget(s.topic)
		held := l.hold(s.topic, s.whose, s.ruled, now)
		if !held {
			l.changed(s.topic, s.whose, now)
		}
		l.offerMarks(a.queued[s.from:s.until], held, now)
	case stepPassed:
		b.watch.forget(s.topic)
		l.passed(s.topic, s.of, now)
	case stepSweep:
		l.noteSweep(s.topic, s.whose, now)
	case stepMarked:
		l.offerMarks(a.queued[s.from:s.until], false, now)
	case stepSubEnded:
		if session := l.live[s.session]; session != nil && session.epoch == s.epoch {
			session.subEnded(s.topic, now, w)
		}
	case stepProvided:
		if session := l.live[s.session]; session != nil && session.epoch == s.epoch {
			session.provided(s.topic, s.position, now)
		}
	case stepBans:
		b.config.Outlawed()
	case stepAdjust:
		b.adjust()
	case stepReply:
		if session := l.live[s.session]; session != nil && session.epoch == s.epoch {
			session.answer(s.event, w)
		}
	case stepRegrant:
		b.local.Invalidate()
	case stepRestored:
		l.resume(a, s.restored, now)
	case stepLife:
		l.relive(s.life)
	case stepClient:
		l.tellClient(s.client, now)
	case stepPaid:
		if session := l.live[s.session]; session != nil && session.epoch == s.epoch {
			session.paid(s.position)
		}
	case stepSettings:
		b.adoptSettings(s.settings)
	case stepSecret:
		b.watch.forgetAll()
	case stepNumbered:
		b.numberPolicy(s.number)
	case stepPolicy:
		before := b.policy.Load()
		b.setPolicy(s.policy, s.number)
		b.edges.policyChanged(b, before, s.position)
	}
}

// unheard deals with an outcome that came after whoever waited for it was told
// that it is unknown. A connection that was opened for a client which has been
// turned away would stay open in the log: it ends, and has no will.
func (l *loop) unheard(s *step) {
	if o, ok := s.value.(*opened); ok {
		_ = l.b.propose(&event.Disconnect{Session: o.session, Epoch: o.epoch, Sent: o.sent, At: l.b.now()}, call{}, true)
	}
}

// offer offers what queues have grown by to the sessions connected here. Both
// lists are in the order of sessions' numbers.
func (l *loop) offer(audience *audience, queued []queued, e *event.Event, now int64) {
	at := 0
	for i := range queued {
		q := &queued[i]
		for at < len(audience.hearers) && audience.hearers[at].s.number < q.session {
			at++
		}
		if at < len(audience.hearers) && audience.hearers[at].s.number == q.session && !audience.hearers[at].s.closed.Load() {
			h := &audience.hearers[at]
			h.s.offer(q, e, h, now, &l.wave)
		} else if s := l.live[q.session]; s != nil {
			s.offer(q, e, nil, now, &l.wave)
		}
	}
}

// Partings are the connections that have ended here and of which the log has
// not been told yet. A client that is back sooner than that takes over from one
// of them.
type partings struct {
	mu       sync.Mutex
	sessions map[uint64]*Session // by number
}

func (p *partings) add(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions == nil {
		p.sessions = map[uint64]*Session{}
	}
	p.sessions[s.number] = s
}

func (p *partings) remove(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sessions[s.number] == s {
		delete(p.sessions, s.number)
	}
}

func (p *partings) find(number uint64) *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sessions[number]
}

// A parting hears that the log knows of a connection's end, or never will.
type parting Session

func (p *parting) Complete(uint64, error, *Wave) {
	s := (*Session)(p)
	s.b.loop.parting.remove(s)
}

// endedSession returns the connection of a session that this entry has ended
// here: the one that the Connect being answered takes over from.
func (l *loop) endedSession(number uint64) *Session {
	s := l.ended
	l.ended = nil
	if s == nil || s.number != number {
		return nil
	}
	return s
}

// offerMarks offers marks to the sessions connected here.
func (l *loop) offerMarks(queued []queued, held bool, now int64) {
	for i := range queued {
		if s := l.live[queued[i].session]; s != nil {
			s.offerMark(&queued[i], held, now, &l.wave)
		}
	}
}

// add makes a session one that is connected here.
func (l *loop) add(s *Session) {
	l.live[s.number] = s
	l.principals.add(s.who.Principal, s.number, s)
	l.b.stats.Sessions.Add(1)
}

// remove ends what the loop does for s: what is published from here on is not for it. Its
// filters leave the index, at once if they are few.
func (l *loop) remove(s *Session) {
	if l.live[s.number] != s {
		return
	}
	delete(l.live, s.number)
	l.principals.remove(s.who.Principal, s.number)
	l.b.stats.Sessions.Add(-1)
	s.closed.Store(true)
	s.scanning.stop()
	l.leave(s)
}
