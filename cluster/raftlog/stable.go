package raftlog

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
)

// Raft's own names.
const (
	nameTerm     = "CurrentTerm"
	nameVoteTerm = "LastVoteTerm"
	nameVoteCand = "LastVoteCand"
)

// Set stores a value durably. LastVoteCand takes with it the LastVoteTerm that
// Raft stored just before.
//
// Raft writes a vote in two steps, the term and then the candidate, and grants a
// candidate's second request for the same term without looking at its log. A
// crash between the two would leave the new term with the old candidate, and that
// candidate would be given a vote that was never cast. So the two are one commit.
func (l *Log) Set(key, value []byte) error {
	defer l.write()()
	c := l.change()
	vote := l.vote
	if string(key) == nameVoteCand && vote != nil {
		c.put(nameVoteTerm, vote)
		vote = nil
	}
	c.put(string(key), append([]byte(nil), value...))
	c.commit(func() { l.vote = vote })
	l.acknowledge()
	return nil
}

// Get returns a value, nil if there is none.
func (l *Log) Get(key []byte) ([]byte, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return append([]byte(nil), l.stable[string(key)]...), nil
}

// SetUint64 stores a number durably, but for LastVoteTerm, which waits for its
// candidate and until then reads as before. A current term that runs back is
// refused, which makes Raft panic.
func (l *Log) SetUint64(key []byte, n uint64) error {
	switch string(key) {
	case nameVoteTerm:
		defer l.write()()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.vote = binary.BigEndian.AppendUint64(nil, n)
		return nil
	case nameTerm:
		if now, _ := l.GetUint64(key); n < now {
			return fmt.Errorf("raftlog: group %d: term %d after term %d", l.group, n, now)
		}
	}
	return l.Set(key, binary.BigEndian.AppendUint64(nil, n))
}

// GetUint64 returns a number, 0 if there is none.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if v := l.stable[string(key)]; len(v) != 0 && len(v) != 8 {
		return 0, fmt.Errorf("raftlog: group %d: %s has %d bytes, want 8", l.group, key, len(v))
	}
	return l.uint64(string(key)), nil
}

// uint64 returns a stable value that is a number. Requires writing or mu.
func (l *Log) uint64(name string) uint64 {
	if v := l.stable[name]; len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// Bootstrap begins the log of a new cluster: term 1, and a first entry with its
// configuration. Both or neither survive a crash; Raft's own way is two commits,
// and between them a node that can neither start nor be bootstrapped again.
func (l *Log) Bootstrap(c raft.Configuration) error {
	defer l.write()()
	if l.first != 0 || l.base.index != 0 || l.uint64(nameTerm) != 0 {
		return fmt.Errorf("raftlog: group %d: bootstrapped already", l.group)
	}
	begin := l.change()
	first := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
	begin.putUint64(nameTerm, 1)
	end := l.put(begin.Batch, first, 0)
	begin.commit(func() {
		l.first, l.last, l.end = 1, 1, end
		l.ring.add(first)
	})
	l.acknowledge()
	return nil
}

// Found begins the log of a cluster whose state there is already, restored from a
// backup up to index and term: the log follows it. All of it or nothing survives a
// crash. The log must be new.
func (l *Log) Found(index, term uint64) error {
	defer l.write()()
	if l.first != 0 || l.base.index != 0 || l.uint64(nameTerm) != 0 {
		return fmt.Errorf("raftlog: group %d: there is a log already", l.group)
	}
	c := l.change()
	c.putUint64(nameTerm, term)
	c.putUint64(nameInstalled, index)
	c.putBase(place{index, term})
	c.commit(nil)
	return nil
}

// A change is a batch, and the stable values that it brings: they are read when it
// is on the disk.
type change struct {
	*pebble.Batch
	l      *Log
	stable map[string][]byte
	base   place // zero: as before
}

// change begins one, which must be committed. Requires writing.
func (l *Log) change() *change {
	return &change{Batch: l.db.pebble.NewBatch(), l: l, stable: map[string][]byte{}}
}

// put adds a value.
func (c *change) put(name string, value []byte) {
	if err := c.Set(stableKey(c.l.group, name), value, nil); err != nil {
		c.l.db.die(fmt.Sprintf("raftlog: encode: %v", err)) // the batch is in memory: impossible
	}
	c.stable[name] = value
}

func (c *change) putUint64(name string, n uint64) {
	c.put(name, binary.BigEndian.AppendUint64(nil, n))
}

func (c *change) putBase(p place) {
	value := binary.BigEndian.AppendUint64(nil, p.index)
	c.put(nameBase, binary.BigEndian.AppendUint64(value, p.term))
	c.base = p
}

// commit returns when the change is on the disk and is read. also, which may be
// nil, changes what else is read, with it.
func (c *change) commit(also func()) {
	c.l.db.commit(c.Batch)
	c.read(also)
	_ = c.Close() // a batch that is committed has nothing to lose
}

// read has the change be read.
func (c *change) read(also func()) {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	maps.Copy(c.l.stable, c.stable)
	if c.base != (place{}) {
		c.l.base = c.base
	}
	if also != nil {
		also()
	}
}
