package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/internal/logline"
)

// A founder whose disk was emptied, and that is started again by the same command (the
// unit file still says --bootstrap), would found a second cluster under its old name, at
// its old addresses: it would acknowledge what the other members never get. It cannot know
// by itself: there is no state, and nobody is named whom it could ask. But the members do.
// They go on dialling the node that they know by that name, at this address, at least
// every half second, and what they say first tells all that is needed: their cluster, the
// id they look for, and that this is the member by our name. So
//
//   - a founder does not serve before they have had the time to say so (Settle),
//   - when they say it, then or later (they were down, too), it is *contested*: it serves
//     no more, and does not again, for that is written down: what it may have
//     acknowledged meanwhile is on its disk, and people have to say what is to become of
//     it.
//
// What must hold is that nobody ends a node who could not harm it otherwise, and that no
// cluster ends in which others rely on each other. So it takes
//
//   - the proof of the link: a certificate of our authority for the name by which the
//     other calls itself, another than ours (without TLS, in a simulation, its word),
//   - that it looks for a member by our name with another id than ours, at our address,
//   - that its cluster is called as ours is, as far as both have names: who means to found
//     a second one beside the first gives it a name of its own,
//   - that nobody has joined us yet: our configuration is the first that there was.
//
// Who has a certificate of the authority could join us anyway, be given a vote, and stop
// us by leaving. A cluster that others have joined goes on, and says loudly what it was
// told: if it was founded anew because a majority lost its disks, the one that has not
// is the one to be removed. So does one that was restored or recovered, on purpose, while
// former members run: its configuration is not the first either.
//
// Elsewhere: etcd and Consul refuse a member whose id or name is known to the others; but
// they are told the others' addresses at each start. To ask for these here, too, would
// protect only those who give them.

// knockTime is how long a founder waits for members of another cluster that look for it:
// the longest pause between two tries of a caller, of which each member has several, and
// some more for a busy machine. A part of it goes by while the node starts.
const knockTime = 600 * time.Millisecond

// A ContestedError says that this node has founded a cluster, and that its name is that of
// a member of another one.
type ContestedError struct {
	Cluster string    `json:"cluster"`          // the other one's id
	Called  string    `json:"called,omitempty"` // its name, if it has one
	Member  string    `json:"member"`           // the id of the member by our name
	By      string    `json:"by"`               // the node that has told us, by name
	Address string    `json:"address"`          // where it is
	At      time.Time `json:"at"`
}

func (e *ContestedError) Error() string {
	return fmt.Sprintf("cluster %s has a member by this node's name, %s: node %q at %s looks for it here", e.Cluster, e.Member, e.By, e.Address)
}

// A founder is what Links know of their node's being one.
type founder struct {
	founded bool   // the node has founded its cluster, or does now
	fresh   bool   // it does now: nobody can have joined before there is a Node
	called  string // the cluster's name as the node was started; empty if it has none
	since   time.Time

	once   sync.Once
	over   chan struct{}   // closed when it is contested
	reason *ContestedError // written before over is closed
	told   logline.Budget
}

func newFounder(dir *Dir, now time.Time) *founder {
	return &founder{
		founded: !dir.id.Joined, fresh: !dir.id.Started, called: dir.clusterName(), since: now,
		over: make(chan struct{}), told: logline.Budget{Most: 1, Per: time.Minute},
	}
}

// Contested returns a channel that is closed when a member of another cluster has looked
// for one by this node's name here, and nobody has joined this node's own. It is not to
// serve any more. Links that are nil are not contested.
func (l *Links) Contested() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.founder.over
}

// Contest returns what was said, once Contested is closed.
func (l *Links) Contest() *ContestedError { return l.founder.reason }

// Settle returns when the node may serve: at once if others have joined it, or it them;
// else when the members of another cluster, if there are any, have had the time to look
// for it since Listen. It is to be called when the Node is ready.
//
// Errors: a *ContestedError, after which the node is to be closed; ctx's.
func (l *Links) Settle(ctx context.Context) error {
	n := l.node.Load()
	wait := knockTime - l.cfg.Now().Sub(l.founder.since)
	if n == nil || !l.founder.founded || !n.unjoined() {
		wait = 0
	}
	patience := time.NewTimer(max(wait, 0))
	defer patience.Stop()
	select {
	case <-l.founder.over:
	case <-patience.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-l.founder.over:
		return l.founder.reason
	default:
		return nil
	}
}

// sought is told that a node of another cluster looks for one by our name here.
func (l *Links) sought(s link.Seeker) {
	r := l.founder
	n := l.node.Load()
	switch {
	case !r.founded, r.called != "" && s.Called != "" && r.called != s.Called:
		return
	case !r.fresh && (n == nil || !n.isReady()):
		return // whether others have joined is not known yet; it looks again
	case n != nil && n.isReady() && !n.unjoined():
		if untold, ok := r.told.Take(l.cfg.Now()); ok {
			l.cfg.Logger.Error("cluster: two clusters have a node by this one's name: what one acknowledges the other does not have", "other", s.Cluster, "called", s.Called, "looked_for", s.Wanted,
				"by", s.Self.Name, "address", s.Self.Address, "untold", untold, "todo", "have that cluster's node removed (bellwire cluster remove, asked of a member of it), or that cluster ended, if this one is to be the one")
		}
		return
	}
	r.once.Do(func() {
		r.reason = &ContestedError{Cluster: s.Cluster, Called: s.Called, Member: s.Wanted, By: s.Self.Name, Address: s.Self.Address, At: l.cfg.Now().UTC()}
		if err := l.dir.contest(r.reason); err != nil {
			l.cfg.Logger.Warn("cluster: that this node is contested is not kept; each start finds out anew", "err", err.Error())
		}
		close(r.over)
	})
}

// elsewhere returns the cluster in which a node is that we have dialled, if it is another
// than ours.
func elsewhere(err error) string {
	if r, ok := errors.AsType[*link.RefusedError](err); ok {
		return r.Elsewhere
	}
	return ""
}

// firstIndex is that of the entry with which a cluster begins: its first configuration.
const firstIndex = 1

// unjoined says whether this node is alone in its cluster, and has been since it founded
// it: a restored one begins with a later configuration. It is known once the node is
// ready (isReady).
func (n *Node) unjoined() bool { return n.settledAt() == firstIndex && n.Only() }

func (n *Node) isReady() bool {
	select {
	case <-n.ready:
		return true
	default:
		return false
	}
}

func (d *Dir) contestedFile() string { return d.fs.PathJoin(d.path, "contested.json") }

// contest notes, durably, that the node is contested.
func (d *Dir) contest(e *ContestedError) error {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return d.fs.WriteFile(d.contestedFile(), append(data, '\n'))
}

// contested returns the *ContestedError that was noted, nil if none was.
func (d *Dir) contested() error {
	data, err := d.fs.ReadFile(d.contestedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var e ContestedError
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%w: contested.json: %w", ErrDamaged, err)
	}
	return &e
}
