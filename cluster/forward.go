package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// forward hands what waits on a node that does not lead to the leader, in the
// order of Submit. It ends when the node does.
//
// What is handed over is on its way until the leader says what became of it, or
// can no longer be asked; then it is unknown. That a batch may so be ordered twice,
// or before one that was submitted earlier and failed, is for the Machine to
// notice, by numbers in the batches: no link could rule it out.
func (n *Node) forward() {
	pause := 20 * time.Millisecond
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-n.leaving:
			return
		case <-n.forwarding:
		case <-retry.C:
		}
		for {
			changed := n.leadership.changed()
			leader := n.following()
			if leader == "" {
				break // whoever learns of one wakes us
			}
			if !n.handOver(leader, changed) {
				retry.Reset(pause)
				pause = min(2*pause, 500*time.Millisecond)
				break
			}
			pause = 20 * time.Millisecond
			if !n.proposer.hasForLeader() {
				break
			}
		}
	}
}

// wakeForward has forward look at what waits. It does not block.
func (n *Node) wakeForward() {
	select {
	case n.forwarding <- struct{}{}:
	default:
	}
}

// following returns the leader that this node follows; empty if it knows of none,
// or leads itself.
func (n *Node) following() raft.ServerID {
	_, leader := n.raft.LeaderWithID()
	if leader == n.id {
		return ""
	}
	return leader
}

// handOver sends one entry's worth of what waits to leader. It says no if the
// leader cannot be reached, or another leads: then it all still waits.
func (n *Node) handOver(leader raft.ServerID, changed <-chan struct{}) bool {
	c := n.transport.caller(leader, planeForward)
	s, err := c.connect(n.transport.patient, changed)
	if err != nil {
		return false
	}
	batches := n.proposer.takeForLeader()
	for i, p := range batches {
		if err := c.queue(s, frameBatch, [][]byte{p.batch}, func(kind byte, body []byte, err error) {
			n.proposer.settled(p, forwarded(kind, body, err))
		}); err != nil {
			for _, p := range batches[i:] {
				n.proposer.settled(p, ErrUnknown)
			}
			return true
		}
	}
	if err := s.conn.Flush(); err != nil {
		c.end(s, err)
	}
	return true
}

// forwarded says what a reply to a batch means.
func forwarded(kind byte, body []byte, err error) error {
	if err != nil || kind != frameReply || len(body) != 1 {
		return ErrUnknown
	}
	return outcomeError(body[0])
}

// watchLeader tells forward of each new leader, and gives up what is on its way to
// a former one: that one may be cut off, and would never say so.
func (n *Node) watchLeader(changes <-chan raft.Observation) {
	former := raft.ServerID("")
	for {
		select {
		case <-n.leaving:
			return
		case <-changes:
		}
		leader := n.following()
		if former != "" && former != leader {
			n.transport.caller(former, planeForward).drop(ErrUnknown)
		}
		if leader != "" && leader != former {
			name, _ := n.nameOf(string(leader))
			n.cfg.Logger.Info("following", "node", n.cfg.Dir.id.Name, "leader", name)
		}
		former = leader
		n.leadership.change()
		n.wakeForward()
	}
}

// commitKnown has the followers told at once of what is committed. They apply it
// then, rather than when the next entry comes, or after CommitTimeout (trap 7). Only
// an entry of the term in which this node leads is told of: what was said in that
// term stays true, whoever leads by the time that it arrives.
func (n *Node) commitKnown(newest *raft.Log) {
	if n.links != nil && n.proposer.term() == newest.Term {
		n.transport.push(newest.Index, newest.Term)
	}
}

// A signal is given to all who wait for it.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// changed returns a channel that is closed at the next change.
func (s *signal) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
