package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/mqtttest"
)

// nodesLine is the first line of a dev --nodes that is no terminal's.
type nodesLine struct {
	readyLine
	Nodes []readyLine `json:"nodes"`
}

// startDevNodes starts a dev of several nodes as a process of its own.
func startDevNodes(t *testing.T, args ...string) (nodesLine, *exec.Cmd, *bufio.Reader, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"dev", "--nodes", "3", "--port", "0"}, args...)...)
	cmd.Args[0] = "bellwire"
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	var notes bytes.Buffer
	cmd.Stderr = &notes
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	in := bufio.NewReader(out)
	text, err := in.ReadBytes('\n')
	var line nodesLine
	if err != nil || json.Unmarshal(text, &line) != nil || len(line.Nodes) != 3 || !reflect.DeepEqual(line.readyLine, line.Nodes[0]) {
		t.Fatalf("%v: %q", err, text)
	}
	return line, cmd, in, &notes
}

// gone waits until nobody listens at an address.
func gone(t *testing.T, address string) {
	t.Helper()
	deadline := time.Now().Add(mqtttest.Patience)
	for {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		// Whoever listens keeps the connection until it ends or gives up on it.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = c.Read(make([]byte, 1))
		c.Close()
		if time.Now().After(deadline) {
			t.Fatalf("%s still listens", address)
		}
	}
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Three nodes are one broker; one of them can be killed, the others go on; and all
// end with the process that has started them.
func TestDevNodes(t *testing.T) {
	t.Parallel()
	line, cmd, _, notes := startDevNodes(t)
	sub := startSub(t, "-p", portOf(t, line.Nodes[2].MQTT), "-t", "home/#", "-q", "1")
	publish := func(n int, message string) {
		t.Helper()
		deadline := time.Now().Add(mqtttest.Patience)
		for {
			got := bellwire(t, "", "pub", "-p", portOf(t, line.Nodes[n].MQTT), "-q", "1", "-r", "-t", "home/"+message, "-m", message)
			if got.code == 0 {
				return
			}
			if got.code != exitUnreachable || time.Now().After(deadline) { // there is no leader for a moment
				t.Fatalf("%+v", got)
			}
		}
	}
	publish(1, "one")
	if got := sub.next(t, 1); got != "one\n" {
		t.Errorf("got %q", got)
	}
	if got := bellwire(t, "", "cluster", "join", "n3", "--wait", "1m", "--server", line.HTTP); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if err := syscall.Kill(line.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, line.MQTT)
	publish(1, "two")
	if got := sub.next(t, 1); got != "two\n" {
		t.Errorf("got %q", got)
	}
	sub.end()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(notes.String(), "node n1 has ended: signal: killed; 2 nodes left\n") {
		t.Errorf("%v: %s", err, notes)
	}
	for _, n := range line.Nodes {
		gone(t, n.MQTT)
	}
}

// Nodes do not outlive the process that has started them, whatever it dies of, and
// leave no keys behind.
func TestDevNodesKilled(t *testing.T) {
	t.Parallel()
	line, cmd, _, _ := startDevNodes(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // as it was killed
	for _, n := range line.Nodes {
		gone(t, n.MQTT)
	}
	tmp := strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "TMPDIR=")
	deadline := time.Now().Add(mqtttest.Patience)
	for {
		left, err := filepath.Glob(filepath.Join(tmp, "bellwire-dev-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q", left)
		}
	}
}

// The demo runs on the first of several nodes, and its end is theirs.
func TestDevNodesDemo(t *testing.T) {
	t.Parallel()
	_, cmd, out, notes := startDevNodes(t, "--demo", "--for", "1s")
	text, err := io.ReadAll(out)
	if err != nil || !bytes.Contains(text, []byte("delivered ")) || !bytes.Contains(text, []byte("withheld by policy")) {
		t.Errorf("no demo in %q, %v", text, err)
	}
	if err := cmd.Wait(); err != nil || notes.Len() > 0 {
		t.Errorf("%v: %s", err, notes)
	}
}

// What cannot be started says why.
func TestDevNodesRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--nodes", "0"}, exitUsage, "--nodes 0 is not between 1 and 7"},
		{[]string{"--nodes", "8"}, exitUsage, "--nodes 8 is not between 1 and 7"},
		{[]string{"--nodes", "3", "--port", portOf(t, l.Addr().String())}, exitFailed, "is taken by bellwire.test"},
		{[]string{"--nodes", "2", "--port", "0", "--domain", "no domain"}, exitFailed, "BW-"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), mqtttest.Patience)
		var stdout, stderr bytes.Buffer
		code := run(ctx, append([]string{"dev"}, c.args...), strings.NewReader(""), &stdout, &stderr)
		cancel()
		if code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%q: %d, %s", c.args, code, stderr.String())
		}
	}
}
