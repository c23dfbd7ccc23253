package broker

import (
	"math"
	"slices"

	"github.com/bellwire/bellwire/broker/topic"
)

// A payer goes through what one debt owes in the order of the log: a merge of its
// streams. It changes nothing.
type payer struct {
	m    *Machine
	d    *debt
	read [][]streamed // by join: what follows in its stream, as far as it was read
	at   []uint64     // by join: the entry after what was read
	most int          // how many are read of one stream at once
}

func (m *Machine) payer(d *debt, most int) *payer {
	p := &payer{m: m, d: d, read: make([][]streamed, len(d.joins)), at: make([]uint64, len(d.joins)), most: min(max(most, 1), payPiece)}
	for i := range d.joins {
		p.at[i] = d.joins[i].next
	}
	return p
}

// next returns the next event, and of which join; ok is false if no more can be read
// now.
func (p *payer) next() (of int, item streamed, ok bool) {
	of = -1
	for i := range p.d.joins {
		if len(p.read[i]) == 0 && !p.readMore(i) {
			continue
		}
		if of < 0 || p.read[i][0].position < p.read[of][0].position {
			of = i
		}
	}
	if of < 0 {
		return 0, item, false
	}
	item = p.read[of][0]
	p.read[of] = p.read[of][1:]
	return of, item, true
}

func (p *payer) readMore(i int) bool {
	j := &p.d.joins[i]
	readable, _ := p.m.then(j.s)
	until := min(j.counted, readable, p.at[i]+uint64(p.most))
	if p.at[i] >= until {
		return false
	}
	p.m.store.Scan(streamKey(nil, j.s.id, p.at[i]), streamKey(nil, j.s.id, until), func(_, value []byte) bool {
		p.read[i] = append(p.read[i], mustStreamed(value))
		return true
	})
	p.at[i] = until
	return len(p.read[i]) > 0
}

// take takes note that the next event of a join is owed no more.
func (m *Machine) take(d *debt, of int, item *streamed) {
	j := &d.joins[of]
	if j.next%entriesPerSegment == entriesPerSegment-1 {
		j.s.refer(j.next + 1)
		m.unrefer(j.s, j.next)
	}
	j.next++
	j.before += item.size
	d.left--
	d.bytes -= int64(item.size + j.ids*idBytes)
}

// entryOf makes of an event of a stream what the session would have queued.
func (d *debt) entryOf(item *streamed) (en entry, ok bool) {
	var g merged
	for i := range d.subs {
		if s := &d.subs[i]; topic.Match(s.Filter, item.topic) {
			g.add(s)
		}
	}
	return entry{
		qos: min(g.qos, item.qos), retain: g.retain && item.retain, expires: item.expires,
		size: item.size + idBytes*uint64(len(g.ids)), ids: g.ids, body: item.body,
	}, g.qos > 0
}

// pay writes entries for what r is owed, at most so many, up to the number until.
func (m *Machine) pay(r *record, most int, until uint64) (paid int) {
	m.settleFloors(r)
	for paid < most && len(r.debts) > 0 && !r.debts[0].open {
		d := &r.debts[0]
		p := m.payer(d, most-paid)
		for paid < most && r.ready() < until {
			of, item, ok := p.next()
			if !ok {
				break
			}
			m.payOne(r, d, of, &item)
			paid++
		}
		if d.left > 0 {
			break
		}
		m.settled(r)
	}
	if paid > 0 {
		m.settled(r)
		m.out.paid += uint64(paid)
		m.growing += paid
	}
	return paid
}

func (m *Machine) payOne(r *record, d *debt, of int, item *streamed) {
	en, ok := d.entryOf(item)
	n := r.unpaid(d.number)
	d.number = n + 1
	m.take(d, of, item)
	if !ok {
		panic(fatal{"a stream owes a session what it has not subscribed to"})
	}
	m.segment(en.body).live++
	r.queue.count++
	r.queue.bytes += int64(en.size)
	m.charge(r, 1, int64(en.size))
	if at := en.due(); at != 0 {
		r.queue.expiresLate(n, at)
	}
	m.tx.Set(entryKey(m.key, r.session, n), en.append(m.val[:0]))
	m.spend(1)
	m.touch(r)
}

