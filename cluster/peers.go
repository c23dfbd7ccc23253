package cluster

import (
	"time"

	"github.com/hashicorp/raft"
)

// A Peer is another node of the cluster as this one sees it, without asking it.
type Peer struct {
	ID, Name string
	Voter    bool

	// Silent is how long ago it answered anything that this node's Raft asked, or
	// since when this node runs if it never has. Only the leader asks regularly.
	Silent time.Duration

	// Lag is how many entries of this node's log the other is not known to have.
	// It is known on the leader.
	Lag   uint64
	Known bool
}

// Peers returns the other nodes.
func (n *Node) Peers() []Peer {
	last, _ := n.log.LastIndex() // it is in memory
	leads := n.proposer.isOpen()
	var all []Peer
	for _, s := range n.servers() {
		if s.ID == n.id {
			continue
		}
		c := n.transport.contact(s.ID)
		p := Peer{ID: string(s.ID), Voter: s.Suffrage == raft.Voter, Silent: n.real().Sub(n.since)}
		p.Name, _ = n.nameOf(p.ID)
		if !c.at.IsZero() {
			p.Silent = max(0, n.real().Sub(c.at))
		}
		if leads && c.index > 0 {
			p.Known, p.Lag = true, last-min(last, c.index)
		}
		all = append(all, p)
	}
	return all
}

// Refused returns how many connections to the cluster's port were not accepted.
func (l *Links) Refused() uint64 { return l.mesh.Refused() }
