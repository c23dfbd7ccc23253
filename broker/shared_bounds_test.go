package broker

import (
	"errors"
	"testing"
)

// So many sessions share one subscription at most, connected or away, users or not: one more
// is refused and counted, and is let in when one has left or ended; other groups of the same
// topics have room of their own. The bound holds through a restart, changes without one, and
// ends nothing.
func TestGroupMembersAreBounded(t *testing.T) {
	n := newNode(t, Limits{})
	most := func(members int) {
		t.Helper()
		must(t, n.SetSettings(t.Context(), Limits{GroupMembers: members}.Settings("")))
	}
	most(2)
	one, _ := n.connect("one", false, 3600)
	two, _ := n.connect("two", true, 0)
	three, _ := n.connect("three", false, 3600)
	one.subscribe(jobs, 1)
	two.subscribe(jobs, 1)
	refusals := uint64(0)
	full := func(c *client) {
		t.Helper()
		refusals++
		if err := c.trySubscribe(jobs, 1); !errors.Is(err, ErrQuota) {
			t.Errorf("%s is one too many: %v, want ErrQuota", c.id, err)
		}
		if got := n.Over("share.members"); got != refusals {
			t.Errorf("%d refusals are counted, want %d", got, refusals)
		}
	}
	full(three)
	one.subscribe(jobs, 0) // is one of them
	three.subscribe("$share/other/jobs/#", 1)
	one.s.Close(false, false, 0)
	full(three) // who is away is a member
	if _, err := two.s.Unsubscribe([]string{jobs}); err != nil {
		t.Fatal(err)
	}
	three.subscribe(jobs, 1)
	two, _ = n.connect("two", true, 0)
	full(two)
	n.restart()
	refusals = 0 // counted since the start
	two, _ = n.connect("two", true, 0)
	full(two)
	most(3)
	two.subscribe(jobs, 1)
	most(1)
	two.subscribe(jobs, 1) // those there are stay
	four, _ := n.connect("four", true, 0)
	full(four)
	one, _ = n.connect("one", true, 0) // and its session of before ends
	two.s.Close(false, false, 0)
	three, _ = n.connect("three", true, 0)
	four.subscribe(jobs, 1) // the group is another: its last has left
	full(one)
	most(groupMembers)
	one.subscribe(jobs, 1)
	three.subscribe(jobs, 1)
	publishJobs(t, four, 0, 3)
	n.tick()
	if got := len(one.payloads()) + len(three.payloads()) + len(four.payloads()); got != 3 {
		t.Errorf("the members got %d events, want 3", got)
	}
}
