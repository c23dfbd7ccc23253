package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// stewardTick is how often a node looks after the others.
const stewardTick = 200 * time.Millisecond

// trailing is how many entries a node may lack and still be given a vote.
const trailing = 250

// A steward looks after the cluster: on every node it keeps a connection for
// messages with each other, and ends those of nodes that were removed; on the leader it gives a vote to who has joined and
// proved stable, tells of who has gone, takes out who has been gone for very long,
// and raises the feature level when all know the next.
//
// What must hold: no change of membership is made by two leaders at once (Raft
// refuses), none makes the cluster lose its quorum, and none is made because the
// leader itself had been asleep, or the node has only just joined: the time in which a
// node is silent counts from when this node began to lead, or knew it as a member.
type steward struct {
	n      *Node
	since  time.Time                   // this node leads since; zero if it does not
	known  map[raft.ServerID]time.Time // since when others are members, as this reign knows
	stable map[raft.ServerID]time.Time
	told   map[raft.ServerID]time.Time // when Lost was last called
	levels leveler
}

func (n *Node) steward() {
	votes := &ballot{n: n, wait: n.cfg.Heartbeat}
	s := &steward{n: n, levels: leveler{n: n}, known: map[raft.ServerID]time.Time{}, stable: map[raft.ServerID]time.Time{}, told: map[raft.ServerID]time.Time{}}
	tick := time.NewTicker(stewardTick)
	defer tick.Stop()
	last, reviewed := n.real(), uint64(0)
	for {
		select {
		case <-n.leaving:
			return
		case <-tick.C:
		}
		votes.look()
		now := n.real()
		slept := now.Sub(last) > 5*stewardTick+n.cfg.Heartbeat
		last = now
		servers := n.servers()
		n.keepBook(servers)
		n.findMembers(servers)
		n.relays.reconcile(n.others(servers))
		if at := n.settledAt(); at != reviewed {
			reviewed = at
			n.links.mesh.Review()
		}
		if !n.proposer.isOpen() || slept {
			s.since = time.Time{} // what we know of others is as old as our sleep
			continue
		}
		if s.since.IsZero() {
			s.since = now
			clear(s.known)
			clear(s.stable)
			clear(s.told)
		}
		s.look(now, servers)
		s.levels.look(now)
	}
}

// keepBook forgets where nodes were that are no members any more.
func (n *Node) keepBook(servers []raft.Server) {
	if len(servers) > 0 {
		n.links.book.Keep(func(id string) bool {
			return id == string(n.id) || slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == id })
		})
	}
}

// findMembers asks another where the members are whose addresses this node does not
// know. Where somebody is is told when two nodes connect. So two that join one soon
// after the other may never be told of each other: the first is connected with all
// when the second comes, and the second forgets the first while it still replays the
// log of a time when that was no member. Without a leader they would not find each
// other any more.
func (n *Node) findMembers(servers []raft.Server) {
	unknown, asked := false, make([]string, 0, len(servers))
	for _, s := range servers {
		if s.ID == n.id {
			continue
		}
		if _, known := n.links.book.Find(string(s.ID)); known {
			asked = append(asked, string(s.ID))
		} else {
			unknown = true
		}
	}
	if !unknown || len(asked) == 0 || !n.finding.CompareAndSwap(false, true) {
		return
	}
	n.tasks.Go(func() { // the steward does not wait for it
		defer n.finding.Store(false)
		for _, id := range asked {
			if a, err := n.ask(id, question{Op: opState}, stewardTick); err == nil {
				n.links.book.Learn(a.Members...)
			}
		}
	})
}

// addresses returns where the members are, as far as this node knows.
func (n *Node) addresses() []link.Member {
	if n.links == nil {
		return nil
	}
	return n.links.book.Members()
}

