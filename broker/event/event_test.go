package event

import "testing"

// What is left of a Message Expiry Interval is rounded up while there is any, and
// never more than there was. An interval of 0 leaves less than a second, and is
// told as 0. The interval may begin a moment before the event's own instant.
func TestRemaining(t *testing.T) {
	const at = 1_772_000_000_123_456_789
	for _, c := range []struct {
		interval uint32
		waited   int64 // ns
		left     uint32
		expired  bool
	}{
		{0, 0, 0, false},
		{0, 4e8, 0, false},
		{0, 1e9, 0, true},
		{1, 0, 1, false},
		{1, 1, 1, false},
		{1, 1e9 - 1, 1, false},
		{1, 1e9, 0, true},
		{60, 0, 60, false},
		{60, 1, 60, false},
		{60, 1e9, 59, false},
		{60, 61e9, 0, true},
		{1<<32 - 1, 0, 1<<32 - 1, false},
	} {
		for _, moment := range []int64{0, 1, 1e6, 2e8} {
			e := Event{At: at + moment, Expires: ExpiresAt(at, c.interval)}
			now := at + c.waited
			if left, ok := e.Remaining(now); left != c.left || !ok || e.Expired(now) != c.expired {
				t.Errorf("interval %d s, after %d ns, read %d ns before: %d s left, %t, expired %t", c.interval, c.waited, moment, left, ok, e.Expired(now))
			}
		}
	}
	if left, ok := (&Event{At: at}).Remaining(at + 1); left != 0 || ok {
		t.Errorf("without an interval: %d s left, %t", left, ok)
	}
}
