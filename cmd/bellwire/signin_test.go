package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/broker/mqtt"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// An authority issues certificates for tests.
type authority struct {
	t      *testing.T
	cert   *x509.Certificate
	key    ed25519.PrivateKey
	pool   *x509.CertPool
	issued atomic.Int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("authority"),
	}
	a.cert = a.sign(template, template, key.Public())
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(template, parent *x509.Certificate, key any) *x509.Certificate {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue returns a certificate with a common name, until an instant.
func (a *authority) issue(name string, until time.Time) tls.Certificate {
	a.t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1 + a.issued.Add(1)), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-time.Hour), NotAfter: until,
		DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, public)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// A client is who its certificate names where the policy says so, and only there; with a
// password or user name beside it, it has to be the same; the way by which it comes in has
// to be one that its listener has; its client id is bound where that is asked for; and a
// certificate that has expired, or is of another authority, does not come in (REQUIREMENTS
// S84).
func TestCertificatesSignIn(t *testing.T) {
	const secret = "bw_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	verifier, err := authn.HashScram([]byte("pencil"), acl.MinIterations, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.trust, c.allowAnonymous, c.domain = trustNobody, false, "example.com"
	c.policy, c.policyName = []byte(`
users:
  bob: {token_sha256: `+acl.HashToken([]byte(secret))+`}
  ana: {scram_sha256: "`+verifier+`"}
logins:
  - {listeners: [certified], by: [certificate, token, scram]}
  - {listeners: [bound], by: [certificate, scram], bind_client_id: true}
  - {listeners: [secretive], by: [password, scram]}
rules:
  - {id: all, allow: [publish, subscribe], who: ["*@example.com"], topic: ["t/{local}/#"]}
`), "policy.yaml"
	s := runServer(t, c)
	ours, others := newAuthority(t), newAuthority(t)
	addrs := secureListeners(t, s, ours, "certified", "bound", "secretive", "plain")
	good := time.Now().Add(time.Hour)
	certs := map[string]*tls.Certificate{}
	for name, cert := range map[string]tls.Certificate{
		"ana": ours.issue("ana", good), "bob": ours.issue("bob", good), "stranger": ours.issue("ana@example.org", good),
		"expired": ours.issue("ana", time.Now().Add(-time.Minute)), "forged": others.issue("ana", good),
	} {
		certs[name] = &cert
	}
	for _, c := range []struct{ listener, cert, user, password, client, want string }{
		{"certified", "ana", "ana", "SCRAM", "s1", "CONNACK 00 ana"},
		{"certified", "", "ana", "SCRAM", "s2", "CONNACK 00 ana"},
		{"certified", "bob", "ana", "SCRAM", "s3", "CONNACK 86"},
		{"certified", "stranger", "ana", "SCRAM", "s4", "CONNACK 86"},
		{"bound", "ana", "ana", "SCRAM", "ana", "CONNACK 00 ana"},
		{"bound", "ana", "ana", "SCRAM", "s5", "CONNACK 86"},
		{"bound", "bob", "ana", "SCRAM", "ana", "CONNACK 86"},
		{"secretive", "bob", "ana", "SCRAM", "s6", "CONNACK 00 ana"}, // where certificates do not count
		{"certified", "ana", "", "", "c1", "CONNACK 00 ana"},
		{"certified", "ana", "ANA@example.com", "", "c2", "CONNACK 00 ana"},
		{"certified", "bob", "bob", secret, "c3", "CONNACK 00 bob"},
		{"certified", "", "bob", secret, "c4", "CONNACK 00 bob"},
		{"certified", "ana", "bob", "", "c5", "CONNACK 86"},
		{"certified", "ana", "bob", secret, "c6", "CONNACK 86"},
		{"certified", "bob", "bob", "guess", "c7", "CONNACK 86"},
		{"certified", "stranger", "", "", "c8", "CONNACK 86"},
		{"certified", "", "", "", "c9", "CONNACK 87"},
		{"certified", "expired", "", "", "c10", "nothing"},
		{"certified", "forged", "", "", "c11", "nothing"},
		{"bound", "ana", "", "", "ana", "CONNACK 00 ana"},
		{"bound", "ana", "", "", "ana@example.com", "CONNACK 00 ana"},
		{"bound", "ana", "", "", "bob", "CONNACK 86"},
		{"bound", "", "bob", secret, "bob", "CONNACK 86"},
		{"secretive", "", "bob", secret, "c12", "CONNACK 86"},
		{"secretive", "ana", "", "", "c13", "CONNACK 87"},
		{"plain", "ana", "", "", "c14", "CONNACK 00"},
		{"plain", "", "bob", secret, "c15", "CONNACK 00 bob"},
	} {
		conf := &tls.Config{RootCAs: ours.pool, ServerName: "localhost"}
		if c.cert != "" {
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certs[c.cert], nil }
		}
		if got := comesIn(t, addrs[c.listener], conf, mq.Connect{ClientID: c.client, Clean: true, User: c.user, Password: []byte(c.password), NoUser: c.user == ""}); got != c.want {
			t.Errorf("%s with the certificate of %q as %q with %q, client id %s: %s, want %s", c.listener, c.cert, c.user, c.password, c.client, got, c.want)
		}
	}
}

