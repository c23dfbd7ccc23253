package blackbox

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A packetIn is what a bridge has sent to a peer that is a test.
type packetIn struct {
	first byte
	body  []byte
}

// readPacket reads one whole packet.
func readPacket(r *bufio.Reader) (p packetIn, err error) {
	if p.first, err = r.ReadByte(); err != nil {
		return p, err
	}
	n, shift := 0, 0
	for {
		b, err := r.ReadByte()
		if err != nil {
			return p, err
		}
		n |= int(b&0x7f) << shift
		if shift += 7; b < 0x80 {
			break
		}
	}
	p.body = make([]byte, n)
	_, err = io.ReadFull(r, p.body)
	return p, err
}

// hostilePeer serves connections, each of which is answered by what answer returns for each
// packet; nil ends it.
func hostilePeer(t *testing.T, answer func(p packetIn) []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					p, err := readPacket(r)
					if err != nil {
						return
					}
					out := answer(p)
					if out == nil {
						return
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A peer that does what no broker does is left, counted by what it did, and tried again; our
// own clients notice nothing, and what is published for it waits.
func TestBridgeHostilePeer(t *testing.T) {
	t.Parallel()
	welcome := []byte{0x20, 3, 0, 0, 0}
	publish := func(topic string, flags byte, rest ...byte) []byte {
		body := append([]byte{0, byte(len(topic))}, topic...)
		return mq.Frame(0x30|flags, append(body, rest...)...)
	}
	// What is sent once the bridge has been let in and has subscribed.
	then := func(out []byte) func(packetIn) []byte {
		return func(p packetIn) []byte {
			switch p.first >> 4 {
			case 1:
				return welcome
			case 8:
				return append([]byte{0x90, 4, p.body[0], p.body[1], 0, 2}, out...)
			}
			return []byte{}
		}
	}
	for _, c := range []struct {
		name, reason string
		answer       func(packetIn) []byte
	}{
		{"ends at once", "lost", func(packetIn) []byte { return nil }},
		{"speaks HTTP", "protocol", func(packetIn) []byte { return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") }},
		{"wrong password", "refused", func(packetIn) []byte { return []byte{0x20, 3, 0, 0x86, 0} }},
		{"no MQTT 5", "refused", func(packetIn) []byte { return []byte{0x20, 2, 0, 1} }},
		{"SUBACK to nobody", "protocol", then([]byte{0x90, 4, 0, 9, 0, 0})},
		{"refuses the subscription", "subscribe", func(p packetIn) []byte {
			if p.first>>4 == 8 {
				return []byte{0x90, 4, p.body[0], p.body[1], 0, 0x80}
			}
			return then(nil)(p)
		}},
		{"a packet of 200 MiB", "protocol", then([]byte{0x30, 0x80, 0x80, 0x80, 0x64})},
		{"a length of five bytes", "protocol", then([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1})},
		{"a topic with a wildcard", "protocol", then(publish("in/#", 0, 0))},
		{"a topic that is no text", "protocol", then(publish("in/\xff", 0, 0))},
		{"QoS 3", "protocol", then(publish("in/a", 6, 0, 1, 0))},
		{"no packet id", "protocol", then(publish("in/a", 2, 0, 0, 0))},
		{"a topic alias", "protocol", then(publish("", 0, 3, 0x23, 0, 1))},
		{"a property twice", "protocol", then(publish("in/a", 0, 4, 1, 1, 1, 1))},
		{"properties that run past the end", "protocol", then(publish("in/a", 0, 9, 1))},
		{"acknowledges what it was not sent", "protocol", then([]byte{0x40, 2, 0, 9})},
		{"a CONNECT", "protocol", then([]byte{0x10, 0})},
		{"PINGRESP to nobody", "protocol", then([]byte{0xd0, 0})},
		{"has an event again and again", "protocol", func(p packetIn) []byte {
			if p.first>>4 == 3 {
				return bytes.Repeat([]byte{0x50, 2, p.body[7], p.body[8]}, 200)
			}
			return then(nil)(p)
		}},
		{"tells why it ends", "lost", then([]byte{0xe0, 1, 0x8E})},
		{"never acknowledges", "timeout", then([]byte{})},
		{"takes events not now", "busy", func(p packetIn) []byte {
			if p.first>>4 == 3 {
				return []byte{0x40, 3, p.body[7], p.body[8], 0x97}
			}
			return then(nil)(p)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr, qos := hostilePeer(t, c.answer), byte(1)
			if c.name == "has an event again and again" {
				qos = 2
			}
			s := prepareBridged(t, addr, "ack_timeout: 1s\ntopics: [{filter: \"in/#\", direction: in}, {filter: \"out/#\", direction: out, qos: 2}]")
			s.start()
			client := s.open(v5, clean("client"))
			client.Subscribe("out/#", 1)
			client.Subscribe("b", 1)
			client.Publish("out/a", qos, "waits")
			client.ReceiveText("out/a", "waits")
			until(t, "it is counted", patience, func() bool { return s.metric("bellwire_bridge_errors_total", fmt.Sprintf("reason=%q", c.reason)) > 0 })
			until(t, "the event waits", patience, func() bool { return s.metric("bellwire_bridge_lag_messages") == 1 })
			client.Publish("b", 1, "on")
			for {
				if p := client.Await(mq.PUBLISH, 0); p.Topic == "b" {
					break
				}
			}
			until(t, "the log says what failed", patience, func() bool { // which it does after it is counted
				log := s.logs.String()
				return (c.reason == "subscribe" || strings.Contains(log, "the bridge has no connection")) && strings.Contains(log, `"bridge":"b"`)
			})
		})
	}
}

// What a broker hands on and we do not take, or cannot be said at the other side with its prefix,
// is acknowledged, dropped and counted: what comes after it is carried, both ways. Anybody who
// may publish to a topic of the bridge would stop it otherwise.
func TestBridgeNamesThatDoNotFit(t *testing.T) {
	t.Parallel()
	event := func(id byte, topic string, props ...byte) []byte {
		body := append([]byte{byte(len(topic) >> 8), byte(len(topic))}, topic...)
		return mq.Frame(0x32, append(append(body, 0, id, byte(len(props))), props...)...)
	}
	var acked, came atomic.Int32
	addr := hostilePeer(t, func(p packetIn) []byte {
		switch p.first >> 4 {
		case 1:
			return []byte{0x20, 3, 0, 0, 0}
		case 3:
			if n := int(p.body[0])<<8 | int(p.body[1]); string(p.body[2:2+n]) == "far/out/ok" {
				came.Add(1)
				return []byte{0x40, 2, p.body[2+n], p.body[3+n]}
			}
			return nil
		case 4:
			acked.Add(1)
		case 8:
			return slices.Concat([]byte{0x90, 4, p.body[0], p.body[1], 0, 1},
				event(1, "in/"+strings.Repeat("a/", 150)),
				event(2, "in/"+strings.Repeat("z", 65_530)),
				event(3, "in/a\u0085"),
				event(4, "in/wild", 0x08, 0, 3, 'r', '/', '#'),
				event(5, "in/format", 1, 2),
				event(6, "in/"+strings.Repeat("a/", 110)), // of too many levels by this server's limits
				event(7, "in/ok"))
		}
		return []byte{}
	})
	s := bridged(t, addr, `topics:
  - {filter: "in/#", direction: in, local_prefix: near/}
  - {filter: "out/#", direction: out, remote_prefix: far/}`, "--allow-anonymous", "--limits", writeFile(t, "limits.yaml", "v: 1\ndefault: {topic.levels: 100}\n"))
	client := s.open(v5, clean("client"))
	client.Publish("out/"+strings.Repeat("z", 65_530), 1, "too long there")
	client.Publish("out/ok", 1, "carried")
	until(t, "what comes after is carried, and all that came is acknowledged", patience, func() bool {
		return s.metric("bellwire_bridge_lag_messages") == 0 && came.Load() > 0 && acked.Load() >= 7
	})
	for reason, want := range map[string]float64{"refused": 3, "too_large": 2} {
		if n := s.metric("bellwire_bridge_dropped_total", fmt.Sprintf("reason=%q", reason)); n != want {
			t.Errorf("%v dropped as %s, want %v", n, reason, want)
		}
	}
	if in, lost := s.metric("bellwire_bridge_messages_total", `direction="in"`), s.metric("bellwire_bridge_errors_total"); in != 3 || lost > 0 {
		t.Errorf("%v came in, want 3; connections lost: %v", in, lost)
	}
}

// What a peer was sent at QoS 2 before the connection broke, and cannot be sent again, is released
// there: it may hold the packet id, and would take for a repeat what comes under it later.
func TestBridgeReleasesWhatItDrops(t *testing.T) {
	t.Parallel()
	var connects atomic.Int32
	sent, released := make(chan byte, 1), make(chan byte, 1)
	addr := hostilePeer(t, func(p packetIn) []byte {
		switch p.first >> 4 {
		case 1:
			if connects.Add(1) == 1 {
				return []byte{0x20, 3, 0, 0, 0}
			}
			return []byte{0x20, 8, 1, 0, 5, 0x27, 0, 0, 0, 60} // the session is there, and takes 60 bytes
		case 3:
			sent <- p.body[8]
			return nil
		case 6:
			released <- p.body[1]
			return []byte{0x70, 2, p.body[0], p.body[1]}
		}
		return []byte{}
	})
	s := bridged(t, addr, `topics: [{filter: "out/#", direction: out, qos: 2}]`)
	s.open(v5, clean("client")).Publish("out/a", 2, strings.Repeat("large ", 20))
	id := <-sent
	until(t, "what is too large now is dropped", patience, func() bool {
		return s.metric("bellwire_bridge_dropped_total", `reason="too_large"`) == 1 && s.metric("bellwire_bridge_lag_messages") == 0
	})
	select {
	case got := <-released:
		if got != id {
			t.Errorf("packet id %d is released, want %d", got, id)
		}
	default:
		t.Errorf("packet id %d is not released", id)
	}
}

// A peer that releases ids under which it has sent nothing is answered, and has our log order
// nothing.
func TestBridgeReleasesOfNothing(t *testing.T) {
	t.Parallel()
	const many = 20_000
	var over atomic.Int32
	addr := hostilePeer(t, func(p packetIn) []byte {
		switch p.first >> 4 {
		case 1:
			return []byte{0x20, 3, 0, 0, 0}
		case 7:
			over.Add(1)
		case 8:
			out := []byte{0x90, 4, p.body[0], p.body[1], 0, 2}
			for id := range many {
				out = append(out, 0x62, 2, byte((id+1)>>8), byte(id+1))
			}
			return out
		}
		return []byte{}
	})
	s := bridged(t, addr, `topics: [{filter: "in/#", direction: in, qos: 2}]`)
	until(t, "all are answered", patience, func() bool { return over.Load() == many })
	if n := s.metric("bellwire_log_bytes_total"); n > 5*many {
		t.Errorf("%v bytes were ordered", n)
	}
}

// A peer may have more under way than our clients may: MQTT 3.1.1 has no bound, and mosquitto
// oversteps that of 5 when it sends what has gathered while we were away. All of it is carried, and the
// connection goes on.
func TestBridgePeerSendsMuchAtOnce(t *testing.T) {
	t.Parallel()
	const each = 1_500 // of QoS 1, and of QoS 2
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			var over atomic.Int32
			addr := hostilePeer(t, func(p packetIn) []byte {
				extra := []byte{0} // the length of properties
				if version != "5" {
					extra = nil
				}
				switch p.first >> 4 {
				case 1:
					return mq.Frame(0x20, append([]byte{0, 0}, extra...)...)
				case 4, 7:
					over.Add(1)
				case 5:
					return []byte{0x62, 2, p.body[0], p.body[1]}
				case 8:
					out := mq.Frame(0x90, append(append([]byte{p.body[0], p.body[1]}, extra...), 2)...)
					for n := range 2 * each {
						body := append([]byte{0, 4, 'i', 'n', '/', 'a', byte((n + 1) >> 8), byte(n + 1)}, extra...)
						out = append(out, mq.Frame(0x32+byte(n%2*2), body...)...)
					}
					return out
				}
				return []byte{}
			})
			s := bridged(t, addr, fmt.Sprintf("protocol: %q\ntopics: [{filter: \"in/#\", direction: in, qos: 2}]", version))
			until(t, "all is acknowledged", patience, func() bool { return over.Load() == 2*each })
			if in, lost := s.metric("bellwire_bridge_messages_total", `direction="in"`), s.metric("bellwire_bridge_errors_total"); in != 2*each || lost > 0 {
				t.Errorf("%v came in, want %d; connections lost: %v", in, 2*each, lost)
			}
		})
	}
}

// Where the bytes of an event are makes no difference: those of a peer that has a few of payload
// and 144 KiB of User Properties each take no more memory than the bounds that docs/limits.md
// names, and the garbage collector leaves memtables out of its reckoning.
func TestBridgePeerSendsManyProperties(t *testing.T) {
	t.Parallel()
	const each, bound = 1_000, 640 << 20
	event := mq.Publish{Topic: "in/a", QoS: 1, Payload: []byte("x")}
	for range 3 {
		event.Properties = append(event.Properties, mq.User("k", strings.Repeat("v", 48<<10)))
	}
	var over atomic.Int32
	addr := hostilePeer(t, func(p packetIn) []byte {
		switch p.first >> 4 {
		case 1:
			return []byte{0x20, 3, 0, 0, 0}
		case 4:
			over.Add(1)
		case 8:
			out := []byte{0x90, 4, p.body[0], p.body[1], 0, 1}
			for n := range each {
				event.ID = uint16(n + 1)
				out = append(out, event.Encode(v5)...)
			}
			return out
		}
		return []byte{}
	})
	s := bridged(t, addr, `topics: [{filter: "in/#", direction: in, qos: 1}]`)
	var most int64
	until(t, "all is acknowledged", patience, func() bool {
		most = max(most, s.rss())
		return over.Load() == each
	})
	if most > bound {
		t.Errorf("%d MiB of memory, at most %d", most>>20, bound>>20)
	}
	until(t, "memtables are left out", patience, func() bool { return s.metric("go_gc_gogc_percent") < 100 })
}

// What has gathered at a mosquitto while we were away comes all at once, more than our Receive
// Maximum, which it oversteps by MQTT 5 as well; it comes once each and in order, on one connection.
func TestBridgeMosquittoSendsMuchAtOnce(t *testing.T) {
	t.Parallel()
	const many = 600
	peer := mosquittoBroker(t)
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := bridged(t, peer.addr, fmt.Sprintf("client_id: of-%s\nprotocol: %[1]q\ntopics: [{filter: \"in/#\", direction: in, qos: 1}]", version))
			until(t, "mosquitto has the subscription", patience, func() bool {
				mq.Open(t, peer.addr, v5, clean("try "+version)).Publish("in/try", 1, "x")
				return s.metric("bellwire_bridge_messages_total", `direction="in"`) > 0
			})
			here := s.open(v5, durable(v5, "here"))
			here.Subscribe("in/"+version, 1)
			here.Disconnect()
			s.kill()
			publishMany(t, mq.Open(t, peer.addr, v5, clean("source "+version)), "in/"+version, 1, 1, many)
			s.start()
			here = s.open(v5, durable(v5, "here"))
			for i := range many {
				here.ReceiveText("in/"+version, fmt.Sprint(1+i))
			}
			if lost := s.metric("bellwire_bridge_errors_total"); lost > 0 {
				t.Errorf("%v connections lost", lost)
			}
		})
	}
}

