package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
)

// A Tx is the writes of one log entry: all of them happen or none. It does not
// show its own writes to readers. It belongs to one goroutine.
//
// It keeps its writes until Commit and hands them to the database in the order of
// their keys. An entry's events come in the order of the log and go to many
// sessions, so their keys jump from queue to queue, and for each the memtable
// would be searched from its top, at a cost of cache misses that is most of what a
// write costs. In order, each is found next to the one before.
//
// To sort single writes costs as much as it spares. But the writes of one queue
// come in order, and it is queues that have many: so writes are put into runs by
// the number in their key, and only the runs are sorted. Writes of one key, and
// those on either side of a DeleteRange, stay in the order they were made in.
type Tx struct {
	s *Store
	b *pebble.Batch

	data   []byte // keys and values of writes
	writes []write
	runs   []run
	index  map[runKey]int32 // of runs
	order  []int32          // scratch
}

type write struct {
	at         int    // of the key in data
	key, value uint32 // lengths
	next       int32  // of its run; -1 for none
	kind       pebble.InternalKeyKind
}

// A run is writes whose keys begin alike, in the order they were made in.
type run struct {
	runKey
	first, last int32
	mixed       bool // their keys are not ascending
}

// A runKey is what the keys of a run begin with: their first 9 bytes, which is the
// session's number in those of its queue, or the keyspace alone if they have no
// more than that, as bodies have. What DeleteOnce removes is a run of its own, or
// what is added to a queue and what is taken from it would be mixed; it comes after
// the writes of the same keys, as it must.
type runKey struct {
	number uint64
	space  byte
	once   bool
}

// Begin starts a Tx, to be ended by Commit or Discard.
func (s *Store) Begin() *Tx {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.spare.Swap(nil)
	if t == nil {
		t = &Tx{s: s, index: map[runKey]int32{}}
	}
	t.b = s.db.NewBatch()
	return t
}

// Set stores value under key. Both are copied.
func (t *Tx) Set(key, value []byte) { t.add(pebble.InternalKeyKindSet, key, value) }

// Delete removes key, which may have been set any number of times.
func (t *Tx) Delete(key []byte) { t.add(pebble.InternalKeyKindDelete, key, nil) }

// DeleteOnce removes a key that was set exactly once since it last did not
// exist: the two writes vanish together. For any other key the outcome is
// undefined, so it is for keys that hold a number never used again.
func (t *Tx) DeleteOnce(key []byte) { t.add(pebble.InternalKeyKindSingleDelete, key, nil) }

// DeleteRange removes all keys from lower on and below upper. Cheap once,
// poisonous by the thousand: for whole sessions and segments, not for items.
func (t *Tx) DeleteRange(lower, upper []byte) {
	t.flush()
	t.s.check("write", t.b.DeleteRange(lower, upper, nil))
}

func (t *Tx) add(kind pebble.InternalKeyKind, key, value []byte) {
	n := int32(len(t.writes))
	t.writes = append(t.writes, write{at: len(t.data), key: uint32(len(key)), value: uint32(len(value)), next: -1, kind: kind})
	t.data = append(append(t.data, key...), value...)

	k := runKey{space: key[0], once: kind == pebble.InternalKeyKindSingleDelete}
	if len(key) > 9 {
		k.number = binary.BigEndian.Uint64(key[1:])
	}
	i, there := t.index[k]
	if !there {
		t.index[k] = int32(len(t.runs))
		t.runs = append(t.runs, run{k, n, n, false})
		return
	}
	r := &t.runs[i]
	last := &t.writes[r.last]
	r.mixed = r.mixed || bytes.Compare(t.key(last), key) > 0
	last.next, r.last = n, n
}

// flush hands the writes there are to the batch.
func (t *Tx) flush() {
	slices.SortFunc(t.runs, func(a, b run) int {
		return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.number, b.number), compareBool(a.once, b.once))
	})
	for i := range t.runs {
		r := &t.runs[i]
		if r.mixed {
			t.sort(r)
		}
		for n := r.first; n >= 0; n = t.writes[n].next {
			t.write(&t.writes[n])
		}
	}
	t.forget()
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

// sort brings a run into the order of its keys.
func (t *Tx) sort(r *run) {
	all := t.order[:0]
	for n := r.first; n >= 0; n = t.writes[n].next {
		all = append(all, n)
	}
	slices.SortStableFunc(all, func(a, b int32) int { return bytes.Compare(t.key(&t.writes[a]), t.key(&t.writes[b])) })
	r.first = all[0]
	for i, n := range all[:len(all)-1] {
		t.writes[n].next = all[i+1]
	}
	t.writes[all[len(all)-1]].next = -1
	t.order = all
}

func (t *Tx) write(w *write) {
	key := t.key(w)
	switch w.kind {
	case pebble.InternalKeyKindSet:
		t.s.check("write", t.b.Set(key, t.data[w.at+int(w.key):][:w.value], nil))
	case pebble.InternalKeyKindDelete:
		t.s.check("write", t.b.Delete(key, nil))
	default:
		t.s.check("write", t.b.SingleDelete(key, nil))
	}
}

func (t *Tx) key(w *write) []byte { return t.data[w.at:][:w.key] }

func (t *Tx) forget() {
	t.data, t.writes, t.runs = t.data[:0], t.writes[:0], t.runs[:0]
	clear(t.index)
}

// Commit makes the writes visible. They are durable when Durable says so.
func (t *Tx) Commit() {
	t.flush()
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	t.s.check("commit", t.b.Commit(pebble.NoSync))
	t.end()
}

// Discard drops the writes.
func (t *Tx) Discard() {
	t.forget()
	t.end()
}

// What a Tx may keep for the next: memory in bytes, and runs. To empty their index
// takes as long as there have ever been runs in it, for each Tx after.
const (
	keepTx   = 4 << 20
	keepRuns = 8 << 10
)

func (t *Tx) end() {
	t.s.check("end", t.b.Close())
	t.b = nil
	if cap(t.data)+cap(t.writes)*int(unsafe.Sizeof(write{})) <= keepTx && cap(t.runs) <= keepRuns {
		t.s.spare.Store(t)
	}
}

// Key starts a key of space in buf[:0]; the functions below append to it.
func Key(buf []byte, space Space) []byte { return append(buf[:0], byte(space)) }

// AppendUint64 appends v so that keys sort by it.
func AppendUint64(key []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(key, v) }

// AppendUint16 appends v so that keys sort by it.
func AppendUint16(key []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(key, v) }

// AppendName appends v with its length in front, for names that other parts of
// the key follow.
func AppendName(key []byte, v string) []byte {
	return append(binary.BigEndian.AppendUint16(key, uint16(len(v))), v...)
}

// Uint64At reads what AppendUint64 wrote at offset i.
func Uint64At(key []byte, i int) uint64 { return binary.BigEndian.Uint64(key[i:]) }

// End returns the least key greater than all that begin with prefix.
func End(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
