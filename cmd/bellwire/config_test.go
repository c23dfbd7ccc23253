package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/spf13/pflag"

	"github.com/bellwire/bellwire/broker/mqtt"
)

// What serve says of command lines and files that are wrong, all of it before
// anything is begun:
//
//	file name=NAME     writes a file
//	serve              [VARIABLE=VALUE …] ARGUMENT …; the exit code and standard error
//	restore            ARGUMENT …; the same
//
// -rewrite records what is; commit only a difference you understand.
func TestServeTellsAllFaults(t *testing.T) {
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Chdir(t.TempDir())
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "file":
				var name string
				d.ScanArgs(t, "name", &name)
				if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(d.Input), 0o600); err != nil {
					t.Fatal(err)
				}
				return ""
			case "restore":
				got := bellwire(t, "", append([]string{"restore"}, strings.Fields(d.Input)...)...)
				return fmt.Sprintf("exit code %d\n%s", got.code, got.stderr)
			case "serve":
				args := strings.Fields(d.Input)
				for len(args) > 0 && strings.HasPrefix(args[0], "BELLWIRE_") {
					name, value, _ := strings.Cut(args[0], "=")
					t.Setenv(name, value)
					defer os.Unsetenv(name)
					args = args[1:]
				}
				got := bellwire(t, "", append([]string{"serve"}, args...)...)
				if got.stdout != "" {
					t.Errorf("%s: it serves: %s", d.Pos, got.stdout)
				}
				return fmt.Sprintf("exit code %d\n%s", got.code, got.stderr)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

// The command line counts most, then the environment, then the configuration
// file, then the default. Relative paths begin where they were said.
func TestPrecedence(t *testing.T) {
	file := writeFile(t, "bellwire.yaml", `node: file
domain: file.example
data: data
mqtt: {addr: "127.0.0.1:1"}
http: {addr: "127.0.0.1:2"}
cluster: {listen: "127.0.0.1:3", advertise: "n1.example.com:3", advertise_mqtt: "mqtt.example.com:1", join: ["n2:3", "n3:3"], bootstrap: true, name: prod, tls: tls, non_voter: true, remove_dead_after: 3d}
policy: policy.yaml
limits: /etc/limits.yaml
allow_anonymous: true
sys_interval: 30s
hold_level: 1
pprof: true
verbose: true
`)
	rows := writeFile(t, "bellwire.yaml", "limits: {connections: 5}\n")
	dir := filepath.Dir(file)
	ofFile := serveFlags{
		config: file, node: "file", domain: "file.example", data: dir + "/data", mqtt: "127.0.0.1:1", http: "127.0.0.1:2",
		member: clusterFlags{listen: "127.0.0.1:3", advertise: "n1.example.com:3", advertiseMQTT: "mqtt.example.com:1", join: "n2:3,n3:3", bootstrap: true, name: "prod", tls: dir + "/tls", nonVoter: true, removeDead: 72 * time.Hour},
		policy: dir + "/policy.yaml", limits: "/etc/limits.yaml", allowAnonymous: true, holdLevel: 1, sysInterval: 30 * time.Second, pprof: true, verbose: true,
	}
	five := limits{mqtt: mqtt.Limits{Connections: 5}}
	with := func(f serveFlags, change func(*serveFlags)) serveFlags {
		change(&f)
		return f
	}
	defaults := serveFlags{node: "n1", mqtt: "127.0.0.1:1883", sysInterval: sysInterval}
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		want serveFlags
	}{
		{"defaults", nil, nil, defaults},
		{"file", []string{"-f", file}, nil, ofFile},
		{"file named by the environment", nil, map[string]string{"BELLWIRE_CONFIG": file}, ofFile},
		{
			"environment before default", nil,
			map[string]string{"BELLWIRE_NODE": "env", "BELLWIRE_DATA": "data", "BELLWIRE_ALLOW_ANONYMOUS": "true"},
			with(defaults, func(f *serveFlags) { f.node, f.data, f.allowAnonymous = "env", "data", true }),
		},
		{
			"environment before file",
			[]string{"-f", file},
			map[string]string{"BELLWIRE_NODE": "env", "BELLWIRE_DATA": "data", "BELLWIRE_MQTT": ":0", "BELLWIRE_ALLOW_ANONYMOUS": "false"},
			with(ofFile, func(f *serveFlags) { f.node, f.data, f.mqtt, f.allowAnonymous = "env", "data", ":0", false }),
		},
		{
			"flag before environment and file",
			[]string{"-f", file, "--node", "flag", "--policy", "p.yaml", "--allow-anonymous=false", "--http", ""},
			map[string]string{"BELLWIRE_NODE": "env", "BELLWIRE_POLICY": "env.yaml", "BELLWIRE_HTTP": "127.0.0.1:3"},
			with(ofFile, func(f *serveFlags) { f.node, f.policy, f.allowAnonymous, f.http = "flag", "p.yaml", false, "" }),
		},
		{
			"a flag that says the default counts, too",
			[]string{"-f", file, "--node", "n1", "--domain="},
			nil,
			with(ofFile, func(f *serveFlags) { f.node, f.domain = "n1", "" }),
		},
		{
			"flags before the file's cluster",
			[]string{"-f", file, "--cluster", ":4", "--join", "n4:4", "--bootstrap=false", "--cluster-tls", "elsewhere", "--cluster-name=other", "--non-voter=false", "--remove-dead-after", "1h"},
			map[string]string{"BELLWIRE_ADVERTISE": "n9:4", "BELLWIRE_ADVERTISE_MQTT": "m9:4", "BELLWIRE_JOIN": "n5:5"},
			with(ofFile, func(f *serveFlags) {
				f.member = clusterFlags{listen: ":4", advertise: "n9:4", advertiseMQTT: "m9:4", join: "n4:4", name: "other", tls: "elsewhere", removeDead: time.Hour}
			}),
		},
		{"rows in the file", []string{"-f", rows}, nil, with(defaults, func(f *serveFlags) { f.config, f.limitRows = rows, five })},
		{
			"a limits file before rows",
			[]string{"-f", rows},
			map[string]string{"BELLWIRE_LIMITS": "l.yaml"},
			with(defaults, func(f *serveFlags) { f.config, f.limits = rows, "l.yaml" }),
		},
		{"no limits file before rows", []string{"-f", rows, "--limits="}, nil, with(defaults, func(f *serveFlags) { f.config = rows })},
	} {
		var got serveFlags
		flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		got.register(flags)
		lookup := func(name string) (string, bool) { value, ok := c.env[name]; return value, ok }
		if err := flags.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		if err := flagsFromEnv(flags, lookup); err != nil {
			t.Fatal(err)
		}
		if err := got.readConfig(flags.Changed); err != nil {
			t.Fatal(err)
		}
		got.said = nil // the file itself
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

// A node runs as its configuration file says: its name, its listeners, its
// policy, its limits, and its data beside the file.
func TestServeFromConfig(t *testing.T) {
	file := writeFile(t, "bellwire.yaml", `node: n7
domain: example.com
data: data
mqtt: {addr: "127.0.0.1:0"}
http: {addr: "127.0.0.1:0"}
policy: policy.yaml
limits: {packet.bytes: 1KiB}
allow_anonymous: true
`)
	policy := "rules:\n  - {id: home, allow: [publish], who: [anyone], topic: [\"home/#\"]}\n"
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	ended := make(chan int, 1)
	notes := &notesUntil{mark: "policy not changed", seen: make(chan struct{})}
	go func() {
		code := run(ctx, []string{"serve", "-f", file}, strings.NewReader(""), in, notes)
		in.Close()
		ended <- code
	}()
	var line readyLine
	if err := json.NewDecoder(out).Decode(&line); err != nil {
		t.Fatalf("no ready line: %v; exit code %d: %s", err, <-ended, notes.String())
	}
	_, port, err := net.SplitHostPort(line.MQTT)
	if err != nil || !line.Ready || line.Node != "n7" || line.PID != os.Getpid() || !loopbackAddress(line.HTTP) {
		t.Errorf("ready line %+v", line)
	}
	for _, c := range []struct {
		topic   string
		payload string
		code    int
	}{
		{"home/a", "x", 0},
		{"work/a", "x", exitDenied},
		{"home/a", strings.Repeat("x", 1<<10), exitFailed},
	} {
		if got := bellwire(t, "", "pub", "-p", port, "-q", "1", "-t", c.topic, "-m", c.payload); got.code != c.code {
			t.Errorf("%s, %d bytes: %+v, want exit code %d", c.topic, len(c.payload), got, c.code)
		}
	}

	// SIGHUP reads the policy again, and a faulty one is told and changes nothing.
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "policy.yaml"), []byte(strings.Replace(policy, "who", "woh", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-notes.seen:
	case code := <-ended:
		t.Fatalf("ended with %d: %s", code, notes.String())
	}
	if !strings.Contains(notes.String(), `did you mean \"who\"?`) {
		t.Errorf("no advice in the log: %s", notes.String())
	}
	if got := bellwire(t, "", "pub", "-p", port, "-q", "1", "-t", "home/a", "-m", "x"); got.code != 0 {
		t.Errorf("after SIGHUP: %+v", got)
	}

	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("ended with %d: %s", code, notes.String())
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "data", "LOCK")); err != nil {
		t.Errorf("the data is not beside the file: %v", err)
	}
}

