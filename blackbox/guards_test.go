package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A guard is one line of the table of what a broker must refuse: bytes that a
// client sends, and what it is answered.
type guard struct {
	name string
	v    byte
	// first is sent in place of CONNECT, else raw is sent once connected.
	first, raw mq.Message
	// code is the reason code of CONNACK or DISCONNECT. For 3.1.1 it is a
	// CONNACK's return code, or 0 for a close without a word.
	code byte
	// or is a second code where the standard leaves the choice.
	or byte
	// mayBeSilent allows a close without CONNACK, where the packet is too
	// broken to tell its version.
	mayBeSilent bool
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func connect5(props ...mq.Property) mq.Connect {
	return mq.Connect{ClientID: "guard", Clean: true, Properties: props}
}

func publish5(props ...mq.Property) mq.Publish {
	return mq.Publish{Topic: "guard", QoS: 1, ID: 1, Properties: props, Payload: []byte("x")}
}

func subscribe5(f mq.Filter, props ...mq.Property) mq.Subscribe {
	return mq.Subscribe{ID: 1, Filters: []mq.Filter{f}, Properties: props}
}

// cutBy is a message short of its last n bytes, with a remaining length that
// says so.
func cutBy(m mq.Message, n int) mq.Raw {
	b := m.Encode(5)
	return mq.Frame(b[0], b[2:len(b)-n]...)
}

// with is a message with further bytes at its end, with a remaining length
// that says so.
func with(m mq.Message, v byte, more ...byte) mq.Raw {
	b := m.Encode(v)
	return mq.Frame(b[0], join(b[2:], more)...)
}

func will(m *mq.Will) mq.Connect {
	return mq.Connect{ClientID: "guard", Clean: true, Will: m}
}

var guards = []guard{
	// Lengths and framing.
	{name: "SUBSCRIBE cut before an option byte", v: v5, raw: cutBy(subscribe5(mq.Filter{Filter: "t"}), 1), code: 0x81},
	{name: "SUBSCRIBE cut in its filter", v: v5, raw: cutBy(subscribe5(mq.Filter{Filter: "ttt"}), 2), code: 0x81},
	{name: "SUBSCRIBE cut in its second entry", v: v5, raw: cutBy(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: "a"}, {Filter: "b"}}}, 1), code: 0x81},
	{name: "UNSUBSCRIBE cut in its filter", v: v5, raw: cutBy(mq.Unsubscribe{ID: 1, Filters: []string{"ttt"}}, 1), code: 0x81},
	{name: "PUBLISH cut in its topic", v: v5, raw: mq.Frame(0x30, 0, 9, 't'), code: 0x81},
	{name: "PUBLISH cut before its packet id", v: v5, raw: mq.Frame(0x32, 0, 1, 't', 0), code: 0x81},
	{name: "PUBLISH without properties", v: v5, raw: mq.Frame(0x30, 0, 1, 't'), code: 0x81},
	{name: "PUBACK cut in its packet id", v: v5, raw: mq.Frame(0x40, 0), code: 0x81},
	{name: "empty PUBLISH", v: v5, raw: mq.Frame(0x30), code: 0x81},
	{name: "empty SUBSCRIBE", v: v5, raw: mq.Frame(0x82), code: 0x81},
	{name: "empty PUBREL", v: v5, raw: mq.Frame(0x62), code: 0x81},
	{name: "remaining length of five bytes", v: v5, raw: mq.Raw{0xC0, 0x80, 0x80, 0x80, 0x80, 0x00}, code: 0x81},
	{name: "remaining length of five bytes, 3.1.1", v: v4, raw: mq.Raw{0xC0, 0x80, 0x80, 0x80, 0x80, 0x00}},
	{name: "remaining length of five bytes in CONNECT", v: v5, first: mq.Raw{0x10, 0x80, 0x80, 0x80, 0x80, 0x00}, code: 0x81, mayBeSilent: true},
	{name: "remaining length not minimal", v: v5, raw: mq.Raw{0xC0, 0x80, 0x00}, code: 0x81},
	{name: "remaining length not minimal, 3.1.1", v: v4, raw: mq.Raw{0x30, 0x84, 0x00, 0, 1, 't', 'x'}},
	{name: "remaining length not minimal in CONNECT", v: v5, first: mq.Raw(join([]byte{0x10, 0x92, 0x00}, connect5().Encode(5)[2:])), code: 0x81, mayBeSilent: true},
	{name: "256 MB announced once connected", v: v5, raw: mq.Raw{0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, 't', 0}, code: 0x95},
	{name: "256 MB announced, 3.1.1", v: v4, raw: mq.Raw{0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, 't', 0}},
	{name: "256 MB announced by CONNECT", v: v5, first: mq.Raw{0x10, 0xFF, 0xFF, 0xFF, 0x7F, 0, 4}, code: 0x95, mayBeSilent: true},
	{name: "CONNECT of more than 4 KiB", v: v5, first: connect5(mq.User("k", strings.Repeat("x", 5000))), code: 0x95, mayBeSilent: true},
	{name: "variable byte integer of five bytes as property length", v: v5, raw: mq.Frame(0x30, 0, 1, 't', 0x80, 0x80, 0x80, 0x80, 0), code: 0x81},

	// Types and flags.
	{name: "packet type 0", v: v5, raw: mq.Frame(0x00), code: 0x81},
	{name: "packet type 0, 3.1.1", v: v4, raw: mq.Frame(0x00)},
	{name: "CONNACK from a client", v: v5, raw: mq.Frame(0x20, 0, 0, 0), code: 0x82},
	{name: "SUBACK from a client", v: v5, raw: mq.Frame(0x90, 0, 1, 0, 0), code: 0x82},
	{name: "UNSUBACK from a client", v: v5, raw: mq.Frame(0xB0, 0, 1, 0, 0), code: 0x82},
	{name: "PINGRESP from a client", v: v5, raw: mq.Frame(0xD0), code: 0x82},
	{name: "SUBACK from a client, 3.1.1", v: v4, raw: mq.Frame(0x90, 0, 1, 0)},
	{name: "AUTH in 3.1.1", v: v4, raw: mq.Frame(0xF0)},
	{name: "CONNECT with flags", v: v5, first: mq.Raw(append([]byte{0x11}, connect5().Encode(5)[1:]...)), code: 0x81, mayBeSilent: true},
	{name: "reserved connect flag", v: v5, first: mq.Connect{ClientID: "guard", Clean: true, OrFlags: 1}, code: 0x81},
	{name: "reserved connect flag, 3.1.1", v: v4, first: mq.Connect{ClientID: "guard", Clean: true, OrFlags: 1}},
	{name: "PUBREL without its flag", v: v5, raw: mq.Frame(0x60, 0, 1), code: 0x81},
	{name: "PUBACK with a flag", v: v5, raw: mq.Frame(0x42, 0, 1), code: 0x81},
	{name: "SUBSCRIBE without its flag", v: v5, raw: mq.Raw(append([]byte{0x80}, subscribe5(mq.Filter{Filter: "t"}).Encode(5)[1:]...)), code: 0x81},
	{name: "UNSUBSCRIBE without its flag", v: v5, raw: mq.Raw(append([]byte{0xA0}, mq.Unsubscribe{ID: 1, Filters: []string{"t"}}.Encode(5)[1:]...)), code: 0x81},
	{name: "PINGREQ with a flag", v: v5, raw: mq.Frame(0xC1), code: 0x81},
	{name: "DISCONNECT with a flag", v: v5, raw: mq.Frame(0xE1), code: 0x81},
	{name: "AUTH with a flag", v: v5, raw: mq.Frame(0xF1), code: 0x81},

	// Bytes after the last field.
	{name: "PINGREQ with a body", v: v5, raw: mq.Frame(0xC0, 0), code: 0x81},
	{name: "PINGREQ with a body, 3.1.1", v: v4, raw: mq.Frame(0xC0, 0)},
	{name: "PUBACK of three bytes, 3.1.1", v: v4, raw: mq.Frame(0x40, 0, 1, 0)},
	{name: "PUBREL of four bytes, 3.1.1", v: v4, raw: mq.Frame(0x62, 0, 1, 0, 0)},
	{name: "DISCONNECT with a body, 3.1.1", v: v4, raw: mq.Frame(0xE0, 0)},
	{name: "PUBACK with bytes after its properties", v: v5, raw: mq.Frame(0x40, 0, 1, 0, 0, 0), code: 0x81},
	{name: "DISCONNECT with bytes after its properties", v: v5, raw: mq.Frame(0xE0, 0, 0, 0), code: 0x81},
	{name: "AUTH with bytes after its properties", v: v5, raw: mq.Frame(0xF0, 0, 0, 0), code: 0x81},
	{name: "CONNECT with bytes after its last field", v: v5, first: with(connect5(), 5, 0), code: 0x81},
	{name: "CONNECT with bytes after its last field, 3.1.1", v: v4, first: with(clean("guard"), 4, 0)},
	{name: "UNSUBSCRIBE with a byte after its last filter", v: v5, raw: with(mq.Unsubscribe{ID: 1, Filters: []string{"t"}}, 5, 0), code: 0x81},

	// QoS.
	{name: "QoS 3", v: v5, raw: mq.Publish{Topic: "t", QoS: 3, ID: 1}, code: 0x81},
	{name: "QoS 3, 3.1.1", v: v4, raw: mq.Publish{Topic: "t", QoS: 3, ID: 1}},
	{name: "Will QoS 3", v: v5, first: will(&mq.Will{Topic: "w", QoS: 3}), code: 0x81},
	{name: "Will QoS 3, 3.1.1", v: v4, first: will(&mq.Will{Topic: "w", QoS: 3})},
	{name: "DUP on QoS 0", v: v5, raw: mq.Publish{Topic: "t", Dup: true}, code: 0x81, or: 0x82},
	{name: "subscription QoS 3", v: v5, raw: subscribe5(mq.Filter{Filter: "t", QoS: 3}), code: 0x81, or: 0x82},
	{name: "subscription QoS 3, 3.1.1", v: v4, raw: subscribe5(mq.Filter{Filter: "t", QoS: 3})},

	// Properties.
	{name: "property past the property length", v: v5, raw: mq.Frame(0x30, 0, 1, 't', 1, mq.PropPayloadFormat, 1), code: 0x81},
	{name: "property length past the packet", v: v5, raw: mq.Frame(0x30, 0, 1, 't', 9, mq.PropPayloadFormat, 1), code: 0x81},
	{name: "unknown property", v: v5, raw: mq.Frame(0x30, 0, 1, 't', 2, 0x7F, 1), code: 0x81, or: 0x82},
	{name: "property of another packet", v: v5, raw: publish5(mq.Number(mq.PropReceiveMaximum, 1)), code: 0x81, or: 0x82},
	{name: "property twice in PUBLISH", v: v5, raw: publish5(mq.Text(mq.PropContentType, "a"), mq.Text(mq.PropContentType, "b")), code: 0x82},
	{name: "property twice in CONNECT", v: v5, first: connect5(mq.Number(mq.PropSessionExpiry, 1), mq.Number(mq.PropSessionExpiry, 1)), code: 0x82},
	{name: "property twice in the will", v: v5, first: will(&mq.Will{Topic: "w", Properties: mq.Properties{mq.Number(mq.PropWillDelay, 1), mq.Number(mq.PropWillDelay, 1)}}), code: 0x82},
	{name: "property twice in PUBACK", v: v5, raw: mq.Ack{Type: mq.PUBACK, ID: 1, Properties: mq.Properties{mq.Text(mq.PropReasonString, "a"), mq.Text(mq.PropReasonString, "b")}}, code: 0x82},
	{name: "Receive Maximum 0", v: v5, first: connect5(mq.Number(mq.PropReceiveMaximum, 0)), code: 0x82},
	{name: "Maximum Packet Size 0", v: v5, first: connect5(mq.Number(mq.PropMaximumPacketSize, 0)), code: 0x82},
	{name: "Request Problem Information 2", v: v5, first: connect5(mq.Number(mq.PropRequestProblemInfo, 2)), code: 0x82},
	{name: "Request Response Information 2", v: v5, first: connect5(mq.Number(mq.PropRequestResponseInfo, 2)), code: 0x82},
	{name: "Authentication Data without Method", v: v5, first: connect5(mq.Binary(mq.PropAuthData, []byte("x"))), code: 0x82},
	{name: "Payload Format 2", v: v5, raw: publish5(mq.Number(mq.PropPayloadFormat, 2)), code: 0x82},
	{name: "Payload Format 2 in the will", v: v5, first: will(&mq.Will{Topic: "w", Properties: mq.Properties{mq.Number(mq.PropPayloadFormat, 2)}}), code: 0x82},
	{name: "Subscription Identifier 0", v: v5, raw: subscribe5(mq.Filter{Filter: "t"}, mq.Number(mq.PropSubscriptionID, 0)), code: 0x82},
	{name: "two Subscription Identifiers", v: v5, raw: subscribe5(mq.Filter{Filter: "t"}, mq.Number(mq.PropSubscriptionID, 1), mq.Number(mq.PropSubscriptionID, 2)), code: 0x82},
	{name: "Subscription Identifier from a publisher", v: v5, raw: publish5(mq.Number(mq.PropSubscriptionID, 1)), code: 0x82},
	{name: "Response Topic with a wildcard", v: v5, raw: publish5(mq.Text(mq.PropResponseTopic, "a/+")), code: 0x82},
	{name: "User Property not UTF-8", v: v5, raw: publish5(mq.User("k", "\xff")), code: 0x81},
	{name: "Content Type not UTF-8", v: v5, raw: publish5(mq.Text(mq.PropContentType, "\xc0\x80")), code: 0x81},

	// Acknowledgements.
	{name: "undefined reason code in PUBACK", v: v5, raw: mq.Ack{Type: mq.PUBACK, ID: 1, Code: 0x55}, code: 0x82},
	{name: "undefined reason code in PUBREL", v: v5, raw: mq.Ack{Type: mq.PUBREL, ID: 1, Code: 0x87}, code: 0x82},
	{name: "undefined reason code in DISCONNECT", v: v5, raw: mq.Reason{Type: mq.DISCONNECT, Code: 0x55}, code: 0x82},
	{name: "undefined reason code in AUTH", v: v5, raw: mq.Reason{Type: mq.AUTH, Code: 0x55}, code: 0x82},
	{name: "packet id 0 in PUBACK", v: v5, raw: mq.Ack{Type: mq.PUBACK}, code: 0x82},
	{name: "packet id 0 in PUBREL", v: v5, raw: mq.Ack{Type: mq.PUBREL}, code: 0x82},
	{name: "packet id 0 in PUBLISH", v: v5, raw: mq.Publish{Topic: "t", QoS: 1}, code: 0x82, or: 0x81},
	{name: "packet id 0 in SUBSCRIBE", v: v5, raw: mq.Subscribe{Filters: []mq.Filter{{Filter: "t"}}}, code: 0x82, or: 0x81},
	{name: "packet id 0 in UNSUBSCRIBE", v: v5, raw: mq.Unsubscribe{Filters: []string{"t"}}, code: 0x82, or: 0x81},
	{name: "packet id 0 in PUBLISH, 3.1.1", v: v4, raw: mq.Publish{Topic: "t", QoS: 1}},

	// AUTH and DISCONNECT. An AUTH without a body is legal and means code 0;
	// only without a method in CONNECT it is out of place.
	{name: "AUTH of length 0 without a method", v: v5, raw: mq.Frame(0xF0), code: 0x82},
	{name: "unknown authentication method", v: v5, first: connect5(mq.Text(mq.PropAuthMethod, "no such method")), code: 0x8C},
	{name: "AUTH as the first packet", v: v5, first: mq.Frame(0xF0), code: 0x82, mayBeSilent: true},
	{name: "DISCONNECT of length 2 with a property length", v: v5, raw: mq.Frame(0xE0, 0, 5), code: 0x81},
	{name: "Server Reference from a client", v: v5, raw: mq.Reason{Type: mq.DISCONNECT, Properties: mq.Properties{mq.Text(mq.PropServerReference, "x")}}, code: 0x82},

	// Subscriptions.
	{name: "reserved option bits", v: v5, raw: subscribe5(mq.Filter{Filter: "t", OrOptions: 0xC0}), code: 0x81},
	{name: "reserved option bits, 3.1.1", v: v4, raw: subscribe5(mq.Filter{Filter: "t", OrOptions: 0x04})},
	{name: "Retain Handling 3", v: v5, raw: subscribe5(mq.Filter{Filter: "t", RetainHandling: 3}), code: 0x82},
	{name: "zero-length filter", v: v5, raw: subscribe5(mq.Filter{Filter: ""}), code: 0x81},
	{name: "zero-length filter, 3.1.1", v: v4, raw: subscribe5(mq.Filter{Filter: ""})},
	{name: "zero-length filter in UNSUBSCRIBE", v: v5, raw: mq.Unsubscribe{ID: 1, Filters: []string{""}}, code: 0x81},
	{name: "SUBSCRIBE without filters", v: v5, raw: mq.Subscribe{ID: 1}, code: 0x82, or: 0x81},
	{name: "UNSUBSCRIBE without filters", v: v5, raw: mq.Unsubscribe{ID: 1}, code: 0x82, or: 0x81},
	{name: "SUBSCRIBE without filters, 3.1.1", v: v4, raw: mq.Subscribe{ID: 1}},
	{name: "filter not UTF-8", v: v5, raw: subscribe5(mq.Filter{Filter: "a\xffb"}), code: 0x81},
	{name: "filter with U+0000", v: v5, raw: subscribe5(mq.Filter{Filter: "a\x00b"}), code: 0x81},

	// CONNECT.
	{name: "user name not UTF-8", v: v5, first: mq.Connect{ClientID: "guard", Clean: true, User: "\xff"}, code: 0x81},
	{name: "user name not UTF-8, 3.1.1", v: v4, first: mq.Connect{ClientID: "guard", Clean: true, User: "\xff"}},
	{name: "client id not UTF-8", v: v5, first: clean("\xed\xa0\x80"), code: 0x81},
	{name: "client id with U+0000", v: v5, first: clean("a\x00"), code: 0x81},
	{name: "Will QoS without a will", v: v5, first: mq.Connect{ClientID: "guard", Clean: true, OrFlags: 8}, code: 0x81},
	{name: "Will Retain without a will", v: v5, first: mq.Connect{ClientID: "guard", Clean: true, OrFlags: 32}, code: 0x81},
	{name: "Will QoS without a will, 3.1.1", v: v4, first: mq.Connect{ClientID: "guard", Clean: true, OrFlags: 8}},
	{name: "password without user name, 3.1.1", v: v4, first: mq.Connect{ClientID: "guard", Clean: true, Password: []byte("x")}},
	{name: "empty client id with a session, 3.1.1", v: v4, first: mq.Connect{}, code: 2},
	{name: "will topic with a wildcard", v: v5, first: will(&mq.Will{Topic: "w/+"}), code: 0x90},
	{name: "empty will topic", v: v5, first: will(&mq.Will{Topic: ""}), code: 0x90, or: 0x81},
	{name: "CONNECT cut in its client id", v: v5, first: cutBy(connect5(), 2), code: 0x81},
	{name: "CONNECT cut in its will", v: v5, first: cutBy(will(&mq.Will{Topic: "w", Payload: []byte("ppp")}), 2), code: 0x81},
	{name: "empty CONNECT", v: v5, first: mq.Frame(0x10), code: 0x81, mayBeSilent: true},
	{name: "protocol level 6", v: v5, first: mq.Frame(0x10, join([]byte("\x00\x04MQTT\x06\x02\x00\x00\x00\x00\x05guard"))...), code: 0x84},
	{name: "the name of MQTT 3.1 and the level of 3.1.1", v: v4, first: mq.Frame(0x10, []byte("\x00\x06MQIsdp\x04\x02\x00\x00\x00\x05guard")...), code: 1},
	{name: "MQTT 3.1 without a client id", v: 3, first: mq.Connect{Clean: true}, code: 2},
	{name: "protocol level 3 under the name MQTT", v: v4, first: mq.Frame(0x10, []byte("\x00\x04MQTT\x03\x02\x00\x00\x00\x05guard")...), code: 1},
	{name: "another protocol's name", v: v4, first: mq.Frame(0x10, []byte("\x00\x04HTTP\x04\x02\x00\x00\x00\x05guard")...)},

	// Topics of PUBLISH.
	{name: "topic not UTF-8", v: v5, raw: mq.Publish{Topic: "a\xff"}, code: 0x81},
	{name: "topic with U+0000", v: v5, raw: mq.Publish{Topic: "a\x00"}, code: 0x81},
	{name: "topic with a wildcard", v: v5, raw: mq.Publish{Topic: "a/#"}, code: 0x90, or: 0x82},
	{name: "topic with a wildcard, 3.1.1", v: v4, raw: mq.Publish{Topic: "a/+"}},
	{name: "empty topic without an alias", v: v5, raw: mq.Publish{}, code: 0x82},
	{name: "empty topic, 3.1.1", v: v4, raw: mq.Publish{}},
}

