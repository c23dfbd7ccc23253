package mqtt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker/websocket"
	"github.com/bellwire/bellwire/mqtttest"
)

// An identity is a certificate for a test, and who issued it.
type identity struct {
	cert tls.Certificate
	pool *x509.CertPool
}

var testIdentity = sync.OnceValue(func() identity { return newIdentity("broker.example.com") })

func newIdentity(name string) identity {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return identity{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool}
}

// A way is one by which clients come: how the server listens and how they connect.
type way struct {
	name   string
	unix   bool
	web    bool // on a server of HTTP, with its listen.TLS
	listen Listener
	dial   func(nc net.Conn) (net.Conn, error)
}

func serverTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{testIdentity().cert}, DynamicRecordSizingDisabled: true}
}

func clientTLS(most uint16) func(net.Conn) (net.Conn, error) {
	return func(nc net.Conn) (net.Conn, error) {
		c := tls.Client(nc, &tls.Config{RootCAs: testIdentity().pool, ServerName: "localhost", MaxVersion: most})
		return c, c.Handshake()
	}
}

func clientWS(change func(*mqtttest.WebSocket)) func(net.Conn) (net.Conn, error) {
	return func(nc net.Conn) (net.Conn, error) {
		w, err := mqtttest.OpenWebSocket(nc, "localhost")
		if err == nil {
			change(w)
		}
		return w, err
	}
}

func ways() []way {
	whole := clientWS(func(*mqtttest.WebSocket) {})
	proxied := func(header string, then func(net.Conn) (net.Conn, error)) func(net.Conn) (net.Conn, error) {
		return func(nc net.Conn) (net.Conn, error) {
			if _, err := io.WriteString(nc, header); err != nil {
				return nil, err
			}
			return then(nc)
		}
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	plain := func(nc net.Conn) (net.Conn, error) { return nc, nil }
	return []way{
		{name: "tcp", dial: plain},
		{name: "unix", unix: true, dial: plain},
		{name: "tls 1.3", listen: Listener{TLS: serverTLS()}, dial: clientTLS(tls.VersionTLS13)},
		{name: "tls 1.2", listen: Listener{TLS: serverTLS()}, dial: clientTLS(tls.VersionTLS12)},
		{name: "ws", listen: Listener{WebSocket: &websocket.Rules{}}, dial: whole},
		{name: "ws in small frames", listen: Listener{WebSocket: &websocket.Rules{}}, dial: clientWS(func(w *mqtttest.WebSocket) { w.Split = 3 })},
		{name: "ws in fragments", listen: Listener{WebSocket: &websocket.Rules{}}, dial: clientWS(func(w *mqtttest.WebSocket) { w.Split, w.Fragment = 100, true })},
		{name: "wss", listen: Listener{TLS: serverTLS(), WebSocket: &websocket.Rules{}}, dial: func(nc net.Conn) (net.Conn, error) {
			c, err := clientTLS(tls.VersionTLS13)(nc)
			if err != nil {
				return nil, err
			}
			return whole(c)
		}},
		{name: "http", web: true, dial: whole},
		{name: "https", web: true, listen: Listener{TLS: serverTLS()}, dial: func(nc net.Conn) (net.Conn, error) {
			c, err := clientTLS(tls.VersionTLS13)(nc)
			if err != nil {
				return nil, err
			}
			return whole(c)
		}},
		{name: "proxy 1", listen: Listener{ProxyFrom: loopback}, dial: proxied("PROXY TCP4 192.0.2.1 198.51.100.1 56324 1883\r\n", plain)},
		{name: "proxy 2 and tls", listen: Listener{ProxyFrom: loopback, TLS: serverTLS()}, dial: proxied(
			"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\x0a\x00\x00\x01\xdc\x04\x07\x5b", clientTLS(tls.VersionTLS13))},
	}
}

// serveWay listens as w says and returns how to connect.
func (n *node) serveWay(w way, wrap ...func(net.Listener) net.Listener) func() (net.Conn, error) {
	n.t.Helper()
	network, at := "tcp", "127.0.0.1:0"
	if w.unix {
		network, at = "unix", filepath.Join(n.t.TempDir(), "s")
	}
	l, err := net.Listen(network, at)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range wrap {
		l = f(l)
	}
	by := w.listen
	by.Name, by.Anonymous = w.name, true
	served := make(chan error, 1)
	go func() {
		if w.web {
			served <- n.serveWeb(l, by)
		} else {
			served <- n.srv.ServeAs(l, by)
		}
	}()
	n.t.Cleanup(func() {
		l.Close()
		<-served
	})
	addr := l.Addr().String()
	return func() (net.Conn, error) {
		nc, err := net.Dial(network, addr)
		if err != nil {
			return nil, err
		}
		n.t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(deadline())
		return w.dial(nc)
	}
}

// serveWeb serves MQTT on a server of HTTP.
func (n *node) serveWeb(l net.Listener, by Listener) error {
	l = upgradables{l}
	if by.TLS != nil {
		l = tls.NewListener(l, by.TLS)
	}
	web := http.Server{Handler: n.srv.Upgrades(by), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	return web.Serve(l)
}

type upgradables struct{ net.Listener }

func (l upgradables) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Upgradable{Conn: c}, nil
}

// open connects a client by a way and takes the CONNACK.
func (n *node) open(dial func() (net.Conn, error), id string, with ...func(*packets.Packet)) *client {
	n.t.Helper()
	nc, err := dial()
	if err != nil {
		n.t.Fatal(err)
	}
	c := &client{t: n.t, conn: nc, version: 5}
	c.send(connectBytes(5, id, with...))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 00") {
		n.t.Fatalf("client %s: got %s, want to be connected", id, got)
	}
	return c
}

