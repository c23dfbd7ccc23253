package mqtt

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// tokenVar has the token of BenchmarkHandshake's other process.
const tokenVar = "BELLWIRE_BENCH_TOKEN"

// BenchmarkHandshake is a client that comes, is let in, and leaves: connection, CONNECT,
// CONNACK, DISCONNECT, its session in the log and out of it again, by another process, one
// after the other; by TCP without a name, by TLS 1.3 whole and resumed, by SCRAM-SHA-256 and
// by a signed token (Ed25519), the last two without TLS. In turns, so that what else the
// machine does is in all. Each is the server's CPU time, and how much that is beyond TCP's.
func BenchmarkHandshake(b *testing.B) {
	const atOnce = 100
	verify := signedBy(b)
	n := scramNode(b, Limits{}, func(_ *node, c *Config) { c.Authenticate = verify })
	secure := n.also(Listener{Name: "tls", Anonymous: true, TLS: serverTLS()})
	ways := []string{"tcp", "tls", "resumed", "scram", "token"}
	agains, spent := make([]func(), len(ways)), make([]int64, len(ways))
	plain := n.also(Listener{Name: "plain", Anonymous: true})
	for i, way := range ways {
		if n.addr = plain; way == "tls" || way == "resumed" {
			n.addr = secure
		}
		connected, again, stop := startClients(b, n, "shake@"+way, atOnce)
		defer stop()
		connected()
		agains[i] = again
	}
	done := 0
	b.ResetTimer()
	for ; done < b.N; done += atOnce {
		for i, again := range agains {
			before, let := cpu(), n.srv.stats.Connects[codeSuccess].Load()
			again()
			eventually(b, "end", func() bool { return n.srv.stats.Sockets.Load() == 0 })
			spent[i] += cpu() - before
			if got := n.srv.stats.Connects[codeSuccess].Load() - let; got != atOnce {
				b.Fatalf("%s: %d were let in, want %d", ways[i], got, atOnce)
			}
		}
	}
	for i, way := range ways {
		b.ReportMetric(float64(spent[i])/float64(done)/1000, "cpu-us/"+way)
		if i > 0 {
			b.ReportMetric(float64(spent[i]-spent[0])/float64(done)/1000, "more-us/"+way)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// signedBy makes an issuer and a token of it, for the other process, and returns what lets
// that in.
func signedBy(b *testing.B) func(Login) (Identity, error) {
	b.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	encoded := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			b.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := encoded(map[string]any{"alg": "EdDSA", "kid": "k"}) + "." + encoded(map[string]any{
		"iss": "https://login.example.com", "aud": "bellwire", "sub": "bob", "exp": time.Now().Add(time.Hour).Unix(),
	})
	b.Setenv(tokenVar, text+"."+base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(text))))
	set := fmt.Appendf(nil, `{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "use": "sig", "x": %q}]}`, base64.RawURLEncoding.EncodeToString(public))
	file := filepath.Join(b.TempDir(), "keys.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		b.Fatal(err)
	}
	p, err := acl.Parse("policy.yaml", fmt.Appendf(nil, "issuers: [{issuer: \"https://login.example.com\", audience: [bellwire], keys: %q}]\n", file), "example.com")
	if err != nil {
		b.Fatal(err)
	}
	keys := authn.NewKeys(time.Now, slog.New(slog.DiscardHandler))
	b.Cleanup(keys.Close)
	return func(l Login) (Identity, error) {
		proof, err := keys.Verify(context.Background(), p, l.User, l.Password, time.Now())
		return Identity{Principal: proof.Principal, Way: acl.BySigned}, err
	}
}

// shake is the other process: it connects once, and count times for each line that it reads.
func shake(addr, way string, count int) error {
	conf := &tls.Config{InsecureSkipVerify: true} // the certificate is another process's
	if way == "resumed" {
		conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	for i, lines := 0, bufio.NewScanner(os.Stdin); ; i++ {
		for range max(1, min(i, 1)*count) {
			if err := come(addr, way, conf, i > 0); err != nil {
				return err
			}
		}
		fmt.Println("done")
		if !lines.Scan() {
			return lines.Err()
		}
	}
}

// come connects a client, which leaves again; known says that it was there before.
func come(addr, way string, conf *tls.Config, known bool) error {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	if way == "tls" || way == "resumed" {
		secure := tls.Client(nc, conf)
		if err := secure.Handshake(); err != nil {
			return err
		}
		if resumed := secure.ConnectionState().DidResume; resumed != (known && way == "resumed") {
			return fmt.Errorf("%s: resumed is %v", way, resumed)
		}
		nc = secure
	}
	c, m := mq.NewConn(nc, 5), mq.Connect{ClientID: way, Clean: true}
	var p *mq.Packet
	if way == "scram" {
		p, err = c.Authenticate(m, &mq.Scram{User: "bob", Password: "pencil"}, false)
	} else {
		if way == "token" {
			m.NoUser, m.Password = true, []byte(os.Getenv(tokenVar))
		}
		if err := c.Write(m); err != nil {
			return err
		}
		p, err = c.Read(mq.Patience)
	}
	if err != nil {
		return err
	}
	if p.Type != mq.CONNACK || p.Code != 0 {
		return errors.New(p.String())
	}
	return c.Write(mq.Bye)
}
