package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/cluster/certs"
)

// What dev --tls makes lets in by TLS whoever trusts the authority that it prints, and
// is gone with it.
func TestDevTLS(t *testing.T) {
	c := devFlags{port: 0, domain: "example.com"}.config(io.Discard)
	c.logger = slog.New(slog.DiscardHandler)
	remove, err := makeDevTLS(&c, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := startServer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(c.listeners[0].tls.cert)
	pem, err := os.ReadFile(filepath.Join(dir, certs.AuthorityCert))
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(pem) || s.devTLS() == "" || s.devAuthority() != filepath.Join(dir, certs.AuthorityCert) {
		t.Errorf("%v, %q", err, s.devTLS())
	}
	for _, name := range []string{"localhost", "127.0.0.1"} {
		nc, err := tls.Dial("tcp", s.readyLine().MQTTS, &tls.Config{RootCAs: pool, ServerName: name})
		if err != nil {
			t.Errorf("as %s: %v", name, err)
			continue
		}
		_ = nc.Close()
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	if r, err := client.Get("https://" + s.readyLine().HTTP + "/livez"); err != nil || r.Body.Close() != nil || r.StatusCode != http.StatusOK {
		t.Errorf("HTTPS: %v, %v", r, err)
	}
	var line, hints bytes.Buffer
	f := newFeed(&line)
	err = devFlags{}.greet(f, &hints, false, s)
	f.end("")
	if err != nil || !strings.Contains(line.String(), s.devAuthority()) || hints.String() != s.devTLS() {
		t.Errorf("to a program it says %q and %q, %v", line.String(), hints.String(), err)
	}
	if err := s.shutdown(); err != nil {
		t.Error(err)
	}
	remove()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}
