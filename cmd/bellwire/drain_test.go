package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/api"
)

// What became of a node that is drained is told by its name, with what to do.
func TestDrainedSoFar(t *testing.T) {
	was := api.Member{ID: "0123abcd", Name: "n2", Addr: "10.0.0.2:7400", State: stateDraining}
	state := func(state, role string) api.Member {
		m := was
		m.State, m.Role = state, role
		return m
	}
	for _, c := range []struct {
		name string
		now  api.Member
		err  error
		done bool
		want string
	}{
		{name: "under way", now: state(stateDraining, "follower")},
		{name: "done", now: state(stateDrained, "follower"), done: true},
		{name: "not heard for a moment", now: state("", "down")},
		{name: "resumed", now: state("", "follower"), want: "node n2 was resumed"},
		{name: "removed", err: fmt.Errorf("%w: %q", api.ErrNoNode, was.ID), want: "node n2 (10.0.0.2:7400) was removed"},
		{name: "not to be known", err: api.ErrNoLeader, want: api.ErrNoLeader.Error()},
	} {
		done, err := drainedSoFar(was, c.now, c.err)
		if done != c.done || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %v, %q", c.name, done, err, c.done, c.want)
		}
		if err != nil && strings.Contains(err.Error(), was.ID) {
			t.Errorf("%s: %v names only an id", c.name, err)
		}
		if c.name == "removed" && !errors.Is(err, api.ErrConflict) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
