package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/authn"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// revokes returns a list of what an authority has revoked, in PEM.
func (a *authority) revokes(until time.Time, certs ...tls.Certificate) []byte {
	a.t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: until.Add(-time.Hour), NextUpdate: until}
	for _, c := range certs {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			a.t.Fatal(err)
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: leaf.SerialNumber, RevocationTime: template.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// files writes a certificate, its key and the authority, and returns what a listener has
// that asks for certificates.
func (a *authority) files(c tls.Certificate) tlsSpec {
	a.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	file := func(name, kind string, der []byte) string {
		return writeTestFile(a.t, filepath.Join(a.t.TempDir(), name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return tlsSpec{
		cert: file("cert.pem", "CERTIFICATE", c.Certificate[0]), key: file("key.pem", "PRIVATE KEY", key),
		clientCA: file("ca.pem", "CERTIFICATE", a.cert.Raw), clientCert: "request",
	}
}

func writeTestFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A revoked certificate does not get through the handshake, and ends the connection that it
// opened when the list is read: with 0x87, of MQTT 3.1.1 without a word. Nobody else notices.
// A list that cannot be used changes nothing; one that is stale lets nobody in with a
// certificate of its issuer, nor ends what is there, unless it is accepted. All of it is told.
func TestRevokedCertificatesEndConnections(t *testing.T) {
	t.Parallel()
	ours, good := newAuthority(t), time.Now().Add(time.Hour)
	ana, bob, cy := ours.issue("ana", good), ours.issue("bob", good), ours.issue("cy", good)
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	var log lockedBuffer
	c.trust, c.domain, c.logger = trustNobody, "example.com", newLogger(&log, false)
	c.policy, c.policyName = []byte("logins: [{listeners: [\"*\"], by: [certificate]}]\n"), "policy.yaml"
	strict := ours.files(ours.issue("server", good))
	strict.revoked = []string{writeTestFile(t, filepath.Join(t.TempDir(), "crl.pem"), ours.revokes(good))}
	lax := strict
	lax.stale = "accept"
	for name, spec := range map[string]tlsSpec{"strict": strict, "lax": lax} {
		c.listeners = append(c.listeners, listenerSpec{kind: "mqtts", name: name, addr: "127.0.0.1:0", option: "--mqtts", tls: spec})
	}
	s := runServer(t, c)
	addrs := map[string]string{}
	for _, l := range s.ports.more {
		addrs[l.spec.name] = l.port.listener.Addr().String()
	}
	dial := func(listener string, certs ...tls.Certificate) (*mq.Conn, error) {
		t.Helper()
		nc, err := tls.Dial("tcp", addrs[listener], &tls.Config{RootCAs: ours.pool, ServerName: "localhost", Certificates: certs})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		conn := mq.NewConn(nc, 5)
		if err := conn.Write(mq.Connect{ClientID: rand.Text(), Clean: true}); err != nil {
			return nil, err
		}
		p, err := conn.Read(mq.Patience)
		if err == nil && p.Code != 0 {
			t.Fatal(p)
		}
		return conn, err
	}
	open := func(listener string, certs ...tls.Certificate) *mq.Client {
		t.Helper()
		conn, err := dial(listener, certs...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", listener, err, &log)
		}
		return mq.Wrap(t, conn)
	}
	refused := func(listener, why string, certs ...tls.Certificate) {
		t.Helper()
		told := func() int { return strings.Count(log.String(), `"reason":"`+why+`"`) }
		before := told()
		if _, err := dial(listener, certs...); err == nil {
			t.Errorf("%s, who is refused (%s), came in", listener, why)
		}
		for start := time.Now(); told() == before; runtime.Gosched() { // it says so when it has hung up
			if time.Since(start) > mq.Patience {
				t.Errorf("the log does not say %s: %s", why, &log)
				return
			}
		}
	}
	lists := func(data []byte) {
		t.Helper()
		// At once, as an operator should: files are looked at now and then.
		next := writeTestFile(t, filepath.Join(t.TempDir(), "next"), data)
		if err := os.Rename(next, strict.revoked[0]); err != nil {
			t.Fatal(err)
		}
		s.lookAtTLS()
	}
	one, two, three, anonymous := open("strict", ana), open("strict", bob), open("lax", ana), open("strict")

	for _, bad := range [][]byte{nil, []byte("-----BEGIN X509 CRL-----\n"), newAuthority(t).revokes(good, ana), make([]byte, authn.MaxRevokedFile+1)} {
		lists(bad)
		one.Quiet()
	}
	if n := strings.Count(log.String(), "certificate files changed and cannot be used"); n != 8 {
		t.Errorf("4 bad lists of 2 listeners were told %d times", n)
	}
	open("strict", ana).Disconnect()

	lists(ours.revokes(good, ana))
	one.ClosedWith(0x87)
	three.ClosedWith(0x87)
	refused("strict", "certificate_revoked", ana)
	for _, c := range []*mq.Client{two, anonymous, open("strict", cy)} {
		c.Quiet()
	}
	lists(ours.revokes(time.Now().Add(-time.Second), ana, cy))
	refused("strict", "crl_stale", bob)
	refused("lax", "certificate_revoked", cy)
	open("lax", bob).Disconnect()
	two.Quiet()
	open("strict").Disconnect()
	if n := strings.Count(log.String(), "a list of revoked certificates is stale"); n != 2 {
		t.Errorf("a stale list of 2 listeners was told %d times", n)
	}

	w := httptest.NewRecorder()
	s.metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`bellwire_logins_failed_total{reason="certificate_revoked"} 2`, `bellwire_logins_failed_total{reason="crl_stale"} 1`,
		"bellwire_tls_certificates_revoked_total 3", `bellwire_tls_crl_next_update_seconds{listener="strict"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics do not have %s", want)
		}
	}
}

// What lists of revoked certificates need, and where a configuration file has them.
func TestRevokedInConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := writeTestFile(t, filepath.Join(dir, "bellwire.yaml"), []byte(`listeners:
  - {mqtts: "127.0.0.1:0", tls: {cert: c, key: k, client_ca: a, client_crl: [one.crl, /etc/two.crl], client_crl_stale: accept}}
`))
	f := serveFlags{config: config}
	if err := f.readConfig(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	got := (*f.listen.inFile)[0].tls
	if !slices.Equal(got.revoked, []string{filepath.Join(dir, "one.crl"), "/etc/two.crl"}) || got.stale != "accept" || got.check("x") != nil {
		t.Errorf("%+v, %v", got, got.check("x"))
	}
	for want, spec := range map[string]tlsSpec{
		"without authorities of clients": {cert: "c", key: "k", revoked: []string{"l"}},
		"neither refuse nor accept":      {cert: "c", key: "k", clientCA: "a", revoked: []string{"l"}, stale: "maybe"},
	} {
		if err := spec.check("x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