// A mosquitto takes 20 events of QoS 2 at once, and by 3.1.1 can neither say so nor refuse more: it
// acknowledges and drops them. So it is sent no more.
func TestBridgeSendsNoMoreThanMosquittoTakes(t *testing.T) {
	t.Parallel()
	const many = 200
	for _, version := range []string{"5", "3.1.1"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			peer := mosquittoWith(t, "allow_anonymous true", "max_inflight_messages 20")
			s := bridged(t, peer.addr, fmt.Sprintf("protocol: %q\ntopics: [{filter: \"out/#\", direction: out, qos: 2}]", version))
			there := mq.Open(t, peer.addr, v5, clean("there"))
			there.Subscribe("out/#", 2)
			publishMany(t, s.open(v5, clean("here")), "out/a", 2, 1, many)
			for i := range many {
				there.ReceiveText("out/a", fmt.Sprint(1+i))
			}
		})
	}
}

// What is published before the peer is there for the first time, and while it is away, waits and
// goes out; the state is told as mosquitto tells it.
func TestBridgePeerComesLate(t *testing.T) {
	t.Parallel()
	peer := mosquittoBroker(t)
	peer.kill()
	s := prepareBridged(t, peer.addr, `topics: [{filter: "out/#", direction: out, qos: 1}]`, "--allow-anonymous", "--sys-interval", "1s")
	s.start()
	client := s.open(v5, clean("client"))
	until(t, "the peer is missed", patience, func() bool { return s.metric("bellwire_bridge_errors_total", `reason="dial"`) > 0 })
	const state = "$SYS/broker/connection/b/state"
	client.Subscribe(state, 0)
	client.ReceiveText(state, "0")
	client.Publish("out/a", 1, "early")
	until(t, "it waits", patience, func() bool { return s.metric("bellwire_bridge_lag_messages") == 1 })
	status := func(state string, counts ...string) {
		t.Helper()
		until(t, "the bridge is shown as "+state, patience, func() bool {
			out, notes, code := run(t, "bridge", "status", "--server", s.ready.HTTP)
			_, line, _ := strings.Cut(out, "\n")
			f := strings.Fields(line)
			return code == 0 && len(f) == 10 && f[0] == "b" && f[1] == state && f[3] == peer.addr && slices.Equal(f[5:8], counts) &&
				(state == "connected") == (notes == "") && (notes == "" || strings.Contains(notes, "connection refused\n  is it running"))
		})
	}
	status("disconnected", "1", "0", "0")
	peer.start()
	client.ReceiveText(state, "1")
	status("connected", "0", "1", "0")
	until(t, "it is carried", patience, func() bool { return s.metric("bellwire_bridge_messages_total", `direction="out"`) == 1 })
	peer.kill()
	client.ReceiveText(state, "0")
	client.Publish("out/a", 1, "later")
	until(t, "it waits", patience, func() bool { return s.metric("bellwire_bridge_lag_messages") == 1 })
	peer.start()
	client.ReceiveText(state, "1")
	until(t, "it is carried, too", patience, func() bool { return s.metric("bellwire_bridge_lag_messages") == 0 })
}
