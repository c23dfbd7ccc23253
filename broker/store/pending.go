package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"
)

// A pending is what whole entries have written and the database has not been given
// yet. Most of what a busy broker writes is soon undone: an event is queued, and its
// client takes it a moment later; where a queue stands is written anew with each
// entry. In a memtable all of that costs a search with its cache misses, memory and a
// flush, and it was a third of all that a cluster did for an event. Here it costs the
// writing down.
//
// What must hold:
//
//   - The database is given whole entries, in one batch with all before them: what a
//     crash leaves is the state as of some entry, as ever. That it may be an earlier
//     one changes nothing, for there is no log of writes to the state: what was in a
//     memtable is lost to a crash just so, and Durable tells what was not.
//   - Whoever reads sees all that was committed. So the database is given everything
//     first if there is something in the keyspaces that are read (see Store.show).
//     Where each entry is read back nothing is gained, and nothing lost.
//   - The log can be truncated as the state becomes durable. What never gets to a
//     memtable does not fill one, so it is counted as if it had (see spared).
//
// The database is given writes in the order of their keys. An entry's events come in
// the order of the log and go to many sessions, so their keys jump from queue to
// queue, and for each the memtable would be searched from its top. In order, each is
// found next to the one before.
//
// To sort single writes costs as much as it spares. But the writes of one queue come
// in order, and it is queues that have many: so writes are put into runs by what their
// keys begin with, and only the runs are sorted. Writes of one key, and those on
// either side of a DeleteRange, stay in the order they were made in.
type pending struct {
	s      *Store
	spaces atomic.Uint64 // bit n: there are writes in keyspace n
	bytes  atomic.Int64  // what is kept takes, for who wonders

	mu     sync.Mutex // guards the following
	batch  *pebble.Batch
	data   []byte // keys and values of writes
	writes []kept
	runs   []run
	index  map[runKey]int32 // of runs
	dead   int              // bytes of what need not be written
	ranged bool             // there is a DeleteRange in batch
	order  []int32          // scratch

	// spared is what memtables would hold in bytes and do not, since the database was
	// last told to make durable what it has.
	spared uint64

	// Memory for when what is dead goes.
	data2   []byte
	writes2 []kept
}

// A kept is a write that is kept, and which is next in its run: -1 for none.
type kept struct {
	write
	next int32
	dead bool // it is undone by a later one
}

// A run is writes whose keys begin alike, in the order they were made in.
type run struct {
	runKey
	first, last int32
	head        int32 // all before are dead, or removed by none of the writes to come
	mixed       bool  // their keys are not ascending
}

// A runKey is what the keys of a run begin with: their first 9 bytes, which is the
// session's number in those of its queue. What DeleteOnce removes is a run of its own,
// or what is added to a queue and what is taken from it would be mixed; it comes after
// the writes of the same keys, as it must.
type runKey struct {
	number uint64 // the 8 bytes after the keyspace, or as many as there are and zeros
	space  byte
	once   bool
}

func runKeyOf(kind pebble.InternalKeyKind, key []byte) runKey {
	k := runKey{space: key[0], once: kind == pebble.InternalKeyKindSingleDelete}
	if len(key) >= 9 {
		k.number = binary.BigEndian.Uint64(key[1:])
	} else {
		var b [8]byte
		copy(b[:], key[1:])
		k.number = binary.BigEndian.Uint64(b[:])
	}
	return k
}

const (
	// pendingMost bounds what is kept, in bytes: what a node at its fastest queues in
	// the third of a second in which clients take it, twice. More than a memtable's
	// eighth it is not, to stay far from what the database calls a large batch.
	pendingMost = 8 << 20

	keptBytes = int(unsafe.Sizeof(kept{}))
	runBytes  = int(unsafe.Sizeof(run{})) + 2*int(unsafe.Sizeof(runKey{}))

	// nodeBytes is what a memtable takes for a write besides key and value, about.
	nodeBytes = 64

	// keepRuns is how many runs there may have been for their index to be used again:
	// to empty it takes as long as there have ever been runs in it.
	keepRuns = 8 << 10
)

func (p *pending) init(s *Store) {
	p.s, p.index = s, map[runKey]int32{}
}