// A server may have no listener without TLS: mqtt is none, and others are there.
func TestServeWithoutThePlainListener(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	file := writeFile(t, "bellwire.yaml", fmt.Sprintf("data: %s/data\nmqtt: {addr: none}\nallow_anonymous: true\nlisteners: [{name: local, unix: %s}]\n", dir, socket))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	ended := make(chan int, 1)
	var notes lockedBuffer
	go func() {
		code := run(ctx, []string{"serve", "-f", file}, strings.NewReader(""), in, &notes)
		in.Close()
		ended <- code
	}()
	var line readyLine
	if err := json.NewDecoder(out).Decode(&line); err != nil {
		t.Fatalf("no ready line: %v; exit code %d: %s", err, <-ended, notes.String())
	}
	if line.MQTT != "" || line.Unix != socket {
		t.Errorf("ready line %+v", line)
	}
	if got := bellwire(t, "", "pub", "--unix", socket, "-q", "1", "-t", "a", "-m", "x"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("ended with %d: %s", code, notes.String())
	}
	for _, args := range [][]string{{"--mqtt", "none"}, {"--mqtt", ""}} {
		got := bellwire(t, "", append([]string{"serve", "--data", dir, "--allow-anonymous"}, args...)...)
		if got.code != exitUsage || strings.Contains(got.stderr, "to everybody") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// A data directory that cannot be one is a file's fault: neither in use nor
// ours.
func TestDataDirectoryIsNone(t *testing.T) {
	file := writeFile(t, "data", "")
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		got := bellwire(t, "", "serve", "--data", dir, "--mqtt", "127.0.0.1:0", "--allow-anonymous")
		if got.code != exitFailed || !strings.Contains(got.stderr, "not a directory\n") || !strings.Contains(got.stderr, "BW-2004") || strings.Contains(got.stderr, "in use") {
			t.Errorf("%s: %+v", dir, got)
		}
	}
}
