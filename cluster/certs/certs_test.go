package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority(noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// nodeDir returns the directory of a node that a issued a certificate.
func nodeDir(t *testing.T, a *Authority, name string, life time.Duration) string {
	t.Helper()
	dir := t.TempDir()
	issue(t, dir, a, name, noon, life, false)
	return dir
}

func issue(t *testing.T, dir string, a *Authority, name string, now time.Time, life time.Duration, force bool) {
	t.Helper()
	pair, err := a.Issue(name, []string{"10.0.0.1", name + ".example.com"}, now, life)
	if err == nil {
		err = SaveNode(dir, a, pair, force)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir, name string, now func() time.Time) *Credentials {
	t.Helper()
	c, err := Open(dir, name, now, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var quiet = slog.New(slog.DiscardHandler)

// What came of one connection, at either end.
type met struct {
	clientErr, serverErr error
	clientSaw, serverSaw string // the names of the peers
}

// meet has a client and a server shake hands, and exchange a byte each way: a
// client of TLS 1.3 learns only then that its certificate was refused.
func meet(t *testing.T, client, server *tls.Config) (m met) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			m.serverErr = err
			return
		}
		c := tls.Server(raw, server)
		defer c.Close()
		if m.serverErr = exchange(c); m.serverErr == nil {
			m.serverSaw = PeerName(c.ConnectionState())
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, client)
	if m.clientErr = exchange(c); m.clientErr == nil {
		m.clientSaw = PeerName(c.ConnectionState())
	}
	c.Close()
	<-done
	m.clientErr, m.serverErr = Explain(m.clientErr), Explain(m.serverErr)
	return m
}

func exchange(c *tls.Conn) error {
	if err := c.Handshake(); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// Two nodes of one cluster learn each other's names, whoever dials, and whether
// or not it is known who is dialled.
func TestNodesMeet(t *testing.T) {
	a := authority(t)
	n1 := open(t, nodeDir(t, a, "n1", 0), "n1", at(noon))
	n2 := open(t, nodeDir(t, a, "n2", 0), "n2", at(noon))
	for _, peer := range []string{"", "n2"} {
		m := meet(t, n1.Client(peer), n2.Server())
		if m != (met{clientSaw: "n2", serverSaw: "n1"}) {
			t.Errorf("%+v", m)
		}
	}
	m := meet(t, n1.Client("n3"), n2.Server())
	if !errors.Is(m.clientErr, ErrOtherNode) || !strings.Contains(m.clientErr.Error(), "want n3, got n2") {
		t.Errorf("who dials n3 and meets n2 is told %v", m.clientErr)
	}
	if !errors.Is(m.serverErr, ErrRefusesUs) {
		t.Errorf("n2 is told %v", m.serverErr)
	}
}

// hostile makes a certificate that is not as it should be.
func hostile(t *testing.T, a *Authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	other := authority(t) // for its key
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "mallory"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{nodeURI("n2")},
		BasicConstraintsValid: true,
	}
	change(template)
	cert, err := sign(template, a.cert, other.key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: other.key, Leaf: cert}
}

// A peer whose certificate is not one of this cluster's nodes is refused, whether
// it dials or is dialled, and this node can say why.
func TestHostilePeers(t *testing.T) {
	a, foreign := authority(t), authority(t)
	n1 := open(t, nodeDir(t, a, "n1", 0), "n1", at(noon))
	imitation := *foreign
	imitation.cert = &x509.Certificate{Raw: foreign.cert.Raw, RawSubject: a.cert.RawSubject, Subject: a.cert.Subject, SubjectKeyId: a.cert.SubjectKeyId, PublicKey: foreign.cert.PublicKey}
	uri := func(texts ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, text := range texts {
				u, err := url.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	usage := func(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = u }
	}
	same := func(*x509.Certificate) {}
	for _, c := range []struct {
		name           string
		by             *Authority
		change         func(*x509.Certificate)
		dials, dialled error // nil: it is let in
		says           string
	}{
		{"as it should be", a, same, nil, nil, ""},
		{"of another cluster", foreign, same, ErrForeign, ErrForeign, foreign.Name()},
		{"of an authority that takes our name", &imitation, same, ErrForeign, ErrForeign, a.Name()},
		{"expired", a, func(c *x509.Certificate) { c.NotAfter = noon.Add(-time.Second) }, ErrExpired, ErrExpired, "to 2026-03-09 11:59 UTC"},
		{"not yet valid", a, func(c *x509.Certificate) { c.NotBefore = noon.Add(time.Minute) }, ErrNotYet, ErrNotYet, "valid 2026-03-09 12:01 UTC"},
		{"for servers only", a, usage(x509.ExtKeyUsageServerAuth), ErrPurpose, nil, "for clients"},
		{"for clients only", a, usage(x509.ExtKeyUsageClientAuth), nil, ErrPurpose, "for servers"},
		{"for mail", a, usage(x509.ExtKeyUsageEmailProtection), ErrPurpose, ErrPurpose, ""},
		{"without a name", a, uri(), ErrNoName, ErrNoName, "bellwire:node:NAME is missing"},
		{"of another program", a, uri("spiffe://example.com/n2"), ErrNoName, ErrNoName, ""},
		{"with two names", a, uri("bellwire:node:n2", "bellwire:node:n1"), ErrNoName, ErrNoName, "two nodes, n2 and n1"},
		{"with a name that is none", a, uri("bellwire:node:n%202"), ErrNoName, ErrNoName, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := hostile(t, c.by, c.change)
			theirs := &tls.Config{
				Certificates: []tls.Certificate{bad}, InsecureSkipVerify: true, ClientAuth: tls.RequestClientCert, NextProtos: []string{protocol},
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &bad, nil },
			}
			m := meet(t, theirs, n1.Server())
			check(t, "dials", m.serverErr, c.dials, c.says)
			if c.dials != nil && !errors.Is(m.clientErr, ErrRefusesUs) {
				t.Errorf("who dials is told %v, want that it is refused", m.clientErr)
			}
			m = meet(t, n1.Client(""), theirs)
			check(t, "is dialled", m.clientErr, c.dialled, c.says)
		})
	}
}

func check(t *testing.T, what string, got, want error, says string) {
	t.Helper()
	if want == nil {
		if got != nil {
			t.Errorf("%s: %v, want that it is let in", what, got)
		}
		return
	}
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	if !strings.Contains(got.Error(), says) || !strings.Contains(got.Error(), "; "+advice[want]) {
		t.Errorf("%s: %q says neither %q nor what to do", what, got, says)
	}
}

// A node whose authority is not the cluster's is told whose certificate it met, which
// authorities both have, by their keys, and what to do.
func TestBothAuthoritiesAreNamed(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	n1 := open(t, nodeDir(t, ours, "n1", 0), "n1", at(noon))
	n2 := open(t, nodeDir(t, theirs, "n2", 0), "n2", at(noon))
	got := fmt.Sprint(meet(t, n2.Client(""), n1.Server()).clientErr)
	for _, want := range []string{
		"node n1, issued by ", fmt.Sprintf("%q, key %x", ours.Name(), ours.cert.SubjectKeyId),
		"this node trusts " + fmt.Sprintf("%q, key %x", theirs.Name(), theirs.cert.SubjectKeyId), "; " + advice[ErrForeign],
	} {
		if !strings.Contains(got, want) {
			t.Errorf("n2 is told %q, without %q", got, want)
		}
	}
}

// Who shows no certificate, speaks an older TLS, another protocol or no TLS at all
// is refused by either end, which says so.
func TestOtherPrograms(t *testing.T) {
	a := authority(t)
	n1 := open(t, nodeDir(t, a, "n1", 0), "n1", at(noon))
	good := hostile(t, a, func(*x509.Certificate) {})
	for _, c := range []struct {
		name           string
		theirs         *tls.Config
		dials, dialled error // nil: not looked at
	}{
		{"no certificate", &tls.Config{InsecureSkipVerify: true}, ErrNoCertificate, nil},
		{"TLS 1.2", &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{good}}, ErrOldTLS, ErrOldTLS},
		{"HTTP", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{good}, NextProtos: []string{"h2"}}, ErrOldTLS, ErrOldTLS},
		{"no protocol", &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{good}}, ErrOldTLS, ErrOldTLS},
	} {
		if got := meet(t, c.theirs, n1.Server()).serverErr; !errors.Is(got, c.dials) {
			t.Errorf("%s dials: %v, want %v", c.name, got, c.dials)
		}
		if c.dialled == nil {
			continue
		}
		if got := meet(t, n1.Client(""), c.theirs).clientErr; !errors.Is(got, c.dialled) {
			t.Errorf("%s is dialled: %v, want %v", c.name, got, c.dialled)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}()
	if _, err := n1.Dial(t.Context(), l.Addr().String(), "n2"); !errors.Is(err, ErrNotTLS) {
		t.Errorf("dialling something else: %v", err)
	}
}

