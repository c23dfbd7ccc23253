package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/wire"
)

// Packets as a client reads and writes them. The front door of our broker (broker/mqtt)
// reads the other half of the protocol.

// Types of packets, the high half of their first byte.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
)

// Properties of MQTT 5 (5.0 2.2.2.2) that a bridge sends or reads.
const (
	propPayloadFormat          = 0x01
	propMessageExpiry          = 0x02
	propContentType            = 0x03
	propResponseTopic          = 0x08
	propCorrelationData        = 0x09
	propSubscriptionIdentifier = 0x0B
	propSessionExpiry          = 0x11
	propServerKeepAlive        = 0x13
	propReasonString           = 0x1F
	propReceiveMaximum         = 0x21
	propMaximumQoS             = 0x24
	propRetainAvailable        = 0x25
	propUser                   = 0x26
	propMaximumPacketSize      = 0x27
)

// The form of a property's value; 0 is of those there are none of.
const (
	formByte = iota + 1
	formUint16
	formUint32
	formVarint
	formText
	formBinary
	formPair
)

var propForms = [64]byte{
	propPayloadFormat: formByte, propMessageExpiry: formUint32, propContentType: formText, propResponseTopic: formText,
	propCorrelationData: formBinary, propSubscriptionIdentifier: formVarint, propSessionExpiry: formUint32, 0x12: formText,
	propServerKeepAlive: formUint16, 0x15: formText, 0x16: formBinary, 0x1A: formText, 0x1C: formText, propReasonString: formText,
	propReceiveMaximum: formUint16, 0x22: formUint16, 0x23: formUint16, propMaximumQoS: formByte, propRetainAvailable: formByte,
	propUser: formPair, propMaximumPacketSize: formUint32, 0x28: formByte, 0x29: formByte, 0x2A: formByte,
}

// errMalformed is what a packet is that the standard does not have.
var errMalformed = errors.New("a malformed packet")

func malformed(what string) error { return fmt.Errorf("%w: %s", errMalformed, what) }

// A fields is a packet of which fields are taken.
type fields struct{ wire.Fields }

func fieldsOf(body []byte) fields { return fields{wire.Fields{Rest: body}} }

// A property is one as it lies in a packet.
type property struct {
	id    byte
	num   uint32 // the value, where it is a number
	text  []byte // the value, where it is a string or bytes; the name of a User Property
	value []byte // of a User Property
	raw   []byte // identifier and value
}

// properties calls yield with each property of a packet, which are next in f.
func (f *fields) properties(yield func(property) error) error {
	props := f.Take(f.Varint())
	if f.Short {
		return malformed("properties run past the end")
	}
	return eachProperty(props, yield)
}

// eachProperty calls yield with each property, without the length of all in front. Each is
// whole, and texts are UTF-8; but for User Property and Subscription Identifier none
// comes twice.
func eachProperty(props []byte, yield func(property) error) error {
	all := fieldsOf(props)
	var seen uint64
	for len(all.Rest) > 0 {
		at := all.Rest
		p := property{id: all.Byte()}
		form := byte(0)
		if int(p.id) < len(propForms) {
			form = propForms[p.id]
		}
		switch form {
		case 0:
			return malformed("an unknown property")
		case formByte:
			p.num = uint32(all.Byte())
		case formUint16:
			p.num = uint32(all.Uint16())
		case formUint32:
			p.num = all.Uint32()
		case formVarint:
			p.num = uint32(all.Varint())
		case formText, formBinary:
			p.text = all.Bytes()
		case formPair:
			p.text, p.value = all.Bytes(), all.Bytes()
		}
		if all.Short {
			return malformed("a property runs past the end")
		}
		if form != formBinary && !(isText(p.text) && isText(p.value)) {
			return malformed("a string that is not UTF-8")
		}
		if seen&(1<<p.id) != 0 && p.id != propUser && p.id != propSubscriptionIdentifier {
			return malformed("a property twice")
		}
		seen |= 1 << p.id
		p.raw = at[:len(at)-len(all.Rest)]
		if err := yield(p); err != nil {
			return err
		}
	}
	return nil
}

