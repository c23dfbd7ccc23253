package broker

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// How bodies are kept: events that several entries of queues, or of streams, refer to.
//
// Nobody counts the references to one body. Bodies are numbered, and for each segment
// of 1,024 numbers memory holds how many entries refer into it (read anew at a start):
// when the last one goes, the segment does, by one range delete. So an entry costs no
// read-modify-write. Rejected: a counter per body (a read and a write for each of 1,000
// acknowledgements), a copy per session (the fan-out times the payload).
//
// A session that is away for weeks with one of each 1,024 bodies would keep them all.
// So the survivors of a segment that is *nearly empty* (no more references into it than
// an eighth of its numbers) are copied: each gets a new number, the entries that refer
// to it are written anew with that, and the segment, to which nothing refers any more,
// goes as any does. What bodies take is then at most eight for each entry that refers
// to one, and the segments that are being filled.
//
// Who refers to a body only a reading of all queues and streams can tell. That is done
// off the log's path, by the leader alone, now and then (see copier): it proposes a Copy,
// which names references. Nothing depends on whether it is right. The Machine looks up
// each reference, and what is no more, or refers elsewhere by now, it passes over; a
// segment goes when its own count says so, and not before. So a Copy that is late, comes
// twice, or leaves half of them out is a Copy that did less.
//
// What must hold:
//
//   - An entry that is written anew says the same but for the number, under the same key:
//     neither the session's bound, nor what its node knows of its queue, nor a packet id
//     has changed. The key was set once and is to be removed by DeleteOnce; so it is
//     deleted, and set once again.
//   - A Tx does not show its own writes, so a reference that was rewritten could not be
//     seen in the same entry of the log, and would be let go of twice. So an entry makes
//     its copies at its end, when all its commands are over: it reads what the entry
//     before has left, and passes over what memory says has gone since. It makes those
//     of one Copy.
//   - Copies of several Copies are many, and each lasts: that is why they were copied.
//     They fill segments of their own, with numbers from firstCopy on, or they would pin
//     the segments of what comes and goes, and be copied with each of these again.
//     Segments of copies that become nearly empty are treated like any.
//   - Who reads a queue outside the log (readQueue) reads an entry first, and its body
//     then, which may have moved in between. If it is not there the entry is read again:
//     it says where it is, or it is gone and the event is over.
//
// An entry of the log is bounded: copiedMost bodies and copiedBytes, one body more at
// the most, and referencesMost entries looked up. It is one Tx as any, so that a crash,
// or a copy of the state for another node, has all of it or nothing.
//
// Rejected: to write the event into each entry that refers to it (as many copies as
// references, and another form for entries of streams); to leave the numbers as they are
// and move survivors to keys of their own (no entry would be written anew; but then all
// references of a segment must be known to be in the Copy, and memory would count them
// body by body); to have the Machine look for references itself, on every node, with
// wakes (they would read all queues on the log's path).
type segment struct {
	live   int  // entries of queues and streams that refer to its bodies
	bodies bool // any was written and not yet removed
}

const (
	segmentBits      = 10
	bodiesPerSegment = 1 << segmentBits

	// firstCopy is before the first number of a copy. No event that was published
	// comes so far.
	firstCopy = 1 << 62

	// survivorsMost is how many references there may be into a segment whose bodies are
	// copied: to free seven costs at most one copy.
	survivorsMost = bodiesPerSegment / 8

	copiedMost     = 64
	copiedBytes    = 256 << 10
	referencesMost = 256
)

func (m *Machine) segmentOf(body uint64) uint64 { return body >> m.segmentBits }

func (m *Machine) segment(body uint64) *segment {
	s := m.segments[m.segmentOf(body)]
	if s == nil {
		s = new(segment)
		m.segments[m.segmentOf(body)] = s
	}
	return s
}

// unref takes note that an entry no longer refers to body.
func (m *Machine) unref(body uint64) {
	s := m.segment(body)
	s.live--
	m.reclaim(m.segmentOf(body))
}

