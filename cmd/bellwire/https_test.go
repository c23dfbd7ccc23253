package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/bw"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// httpsServer is a node whose HTTP side has TLS, with the files of its certificate.
func httpsServer(t *testing.T, ours *authority, change func(*serverConfig)) (*server, tlsSpec) {
	t.Helper()
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	spec := ours.files(ours.issue("server", time.Now().Add(time.Hour)))
	c.httpTLS = tlsSpec{cert: spec.cert, key: spec.key}
	if change != nil {
		change(&c)
	}
	s, err := startServer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s, spec
}

// With a certificate the HTTP side is HTTPS, of HTTP/1.1 and 2, and whoever comes without TLS
// is told so. A new certificate is shown once its files are there, a bad one changes nothing.
// Verbs take it with --cafile, and say what to give if it is not, or without https.
func TestHTTPS(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	s, spec := httpsServer(t, ours, nil)
	line := s.readyLine()
	if !line.HTTPS {
		t.Error("the ready line does not say that HTTP is by TLS")
	}
	get := func(h2 bool) (proto, serial string) {
		t.Helper()
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ours.pool, ServerName: "localhost"}, ForceAttemptHTTP2: h2, DisableKeepAlives: true}}
		r, err := client.Get("https://" + line.HTTP + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != 200 {
			t.Errorf("%d, %v", r.StatusCode, err)
		}
		return r.Proto, r.TLS.PeerCertificates[0].SerialNumber.String()
	}
	if proto, _ := get(false); proto != "HTTP/1.1" {
		t.Errorf("answered in %s", proto)
	}
	proto, first := get(true)
	if proto != "HTTP/2.0" {
		t.Errorf("answered in %s, want HTTP/2.0", proto)
	}

	nc, err := net.Dial("tcp", line.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	plain, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || plain.StatusCode != http.StatusBadRequest {
		t.Fatalf("without TLS: %v, %v", plain, err)
	}
	if text, err := io.ReadAll(plain.Body); !strings.Contains(string(text), "HTTPS") {
		t.Errorf("without TLS: %q, %v", text, err)
	}

	next := ours.files(ours.issue("server", time.Now().Add(time.Hour)))
	for from, to := range map[string]string{next.cert: spec.cert, next.key: spec.key} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, to, data)
	}
	s.lookAtTLS()
	_, second := get(true)
	writeTestFile(t, spec.cert, []byte("no certificate"))
	s.lookAtTLS()
	if _, third := get(true); second == first || third != second {
		t.Errorf("shown: %s, then %s, then %s", first, second, third)
	}

	other := newAuthority(t).files(newAuthority(t).issue("x", time.Now().Add(time.Hour)))
	for _, c := range []struct {
		server, cafile string
		code           bw.Code
		says           string
	}{
		{"https://", spec.clientCA, 0, ""},
		{"https://", other.clientCA, bw.TLS, "no TLS with"},
		{"https://", "", bw.TLS, "no TLS with"},
		{"", "", bw.TLS, "has TLS"},
	} {
		_, port, _ := net.SplitHostPort(line.HTTP)
		at := c.server + net.JoinHostPort("localhost", port)
		root := rootCommand()
		var out, errs bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&errs)
		root.SetArgs([]string{"cluster", "status", "--server", at, "--cafile", c.cafile, "--timeout", "20s"})
		err := root.ExecuteContext(t.Context())
		f, _ := err.(*fault)
		if c.code == 0 && err != nil || c.code != 0 && (f == nil || f.code != c.code || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("status of %q with %q: %v", c.server, c.cafile, err)
		}
	}
	if s.httpTLSFailed.Load() == 0 {
		t.Error("failed handshakes are not counted")
	}
}