// isText says whether b may be a string of MQTT (5.0 1.5.4).
func isText(b []byte) bool { return utf8.Valid(b) && !slices.Contains(b, 0) }

// A publish is a PUBLISH as it lies in the reader's memory.
type publish struct {
	topic   string
	payload []byte
	props   []byte // all of them, in wire form; checked
	id      uint16 // 0 of QoS 0
	qos     byte
	dup     bool
	retain  bool
}

// parsePublish reads a PUBLISH from a broker that has been allowed no topic aliases.
func parsePublish(first byte, body []byte, version byte) (p publish, err error) {
	p.qos, p.dup, p.retain = first>>1&3, first&8 != 0, first&1 != 0
	f := fieldsOf(body)
	p.topic = string(f.Bytes())
	if p.qos > 0 {
		p.id = f.Uint16()
	}
	if version == 5 {
		p.props = f.Take(f.Varint())
		if err := eachProperty(p.props, checkPublishProperty); err != nil {
			return p, err
		}
	}
	p.payload = f.Rest
	switch {
	case f.Short:
		return p, malformed("PUBLISH cut short")
	case p.qos == 3, p.qos == 0 && p.dup:
		return p, malformed("flags of PUBLISH")
	case p.qos > 0 && p.id == 0:
		return p, malformed("packet identifier 0")
	case !isName(p.topic):
		return p, malformed("a topic that is none")
	}
	return p, nil
}

// isName says whether MQTT lets a broker send an event with that topic name. What
// topic.ValidName asks beyond that is a bound of ours, for which a peer is not to blame.
func isName(name string) bool {
	err := topic.ValidName(name)
	return err == nil || errors.Is(err, topic.ErrTooDeep) || errors.Is(err, topic.ErrCharacter) || errors.Is(err, topic.ErrShare)
}

func checkPublishProperty(p property) error {
	switch p.id {
	case propPayloadFormat, propMessageExpiry, propContentType, propCorrelationData, propSubscriptionIdentifier, propUser:
		return nil
	case propResponseTopic: // brokers hand on whatever its publisher wrote: see carry
		return nil
	}
	return malformed("a property that PUBLISH cannot have")
}

// rest is how many bytes the PUBLISH has after its fixed header.
func (p *publish) rest(version byte) int {
	n := 2 + len(p.topic) + len(p.payload)
	if p.qos > 0 {
		n += 2
	}
	if version == 5 {
		n += wire.VarintLen(len(p.props)) + len(p.props)
	}
	return n
}

// size is how many it has.
func (p *publish) size(version byte) int {
	n := p.rest(version)
	return 1 + wire.VarintLen(n) + n
}

func (p *publish) append(b []byte, version byte) []byte {
	first := byte(typePublish<<4) | p.qos<<1
	if p.dup {
		first |= 8
	}
	if p.retain {
		first |= 1
	}
	b = appendVarint(append(b, first), p.rest(version))
	b = appendText(b, p.topic)
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, p.id)
	}
	if version == 5 {
		b = append(appendVarint(b, len(p.props)), p.props...)
	}
	return append(b, p.payload...)
}

// An ack is one of the four acknowledgements of PUBLISH.
type ack struct {
	id   uint16
	code byte
	why  string // the Reason String
}

// parseAck reads an acknowledgement, in which all but the id may be left out.
func parseAck(body []byte, version byte) (a ack, err error) {
	f := fieldsOf(body)
	if a.id = f.Uint16(); a.id == 0 {
		return a, malformed("an acknowledgement without packet identifier")
	}
	if version < 5 {
		return a, f.ends()
	}
	a.code, a.why, err = f.reason()
	return a, err
}