// isFilling says whether bodies may yet be added to a segment.
func (m *Machine) isFilling(number uint64) bool {
	return number == m.segmentOf(m.counters.body) || number == m.segmentOf(firstCopy+m.copies)
}

// reclaim removes a segment that nobody refers to, unless bodies may yet be
// added to it.
func (m *Machine) reclaim(number uint64) {
	s := m.segments[number]
	if s == nil || s.live > 0 || m.isFilling(number) {
		return
	}
	if s.bodies {
		m.dropped = append(m.dropped, number)
	}
	delete(m.segments, number)
}

// dropSegments removes the bodies of the segments that this entry has reclaimed. Of
// neighbours it is one range: the store takes many at once badly.
func (m *Machine) dropSegments() {
	slices.Sort(m.dropped)
	for i := 0; i < len(m.dropped); {
		from := m.dropped[i]
		to := from + 1
		for i++; i < len(m.dropped) && m.noneBetween(to, m.dropped[i]); i++ {
			to = m.dropped[i] + 1
		}
		m.tx.DeleteRange(bodyKey(nil, from<<m.segmentBits), bodyKey(nil, to<<m.segmentBits))
	}
	m.dropped = m.dropped[:0]
}

// noneBetween says whether there is no segment from number from on and below to. It
// does not look far.
func (m *Machine) noneBetween(from, to uint64) bool {
	if to-from > 64 {
		return false
	}
	for ; from < to; from++ {
		if m.segments[from] != nil {
			return false
		}
	}
	return true
}

// storeBody stores e once for several entries and returns its number.
func (m *Machine) storeBody(e *event.Event) uint64 {
	m.counters.body++
	m.setBody(m.counters.body, e.Append(m.val[:0]))
	return m.counters.body
}

func (m *Machine) setBody(number uint64, data []byte) {
	m.segment(number).bodies = true
	if number&(1<<m.segmentBits-1) == 0 {
		m.reclaim(m.segmentOf(number) - 1) // it may have been kept only for being filled
	}
	m.tx.Set(bodyKey(m.key, number), data)
}

func bodyKey(buf []byte, number uint64) []byte {
	return store.AppendUint64(store.Key(buf, store.Bodies), number)
}

// isNearlyEmpty says whether the survivors of a segment are worth copying.
func (m *Machine) isNearlyEmpty(number uint64) bool {
	s := m.segments[number]
	return s != nil && s.live > 0 && s.live <= m.survivors && !m.isFilling(number)
}

// A sparse tells other goroutines which segments are nearly empty. To keep count of
// that with each entry that comes and goes would cost all of them; so the Machine looks
// when it was asked, after the next log entry.
type sparse struct {
	asked atomic.Bool
	found atomic.Pointer[[]uint64] // ascending; nil until the answer is there
}

// ask has the Machine look after the next log entry.
func (s *sparse) ask() {
	s.found.Store(nil)
	s.asked.Store(true)
}

// tellSparse answers, if it was asked. It runs after a commit.
func (m *Machine) tellSparse() {
	m.segmentsShown.Store(int64(len(m.segments)))
	if !m.sparse.asked.Load() {
		return
	}
	found := []uint64{}
	for number := range m.segments { // in any order: it is sorted
		if m.isNearlyEmpty(number) {
			found = append(found, number)
		}
	}
	slices.Sort(found)
	m.sparse.asked.Store(false)
	m.sparse.found.Store(&found)
}

// applyCopy has the log entry end with copies. One that does so already has as many as
// it may.
func (m *Machine) applyCopy(c *event.Copy) {
	if m.level >= LevelStreams && m.copying == nil {
		m.copying, m.copyUnit = c, m.unit
	}
}

