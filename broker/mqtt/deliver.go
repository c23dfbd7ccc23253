package mqtt

import (
	"encoding/binary"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/wire"
)

// How an event becomes bytes.
//
// Most subscribers of an event get the same bytes but for the packet
// identifier, so these are made once for each variant (protocol version, QoS,
// retain flag), kept in Event.Frames, and copied into each output, where the
// packet identifier and DUP are patched: a delivery is one memmove.
//
// What differs from client to client are three MQTT 5 properties: Subscription
// Identifiers, Message Expiry Interval and Topic Alias. They come first among
// the properties, so the rest of the packet, [forwarded properties, payload],
// is the same for all again: such a client gets a head of its own, composed in
// its output, and a copy of that rest. The cached frames know nothing of it.
//
//	type, flags | remaining length | topic | packet id | property length |
//	own properties | forwarded properties, payload
//	-------------------- head -------------------------- ---- rest ----
//
// If the rest is larger than inlineMax it is not copied for each client: one
// copy is made, kept as frame 0 of the event (whose other frames are then not
// used), and each output refers to it. Outputs may keep it for as long as
// their sockets are full, so it must never change: it is memory of its own,
// and told from the frames that are used again by its capacity.

// variant is the index in Event.Frames.
func variant(v5 bool, qos byte, retain bool) int {
	i := int(qos) * 2
	if v5 {
		i += event.FrameVariants / 2
	}
	if retain {
		i++
	}
	return i
}

// A shape is how one event looks to one client.
type shape struct {
	topic string // as sent: empty if the alias stands for it
	body  int    // remaining length
	own   int    // bytes of the client's own properties
	props int    // bytes of all properties
	alias uint16 // 0 for none
	v5    bool
	plain bool // it has no properties of its own
	large bool // the rest goes by reference
}

func (s *shape) size() int { return packetSize(s.body) }

// shapeOf computes the shape of d for c. A packet that a new alias would make larger than what
// the client takes goes without. With mu held.
func (c *conn) shapeOf(d *broker.Delivery) shape {
	topic, alias := d.Event.Topic, uint16(0)
	if c.aliasMax > 0 {
		topic, alias = c.aliasFor(topic)
	}
	s := c.shapeWith(d, topic, alias)
	if alias > 0 && topic != "" && s.size() > c.maxPacket {
		s = c.shapeWith(d, topic, 0)
	}
	return s
}

// shapeWith is shapeOf with what stands for the topic.
func (c *conn) shapeWith(d *broker.Delivery, topic string, alias uint16) shape {
	ev := d.Event
	s := shape{v5: c.version == 5, topic: topic, alias: alias}
	rest := len(ev.Payload)
	if d.QoS > 0 {
		s.body = 2
	}
	if s.v5 {
		rest += len(ev.Props)
		if s.alias > 0 {
			s.own += 3
		}
		if d.Expires {
			s.own += 5
		}
		for _, id := range d.IDs {
			s.own += 1 + wire.VarintLen(int(id))
		}
		s.props = s.own + len(ev.Props)
		s.body += wire.VarintLen(s.props)
	}
	s.plain = s.own == 0
	s.large = len(ev.Props)+len(ev.Payload) > inlineMax
	s.body += 2 + len(s.topic) + s.own + rest
	return s
}

// aliasFor returns what stands for topic in the next packet: topic and no
// alias; topic and a new alias; or no topic and a known alias. Topics that are
// shorter than what an alias takes stay as they are.
func (c *conn) aliasFor(topic string) (name string, alias uint16) {
	if len(topic) <= 3 {
		return topic, 0
	}
	if a, ok := c.aliasOut[topic]; ok {
		return "", a
	}
	if len(c.aliasOut) < c.aliasMax && c.aliasOutBytes+len(topic) <= c.limits.aliasBytes() {
		return topic, uint16(len(c.aliasOut) + 1)
	}
	return topic, 0
}

// learn notes the alias that s establishes. What is in the output leaves in
// that order or the connection ends, so the client learns it before it is used.
func (c *conn) learn(s *shape, topic string) {
	if s.alias == 0 || s.topic == "" {
		return
	}
	if c.aliasOut == nil {
		c.aliasOut = make(map[string]uint16)
	}
	c.aliasOut[strings.Clone(topic)] = s.alias
	c.aliasOutBytes += len(topic)
}

