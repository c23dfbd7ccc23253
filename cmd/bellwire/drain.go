package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bellwire/bellwire/api"
)

// States of a node that is taken out of service.
const (
	stateDraining = "draining" // its clients are being sent away
	stateDrained  = "drained"
)

// A drain takes a node out of service: it gives up its leadership and its clients,
// and takes no new ones until it is resumed or started anew.
type drain struct {
	mu    sync.Mutex // guards the following
	state string     // empty: the node serves
	stop  context.CancelFunc

	tasks sync.WaitGroup
}

func (d *drain) now() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// drainTime is about how long it takes to send all clients away, however many.
const drainTime = 10 * time.Second

// leastDrained is how many clients a second are sent away at least.
const leastDrained = 200

// beginDrain begins to take the node out of service, unless that has begun.
func (s *server) beginDrain() {
	d := &s.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != "" {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	d.state, d.stop = stateDraining, stop
	d.tasks.Go(func() {
		err := s.runDrain(ctx)
		d.mu.Lock()
		defer d.mu.Unlock()
		if ctx.Err() == nil && err == nil {
			d.state = stateDrained
			s.config.logger.Info("drained: safe to stop")
		}
	})
}

func (s *server) runDrain(ctx context.Context) error {
	s.config.logger.Info("draining", "clients", s.mqtt.Stats().Clients.Load())
	if s.node.Leader() && s.links != nil {
		if err := s.node.Transfer(ctx, ""); err != nil {
			s.config.logger.Warn("nobody takes the leadership over", "err", err.Error()) // a node that ends loses it all the same
		}
	}
	rate := max(leastDrained, int(s.mqtt.Stats().Clients.Load()*int64(time.Second)/int64(drainTime)))
	return s.mqtt.Drain(ctx, rate)
}

// resume takes the node back into service.
func (s *server) resume() {
	d := &s.drain
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == "" {
		return
	}
	d.stop()
	d.state = ""
	s.mqtt.Resume()
	s.config.logger.Info("takes clients again")
}

// A nodeFacts is what a node tells the others of itself.
type nodeFacts struct {
	State   string `json:"state,omitempty"`
	Clients int64  `json:"clients"`
	MQTT    string `json:"mqtt,omitempty"` // where clients reach it
}

func (s *server) facts() json.RawMessage {
	f := nodeFacts{State: s.drain.now(), MQTT: s.elsewhere.own()}
	if m := s.serving.Load(); m != nil {
		f.Clients = m.Stats().Clients.Load()
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil // it is a string and a number
	}
	return text
}

// Drain implements api.Cluster.
func (m membership) Drain(ctx context.Context, node string, force bool) error {
	status, one, err := m.find(ctx, node)
	if err != nil {
		return err
	}
	if err := spare(status, one, false, "drained"); err != nil && !force {
		return err
	}
	if err := m.order(one.ID, opDrain); err != nil {
		return err
	}
	for {
		_, now, err := m.find(ctx, one.ID)
		if done, err := drainedSoFar(one, now, err); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// drainedSoFar says whether a node that was told to is out of service, by what the members
// are now or why there is no such one.
func drainedSoFar(was, now api.Member, err error) (done bool, _ error) {
	switch {
	case errors.Is(err, api.ErrNoNode):
		return false, fmt.Errorf("%w: node %s (%s) was removed from the cluster meanwhile: it sends its clients away and ends by itself, so there is nothing to drain; to have it back, start it with an empty data directory and --join",
			api.ErrConflict, was.Name, was.Addr)
	case err != nil:
		return false, err
	case now.State == "" && now.Role != "down": // which it may be for a moment
		return false, fmt.Errorf("%w: node %s was resumed, or started anew, meanwhile", api.ErrConflict, now.Name)
	}
	return now.State == stateDrained, nil
}

// Resume implements api.Cluster.
func (m membership) Resume(ctx context.Context, node string) error {
	_, one, err := m.find(ctx, node)
	if err != nil {
		return err
	}
	return m.order(one.ID, opResume)
}

// order has the program of a node do something.
func (m membership) order(id, op string) error {
	for _, node := range m.s.node.Members(statePatience) {
		if node.ID != id {
			continue
		}
		if !node.Reachable {
			return fmt.Errorf("%w: node %s does not answer", api.ErrConflict, node.Name)
		}
		_, err := m.ask(node, nodeQuestion{Op: op})
		return err
	}
	return errors.New("it is no member any more")
}
