package acl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

// What became of a login. A client is told the same of each but ErrBusy: that
// its credentials are wrong.
var (
	// ErrCredentials means that user and password prove nobody. It is the
	// client's doing, and the same ones will be refused again.
	ErrCredentials = errors.New("wrong user name or password")

	// ErrUnknownUser, ErrBadPassword and ErrBadToken say which of these, for logs and
	// counters. They are ErrCredentials to errors.Is. A user without a password or token, who signs in otherwise, is unknown here.
	ErrUnknownUser = fmt.Errorf("unknown user: %w", ErrCredentials)
	ErrBadPassword = fmt.Errorf("bad password: %w", ErrCredentials)
	ErrBadToken    = fmt.Errorf("bad token: %w", ErrCredentials)

	// ErrBusy means that too many passwords wait to be checked. It is nobody's
	// doing: try again later.
	ErrBusy = errors.New("too many logins at once")
)

// A credential is what a user shows to be who he is: a password, which people
// remember and argon2id makes dear to guess, or a token, which is random and
// needs no such thing (a reconnecting fleet could not afford it). A proof by
// SCRAM-SHA-256, of the same password, of the token or of another one, may stand
// beside either, or alone: then nothing else is accepted.
type credential struct {
	password *passwordHash // nil for none
	token    [sha256.Size]byte
	hasToken bool      // instead of a password
	scram    *Verifier // nil for none
	part     string    // the domain whose part has it; empty for the operator's own file
}

// A passwordHash is an argon2id hash with its parameters.
type passwordHash struct {
	cost cost
	salt []byte
	hash []byte
}

// cost is what a hash takes: memory in KiB, passes, threads.
type cost struct {
	memory, passes uint32
	threads        uint8
}

// The default is OWASP's first choice: 19 MiB and two passes, about 90 ms.
var defaultCost = cost{memory: 19 * 1024, passes: 2, threads: 1}

// What a policy may ask of a node for one login.
const (
	maxMemory  = 256 * 1024 // KiB
	maxPasses  = 16
	maxThreads = 8
)

// HashPassword returns the argon2id hash of password as a PHC string, for
// `password_hash`. random is where the salt comes from: crypto/rand.Reader.
func HashPassword(password []byte, random io.Reader) (string, error) {
	salt := make([]byte, 16)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", fmt.Errorf("acl: salt: %w", err)
	}
	c := defaultCost
	hash := argon2.IDKey(password, salt, c.passes, c.memory, c.threads, 32)
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", c.memory, c.passes, c.threads, b64(salt), b64(hash)), nil
}

