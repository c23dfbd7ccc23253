package broker

// How a session comes back that has very many subscriptions.
//
// To put one of them in force on the node of its connection costs the Machine and the delivery
// loop 2 µs and more each, and there may be 100,000: at once, 0.4 to 2 s in which nobody on the
// node is sent anything (BenchmarkManyFilters). So of a session with more than filtersAtOnce
// the Machine tells the loop only that it is back, and the goroutine that waits in Connect
// reads the subscriptions from the store and has the loop put them in force, a piece at a
// time. Its client has its CONNACK when all are. What must hold meanwhile:
//
//   - Nothing is missed: what is matched for its queue the log says, which has had all its
//     subscriptions all the time. Nothing is sent before Start, nor looked for in the index.
//     Events of QoS 0, and what is shown, it gets from Start on, as any session.
//   - The store may be ahead of the loop. What the loop learns has ended is not put in force by
//     a piece that was read before, and what has begun meanwhile stays as it is.
//   - Who takes the session over, or has it end, finds one that is connected and has some of
//     its subscriptions: the rest are not put in force any more. A copied state has all.
//   - What a former connection on this node has left in the index goes before (see leaving).

import "github.com/bellwire/bellwire/broker/store"

// A returning is a session that comes back so. It is the loop's.
type returning struct {
	opened *opened
	former *Session        // waited for; nil for none
	ended  map[string]bool // filters that have ended since
}

// returns begins that. In the delivery loop.
func (s *Session) returns(o *opened) {
	s.returning = &returning{opened: o, former: s.b.loop.leaving.last(s.number), ended: map[string]bool{}}
}

// comeBack puts what the store has of the session's subscriptions in force, and returns when
// all are, or the connection is over.
func (s *Session) comeBack(o *opened, former *Session) {
	if former != nil {
		select {
		case <-former.left:
		case <-s.b.loop.over:
			return
		}
	}
	lower, upper := subKey(nil, s.number, ""), store.End(subKey(nil, s.number, ""))
	for more := true; more; {
		var subs []storedSub
		subs, lower, more = s.b.readSubs(lower, upper, o.atOnce)
		if !s.b.loop.call(func(*Wave) { more = s.comesBack(subs, more) }) {
			return
		}
	}
}

// readSubs reads so many subscriptions, shared ones left out, and says where it goes on.
func (b *Broker) readSubs(lower, upper []byte, most int) (subs []storedSub, next []byte, more bool) {
	b.config.Store.Scan(lower, upper, func(key, value []byte) bool {
		if more = len(subs) == most; more {
			next = append([]byte{}, key...)
			return false
		}
		sub, err := decodeSub(value)
		if err != nil {
			b.config.Store.Die("subscription: " + err.Error()) // as the Machine has it end that reads one
		}
		if _, shared := sharedRest(sub.Filter); !shared {
			subs = append(subs, sub)
		}
		return true
	})
	return subs, next, more
}

// comesBack puts a piece in force, and says whether another is to come. In the delivery loop.
func (s *Session) comesBack(subs []storedSub, more bool) bool {
	r := s.returning
	if r == nil || s.b.loop.live[s.number] != s {
		return false // a copied state had all, or the connection is over
	}
	now := s.b.now()
	for i := range subs {
		if filter := subs[i].Filter; s.subs[filter] == nil && !r.ended[filter] {
			s.bring(&subs[i], r.opened, now)
		}
	}
	if !more {
		s.returning = nil
	}
	return more
}