// secureListeners serves listeners of these names over TLS that ask for certificates of an
// authority, and returns their addresses. Anonymous clients may come to the one called plain.
func secureListeners(t *testing.T, s *server, ours *authority, names ...string) (addrs map[string]string) {
	t.Helper()
	addrs = map[string]string{}
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[name] = l.Addr().String()
		go func() {
			_ = s.mqtt.ServeAs(l, mqtt.Listener{Name: name, Anonymous: name == "plain", TLS: &tls.Config{
				Certificates: []tls.Certificate{ours.issue("server", time.Now().Add(time.Hour))}, ClientCAs: ours.pool, ClientAuth: tls.VerifyClientCertIfGiven,
			}})
		}()
	}
	return addrs
}

// A change of logins ends the connections, with 0x87, that could not come in any more as
// they came, at once, and no others: of a way that their listener has no more, of a
// certificate that names nobody, somebody else or another client id there now, or that was
// not looked at and is somebody else's. Their sessions are kept (REQUIREMENTS S84).
func TestLoginsEndConnections(t *testing.T) {
	t.Parallel()
	const secret = "bw_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	verifier, err := authn.HashScram([]byte("pencil"), acl.MinIterations, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	policy := func(login string) []byte {
		return []byte("users:\n  bob: {token_sha256: " + acl.HashToken([]byte(secret)) + "}\n  ana: {scram_sha256: \"" + verifier + "\"}\n" +
			"logins:\n  - " + login +
			"\nrules:\n  - {id: all, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"t/{local}/#\"]}\n")
	}
	const every = `{listeners: ["*"], by: [certificate, token, scram]}`
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.trust, c.allowAnonymous, c.domain = trustNobody, false, "example.com"
	c.policy, c.policyName = policy(every), "policy.yaml"
	s := runServer(t, c)
	ours, good := newAuthority(t), time.Now().Add(time.Hour)
	addrs := secureListeners(t, s, ours, "a", "b", "plain")
	certs := map[string]tls.Certificate{"ana": ours.issue("ana", good), "bob": ours.issue("bob", good)}
	open := func(listener, cert, user, password, id string) *mq.Client {
		t.Helper()
		conf := &tls.Config{RootCAs: ours.pool, ServerName: "localhost"}
		if cert != "" {
			conf.Certificates = []tls.Certificate{certs[cert]}
		}
		nc, err := tls.Dial("tcp", addrs[listener], conf)
		if err != nil {
			t.Fatal(err)
		}
		conn, m := mq.NewConn(nc, 5), mq.Connect{ClientID: id, Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 600)}}
		if password == "SCRAM" {
			p, err := conn.Authenticate(m, &mq.Scram{User: user, Password: "pencil"}, false)
			if err != nil || p.Code != 0 {
				t.Fatal(p, err)
			}
			return mq.Wrap(t, conn)
		}
		client := mq.Wrap(t, conn)
		if m.NoUser = user == ""; user != "" {
			m.User, m.Password = user, []byte(password)
		}
		client.Connect(m)
		return client
	}
	token := func(listener, id string) func() *mq.Client {
		return func() *mq.Client { return open(listener, "", "bob", secret, id) }
	}
	both := func(id string) func() *mq.Client {
		return func() *mq.Client { return open("a", "bob", "bob", secret, id) }
	}
	certified := func(listener, id string) func() *mq.Client {
		return func() *mq.Client { return open(listener, "ana", "", "", id) }
	}
	scram := func(id string) func() *mq.Client {
		return func() *mq.Client { return open("a", "", "ana", "SCRAM", id) }
	}
	const otherwise = `{listeners: ["*"], by: [token, scram]}`
	for _, c := range []struct {
		what, before, after string
		opens               func() *mq.Client
		stays               bool
	}{
		{"a way that is closed", every, `{listeners: [a], by: [scram]}`, token("a", "t1"), false},
		{"a way that stays", every, `{listeners: [a], by: [token]}`, token("a", "t2"), true},
		{"a way that is closed elsewhere", every, `{listeners: [a], by: [scram]}`, token("b", "t3"), true},
		{"no entry any more", every, `{listeners: [b], by: [scram]}`, token("a", "t4"), true},
		{"scram that is closed", every, `{listeners: [a], by: [certificate, token]}`, scram("s1"), false},
		{"scram that stays", every, `{listeners: [a], by: [scram]}`, scram("s2"), true},
		{"certificates that count no more", every, otherwise, certified("a", "c1"), false},
		{"certificates without an entry", every, `{listeners: [b], by: [token]}`, certified("a", "c2"), false},
		{"certificates that stay", every, `{listeners: [a], by: [certificate]}`, certified("a", "c3"), true},
		{"who is named elsewhere", every, `{listeners: [a], by: [certificate], names: [uri]}`, certified("a", "c4"), false},
		{"whose domain is closed", every, `{listeners: [a], by: [certificate], domains: [example.org]}`, certified("a", "c5"), false},
		{"another client id", every, `{listeners: [a], by: [certificate], bind_client_id: true}`, certified("a", "c6"), false},
		{"its own client id", every, `{listeners: [a], by: [certificate], bind_client_id: true}`, certified("a", "ana"), true},
		{"a token beside a certificate", every, `{listeners: [a], by: [certificate]}`, both("b1"), false},
		{"a token whose certificate counts no more", every, `{listeners: [a], by: [token]}`, both("b2"), true},
		{"a certificate of another that counts now", otherwise, every, func() *mq.Client { return open("a", "ana", "bob", secret, "o1") }, false},
		{"a certificate that counts now", otherwise, every, both("o2"), true},
		{"anonymous with a certificate that counts now", otherwise, every, func() *mq.Client { return open("plain", "ana", "", "", "o3") }, false},
		{"anonymous without one", otherwise, every, func() *mq.Client { return open("plain", "", "", "", "o4") }, true},
	} {
		change := func(login string) {
			t.Helper()
			if err := s.broker.SetPolicy(t.Context(), policy(login)); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
		}
		change(c.before)
		client := c.opens()
		change(c.after)
		if !c.stays {
			client.ClosedWith(0x87)
		} else {
			client.Quiet()
		}
		change(c.before)
		if c.stays {
			client.Disconnect()
		}
	}
	if n := s.broker.SessionsKnown(); n != 19 {
		t.Errorf("%d sessions are kept, want those of all 19", n)
	}
}

