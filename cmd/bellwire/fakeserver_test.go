package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"go.uber.org/goleak"

	"github.com/bellwire/bellwire/internal/bubble"
)

// A server here is a function at the other end of a pipe. It says what no
// broker can be made to say on demand, and in a synctest bubble it shows what
// is not sent: when everything waits, everything has been sent that will be.

func receivePacket(t *testing.T, c net.Conn) *packets.ControlPacket {
	p, err := packets.ReadPacket(c)
	if err != nil {
		return nil // the client has gone
	}
	return p
}

func send(c net.Conn, p interface {
	WriteTo(io.Writer) (int64, error)
},
) {
	var b bytes.Buffer
	p.WriteTo(&b)
	c.Write(b.Bytes())
}

// accept answers CONNECT with success.
func accept(t *testing.T, c net.Conn) {
	if p := receivePacket(t, c); p == nil || p.Type != packets.CONNECT {
		t.Errorf("got %v, want CONNECT", p)
	}
	send(c, &packets.Connack{Properties: &packets.Properties{}})
}

// acceptSub answers CONNECT and SUBSCRIBE with success.
func acceptSub(t *testing.T, c net.Conn) {
	accept(t, c)
	p := receivePacket(t, c)
	if p == nil || p.Type != packets.SUBSCRIBE {
		t.Errorf("got %v, want SUBSCRIBE", p)
		return
	}
	send(c, &packets.Suback{PacketID: p.PacketID(), Properties: &packets.Properties{}, Reasons: []byte{0}})
}

// noLeaks makes t fail if it leaves a goroutine behind. (A synctest bubble
// cannot.)
func noLeaks(t *testing.T) {
	t.Helper()
	now := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, now) })
}

// dialTo returns a target whose connections end in server, each in a
// goroutine of its own.
func dialTo(server func(c net.Conn)) target {
	return target{network: "tcp", address: "test:1883", timeout: 10 * time.Second, dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			server(theirs)
			theirs.Close()
		}()
		return ours, nil
	}}
}

func publishTo(t *testing.T, server func(net.Conn), qos int, source source, lines bool) (string, error) {
	t.Helper()
	f := pubFlags{topic: "a/b", lines: lines, inFlight: 64}
	f.client.qos, f.client.props = qos, pubProperties()
	var notes bytes.Buffer
	packet := &paho.Connect{CleanStart: true, KeepAlive: 60}
	err := f.publish(t.Context(), dialTo(server), packet, source, &notes)
	return notes.String(), err
}

// manyLines returns n payloads: 0, 1, 2, …
func manyLines(n int) source {
	i := 0
	return func(context.Context) ([]byte, error) {
		if i == n {
			return nil, io.EOF
		}
		i++
		return fmt.Append(nil, i-1), nil
	}
}

// pub -l sends in order, never has more than its window unacknowledged, and
// ends when the last acknowledgement is there.
func TestPubLinesInFlight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var received atomic.Int64
		goOn := make(chan struct{})
		server := func(c net.Conn) {
			accept(t, c)
			var ids []uint16
			for i := 0; ; i++ {
				p := receivePacket(t, c)
				if p == nil || p.Type == packets.DISCONNECT {
					return
				}
				if got := string(p.Content.(*packets.Publish).Payload); got != fmt.Sprint(i) {
					t.Errorf("message %d is %q", i, got)
				}
				received.Add(1)
				if ids = append(ids, p.PacketID()); i == 63 {
					<-goOn
				}
				if i >= 63 {
					for _, id := range ids {
						send(c, &packets.Puback{PacketID: id, Properties: &packets.Properties{}})
					}
					ids = nil
				}
			}
		}
		done := make(chan error, 1)
		go func() {
			_, err := publishTo(t, server, 1, manyLines(1000), true)
			done <- err
		}()
		synctest.Wait()
		if got := received.Load(); got != 64 {
			t.Errorf("%d messages sent before the first acknowledgement, want the window of 64", got)
		}
		close(goOn)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := received.Load(); got != 1000 {
			t.Errorf("%d messages sent, want 1000", got)
		}
	})
}

