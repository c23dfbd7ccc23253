package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/cluster"
)

// A membership is a server's node as the operators' side of HTTP asks it.
type membership struct{ s *server }

var _ api.Cluster = membership{}

// statePatience is how long a node may take to say how it is, and not be down.
const statePatience = time.Second

// Status implements api.Cluster.
func (m membership) Status(context.Context) api.Status {
	return statusOf(m.s.dir.Identity().Cluster, m.s.node.Members(statePatience))
}

func statusOf(id string, members []cluster.Member) api.Status {
	status := api.Status{Cluster: id, Members: []api.Member{}}
	newest := uint64(0)
	for _, m := range members {
		if status.Name == "" {
			status.Name = m.State.Cluster
		}
		status.Term = max(status.Term, m.State.Term)
		newest = max(newest, m.State.Applied)
		if m.Leader && m.Reachable {
			status.Leader = m.Name
		}
		if m.Voter {
			status.Voters++
			if m.Reachable {
				status.Up++
			}
		}
	}
	for _, m := range members {
		one := api.Member{ID: m.ID, Name: m.Name, Addr: m.Address, Role: "down", Voter: m.Voter, NonVoter: m.Reader && !m.Voter}
		if m.Reachable {
			one.Role, one.Applied, one.Trails = m.State.Role, m.State.Applied, newest-m.State.Applied
			one.Level, one.Supports = int(max(m.State.Levels.InForce, 1)), int(m.State.Levels.Agrees())
			status.Level = max(status.Level, one.Level)
			one.PID, one.Version, one.LastContact = m.State.PID, m.State.Version, m.State.Silence.Seconds()
			var facts nodeFacts
			if json.Unmarshal(m.State.Facts, &facts) == nil { // of an older version there are none
				one.State, one.Clients, one.MQTT = facts.State, facts.Clients, facts.MQTT
			}
		}
		status.Members = append(status.Members, one)
	}
	if newest, held := cluster.NextLevel(members); int(newest) > status.Level {
		status.Next, status.LevelHeld = int(newest), held
	}
	return status
}

// find returns the member that is called node, or has that id.
func (m membership) find(ctx context.Context, node string) (api.Status, api.Member, error) {
	status := m.Status(ctx)
	i := slices.IndexFunc(status.Members, func(one api.Member) bool { return one.Name == node || one.ID == node })
	if i < 0 {
		return status, api.Member{}, fmt.Errorf("%w: %q", api.ErrNoNode, node)
	}
	return status, status.Members[i], nil
}

// spare says why the cluster cannot do without a node, if so: what cannot be done
// is told by verb. gone says that the node gives up its vote, too.
func spare(status api.Status, node api.Member, gone bool, verb string) error {
	if !node.Voter {
		return nil
	}
	up, voters := status.Up, status.Voters
	if node.Role != "down" {
		up--
	}
	if gone {
		voters--
	}
	if up > voters/2 {
		return nil
	}
	e := &api.QuorumError{Node: node.Name, What: verb, Up: status.Up, Voters: status.Voters}
	for _, m := range status.Members {
		if m.Voter && m.Role == "down" && m.ID != node.ID {
			e.Down = append(e.Down, m.Name)
		}
	}
	return e
}

// Remove implements api.Cluster.
func (m membership) Remove(ctx context.Context, node string, force bool, who string) error {
	status, one, err := m.find(ctx, node)
	if err != nil {
		return err
	}
	if one.Voter && status.Voters == 1 {
		return fmt.Errorf("%w: node %s is the last voter", api.ErrConflict, one.Name)
	}
	if err := spare(status, one, true, "removed"); err != nil && !force {
		return err
	}
	if who == "local" {
		who = "an operator on the machine of node " + m.s.config.node
	}
	return m.change(ctx, func() error {
		err := m.s.node.Remove(ctx, one.ID, force, who)
		if err != nil {
			if _, _, gone := m.find(ctx, one.ID); gone != nil {
				return nil // an earlier try did it, and its answer was lost
			}
		}
		return err
	})
}

// Promote implements api.Cluster.
func (m membership) Promote(ctx context.Context, node string) error {
	_, one, err := m.find(ctx, node)
	if err != nil || one.Voter {
		return err
	}
	return m.change(ctx, func() error { return m.s.node.Promote(ctx, one.ID) })
}

// Transfer implements api.Cluster.
func (m membership) Transfer(ctx context.Context, node string) error {
	if node == "" {
		return m.change(ctx, func() error { return m.s.node.Transfer(ctx, "") })
	}
	_, one, err := m.find(ctx, node)
	switch {
	case err != nil:
		return err
	case !one.Voter:
		return fmt.Errorf("%w: node %s has no vote, so it cannot lead", api.ErrConflict, one.Name)
	case one.Role == "down":
		return fmt.Errorf("%w: node %s does not answer, so it cannot lead", api.ErrConflict, one.Name)
	}
	return m.change(ctx, func() error { return m.s.node.Transfer(ctx, one.ID) })
}

// change tries until something is done, or refused, or ctx ends: leadership moves,
// and while it does nobody can change anything.
func (m membership) change(ctx context.Context, try func() error) error {
	for {
		err := try()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, cluster.ErrRefused):
			return fmt.Errorf("%w: %w", api.ErrConflict, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", api.ErrNoLeader, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
