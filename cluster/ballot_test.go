package cluster

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/disk"
)

// How long votes are waited for grows with the elections that fail, and not for ever.
func TestBallotTime(t *testing.T) {
	const beat = 300 * time.Millisecond
	for terms, want := range map[uint64]time.Duration{
		0: beat, 1: beat, 2: 2 * beat, 3: 8 * beat, 4: 16 * beat, 5: 16 * beat, 1<<64 - 1: 16 * beat,
	} {
		if got := ballotTime(beat, terms); got != want {
			t.Errorf("in the term that is %d later: %v, want %v", terms, got, want)
		}
	}
}

// The disks of those that are left take longer for a sync than an election lasts: one of
// them is elected all the same, and then elections are as quick as before.
func TestElectedWithSlowDisks(t *testing.T) {
	t.Parallel()
	c := newCrew(t, 3)
	l := c.led()
	l.submit([]byte("before"))
	slow := func(op disk.Op, _ string) error {
		if op == disk.OpSync {
			<-time.After(800 * time.Millisecond) // an election lasts 0.3 to 0.6 s
		}
		return nil
	}
	for _, m := range c.nodes {
		if m != l {
			m.fs.Intercept(slow)
		}
	}
	l.stop()
	start := time.Now()
	waitLong(t, 60*time.Second, "one of the others leads", func() bool { return c.leader() != nil })
	t.Logf("elected after %v", time.Since(start).Round(time.Millisecond))
	for _, m := range c.nodes {
		m.fs.Intercept(nil)
	}
	now := c.led()
	now.submit([]byte("after"))
	for _, m := range c.nodes {
		if m.node != nil {
			waitFor(t, m.name+" is as quick as before", func() bool {
				return m.node.raft.ReloadableConfig().ElectionTimeout == m.node.cfg.Heartbeat
			})
		}
	}
	l.start()
	c.wantAlike()
}
