package acl

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/bellwire/bellwire/internal/bubble"
)

// cheap returns a PHC string with a cost that a test can afford.
func cheap(password string) string {
	salt := []byte("saltsalt")
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=8,t=1,p=1$%s$%s", b64(salt), b64(argon2.IDKey([]byte(password), salt, 1, 8, 1, 32)))
}

// Who shows the right password or token is the principal, however his name is
// written; all others are refused alike.
func TestAuthenticate(t *testing.T) {
	p := mustParse(t, fmt.Sprintf(`
users:
  ana: {password_hash: %q}
  thermo-17@plant.example: {token_sha256: %s}
  sam: {scram_sha256: %q}
`, cheap("hunter2"), HashToken([]byte("bw_dev_x")), verifierOf("saltsaltsaltsalt", 4096).String()))
	gate := NewGate(2, 2)
	for _, c := range []struct {
		user, password, want string
		err                  error
	}{
		{"ana", "hunter2", "ana@example.com", nil},
		{"ANA@Example.com", "hunter2", "ana@example.com", nil},
		{"thermo-17@plant.example", "bw_dev_x", "thermo-17@plant.example", nil},
		{"ana", "hunter3", "", ErrBadPassword},
		{"ana", "", "", ErrBadPassword},
		{"thermo-17@plant.example", "bw_dev_y", "", ErrBadToken},
		{"thermo-17", "bw_dev_x", "", ErrUnknownUser},
		{"ana@plant.example", "hunter2", "", ErrUnknownUser},
		{"sam", "hunter2", "", ErrUnknownUser}, // who signs in otherwise
		{"", "hunter2", "", ErrUnknownUser},
		{"not an address", "hunter2", "", ErrUnknownUser},
	} {
		got, err := p.Authenticate(context.Background(), gate, c.user, []byte(c.password))
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q with %q: %q, %v, want %q, %v", c.user, c.password, got, err, c.want, c.err)
		}
		if c.err != nil && !errors.Is(err, ErrCredentials) {
			t.Errorf("%q with %q: %v is not ErrCredentials", c.user, c.password, err)
		}
	}
}

// A refusal costs the same hash whoever is named: an unknown name, a device, a wrong
// password; what has the form of a token costs none, whoever is named, nor does anything
// where nobody has a password.
func TestUnknownUserCostsAHash(t *testing.T) {
	people := mustParse(t, fmt.Sprintf("users:\n  ana: {password_hash: %q}\n  thermo: {token_sha256: %s}\n", cheap("hunter2"), HashToken([]byte("x"))))
	devices := mustParse(t, fmt.Sprintf("users:\n  thermo: {token_sha256: %s}\n", HashToken([]byte("x"))))
	gate := NewGate(1, 0)
	const guess, token = "wrong", "bw_dev_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, c := range []struct {
		policy      *Policy
		user, shows string
		want        uint64
	}{
		{people, "ana", guess, 1},
		{people, "nobody", guess, 1},
		{people, "no address", guess, 1},
		{people, "thermo", guess, 1},
		{people, "ana", token, 0},
		{people, "nobody", token, 0},
		{people, "no address", token, 0},
		{people, "thermo", token, 0},
		{devices, "nobody", guess, 0},
		{devices, "thermo", guess, 0},
		{people, "thermo", "x", 0},
	} {
		before, _, _ := gate.Counts()
		if _, err := c.policy.Authenticate(context.Background(), gate, c.user, []byte(c.shows)); (c.shows == "x") != (err == nil) || err != nil && !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %v", c.user, err)
		}
		if after, _, _ := gate.Counts(); after-before != c.want {
			t.Errorf("%s: %d hashes, want %d", c.user, after-before, c.want)
		}
	}
	if got, want := people.decoy.cost, (cost{memory: 8, passes: 1, threads: 1}); got != want {
		t.Errorf("an unknown user costs %+v, a known one %+v", got, want)
	}
}

// Who finds all places taken waits for one; who finds no room to wait is sent
// away; who gives up waiting leaves the room.
func TestGate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		gate := NewGate(1, 1)
		gate.slots <- struct{}{} // somebody's password is being hashed
		hash, err := parsePHC(cheap("hunter2"))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error)
		wait := func(ctx context.Context) {
			_, err := gate.verify(ctx, hash, []byte("hunter2"))
			got <- err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		go wait(ctx)
		synctest.Wait()
		if _, err := gate.verify(context.Background(), hash, nil); !errors.Is(err, ErrBusy) {
			t.Errorf("a third one: %v, want ErrBusy", err)
		}
		if hashed, refused, waiting := gate.Counts(); hashed != 0 || refused != 1 || waiting != 1 {
			t.Errorf("hashed %d, refused %d, waiting %d, want 0, 1, 1", hashed, refused, waiting)
		}
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waited too long: %v", err)
		}
		go wait(context.Background())
		synctest.Wait()
		<-gate.slots // done
		if err := <-got; err != nil {
			t.Errorf("who waited: %v", err)
		}
		if hashed, refused, waiting := gate.Counts(); hashed != 1 || refused != 1 || waiting != 0 {
			t.Errorf("hashed %d, refused %d, waiting %d, want 1, 1, 0", hashed, refused, waiting)
		}
	})
}