// NewToken returns a token of 256 bits from random, for a device. IsToken knows it.
func NewToken(random io.Reader) (string, error) {
	bits := make([]byte, tokenBytes)
	if _, err := io.ReadFull(random, bits); err != nil {
		return "", fmt.Errorf("acl: token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(bits), nil
}

const (
	tokenPrefix = "bw_dev_"
	tokenBytes  = 32
)

// IsToken says whether secret has the form of what NewToken returns. That is nobody's
// password, whoever shows it.
func IsToken(secret []byte) bool {
	b64, ok := bytes.CutPrefix(secret, []byte(tokenPrefix))
	if !ok || len(b64) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return false
	}
	_, err := base64.RawURLEncoding.DecodeString(string(b64))
	return err == nil
}

// HashToken returns the hash of token for `token_sha256`.
func HashToken(token []byte) string {
	hash := sha256.Sum256(token)
	return hex.EncodeToString(hash[:])
}

// parsePHC reads a PHC string. Its errors never repeat it.
func parsePHC(s string) (*passwordHash, error) {
	bad := func(why string) (*passwordHash, error) {
		return nil, problemf("not an argon2id hash: %s", why).Hint("make one with: bellwire user hash")
	}
	fields := strings.Split(s, "$")
	if len(fields) != 6 || fields[0] != "" {
		return bad("want $argon2id$v=19$m=…,t=…,p=…$salt$hash")
	}
	if fields[1] != "argon2id" {
		return bad("another algorithm")
	}
	if fields[2] != "v=19" {
		return bad("another version of it than 19")
	}
	c, err := parseCost(fields[3])
	if err != nil {
		return nil, err
	}
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(fields[4])
	hash, err2 := base64.RawStdEncoding.Strict().DecodeString(fields[5])
	switch {
	case err1 != nil || err2 != nil:
		return bad("salt or hash is not base64 without padding")
	case len(salt) < 8 || len(salt) > 64:
		return bad(fmt.Sprintf("a salt of %d bytes, want 8 to 64", len(salt)))
	case len(hash) < 16 || len(hash) > 64:
		return bad(fmt.Sprintf("a hash of %d bytes, want 16 to 64", len(hash)))
	}
	return &passwordHash{cost: c, salt: salt, hash: hash}, nil
}

// parseCost reads "m=19456,t=2,p=1".
func parseCost(s string) (cost, error) {
	var n [3]uint64
	fields := strings.Split(s, ",")
	bad := problemf("not an argon2id hash: want m=…,t=…,p=… for its cost").Hint("make one with: bellwire user hash")
	if len(fields) != 3 {
		return cost{}, bad
	}
	for i, name := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(fields[i], name)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || digits[0] == '0' || digits[0] == '+' {
			return cost{}, bad
		}
		n[i] = v
	}
	if n[0] > maxMemory || n[1] > maxPasses || n[2] > maxThreads || n[0] < 8*n[2] {
		return cost{}, problemf("an argon2id hash with m=%d,t=%d,p=%d", n[0], n[1], n[2]).
			Hint("at most m=%d, t=%d, p=%d are possible, and m at least 8 times p", maxMemory, maxPasses, maxThreads)
	}
	return cost{memory: uint32(n[0]), passes: uint32(n[1]), threads: uint8(n[2])}, nil
}

// parseToken reads the hash of a token.
func parseToken(s string) ([sha256.Size]byte, error) {
	var token [sha256.Size]byte
	if strings.ToLower(s) != s {
		return token, problemf("capitals in token_sha256").Hint("write its hexadecimal digits in lower case")
	}
	if len(s) != hex.EncodedLen(len(token)) {
		return token, problemf("token_sha256 has %d characters", len(s)).Hint("want 64 hexadecimal digits; make them with: bellwire user hash --token")
	}
	if _, err := hex.Decode(token[:], []byte(s)); err != nil {
		return token, problemf("token_sha256 is not hexadecimal").Hint("make it with: bellwire user hash --token")
	}
	return token, nil
}

// A Gate bounds how many passwords are hashed at once, for each takes memory
// and a core for as long as it takes. One gate serves all policies that are in
// force one after the other. It is safe for concurrent use.
type Gate struct {
	slots   chan struct{}
	waiting atomic.Int64
	room    int64

	hashed  atomic.Uint64
	refused atomic.Uint64
}

// NewGate returns a gate that lets parallel passwords be hashed at once and
// waiting more wait for their turn; who comes then gets ErrBusy.
func NewGate(parallel, waiting int) *Gate {
	return &Gate{slots: make(chan struct{}, max(parallel, 1)), room: int64(max(waiting, 0))}
}

// Counts returns how many passwords were hashed, how many found no room to
// wait, and how many wait now.
func (g *Gate) Counts() (hashed, refused uint64, waiting int) {
	return g.hashed.Load(), g.refused.Load(), int(g.waiting.Load())
}

// verify says whether password has the hash h. It waits for its turn until ctx
// ends.
func (g *Gate) verify(ctx context.Context, h *passwordHash, password []byte) (bool, error) {
	if err := g.enter(ctx); err != nil {
		return false, err
	}
	defer func() { <-g.slots }()
	g.hashed.Add(1)
	got := argon2.IDKey(password, h.salt, h.cost.passes, h.cost.memory, h.cost.threads, uint32(len(h.hash)))
	return subtle.ConstantTimeCompare(got, h.hash) == 1, nil
}

