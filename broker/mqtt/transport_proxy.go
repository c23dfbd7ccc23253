package mqtt

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/bellwire/bellwire/broker/proxyproto"
)

// A proxyTransport is the transport below a connection that a proxy made for its
// client: it begins with a header that says whose it is. Until that has come nothing
// else is read, and nothing written.
type proxyTransport struct {
	transport
	admit func(net.Addr) error // told once who the client is; its error ends the connection

	known bool     // the header has come
	head  []byte   // what has come of it
	from  net.Addr // whose connection it is; nil for the proxy's own
}

// errTurnedAway is why a connection ends that was one too many of its address.
var errTurnedAway = errors.New("too many connections of this address")

func (t *proxyTransport) read(hungry bool) (*input, error) {
	for {
		in, err := t.transport.read(hungry)
		if err != nil || t.known {
			return in, err
		}
		before := len(t.head)
		t.head = append(t.head, in.buf[:in.n]...)
		from, n, err := proxyproto.Parse(t.head[:min(len(t.head), proxyproto.MaxHeader)])
		if err == nil && n > 0 {
			err = t.learn(from)
		}
		if err != nil {
			in.release()
			return nil, err
		}
		if !t.known {
			in.release()
			continue
		}
		if in.n = copy(in.buf, in.buf[n-before:in.n]); in.n > 0 {
			return in, nil
		}
		in.release()
	}
}

func (t *proxyTransport) learn(from netip.AddrPort) error {
	t.known, t.head = true, nil
	if from.IsValid() {
		t.from = net.TCPAddrFromAddrPort(from)
	}
	return t.admit(t.remote())
}

func (t *proxyTransport) remote() net.Addr {
	if t.from != nil {
		return t.from
	}
	return t.transport.remote()
}

// trusts says whether a connection from a may begin with a proxy's header.
func (by *Listener) trusts(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return true // by a unix socket
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(by.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(ip) })
}
