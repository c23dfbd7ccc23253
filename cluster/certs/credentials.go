package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Credentials are a node's certificate and the authorities that it trusts. They
// follow their files: a change is noticed when the next connection begins, and
// files that cannot be used change nothing but the log. All methods may be called
// by any goroutine.
type Credentials struct {
	dir    string
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex // guards the following
	current *material
	seen    contents // of the files when they were last looked at, whatever came of it
}

// material is what a directory held at one time. It does not change.
type material struct {
	name        string
	pair        tls.Certificate
	pool        *x509.CertPool
	authorities []*x509.Certificate
}

// contents are the bytes of a directory's files, or why they could not be read.
// They are compared rather than times, which are too coarse to tell two changes
// apart; the files are small, and read when a connection begins.
type contents struct {
	files  [3]string // AuthorityCert, NodeCert, NodeKey
	faults [3]error
}

func readContents(dir string) (c contents) {
	for i, name := range []string{AuthorityCert, NodeCert, NodeKey} {
		data, err := readFile(filepath.Join(dir, name))
		c.files[i], c.faults[i] = string(data), err
	}
	return c
}

func (c *contents) equal(to *contents) bool {
	for i, err := range c.faults {
		if fmt.Sprint(err) != fmt.Sprint(to.faults[i]) {
			return false
		}
	}
	return c.files == to.files
}

// Open reads the credentials of the node called name from dir. now is the clock
// by which certificates end; it is the wall's also where the node's is not. An
// error is an ErrFiles: a file is missing or damaged, the certificate is another
// node's, has expired, or is of an authority that is not trusted here.
func Open(dir, name string, now func() time.Time, logger *slog.Logger) (*Credentials, error) {
	c := &Credentials{dir: dir, now: now, logger: logger}
	c.seen = readContents(dir)
	m, err := c.seen.load(dir, now())
	if err != nil {
		return nil, err
	}
	if m.name != name {
		return nil, fmt.Errorf("%w: %s is node %s's, and this node is %s", ErrFiles, filepath.Join(dir, NodeCert), m.name, name)
	}
	c.current = m
	if info, err := os.Stat(filepath.Join(dir, NodeKey)); err == nil && info.Mode()&0o077 != 0 {
		logger.Warn("others on this machine can read the node's key", "file", filepath.Join(dir, NodeKey), "mode", info.Mode().String())
	}
	return c, nil
}

// load makes sense of what is in dir, and makes sure that peers would take it.
func (c *contents) load(dir string, now time.Time) (*material, error) {
	for _, err := range c.faults {
		if err != nil {
			return nil, err
		}
	}
	pool, authorities, err := parsePool(filepath.Join(dir, AuthorityCert), []byte(c.files[0]))
	if err != nil {
		return nil, err
	}
	certFile := filepath.Join(dir, NodeCert)
	pair, err := parsePair(certFile, []byte(c.files[1]), filepath.Join(dir, NodeKey), []byte(c.files[2]))
	if err != nil {
		return nil, err
	}
	m := &material{pair: pair, pool: pool, authorities: authorities}
	chain := []*x509.Certificate{pair.Leaf}
	for _, der := range pair.Certificate[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFiles, certFile, err)
		}
		chain = append(chain, between)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if m.name, err = m.check(chain, usage, now); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFiles, certFile, err)
		}
	}
	return m, nil
}

