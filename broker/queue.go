package broker

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// How the queues of durable sessions are kept.
//
// A session's entries are numbered without gaps and the numbers never come
// again, so an entry is written once and removed once: set and single delete
// meet in a memtable and never reach a disk if the client is quick. An event
// that goes to one session is stored in its entry; one that goes to several is
// stored once, as a body, and the entries name it.
//
// Bodies are kept in segments (see segments.go).

func entryKey(buf []byte, session, seq uint64) []byte {
	return store.AppendUint64(store.AppendUint64(store.Key(buf, store.Queue), session), seq)
}

// An entry is one element of a queue as stored.
//
//	version u8 |
//	flags u8: 0-1 QoS, 2 retain, 3 has a body number, 4 is a mark, 5 expires,
//	6 has a ref, 7 has a group |
//	deadline 8 bytes | [expires 8 bytes] | size uvarint | count and ids, uvarints |
//	[ref: uvarint length, bytes] | [group uvarint, returns] |
//	body number uvarint, or the resource's topic, or event
type entry struct {
	qos      uint8
	retain   bool
	deadline int64 // the subscriber's window closes; 0 for never
	expires  int64 // the event's; 0 for never
	size     uint64
	ids      []uint32
	body     uint64 // 0: inline
	inline   []byte // binary form of the event
	mark     string // not an event: this resource is to be shown
	ref      string // of the profile that routed it and wants to know when it is taken; empty for none
	group    uint64 // whose shared subscription it is of; 0 for none
	returns  returns
}

const (
	entryRetain  = 1 << 2
	entryBody    = 1 << 3
	entryMark    = 1 << 4
	entryExpires = 1 << 5
	entryRef     = 1 << 6
	entryGroup   = 1 << 7
)

// due returns when the entry is no longer to be sent, 0 for never.
func (e *entry) due() int64 { return earlier(e.expires, e.deadline) }

func (e *entry) append(b []byte) []byte {
	flags := e.qos
	if e.retain {
		flags |= entryRetain
	}
	if e.body != 0 {
		flags |= entryBody
	}
	if e.mark != "" {
		flags |= entryMark
	}
	if e.expires != 0 {
		flags |= entryExpires
	}
	if e.ref != "" {
		flags |= entryRef
	}
	if e.group != 0 {
		flags |= entryGroup
	}
	b = append(b, recordVersion, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(e.deadline))
	if e.expires != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(e.expires))
	}
	b = binary.AppendUvarint(b, e.size)
	b = binary.AppendUvarint(b, uint64(len(e.ids)))
	for _, id := range e.ids {
		b = binary.AppendUvarint(b, uint64(id))
	}
	if e.ref != "" {
		b = append(binary.AppendUvarint(b, uint64(len(e.ref))), e.ref...)
	}
	if e.group != 0 {
		b = e.returns.append(binary.AppendUvarint(b, e.group))
	}
	if e.body != 0 {
		return binary.AppendUvarint(b, e.body)
	}
	if e.mark != "" {
		return append(b, e.mark...)
	}
	return append(b, e.inline...)
}

// decodeEntry reads an entry; inline aliases b.
func decodeEntry(b []byte) (e entry, err error) {
	if len(b) < 12 || b[0] != recordVersion {
		return e, event.ErrDamaged
	}
	flags := b[1]
	e.qos, e.retain = flags&3, flags&entryRetain != 0
	e.deadline = int64(store.Uint64At(b, 2))
	b = b[10:]
	if flags&entryExpires != 0 {
		if len(b) < 8 {
			return e, event.ErrDamaged
		}
		e.expires, b = int64(store.Uint64At(b, 0)), b[8:]
	}
	u := uvarints{left: b}
	e.size = u.take()
	n := u.take()
	if n > uint64(len(u.left)) {
		return e, event.ErrDamaged
	}
	for ; n > 0; n-- {
		e.ids = append(e.ids, uint32(u.take()))
	}
	if flags&entryRef != 0 {
		n := u.take()
		if n == 0 || n > uint64(len(u.left)) {
			return e, event.ErrDamaged
		}
		e.ref, u.left = string(u.left[:n]), u.left[n:]
	}
	bad := false
	if flags&entryGroup != 0 {
		e.group = u.take()
		bad = !e.returns.decode(&u) || e.group == 0
	}
	if flags&entryBody != 0 {
		e.body = u.take()
		bad = bad || e.body == 0 || len(u.left) > 0
	} else if flags&entryMark != 0 {
		e.mark = string(u.left)
		bad = bad || e.mark == ""
	} else {
		e.inline = u.left
	}
	if bad || u.short {
		return e, event.ErrDamaged
	}
	return e, nil
}