// By every way a client speaks the same MQTT: packets of all sizes in both
// directions, and the server's last word before the end.
//
// MQTT 5: 6.0.0-2, 6.0.0-4.
// MQTT 3.1.1: 6.0.0-2, 6.0.0-4.
func TestWays(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			n := newNode(t, Limits{})
			dial := n.serveWay(w)
			c := n.open(dial, "c")
			c.send(packet(0x82, u16(1), 0, "t/#", 1))
			c.want("SUBACK id=1 01")
			r := mrand.New(mrand.NewPCG(1, 2))
			sent := make(chan string, 64)
			go func() {
				defer close(sent)
				for i := range 40 {
					size := 1 << r.IntN(18)
					topic := fmt.Sprint("t/", i)
					payload := bytes.Repeat([]byte{byte('a' + i%26)}, size)
					c.conn.SetWriteDeadline(deadline())
					if _, err := c.conn.Write(packet(0x32, topic, u16(i+1), 0, payload)); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					sent <- fmt.Sprintf("PUBLISH %s=%s q1 id=%d", topic, short(payload), i+1)
				}
			}()
			got := map[string]bool{}
			for len(got) < 80 {
				p := c.next()
				got[p] = true
				var id int
				if _, err := fmt.Sscanf(p[strings.LastIndex(p, "id="):], "id=%d", &id); err == nil && strings.HasPrefix(p, "PUBLISH") {
					c.send(packet(0x40, u16(id)))
				}
				if p == "closed" {
					t.Fatalf("closed after %d packets", len(got))
				}
			}
			for want := range sent {
				if !got[want] {
					t.Errorf("%s did not come", want)
				}
			}
			c.ping()
			if by := n.infoOf("c"); by.Listener != w.name || (by.TLS != nil) != (w.listen.TLS != nil) {
				t.Errorf("it came by %+v", by)
			}
		})
	}
}

// infoOf returns by what way a client has come. It must be at rest.
func (n *node) infoOf(client string) (by *ConnInfo) {
	n.rest()
	n.srv.each(func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.client == client {
			by = c.info()
		}
	})
	return by
}

// By every way a client that is ended is told so, the stream ends in order, and a
// client that leaves is let go.
func TestWaysEnd(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			n := newNode(t, Limits{})
			dial := n.serveWay(w)
			c, other := n.open(dial, "c"), n.open(dial, "other")
			again := n.open(dial, "c")
			if got := c.next(); !strings.HasPrefix(got, "DISCONNECT 8e") {
				t.Errorf("after it was taken over: %s", got)
			}
			if _, err := c.read(); !errors.Is(err, io.EOF) {
				t.Errorf("behind DISCONNECT: %v, want the end of the stream", err)
			}
			if ws, ok := c.conn.(*mqtttest.WebSocket); ok && ws.CloseCode != 1000 {
				t.Errorf("close code %d", ws.CloseCode)
			}
			other.send([]byte{0xe0, 0})
			if _, err := other.read(); err == nil {
				t.Error("connected after DISCONNECT")
			}
			again.ping()
		})
	}
}

