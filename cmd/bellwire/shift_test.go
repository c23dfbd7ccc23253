package main

import (
	"testing"
	"time"
)

// Whatever the hour and however slow the machine, a shift leaves room for what
// is to be withheld before it and delivered in it, and one of a demo that has
// five seconds or more is over before the demo is.
func TestShiftLeavesRoom(t *testing.T) {
	start := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for ms := range 1000 {
		now := start.Add(time.Duration(ms) * time.Millisecond)
		for _, runFor := range []time.Duration{0, time.Second, wholeShift, 5 * time.Second, 7300 * time.Millisecond, time.Hour} {
			for _, slowest := range []time.Duration{0, time.Millisecond, 300 * time.Millisecond, 10 * time.Second} {
				s := planShift(now, runFor, slowest)
				lead, length := s.opens.Sub(now), s.closes.Sub(s.opens)
				if lead < 1500*time.Millisecond+stepsAhead*slowest || lead > 4*time.Second+stepsAhead*slowest {
					t.Fatalf("now %s, for %s, slowest %s: opens in %s", now, runFor, slowest, lead)
				}
				if length < 2*time.Second || length <= stepsAhead*slowest || length > 10*time.Second+stepsAhead*slowest {
					t.Fatalf("now %s, for %s, slowest %s: open for %s", now, runFor, slowest, length)
				}
				if slowest == 0 && runFor >= 5*time.Second && s.closes.After(now.Add(runFor)) {
					t.Fatalf("now %s, for %s: closes after %s", now, runFor, s.closes.Sub(now))
				}
				if s.opens.Nanosecond() != 0 || s.closes.Nanosecond() != 0 {
					t.Fatalf("now %s: %v is not in whole seconds", now, s)
				}
			}
		}
		next := nextReading(now)
		if wait := next.Sub(now); wait < 500*time.Millisecond || wait > 1500*time.Millisecond || next.Nanosecond() != 5e8 {
			t.Fatalf("now %s: the next reading is at %s", now, next)
		}
	}
}