// Deliver queues one event; see broker.Sink.
func (c *conn) Deliver(d *broker.Delivery, w *broker.Wave) broker.Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return c.refuse(d, DropEnding)
	}
	s := c.shapeOf(d)
	size := s.size()
	if size > c.maxPacket {
		c.srv.stats.Dropped[DropTooLarge].Add(1)
		return broker.TooLarge
	}
	if c.out.n > 0 && c.out.n+size > c.srv.limits.Load().Output {
		return c.refuse(d, DropFull)
	}
	c.dirty(w)
	c.sent[packets.Publish]++
	c.sentPayload += uint64(len(d.Event.Payload))
	switch {
	case s.large:
		rest := restOf(d.Event)
		if !s.v5 {
			rest = rest[len(d.Event.Props):]
		}
		putHead(c.out.room(size-len(rest)), &s, d)
		c.out.share(rest)
	case s.plain && !d.Wanted: // else it is for this client alone
		putCopy(c.out.room(size), frameOf(&s, d), d)
	default:
		putWhole(c.out.room(size), &s, d)
	}
	c.learn(&s, d.Event.Topic)
	return broker.Sent
}

// refuse turns a delivery away: a QoS 0 event is lost for why, others the
// session keeps. With mu held.
func (c *conn) refuse(d *broker.Delivery, why Drop) broker.Outcome {
	if d.QoS == 0 && !d.Wanted {
		c.srv.stats.Dropped[why].Add(1)
	} else if why == DropFull {
		c.srv.stats.Full.Add(1)
		c.full = true
	}
	return broker.Full
}

// Release queues a PUBREL; see broker.Sink.
func (c *conn) Release(packetID uint16, w *broker.Wave) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	c.dirty(w)
	c.putAck(packets.Pubrel, packetID, codeSuccess, "", nil)
}

// firstByte is the first byte of a PUBLISH.
func firstByte(qos byte, retain, dup bool) byte {
	b := byte(packets.Publish<<4) | qos<<1
	if retain {
		b |= 1
	}
	if dup {
		b |= 1 << 3
	}
	return b
}

// frameOf returns the frame that all share whose shape is s, without packet
// identifier and DUP; it makes it if it is the first to want it.
func frameOf(s *shape, d *broker.Delivery) []byte {
	slot := &d.Event.Frames[variant(s.v5, d.QoS, d.Retain)]
	if size := s.size(); len(*slot) != size {
		b := *slot
		if cap(b) > inlineMax || cap(b) < size { // too small, or shared with outputs
			b = make([]byte, size)
		}
		b = b[:size]
		plain := broker.Delivery{Event: d.Event, QoS: d.QoS, Retain: d.Retain}
		putWhole(b, s, &plain)
		*slot = b
	}
	return *slot
}

// putCopy copies frame to b, which is as long, and makes it d's.
func putCopy(b, frame []byte, d *broker.Delivery) {
	copy(b, frame)
	if d.Dup {
		b[0] |= 1 << 3
	}
	if d.QoS > 0 {
		at := 1
		for b[at] >= 0x80 {
			at++
		}
		binary.BigEndian.PutUint16(b[at+1+2+len(d.Event.Topic):], d.PacketID)
	}
}

// restOf returns forwarded properties and payload of a large event, in memory
// that never changes.
func restOf(ev *event.Event) []byte {
	if n := len(ev.Props) + len(ev.Payload); len(ev.Frames[0]) != n {
		ev.Frames[0] = append(append(make([]byte, 0, n), ev.Props...), ev.Payload...)
	}
	return ev.Frames[0]
}

// putWhole writes all of a PUBLISH to b, which has its size.
func putWhole(b []byte, s *shape, d *broker.Delivery) {
	n := putHead(b, s, d)
	if s.v5 {
		n += copy(b[n:], d.Event.Props)
	}
	copy(b[n:], d.Event.Payload)
}

// putHead writes a PUBLISH up to the forwarded properties, and returns the
// number of bytes.
func putHead(b []byte, s *shape, d *broker.Delivery) int {
	b[0] = firstByte(d.QoS, d.Retain, d.Dup)
	n := 1 + putVarint(b[1:], s.body)
	binary.BigEndian.PutUint16(b[n:], uint16(len(s.topic)))
	n += 2
	n += copy(b[n:], s.topic)
	if d.QoS > 0 {
		binary.BigEndian.PutUint16(b[n:], d.PacketID)
		n += 2
	}
	if !s.v5 {
		return n
	}
	n += putVarint(b[n:], s.props)
	if s.alias > 0 {
		b[n] = packets.PropTopicAlias
		binary.BigEndian.PutUint16(b[n+1:], s.alias)
		n += 3
	}
	if d.Expires {
		b[n] = packets.PropMessageExpiryInterval
		binary.BigEndian.PutUint32(b[n+1:], d.Expiry)
		n += 5
	}
	for _, id := range d.IDs {
		b[n] = packets.PropSubscriptionIdentifier
		n += 1 + putVarint(b[n+1:], int(id))
	}
	return n
}
