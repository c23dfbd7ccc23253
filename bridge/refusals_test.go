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

// An event that is refused again and again is dropped after a minute, and within the hour another at
// once if one was taken in between; where each try gets further than the one before, none is.
func TestDoubt(t *testing.T) {
	var d doubt
	apart := doubtTime
	at := time.Unix(1_772_000_000, 0)
	after := func(wait time.Duration, id uint16, want bool) {
		t.Helper()
		at = at.Add(wait)
		if got := d.drop(id, at, apart); got != want {
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
	after(0, 41, false) // nothing was taken since: it may be that nothing is
	d.took(999)
	after(time.Second, 41, true)
	after(time.Second, 42, false)
	d.took(999)
	after(58*time.Minute, 42, true)
	d.took(999)
	after(61*time.Minute, 43, false) // another story
	after(10*time.Minute, 43, false) // the id is another event's by now
	after(59*time.Second, 43, false)
	after(time.Second, 43, true)
	for range 10 { // nothing is taken any more: one a minute
		after(time.Second, 44, false)
		after(59*time.Second, 44, false)
		after(time.Second, 44, true)
	}
	for range 3 { // and none oftener, whichever is refused first
		for try := range uint16(20) {
			after(3*time.Second, 50+try%2, false)
		}
		after(3*time.Second, 50, true)
		after(time.Second, 50, false)
		after(0, 51, false)
		after(59*time.Second, 51, false)
		after(time.Second, 51, true)
	}
	after(61*time.Minute, 60, false)
	for range 30 { // refused first, and then taken: another comes under the same id
		after(40*time.Second, 61, false)
		d.took(61)
		after(0, 60, false)
		d.took(60)
	}
	apart = time.Hour // where the bridge tries again that seldom
	after(50*time.Minute, 45, false)
	after(50*time.Minute, 45, true)
}
