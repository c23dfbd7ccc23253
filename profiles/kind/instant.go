package kind

import (
	"math"
	"time"
)

// Nanos returns an instant in unix nanoseconds, as the broker has them: 0 for the
// zero time, and the first or last that there is for one before 1678 or after
// 2262. Documents may name any year; a number that has gone round would be in
// the past.
func Nanos(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Before(first):
		return math.MinInt64
	case t.After(last):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// Instant returns the instant of a number that Nanos returned, in UTC.
func Instant(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

var first, last = time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)
