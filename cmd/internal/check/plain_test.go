package main

import (
	"regexp"
	"slices"
	"testing"
)

// What measures, and what tries less under the race detector, is run without it; the
// others are not.
func TestPlain(t *testing.T) {
	root := writeTree(t, map[string]string{
		"a/a_test.go": "package a\nfunc TestAllocs(t *testing.T) { testing.AllocsPerRun(1, f) }\nfunc TestOther(t *testing.T) { f() }\nfunc TestSlow(t *testing.T) { f() }\nfunc TestSlower(t *testing.T) { f() }\nfunc f() {}\n",
		"a/b_test.go": "package a\nfunc TestByTwo(t *testing.T) { two() }\nfunc TestRounds(t *testing.T) { t.Run(\"\", func(t *testing.T) { effort.RoundsOfOne(1, 2, 3) }) }\n",
		"a/c_test.go": "package a\nfunc two() { n{}.one() }\nfunc (n) one() { runtime.ReadMemStats(nil) }\n",
		"a/a.go":      "package a\nfunc TestNot() { testing.AllocsPerRun(1, nil) }\n",
		"c/c_test.go": "package c\nfunc TestAlone(t *testing.T) { t.Log() }\n",
		"b/b_test.go": "package b\nfunc TestElsewhere(t *testing.T) { testing.AllocsPerRun(1, nil) }\n",
	})
	with, got, err := plain(root, []string{module + "/a", module + "/c"}, regexp.MustCompile("^TestSlow$"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"TestAllocs", "TestByTwo", "TestRounds", "TestSlow"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if want := []string{module + "/a"}; !slices.Equal(with, want) {
		t.Errorf("of %q, want %q", with, want)
	}
}

// Of this tree it finds those that count what is allocated, and models, and by far not all.
func TestPlainHere(t *testing.T) {
	_, got, err := plain("../../..", []string{module + "/broker", module + "/broker/topic"}, regexp.MustCompile(withoutRace))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"TestQoS0AllocatesNothing", "TestMixedModel", "TestQuotasAreExact", "TestSweepIsBounded", "TestCachedLookupAllocatesNothing"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not among %q", want, got)
		}
	}
	if slices.Contains(got, "TestDurableSessionResumes") || len(got) > 80 {
		t.Errorf("got %q", got)
	}
}
