package mqtt

import (
	"container/heap"
	"errors"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker"
)

// A Login is what a client shows to be who it is.
type Login struct {
	User     string // empty if it names none
	Password []byte
	Client   string    // its client id; empty if it does not come by MQTT
	From     *ConnInfo // by what way it came; not nil
}

// An Identity is who a client has proved to be.
type Identity struct {
	// Principal is empty for an anonymous client.
	Principal string

	// Until is when the proof expires, by Config.Clock, and with it the connection;
	// zero for never.
	Until time.Time

	// Way is how it was proved, as the policy calls it; empty: not said.
	Way string
}

// ErrUnavailable means that a login cannot be judged for now, whatever it is. It is not
// the client's doing: it is told to try again later (0x88; 3.1.1: 3).
var ErrUnavailable = errors.New("logins cannot be judged for now")

// MayStay is part of broker.Admitted. It is for connections whose CONNECT has been read.
func (c *conn) MayStay(who broker.Who, way string, policy broker.Authorizer) bool {
	if c.by.Internal || c.srv.mayStay == nil {
		return true
	}
	return c.srv.mayStay(policy, Login{Client: who.Client, From: c.info()}, Identity{Principal: who.Principal, Way: way})
}

// A lifetime is until when a connection may last. It belongs to lifetimes.
type lifetime struct {
	until time.Time
	place int // in the heap, from 1; 0 if it is not in it
}

// lifetimes end connections when the proof has expired by which they were let in. By the
// node's clock, not the wheel's: a token says an instant. What has expired is looked for
// with every tick, so a connection lasts for two ticks more at most.
type lifetimes struct {
	mu    sync.Mutex // guards the following, and the life of every connection
	conns lifeHeap   // the next to end comes first
}

type lifeHeap []*conn

func (h lifeHeap) Len() int           { return len(h) }
func (h lifeHeap) Less(i, j int) bool { return h[i].life.until.Before(h[j].life.until) }
func (h lifeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].life.place, h[j].life.place = i+1, j+1
}

func (h *lifeHeap) Push(x any) {
	c := x.(*conn)
	*h = append(*h, c)
	c.life.place = len(*h)
}

func (h *lifeHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	c.life.place = 0
	return c
}

// add has c end at until, or never if it is zero.
func (l *lifetimes) add(c *conn, until time.Time) {
	if until.IsZero() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.life.until = until
	heap.Push(&l.conns, c)
}

// remove forgets c, which has ended.
func (l *lifetimes) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.life.place > 0 {
		heap.Remove(&l.conns, c.life.place-1)
	}
}

// expire ends the connections whose time is over by clock, which is asked only if there are
// any that end. For the goroutine of the wheel.
func (l *lifetimes) expire(clock broker.Clock) {
	for {
		l.mu.Lock()
		var c *conn
		if len(l.conns) > 0 && !clock().Before(l.conns[0].life.until) {
			c = heap.Pop(&l.conns).(*conn)
		}
		l.mu.Unlock()
		if c == nil {
			return
		}
		c.end(codeMaxConnectTime, "what the client signed in with has expired")
	}
}