// reason reads a reason code and properties, which may both be left out, to the end.
func (f *fields) reason() (code byte, why string, err error) {
	if len(f.Rest) > 0 {
		code = f.Byte()
	}
	if len(f.Rest) > 0 {
		err = f.properties(func(p property) error {
			if p.id == propReasonString {
				why = string(p.text)
			}
			return nil
		})
	}
	if err == nil {
		err = f.ends()
	}
	return code, why, err
}

func (f *fields) ends() error {
	if f.Short || len(f.Rest) > 0 {
		return malformed("its length is wrong")
	}
	return nil
}

// appendAck appends an acknowledgement. A code that is not success is for MQTT 5.
func appendAck(b []byte, packet byte, id uint16, code, version byte) []byte {
	first := packet << 4
	if packet == typePubrel {
		first |= 2
	}
	if code == 0 || version < 5 {
		return append(b, first, 2, byte(id>>8), byte(id))
	}
	return append(b, first, 3, byte(id>>8), byte(id), code)
}

// A connack is what a broker answers to CONNECT.
type connack struct {
	present  bool
	code     byte
	why      string
	receive  int // Receive Maximum
	most     int // Maximum Packet Size; 0 for none
	qos      byte
	noRetain bool
	alive    uint32 // Server Keep Alive; valid if aliveSet
	aliveSet bool
	origin   string // of a Bellwire: the id by which it is known in rings; see originProperty
}

// originProperty is the User Property of CONNECT by which a bridge says that it is one, and
// asks a Bellwire for its Config.Origin; CONNACK answers by the same name.
const originProperty = "bellwire-bridge"

func parseConnack(body []byte, version byte) (c connack, err error) {
	f := fieldsOf(body)
	flags := f.Byte()
	c.present, c.code, c.receive, c.qos = flags&1 != 0, f.Byte(), 65_535, 2
	if f.Short {
		return c, malformed("CONNACK cut short")
	}
	if version < 5 || len(f.Rest) == 0 { // an answer to a version that it does not know may be of another
		return c, nil
	}
	return c, f.properties(func(p property) error {
		switch p.id {
		case propReceiveMaximum:
			c.receive = int(p.num)
		case propMaximumPacketSize:
			c.most = int(p.num)
		case propMaximumQoS:
			c.qos = byte(min(p.num, 2))
		case propRetainAvailable:
			c.noRetain = p.num == 0
		case propServerKeepAlive:
			c.alive, c.aliveSet = p.num, true
		case propReasonString:
			c.why = string(p.text)
		case propUser:
			if string(p.text) == originProperty {
				c.origin = string(p.value)
			}
		}
		if p.num == 0 && (p.id == propReceiveMaximum || p.id == propMaximumPacketSize) {
			return malformed("a property that must not be 0")
		}
		return nil
	})
}

// A connect is what a bridge says to a broker first.
type connect struct {
	version byte // 3, 4 or 5
	bridge  bool // of 3 and 4: with the bit for bridges
	clean   bool
	client  string
	user    string // empty for none
	secret  []byte
	alive   uint16 // Keep Alive, s
	receive uint16 // of 5
	most    uint32 // likewise: Maximum Packet Size
	expiry  uint32 // likewise: of the session, s
	origin  string // likewise; empty for our own broker, which need not know
}

func (c *connect) append(b []byte) []byte {
	var body []byte
	name, level := "MQTT", c.version
	if c.version == 3 {
		name = "MQIsdp"
	}
	if c.bridge {
		level |= 0x80
	}
	flags := byte(0)
	if c.clean {
		flags |= 1 << 1
	}
	if c.user != "" {
		flags |= 1 << 7
	}
	if c.secret != nil {
		flags |= 1 << 6
	}
	body = append(appendText(body, name), level, flags)
	body = binary.BigEndian.AppendUint16(body, c.alive)
	if c.version == 5 {
		props := binary.BigEndian.AppendUint32([]byte{propSessionExpiry}, c.expiry)
		props = binary.BigEndian.AppendUint16(append(props, propReceiveMaximum), c.receive)
		props = binary.BigEndian.AppendUint32(append(props, propMaximumPacketSize), c.most)
		if c.origin != "" {
			props = appendText(appendText(append(props, propUser), originProperty), c.origin)
		}
		body = append(appendVarint(body, len(props)), props...)
	}
	body = appendText(body, c.client)
	if c.user != "" {
		body = appendText(body, c.user)
	}
	if c.secret != nil {
		body = appendText(body, string(c.secret))
	}
	return appendPacket(b, typeConnect<<4, body)
}

