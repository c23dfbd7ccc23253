package raftlog

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// DeleteRange removes the entries from lo to hi, both included, at one of the
// log's ends.
//
// Of a head that Raft no longer wants, what follows the state's durable index
// stays: it is all there is to recover it from. So do the newest retained bytes,
// because a follower that wants an entry which is gone costs a snapshot. Raft is
// content with less being removed, and asks again.
//
// A tail, and the whole log, is removed as asked: a leader has overruled it, or a
// snapshot has taken its place.
func (l *Log) DeleteRange(lo, hi uint64) error {
	durable := l.durable() // before writing: it is somebody else's lock
	defer l.write()()
	if l.first == 0 {
		return nil
	}
	lo, hi = max(lo, l.first), min(hi, l.last)
	switch {
	case lo > hi:
		return nil
	case hi == l.last:
		l.deleteTail(lo)
	case lo == l.first:
		l.deleteHead(min(hi, durable))
	default:
		return fmt.Errorf("raftlog: group %d: removing %d to %d of %d to %d would leave a gap", l.group, lo, hi, l.first, l.last)
	}
	return nil
}

// deleteHead removes the entries up to hi, which are durable, or fewer. Requires
// writing. What is removed is no longer read from before it goes.
func (l *Log) deleteHead(hi uint64) {
	hi = min(hi, l.retained()-1)
	if hi < l.first {
		return
	}
	var cut raft.Log
	var total uint64
	l.read(hi, func(key, value []byte) (err error) {
		total, err = getEntry(key, value, hi, &cut)
		return err
	})
	c := l.change()
	defer c.Close()
	l.deleteKeys(c.Batch, l.first, hi)
	c.putBase(place{hi, cut.Term})
	c.putUint64(nameFloor, uint64(l.Floor()))
	c.read(func() {
		l.ring.dropTo(hi)
		l.first, l.start = hi+1, total
	})
	// Not synced: after a crash the entries are merely there again.
	if err := c.Commit(pebble.NoSync); err != nil {
		l.db.die(fmt.Sprintf("raftlog: truncate: %v", err))
	}
}

// retained returns the index of the oldest entry that retention wants to keep:
// with those after it, it makes up the retained bytes. Requires writing.
func (l *Log) retained() uint64 {
	if l.end-l.start <= l.retain {
		return l.first
	}
	lo, hi := l.first, l.last // lo has at least retain bytes after its predecessor
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		var before uint64
		l.read(mid-1, func(_, value []byte) error {
			before = entryTotal(value)
			return nil
		})
		if l.end-before >= l.retain {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}

// deleteTail removes the entries from lo on. Requires writing. What is removed is
// no longer read from before it goes.
func (l *Log) deleteTail(lo uint64) {
	end := l.start
	if lo > l.first {
		l.read(lo-1, func(_, value []byte) error {
			end = entryTotal(value)
			return nil
		})
	}
	left := l.progress()
	left.index = 0
	if lo > l.first {
		left.index = lo - 1
	}
	l.db.guard("mark", func() error { return l.mark.reset(left) })
	b := l.db.pebble.NewBatch()
	defer b.Close()
	l.deleteKeys(b, lo, l.last)
	l.dropTail(lo, end)
	l.db.commit(b)
}

// dropTail has the entries from lo on no longer be read; end is the total of the
// one before. Requires writing.
func (l *Log) dropTail(lo, end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.dropFrom(lo)
	l.end = end
	if lo > l.first {
		l.last = lo - 1
		return
	}
	l.ghost = l.last
	l.first, l.last, l.start, l.end = 0, 0, 0, 0
}

func (l *Log) deleteKeys(b *pebble.Batch, lo, hi uint64) {
	from, to := logKey(l.group, lo), logKey(l.group, hi+1)
	if err := b.DeleteRange(from[:], to[:], nil); err != nil {
		l.db.die(fmt.Sprintf("raftlog: encode: %v", err)) // the batch is in memory: impossible
	}
}

// SetFloor remembers a stamp (see cluster) that no entry exceeds that may be
// truncated. It reaches the disk with the next truncation, which is when it is
// first needed.
func (l *Log) SetFloor(stamp int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor = max(l.floor, stamp)
}

// Floor returns what SetFloor remembered.
func (l *Log) Floor() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.floor
}

// Base returns the place of the last entry that was truncated, or that a
// snapshot stands for; zero for none.
func (l *Log) Base() (index, term uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.base.index, l.base.term
}

// Installed returns the index of the newest snapshot that came from another
// node, 0 for none.
func (l *Log) Installed() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.uint64(nameInstalled)
}

// install remembers, durably, that a snapshot from another node takes the place
// of the log up to index.
func (l *Log) install(index, term uint64) {
	defer l.write()()
	c := l.change()
	c.putUint64(nameInstalled, index)
	if index > l.base.index {
		c.putBase(place{index, term})
	}
	c.commit(nil)
}
