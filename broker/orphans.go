package broker

// How a session ends that has very many subscriptions.
//
// To take one out of the index and the store costs 2 µs or more on every node, and a session
// may have 100,000 of them: at once that would be 200 ms and more in which nobody's event is
// acknowledged (BenchmarkManyFilters), also on the nodes that had nothing to do with it. So a
// session of more than filtersAtOnce ends without them: they are *orphans*, which a chore
// takes off, a piece with each entry (see budget). What must hold:
//
//   - The session is over with the entry that ends it. Its record is gone, so whoever has the
//     client id next has another number, and begins without subscriptions. What it used of
//     quotas, and all counts of it, are given back by that entry, as sums that it keeps.
//   - Nothing is queued by an orphan. An orphan is a subscription of a number that has no
//     record, and numbers never come again: lists of who has an event leave them out as they
//     are built, and those that were built before pass over a record that is over.
//   - What is left is state: the keys of subscriptions are in the store until a piece removes
//     them, the chore names the one that the next piece begins behind, and a start, or a copy
//     of the state, puts those that are there into the index as orphans. So all nodes have the
//     same in it after each entry, for there is what asks how many subscribe by a filter
//     (see crowded).
//   - Shared subscriptions, at most 32 of a session, end at once: what waits for their groups
//     is others'. So do requests, of which profiles are told.
//
// What is taken off late takes up room: bounds on all subscriptions of a node count it.
//
// Rejected: to have the record outlive its session, marked as over, until all is gone. Then
// whoever finds a record, by number or client id, would have to ask for the mark, in some
// fifty places.

import (
	"cmp"
	"slices"

	"github.com/bellwire/bellwire/broker/store"
)

// orphanWeight is what an orphan costs to take off, in items.
const orphanWeight = 2

// endSubs ends all subscriptions of r, whose session ends: at once, if they are few.
func (m *Machine) endSubs(r *record) {
	if m.level < LevelOrphans || int(r.subs) <= m.budget.subs() {
		m.dropSubs(r)
		return
	}
	groups := slices.SortedFunc(slices.Values(r.groups), func(a, b *group) int { return cmp.Compare(a.filter, b.filter) })
	for _, g := range groups {
		m.spend(1)
		m.leave(r, g.filter)
	}
	m.awaiting.subscriptions.Add(-int64(r.subs))
	r.uncount()
	m.setOrphans(r.session, "")
}

// setOrphans has what subscriptions are left of a session that has ended taken off, those
// behind a filter.
func (m *Machine) setOrphans(session uint64, after string) {
	m.setChoreName(wakeOrphans, string(store.AppendUint64(nil, session))+after)
}

// takeOff takes off some orphans.
func (m *Machine) takeOff(session uint64, after string) {
	lower, upper := subKey(nil, session, after), store.End(subKey(nil, session, ""))
	if after != "" {
		lower = append(lower, 0)
	}
	most, more := min(max(1, m.piece()/orphanWeight), m.budget.subs()), false
	var filters []string
	m.store.Scan(lower, upper, func(key, _ []byte) bool {
		if more = len(filters) == most; more {
			upper = append([]byte{}, key...)
			return false
		}
		filters = append(filters, string(key[9:]))
		return true
	})
	of := &record{session: session}
	for _, filter := range filters {
		m.spend(orphanWeight)
		if s, ok := m.durable.Value(filter, session); ok {
			m.setEnd(of, &s, 0)
			m.deleteSub(of, filter)
		}
	}
	m.tx.DeleteRange(lower, upper)
	if more {
		m.setOrphans(session, filters[len(filters)-1])
	}
}
