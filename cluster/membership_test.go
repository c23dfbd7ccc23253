package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/bellwire/bellwire/cluster/link"
)

// A node that wants no vote applies all and is given none, until somebody promotes
// it; it stays away from no quorum before.
func TestReaderHasNoVote(t *testing.T) {
	c := newCrew(t, 1)
	l := c.led()
	r := c.mate()
	r.reader = true
	r.start()
	r.submit([]byte("by a reader"))
	c.wantAlike()
	// It is stable for ten times as long as makes others voters.
	until := time.Now().Add(10 * l.node.cfg.Stable)
	waitFor(t, "it is stable", func() bool { return time.Now().After(until) })
	if n := l.voters(); n != 1 {
		t.Fatalf("there are %d voters", n)
	}
	for _, m := range l.node.Members(time.Second) {
		if m.Reader != (m.Name == "n2") {
			t.Errorf("%s: reader %v", m.Name, m.Reader)
		}
	}
	r.stop()
	l.submit([]byte("without it"))
	r.start()
	if err := r.node.Promote(t.Context(), r.name); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it has a vote", func() bool { return l.voters() == 2 })
	r.submit([]byte("by a voter"))
	c.wantAlike()
}

// Who has been silent for Config.Dead is taken out, and told so when it is back; who
// comes back sooner is not, and nobody is when too few are left to agree on it.
func TestDeadAreTakenOut(t *testing.T) {
	const dead = 3 * time.Second
	c := &crew{t: t, change: func(cfg *Config) { cfg.Dead = dead }}
	c.begin(3)
	brief := c.follower()
	brief.stop()
	l := c.led()
	waitFor(t, "it is missed", func() bool { return len(l.lost) > 0 })
	brief.start()
	l.submit([]byte("it is back"))
	c.wantAlike()
	if n := l.voters(); n != 3 {
		t.Fatalf("who was away for a moment was taken out: %d voters", n)
	}
	gone := c.follower()
	gone.stop()
	begin := time.Now()
	waitFor(t, "the dead one is taken out", func() bool { return l.voters() == 2 })
	if took := time.Since(begin); took < dead-time.Second {
		t.Errorf("it was taken out after %v, want %v", took, dead)
	}
	var other *mate
	for _, m := range c.nodes {
		if m.node != nil && m != l {
			other = m
		}
	}
	// Of two, one alone decides nothing.
	other.stop()
	until := time.Now().Add(dead + time.Second)
	waitFor(t, "it would be taken out by now", func() bool { return time.Now().After(until) })
	if n := len(l.node.servers()); n != 2 {
		t.Errorf("%d members are left", n)
	}
	other.start()
	other.submit([]byte("two again"))
	c.wantAlike()
	if err := gone.open(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is told", func() bool {
		for _, m := range []*mate{l, other} {
			if _, err := gone.links.dial(m.dir.id.Node, planeForward); errors.Is(err, link.ErrRefused) {
				return true
			}
		}
		return false
	})
}

// Whoever joins a cluster whose leader has led for long has not been silent for as long:
// it has Config.Dead from when it is a member, like everybody.
func TestNewcomerIsNotDead(t *testing.T) {
	const dead = 2 * time.Second
	c := &crew{t: t, change: func(cfg *Config) { cfg.Dead = dead }}
	c.begin(2)
	l := c.led()
	led := time.Now()
	waitFor(t, "it has led for long", func() bool { return time.Since(led) > dead+time.Second })
	newcomer := link.Member{ID: newUUID(), Name: "n9", Address: "127.0.0.1:1", Since: 1}
	begin := time.Now()
	if _, err := l.node.takeIn(&newcomer, firstLevel); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is taken out, for it never comes", func() bool { return !l.node.Member(newcomer.ID) })
	if took := time.Since(begin); took < dead {
		t.Errorf("it was taken out %v after it joined, want %v", took, dead)
	}
	for _, m := range c.nodes {
		if !l.node.Member(m.dir.id.Node) {
			t.Errorf("%s is taken out", m.name)
		}
	}
}
