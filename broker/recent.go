package broker

// A recent is what the newest entries of a queue are charged for and refer to, so
// that they can be removed without being read: a client that keeps up takes what
// was queued a moment ago, and to look into the store for it cost a tenth of all
// that the Machine does.
//
// It follows from what the store has and may be short of it or empty: a session
// that is not connected has none, nor has one that is connected at a start until
// something is queued. Marks, and what a profile wants to hear about, are not in
// it, and what comes before them no longer.
type recent struct {
	from    uint64  // number of the first
	entries []brief // consecutive
}

type brief struct {
	body uint64 // 0: inline
	size uint64

	group uint64 // as an entry's
}

// recentMost bounds a recent, to 12 KiB: acknowledgements reach the log gathered, so
// that of a busy client are some hundreds. recentIdle is what one keeps when it is
// empty.
const (
	recentMost = 512
	recentIdle = 64
)

// add notes that e has become the newest entry, with the number seq.
func (t *recent) add(seq uint64, e *entry) {
	if e.mark != "" || e.ref != "" {
		t.entries = t.entries[:0]
		return
	}
	switch {
	case t.from+uint64(len(t.entries)) != seq:
		t.entries = t.entries[:0]
	case len(t.entries) == recentMost:
		t.drop(recentMost / 2)
	}
	if len(t.entries) == 0 {
		t.from = seq
	}
	t.entries = append(t.entries, brief{e.body, e.size, e.group})
}

// has says whether all from from on and below to are known.
func (t *recent) has(from, to uint64) bool {
	return t.from <= from && to <= t.from+uint64(len(t.entries))
}

// at returns what is known of an entry.
func (t *recent) at(seq uint64) entry {
	b := t.entries[seq-t.from]
	return entry{body: b.body, size: b.size, group: b.group}
}

// moved takes note that an entry refers to another body.
func (t *recent) moved(seq, body uint64) {
	if t.has(seq, seq+1) {
		t.entries[seq-t.from].body = body
	}
}

// forget drops those below seq.
func (t *recent) forget(seq uint64) {
	if seq > t.from {
		t.drop(min(seq-t.from, uint64(len(t.entries))))
	}
}

func (t *recent) drop(n uint64) {
	t.from += n
	t.entries = t.entries[:copy(t.entries, t.entries[n:])]
	if len(t.entries) == 0 && int(n) < cap(t.entries)/4 {
		t.entries = nil
	}
}
