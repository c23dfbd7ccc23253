package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/websocket"
)

// A Listener says how a Server serves the connections of one net.Listener.
type Listener struct {
	// Name is the operator's, for authentication, logs and metrics.
	Name string

	// Anonymous lets clients in that give no credentials; see Config.Authenticate.
	Anonymous bool

	// Internal is of a listener that only this process can connect to: all its clients are
	// As, anonymous if that is empty, without showing anything, may have client ids that
	// are Config.Reserved, and 65,535 publishes under way.
	Internal bool
	As       string

	// Connections bounds those that may be open at once, accepted or not; one more
	// is closed at once. 0 for no bound but those of Limits.
	Connections int

	// ProxyFrom are the addresses of proxies that begin each connection with a
	// header of the PROXY protocol, version 1 or 2. What it says is the client's
	// address for all limits and logs. A connection from elsewhere, or with another
	// beginning, is closed. By a unix socket whoever can open it is a proxy. nil for
	// no proxies.
	ProxyFrom []netip.Prefix

	// TLS is the server's side of TLS; nil for none. Its GetConfigForClient is how
	// certificates are replaced. A handshake counts to Limits.ConnectTimeout.
	TLS *tls.Config

	// Revoked says why the certificate of a client is not good that TLS had verified (an
	// error that may have a LoginReason), nil if it is. It is asked once the client is
	// connected, and again of all whenever Outlawed is called; handshakes are for TLS to
	// refuse. nil: all are good. It must be quick.
	Revoked func(*tls.ConnectionState) error

	// WebSocket says who may open one; nil for MQTT without. Frames are not
	// compressed, text frames end the connection, packets may lie in frames in any
	// way (5.0 [MQTT-6.0.0-2]). The handshake counts to Limits.ConnectTimeout.
	WebSocket *websocket.Rules
}

// served is a Listener while it is served.
type served struct {
	Listener
	open atomic.Int64 // connections
}

// enter takes one of the listener's places, if there is one.
func (l *served) enter() bool {
	if n := l.open.Add(1); l.Connections > 0 && n > int64(l.Connections) {
		l.open.Add(-1)
		return false
	}
	return true
}

func (l *served) leave() { l.open.Add(-1) }

// A ConnInfo says by what way a client has come, for whoever authenticates it. It
// is made for one question and belongs to whoever asked for it.
type ConnInfo struct {
	// Listener is the Name of the one that accepted the connection.
	Listener string

	// Anonymous is that Listener's.
	Anonymous bool

	// Remote is the client's address; behind a proxy that is trusted to tell it,
	// the one that it told.
	Remote net.Addr

	// TLS is the state of the connection's TLS, with its handshake complete; nil if
	// there is none.
	TLS *tls.ConnectionState
}

// Certificate returns the client's certificate, or nil: it showed none, or one that
// was not verified against the listener's authorities.
func (i *ConnInfo) Certificate() *x509.Certificate {
	if i.TLS == nil || len(i.TLS.VerifiedChains) == 0 {
		return nil
	}
	return i.TLS.VerifiedChains[0][0]
}

// info returns by what way the client has come. For the reading goroutine, and once it has
// read a packet for any.
func (c *conn) info() *ConnInfo {
	return &ConnInfo{Listener: c.by.Name, Anonymous: c.by.Anonymous, Remote: c.tr.remote(), TLS: c.tr.security()}
}
