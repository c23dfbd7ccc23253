// Command check is the gate: one program that brings a clean checkout on a new
// machine to the answer "this tree may be released, or here is why not".
//
//	check setup           installs what the tests need and the machine lacks
//	check test            everything that must hold
//	check soak TIME SEED [PART...]
//	                      as many seeds from that one on as there is time for, long variants, race detector
//	check fuzz DURATION   every fuzz target in turn, each for DURATION
//	check conformance DIR other people's suites, which lie in DIR, against bin/bellwire
//	check bench           the comparison with peers
//
// Tools are run as `go run path@version`, pinned in gate.go: as requirements
// of the module they would add eight others and raise three of ours.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, release := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer release()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Printf("FAIL\tcheck: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return fmt.Errorf("no verb: want setup, test, soak TIME SEED [PART...], fuzz DURATION, conformance DIR or bench")
	}
	verb, args := args[0], args[1:]
	switch {
	case verb == "setup" && len(args) == 0:
		return setup(ctx, root)
	case verb == "test" && len(args) == 0:
		return gate(ctx, root)
	case verb == "soak" && len(args) >= 2:
		return soak(ctx, root, args[0], args[1], args[2:])
	case verb == "fuzz" && len(args) == 1:
		return fuzz(ctx, root, args[0])
	case verb == "conformance" && len(args) == 1:
		return conformance(ctx, root, args[0])
	case verb == "bench":
		return command(ctx, root, nil, "go", append([]string{"run", "./bench/cmd"}, args...)...)
	}
	return fmt.Errorf("%q with %d arguments: want setup, test, soak TIME SEED [PART...], fuzz DURATION, conformance DIR or bench", verb, len(args))
}

// moduleRoot walks up to the go.mod, so that check can be started anywhere in
// the tree.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the current directory")
		}
		dir = parent
	}
}
