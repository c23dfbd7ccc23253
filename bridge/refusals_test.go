package bridge

import (
	"testing"
	"time"
)

// What would be refused again is dropped, what is refused because nothing is taken now waits;
// what a foreign code means is in doubt.
func TestFateOfRefusals(t *testing.T) {
	for _, c := range []struct {
		code byte
		why  string
		ours bool
		want fate
	}{
		{0x87, "", false, fateRefused},
		{0x99, "BW-4003 not JSON", true, fateRefused},
		{0x97, "BW-5001 quota: example.com has no room for more retained topics", true, fateQuota},
		{0x97, "BW-5001 quota exceeded", true, fateQuota},
		{0x97, "", true, fateQuota},
		{0x97, "BW-5002 disk-full", true, fateWait},
		{0x97, "BW-5001 rate: example.com may publish 5 events a second on one node", true, fateWait},
		{0x83, "BW-5003 no-quorum", true, fateWait},
		{0x83, "bad-event", true, fateRefused},
		{0x80, "BW-9000 unspecified error", true, fateDoubt},
		{0x97, "disk-full", false, fateDoubt},
		{0x83, "", false, fateDoubt},
	} {
		if got := fateOf(c.code, c.why, c.ours); got != c.want {
			t.Errorf("0x%X %q, ours %v: %d, want %d", c.code, c.why, c.ours, got, c.want)
		}
	}
}

// An event that is refused again and again is dropped after a minute, and those refused after it
// at once; where each try gets further than the one before, none is.
func TestDoubt(t *testing.T) {
	var d doubt
	at := time.Unix(1_772_000_000, 0)
	after := func(wait time.Duration, id uint16, want bool) {
		t.Helper()
		at = at.Add(wait)
		if got := d.drop(id, at); got != want {
			t.Fatalf("event %d, %v later: dropped %v, want %v", id, wait, got, want)
		}
	}
	for id := range uint16(20) { // a rate
		after(10*time.Second, id, false)
	}
	for range 7 { // the first begins it
		after(9*time.Second, 40, false)
	}
	after(9*time.Second, 40, true)
	after(0, 41, true)
	after(59*time.Minute, 42, true)
	after(61*time.Minute, 43, false) // another story
	after(10*time.Minute, 43, false) // the id is another event's by now
	after(59*time.Second, 43, false)
	after(time.Second, 43, true)
}
