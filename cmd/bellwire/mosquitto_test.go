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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/freeport"
	"github.com/bellwire/bellwire/mqtttest"
)

// program returns the path of a program that Debian has, or skips.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	t.Skipf("missing: %s, apt-get install %s", name, pkg)
	return ""
}

// startMosquitto starts Debian's broker on a free port of the loopback. With
// passwords, it asks for ana's.
func startMosquitto(t *testing.T, lines ...string) (port string) {
	t.Helper()
	path := program(t, "mosquitto", "mosquitto")
	port = freeport.On(t, "127.0.0.1")
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	if len(lines) == 0 {
		lines = []string{"allow_anonymous true"}
	}
	text := "user root\nlistener " + port + " 127.0.0.1\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", conf)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("mosquitto:\n%s", &log)
		}
	})
	awaitPort(t, port)
	return port
}

// startDev runs `bellwire dev` in this process, on a free port.
func startDev(t *testing.T, args ...string) (port string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan ran, 1)
	go func() {
		var notes bytes.Buffer
		code := run(ctx, append([]string{"dev", "--port", "0"}, args...), strings.NewReader(""), in, &notes)
		in.Close()
		ended <- ran{code: code, stderr: notes.String()}
	}()
	var line readyLine
	if err := json.NewDecoder(out).Decode(&line); err != nil {
		t.Fatalf("dev: %v: %+v", err, <-ended)
	}
	go io.Copy(io.Discard, out)
	t.Cleanup(func() {
		cancel()
		got := <-ended
		var notes strings.Builder
		for note := range strings.Lines(got.stderr) {
			if !strings.Contains(note, `"msg":"a login failed"`) { // as some tests want one to
				notes.WriteString(note)
			}
		}
		if got.code != 0 || got.stdout != "" || notes.Len() > 0 {
			t.Errorf("dev ended with %+v, want nothing but exit code 0", got)
		}
	})
	_, port, err := net.SplitHostPort(line.MQTT)
	if err != nil || !line.Ready {
		t.Fatalf("dev says %+v", line)
	}
	return port
}

// eachBroker runs a test against our broker and against Debian's.
func eachBroker(t *testing.T, test func(t *testing.T, port string)) {
	t.Run("bellwire", func(t *testing.T) { test(t, startDev(t)) })
	t.Run("mosquitto", func(t *testing.T) { test(t, startMosquitto(t)) })
}

func awaitPort(t *testing.T, port string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), mqtttest.Patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("nothing listens on port %s: %v", port, err)
		}
	}
}

// A ran is what a command line left behind.
type ran struct {
	code           int
	stdout, stderr string
}

// bellwire runs one command line in this process.
func bellwire(t *testing.T, stdin string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
	return ran{code, stdout.String(), stderr.String()}
}

// A liveSub is a `bellwire sub` that runs beside the test.
type liveSub struct {
	lines  chan string // what it prints, by line
	ended  chan ran    // its exit code and standard error, once
	cancel context.CancelFunc
}

// startSub runs sub with args and returns when the server has answered its
// SUBSCRIBE. Its output has to be read, or it stops reading too.
func startSub(t *testing.T, args ...string) *liveSub {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	l := &liveSub{lines: make(chan string), ended: make(chan ran, 1), cancel: cancel}
	notes := &notesUntil{mark: "received SUBACK\n", seen: make(chan struct{})}
	go func() {
		code := run(ctx, append([]string{"sub", "-d"}, args...), strings.NewReader(""), in, notes)
		in.Close()
		l.ended <- ran{code: code, stderr: notes.String()}
	}()
	go func() {
		defer close(l.lines)
		r := bufio.NewScanner(out)
		for r.Scan() {
			l.lines <- r.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range l.lines { // until it has ended
		}
	})
	select {
	case <-notes.seen:
	case r := <-l.ended:
		t.Fatalf("sub %q ended: %+v", args, r)
	case <-time.After(mqtttest.Patience):
		t.Fatalf("sub %q: no SUBACK; it says\n%s", args, notes)
	}
	return l
}

// end has it end, whatever it prints meanwhile, and returns how it did.
func (l *liveSub) end() ran {
	l.cancel()
	for range l.lines { // or it might wait for somebody to read it
	}
	return <-l.ended
}

// next returns n lines.
func (l *liveSub) next(t *testing.T, n int) string {
	t.Helper()
	var text strings.Builder
	for range n {
		select {
		case line, ok := <-l.lines:
			if !ok {
				t.Fatalf("sub ended after %q", &text)
			}
			text.WriteString(line + "\n")
		case <-time.After(mqtttest.Patience):
			t.Fatalf("only %q arrived, want %d lines", &text, n)
		}
	}
	return text.String()
}

// notesUntil collects what is written and tells when mark was in it.
type notesUntil struct {
	mark string
	seen chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
	told bool
}

func (n *notesUntil) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text.Write(p)
	if !n.told && bytes.Contains(n.text.Bytes(), []byte(n.mark)) {
		n.told = true
		close(n.seen)
	}
	return len(p), nil
}

func (n *notesUntil) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}
