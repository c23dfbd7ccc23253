package raftlog

import (
	"encoding/binary"
	"fmt"

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
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.db.pebble.NewBatch()
	defer b.Close()
	if string(key) == nameVoteCand && l.vote != nil {
		l.putStable(b, nameVoteTerm, l.vote)
		l.vote = nil
	}
	l.putStable(b, string(key), append([]byte(nil), value...))
	l.db.commit(b)
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

// uint64 returns a stable value that is a number. Requires mu.
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != 0 || l.base.index != 0 || l.uint64(nameTerm) != 0 {
		return fmt.Errorf("raftlog: group %d: bootstrapped already", l.group)
	}
	b := l.db.pebble.NewBatch()
	defer b.Close()
	first := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
	l.putUint64(b, nameTerm, 1)
	l.end = l.put(b, first, 0)
	l.db.commit(b)
	l.first, l.last = 1, 1
	l.ring.add(first)
	l.acknowledge()
	return nil
}

// Found begins the log of a cluster whose state there is already, restored from a
// backup up to index and term: the log follows it. All of it or nothing survives a
// crash. The log must be new.
func (l *Log) Found(index, term uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first != 0 || l.base.index != 0 || l.uint64(nameTerm) != 0 {
		return fmt.Errorf("raftlog: group %d: there is a log already", l.group)
	}
	b := l.db.pebble.NewBatch()
	defer b.Close()
	l.putUint64(b, nameTerm, term)
	l.putUint64(b, nameInstalled, index)
	l.putBase(b, place{index, term})
	l.db.commit(b)
	return nil
}

// putStable adds a value to b, and to what is read. Requires mu.
func (l *Log) putStable(b *pebble.Batch, name string, value []byte) {
	if err := b.Set(stableKey(l.group, name), value, nil); err != nil {
		l.db.die(fmt.Sprintf("raftlog: encode: %v", err)) // the batch is in memory: impossible
	}
	l.stable[name] = value
}

func (l *Log) putUint64(b *pebble.Batch, name string, n uint64) {
	l.putStable(b, name, binary.BigEndian.AppendUint64(nil, n))
}
