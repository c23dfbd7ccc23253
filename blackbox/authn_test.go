package blackbox

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// made is what a verb prints that makes something of input.
func made(t testing.TB, input string, args ...string) string {
	t.Helper()
	out, errs, code := runWith(t, input, args...)
	if code != 0 {
		t.Fatalf("%v: exit code %d: %s", args, code, errs)
	}
	return strings.TrimSpace(out)
}

// proves opens a connection by SCRAM and says how that ended.
func (s *server) proves(user, password string, m mq.Connect) (*mq.Conn, string) {
	s.t.Helper()
	c, err := mq.DialConn(s.ready.MQTT, v5, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	p, err := c.Authenticate(m, &mq.Scram{User: user, Password: password}, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return c, fmt.Sprintf("%v %02x", p.Type, p.Code)
}

// A password is proved by SCRAM-SHA-256 and never sent, on any connection as often as
// the client likes; a wrong proof is refused with 0x86, alike whether there is such a
// user, after a restart too; the operator sees why; who is no more a user is gone
// (REQUIREMENTS S84, SCRAM).
//
// MQTT 5: 4.12.0-2, 4.12.0-4, 3.1.4-2.
// Item 6.
func TestScramSignsIn(t *testing.T) {
	t.Parallel()
	file := func(ana string) string {
		return fmt.Sprintf("users:\n%s  bo: {scram_sha256: %q}\nrules:\n  - {id: all, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"t/#\"]}\n",
			ana, made(t, "pencil\n", "user", "hash", "--scram", "--iterations", "4096"))
	}
	policy := writeFile(t, "policy.yaml", file(fmt.Sprintf("  ana: {scram_sha256: %q}\n", made(t, "pencil", "user", "hash", "--scram", "--iterations", "4096"))))
	s := serve(t, "--policy", policy)
	c, how := s.proves("ana", "pencil", clean("ana"))
	if how != "CONNACK 00" {
		t.Fatal(how)
	}
	ana := mq.Wrap(t, c)
	ana.Subscribe("t/#", 1)
	ana.Publish("t/x", 1, "hello")
	ana.ReceiveText("t/x", "hello")
	if p, err := c.Authenticate(mq.Connect{}, &mq.Scram{User: "ana", Password: "pencil"}, true); err != nil || p.Type != mq.AUTH || p.Code != 0 {
		t.Errorf("again: %v, %v", p, err)
	}
	ana.Publish("t/x", 1, "after")
	ana.ReceiveText("t/x", "after")

	salts := func() (salts []string) {
		for _, user := range []string{"ana", "nobody"} {
			for _, password := range []string{"a", "b"} {
				if _, how := s.proves(user, password, clean("")); how != "CONNACK 86" {
					t.Errorf("%s with a wrong password: %s", user, how)
				}
			}
			salts = append(salts, s.salt(user))
		}
		return salts
	}
	before := salts()
	for reason, want := range map[string]float64{"wrong_proof": 2, "unknown_user": 2} {
		if got := s.metric("bellwire_logins_failed_total", "reason", reason); got != want {
			t.Errorf("%v failed for %s, want %v", got, reason, want)
		}
	}
	if !strings.Contains(s.logs.String(), "wrong_proof") {
		t.Error("the log does not say that a proof was wrong")
	}
	s.kill()
	s.start()
	if after := salts(); !slices.Equal(before, after) || before[0] == before[1] {
		t.Errorf("salts %v, and after a restart %v", before, after)
	}

	c, how = s.proves("ana", "pencil", clean("ana"))
	if how != "CONNACK 00" {
		t.Fatal(how)
	}
	if err := os.WriteFile(policy, []byte(file("")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	mq.Wrap(t, c).ClosedWith(0x87)
	if _, how := s.proves("ana", "pencil", clean("")); how != "CONNACK 86" {
		t.Errorf("who is no more a user: %s", how)
	}
}

// salt is what a user is told who begins to sign in.
func (s *server) salt(user string) string {
	s.t.Helper()
	c := mq.Scram{User: user}
	conn, p, err := mq.DialAuth(s.ready.MQTT, mq.Connect{Clean: true, Properties: mq.Properties{mq.Text(mq.PropAuthMethod, "SCRAM-SHA-256"), mq.Binary(mq.PropAuthData, c.First())}})
	if err != nil {
		s.t.Fatal(err)
	}
	conn.Close()
	_, rest, _ := strings.Cut(p.Properties.Text(mq.PropAuthData), ",")
	return rest
}

// Nobody can tell by the time that a refusal takes whether there is such a user, by any
// way to sign in: as who has a password, has a token, or a verifier, or nothing. Hashes
// are cheap here, so that what is to be found is not hidden behind them. Bounds are as
// for TestNobodyCanTellByTime.
func TestNobodyCanTellWhoExists(t *testing.T) {
	probes, bound := effort.Rounds(600, 10_000), 0.24
	if effort.Soaking() {
		bound = 0.05
	}
	salt := []byte("saltsaltsaltsalt")
	b64 := base64.RawStdEncoding.EncodeToString
	password := fmt.Sprintf("$argon2id$v=19$m=1024,t=1,p=1$%s$%s", b64(salt), b64(argon2.IDKey([]byte("right"), salt, 1, 1024, 1, 32)))
	verifier := made(t, "right", "user", "hash", "--scram", "--iterations", "4096")
	s := serve(t, "--policy", writeFile(t, "policy.yaml", fmt.Sprintf("users:\n  person: {password_hash: %q}\n  device: {token_sha256: %s}\n  prover: {scram_sha256: %q}\n",
		password, hashOf("right"), verifier)))
	users := []class{{name: "person"}, {name: "device"}, {name: "prover"}, {name: "nobody"}}
	plainly := func(password string) func(user string) {
		return func(user string) {
			c, p, err := mq.DialConnect(s.ready.MQTT, v5, mq.Connect{Clean: true, User: user, Password: []byte(password)})
			if err != nil || p.Code != 0x86 {
				t.Fatalf("%s: %v, %v", user, p, err)
			}
			c.Close()
		}
	}
	for _, way := range []struct {
		name string
		try  func(user string)
	}{
		{"a password", plainly("wrong")},
		{"a token", plainly("bw_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")},
		{"the first message", func(user string) { s.salt(user) }},
		{"a proof", func(user string) {
			c, p, err := s.wrongProof(user)
			if err != nil || p.Code != 0x86 {
				t.Fatalf("%s: %v, %v", user, p, err)
			}
			c.Close()
		}},
	} {
		took := stopwatch{}
		var all []string
		for _, u := range users {
			all = append(all, slices.Repeat([]string{u.name}, probes)...)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, user := range all {
			began := time.Now()
			way.try(user)
			took[user] = append(took[user], time.Since(began))
		}
		d, between := took.distance(users)
		t.Logf("%s: %d probes of each, at most %.3f apart (%s)", way.name, probes, d, between)
		if d > bound {
			t.Errorf("by %s %s are %.3f apart, want at most %.2f", way.name, between, d, bound)
		}
	}
}

// wrongProof signs in as user with a proof of nothing, without the time that it takes to
// compute one.
func (s *server) wrongProof(user string) (*mq.Conn, *mq.Packet, error) {
	m := mq.Scram{User: user}
	method := mq.Text(mq.PropAuthMethod, "SCRAM-SHA-256")
	c, p, err := mq.DialAuth(s.ready.MQTT, mq.Connect{Clean: true, Properties: mq.Properties{method, mq.Binary(mq.PropAuthData, m.First())}})
	if err != nil {
		return nil, nil, err
	}
	nonce, _, _ := strings.Cut(p.Properties.Text(mq.PropAuthData), ",")
	proof := "c=biws," + nonce + ",p=" + strings.Repeat("A", 43) + "="
	if err := c.Write(mq.Reason{Type: mq.AUTH, Code: 0x18, Properties: mq.Properties{method, mq.Binary(mq.PropAuthData, []byte(proof))}}); err != nil {
		return nil, nil, err
	}
	p, err = c.Read(mq.Patience)
	return c, p, err
}