// What the certificate of --http needs, and where a configuration file has it.
func TestHTTPSInConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := writeTestFile(t, filepath.Join(dir, "bellwire.yaml"), []byte(`http: {addr: "127.0.0.1:8443", tls: {cert: c.pem, key: /k.pem, min: "1.2"}, mqtt: true}`+"\n"))
	f := serveFlags{config: config}
	if err := f.readConfig(func(flag string) bool { return flag == "http-tls-key" }); err != nil {
		t.Fatal(err)
	}
	if !f.httpMQTT {
		t.Error("mqtt: true is not heeded")
	}
	if want := (tlsSpec{cert: filepath.Join(dir, "c.pem"), min: "1.2"}); f.httpTLS.cert != want.cert || f.httpTLS.key != "" || f.httpTLS.min != want.min || f.http != "127.0.0.1:8443" {
		t.Errorf("%q, %+v", f.http, f.httpTLS)
	}
	for want, f := range map[string]serveFlags{
		"needs a certificate and its key": {http: ":1", httpTLS: tlsSpec{cert: "c"}},
		"without an address":              {httpTLS: tlsSpec{cert: "c", key: "k"}},
		"the least version":               {http: ":1", httpTLS: tlsSpec{cert: "c", key: "k", min: "1.1"}},
	} {
		if err := f.checkHTTPS(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// MQTT by WebSocket on the HTTP port is like anywhere: also what came with the request is
// heard, both sides speak, logins are those of the listener http, a page of another host may
// not, and the connection counts as a client's and no more as one of HTTP. Requests go on
// beside it, and without --http-mqtt there is nothing at /mqtt.
func TestMQTTOnHTTP(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	const secret = "bw_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, secure := range []bool{false, true} {
		s, _ := httpsServer(t, ours, func(c *serverConfig) {
			c.trust, c.allowAnonymous, c.httpMQTT = trustNobody, false, true
			c.policy, c.policyName = []byte("users: {bob: {token_sha256: "+acl.HashToken([]byte(secret))+"}}\nlogins: [{listeners: [http], by: [token]}, {listeners: [\"*\"], by: [jwt]}]\n"+
				"rules: [{id: all, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"t/#\"]}]\n"), "policy.yaml"
			if !secure {
				c.httpTLS = tlsSpec{}
			}
		})
		at, scheme, trusting := s.readyLine().HTTP, "http", &tls.Config{RootCAs: ours.pool, ServerName: "localhost"}
		dial := func() net.Conn {
			t.Helper()
			nc, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nc.Close() })
			if secure {
				scheme, nc = "https", tls.Client(nc, trusting)
			}
			return nc
		}
		open := func(id, password string, headers ...string) (*mq.Conn, *mq.Packet, error) {
			t.Helper()
			ws, err := mq.OpenWebSocket(dial(), at, headers...)
			if err != nil {
				return nil, nil, err
			}
			c := mq.NewConn(ws, 5)
			if err := c.Write(mq.Connect{ClientID: id, Clean: true, User: "bob", Password: []byte(password)}); err != nil {
				return nil, nil, err
			}
			p, err := c.Read(mq.Patience)
			return c, p, err
		}
		c, p, err := open("bob", secret)
		if err != nil || p.Code != 0 {
			t.Fatalf("%s: %v, %v", scheme, p, err)
		}
		bob := mq.Wrap(t, c)
		bob.Subscribe("t/#", 1)
		large := strings.Repeat("x", 200_000)
		for _, payload := range []string{"small", large, ""} {
			bob.Publish("t/x", 1, payload)
			bob.ReceiveText("t/x", payload)
		}
		if _, p, err := open("other", "bw_dev_guess"); err != nil || p.Code != 0x86 {
			t.Errorf("%s: with a wrong token: %v, %v", scheme, p, err)
		}
		if _, _, err := open("page", secret, "Origin: https://elsewhere.example"); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: a page of another host: %v", scheme, err)
		}
		l := s.httpListener.(*limitListener)
		l.mu.Lock()
		if l.open != 0 {
			t.Errorf("%s: %d connections of HTTP are counted, want none", scheme, l.open)
		}
		l.mu.Unlock()

		early := dial()
		var frame mq.WebSocket
		request := "GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
		m := mq.Connect{ClientID: "early", Clean: true, User: "bob", Password: []byte(secret)}
		if _, err := early.Write(append([]byte(request), frame.Frame(0x82, m.Encode(5))...)); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(early)
		if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s: %v, %v", scheme, r, err)
		}
		if head, err := in.Peek(4); err != nil || head[2] != 0x20 || head[0] != 0x82 { // CONNACK, in a binary frame
			t.Errorf("%s: what came with the request is answered % x, %v", scheme, head, err)
		}

		client := http.Client{Transport: &http.Transport{TLSClientConfig: trusting, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
		for path, want := range map[string]int{"/livez": 200, "/mqtt": map[bool]int{false: 426, true: 505}[secure]} {
			r, err := client.Get(scheme + "://" + at + path)
			if err != nil {
				t.Fatal(err)
			}
			if r.Body.Close() != nil || r.StatusCode != want {
				t.Errorf("%s %s: %d, want %d", scheme, path, r.StatusCode, want)
			}
		}
		if got := s.mqtt.Stats().Clients.Load(); got != 2 {
			t.Errorf("%s: %d clients are connected, want 2", scheme, got)
		}
		bob.Quiet()
		if err := s.mqtt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		bob.ClosedWith(0x8B)
	}
	s, _ := httpsServer(t, ours, func(c *serverConfig) { c.httpTLS = tlsSpec{} })
	if r, err := http.Get("http://" + s.readyLine().HTTP + "/mqtt"); err != nil || r.Body.Close() != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("%v, %v: want 404 without --http-mqtt", r, err)
	}
}