// A broken accept ends no kind of listener: it waits and goes on, and who is
// connected does not notice.
func TestWaysOutliveAcceptErrors(t *testing.T) {
	for _, w := range ways() {
		if w.web {
			continue // the HTTP server accepts
		}
		t.Run(w.name, func(t *testing.T) {
			n := newNode(t, Limits{})
			errs := make(chan error, 4)
			dial := n.serveWay(w, func(l net.Listener) net.Listener { return &flakyListener{l, errs} })
			before := n.open(dial, "before")
			for _, err := range []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE, syscall.EMFILE} {
				errs <- err
			}
			n.open(dial, "wakes") // the accept that was under way
			n.open(dial, "after").ping()
			before.ping()
			if got := n.srv.stats.AcceptErrors.Load(); got != 4 {
				t.Errorf("%d errors counted, want 4", got)
			}
		})
	}
}

// Whoever connects and says nothing, or a byte now and then, is gone when the time
// to CONNACK is over, whatever is missing: handshake of TLS, WebSocket, a header.
func TestWaysSilent(t *testing.T) {
	hello := "\x16\x03\x01\x02\x00\x01\x00"
	for _, w := range ways() {
		if w.web {
			continue // of its handshake the HTTP server knows the time
		}
		for name, begin := range map[string]string{
			"nothing": "", "a part of it": map[bool]string{true: hello, false: "GET /mqtt HT"}[w.listen.TLS != nil && w.listen.ProxyFrom == nil],
		} {
			if w.listen.ProxyFrom != nil && begin != "" {
				begin = "PROXY TCP4"
			} else if w.listen.TLS == nil && w.listen.WebSocket == nil && begin != "" {
				begin = "\x10\x20\x00"
			}
			t.Run(w.name+" "+name, func(t *testing.T) {
				n := newNode(t, Limits{})
				raw := w
				raw.dial = func(nc net.Conn) (net.Conn, error) { return nc, nil }
				nc, err := n.serveWay(raw)()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(nc, begin); err != nil {
					t.Fatal(err)
				}
				eventually(t, "connection", func() bool { return n.srv.stats.Sockets.Load() == 1 })
				n.pass(9 * time.Second)
				if n.srv.stats.Sockets.Load() != 1 {
					t.Error("ended before its time")
				}
				n.pass(4 * time.Second)
				eventually(t, "end", func() bool { return n.srv.stats.Sockets.Load() == 0 })
			})
		}
	}
}

// What is no handshake ends at once, is counted, and hurts nobody.
func TestWaysGarbage(t *testing.T) {
	long := "GET /mqtt HTTP/1.1\r\nCookie: " + strings.Repeat("x", 10_000) + "\r\n\r\n"
	for _, c := range []struct {
		way, send string
		answer    string // how it begins
		counted   func(*Stats) uint64
	}{
		{"tls 1.3", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", "", func(s *Stats) uint64 { return s.TLSFailed.Load() }},
		{"tls 1.3", strings.Repeat("\x16\x03\x01\xff\xff", 100), "\x15\x03", func(s *Stats) uint64 { return s.TLSFailed.Load() }},
		{"ws", "POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405", func(s *Stats) uint64 { return s.WebSocketsRefused.Load() }},
		{"ws", "GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404", func(s *Stats) uint64 { return s.WebSocketsRefused.Load() }},
		{"ws", long, "HTTP/1.1 431", func(s *Stats) uint64 { return s.WebSocketsRefused.Load() }},
		{"http", "POST /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405", func(s *Stats) uint64 { return s.WebSocketsRefused.Load() }},
		{"http", "GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426", func(s *Stats) uint64 { return s.WebSocketsRefused.Load() }},
		{"http", strings.Replace(long, "\r\n", "\r\nHost: x\r\n", 1), "HTTP/1.1 431", func(s *Stats) uint64 { return s.WebSocketsRefused.Load() }},
		{"proxy 1", "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", "", func(s *Stats) uint64 { return s.TurnedAway[TurnawayProxy].Load() }},
		{"proxy 1", "PROXY " + strings.Repeat("x", 4000), "", func(s *Stats) uint64 { return s.TurnedAway[TurnawayProxy].Load() }},
		{"proxy 2 and tls", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("x", 4000), "", func(s *Stats) uint64 { return s.TurnedAway[TurnawayProxy].Load() }},
	} {
		n := newNode(t, Limits{})
		for _, w := range ways() {
			if w.name != c.way {
				continue
			}
			neighbour := n.open(n.serveWay(w), "neighbour")
			w.dial = func(nc net.Conn) (net.Conn, error) { return nc, nil }
			nc, err := n.serveWay(w)()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(nc, c.send); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(c.answer))
			if _, err := io.ReadFull(nc, got); err != nil || string(got) != c.answer {
				t.Errorf("%s, %.20q: answer %q, %v; want %q", c.way, c.send, got, err, c.answer)
			}
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, %.20q: the connection goes on", c.way, c.send)
			}
			eventually(t, "count", func() bool { return c.counted(&n.srv.stats) == 1 })
			neighbour.ping()
		}
	}
}

