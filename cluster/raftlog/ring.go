package raftlog

import "github.com/hashicorp/raft"

// A ring holds the newest entries, contiguous, so that what is being replicated
// and applied is not read back from the database. It is bounded by entries and
// by bytes, whichever is reached first; the oldest go. Not safe for concurrent
// use.
//
// Raft's own LogCache is emptied at every truncation, of the head as of the
// tail, just when followers are served from it. This one forgets only what is
// truncated.
type ring struct {
	slots []raft.Log // by index modulo len
	first uint64     // oldest index held; 0 when empty
	last  uint64
	bytes int
	limit int // of bytes
}

func newRing(entries, bytes int) *ring {
	return &ring{slots: make([]raft.Log, entries), limit: bytes}
}

// add appends e, whose data must never change. An entry that does not follow
// the last one starts the ring anew.
func (r *ring) add(e *raft.Log) {
	if r.first != 0 && e.Index != r.last+1 {
		r.clear()
	}
	if r.first != 0 && e.Index-r.first == uint64(len(r.slots)) {
		r.dropFirst()
	}
	if r.first == 0 {
		r.first = e.Index
	}
	*r.slot(e.Index) = *e
	r.last = e.Index
	r.bytes += entrySize(e)
	for r.bytes > r.limit && r.first != 0 {
		r.dropFirst()
	}
}

// get returns the entry at index, nil if it is not held.
func (r *ring) get(index uint64) *raft.Log {
	if r.first == 0 || index < r.first || index > r.last {
		return nil
	}
	return r.slot(index)
}

// dropTo forgets the entries up to and with index.
func (r *ring) dropTo(index uint64) {
	for r.first != 0 && r.first <= index {
		r.dropFirst()
	}
}

// dropFrom forgets the entries from index on.
func (r *ring) dropFrom(index uint64) {
	for r.first != 0 && r.last >= index {
		r.forget(r.last)
		r.last--
		if r.last < r.first {
			r.first, r.last = 0, 0
		}
	}
}

func (r *ring) clear() { r.dropTo(r.last) }

func (r *ring) dropFirst() {
	r.forget(r.first)
	r.first++
	if r.first > r.last {
		r.first, r.last = 0, 0
	}
}

func (r *ring) forget(index uint64) {
	r.bytes -= entrySize(r.slot(index))
	*r.slot(index) = raft.Log{} // let go of the data
}

func (r *ring) slot(index uint64) *raft.Log { return &r.slots[index%uint64(len(r.slots))] }
