package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A need is a program that tests or benchmarks start, or a file that they read, by its
// path, and the Debian package that has it.
type need struct{ program, pkg string }

var needs = []need{
	{"mosquitto", "mosquitto"},             // a peer, and the broker that pub and sub are compared with
	{"mosquitto_pub", "mosquitto-clients"}, // clients
	{"node", "nodejs"},                     // runs mqtt.js
	{"chromium", "chromium"},               // runs it in a page; 124 MB, half a minute
	{"/usr/include/MQTTClient.h", "libpaho-mqtt-dev"},
	{"/usr/lib/python3/dist-packages/paho/mqtt/client.py", "python3-paho-mqtt"},
	{"mkfs.ext4", "e2fsprogs"}, // the disk whose power is cut
	{"losetup", "mount"},
	{"gcc", "gcc libc6-dev"}, // the race detector
}

// Of these afterwards: some repositories' nodejs brings npm, and conflicts with
// the package of that name.
var thenNeeds = []need{{"npm", "npm"}}

// npmPackage is the strictest MQTT 5 client we know of. The tests look for it
// in .cache/npm/node_modules.
const npmPackage, npmVersion = "mqtt", "5.16.0"

// setup installs what is missing and does nothing, quickly, when nothing is.
func setup(ctx context.Context, root string) error {
	for _, programs := range [][]need{needs, thenNeeds} {
		if err := setupPrograms(ctx, root, programs); err != nil {
			return err
		}
	}
	return setupNPM(ctx, root)
}

func setupPrograms(ctx context.Context, root string, programs []need) error {
	var missing []string
	for _, n := range programs {
		if !installed(n.program) {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	install := "apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("setup: this machine lacks %s and has no apt-get: install them by its own means", strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("setup: this machine lacks %s, and only root may install them: run, as root, apt-get update && %s",
			strings.Join(missing, ", "), install)
	}
	restore, err := forbidServices()
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	defer restore()
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if err := command(ctx, root, env, "apt-get", "update", "-q"); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	if err := command(ctx, root, env, "sh", "-c", install); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	return nil
}

// forbidServices keeps apt-get from starting what it installs: Debian's
// mosquitto would take port 1883, where `bellwire dev` wants to be. A machine
// that has its own policy keeps it.
func forbidServices() (restore func(), err error) {
	const policy = "/usr/sbin/policy-rc.d"
	if _, err := os.Stat(policy); err == nil {
		return func() {}, nil
	}
	if err := os.WriteFile(policy, []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		return nil, err
	}
	return func() { os.Remove(policy) }, nil
}

// installed also looks where root's programs live, for others have no sbin in
// their path.
func installed(program string) bool {
	if filepath.IsAbs(program) {
		_, err := os.Stat(program)
		return err == nil
	}
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return true
		}
	}
	return false
}

func setupNPM(ctx context.Context, root string) error {
	dir := filepath.Join(root, ".cache", "npm")
	manifest, err := os.ReadFile(filepath.Join(dir, "node_modules", npmPackage, "package.json"))
	if err == nil && strings.Contains(string(manifest), fmt.Sprintf(`"version": "%s"`, npmVersion)) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err = command(ctx, root, nil, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--no-save",
		npmPackage+"@"+npmVersion)
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	return nil
}

// command runs a program in dir with its output on ours, and env added to our
// environment.
func command(ctx context.Context, dir string, env []string, name string, args ...string) error {
	return commandTo(ctx, os.Stdout, dir, env, name, args...)
}

// commandTo is command with the standard output elsewhere.
func commandTo(ctx context.Context, out io.Writer, dir string, env []string, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env = dir, append(os.Environ(), env...)
	c.Stdout, c.Stderr = out, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second // then it is killed
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// lines runs a program in dir and returns what it printed on standard output,
// in lines. What it said on standard error is in the error.
func lines(ctx context.Context, dir, name string, args ...string) ([]string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	text, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, exit.Stderr)
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(text), "\n"), "\n"), nil
}