// Frames that break RFC 6455 end the connection with the code that says how; what
// came before them was taken.
//
// MQTT 5: 6.0.0-1.
// MQTT 3.1.1: 6.0.0-1.
func TestWebSocketHostile(t *testing.T) {
	n := newNode(t, Limits{})
	dial := n.serveWay(way{name: "ws", listen: Listener{WebSocket: &websocket.Rules{}}, dial: clientWS(func(*mqtttest.WebSocket) {})})
	watcher := n.connect(5, "watcher")
	watcher.send(packet(0x82, u16(1), 0, "said", 0))
	watcher.want("SUBACK id=1 00")
	for i, c := range []struct {
		name, frame string
		code        int
	}{
		{"not masked", "\x82\x02\xc0\x00", 1002},
		{"reserved bits", "\xc2\x80\x00\x00\x00\x00", 1002},
		{"text", "\x81\x82\x00\x00\x00\x00\xc0\x00", 1003},
		{"ping in fragments", "\x09\x80\x00\x00\x00\x00", 1002},
		{"large ping", "\x89\xfe\x00\x7e\x00\x00\x00\x00", 1002},
		{"huge length", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009},
		{"negative length", "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1002},
		{"continuation of nothing", "\x80\x80\x00\x00\x00\x00", 1002},
		{"bad UTF-8 in a close", "\x88\x83\x00\x00\x00\x00\x03\xe8\xff", 1007},
		{"close code that nobody sends", "\x88\x82\x00\x00\x00\x00\x03\xed", 1002},
		{"close", "\x88\x82\x00\x00\x00\x00\x0f\xa0", 4000},
		{"close without a code", "\x88\x80\x00\x00\x00\x00", 1005},
	} {
		cl := n.open(dial, fmt.Sprint("hostile-", i))
		ws := cl.conn.(*mqtttest.WebSocket)
		if _, err := ws.Conn.Write(append(ws.Frame(0x82, packet(0x30, "said", 0, []byte(c.name))), c.frame...)); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.read(); !errors.Is(err, io.EOF) || ws.CloseCode != c.code {
			t.Errorf("%s: %v, close code %d, want %d", c.name, err, ws.CloseCode, c.code)
		}
		watcher.want("PUBLISH said=" + c.name + " q0")
	}
	before := n.dial()
	if _, err := mqtttest.OpenWebSocket(before.conn, "localhost"); err == nil {
		t.Error("a WebSocket over plain MQTT")
	}
}

// Behind a Close frame the server sends nothing, whatever the client has asked for before
// its own (RFC 6455 5.5.1).
func TestWebSocketCloseIsLast(t *testing.T) {
	n := newNode(t, Limits{})
	dial := n.serveWay(way{name: "ws", listen: Listener{WebSocket: &websocket.Rules{}}, dial: clientWS(func(*mqtttest.WebSocket) {})})
	const leave = "\x88\x82\x00\x00\x00\x00\x03\xe8"
	publish := packet(0x30, "said", 0, []byte("to oneself"))
	for name, asked := range map[string][][]byte{
		"CONNECT":                       {},
		"CONNECT, SUBSCRIBE, PUBLISHES": {packet(0x82, u16(1), 0, "said", 0), publish, publish, publish},
	} {
		nc, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		ws := nc.(*mqtttest.WebSocket)
		sent := ws.Frame(0x82, packet(0x10, "MQTT", 5, 2, u16(10), 0, "leaves"))
		for _, p := range asked {
			sent = append(sent, ws.Frame(0x82, p)...)
		}
		if _, err := ws.Conn.Write(append(sent, leave...)); err != nil {
			t.Fatal(err)
		}
		_ = ws.Conn.SetReadDeadline(time.Now().Add(mqtttest.Patience))
		got, err := io.ReadAll(ws.Conn)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var ops []byte
		for len(got) > 1 { // all are short
			ops = append(ops, got[0]&15)
			got = got[2+int(got[1]):]
		}
		if len(ops) == 0 || bytes.IndexByte(ops, 8) != len(ops)-1 {
			t.Errorf("%s: frames %x, want one 8, the last", name, ops)
		}
	}
}

// A ping is answered with what it holds, also in the middle of a message, and before
// CONNECT; of many that nobody could answer yet the last is.
func TestWebSocketPing(t *testing.T) {
	n := newNode(t, Limits{})
	nc, err := n.serveWay(way{name: "ws", listen: Listener{WebSocket: &websocket.Rules{}}, dial: clientWS(func(*mqtttest.WebSocket) {})})()
	if err != nil {
		t.Fatal(err)
	}
	ws := nc.(*mqtttest.WebSocket)
	connect := connectBytes(5, "c")
	b := append(ws.Frame(0x89, []byte("first")), ws.Frame(0x02, connect[:5])...)
	b = append(b, ws.Frame(0x89, []byte("within"))...)
	b = append(b, ws.Frame(0x80, connect[5:])...)
	if _, err := ws.Conn.Write(b); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: ws, version: 5}
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 00") {
		t.Fatal(got)
	}
	if len(ws.Pongs) == 0 || ws.Pongs[len(ws.Pongs)-1] != "within" {
		t.Errorf("answers %q, want within last", ws.Pongs)
	}
	ws.Pongs = nil
	if _, err := ws.Conn.Write(ws.Frame(0x89, nil)); err != nil {
		t.Fatal(err)
	}
	c.ping()
	if fmt.Sprintf("%q", ws.Pongs) != `[""]` {
		t.Errorf("an empty ping was answered %q", ws.Pongs)
	}
}

