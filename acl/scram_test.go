package acl

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func verifierOf(salt string, iterations int) Verifier {
	return Verifier{Salt: []byte(salt), Iterations: iterations, StoredKey: bytes.Repeat([]byte("s"), 32), ServerKey: bytes.Repeat([]byte("v"), 32)}
}

// A verifier is read as it was written, and nothing else is.
func TestParseVerifier(t *testing.T) {
	want := verifierOf("saltsaltsaltsalt", 15000)
	got, err := ParseVerifier(want.String())
	if err != nil || got.String() != want.String() {
		t.Fatalf("%s: %v, %v", want, got, err)
	}
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), n)) }
	for _, c := range []struct{ text, want string }{
		{"", "want SCRAM-SHA-256$"},
		{"pencil", "want SCRAM-SHA-256$"},
		{"SCRAM-SHA-1$4096:" + b64(16) + "$" + b64(20) + ":" + b64(20), "another mechanism"},
		{"SCRAM-SHA-256$4095:" + b64(16) + "$" + b64(32) + ":" + b64(32), "4096 to"},
		{"SCRAM-SHA-256$10000001:" + b64(16) + "$" + b64(32) + ":" + b64(32), "4096 to"},
		{"SCRAM-SHA-256$04096:" + b64(16) + "$" + b64(32) + ":" + b64(32), "4096 to"},
		{"SCRAM-SHA-256$+4096:" + b64(16) + "$" + b64(32) + ":" + b64(32), "4096 to"},
		{"SCRAM-SHA-256$4096:" + b64(7) + "$" + b64(32) + ":" + b64(32), "a salt of 7 bytes"},
		{"SCRAM-SHA-256$4096:" + b64(65) + "$" + b64(32) + ":" + b64(32), "a salt of 65 bytes"},
		{"SCRAM-SHA-256$4096:" + b64(16) + "$" + b64(31) + ":" + b64(32), "31 and 32 bytes"},
		{"SCRAM-SHA-256$4096:" + b64(16) + "$" + b64(32) + ":" + b64(33), "32 and 33 bytes"},
		{"SCRAM-SHA-256$4096:!!$" + b64(32) + ":" + b64(32), "not base64"},
		{"SCRAM-SHA-256$4096:" + b64(16) + ":" + b64(32) + "$" + b64(32), "want SCRAM-SHA-256$"},
		{"SCRAM-SHA-256$4096:" + b64(16) + "$" + b64(32) + ":" + b64(32) + "$", "want SCRAM-SHA-256$"},
	} {
		_, err := ParseVerifier(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v does not say %q", c.text, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), b64(32)) {
			t.Errorf("%q is repeated: %v", c.text, err)
		}
	}
}

// A verifier may be alone or beside a password or token; alone, no password proves
// anything. Another one is another credential.
func TestScramBesideOthers(t *testing.T) {
	v := verifierOf("saltsaltsaltsalt", 4096).String()
	file := "users:\n  ana: {scram_sha256: %q}\n  bo: {scram_sha256: %q, password_hash: %q}\n  cy: {scram_sha256: %q, token_sha256: %s}\n"
	p := mustParse(t, fmt.Sprintf(file, v, v, cheap("hunter2"), v, HashToken([]byte("x"))))
	gate := NewGate(1, 1)
	for user, right := range map[string]string{"ana": "", "bo": "hunter2", "cy": "x"} {
		if principal, _, known := p.Verifier(user, nil); !known || principal != user+"@example.com" {
			t.Errorf("%s proves %s, %v", user, principal, known)
		}
		for _, password := range []string{"hunter2", "x", "", strings.Repeat("\x00", 32)} {
			_, err := p.Authenticate(context.Background(), gate, user, []byte(password))
			if (err == nil) != (right != "" && password == right) || err != nil && !errors.Is(err, ErrCredentials) {
				t.Errorf("%s with %q: %v", user, password, err)
			}
		}
	}
	other := mustParse(t, fmt.Sprintf(file, v, verifierOf("tlastlastlastlas", 4096).String(), cheap("hunter2"), v, HashToken([]byte("x"))))
	if p.Credential("bo@example.com", "") == other.Credential("bo@example.com", "") || p.Credential("ana@example.com", "") != other.Credential("ana@example.com", "") {
		t.Error("credentials: bo's has changed, and ana's has not")
	}
	if p.Verifier("bo", nil); !p.HasScram() || mustParse(t, "users: {}").HasScram() {
		t.Error("HasScram is wrong")
	}
}

// What is made up has the form that most have.
func TestMadeUpVerifier(t *testing.T) {
	file := "users:\n"
	for i, f := range []struct {
		salt string
		n    int
	}{{"12345678", 5000}, {"12345678", 5000}, {"1234567890", 9000}} {
		file += fmt.Sprintf("  u%d: {scram_sha256: %q}\n", i, verifierOf(f.salt, f.n))
	}
	p := mustParse(t, file)
	_, v, known := p.Verifier("nobody", []byte("key"))
	if known || v.Iterations != 5000 || len(v.Salt) != 8 {
		t.Errorf("%v, known %v, want the form of u0 and u1", v, known)
	}
	if _, again, _ := p.Verifier("Nobody@EXAMPLE.com", []byte("key")); again.String() != v.String() {
		t.Errorf("%v, and by another spelling %v", v, again)
	}
	if _, other, _ := p.Verifier("nobody2", []byte("key")); bytes.Equal(other.Salt, v.Salt) {
		t.Error("two names have one salt")
	}
}

// Tokens that were made here are known by their form, and only they.
func TestIsToken(t *testing.T) {
	token, err := NewToken(strings.NewReader(strings.Repeat("x", 32)))
	if err != nil || !IsToken([]byte(token)) {
		t.Fatalf("%s, %v", token, err)
	}
	for _, not := range []string{"", "bw_dev_", token[1:], token + "A", token[:len(token)-1], token[:len(token)-1] + "="} {
		if IsToken([]byte(not)) {
			t.Errorf("%q is a token", not)
		}
	}
}
