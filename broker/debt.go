package broker

import (
	"cmp"
	"math"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// A debt is what streams owe a session for one absence. See stream.
//
// It is open while the session is away: then it grows with its streams, which
// nobody tells it (see fold).
type debt struct {
	open   bool
	number uint64 // no number before it is of an event that is owed
	left   uint64 // how many are
	bytes  int64  // what they are charged for
	subs   []event.Subscription
	joins  []join
}

// A join is a debt's part in one stream: its entries from next on are owed, as far
// as they have been counted, and for as long as it is a member all that come.
type join struct {
	s       *stream
	member  bool // it grows with s, unless that is over
	next    uint64
	before  uint64 // what all entries of the stream before next are charged for
	counted uint64 // those before are in left
	total   uint64 // and what they are all charged for
	ids     uint64 // how many identifiers each entry has for the session
}

// present says whether the debt grows with the stream.
func (j *join) present() bool { return j.member && !j.s.over }

// Bounds of one session's debts. Who is past one has entries, as if there were no
// streams.
const (
	subsParked = 32 // subscriptions
	debtsMost  = 8  // absences not paid for
	joinsMost  = 64 // joins of one absence: each policy in the meantime may add to them
)

const (
	// payAhead is how many numbers are paid ahead of what the client has taken, and
	// payPiece how many by one command or wake.
	payAhead = 4096
	payPiece = 1024

	// paidPerEntry is how many one entry of the log pays for all sessions, and how many
	// it drops of those that come back or are judged.
	paidPerEntry = 16 << 10
)

// openDebt returns the debt of the present absence, nil if r is not away or has not
// joined anything since it is.
func (r *record) openDebt() *debt {
	if n := len(r.debts); n > 0 && r.debts[n-1].open {
		return &r.debts[n-1]
	}
	return nil
}

// ready returns the number up to which the queue has what there is to have.
func (r *record) ready() uint64 {
	if len(r.debts) == 0 {
		return math.MaxUint64
	}
	return r.unpaid(r.debts[0].number)
}

// unpaid returns the first number from n on that nothing in the queue has or had:
// what is queued while a debt is open has its number at once, and when it goes it is
// among what is over, or below it.
func (r *record) unpaid(n uint64) uint64 {
	n = max(n, r.queue.below)
	for {
		next := r.queue.done.after(r.direct.after(n))
		if next == n {
			return n
		}
		n = next
	}
}

// owed returns how many events r is owed, and what they are charged for.
func (r *record) owed() (events uint64, bytes int64) {
	for i := range r.debts {
		events += r.debts[i].left
		bytes += r.debts[i].bytes
	}
	return events, bytes
}

// touchDebts takes note that r's debts differ from their stored form.
func (m *Machine) touchDebts(r *record) {
	r.debtsDirty = true
	m.touch(r)
}

// joined says whether r, which is away, has what filter matches from a stream.
func (m *Machine) joined(r *record, filter string) bool {
	d := r.openDebt()
	return d != nil && slices.ContainsFunc(d.joins, func(j join) bool {
		return j.present() && topic.Covers(j.s.filter, filter)
	})
}

// has says whether r has an event from one of its streams.
func (m *Machine) has(r *record, of []*stream) bool {
	d := r.openDebt()
	if d == nil || len(of) == 0 {
		return false
	}
	return slices.ContainsFunc(d.joins, func(j join) bool {
		return j.present() && slices.Contains(of, j.s)
	})
}

// park has r, if it is away, join the streams of its filters, as far as there are
// and it may. What it has joined it stays with.
func (m *Machine) park(r *record) {
	policy := m.steady()
	if r.use != nil && r.use.quota[useQueueBytes] > 0 {
		return // what it is owed would be in no queue, and counted nowhere
	}
	if policy == nil || m.bare || m.numbers[r.session] != r || r.connected() || r.subs == 0 || r.subs > subsParked {
		return
	}
	subs := m.subsOf(r)
	if (r.willAt != 0 || m.delayed.waits(r)) && slices.ContainsFunc(subs, func(s event.Subscription) bool { return s.NoLocal }) {
		return // what it publishes itself is no event of a stream's that it is owed
	}
	filters := m.joinable(policy, r, subs)
	if len(filters) == 0 {
		return
	}
	m.fold(r)
	d := r.openDebt()
	if d == nil || !slices.Equal(d.subs, subs) {
		if len(r.debts) >= debtsMost {
			return
		}
		if d == nil {
			r.parked = m.out.index
		}
		m.closeDebt(r)
		r.debts = append(r.debts, debt{open: true, number: r.queue.next, subs: subs})
		d = r.openDebt()
	}
	for _, f := range filters {
		if !d.has(f) && len(d.joins) < joinsMost {
			m.join(d, m.streamFor(f))
		}
	}
	m.leaveEager(r, d)
	m.forgetOver(r)
	m.touchDebts(r)
}

// has says whether d grows with a stream that has events of filter: they must not be
// owed twice, also if that was joined when filter was not crowded yet.
func (d *debt) has(filter string) bool {
	return slices.ContainsFunc(d.joins, func(j join) bool { return j.present() && topic.Overlaps(j.s.filter, filter) })
}

// subsOf returns r's subscriptions, by filter.
func (m *Machine) subsOf(r *record) (subs []event.Subscription) {
	for _, filter := range m.filters(r) {
		if s, ok := m.durable.Value(filter, r.session); ok {
			subs = append(subs, s.Subscription)
		}
	}
	return subs
}

// joinable returns the filters by whose streams r may be owed events, if there are or
// can be such: filters that are allowed to it whatever happens, of which no two match
// the same name, and of whose events each has as many identifiers.
func (m *Machine) joinable(policy steady, r *record, subs []event.Subscription) (list []string) {
	who := Who{Principal: r.principal, Client: r.client}
	wide := slices.Clone(subs)
	slices.SortStableFunc(wide, func(a, b event.Subscription) int {
		return cmp.Compare(covered(subs, a.Filter), covered(subs, b.Filter))
	})
	for i := range wide {
		f := wide[i].Filter
		if wide[i].QoS == 0 || !m.streamable(f) || !m.crowded(f) || !even(subs, f) || !policy.Always(who, f) {
			continue
		}
		if slices.ContainsFunc(list, func(other string) bool { return topic.Overlaps(other, f) }) {
			continue
		}
		if m.streams.hasRoom(f, len(list)) {
			list = append(list, f)
		}
	}
	return list
}

// streamable says whether a filter is one of plain topics.
func (m *Machine) streamable(filter string) bool {
	return filter[0] != '$' && profileOf(m.profiles, filter) == nil
}

// covered counts which of subs match all that filter does.
func covered(subs []event.Subscription, filter string) (n int) {
	for i := range subs {
		if topic.Covers(subs[i].Filter, filter) {
			n++
		}
	}
	return n
}

// even says whether every event that filter matches has as many identifiers.
func even(subs []event.Subscription, filter string) bool {
	return !slices.ContainsFunc(subs, func(s event.Subscription) bool {
		return s.ID != 0 && topic.Overlaps(s.Filter, filter) && !topic.Covers(s.Filter, filter)
	})
}

// join makes d a member of s, which it is not.
func (m *Machine) join(d *debt, s *stream) {
	ids := uint64(0)
	for i := range d.subs {
		if d.subs[i].ID != 0 && ids < maxIDs && topic.Covers(d.subs[i].Filter, s.filter) {
			ids++
		}
	}
	d.joins = append(d.joins, join{
		s: s, member: true, next: s.next, before: s.total, counted: s.next, total: s.total, ids: ids,
	})
	s.members++
	s.refer(s.next)
}

// leaveEager has events that r has from streams not queued for it besides.
func (m *Machine) leaveEager(r *record, d *debt) {
	if m.eager == nil {
		m.eager = m.durable.Clone(fanoutCache)
		m.weights.Store(m.eager)
	}
	for i := range d.subs {
		if m.joined(r, d.subs[i].Filter) {
			m.eager.Delete(d.subs[i].Filter, r.session)
		}
	}
}

// fold counts what r's streams owe it by now: then its queue's next number is what
// it would be without streams. It comes before whatever takes a number.
func (m *Machine) fold(r *record) {
	d := r.openDebt()
	if d == nil {
		return
	}
	for i := range d.joins {
		j := &d.joins[i]
		if !j.member {
			continue
		}
		next, total := j.s.next, j.s.total
		if j.s.over { // and went no further
			j.member = false
			m.touchDebts(r)
		}
		if n := next - j.counted; n > 0 {
			d.left += n
			d.bytes += int64(total - j.total + n*j.ids*idBytes)
			r.queue.next += n
			j.counted, j.total = next, total
			m.touchDebts(r)
		}
	}
}

// unpark ends r's absence: what it is owed is what it is, and within its bound. Its
// events are queued for it from here on.
func (m *Machine) unpark(r *record) {
	if r.openDebt() == nil {
		return
	}
	m.fold(r)
	m.trimAway(r)
	d := r.openDebt() // not before: older ones may be gone by now
	for i := range d.subs {
		if filter := d.subs[i].Filter; m.eager != nil && m.joined(r, filter) {
			if s, ok := m.durable.Value(filter, r.session); ok {
				m.eager.Set(filter, r.session, s)
			}
		}
	}
	m.closeDebt(r)
	m.noteOver(r)
}

// closeDebt ends the memberships of the present absence.
func (m *Machine) closeDebt(r *record) {
	d := r.openDebt()
	if d == nil {
		return
	}
	d.open = false
	for i := range d.joins {
		if j := &d.joins[i]; j.member {
			if !j.s.over {
				j.s.members--
			}
			j.member = false
		}
	}
	m.settled(r)
}

// settled forgets what nothing is owed of any more.
func (m *Machine) settled(r *record) {
	for i := range r.debts {
		d := &r.debts[i]
		d.joins = slices.DeleteFunc(d.joins, func(j join) bool {
			if j.member || j.next < j.counted {
				return false
			}
			m.unrefer(j.s, j.next)
			return true
		})
	}
	r.debts = slices.DeleteFunc(r.debts, func(d debt) bool { return !d.open && d.left == 0 })
	if len(r.debts) == 0 {
		r.debts, r.direct = nil, nil
	}
	m.touchDebts(r)
}

// forgive forgets all that r is owed: its session ends.
func (m *Machine) forgive(r *record) {
	for i := range r.debts {
		for k := range r.debts[i].joins {
			j := &r.debts[i].joins[k]
			if j.present() {
				j.s.members--
			}
			m.unrefer(j.s, j.next)
		}
	}
	if len(r.debts) > 0 || r.debtsDirty { // it may have been paid by this entry
		m.tx.Delete(debtKey(m.key, r.session))
	}
	r.debts, r.direct = nil, nil
}

// sizeThen returns how many events r's queue has, those that it is owed among them,
// and what they are charged for; without what this entry has added, if r is away.
func (m *Machine) sizeThen(r *record) (events uint64, bytes int64) {
	events, bytes = r.owed()
	events += r.queue.count
	bytes += r.queue.bytes
	d := r.openDebt()
	if d == nil {
		return events, bytes
	}
	for i := range d.joins {
		j := &d.joins[i]
		next, total := m.then(j.s)
		if next, total = max(next, j.next), max(total, j.before); j.counted > next {
			n := j.counted - next
			events -= n
			bytes -= int64(j.total - total + n*j.ids*idBytes)
		}
	}
	if r.addedIn == m.out.index {
		events -= r.added
		bytes -= r.addedBytes
	}
	return events, bytes
}

// trimAway brings the queue of r, which is away, back within its bound as of the
// entry before, unless it was there still when that ended. So much at once is
// bounded, of r and of all for whom an entry does it: more is gone later, and told the
// next time.
func (m *Machine) trimAway(r *record) {
	most := min(2*trimPerEntry, paidPerEntry-m.streams.trimmedBy)
	if most > 0 && r.openDebt() != nil && r.parked != m.out.index && m.tooMuch(r) {
		m.streams.trimmedBy += m.trimQueue(r, most)
	}
}

// tooMuch says whether r's queue is past its bound, with what it is owed.
func (m *Machine) tooMuch(r *record) bool {
	events, bytes := m.sizeThen(r)
	return events > uint64(m.bound.events) || bytes > m.bound.bytes
}

// forgetOver takes r off the list of queues past their bound, if what is in its
// queue alone is not.
func (m *Machine) forgetOver(r *record) {
	if r.isOver && !m.isOver(r) {
		r.isOver = false
		m.over = slices.DeleteFunc(m.over, func(o *record) bool { return o == r })
	}
}