// others returns who to keep a connection with. A node that has joined, and that no
// leader has reached yet, knows members only by what it was told as it joined: it
// lets all of them know where it is, for whoever took it in may be gone.
func (n *Node) others(servers []raft.Server) []raft.Server {
	if len(servers) > 0 {
		return servers
	}
	for _, m := range n.links.book.Members() {
		servers = append(servers, raft.Server{ID: raft.ServerID(m.ID)})
	}
	return servers
}

// look is the leader's round.
func (s *steward) look(now time.Time, servers []raft.Server) {
	n := s.n
	for _, server := range servers {
		if server.ID == n.id {
			continue
		}
		c := n.transport.contact(server.ID)
		heard := c.at
		if s.known[server.ID].IsZero() {
			s.known[server.ID] = now
		}
		if heard.Before(s.known[server.ID]) {
			heard = s.known[server.ID]
		}
		silent := now.Sub(heard)
		healthy := silent < n.cfg.lately() && c.at.After(s.since)
		if !healthy {
			delete(s.stable, server.ID)
		} else if s.stable[server.ID].IsZero() {
			s.stable[server.ID] = now
		}
		if silent < n.cfg.Gone {
			delete(s.told, server.ID)
		} else if n.cfg.Lost != nil && now.Sub(s.told[server.ID]) >= n.cfg.Gone {
			s.told[server.ID] = now
			name, _ := n.nameOf(string(server.ID))
			n.cfg.Logger.Warn("cluster: a node is silent", "node", name, "id", string(server.ID), "for", silent.Round(time.Millisecond).String())
			n.cfg.Lost(string(server.ID))
		}
		switch {
		case server.Suffrage == raft.Nonvoter && healthy:
			s.mature(now, server, c)
		case n.cfg.Dead > 0 && silent >= n.cfg.Dead:
			s.bury(server, silent)
		}
	}
}

// mature gives a vote to who has been stable long enough and has all but the
// newest entries.
func (s *steward) mature(now time.Time, server raft.Server, c contact) {
	n := s.n
	if n.wantsNoVote(string(server.ID)) {
		return
	}
	last, err := n.log.LastIndex()
	if err != nil || c.index == 0 || c.index+trailing < last || now.Sub(s.stable[server.ID]) < n.cfg.Stable {
		return
	}
	if !n.beginChange() {
		return
	}
	defer n.endChange()
	name, _ := n.nameOf(string(server.ID))
	if err := n.promote(server.ID); err != nil {
		n.cfg.Logger.Warn("cluster: no vote yet", "node", name, "err", err.Error())
		return
	}
	n.cfg.Logger.Info("cluster: a node has a vote", "node", name, "id", string(server.ID))
}

// bury takes out a node that has been silent for very long, unless too few would
// be left.
func (s *steward) bury(server raft.Server, silent time.Duration) {
	n := s.n
	if !n.beginChange() {
		return
	}
	defer n.endChange()
	name, _ := n.nameOf(string(server.ID))
	if err := n.remove(server.ID, false, fmt.Sprintf("the cluster, after %v of silence", silent.Round(time.Second))); err != nil {
		n.cfg.Logger.Warn("cluster: a dead node stays a member", "node", name, "err", err.Error())
		return
	}
	n.cfg.Logger.Warn("cluster: a dead node was taken out; it comes back with an empty data directory and --join", "node", name, "id", string(server.ID),
		"silent", silent.Round(time.Second).String())
}

// awaitReady closes ready when this node has applied what the leader had applied
// when it was asked.
func (n *Node) awaitReady() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	target := uint64(0)
	for {
		select {
		case <-n.leaving:
			return
		case <-n.ready: // it leads
			return
		case <-tick.C:
		}
		if target == 0 {
			_, leader := n.raft.LeaderWithID()
			if leader == "" || leader == n.id {
				continue
			}
			if a, err := n.ask(string(leader), question{Op: opIndex}, time.Second); err == nil && a.Error == "" {
				target = a.Index
			}
		}
		if target != 0 && n.Applied() >= target {
			n.readyOnce.Do(func() { close(n.ready) })
			return
		}
	}
}
