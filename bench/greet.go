package bench

import (
	"errors"
	"fmt"
	"time"
)

// openAtOnce is how many connects are in flight while a load is set up.
const openAtOnce = 64

// turnWait is how long a turn waits when nothing happens, so that deadlines are
// seen in time.
const turnWait = 10 * time.Millisecond

// errLate means that the broker had its time, and was not done.
var errLate = errors.New("it takes too long")

// open connects all of cs to the broker, subscribes those that have a filter,
// and returns when each has its answer, and those that are to be absent have left,
// or an error when within runs out.
func (l *loop) open(cs []*conn, within time.Duration) error {
	deadline := l.now() + int64(within)
	began, done := 0, 0 // of cs: those before done are ready
	for done < len(cs) {
		for began < len(cs) && began-done < openAtOnce {
			if err := l.dial(cs[began]); err != nil {
				return err
			}
			began++
		}
		if err := l.turn(turnWait, func() error { return nil }); err != nil {
			return err
		}
		for done < began && cs[done].ready {
			done++
		}
		if l.now() > deadline {
			return fmt.Errorf("after %v only %d of %d clients are connected and subscribed", within, readyOf(cs[:began]), len(cs))
		}
	}
	return nil
}

func readyOf(cs []*conn) (n int) {
	for _, c := range cs {
		if c.ready {
			n++
		}
	}
	return n
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
		return l.subscribe(c)
	case typeSuback:
		if len(body) < 2+c.asked {
			return fmt.Errorf("%w: SUBACK of %d bytes to %d filters", errFrame, len(body), c.asked)
		}
		for _, got := range body[len(body)-c.asked:] { // behind packet id and properties
			if got != c.qos && !(c.barred && got >= 0x80) { // who is barred may be told so, or be told nothing
				return fmt.Errorf("SUBACK 0x%02x to a filter at QoS %d", got, c.qos)
			}
		}
		return l.subscribe(c)
	}
	return fmt.Errorf("%w: packet type %d before the client was ready", errFrame, first>>4)
}

// filtersAtOnce is how many filters one SUBSCRIBE has at most.
const filtersAtOnce = 50

// subscribe asks for the next filters; without any, the client is ready.
func (l *loop) subscribe(c *conn) error {
	c.asked = min(len(c.filters), filtersAtOnce)
	switch {
	case c.asked > 0:
	case c.absent:
		c.out = append(c.out, typeDisconnect, 0)
		c.left = true
		l.touch(c)
		return nil
	default:
		c.ready = true
		return nil
	}
	c.out = appendSubscribe(c.out, c.version, 1, c.filters[:c.asked], c.qos)
	c.filters = c.filters[c.asked:]
	l.touch(c)
	return nil
}

// await turns the loop until done says so, there is an error, or within runs
// out, which is errLate.
func (l *loop) await(within time.Duration, done func() (bool, error)) error {
	for deadline := l.now() + int64(within); ; {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if l.now() > deadline {
			return errLate
		}
		if err := l.turn(turnWait, func() error { return nil }); err != nil {
			return err
		}
	}
}
