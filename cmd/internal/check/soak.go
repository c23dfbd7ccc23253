package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
)

// soak is `make soak`: one run that ends when its time is over, or when it has done
// what it must, which may be later. Its parts, in the order in which they are given:
//
//   - long: the tests of effort.Long, in their long variants;
//   - race: all tests under the race detector;
//   - seeds: the tests of effort.Tests one after the other. The time that is left is
//     shared out anew before each of them, so that what one of them took longer is
//     taken from all others alike. So it comes last.
//
// Properties (package fixedseed) are drawn from the first seed. It goes on after a
// fault.
func soak(ctx context.Context, root, duration, seeds string, parts []string) error {
	start := time.Now()
	lasts, err := time.ParseDuration(duration)
	if err != nil || lasts <= 0 {
		return fmt.Errorf("soak for %q: want how long, such as 3h", duration)
	}
	first, err := strconv.ParseUint(seeds, 10, 64)
	if err != nil {
		return fmt.Errorf("soak from seed %q on: want a number", seeds)
	}
	s := &soaking{root: root, first: first, end: start.Add(lasts)}
	all := map[string]func(context.Context) error{"long": s.longVariants, "race": s.underRace, "seeds": s.listed}
	if len(parts) == 0 {
		parts = []string{"long", "race", "seeds"}
	}
	for _, part := range parts {
		if all[part] == nil {
			return fmt.Errorf("soak %q: want parts of long, race and seeds", part)
		}
	}
	fmt.Printf("soaking for %s from seed %d on: %s\n", lasts, first, strings.Join(parts, ", "))
	restore, err := compileOnce()
	if err != nil {
		return err
	}
	defer restore()
	if err := build(ctx, root); err != nil {
		return err
	}
	for _, part := range parts {
		if err := all[part](ctx); err != nil {
			fmt.Printf("FAIL\t%v\n", err)
			s.faults = append(s.faults, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return s.verdict(time.Since(start))
}

// A soaking is a soak on its way.
type soaking struct {
	root    string
	first   uint64    // seed
	end     time.Time // of the time that was given
	results []result
	soaked  []soaked
	faults  []error
}

// A soaked is what became of one line of effort.Tests.
type soaked struct {
	effort.Test
	tried  int
	seeds  string // which; empty for turns
	took   time.Duration
	failed int
}

func (s *soaking) test(ctx context.Context, mode string, env []string, args ...string) ([]result, error) {
	r, err := goTest(ctx, os.Stdout, s.root, false, mode, append(asBuilt(s.root), env...), append([]string{"-count=1", "-vet=off"}, args...)...)
	s.results = append(s.results, r...)
	return r, err
}

// environment is that of a test which soaks for d, from the seeds on that are to be
// tried.
func (s *soaking) environment(d time.Duration) []string {
	return []string{"BELLWIRE_SOAK=" + d.String(), s.seeds()}
}

func (s *soaking) seeds() string { return fmt.Sprintf("BELLWIRE_SEEDS=%d-", s.first) }

// longVariants runs the tests that are longer when soaking and try no seeds.
func (s *soaking) longVariants(ctx context.Context) error {
	var faults []error
	for _, one := range effort.Long {
		_, err := s.test(ctx, "", s.environment(time.Second), "-timeout=2h", "-parallel=1", "-run="+allOf(one.Tests), module+"/"+one.Package)
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// allOf is what -run wants for exactly these tests.
func allOf(tests []string) string { return "^(" + strings.Join(tests, "|") + ")$" }

// underRace runs the whole suite under the race detector, with as many seeds as are
// listed for that; but blackbox, where the detector would see the clients only.
func (s *soaking) underRace(ctx context.Context) error {
	packages, err := lines(ctx, s.root, "go", "list", "./...")
	if err != nil {
		return err
	}
	reports, err := os.MkdirTemp("", "bellwire-races-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(reports)
	rest := slices.DeleteFunc(packages, func(pkg string) bool { return pkg == blackbox })
	_, err = s.test(ctx, "race", []string{raceLog(reports), "CGO_ENABLED=1", s.seeds()}, append([]string{packagesInRace, "-timeout=2h", "-race", "-skip=" + loadsTheBinary}, rest...)...)
	return errors.Join(err, races(os.Stdout, reports))
}

// listed runs the tests of effort.Tests.
func (s *soaking) listed(ctx context.Context) error {
	var faults []error
	for i, one := range effort.Tests {
		d := share(time.Until(s.end), effort.Tests[i:])
		fmt.Printf("== %s %s for %s, %d at least\n", one.Package, one.Name, d, one.Least)
		r, err := s.test(ctx, "", s.environment(d), "-timeout="+(4*d+time.Hour).String(), "-parallel=1",
			"-run="+effort.Pattern(one.Name), module+"/"+one.Package)
		if err != nil {
			faults = append(faults, err)
		}
		if ctx.Err() != nil {
			return errors.Join(append(faults, ctx.Err())...)
		}
		got := soaked{Test: one}
		for _, r := range r {
			p := r.soaked[one.Name]
			got.tried, got.seeds, got.took, got.failed = p.tried, p.seeds, r.took, r.failed
		}
		s.soaked = append(s.soaked, got)
		if got.tried < one.Least && got.failed == 0 {
			faults = append(faults, fmt.Errorf("%s %s: %d were tried, %d are listed as the least: does it call effort.Seeds, or effort.Turns?", one.Package, one.Name, got.tried, one.Least))
		}
	}
	return errors.Join(faults...)
}

// share returns the time of the first of tests, of what there is for all of them.
func share(left time.Duration, tests []effort.Test) time.Duration {
	all := 0
	for _, one := range tests {
		all += one.Share
	}
	return max(left/time.Duration(all)*time.Duration(tests[0].Share), time.Second).Round(time.Second)
}

// verdict prints the tables and the last lines.
func (s *soaking) verdict(took time.Duration) error {
	fmt.Println()
	printTable(os.Stdout, s.results)
	fmt.Println()
	printSoaked(os.Stdout, s.soaked)
	if n := last(s.soaked); n >= s.first {
		fmt.Printf("the next run begins with other seeds by SEEDS=%d\n", n+1)
	}
	for _, r := range s.results {
		if !r.ok {
			s.faults = append(s.faults, fmt.Errorf("%s: %d tests failed", short(r.pkg)+inMode(r.mode), r.failed))
		}
		for _, skipped := range r.skipped {
			fmt.Printf("note\t%s: %s was skipped: %s\n", short(r.pkg)+inMode(r.mode), skipped.test, skipped.why)
		}
	}
	return verdict(os.Stdout, s.results, s.faults, took)
}

// printSoaked shows what was tried of each listed test, and which seeds.
func printSoaked(out io.Writer, all []soaked) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "package\ttest\ttried\tseeds\tfailed\ttime\t")
	for _, one := range all {
		seeds := one.seeds
		if seeds == "" {
			seeds = "turns"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t\n", one.Package, one.Name, one.tried, seeds, one.failed, one.took.Round(time.Second))
	}
	w.Flush()
}

// last returns the last seed that any of them tried.
func last(all []soaked) (seed uint64) {
	for _, one := range all {
		_, to, _ := strings.Cut(one.seeds, "-")
		if n, err := strconv.ParseUint(to, 10, 64); err == nil {
			seed = max(seed, n)
		}
	}
	return seed
}
