package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// Names of the stable values that are ours and not Raft's. Raft's begin with a
// capital letter.
const (
	nameBase      = "base"      // index, term: the last entry that was truncated
	nameInstalled = "installed" // index of the newest snapshot that came from elsewhere
	nameFloor     = "floor"     // a stamp that no truncated entry's exceeds
)

// A Log is the replicated log of one group: Raft's LogStore and StableStore.
//
// Entries are contiguous. They may be read by any goroutine; Raft writes from one
// at a time. StoreLogs, Set and SetUint64 return when their data is on the disk,
// or end the process.
type Log struct {
	db      *DB
	group   uint32
	durable func() uint64
	retain  uint64

	// writing holds one, and is taken by who changes the log, before mu, which
	// nobody holds while the disk works: who reads, or asks how far the log is,
	// does not wait for a disk that hangs. What follows is changed with both held,
	// and may be read with either.
	writing chan struct{}

	mu    sync.RWMutex
	first uint64 // oldest index held; 0 when empty
	last  uint64 // newest index held; 0 when empty
	end   uint64 // total of the newest entry
	start uint64 // total before the oldest one
	ring  *ring
	base  place  // of the last truncated entry, or what a snapshot stands for
	ghost uint64 // see GetLog; 0 when entries have been stored since

	stable map[string][]byte // all stable values; they are few and small
	vote   []byte            // a LastVoteTerm that waits for its LastVoteCand
	floor  int64             // see SetFloor; guarded by mu alone
	mark   *mark             // guarded by writing alone
}

// A place is where an entry stands in the log.
type place struct{ index, term uint64 }

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
	_ raft.StableStore       = (*Log)(nil)
)

// Log opens the log of one group, once for each DB.
//
// durable returns the last index that the group's state would still hold after a
// crash; entries above it are never truncated. retain is how many bytes of
// entries below it are kept nevertheless, for followers that lag.
func (db *DB) Log(group uint32, durable func() uint64, retain uint64) (*Log, error) {
	l := &Log{
		db: db, group: group, durable: durable, retain: retain,
		writing: make(chan struct{}, 1),
		ring:    newRing(db.opts.CacheEntries, db.opts.CacheBytes),
		stable:  map[string][]byte{},
	}
	if err := l.load(); err != nil {
		return nil, fmt.Errorf("raftlog: group %d: %w", group, err)
	}
	db.logs = append(db.logs, l)
	db.running.Store(true)
	return l, nil
}

// load reads what Open has checked.
func (l *Log) load() (err error) {
	ends, stable, err := loadGroup(l.db.pebble, l.group)
	if err != nil {
		return openError(err)
	}
	l.first, l.last, l.start, l.end = ends.first, ends.last, ends.start, ends.end
	l.stable = stable
	l.floor = int64(l.uint64(nameFloor))
	if v := l.stable[nameBase]; v != nil {
		l.base = place{binary.BigEndian.Uint64(v), binary.BigEndian.Uint64(v[8:])}
	}
	l.mark, err = openMark(l.db.opts.FS, markName(l.db.opts.FS, l.db.opts.Dir, l.group), l.progress(), func(err error) {
		l.db.die(fmt.Sprintf("raftlog: group %d: mark: %v", l.group, err))
	})
	return err
}

// write waits until nobody else changes the log; what it returns lets the next do so.
func (l *Log) write() (done func()) {
	l.writing <- struct{}{}
	return func() { <-l.writing }
}

// progress returns how far the log has come. Requires writing.
func (l *Log) progress() progress {
	return progress{index: l.last, term: l.uint64(nameTerm), vote: l.uint64(nameVoteTerm)}
}

// acknowledge moves the mark to where the log is, on the disk, now. Requires writing.
func (l *Log) acknowledge() {
	l.db.guard("mark", func() error { return l.mark.set(l.progress()) })
}

// IsMonotonic tells Raft that the log has no gaps, so that it removes what
// stands here when a snapshot takes its place.
func (l *Log) IsMonotonic() bool { return true }

// FirstIndex returns the oldest index held, 0 for none.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first, nil
}

