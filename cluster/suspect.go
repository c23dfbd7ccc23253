package cluster

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// When a leader's process ends, its connections do, within a fraction of what a
// heartbeat takes to be missed. A follower that notices may stand for election at
// once, if the leader is surely gone and no other node would be the better one:
//
//   - the leader's address refuses a connection: nobody listens there any more. A
//     host that is cut off does not refuse; that is left to Raft's time-outs.
//   - a majority of voters, this one included, say that they do not hear it either.
//   - none of them has more of the log than this node, or as much and a higher id:
//     two that stand together may both lose.
//
// Standing then skips the pre-vote, by Raft's own way to hand over (TimeoutNow).
// That is safe whatever we have got wrong: an election is. What it must not do is
// disturb a leader that is well, and the first two conditions see to that.

// suspectRounds is how often a node asks the others: they may not have noticed yet.
const (
	suspectRounds = 8
	suspectPause  = 10 * time.Millisecond
	suspectTime   = 100 * time.Millisecond // for one answer
)

// audible counts the connections by which others send this node heartbeats and
// entries.
type audible struct {
	mu   sync.Mutex
	open map[string]int
}

func (a *audible) add(id string, n int) (left int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[string]int{}
	}
	a.open[id] += n
	if left = a.open[id]; left == 0 {
		delete(a.open, id)
	}
	return left
}

func (a *audible) has(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open[id] > 0
}

// serveVoter serves a connection of Raft's, and asks itself, when the last from a
// node ends, whether that was the leader's end.
func (n *Node) serveVoter(c *link.Conn) {
	n.audible.add(c.Peer.ID, 1)
	n.transport.serve(c)
	if n.audible.add(c.Peer.ID, -1) > 0 || n.isLeaving() {
		return
	}
	if _, leader := n.raft.LeaderWithID(); string(leader) == c.Peer.ID && n.isVoter() {
		n.suspect(leader)
	}
}

func (n *Node) isLeaving() bool {
	select {
	case <-n.leaving:
		return true
	default:
		return false
	}
}

func (n *Node) isVoter() bool {
	for _, s := range n.servers() {
		if s.ID == n.id {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// suspect stands for election if the leader is gone and nobody would be better.
func (n *Node) suspect(leader raft.ServerID) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for range suspectRounds {
		select {
		case <-pause.C:
			pause.Reset(suspectPause)
		case <-n.leaving:
			return
		}
		if _, now := n.raft.LeaderWithID(); now != leader && now != "" || n.audible.has(string(leader)) {
			return // another leads, or it is back
		}
		conn, err := n.links.mesh.Dial(n.links.ctx, string(leader), planeControl)
		if err == nil {
			_ = conn.Close()
			return
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if n.mayStand(leader) {
			n.cfg.Logger.Info("cluster: the leader is gone; standing for election", "node", n.cfg.Dir.id.Name)
			if err := n.stand(); err != nil {
				n.cfg.Logger.Info("cluster: not standing for election", "err", err.Error())
			}
			return
		}
	}
}

// mayStand asks the other voters whether they hear leader, and how far they are.
func (n *Node) mayStand(leader raft.ServerID) bool {
	own, err := n.log.LastIndex()
	if err != nil {
		return false
	}
	voters := 0
	answers := make(chan bool, maxVoters) // true: it may be us
	asked := 0
	for _, s := range n.servers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == n.id || s.ID == leader || asked == cap(answers) {
			continue
		}
		asked++
		n.tasks.Go(func() {
			a, err := n.ask(string(s.ID), question{Op: opHears, ID: string(leader)}, suspectTime)
			better := err == nil && (a.Index > own || a.Index == own && string(s.ID) > string(n.id))
			answers <- err == nil && a.Error == "" && !a.Hears && !better
		})
	}
	yes := 1
	for range asked {
		if <-answers {
			yes++
		}
	}
	// Whoever could not be asked does not count, and whoever would be better, or
	// hears the leader, speaks against it.
	return asked > 0 && yes == asked+1 && yes > voters/2
}

// maxVoters is how many others are asked.
const maxVoters = 16
