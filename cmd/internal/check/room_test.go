package main

import (
	"strings"
	"testing"
)

func TestTestsFitTheDisk(t *testing.T) {
	for free, want := range map[uint64]int{
		0: 0, 1 << 30: 0, ofOthers + ofOneTest - 1: 0, ofOthers + ofOneTest: 1, 4 << 30: 4, 8 << 30: 8, 1 << 40: 8,
	} {
		if got := testsIn(free); got != want {
			t.Errorf("%d MiB free: %d at once, want %d", free>>20, got, want)
		}
	}
	var out strings.Builder
	if n, err := atOnce(&out, t.TempDir()); n < 1 || n > testsAtOnce || n < testsAtOnce && err == nil && out.Len() == 0 {
		t.Errorf("%d at once, %v, and %q", n, err, &out)
	}
	if _, err := atOnce(&out, "/proc"); err == nil || !strings.Contains(err.Error(), "make room") {
		t.Errorf("where there is no room: %v", err)
	}
}