// LastIndex returns the newest index held, 0 for none.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, nil
}

// Bytes returns the size of all entries held.
func (l *Log) Bytes() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.end - l.start
}

// GetLog reads one entry; its data is not changed afterwards by anybody. An entry
// that is not here is raft.ErrLogNotFound, with two exceptions that heal what
// Raft would otherwise never get out of, after a snapshot has taken the place of
// a log that went past it:
//
//   - the snapshot's own index is answered with its term. Raft asks for it when
//     the leader's next entries claim to follow it, and refuses them without.
//   - Raft still believes in the entries it has just had removed, and compares the
//     leader's with them. Each is answered with an entry of term 0, which
//     differs from every entry there is, so that Raft removes it again and
//     takes the leader's.
//
// Both are places and no entries: they are of a type that Raft panics on rather
// than apply it. Index 1 is never answered so, for it is the one place where Raft
// asks for an entry to send without having asked for the one before.
func (l *Log) GetLog(index uint64, e *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if index == 0 || index < l.first || index > l.last {
		switch {
		case index == l.base.index && index > 1:
			*e = raft.Log{Index: index, Term: l.base.term, Type: ghostType}
		case l.first == 0 && index > l.base.index && index <= l.ghost:
			*e = raft.Log{Index: index, Type: ghostType}
		default:
			return raft.ErrLogNotFound
		}
		return nil
	}
	if cached := l.ring.get(index); cached != nil {
		*e = *cached
		return nil
	}
	l.read(index, func(key, value []byte) error {
		_, err := getEntry(key, value, index, e)
		return err
	})
	return nil
}

// ghostType is no LogType of Raft's.
const ghostType raft.LogType = 0xff

// read calls do with the key and value of an entry that is held. An entry that
// cannot be read ends the process: Raft has been told that it is here.
func (l *Log) read(index uint64, do func(key, value []byte) error) {
	key := logKey(l.group, index)
	value, closer, err := l.db.pebble.Get(key[:])
	if err == nil {
		err = errors.Join(do(key[:], value), closer.Close())
	}
	if err != nil {
		l.db.die(fmt.Sprintf("raftlog: group %d: entry %d of %d to %d: %v", l.group, index, l.first, l.last, err))
	}
}

// StoreLog stores one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs appends entries, which follow each other and the last one, and
// returns when they are on the disk. Their data must not change any more.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	defer l.write()()
	last, total, next := l.last, l.end, l.last+1
	if last == 0 {
		next = entries[0].Index // after a snapshot, wherever that was
	}
	b := l.db.pebble.NewBatchWithSize(batchSize(entries))
	defer b.Close()
	before := total
	for _, e := range entries {
		if e.Index != next {
			return fmt.Errorf("raftlog: group %d: entry %d after %d would leave a gap", l.group, e.Index, next-1)
		}
		total += l.put(b, e, total)
		next++
	}
	l.db.commit(b)

	l.mu.Lock()
	if last == 0 {
		l.first, l.start, l.ghost = entries[0].Index, before, 0
	}
	l.last, l.end = next-1, total
	for _, e := range entries {
		l.ring.add(e)
	}
	l.mu.Unlock()
	l.acknowledge()
	return nil
}

// batchSize returns about how large a Pebble batch of entries is, so that it need
// not grow, and copy, while it is filled.
func batchSize(entries []*raft.Log) int {
	const header, perEntry = 32, 1 + 1 + logKeySize + 5
	size := header
	for _, e := range entries {
		size += perEntry + entrySize(e)
	}
	return size
}

// put encodes e straight into b and returns its size.
func (l *Log) put(b *pebble.Batch, e *raft.Log, total uint64) uint64 {
	key, size := logKey(l.group, e.Index), entrySize(e)
	op := b.SetDeferred(len(key), size)
	copy(op.Key, key[:])
	putEntry(op.Value, key[:], e, total+uint64(size))
	if err := op.Finish(); err != nil {
		l.db.die(fmt.Sprintf("raftlog: encode: %v", err)) // the batch is in memory: impossible
	}
	return uint64(size)
}
