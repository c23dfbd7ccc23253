package cluster

import (
	"testing"
	"time"
)

// A wall is a clock with a monotonic reading, of which both can be set apart, as on
// a machine whose wall clock is stepped. The only way to make such a time is from
// the real clock: base is read once.
type wall struct {
	base    time.Time
	elapsed time.Duration
}

func (w *wall) now() time.Time { return w.base.Add(w.elapsed) } // keeps the monotonic reading

// A leader's stamps advance with the monotonic clock from the wall clock of a cold
// start; and a wall clock that is stepped changes nothing.
func TestTrap17StampsFollowTheMonotonicClock(t *testing.T) {
	w := &wall{base: time.Now()}
	c := newLogClock(w.now, 0)
	c.lead()
	first := c.stamp()
	if first != w.base.UnixNano() {
		t.Errorf("cold start at %d, want the wall clock, %d", first, w.base.UnixNano())
	}
	w.elapsed += 90 * time.Second
	if got := c.stamp() - first; got != int64(90*time.Second) {
		t.Errorf("90 s later the log is %v later", time.Duration(got))
	}
	// Another node's wall clock is an hour fast: it leads now, and its stamps
	// go on from the last one it has seen.
	other := &wall{base: w.base.Add(time.Hour)}
	d := newLogClock(other.now, 0)
	d.seen(c.stamp(), true)
	other.elapsed += 10 * time.Second
	d.lead()
	if got := time.Duration(d.stamp() - first); got != 100*time.Second {
		t.Errorf("10 s after the failover the log is at %v, want 100 s", got)
	}
}

// Stamps never run back: not below what is in the log, though the wall clock of the
// next start is earlier, and not when the clock itself does.
func TestTrap17StampsNeverRunBack(t *testing.T) {
	w := &wall{base: time.Now()}
	future := w.base.Add(time.Hour).UnixNano()
	c := newLogClock(w.now, future)
	c.lead()
	if got := c.stamp(); got != future {
		t.Errorf("the first stamp is %v off the newest in the log", time.Duration(got-future))
	}
	w.elapsed += time.Minute
	if got := c.stamp() - future; got != int64(time.Minute) {
		t.Errorf("a minute later it is %v later", time.Duration(got))
	}
	w.elapsed -= 2 * time.Hour
	if got := c.stamp() - future; got != int64(time.Minute) {
		t.Errorf("a clock that ran back moved it to %v", time.Duration(got))
	}
}

// Entries that are read back at a start are old: they do not become the time.
func TestTrap17ReplayIsNotTheTime(t *testing.T) {
	w := &wall{base: time.Now()}
	c := newLogClock(w.now, 0)
	c.seen(w.base.Add(-24*time.Hour).UnixNano(), false)
	c.lead()
	if got := c.stamp(); got != w.base.UnixNano() {
		t.Errorf("the log is %v behind the wall clock", time.Duration(w.base.UnixNano()-got))
	}
	// Leadership that is lost and won again goes on with the same time.
	w.elapsed += time.Second
	c.follow()
	w.elapsed += time.Second
	c.lead()
	if got := c.stamp() - w.base.UnixNano(); got != int64(2*time.Second) {
		t.Errorf("the log is at %v, want 2 s", time.Duration(got))
	}
}

// A state that comes in place of a node's brings the time of its log, which goes on from
// there: where it is ahead of what the node has heard, and not where it is behind.
func TestTrap17TimeOfARestoredState(t *testing.T) {
	w := &wall{base: time.Now()}
	begin := w.base.UnixNano()
	c := newLogClock(w.now, 0)
	c.seen(begin, true)
	w.elapsed += time.Minute
	c.restored(begin + int64(time.Hour))
	w.elapsed += time.Second
	c.lead()
	if got := time.Duration(c.stamp() - begin); got != time.Hour+time.Second {
		t.Errorf("a second after a state of an hour later the log is at %v", got)
	}
	c.follow()
	c.restored(begin)
	c.lead()
	if got := time.Duration(c.stamp() - begin); got != time.Hour+time.Second {
		t.Errorf("an older state has moved the log to %v", got)
	}
}

// A clock that is set by hand is followed exactly, forward.
func TestHandSetClockIsFollowedExactly(t *testing.T) {
	now := time.Date(2026, 3, 9, 16, 59, 0, 0, time.UTC)
	c := newLogClock(func() time.Time { return now }, 0)
	c.lead()
	for _, step := range []time.Duration{0, 0, time.Hour, 1, 24 * time.Hour, 0} {
		now = now.Add(step)
		if got := c.stamp(); got != now.UnixNano() {
			t.Errorf("stamp %v, want %v", time.Unix(0, got).UTC(), now)
		}
	}
	was := now
	now = now.Add(-time.Minute)
	if got := c.stamp(); got != was.UnixNano() {
		t.Errorf("set back, the stamp went to %v", time.Unix(0, got).UTC())
	}
	c.seen(was.Add(time.Hour).UnixNano(), true)
	now = was.Add(30 * time.Minute)
	if got := c.stamp(); got != was.Add(time.Hour).UnixNano() {
		t.Errorf("stamp %v is before one that was seen", time.Unix(0, got).UTC())
	}
}
