package mqtt

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/internal/wire"
)

// A publication is a PUBLISH as it lies in the input: its slices alias the
// buffer and end with it.
type publication struct {
	topic   []byte // empty if an alias stands for it
	payload []byte
	props   []byte // what is forwarded, in wire form and order
	expiry  uint32 // Message Expiry Interval in seconds, if expires
	id      uint16 // 0 for QoS 0
	alias   uint16 // 0 for none
	qos     byte
	retain  bool
	expires bool
	text    bool  // Payload Format Indicator: the payload is UTF-8
	refused error // the topic is no topic of ours, or the payload no text
}

// errNotText refuses a payload: who takes the indicator at its word would pass
// on, or choke on, what is none (5.0 3.3.2.3.2, where a receiver may check it).
var errNotText = &broker.Refusal{Cause: broker.ErrPayload, Reason: "the payload is not UTF-8, as its Payload Format Indicator says"}

// parsePublish reads the PUBLISH whose first byte and body these are. What an
// alias stands for it does not know. It may
// move bytes within the properties: those that are forwarded are pushed
// together in place, which costs nothing when there are no others.
func parsePublish(first byte, body []byte, v5 bool, p *publication) error {
	c := wire.Fields{Rest: body}
	*p = publication{qos: first >> 1 & 3, retain: first&1 != 0}
	p.topic = c.Bytes()
	if p.qos > 0 {
		p.id = c.Uint16()
	}
	var at propWalker
	if v5 {
		at = walkProps(&c, publishProps)
	}
	if c.Short {
		return malformed("PUBLISH cut short")
	}
	if p.qos > 0 && p.id == 0 {
		return protocolError("packet identifier 0")
	}
	p.payload = c.Rest
	if len(at.Rest) > 0 {
		if err := p.walk(&at); err != nil {
			return err
		}
	}
	if p.text && !utf8.Valid(p.payload) {
		p.refused = errNotText
	}
	if len(p.topic) == 0 {
		if p.alias == 0 {
			return protocolError("neither topic nor alias")
		}
		return nil
	}
	refused, fatal := checkTopic(view(p.topic))
	if refused != nil {
		p.refused = refused
	}
	return fatal
}

func (p *publication) walk(at *propWalker) error {
	all, keep := at.Rest, 0
	for {
		prop, ok, err := at.next()
		if err != nil {
			return err
		}
		if !ok {
			p.props = all[:keep:keep]
			return nil
		}
		switch prop.id {
		case packets.PropMessageExpiryInterval:
			p.expiry, p.expires = prop.num, true
		case packets.PropTopicAlias:
			p.alias = uint16(prop.num)
		case packets.PropPayloadFormat:
			p.text = prop.num == 1
			keep += copy(all[keep:], prop.raw)
		default:
			keep += copy(all[keep:], prop.raw)
		}
	}
}

// parseAck reads PUBACK, PUBREC, PUBREL or PUBCOMP: packet identifier, and in
// MQTT 5 a reason code and properties, each of which may be left out with all
// that follows.
func parseAck(packet byte, body []byte, v5 bool) (id uint16, code byte, err error) {
	if len(body) < 2 || !v5 && len(body) > 2 {
		return 0, 0, malformed("length of an acknowledgement")
	}
	id = binary.BigEndian.Uint16(body)
	if id == 0 {
		return 0, 0, protocolError("packet identifier 0")
	}
	if len(body) == 2 {
		return id, codeSuccess, nil
	}
	code = body[2]
	if err := checkCode(packet, code); err != nil {
		return 0, 0, err
	}
	return id, code, checkTail(body[3:], ackProps)
}

// checkTail checks the properties that end a packet; none at all is allowed.
func checkTail(b []byte, allowed propSet) error {
	if len(b) == 0 {
		return nil
	}
	c := wire.Fields{Rest: b}
	w := walkProps(&c, allowed)
	if c.Short {
		return malformed("properties run past the end")
	}
	if len(c.Rest) > 0 {
		return malformed("bytes after the last field")
	}
	return w.all()
}

// parseDisconnect reads the body of a DISCONNECT. expiry is the Session Expiry
// Interval it sets, if set.
//
// The codec is not asked: of a DISCONNECT of length 1 it reads success, and so
// loses the will that 0x04 asks for.
func parseDisconnect(body []byte, v5 bool) (code byte, expiry uint32, set bool, err error) {
	if len(body) == 0 {
		return codeSuccess, 0, false, nil
	}
	if !v5 {
		return 0, 0, false, malformed("DISCONNECT with a body")
	}
	code = body[0]
	if err := checkCode(packets.Disconnect, code); err != nil {
		return 0, 0, false, err
	}
	if len(body) == 1 {
		return code, 0, false, nil
	}
	c := wire.Fields{Rest: body[1:]}
	w := walkProps(&c, disconnectProps)
	if c.Short {
		return 0, 0, false, malformed("properties run past the end")
	}
	if len(c.Rest) > 0 {
		return 0, 0, false, malformed("bytes after the last field")
	}
	for {
		p, ok, err := w.next()
		if err != nil || !ok {
			return code, expiry, set, err
		}
		if p.id == packets.PropSessionExpiryInterval {
			expiry, set = p.num, true
		}
	}
}

// parseAuth checks an AUTH packet. Length 0 means success without properties;
// the codec refuses it, so it is not asked.
//
// method and data alias body.
func parseAuth(body []byte) (code byte, method string, data []byte, err error) {
	if len(body) == 0 {
		return codeSuccess, "", nil, nil
	}
	code = body[0]
	if err := checkCode(packets.Auth, code); err != nil {
		return 0, "", nil, err
	}
	if len(body) == 1 {
		return code, "", nil, nil
	}
	c := wire.Fields{Rest: body[1:]}
	w := walkProps(&c, authProps)
	switch {
	case c.Short:
		return 0, "", nil, malformed("properties run past the end")
	case len(c.Rest) > 0:
		return 0, "", nil, malformed("bytes after the last field")
	}
	for {
		p, ok, err := w.next()
		if err != nil || !ok {
			return code, method, data, err
		}
		switch p.id { // of a length of two bytes, which follow the identifier
		case packets.PropAuthenticationMethod:
			method = view(p.raw[3:])
		case packets.PropAuthenticationData:
			data = p.raw[3:]
		}
	}
}
