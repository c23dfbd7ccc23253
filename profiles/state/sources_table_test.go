package state

import (
	"hash/maphash"
	"testing"
	"time"
)

// However many sources there are, what is remembered of them is bounded; and of one that
// publishes all the time nothing is forgotten by a turn of the tables.
func TestSourcesAreBounded(t *testing.T) {
	s := sources{seed: maphash.MakeSeed()}
	l := Limits{}.WithDefaults()
	now := int64(1e18)
	for i := range uint64(3 * sourcesKept) {
		s.take(i, &l, false, now)
		if len(s.now)+len(s.old) > 2*sourcesKept {
			t.Fatalf("%d are remembered", len(s.now)+len(s.old))
		}
	}
	taken := 0
	for step := range 1000 { // five a second, for 200 seconds
		if s.take(7, &l, false, now+int64(step)*int64(time.Second)/5) {
			taken++
		}
	}
	if taken < 218 || taken > 220 {
		t.Errorf("one source published %d times in 200 seconds, want 20 and 1 a second", taken)
	}
}
