package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

var (
	// ErrRefused means that the cluster will not do what was asked: the text says
	// why, and what would help. Nothing has been changed.
	ErrRefused = errors.New("refused")

	errNotLeader = errors.New("no leader is known that could do this; try again")
)

// A Member is a node of the cluster as the others see it.
type Member struct {
	ID, Name, Address string
	Voter             bool
	Reader            bool // it was started without asking for a vote
	Leader            bool
	Self              bool

	// Reachable says whether it answers. What follows is of the moment at which
	// it did, or was asked.
	Reachable bool
	State     State
}

// A State is what a node says of itself.
type State struct {
	Role      string        `json:"role"`
	Term      uint64        `json:"term"`
	Applied   uint64        `json:"applied"`
	Committed uint64        `json:"committed"`
	Last      uint64        `json:"last"`
	PID       int           `json:"pid"`
	Silence   time.Duration `json:"silence"` // since it has heard from a leader
	Version   string        `json:"version"`
	Cluster   string        `json:"cluster,omitempty"` // the name of its cluster

	// Levels are those of the node. Of programs of the first level there are none.
	Levels Levels `json:"levels"`

	// Facts is what Config.Facts of the node's program returned.
	Facts json.RawMessage `json:"facts,omitempty"`
}

// State returns what this node says of itself.
func (n *Node) State() State {
	last, _ := n.log.LastIndex()
	state := State{
		Role: roleName(n.raft.State()), Term: n.raft.CurrentTerm(), Applied: n.Applied(),
		Committed: n.raft.CommitIndex(), Last: last, PID: n.cfg.PID, Silence: n.Silence(), Version: n.cfg.Version, Cluster: n.clusterName,
		Levels: n.levels(),
	}
	if n.cfg.Facts != nil {
		state.Facts = n.cfg.Facts()
	}
	return state
}

// Silence returns how long this node has not heard from a leader; 0 if it leads.
func (n *Node) Silence() time.Duration {
	if n.proposer.isOpen() {
		return 0
	}
	last := n.raft.LastContact()
	if last.IsZero() {
		last = n.since
	}
	return max(0, n.real().Sub(last))
}

// Member says whether the node with that id is one of the cluster, as far as this
// node knows.
func (n *Node) Member(node string) bool {
	return slices.ContainsFunc(n.servers(), func(s raft.Server) bool { return string(s.ID) == node })
}

