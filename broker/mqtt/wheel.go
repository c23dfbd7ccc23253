package mqtt

import (
	"sync"
	"sync/atomic"
	"time"
)

// Tick is how often a server wants to be told the time.
const Tick = 250 * time.Millisecond

const (
	wheelSlots     = 512
	ticksPerSecond = int64(time.Second / Tick)
	maxTickLeaps   = ticksPerSecond // of ticks that count when one comes late
)

// A wheel is all the timers of a server's connections: keep alive, the time
// for CONNECT, the patience with a client that takes nothing. It turns by the
// ticks it is given and knows no other clock.
//
// It is coarse on purpose. A packet does not touch it: the connection notes
// the tick of the last one, and when its timer fires, looks whether that was
// long enough ago. So a busy connection costs one look in each interval, and
// an idle one none.
//
// A tick that comes late counts as one second at most: for as long as this
// process did not run it did not read either, and a client must not be
// blamed for that.
type wheel struct {
	now atomic.Int64 // in ticks, from 1

	mu    sync.Mutex
	slots [wheelSlots]*timer // lists, by the tick modulo the size
	last  time.Time          // of the last advance

	due []*timer // scratch of turn, whose caller is one
}

// A timer is a connection's place in the wheel.
type timer struct {
	prev, next *timer
	at         int64 // the tick at which it fires; 0 if it is not in the wheel
	fire       *conn
}

// ticks is how many ticks to wait so that d has passed for sure, rounded up
// and two more: the present tick is partly over, and the next may come late.
// What waits that long has waited less than d + 3*Tick.
func ticks(d time.Duration) int64 { return int64((d+Tick-1)/Tick) + 2 }

func newWheel() *wheel {
	w := &wheel{}
	w.now.Store(1)
	return w
}

// set makes t fire at tick at, whatever it was set to before; 0 stops it.
func (w *wheel) set(t *timer, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(t)
	if at == 0 {
		return
	}
	t.at = max(at, w.now.Load()+1)
	slot := &w.slots[t.at%wheelSlots]
	t.next = *slot
	if t.next != nil {
		t.next.prev = t
	}
	*slot = t
}

func (w *wheel) unlink(t *timer) {
	if t.at == 0 {
		return
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		w.slots[t.at%wheelSlots] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next, t.at = nil, nil, 0
}

// advance turns the wheel to now, fires what is due, and returns by how many
// ticks it turned. One caller at a time.
func (w *wheel) advance(now time.Time) (n int64) {
	w.mu.Lock()
	if w.last.IsZero() {
		w.last = now
		w.mu.Unlock()
		return 0
	}
	n = int64(now.Sub(w.last) / Tick)
	if n > maxTickLeaps {
		n, w.last = maxTickLeaps, now
	} else if n > 0 {
		w.last = w.last.Add(time.Duration(n) * Tick)
	}
	w.mu.Unlock()
	for range n {
		w.turn()
	}
	return n
}

// turn moves the wheel by one tick.
func (w *wheel) turn() {
	w.mu.Lock()
	now := w.now.Add(1)
	for t := w.slots[now%wheelSlots]; t != nil; {
		next := t.next
		if t.at <= now {
			w.unlink(t)
			w.due = append(w.due, t)
		}
		t = next
	}
	w.mu.Unlock()
	for i, t := range w.due {
		w.due[i] = nil
		t.fire.expire(now)
	}
	if cap(w.due) > 1024 {
		w.due = nil
	}
	w.due = w.due[:0]
}
