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

// A delivery takes the acknowledgements of its QoS, in their order (5.0 4.3);
// any other changes nothing, and ends the connection (5.0 [MQTT-4.13.1-1]). A
// PUBREC may come again: its PUBREL is sent again.
func TestOnlyItsAcknowledgementsEndADelivery(t *testing.T) {
	for _, way := range []struct {
		qos   uint8
		takes []Settlement // in this order
	}{
		{1, []Settlement{Acked}},
		{2, []Settlement{Rejected}},
		{2, []Settlement{Received, Completed}},
	} {
		for _, expiry := range []uint32{0, 3600} {
			n := newNode(t, Limits{})
			c, _ := n.connect("sub", true, expiry)
			c.subscribe("x", 2)
			must(t, c.publish("x", "e", way.qos))
			c.await(1)
			id := c.got[0].id
			for i, next := range way.takes {
				for what := Acked; what <= Completed; what++ {
					good := what == next || i == 0 && way.qos == 2 && (what == Received || what == Rejected) || i == 1 && what == Received
					if good {
						continue
					}
					if err := c.answer(id, what); !errors.Is(err, ErrWrongAck) {
						t.Errorf("QoS %d, expiry %d, after %d: settlement %d: got %v, want %v", way.qos, expiry, i, what, err, ErrWrongAck)
					}
				}
				if err := c.answer(id, next); err != nil {
					t.Errorf("QoS %d, expiry %d: settlement %d: %v", way.qos, expiry, next, err)
				}
				if next == Received {
					c.wait("PUBREL", func() bool { return len(c.released) == 1 })
				}
			}
			for what := Acked; what <= Completed; what++ {
				if err := c.answer(id, what); !errors.Is(err, ErrNoPacketID) {
					t.Errorf("QoS %d, expiry %d, over: settlement %d: got %v, want %v", way.qos, expiry, what, err, ErrNoPacketID)
				}
			}
		}
	}
}
