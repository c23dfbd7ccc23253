package broker

import (
	"github.com/bellwire/bellwire/broker/store"
)

// Subscriptions that end with their window (a rule that says outside: end).
//
// Such a subscription ends at the edge, whether its client, or its node, is there
// to see it or not: what happens after the edge it does not get, also not when
// the window opens again before anybody has noticed. So of durable sessions the
// log ends it, by its time: the Machine keeps with the subscription when its
// window closes, and a wake for then. Which windows there are follows from the
// policy; after a change they are reckoned anew, some at a time, as from the
// change on. Others' are their node's to end (see edges).

// endsAt returns when a subscription of r that is in force at an instant ends
// with its window, 0 for never. One that is closed then has its next opening
// first.
func (m *Machine) endsAt(r *record, filter string, at int64) int64 {
	if m.policy == nil || profileOf(m.profiles, filter) != nil {
		return 0
	}
	who := Who{Principal: r.principal, Client: r.client}
	for range 2 {
		d := m.policy.Decide(who, ActSubscribe, filter, at)
		switch {
		case d.Outside != End || d.Until == 0:
			return 0
		case d.Allow:
			return d.Until
		}
		at = d.Until
	}
	return 0
}

// setEnd notes in s, which the caller stores, when it ends.
func (m *Machine) setEnd(r *record, s *storedSub, ends int64) {
	if s.ends == ends {
		return
	}
	if s.ends != 0 {
		m.tx.Delete(endKey(m.key, s.ends, r.session, s.Filter))
	}
	if s.ends = ends; ends != 0 {
		m.tx.Set(endKey(m.key, ends, r.session, s.Filter), nil)
		m.noteWake(ends)
	}
}

func endKey(buf []byte, at int64, session uint64, filter string) []byte {
	buf = append(store.AppendUint64(store.Key(buf, store.Wakes), uint64(at)), wakeEnd)
	return append(store.AppendUint64(buf, session), filter...)
}

// endSub ends a subscription that was to end by now, unless the policy that is
// in force by now says another time.
func (m *Machine) endSub(session uint64, filter string) {
	r := m.numbers[session]
	if r == nil {
		return
	}
	s, ok := m.durable.Value(filter, session)
	if !ok || s.ends == 0 || s.ends > m.now {
		return
	}
	if !m.bare {
		if ends := m.endsAt(r, filter, s.ends-1); ends == 0 || ends > m.now {
			m.keepUntil(r, &s, ends)
			return
		}
	}
	m.dropSub(r, s.Filter)
	if r.connected() && r.node == m.node && r.life == m.life {
		m.out.steps = append(m.out.steps, step{kind: stepSubEnded, session: r.session, epoch: r.epoch, topic: s.Filter})
	}
}

// keepUntil changes when a subscription ends.
func (m *Machine) keepUntil(r *record, s *storedSub, ends int64) {
	if s.ends == ends {
		return
	}
	m.setEnd(r, s, ends)
	m.setSub(r, s)
	m.writeSub(r, s)
}

// reckonEnds reckons anew when subscriptions end, because the policy has
// changed: those after the key after, within the space of subscriptions.
func (m *Machine) reckonEnds(after []byte) {
	lower := append([]byte{byte(store.Subs)}, after...)
	if len(after) > 0 {
		lower = append(lower, 0)
	}
	var keys []string
	m.store.Scan(lower, store.End([]byte{byte(store.Subs)}), func(key, _ []byte) bool {
		keys = append(keys, string(key[1:]))
		return len(keys) < itemsPerWake
	})
	most := len(keys)
	for i, key := range keys {
		if i > 0 && m.isSpent() {
			keys = keys[:i]
			break
		}
		m.spend(1)
		session, filter := store.Uint64At([]byte(key), 0), key[8:]
		r := m.numbers[session]
		if r == nil || m.bare {
			continue
		}
		if s, ok := m.durable.Value(filter, session); ok {
			m.keepUntil(r, &s, m.endsAt(r, filter, m.inForce))
		}
	}
	if most == itemsPerWake || len(keys) < most {
		m.setWakeName(m.now, wakeTerms, keys[len(keys)-1])
	}
}
