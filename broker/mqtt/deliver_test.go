package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	_ "github.com/bellwire/bellwire/internal/fixedseed"
)

// offline is a connection without a transport: what it is sent stays in its
// output.
func offline(version byte) *conn {
	s := &Server{wheel: newWheel(), policy: func() broker.Authorizer { return nil }}
	limits, _ := Limits{Output: 1 << 30}.WithDefaults()
	s.limits.Store(&limits)
	return &conn{srv: s, by: &served{}, limits: &limits, version: version, maxPacket: maxRemaining + maxHeader, connected: true, problemInfo: true}
}

// taken returns the bytes of the output and empties it.
func (c *conn) taken() []byte {
	var b []byte
	for _, v := range c.out.chunks {
		b = append(b, v.data...)
	}
	c.out.written(c.out.n)
	return b
}

func text(t *rapid.T, name string, least, most int) string {
	s := rapid.StringN(least, most, -1).Draw(t, name)
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '+' || r == '#' || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return 'x'
		}
		return r
	}, s)
}

// drawProps draws properties that are forwarded: in wire form, and as the
// codec should read them.
func drawProps(t *rapid.T) (raw []byte, want packets.Properties) {
	str := func(s string) { raw = append(binary.BigEndian.AppendUint16(raw, uint16(len(s))), s...) }
	for _, kind := range rapid.Permutation([]int{0, 1, 2, 3, 4, 4, 5, 5, 5}).Draw(t, "kinds") {
		if rapid.Bool().Draw(t, "skip") {
			continue
		}
		switch kind {
		case 0:
			want.PayloadFormat, want.PayloadFormatFlag = 1, true
			raw = append(raw, packets.PropPayloadFormat, 1)
		case 1:
			want.ContentType = text(t, "type", 0, 20)
			raw = append(raw, packets.PropContentType)
			str(want.ContentType)
		case 2:
			want.ResponseTopic = text(t, "response", 1, 20)
			raw = append(raw, packets.PropResponseTopic)
			str(want.ResponseTopic)
		case 3:
			want.CorrelationData = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "correlation")
			raw = append(raw, packets.PropCorrelationData)
			str(string(want.CorrelationData))
		case 4:
			u := packets.UserProperty{Key: text(t, "key", 0, 10), Val: text(t, "value", 0, 200)}
			want.User = append(want.User, u)
			raw = append(raw, packets.PropUser)
			str(u.Key)
			str(u.Val)
		}
	}
	return raw, want
}

// What we send for a delivery is what the codec reads as that delivery, for
// every protocol version and option, whatever other clients were sent of the
// same event before.
func TestEncodedAsDecoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ev event.Event
		clients := []*conn{offline(4), offline(5), offline(5), offline(5)}
		clients[2].aliasMax = 2
		aliases := map[*conn]map[uint16]string{}
		for range rapid.IntRange(1, 5).Draw(t, "events") {
			ev.Reset()
			ev.Topic = rapid.SampledFrom([]string{"a", "a/bcd", "a/b/c/d", "ü/ö", strings.Repeat("long/", 100)}).Draw(t, "topic")
			size := rapid.SampledFrom([]int{0, 1, 60, 100, 200, inlineMax - 100, inlineMax, inlineMax + 1, 20_000, 100_000}).Draw(t, "size")
			ev.Payload = bytes.Repeat([]byte{byte(rapid.IntRange('a', 'z').Draw(t, "fill"))}, size)
			raw, want := drawProps(t)
			ev.Props = raw
			for range rapid.IntRange(1, 12).Draw(t, "deliveries") {
				c := rapid.SampledFrom(clients).Draw(t, "client")
				d := &broker.Delivery{
					Event: &ev, QoS: uint8(rapid.IntRange(0, 2).Draw(t, "qos")), Retain: rapid.Bool().Draw(t, "retain"),
					Expires: rapid.Bool().Draw(t, "expires"),
				}
				if d.QoS > 0 {
					d.PacketID = uint16(rapid.IntRange(1, 65535).Draw(t, "id"))
					d.Dup = rapid.Bool().Draw(t, "dup")
				}
				if d.Expires {
					d.Expiry = rapid.Uint32Range(1, 1<<32-1).Draw(t, "expiry")
				}
				if rapid.Bool().Draw(t, "ids") {
					d.IDs = rapid.SliceOfN(rapid.Uint32Range(1, maxRemaining), 1, 5).Draw(t, "ids")
				}
				var w broker.Wave
				if got := c.Deliver(d, &w); got != broker.Sent {
					t.Fatalf("outcome %v", got)
				}
				if aliases[c] == nil {
					aliases[c] = map[uint16]string{}
				}
				checkFrame(t, c.taken(), c, d, want, aliases[c])
			}
		}
	})
}

