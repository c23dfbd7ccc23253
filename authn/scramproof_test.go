package authn

import (
	"strings"
	"testing"
)

// A client's proof is taken by the server's side, and the server's by it; also where names
// and passwords are prepared (RFC 4013) or escaped.
func TestScramProofs(t *testing.T) {
	p := verified(t)
	for _, c := range []struct {
		user, password string
		proved         bool
	}{
		{"ana", "pencil", true},
		{"ANA@example.com", "pen\u00adcil", true}, // a soft hyphen is nothing
		{"ana", "Pencil", false},
		{"bo", "pencil", false},
		{"a=n,a", "pencil", false},
	} {
		server := NewScram(lookup(p))
		client, err := NewScramProof(c.user, c.password)
		if err != nil {
			t.Fatal(err)
		}
		var answer []byte
		done := false
		for !done && err == nil {
			var message []byte
			if message, err = client.Step(answer); err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			answer, done, err = server.Step(message)
		}
		if done {
			_, err = client.Step(answer)
		}
		if (err == nil) != c.proved || client.Proved() != c.proved {
			t.Errorf("%+v: %v, proved %v", c, err, client.Proved())
		}
	}
	if _, err := NewScramProof("ana", "a\x07b"); err == nil {
		t.Error("a password with a bell is taken")
	}
}

// A server that is none, or another than it says, proves nothing, and cannot have a client
// hash for ever.
func TestScramProofIsStrict(t *testing.T) {
	for _, c := range []struct{ first, final string }{
		{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=4096", "v=" + strings.Repeat("A", 43) + "="},
		{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=4096", "e=invalid-proof"},
		{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=4095", ""},
		{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=10000001", ""},
		{"r=NONCEx,s=QSXCR+Q6sek8bf92,i=99999999999999999999", ""},
		{"r=another,s=QSXCR+Q6sek8bf92,i=4096", ""},
		{"r=NONCEx,s=!,i=4096", ""},
		{"r=NONCEx," + strings.Repeat("x", scramMessage), ""},
		{"", ""},
		{"v=AAAA", ""},
	} {
		client, err := NewScramProof("ana", "pencil")
		if err != nil {
			t.Fatal(err)
		}
		first, err := client.Step(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, nonce, _ := strings.Cut(string(first), "r=")
		_, err = client.Step([]byte(strings.Replace(c.first, "NONCE", nonce, 1)))
		if err == nil && c.final != "" {
			_, err = client.Step([]byte(c.final))
		}
		if err == nil || client.Proved() {
			t.Errorf("%.60q, %.20q: %v, proved %v", c.first, c.final, err, client.Proved())
		}
		if _, err := client.Step([]byte(c.final)); err == nil && client.Proved() {
			t.Errorf("%.60q: proved after all", c.first)
		}
	}
}
