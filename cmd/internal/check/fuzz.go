package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// fuzz runs every fuzz target of the tree in turn, each for the given time. It
// goes on after a finding.
func fuzz(ctx context.Context, root, duration string) error {
	if _, err := time.ParseDuration(duration); err != nil {
		return fmt.Errorf("fuzz: %w", err)
	}
	list, err := lines(ctx, root, "go", "test", "-list", "^Fuzz", "./...")
	if err != nil {
		return err
	}
	targets := fuzzTargets(list)
	if len(targets) == 0 {
		return fmt.Errorf("fuzz: no target found")
	}
	var faults []error
	for _, t := range targets {
		fmt.Printf("== fuzz %s %s\n", short(t.pkg), t.name)
		var said bytes.Buffer
		err := commandTo(ctx, io.MultiWriter(os.Stdout, &said), root, nil,
			"go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", duration, t.pkg)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && endedLate(said.String()):
			fmt.Printf("note\t%s %s: its last input was cut off by the end of the time\n", short(t.pkg), t.name)
		case err != nil:
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	fmt.Printf("%d fuzz targets, %s each, nothing found\nPASS\n", len(targets), duration)
	return nil
}

// endedLate says whether all that go test had to tell is that its time was over
// while an input was being tried: it calls that a failure, and has no input to
// show for it.
func endedLate(said string) bool {
	return strings.Contains(said, "\n    context deadline exceeded\n") && !strings.Contains(said, "Failing input written to")
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