// payAhead pays what r's client may want next. What cannot be paid now, because this entry has added it or others were paid so much, is by
// the next entry.
func (m *Machine) payAhead(r *record) {
	if len(r.debts) == 0 {
		return
	}
	ahead, piece := m.streams.ahead, m.streams.piece
	if ahead == 0 {
		ahead = payAhead
	}
	if piece == 0 {
		piece = payPiece
	}
	// Room for so many, beyond those that are ready and not over.
	before := r.ready()
	open := before - r.queue.below - r.queue.done.within(r.queue.below, before)
	want := ahead - int(min(open, uint64(ahead)))
	most := min(want, piece, paidPerEntry-m.streams.paidBy, m.budget.until-m.budget.spent)
	paid := m.pay(r, most, math.MaxUint64)
	m.streams.paidBy += paid
	if len(r.debts) > 0 && paid < want {
		m.setChore(wakePay, r.session, 0)
	}
}

// tellReady has the loop told up to where it may read r's queue, if that has
// changed since it was, however it came.
func (m *Machine) tellReady(r *record) {
	if now := r.ready(); now != r.told && r.connected() && r.node == m.node && r.life == m.life {
		r.told = now
		m.out.steps = append(m.out.steps, step{kind: stepPaid, session: r.session, epoch: r.epoch, position: now})
	}
}

// payDue goes on with the debts of a session.
func (m *Machine) payDue(session uint64) {
	r := m.numbers[session]
	switch {
	case r == nil || len(r.debts) == 0:
	case r.connected():
		m.payAhead(r)
	case !r.debts[0].open: // what one entry brought, and it was there for no longer
		most := m.piece()
		if m.pay(r, most, math.MaxUint64) == most && most < payPiece {
			m.setChore(wakePay, session, 0)
		}
	}
}

// settleFloors drops what streams have pushed out and r is owed, and what is older.
// It may have been owed for long: nothing of it is under way.
func (m *Machine) settleFloors(r *record) {
	last, floor := -1, uint64(0)
	for i := range r.debts {
		for _, j := range r.debts[i].joins {
			if j.next < j.counted && j.next < j.s.first {
				last, floor = i, max(floor, j.s.floor)
			}
		}
	}
	if last < 0 {
		return
	}
	q := &r.queue
	for i := range last + 1 {
		d := &r.debts[i]
		gone := uint64(0)
		for k := range d.joins {
			gone += m.passFloor(d, &d.joins[k], floor, i < last)
		}
		m.dropNumbers(r, d, gone)
	}
	// What was queued before that is older.
	if from := q.done.after(max(q.sent, q.below)); from < r.debts[last].number {
		m.dropWhere(r, from, r.debts[last].number, func(uint64, *entry) (drop, stop bool) { return true, false })
	}
	q.normalize()
	m.settled(r)
	if r.connected() {
		m.roomFor(r)
	}
}

// passFloor moves a join past what was in the log before floor, or past all, and
// returns how many events that were.
func (m *Machine) passFloor(d *debt, j *join, floor uint64, all bool) (gone uint64) {
	from, size := j.next, j.before
	next, before := j.counted, j.total
	if !all {
		next, before = m.afterPosition(j, floor)
	}
	if next <= from {
		return 0
	}
	if from/entriesPerSegment != next/entriesPerSegment {
		j.s.refer(next)
		m.unrefer(j.s, from)
	}
	gone = next - from
	j.next, j.before = next, before
	d.left -= gone
	d.bytes -= int64(before - size + gone*j.ids*idBytes)
	return gone
}

