package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/freeport"
	"github.com/bellwire/bellwire/mqtttest"
)

// A port is had before anybody is served at it: who connects is turned away at once,
// nobody else can take it, and who connects after it was released is served.
func TestHeldPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h, addr := holdPort(l), l.Addr().String()
	for range 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(mqtttest.Patience))
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("it is not turned away: %v", err)
		}
		c.Close()
	}
	if _, err := net.Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("somebody else takes it: %v", err)
	}
	served := h.release()
	defer served.Close()
	go func() {
		if c, err := served.Accept(); err == nil {
			io.WriteString(c, "served")
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(mqtttest.Patience))
	if got, err := io.ReadAll(c); string(got) != "served" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// All addresses that cannot be had are told, each with its flag and what to do; those
// that could be had are free again.
func TestPortsThatCannotBeHad(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := taken.Addr().String()
	c := serverConfig{cluster: net.JoinHostPort("127.0.0.1", freeport.On(t, "127.0.0.1")), mqtt: at, http: "203.0.113.9:8080", logger: slog.New(slog.DiscardHandler)}
	c.listeners = []listenerSpec{{kind: "unix", option: "--unix", addr: filepath.Join(t.TempDir(), "none", "mqtt.sock"), mode: socketMode}}
	_, err = takePorts(t.Context(), &c)
	var notes strings.Builder
	code := report(&notes, err)
	for _, want := range []string{
		"bellwire: --mqtt " + at + ": address already in use by ", "(pid ", "BW-2013",
		"bellwire: --http 203.0.113.9:8080: cannot assign requested address", "BW-2001",
		"mqtt.sock: there is no directory ", "make it, with the right to write",
	} {
		if !strings.Contains(notes.String(), want) {
			t.Errorf("no %q in\n%s", want, notes.String())
		}
	}
	if code != exitFailed || strings.Contains(notes.String(), "--cluster") {
		t.Errorf("exit code %d and\n%s", code, notes.String())
	}
	again, err := net.Listen("tcp", c.cluster)
	if err != nil {
		t.Errorf("what could be had is not free again: %v", err)
	} else {
		again.Close()
	}
}

// A node that cannot listen does nothing else first: no data directory, and its
// cluster hears nothing of it.
func TestTakenPortTouchesNothing(t *testing.T) {
	c := startCluster(t, 1)
	n1 := c.nodes[0]
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--mqtt", "--http", "--cluster"} {
		n, _ := c.begins("n2", "--join", n1.line.Cluster, flag, taken.Addr().String())
		if code := <-n.ended; code != exitFailed {
			t.Errorf("%s: exit code %d", flag, code)
		}
		n.stop = func() {}
		if text := n.notes.String(); !strings.Contains(text, "bellwire: "+flag+" ") || !strings.Contains(text, "BW-2013") || strings.Contains(text, "joined") {
			t.Errorf("%s: %s", flag, text)
		}
		if _, err := os.Stat(filepath.Join(c.dir, "n2")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: there is a data directory: %v", flag, err)
		}
	}
	if all := c.status(n1); len(all) != 1 {
		t.Errorf("members: %+v", all)
	}
	if strings.Contains(n1.notes.String(), "a node joins") {
		t.Errorf("n1 was asked: %s", n1.notes)
	}
}
