package broker

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/bellwire/bellwire/broker/event"
)

// noLeaks makes t fail if it leaves a goroutine behind.
func noLeaks(t *testing.T) {
	t.Helper()
	now := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, now) })
}

// Whatever a node is at when it is closed, nothing of it goes on: not the scan
// that waits for a client with no room, not whoever waits for a log that stands
// still, no timer. Everybody who is connected hears of it.
func TestCloseLeavesNothing(t *testing.T) {
	for _, busy := range []struct {
		with  string
		begin func(n *node) (*client, func())
	}{
		{"nothing", func(n *node) (*client, func()) {
			c, _ := n.connect("c", true, 3600)
			return c, func() {}
		}},
		{"a scan that waits for room", waitingScan},
		{"a log that stands still", waitingForLog},
		{"acknowledgements that are still gathered", func(n *node) (*client, func()) {
			c, _ := n.connect("c", true, 3600)
			c.subscribe("x", 1)
			must(n.t, c.publish("x", "e", 1))
			c.await(1)
			c.ackAll()
			return c, func() {}
		}},
	} {
		t.Run(busy.with, func(t *testing.T) {
			noLeaks(t)
			n := newNode(t, Limits{})
			c, end := busy.begin(n)
			n.Broker.Close()
			c.awaitEnd()
			if ends := slices.IndexFunc(c.log, func(s string) bool { return s == "ended: "+ErrClosing.Error() }); ends < 0 {
				t.Errorf("the client was told %q", c.log)
			}
			end()
		})
	}
}

func waitingScan(n *node) (*client, func()) {
	pub, _ := n.connect("pub", true, 0)
	for i := range 300 {
		must(n.t, pub.publish(fmt.Sprint("r/", i), "v", 1, retain))
	}
	c := &narrow{client: &client{n: n, id: "c"}, room: 10}
	c.changed = sync.NewCond(&c.mu)
	c.full.Add(1)
	s, _, _, err := n.Connect(ConnectRequest{Client: "c", Principal: "c", Version: 5, Clean: true, ReceiveMax: 10}, c)
	must(n.t, err)
	var w Wave
	c.s = s
	s.Start(&w)
	c.subscribe("r/#", 0)
	c.full.Wait()
	return c.client, func() {}
}

func waitingForLog(n *node) (*client, func()) {
	c, _ := n.connect("c", true, 3600)
	n.log.mu.Lock() // nothing is ordered any more
	var waiting sync.WaitGroup
	for i := range 3 {
		o := outcome{make(chan error, 1)}
		var w Wave
		logged, err := c.s.Publish(&event.Event{Topic: "x", Payload: []byte("e"), QoS: 1}, uint16(i), o, 0, &w)
		if !logged || err != nil {
			n.t.Fatal(logged, err)
		}
		waiting.Go(func() { <-o.ch })
	}
	waiting.Go(func() { _, _, _ = n.tryConnect("late", true, 0) })
	return c, func() {
		waiting.Wait()
		n.log.mu.Unlock()
	}
}
