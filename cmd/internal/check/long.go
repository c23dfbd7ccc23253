package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// soak runs all tests with their long seeds. It has no budgets: it ends when
// it has ended.
func soak(ctx context.Context, root string) error {
	start := time.Now()
	if err := build(ctx, root); err != nil {
		return err
	}
	results, err := goTest(ctx, os.Stdout, root, "", []string{"BELLWIRE_SOAK=1"}, "-count=1", "-p=1", "-timeout=6h", "./...")
	printTable(os.Stdout, results)
	var faults []error
	if err != nil {
		faults = append(faults, err)
	}
	for _, r := range results {
		if !r.ok {
			faults = append(faults, fmt.Errorf("%s: %d tests failed", short(r.pkg), r.failed))
		}
		for _, s := range r.skipped {
			fmt.Printf("note\t%s: %s was skipped: %s\n", short(r.pkg), s.test, s.why)
		}
	}
	return verdict(os.Stdout, results, faults, time.Since(start))
}

// fuzz runs every fuzz target of the tree in turn, each for the given time.
func fuzz(ctx context.Context, root, duration string) error {
	if _, err := time.ParseDuration(duration); err != nil {
		return fmt.Errorf("fuzz: %w", err)
	}
	list, err := lines(ctx, root, "go", "test", "-list", "^Fuzz", "./...")
	if err != nil {
		return err
	}
	targets := 0
	for _, t := range fuzzTargets(list) {
		targets++
		fmt.Printf("== fuzz %s %s\n", short(t.pkg), t.name)
		err := command(ctx, root, nil, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", duration, t.pkg)
		if err != nil {
			return err
		}
	}
	if targets == 0 {
		return fmt.Errorf("fuzz: no target found")
	}
	fmt.Printf("%d fuzz targets, %s each, nothing found\nPASS\n", targets, duration)
	return nil
}

type target struct{ pkg, name string }

// fuzzTargets reads `go test -list`: names first, then the package's line.
func fuzzTargets(list []string) []target {
	var targets []target
	var names []string
	for _, line := range list {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1 && strings.HasPrefix(fields[0], "Fuzz"):
			names = append(names, fields[0])
		case len(fields) >= 2 && fields[0] == "ok":
			for _, name := range names {
				targets = append(targets, target{fields[1], name})
			}
			names = nil
		}
	}
	return targets
}
