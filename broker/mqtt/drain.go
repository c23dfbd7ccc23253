package mqtt

import (
	"context"
	"errors"
	"time"
)

// drainBeat is how often some of the clients are sent away.
const drainBeat = 100 * time.Millisecond

// ErrResumed is what Drain returns when Resume was called meanwhile.
var ErrResumed = errors.New("mqtt: clients are taken again")

// Drain turns new clients away, and sends those that are connected to another server,
// at most rate of them a second: all at once would all be elsewhere at once. MQTT 5
// clients are told 0x9C, use another server, and which if one is known; connections of older ones are closed,
// and new ones of theirs told that the server is unavailable. Sessions are kept as
// after any lost connection, wills included. It returns when no client is left, with
// ErrResumed, or with ctx's error; clients are turned away until Resume all the same.
func (s *Server) Drain(ctx context.Context, rate int) error {
	s.draining.Store(true)
	beat := time.NewTicker(drainBeat)
	defer beat.Stop()
	for quiet := 0; ; quiet++ {
		if !s.draining.Load() {
			return ErrResumed
		}
		s.sendAway(max(1, rate*int(drainBeat/time.Millisecond)/1000))
		if s.stats.Clients.Load() != 0 {
			quiet = 0
		}
		if quiet == 2 { // who was about to be let in when it began has been
			return nil
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ends:
			return ErrServerClosed
		}
	}
}

// Resume takes clients again.
func (s *Server) Resume() { s.draining.Store(false) }

// whyDrained is what clients are told.
const whyDrained = "this server is being taken out of service: use another one"

// sendAway ends at most n of the clients' connections.
func (s *Server) sendAway(n int) {
	s.each(func(c *conn) {
		if n <= 0 {
			return
		}
		c.mu.Lock()
		here := c.connected && !c.ending
		c.mu.Unlock()
		if here {
			n--
			c.end(codeUseAnother, whyDrained)
		}
	})
}