// afterPosition returns the first entry from j's next on that is after a place in
// the log, and what all before it are charged for.
func (m *Machine) afterPosition(j *join, position uint64) (next, before uint64) {
	readable, _ := m.then(j.s)
	lo, hi := max(j.next, j.s.first), min(j.counted, readable)
	if lo >= j.counted {
		return j.counted, j.total
	}
	if next, before = lo, j.s.before; j.next > j.s.first {
		before = j.before
	}
	for end := hi; lo < end; { // entries before lo are not after position, those from end on are
		at := lo + (end-lo)/2
		value, ok := m.store.Get(streamKey(nil, j.s.id, at), nil)
		if !ok {
			panic(fatal{"a stream has lost an entry"})
		}
		item := mustStreamed(value)
		if item.position > position {
			end = at
			continue
		}
		lo = at + 1
		next, before = lo, item.before+item.size
	}
	return next, before
}

// dropNumbers drops the next n events that d owes r, as far as numbers go, and what
// was queued in between.
func (m *Machine) dropNumbers(r *record, d *debt, n uint64) {
	q := &r.queue
	from := d.number
	for left := n; left > 0; {
		at := r.unpaid(d.number)
		run := min(left, min(r.direct.next(at), q.done.next(at))-at)
		q.over(at, at+run)
		d.number, left = at+run, left-run
	}
	if n == 0 {
		return
	}
	q.dropped += n
	m.out.queueDropped += n
	m.dropWhere(r, from, d.number, func(uint64, *entry) (drop, stop bool) { return true, false })
	m.touchDebts(r)
}

// dropOldest drops what is oldest and not before first, while more says so. What is
// owed is not under way, whatever number it has; but what the log takes for sent is
// paid before, or it could be passed over for something newer.
func (m *Machine) dropOldest(r *record, first uint64, more func() bool) {
	q := &r.queue
	if r.ready() < first {
		m.pay(r, trimPerEntry, first)
	}
	all := func(uint64, *entry) (drop, stop bool) { return true, !more() }
	for from := first; more(); {
		// Not from the first if that is gone already: the store would step over
		// the remains of all that were dropped before.
		ready := r.ready()
		if at := q.done.after(from); at < min(ready, q.next) {
			m.dropWhere(r, at, min(ready, q.next), all)
		}
		if len(r.debts) == 0 || !more() {
			break
		}
		if !m.dropOwed(r, first, more) {
			break
		}
		from = max(first, ready)
	}
}

// dropOwed drops the oldest that r is owed while more says so, with what was queued in
// between and is not before first, and says whether there is anything else to be
// dropped.
func (m *Machine) dropOwed(r *record, first uint64, more func() bool) bool {
	d := &r.debts[0]
	if d.left == 0 && d.open {
		// What was queued since it was opened, under the numbers after.
		m.dropWhere(r, min(max(first, d.number), r.queue.next), r.queue.next, func(uint64, *entry) (drop, stop bool) { return true, !more() })
		return false
	}
	p := m.payer(d, trimPerEntry)
	for more() && d.left > 0 {
		of, item, ok := p.next()
		if !ok {
			m.settled(r)
			return false
		}
		n := r.unpaid(d.number)
		if n > d.number { // what is in between is older
			m.dropWhere(r, max(first, d.number), n, func(uint64, *entry) (drop, stop bool) { return true, !more() })
			if !more() {
				break
			}
		}
		d.number = n
		m.take(d, of, &item)
		m.dropNumber(r, d)
	}
	m.settled(r)
	return true
}

func (m *Machine) dropNumber(r *record, d *debt) {
	q := &r.queue
	q.over(d.number, d.number+1)
	d.number++
	q.dropped++
	m.out.queueDropped++
}

// expiresLate is expires for an entry that is not the newest.
func (q *queue) expiresLate(seq uint64, at int64) {
	segment := seq / entriesPerDue
	i, found := slices.BinarySearchFunc(q.dues, segment, func(d due, segment uint64) int {
		switch {
		case d.segment < segment:
			return -1
		case d.segment > segment:
			return 1
		}
		return 0
	})
	if found {
		q.dues[i].at = min(q.dues[i].at, at)
		return
	}
	q.dues = slices.Insert(q.dues, i, due{segment, at})
}