func checkFrame(t *rapid.T, b []byte, c *conn, d *broker.Delivery, want packets.Properties, aliases map[uint16]string) {
	t.Helper()
	pk := packets.Packet{ProtocolVersion: c.version}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		t.Fatal(err)
	}
	at, size, err := frameSize(b)
	if err != nil || size != len(b) {
		t.Fatalf("frame of %d bytes in %d: %v", size, len(b), err)
	}
	if err := pk.PublishDecode(b[at:]); err != nil {
		t.Fatal(err)
	}
	if pk.Properties.TopicAliasFlag {
		a := pk.Properties.TopicAlias
		if a == 0 || int(a) > c.aliasMax {
			t.Fatalf("alias %d, want at most %d", a, c.aliasMax)
		}
		if pk.TopicName != "" {
			aliases[a] = pk.TopicName
		}
		pk.TopicName = aliases[a]
		pk.Properties.TopicAlias, pk.Properties.TopicAliasFlag = 0, false
	}
	ev := d.Event
	if pk.TopicName != ev.Topic || !bytes.Equal(pk.Payload, ev.Payload) {
		t.Fatalf("got topic %q and %d bytes, want %q and %d", pk.TopicName, len(pk.Payload), ev.Topic, len(ev.Payload))
	}
	if h := pk.FixedHeader; h.Qos != d.QoS || h.Retain != d.Retain || h.Dup != d.Dup || pk.PacketID != d.PacketID {
		t.Fatalf("got %+v id %d, want %+v", h, pk.PacketID, d)
	}
	if c.version < 5 {
		return
	}
	want.MessageExpiryInterval = d.Expiry
	for _, id := range d.IDs {
		want.SubscriptionIdentifier = append(want.SubscriptionIdentifier, int(id))
	}
	if got, want := fmt.Sprintf("%+v", pk.Properties), fmt.Sprintf("%+v", want); got != want {
		t.Fatalf("properties\n got %s\nwant %s", got, want)
	}
}

// What is larger than the client takes is not sent, and nothing about it is
// remembered. What is too large with a new alias alone goes without one.
func TestTooLargeLeavesNoTrace(t *testing.T) {
	c := offline(5)
	c.aliasMax = 5
	ev := &event.Event{Topic: "some/topic", Payload: make([]byte, 100)}
	d := &broker.Delivery{Event: ev, QoS: 1, PacketID: 1}
	bare := packetSize(2 + len(ev.Topic) + 2 + 1 + len(ev.Payload))
	c.maxPacket = bare - 1
	var w broker.Wave
	if got := c.Deliver(d, &w); got != broker.TooLarge {
		t.Errorf("one byte too large: got %v, want TooLarge", got)
	}
	if c.out.n != 0 || len(c.aliasOut) != 0 || c.marked {
		t.Errorf("%d bytes, %d aliases, marked %v: want nothing", c.out.n, len(c.aliasOut), c.marked)
	}
	const alias = 3 // bytes that it takes
	for _, x := range []struct{ most, want, aliases int }{
		{bare, bare, 0},
		{bare + alias - 1, bare, 0},
		{bare + alias, bare + alias, 1},
		{bare - len(ev.Topic) + alias, bare - len(ev.Topic) + alias, 1}, // it is known
	} {
		c.maxPacket = x.most
		if got := c.Deliver(d, &w); got != broker.Sent || c.out.n != x.want || len(c.aliasOut) != x.aliases {
			t.Errorf("at most %d bytes: got %v, %d bytes and %d aliases, want Sent, %d and %d", x.most, got, c.out.n, len(c.aliasOut), x.want, x.aliases)
		}
		c.taken()
	}
	if got := c.srv.stats.Dropped[DropTooLarge].Load(); got != 1 {
		t.Errorf("%d counted, want 1", got)
	}
}

