package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/api"
)

// A node that wants no vote holds everything and serves clients; a voter that stays
// away is taken out after the stated time; and a vote is given to who was without one
// when an operator says so.
func TestNonVoterAndDeadNode(t *testing.T) {
	t.Parallel()
	c := &testCluster{t: t}
	c.begin()
	dead := []string{"--remove-dead-after", leastDead.String()}
	n1 := c.launch("n1", append(dead, "--bootstrap")...)
	join := append(dead, "--join", n1.line.Cluster)
	n2 := c.launch("n2", join...)
	n3 := c.launch("n3", join...)
	n4 := c.launch("n4", append(join, "--non-voter")...)
	if got := c.at(n1, "cluster", "join", "n4", "--wait", "1m"); got.code != 0 || !strings.Contains(got.stderr, "node n4 has caught up, and wants no vote") {
		t.Fatalf("%+v", got)
	}
	counts := func(members, want int) func([]api.Member) bool {
		return func(all []api.Member) bool {
			votes := 0
			for _, m := range all {
				if m.Voter {
					votes++
				}
			}
			return votes == want && len(all) == members
		}
	}
	for _, m := range c.await(n2, "three have a vote", counts(4, 3)) {
		if m.NonVoter != (m.Name == "n4") || m.Voter == m.NonVoter {
			t.Errorf("%+v", m)
		}
	}
	sub := startSub(t, "-p", portOf(t, n4.line.MQTT), "-t", "x/#", "-q", "1", "-C", "2")
	for _, n := range []*testNode{n4, n2} {
		if got := bellwire(t, "", "pub", "-p", portOf(t, n.line.MQTT), "-q", "1", "-t", "x/1", "-m", "from "+n.name); got.code != 0 {
			t.Errorf("%s: %+v", n.name, got)
		}
	}
	for _, want := range []string{"from n4", "from n2"} {
		if got := <-sub.lines; got != want {
			t.Errorf("a subscriber at n4 gets %q, want %q", got, want)
		}
	}
	<-sub.ended
	if got := c.at(n1, "cluster", "transfer-leader", "n4"); got.code != exitConflict || !strings.Contains(got.stderr, "has no vote, so it cannot lead") {
		t.Errorf("%+v", got)
	}

	n3.stop()
	c.await(n4, "n3 is taken out", counts(3, 2))
	if got := c.at(n4, "cluster", "promote", "n4"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	for _, m := range c.await(n1, "n4 has its vote", counts(3, 3)) {
		if m.NonVoter {
			t.Errorf("%+v", m)
		}
	}
	n2.stop() // and the vote counts
	c.await(n4, "n2 is down, and another leads", func(all []api.Member) bool {
		return all[1].Role == "down" && slices.ContainsFunc(all, func(m api.Member) bool { return m.Role == "leader" })
	})
	if got := bellwire(t, "", "pub", "-p", portOf(t, n4.line.MQTT), "-q", "1", "-t", "x/1", "-m", "x"); got.code != 0 {
		t.Errorf("two of three: %+v", got)
	}
}