func mustEntry(b []byte) entry {
	e, err := decodeEntry(b)
	if err != nil {
		panic(fatal{"queue entry: " + err.Error()})
	}
	return e
}

// enqueue adds e to r's queue, as body or inline if body is 0.
func (m *Machine) enqueue(r *record, e *event.Event, q queued, body uint64) {
	en := entry{
		qos: q.qos, retain: q.retain, deadline: q.deadline, expires: e.Expires,
		size: uint64(e.Size() + idBytes*len(q.ids) + len(m.ref)), ids: q.ids, body: body, ref: m.ref, group: q.group, returns: q.returns,
	}
	if body != 0 {
		m.segment(body).live++
	} else {
		m.body = e.Append(m.body[:0])
		en.inline = m.body
	}
	m.add(r, en, q)
}

// add appends an entry to r's queue; q says of it what the node needs to know.
func (m *Machine) add(r *record, en entry, q queued) {
	m.fold(r)
	q.seq, q.session = r.queue.next, r.session
	if q.named = en.ref != ""; q.named {
		r.noteRef(en.ref)
	}
	if en.group != 0 {
		r.copies = append(r.copies, q.seq)
	}
	m.growing++
	m.spend(1)
	r.queue.next++
	r.queue.count++
	r.queue.bytes += int64(en.size)
	m.charge(r, 1, int64(en.size))
	if at := en.due(); at != 0 {
		r.queue.expires(q.seq, at)
	}
	if r.openDebt() != nil {
		r.direct = r.direct.add(q.seq, q.seq+1)
		if r.addedIn != m.out.index {
			r.addedIn, r.added, r.addedBytes = m.out.index, 0, 0
		}
		r.added++
		r.addedBytes += int64(en.size)
	}
	m.val = en.append(m.val[:0])
	m.key = entryKey(m.key, r.session, q.seq)
	m.tx.Set(m.key, m.val)
	if r.connected() {
		r.queue.recent.add(q.seq, &en)
	}
	m.touch(r)
	m.noteOver(r)
	m.out.queued = append(m.out.queued, q)
}

// earlier returns the earlier of two times of which 0 is never.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// touch takes note that r's queue differs from its stored form.
func (m *Machine) touch(r *record) {
	if !r.queueDirty {
		r.queueDirty = true
		m.touched = append(m.touched, r)
	}
}

func (m *Machine) writeQueue(r *record) {
	if m.numbers[r.session] != r {
		return
	}
	r.queueDirty = false
	m.countWaiting(r)
	if m.groups[r.session] != nil {
		r.queue.forgetGaps()
	}
	m.val = r.queue.append(m.val[:0])
	m.tx.Set(cursorKey(m.key, r.session), m.val)
	if r.debtsDirty {
		r.debtsDirty = false
		if key := debtKey(m.key, r.session); len(r.debts) > 0 {
			m.tx.Set(key, r.debts.append(m.val[:0]))
		} else {
			m.tx.Delete(key)
		}
	}
}

// applySettle removes what the client has taken.
func (m *Machine) applySettle(c *event.Settle) error {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	q := &r.queue
	m.touch(r)
	q.sent = min(max(q.sent, c.Sent), q.next)
	q.maybe = max(q.maybe, q.sent)
	ready := r.sendable() // nothing beyond has been sent
	if below := min(c.Below, ready); below > q.below {
		m.remove(r, q.below, below, m.tellTaken)
		q.below = below
	}
	for _, seq := range c.Done {
		if seq >= q.below && seq < ready && !q.done.has(seq) {
			m.remove(r, seq, seq+1, m.tellTaken)
			q.over(seq, seq+1)
		}
	}
	for _, seq := range c.Received {
		if seq >= q.below && seq < ready && !q.done.has(seq) {
			if i, found := slices.BinarySearch(q.received, seq); !found {
				q.received = slices.Insert(q.received, i, seq)
			}
		}
	}
	q.normalize()
	m.payAhead(r)
	m.roomFor(r)
	return nil
}

