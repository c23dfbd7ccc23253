package mqtt

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// props5 is a property section of MQTT 5.
func props5(b ...byte) []byte {
	head := make([]byte, maxVarint)
	return append(head[:putVarint(head, len(b))], b...)
}

// A guard is a packet of a connected client, and what becomes of the
// connection: the beginning of the answer, or "" if it goes on.
type guard struct {
	name  string
	bytes []byte
	want  string
}

// Every row of MQTT.md section 1 that concerns a connected MQTT 5 client, and
// its neighbours that are legal.
var guards5 = []guard{
	{"packet type 0", []byte{0x00, 0}, "DISCONNECT 81"},
	{"packet type 0, not complete", []byte{0x0a, 0xc0}, "DISCONNECT 81"},
	{"CONNACK", []byte{0x20, 2, 0, 0}, "DISCONNECT 82"},
	{"SUBACK", []byte{0x90, 3, 0, 1, 0}, "DISCONNECT 82"},
	{"UNSUBACK", []byte{0xb0, 2, 0, 1}, "DISCONNECT 82"},
	{"PINGRESP", []byte{0xd0, 0}, "DISCONNECT 82"},
	{"second CONNECT", connectBytes(5, "g"), "DISCONNECT 82"},

	{"remaining length of five bytes", []byte{0xc0, 0x80, 0x80, 0x80, 0x80, 0}, "DISCONNECT 81"},
	{"remaining length of four and more to come", []byte{0x30, 0x80, 0x80, 0x80, 0x80}, "DISCONNECT 81"},
	{"remaining length too long", []byte{0xc0, 0x80, 0}, "DISCONNECT 81"},
	{"256 MB announced", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, "DISCONNECT 95"},
	{"one byte more than the Maximum Packet Size", append(packet(0x30, "a", props5(), bytes.Repeat([]byte{'x'}, 4096-6)), 'x')[:6], "DISCONNECT 95"},

	{"PINGREQ with a body", []byte{0xc0, 1, 0}, "DISCONNECT 81"},
	{"PINGREQ with flags", []byte{0xc1, 0}, "DISCONNECT 81"},
	{"PUBACK with flags", []byte{0x42, 2, 0, 1}, "DISCONNECT 81"},
	{"PUBREL without flags", []byte{0x60, 2, 0, 1}, "DISCONNECT 81"},
	{"SUBSCRIBE without flags", packet(0x80, u16(1), props5(), "a", 0), "DISCONNECT 81"},
	{"DISCONNECT with flags", []byte{0xe1, 0}, "DISCONNECT 81"},

	{"PUBLISH", packet(0x30, "a", props5(), []byte("x")), ""},
	{"PUBLISH without payload", packet(0x30, "a", props5()), ""},
	{"PUBLISH, QoS 3", packet(0x36, "a", u16(1), props5()), "DISCONNECT 81"},
	{"PUBLISH, DUP at QoS 0", packet(0x38, "a", props5()), "DISCONNECT 81"},
	{"PUBLISH without topic or alias", packet(0x30, "", props5()), "DISCONNECT 82"},
	{"PUBLISH, topic cut short", packet(0x30, u16(5), []byte("abc")), "DISCONNECT 81"},
	{"PUBLISH, empty", packet(0x30), "DISCONNECT 81"},
	{"PUBLISH without properties", packet(0x30, "a"), "DISCONNECT 81"},
	{"PUBLISH with +", packet(0x30, "a/+", props5()), "DISCONNECT 90"},
	{"PUBLISH with #", packet(0x30, "a/#", props5()), "DISCONNECT 90"},
	{"PUBLISH, topic not UTF-8", packet(0x30, "a\xff", props5()), "DISCONNECT 81"},
	{"PUBLISH, surrogate", packet(0x30, "a\xed\xa0\x80", props5()), "DISCONNECT 81"},
	{"PUBLISH, NUL", packet(0x30, "a\x00", props5()), "DISCONNECT 81"},
	{"PUBLISH, control character", packet(0x30, "a\n", props5()), "DISCONNECT 81"},
	{"PUBLISH, packet id 0", packet(0x32, "a", u16(0), props5()), "DISCONNECT 82"},
	{"PUBLISH, packet id cut short", packet(0x32, "a", 1), "DISCONNECT 81"},
	{"PUBLISH, properties run past the end", packet(0x30, "a", 5, 1), "DISCONNECT 81"},
	{"PUBLISH, property runs past the properties", packet(0x30, "a", 2, packets.PropMessageExpiryInterval, 0, []byte("abcdef")), "DISCONNECT 81"},
	{"PUBLISH, unknown property", packet(0x30, "a", props5(0x7f, 0)), "DISCONNECT 81"},
	{"PUBLISH, property 0", packet(0x30, "a", props5(0)), "DISCONNECT 81"},
	{"PUBLISH, property of two bytes", packet(0x30, "a", props5(0x81, 0x00)), "DISCONNECT 81"},
	{"PUBLISH, property of CONNECT", packet(0x30, "a", props5(packets.PropReceiveMaximum, 0, 1)), "DISCONNECT 82"},
	{"PUBLISH with a Subscription Identifier", packet(0x30, "a", props5(packets.PropSubscriptionIdentifier, 1)), "DISCONNECT 82"},
	{"PUBLISH, Payload Format 1", packet(0x30, "a", props5(packets.PropPayloadFormat, 1)), ""},
	{"PUBLISH, text that is text", packet(0x32, "a", u16(7), props5(packets.PropPayloadFormat, 1), []byte("\u00fc\x00")), "PUBACK id=7 00"},
	{"PUBLISH, text that is none", packet(0x32, "a", u16(7), props5(packets.PropPayloadFormat, 1), []byte("\xff")), "PUBACK id=7 99"},
	{"PUBLISH, text that is none, QoS 2", packet(0x34, "a", u16(7), props5(packets.PropPayloadFormat, 1), []byte("\xed\xa0\x80")), "PUBREC id=7 99"},
	{"PUBLISH, text that is none, QoS 0", packet(0x30, "a", props5(packets.PropPayloadFormat, 1), []byte("\xff")), ""},
	{"PUBLISH, bytes that are no text", packet(0x32, "a", u16(7), props5(packets.PropPayloadFormat, 0), []byte("\xff")), "PUBACK id=7 00"},
	{"PUBLISH, Payload Format 2", packet(0x30, "a", props5(packets.PropPayloadFormat, 2)), "DISCONNECT 82"},
	{"PUBLISH, property twice", packet(0x30, "a", props5(packets.PropPayloadFormat, 1, packets.PropPayloadFormat, 1)), "DISCONNECT 82"},
	{"PUBLISH, User Property twice", packet(0x30, "a", props5(packets.PropUser, 0, 1, 'k', 0, 0, packets.PropUser, 0, 1, 'k', 0, 0)), ""},
	{"PUBLISH, User Property not UTF-8", packet(0x30, "a", props5(packets.PropUser, 0, 1, 0xff, 0, 0)), "DISCONNECT 81"},
	{"PUBLISH, User Property with a line break", packet(0x30, "a", props5(packets.PropUser, 0, 1, 'k', 0, 1, '\n')), ""},
	{"PUBLISH, Response Topic", packet(0x30, "a", props5(packets.PropResponseTopic, 0, 1, 'r')), ""},
	{"PUBLISH, Response Topic with a wildcard", packet(0x30, "a", props5(packets.PropResponseTopic, 0, 1, '+')), "DISCONNECT 82"},
	{"PUBLISH, alias 0", packet(0x30, "a", props5(packets.PropTopicAlias, 0, 0)), "DISCONNECT 94"},
	{"PUBLISH, alias at the maximum", packet(0x30, "a", props5(packets.PropTopicAlias, 0, 16)), ""},
	{"PUBLISH, alias above the maximum", packet(0x30, "a", props5(packets.PropTopicAlias, 0, 17)), "DISCONNECT 94"},
	{"PUBLISH, alias never set", packet(0x30, "", props5(packets.PropTopicAlias, 0, 3)), "DISCONNECT 82"},
	{"PUBLISH, expiry 0", packet(0x30, "a", props5(packets.PropMessageExpiryInterval, 0, 0, 0, 0)), ""},

	{"PUBACK of nothing", packet(0x40, u16(9)), ""},
	{"PUBACK, length 1", []byte{0x40, 1, 0}, "DISCONNECT 81"},
	{"PUBACK, packet id 0", packet(0x40, u16(0)), "DISCONNECT 82"},
	{"PUBACK 0x10", packet(0x40, u16(9), 0x10), ""},
	{"PUBACK with properties", packet(0x40, u16(9), 0x80, props5(packets.PropReasonString, 0, 1, 'r')), ""},
	{"PUBACK, undefined code", packet(0x40, u16(9), 0x42), "DISCONNECT 82"},
	{"PUBACK, code of PUBREL", packet(0x40, u16(9), 0x92), "DISCONNECT 82"},
	{"PUBACK, bytes after the last field", packet(0x40, u16(9), 0, props5(), 0), "DISCONNECT 81"},
	{"PUBREC of nothing", packet(0x50, u16(9)), "PUBREL id=9 92"},
	{"PUBREC 0x87 of nothing", packet(0x50, u16(9), 0x87), ""},
	{"PUBREL of nothing", packet(0x62, u16(9)), "PUBCOMP id=9 00"},
	{"PUBREL 0x92", packet(0x62, u16(9), 0x92), "PUBCOMP id=9 00"},
	{"PUBREL 0x80", packet(0x62, u16(9), 0x80), "DISCONNECT 82"},
	{"PUBCOMP of nothing", packet(0x70, u16(9), 0x92), ""},

	{"SUBSCRIBE", packet(0x82, u16(1), props5(), "a", 0), "SUBACK id=1 00"},
	{"SUBSCRIBE cut before an option", packet(0x82, u16(1), props5(), "a"), "DISCONNECT 81"},
	{"SUBSCRIBE, filter cut short", packet(0x82, u16(1), props5(), u16(9), []byte("a")), "DISCONNECT 81"},
	{"SUBSCRIBE without a filter", packet(0x82, u16(1), props5()), "DISCONNECT 82"},
	{"SUBSCRIBE, empty filter", packet(0x82, u16(1), props5(), "", 0), "DISCONNECT 81"},
	{"SUBSCRIBE, filter not UTF-8", packet(0x82, u16(1), props5(), "\xff", 0), "DISCONNECT 81"},
	{"SUBSCRIBE, packet id 0", packet(0x82, u16(0), props5(), "a", 0), "DISCONNECT 82"},
	{"SUBSCRIBE, reserved options", packet(0x82, u16(1), props5(), "a", 0x40), "DISCONNECT 81"},
	{"SUBSCRIBE, QoS 3", packet(0x82, u16(1), props5(), "a", 3), "DISCONNECT 81"},
	{"SUBSCRIBE, Retain Handling 2", packet(0x82, u16(1), props5(), "a", 0x20), "SUBACK id=1 00"},
	{"SUBSCRIBE, Retain Handling 3", packet(0x82, u16(1), props5(), "a", 0x30), "DISCONNECT 82"},
	{"SUBSCRIBE, Subscription Identifier", packet(0x82, u16(1), props5(packets.PropSubscriptionIdentifier, 1), "a", 0), "SUBACK id=1 00"},
	{"SUBSCRIBE, Subscription Identifier 0", packet(0x82, u16(1), props5(packets.PropSubscriptionIdentifier, 0), "a", 0), "DISCONNECT 82"},
	{"SUBSCRIBE, two Subscription Identifiers", packet(0x82, u16(1), props5(packets.PropSubscriptionIdentifier, 1, packets.PropSubscriptionIdentifier, 2), "a", 0), "DISCONNECT 82"},
	{"SUBSCRIBE, Subscription Identifier longer than need be", packet(0x82, u16(1), props5(packets.PropSubscriptionIdentifier, 0x81, 0), "a", 0), "DISCONNECT 81"},
	{
		"SUBSCRIBE, bad filters among good ones", packet(0x82, u16(1), props5(), "a", 1, "a/#/b", 0, "a+", 0, "#", 2, "$share/g", 0, "$share//a", 0, "$share/g+/a", 0, "$share/g/a/b", 1),
		"SUBACK id=1 01 8f 8f 02 8f 8f 8f 01 reason=\"BW-3002 topic filter invalid\"",
	},
	{"SUBSCRIBE, no local on a shared subscription", packet(0x82, u16(1), props5(), "$share/g/a", 4), "DISCONNECT 82"},
	{"SUBSCRIBE, shared, what is not permitted alone", packet(0x82, u16(1), props5(), "$share/g/forbidden/x", 0), "SUBACK id=1 87 reason=\"BW-4001 a rule forbids it\""},
	{"SUBSCRIBE, shared, what is one's own", packet(0x82, u16(1), props5(), "$share/g/$me/policy/x", 0), "SUBACK id=1 9e reason=\"BW-3002 what is shown there is not the same for everybody: subscribe without $share\""},
	{"SUBSCRIBE, too many levels", packet(0x82, u16(1), props5(), strings.Repeat("/", 128), 0), "SUBACK id=1 8f"},
	{"SUBSCRIBE, not permitted", packet(0x82, u16(1), props5(), "forbidden/x", 0), "SUBACK id=1 87 reason=\"BW-4001 a rule forbids it\""},
	{"SUBSCRIBE, reserved kind", packet(0x82, u16(1), props5(), "presence/x", 0), "SUBACK id=1 83 reason=\"BW-6003 bad-event\""},
	{"UNSUBSCRIBE", packet(0xa2, u16(1), props5(), "a", "b/#/c", "$share/g/a"), "UNSUBACK id=1 11 8f 11"},
	{"UNSUBSCRIBE without a filter", packet(0xa2, u16(1), props5()), "DISCONNECT 82"},
	{"UNSUBSCRIBE, empty filter", packet(0xa2, u16(1), props5(), ""), "DISCONNECT 81"},
	{"UNSUBSCRIBE, cut short", packet(0xa2, u16(1), props5(), u16(4), []byte("a")), "DISCONNECT 81"},
	{"UNSUBSCRIBE, property of SUBSCRIBE", packet(0xa2, u16(1), props5(packets.PropSubscriptionIdentifier, 1), "a"), "DISCONNECT 82"},

	{"refused publish, QoS 1", packet(0x32, "forbidden/x", u16(4), props5()), "PUBACK id=4 87 reason=\"BW-4001 a rule forbids it\""},
	{"refused publish, QoS 2", packet(0x34, "forbidden/x", u16(4), props5()), "PUBREC id=4 87 reason=\"BW-4001 a rule forbids it\""},
	{"refused publish, QoS 0", packet(0x30, "forbidden/x", props5()), ""},
	{"publish to $SYS", packet(0x32, "$SYS/x", u16(4), props5()), "PUBACK id=4 87 reason=\"BW-4001 a rule forbids it\""},
	{"publish to $share", packet(0x32, "$share/g/a", u16(4), props5()), "PUBACK id=4 90"},
	{"publish to $share, QoS 2", packet(0x34, "$share/g/a", u16(4), props5()), "PUBREC id=4 90"},
	{"publish to $share, QoS 0", packet(0x30, "$share/g/a", props5()), ""},
	{"publish with too many levels", packet(0x32, strings.Repeat("/", 128), u16(4), props5()), "PUBACK id=4 90"},
	{"publish to a reserved kind", packet(0x32, "presence/x", u16(4), props5()), "PUBACK id=4 83 reason=\"BW-6003 bad-event\""},

	{"AUTH of length 0", []byte{0xf0, 0}, "DISCONNECT 82"},
	{"AUTH", packet(0xf0, 0x19, props5(packets.PropAuthenticationMethod, 0, 1, 'x')), "DISCONNECT 82"},
	{"AUTH, properties run past the end", packet(0xf0, 0x19, 9), "DISCONNECT 81"},

	{"DISCONNECT", []byte{0xe0, 0}, "closed"},
	{"DISCONNECT of length 1", []byte{0xe0, 1, 4}, "closed"},
	{"DISCONNECT of length 2", []byte{0xe0, 2, 0, 0}, "closed"},
	{"DISCONNECT of length 2, properties of length 1", []byte{0xe0, 2, 0, 1}, "DISCONNECT 81"},
	{"DISCONNECT with a code of servers", []byte{0xe0, 1, 0x8b}, "DISCONNECT 82"},
	{"DISCONNECT with an undefined code", []byte{0xe0, 1, 0x42}, "DISCONNECT 82"},
	{"DISCONNECT with Server Reference", packet(0xe0, 0, props5(packets.PropServerReference, 0, 1, 'x')), "DISCONNECT 82"},
	{"DISCONNECT, expiry from 0", packet(0xe0, 0, props5(packets.PropSessionExpiryInterval, 0, 0, 0, 1)), "DISCONNECT 82"},
	{"DISCONNECT, bytes after the last field", packet(0xe0, 0, props5(), 0), "DISCONNECT 81"},
}

