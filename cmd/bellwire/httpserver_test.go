package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/broker"
)

// One connection too many is closed and counted, those that are served go on, and
// when one of them ends there is room again.
func TestHTTPConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var counts turnedAway
	l := limitConnections(inner, 2, func() int { return 1 }, &counts) // loopback is not one address
	defer l.Close()
	accepted := make(chan net.Conn, 4)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	dial()
	second := <-accepted
	defer second.Close()
	if n, err := dial().Read(make([]byte, 1)); n != 0 || err == nil || counts.full.Load() != 1 {
		t.Errorf("one too many: read %d, %v; %d turned away", n, err, counts.full.Load())
	}
	first.Close()
	first.Close() // counts once
	dial()
	third := <-accepted
	defer third.Close()
	if _, err := dial().Read(make([]byte, 1)); err == nil || counts.full.Load() != 2 {
		t.Errorf("one too many again: %v; %d turned away", err, counts.full.Load())
	}
}

// One address does not take the connections of all others: past its share one
// more is turned away, and counted, until one has ended; an IPv6 /64 is one
// address, and loopback is none.
func TestHTTPConnectionsOfAnAddress(t *testing.T) {
	var counts turnedAway
	l := limitConnections(nil, 8, func() int { return 2 }, &counts).(*limitListener)
	from := func(addr string) netip.Addr { return sharer(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))) }
	enter := func(addr string, want bool) {
		t.Helper()
		if got := l.enter(from(addr)); got != want {
			t.Errorf("from %s: let in %t, want %t", addr, got, want)
		}
	}
	enter("192.0.2.1:1", true)
	enter("[::ffff:192.0.2.1]:2", true)
	enter("192.0.2.1:3", false)
	enter("192.0.2.2:1", true)
	enter("[2001:db8::1]:1", true)
	enter("[2001:db8::2%eth0]:1", true)
	enter("[2001:db8::3]:1", false)
	for range 2 {
		enter("127.0.0.1:1", true)
	}
	l.leave(from("192.0.2.1:1"))
	enter("192.0.2.1:4", true)
	enter("[::1]:1", true)
	enter("[::1]:1", false)
	if counts.address.Load() != 2 || counts.full.Load() != 1 {
		t.Errorf("%d are turned away for their address and %d in all, want 2 and 1", counts.address.Load(), counts.full.Load())
	}
	for _, addr := range []string{"192.0.2.1:1", "192.0.2.1:1", "192.0.2.2:1", "[2001:db8::9]:1", "[2001:db8::9]:1", "127.0.0.1:1", "127.0.0.1:1", "[::1]:1"} {
		l.leave(from(addr))
	}
	if l.open != 0 || len(l.of) != 0 {
		t.Errorf("when all have left, %d are open, of %d addresses", l.open, len(l.of))
	}
}

// Nobody holds a connection for ever, and a trace may take longer than answers do.
func TestHTTPTimes(t *testing.T) {
	s := httpServer(api.Handler(api.Config{Profile: true}))
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("without a bound: %+v", s)
	}
	s.WriteTimeout = 500 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go s.Serve(l)
	r, err := http.Get("http://" + l.Addr().String() + "/debug/pprof/trace?seconds=0.7")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if trace, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 200 || len(trace) == 0 {
		t.Errorf("a trace: %d, %d bytes, %v", r.StatusCode, len(trace), err)
	}
}

// Who fails to sign in over HTTP is counted with those who fail over MQTT.
func TestHTTPFailedLogins(t *testing.T) {
	c := devFlags{domain: "example.com"}.config(os.Stderr)
	c.trust, c.limits.mqtt.FailedLogins, c.logger = trustNobody, 2, slog.New(slog.DiscardHandler)
	s, err := startServer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.shutdown()
	identify := s.resources().Identify
	for range 2 {
		if _, err := identify("bob", "guess", "192.0.2.1:4000"); !errors.Is(err, broker.ErrBadCredentials) {
			t.Errorf("a guess: %v", err)
		}
	}
	_, err = identify("bob", "guess", "192.0.2.7:4000")
	if many, ok := errors.AsType[*api.TooMany](err); !ok || many.RetryAfter != 5*time.Minute {
		t.Errorf("a guess too many: %v", err)
	}
	if got := s.mqtt.Stats().LoginsRefused.Load(); got != 1 {
		t.Errorf("%d refused unseen, want 1", got)
	}
	for _, from := range []string{"192.0.3.1:4000", "127.0.0.1:4000"} {
		if _, err := identify("bob", "guess", from); !errors.Is(err, broker.ErrBadCredentials) {
			t.Errorf("from %s: %v", from, err)
		}
	}
}
