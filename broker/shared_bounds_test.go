package broker

import (
	"errors"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
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

// A session has so many shared subscriptions at most, and one more is refused with all of its
// SUBSCRIBE, and counted; one that has ended, or is made again, makes room or takes none. The
// bound holds through a restart, changes without one, and ends nothing.
func TestSharedOfOneSession(t *testing.T) {
	n := newNode(t, Limits{})
	most := func(groups int) {
		t.Helper()
		must(t, n.SetSettings(t.Context(), Limits{GroupsPerSession: groups}.Settings("")))
	}
	most(2)
	c, _ := n.connect("one", false, 3600)
	c.subscribe("$share/a/jobs/#", 1)
	full := func(refusals uint64, filter string) {
		t.Helper()
		if err := c.trySubscribe(filter, 1); !errors.Is(err, ErrQuota) {
			t.Errorf("%s is one too many: %v, want ErrQuota", filter, err)
		}
		if got := n.Over("share.perSession"); got != refusals {
			t.Errorf("%d refusals are counted, want %d", got, refusals)
		}
	}
	c.subscribe("$share/b/jobs/#", 1)
	full(1, "$share/c/jobs/#")
	c.subscribe("$share/a/jobs/#", 0) // is one of them
	c.subscribe("jobs/#", 0)          // is not shared
	if _, err := c.s.Unsubscribe([]string{"$share/a/jobs/#"}); err != nil {
		t.Fatal(err)
	}
	c.subscribe("$share/c/jobs/#", 1)
	n.restart()
	c, _ = n.connect("one", false, 3600)
	full(1, "$share/d/jobs/#")
	most(3)
	c.subscribe("$share/d/jobs/#", 1)
	most(1)
	c.subscribe("$share/d/jobs/#", 1) // those there are stay
	full(2, "$share/e/jobs/#")
	most(groupsPerSession)
	c.subscribe("$share/e/jobs/#", 1)
}

// A user founds so many groups of shared subscriptions at most, in all sessions together, and
// joins others beyond; another one has as many, and one more is refused and counted.
func TestGroupsOfOneUser(t *testing.T) {
	_, twin, d := sharedTwins(t, Limits{GroupsPerPrincipal: 1})
	try := func(client, principal, filter string) error {
		o := d.connect(event.Connect{Client: client, Principal: principal, ReceiveMax: 1})
		return d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: filter, QoS: 1}}})[0].err
	}
	must(t, try("a1", "alice", "$share/a/jobs/#"))
	if err := try("a2", "alice", "$share/b/jobs/#"); !errors.Is(err, ErrQuota) {
		t.Errorf("one too many: %v, want ErrQuota", err)
	}
	must(t, try("b1", "bob", "$share/b/jobs/#"))
	must(t, try("a3", "alice", "$share/b/jobs/#"))
	if got := twin.overs.n["share.groupsPerPrincipal"]; got != 1 {
		t.Errorf("%d refusals are counted, want 1", got)
	}
	two := Limits{GroupsPerPrincipal: 2}.Settings("")
	must(t, d.entry(&two)[0].err)
	must(t, try("a4", "alice", "$share/c/jobs/#"))
}
