package bench

import (
	"bytes"
	"slices"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// decode reads frame with a codec that is not ours.
func decode(t *testing.T, frame []byte, version byte) packets.Packet {
	t.Helper()
	first, body, used, err := nextFrame(frame)
	if err != nil || used != len(frame) {
		t.Fatalf("%x: %d of %d bytes, error %v", frame, used, len(frame), err)
	}
	pk := packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(first); err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	pk.FixedHeader.Remaining = len(body)
	switch pk.FixedHeader.Type {
	case packets.Connect:
		err = pk.ConnectDecode(body)
	case packets.Subscribe:
		err = pk.SubscribeDecode(body)
	case packets.Publish:
		err = pk.PublishDecode(body)
	case packets.Puback:
		err = pk.PubackDecode(body)
	}
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	return pk
}

// What the generator sends is what another codec reads.
func TestFramesAreMQTT(t *testing.T) {
	for _, version := range []byte{v311, v5} {
		c := decode(t, appendConnect(nil, &conn{version: version, name: "bench-s1", durable: true}), version)
		if c.Connect.ClientIdentifier != "bench-s1" || c.Connect.Keepalive != keepAlive || c.ProtocolVersion != version {
			t.Errorf("version %d: CONNECT %+v", version, c.Connect)
		}
		if keeps := !c.Connect.Clean || c.Properties.SessionExpiryInterval == 3600; !keeps {
			t.Errorf("version %d: a durable CONNECT asks for no session: %+v", version, c.Connect)
		}
		c = decode(t, appendConnect(nil, &conn{version: version, name: "bench-p1"}), version)
		if !c.Connect.Clean || c.Properties.SessionExpiryInterval != 0 {
			t.Errorf("version %d: a clean CONNECT asks for a session: %+v", version, c.Connect)
		}
		s := decode(t, appendSubscribe(nil, version, 1, []string{"bench/7", "bench/8"}, 1), version)
		if len(s.Filters) != 2 || s.Filters[1].Filter != "bench/8" || s.Filters[0].Filter != "bench/7" || s.Filters[0].Qos != 1 {
			t.Errorf("version %d: SUBSCRIBE %+v", version, s.Filters)
		}
		for qos := range byte(3) {
			m := newTemplate(version, "bench/7", qos, false, 200)
			want := stamp{at: 1 << 40, seq: 77, source: 5}
			p := decode(t, m.append([]byte{}, 300, want), version)
			if p.TopicName != "bench/7" || p.FixedHeader.Qos != qos || len(p.Payload) != 200 || readStamp(p.Payload) != want {
				t.Errorf("version %d, QoS %d: PUBLISH %+v", version, qos, p)
			}
			if qos > 0 && p.PacketID != 300 {
				t.Errorf("version %d, QoS %d: packet id %d, want 300", version, qos, p.PacketID)
			}
		}
		if a := decode(t, appendAck(nil, typePuback, 513), version); a.PacketID != 513 {
			t.Errorf("version %d: PUBACK of %d, want 513", version, a.PacketID)
		}
	}
}

// What another codec writes is what the generator reads, with properties too.
func TestDeliveriesAreRead(t *testing.T) {
	for _, version := range []byte{v311, v5} {
		for qos := range byte(3) {
			pk := packets.Packet{
				ProtocolVersion: version, TopicName: "bench/7", PacketID: 9, Payload: padding(64),
				FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
				Properties:  packets.Properties{MessageExpiryInterval: 60, User: []packets.UserProperty{{Key: "a", Val: "b"}}},
			}
			var buf bytes.Buffer
			if err := pk.PublishEncode(&buf); err != nil {
				t.Fatal(err)
			}
			first, body, _, err := nextFrame(buf.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			d, err := parsePublish(first, body, version)
			if err != nil {
				t.Fatal(err)
			}
			if string(d.topic) != "bench/7" || d.qos != qos || !bytes.Equal(d.payload, padding(64)) || (qos > 0 && d.id != 9) {
				t.Errorf("version %d, QoS %d: %+v", version, qos, d)
			}
		}
	}
}

// A frame is cut off where it ends, wherever the bytes before it were split.
func TestFrameNeedsAllItsBytes(t *testing.T) {
	m := newTemplate(v311, "bench/7", 1, false, 1024)
	frame := m.append(nil, 1, stamp{})
	for n := range frame {
		if _, _, used, err := nextFrame(frame[:n]); used != 0 || err != nil {
			t.Fatalf("%d of %d bytes: used %d, error %v", n, len(frame), used, err)
		}
	}
	if _, _, used, err := nextFrame(append(slices.Clone(frame), 0xD0)); used != len(frame) || err != nil {
		t.Errorf("used %d, error %v, want %d", used, err, len(frame))
	}
	for _, long := range [][]byte{{0x30, 0xFF, 0xFF, 0xFF, 0xFF}, {0x30, 0x80, 0x80, 0x80, 0x80, 1}, {0x30, 0xFF, 0xFF, 0xFF, 0x7F}} {
		if _, _, _, err := nextFrame(long); err == nil {
			t.Errorf("%x was accepted", long)
		}
	}
}

// No packet of a broker makes the generator read past its end.
func FuzzFromBroker(f *testing.F) {
	m := newTemplate(v5, "bench/7", 1, false, 64)
	f.Add(m.append(nil, 1, stamp{}))
	f.Add(appendFrame(nil, typeConnack, []byte{0, 0, 3, 0x21, 0, 9}))
	f.Add(appendFrame(nil, typeConnack, []byte{0, 0, 8, 0x26, 0, 1, 'a', 0, 1, 'b', 0x21}))
	f.Add(appendFrame(nil, typePuback, []byte{0, 1, 0x97}))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, body, used, err := nextFrame(b)
		if err != nil || used == 0 {
			return
		}
		if used > len(b) || len(body) > used {
			t.Fatalf("%d bytes of %d, body %d", used, len(b), len(body))
		}
		for _, version := range []byte{v311, v5} {
			d, err := parsePublish(first, body, version)
			if err == nil && len(d.topic)+len(d.payload) > len(body) {
				t.Fatalf("topic of %d and payload of %d bytes in %d", len(d.topic), len(d.payload), len(body))
			}
			_, _ = parseConnack(body, version)
		}
		_, _, _ = parseAck(body)
	})
}
