package authn

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/acl"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// verified is a policy in which ana proves "pencil" by SCRAM, and bo has a token alone.
func verified(t testing.TB) *acl.Policy {
	t.Helper()
	v, err := HashScram([]byte("pencil"), acl.MinIterations, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := acl.Parse("policy.yaml", fmt.Appendf(nil, "users:\n  ana: {scram_sha256: %q}\n  bo: {token_sha256: %s}\n", v, acl.HashToken([]byte("x"))), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func lookup(p *acl.Policy) Lookup {
	return func(name string) (string, acl.Verifier, bool) { return p.Verifier(name, []byte("key")) }
}

// Who knows the password proves it, and is shown that the server knows the verifier;
// also one who is asked for the first message first.
func TestScramProves(t *testing.T) {
	p := verified(t)
	for _, user := range []string{"ana", "ANA@Example.com"} {
		e, c := NewScram(lookup(p)), mq.Scram{User: user, Password: "pencil"}
		if answer, done, err := e.Step(nil); len(answer) != 0 || done || err != nil {
			t.Fatalf("to begin with: %q, %v, %v", answer, done, err)
		}
		if e.User() != "" {
			t.Errorf("user %q before the first message", e.User())
		}
		first, done, err := e.Step(c.First())
		if done || err != nil || e.User() != user {
			t.Fatalf("first: %v, %v, user %q", done, err, e.User())
		}
		proof, err := c.Final(first)
		if err != nil {
			t.Fatal(err)
		}
		final, done, err := e.Step(proof)
		if !done || err != nil || e.Principal() != "ana@example.com" {
			t.Fatalf("final: %v, %v, %q", done, err, e.Principal())
		}
		if err := c.Check(final); err != nil {
			t.Error(err)
		}
		if _, done, err := e.Step(proof); done || err == nil {
			t.Error("the same proof again is accepted")
		}
	}
}

// Who does not exist, who has something else to prove and who has a verifier are
// answered alike, each time alike; a wrong proof is refused, and the operator told why.
func TestScramTellsNotWhoExists(t *testing.T) {
	p := verified(t)
	salts := map[string]string{}
	for _, c := range []struct{ user, reason string }{{"ana", "wrong_proof"}, {"bo", "unknown_user"}, {"nobody", "unknown_user"}, {"not an address", "unknown_user"}} {
		for range 2 {
			e, client := NewScram(lookup(p)), mq.Scram{User: c.user, Password: "guess"}
			first, _, err := e.Step(client.First())
			if err != nil {
				t.Fatal(err)
			}
			_, form, _ := strings.Cut(string(first), ",s=")
			if len(form) != len("bm9ib2R5bm9ib2R5bm9ibw==,i=4096") || !strings.HasSuffix(form, ",i=4096") {
				t.Errorf("%s: salt and iterations %q", c.user, form)
			}
			if was, again := salts[c.user]; again && was != form {
				t.Errorf("%s: %q, and then %q", c.user, was, form)
			}
			salts[c.user] = form
			proof, err := client.Final(first)
			if err != nil {
				t.Fatal(err)
			}
			answer, done, err := e.Step(proof)
			if r, ok := errors.AsType[*Refusal](err); !ok || r.LoginReason() != c.reason || done || answer != nil {
				t.Errorf("%s: %q, %v, %v, want %s", c.user, answer, done, err, c.reason)
			}
		}
	}
	for user, salt := range salts {
		for other, same := range salts {
			if user != other && salt == same {
				t.Errorf("%s and %s have one salt", user, other)
			}
		}
	}
	if _, v, _ := p.Verifier("nobody", []byte("another key")); strings.Contains(v.String(), strings.TrimSuffix(salts["nobody"], ",i=4096")) {
		t.Error("another cluster makes up the same salt")
	}
}

// What is not the message that is expected ends the exchange, in each of its states.
func TestScramIsStrict(t *testing.T) {
	p := verified(t)
	proofOf := func(first []byte) string {
		c := mq.Scram{User: "ana", Password: "pencil", Nonce: "abc"}
		c.First()
		proof, err := c.Final(first)
		if err != nil {
			t.Fatal(err)
		}
		return string(proof)
	}
	for _, first := range []string{
		"x", ",,,", "n,,n=ana", "n,,r=abc,n=ana", "n,,m=ext,n=ana,r=abc", "n,,n=a=na,r=abc", "n,x,n=ana,r=abc", "q,,n=ana,r=abc",
		"p=tls-exporter,,n=ana,r=abc", "p=tls-nothing,,n=ana,r=abc", "n,a=bo,n=ana,r=abc", "\xff\xfe", strings.Repeat("n", 1<<16),
		"n,,n=" + strings.Repeat("a", 5000) + ",r=abc",
	} {
		e := NewScram(lookup(p))
		if answer, done, err := e.Step([]byte(first)); done || err == nil || answer != nil {
			t.Errorf("%.40q: %q, %v, %v", first, answer, done, err)
		}
		if _, done, err := e.Step([]byte("n,,n=ana,r=abc")); done || err == nil {
			t.Errorf("%.40q: it goes on", first)
		}
	}
	for _, change := range []func(proof string) string{
		func(string) string { return "" },
		func(string) string { return "n,,n=ana,r=abc" },
		func(p string) string { return strings.Replace(p, "c=biws", "c=eSws", 1) }, // y,,: the header was n,,
		func(p string) string { return strings.Replace(p, ",r=abc", ",r=abcd", 1) },
		func(p string) string { return strings.Replace(p, ",r=abc", ",r=", 1) },
		func(p string) string { return p[:strings.Index(p, ",p=")] },
		func(p string) string { return p[:strings.Index(p, ",p=")] + ",p=AAAA" },
		func(p string) string { return p[:strings.Index(p, ",p=")] + ",p=!!" },
		func(p string) string { return p[:strings.Index(p, ",p=")] + ",p=" + strings.Repeat("A", 43) + "=" },
		func(p string) string { return p + ",x=1" },
		func(p string) string { return p[:strings.Index(p, ",p=")] + ",x=1" + p[strings.Index(p, ",p="):] }, // is not what was signed
	} {
		e := NewScram(lookup(p))
		first, _, err := e.Step([]byte("n,,n=ana,r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		message := change(proofOf(first))
		if answer, done, err := e.Step([]byte(message)); done || err == nil || answer != nil {
			t.Errorf("%q: %q, %v, %v", message, answer, done, err)
		}
	}
}

// A proof is of one exchange: another one does not take it.
func TestScramProofIsNotReplayed(t *testing.T) {
	p := verified(t)
	c := mq.Scram{User: "ana", Password: "pencil"}
	one, other := NewScram(lookup(p)), NewScram(lookup(p))
	first, _, _ := one.Step(c.First())
	proof, err := c.Final(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := other.Step(c.First()); err != nil {
		t.Fatal(err)
	}
	if _, done, err := other.Step(proof); done || err == nil {
		t.Error("a proof of another exchange is accepted")
	}
	if _, done, err := one.Step(proof); !done || err != nil {
		t.Errorf("its own: %v, %v", done, err)
	}
}

// What HashScram makes is read by acl, has a salt of its own each time, and is refused
// where it cannot be made.
func TestHashScram(t *testing.T) {
	random := bytes.NewReader([]byte(strings.Repeat("a", 16) + strings.Repeat("b", 16) + "short"))
	one, err1 := HashScram([]byte("pencil"), 4096, random)
	two, err2 := HashScram([]byte("pencil"), 4096, random)
	if err1 != nil || err2 != nil || one == two {
		t.Errorf("%s, %v; %s, %v", one, err1, two, err2)
	}
	if v, err := acl.ParseVerifier(one); err != nil || v.Iterations != 4096 || string(v.Salt) != strings.Repeat("a", 16) {
		t.Errorf("%s: %v, %v", one, v, err)
	}
	for name, f := range map[string]func() (string, error){
		"a short salt":         func() (string, error) { return HashScram([]byte("pencil"), 4096, random) },
		"few iterations":       func() (string, error) { return HashScram([]byte("pencil"), 4095, rand.Reader) },
		"many iterations":      func() (string, error) { return HashScram([]byte("pencil"), acl.MaxIterations+1, rand.Reader) },
		"a control character":  func() (string, error) { return HashScram([]byte("pen\x07cil"), 4096, rand.Reader) },
		"a character unwanted": func() (string, error) { return HashScram([]byte("pen\u202ecil"), 4096, rand.Reader) },
	} {
		if s, err := f(); err == nil {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// Whatever a client sends, it proves nobody but by the one proof that it can compute.
func FuzzScram(f *testing.F) {
	p := verified(f)
	f.Add([]byte("n,,n=ana,r=abc"), []byte("c=biws,r=abc,p=AAAA"))
	f.Add([]byte("y,a=ana,n=ana,r=abc,x=1"), []byte("c=eSws,r=abc,x=,p=="))
	f.Add([]byte(""), []byte(""))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		e := NewScram(lookup(p))
		for i, message := range [][]byte{first, second, second} {
			answer, done, err := e.Step(message)
			if done || err != nil && answer != nil {
				t.Fatalf("step %d, %q: %q, %v, %v", i, message, answer, done, err)
			}
			if err != nil {
				if _, ok := errors.AsType[*Refusal](err); !ok {
					t.Fatalf("%v is no Refusal", err)
				}
			}
		}
	})
}