// A client whose proxy tells its address is held to what that address may do; a
// proxy that nobody trusts is turned away, and a proxy's own connection is its own.
func TestProxyTellsTheAddress(t *testing.T) {
	said := make(lines, 8)
	n := newNode(t, Limits{PerAddress: 2, PerAddressRate: -1}, func(_ *node, c *Config) { c.Logger = slog.New(slog.NewTextHandler(said, nil)) })
	plain := func(nc net.Conn) (net.Conn, error) { return nc, nil }
	dial := n.serveWay(way{name: "p", listen: Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, dial: plain})
	from := func(header, id string) (*client, string) {
		t.Helper()
		nc, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, conn: nc, version: 5}
		c.send([]byte(header), connectBytes(5, id))
		return c, c.next()
	}
	const a, b = "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n", "PROXY TCP4 192.0.2.2 198.51.100.1 1 2\r\n"
	first, got := from(a, "1")
	_, got2 := from(a, "2")
	if !strings.HasPrefix(got, "CONNACK 00") || !strings.HasPrefix(got2, "CONNACK 00") {
		t.Fatal(got, got2)
	}
	if got := n.infoOf("1").Remote.String(); got != "192.0.2.1:1" {
		t.Errorf("its address is %s", got)
	}
	if _, got := from(a, "3"); got != "closed" || n.srv.stats.TurnedAway[TurnawayAddress].Load() != 1 {
		t.Errorf("one more of an address: %s", got)
	}
	if _, got := from(b, "3"); !strings.HasPrefix(got, "CONNACK 00") {
		t.Errorf("of another address: %s", got)
	}
	first.send([]byte{0xe0, 0})
	first.want("closed")
	eventually(t, "end", func() bool { return n.srv.stats.Sockets.Load() == 2 })
	if _, got := from(a, "4"); !strings.HasPrefix(got, "CONNACK 00") {
		t.Errorf("after one has gone: %s", got)
	}
	if _, got := from("PROXY UNKNOWN\r\n", "5"); !strings.HasPrefix(got, "CONNACK 00") {
		t.Errorf("the proxy's own: %s", got)
	}
	dial = n.serveWay(way{name: "q", listen: Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, dial: plain})
	nc, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); err == nil || n.srv.stats.TurnedAway[TurnawayProxy].Load() != 1 {
		t.Errorf("from a proxy that nobody trusts: %v", err)
	}
	said.want(t, "listener=q", "it comes from no proxy", "add the address")
	if _, got := from("", "6"); got != "closed" {
		t.Errorf("without a header, from elsewhere: %s", got)
	}
	said.want(t, "listener=q", "it comes from no proxy")
	dial = n.serveWay(way{name: "r", listen: Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, dial: plain})
	if _, got := from("", "6"); got != "closed" {
		t.Errorf("without a header: %s", got)
	}
	said.want(t, "listener=r", "it begins with no header of the PROXY protocol", "send-proxy-v2")
}

