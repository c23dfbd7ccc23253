// Command bench compares Bellwire with other brokers and keeps the result:
//
//	go run ./bench/cmd -scenario a1,c3s,d,idle -runs 3
//
// Run it on a machine that does nothing else. See package bench for the method.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bellwire/bellwire/bench"
)

// generator is the first argument of this program when it is the generator.
const generator = "generate"

func main() {
	if len(os.Args) > 1 && os.Args[1] == generator {
		os.Exit(bench.GenerateMain())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := bench.Options{Out: os.Stdout, Log: os.Stderr}
	flag.StringVar(&o.Scenarios, "scenario", "a1,c3s,d,idle", "the `rows` to measure, comma-separated")
	flag.StringVar(&o.Peers, "peers", "mosquitto,nats,mochi,bellwire,bellwire-1", "the `brokers` to measure, comma-separated")
	flag.IntVar(&o.Runs, "runs", 3, "how often to measure each broker in each row")
	flag.DurationVar(&o.Measure, "measure", 2500*time.Millisecond, "how long to measure")
	flag.DurationVar(&o.WarmUp, "warmup", 700*time.Millisecond, "how long to load before measuring")
	flag.IntVar(&o.Idle, "conns", 0, "connections of the idle rows, at most 19000 (default as listed)")
	flag.BoolVar(&o.MQTT5, "mqtt5", false, "speak MQTT 5 instead of 3.1.1, where the broker can")
	flag.BoolVar(&o.Open, "open", false, "then measure latency at half the rate, on a fixed schedule")
	flag.BoolVar(&o.Profile, "profile", false, "keep a CPU profile of bellwire in each row's first run")
	flag.BoolVar(&o.Unpinned, "unpinned", false, "do not pin broker and generator to a core each")
	flag.BoolVar(&o.Strace, "strace", false, "count the syncs of the others with strace; their times do not count then")
	flag.StringVar(&o.Dir, "dir", "", "where brokers keep their data (default the system's temporary directory)")
	flag.StringVar(&o.Results, "results", "", "where to keep the results; \"none\" keeps none (default bench/results)")
	flag.StringVar(&o.Bellwire, "bellwire", "", "`path` of a built bellwire (default: build this checkout's)")
	list := flag.Bool("list", false, "list the rows and end")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("bench: unexpected argument %q", flag.Arg(0))
	}
	if *list {
		for _, s := range bench.Scenarios() {
			fmt.Printf("%-6s %s\n", s.Name, s.What)
		}
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Generator = []string{self, generator}
	if o.Root, err = moduleRoot(ctx); err != nil {
		return err
	}
	switch o.Results {
	case "":
		o.Results = filepath.Join(o.Root, "bench", "results")
	case "none":
		o.Results = ""
	}
	return bench.Compare(ctx, o)
}

// moduleRoot is where the brokers' sources are.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("bench: go env GOMOD: %w", err)
	}
	mod := string(bytes.TrimSpace(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("bench: run it inside the checkout: it builds the brokers from there")
	}
	return filepath.Dir(mod), nil
}
