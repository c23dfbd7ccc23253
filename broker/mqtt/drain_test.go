package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A server that is drained sends its clients away, a few at a time, and takes no new
// ones until it is resumed; sessions that outlast their connections are kept.
func TestDrain(t *testing.T) {
	n := newNode(t, Limits{})
	n.srv.elsewhere = func() string { return "n2.example.com:1883" }
	var all []*client
	for i := range 30 {
		all = append(all, n.connect(5, fmt.Sprintf("c%d", i), keep(3600)))
	}
	old := n.connect(4, "old")

	// Ten a second: after the first beat most are still served.
	ctx, cancel := context.WithCancel(t.Context())
	drained, began := make(chan error, 1), time.Now()
	go func() { drained <- n.srv.Drain(ctx, 10) }()
	eventually(t, "one is sent away", func() bool { return n.srv.stats.Clients.Load() < 31 })
	left := int(n.srv.stats.Clients.Load())
	took := time.Since(began)
	if beats := 1 + int(took/drainBeat); left < 31-beats*max(1, int(10*drainBeat/time.Second)) {
		t.Errorf("%d clients left of 31 after %v", left, took)
	}
	cancel()
	if err := <-drained; !errors.Is(err, context.Canceled) && (err != nil || time.Since(began) < 31*drainBeat) { // nil: it was done before
		t.Errorf("Drain returned %v", err)
	}

	if err := n.srv.Drain(t.Context(), 10_000); err != nil {
		t.Errorf("Drain returned %v", err)
	}
	for _, c := range all {
		if got := c.next(); !strings.HasPrefix(got, "DISCONNECT 9c server=n2.example.com:1883 reason=") {
			t.Errorf("got %s, want to be told which other server to use", got)
		}
		c.end()
	}
	old.end()

	c := n.dial()
	c.version = 5
	c.send(connectBytes(5, "c0", keep(3600)))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 9c server=n2.example.com:1883 reason=") {
		t.Errorf("got %s, want to be told which other server to use", got)
	}
	c.end()
	n.srv.elsewhere = func() string { return "" }
	c = n.dial()
	c.version = 5
	c.send(connectBytes(5, "c0", keep(3600)))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 9c reason=") {
		t.Errorf("got %s, want to be told to use another server", got)
	}
	c.end()
	// What the client takes at most is kept to.
	n.srv.elsewhere = func() string { return strings.Repeat("n", 200) }
	c = n.dial()
	c.version = 5
	c.send(connectBytes(5, "c0", keep(3600), func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 150 }))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 9c reason=") {
		t.Errorf("got %s, want no more than it takes", got)
	}
	c.end()
	c = n.dial()
	c.send(connectBytes(4, "old"))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 03") {
		t.Errorf("got %s, want that the server is unavailable", got)
	}
	c.end()

	n.srv.Resume()
	c = n.dial()
	c.version = 5
	c.send(connectBytes(5, "c0", keep(3600), func(pk *packets.Packet) { pk.Connect.Clean = false }))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 00 present") {
		t.Errorf("got %s, want the session that there was", got)
	}
}
