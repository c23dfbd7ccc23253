package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// A client that subscribes to one name by every filter there is makes neither
// its deliveries nor its queue larger than what it is charged for.
func TestIdentifiersAreBounded(t *testing.T) {
	const name, levels = "a/a/a/a/a/a/a", 7
	n := newNode(t, Limits{})
	for _, expiry := range []uint32{0, 3600} {
		c, _ := n.connect("greedy", true, expiry)
		for bits := range 1 << levels {
			parts := strings.Split(name, "/")
			for i := range parts {
				if bits>>i&1 != 0 {
					parts[i] = "+"
				}
			}
			c.subscribe(strings.Join(parts, "/"), 1, func(s *event.Subscription) { s.ID = uint32(bits + 1) })
		}
		must(t, c.publish(name, "x", 1))
		got := c.await(1)[0]
		if ids := strings.Count(got, " ") - 2; ids > maxIDs {
			t.Errorf("expiry %d: about %d identifiers on one delivery, want at most %d", expiry, ids, maxIDs)
		}
		if expiry > 0 {
			if size := n.machine.sessions["greedy"].queue.bytes; size < maxIDs*idBytes {
				t.Errorf("the queue is charged %d bytes for an entry of %d identifiers", size, maxIDs)
			}
		}
		c.s.Close(false, false, 0)
	}
}

// A QoS 2 delivery ends by PUBREC and PUBCOMP; a PUBACK is none of its (5.0
// 4.3.3).
func TestPubackDoesNotEndQoS2(t *testing.T) {
	n := newNode(t, Limits{})
	c, _ := n.connect("sub", true, 3600)
	c.subscribe("x", 2)
	must(t, c.publish("x", "e", 2))
	c.await(1)
	var w Wave
	if err := c.s.Settle(c.got[0].id, Acked, &w); !errors.Is(err, ErrNoPacketID) {
		t.Errorf("PUBACK: got %v, want %v", err, ErrNoPacketID)
	}
	if err := c.s.Settle(c.got[0].id, Rejected, &w); err != nil {
		t.Errorf("PUBREC with an error: %v", err)
	}
}
