package mqtttest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// What the builders write is what the standard's layout tables say, byte for
// byte, in both versions.
func TestMessagesOnTheWire(t *testing.T) {
	for _, c := range []struct {
		name    string
		version byte
		m       Message
		want    string
	}{
		{"connect 3.1.1", 4, Connect{ClientID: "c", Clean: true, KeepAlive: 60}, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"},
		{"connect 3.1", 3, Connect{ClientID: "c"}, "\x10\x0f\x00\x06MQIsdp\x03\x00\x00\x00\x00\x01c"},
		{
			"connect 5, everything", 5,
			Connect{
				ClientID: "c", Properties: Properties{Number(PropReceiveMaximum, 20)},
				Will: &Will{Topic: "w", Payload: []byte("p"), QoS: 1, Retain: true, Properties: Properties{Number(PropWillDelay, 1)}},
				User: "u", Password: []byte("s"),
			},
			"\x10\x23\x00\x04MQTT\x05\xec\x00\x00\x03\x21\x00\x14\x00\x01c\x05\x18\x00\x00\x00\x01\x00\x01w\x00\x01p\x00\x01u\x00\x01s",
		},
		{"publish 3.1.1", 4, Publish{Topic: "t", QoS: 1, ID: 7, Retain: true, Payload: []byte("x")}, "\x33\x06\x00\x01t\x00\x07x"},
		{"publish 5", 5, Publish{Topic: "t", Dup: true, QoS: 2, ID: 7, Properties: Properties{User("k", "v")}}, "\x3c\x0d\x00\x01t\x00\x07\x07\x26\x00\x01k\x00\x01v"},
		{"puback", 5, Ack{Type: PUBACK, ID: 1}, "\x40\x02\x00\x01"},
		{"pubrel with code", 5, Ack{Type: PUBREL, ID: 1, Code: 0x92}, "\x62\x04\x00\x01\x92\x00"},
		{"subscribe 5", 5, Subscribe{ID: 1, Filters: []Filter{{Filter: "t", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2}}}, "\x82\x07\x00\x01\x00\x00\x01t\x2d"},
		{"subscribe 3.1.1", 4, Subscribe{ID: 1, Filters: []Filter{{Filter: "t", QoS: 1, NoLocal: true}}}, "\x82\x06\x00\x01\x00\x01t\x01"},
		{"unsubscribe", 5, Unsubscribe{ID: 1, Filters: []string{"t"}}, "\xa2\x06\x00\x01\x00\x00\x01t"},
		{"disconnect", 5, Reason{Type: DISCONNECT, Code: 4}, "\xe0\x02\x04\x00"},
		{"bye", 4, Bye, "\xe0\x00"},
	} {
		if got := string(c.m.Encode(c.version)); got != c.want {
			t.Errorf("%s: got % x, want % x", c.name, got, c.want)
		}
	}
}

// A packet from a broker that breaks the standard is an error: one line for
// each rule that the client holds the broker to.
func TestDecodeRefusesWhatABrokerMayNotSend(t *testing.T) {
	for _, c := range []struct {
		name    string
		version byte
		raw     string
	}{
		{"a packet of clients only", 5, "\x10\x00"},
		{"flags on an acknowledgement", 5, "\x41\x02\x00\x01"},
		{"PUBREL without its flag", 5, "\x60\x02\x00\x01"},
		{"session present with a refusal", 5, "\x20\x03\x01\x87\x00"},
		{"MQTT 5 code to 3.1.1", 4, "\x20\x02\x00\x87"},
		{"undefined code", 5, "\x40\x03\x00\x01\x55"},
		{"server unavailable in DISCONNECT", 5, "\xe0\x01\x88"},
		{"packet identifier 0", 5, "\x40\x02\x00\x00"},
		{"bytes after the end", 4, "\x40\x03\x00\x01\x00"},
		{"QoS 3", 5, "\x36\x06\x00\x01t\x00\x01\x00"},
		{"DUP on QoS 0", 5, "\x38\x04\x00\x01t\x00"},
		{"wildcard in a topic", 5, "\x30\x04\x00\x01#\x00"},
		{"no topic, no alias", 5, "\x30\x03\x00\x00\x00"},
		{"topic not UTF-8", 4, "\x30\x03\x00\x01\xff"},
		{"U+0000 in a topic", 4, "\x30\x03\x00\x01\x00"},
		{"property that may not stand there", 5, "\x30\x07\x00\x01t\x03\x21\x00\x01"},
		{"property twice", 5, "\x30\x08\x00\x01t\x04\x01\x01\x01\x01"},
		{"unknown property", 5, "\x30\x06\x00\x01t\x02\x7f\x01"},
		{"properties past the end", 5, "\x30\x05\x00\x01t\x09\x01"},
		{"property value past the properties", 5, "\x30\x08\x00\x01t\x03\x03\x00\x05x"},
		{"SUBACK without codes", 5, "\x90\x03\x00\x01\x00"},
		{"MQTT 5 code in a SUBACK of 3.1.1", 4, "\x90\x03\x00\x01\x87"},
		{"DISCONNECT to 3.1.1", 4, "\xe0\x00"},
		{"body on PINGRESP", 5, "\xd0\x01\x00"},
		{"remaining length not minimal", 5, "\xd0\x80\x00"},
	} {
		if p, _, err := cut([]byte(c.raw), c.version); err == nil {
			t.Errorf("%s: % x: got %v, want an error", c.name, c.raw, p)
		}
	}
}

func TestDecodeTakesWhatABrokerMaySend(t *testing.T) {
	for _, c := range []struct {
		version byte
		raw     string
		want    string
	}{
		{4, "\x20\x02\x01\x00", "CONNACK code=0x00 session=true"},
		{5, "\x20\x06\x00\x86\x03\x1f\x00\x00", "CONNACK code=0x86 session=false"},
		{5, "\x3d\x0e\x00\x01t\x00\x09\x07\x26\x00\x01k\x00\x01vx", `PUBLISH "t" qos=2 id=9 dup=true retain=true "x"`},
		{5, "\x40\x02\x00\x01", "PUBACK id=1 code=0x00"},
		{5, "\x50\x03\x00\x01\x10", "PUBREC id=1 code=0x10"},
		{5, "\x90\x05\x00\x01\x00\x02\x87", "SUBACK id=1 codes=02 87"},
		{4, "\xb0\x02\x00\x01", "UNSUBACK id=1 codes="},
		{5, "\xe0\x01\x8e", "DISCONNECT code=0x8e"},
		{5, "\xd0\x00", "PINGRESP"},
	} {
		p, n, err := cut([]byte(c.raw), c.version)
		if err != nil || p.String() != c.want || n != len(c.raw) || string(p.Raw) != c.raw {
			t.Errorf("% x: got %v, %v, want %s", c.raw, p, err, c.want)
		}
	}
}

// What is built with the typed constructors is read back with the typed
// accessors, in order, repeats included.
func TestPropertiesKeepOrderAndRepeats(t *testing.T) {
	in := Properties{
		User("a", "1"), Number(PropMessageExpiry, 70000), User("a", "2"), Text(PropContentType, "x"),
		Binary(PropCorrelationData, []byte{0, 255}), Number(PropSubscriptionID, 200), Number(PropSubscriptionID, 3),
	}
	out, rest, err := decodeProperties(in.encode(), PUBLISH)
	if err != nil || len(rest) != 0 {
		t.Fatalf("got %v, %v", rest, err)
	}
	if !bytes.Equal(in.encode(), out.encode()) {
		t.Errorf("got % x, want % x", out.encode(), in.encode())
	}
	if n, ok := out.Number(PropMessageExpiry); n != 70000 || !ok {
		t.Errorf("expiry: got %d %t", n, ok)
	}
	if got := out.Numbers(PropSubscriptionID); len(got) != 2 || got[0] != 200 || got[1] != 3 {
		t.Errorf("identifiers: got %v", got)
	}
	if got := strings.Join(out.User(), " "); got != "a=1 a=2" {
		t.Errorf("user: got %s", got)
	}
	if got := out.Text(PropCorrelationData); got != "\x00\xff" {
		t.Errorf("correlation: got %q", got)
	}
}

// A read that times out in the middle of a packet loses nothing of it, and the
// end of a connection is told apart from silence.
func TestConnKeepsHalfAPacket(t *testing.T) {
	here, there := net.Pipe()
	c := NewConn(here, 5)
	if _, err := c.Read(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("silence: got %v", err)
	}
	go func() {
		there.Write([]byte("\x40\x02\x00"))
	}()
	for len(c.buf) < 3 { // the write above arrives, the packet stays incomplete
		if _, err := c.Read(10 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("half a packet: got %v", err)
		}
	}
	go func() {
		there.Write([]byte("\x01\xd0\x00"))
		there.Close()
	}()
	for _, want := range []Type{PUBACK, PINGRESP} {
		if p, err := c.Read(Patience); err != nil || p.Type != want {
			t.Fatalf("got %v, %v, want %v", p, err, want)
		}
	}
	if _, err := c.Read(Patience); !errors.Is(err, ErrClosed) {
		t.Fatalf("end: got %v", err)
	}
}

// A topic alias of the broker is held to what the client allows and to what
// was told on this connection.
func TestConnResolvesAliases(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit uint32
		sent  []Publish
		ok    bool
	}{
		{"told, then used", 2, []Publish{{Topic: "t", Properties: Properties{Number(PropTopicAlias, 2)}}, {Properties: Properties{Number(PropTopicAlias, 2)}}}, true},
		{"told anew", 1, []Publish{{Topic: "u", Properties: Properties{Number(PropTopicAlias, 1)}}, {Topic: "t", Properties: Properties{Number(PropTopicAlias, 1)}}, {Properties: Properties{Number(PropTopicAlias, 1)}}}, true},
		{"never told", 2, []Publish{{Properties: Properties{Number(PropTopicAlias, 1)}}}, false},
		{"more than allowed", 1, []Publish{{Topic: "t", Properties: Properties{Number(PropTopicAlias, 2)}}}, false},
		{"none allowed", 0, []Publish{{Topic: "t", Properties: Properties{Number(PropTopicAlias, 1)}}}, false},
	} {
		here, there := net.Pipe()
		client := NewConn(here, 5)
		go func() {
			there.Read(make([]byte, 100))
			for _, m := range c.sent {
				there.Write(m.Encode(5))
			}
		}()
		if err := client.Write(Connect{Properties: Properties{Number(PropTopicAliasMaximum, c.limit)}}); err != nil {
			t.Fatal(err)
		}
		var p *Packet
		var err error
		for range c.sent {
			if p, err = client.Read(Patience); err != nil {
				break
			}
		}
		if (err == nil) != c.ok || c.ok && p.Topic != "t" {
			t.Errorf("%s: got %v, %v", c.name, p, err)
		}
		here.Close()
		there.Close()
	}
}

// No bytes of a broker crash the client, and what it accepts it can show.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\x3d\x0e\x00\x01t\x00\x09\x07\x26\x00\x01k\x00\x01vx"), byte(5))
	f.Add([]byte("\x20\x06\x00\x86\x03\x1f\x00\x00"), byte(5))
	f.Add([]byte("\x90\x05\x00\x01\x00\x02\x87"), byte(4))
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		p, n, err := cut(b, version)
		if err == nil && p != nil && (p.String() == "" || !bytes.Equal(p.Raw, b[:n])) {
			t.Errorf("% x: accepted as %v", b, p)
		}
	})
}
