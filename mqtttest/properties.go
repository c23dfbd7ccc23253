package mqtttest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Identifiers of the MQTT 5 properties (5.0 section 2.2.2.2).
const (
	PropPayloadFormat        = 0x01
	PropMessageExpiry        = 0x02
	PropContentType          = 0x03
	PropResponseTopic        = 0x08
	PropCorrelationData      = 0x09
	PropSubscriptionID       = 0x0B
	PropSessionExpiry        = 0x11
	PropAssignedClientID     = 0x12
	PropServerKeepAlive      = 0x13
	PropAuthMethod           = 0x15
	PropAuthData             = 0x16
	PropRequestProblemInfo   = 0x17
	PropWillDelay            = 0x18
	PropRequestResponseInfo  = 0x19
	PropResponseInfo         = 0x1A
	PropServerReference      = 0x1C
	PropReasonString         = 0x1F
	PropReceiveMaximum       = 0x21
	PropTopicAliasMaximum    = 0x22
	PropTopicAlias           = 0x23
	PropMaximumQoS           = 0x24
	PropRetainAvailable      = 0x25
	PropUserProperty         = 0x26
	PropMaximumPacketSize    = 0x27
	PropWildcardAvailable    = 0x28
	PropSubscriptionIDsAvail = 0x29
	PropSharedAvailable      = 0x2A
)

type kind byte

const (
	kindByte kind = iota + 1
	kindTwo
	kindFour
	kindVar
	kindText
	kindBinary
	kindPair
)

// A propertyRule says how a property is written and which packets from a
// server may carry it.
type propertyRule struct {
	kind kind
	in   []Type
}

var propertyRules = map[byte]propertyRule{
	PropPayloadFormat:        {kindByte, []Type{PUBLISH}},
	PropMessageExpiry:        {kindFour, []Type{PUBLISH}},
	PropContentType:          {kindText, []Type{PUBLISH}},
	PropResponseTopic:        {kindText, []Type{PUBLISH}},
	PropCorrelationData:      {kindBinary, []Type{PUBLISH}},
	PropSubscriptionID:       {kindVar, []Type{PUBLISH}},
	PropSessionExpiry:        {kindFour, []Type{CONNACK}}, // a server's DISCONNECT may not, 5.0 [MQTT-3.14.2-2]
	PropAssignedClientID:     {kindText, []Type{CONNACK}},
	PropServerKeepAlive:      {kindTwo, []Type{CONNACK}},
	PropAuthMethod:           {kindText, []Type{CONNACK, AUTH}},
	PropAuthData:             {kindBinary, []Type{CONNACK, AUTH}},
	PropRequestProblemInfo:   {kindByte, nil},
	PropWillDelay:            {kindFour, nil},
	PropRequestResponseInfo:  {kindByte, nil},
	PropResponseInfo:         {kindText, []Type{CONNACK}},
	PropServerReference:      {kindText, []Type{CONNACK, DISCONNECT}},
	PropReasonString:         {kindText, []Type{CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH}},
	PropReceiveMaximum:       {kindTwo, []Type{CONNACK}},
	PropTopicAliasMaximum:    {kindTwo, []Type{CONNACK}},
	PropTopicAlias:           {kindTwo, []Type{PUBLISH}},
	PropMaximumQoS:           {kindByte, []Type{CONNACK}},
	PropRetainAvailable:      {kindByte, []Type{CONNACK}},
	PropUserProperty:         {kindPair, []Type{CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH}},
	PropMaximumPacketSize:    {kindFour, []Type{CONNACK}},
	PropWildcardAvailable:    {kindByte, []Type{CONNACK}},
	PropSubscriptionIDsAvail: {kindByte, []Type{CONNACK}},
	PropSharedAvailable:      {kindByte, []Type{CONNACK}},
}

// A Property is one MQTT 5 property: its identifier and its value as it stands
// on the wire. Make them with Number, Text, Binary and User.
type Property struct {
	ID    byte
	Value []byte
}

// Properties keep the order of the wire.
type Properties []Property

// Number makes a property of the width that its identifier has.
func Number(id byte, n uint32) Property {
	switch propertyRules[id].kind {
	case kindByte:
		return Property{id, []byte{byte(n)}}
	case kindTwo:
		return Property{id, binary.BigEndian.AppendUint16(nil, uint16(n))}
	case kindFour:
		return Property{id, binary.BigEndian.AppendUint32(nil, n)}
	case kindVar:
		return Property{id, appendVarint(nil, n)}
	}
	panic(fmt.Sprintf("mqtttest: property %#x is no number", id))
}

// Text makes a string property, valid UTF-8 or not.
func Text(id byte, s string) Property { return Property{id, appendString(nil, s)} }