// What the server's refusals become: the message with its reason, the advice
// of a server that is bellwire, the exit code.
func TestPubRefused(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name    string
		qos     int
		n       int
		refuse  func(i int) (byte, string)
		exit    int
		want    string // in the report
		counted string // in the notes before it
	}{
		{
			"by policy", 1, 1, always(0x87, "BW-4001 no rule allows publish to a/b; bellwire acl explain 7Q2M"), exitDenied,
			"bellwire: publish to a/b refused: no rule allows publish to a/b\n  bellwire acl explain 7Q2M     BW-4001\n", "",
		},
		{
			"by an owner", 1, 1, always(0x87, "BW-4003 rejected: its owner shows it to others"), exitDenied,
			"rejected: its owner shows it to others\n  ask them: their own policy decides, and why is for them alone to know     BW-4003\n", "",
		},
		{"by an owner, for a time", 1, 1, always(0x87, "BW-4003 probation: retry-after=90"), exitDenied, "\n  ask again in 1m30s     BW-4003\n", ""},
		{
			"by an owner who wants to know more", 1, 1, always(0x87, "BW-4003 identity-required: its owner wants to know more of who watches"), exitDenied,
			"\n  let them know more of who you are: --visibility pseudonymous,identified     BW-4003\n", "",
		},
		{"without a name", 1, 1, always(0x87, "BW-4001 identity-required: nobody knows who is meant by me"), exitDenied, "\n  say who you are: -u NAME@DOMAIN, and -P     BW-4001\n", ""},
		{
			"what is another's", 1, 1, always(0x87, "BW-4001 presence of bo@example.com is theirs, or a delegate's, to publish"), exitDenied,
			"\n  publish your own, or have them name you in the delegates of their policy     BW-4001\n", "",
		},
		{"at QoS 2", 2, 1, always(0x87, ""), exitDenied, "publish to a/b refused: not authorized", ""},
		{"reason of another server", 1, 1, always(0x87, "go away"), exitDenied, "publish to a/b refused: not authorized: go away", ""},
		{"code of a newer server", 1, 1, always(0x87, "BW-4999 closed (Mon 08:00-12:00; Tue 08:00-12:00); bellwire update"), exitDenied, "closed (Mon 08:00-12:00; Tue 08:00-12:00) (BW-4999)\n  bellwire update     BW-4001", ""},
		{"quota", 1, 1, always(0x97, "disk-full"), exitFailed, "quota exceeded: disk-full", ""},
		{"all of several", 1, 3, always(0x87, ""), exitDenied, "all 3 messages refused: publish to a/b refused: not authorized", ""},
		{
			"some", 1, 6, func(i int) (byte, string) { return []byte{0, 0x87, 0x97}[i%3], "" }, exitPartial,
			"4 of 6 messages refused, 2 acknowledged", "      2 × publish to a/b refused: not authorized     BW-4001\n",
		},
		{"no subscriber is no refusal", 1, 1, always(0x10, ""), 0, "", ""},
	} {
		server := func(conn net.Conn) {
			accept(t, conn)
			for i := 0; ; i++ {
				p := receivePacket(t, conn)
				if p == nil || p.Type == packets.DISCONNECT {
					return
				}
				code, text := c.refuse(i)
				props := &packets.Properties{ReasonString: text}
				if c.qos == 2 {
					send(conn, &packets.Pubrec{PacketID: p.PacketID(), ReasonCode: code, Properties: props})
				} else {
					send(conn, &packets.Puback{PacketID: p.PacketID(), ReasonCode: code, Properties: props})
				}
			}
		}
		notes, err := publishTo(t, server, c.qos, manyLines(c.n), c.n > 1)
		var report1 bytes.Buffer
		if got := report(&report1, err); got != c.exit {
			t.Errorf("%s: exit %d, want %d", c.name, got, c.exit)
		}
		if !strings.Contains(report1.String(), c.want) {
			t.Errorf("%s: %q, want %q in it", c.name, &report1, c.want)
		}
		if !strings.Contains(notes, c.counted) {
			t.Errorf("%s: notes %q, want %q", c.name, notes, c.counted)
		}
	}
}

func always(code byte, text string) func(int) (byte, string) {
	return func(int) (byte, string) { return code, text }
}

// A connection that ends before everything is acknowledged: the fate of the
// rest is unknown, and that is what is said.
func TestPubConnectionLost(t *testing.T) {
	noLeaks(t)
	server := func(c net.Conn) {
		accept(t, c)
		for i := range 10 {
			p := receivePacket(t, c)
			if i < 4 {
				send(c, &packets.Puback{PacketID: p.PacketID(), Properties: &packets.Properties{}})
			}
		}
	}
	_, err := publishTo(t, server, 1, manyLines(10), true)
	var text bytes.Buffer
	if got := report(&text, err); got != exitUnreachable {
		t.Errorf("exit %d, want %d: %s", got, exitUnreachable, &text)
	}
	if want := "of 10 messages 4 were acknowledged, 0 refused, 6 have an unknown fate"; !strings.Contains(text.String(), want) {
		t.Errorf("got %q, want %q in it", &text, want)
	}
}