// 3.1.1 has no words for any of it: it is closed, or it goes on.
var guards4 = []guard{
	{"packet type 0", []byte{0x00, 0}, "closed"},
	{"AUTH", []byte{0xf0, 0}, "closed"},
	{"DISCONNECT with a body", []byte{0xe0, 1, 0}, "closed"},
	{"PUBACK longer than 2", packet(0x40, u16(9), 0), "closed"},
	{"PUBREC of nothing", packet(0x50, u16(9)), "PUBREL id=9 00"},
	{"PUBREL of nothing", packet(0x62, u16(9)), "PUBCOMP id=9 00"},
	{"PUBLISH without topic", packet(0x30, ""), "closed"},
	{"PUBLISH with a wildcard", packet(0x30, "#"), "closed"},
	{"SUBSCRIBE, options of MQTT 5", packet(0x82, u16(1), "a", 4), "closed"},
	{"SUBSCRIBE cut before the QoS", packet(0x82, u16(1), "a"), "closed"},
	{"SUBSCRIBE, bad filters among good ones", packet(0x82, u16(1), "a", 1, "a/#/b", 0, "$share/g/a", 0, "forbidden/x", 0, "presence/x", 0), "SUBACK id=1 01 80 00 80 80"},
	{"UNSUBSCRIBE", packet(0xa2, u16(1), "a", "b/#/c"), "UNSUBACK id=1"},
	{"refused publish, QoS 1", packet(0x32, "forbidden/x", u16(4)), "PUBACK id=4 00"},
	{"refused publish, QoS 2", packet(0x34, "forbidden/x", u16(4)), "PUBREC id=4 00"},
	{"publish to $share", packet(0x32, "$share/g/a", u16(4)), "PUBACK id=4 00"},
	{"publish to a reserved kind", packet(0x32, "presence/x", u16(4)), "PUBACK id=4 00"},
}

