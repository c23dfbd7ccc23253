package cluster

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/raftlog"
)

// Raft would have heartbeats handled beside its main loop, so that a follower whose
// disk is slow still counts as there. What it runs there is the same code as in the
// main loop, without a lock: a heartbeat of term 5 that meets the main loop as it
// begins to stand for term 6 sets the term back to 5, in which this node may then
// vote a second time. (Its stable store refuses that, and Raft panics.) So here
// heartbeats go through the main loop, as everything does (trap 31).
//
// While that loop waits for the disk, or for a snapshot, it can change neither role
// nor term, and a heartbeat is answered for it: yes, I follow you in that term. Raft
// itself does the rest when it is back: whoever has sent it entries or a snapshot
// was heard from.

// beatPause is how long a heartbeat waits for the main loop before it is looked
// whether that can answer at all.
const beatPause = 20 * time.Millisecond

// An occupation says whether Raft's main loop is away, and since which time it has
// not been back. It is odd while it is away.
type occupation struct{ n atomic.Uint64 }

func (o *occupation) begin() { o.n.Add(1) }
func (o *occupation) end()   { o.n.Add(1) }

// now says whether the main loop is away.
func (o *occupation) now() bool { return o.n.Load()%2 == 1 }

// during returns what look does, if the main loop was away before, after and in
// between, without a break.
func (o *occupation) during(look func() bool) bool {
	before := o.n.Load()
	return before%2 == 1 && look() && o.n.Load() == before
}

// A mainLog is the log as Raft's main loop writes to it; nobody else does, but to
// truncate.
type mainLog struct {
	*raftlog.Log
	away *occupation
}

// StoreLog is raft.LogStore's.
func (l mainLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs is raft.LogStore's.
func (l mainLog) StoreLogs(entries []*raft.Log) error {
	l.away.begin()
	defer l.away.end()
	return l.Log.StoreLogs(entries)
}

// heartbeat has Raft's main loop answer a heartbeat, or answers for it.
func (t *transport) heartbeat(a *raft.AppendEntriesRequest) (any, error) {
	answer := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: a, RespChan: answer}
	tick := time.NewTimer(beatPause)
	defer tick.Stop()
	for {
		select {
		case t.rpcs <- rpc:
			return t.await(answer)
		case <-t.done:
			return nil, errTransportClosed
		case <-tick.C:
			tick.Reset(beatPause)
		}
		following := func() bool { return t.following != nil && t.following(a.Term, string(a.ID)) }
		if t.writing.during(following) || t.installing.during(following) {
			return &raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: a.ProtocolVersion}, Term: a.Term, Success: true}, nil
		}
	}
}
