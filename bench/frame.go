package bench

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Packet types, already shifted to where they stand in the first byte.
const (
	typeConnect    = 0x10
	typeConnack    = 0x20
	typePublish    = 0x30
	typePuback     = 0x40
	typePubrec     = 0x50
	typePubrel     = 0x60
	typePubcomp    = 0x70
	typeSubscribe  = 0x80
	typeSuback     = 0x90
	typePingreq    = 0xC0
	typePingresp   = 0xD0
	typeDisconnect = 0xE0
)

const (
	v311 = 4
	v5   = 5
)

// maxFrame bounds what the generator accepts from a broker: far above anything
// it asks for, far below what would hurt.
const maxFrame = 1 << 20

var errFrame = errors.New("malformed packet from the broker")

// nextFrame cuts the first packet off b and returns its first byte, what follows
// its header, and its whole length. A length of 0 means that b ends before the
// packet does.
func nextFrame(b []byte) (first byte, body []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	if l := int(b[1]); l < 0x80 { // nearly every packet of a benchmark
		if len(b) < 2+l {
			return 0, nil, 0, nil
		}
		return b[0], b[2 : 2+l], 2 + l, nil
	}
	l, w, err := varint(b[1:])
	if err != nil || l > maxFrame {
		return 0, nil, 0, fmt.Errorf("%w: remaining length", errFrame)
	}
	if w == 0 || len(b) < 1+w+l {
		return 0, nil, 0, nil
	}
	return b[0], b[1+w : 1+w+l], 1 + w + l, nil
}

// varint reads a variable byte integer and its width, which is 0 when b ends
// too early.
func varint(b []byte) (value, width int, err error) {
	for i := range min(len(b), 4) {
		value |= int(b[i]&0x7F) << (7 * i)
		if b[i] < 0x80 {
			return value, i + 1, nil
		}
	}
	if len(b) >= 4 {
		return 0, 0, fmt.Errorf("%w: variable byte integer", errFrame)
	}
	return 0, 0, nil
}

func appendVarint(b []byte, v int) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendFrame appends a packet whose body is short enough to be copied once
// more; the path of a message does not come by here.
func appendFrame(b []byte, first byte, body []byte) []byte {
	b = append(b, first)
	b = appendVarint(b, len(body))
	return append(b, body...)
}

// keepAlive is what every connection announces, in seconds; no run is that long.
const keepAlive = 600

// appendConnect appends the CONNECT of c. A durable session outlives its
// connection: clean session 0 in 3.1.1, a session expiry of an hour in 5.
// Without a user it is an anonymous one.
func appendConnect(b []byte, c *conn) []byte {
	var flags byte
	if !c.durable || c.version == v5 {
		flags = 0x02 // clean session, clean start: each run has a fresh broker
	}
	if c.user != "" {
		flags |= 0xC0 // user name and password
	}
	body := appendString(nil, "MQTT")
	body = append(body, c.version, flags)
	body = binary.BigEndian.AppendUint16(body, keepAlive)
	if c.version == v5 {
		if c.durable {
			body = append(body, 5, 0x11)
			body = binary.BigEndian.AppendUint32(body, 3600)
		} else {
			body = append(body, 0)
		}
	}
	body = appendString(body, c.name)
	if c.user != "" {
		body = appendString(appendString(body, c.user), c.token)
	}
	return appendFrame(b, typeConnect, body)
}

func appendSubscribe(b []byte, version byte, id uint16, filters []string, qos byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	if version == v5 {
		body = append(body, 0)
	}
	for _, filter := range filters {
		body = append(appendString(body, filter), qos)
	}
	return appendFrame(b, typeSubscribe|0x02, body)
}

// appendAck appends one of the four-byte acknowledgements, which are alike in
// both versions when all is well.
func appendAck(b []byte, first byte, id uint16) []byte {
	return append(b, first, 2, byte(id>>8), byte(id))
}

// A template is a PUBLISH with everything in place but packet id and stamp, so
// that to send one is a copy and two stores.
type template struct {
	frame     []byte
	idAt      int // 0 at QoS 0, which has none
	payloadAt int
	stampAt   int  // at or after payloadAt
	text      bool // the stamp is one that people could read
}

// newTemplate makes the template of a payload of that many bytes, which begins
// with the stamp.
func newTemplate(version byte, topic string, qos byte, retain bool, payload int) template {
	return templateOf(version, topic, qos, retain, padding(payload))
}

func templateOf(version byte, topic string, qos byte, retain bool, payload []byte) template {
	first := byte(typePublish) | qos<<1
	if retain {
		first |= 0x01
	}
	body := appendString(nil, topic)
	idAt := len(body)
	if qos > 0 {
		body = append(body, 0, 0)
	}
	if version == v5 {
		body = append(body, 0)
	}
	body = append(body, payload...)
	t := template{frame: appendFrame(nil, first, body)}
	t.payloadAt = len(t.frame) - len(payload)
	t.stampAt = t.payloadAt
	if qos > 0 {
		t.idAt = len(t.frame) - len(body) + idAt
	}
	return t
}

// payload returns what every message carries; its stamp is nobody's.
func (t *template) payload() []byte { return t.frame[t.payloadAt:] }

// append appends the message to b.
func (t *template) append(b []byte, id uint16, s stamp) []byte {
	at := len(b)
	b = t.appendUnstamped(b, id)
	if t.text {
		s.putText(b[at+t.stampAt:])
	} else {
		s.put(b[at+t.stampAt:])
	}
	return b
}