// Whatever a connected client sends, it gets exactly the answer of the
// standard, and nobody else notices.
func TestGuards(t *testing.T) {
	n := newNode(t, Limits{Packet: 4096})
	healthy := n.connect(5, "healthy")
	for version, guards := range map[byte][]guard{5: guards5, 4: guards4} {
		for _, g := range guards {
			c := n.connect(version, "guarded")
			c.send(g.bytes)
			if g.want == "" {
				c.ping()
				c.end()
				continue
			}
			got := c.next()
			if got != g.want && !strings.HasPrefix(got, g.want+" reason=") {
				t.Errorf("version %d, %s: got %s, want %s", version, g.name, got, g.want)
			}
			if strings.HasPrefix(g.want, "DISCONNECT") {
				if got := c.next(); got != "closed" {
					t.Errorf("version %d, %s: after DISCONNECT got %s", version, g.name, got)
				}
			}
			c.end()
		}
	}
	healthy.ping()
	if got := n.srv.stats.Panics.Load(); got != 0 {
		t.Errorf("%d panics", got)
	}
}

// connectRaw builds a CONNECT by hand.
func connectRaw(name string, level, flags int, parts ...any) []byte {
	return packet(0x10, append([]any{name, level, flags, u16(10)}, parts...)...)
}

// Whatever a client connects with, it gets the answer of its protocol.
func TestConnectGuards(t *testing.T) {
	n := newNode(t, Limits{KeepAlive: time.Minute, SessionExpiry: time.Hour})
	bye := "closed"
	for _, g := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"not MQTT", []byte("GET / HTTP/1.1\r\n\r\n"), bye},
		{"PINGREQ first", []byte{0xc0, 0}, bye},
		{"PUBLISH first", packet(0x30, "a", []byte("x")), bye},
		{"remaining length of five bytes", []byte{0x10, 0x80, 0x80, 0x80, 0x80, 0}, bye},
		{"more than 4 KiB announced", []byte{0x10, 0x81, 0x80, 0x01}, bye},

		{"3.1", connectRaw("MQIsdp", 3, 2, "p"), "CONNACK 00"},
		{"3.1, header flags, which mean nothing there", packet(0x1b, "MQIsdp", 3, 2, u16(10), "p"), "CONNACK 00"},
		{"3.1, reserved flag, which means nothing there", connectRaw("MQIsdp", 3, 3, "p"), "CONNACK 00"},
		{"3.1, no client id", connectRaw("MQIsdp", 3, 2, ""), "CONNACK 02"},
		{"3.1, client id of 24 characters", connectRaw("MQIsdp", 3, 2, strings.Repeat("x", 24)), "CONNACK 00"},
		{"3.1, bad password", connectRaw("MQIsdp", 3, 0xc2, "p", "ann", "guess"), "CONNACK 04"},
		{"MQIsdp, level 4", connectRaw("MQIsdp", 4, 2, "p"), "CONNACK 01"},
		{"MQTT, level 3", connectRaw("MQTT", 3, 2, "p"), "CONNACK 01"},
		{"MQTT, level 6", connectRaw("MQTT", 6, 2, "p"), "CONNACK 84"},
		{"MQTT, level 2", connectRaw("MQTT", 2, 2, "p"), "CONNACK 84"},
		{"a bridge of 3.1.1", connectRaw("MQTT", 0x84, 2, "p"), "CONNACK 00"},
		{"a bridge of 3.1.1, reserved flag", connectRaw("MQTT", 0x84, 3, "p"), bye},
		{"a bridge of 3.1", connectRaw("MQIsdp", 0x83, 2, "p"), "CONNACK 00"},
		{"a bridge of 3.1, level of 3.1.1", connectRaw("MQIsdp", 0x84, 2, "p"), "CONNACK 01"},
		{"a bridge of 5, which has no need to say it", connectRaw("MQTT", 0x85, 2, "p"), "CONNACK 84"},
		{"other protocol name", connectRaw("MQTU", 4, 2, "p"), bye},
		{"empty", []byte{0x10, 0}, bye},

		{"3.1.1", connectRaw("MQTT", 4, 2, "p"), "CONNACK 00"},
		{"3.1.1, header flags", packet(0x12, "MQTT", 4, 2, u16(10), "p"), bye},
		{"3.1.1, reserved flag", connectRaw("MQTT", 4, 3, "p"), bye},
		{"3.1.1, no client id, clean", connectRaw("MQTT", 4, 2, ""), "CONNACK 00"},
		{"3.1.1, no client id, not clean", connectRaw("MQTT", 4, 0, ""), "CONNACK 02"},
		{"3.1.1, client id of control characters", connectRaw("MQTT", 4, 2, "a\x01"), "CONNACK 02"},
		{"3.1.1, client id too long", connectRaw("MQTT", 4, 2, strings.Repeat("x", 1025)), "CONNACK 02"},
		{"3.1.1, longest client id", connectRaw("MQTT", 4, 2, strings.Repeat("x", 1024)), "CONNACK 00"},
		{"3.1.1, bytes after the last field", connectRaw("MQTT", 4, 2, "p", 0), bye},
		{"3.1.1, will QoS without a will", connectRaw("MQTT", 4, 0x0a, "p"), bye},
		{"3.1.1, will retain without a will", connectRaw("MQTT", 4, 0x22, "p"), bye},
		{"3.1.1, will", connectRaw("MQTT", 4, 6, "p", "w", "x"), "CONNACK 00"},
		{"3.1.1, will with an empty payload", connectRaw("MQTT", 4, 6, "p", "w", ""), "CONNACK 00"},
		{"3.1.1, will QoS 3", connectRaw("MQTT", 4, 0x1e, "p", "w", "x"), bye},
		{"3.1.1, will cut short", connectRaw("MQTT", 4, 6, "p", "w"), bye},
		{"3.1.1, will topic with a wildcard", connectRaw("MQTT", 4, 6, "p", "w/#", "x"), "CONNACK 05"},
		{"3.1.1, will not permitted", connectRaw("MQTT", 4, 6, "p", "forbidden/x", "x"), "CONNACK 05"},
		{"3.1.1, password without user name", connectRaw("MQTT", 4, 0x42, "p", "x"), bye},
		{"3.1.1, user name not UTF-8", connectRaw("MQTT", 4, 0x82, "p", "\xff"), bye},
		{"3.1.1, user name empty", connectRaw("MQTT", 4, 0x82, "p", ""), "CONNACK 00"},
		{"3.1.1, good password", connectRaw("MQTT", 4, 0xc2, "p", "ann", "secret of ann"), "CONNACK 00"},
		{"3.1.1, bad password", connectRaw("MQTT", 4, 0xc2, "p", "ann", "guess"), "CONNACK 04"},
		{"3.1.1, empty password", connectRaw("MQTT", 4, 0xc2, "p", "ann", ""), "CONNACK 04"},

		{"5", connectRaw("MQTT", 5, 2, props5(), "p"), welcome5},
		{"5, cut short", connectRaw("MQTT", 5, 2), "CONNACK 81"},
		{"5, no client id", connectRaw("MQTT", 5, 2, props5(), ""), "CONNACK 00 assigned receive=256 packet=262144 aliases=16"},
		{"5, client id not UTF-8", connectRaw("MQTT", 5, 2, props5(), "\xed\xa0\x80"), "CONNACK 81"},
		{"5, client id of control characters", connectRaw("MQTT", 5, 2, props5(), "a\x01"), "CONNACK 85"},
		{"5, client id too long", connectRaw("MQTT", 5, 2, props5(), strings.Repeat("x", 1025)), "CONNACK 85"},
		{"5, reserved flag", connectRaw("MQTT", 5, 3, props5(), "p"), "CONNACK 81"},
		{"5, password without user name", connectRaw("MQTT", 5, 0x42, props5(), "p", "x"), "CONNACK 86"},
		{"5, bad password", connectRaw("MQTT", 5, 0xc2, props5(), "p", "ann", "guess"), "CONNACK 86"},
		{"5, will topic with a wildcard", connectRaw("MQTT", 5, 6, props5(), "p", props5(), "w/+", "x"), "CONNACK 90"},
		{"5, will to a shared subscription", connectRaw("MQTT", 5, 6, props5(), "p", props5(), "$share/g/a", "x"), "CONNACK 90"},
		{"5, will not permitted", connectRaw("MQTT", 5, 6, props5(), "p", props5(), "forbidden/x", "x"), "CONNACK 87"},
		{"5, will with a property of CONNECT", connectRaw("MQTT", 5, 6, props5(), "p", props5(packets.PropReceiveMaximum, 0, 1), "w", "x"), "CONNACK 82"},
		{"5, will of text that is none", connectRaw("MQTT", 5, 6, props5(), "p", props5(packets.PropPayloadFormat, 1), "w", "\xff"), "CONNACK 99"},
		{"5, Receive Maximum 0", connectRaw("MQTT", 5, 2, props5(packets.PropReceiveMaximum, 0, 0), "p"), "CONNACK 82"},
		{"5, Maximum Packet Size 0", connectRaw("MQTT", 5, 2, props5(packets.PropMaximumPacketSize, 0, 0, 0, 0), "p"), "CONNACK 82"},
		{"5, Maximum Packet Size too small for CONNACK", connectRaw("MQTT", 5, 2, props5(packets.PropMaximumPacketSize, 0, 0, 0, 10), "p"), "CONNACK 95"},
		{"5, Maximum Packet Size too small for anything", connectRaw("MQTT", 5, 2, props5(packets.PropMaximumPacketSize, 0, 0, 0, 1), "p"), bye},
		{"5, Request Problem Information 2", connectRaw("MQTT", 5, 2, props5(packets.PropRequestProblemInfo, 2), "p"), "CONNACK 82"},
		{"5, Request Response Information 2", connectRaw("MQTT", 5, 2, props5(packets.PropRequestResponseInfo, 2), "p"), "CONNACK 82"},
		{"5, authentication data without method", connectRaw("MQTT", 5, 2, props5(packets.PropAuthenticationData, 0, 0), "p"), "CONNACK 82"},
		{"5, unknown authentication method", connectRaw("MQTT", 5, 2, props5(packets.PropAuthenticationMethod, 0, 1, 'x'), "p"), "CONNACK 8c"},
		{"5, property twice", connectRaw("MQTT", 5, 2, props5(packets.PropReceiveMaximum, 0, 1, packets.PropReceiveMaximum, 0, 1), "p"), "CONNACK 82"},
		{
			"5, session expiry above the cap", connectRaw("MQTT", 5, 2, props5(packets.PropSessionExpiryInterval, 0xff, 0xff, 0xff, 0xff), "p"),
			"CONNACK 00 session-expiry=3600 receive=256 packet=262144 aliases=16",
		},
		{"5, keep alive above the cap", packet(0x10, "MQTT", 5, 2, u16(61), props5(), "p"), "CONNACK 00 keep-alive=60 receive=256 packet=262144 aliases=16"},
		{"5, no keep alive", packet(0x10, "MQTT", 5, 2, u16(0), props5(), "p"), "CONNACK 00 keep-alive=60 receive=256 packet=262144 aliases=16"},
		{"3.1.1, no keep alive", packet(0x10, "MQTT", 4, 2, u16(0), "p"), "CONNACK 00"},
	} {
		c := n.dial()
		if bytes.Contains(g.bytes, []byte("MQTT\x05")) || strings.HasPrefix(g.want, "CONNACK 84") {
			c.version = 5
		}
		c.send(g.bytes)
		got := c.next()
		if got != g.want && !strings.HasPrefix(got, g.want+" reason=") {
			t.Errorf("%s: got %s, want %s", g.name, got, g.want)
		}
		if !strings.HasPrefix(got, "CONNACK 00") && got != bye {
			if got := c.next(); got != bye {
				t.Errorf("%s: after %s got %s", g.name, g.want, got)
			}
		}
		c.end()
	}
}
