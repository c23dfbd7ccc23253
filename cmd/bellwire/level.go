package main

import (
	"context"

	"github.com/bellwire/bellwire/broker"
)

// firstLevel raises the feature level to the newest that this program knows, if
// there are no other members who would have to know it, too: a cluster begins with
// it. Among several, the leader raises it when all have said that they know it.
func (s *server) firstLevel(ctx context.Context) error {
	if !s.node.Only() {
		return nil
	}
	return s.broker.Raise(ctx, broker.NewestLevel)
}
