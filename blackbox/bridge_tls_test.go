package blackbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// expired issues a certificate for this machine that ended an hour ago, in a directory of
// its name.
func (c *testTLS) expired(name string) {
	c.t.Helper()
	authority, err := tls.LoadX509KeyPair(c.ca(), filepath.Join(c.dir, "ca.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority.Leaf, key.Public(), authority.PrivateKey)
	if err != nil {
		c.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(c.dir, name), 0o700); err != nil {
		c.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{c.cert(name): {Type: "CERTIFICATE", Bytes: der}, c.key(name): {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
}

// A guarded is a peer with several ways in: by TLS, by TLS with a client's certificate, by
// user and password, by WebSocket, and, where there is one, by TLS with a certificate that has ended.
type guarded struct {
	tls, mutual, password, expired string
	ws, wss                        string // URLs

	client func(id string) *mq.Client // one that may do all
}

// guardedPeers are mosquitto and one of ours. The one who may come by password is hq, with
// sesame.
var guardedPeers = map[string]func(t *testing.T, c *testTLS) guarded{
	"mosquitto": func(t *testing.T, c *testTLS) guarded {
		t.Helper()
		passwords := writeFile(t, "passwords", "hq:sesame\n")
		if out, err := exec.Command("mosquitto_passwd", "-U", passwords).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
		g := guarded{tls: freeAddress(t), mutual: freeAddress(t), password: freeAddress(t), expired: freeAddress(t)}
		lines := []string{"per_listener_settings true", "allow_anonymous true"}
		listener := func(address string, more ...string) {
			host, port, _ := net.SplitHostPort(address)
			lines = append(append(lines, "listener "+port+" "+host), more...)
		}
		shows := func(name string) string { return "certfile " + c.cert(name) + "\nkeyfile " + c.key(name) }
		listener(g.tls, "allow_anonymous true", shows("localhost"))
		listener(g.mutual, "allow_anonymous true", shows("localhost"), "cafile "+c.ca(), "require_certificate true")
		listener(g.password, "password_file "+passwords)
		listener(g.expired, "allow_anonymous true", shows("ended"))
		web, secure := freeAddress(t), freeAddress(t)
		listener(web, "allow_anonymous true", "protocol websockets")
		listener(secure, "allow_anonymous true", "protocol websockets", shows("localhost"))
		g.ws, g.wss = "ws://"+web, "wss://"+secure
		plain := mosquittoWith(t, lines...).addr
		for _, address := range []string{g.tls, g.mutual, g.password, g.expired, web, secure} {
			until(t, "mosquitto listens at each", patience, func() bool { return listens(address) })
		}
		g.client = func(id string) *mq.Client { return mq.Open(t, plain, v5, clean(id)) }
		return g
	},
	"bellwire": func(t *testing.T, c *testTLS) guarded {
		t.Helper()
		conf := writeFile(t, "bellwire.yaml", fmt.Sprintf(`listeners:
  - {name: tls, mqtts: "127.0.0.1:0", anonymous: true, tls: {cert: %q, key: %q}}
  - {name: mutual, mqtts: "127.0.0.1:0", anonymous: true, tls: {cert: %[1]q, key: %[2]q, client_ca: %[3]q}}
  - {name: password, mqtt: "127.0.0.1:0", anonymous: false}
  - {name: ws, ws: "127.0.0.1:0", anonymous: true}
  - {name: wss, wss: "127.0.0.1:0", anonymous: true, tls: {cert: %[1]q, key: %[2]q}}
`, c.cert("localhost"), c.key("localhost"), c.ca()))
		policy := writeFile(t, "policy.yaml", fmt.Sprintf("users:\n  hq: {password_hash: %q}\nrules:\n  - {id: all, allow: [publish, subscribe], who: [\"*@example.com\", anonymous], topic: [\"#\"]}\n",
			made(t, "sesame", "user", "hash")))
		s := serve(t, "-f", conf, "--policy", policy, "--allow-anonymous")
		of := map[string]string{}
		for _, l := range s.ready.Listeners {
			of[l.Name] = l.Addr
		}
		return guarded{
			tls: of["tls"], mutual: of["mutual"], password: of["password"], ws: "ws://" + of["ws"], wss: "wss://" + of["wss"] + "/mqtt",
			client: func(id string) *mq.Client { return s.open(v5, clean(id)) },
		}
	},
}

// troubles returns how often the log warns that a bridge has no connection, and what it
// says last.
func (s *server) troubles(bridge string) (n int, last string) {
	for line := range strings.Lines(s.logs.String()) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, `"bridge":"`+bridge+`"`) && strings.Contains(line, "the bridge has no connection") {
			n, last = n+1, line
		}
	}
	return n, last
}

// A bridge connects to whom its authorities vouch for, under the name that was said, and to
// nobody else; it shows its certificate, and user and password. Whoever fails is tried again,
// counted by the reason, and told in the log once, with what to do; what is mended
// meanwhile is used without a restart.
func TestBridgeProvesAndIsProved(t *testing.T) {
	t.Parallel()
	for who, start := range guardedPeers {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			c, other := newTLS(t), newTLS(t)
			c.issue("plant")
			other.issue("plant")
			c.expired("ended")
			peer := start(t, c)
			right, wrong := writeFile(t, "right", "sesame\n"), writeFile(t, "wrong", "guess\n")
			shows := func(of *testTLS, name string) string {
				return fmt.Sprintf("tls: {ca: %q, cert: %q, key: %q}", c.ca(), of.cert(name), of.key(name))
			}
			trust := fmt.Sprintf("tls: {ca: %q}", c.ca())
			ways := []struct {
				name, address, more string
				reason, todo        string // why it fails, empty for what differs; and what is to be done, empty for what does not fail
			}{
				{"trusted", peer.tls, trust, "", ""},
				{"named", peer.tls, fmt.Sprintf("tls: {ca: %q, server_name: localhost}", c.ca()), "", ""},
				{"insecure", peer.tls, fmt.Sprintf("tls: {ca: %q, insecure: true}", other.ca()), "", ""},
				{"misnamed", peer.tls, fmt.Sprintf("tls: {ca: %q, server_name: hq.example.com}", c.ca()), "tls", "set server_name"},
				{"untrusted", peer.tls, fmt.Sprintf("tls: {ca: %q}", other.ca()), "tls", "set ca under tls"},
				{"machine", peer.tls, "tls: {}", "tls", "set ca under tls"},
				{"ended", peer.expired, trust, "tls", "look at the clocks"},
				{"plain", peer.tls, "keep_alive: 61s", "", "want TLS"},
				{"no-tls-there", peer.password, trust, "tls", "remove tls"},
				{"mutual", peer.mutual, shows(c, "plant"), "", ""},
				{"nothing-shown", peer.mutual, trust, "tls", "cert and key under tls"},
				{"stranger", peer.mutual, shows(other, "plant"), "tls", "cert and key under tls"},
				{"own-ended", peer.mutual, shows(c, "ended"), "tls", "cert and key under tls"},
				{"password", peer.password, fmt.Sprintf("user: hq\npassword_file: %q", right), "", ""},
				{"wrong-password", peer.password, fmt.Sprintf("user: hq\npassword_file: %q", wrong), "refused", "user and password_file"},
				{"nobody", peer.password, "keep_alive: 61s", "refused", "user and password_file"},
				{"ws", peer.ws, "keep_alive: 2s", "", ""},
				{"wss", peer.wss, trust, "", ""},
				{"wss-untrusted", peer.wss, "keep_alive: 61s", "tls", "set ca under tls"},
				{"no-websocket", "ws://" + peer.tls, "keep_alive: 61s", "dial", "is the address right"},
			}
			text := "bridges:\n"
			for _, w := range ways {
				if w.address == "" {
					continue
				}
				text += fmt.Sprintf("  - name: %s\n    address: %q\n    retry_max: 1s\n    topics: [{filter: \"#\", direction: both, qos: 1, local_prefix: %[1]s/, remote_prefix: far/%[1]s/}]\n", w.name, w.address)
				for line := range strings.Lines(w.more) {
					text += "    " + strings.TrimSuffix(line, "\n") + "\n"
				}
			}
			s := serve(t, "-f", writeFile(t, "bellwire.yaml", text), "--allow-anonymous")
			here, there := s.open(v5, clean("here")), peer.client("there")
			here.Subscribe("+/in", 1)
			there.Subscribe("far/+/out", 1)
			carries := func(name string) {
				t.Helper()
				until(t, name+" is connected", patience, func() bool { return s.metric("bellwire_bridge_connected", `bridge="`+name+`"`) == 1 })
				here.Publish(name+"/out", 1, name)
				there.ReceiveText("far/"+name+"/out", name)
				large := name + strings.Repeat(" ", 100<<10)
				there.Publish("far/"+name+"/in", 1, large)
				here.ReceiveText(name+"/in", large)
			}
			for _, w := range ways {
				switch {
				case w.address == "":
				case w.todo == "":
					carries(w.name)
				default:
					until(t, w.name+" is tried again and counted", patience, func() bool {
						return s.metric("bellwire_bridge_errors_total", `bridge="`+w.name+`"`, `reason="`+w.reason) >= 2
					})
					if n, last := s.troubles(w.name); n != 1 || !strings.Contains(last, w.todo) {
						t.Errorf("%s is told %d times, want once and with %q: %s", w.name, n, w.todo, last)
					}
					if n := s.metric("bellwire_bridge_connected", `bridge="`+w.name+`"`); n != 0 {
						t.Errorf("%s is connected", w.name)
					}
				}
			}
			if err := os.WriteFile(wrong, []byte("sesame"), 0o600); err != nil {
				t.Fatal(err)
			}
			carries("wrong-password")
		})
	}
}