// Options of a subscription by MQTT 5: what the bridge has published itself does not come
// back, RETAIN comes as it was published, and what is retained comes once, when
// the subscription is made.
const subscribeOptions = 1<<2 | 1<<3 | 1<<4

// A wanted is a filter to subscribe to.
type wanted struct {
	filter string
	qos    byte
}

func appendSubscribe(b []byte, id uint16, filters []wanted, version byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	options := byte(0)
	if version == 5 {
		body, options = append(body, 0), subscribeOptions
	}
	for _, w := range filters {
		body = append(appendText(body, w.filter), w.qos|options)
	}
	return appendPacket(b, typeSubscribe<<4|2, body)
}

func appendUnsubscribe(b []byte, id uint16, filters []string, version byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	if version == 5 {
		body = append(body, 0)
	}
	for _, f := range filters {
		body = appendText(body, f)
	}
	return appendPacket(b, typeUnsubscribe<<4|2, body)
}

// parseSuback returns what a broker says of each filter.
func parseSuback(body []byte, version byte) (id uint16, codes []byte, why string, err error) {
	f := fieldsOf(body)
	id = f.Uint16()
	if version == 5 {
		err = f.properties(func(p property) error {
			if p.id == propReasonString {
				why = string(p.text)
			}
			return nil
		})
	}
	if f.Short {
		err = malformed("SUBACK cut short")
	}
	return id, f.Rest, why, err
}

func appendPacket(b []byte, first byte, body []byte) []byte {
	return append(appendVarint(append(b, first), len(body)), body...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

// codeText says in words why a broker refuses: the Reason String if there is one, and
// the standard's name of the code.
func codeText(code byte, why string) string {
	name := codeNames[code]
	if name == "" {
		name = "reason code"
	}
	text := fmt.Sprintf("%s (0x%02X)", name, code)
	if why != "" {
		text += ": " + strings.ToValidUTF8(why[:min(len(why), 200)], "\uFFFD")
	}
	return text
}

// codeNames are the names of those that refuse (5.0 2.4).
var codeNames = map[byte]string{
	0x80: "unspecified error", 0x81: "malformed packet", 0x82: "protocol error", 0x83: "implementation specific error",
	0x84: "unsupported protocol version", 0x85: "client identifier not valid", 0x86: "bad user name or password", 0x87: "not authorized",
	0x88: "server unavailable", 0x89: "server busy", 0x8A: "banned", 0x8B: "server shutting down", 0x8D: "keep alive timeout",
	0x8E: "session taken over", 0x8F: "topic filter invalid", 0x90: "topic name invalid", 0x91: "packet identifier in use",
	0x93: "receive maximum exceeded", 0x95: "packet too large", 0x97: "quota exceeded", 0x98: "administrative action",
	0x99: "payload format invalid", 0x9A: "retain not supported", 0x9B: "QoS not supported", 0x9C: "use another server",
	0x9D: "server moved", 0x9E: "shared subscriptions not supported", 0x9F: "connection rate exceeded", 0xA2: "wildcard subscriptions not supported",
}

// connackV3 are the return codes of 3.1.1 as reason codes (3.1.1 table 3.1).
var connackV3 = [...]byte{0, 0x84, 0x85, 0x88, 0x86, 0x87}
