package effort

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSeeds(t *testing.T) {
	for s, want := range map[string]span{
		"":         {1, math.MaxUint64, false},
		"1680":     {1680, 1680, true},
		"501-1000": {501, 1000, true},
		"7-7":      {7, 7, true},
		"501-":     {501, math.MaxUint64, false},
	} {
		if got, err := ParseSeeds(s); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"x", "-", "-5", "5-4", "1-2-3", "1.5"} {
		if got, err := ParseSeeds(s); err == nil || !strings.Contains(err.Error(), "BELLWIRE_SEEDS="+s+": want") {
			t.Errorf("%q: got %+v, %v, want an error that says what is to be there", s, got, err)
		}
	}
}

func TestParseSoak(t *testing.T) {
	for s, want := range map[string]time.Duration{"": 0, "10m": 10 * time.Minute} {
		if got, err := parseSoak(s); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"1", "-1m", "0s"} {
		if got, err := parseSoak(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
}

func TestTableIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, one := range Tests {
		key := one.Package + " " + one.Name
		if seen[key] || one.Gate < 1 || one.Race < 0 || one.Race > one.Gate || one.Least < 1 || one.Share < 1 {
			t.Errorf("%+v: listed before, or without one of its numbers", one)
		}
		seen[key] = true
	}
}

// What TestRunsOfChildren starts: two tests that try, and say so, and fail where
// they are told to.
func init() {
	Tests = append(Tests,
		Test{Package: "internal/effort", Name: "TestChildSeeds", Gate: 3, Race: 3, Least: 4, Share: 1},
		Test{Package: "internal/effort", Name: "TestChildParallel", Gate: 3, Race: 3, Least: 4, Share: 1},
		Test{Package: "internal/effort", Name: "TestChildTurns", Gate: 2, Least: 3, Share: 1})
}

func childTries(t *testing.T, seed uint64) {
	if fails := os.Getenv("CHILD_FAILS"); fails == "all" || fails == fmt.Sprint(seed) {
		t.Error("seven is not eight")
	}
}

func TestChildSeeds(t *testing.T)    { Seeds(t, childTries) }
func TestChildParallel(t *testing.T) { ParallelSeeds(t, childTries) }
func TestChildTurns(t *testing.T) {
	for range Turns(t) {
	}
}

// child runs one of the tests above in a process of its own.
func child(t *testing.T, test string, env ...string) (said string, seeds []string) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.v", "-test.run="+Pattern(test))
	// What this run itself is to try is not for its children.
	c.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, soakVariable+"=") || strings.HasPrefix(v, seedsVariable+"=")
	}), env...)
	out, err := c.CombinedOutput()
	said = string(out)
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^=== RUN .*/seed=(\d+)$`).FindAllStringSubmatch(said, -1) {
		seeds = append(seeds, m[1])
	}
	return said, seeds
}

// Which seeds are tried: those of the table, when soaking as many as there is time
// for and those of the table at least, and those that were named.
func TestRunsOfChildren(t *testing.T) {
	for _, test := range []string{"TestChildSeeds", "TestChildParallel"} {
		for _, c := range []struct {
			env   []string
			want  string
			tells string
		}{
			{nil, "1 2 3", "1-3"},
			{[]string{"BELLWIRE_SOAK=1ns"}, "1 2 3 4", "1-4"},
			{[]string{"BELLWIRE_SOAK=1ns", "BELLWIRE_SEEDS=10-"}, "10 11 12 13", "10-13"},
			{[]string{"BELLWIRE_SOAK=1h", "BELLWIRE_SEEDS=10"}, "10", "10-10"},
			{[]string{"BELLWIRE_SEEDS=5-9"}, "5 6 7 8 9", "5-9"},
		} {
			said, seeds := child(t, test, c.env...)
			if test == "TestChildParallel" {
				sortNumbers(seeds)
			}
			if got := strings.Join(seeds, " "); got != c.want || !strings.Contains(said, "\nPASS") {
				t.Errorf("%s with %v: tried %s, want %s\n%s", test, c.env, got, c.want, said)
			}
			if !strings.Contains(said, "=== ATTR  "+test+" seeds "+c.tells) {
				t.Errorf("%s with %v does not tell that it has tried %s:\n%s", test, c.env, c.tells, said)
			}
		}
	}
}

// The time is over at some time, not before, and a seed that fails is one to be run
// again.
func TestSoakingChildren(t *testing.T) {
	_, seeds := child(t, "TestChildSeeds", "BELLWIRE_SOAK=300ms")
	if len(seeds) < 10 {
		t.Errorf("%d seeds of next to nothing in a third of a second", len(seeds))
	}
	said, seeds := child(t, "TestChildSeeds", "BELLWIRE_SOAK=1ns", "CHILD_FAILS=2")
	if len(seeds) != 4 || !strings.Contains(said, "this seed alone: BELLWIRE_SOAK=1m BELLWIRE_SEEDS=2 go test ./internal/effort -count=1 -run '^TestChildSeeds$'") {
		t.Errorf("one of four fails: tried %q\n%s", seeds, said)
	}
	for _, test := range []string{"TestChildSeeds", "TestChildParallel"} {
		said, seeds = child(t, test, "BELLWIRE_SOAK=1h", "CHILD_FAILS=all")
		if len(seeds) < tooMany || len(seeds) > tooMany+32 || !strings.Contains(said, "the others are not tried") {
			t.Errorf("%s: all fail: tried %d\n%s", test, len(seeds), said)
		}
	}
	if said, _ = child(t, "TestChildTurns", "BELLWIRE_SOAK=1ns"); !strings.Contains(said, "3 turns") {
		t.Errorf("three turns at least:\n%s", said)
	}
	if said, _ = child(t, "TestChildTurns"); !strings.Contains(said, "2 turns") {
		t.Errorf("two turns:\n%s", said)
	}
	if said, _ = child(t, "TestChildTurns", "BELLWIRE_SOAK=1"); !strings.Contains(said, "want how long") {
		t.Errorf("a time that is none:\n%s", said)
	}
}

func sortNumbers(all []string) {
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
}