// The server's answer to CONNECT decides the exit code.
func TestConnectRefused(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		code byte
		exit int
	}{
		{0x84, exitFailed},
		{0x85, exitFailed},
		{0x86, exitDenied},
		{0x87, exitDenied},
		{0x88, exitUnreachable},
		{0x89, exitUnreachable},
		{0x8A, exitDenied},
		{0x9F, exitFailed},
		{0xFE, exitFailed},
	} {
		server := func(conn net.Conn) {
			receivePacket(t, conn)
			send(conn, &packets.Connack{ReasonCode: c.code, Properties: &packets.Properties{ReasonString: "because"}})
		}
		_, err := publishTo(t, server, 0, manyLines(1), false)
		var text bytes.Buffer
		if got := report(&text, err); got != c.exit || !strings.Contains(text.String(), ": because\n") {
			t.Errorf("0x%02X: exit %d, want %d: %s", c.code, got, c.exit, &text)
		}
		if banned := strings.Contains(text.String(), "bellwire ban rm"); banned != (c.code == 0x8A) {
			t.Errorf("0x%02X: %s", c.code, &text)
		}
	}
}

// Something that is no MQTT 5 server is told apart from one that is down.
func TestNoMQTTServer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for name, server := range map[string]func(net.Conn){
			"hangs up": func(c net.Conn) { receivePacket(t, c) },
			"silent":   func(c net.Conn) { receivePacket(t, c); receivePacket(t, c) },
			"HTTP":     func(c net.Conn) { receivePacket(t, c); io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
		} {
			_, err := publishTo(t, server, 0, manyLines(1), false)
			var text bytes.Buffer
			if got := report(&text, err); got != exitUnreachable || !strings.Contains(text.String(), "BW-1006") {
				t.Errorf("%s: exit %d: %s", name, got, &text)
			}
		}
	})
}

func newTestSub(t *testing.T, out io.Writer, server func(net.Conn), change func(*subFlags)) (*subscriber, *bytes.Buffer) {
	t.Helper()
	f := &subFlags{topics: []string{"#"}, randomFilter: 100}
	f.client.props, f.client.timeout = subProperties(), 10*time.Second
	if change != nil {
		change(f)
	}
	format, err := f.formatter()
	if err != nil {
		t.Fatal(err)
	}
	notes := &bytes.Buffer{}
	ahead := uint16(receiveAhead)
	return &subscriber{
		flags: f, target: dialTo(server), format: format, out: out, notes: notes, now: time.Now, done: make(chan error, 1),
		packet: &paho.Connect{CleanStart: true, KeepAlive: 60, Properties: &paho.ConnectProperties{ReceiveMaximum: &ahead}},
	}, notes
}