// Every malformed packet is refused with its reason code and ends the
// connection it came on, and only that: three healthy clients go on through
// all of them.
func TestGuards(t *testing.T) {
	addr := plain(t)
	healthy := newWitnesses(t, addr)
	for _, g := range guards {
		t.Run(g.name, func(t *testing.T) {
			c := mq.Dial(t, addr, g.v)
			if g.first != nil {
				c.TrySend(g.first)
				g.checkRefused(t, c.Closed())
			} else {
				c.Connect(clean(name(t)))
				c.TrySend(g.raw)
				g.checkClosed(t, c.Closed())
			}
		})
		healthy.check(t, g.name)
	}
}

// checkRefused judges what was answered in place of CONNACK's success.
func (g guard) checkRefused(t *testing.T, got []*mq.Packet) {
	t.Helper()
	silent := g.mayBeSilent || g.v < 5 && g.code == 0
	if len(got) == 0 && silent {
		return
	}
	if len(got) != 1 || got[0].Type != mq.CONNACK || !g.allows(got[0].Code) {
		t.Errorf("got %v before the close, want CONNACK %s", got, g.want())
	}
}

// checkClosed judges what was said at the end of a connection.
func (g guard) checkClosed(t *testing.T, got []*mq.Packet) {
	t.Helper()
	if g.v < 5 {
		if len(got) != 0 {
			t.Errorf("got %v before the close, want nothing", got)
		}
		return
	}
	if len(got) != 1 || got[0].Type != mq.DISCONNECT || !g.allows(got[0].Code) {
		t.Errorf("got %v before the close, want DISCONNECT %s", got, g.want())
	}
}