// take takes over the writes of a Tx.
func (p *pending) take(t *Tx) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range t.writes {
		w := &t.writes[i]
		key, value := w.of(t.data)
		if w.kind == pebble.InternalKeyKindRangeDelete {
			p.deleteRange(key, value)
		} else {
			p.put(w.kind, key, value)
		}
	}
	switch {
	case p.ranged, p.spared >= p.s.o.MemTable:
		p.commit()
	case p.size() > p.most():
		if p.dead < p.size()/2 {
			p.commit()
		} else {
			p.bury()
		}
	}
	p.bytes.Store(int64(p.size()))
}

func (p *pending) size() int { return len(p.data) + len(p.writes)*keptBytes + len(p.runs)*runBytes }

func (p *pending) most() int { return min(pendingMost, int(p.s.o.MemTable/8)) }

func (p *pending) put(kind pebble.InternalKeyKind, key, value []byte) {
	k := runKeyOf(kind, key)
	if k.once && p.cancel(k, key) {
		p.spared += uint64(len(key) + nodeBytes)
		return
	}
	n := int32(len(p.writes))
	p.writes = append(p.writes, kept{write: write{at: len(p.data), key: uint32(len(key)), value: uint32(len(value)), kind: kind}, next: -1})
	p.data = append(append(p.data, key...), value...)
	i, there := p.index[k]
	if !there {
		p.index[k] = int32(len(p.runs))
		p.runs = append(p.runs, run{k, n, n, n, false})
		p.spaces.Or(spaceOf(key))
		return
	}
	r := &p.runs[i]
	last := &p.writes[r.last]
	switch c := bytes.Compare(p.key(last), key); {
	case c > 0:
		r.mixed = true
	case c == 0 && last.kind == pebble.InternalKeyKindSet && !last.dead:
		p.kill(last) // but not what deletes: the key may be there, and a DeleteOnce to come
	}
	last.next, r.last = n, n
}

// cancel has a DeleteOnce of key and what set it vanish together, and returns false
// if that is not here, or not easily found: then the database does it. Queues are
// taken from in their order mostly; what is found out of turn is not looked for again.
func (p *pending) cancel(k runKey, key []byte) bool {
	k.once = false
	i, there := p.index[k]
	if !there || p.runs[i].mixed {
		return false
	}
	for r := &p.runs[i]; r.head >= 0; r.head = p.writes[r.head].next {
		w := &p.writes[r.head]
		c := bytes.Compare(p.key(w), key)
		if w.dead || c < 0 {
			continue
		}
		if c > 0 || w.kind != pebble.InternalKeyKindSet {
			return false
		}
		p.kill(w) // there is no other of its key: it would follow, and have killed it
		return true
	}
	return false
}

func (p *pending) kill(w *kept) {
	w.dead = true
	n := int(w.key) + int(w.value)
	p.dead += n + keptBytes
	p.spared += uint64(n + nodeBytes)
}

// bury forgets the dead.
func (p *pending) bury() {
	if cap(p.data2) < cap(p.data) {
		p.data2, p.writes2 = make([]byte, 0, cap(p.data)), make([]kept, 0, cap(p.writes)) // it is going to be as much again
	}
	data, writes, runs := p.data2[:0], p.writes2[:0], p.runs[:0]
	p.clearIndex()
	for _, r := range p.runs {
		first, last := int32(-1), int32(-1)
		for n := r.first; n >= 0; n = p.writes[n].next {
			w := p.writes[n]
			if w.dead {
				continue
			}
			key, value := w.of(p.data)
			w.at, w.next = len(data), -1
			data = append(append(data, key...), value...)
			if m := int32(len(writes)); first < 0 {
				first, last = m, m
			} else {
				writes[last].next, last = m, m
			}
			writes = append(writes, w)
		}
		if first >= 0 {
			p.index[r.runKey] = int32(len(runs))
			runs = append(runs, run{r.runKey, first, last, first, r.mixed})
		}
	}
	p.data2, p.writes2 = p.data, p.writes
	p.data, p.writes, p.runs, p.dead = data, writes, runs, 0
}

func (p *pending) clearIndex() {
	if cap(p.runs) > keepRuns {
		p.index = map[runKey]int32{}
	} else {
		clear(p.index)
	}
}