func (g *Gate) enter(ctx context.Context) error {
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	if g.waiting.Add(1) > g.room {
		g.waiting.Add(-1)
		g.refused.Add(1)
		return ErrBusy
	}
	defer g.waiting.Add(-1)
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Authenticate returns the principal that user and password prove. user is an
// address, or a bare name of the policy's domain; password is a person's
// password or a device's token.
//
// Time tells nothing of who exists: what a refusal takes follows from the policy and
// from the form of what is shown. Where people have passwords, anything that is not
// accepted takes as long as a wrong password, whoever is named; but what has the form
// of a token (see IsToken) is nobody's password, and is refused at once: guessing it is
// hopeless, and a fleet with old tokens must not keep people out. Tokens that were not
// made by NewToken are refused as slowly as passwords.
//
// Errors: those above, or ctx's if it ended while waiting for g.
func (p *Policy) Authenticate(ctx context.Context, g *Gate, user string, password []byte) (principal string, err error) {
	principal, err = ParseAddress(user, p.domain)
	c, known := p.users[principal]
	if err != nil {
		c, known = credential{}, false
	}
	if got := sha256.Sum256(password); subtle.ConstantTimeCompare(got[:], c.token[:]) == 1 && c.hasToken {
		return principal, nil
	}
	refused := c.refusal(known)
	if p.decoy == nil || IsToken(password) {
		return "", refused
	}
	hash := c.password
	if hash == nil {
		hash = p.decoy
	}
	ok, err := g.verify(ctx, hash, password)
	switch {
	case err != nil:
		return "", err
	case !ok || c.password == nil:
		return "", refused
	}
	return principal, nil
}

// refusal says why what was shown for c is not accepted.
func (c *credential) refusal(known bool) error {
	switch {
	case c.hasToken:
		return ErrBadToken
	case !known || c.password == nil: // nobody, or nobody who signs in so
		return ErrUnknownUser
	}
	return ErrBadPassword
}

// Credential returns what principal has to prove who proves it by way, one of Ways, in a
// form that says nothing but whether it is the same under another policy; empty if nothing
// proves it by that. Who has proved what is no longer asked for has proved nothing; what
// else might prove him does not count. A certificate is TLS's to judge: the policy asks for
// nothing. Without a way it is all that a user has, or what an issuer may prove of who is
// none.
func (p *Policy) Credential(principal, way string) string {
	c, known := p.users[principal]
	if way == ByCertificate {
		return ""
	}
	if way == BySigned || way == "" && !known {
		return p.issued(principal)
	}
	h := sha256.New()
	some := false
	if c.hasToken && (way == ByToken || way == "") {
		some = true
		h.Write(c.token[:])
	}
	if c.password != nil && (way == ByPassword || way == "") {
		some = true
		h.Write(c.password.salt)
		h.Write(c.password.hash)
	}
	if c.scram != nil && (way == ByScram || way == "") {
		some = true
		h.Write([]byte(c.scram.String()))
	}
	if !some {
		return ""
	}
	return string(h.Sum(nil))
}

// Knows says whether principal is one of the policy's users.
func (p *Policy) Knows(principal string) bool {
	_, known := p.users[principal]
	return known
}

// Known returns the policy's users, in order.
func (p *Policy) Known() []string { return slices.Sorted(maps.Keys(p.users)) }

// In says whether principal, a canonical address, is of the group of that name. A
// group that the policy does not have is empty.
func (p *Policy) In(group, principal string) bool {
	for _, g := range p.groups {
		if g.name == group {
			_, member := g.members[principal]
			return member
		}
	}
	return false
}

// Users returns how many users the policy has.
func (p *Policy) Users() int { return len(p.users) }

// newDecoy returns a hash that nobody has, as dear as most of users' are, nil
// if nobody has a password.
func newDecoy(users map[string]credential) *passwordHash {
	count := map[cost]int{}
	for _, c := range users {
		if c.password != nil {
			count[c.password.cost]++
		}
	}
	var best cost
	for c, n := range count {
		if n > count[best] || n == count[best] && c.work() > best.work() {
			best = c
		}
	}
	if len(count) == 0 {
		return nil
	}
	return &passwordHash{cost: best, salt: make([]byte, 16), hash: make([]byte, 32)}
}

func (c cost) work() uint64 { return uint64(c.memory) * uint64(c.passes) }
