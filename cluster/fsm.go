package cluster

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/raftlog"
	"github.com/bellwire/bellwire/disk"
)

// An fsm hands what Raft has committed to the Machine. Raft calls it from one
// goroutine.
type fsm struct {
	node    *Node
	machine Machine
	replay  uint64 // entries up to here were on this disk at the start
	stamp   int64  // of the newest entry in the Machine's state
	none    []any  // Raft wants a result for each entry; there are none

	applied   atomic.Uint64 // index
	entries   atomic.Uint64
	applyTime atomic.Int64
	trims     atomic.Uint64
	fresh     uint64 // bytes applied since the log was last trimmed
}

var _ raft.BatchingFSM = (*fsm)(nil)

func newFSM(n *Node, last uint64) *fsm {
	f := &fsm{node: n, machine: n.cfg.Machine, replay: last, stamp: n.cfg.Machine.Now()}
	durable, _, _, _ := f.machine.Durable()
	f.applied.Store(durable)
	return f
}

// ApplyBatch applies entries, and records configurations, which Raft hands to a
// batching FSM here and nowhere else.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	f.node.commitKnown(logs[len(logs)-1])
	for _, l := range logs {
		switch l.Type {
		case raft.LogCommand:
			f.command(l)
		case raft.LogConfiguration:
			f.machine.Configure(l.Index, l.Term, l.Data)
			f.node.settleEntry(l.Index, l.Data)
		}
		f.applied.Store(l.Index)
		f.fresh += uint64(len(l.Data))
	}
	f.node.log.SetFloor(f.stamp)
	if f.fresh >= f.node.trimEvery() {
		f.fresh = 0
		f.node.wakeTrim()
	}
	if len(f.none) < len(logs) {
		f.none = make([]any, len(logs))
	}
	return f.none[:len(logs)]
}

// Apply is ApplyBatch of one.
func (f *fsm) Apply(l *raft.Log) any {
	f.ApplyBatch([]*raft.Log{l})
	return nil
}

func (f *fsm) command(l *raft.Log) {
	stamp, batches, err := unpack(l.Data)
	if err != nil {
		disk.Die(f.node.cfg.Logger, f.node.cfg.Die, fmt.Sprintf(
			"cluster: entry %d: %v. If another node runs a later version, this one must be upgraded", l.Index, err))
	}
	f.stamp = max(f.stamp, stamp) // leaders see to it that it changes nothing: see logClock
	f.node.clock.seen(stamp, l.Index > f.replay)
	start := f.node.cfg.Now()
	f.machine.Apply(l.Index, l.Term, f.stamp, batches)
	f.applyTime.Add(int64(f.node.cfg.Now().Sub(start)))
	f.entries.Add(1)
}

func (f *fsm) addStats(s *Stats) {
	s.Applied = f.entries.Load()
	s.ApplyTime = time.Duration(f.applyTime.Load())
	s.Trims = f.trims.Load()
}

// Snapshot returns at once: what is to be done is done in Persist, beside Apply.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return (*fsmSnapshot)(f), nil }

// Restore replaces the Machine's state by a snapshot from another node.
func (f *fsm) Restore(r io.ReadCloser) error {
	m, err := f.node.snapshots.Restore(r)
	if err != nil {
		return err
	}
	f.applied.Store(m.Index)
	f.stamp = max(f.stamp, f.machine.Now())
	f.node.clock.restored(f.stamp)
	f.node.log.SetFloor(f.stamp)
	if err := f.node.settleState(); err != nil {
		return err
	}
	return f.node.snapshots.Reap()
}

// An fsmSnapshot is what Raft takes before it truncates the log. The Machine is
// its own snapshot; so all there is to do is to have it flush, and that only when
// the log has grown too large, or the disk is nearly full. Otherwise Raft may truncate what is durable
// already (raftlog sees to it that it does not truncate more).
type fsmSnapshot fsm

// Persist is called by Raft from another goroutine than Apply.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	local, ok := sink.(*raftlog.Sink)
	if !ok {
		return fmt.Errorf("cluster: a snapshot into a %T", sink)
	}
	if s.node.log.Bytes() > s.node.cfg.LogBytes || s.node.crowded.Load() {
		if err := s.machine.Flush(); err != nil {
			return err
		}
	}
	local.Flushed()
	return local.Close()
}

// Release is Raft's.
func (s *fsmSnapshot) Release() {}
