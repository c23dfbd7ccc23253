package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
)

// Each line of the tables is a test that there is, where it says.
func TestListedTestsAreThere(t *testing.T) {
	const root = "../../.."
	listed := map[string][]string{} // names of tests to packages
	for _, one := range effort.Tests {
		name, _, _ := strings.Cut(one.Name, "/")
		if !slices.Contains(listed[name], one.Package) {
			listed[name] = append(listed[name], one.Package)
		}
	}
	for _, one := range effort.Long {
		for _, name := range one.Tests {
			listed[name] = append(listed[name], one.Package)
		}
	}
	there := map[string][]string{}
	tests := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		for _, m := range tests.FindAllSubmatch(text, -1) {
			there[string(m[1])] = append(there[string(m[1])], filepath.ToSlash(dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, packages := range listed {
		for _, pkg := range packages {
			if !slices.Contains(there[name], pkg) {
				t.Errorf("%s is listed in %s and is in %q", name, pkg, there[name])
			}
		}
	}
}

// The time that is left is shared out by the shares of those to come, and nobody has
// none.
func TestShare(t *testing.T) {
	tests := []effort.Test{{Share: 3}, {Share: 1}, {Share: 2}}
	for _, c := range []struct {
		left  time.Duration
		tests []effort.Test
		want  time.Duration
	}{
		{time.Hour, tests, 30 * time.Minute},
		{time.Hour, tests[1:], 20 * time.Minute},
		{time.Hour, tests[2:], time.Hour},
		{-time.Hour, tests, time.Second},
	} {
		if got := share(c.left, c.tests); got != c.want {
			t.Errorf("%v among %d: got %v, want %v", c.left, len(c.tests), got, c.want)
		}
	}
}

// What tests tell of their seeds is taken, the last word counts, and a failed seed
// is a failed test.
func TestProgressIsTaken(t *testing.T) {
	const events = `{"Action":"attr","Package":"p","Test":"TestA","Key":"tried","Value":"1"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"tried","Value":"2"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"colour","Value":"red"}
{"Action":"fail","Package":"p","Test":"TestA/seed=12"}
{"Action":"attr","Package":"p","Test":"TestA","Key":"seeds","Value":"11-12"}
{"Action":"attr","Package":"p","Test":"TestB","Key":"tried","Value":"7"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}
`
	tally := newTally("", io.Discard)
	if err := tally.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if len(tally.results) != 1 {
		t.Fatalf("got %+v", tally.results)
	}
	r := tally.results[0]
	if a, b := r.soaked["TestA"], r.soaked["TestB"]; a.tried != 2 || a.seeds != "11-12" || b.tried != 7 || b.seeds != "" || r.failed != 1 {
		t.Errorf("got %+v, %+v, %d failed", a, b, r.failed)
	}
	if n := last([]soaked{{seeds: "11-12"}, {seeds: "11-40"}, {}}); n != 40 {
		t.Errorf("the last of all is %d, want 40", n)
	}
}