// The configuration of a listener refuses everybody where GetConfigForClient is
// not asked.
func TestServerAloneLetsNobodyIn(t *testing.T) {
	a := authority(t)
	n1 := open(t, nodeDir(t, a, "n1", 0), "n1", at(noon))
	n2 := open(t, nodeDir(t, a, "n2", 0), "n2", at(noon))
	bare := n2.Server()
	bare.GetConfigForClient = nil
	bare.Certificates = []tls.Certificate{hostile(t, a, func(*x509.Certificate) {})}
	if m := meet(t, n1.Client(""), bare); m.serverErr == nil {
		t.Error("somebody was let in")
	}
}

// A certificate that is renewed is shown without a restart, one that expires is
// not taken any more, and neither is its authority once it is removed.
func TestRotation(t *testing.T) {
	a := authority(t)
	now := noon
	clock := func() time.Time { return now }
	dir1, dir2 := nodeDir(t, a, "n1", 48*time.Hour), nodeDir(t, a, "n2", time.Hour)
	n1, n2 := open(t, dir1, "n1", clock), open(t, dir2, "n2", clock)
	if node, ca := n2.Expires(); !node.Equal(noon.Add(time.Hour)) || !ca.Equal(noon.Add(AuthorityLife)) {
		t.Errorf("expiry %s, %s", node, ca)
	}
	must := func(what string, want error) {
		t.Helper()
		m := meet(t, n1.Client("n2"), n2.Server())
		if !errors.Is(m.clientErr, want) {
			t.Fatalf("%s: n1 is told %v, want %v", what, m.clientErr, want)
		}
		m = meet(t, n2.Client("n1"), n1.Server())
		if !errors.Is(m.serverErr, want) {
			t.Fatalf("%s: n1 is told %v by whoever dials, want %v", what, m.serverErr, want)
		}
	}
	must("at first", nil)
	now = noon.Add(2 * time.Hour)
	must("after an hour", ErrExpired)
	issue(t, dir2, a, "n2", now, 24*time.Hour, true)
	must("renewed", nil)

	// The authority is replaced, one step after another.
	next := authority(t)
	both := joined(t, a, next)
	for _, dir := range []string{dir1, dir2} {
		write(t, filepath.Join(dir, AuthorityCert), both)
	}
	must("both trusted", nil)
	issue(t, dir2, next, "n2", now, 24*time.Hour, true)
	if got := read(t, filepath.Join(dir2, AuthorityCert)); !bytes.Equal(got, both) {
		t.Error("a new certificate took an authority out of the list")
	}
	must("one renewed", nil)
	write(t, filepath.Join(dir1, AuthorityCert), joined(t, a))
	must("the next one not trusted", ErrForeign)
}

