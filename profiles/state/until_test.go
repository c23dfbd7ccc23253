package state

import (
	"errors"
	"math"
	"testing"

	"github.com/bellwire/bellwire/profiles/kind"
)

// An instant of any year is what it says: far ahead is not over, nor is what is over never.
func TestUntil(t *testing.T) {
	for text, want := range map[string]int64{
		"9999-01-01T00:00:00Z": math.MaxInt64, "1970-01-01T00:00:00Z": 1, "0001-01-01T00:00:00Z": 1, "1600-01-01T00:00:00Z": math.MinInt64,
		"1970-01-01T00:00:02Z": 2e9,
	} {
		if got, err := parseUntil(text); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
	if _, err := parseUntil("tomorrow"); !errors.Is(err, kind.ErrInvalid) {
		t.Error(err)
	}
}
