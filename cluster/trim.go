package cluster

import (
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// trimStep is after how many bytes of entries, at most, the log is looked at for
// what can go.
const trimStep = 16 << 20

func (n *Node) trimEvery() uint64 { return min(trimStep, n.cfg.LogBytes/4) }

// wakeTrim has the log trimmed soon.
func (n *Node) wakeTrim() {
	select {
	case n.trim <- struct{}{}:
	default:
	}
}

// MakeRoom gives back what it can of a disk that is nearly full: what was applied is
// flushed, however small the log is yet, so that the log need not keep it, and tables of
// what is no more go. That takes some room first: no more than memtables hold. It returns
// at once.
func (n *Node) MakeRoom() {
	n.crowded.Store(true)
	n.wakeTrim()
}

// flushLog ends what MakeRoom began: what was truncated leaves the disk when the log's own
// memtables have been written.
func (n *Node) flushLog() {
	if err := n.db.Flush(); err != nil {
		n.cfg.Logger.Warn("the log was not flushed", "err", err)
	}
}

// trimLog truncates the log's head as it grows. It goes through Raft, as a snapshot,
// because Raft must know where its log begins.
func (n *Node) trimLog() {
	for {
		select {
		case <-n.stop:
			return
		case <-n.trim:
		}
		n.fsm.trims.Add(1)
		err := n.raft.Snapshot().Error()
		switch {
		case err == nil, errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrNothingNewToSnapshot):
		default:
			// Among them that a configuration has not been applied yet: the
			// next time will do.
			n.cfg.Logger.Warn("the log was not truncated", "err", err)
		}
		if n.crowded.Swap(false) && err == nil {
			n.flushLog()
		}
	}
}

// spare returns the index up to which the log need not be kept: the Machine would
// recover beyond it, and nobody else wants it. A follower that is there and lags, and
// one that is being sent a snapshot, want what follows what they have: without it
// they would be sent a snapshot again, and might never catch up with a busy cluster.
// That is granted as long as the log is within its bound.
func (n *Node) spare() uint64 {
	index, _, _, _ := n.cfg.Machine.Durable()
	if t := n.transport; t != nil && n.log.Bytes() <= n.cfg.LogBytes {
		index = min(index, t.wanted(n.cfg.lately()))
	}
	return index
}

// wanted returns the index after which those nodes want the log that are being sent a
// snapshot, or have answered lately.
func (t *transport) wanted(lately time.Duration) uint64 {
	index := uint64(math.MaxUint64)
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.sending {
		index = min(index, at)
	}
	for id, c := range t.heard {
		if _, sent := t.sending[id]; !sent && c.index > 0 && now.Sub(c.at) < lately {
			index = min(index, c.index)
		}
	}
	return index
}