// applyPassOver removes what the client was not to have.
func (m *Machine) applyPassOver(c *event.PassOver) error {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	q, ready := &r.queue, r.sendable()
	m.touch(r)
	for _, seq := range c.Entries {
		if seq >= q.below && seq < ready && !q.done.has(seq) {
			m.remove(r, seq, seq+1, m.passedOver)
			q.over(seq, seq+1)
		}
	}
	q.normalize()
	m.payAhead(r)
	m.roomFor(r)
	return nil
}

// normalize moves below past what is done and forgets what lies below it.
func (q *queue) normalize() {
	q.done, q.below = q.done.trim(q.below)
	q.recent.forget(q.below)
	q.received = slices.DeleteFunc(q.received, func(s uint64) bool { return s < q.below || q.done.has(s) })
	q.sent = max(q.sent, q.below)
	q.maybe = max(q.maybe, q.sent)
	for len(q.dues) > 0 && (q.dues[0].segment+1)*entriesPerDue <= q.below {
		q.dues = q.dues[1:]
	}
	if len(q.dues) == 0 {
		q.dues = nil
	}
}

// lost notes that r's connection has ended without telling how far it had come.
// As many entries as could be under way count as sent. What it had sent beyond
// them, after acknowledgements that the log has not heard of, nobody can tell:
// any entry there is may have been sent. So it is for one to whom a stream owes some of
// them still, as if it had them; but see firstUnsent.
func (m *Machine) lost(r *record) {
	q := &r.queue
	q.sent = max(q.sent, q.first(m.limits.window(r.recvMax)))
	q.maybe = q.next
	m.touch(r)
}

// firstUnsent returns the number from which on no copy was sent by a connection of r
// that has ended: also none that is behind what streams owe it still, whatever the
// queue says of it.
func (r *record) firstUnsent() uint64 { return min(r.queue.maybe, r.sendable()) }

// sendable returns the number before which r's client may have been sent what there
// is.
func (r *record) sendable() uint64 { return min(r.queue.next, r.ready()) }

// first returns the position after the first n entries that are not over.
func (q *queue) first(n uint64) uint64 {
	at := q.below
	for _, over := range q.done {
		if over.from-at >= n {
			break
		}
		n -= over.from - at
		at = over.to
	}
	return min(at+n, q.next)
}

// remove removes the entries from lower to below upper that there are, and tells
// tell of those whose profile wants to know. Those that this log entry has removed
// already are in the store still, and in done.
func (m *Machine) remove(r *record, lower, upper uint64, tell func(*record, *receipt)) {
	q := &r.queue
	if !q.recent.has(lower, upper) {
		m.removeRead(r, lower, upper, tell)
		return
	}
	for seq := lower; seq < upper; seq++ {
		if !q.done.has(seq) {
			m.key = entryKey(m.key, r.session, seq)
			m.removeEntry(r, m.key, q.recent.at(seq))
		}
	}
}

func (m *Machine) removeRead(r *record, lower, upper uint64, tell func(*record, *receipt)) {
	var settled []receipt
	m.store.Scan(entryKey(nil, r.session, lower), entryKey(nil, r.session, upper), func(key, value []byte) bool {
		if !r.queue.done.has(store.Uint64At(key, 9)) {
			e := mustEntry(value)
			if e.ref != "" {
				e.inline = slices.Clone(e.inline)
				settled = append(settled, receipt{store.Uint64At(key, 9), e})
			}
			m.removeEntry(r, key, e)
		}
		return true
	})
	for i := range settled {
		tell(r, &settled[i])
	}
}

