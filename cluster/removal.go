package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// A node that was removed learns it, so that it ends and says why, instead of looking
// for a leader for ever. It may learn it at once, from the leader that removed it; or
// when it dials another node, which refuses to talk with it: after it was cut off while
// it was removed, or was started later; or from its own log.
//
// What must hold is that no member takes itself for removed. A node's id is made with
// its data directory, and joins once: from the entry that takes it in (if its first
// tries were not answered, the last such entry) it is a member up to the one that
// removes it, and after that never again. So the proof is
//
//   - a configuration without the node, which is agreed: every node's log has the same
//     agreed entries, so whoever has one may tell, also if it lags, or was removed,
//   - at a higher index than that at which the node is known to have been a member.
//
// Everything else proves nothing: the newest configuration in a log, which may yet be
// replaced; one from before the node joined, as a node has that lags; a refusal
// without an index, as nodes of earlier versions give; and what somebody says who is
// not the node that was dialled, of this cluster, by its certificate.

// A Removal is how a node learned that it is no member any more.
type Removal struct {
	Index uint64 // of an agreed configuration without it
	By    string // who removed it, for people; empty if that is not known
	From  string // the node that told it; empty: its own log
}

// A settlement is an agreed configuration.
type settlement struct {
	index   uint64
	members map[raft.ServerID]bool
}

// membership is what a node knows of its being a member.
type membership struct {
	once    sync.Once
	over    chan struct{} // closed when it was removed
	removal Removal       // written before over is closed

	mu      sync.Mutex // guards the following
	settled settlement // the newest one that was applied here
	known   uint64     // it was a member at this index; 0 if that is not known of any

	// gone is who was removed by this node, as leader, and by whom: for those who ask.
	gone map[raft.ServerID]string
}

// mostGone bounds membership.gone. Who does not find itself there is told that it was
// removed all the same.
const mostGone = 64

// Removed returns a channel that is closed when this node knows that it was removed.
func (n *Node) Removed() <-chan struct{} { return n.membership.over }

// Removal returns how it learned that, once Removed is closed.
func (n *Node) Removal() Removal { return n.membership.removal }

// settle takes note of the agreed configuration at index, and says whether this node
// is in it.
func (n *Node) settle(index uint64, servers []raft.Server) (member bool) {
	s := settlement{index: index, members: map[raft.ServerID]bool{}}
	for _, server := range servers {
		s.members[server.ID] = true
	}
	m := &n.membership
	m.mu.Lock()
	m.settled = s
	if s.members[n.id] {
		m.known = max(m.known, index)
	}
	m.mu.Unlock()
	return s.members[n.id]
}

// settleEntry is settle for an entry of the log that is applied. If this node is not
// in it, the leader is telling it so, too, and who did it: that is waited for.
func (n *Node) settleEntry(index uint64, config []byte) {
	servers, err := decodeConfiguration(config)
	if err != nil || n.settle(index, servers) { // Raft has read it before
		return
	}
	n.tasks.Go(func() {
		select {
		case <-time.After(farewellTime / 4):
		case <-n.leaving:
		}
		n.judge(Removal{Index: index})
	})
}

// settleState is settle for the state as it is: before anything was applied to it, and
// after a snapshot has replaced it.
func (n *Node) settleState() error {
	_, _, config, index := n.cfg.Machine.Durable()
	if index == 0 {
		return nil
	}
	servers, err := decodeConfiguration(config)
	if err != nil {
		return fmt.Errorf("the state's configuration, of index %d: %w", index, err)
	}
	if !n.settle(index, servers) {
		n.judge(Removal{Index: index})
	}
	return nil
}

// settledAt returns the index of the newest agreed configuration.
func (n *Node) settledAt() uint64 {
	n.membership.mu.Lock()
	defer n.membership.mu.Unlock()
	return n.membership.settled.index
}

// decodeConfiguration is Raft's decoder, which panics on what it does not understand;
// here that is ErrDamaged.
func decodeConfiguration(config []byte) (servers []raft.Server, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return raft.DecodeConfiguration(config).Servers, nil
}

// judge takes r for true if it proves that this node was removed.
func (n *Node) judge(r Removal) {
	m := &n.membership
	m.mu.Lock()
	proved := m.known > 0 && r.Index > m.known
	m.mu.Unlock()
	if !proved || n.links == nil {
		return
	}
	m.once.Do(func() {
		m.removal = r
		close(m.over)
	})
}

// expelled returns what to tell a node that is no member of this one's newest
// configuration: with the proof, if there is an agreed one without it.
func (n *Node) expelled(peer link.Member) error {
	m := &n.membership
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &link.NoMember{Reason: fmt.Sprintf("node %q (%s) is no member of this cluster, or no longer: to have it join anew, clear its data directory", peer.Name, peer.ID)}
	if m.settled.index > 0 && !m.settled.members[raft.ServerID(peer.ID)] {
		e.Without, e.By = m.settled.index, m.gone[raft.ServerID(peer.ID)]
	}
	return e
}

// farewellTime is how long a node that was removed has for being told so by the leader.
// If it is not there it is told when it is.
const farewellTime = 2 * time.Second

// farewell tells a node that it was removed, agreed at index, and by whom. It returns
// at once.
func (n *Node) farewell(id raft.ServerID, index uint64, by string) {
	m := &n.membership
	m.mu.Lock()
	if m.gone == nil || len(m.gone) >= mostGone {
		m.gone = map[raft.ServerID]string{}
	}
	m.gone[id] = by
	m.mu.Unlock()
	n.tasks.Go(func() {
		_, _ = n.ask(string(id), question{Op: opRemoved, Index: index, By: by}, farewellTime)
	})
}

// removedBy is told by a member that this node was removed.
func (n *Node) removedBy(q question) error {
	if !n.Member(q.from.ID) {
		return fmt.Errorf("%w: node %q is no member", ErrRefused, q.from.Name)
	}
	n.judge(Removal{Index: q.Index, By: q.By, From: q.from.Name})
	return nil
}

// refusedBy looks whether a node's refusal is that this one was removed.
func (l *Links) refusedBy(err error) {
	r, ok := errors.AsType[*link.RefusedError](err)
	if n := l.node.Load(); ok && n != nil && r.Without > 0 {
		n.judge(Removal{Index: r.Without, By: r.RemovedBy, From: r.By})
	}
}

func (d *Dir) takenInFile() string { return d.fs.PathJoin(d.path, "taken-in") }

// takeIn notes, durably, at which index the node was taken in.
func (d *Dir) takeIn(index uint64) error {
	return d.fs.WriteFile(d.takenInFile(), []byte(strconv.FormatUint(index, 10)+"\n"))
}

// takenIn returns at which index the node was taken in; 0 for the founder of a
// cluster, and where a version has joined that did not note it.
func (d *Dir) takenIn() (uint64, error) {
	data, err := d.fs.ReadFile(d.takenInFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	index, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: taken-in: %w", ErrDamaged, err)
	}
	return index, nil
}
