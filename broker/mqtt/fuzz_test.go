package mqtt

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/mqtttest"
)

// A script is a transport whose client sends given pieces and then hangs up.
// What the server writes is taken in pieces, too.
type script struct {
	pieces [][]byte
	takes  *rand.Rand // nil to take everything at once

	mu     sync.Mutex
	wrote  []byte
	woken  bool
	closed bool
}

func (s *script) read(bool) (*input, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, net.ErrClosed
	case s.woken:
		return nil, errWoken
	case len(s.pieces) == 0:
		return nil, io.EOF
	}
	in := newInput(true)
	in.n = copy(in.buf, s.pieces[0])
	if in.n == len(s.pieces[0]) {
		s.pieces = s.pieces[1:]
	} else {
		s.pieces[0] = s.pieces[0][in.n:]
	}
	return in, nil
}

func (s *script) write(bufs [][]byte, wait bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	all := bytes.Join(bufs, nil)
	n := len(all)
	if s.takes != nil {
		n = s.takes.IntN(n + 1)
		if wait && n == 0 {
			n = 1
		}
	}
	s.wrote = append(s.wrote, all[:n]...)
	return n, nil
}

func (s *script) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *script) wake()            { s.set(func() { s.woken = true }) }
func (s *script) calm()            { s.set(func() { s.woken = false }) }
func (s *script) probe()           {}
func (s *script) finish()          {}
func (s *script) close(bool)       { s.set(func() { s.closed = true }) }
func (s *script) remote() net.Addr { return &net.IPAddr{} }

func (s *script) owes() bool { return false }

func (s *script) security() *tls.ConnectionState { return nil }

// split cuts b into pieces, none empty.
func split(r *rand.Rand, b []byte) (pieces [][]byte) {
	for len(b) > 0 {
		n := 1 + r.IntN(len(b))
		if r.IntN(3) == 0 {
			n = min(len(b), 1+r.IntN(4))
		}
		pieces = append(pieces, b[:n:n])
		b = b[n:]
	}
	return pieces
}

// A scribe is a session that writes down what it is asked.
type scribe struct {
	session
	said []string
}

func (s *scribe) Publish(ev *event.Event, id uint16, _ broker.Completer, _ uint64, _ *broker.Wave) (bool, error) {
	s.said = append(s.said, fmt.Sprintf("publish %s %x %x q%d %d %v", ev.Topic, ev.Payload, ev.Props, ev.QoS, id, ev.Retain))
	return false, nil
}

func (s *scribe) Took(uint16) bool { return false }

func (s *scribe) Settle(id uint16, what broker.Settlement, _ *broker.Wave) error {
	s.said = append(s.said, fmt.Sprintf("settle %d %d", id, what))
	return nil
}

// However a stream is cut, the same packets are handled: in place, or put
// together from pieces.
func TestCutsDoNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var stream []byte
	for range 300 {
		switch r.IntN(5) {
		case 0:
			stream = append(stream, 0xc0, 0)
		case 1:
			stream = append(stream, packet(0x40, u16(1+r.IntN(100)))...)
		case 2:
			stream = append(stream, packet(0x33, "a/b", u16(1+r.IntN(100)), props5(packets.PropTopicAlias, 0, 1, packets.PropUser, 0, 1, 'k', 0, 0), []byte("x"))...)
		case 3:
			stream = append(stream, packet(0x34, "", u16(1+r.IntN(100)), props5(packets.PropUser, 0, 0, 0, 0, packets.PropTopicAlias, 0, 1))...)
		default:
			stream = append(stream, packet(0x30, "a", props5(), bytes.Repeat([]byte{'y'}, r.IntN(3000)))...)
		}
	}
	run := func(pieces [][]byte) (said []string, kept int) {
		c := offline(5)
		s := &scribe{}
		c.session, c.accepted, c.tr = s, true, &script{}
		c.aliases = make([]string, 16)
		c.aliases[0] = "a"
		c.aliasMax = 16
		for _, p := range pieces {
			in := newInput(true)
			in.n = copy(in.buf, p)
			if err := c.handleInput(in); err != nil {
				t.Fatal(err)
			}
		}
		return s.said, len(c.partial)
	}
	var whole [][]byte
	for rest := stream; len(rest) > 0; { // each packet alone
		_, size, _ := frameSize(rest)
		whole = append(whole, rest[:size:size])
		rest = rest[size:]
	}
	want, _ := run(whole)
	if len(want) < 150 {
		t.Fatalf("only %d packets: the test shows nothing", len(want))
	}
	for round := range 200 {
		pieces := split(r, stream)
		for i := 0; i < len(pieces); i++ { // an input holds so much
			if len(pieces[i]) > largeInput {
				pieces = append(pieces[:i+1], append([][]byte{pieces[i][largeInput:]}, pieces[i+1:]...)...)
				pieces[i] = pieces[i][:largeInput]
			}
		}
		got, kept := run(pieces)
		if kept != 0 || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("round %d: %d handled and %d bytes left over, want %d and none, or they differ", round, len(got), kept, len(want))
		}
	}
}

