package mqtt

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The wheel holds any time to the tick, 43691 s and 65535 s included: no 16 or
// 32 bits anywhere.
func TestKeepAliveTicks(t *testing.T) {
	for seconds, want := range map[uint16]time.Duration{
		1: 1500 * time.Millisecond, 2: 3 * time.Second, 60: 90 * time.Second,
		43691: 65536500 * time.Millisecond, 65535: 98302500 * time.Millisecond,
	} {
		if got := time.Duration(keepAliveTicks(seconds)) * Tick; got < want+Tick || got > want+3*Tick {
			t.Errorf("keep alive %d: closed after %v, want %v and less than a second more", seconds, got, want)
		}
	}
	if got := keepAliveTicks(0); got != 0 {
		t.Errorf("keep alive 0: closed after %d ticks, want never", got)
	}
}

// nowhere is a transport for connections that only have timers.
type nowhere struct{ transport }

func (nowhere) close(bool) {}

// Every timer fires at its tick, not before, wherever it was set and however
// often it was moved.
func TestWheelFires(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s := &Server{wheel: newWheel()}
	limits, _ := Limits{}.WithDefaults()
	s.limits.Store(&limits)
	w := s.wheel
	at := time.Unix(0, 0)
	w.advance(at)
	type alarm struct {
		c    *conn
		want int64
	}
	alarms := make([]alarm, 200)
	for i := range alarms {
		c := &conn{srv: s, limits: &limits, tr: nowhere{}}
		c.timer.fire = c
		alarms[i].c = c
	}
	for range 3000 {
		now := w.now.Load()
		for range 20 {
			a := &alarms[r.IntN(len(alarms))]
			switch r.IntN(4) {
			case 0:
				w.set(&a.c.timer, 0)
				a.want = 0
			default:
				// Its end is what fires: it closes at lingerAt.
				d := int64(1 + r.IntN(20))
				if r.IntN(10) == 0 {
					d = int64(1 + r.IntN(3*wheelSlots))
				}
				a.c.closed, a.c.ending, a.c.lingerAt = false, true, now+d
				w.set(&a.c.timer, now+d)
				a.want = now + d
			}
		}
		at = at.Add(Tick)
		w.advance(at)
		for i := range alarms {
			a := &alarms[i]
			due := a.want != 0 && a.want <= w.now.Load()
			if due != (a.want != 0 && a.c.closed) {
				t.Fatalf("tick %d: timer for %d fired %v", w.now.Load(), a.want, a.c.closed)
			}
			if due {
				a.want = 0
			}
			if (a.want != 0) != (a.c.timer.at != 0) {
				t.Fatalf("timer for %d is in the wheel for %d", a.want, a.c.timer.at)
			}
		}
	}
}

// Ticks that come late or together lose no time; a process that stood still
// blames nobody for more than a second.
func TestWheelKeepsTime(t *testing.T) {
	w := newWheel()
	at := time.Unix(0, 0)
	w.advance(at)
	for _, x := range []struct {
		after time.Duration
		want  int64 // ticks since the start
	}{
		{100 * time.Millisecond, 0},
		{250 * time.Millisecond, 1},
		{900 * time.Millisecond, 3},
		{time.Second, 4},
		{2 * time.Second, 8},
		{time.Hour, 12},
		{time.Hour + 250*time.Millisecond, 13},
		{time.Minute, 13}, // a clock that ran back
	} {
		w.advance(at.Add(x.after))
		if got := w.now.Load() - 1; got != x.want {
			t.Errorf("after %v: %d ticks, want %d", x.after, got, x.want)
		}
	}
}
