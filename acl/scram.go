package acl

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// A Verifier is what a policy keeps of a password that is proved by SCRAM-SHA-256
// (RFC 5802, RFC 7677): with it a proof is checked, and none can be made.
type Verifier struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte // of 32 bytes, like ServerKey
	ServerKey  []byte
}

// Bounds of a Verifier. Fewer iterations RFC 7677 forbids; more would keep a client
// busy for longer than it has to connect.
const (
	MinIterations = 4096
	MaxIterations = 10_000_000
	minSalt       = 8
	maxSalt       = 64
)

// scramName begins a Verifier that is written down.
const scramName = "SCRAM-SHA-256"

// String returns v as scram_sha256 has it, in the form that RFC 5803 has for
// directories and PostgreSQL for roles: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
func (v Verifier) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramName, v.Iterations, b64(v.Salt), b64(v.StoredKey), b64(v.ServerKey))
}

// ParseVerifier reads what String wrote. Its errors never repeat it.
func ParseVerifier(s string) (v Verifier, err error) {
	bad := func(format string, args ...any) (Verifier, error) {
		return Verifier{}, problemf("scram_sha256 is no verifier: "+format, args...).Hint("make one with: bellwire user hash --scram")
	}
	fields := strings.FieldsFunc(s, func(r rune) bool { return r == '$' || r == ':' })
	if strings.Count(s, "$") != 2 || strings.Count(s, ":") != 2 || len(fields) != 5 {
		return bad("want %s$iterations:salt$StoredKey:ServerKey", scramName)
	}
	if fields[0] != scramName {
		return bad("another mechanism than %s", scramName)
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil || n < MinIterations || n > MaxIterations || strconv.Itoa(n) != fields[1] {
		return bad("want %d to %d iterations", MinIterations, MaxIterations)
	}
	v.Iterations = n
	for i, to := range []*[]byte{&v.Salt, &v.StoredKey, &v.ServerKey} {
		if *to, err = base64.StdEncoding.Strict().DecodeString(fields[2+i]); err != nil {
			return bad("salt or a key is not base64")
		}
	}
	switch {
	case len(v.Salt) < minSalt || len(v.Salt) > maxSalt:
		return bad("a salt of %d bytes, want %d to %d", len(v.Salt), minSalt, maxSalt)
	case len(v.StoredKey) != sha256.Size || len(v.ServerKey) != sha256.Size:
		return bad("its keys have %d and %d bytes, want %d", len(v.StoredKey), len(v.ServerKey), sha256.Size)
	}
	if s != v.String() {
		return bad("want %s$iterations:salt$StoredKey:ServerKey", scramName)
	}
	return v, nil
}

// A scramForm is what everybody can see of a Verifier who begins to sign in.
type scramForm struct{ iterations, salt int }

// HasScram says whether anybody can sign in by SCRAM-SHA-256.
func (p *Policy) HasScram() bool { return p.scram != scramForm{} }

// Verifier returns what a proof of name, an address or a bare name of the policy's
// domain, is checked with, and the principal that it proves.
//
// Who has no verifier has one that is made up of key and the name: known is false, and
// whatever is proved with it proves nobody. It has the form that most have, and is the
// same whenever it is asked for with that key, so that whoever asks learns nothing of
// who exists. key is a secret of the cluster. It takes the same time for all.
func (p *Policy) Verifier(name string, key []byte) (principal string, v Verifier, known bool) {
	principal, err := ParseAddress(name, p.domain)
	if err != nil {
		principal = name
	}
	v = p.madeUp(principal, key)
	if c, is := p.users[principal]; err == nil && is && c.scram != nil {
		return principal, *c.scram, true
	}
	return principal, v, false
}

// madeUp returns the verifier of somebody who has none.
func (p *Policy) madeUp(name string, key []byte) Verifier {
	draw := func(what byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte{what})
		h.Write([]byte(name))
		return h.Sum(nil)
	}
	salt := append(draw(0), draw(1)...)
	return Verifier{Salt: salt[:p.scram.salt], Iterations: p.scram.iterations, StoredKey: draw(2), ServerKey: draw(3)}
}

// newScramForm returns the form that most verifiers have, of those that are as many
// the dearest; none if there are no verifiers.
func newScramForm(users map[string]credential) (best scramForm) {
	count := map[scramForm]int{}
	for _, c := range users {
		if c.scram != nil {
			count[scramForm{c.scram.Iterations, len(c.scram.Salt)}]++
		}
	}
	for f, n := range count {
		if n > count[best] || n == count[best] && (f.iterations > best.iterations || f.iterations == best.iterations && f.salt > best.salt) {
			best = f
		}
	}
	return best
}