func (m *Machine) removeEntry(r *record, key []byte, e entry) {
	m.tx.DeleteOnce(key)
	m.spend(1)
	if e.mark != "" {
		r.unmark(e.mark, store.Uint64At(key, 9))
	}
	if e.ref != "" {
		r.forgetRef(e.ref)
	}
	if e.group != 0 {
		r.forgetCopy(store.Uint64At(key, 9))
	}
	r.queue.count--
	r.queue.bytes -= int64(e.size)
	m.charge(r, -1, -int64(e.size))
	if e.body != 0 {
		m.unref(e.body)
	}
}

// purge removes entries of a session that has ended. What it was given as one of a
// group goes to others of that, but for what its client may have at QoS 2: those
// before unsent. after, if there is any, is the number of the last that a piece
// before has removed: to look from the first again would be to step over the remains
// of them all.
func (m *Machine) purge(session, unsent uint64, after []byte) {
	lower := store.AppendUint64(store.Key(nil, store.Queue), session)
	upper := store.End(lower)
	if len(after) > 0 {
		lower = entryKey(nil, session, store.Uint64At(after, 0)+1)
	}
	n, bytes, more, last := 0, uint64(0), false, uint64(0)
	m.store.Scan(lower, upper, func(key, value []byte) bool {
		if more = n == itemsPerWake || bytes > givenBytes || n > 0 && m.isSpent(); more {
			return false
		}
		n++
		last = store.Uint64At(key, 9)
		m.spend(1)
		m.tx.DeleteOnce(key)
		e := mustEntry(value)
		if e.group != 0 && (e.qos == 1 || store.Uint64At(key, 9) >= unsent) {
			bytes += e.size
			m.giveBack(&e, nil)
		}
		if e.body != 0 {
			m.unref(e.body)
		}
		return true
	})
	if more {
		m.setChore(wakePurge, session, unsent, last)
	}
}

// isOver says whether r's queue is past its bound. Of one that is away what streams
// owe it does not count for that, for nobody looks: see trimAway.
func (m *Machine) isOver(r *record) bool {
	if len(r.debts) > 0 && r.openDebt() == nil {
		events, bytes := r.owed()
		return r.queue.count+events > uint64(m.limits.QueueEvents) || r.queue.bytes+bytes > m.limits.QueueBytes
	}
	return r.queue.count > uint64(m.limits.QueueEvents) || r.queue.bytes > m.limits.QueueBytes
}

// noteOver puts r on the list of queues past their bound, if it is.
func (m *Machine) noteOver(r *record) {
	if !r.isOver && m.isOver(r) {
		r.isOver = true
		m.over = append(m.over, r)
	}
}

// trimPerEntry bounds how many events one entry drops from queues, beyond as
// many as the entry before has added to them.
const trimPerEntry = 4 << 10

// trim brings queues that passed their bound back within it: expired entries
// go first, then the oldest that are not under way. It runs before the next
// entry's commands, because entries of the Tx they were added by cannot be
// read; a queue is past its bound by at most one log entry, and never when
// somebody connects to it. It is for longer only if that entry made more of a
// queue too much than it added, as a lower bound does, or a large event: then it
// is trimmed in pieces, the oldest session first, and behind says that there is
// more to do. Together queues only become shorter meanwhile.
//
// A queue stays on the list for as long as it is past its bound, because all of
// it is under way: who is on it must follow from the state alone, or a node
// that has just read that would drop what the others do not. So must the order,
// and how much is dropped.
func (m *Machine) trim() (behind bool) {
	left := trimPerEntry + m.grown
	slices.SortFunc(m.over, func(a, b *record) int { return cmp.Compare(a.session, b.session) })
	m.over = slices.DeleteFunc(m.over, func(r *record) bool {
		there := m.numbers[r.session] == r
		if there && left > 0 && m.isOver(r) {
			left -= m.trimQueue(r, left)
			if g := m.groups[r.session]; g != nil {
				m.feedNow(g) // what waited behind what is gone
			}
		}
		r.isOver = there && m.isOver(r)
		return !r.isOver
	})
	m.keepDisplaced()
	return left <= 0 && len(m.over) > 0
}

