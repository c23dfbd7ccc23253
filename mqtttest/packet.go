package mqtttest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Type is a control packet's type, the high half of its first byte.
type Type byte

// The control packets of MQTT, by their names in the standard.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

var typeNames = []string{
	"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

func (t Type) String() string { return typeNames[t&15] }

// A Packet is one packet from a broker, decoded and judged. Fields that its
// type does not have are zero.
type Packet struct {
	Type           Type
	Flags          byte // low half of the first byte
	Raw            []byte
	ID             uint16 // packet identifier
	Code           byte   // CONNACK, the four PUBLISH acknowledgements, DISCONNECT, AUTH
	Codes          []byte // SUBACK, UNSUBACK (5)
	SessionPresent bool
	Topic          string // a Conn has put it in the place of an alias
	Payload        []byte
	Properties     Properties
}

// QoS of a PUBLISH.
func (p *Packet) QoS() byte { return p.Flags >> 1 & 3 }

// Dup tells whether a PUBLISH is marked as sent before.
func (p *Packet) Dup() bool { return p.Flags&8 != 0 }

// Retain is a PUBLISH's retain flag.
func (p *Packet) Retain() bool { return p.Flags&1 != 0 }

// String shows what matters of a packet in a test's failure.
func (p *Packet) String() string {
	if p == nil {
		return "nothing"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v", p.Type)
	switch p.Type {
	case PUBLISH:
		fmt.Fprintf(&b, " %q qos=%d id=%d dup=%t retain=%t %.60q", p.Topic, p.QoS(), p.ID, p.Dup(), p.Retain(), p.Payload)
	case CONNACK:
		fmt.Fprintf(&b, " code=%#02x session=%t", p.Code, p.SessionPresent)
	case DISCONNECT, AUTH:
		fmt.Fprintf(&b, " code=%#02x", p.Code)
	case SUBACK, UNSUBACK:
		fmt.Fprintf(&b, " id=%d codes=% x", p.ID, p.Codes)
	case PINGRESP:
	default:
		fmt.Fprintf(&b, " id=%d code=%#02x", p.ID, p.Code)
	}
	if s := p.Properties.Text(PropReasonString); s != "" {
		fmt.Fprintf(&b, " reason=%q", s)
	}
	return b.String()
}

// The reason codes that a server may put into each packet of MQTT 5.
var serverCodes = map[Type][]byte{
	CONNACK: {
		0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
		0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
	},
	PUBACK:   {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
	PUBREC:   {0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
	PUBREL:   {0, 0x92},
	PUBCOMP:  {0, 0x92},
	SUBACK:   {0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
	UNSUBACK: {0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
	DISCONNECT: {
		0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
		0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
	},
	AUTH: {0, 0x18},
}

// Decode judges the packet with this first byte and body as coming from a
// server that speaks version to us. Any breach of the standard is an error.
func Decode(first byte, body []byte, version byte) (*Packet, error) {
	p := &Packet{Type: Type(first >> 4), Flags: first & 15, Raw: append(appendVarint([]byte{first}, uint32(len(body))), body...)}
	if err := p.decode(bytes.Clone(body), version); err != nil {
		return nil, fmt.Errorf("%v % x: %w", p.Type, clip(p.Raw), err)
	}
	return p, nil
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }

func (p *Packet) decode(b []byte, version byte) error {
	if p.Type != PUBLISH && p.Flags != wantFlags(p.Type) {
		return fmt.Errorf("flags are %d, want %d", p.Flags, wantFlags(p.Type))
	}
	switch p.Type {
	case CONNACK:
		return p.decodeConnack(b, version)
	case PUBLISH:
		return p.decodePublish(b, version)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return p.decodeAck(b, version)
	case SUBACK, UNSUBACK:
		return p.decodeSuback(b, version)
	case PINGRESP:
		return nothingLeft(b)
	case DISCONNECT, AUTH:
		if version < 5 {
			return errors.New("a server of 3.1.1 never sends this")
		}
		return p.decodeReason(b, version)
	}
	return errors.New("a server never sends this")
}

func wantFlags(t Type) byte {
	if t == PUBREL {
		return 2
	}
	return 0
}

func nothingLeft(b []byte) error {
	if len(b) > 0 {
		return fmt.Errorf("%d bytes too many", len(b))
	}
	return nil
}

func (p *Packet) decodeConnack(b []byte, version byte) error {
	if len(b) < 2 {
		return errCut
	}
	if b[0] > 1 {
		return fmt.Errorf("acknowledge flags %#x", b[0])
	}
	p.SessionPresent, p.Code = b[0] == 1, b[1]
	if p.Code != 0 && p.SessionPresent {
		return errors.New("session present with a refusal") // 5.0 [MQTT-3.2.2-6]
	}
	if version < 5 {
		if p.Code > 5 {
			return fmt.Errorf("return code %d", p.Code)
		}
		return nothingLeft(b[2:])
	}
	if !slices.Contains(serverCodes[CONNACK], p.Code) {
		return fmt.Errorf("reason code %#x", p.Code)
	}
	return p.finish(b[2:])
}

func (p *Packet) decodePublish(b []byte, version byte) (err error) {
	if p.QoS() == 3 || p.QoS() == 0 && p.Dup() {
		return fmt.Errorf("flags %#x", p.Flags)
	}
	if p.Topic, b, err = readString(b); err != nil {
		return fmt.Errorf("topic: %w", err)
	}
	if strings.ContainsAny(p.Topic, "+#") {
		return fmt.Errorf("topic %q has a wildcard", p.Topic)
	}
	if p.QoS() > 0 {
		if p.ID, b, err = readID(b); err != nil {
			return err
		}
	}
	if version >= 5 {
		if p.Properties, b, err = decodeProperties(b, PUBLISH); err != nil {
			return err
		}
	}
	if p.Topic == "" && !p.Properties.Has(PropTopicAlias) {
		return errors.New("no topic and no alias")
	}
	p.Payload = b
	return nil
}

func (p *Packet) decodeAck(b []byte, version byte) (err error) {
	if p.ID, b, err = readID(b); err != nil {
		return err
	}
	if version < 5 {
		return nothingLeft(b)
	}
	return p.decodeReason(b, version)
}

// decodeReason reads an optional reason code and optional properties.
func (p *Packet) decodeReason(b []byte, version byte) error {
	if len(b) == 0 {
		return nil
	}
	p.Code = b[0]
	if !slices.Contains(serverCodes[p.Type], p.Code) {
		return fmt.Errorf("reason code %#x", p.Code)
	}
	if len(b) == 1 {
		return nil
	}
	return p.finish(b[1:])
}

func (p *Packet) decodeSuback(b []byte, version byte) (err error) {
	if p.ID, b, err = readID(b); err != nil {
		return err
	}
	if version >= 5 {
		if p.Properties, b, err = decodeProperties(b, p.Type); err != nil {
			return err
		}
	}
	p.Codes = b
	if p.Type == UNSUBACK && version < 5 {
		return nothingLeft(b)
	}
	if len(b) == 0 {
		return errors.New("no reason code")
	}
	for _, c := range b {
		legal := slices.Contains(serverCodes[p.Type], c)
		if version < 5 {
			legal = c <= 2 || c == 0x80
		}
		if !legal {
			return fmt.Errorf("reason code %#x", c)
		}
	}
	return nil
}

// finish reads the properties, which must be the last thing.
func (p *Packet) finish(b []byte) (err error) {
	if p.Properties, b, err = decodeProperties(b, p.Type); err != nil {
		return err
	}
	return nothingLeft(b)
}

func readID(b []byte) (uint16, []byte, error) {
	if len(b) < 2 {
		return 0, nil, errCut
	}
	id := binary.BigEndian.Uint16(b)
	if id == 0 {
		return 0, nil, errors.New("packet identifier 0")
	}
	return id, b[2:], nil
}