// A packet of which only the beginning has come takes at most twice the memory
// of what has come.
func TestPartialPacketsStaySmall(t *testing.T) {
	c := offline(5)
	c.limits.Packet = maxRemaining + maxHeader
	c.session, c.accepted, c.tr = &scribe{}, true, &script{}
	sent := 0
	feed := func(b []byte) {
		in := newInput(true)
		in.n = copy(in.buf, b)
		sent += in.n
		if err := c.handleInput(in); err != nil {
			t.Fatal(err)
		}
		if got := cap(c.partial); got > 2*sent {
			t.Fatalf("%d bytes came, %d are held", sent, got)
		}
	}
	feed([]byte{0x30})
	feed([]byte{0xff, 0xff})
	feed([]byte{0xff, 0x7f, 0, 1, 'a', 0})
	for range 100 {
		feed(make([]byte, 10_000))
	}
}

// The parsers take any bytes: they do not panic, do not touch what lies behind
// the packet, and what they accept the codec accepts and reads the same.
func FuzzParsers(f *testing.F) {
	for _, g := range guards5 {
		f.Add(g.bytes, true)
	}
	for _, g := range guards4 {
		f.Add(g.bytes, false)
	}
	for _, s := range sequences(f) {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, v5 bool) {
		at, size, err := frameSize(b)
		if err != nil || size == 0 || size > len(b) || checkFirst(b[0], 5) != nil {
			return
		}
		const canary = "canary"
		mem := append(append([]byte{}, b[:size]...), canary...)
		before := bytes.Clone(b[at:size])
		body := mem[at:size:size]
		version := byte(4)
		if v5 {
			version = 5
		}
		pk := packets.Packet{ProtocolVersion: version}
		if err := pk.FixedHeader.Decode(b[0]); err != nil && b[0]>>4 != packets.Connect {
			t.Fatalf("first byte %#x: we accept what the codec does not: %v", b[0], err)
		}
		pk.FixedHeader.Remaining = len(body)
		switch b[0] >> 4 {
		case packets.Publish:
			var p publication
			if parsePublish(b[0], body, v5, &p) != nil {
				break
			}
			if err := pk.PublishDecode(before); err != nil {
				t.Fatalf("% x: the codec refuses: %v", b, err)
			}
			o := &pk.Properties
			if pk.TopicName != string(p.topic) || !bytes.Equal(pk.Payload, p.payload) || pk.PacketID != p.id ||
				o.TopicAlias != p.alias || o.MessageExpiryInterval != p.expiry {
				t.Fatalf("% x: we read %+v, the codec %+v", b, p, pk)
			}
			o.TopicAlias, o.TopicAliasFlag, o.MessageExpiryInterval = 0, false, 0
			var again packets.Properties
			if _, err := again.Decode(packets.Publish, bytes.NewBuffer(props5(p.props...))); err != nil {
				t.Fatalf("% x: forwarded properties % x: %v", b, p.props, err)
			}
			if fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", *o) {
				t.Fatalf("% x: forwarded properties\n%+v, want\n%+v", b, again, *o)
			}
		case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
			parseAck(b[0]>>4, body, v5)
		case packets.Connect:
			p, _, err := parseConnect(b[0], body)
			if err == nil && p.Connect.WillFlag {
				willOf(p)
			}
		case packets.Subscribe:
			if p, err := parseSubscribe(body, version); err == nil {
				for _, x := range p.Filters {
					filterCode(x.Filter)
				}
			}
		case packets.Unsubscribe:
			parseUnsubscribe(body, version)
		case packets.Disconnect:
			parseDisconnect(body, v5)
		case packets.Auth:
			parseAuth(body)
		}
		if string(mem[size:]) != canary {
			t.Fatalf("% x: bytes behind the packet were changed", b)
		}
		if b[0]>>4 != packets.Publish && !bytes.Equal(body, before) {
			t.Fatalf("% x: the packet was changed", b)
		}
	})
}