func (t *template) appendUnstamped(b []byte, id uint16) []byte {
	at := len(b)
	b = append(b, t.frame...)
	if t.idAt > 0 {
		binary.BigEndian.PutUint16(b[at+t.idAt:], id)
	}
	return b
}

// stampSize is what a stamp takes in a payload, textStampSize what it takes as
// text.
const (
	stampSize     = 20
	textStampSize = 2 * stampSize
)

// A stamp begins each payload; in a document it is text inside.
type stamp struct {
	at     int64  // ns since the generator began: when sent, or when it was due
	seq    uint64 // of this source, from 0
	source uint32
}

func (s stamp) put(b []byte) {
	binary.BigEndian.PutUint64(b, uint64(s.at))
	binary.BigEndian.PutUint64(b[8:], s.seq)
	binary.BigEndian.PutUint32(b[16:], s.source)
}

func readStamp(b []byte) stamp {
	return stamp{
		at:     int64(binary.BigEndian.Uint64(b)),
		seq:    binary.BigEndian.Uint64(b[8:]),
		source: binary.BigEndian.Uint32(b[16:]),
	}
}

// putText writes the stamp as what a text may hold.
func (s stamp) putText(b []byte) {
	var plain [stampSize]byte
	s.put(plain[:])
	hex.Encode(b, plain[:])
}

// readTextStamp reads what begins b; ok is false if it is no stamp.
func readTextStamp(b []byte) (s stamp, ok bool) {
	var plain [stampSize]byte
	if len(b) < textStampSize {
		return s, false
	}
	if _, err := hex.Decode(plain[:], b[:textStampSize]); err != nil {
		return s, false
	}
	return readStamp(plain[:]), true
}

// padding returns a payload with room for the stamp. What follows the stamp is
// the same in every message, so that a delivery with a damaged end is seen.
func padding(size int) []byte {
	p := make([]byte, max(size, stampSize))
	for i := range p {
		p[i] = byte('a' + i%26)
	}
	return p
}

// A delivery is a PUBLISH as it came from the broker; it aliases the buffer.
type delivery struct {
	topic, payload []byte
	id             uint16
	qos            byte
}

func parsePublish(first byte, body []byte, version byte) (d delivery, err error) {
	d.qos = first >> 1 & 3
	if len(body) < 2 {
		return d, fmt.Errorf("%w: PUBLISH of %d bytes", errFrame, len(body))
	}
	n := 2 + int(binary.BigEndian.Uint16(body))
	if len(body) < n {
		return d, fmt.Errorf("%w: PUBLISH ends in its topic", errFrame)
	}
	d.topic, body = body[2:n], body[n:]
	if d.qos > 0 {
		if len(body) < 2 {
			return d, fmt.Errorf("%w: PUBLISH ends before its packet id", errFrame)
		}
		d.id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	if version == v5 {
		_, rest, err := properties(body)
		if err != nil {
			return d, err
		}
		body = rest
	}
	d.payload = body
	return d, nil
}

// properties splits b after its property block.
func properties(b []byte) (props, rest []byte, err error) {
	l, w, err := varint(b)
	if err != nil || w == 0 || len(b) < w+l {
		return nil, nil, fmt.Errorf("%w: properties", errFrame)
	}
	return b[w : w+l], b[w+l:], nil
}

// parseAck reads the packet id of an acknowledgement and, of MQTT 5, its reason;
// below 0x80 it is a success.
func parseAck(body []byte) (id uint16, reason byte, err error) {
	if len(body) < 2 {
		return 0, 0, fmt.Errorf("%w: acknowledgement of %d bytes", errFrame, len(body))
	}
	if len(body) > 2 {
		reason = body[2]
	}
	return binary.BigEndian.Uint16(body), reason, nil
}

// maxReceive is the receive maximum of a broker that tells none.
const maxReceive = 65535

// parseConnack returns the broker's receive maximum; it is an error when the
// broker refused.
func parseConnack(body []byte, version byte) (receiveMaximum int, err error) {
	receiveMaximum = maxReceive
	if len(body) < 2 {
		return 0, fmt.Errorf("%w: CONNACK of %d bytes", errFrame, len(body))
	}
	if body[1] != 0 {
		return 0, fmt.Errorf("the broker refused a connection: CONNACK 0x%02x", body[1])
	}
	if version != v5 {
		return receiveMaximum, nil
	}
	props, _, err := properties(body[2:])
	for err == nil && len(props) > 0 {
		if props[0] == 0x21 && len(props) >= 3 {
			return int(binary.BigEndian.Uint16(props[1:])), nil
		}
		props, err = skipProperty(props)
	}
	return receiveMaximum, err
}

// skipProperty cuts off the first property of a CONNACK.
func skipProperty(b []byte) ([]byte, error) {
	n := 0
	switch b[0] {
	case 0x24, 0x25, 0x28, 0x29, 0x2A:
		n = 2
	case 0x13, 0x21, 0x22:
		n = 3
	case 0x11, 0x27:
		n = 5
	case 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x26:
		n = 1
		strings := 1
		if b[0] == 0x26 { // a user property is two
			strings = 2
		}
		for range strings {
			if len(b) < n+2 {
				return nil, fmt.Errorf("%w: property 0x%02x", errFrame, b[0])
			}
			n += 2 + int(binary.BigEndian.Uint16(b[n:]))
		}
	}
	if n == 0 || len(b) < n {
		return nil, fmt.Errorf("%w: property 0x%02x", errFrame, b[0])
	}
	return b[n:], nil
}
