package cluster

import (
	"context"
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
//     two that stand together may both lose. Who is writing has more in a moment.
//
// Standing then skips the pre-vote, by Raft's own way to hand over (TimeoutNow).
// That is safe whatever we have got wrong: an election is. What it must not do is
// disturb a leader that is well, and the first two conditions see to that, and that
// nobody is asked who follows another by then.
//
// All of that is asked again, with growing pauses, for as long as nobody leads: the
// others may not have noticed yet; a vote may be lost; and a process that ends still
// accepts connections for a moment, which it then resets. Raft's own time-outs are no
// better at it: who is first asks others who still believe in the leader, and refuse.

const (
	firstPause    = 10 * time.Millisecond
	longestPause  = 80 * time.Millisecond
	suspectBeats  = 4                      // heartbeats until it is left to Raft
	suspectAnswer = 250 * time.Millisecond // for one answer, and one try to reach the leader
	votingPause   = 150 * time.Millisecond // until an election is held to be lost
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
	over := time.NewTimer(suspectBeats * n.cfg.Heartbeat)
	defer over.Stop()
	replaced := func() bool {
		_, now := n.raft.LeaderWithID()
		return now != leader && now != "" || n.audible.has(string(leader))
	}
	for wait := firstPause; !replaced(); wait = min(2*wait, longestPause) {
		gone, sure := n.isGone(leader)
		if sure && !gone {
			return
		}
		pause := wait
		if gone && n.mayStand(leader) && !replaced() {
			n.cfg.Logger.Info("cluster: the leader is gone; standing for election", "node", n.cfg.Dir.id.Name)
			if err := n.stand(); err != nil {
				n.cfg.Logger.Info("cluster: not standing for election", "err", err.Error())
				return
			}
			pause = votingPause
		}
		select {
		case <-time.After(pause):
		case <-over.C:
			return
		case <-n.leaving:
			return
		}
	}
}

// isGone says whether nobody listens any more where the leader was. It is not sure
// when a connection breaks, as one does whose other end is being closed, or when
// there is no answer.
func (n *Node) isGone(leader raft.ServerID) (gone, sure bool) {
	ctx, cancel := context.WithTimeout(n.links.ctx, suspectAnswer)
	defer cancel()
	conn, err := n.links.mesh.Dial(ctx, string(leader), planeControl)
	if err == nil {
		return false, conn.Close() == nil
	}
	gone = errors.Is(err, syscall.ECONNREFUSED)
	return gone, gone
}

// hears answers whether this node hears another, which others believe to lead. An
// error means that whoever asks should not stand now.
func (n *Node) hears(id string) (hears bool, last uint64, err error) {
	if _, leader := n.raft.LeaderWithID(); leader != "" && string(leader) != id {
		return false, 0, errors.New("another leads")
	}
	if n.transport.writing.now() {
		return false, 0, errors.New("what the leader sent last is being written")
	}
	last, err = n.log.LastIndex()
	return n.audible.has(id), last, err
}

// mayStand asks the other voters whether they hear leader, and how far they are.
func (n *Node) mayStand(leader raft.ServerID) bool {
	own, err := n.log.LastIndex()
	if err != nil || n.transport.writing.now() {
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
			a, err := n.ask(string(s.ID), question{Op: opHears, ID: string(leader)}, suspectAnswer)
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
