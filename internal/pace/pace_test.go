package pace

import (
	"fmt"
	"testing"
	"time"
)

const start = int64(1e18)

// However many there are, what is remembered of them is bounded; and of one that takes all the
// time nothing is forgotten by a turn of the table.
func TestTableIsBounded(t *testing.T) {
	var table Table
	for i := range 3 * Kept {
		table.Take(start, time.Second, 20, fmt.Sprint(i))
		if len(table.now)+len(table.old) > 2*Kept {
			t.Fatalf("%d are remembered", len(table.now)+len(table.old))
		}
	}
	taken := 0
	for step := range 1000 { // five a second, for 200 seconds
		if table.Take(start+int64(step)*int64(time.Second)/5, time.Second, 20, "one") == 0 {
			taken++
		}
	}
	if taken < 218 || taken > 220 {
		t.Errorf("one took %d in 200 seconds, want 20 and 1 a second", taken)
	}
}

// Who has taken all waits until there is one more, as long as is said; others, also those whose
// parts are the same letters, have all of theirs, and who may have more at once has more of the same.
func TestTake(t *testing.T) {
	var table Table
	take := func(after, want time.Duration, atOnce int, who ...string) {
		t.Helper()
		if got := table.Take(start+int64(after), time.Second, atOnce, who...); got != want {
			t.Errorf("%q after %v: to wait for %v, want %v", who, after, got, want)
		}
	}
	take(0, 0, 2, "ann", "bob")
	take(0, 0, 2, "ann", "bob")
	take(0, time.Second, 2, "ann", "bob")
	take(0, 0, 2, "annb", "ob")
	take(0, 0, 2, "ann")
	take(300*time.Millisecond, 700*time.Millisecond, 2, "ann", "bob")
	take(300*time.Millisecond, 0, 4, "ann", "bob")
	take(time.Second, time.Second, 2, "ann", "bob")
	take(2*time.Second, 0, 2, "ann", "bob")
	take(time.Hour, 0, 2, "ann", "bob")
	take(time.Hour, 0, 2, "ann", "bob")
	take(time.Hour, time.Second, 2, "ann", "bob")
}
