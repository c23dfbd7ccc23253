package blackbox

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
)

// The network between nodes fails in all ways, under load on all of them: the side
// with most nodes goes on, and when the network is whole again all that was
// acknowledged anywhere has been delivered, and the nodes are alike.
//
// Item 58.
func TestClusterPartitions(t *testing.T) {
	t.Parallel()
	c, k := newCabledTrio(t)
	l := c.load()
	l.start()
	both := func(node int) (int, int) { return (node + 1) % clusterSize, (node + 2) % clusterSize }
	faults := []struct {
		name   string
		leader bool // it is the leader that the others go on without; else a follower
		cut    func(leader, follower int)
	}{
		{"the leader is cut off", true, func(leader, _ int) { k.isolate(leader) }},
		{"a follower is cut off", false, func(_, follower int) { k.isolate(follower) }},
		{"the leader and a follower do not reach each other", false, k.part},
		{"a follower hears nothing from the leader", false, k.cut},
		{"the leader hears nothing from a follower", false, func(leader, follower int) { k.cut(follower, leader) }},
		{"nobody hears the leader", true, func(leader, _ int) {
			a, b := both(leader)
			k.cut(leader, a)
			k.cut(leader, b)
		}},
		{"the leader hears nobody", true, func(leader, _ int) {
			a, b := both(leader)
			k.cut(a, leader)
			k.cut(b, leader)
		}},
	}
	for range effort.Turns(t) {
		for _, fault := range faults {
			l.await(300)
			leader := c.leader()
			follower := (leader + 1) % clusterSize
			off := follower
			if fault.leader {
				off = leader
			}
			took := c.goOn(l, off, func() { fault.cut(leader, follower) })
			during := l.goesOn(3*time.Second, 100)
			healed := c.goOn(l, nobody, k.heal)
			t.Logf("%s: the others go on after %v, %d are acknowledged while it lasts; all go on %v after the healing",
				fault.name, took.Round(time.Millisecond), during, healed.Round(time.Millisecond))
		}
	}
	l.finish()
	c.alike()
}

// A follower, then the leader, are cut off and back every two seconds: the others
// go on, and in the end nothing is lost.
func TestClusterFlapping(t *testing.T) {
	t.Parallel()
	c, k := newCabledTrio(t)
	l := c.load()
	l.start()
	l.await(300)
	leader := c.leader()
	for _, node := range []int{(leader + 1) % clusterSize, leader} {
		before := l.acked()
		const half, enough = 2 * time.Second, 500
		for round, rounds := 0, effort.Rounds(3, 15); round < rounds || l.acked()-before < enough; round++ {
			if round > rounds+10 {
				t.Fatalf("only %d acknowledged while a node flapped", l.acked()-before)
			}
			k.isolate(node)
			<-time.After(half)
			k.heal()
			<-time.After(half)
		}
		t.Logf("%d acknowledged while node %d flapped; %d led at first", l.acked()-before, node, leader)
	}
	l.await(300)
	l.finish()
	c.alike()
}