// When nobody reads sub's output, sub reads nothing from the server either,
// and the connection outlives that by many keep-alives. When the reader comes
// back, everything is there, in order.
func TestSubBackpressure(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const n = 1000
		var sent atomic.Int64
		out, in := io.Pipe()
		hold := make(chan struct{})
		s, _ := newTestSub(t, in, func(c net.Conn) {
			acceptSub(t, c)
			go func() { // its pings are taken and cannot be answered
				for receivePacket(t, c) != nil {
				}
			}()
			for i := range n {
				var b bytes.Buffer
				(&packets.Publish{Topic: "a", Payload: bytes.Repeat(fmt.Append(nil, i%10), 1000), Properties: &packets.Properties{}}).WriteTo(&b)
				if _, err := c.Write(b.Bytes()); err != nil {
					t.Errorf("message %d: %v", i, err)
				}
				sent.Add(1)
			}
			<-hold
		}, func(f *subFlags) { f.count = n })
		done := make(chan error, 1)
		go func() { done <- s.run(t.Context()) }()

		synctest.Wait()
		// receiveAhead in the channel, one being printed, one being handed
		// over, and what fits into the read buffer of 16 KiB.
		if got := sent.Load(); got > receiveAhead+2+17 {
			t.Errorf("%d messages were taken from the socket while nobody reads", got)
		}
		<-time.After(20 * time.Minute)
		synctest.Wait()
		if got := sent.Load(); got > receiveAhead+2+17 {
			t.Errorf("%d messages were taken from the socket after a long time", got)
		}
		lines := 0
		buf := make([]byte, 1001)
		for lines < n {
			if _, err := io.ReadFull(out, buf); err != nil {
				t.Fatalf("after %d lines: %v", lines, err)
			}
			if want := byte('0' + lines%10); buf[0] != want {
				t.Fatalf("line %d begins with %c, want %c", lines, buf[0], want)
			}
			lines++
		}
		close(hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// After the last message that was asked for nothing is acknowledged: what else
// was on its way stays in the session for the next sub.
func TestSubAcknowledgesWhatItPrints(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		name   string
		change func(*subFlags)
		acked  string // packet ids
		out    string
	}{
		{"-C 2", func(f *subFlags) { f.count = 2 }, "[1 2]", "0\n1\n"},
		{"filtered out is acknowledged", func(f *subFlags) { f.count, f.filterOut = 2, []string{"t/1"} }, "[1 2 3]", "0\n2\n"},
		{"--retained-only", func(f *subFlags) { f.retainedOnly = true }, "[1 2 3]", "0\n1\n2\n"},
		{"-R", func(f *subFlags) { f.noRetained, f.count = true, 1 }, "[1 2 3 4]", "3\n"},
	} {
		var out bytes.Buffer
		acked := make(chan []uint16, 1)
		s, _ := newTestSub(t, &out, func(conn net.Conn) {
			acceptSub(t, conn)
			go func() {
				var ids []uint16
				for {
					p := receivePacket(t, conn)
					if p == nil || p.Type == packets.DISCONNECT {
						acked <- ids
						return
					}
					ids = append(ids, p.PacketID())
				}
			}()
			for i := range 10 { // the first three are retained
				send(conn, &packets.Publish{
					Topic: fmt.Sprint("t/", i), QoS: 1, PacketID: uint16(i + 1), Retain: i < 3,
					Payload: fmt.Append(nil, i), Properties: &packets.Properties{},
				})
			}
			<-t.Context().Done()
		}, c.change)
		if err := s.run(t.Context()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := fmt.Sprint(<-acked); got != c.acked || out.String() != c.out {
			t.Errorf("%s: acknowledged %s, printed %q; want %s, %q", c.name, got, &out, c.acked, c.out)
		}
	}
}

// An output that cannot be written ends the run, and the message is not
// acknowledged.
func TestSubOutputFails(t *testing.T) {
	noLeaks(t)
	s, _ := newTestSub(t, brokenWriter{}, func(c net.Conn) {
		acceptSub(t, c)
		send(c, &packets.Publish{Topic: "a", QoS: 1, PacketID: 1, Properties: &packets.Properties{}})
		if p := receivePacket(t, c); p != nil && p.Type != packets.DISCONNECT {
			t.Errorf("got %v, want no acknowledgement", p)
		}
	}, nil)
	err := s.run(t.Context())
	if got := report(io.Discard, err); got != exitFailed || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("exit %d, %v", got, err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk on fire") }

// Refused subscriptions are told; when all are, there is nothing to wait for.
func TestSubRefused(t *testing.T) {
	noLeaks(t)
	for _, c := range []struct {
		topics []string
		codes  []byte
		exit   int
		err    string
		notes  string
	}{
		{[]string{"a"}, []byte{0x87}, exitDenied, "subscribe to a refused: partly covered", ""},
		{[]string{"a", "b"}, []byte{0x87, 0x87}, exitDenied, "all 2 subscriptions were refused", "subscribe to b refused: partly covered     BW-4001\n"},
		{[]string{"a", "b"}, []byte{0, 0x87}, exitPartial, "1 of 2 subscriptions were refused", "bellwire: subscribe to b refused: partly covered     BW-4001\n"},
		{[]string{"a"}, []byte{0x9E}, exitDenied, "refused: partly covered", ""},
	} {
		s, notes := newTestSub(t, io.Discard, func(conn net.Conn) {
			accept(t, conn)
			p := receivePacket(t, conn)
			send(conn, &packets.Suback{PacketID: p.PacketID(), Reasons: c.codes, Properties: &packets.Properties{
				ReasonString: "BW-4001 partly covered; bellwire acl explain 7Q2M",
			}})
			receivePacket(t, conn)
		}, func(f *subFlags) { f.topics, f.exitSubscribed = c.topics, true })
		err := s.run(t.Context())
		if got := report(io.Discard, err); got != c.exit || !strings.Contains(err.Error(), c.err) || !strings.Contains(notes.String(), c.notes) {
			t.Errorf("%v: exit %d, %v, notes %q; want %d, %q, %q", c.codes, got, err, notes, c.exit, c.err, c.notes)
		}
	}
}

// A broken connection is opened again and subscribed again, with growing
// patience; a session that was taken over is not taken back.
func TestSubReconnects(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var connections atomic.Int64
		var out bytes.Buffer
		s, notes := newTestSub(t, &out, func(c net.Conn) {
			switch connections.Add(1) {
			case 1: // breaks after one message
				acceptSub(t, c)
				send(c, &packets.Publish{Topic: "a", Payload: []byte("one"), Properties: &packets.Properties{}})
			case 2, 3: // the server is not up yet
				receivePacket(t, c)
				send(c, &packets.Connack{ReasonCode: 0x88, Properties: &packets.Properties{}})
			case 4:
				acceptSub(t, c)
				send(c, &packets.Publish{Topic: "a", Payload: []byte("two"), Properties: &packets.Properties{}})
				send(c, &packets.Disconnect{ReasonCode: 0x8E, Properties: &packets.Properties{}})
			default:
				t.Error("connected once more")
			}
		}, nil)
		start := time.Now()
		err := s.run(t.Context())
		if got := report(io.Discard, err); got != exitFailed || !strings.Contains(err.Error(), "another client took the session over") {
			t.Errorf("exit %d, %v", got, err)
		}
		if out.String() != "one\ntwo\n" {
			t.Errorf("printed %q", &out)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("took %s, want 1 s + 2 s + 4 s of waiting", took)
		}
		if n := strings.Count(notes.String(), "trying again in"); n != 3 {
			t.Errorf("%d notes about trying again, want 3:\n%s", n, notes)
		}
	})
}

// A server that falls silent is noticed within two and a half keep-alives.
func TestSubSilentServer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var connections atomic.Int64
		s, notes := newTestSub(t, io.Discard, func(c net.Conn) {
			if connections.Add(1) == 2 {
				receivePacket(t, c)
				send(c, &packets.Connack{ReasonCode: 0x87, Properties: &packets.Properties{}})
				return
			}
			acceptSub(t, c)
			for receivePacket(t, c) != nil { // takes pings and says nothing
			}
		}, nil)
		start := time.Now()
		if got := report(io.Discard, s.run(t.Context())); got != exitDenied {
			t.Errorf("exit %d, want the second connection's refusal", got)
		}
		if took := time.Since(start); took > 150*time.Second || !strings.Contains(notes.String(), "does not answer any more") {
			t.Errorf("after %s: %s", took, notes)
		}
	})
}