// The output is bounded: beyond it QoS 0 is lost and counted, QoS 1 put off;
// one event always fits an empty output.
func TestOutputIsBounded(t *testing.T) {
	c := offline(4)
	c.limits.Output = 10_000 // the server's, too
	var w broker.Wave
	big := &event.Event{Topic: "t", Payload: make([]byte, 20_000)}
	if got := c.Deliver(&broker.Delivery{Event: big}, &w); got != broker.Sent {
		t.Errorf("large event into an empty output: got %v", got)
	}
	small := &event.Event{Topic: "t", Payload: []byte("x")}
	if got := c.Deliver(&broker.Delivery{Event: small}, &w); got != broker.Full || c.full {
		t.Errorf("QoS 0: got %v, session awaits room %v; want Full, and no", got, c.full)
	}
	if got := c.Deliver(&broker.Delivery{Event: small, QoS: 1, PacketID: 1}, &w); got != broker.Full || !c.full {
		t.Errorf("QoS 1: got %v, session awaits room %v; want Full, and yes", got, c.full)
	}
	c.taken()
	c.full = false
	n := 0
	for c.Deliver(&broker.Delivery{Event: small, QoS: 1, PacketID: 1}, &w) == broker.Sent {
		n++
	}
	if want := 10_000 / packetSize(2+1+2+1); n != want {
		t.Errorf("%d events of 8 bytes in 10,000, want %d", n, want)
	}
	if d, f := c.srv.stats.Dropped[DropFull].Load(), c.srv.stats.Full.Load(); d != 1 || f != 2 {
		t.Errorf("counted %d dropped and %d put off, want 1 and 2", d, f)
	}
}

// A large payload is copied once for all clients, and is not touched when the
// event's memory is used again while it waits.
func TestLargePayloadIsShared(t *testing.T) {
	a, b := offline(4), offline(5)
	ev := &event.Event{Topic: "t", Payload: bytes.Repeat([]byte{'x'}, 50_000)}
	var w broker.Wave
	for range 10 {
		a.Deliver(&broker.Delivery{Event: ev, QoS: 1, PacketID: 1}, &w)
		b.Deliver(&broker.Delivery{Event: ev}, &w)
	}
	if &a.out.chunks[1].data[0] != &b.out.chunks[1].data[0] {
		t.Error("two copies of one payload")
	}
	want := slices.Clone(a.out.chunks[1].data)
	clear(ev.Payload)
	for range 3 {
		ev.Reset()
		ev.Topic, ev.Payload = "t", bytes.Repeat([]byte{'y'}, 50_000)
		a.Deliver(&broker.Delivery{Event: ev}, &w)
		ev.Reset()
		ev.Topic, ev.Payload = "t", []byte("small")
		a.Deliver(&broker.Delivery{Event: ev}, &w)
	}
	if !bytes.Equal(a.out.chunks[1].data, want) {
		t.Error("what waits in the output changed")
	}
}

// A frame is cached: the second delivery of a kind allocates nothing.
func TestDeliveryAllocatesNothing(t *testing.T) {
	for _, version := range []byte{4, 5} {
		c := offline(version)
		ev := &event.Event{Topic: "some/topic", Payload: make([]byte, 64)}
		d := &broker.Delivery{Event: ev, QoS: 1, PacketID: 1}
		var w broker.Wave
		n := testing.AllocsPerRun(100, func() {
			for range 20 {
				c.Deliver(d, &w)
			}
			c.out.written(c.out.n)
		})
		if n != 0 {
			t.Errorf("version %d: %v allocations for 20 deliveries", version, n)
		}
	}
}