// deleteRange hands over what was written before, and the DeleteRange after it. The
// batch is committed at the end of the entry.
func (p *pending) deleteRange(lower, upper []byte) {
	p.hand()
	p.ranged = true
	p.s.check("write", p.batch.DeleteRange(lower, upper, nil))
}

// commit gives the database everything there is. What readers may see already is
// given as a whole, at the end of an entry.
func (p *pending) commit() {
	if len(p.writes) > 0 {
		p.hand()
	}
	if p.batch == nil {
		return
	}
	p.s.check("commit", p.batch.Commit(pebble.NoSync))
	p.s.check("end", p.batch.Close())
	p.batch, p.ranged = nil, false
	p.spaces.Store(0)
	p.bytes.Store(0)
	if p.spared >= p.s.o.MemTable {
		p.spared = 0
		_, err := p.s.db.AsyncFlush()
		p.s.check("flush", err)
	}
}

// hand hands the writes there are to the batch.
func (p *pending) hand() {
	if p.batch == nil {
		p.batch = p.s.db.NewBatchWithSize(len(p.data) - p.dead + 16*len(p.writes) + 64)
	}
	slices.SortFunc(p.runs, func(a, b run) int {
		return cmp.Or(cmp.Compare(a.space, b.space), cmp.Compare(a.number, b.number), compareBool(a.once, b.once))
	})
	for i := range p.runs {
		r := &p.runs[i]
		if r.mixed {
			p.sort(r)
		}
		for n := r.first; n >= 0; n = p.writes[n].next {
			if w := &p.writes[n]; !w.dead {
				p.write(w)
			}
		}
	}
	p.forget()
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
func (p *pending) sort(r *run) {
	all := p.order[:0]
	for n := r.first; n >= 0; n = p.writes[n].next {
		all = append(all, n)
	}
	slices.SortStableFunc(all, func(a, b int32) int { return bytes.Compare(p.key(&p.writes[a]), p.key(&p.writes[b])) })
	r.first = all[0]
	for i, n := range all[:len(all)-1] {
		p.writes[n].next = all[i+1]
	}
	p.writes[all[len(all)-1]].next = -1
	p.order = all
}

func (p *pending) write(w *kept) {
	key, value := w.of(p.data)
	switch w.kind {
	case pebble.InternalKeyKindSet:
		p.s.check("write", p.batch.Set(key, value, nil))
	case pebble.InternalKeyKindDelete:
		p.s.check("write", p.batch.Delete(key, nil))
	default:
		p.s.check("write", p.batch.SingleDelete(key, nil))
	}
}

func (p *pending) key(w *kept) []byte { return p.data[w.at:][:w.key] }

// forget drops what is kept, and the memory that one large entry needed.
func (p *pending) forget() {
	p.clearIndex()
	if cap(p.data)+cap(p.writes)*keptBytes > 2*p.most() {
		p.data, p.writes, p.data2, p.writes2 = nil, nil, nil, nil
	}
	if cap(p.runs) > keepRuns {
		p.runs, p.order = nil, nil
	}
	p.data, p.writes, p.runs, p.dead = p.data[:0], p.writes[:0], p.runs[:0], 0
}

// drop forgets everything: the state is to be another.
func (p *pending) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	p.spaces.Store(0)
	p.bytes.Store(0)
	p.spared = 0
}

// show has everything that was committed be in the database, for who reads keys of
// the given keyspaces. Requires mu for reading.
func (s *Store) show(spaces uint64) {
	p := &s.pending
	if p.spaces.Load()&spaces == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commit()
}

// everything is all keyspaces.
const everything = ^uint64(0)

// spaceOf returns the keyspace of key. Those from 63 on, of which there are none, are
// one.
func spaceOf(key []byte) uint64 { return 1 << min(key[0], 63) }

// spacesOf returns the keyspaces of the keys from lower on and below upper, of which
// either may be empty: from the first on, or to the last.
func spacesOf(lower, upper []byte) uint64 {
	spaces := everything
	if len(lower) > 0 {
		spaces &= -spaceOf(lower)
	}
	switch {
	case len(upper) > 1:
		spaces &= spaceOf(upper)<<1 - 1
	case len(upper) == 1 && upper[0] <= 63:
		spaces &= spaceOf(upper) - 1
	}
	return spaces
}