// A change that cannot be used changes nothing, and is told; when it is mended,
// that is noticed.
func TestBadRotation(t *testing.T) {
	a := authority(t)
	dir1, dir2 := nodeDir(t, a, "n1", 0), nodeDir(t, a, "n2", 0)
	var log bytes.Buffer
	n1, err := Open(dir1, "n1", at(noon), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	n2 := open(t, dir2, "n2", at(noon))
	good := read(t, filepath.Join(dir1, NodeCert))
	for _, c := range []struct{ name, file, content, says string }{
		{"half of a new pair", NodeCert, string(read(t, filepath.Join(dir2, NodeCert))), "private key does not match"},
		{"garbage", NodeCert, "-----BEGIN CERTIFICATE-----\n", "node.crt"},
		{"gone", NodeCert, "", "no such file"},
	} {
		log.Reset()
		path := filepath.Join(dir1, c.file)
		if c.content == "" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else {
			write(t, path, []byte(c.content))
		}
		for range 2 { // it is told once
			if m := meet(t, n1.Client("n2"), n2.Server()); m.clientErr != nil || m.serverSaw != "n1" {
				t.Errorf("%s: %+v", c.name, m)
			}
		}
		if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, c.says) {
			t.Errorf("%s: log %q", c.name, got)
		}
		log.Reset()
		write(t, path, good)
		if n1.Name(); !strings.Contains(log.String(), "read again") {
			t.Errorf("%s, mended: log %q", c.name, log.String())
		}
	}
}

