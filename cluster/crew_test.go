package cluster

import (
	"sync"
	"testing"
	"time"
)

// led waits for a node to lead, and returns it. Which one that is may change at any time: a
// leader that has to wait for a processor is replaced, where the heartbeat is not steady.
func (c *crew) led() (l *mate) {
	c.t.Helper()
	waitFor(c.t, "a node leads", func() bool {
		l = c.leader()
		return l != nil
	})
	return l
}

// pair returns the node that leads, and one that does not.
func (c *crew) pair() (leader, other *mate) {
	c.t.Helper()
	leader = c.led()
	for _, m := range c.nodes {
		if m.node != nil && m != leader {
			return leader, m
		}
	}
	c.t.Fatal("there is nobody beside the leader")
	return nil, nil
}

// standstills are how long this process, and so each node in it, did not run: what is late
// by as much is not to blame for it.
type standstills struct {
	mu             sync.Mutex
	longest, total time.Duration
}

// watchStandstills begins to watch, until the test ends.
func watchStandstills(t testing.TB) *standstills {
	s, stop, ended := &standstills{}, make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-ended })
	go func() {
		defer close(ended)
		const every = 10 * time.Millisecond
		tick := time.NewTicker(every)
		defer tick.Stop()
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			now := time.Now()
			s.mu.Lock()
			if late := now.Sub(last) - every; late > every {
				s.longest, s.total = max(s.longest, late), s.total+late
			}
			s.mu.Unlock()
			last = now
		}
	}()
	return s
}

// of returns the longest, and how long all of them took.
func (s *standstills) of() (longest, total time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest, s.total
}