// Members returns all nodes, ordered by name, and asks each how it is. Nodes that
// do not answer within patience are not Reachable.
func (n *Node) Members(patience time.Duration) []Member {
	_, leader := n.raft.LeaderWithID()
	servers := n.servers()
	all := make([]Member, len(servers))
	done := make(chan struct{}, len(servers))
	for i, s := range servers {
		m := &all[i]
		*m = Member{ID: string(s.ID), Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader, Self: s.ID == n.id}
		m.Name, m.Address = n.nameOf(m.ID)
		m.Reader = n.wantsNoVote(m.ID)
		if m.Self {
			m.Reachable, m.State = true, n.State()
			done <- struct{}{}
			continue
		}
		go func() {
			if a, err := n.ask(m.ID, question{Op: opState}, patience); err == nil && a.State != nil {
				m.Reachable, m.State = true, *a.State
			}
			done <- struct{}{}
		}()
	}
	for range servers {
		<-done
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Name returns what the node of an id is called; empty if that is not known.
func (n *Node) Name(id string) string {
	name, _ := n.nameOf(id)
	return name
}

func (n *Node) nameOf(id string) (name, address string) {
	if n.links == nil {
		return n.cfg.Dir.id.Name, ""
	}
	m, _ := n.links.book.Find(id)
	return m.Name, m.Address
}

// wantsNoVote says whether a node was started as a reader.
func (n *Node) wantsNoVote(id string) bool {
	if n.links == nil {
		return false
	}
	m, _ := n.links.book.Find(id)
	return m.Reader
}

// find returns the member that is called name, or has that id.
func (n *Node) find(name string) (raft.Server, error) {
	for _, s := range n.servers() {
		if called, _ := n.nameOf(string(s.ID)); called == name || string(s.ID) == name {
			return s, nil
		}
	}
	return raft.Server{}, fmt.Errorf("%w: there is no member called %q", ErrRefused, name)
}

// Remove takes a node out of the cluster for good, by name or id; the node is told by
// whom, if it can be. Unless forced, it refuses to when the rest would have no quorum
// of nodes that answer.
func (n *Node) Remove(ctx context.Context, name string, force bool, by string) error {
	s, err := n.find(name)
	if err != nil {
		return err
	}
	return n.request(ctx, question{Op: opRemove, ID: string(s.ID), Force: force, By: by})
}

// Promote gives a node a vote now, rather than when it has proved itself stable.
func (n *Node) Promote(ctx context.Context, name string) error {
	s, err := n.find(name)
	if err != nil {
		return err
	}
	return n.request(ctx, question{Op: opPromote, ID: string(s.ID)})
}

// Transfer has the node of that name lead; with an empty name, whichever is best.
func (n *Node) Transfer(ctx context.Context, name string) error {
	q := question{Op: opTransfer}
	if name != "" {
		s, err := n.find(name)
		if err != nil {
			return err
		}
		q.ID = string(s.ID)
	}
	return n.request(ctx, q)
}

// lead does what only the leader may.
func (n *Node) lead(q question) *response {
	var a response
	if !n.beginChange() {
		a.fail(errNotLeader)
		return &a
	}
	defer n.endChange()
	switch q.Op {
	case opJoin:
		var err error
		a.Index, err = n.takeIn(q.Member, q.Knows)
		a.fail(err)
		a.Members, a.Called = n.links.book.Members(), n.clusterName
	case opRemove:
		a.fail(n.remove(raft.ServerID(q.ID), q.Force, q.By))
	case opPromote:
		a.fail(n.promote(raft.ServerID(q.ID)))
	case opTransfer:
		a.fail(n.transfer(raft.ServerID(q.ID)))
	}
	return &a
}

// beginChange waits until no other change of the membership is under way: each
// judges by what the one before left. That may take as long as the network does. It
// says no when the node is closing; else endChange follows.
func (n *Node) beginChange() bool {
	select {
	case n.managing <- struct{}{}:
		return true
	case <-n.leaving:
		return false
	}
}

func (n *Node) endChange() { <-n.managing }

// takeIn makes m a member without a vote, and returns an index of the log at which it
// is one. knows is the newest level that it knows.
//
// Who is a member has not heard that it was taken in, and asks again. It is taken in
// again: the entry that did so may not be agreed, and the node believes what it hears.
func (n *Node) takeIn(m *link.Member, knows Level) (index uint64, err error) {
	if m == nil || !isUUID(m.ID) || m.Name == "" || m.Address == "" {
		return 0, fmt.Errorf("%w: who wants to join does not say who it is", ErrRefused)
	}
	again := n.Member(m.ID)
	for _, s := range n.servers() {
		if name, _ := n.nameOf(string(s.ID)); name == m.Name && !again {
			return 0, fmt.Errorf("%w: there is a node called %q, with another disk (%s): a disk that has forgotten its votes is another node. "+
				"Remove the old one first (bellwire cluster remove %s), or give this one another name", ErrRefused, m.Name, s.ID, m.Name)
		}
	}
	if in := n.cfg.Dir.Level(); max(knows, firstLevel) < in {
		return 0, fmt.Errorf("%w: node %q knows feature level %d, and this cluster is at %d: upgrade it, then have it join", ErrRefused, m.Name, max(knows, firstLevel), in)
	}
	if !again {
		n.cfg.Logger.Info("cluster: a node joins", "node", m.Name, "id", m.ID, "address", m.Address)
	}
	added := n.raft.AddNonvoter(raft.ServerID(m.ID), raft.ServerAddress(m.ID), 0, askTime)
	if err := added.Error(); err != nil {
		return 0, err
	}
	n.links.book.Learn(*m) // not before: the book holds members only
	return added.Index(), nil
}

// promote gives a node a vote.
func (n *Node) promote(id raft.ServerID) error {
	for _, s := range n.servers() {
		if s.ID != id {
			continue
		}
		if s.Suffrage == raft.Voter {
			return nil
		}
		return n.raft.AddVoter(id, raft.ServerAddress(id), 0, askTime).Error()
	}
	return fmt.Errorf("%w: it is no member", ErrRefused)
}

// remove takes a node out. by is who wants that, for people.
func (n *Node) remove(id raft.ServerID, force bool, by string) error {
	voters, up := 0, 0
	found := false
	for _, s := range n.servers() {
		found = found || s.ID == id
		if s.Suffrage != raft.Voter || s.ID == id {
			continue
		}
		voters++
		if s.ID == n.id || n.recently(s.ID) {
			up++
		}
	}
	name, _ := n.nameOf(string(id))
	switch {
	case !found:
		return fmt.Errorf("%w: it is no member", ErrRefused)
	case voters == 0:
		return fmt.Errorf("%w: node %s is the last voter", ErrRefused, name)
	case up <= voters/2 && !force:
		return fmt.Errorf("%w: node %s cannot be removed: the cluster would lose quorum (%d of %d voters up)", ErrRefused, name, up, voters)
	}
	if id == n.id {
		// Who is removed should not be who leads it out.
		if err := n.transfer(""); err != nil {
			return err
		}
		return errNotLeader
	}
	n.cfg.Logger.Info("cluster: a node is removed", "node", name, "id", string(id), "by", by)
	removed := n.raft.RemoveServer(id, 0, askTime)
	if err := removed.Error(); err != nil {
		return err
	}
	n.farewell(id, removed.Index(), by)
	return nil
}

// transfer hands the leadership over.
func (n *Node) transfer(id raft.ServerID) error {
	switch {
	case id == n.id:
		return nil
	case id == "":
		return n.raft.LeadershipTransfer().Error()
	}
	return n.raft.LeadershipTransferToServer(id, raft.ServerAddress(id)).Error()
}

// recently says whether a node has answered lately.
func (n *Node) recently(id raft.ServerID) bool {
	return n.real().Sub(n.transport.contact(id).at) < n.cfg.lately()
}
