package mqtt

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

const welcome5 = "CONNACK 00 receive=256 packet=262144 aliases=16 shared=0"

// A client of each version connects, subscribes, publishes with each QoS, gets
// its events and leaves.
func TestConversation(t *testing.T) {
	n := newNode(t, Limits{})
	for _, version := range []byte{3, 4, 5} {
		v5 := version == 5
		c := n.dial()
		c.version = version
		c.send(connectBytes(version, "c"))
		props := []byte{}
		if v5 {
			c.want(welcome5)
			props = []byte{0}
		} else {
			c.want("CONNACK 00")
		}
		c.send(packet(0x82, u16(1), props, "a/+", 2))
		c.want("SUBACK id=1 02")
		c.send(packet(0x30, "a/b", props, []byte("zero")))
		c.want("PUBLISH a/b=zero q0")
		c.send(packet(0x32, "a/b", u16(7), props, []byte("one")))
		got := map[string]bool{c.next(): true, c.next(): true}
		if !got["PUBLISH a/b=one q1 id=1"] || !got["PUBACK id=7 00"] {
			t.Errorf("version %d: got %v", version, got)
		}
		c.send(packet(0x40, u16(1)))
		c.send(packet(0x34, "a/b", u16(8), props, []byte("two")))
		got = map[string]bool{c.next(): true, c.next(): true}
		if !got["PUBLISH a/b=two q2 id=2"] || !got["PUBREC id=8 00"] {
			t.Errorf("version %d: got %v", version, got)
		}
		c.send(packet(0x62, u16(8)))
		c.want("PUBCOMP id=8 00")
		c.send(packet(0x50, u16(2)))
		c.want("PUBREL id=2 00")
		c.send(packet(0x70, u16(2)))
		c.send(packet(0xa2, u16(3), props, "a/+"))
		if v5 {
			c.want("UNSUBACK id=3 00")
		} else {
			c.want("UNSUBACK id=3")
		}
		c.send(packet(0x30, "a/b", props, []byte("nobody")))
		c.ping()
		c.send([]byte{0xe0, 0})
		c.want("closed")
	}
	if got := n.srv.stats.Ends[0].Load(); got != 3 {
		t.Errorf("%d normal ends counted, want 3", got)
	}
	if got := n.srv.stats.PacketsIn[packets.Publish].Load(); got != 12 {
		t.Errorf("%d PUBLISHes counted, want 12", got)
	}
}
