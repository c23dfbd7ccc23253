package logline

import (
	"testing"
	"time"
)

// So many lines fit into each period, and the first of the next tells how many did not.
func TestBudget(t *testing.T) {
	b := Budget{Most: 3, Per: time.Minute}
	at := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		after time.Duration
		left  int
		ok    bool
	}{
		{0, 0, true},
		{time.Second, 0, true},
		{59 * time.Second, 0, true},
		{59 * time.Second, 0, false},
		{60*time.Second - 1, 0, false},
		{60 * time.Second, 2, true},
		{61 * time.Second, 0, true},
		{62 * time.Second, 0, true},
		{63 * time.Second, 0, false},
		{10 * time.Minute, 1, true},
	} {
		if left, ok := b.Take(at.Add(c.after)); left != c.left || ok != c.ok {
			t.Errorf("after %v: %d, %v, want %d, %v", c.after, left, ok, c.left, c.ok)
		}
	}
}