func (g guard) allows(code byte) bool { return code != 0 && (code == g.code || code == g.or) }

func (g guard) want() string {
	if g.or != 0 {
		return fmt.Sprintf("code=%#02x or %#02x", g.code, g.or)
	}
	return fmt.Sprintf("code=%#02x", g.code)
}

// Witnesses are three healthy clients that must notice nothing: a publisher
// and two subscribers of different version and QoS.
type witnesses struct {
	publisher   *mq.Client
	subscribers []*mq.Client
	topic       string
	rounds      int
}

func newWitnesses(t *testing.T, addr string) *witnesses {
	w := &witnesses{topic: name(t, "healthy")}
	w.publisher = mq.Open(t, addr, v5, clean(name(t, "publisher")))
	for i, v := range []byte{v4, v5} {
		s := mq.Open(t, addr, v, clean(name(t, fmt.Sprint("subscriber", v))))
		s.Subscribe(w.topic, byte(1+i))
		w.subscribers = append(w.subscribers, s)
	}
	return w
}

// check does a round: one message that reaches both, and nothing else does.
func (w *witnesses) check(t *testing.T, after string) {
	t.Helper()
	w.rounds++
	text := fmt.Sprint(w.rounds, " ", after)
	w.publisher.Publish(w.topic, 2, text)
	for _, s := range w.subscribers {
		s.ReceiveText(w.topic, text)
	}
}

