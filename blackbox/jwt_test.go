package blackbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A tokenMaker signs tokens by the binary's own verb.
type tokenMaker struct {
	t   testing.TB
	dir string
}

func newTokenMaker(t testing.TB) tokenMaker {
	dir := t.TempDir()
	dir = filepath.Join(dir, "made")
	made(t, "", "token", "key", "--out", dir)
	return tokenMaker{t, dir}
}

func (m tokenMaker) keys() string { return filepath.Join(m.dir, "jwks.json") }

const tokenStart = "2026-03-09T12:00:00Z"

func (m tokenMaker) make(subject, ttl string, more ...string) []byte {
	args := append([]string{"token", "create", "--key", filepath.Join(m.dir, "signing-key.json"), "--issuer", "plant", "--audience", "bellwire", "--subject", subject, "--ttl", ttl, "--at", tokenStart}, more...)
	return []byte(made(m.t, "", args...))
}

func (m tokenMaker) policy(more string) string {
	return fmt.Sprintf("issuers:\n  - {issuer: plant, audience: [bellwire], keys: %q%s}\ngroups:\n  operators: [ana@example.com]\nrules:\n  - {id: all, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"t/#\"]}\n", m.keys(), more)
}

// A signed token is a password, by MQTT and HTTP, of whoever it says and nobody else;
// when it expires the connection ends with 0xA0, by the server's clock; what is refused
// is told the operator, and by token verify; and who may no longer be proved is out
// (REQUIREMENTS S84).
func TestSignedTokens(t *testing.T) {
	t.Parallel()
	m, other := newTokenMaker(t), newTokenMaker(t)
	// bob might sign in by a password, too: that a token proves him no more counts alone.
	users := "users:\n  bob: {password_hash: \"" + made(t, "hunter2", "user", "hash") + "\"}\n"
	policy := writeFile(t, "policy.yaml", m.policy("")+users)
	s := serve(t, "--test-clock", tokenStart, "--policy", policy)
	ana := m.make("ana", "1h")
	c := s.open(v5, mq.Connect{ClientID: "ana", Clean: true, Password: ana})
	c.Subscribe("t/#", 1)
	c.Publish("t/x", 1, "hello")
	c.ReceiveText("t/x", "hello")
	named := s.open(v4, mq.Connect{ClientID: "named", Clean: true, User: "ana@example.com", Password: ana})
	named.Publish("t/x", 1, "by 3.1.1")
	c.ReceiveText("t/x", "by 3.1.1")
	for name, login := range map[string]mq.Connect{
		"another's name":      {Clean: true, User: "bob", Password: ana},
		"another's key":       {Clean: true, Password: other.make("ana", "1h")},
		"without a signature": {Clean: true, Password: []byte(string(ana[:strings.LastIndexByte(string(ana), '.')]) + ".")},
		"expired":             {Clean: true, Password: m.make("ana", "1h", "--at", "2026-03-09T10:00:00Z")},
		"of another domain":   {Clean: true, Password: m.make("ana@example.org", "1h")},
	} {
		conn, p, err := mq.DialConnect(s.ready.MQTT, v5, login)
		if err != nil || p.Code != 0x86 {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		conn.Close()
	}
	for _, reason := range []string{"other_principal", "jwt_expired", "jwt_principal"} {
		if got := s.metric("bellwire_logins_failed_total", "reason", reason); got != 1 {
			t.Errorf("%v failed for %s, want 1", got, reason)
		}
	}
	bearer := func(token []byte, want int) {
		t.Helper()
		req, err := http.NewRequest("GET", "http://"+s.ready.HTTP+"/v1/policy", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
		res, err := looker.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("GET by a token: %s, want %d", res.Status, want)
		}
	}
	bearer(ana, 200)
	bearer(m.make("bob", "1h"), 403)
	bearer(other.make("ana", "1h"), 401)

	long := s.open(v5, mq.Connect{ClientID: "long", Clean: true, Password: m.make("bob", "3h")})
	s.advance(time.Hour + 29*time.Second)
	c.Publish("t/x", 1, "with the leeway")
	c.ReceiveText("t/x", "with the leeway")
	s.advance(time.Second)
	c.ClosedWith(0xA0)
	if p, err := named.Read(mq.Patience); err == nil {
		t.Errorf("a client of 3.1.1 whose token has expired gets %v", p)
	}
	long.Publish("t/x", 1, "goes on")

	verify := func(token []byte, want int, text string, more ...string) {
		t.Helper()
		out, errs, code := runWith(t, string(token)+"\n", append([]string{"token", "verify", "--policy", policy, "--domain", "example.com", "--at", tokenStart}, more...)...)
		if code != want || !strings.Contains(out, text) {
			t.Errorf("verify: exit code %d, want %d\n%s%s", code, want, out, errs)
		}
	}
	verify(ana, 0, "ana@example.com")
	verify(ana, 4, "jwt_expired", "--at", "2026-03-09T13:00:30Z")
	verify(ana, 4, "other_principal", "--user", "bob")
	verify(other.make("ana", "1h"), 4, "jwt_key")
	verify([]byte("hunter2"), 4, "jwt_malformed")
	out, _, _ := runWith(t, string(ana), "token", "verify", "--policy", policy, "--domain", "example.com", "--at", tokenStart, "-o", "json")
	var said struct {
		Allow     bool
		Principal string
		Until     time.Time
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || !said.Allow || said.Principal != "ana@example.com" || said.Until.UTC().Format(time.RFC3339) != "2026-03-09T13:00:30Z" {
		t.Errorf("%s: %v", out, err)
	}

	if err := os.WriteFile(policy, []byte(m.policy(", except: [bob@example.com]")+users), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	long.ClosedWith(0x87)
	if _, p, err := mq.DialConnect(s.ready.MQTT, v5, mq.Connect{Clean: true, Password: m.make("bob", "3h")}); err != nil || p.Code != 0x86 {
		t.Errorf("who may no longer be proved: %v, %v", p, err)
	}
}

// Where an issuer's keys cannot be had, a client is told to try again, whoever it is; with
// passwords people sign in meanwhile.
func TestKeysThatCannotBeHad(t *testing.T) {
	t.Parallel()
	m := newTokenMaker(t)
	text := strings.Replace(m.policy(""), m.keys(), filepath.Join(m.dir, "missing.json"), 1)
	s := serve(t, "--test-clock", tokenStart, "--policy", writeFile(t, "policy.yaml", text+"users:\n  bob: {password_hash: \""+made(t, "hunter2", "user", "hash")+"\"}\n"))
	conn, p, err := mq.DialConnect(s.ready.MQTT, v5, mq.Connect{Clean: true, Password: m.make("ana", "1h")})
	if err != nil || p.Code != 0x88 {
		t.Fatalf("%v, %v", p, err)
	}
	conn.Close()
	s.open(v5, mq.Connect{ClientID: "bob", Clean: true, User: "bob", Password: []byte("hunter2")}).Publish("t/x", 1, "x")
	if !strings.Contains(s.logs.String(), "missing.json") {
		t.Error("the log does not say which keys are missing")
	}
}
