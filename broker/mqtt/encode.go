package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/internal/wire"
)

// dirty sees to it that somebody flushes what is about to be queued: whoever
// writes at the moment will see it; else w is told, also if the flush was put
// off and there is enough for a write by now. With mu held.
func (c *conn) dirty(w *broker.Wave) {
	if !c.marked && !c.writing || c.held && c.out.n > holdBytes {
		c.marked, c.held = true, false
		w.Mark(c)
	}
}

// putAck queues an acknowledgement. An MQTT 5 one has the code only if it is
// not success or properties follow it: the Reason String if there is one and
// the client wants it, and props, each if it fits the packets that the client
// takes. With mu held, and dirty.
func (c *conn) putAck(packet byte, id uint16, code byte, reason string, props []byte) {
	first := packet << 4
	if packet == packets.Pubrel {
		first |= 2
	}
	c.sent[packet]++
	if len(props)+maxHeader+3 > c.maxPacket {
		props = nil
	}
	if c.version < 5 || code == codeSuccess && len(props) == 0 {
		b := c.out.room(4)
		b[0], b[1], b[2], b[3] = first, 2, byte(id>>8), byte(id)
		return
	}
	code = legal(packet, code)
	reason = c.reasonString(code, reason, maxHeader+3+len(props))
	n := len(props)
	if reason != "" {
		n += 3 + len(reason)
	}
	if n == 0 {
		b := c.out.room(5)
		b[0], b[1], b[2], b[3], b[4] = first, 3, byte(id>>8), byte(id), code
		return
	}
	rest := 3 + wire.VarintLen(n) + n
	b := c.out.room(packetSize(rest))
	b[0] = first
	b = b[1+putVarint(b[1:], rest):]
	binary.BigEndian.PutUint16(b, id)
	b[2] = code
	b = b[3+putVarint(b[3:], n):]
	if reason != "" {
		b[0] = packets.PropReasonString
		binary.BigEndian.PutUint16(b[1:], uint16(len(reason)))
		b = b[3+copy(b[3:], reason):]
	}
	copy(b, props)
}

// put queues a packet that is sent rarely and that the codec encodes. If it is
// larger than the client takes, it is not, and false is returned. With mu held,
// and dirty.
func (c *conn) put(pk *packets.Packet) bool {
	pk.ProtocolVersion = c.version
	b := encodeRare(pk)
	if len(b) > c.maxPacket {
		return false
	}
	c.sent[pk.FixedHeader.Type]++
	c.out.add(b)
	return true
}

// putDisconnect queues a DISCONNECT. With mu held, and dirty or about to be
// flushed.
func (c *conn) putDisconnect(code byte, reason string) {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}}
	pk.ReasonCode = legal(packets.Disconnect, code)
	n := c.refer(pk, maxHeader+2)
	pk.Properties.ReasonString = c.reasonString(code, reason, n)
	c.put(pk)
}

// refer has pk name another server, if it sends the client there, one is known, and
// the client takes a packet that has its address beside n other bytes. It returns how
// many bytes there are with it.
func (c *conn) refer(pk *packets.Packet, n int) int {
	if c.version < 5 || pk.ReasonCode != codeUseAnother || c.srv.elsewhere == nil {
		return n
	}
	to := c.srv.elsewhere()
	if to == "" || c.maxPacket < n+maxVarint+3+len(to) {
		return n
	}
	pk.Properties.ServerReference = to
	return n + 3 + len(to)
}

// encodeRare has the codec encode pk. PUBLISH and the acknowledgements of it
// have encoders of their own: of the first the codec drops properties, of the
// others reason codes.
func encodeRare(pk *packets.Packet) []byte {
	var b bytes.Buffer
	var err error
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackEncode(&b)
	case packets.Suback:
		err = pk.SubackEncode(&b)
	case packets.Unsuback:
		err = pk.UnsubackEncode(&b)
	case packets.Disconnect:
		err = pk.DisconnectEncode(&b)
	case packets.Auth:
		err = pk.AuthEncode(&b)
	default:
		panic(fmt.Sprintf("mqtt: the codec is not asked to encode packet type %d", pk.FixedHeader.Type))
	}
	if err != nil {
		panic(fmt.Sprintf("mqtt: the codec cannot encode our own packet: %v", err))
	}
	return b.Bytes()
}
