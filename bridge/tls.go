package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// TLSDial returns a Dial over TLS: config may change from call to call.
func TLSDial(config func() (*tls.Config, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := config()
		if err != nil {
			return nil, &failed{FailTLS, err, "the files are read before each try: mend them and wait"}
		}
		d := net.Dialer{KeepAlive: -1}
		plain, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		if c.ServerName == "" {
			c.ServerName, _, _ = net.SplitHostPort(address) // it was dialled
		}
		conn := tls.Client(plain, c)
		if err = conn.HandshakeContext(ctx); err == nil {
			return conn, nil
		}
		plain.Close()
		err = fmt.Errorf("no TLS with the peer: %w", err)
		if f := tlsFailed(err); f != nil {
			return nil, f
		}
		return nil, &failed{FailTLS, err, "it does not answer as TLS 1.2 or later does: is the address right? remove tls from the bridge if the peer has none"}
	}
}

// dialFailed says what became of a try to reach the peer, and what to do about it.
func dialFailed(err error, address string) error {
	if f, done := errors.AsType[*failed](err); done {
		return &failed{f.kind, fmt.Errorf("%s: %w", address, f.err), f.todo}
	}
	return &failed{FailDial, fmt.Errorf("the peer cannot be reached at %s: %w", address, err), "is it running, is the address right?"}
}

// tlsFailed is err if it is that one side does not take what the other has shown in the
// handshake, nil otherwise. The peer may say so only after it, where the first packet is read:
// by TLS 1.3 a client is done before its certificate has been looked at (RFC 8446 4.4.2).
func tlsFailed(err error) *failed {
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return &failed{FailTLS, err, fmt.Sprintf("the peer's certificate is for another host than %s: set server_name under tls to a name that it has, if it is the peer", wrong.Host)}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &failed{FailTLS, err, "set ca under tls to the authorities that the peer's certificate is of, if it is the peer"}
	}
	if wrong, ok := errors.AsType[x509.CertificateInvalidError](err); ok && wrong.Reason == x509.Expired {
		return &failed{FailTLS, err, "look at the clocks, here and there; if they are right, the peer, or one of its authorities, needs a new certificate"}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &failed{FailTLS, err, "look at the peer's certificate"}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return &failed{FailTLS, err, "the peer ends TLS: does it want a certificate of ours (cert and key under tls), of its authorities and not expired? its log says more"}
	}
	return nil
}
