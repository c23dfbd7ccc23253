package mqtt

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/broker/websocket"
)

// Upgrades is an http.Handler for requests that ask for a WebSocket with MQTT: it takes
// their connections from the HTTP server, whose listener makes them Upgradable, and serves
// them as a Listener's. From then on they cost what others do and are held to the same: the
// engine runs on the socket itself, and TLS goes on where it is.
//
// net/http has read the request, and perhaps more. It is written down again, so that one
// place answers all handshakes; what is behind it follows.
type Upgrades struct {
	srv *Server
	by  served
}

// Upgrades returns a handler whose connections are served as as says, which has neither TLS
// nor proxies: those are the HTTP server's. Rules for WebSockets that it has not are the default.
func (s *Server) Upgrades(as Listener) *Upgrades {
	as.TLS, as.ProxyFrom = nil, nil
	if as.WebSocket == nil {
		as.WebSocket = &websocket.Rules{}
	}
	return &Upgrades{srv: s, by: served{Listener: as}}
}

// ServeHTTP takes over the connection of r. Whatever is wrong with r as a handshake is
// answered as to others; a request that leaves no way to do that is answered here.
func (u *Upgrades) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.Error(w, "a WebSocket is opened by a request without a body", http.StatusBadRequest)
		return
	}
	if r.ProtoMajor != 1 {
		http.Error(w, "a WebSocket is opened by HTTP/1.1: have the client offer that alone", http.StatusHTTPVersionNotSupported)
		return
	}
	nc, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	had := &upgrade{read: headOf(r)}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered()) // it is all there
	had.read = append(had.read, early...)
	if had.tls, _ = nc.(*tls.Conn); had.tls != nil {
		nc = had.tls.NetConn()
	}
	var ok bool
	if had.on, ok = nc.(*Upgradable); !ok || len(had.read) > largeInput {
		_ = nc.Close()
		return
	}
	had.on.left()
	if tcp, ok := had.on.Conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{}) // MQTT has its own: see Listen
	}
	u.srv.accept(had.on.Conn, &u.by, had)
}

// headOf writes a request down as it may have come.
func headOf(r *http.Request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\nHost: %s\r\n", r.Method, r.RequestURI, r.Proto, r.Host)
	_ = r.Header.Write(&b) // to memory
	b.WriteString("\r\n")
	return b.Bytes()
}

// An upgrade is what an HTTP server has done with a connection.
type upgrade struct {
	on   *Upgradable
	tls  *tls.Conn // that runs on it, nil for none
	read []byte    // in plaintext
}

// dress is Listener.dress.
func (h *upgrade) dress(tr transport, rules *websocket.Rules) transport {
	if h.tls != nil {
		t := &tlsTransport{lower: tr, conn: h.tls}
		t.done.Store(true)
		h.on.move(ciphertext{t})
		tr = t
	}
	in := newInput(true)
	in.n = copy(in.buf, h.read)
	return &wsTransport{lower: tr, rules: rules, rest: in}
}

// An Upgradable is a connection of an HTTP server that Upgrades can take from it. Left is
// called, at least once, when the server has done with it, because it was taken or closed;
// nil for nothing.
type Upgradable struct {
	net.Conn
	Left func()

	moved atomic.Pointer[net.Conn] // what it stands for; nil for Conn
}

// move has whoever holds it, TLS, run on another stream.
func (u *Upgradable) move(to net.Conn) { u.moved.Store(&to) }

func (u *Upgradable) now() net.Conn {
	if to := u.moved.Load(); to != nil {
		return *to
	}
	return u.Conn
}

func (u *Upgradable) left() {
	if u.Left != nil {
		u.Left()
	}
}

// Close and the others are part of net.Conn.
func (u *Upgradable) Close() error {
	u.left()
	return u.now().Close()
}

func (u *Upgradable) Read(p []byte) (int, error)         { return u.now().Read(p) }
func (u *Upgradable) Write(p []byte) (int, error)        { return u.now().Write(p) }
func (u *Upgradable) SetDeadline(t time.Time) error      { return u.now().SetDeadline(t) }
func (u *Upgradable) SetReadDeadline(t time.Time) error  { return u.now().SetReadDeadline(t) }
func (u *Upgradable) SetWriteDeadline(t time.Time) error { return u.now().SetWriteDeadline(t) }
