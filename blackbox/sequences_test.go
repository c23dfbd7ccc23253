package blackbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// differences returns the packet sequences of mosquitto's own tests that we answer
// otherwise on purpose, with the reason.
func differences(t *testing.T) map[string]string {
	t.Helper()
	why := map[string]string{}
	for _, line := range dataLines(t, "differences.txt") {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 {
			t.Fatalf("differences.txt: %q", line)
		}
		if cells[0] == "mosquitto" {
			why[cells[1]] = cells[2]
		}
	}
	return why
}

// Byte-level packet sequences of the mosquitto project, judged leniently:
// types, ids and classes of codes must match, and whether the connection ends.
// They are not ours to ship: BELLWIRE_SEQUENCES names their folder, which is
// test/broker/data of a checkout.
func TestPacketSequences(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("BELLWIRE_SEQUENCES")
	if folder == "" {
		t.Skip("missing: the packet sequences, set BELLWIRE_SEQUENCES to the folder test/broker/data of a checkout of mosquitto")
	}
	all, err := mq.ReadSequences(folder)
	if err != nil {
		t.Fatal(err)
	}
	ways := map[string]dialer{"TCP": {target, nil}}
	if target == "" { // they use bare topics and ids: nobody else's server; and they know how many aliases it takes
		limits := limitsFile(t, "v: 1\ndefault:\n  topicAliases: 10\n")
		s := serve(t, "--allow-anonymous", "--limits", limits, "--ws", "127.0.0.1:0")
		ways = map[string]dialer{"TCP": {s.ready.MQTT, nil}, "WebSocket": {s.ready.MQTT, overWebSocket(s.ready.WS)}}
	}
	for way, dial := range ways {
		t.Run(way, func(t *testing.T) { playAll(t, dial, all) })
	}
}

// A dialer says where somebody else publishes, and how the client of a sequence comes:
// nil for by TCP, there.
type dialer struct {
	addr string
	dial func() (net.Conn, error)
}

func (d dialer) open() (net.Conn, error) {
	if d.dial != nil {
		return d.dial()
	}
	return net.Dial("tcp", d.addr)
}

func overWebSocket(addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		return mq.OpenWebSocket(nc, addr)
	}
}

func playAll(t *testing.T, dial dialer, all []mq.Sequence) {
	known := differences(t)
	passed := 0
	for _, s := range all {
		err := play(dial, s)
		why, listed := known[strings.Join(strings.Fields(s.Name), " ")]
		switch {
		case err == nil && !listed:
			passed++
		case err == nil:
			t.Errorf("%s: passes, though it is listed: %s", s.Name, why)
		case listed:
			t.Logf("%s: differs, because %s: %v", s.Name, why, err)
		default:
			t.Errorf("%s: %v", s.Name, err)
		}
	}
	t.Logf("%d of %d as mosquitto's", passed, len(all))
}

// A player is the client of one sequence. It reads whole packets and does not
// judge them beyond what the sequence expects.
type player struct {
	net.Conn
	in      *bufio.Reader
	version byte
}

// errEnds means that the broker ended the connection.
var errEnds = errors.New("the connection ended")

