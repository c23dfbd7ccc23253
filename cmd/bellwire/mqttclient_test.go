package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/bw"
)

// Who names a server otherwise than its certificate does is told the names that it has.
func TestOtherNameIsTold(t *testing.T) {
	local := []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, c := range []struct {
		err  error
		says string
	}{
		{x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"n1"}, IPAddresses: local}, Host: "localhost"}, "-h with one of n1, 127.0.0.1;"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "localhost"}, "for no host at all"},
		{x509.UnknownAuthorityError{}, ""},
	} {
		err := &tls.CertificateVerificationError{Err: c.err}
		f := fail(bw.TLS, "cannot agree: %w", err).named(err, "-h")
		if c.says == "" && f.todo != "" || !strings.Contains(f.todo, c.says) || !errors.Is(f, err) {
			t.Errorf("%v: %q", c.err, f.todo)
		}
	}
}
