package mqtt

import (
	"fmt"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/wire"
)

// decode has the codec read a packet whose structure has been walked already.
// The codec has panicked on input before, so whatever it does ends this
// connection at most.
func decode(pk *packets.Packet, read func([]byte) error, body []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = malformed(fmt.Sprintf("the decoder panicked: %v", r))
		}
	}()
	if err := read(body); err != nil {
		return malformed(err.Error())
	}
	return nil
}

// A connectPacket is a CONNECT that is well-formed. Its strings alias the
// input.
type connectPacket struct {
	packets.Packet
	willProps  []byte // of the will, what is forwarded: wire form, in order
	willExpiry uint32
	willDelay  uint32
	willText   bool    // Payload Format Indicator of the will
	maxPacket  uint32  // Maximum Packet Size, 0 for none
	problems   bool    // it wants Reason Strings; false until its properties are known
	bridge     bool    // of 3.1 or 3.1.1: it says that it is one
	seen       propSet // which properties the CONNECT had
	willSeen   propSet
}

func (p *connectPacket) v5() bool { return p.ProtocolVersion == 5 }

// Flags of CONNECT.
const (
	connectReserved = 1 << 0
	connectClean    = 1 << 1
	connectWill     = 1 << 2
	connectWillQoS  = 3 << 3
	connectRetain   = 1 << 5
	connectPassword = 1 << 6
	connectUser     = 1 << 7
)

// badVersion is a CONNECT of a protocol that we do not speak. v5 says in which
// form to answer, silent that there is none.
type badVersion struct {
	v5, silent bool
}

func (*badVersion) Error() string { return "unsupported protocol version" }

// parseVersion reads protocol name and level. The flags of the fixed header are
// checked here, because the form of the answer depends on the version.
//
// A bridge of 3.1 or 3.1.1 may set the high bit of the level, as mosquitto's do: what it
// subscribes to is to come to it as to a client of MQTT 5 that asks for No Local and Retain As
// Published. The standard has no such level; who does not set it is not concerned.
func parseVersion(c *wire.Fields, first byte) (version byte, bridge bool, err error) {
	name, level := c.Bytes(), c.Byte()
	if c.Short {
		return 0, false, malformed("CONNECT cut short")
	}
	if low := level &^ bridgeLevel; level&bridgeLevel != 0 && (low == 3 || low == 4) {
		level, bridge = low, true
	}
	switch {
	case string(name) == "MQTT" && (level == 4 || level == 5), string(name) == "MQIsdp" && level == 3:
		if first&0xf != 0 && level > 3 { // 3.1 says only that they are not used
			return level, bridge, malformed("flags of the fixed header")
		}
		return level, bridge, nil
	case string(name) == "MQIsdp", string(name) == "MQTT":
		// A client that says the name of one version and the level of another
		// reads two bytes of answer; anything else is from a time to come.
		return 0, bridge, &badVersion{v5: level != 3 && level != 4}
	}
	return 0, bridge, &badVersion{silent: true}
}

// bridgeLevel is the bit of the protocol level by which a bridge says that it is one.
const bridgeLevel = 0x80

// parseConnect walks a CONNECT, has the codec read it, and validates what the
// codec does not. A fault comes with the version, if it could be told, and with
// what the packet says of the answers it takes: the answer depends on both.
func parseConnect(first byte, body []byte) (p *connectPacket, version byte, err error) {
	p = new(connectPacket)
	c := wire.Fields{Rest: body}
	version, p.bridge, err = parseVersion(&c, first)
	if err != nil {
		return nil, version, err
	}
	p.ProtocolVersion = version
	if err := p.walk(&c); err != nil {
		return p, version, err
	}
	p.FixedHeader.Type = packets.Connect
	err = decode(&p.Packet, p.ConnectDecode, body)
	p.ProtocolVersion = version // to the codec a bridge's is another
	return p, version, err
}

// walk checks everything after the protocol level, field by field.
func (p *connectPacket) walk(c *wire.Fields) error {
	flags := c.Byte()
	c.Uint16() // keep alive
	if c.Short {
		return malformed("CONNECT cut short")
	}
	if err := p.checkFlags(flags); err != nil {
		return err
	}
	if p.v5() {
		if err := p.walkProps(c); err != nil {
			return err
		}
	}
	id := c.Bytes()
	if c.Short {
		return malformed("CONNECT cut short")
	}
	if !validText(id) {
		return malformed("client identifier is not UTF-8")
	}
	if !validID(id) {
		return &fault{codeBadClientID, "client identifier has control characters"}
	}
	if flags&connectWill != 0 {
		if err := p.walkWill(c); err != nil {
			return err
		}
	}
	if flags&connectUser != 0 && !validID(c.Bytes()) {
		return malformed("user name is not printable UTF-8")
	}
	if flags&connectPassword != 0 {
		c.Bytes()
	}
	switch {
	case c.Short:
		return malformed("CONNECT cut short")
	case len(c.Rest) > 0:
		return malformed("bytes after the last field")
	}
	return nil
}

