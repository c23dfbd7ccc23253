package blackbox

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A testTLS is a directory with an authority and certificates of it.
type testTLS struct {
	t   testing.TB
	dir string
}

// newTLS makes an authority and a certificate for this machine, by the program itself.
func newTLS(t testing.TB) *testTLS {
	t.Helper()
	c := &testTLS{t, t.TempDir()}
	c.run("cert", "ca", "--out", c.dir)
	c.issue("localhost")
	return c
}

func (c *testTLS) run(args ...string) {
	c.t.Helper()
	path, err := binary()
	if err != nil {
		c.t.Fatal(err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// issue makes one more certificate, in a directory of its name.
func (c *testTLS) issue(name string) {
	c.t.Helper()
	c.run("cert", "node", "--ca", c.dir, "--name", name, "--host", "127.0.0.1", "--out", filepath.Join(c.dir, name), "--force")
}

func (c *testTLS) ca() string            { return filepath.Join(c.dir, "ca.crt") }
func (c *testTLS) cert(of string) string { return filepath.Join(c.dir, of, "node.crt") }
func (c *testTLS) key(of string) string  { return filepath.Join(c.dir, of, "node.key") }
func (c *testTLS) flags() []string {
	return []string{"--tls-cert", c.cert("localhost"), "--tls-key", c.key("localhost")}
}

func (c *testTLS) client() *tls.Config {
	c.t.Helper()
	pem, err := os.ReadFile(c.ca())
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// over connects a client over a stream and wants to be let in.
func over(t *testing.T, nc net.Conn, err error, id string) *mq.Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	c := mq.Wrap(t, mq.NewConn(nc, v5))
	c.Connect(clean(id))
	return c
}

// All kinds of listeners serve the same broker at once, under the names of the ready
// line, those of a configuration file with their own rules; a socket that a killed
// server left is taken over.
func TestListeners(t *testing.T) {
	t.Parallel()
	c := newTLS(t)
	socket := filepath.Join(t.TempDir(), "mqtt.sock")
	config := filepath.Join(t.TempDir(), "bellwire.yaml")
	text := fmt.Sprintf(`listeners:
  - {name: closed, mqtt: "127.0.0.1:0", anonymous: false}
  - {name: few, ws: "127.0.0.1:0", max_conns: 1, path: /other}
  - {name: behind, mqtt: "127.0.0.1:0", proxy: [127.0.0.1]}
  - {name: strict, mqtts: "127.0.0.1:0", tls: {cert: %q, key: %q, client_ca: %q}}
`, c.cert("localhost"), c.key("localhost"), c.ca())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, append(c.flags(), "--allow-anonymous", "--mqtts", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--wss", "127.0.0.1:0", "--unix", socket, "-f", config)...)
	dial := func(network, addr string) (net.Conn, error) { return net.Dial(network, addr) }
	of := map[string]string{}
	for _, l := range s.ready.Listeners {
		of[l.Name] = l.Addr
	}
	secure, err := tls.Dial("tcp", s.ready.MQTTS, c.client())
	clients := map[string]*mq.Client{"mqtts": over(t, secure, err, "mqtts")}
	nc, err := dial("tcp", s.ready.WS)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := mq.OpenWebSocket(nc, s.ready.WS)
	clients["ws"] = over(t, ws, err, "ws")
	secure, err = tls.Dial("tcp", s.ready.WSS, c.client())
	if err != nil {
		t.Fatal(err)
	}
	ws, err = mq.OpenWebSocket(secure, s.ready.WSS)
	clients["wss"] = over(t, ws, err, "wss")
	nc, err = dial("unix", s.ready.Unix)
	clients["unix"] = over(t, nc, err, "unix")
	nc, err = dial("tcp", of["behind"])
	if err == nil {
		_, err = io.WriteString(nc, "PROXY TCP4 192.0.2.1 198.51.100.1 56324 1883\r\n")
	}
	clients["behind"] = over(t, nc, err, "behind")
	conf := c.client()
	c.issue("thermo-17")
	pair, err := tls.LoadX509KeyPair(c.cert("thermo-17"), c.key("thermo-17"))
	if err != nil {
		t.Fatal(err)
	}
	conf.Certificates = []tls.Certificate{pair}
	secure, err = tls.Dial("tcp", of["strict"], conf)
	clients["strict"] = over(t, secure, err, "strict")
	for _, cl := range clients {
		cl.Subscribe("all/#", 1)
	}
	for name, cl := range clients {
		cl.Publish("all/"+name, 0, name)
		for who, other := range clients {
			if p := other.Expect(mq.PUBLISH); p.Topic != "all/"+name || string(p.Payload) != name {
				t.Errorf("%s published, %s received %v", name, who, p)
			}
		}
	}

	closed := mq.Dial(t, of["closed"], v5)
	closed.Send(clean("closed"))
	if p := closed.Expect(mq.CONNACK); p.Code != 0x87 {
		t.Errorf("anonymous where that is not allowed: %v", p)
	}
	if secure, err := tls.Dial("tcp", of["strict"], c.client()); err == nil {
		if _, err := secure.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("without a certificate where one is required: %v", err)
		}
	}
	for range 2 {
		if nc, err = dial("tcp", of["few"]); err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Error("one more than max_conns")
	}
	if got := s.metric("bellwire_turned_away_total", `reason="listener"`); got != 1 {
		t.Errorf("%v connections turned away, want 1", got)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v %v", info, err)
	}
	s.kill()
	if _, err := os.Lstat(socket); err != nil {
		t.Fatalf("a killed server left no socket, so this shows nothing: %v", err)
	}
	s.start()
	nc, err = dial("unix", s.ready.Unix)
	over(t, nc, err, "again")
	s.stop()
	if _, err := os.Lstat(socket); err == nil {
		t.Error("a server that was stopped left its socket")
	}
}

// A certificate that is replaced is shown from the next connection on, on SIGHUP and
// without it; a bad one changes nothing, and is told with what to do.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	c := newTLS(t)
	s := serve(t, append(c.flags(), "--allow-anonymous", "--mqtts", "127.0.0.1:0")...)
	serial := func() string {
		t.Helper()
		nc, err := tls.Dial("tcp", s.ready.MQTTS, c.client())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		return nc.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	nc, err := tls.Dial("tcp", s.ready.MQTTS, c.client())
	before := over(t, nc, err, "before")
	first := serial()
	c.issue("localhost")
	s.signal(syscall.SIGHUP)
	until(t, "the new certificate is shown", patience, func() bool { return serial() != first })
	second := serial()
	c.issue("localhost")
	until(t, "the newest is shown without a signal", patience, func() bool { return serial() != second })
	third := serial()
	if err := os.WriteFile(c.cert("localhost"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	until(t, "the bad one is told", patience, func() bool {
		return strings.Contains(s.logs.String(), "certificate files changed and cannot be used") && strings.Contains(s.logs.String(), "BW-2020")
	})
	if got := serial(); got != third {
		t.Errorf("with a bad certificate in the file another is shown: %s, want %s", got, third)
	}
	before.Quiet()
}