// Binary makes a binary property.
func Binary(id byte, b []byte) Property { return Property{id, appendString(nil, string(b))} }

// User makes a User Property.
func User(key, value string) Property {
	return Property{PropUserProperty, appendString(appendString(nil, key), value)}
}

func (p Properties) encode() []byte {
	var body []byte
	for _, q := range p {
		body = append(append(body, q.ID), q.Value...)
	}
	return append(appendVarint(nil, uint32(len(body))), body...)
}

// Has tells whether the property is there.
func (p Properties) Has(id byte) bool {
	_, ok := p.find(id)
	return ok
}

// Number returns a numeric property's value; ok is false when it is absent.
func (p Properties) Number(id byte) (n uint32, ok bool) {
	q, ok := p.find(id)
	if !ok {
		return 0, false
	}
	return q.number(), true
}

// Numbers returns the values of every property id, in order.
func (p Properties) Numbers(id byte) []uint32 {
	var out []uint32
	for _, q := range p {
		if q.ID == id {
			out = append(out, q.number())
		}
	}
	return out
}

// Text returns a string or binary property's value, "" when it is absent.
func (p Properties) Text(id byte) string {
	q, ok := p.find(id)
	if !ok {
		return ""
	}
	return string(q.Value[2:])
}

// User returns the User Properties in order, each as "key=value".
func (p Properties) User() []string {
	var out []string
	for _, q := range p {
		if q.ID == PropUserProperty {
			n := int(binary.BigEndian.Uint16(q.Value))
			out = append(out, string(q.Value[2:2+n])+"="+string(q.Value[4+n:]))
		}
	}
	return out
}

func (p Properties) find(id byte) (Property, bool) {
	for _, q := range p {
		if q.ID == id {
			return q, true
		}
	}
	return Property{}, false
}

func (q Property) number() uint32 {
	if propertyRules[q.ID].kind == kindVar {
		n, _, _ := readVarint(q.Value)
		return n
	}
	var n uint32
	for _, b := range q.Value {
		n = n<<8 | uint32(b)
	}
	return n
}

// decodeProperties reads the properties at the start of b and judges them as
// coming from a server in a packet of type t.
func decodeProperties(b []byte, t Type) (Properties, []byte, error) {
	n, rest, err := readVarint(b)
	if err != nil {
		return nil, nil, fmt.Errorf("property length: %w", err)
	}
	if int(n) > len(rest) {
		return nil, nil, fmt.Errorf("property length %d passes the packet's end by %d", n, int(n)-len(rest))
	}
	body, rest := rest[:n], rest[n:]
	var out Properties
	for len(body) > 0 {
		id := body[0]
		rule, known := propertyRules[id]
		if !known {
			return nil, nil, fmt.Errorf("unknown property %#x", id)
		}
		if !carries(rule, t) {
			return nil, nil, fmt.Errorf("property %#x may not stand in %v", id, t)
		}
		repeats := id == PropUserProperty || id == PropSubscriptionID && t == PUBLISH
		if out.Has(id) && !repeats {
			return nil, nil, fmt.Errorf("property %#x twice", id)
		}
		size, err := valueSize(rule.kind, body[1:])
		if err != nil {
			return nil, nil, fmt.Errorf("property %#x: %w", id, err)
		}
		out = append(out, Property{id, bytes.Clone(body[1 : 1+size])})
		body = body[1+size:]
	}
	return out, rest, nil
}

func carries(rule propertyRule, t Type) bool {
	for _, in := range rule.in {
		if in == t {
			return true
		}
	}
	return false
}

func valueSize(k kind, b []byte) (int, error) {
	size := 0
	switch k {
	case kindByte:
		size = 1
	case kindTwo:
		size = 2
	case kindFour:
		size = 4
	case kindVar:
		_, rest, err := readVarint(b)
		if err != nil {
			return 0, err
		}
		size = len(b) - len(rest)
	case kindText, kindBinary, kindPair:
		parts := 1
		if k == kindPair {
			parts = 2
		}
		for range parts {
			if len(b) < size+2 {
				return 0, errCut
			}
			n := int(binary.BigEndian.Uint16(b[size:]))
			if len(b) < size+2+n {
				return 0, errCut
			}
			if k != kindBinary && !validText(b[size+2:size+2+n]) {
				return 0, fmt.Errorf("%q is no UTF-8 string of MQTT", b[size+2:size+2+n])
			}
			size += 2 + n
		}
	}
	if size > len(b) {
		return 0, errCut
	}
	return size, nil
}

// validText: well-formed UTF-8 without U+0000, 5.0 [MQTT-1.5.4-1, -2].
func validText(b []byte) bool { return utf8.Valid(b) && !bytes.Contains(b, []byte{0}) }
