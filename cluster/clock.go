package cluster

import (
	"sync"
	"time"
)

// A logClock tells the time of the log: the stamps of entries.
//
// The leader's stamp is the newest stamp it has seen plus the time that has gone
// by since, on the monotonic clock. The wall clock is asked once: by a leader that
// has heard no other since its process began. So a wall clock that is set forward
// or back, or that of the next leader being wrong, cannot make every session
// expire at once, and stamps never run back.
//
// A clock whose times carry no monotonic reading is one that somebody sets by
// hand, in a test: it is followed exactly, as far as it does not run back.
//
// It is used by the one who packs entries and the one who applies them.
type logClock struct {
	now func() time.Time

	mu     sync.Mutex // guards the following
	last   int64      // greatest stamp seen or given
	base   int64      // the log's time at the instant at
	at     time.Time
	set    bool // base and at are
	leader bool
}

// newLogClock returns a clock that starts no lower than floor.
func newLogClock(now func() time.Time, floor int64) *logClock {
	return &logClock{now: now, last: floor}
}

// seen notes the stamp of an entry that is applied. live says that it was
// received from a leader now, and not read back from this node's own log.
func (c *logClock) seen(stamp int64, live bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, stamp)
	if live && !c.leader {
		// Also when it is less than what we expected: the leader's clock counts,
		// not the sum of our errors.
		c.base, c.at, c.set = stamp, c.now(), true
	}
}

// restored notes the stamp of a state that has come in place of this node's: the time
// goes on from there, unless it is later by then.
func (c *logClock) restored(stamp int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, stamp)
	if now := c.now(); c.set && c.base+int64(now.Sub(c.at)) < stamp {
		c.base, c.at = stamp, now
	}
}

// lead begins the time in which this node gives the stamps; follow ends it.
func (c *logClock) lead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = true
	if !c.set {
		c.at = c.now()
		c.base, c.set = max(c.last, c.at.UnixNano()), true
	}
}

func (c *logClock) follow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = false
}

// stamp returns the time for a new entry. lead must have been called.
func (c *logClock) stamp() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	stamp := c.base + int64(now.Sub(c.at))
	if now == now.Round(0) { // no monotonic reading
		stamp = now.UnixNano()
	}
	c.last = max(c.last, stamp)
	return c.last
}