// lines are what is logged, a line for each.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// want waits for a line with all parts.
func (l lines) want(t *testing.T, parts ...string) {
	t.Helper()
	var line string
	select {
	case line = <-l:
	case <-time.After(time.Minute):
	}
	for _, part := range parts {
		if !strings.Contains(line, part) {
			t.Errorf("%q is not in %s", part, line)
		}
	}
}

// A listener that has as many connections as it may closes one more at once, and
// others do not notice.
func TestListenerConnections(t *testing.T) {
	n := newNode(t, Limits{})
	dial := n.serveWay(way{name: "few", listen: Listener{Connections: 2}, dial: func(nc net.Conn) (net.Conn, error) { return nc, nil }})
	first := n.open(dial, "1")
	n.open(dial, "2")
	nc, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); err == nil || n.srv.stats.TurnedAway[TurnawayListener].Load() != 1 {
		t.Errorf("one more: %v", err)
	}
	n.connect(5, "elsewhere").ping()
	first.send([]byte{0xe0, 0})
	first.want("closed")
	eventually(t, "end", func() bool { return n.srv.stats.Sockets.Load() == 2 })
	n.open(dial, "3").ping()
}

// The client's certificate is there for whoever authenticates, if it was verified.
func TestClientCertificates(t *testing.T) {
	own := newIdentity("thermo-17")
	for _, c := range []struct {
		name   string
		auth   tls.ClientAuthType
		shows  bool
		comes  bool
		peer   string
		errors uint64
	}{
		{"not asked", tls.NoClientCert, true, true, "", 0},
		{"asked, none shown", tls.VerifyClientCertIfGiven, false, true, "", 0},
		{"asked", tls.VerifyClientCertIfGiven, true, true, "thermo-17", 0},
		{"required", tls.RequireAndVerifyClientCert, true, true, "thermo-17", 0},
		{"required, none shown", tls.RequireAndVerifyClientCert, false, false, "", 1},
		{"shown, not verified", tls.RequireAnyClientCert, true, true, "", 0},
	} {
		n := newNode(t, Limits{})
		conf := serverTLS()
		conf.ClientAuth, conf.ClientCAs = c.auth, own.pool
		dial := n.serveWay(way{name: "mtls", listen: Listener{TLS: conf}, dial: func(nc net.Conn) (net.Conn, error) {
			conf := &tls.Config{RootCAs: testIdentity().pool, ServerName: "localhost"}
			if c.shows {
				conf.Certificates = []tls.Certificate{own.cert}
			}
			return tls.Client(nc, conf), nil
		}})
		if !c.comes {
			nc, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			nc.Write(connectBytes(5, "c"))
			if _, err := nc.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: it may speak", c.name)
			}
			eventually(t, "count", func() bool { return n.srv.stats.TLSFailed.Load() == c.errors })
			continue
		}
		n.open(dial, "c").ping()
		peer := ""
		if cert := n.infoOf("c").Certificate(); cert != nil {
			peer = cert.Subject.CommonName
		}
		if peer != c.peer {
			t.Errorf("%s: the client is %q, want %q", c.name, peer, c.peer)
		}
	}
}