// TLS: a certificate that --cafile vouches for is accepted, another is not,
// and the message says that it is about TLS.
func TestPubTLS(t *testing.T) {
	cert, file := selfSigned(t, "127.0.0.1")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if p := receivePacket(t, c); p == nil {
					return // refused our certificate
				}
				send(c, &packets.Connack{Properties: &packets.Properties{}})
				for p := receivePacket(t, c); p != nil && p.Type == packets.PUBLISH; p = receivePacket(t, c) {
					send(c, &packets.Puback{PacketID: p.PacketID(), Properties: &packets.Properties{}})
				}
			}()
		}
	}()
	_, other := selfSigned(t, "127.0.0.1")
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"--cafile", file}, 0},
		{[]string{"--capath", filepath.Dir(file)}, 0},
		{[]string{"--cafile", other}, exitUnreachable},
		{[]string{"--cafile", other, "--insecure"}, 0},
		{[]string{"--tls-use-os-certs"}, exitUnreachable},
	} {
		got := bellwire(t, "", append([]string{"pub", "-h", "127.0.0.1", "-p", port, "-t", "a", "-m", "x", "-q", "1"}, c.args...)...)
		if got.code != c.code || c.code != 0 && !strings.Contains(got.stderr, "BW-1007") {
			t.Errorf("%q: %+v, want exit %d", c.args, got, c.code)
		}
	}
}

// selfSigned returns a certificate for an address, and a .crt file with it.
func selfSigned(t *testing.T, address string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.ParseIP(address)},
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "server.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// A Unix domain socket instead of host and port.
func TestPubUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		accept(t, c)
		p := receivePacket(t, c)
		send(c, &packets.Puback{PacketID: p.PacketID(), Properties: &packets.Properties{}})
		receivePacket(t, c)
	}()
	if got := bellwire(t, "", "pub", "--unix", path, "-t", "a", "-m", "x", "-q", "1"); got != (ran{}) {
		t.Errorf("got %+v", got)
	}
	if got := bellwire(t, "", "pub", "--unix", path+"x", "-t", "a", "-m", "x"); got.code != exitUnreachable || !strings.Contains(got.stderr, "unix://") {
		t.Errorf("nobody there: %+v", got)
	}
}
