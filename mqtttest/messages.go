package mqtttest

import "encoding/binary"

// A Message is something a client sends.
type Message interface {
	// Encode returns the packet's bytes in the given protocol version.
	Encode(version byte) []byte
}

// Raw is sent as it stands.
type Raw []byte

// Encode returns the bytes themselves.
func (r Raw) Encode(byte) []byte { return r }

// A Connect is a CONNECT packet. Flags follow from the fields that are set.
type Connect struct {
	Protocol   string // "" means MQTT, or MQIsdp for version 3
	ClientID   string
	Clean      bool
	KeepAlive  uint16 // seconds; 0 means none
	Properties Properties
	Will       *Will
	User       string
	Password   []byte // nil means none
	NoUser     bool   // leave the user name out though a password is given
	OrFlags    byte   // additional connect flags, for malformed packets
}

// A Will is the will of a Connect.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Encode writes the packet.
func (c Connect) Encode(version byte) []byte {
	name := c.Protocol
	if name == "" {
		name = "MQTT"
		if version == 3 {
			name = "MQIsdp"
		}
	}
	flags := c.OrFlags | bit(c.Clean, 2)
	if w := c.Will; w != nil {
		flags |= 4 | w.QoS<<3 | bit(w.Retain, 32)
	}
	flags |= bit(c.Password != nil, 64) | bit(c.User != "" && !c.NoUser, 128)
	b := appendString(nil, name)
	b = append(b, version, flags)
	b = binary.BigEndian.AppendUint16(b, c.KeepAlive)
	b = appendProperties(b, version, c.Properties)
	b = appendString(b, c.ClientID)
	if w := c.Will; w != nil {
		b = appendProperties(b, version, w.Properties)
		b = appendString(appendString(b, w.Topic), string(w.Payload))
	}
	if flags&128 != 0 {
		b = appendString(b, c.User)
	}
	if c.Password != nil {
		b = appendString(b, string(c.Password))
	}
	return Frame(0x10, b...)
}

// A Publish is a PUBLISH packet.
type Publish struct {
	Topic      string
	QoS        byte
	ID         uint16 // written when QoS is not 0
	Dup        bool
	Retain     bool
	Properties Properties
	Payload    []byte
}

// Encode writes the packet.
func (p Publish) Encode(version byte) []byte {
	b := appendString(nil, p.Topic)
	if p.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, p.ID)
	}
	b = appendProperties(b, version, p.Properties)
	return Frame(0x30|bit(p.Dup, 8)|p.QoS<<1|bit(p.Retain, 1), append(b, p.Payload...)...)
}

// An Ack is PUBACK, PUBREC, PUBREL or PUBCOMP. With code 0 and no properties
// it takes its short form of two bytes, which is the only one of 3.1.1.
type Ack struct {
	Type       Type
	ID         uint16
	Code       byte
	Properties Properties
}

// Encode writes the packet.
func (a Ack) Encode(version byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, a.ID)
	if version >= 5 && (a.Code != 0 || a.Properties != nil) {
		b = appendProperties(append(b, a.Code), version, a.Properties)
	}
	return Frame(byte(a.Type)<<4|wantFlags(a.Type), b...)
}

// A Filter is one entry of a Subscribe, with its options.
type Filter struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	OrOptions         byte // additional bits of the options byte
}

// A Subscribe is a SUBSCRIBE packet.
type Subscribe struct {
	ID         uint16
	Properties Properties
	Filters    []Filter
}

// Encode writes the packet. For 3.1.1 only the QoS of the options is left.
func (s Subscribe) Encode(version byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, s.ID)
	b = appendProperties(b, version, s.Properties)
	for _, f := range s.Filters {
		o := f.QoS | f.OrOptions
		if version >= 5 {
			o |= bit(f.NoLocal, 4) | bit(f.RetainAsPublished, 8) | f.RetainHandling<<4
		}
		b = append(appendString(b, f.Filter), o)
	}
	return Frame(0x82, b...)
}

// An Unsubscribe is an UNSUBSCRIBE packet.
type Unsubscribe struct {
	ID         uint16
	Properties Properties
	Filters    []string
}

// Encode writes the packet.
func (u Unsubscribe) Encode(version byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, u.ID)
	b = appendProperties(b, version, u.Properties)
	for _, f := range u.Filters {
		b = appendString(b, f)
	}
	return Frame(0xA2, b...)
}

// A Reason is DISCONNECT or AUTH. In 3.1.1, and with code 0 and no
// properties, it has no body.
type Reason struct {
	Type       Type
	Code       byte
	Properties Properties
}

// Encode writes the packet.
func (d Reason) Encode(version byte) []byte {
	var b []byte
	if version >= 5 && (d.Code != 0 || d.Properties != nil) {
		b = appendProperties([]byte{d.Code}, version, d.Properties)
	}
	return Frame(byte(d.Type)<<4, b...)
}

// Ping is a PINGREQ, Bye a DISCONNECT with code 0.
var (
	Ping = Raw{0xC0, 0}
	Bye  = Raw{0xE0, 0}
)

func appendProperties(b []byte, version byte, p Properties) []byte {
	if version < 5 {
		return b
	}
	return append(b, p.encode()...)
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}
