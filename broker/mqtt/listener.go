package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"net"
)

// A Listener says how a Server serves the connections of one net.Listener.
type Listener struct {
	// Name is the operator's, for authentication, logs and metrics.
	Name string

	// Anonymous lets clients in that give no credentials; see Config.Authenticate.
	Anonymous bool
}

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

// info returns by what way the client has come. For the reading goroutine.
func (c *conn) info() *ConnInfo {
	return &ConnInfo{Listener: c.by.Name, Anonymous: c.by.Anonymous, Remote: c.tr.remote(), TLS: c.tr.security()}
}
