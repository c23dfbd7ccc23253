package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/cluster"
	"github.com/bellwire/bellwire/disk"
)

// The feature level is the broker's state, and what it means is the broker's to
// know (broker.Level). That all members know one before it is raised, and that
// nobody takes part who does not, is the cluster's affair (cluster.Level).

const newestLevel = cluster.Level(broker.NewestLevel)

// raising is how long it may take until the log has raised the level. Meanwhile
// the membership cannot be changed.
const raising = 5 * time.Second

// firstLevel raises the feature level as a node starts that is the only member
// there is: a new cluster begins with the newest. Among several the leader raises
// it, when all have said that they know it.
func (s *server) firstLevel(ctx context.Context) error {
	hold := cluster.Level(s.config.holdLevel)
	if hold != 0 && hold < s.dir.Level() {
		s.config.logger.Warn("the feature level is above the one that is to be held: it does not fall", "in_force", s.dir.Level(), "hold", hold)
	}
	if !s.node.Only() {
		return nil
	}
	to := cluster.Levels{Knows: newestLevel, Hold: hold}.Agrees()
	if err := s.broker.Raise(ctx, broker.Level(to)); err != nil {
		return fmt.Errorf("raise the feature level to %d: %w", to, err)
	}
	return nil
}

// raiseLevel has the log raise the level, for the leader.
func (s *server) raiseLevel(to cluster.Level) error {
	ctx, cancel := context.WithTimeout(context.Background(), raising)
	defer cancel()
	return s.broker.Raise(ctx, broker.Level(to))
}

// levelRaised notes in the directory that a level is in force, before anything of
// it is written there: by then an older program refuses the directory before it
// opens what it does not know.
func (s *server) levelRaised(to broker.Level) {
	before := s.dir.Level()
	if cluster.Level(to) <= before {
		return
	}
	if err := s.dir.Raise(cluster.Level(to)); err != nil {
		disk.Die(s.config.logger, s.config.die, err.Error())
	}
	s.config.logger.Info("feature level raised: versions that do not know it can take no part any more", "from", before, "to", to)
}
