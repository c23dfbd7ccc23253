package main

import (
	"fmt"
	"sync"
	"time"
)

// A testClock stands still until it is set. It tells times without a monotonic
// reading, by which the log's clock knows that it is to follow exactly.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newTestClock(at time.Time) *testClock { return &testClock{now: at.Round(0)} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// set moves the clock forward.
func (c *testClock) set(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.Before(c.now) {
		return fmt.Errorf("the clock stands at %s and does not run back to %s", c.now.Format(time.RFC3339Nano), at.Format(time.RFC3339Nano))
	}
	c.now = at.Round(0)
	return nil
}