// Whatever bytes a client sends, in whatever pieces, and however it takes the
// answers: only its own connection ends, by no bug of ours, and all that it was
// sent is packets that a server may send, with reason codes that may stand
// there, the CONNACK first and nothing after a DISCONNECT.
func FuzzConnection(f *testing.F) {
	n := newNode(f, Limits{Packet: 4096, ReceiveMaximum: 8, TopicAliases: 2})
	connect5, connect4 := connectBytes(5, "f"), connectBytes(4, "f")
	durable := connectBytes(5, "f", keep(100), func(pk *packets.Packet) { pk.Properties.TopicAliasMaximum = 3 })
	sub5, sub4 := packet(0x82, u16(1), props5(), "#", 2), packet(0x82, u16(1), "#", 2)
	for i, g := range guards5 {
		f.Add(bytes.Join([][]byte{connect5, sub5, g.bytes, guards5[(i+7)%len(guards5)].bytes}, nil), uint64(i))
		f.Add(bytes.Join([][]byte{durable, sub5, g.bytes, {0xc0, 0}}, nil), uint64(i))
	}
	for i, g := range guards4 {
		f.Add(bytes.Join([][]byte{connect4, sub4, g.bytes, {0xc0, 0}}, nil), uint64(i))
	}
	for i, s := range sequences(f) {
		f.Add(s, uint64(i))
		f.Add(append(bytes.Clone(connect5), s...), uint64(i))
		f.Add(append(bytes.Clone(connect4), s...), uint64(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		if len(b) > 16<<10 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 1))
		s := &script{pieces: split(r, b)}
		if seed%2 == 0 {
			s.takes = rand.New(rand.NewPCG(seed, 2))
		}
		c := n.srv.take(s, address{}, &served{Listener: Listener{Anonymous: true}}, nil)
		if c == nil {
			t.Fatal("no place for a connection")
		}
		c.serve()
		s.mu.Lock()
		wrote := s.wrote
		s.mu.Unlock()
		checkStream(t, c.version, wrote, len(c.partial))
		if got := n.srv.stats.Panics.Load(); got != 0 {
			t.Fatalf("%d panics", got)
		}
	})
}

// checkStream holds what a server sent against what a server may send. The
// last packet may be cut: the client hung up.
func checkStream(t *testing.T, version byte, b []byte, _ int) {
	t.Helper()
	aliases := map[uint16]bool{}
	for i := 0; len(b) > 0; i++ {
		at, size, err := frameSize(b)
		if err != nil {
			t.Fatalf("packet %d: % x: %v", i, b, err)
		}
		if size == 0 || size > len(b) {
			return
		}
		kind := b[0] >> 4
		if (i == 0) != (kind == packets.Connack) {
			t.Fatalf("packet %d is of type %d", i, kind)
		}
		if kind == packets.Disconnect && (version != 5 || size < len(b)) {
			t.Fatalf("packet %d is a DISCONNECT to version %d, and %d bytes follow", i, version, len(b)-size)
		}
		words(t, version, b[:size])
		code := byte(0)
		switch {
		case kind == packets.Connack && b[3] == codeBadVersion: // in the form of MQTT 5 to whoever it was
		case version == 5 && kind == packets.Connack:
			code = b[at+1]
		case version == 5 && kind == packets.Disconnect:
			code = b[at]
		case version == 5 && kind >= packets.Puback && kind <= packets.Pubcomp && size > at+2:
			code = b[at+2]
		case kind == packets.Publish && version == 5:
			pk := packets.Packet{ProtocolVersion: 5}
			pk.FixedHeader.Decode(b[0])
			pk.PublishDecode(b[at:size])
			if a := pk.Properties.TopicAlias; a > 0 && pk.TopicName == "" && !aliases[a] {
				t.Fatalf("packet %d uses alias %d, which was never set", i, a)
			} else if a > 0 {
				aliases[a] = true
			}
		}
		if legal(kind, code) != code && kind != packets.Publish && kind != packets.Pingresp {
			t.Fatalf("packet %d: code %#x in %s", i, code, packets.PacketNames[kind])
		}
		b = b[size:]
	}
}

// sequences reads the packet sequences of mosquitto's tests, if the environment
// names their folder: what they send.
func sequences(t testing.TB) (all [][]byte) {
	folder := os.Getenv("BELLWIRE_SEQUENCES")
	if folder == "" {
		return nil
	}
	read, err := mqtttest.ReadSequences(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range read {
		var b []byte
		for _, step := range s.Steps {
			if step.Kind == mqtttest.StepSend {
				b = append(b, step.Bytes...)
			}
		}
		all = append(all, b)
	}
	return all
}
