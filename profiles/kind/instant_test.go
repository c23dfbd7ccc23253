package kind

import (
	"math"
	"testing"
	"time"
)

// The order of instants is that of their numbers, whatever the year.
func TestNanosKeepOrder(t *testing.T) {
	at := []time.Time{
		time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(1677, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC), time.Date(2262, 4, 11, 0, 0, 0, 0, time.UTC),
		time.Date(2262, 4, 12, 0, 0, 0, 0, time.UTC), time.Date(2700, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	for i := range at[1:] {
		if a, b := Nanos(at[i]), Nanos(at[i+1]); a > b {
			t.Errorf("%s is %d, %s is %d", at[i], a, at[i+1], b)
		}
	}
	if Nanos(time.Time{}) != 0 || Nanos(at[7]) != math.MaxInt64 || Nanos(at[3]) != at[3].UnixNano() {
		t.Error("wrong ends")
	}
}
