package mqtt

import "github.com/bellwire/bellwire/broker"

// flushRounds is how often one flush writes to the same socket before it
// leaves the rest to a goroutine: others may go on queueing as fast as it
// writes, and whoever flushes has other sockets, too.
const flushRounds = 4

// Flush writes what is queued, now or in a moment; see broker.Sink and holder.
func (c *conn) Flush() {
	c.mu.Lock()
	if c.marked && c.srv.holder.hold(c) {
		c.mu.Unlock() // and marked: somebody will flush
		return
	}
	c.flush()
}

// flush writes what is queued as far as the socket takes it now. If something
// is left, or the session waits for room, a goroutine takes over until neither
// is so. With mu held; it lets go of it.
func (c *conn) flush() {
	c.marked, c.held = false, false
	if c.writing || c.closed {
		c.mu.Unlock()
		return
	}
	c.writing = true
	c.progress = c.srv.wheel.now.Load()
	for range flushRounds {
		if !c.unsent() || !c.write(false) {
			break
		}
	}
	if !c.closed && (c.unsent() || c.full) {
		// Its time begins here, and it counts: on a busy machine it may be long before the
		// goroutine gets to run, and meanwhile others publish what is dropped.
		c.srv.wheel.set(&c.timer, c.nextDeadline(c.srv.wheel.now.Load()))
		c.srv.stats.Stalled.Add(1)
		c.srv.wg.Add(1)
		go c.drain()
		c.mu.Unlock()
		return
	}
	c.endWriting()
}

// unsent says that something waits for the socket. With mu held.
func (c *conn) unsent() bool { return c.out.n > 0 || c.tr.owes() }

// drain writes until nothing is left. It is there only while the socket is
// full, or while the session has more than the output takes: then it asks for
// it once half of the output is free.
func (c *conn) drain() {
	defer c.srv.wg.Done()
	defer c.srv.stats.Stalled.Add(-1)
	var w broker.Wave
	c.mu.Lock()
	for !c.closed && (c.unsent() || c.full) {
		if c.unsent() {
			c.write(true)
		}
		if c.full && c.out.n <= c.srv.limits.Load().Output/2 {
			c.full = false
			if !c.ending {
				c.mu.Unlock()
				c.session.Drained(&w)
				w.Flush()
				c.mu.Lock()
			}
		}
	}
	c.endWriting()
}

// endWriting gives up the turn to write and lets go of mu. If the last word
// has been said, it closes our half of the stream.
func (c *conn) endWriting() {
	if c.ending && !c.closed && !c.finished && c.out.n == 0 {
		c.finished = true
		c.mu.Unlock()
		c.tr.finish() // it may write
		c.mu.Lock()
	}
	c.writing = false
	c.mu.Unlock()
}

// write writes once and says whether the socket took all that it was offered.
// With mu held and writing set; it lets go of mu meanwhile.
func (c *conn) write(wait bool) (all bool) {
	c.vecs = c.out.vecs(c.vecs[:0])
	c.sum()
	c.mu.Unlock()
	n, err := c.tr.write(c.vecs, wait)
	c.mu.Lock()
	offered := 0
	for i, v := range c.vecs {
		offered += len(v)
		c.vecs[i] = nil
	}
	if cap(c.vecs) > 8 {
		c.vecs = nil
	}
	if c.closed { // meanwhile; the output is gone
		return false
	}
	c.out.much = offered > smallBlock
	stats := &c.srv.stats
	if n > 0 {
		stats.Writes.Add(1)
		stats.BytesOut.Add(uint64(n))
		c.progress = c.srv.wheel.now.Load()
		c.out.written(n)
		if c.changed != nil {
			c.wakeReader()
		}
	}
	if err != nil {
		// The client is gone; the reader, which finds out from the closed
		// transport, does the rest.
		c.beginEnd(endLost, 0, "")
		if c.shut() {
			c.mu.Unlock()
			c.tr.close(false)
			c.mu.Lock()
		}
		return false
	}
	return n == offered && !c.tr.owes()
}

// sum adds to Stats what was queued since. With mu held.
func (c *conn) sum() {
	for t, n := range c.sent {
		if n > 0 {
			c.srv.stats.PacketsOut[t].Add(uint64(n))
			c.sent[t] = 0
		}
	}
	if c.sentPayload > 0 {
		c.srv.stats.PayloadOut.Add(c.sentPayload)
		c.sentPayload = 0
	}
}