// HashPassword makes what parsePHC reads, with a salt of its own each time.
func TestHashPassword(t *testing.T) {
	random := bytes.NewReader([]byte(strings.Repeat("a", 16) + strings.Repeat("b", 16) + "short"))
	one, err := HashPassword([]byte("hunter2"), random)
	if err != nil {
		t.Fatal(err)
	}
	other, err := HashPassword([]byte("hunter2"), random)
	if err != nil || one == other {
		t.Errorf("twice the same: %s, %v", one, err)
	}
	hash, err := parsePHC(one)
	if err != nil || hash.cost != defaultCost {
		t.Fatalf("%s: %+v, %v", one, hash, err)
	}
	if ok, err := NewGate(1, 0).verify(context.Background(), hash, []byte("hunter2")); !ok || err != nil {
		t.Errorf("%s does not prove hunter2: %v", one, err)
	}
	if _, err := HashPassword([]byte("hunter2"), random); err == nil {
		t.Error("a hash without a whole salt")
	}
}

// What is no argon2id hash, or asks too much, is refused, and not repeated.
func TestParsePHC(t *testing.T) {
	const salt, hash = "c2FsdHNhbHQ", "aGFzaGhhc2hoYXNoaGFzaA"
	for _, c := range []struct{ phc, want string }{
		{"", "want $argon2id"},
		{"hunter2", "want $argon2id"},
		{"$2b$12$abcdefghijklmnopqrstuv", "want $argon2id"},
		{"$argon2i$v=19$m=8,t=1,p=1$" + salt + "$" + hash, "another algorithm"},
		{"$argon2id$v=16$m=8,t=1,p=1$" + salt + "$" + hash, "another version"},
		{"$argon2id$v=19$t=1,m=8,p=1$" + salt + "$" + hash, "want m="},
		{"$argon2id$v=19$m=8,t=1$" + salt + "$" + hash, "want m="},
		{"$argon2id$v=19$m=08,t=1,p=1$" + salt + "$" + hash, "want m="},
		{"$argon2id$v=19$m=8,t=0,p=1$" + salt + "$" + hash, "want m="},
		{"$argon2id$v=19$m=99999999999,t=1,p=1$" + salt + "$" + hash, "want m="},
		{"$argon2id$v=19$m=262145,t=1,p=1$" + salt + "$" + hash, "at most m=262144"},
		{"$argon2id$v=19$m=8,t=17,p=1$" + salt + "$" + hash, "at most m=262144, t=16"},
		{"$argon2id$v=19$m=72,t=1,p=9$" + salt + "$" + hash, "p=8"},
		{"$argon2id$v=19$m=15,t=1,p=2$" + salt + "$" + hash, "at least 8 times p"},
		{"$argon2id$v=19$m=8,t=1,p=1$" + salt + "=$" + hash, "base64 without padding"},
		{"$argon2id$v=19$m=8,t=1,p=1$c2FsdA$" + hash, "a salt of 4 bytes"},
		{"$argon2id$v=19$m=8,t=1,p=1$" + salt + "$c2FsdA", "a hash of 4 bytes"},
		{"$argon2id$v=19$m=8,t=1,p=1$" + salt + "$" + hash + "$", "want $argon2id"},
	} {
		_, err := parsePHC(c.phc)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v does not say %q", c.phc, err, c.want)
		}
		if err != nil && c.phc != "" && strings.Contains(err.Error(), hash) {
			t.Errorf("%q is repeated: %v", c.phc, err)
		}
	}
	if _, err := parsePHC("$argon2id$v=19$m=8,t=1,p=1$" + salt + "$" + hash); err != nil {
		t.Error(err)
	}
}

// Faults show the lines they stand in without the secrets in them.
func TestReportHidesSecrets(t *testing.T) {
	hash := cheap("hunter2")
	token := HashToken([]byte("x"))
	_, err := Parse("policy.yaml", []byte(`users:
  ana: {pasword: hunter2}
  bo: {password_hash: "`+hash+`", x: y}
  cy: {"token_sha256" : `+token+`, x: y}
  di: `+hash+`
  ed: [`+token+`]
  fy: {PASSWORD: 'hunter2', x: y}
  gi:
    pw: >
      hunter2
    x: y
  hy: hunter2
`), "example.com")
	e, ok := errors.AsType[*FileError](err)
	if !ok {
		t.Fatalf("accepted: %v", err)
	}
	report := e.Report() + e.Error()
	for _, s := range []string{"hunter2", token, hash[30:]} {
		if strings.Contains(report, s) {
			t.Errorf("shows %s:\n%s", s, report)
		}
	}
	above := ""
	for line := range strings.Lines(e.Report()) {
		if strings.TrimSpace(line) == "^" && utf8.RuneCountInString(line) > utf8.RuneCountInString(above) {
			t.Errorf("the caret points past what is shown:\n%s%s", above, line)
		}
		above = line
	}
	if len(e.Faults) < 6 {
		t.Errorf("only %d faults:\n%s", len(e.Faults), report)
	}
}

func BenchmarkAuthenticateToken(b *testing.B) {
	p := mustParse(b, fmt.Sprintf("users:\n  thermo: {token_sha256: %s}\n", HashToken([]byte("bw_dev_x"))))
	gate := NewGate(1, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Authenticate(context.Background(), gate, "thermo@example.com", []byte("bw_dev_x")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAuthenticatePassword(b *testing.B) {
	phc, err := HashPassword([]byte("hunter2"), strings.NewReader(strings.Repeat("a", 16)))
	if err != nil {
		b.Fatal(err)
	}
	p := mustParse(b, fmt.Sprintf("users:\n  ana: {password_hash: %q}\n", phc))
	gate := NewGate(1, 0)
	for b.Loop() {
		if _, err := p.Authenticate(context.Background(), gate, "ana@example.com", []byte("hunter2")); err != nil {
			b.Fatal(err)
		}
	}
}