// What looks odd but is legal is accepted: the same table's other side.
func TestGuardsAcceptWhatIsLegal(t *testing.T) {
	addr := plain(t)
	t.Run("empty will payload", func(t *testing.T) {
		sub := mq.Open(t, addr, v5, clean(name(t, "sub")))
		sub.Subscribe(name(t), 1)
		c := mq.Open(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Will: &mq.Will{Topic: name(t), QoS: 1}})
		c.Send(mq.Reason{Type: mq.DISCONNECT, Code: 4})
		sub.ReceiveText(name(t), "")
	})
	t.Run("DISCONNECT of length 1 keeps its code", func(t *testing.T) {
		// 0x04 asks for the will; read as 0x00 it would be lost.
		sub := mq.Open(t, addr, v5, clean(name(t, "sub")))
		sub.Subscribe(name(t), 1)
		c := mq.Open(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Will: &mq.Will{Topic: name(t), QoS: 1, Payload: []byte("will")}})
		c.Send(mq.Frame(0xE0, 0x04))
		sub.ReceiveText(name(t), "will")
	})
	t.Run("PUBACK of three bytes", func(t *testing.T) {
		c := mq.Open(t, addr, v5, clean(name(t)))
		c.Subscribe(name(t), 1)
		c.Publish(name(t), 1, "x")
		p := c.Await(mq.PUBLISH, 0)
		c.Send(mq.Frame(0x40, byte(p.ID>>8), byte(p.ID), 0x10))
		c.Quiet()
	})
	t.Run("User Property repeated", func(t *testing.T) {
		c := mq.Open(t, addr, v5, clean(name(t)))
		c.PublishMessage(mq.Publish{Topic: name(t), QoS: 1, Properties: mq.Properties{mq.User("a", "1"), mq.User("a", "1")}})
	})
	t.Run("packet cut into single bytes", func(t *testing.T) {
		c := mq.Dial(t, addr, v5)
		for _, b := range join(clean(name(t)).Encode(v5), mq.Ping) {
			c.Send(mq.Raw{b})
		}
		c.Expect(mq.CONNACK)
		c.Expect(mq.PINGRESP)
	})
	t.Run("packets joined in one write", func(t *testing.T) {
		c := mq.Dial(t, addr, v5)
		c.Send(clean(name(t)), mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: name(t)}}}, mq.Ping, mq.Ping)
		c.Expect(mq.CONNACK)
		c.ExpectID(mq.SUBACK, 1)
		c.Expect(mq.PINGRESP)
		c.Expect(mq.PINGRESP)
	})
	t.Run("Message Expiry 0 is delivered at once or never", func(t *testing.T) {
		// A broker that cannot tell 0 from absent retains it for ever.
		c := mq.Open(t, addr, v5, clean(name(t)))
		c.Subscribe(name(t), 1)
		c.PublishMessage(mq.Publish{Topic: name(t), QoS: 1, Retain: true, Properties: mq.Properties{mq.Number(mq.PropMessageExpiry, 0)}, Payload: []byte("now")})
		c.Publish(name(t), 1, "mark")
		if p := c.Receive(); string(p.Payload) == "now" {
			c.ReceiveText(name(t), "mark")
		} else if string(p.Payload) != "mark" {
			t.Errorf("got %v", p)
		}
		late := mq.Open(t, addr, v5, clean(name(t, "late")))
		late.Subscribe(name(t), 1)
		late.Quiet()
	})
}