// play plays one sequence and returns what differs.
func play(dial dialer, s mq.Sequence) error {
	nc, err := dial.open()
	if err != nil {
		return err
	}
	p := &player{nc, bufio.NewReaderSize(nc, 1<<16), s.Version}
	defer p.Close()
	if s.Connect {
		connect := mq.Connect{ClientID: s.Name, Clean: true, KeepAlive: 60}
		if s.Version == 5 {
			connect.Properties = mq.Properties{mq.Number(mq.PropReceiveMaximum, 20)}
		}
		p.send(connect.Encode(s.Version))
		if err := p.expect(mq.Frame(0x20, make([]byte, 2+s.Version/5)...)); err != nil {
			return fmt.Errorf("CONNACK: %w", err)
		}
	}
	for i, step := range s.Steps {
		switch step.Kind {
		case mq.StepSend:
			p.send(step.Bytes)
		case mq.StepPublish:
			err = publishOnce(dial.addr, step.Publish)
		case mq.StepReceive:
			err = p.expect(step.Bytes)
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	if s.Ends {
		return p.expectEnd()
	}
	p.send(mq.Frame(0xC0))
	return p.expect(mq.Frame(0xD0))
}

// send sends; whether it could, reading tells.
func (p *player) send(b []byte) { _, _ = p.Write(b) }

// packet returns the next packet.
func (p *player) packet() ([]byte, error) {
	_ = p.SetReadDeadline(time.Now().Add(mq.Patience)) // an error means that it has ended
	b, err := p.in.Peek(2)
	for n := 2; err == nil && b[n-1] >= 0x80 && n < 5; n++ {
		b, err = p.in.Peek(n + 1)
	}
	if err == nil {
		b, err = p.in.Peek(len(b) + len(bodyOf(b)))
	}
	switch {
	case err == nil:
		b = bytes.Clone(b)
		_, err = p.in.Discard(len(b))
		return b, err
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return nil, errEnds
	}
	return nil, err
}

// bodyOf is what follows the fixed header of a packet; it is zero if b ends
// before.
func bodyOf(b []byte) []byte {
	n, at := 0, 1
	for shift := 0; at < len(b); shift += 7 {
		n |= int(b[at]&0x7F) << shift
		at++
		if b[at-1] < 0x80 {
			break
		}
	}
	return append(bytes.Clone(b[at:]), make([]byte, n)...)[:n]
}

// expect reads what the packets in want stand for. A broker may close without
// the DISCONNECT, or the refusing CONNACK, that is wanted.
func (p *player) expect(want []byte) error {
	for len(want) > 0 {
		body := bodyOf(want)
		size := len(mq.Frame(want[0], body...))
		first := want[:size]
		want = want[size:]
		got, err := p.packet()
		kind := mq.Type(first[0] >> 4)
		switch {
		case errors.Is(err, errEnds) && (kind == mq.DISCONNECT || kind == mq.CONNACK && body[1] != 0):
			return nil
		case err != nil:
			return fmt.Errorf("want % x: %w", first, err)
		case !alike(first, got, p.version):
			return fmt.Errorf("want % x, got % x", first, got)
		}
	}
	return nil
}

// expectEnd wants the broker to close, with no more than a last word.
func (p *player) expectEnd() error {
	for {
		got, err := p.packet()
		switch {
		case errors.Is(err, errEnds):
			return nil
		case err != nil:
			return fmt.Errorf("want the end of the connection: %w", err)
		}
		if kind := mq.Type(got[0] >> 4); kind != mq.CONNACK && (kind != mq.DISCONNECT || p.version < 5) {
			return fmt.Errorf("want the end of the connection, got % x", got)
		}
	}
}

// alike says whether two packets say the same: codes by their class, and of
// CONNACK, SUBACK and UNSUBACK without the properties.
func alike(want, got []byte, version byte) bool {
	kind := mq.Type(want[0] >> 4)
	if mq.Type(got[0]>>4) != kind {
		return false
	}
	a, b := bodyOf(want), bodyOf(got)
	switch kind {
	case mq.CONNACK:
		return a[0] == b[0] && (a[1] == b[1] || a[1] != 0 && b[1] != 0 && (version == 5 || a[1] >= 0x80))
	case mq.DISCONNECT:
		return sameClass(code(a, 0), code(b, 0))
	case mq.PUBACK, mq.PUBREC, mq.PUBREL, mq.PUBCOMP:
		return want[0] == got[0] && bytes.Equal(a[:2], b[:2]) && sameClass(code(a, 2), code(b, 2))
	case mq.SUBACK, mq.UNSUBACK:
		if version < 5 {
			break
		}
		x, y := a[3+a[2]:], b[3+b[2]:] // properties of less than 128 bytes
		same := bytes.Equal(a[:2], b[:2]) && len(x) == len(y)
		for i := 0; same && i < len(x); i++ {
			same = x[i] == y[i] || x[i] >= 0x80 && y[i] >= 0x80
		}
		return same
	}
	return bytes.Equal(want, got)
}

// code is the reason code at a place of a body, 0 if it is left out.
func code(body []byte, at int) byte {
	if at < len(body) {
		return body[at]
	}
	return 0
}

// sameClass says whether two codes both say yes or both say no.
func sameClass(a, b byte) bool { return (a >= 0x80) == (b >= 0x80) }

// publishOnce is the somebody else of a sequence.
func publishOnce(addr string, m mq.Publish) error {
	c, _, err := mq.DialConnect(addr, v4, clean("somebody else"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Write(m); err != nil || m.QoS == 0 {
		return err
	}
	for range m.QoS {
		p, err := c.Read(mq.Patience)
		if err != nil {
			return err
		}
		if p.Type == mq.PUBREC {
			if err := c.Write(mq.Ack{Type: mq.PUBREL, ID: m.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}
