package main

import (
	"context"
	"errors"
	"time"

	"github.com/bellwire/bellwire/bw"
)

// leaveTime is how long a node that was removed has for telling its clients, and for
// answers that are under way. The clients' sessions are the others' by then, and
// nothing that this node knows can be ordered any more.
const leaveTime = 2 * time.Second

// sentAway is how many clients a second are sent away by a node that was removed: all
// at once, for it can do nothing for them.
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

// leave ends a node that was removed while it served: its clients are told to go
// elsewhere, and where that is.
func (s *server) leave() error {
	err := s.takenOut()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = s.mqtt.Drain(ctx, sentAway) // who is left then is closed below
	if s.http != nil {
		_ = s.http.Shutdown(ctx) // who asked this node to remove itself is answered
	}
	return errors.Join(err, s.shutdown())
}