// What cannot be used is refused at the start, by the name of the file.
func TestUnusableFiles(t *testing.T) {
	a, foreign := authority(t), authority(t)
	for _, c := range []struct {
		name  string
		spoil func(dir string)
		at    time.Time
		says  []string
	}{
		{"nothing", func(dir string) { remove(t, dir, AuthorityCert, NodeCert, NodeKey) }, noon, []string{"ca.crt", "no such file"}},
		{"no certificate", func(dir string) { remove(t, dir, NodeCert) }, noon, []string{"node.crt", "no such file"}},
		{"no key", func(dir string) { remove(t, dir, NodeKey) }, noon, []string{"node.key", "no such file"}},
		{"another key", func(dir string) {
			write(t, filepath.Join(dir, NodeKey), read(t, filepath.Join(nodeDir(t, a, "n1", 0), NodeKey)))
		}, noon, []string{"node.key", "does not match"}},
		{"another authority", func(dir string) { write(t, filepath.Join(dir, AuthorityCert), joined(t, foreign)) }, noon, []string{"node.crt", a.Name(), "node n1"}},
		{"a key among authorities", func(dir string) {
			write(t, filepath.Join(dir, AuthorityCert), read(t, filepath.Join(dir, NodeKey)))
		}, noon, []string{"ca.crt", "PRIVATE KEY"}},
		{"a node among authorities", func(dir string) {
			write(t, filepath.Join(dir, AuthorityCert), read(t, filepath.Join(dir, NodeCert)))
		}, noon, []string{"ca.crt", "no authority's"}},
		{"an empty list", func(dir string) { write(t, filepath.Join(dir, AuthorityCert), []byte("hello\n")) }, noon, []string{"ca.crt", "no certificate"}},
		{"too large", func(dir string) { write(t, filepath.Join(dir, AuthorityCert), make([]byte, maxFile+1)) }, noon, []string{"ca.crt", "larger"}},
		{"expired", func(string) {}, noon.Add(NodeLife + time.Second), []string{"node.crt", "expired", "bellwire cert node --force"}},
		{"another node's", func(dir string) { issue(t, dir, a, "n2", noon, 0, true) }, noon, []string{"node.crt is node n2's, and this node is n1"}},
	} {
		dir := nodeDir(t, a, "n1", 0)
		c.spoil(dir)
		_, err := Open(dir, "n1", at(c.at), quiet)
		if !errors.Is(err, ErrFiles) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, says := range c.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %q does not say %q", c.name, err, says)
			}
		}
	}
}

// Keys are their owner's alone, and nothing is overwritten unasked.
func TestSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "ca")
	a := authority(t)
	if err := SaveAuthority(dir, a, false); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{AuthorityKey: 0o600, AuthorityCert: 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := SaveAuthority(dir, authority(t), false); !errors.Is(err, ErrExists) {
		t.Errorf("overwritten: %v", err)
	}
	got, err := LoadAuthority(dir)
	if err != nil || got.Name() != a.Name() || !got.Expires().Equal(a.Expires()) {
		t.Errorf("%v, %v", got, err)
	}
	issue(t, dir, got, "n1", noon, 0, false) // beside it: a cluster of one
	pair, err := a.Issue("n1", nil, noon, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := read(t, filepath.Join(dir, NodeCert))
	if err := SaveNode(dir, a, pair, false); !errors.Is(err, ErrExists) {
		t.Errorf("overwritten: %v", err)
	}
	if !bytes.Equal(before, read(t, filepath.Join(dir, NodeCert))) {
		t.Error("it says that nothing was overwritten, and something was")
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*.new*")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if info, err := os.Stat(filepath.Join(dir, NodeKey)); err != nil || info.Mode() != 0o600 {
		t.Errorf("the node's key: %v, %v", info, err)
	}
}

// An authority issues nothing that would outlive it, and no name that is none.
func TestIssue(t *testing.T) {
	a, err := NewAuthority(noon, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue("n1", nil, noon, 0)
	if err != nil || !pair.Expires.Equal(noon.Add(24*time.Hour)) {
		t.Errorf("expires %s, %v", pair.Expires, err)
	}
	if _, err := a.Issue("n1", nil, noon, 25*time.Hour); !errors.Is(err, ErrOutlives) {
		t.Errorf("longer than its authority: %v", err)
	}
	if _, err := a.Issue("n1", nil, noon.Add(24*time.Hour), 0); !errors.Is(err, ErrOutlives) {
		t.Errorf("of an authority that has ended: %v", err)
	}
	for name, good := range map[string]bool{
		"n1": true, "N-1.rack_2": true, strings.Repeat("n", 63): true,
		"": false, strings.Repeat("n", 64): false, "-n": false, "n 1": false, "n/1": false, "n:1": false, "ñ1": false, "n1\n": false,
	} {
		if _, err := a.Issue(name, nil, noon, 0); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func joined(t *testing.T, all ...*Authority) (list []byte) {
	t.Helper()
	for _, a := range all {
		pair, err := a.Pair()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, pair.Cert...)
	}
	return list
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	// As SaveNode does: two contents of one length within one tick of the file
	// system's clock would look alike otherwise.
	if err := replace(path, file{data: data, mode: 0o600, name: filepath.Base(path)}); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