func (p *connectPacket) checkFlags(flags byte) error {
	switch {
	case flags&connectReserved != 0 && p.ProtocolVersion > 3: // 3.1 has not said what it should be
		return malformed("reserved connect flag")
	case flags&connectWillQoS == connectWillQoS:
		return malformed("will QoS 3")
	case flags&connectWill == 0 && flags&(connectWillQoS|connectRetain) != 0:
		return malformed("will QoS or will retain without a will")
	case flags&connectPassword != 0 && flags&connectUser == 0 && !p.v5():
		return malformed("password without user name")
	}
	return nil
}

func (p *connectPacket) walkProps(c *wire.Fields) error {
	w := walkProps(c, connectProps)
	if c.Short {
		return malformed("properties run past the end")
	}
	problems := true
	for {
		prop, ok, err := w.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		switch prop.id {
		case packets.PropMaximumPacketSize:
			p.maxPacket = prop.num
		case packets.PropRequestProblemInfo:
			problems = prop.num == 1
		}
	}
	p.seen, p.problems = w.seen, problems
	if w.seen.has(packets.PropAuthenticationData) && !w.seen.has(packets.PropAuthenticationMethod) {
		return protocolError("authentication data without method")
	}
	return nil
}

func (p *connectPacket) walkWill(c *wire.Fields) error {
	if p.v5() {
		w := walkProps(c, willProps)
		if c.Short {
			return malformed("properties run past the end")
		}
		if err := p.walkWillProps(&w); err != nil {
			return err
		}
		p.willSeen = w.seen
	}
	name, payload := c.Bytes(), c.Bytes()
	if c.Short {
		return malformed("CONNECT cut short")
	}
	if p.willText && !utf8.Valid(payload) {
		return &fault{codeBadPayload, "will: " + errNotText.Reason}
	}
	if len(name) == 0 {
		return &fault{codeBadTopic, "empty will topic"}
	}
	refused, fatal := checkTopic(view(name))
	if refused != nil {
		return &fault{codeBadTopic, "will topic: " + refused.Error()}
	}
	return fatal
}

// walkWillProps keeps what is forwarded with the will, in its order.
func (p *connectPacket) walkWillProps(w *propWalker) error {
	for {
		prop, ok, err := w.next()
		if err != nil || !ok {
			return err
		}
		switch prop.id {
		case packets.PropWillDelayInterval:
			p.willDelay = prop.num
		case packets.PropMessageExpiryInterval:
			p.willExpiry = prop.num
		case packets.PropPayloadFormat:
			p.willText = prop.num == 1
			p.willProps = append(p.willProps, prop.raw...)
		default:
			p.willProps = append(p.willProps, prop.raw...)
		}
	}
}

// parseSubscribe walks a SUBSCRIBE and has the codec read it. Whether a filter
// is valid is not asked: that is answered filter by filter.
func parseSubscribe(body []byte, version byte) (*packets.Packet, error) {
	v5 := version == 5
	c := wire.Fields{Rest: body}
	if err := walkRequest(&c, v5, subscribeProps); err != nil {
		return nil, err
	}
	for len(c.Rest) > 0 {
		filter, opts := c.Bytes(), c.Byte()
		if err := checkEntry(&c, filter); err != nil {
			return nil, err
		}
		reserved := byte(0xfc)
		if v5 {
			reserved = 0xc0
		}
		switch {
		case opts&reserved != 0:
			return nil, malformed("reserved subscription options")
		case opts&3 == 3:
			return nil, malformed("QoS 3")
		case opts>>4&3 == 3:
			return nil, protocolError("retain handling 3")
		case opts&4 != 0 && isShared(view(filter)):
			return nil, protocolError("no local on a shared subscription")
		}
	}
	pk := &packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: packets.Subscribe}}
	return pk, decode(pk, pk.SubscribeDecode, body)
}

// isShared says whether filter is that of a shared subscription.
func isShared(filter string) bool {
	_, _, shared, err := topic.SplitShare(filter)
	return shared && err == nil
}

// parseUnsubscribe does for UNSUBSCRIBE what parseSubscribe does.
func parseUnsubscribe(body []byte, version byte) (*packets.Packet, error) {
	c := wire.Fields{Rest: body}
	if err := walkRequest(&c, version == 5, unsubProps); err != nil {
		return nil, err
	}
	for len(c.Rest) > 0 {
		if err := checkEntry(&c, c.Bytes()); err != nil {
			return nil, err
		}
	}
	pk := &packets.Packet{ProtocolVersion: version, FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}}
	return pk, decode(pk, pk.UnsubscribeDecode, body)
}

// walkRequest walks what SUBSCRIBE and UNSUBSCRIBE have before their entries,
// of which there must be one.
func walkRequest(c *wire.Fields, v5 bool, allowed propSet) error {
	id := c.Uint16()
	if v5 {
		w := walkProps(c, allowed)
		if c.Short {
			return malformed("properties run past the end")
		}
		if err := w.all(); err != nil {
			return err
		}
	}
	switch {
	case c.Short:
		return malformed("cut short")
	case id == 0:
		return protocolError("packet identifier 0")
	case len(c.Rest) == 0:
		return protocolError("no topic filter")
	}
	return nil
}

func checkEntry(c *wire.Fields, filter []byte) error {
	switch {
	case c.Short:
		return malformed("cut short")
	case len(filter) == 0:
		return malformed("empty topic filter")
	case !validID(filter):
		return malformed("topic filter that is not printable UTF-8")
	}
	return nil
}