// writeGrown keeps how many entries queues and streams have grown by, for the next
// trim: if there is one.
func (m *Machine) writeGrown() {
	before := m.grown
	if m.grown = m.growing; len(m.over) == 0 && len(m.streams.fat) == 0 {
		m.grown = 0
	}
	switch {
	case m.grown != 0:
		m.tx.Set(grownKey, binary.AppendUvarint(m.val[:0], uint64(m.grown)))
	case before != 0:
		m.tx.Delete(grownKey)
	}
}

// trimQueue drops what r has too much, but stops when that is most or a little
// more, and returns how much it was.
func (m *Machine) trimQueue(r *record, most int) (gone int) {
	m.touch(r)
	q := &r.queue
	before := q.dropped
	m.fold(r)
	m.settleFloors(r)
	more := func() bool { return m.tooMuch(r) && int(q.dropped-before) < most }
	first := max(q.sent, q.below)
	if r.connected() {
		first = max(first, q.first(m.limits.window(r.recvMax)))
	}
	for i := 0; i < len(q.dues) && more(); {
		if d := &q.dues[i]; d.at > m.now || !m.dropExpired(r, d, first) {
			i++
		} else {
			q.dues = slices.Delete(q.dues, i, i+1)
		}
	}
	if more() {
		m.dropOldest(r, first, more)
	}
	q.normalize()
	return int(q.dropped - before)
}

// dropExpired drops those entries of a segment that have expired and are not
// before first, and says whether none is left in it that will.
func (m *Machine) dropExpired(r *record, d *due, first uint64) (none bool) {
	d.at = 0
	from := d.segment * entriesPerDue
	m.dropWhere(r, from, min(from+entriesPerDue, r.queue.next), func(seq uint64, e *entry) (drop, stop bool) {
		at := e.due()
		if at == 0 || at <= m.now && seq >= first {
			return at != 0, false
		}
		d.at = earlier(d.at, at)
		return false, false
	})
	return d.at == 0
}

// dropWhere drops those of r's entries from from and below until for which judge
// says so, oldest first, until one says stop, and counts them.
func (m *Machine) dropWhere(r *record, from, until uint64, judge func(seq uint64, e *entry) (drop, stop bool)) {
	q := &r.queue
	var gone spans
	g := m.groups[r.session]
	m.store.Scan(entryKey(nil, r.session, from), entryKey(nil, r.session, until), func(key, value []byte) bool {
		e, seq := mustEntry(value), store.Uint64At(key, 9)
		if g != nil {
			gone, g = gone.add(from, seq), nil // of what was removed long ago nothing may be known: see spansKept
		}
		if q.done.has(seq) {
			return true // this entry has removed it, which the store does not show
		}
		drop, stop := judge(seq, &e)
		if stop {
			return false
		}
		if drop && e.group != 0 && m.displace(r, &e) {
			e.body = 0 // kept for another
			m.removeEntry(r, key, e)
			gone = gone.add(seq, seq+1)
		} else if drop {
			m.removeEntry(r, key, e)
			gone = gone.add(seq, seq+1)
			q.dropped++
			m.out.queueDropped++
		}
		return true
	})
	for _, s := range gone {
		q.over(s.from, s.to)
	}
}

// over notes that what has these numbers, up to before to, is not in the queue any
// more.
func (q *queue) over(from, to uint64) {
	q.done = q.done.add(from, to)
	if len(q.received) > 0 {
		q.received = slices.DeleteFunc(q.received, func(s uint64) bool { return s >= from && s < to })
	}
}

// A due says for a segment of a queue, entriesPerDue consecutive numbers, when
// the first of its entries expires, or an earlier time: entries that are removed
// do not move it. Dues are not stored; a queue has one only for segments in
// which something expires.
//
// They are there because a queue that is past its bound looks for what has
// expired again and again: without them it would read all of itself for each
// entry that expires.
type due struct {
	segment uint64
	at      int64
}

const entriesPerDue = 128

// expires notes that the entry seq, which is the newest, expires at at.
func (q *queue) expires(seq uint64, at int64) {
	segment := seq / entriesPerDue
	if n := len(q.dues); n > 0 && q.dues[n-1].segment == segment {
		q.dues[n-1].at = min(q.dues[n-1].at, at)
		return
	}
	q.dues = append(q.dues, due{segment, at})
}
