package broker

import "slices"

// How the delivery loop lets go of a session's subscriptions.
//
// A session may have 100,000 of them, and each costs the loop 1 µs and more to take out of
// its index: at once that would be 50 to 600 ms in which nobody connected here is sent
// anything (BenchmarkManyFilters). So of a session that has more than filtersAtOnce the loop
// takes out so many at a time, between entries and tasks. What must hold meanwhile:
//
//   - Nothing is delivered to a connection that is over. It is closed before, and who walks
//     an audience passes over it; its outbox and its scans have stopped.
//   - A connection that goes on with the session, on this node, has the same number, and so
//     the same place in the index. It puts no subscription there before all of the former
//     connection's are gone: see settle, divide and returning. What its queue gets meanwhile it is told by its
//     number, not by the former one's place in an audience.
//   - Its shared subscriptions, which are few, go at once: others of their groups are given
//     what it would have been.
//   - What is counted by subscriptions (the bounds of all together, what other nodes are told
//     of, $SYS) follows as they go: they take up room for so long.
//
// Sessions leave one after the other, in the order in which they ended.
type leaving struct {
	sessions []*Session
	atOnce   int           // subscriptions
	always   chan struct{} // closed
}

func (v *leaving) init() {
	v.atOnce, v.always = filtersAtOnce, make(chan struct{})
	close(v.always)
}

// due is readable for as long as there is something to do.
func (v *leaving) due() <-chan struct{} {
	if len(v.sessions) == 0 {
		return nil
	}
	return v.always
}

// leave has the subscriptions of a session, which is closed, leave the index.
func (l *loop) leave(s *Session) {
	if s.shares {
		for filter, sub := range s.subs {
			if sub.isShared() {
				delete(s.subs, filter)
				l.b.unsubscribe(sub)
			}
		}
	}
	if l.letGo(s, l.leaving.atOnce) {
		return
	}
	l.leaving.sessions = append(l.leaving.sessions, s)
}

// leaveSome does some of what is due.
func (l *loop) leaveSome() {
	v := &l.leaving
	if l.letGo(v.sessions[0], v.atOnce) {
		v.sessions[0] = nil
		v.sessions = v.sessions[1:]
	}
}

// settle has all of a session's former connections gone from the index.
func (l *loop) settle(number uint64) {
	rest := l.leaving.sessions[:0]
	for _, s := range l.leaving.sessions {
		if s.number != number {
			rest = append(rest, s)
			continue
		}
		l.letGo(s, len(s.subs))
	}
	clear(l.leaving.sessions[len(rest):])
	l.leaving.sessions = rest
}

// divide has a session come back in pieces (see returning), though it has few subscriptions,
// if a former connection has so many left that settle would take long: others may have ended
// meanwhile. In the delivery loop.
func (l *loop) divide(o *opened) {
	left := 0
	for _, s := range l.leaving.sessions {
		if s.number == o.session {
			left += len(s.subs)
		}
	}
	if o.atOnce > 0 || left <= l.leaving.atOnce {
		return
	}
	o.atOnce = l.leaving.atOnce
	o.subs = slices.DeleteFunc(o.subs, func(s storedSub) bool { return s.group == 0 }) // the rest comes from the store
}

// last returns the last of a session's connections that are leaving, nil for none.
func (v *leaving) last(number uint64) *Session {
	for _, s := range slices.Backward(v.sessions) {
		if s.number == number {
			return s
		}
	}
	return nil
}

// letGo takes some of a session's subscriptions out of the index, and says whether those
// were all.
func (l *loop) letGo(s *Session, most int) (all bool) {
	for filter, sub := range s.subs {
		if most--; most < 0 {
			return false
		}
		delete(s.subs, filter)
		l.b.unsubscribe(sub)
	}
	close(s.left)
	return true
}
