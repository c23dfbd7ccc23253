package main

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/cluster"
)

// leaveTime is how long a node that may not serve any more has for telling its clients, and for
// answers that are under way. The clients' sessions are the others' by then, and
// nothing that this node knows can be ordered any more.
const leaveTime = 2 * time.Second

// sentAway is how many clients a second are sent away by such a node: all at once, for it
// can do nothing for them.
const sentAway = 1 << 30

// takenOut is why a node ends that was removed from its cluster.
func (s *server) takenOut() error {
	r, id := s.node.Removal(), s.dir.Identity()
	name, _ := s.dir.ClusterName() // without one it is known by its id
	by, from := "", "its own log says so"
	if r.By != "" {
		by = " by " + r.By
	}
	if r.From != "" {
		from = "node " + r.From + " says so"
	}
	s.config.logger.Error("this node was removed from its cluster", "node", id.Name, "id", id.Node, "cluster", id.Cluster, "by", r.By, "told_by", r.From, "index", r.Index)
	f := fail(bw.NodeRemoved, "node %s was removed from cluster %s%s: %s", id.Name, clusterTitle(name, id.Cluster), by, from)
	how := "--join ADDR of a member"
	if s.config.bootstrap {
		how += " in place of --bootstrap"
	}
	return f.do("to have it join anew, move %s away, or give another --data, and start it with %s; bellwire cluster join %s, asked of a member, prints the commands", s.config.dir, how, id.Name)
}

// contested is why a node ends that has founded a cluster, and whose name another one
// has: see cluster/founder.go.
func (s *server) contested(e *cluster.ContestedError) error {
	id := s.dir.Identity()
	own, _ := s.dir.ClusterName()
	other := e.Called
	if other == "" {
		other = own // without names they are taken for one that was begun twice
	}
	s.config.logger.Error("this node has founded a cluster, and is a member of another one", "node", id.Name, "id", id.Node, "cluster", id.Cluster, "other", e.Cluster, "member", e.Member, "told_by", e.By, "address", e.Address)
	return fail(bw.NodeContested, "node %s has founded cluster %s in %s, and cluster %s has a node %s already, which had another disk: node %s at %s looks for it here; two clusters must not serve the same clients",
		id.Name, clusterTitle(own, id.Cluster), s.config.dir, clusterTitle(other, e.Cluster), id.Name, e.By, e.Address).
		do("if its disk was emptied: bellwire cluster remove %s, asked of %s; then move %s away, which alone has what this node acknowledged since, and start it with --join %s in place of --bootstrap; if it is to be a cluster of its own: bellwire explain %v", id.Name, e.By, s.config.dir, e.Address, bw.NodeContested)
}

// settleFounder returns when a node that has founded a cluster may serve. Nobody can look
// for one at a port that it was only now given.
func (s *server) settleFounder(ctx context.Context) error {
	if _, port, _ := net.SplitHostPort(s.config.cluster); s.links == nil || port == "0" {
		return nil
	}
	err := s.links.Settle(ctx)
	if e, ok := errors.AsType[*cluster.ContestedError](err); ok {
		return s.contested(e)
	}
	return err
}

// leave ends a node that may not serve any more, for the reason err: its clients are told
// to go elsewhere, and where that is.
func (s *server) leave(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = s.mqtt.Drain(ctx, sentAway) // who is left then is closed below
	if s.http != nil {
		_ = s.http.Shutdown(ctx) // who asked this node to remove itself is answered
	}
	return errors.Join(err, s.shutdown())
}
