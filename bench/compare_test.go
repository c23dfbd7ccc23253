package bench

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets this program be the generator that a comparison starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "generate" {
		os.Exit(GenerateMain())
	}
	os.Exit(m.Run())
}

func options(t *testing.T) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Peers: "mosquitto", Runs: 1, WarmUp: 50 * time.Millisecond, Measure: 150 * time.Millisecond,
		Root: "..", Dir: t.TempDir(), Results: t.TempDir(), Generator: []string{self, "generate"},
		Out: io.Discard, Log: io.Discard,
	}
}

// A comparison leaves one file, with a header and a line for each run, and
// nothing else: no process, no data.
func TestCompareKeepsResultsAndNothingElse(t *testing.T) {
	if _, err := look("mosquitto"); err != nil {
		t.Skip(err)
	}
	o := options(t)
	o.Scenarios, o.Runs = "a1,c1", 2
	if err := Compare(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(o.Results, "*"))
	if len(files) != 1 {
		t.Fatalf("results %v, want one file", files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"date: 20", "commit: ", "machine: ", "brokers: mosquitto 2", "# A1: ", "# C1: "} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in the results:\n%s", want, b)
		}
	}
	if n := strings.Count(string(b), "\nBenchmark"); n != 4 {
		t.Errorf("%d lines, want 4:\n%s", n, b)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// children returns the living processes that this one has started.
func children() []int { return withField(1, os.Getpid()) } // field 4 of proc(5)

// A comparison that is cancelled ends its broker and its generator at once.
func TestCancelledCompareEndsItsProcesses(t *testing.T) {
	if _, err := look("mosquitto"); err != nil {
		t.Skip(err)
	}
	o := options(t)
	o.Scenarios, o.Measure = "a1", time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for len(children()) < 2 { // a broker and a generator
			<-tick.C
		}
		cancel()
	}()
	if err := Compare(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if left := children(); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
}

// Stopping a process ends all it has started, also what ignores being asked.
func TestStopEndsTheWholeSession(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; wait")
	cmd.Stdout = w
	p, err := cores{}.start(cmd, 0)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 20)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	if pids := session(cmd.Process.Pid); len(pids) != 2 {
		t.Errorf("the session of %d is %v, want it and sleep %s", cmd.Process.Pid, pids, line[:n])
	}
	p.patience = 10 * time.Millisecond
	p.stop()
	if pids := session(cmd.Process.Pid); len(pids) > 0 {
		t.Errorf("left of the session: %v", pids)
	}
}

// A broker that does not start is an error that tells what it said.
func TestBrokerThatDoesNotStart(t *testing.T) {
	_, err := (env{}).launch(context.Background(), "127.0.0.1:1", "", "", "sh", "-c", "echo no such directory >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no such directory") {
		t.Errorf("error %v", err)
	}
}

// The ready line is found among others, and what follows it is read away.
func TestReadyLine(t *testing.T) {
	script := filepath.Join(t.TempDir(), "bellwire")
	err := os.WriteFile(script, []byte(`#!/bin/sh
echo starting
echo '{"ready":true,"node":"n1","mqtt":"127.0.0.1:7","http":"http://127.0.0.1:8"}'
head -c 1000000 /dev/zero
exec sleep 60
`), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	b, err := startBellwire(context.Background(), env{}, script, t.TempDir(), Scenario{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.stop()
	if b.addr != "127.0.0.1:7" || b.http != "127.0.0.1:8" {
		t.Errorf("got %q and %q", b.addr, b.http)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, o := range []Options{{Scenarios: "a9", Peers: "mosquitto"}, {Scenarios: "a1", Peers: "emqx"}} {
		o.Dir, o.Log, o.Out = t.TempDir(), io.Discard, io.Discard
		if err := Compare(context.Background(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
