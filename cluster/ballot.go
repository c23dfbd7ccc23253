package cluster

import "time"

// An election takes two syncs, one after the other: who stands writes down that it votes
// for itself, and then the others that they vote for it. Raft's candidate waits for that
// between one election time-out and two, and stands again, for a later term, in which the
// answers that come then count for nothing. So where a sync takes longer than that, on the
// disks of those that are left, nobody is ever elected, although a leader that there is
// goes on with the same disks: a busy disk costs the cluster nothing until the leader ends,
// and then all of it, for as long as it is busy.
//
// So the time-out grows with the terms that have gone by since the last leader's: twice as
// long in the second, and four times longer in each that follows, up to a bound. An
// election that is lost because two have stood costs little, and what takes seconds is
// waited for after three or four. It is the configured one again as soon as somebody
// leads. Terms are the measure because all who are there see the same, and because one
// that is cut off does not raise its own (pre-vote): it is as quick as ever when it is
// back.
//
// Rejected: a longer time-out for good (each lost election would cost it), and one that
// follows this node's own syncs (it is the other's that it waits for).

// mostBallots is how often the time-out is doubled: 0.3 s become 4.8 s, and Raft draws up
// to twice that.
const mostBallots = 4

// A ballot is for how long this node waits for votes. look is called by one goroutine.
type ballot struct {
	n    *Node
	term uint64 // of the last leader that was seen
	wait time.Duration
}

// ballotTime returns for how long to wait in the term that is so many after the last
// leader's.
func ballotTime(heartbeat time.Duration, terms uint64) time.Duration {
	if terms < 2 {
		return heartbeat
	}
	return heartbeat << min(2*min(terms, mostBallots)-3, mostBallots)
}

// look sees how elections go, and has Raft and the transport wait accordingly.
func (b *ballot) look() {
	n := b.n
	term := n.raft.CurrentTerm()
	if _, leader := n.raft.LeaderWithID(); leader != "" || b.term == 0 {
		b.term = term
	}
	wait := ballotTime(n.cfg.Heartbeat, term-min(b.term, term))
	if wait == b.wait {
		return
	}
	b.wait = wait
	c := n.raft.ReloadableConfig()
	c.ElectionTimeout = wait
	if err := n.raft.ReloadConfig(c); err != nil {
		n.cfg.Logger.Warn("cluster: elections wait no longer than before", "err", err.Error())
		return
	}
	n.transport.voting.Store(int64(2 * wait))
	if wait > n.cfg.Heartbeat {
		n.cfg.Logger.Warn("cluster: elections fail; votes are waited for longer", "node", n.cfg.Dir.id.Name, "term", term, "wait", wait.String())
	}
}
