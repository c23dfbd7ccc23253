package broker

import (
	"fmt"
	"sync"
	"testing"
)

// A narrow is a client that takes only so many deliveries until it is drained.
type narrow struct {
	*client
	room int
	full sync.WaitGroup
}

func (c *narrow) Deliver(d *Delivery, w *Wave) Outcome {
	c.mu.Lock()
	if c.room == 0 {
		c.room = -1
		c.mu.Unlock()
		c.full.Done()
		return Full
	}
	if c.room < 0 {
		c.mu.Unlock()
		return Full
	}
	c.room--
	c.mu.Unlock()
	return c.client.Deliver(d, w)
}

// Present state is complete however little a client takes at a time: none of
// it is lost for want of room, at QoS 0 neither, and none comes twice.
func TestScanWaitsForRoom(t *testing.T) {
	const topics, room = 1000, 37
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	for i := range topics {
		must(t, pub.publish(fmt.Sprintf("r/%04d", i), "v", 1, retain))
	}
	c := &narrow{client: &client{n: n}, room: room}
	c.changed = sync.NewCond(&c.mu)
	c.full.Add(1)
	s, _, _, err := n.Connect(ConnectRequest{Client: "sub", Principal: "sub", Version: 5, Clean: true, ReceiveMax: 10}, c)
	must(t, err)
	c.s = s
	var w Wave
	s.Start(&w)
	c.subscribe("r/#", 0)
	for taken := room; taken < topics; taken += room {
		c.full.Wait()
		c.full.Add(1)
		c.mu.Lock()
		c.room = room
		c.mu.Unlock()
		s.Drained(&w)
	}
	got := c.await(topics)
	for i, g := range got {
		if want := fmt.Sprintf("r/%04d=v q0 retain", i); g != want {
			t.Fatalf("delivery %d is %q, want %q", i, g, want)
		}
	}
}