// copyBodies makes the copies that this entry ends with.
func (m *Machine) copyBodies() {
	if m.copying == nil {
		return
	}
	m.unit, m.kind = m.copyUnit, event.KindCopy // if it panics, without it
	copies, bytes := map[uint64]uint64{}, 0
	var last event.Reference
	for i, ref := range m.copying.Of[:min(len(m.copying.Of), referencesMost)] {
		if i > 0 && compareReferences(last, ref) >= 0 {
			continue // once each: the first time cannot be seen
		}
		last = ref
		x, ok := m.referrer(ref)
		if !ok || !m.isNearlyEmpty(m.segmentOf(x.body())) {
			continue
		}
		old := x.body()
		to, there := copies[old]
		if !there {
			if len(copies) >= copiedMost || bytes >= copiedBytes {
				continue
			}
			var size int
			to, size = m.copyBody(old)
			copies[old] = to
			bytes += size
		}
		m.segment(to).live++
		x.refer(m, to)
		m.unref(old)
	}
	if len(copies) > 0 {
		m.tx.Set(copiesKey, binary.AppendUvarint(m.val[:0], m.copies))
	}
	m.out.copied += uint64(len(copies))
	m.out.copiedBytes += uint64(bytes)
	m.unit = 0
}

// compareReferences orders references: those of queues, then those of streams.
func compareReferences(a, b event.Reference) int {
	return cmp.Or(compareBool(a.Stream, b.Stream), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.At, b.At))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// copyBody stores a body under a new number, which it returns.
func (m *Machine) copyBody(number uint64) (to uint64, size int) {
	data, ok := m.store.Get(bodyKey(m.key, number), m.body)
	if !ok {
		panic(fatal{"the body of an entry is gone"})
	}
	m.body = data
	m.copies++
	to = firstCopy + m.copies
	m.setBody(to, data)
	return to, len(data)
}

// A referrer is an entry that refers to a body: of a queue, or of a stream.
type referrer struct {
	key  []byte
	of   *record // nil if it is a stream's
	seq  uint64
	en   entry
	item streamed
}

// referrer returns the entry that ref names, as the log entry before has left it; ok is
// false if it is gone since, or refers to no body.
func (m *Machine) referrer(ref event.Reference) (x referrer, ok bool) {
	if ref.Stream {
		s := m.streams.byID[ref.Owner]
		if s == nil || ref.At < s.first {
			return x, false
		}
		x.key = streamKey(nil, s.id, ref.At)
		value, ok := m.store.Get(x.key, nil)
		if ok {
			x.item = mustStreamed(value)
		}
		return x, ok
	}
	r := m.numbers[ref.Owner]
	if r == nil || ref.At < r.queue.below || r.queue.done.has(ref.At) {
		return x, false
	}
	x.of, x.seq, x.key = r, ref.At, entryKey(nil, r.session, ref.At)
	value, ok := m.store.Get(x.key, nil)
	if ok {
		x.en = mustEntry(value)
	}
	return x, ok && x.en.body != 0
}

func (x *referrer) body() uint64 {
	if x.of == nil {
		return x.item.body
	}
	return x.en.body
}

// refer has the entry refer to another body.
func (x *referrer) refer(m *Machine, body uint64) {
	m.tx.Delete(x.key) // or a DeleteOnce would meet two writes
	if x.of == nil {
		x.item.body = body
		m.tx.Set(x.key, x.item.append(m.val[:0]))
		return
	}
	x.en.body = body
	m.tx.Set(x.key, x.en.append(m.val[:0]))
	x.of.queue.recent.moved(x.seq, body)
}

// bodyOf returns the body that an entry of a session's queue refers to; ok is false if
// the entry is gone. The body may have been copied since the entry was read, and be
// gone from where it was: then that is read again.
func (b *Broker) bodyOf(session uint64, it *queueItem) (body []byte, ok bool) {
	for at := it.body; ; {
		if body, ok = b.machine.store.Get(bodyKey(nil, at), nil); ok {
			return body, true
		}
		value, there := b.machine.store.Get(entryKey(nil, session, it.seq), nil)
		if !there {
			return nil, false
		}
		next := mustEntry(value).body
		if next == at { // it goes with the last entry that refers to it, in one transaction
			panic(fatal{"the body of a queue entry is gone"})
		}
		at = next
	}
}