// A client that shows no certificate where one is wanted, or another, is told that by bellwire pub: by TLS 1.3
// it learns it only from what it reads.
func TestPubIsToldThatACertificateIsWanted(t *testing.T) {
	ours := newAuthority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{ours.issue("server", time.Now().Add(time.Hour))}, ClientCAs: ours.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})
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
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw})))
	got := bellwire(t, "", "pub", "-h", "localhost", "-p", port, "--cafile", ca, "-t", "a", "-m", "x")
	if got.code == 0 || !strings.Contains(got.stderr, "--cert and --key     BW-1007") {
		t.Errorf("%+v", got)
	}
	theirs := newAuthority(t).issue("somebody", time.Now().Add(time.Hour))
	key, err := x509.MarshalPKCS8PrivateKey(theirs.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	got = bellwire(t, "", "pub", "-h", "localhost", "-p", port, "--cafile", ca, "-t", "a", "-m", "x",
		"--cert", writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: theirs.Certificate[0]}))),
		"--key", writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))))
	if got.code == 0 || !strings.Contains(got.stderr, "it does not take the certificate of --cert") {
		t.Errorf("with a certificate of another authority: %+v", got)
	}
}

// comesIn says how a CONNECT over TLS is answered, and who the client is then: as whom it
// may publish.
func comesIn(t *testing.T, addr string, conf *tls.Config, m mq.Connect) string {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		return "nothing"
	}
	defer nc.Close()
	if len(m.Password) == 0 {
		m.Password = nil
	}
	c := mq.NewConn(nc, 5)
	var p *mq.Packet
	if string(m.Password) == "SCRAM" {
		user := m.User
		m.User, m.Password, m.NoUser = "", nil, true
		p, err = c.Authenticate(m, &mq.Scram{User: user, Password: "pencil"}, false)
	} else {
		if err := c.Write(m); err != nil {
			return "nothing"
		}
		p, err = c.Read(mq.Patience)
	}
	if err != nil {
		if _, alert := errors.AsType[*net.OpError](err); alert || errors.Is(err, mq.ErrClosed) {
			return "nothing"
		}
		t.Fatal(err)
	}
	if p.Code != 0 {
		return map[byte]string{0x86: "CONNACK 86", 0x87: "CONNACK 87"}[p.Code]
	}
	for _, who := range []string{"ana", "bob"} {
		if err := c.Write(mq.Publish{Topic: "t/" + who + "/x", QoS: 1, ID: 1}); err != nil {
			t.Fatal(err)
		}
		if p, err := c.Read(mq.Patience); err != nil {
			t.Fatal(err)
		} else if p.Code < 0x80 {
			return "CONNACK 00 " + who
		}
	}
	return "CONNACK 00"
}

// runServer starts a server, which is closed when the test is over.
func runServer(t *testing.T, c serverConfig) *server {
	t.Helper()
	s, err := startServer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(context.Background()); err != nil { // t's has ended by then
			t.Error(err)
		}
	})
	return s
}
