package bench

import (
	"fmt"
	"net/netip"
	"time"
)

// openAtOnce is how many connects are in flight while a load is set up.
const openAtOnce = 64

// turnWait is how long a turn waits when nothing happens, so that deadlines are
// seen in time.
const turnWait = 10 * time.Millisecond

// open connects all of cs to the broker, subscribes those that have a filter,
// and returns when each has its answer, or an error when within runs out.
func (l *loop) open(cs []*conn, to netip.AddrPort, within time.Duration) error {
	deadline := l.now() + int64(within)
	began, done := 0, 0
	for done < len(cs) {
		for began < len(cs) && began-done < openAtOnce {
			if err := l.dial(cs[began], to); err != nil {
				return err
			}
			began++
		}
		if err := l.turn(turnWait, func() error { return nil }); err != nil {
			return err
		}
		done = 0
		for _, c := range cs[:began] {
			if c.ready {
				done++
			}
		}
		if l.now() > deadline {
			return fmt.Errorf("after %v only %d of %d clients are connected and subscribed", within, done, len(cs))
		}
	}
	return nil
}

// greet handles what a broker sends before a client is ready.
func (l *loop) greet(c *conn, first byte, body []byte) error {
	switch first & 0xF0 {
	case typeConnack:
		window, err := parseConnack(body, c.version)
		if err != nil {
			return err
		}
		c.window = window
		if c.filter == "" {
			c.ready = true
			return nil
		}
		c.out = appendSubscribe(c.out, c.version, 1, c.filter, c.qos)
		l.touch(c)
		return nil
	case typeSuback:
		if len(body) < 3 {
			return fmt.Errorf("%w: SUBACK of %d bytes", errFrame, len(body))
		}
		if got := body[len(body)-1]; got != c.qos {
			return fmt.Errorf("SUBACK 0x%02x to a filter at QoS %d", got, c.qos)
		}
		c.ready = true
		return nil
	}
	return fmt.Errorf("%w: packet type %d before the client was ready", errFrame, first>>4)
}
