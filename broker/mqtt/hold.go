package mqtt

import (
	"sync"
	"sync/atomic"
	"time"
)

// Scattered traffic (a thousand clients that each watch fifty others) dirties
// many connections with little each, and a write costs five microseconds
// whatever its size: done at once, that is a write for each event. Held back
// for a moment, several events share one.
//
// Whether that pays cannot be seen on one connection: as long as all write at
// once, no more than one event arrives in the moment that one is held; only
// when all are held is there time for more to arrive. So the server as a whole
// tries it, for a Tick now and then while it is busy, and goes on if a write
// then carries half as many packets again. Traffic that waits for its answers
// gains nothing, and is held for one Tick in holdEvery at most; what is
// batched well already, and a server with little to do, is never held.
const (
	holdTime  = time.Millisecond
	holdBytes = 2 << 10 // an output of more is not held: its write is worth it
	holdEvery = 64      // ticks between two trials

	// busyWrites is how many writes in a Tick make a server busy: they take a
	// fiftieth of a core's time or more.
	busyWrites = 1000

	// wellBatched is how many packets to a write are well enough.
	wellBatched = 8
)

// A holder decides whether flushes are put off, and does those that are.
type holder struct {
	holding atomic.Bool

	// Of tick, which is the wheel's.
	writes, packets uint64  // up to the last tick
	atOnce          float64 // packets to a write when nothing was held
	wait            int     // ticks until the next change of mind is considered

	mu     sync.Mutex // guards the following; taken after a connection's
	held   []*conn
	wake   chan struct{} // of room 1: held is not empty any more
	closed bool
}

// hold puts off the flush of c, if that may pay. With c.mu held.
func (h *holder) hold(c *conn) bool {
	if !h.holding.Load() || c.ending || c.full || c.out.n > holdBytes {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	c.held = true
	if h.held = append(h.held, c); len(h.held) == 1 {
		h.wake <- struct{}{}
	}
	return true
}

// tick looks at what the last Tick was like, and decides about the next.
func (h *holder) tick(writes, packets uint64) {
	w, p := writes-h.writes, packets-h.packets
	h.writes, h.packets = writes, packets
	h.wait--
	ratio := float64(p) / float64(max(w, 1))
	switch {
	case h.holding.Load():
		// A fall in writes is what holding is for, so it is not looked at.
		if ratio < 1.5*h.atOnce || h.wait <= 0 {
			h.holding.Store(false)
			h.wait = holdEvery
			if ratio >= 1.5*h.atOnce {
				h.wait = 1 // it pays; this only measures again what does not holding
			}
		}
	case w < busyWrites || ratio >= wellBatched:
		h.wait = max(h.wait, 1)
	default:
		if h.atOnce = ratio; h.wait <= 0 {
			h.holding.Store(true)
			h.wait = holdEvery
		}
	}
}

// run flushes what is held until stop is closed.
func (h *holder) run(stop <-chan struct{}) {
	timer := time.NewTimer(holdTime)
	defer timer.Stop()
	var all []*conn
	for {
		select {
		case <-h.wake:
		case <-stop:
			h.mu.Lock()
			h.closed = true
			h.mu.Unlock()
			return
		}
		timer.Reset(holdTime)
		<-timer.C
		h.mu.Lock()
		all, h.held = h.held, all[:0]
		h.mu.Unlock()
		for i, c := range all {
			all[i] = nil
			c.mu.Lock()
			c.flush()
		}
	}
}
