package cluster

import (
	"errors"

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
	}
}
