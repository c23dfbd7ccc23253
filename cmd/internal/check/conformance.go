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

// conformance runs the suites of others against the built binary. They are not ours to
// ship: checkouts of Eclipse paho.mqtt.testing, mosquitto and paho.mqtt.golang lie
// somewhere in the folder, under whatever names. What is not there is not run, and said.
func conformance(ctx context.Context, root, folder string) error {
	start := time.Now()
	found, err := findSuites(folder)
	if err != nil {
		return err
	}
	if err := build(ctx, root); err != nil {
		return err
	}
	differs, err := differences(root)
	if err != nil {
		return err
	}
	var faults []error
	env := append(asBuilt(root), "BELLWIRE_SEQUENCES="+found.sequences)
	results, err := goTest(ctx, os.Stdout, root, false, "", env, "-count=1", "-v", "-timeout=30m", "-run", external, blackbox)
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
	run := func(suite string, f func() (result, error)) error {
		r, err := f()
		results = append(results, r)
		if err == nil && !r.ok {
			faults = append(faults, fmt.Errorf("%s: %d tests failed that should pass", suite, r.failed))
		}
		return err
	}
	for _, module := range []string{"client_test", "client_test5"} {
		if found.paho == "" {
			fmt.Printf("note\tpaho.mqtt.testing %s was not run: %s has no client_test5.py\n", module, folder)
		} else if err := run(module, func() (result, error) { return paho(ctx, root, found.paho, module, differs) }); err != nil {
			return err
		}
	}
	if found.golang == "" {
		fmt.Printf("note\tpaho.mqtt.golang was not run: %s has no fvt_client_test.go\n", folder)
	} else if err := run("paho.mqtt.golang", func() (result, error) { return pahoGolang(ctx, root, found.golang) }); err != nil {
		return err
	}
	printTable(os.Stdout, results)
	return verdict(os.Stdout, results, faults, time.Since(start))
}

//go:embed paho.py
var pahoRunner string

// suites are the folders in which other people's suites lie, empty if they do not.
type suites struct {
	paho      string // of paho.mqtt.testing: interoperability
	sequences string // of mosquitto: test/broker/data
	golang    string // paho.mqtt.golang
}

// findSuites looks for them by files that they alone have.
func findSuites(folder string) (s suites, err error) {
	if folder, err = filepath.Abs(folder); err != nil {
		return s, err
	}
	var look func(path string, d os.DirEntry, err error) error
	look = func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Type()&os.ModeSymlink != 0 && filepath.Dir(path) == folder {
			to, err := filepath.EvalSymlinks(path)
			if err != nil {
				return err
			}
			return filepath.WalkDir(to, look)
		}
		switch dir := filepath.Dir(path); {
		case d.Name() == "client_test5.py":
			s.paho = dir
		case d.Name() == "ZZ-broker-check.json" || d.Name() == "CONNACK.json" && s.sequences == "":
			s.sequences = dir
		case d.Name() == "fvt_client_test.go":
			s.golang = dir
		}
		return nil
	}
	if folder, err = filepath.EvalSymlinks(folder); err == nil {
		err = filepath.WalkDir(folder, look)
	}
	if err == nil && s == (suites{}) {
		err = fmt.Errorf("%s: no suite in it: want checkouts of paho.mqtt.testing, mosquitto or paho.mqtt.golang", folder)
	}
	return s, err
}

// differences reads which tests fail on purpose, and why, by suite and name.
func differences(root string) (map[string]string, error) {
	path := filepath.Join(root, "blackbox", "testdata", "differences.txt")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	why := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		cells := strings.Split(line, " | ")
		if len(cells) != 3 {
			return nil, fmt.Errorf("%s: %q: want suite | case | why", path, line)
		}
		why[cells[0]+" "+cells[1]] = cells[2]
	}
	return why, nil
}

// pahoGolang runs the functional tests of paho.mqtt.golang against one server; they
// want it at port 1883 of the address that they are told.
func pahoGolang(ctx context.Context, root, folder string) (result, error) {
	none := result{pkg: "paho.mqtt.golang"}
	names, err := lines(ctx, root, "sed", "-n", `s/^func \(Test[A-Za-z0-9_]*\).*/\1/p`, filepath.Join(folder, "fvt_client_test.go"))
	if err != nil {
		return none, err
	}
	dir, err := os.MkdirTemp("", "bellwire-paho")
	if err != nil {
		return none, err
	}
	defer os.RemoveAll(dir)
	host := fmt.Sprintf("127.77.%d.%d", os.Getpid()>>8&255, os.Getpid()&255)
	_, _, stop, err := serveFor(ctx, root, filepath.Join(dir, "node"), host+":1883", pahoPolicy)
	if err != nil {
		return none, err
	}
	defer stop()
	results, err := goTest(ctx, os.Stdout, folder, false, "", []string{"TEST_FVT_ADDR=" + host},
		"-count=1", "-v", "-vet=off", "-timeout=10m", "-run", "^("+strings.Join(names, "|")+")$", ".")
	if err != nil || len(results) != 1 {
		return none, fmt.Errorf("paho.mqtt.golang: %d packages, %w", len(results), err)
	}
	if r := results[0]; r.tests != len(names) {
		return r, fmt.Errorf("paho.mqtt.golang: %d tests were run, want %d", r.tests, len(names))
	}
	return results[0], nil
}

// pahoTime is how long one test may take; the slowest wait for half a minute.
const pahoTime = 90 * time.Second

// paho runs one module, each test against a server of its own.
func paho(ctx context.Context, root, folder, module string, known map[string]string) (result, error) {
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
		differs, known := known["paho "+module+" "+name]
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
	host, port, stop, err := serveFor(ctx, root, dir, "127.0.0.1:0", policy)
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

// serveFor starts the built binary in dir, listening at addr, and returns where it does.
func serveFor(ctx context.Context, root, dir, addr, rules string) (host, port string, stop func(), err error) {
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
		"--mqtt", addr, "--domain", "example.com", "--allow-anonymous", "--policy", policy, "--limits", limits)
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
