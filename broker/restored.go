package broker

import (
	"slices"

	"github.com/bellwire/bellwire/broker/event"
)

// A node that is too far behind is given a copy of another's state in place of the
// entries that it has missed (Machine.Restore). What those would have had it do
// for the clients it holds is made good from the state itself:
//
//   - Whose connection is over by now is ended, and for what is connected here by
//     the log's account alone the log is told that it is not.
//   - A durable session goes on: its queue has kept what it was to get, and its
//     subscriptions are those that the state has.
//   - Of a session that ends with its connection nothing was kept. If it
//     subscribes at QoS 1 or 2 it is ended, for it was promised all of it; if at
//     QoS 0 only, it goes on.
//   - Present state is shown anew: a policy or a window may have opened it.
//   - Of our own batches that were applied meanwhile the outcome is unknown.

// A restored is what a copied state says of this node and its clients.
type restored struct {
	policy   Authorizer
	number   uint64 // of policy
	settings *event.Settings
	batch    uint64             // the last of our batches that was applied; 0 if our incarnation is not open
	life     uint64             // the life that begins, if ours is over; else 0
	held     map[uint64]*opened // connected here as the log has it, by session
}

// restored describes the state that the Machine has just been given.
func (m *Machine) restored() *applied {
	r := &restored{policy: m.policy, number: m.history.number(), settings: m.settings, held: map[uint64]*opened{}}
	if state, ok := m.nodes[m.node]; ok && state.life == m.life {
		if r.batch = state.seq; state.closed {
			m.life = m.relive()
			r.life = m.life
		}
	}
	for number, one := range m.numbers {
		if !one.connected() || one.node != m.node || one.life != m.life {
			continue
		}
		o := &opened{session: number, epoch: one.epoch, present: true}
		m.describe(one, o)
		r.held[number] = o
	}
	a := m.spare()
	a.index, a.stamp = m.applied.Load(), m.now
	a.steps = append(a.steps, step{kind: stepRestored, restored: r})
	return a
}

// resume goes on from a copied state. In the delivery loop.
func (l *loop) resume(a *applied, r *restored, now int64) {
	b, w := l.b, &l.wave
	l.index.Store(a.index)
	b.adoptSettings(r.settings)
	before := b.policy.Load()
	b.setPolicy(r.policy, r.number)
	b.adjust()
	b.config.Outlawed()
	if p := b.proposer.Load(); p != nil {
		p.caughtUp(r.batch, w)
	}
	if r.life != 0 {
		l.relive(r.life)
	}
	for number, s := range l.live {
		o := r.held[number]
		delete(r.held, number)
		switch {
		case o == nil || o.epoch != s.epoch:
			l.drop(s, s.whyGone())
		case !s.durable && s.promised():
			l.drop(s, ErrMissed)
		case s.isPutOut(before.authorizer()):
		default:
			s.resume(o, now)
		}
	}
	b.edges.restored(b)
	for _, o := range r.held {
		if s := l.parting.find(o.session); s != nil && s.epoch == o.epoch {
			continue // the log will hear from it
		}
		l.unheard(&step{value: o})
	}
	b.logger.Warn("this node went on from a copy of another's state", "index", a.index, "sessions", len(l.live))
}

// drop ends a connection of which the log does not know, or to which it cannot be
// made good what was missed.
func (l *loop) drop(s *Session, cause error) {
	s.out.stop()
	l.remove(s)
	s.sink.End(cause)
}

// whyGone says what became of a connection that the log has ended.
func (s *Session) whyGone() error {
	key := (&record{client: s.who.Client}).key(nil)
	if data, ok := s.b.config.Store.Get(key, nil); ok {
		if r, err := decodeRecord(s.who.Client, data); err == nil && r.session == s.number {
			return ErrStale
		}
	}
	return ErrSessionEnded
}

// promised says whether the session is to get every event of some topics.
func (s *Session) promised() bool {
	for _, sub := range s.subs {
		if sub.sub.QoS > 0 {
			return true
		}
	}
	return false
}

// resume makes a session what the copied state says of it. In the delivery loop.
func (s *Session) resume(o *opened, now int64) {
	if s.durable {
		s.resubscribe(o, now)
		s.out.mu.Lock()
		s.out.next, s.out.ready = max(s.out.next, o.next), o.ready
		s.out.mu.Unlock()
		s.b.scans.start(s.goOn) // the queue is not read here
	}
	here := s.b.loop.position()
	for i := range o.subs { // of a session without a queue: what it was provided with meanwhile
		if sub := o.subs[i].Subscription; s.subs[sub.Filter] == nil && s.isRequest(sub.Filter) {
			s.attach(sub, here, 0, now).asked = true
		}
	}
	for filter, sub := range s.subs {
		if _, still := slices.BinarySearch(o.asked, filter); sub.asked && !still { // ended meanwhile
			delete(s.subs, filter)
			s.b.unsubscribe(sub)
			continue
		}
		sub.judged = 0 // what it was shown before, and since, is another state's
	}
}

// resubscribe gives a durable session the subscriptions that the state has.
func (s *Session) resubscribe(o *opened, now int64) {
	s.returning = nil // here is all that it has
	has := make(map[string]bool, len(o.subs))
	for i := range o.subs {
		sub := &o.subs[i]
		has[sub.Filter] = true
		if old := s.subs[sub.Filter]; old != nil && old.since == sub.since && old.sub == sub.Subscription && old.sharing.group == sub.group {
			continue
		}
		l := s.attach(sub.Subscription, sub.since, sub.group, now)
		_, l.asked = slices.BinarySearch(o.asked, sub.Filter)
		if sub.replaying {
			s.scanning.add(scan{sub: l, since: sub.since, after: sub.position, initial: true})
		}
	}
	for filter, sub := range s.subs {
		if !has[filter] {
			delete(s.subs, filter)
			s.b.unsubscribe(sub)
		}
	}
}
