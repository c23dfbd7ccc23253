package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// conformance runs the suites of others against the built binary. They are not
// ours to ship: PAHO names the folder `interoperability` of a checkout of
// Eclipse paho.mqtt.testing, BELLWIRE_SEQUENCES the folder `test/broker/data` of
// one of Eclipse mosquitto.
func conformance(ctx context.Context, root string) error {
	start := time.Now()
	if err := build(ctx, root); err != nil {
		return err
	}
	var faults []error
	results, err := goTest(ctx, os.Stdout, root, false, "", asBuilt(root), "-count=1", "-v", "-timeout=30m", "-run", external, blackbox)
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
	if folder := os.Getenv("PAHO"); folder == "" {
		fmt.Println("note\tpaho.mqtt.testing was not run: set PAHO to the folder interoperability of a checkout")
	} else {
		for _, module := range []string{"client_test", "client_test5"} {
			r, err := paho(ctx, root, folder, module)
			if err != nil {
				return err
			}
			results = append(results, r)
			if !r.ok {
				faults = append(faults, fmt.Errorf("%s: %d tests failed that should pass", r.pkg, r.failed))
			}
		}
	}
	printTable(os.Stdout, results)
	return verdict(os.Stdout, results, faults, time.Since(start))
}

//go:embed paho.py
var pahoRunner string

// pahoDiffers lists the tests that we fail on purpose, and why.
var pahoDiffers = map[string]string{
	"client_test5 test_subscribe_failure": "it wants 0x80; we answer precisely, 0x87 (5.0 3.9.3)",
}

// pahoTime is how long one test may take; the slowest wait for half a minute.
const pahoTime = 90 * time.Second

// paho runs one module, each test against a server of its own.
func paho(ctx context.Context, root, folder, module string) (result, error) {
	r := result{pkg: "paho " + module, ok: true}
	start := time.Now()
	dir, err := os.MkdirTemp("", "bellwire-paho")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "paho.py")
	if err := os.WriteFile(script, []byte(pahoRunner), 0o600); err != nil {
		return r, err
	}
	names, err := lines(ctx, root, "python3", script, folder, module, "127.0.0.1", "0")
	if err != nil {
		return r, err
	}
	for _, name := range names {
		word, why := "ok", ""
		err := pahoTest(ctx, root, filepath.Join(dir, name), script, folder, module, name)
		differs, known := pahoDiffers[module+" "+name]
		r.tests++
		switch {
		case err != nil && known:
			word, why = "differs", differs
		case err != nil:
			word, why = "FAIL", err.Error()
			r.failed++
			r.ok = false
		case known:
			word, why = "ok", "though listed as a difference"
		}
		fmt.Printf("%-8s%s %s  %s\n", word, module, name, why)
	}
	r.took = time.Since(start)
	return r, nil
}

func pahoTest(ctx context.Context, root, dir, script, folder, module, name string) error {
	policy := pahoPolicy
	if name == "test_subscribe_failure" {
		policy = pahoPartly
	}
	host, port, stop, err := serveFor(ctx, root, dir, policy)
	if err != nil {
		return err
	}
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, pahoTime)
	defer cancel()
	c := exec.CommandContext(ctx, "python3", script, folder, module, host, port, name)
	c.WaitDelay = time.Second
	out, err := c.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("not finished after %s", pahoTime)
	}
	said := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := len(said) - 1; i >= 0; i-- {
		if strings.Contains(said[i], "Error") {
			return fmt.Errorf("%s", said[i])
		}
	}
	return err
}

// What these suites need of a server: everybody may do everything, but in one
// test, which wants a SUBSCRIBE to be refused; who asks for a longer keep alive
// than a minute is told a minute.
const (
	pahoPolicy = `rules:
  - {id: everybody, allow: [publish, subscribe], who: [anyone], topic: ["#", "$TopicA/#", "$client_test5/#"]}
`
	pahoPartly = `rules:
  - {id: everybody, allow: [publish, subscribe], who: [anyone], topic: ["TopicA/#", "client_test5/#"]}
`
	pahoLimits = "v: 1\ndefault: {keepAlive.max: 60s, receiveMaximum: 100}\n"
)

// serveFor starts the built binary in dir and returns where it listens.
func serveFor(ctx context.Context, root, dir, rules string) (host, port string, stop func(), err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", "", nil, err
	}
	policy, limits := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "limits.yaml")
	for name, text := range map[string]string{policy: rules, limits: pahoLimits} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return "", "", nil, err
		}
	}
	c := exec.CommandContext(ctx, filepath.Join(root, "bin", "bellwire"), "serve", "--data", filepath.Join(dir, "data"),
		"--mqtt", "127.0.0.1:0", "--domain", "example.com", "--allow-anonymous", "--policy", policy, "--limits", limits)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", "", nil, err
	}
	defer log.Close()
	c.Stderr = log
	out, err := c.StdoutPipe()
	if err != nil {
		return "", "", nil, err
	}
	if err := c.Start(); err != nil {
		return "", "", nil, err
	}
	stop = func() {
		c.Process.Signal(os.Interrupt)
		c.Wait()
	}
	var ready struct{ MQTT string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err == nil {
		host, port, err = net.SplitHostPort(ready.MQTT)
	}
	if err != nil {
		stop()
		said, _ := os.ReadFile(log.Name())
		return "", "", nil, fmt.Errorf("bellwire serve: %w\n%s", err, said)
	}
	return host, port, stop, nil
}