// check returns the name of the node that a chain of certificates is for, if it
// is to be trusted for usage.
func (m *material) check(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (string, error) {
	if len(chain) == 0 {
		return "", &PeerError{kind: ErrNoCertificate}
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: m.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		err = explain(err)
		if peer, ok := err.(*PeerError); ok && peer.kind == ErrForeign {
			peer.trust = trusted(m.authorities)
		}
		return "", err
	}
	name, err := nameIn(chain[0])
	if err != nil {
		return "", &PeerError{kind: ErrNoName, cert: chain[0], cause: err}
	}
	return name, nil
}

// fresh returns what is in the files now, or was when they could last be used.
func (c *Credentials) fresh() *material {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := readContents(c.dir)
	if now.equal(&c.seen) {
		return c.current
	}
	c.seen = now
	m, err := now.load(c.dir, c.now())
	if err == nil && m.name != c.current.name {
		err = fmt.Errorf("%w: %s is node %s's, and this node is %s", ErrFiles, filepath.Join(c.dir, NodeCert), m.name, c.current.name)
	}
	if err != nil {
		// It may be half of a change: the rest will be noticed as well.
		c.logger.Warn("certificate files changed and cannot be used; those read before stay", "err", err)
		return c.current
	}
	c.current = m
	c.logger.Info("certificate files read again", "dir", c.dir, "expires", m.pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	return m
}

// Name returns the name of the node whose credentials they are.
func (c *Credentials) Name() string { return c.fresh().name }

// Expires returns when the node's certificate ends, and when the first of the
// trusted authorities does.
func (c *Credentials) Expires() (node, authority time.Time) {
	m := c.fresh()
	for _, a := range m.authorities {
		if authority.IsZero() || a.NotAfter.Before(authority) {
			authority = a.NotAfter
		}
	}
	return m.pair.Leaf.NotAfter, authority
}

// Server returns the configuration for a listener. Who connects must show a
// certificate for clients, of an authority that is trusted here; PeerName then
// says who it is.
func (c *Credentials) Server() *tls.Config {
	base := c.base()
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m := c.fresh()
		conf := c.base()
		conf.Certificates = []tls.Certificate{m.pair}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		conf.ClientCAs = m.pool
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			_, err := m.check(s.PeerCertificates, x509.ExtKeyUsageClientAuth, c.now())
			if err != nil {
				return err
			}
			return agreed(s)
		}
		return conf, nil
	}
	// Never used, for GetConfigForClient always answers: but whoever takes a
	// part of this configuration alone must not get one that lets anybody in.
	base.ClientAuth = tls.RequireAndVerifyClientCert
	base.ClientCAs = x509.NewCertPool()
	return base
}

// Client returns the configuration to dial the node called peer; empty if it is
// not known who is at an address, only that it must be of this cluster. It is
// good for one connection: what is renewed later is not in it.
func (c *Credentials) Client(peer string) *tls.Config {
	m := c.fresh()
	conf := c.base()
	// Shown also to who says that it trusts other authorities only: it can then
	// say whose certificate it refused.
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.pair, nil }
	// Nodes are known by name, whatever the address. So the standard's check,
	// which compares addresses, is replaced by the same one without that.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		name, err := m.check(s.PeerCertificates, x509.ExtKeyUsageServerAuth, c.now())
		if err == nil && peer != "" && name != peer {
			err = &PeerError{kind: ErrOtherNode, cert: s.PeerCertificates[0], cause: fmt.Errorf("want %s, got %s", peer, name)}
		}
		if err != nil {
			return err
		}
		return agreed(s)
	}
	return conf
}

// protocol is what both sides say they speak, so that a node does not talk to
// another kind of server that happens to trust the same authority.
const protocol = "bellwire-cluster/1"

// agreed is an error if the peer did not say that it speaks protocol: crypto/tls refuses
// only who says that it speaks others.
func agreed(s tls.ConnectionState) error {
	if s.NegotiatedProtocol != protocol {
		return &PeerError{kind: ErrOldTLS, cert: s.PeerCertificates[0]}
	}
	return nil
}

func (c *Credentials) base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       c.now,
		NextProtos: []string{protocol},
		// A resumed session would go on with a certificate that is no longer
		// trusted. Connections are few and long: nothing is lost.
		SessionTicketsDisabled: true,
	}
}

// PeerName returns the name of the node at the other end of a connection whose
// handshake is complete; empty if it has none, which those of this package refuse.
func PeerName(s tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	name, err := nameIn(s.PeerCertificates[0])
	if err != nil {
		return ""
	}
	return name
}

// Dial connects to the node called peer (empty: any of this cluster) at address.
// The handshake is complete when it returns; an error tells who was at fault, see
// Explain.
func (c *Credentials) Dial(ctx context.Context, address, peer string) (*tls.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: c.Client(peer)}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, Explain(err)
	}
	return conn.(*tls.Conn), nil // as its documentation says
}
