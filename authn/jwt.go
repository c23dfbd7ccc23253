package authn

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/bellwire/bellwire/acl"
)

// tokenMost is the size of the largest signed token, in bytes.
const tokenMost = 16 << 10

// lastSecond is the last of the year 9999: what ends later is a mistake.
const lastSecond = 253402300799

// A Proof is what a signed token proves.
type Proof struct {
	Principal string
	Issuer    string
	Until     time.Time // when it expires, with the issuer's leeway
}

// IsSigned says whether secret has the form of a signed token (JWT, RFC 7519): three
// parts of base64, of which the first is a JSON object.
func IsSigned(secret []byte) bool {
	if !bytes.HasPrefix(secret, []byte("ey")) || bytes.Count(secret, []byte(".")) != 2 || bytes.Contains(secret, []byte("..")) {
		return false
	}
	return !bytes.ContainsFunc(secret, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	})
}

// signatureAlgorithms are all that an issuer may use.
var signatureAlgorithms = func() (all []jose.SignatureAlgorithm) {
	for _, alg := range acl.Algorithms {
		all = append(all, jose.SignatureAlgorithm(alg))
	}
	return all
}()

// read parses a token, of which nothing is checked yet.
func read(token []byte) (*jwt.JSONWebToken, *Refusal) {
	if len(token) > tokenMost {
		return nil, refuse("jwt_malformed", "a token of %d bytes, at most %d are possible", len(token), tokenMost)
	}
	t, err := jwt.ParseSigned(string(token), signatureAlgorithms)
	if unknown, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
		return nil, refuse("jwt_algorithm", "it is signed by %.20q", unknown.Got)
	}
	if err != nil || len(t.Headers) != 1 {
		return nil, refuse("jwt_malformed", "not a signed token")
	}
	return t, nil
}

// Claimed returns whom a signed token says that it is of, by the claim sub, without a look
// at its signature: to count tries by, and to log.
func Claimed(token []byte) string {
	t, refused := read(token)
	if refused != nil {
		return ""
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if t.UnsafeClaimsWithoutVerification(&claims) != nil {
		return ""
	}
	return claims.Subject
}

// Verify returns what a signed token proves at the instant now under a policy. user is
// whom the client says it is, if it does: that has to be the token's principal. The error
// is a *Refusal, ErrUnavailable, or ctx's.
func (k *Keys) Verify(ctx context.Context, p *acl.Policy, user string, token []byte, now time.Time) (Proof, error) {
	t, refused := read(token)
	if refused != nil {
		return Proof{}, refused
	}
	var said jwt.Claims
	if err := t.UnsafeClaimsWithoutVerification(&said); err != nil {
		return Proof{}, refuse("jwt_malformed", "its claims are not as RFC 7519 has them")
	}
	issuers := p.Issuers()
	i := slices.IndexFunc(issuers, func(i acl.Issuer) bool { return i.Name == said.Issuer })
	if i < 0 {
		return Proof{}, refuse("jwt_issuer", "%.100q issues no tokens for this service", said.Issuer)
	}
	by, head := &issuers[i], t.Headers[0]
	if !slices.Contains(by.Algorithms, head.Algorithm) {
		return Proof{}, refuse("jwt_algorithm", "it is signed by %s, and the issuer uses %s", head.Algorithm, strings.Join(by.Algorithms, ", "))
	}
	keys, err := k.find(ctx, by.Keys, head.KeyID, head.Algorithm)
	if err != nil {
		return Proof{}, err
	}
	if len(keys) == 0 {
		return Proof{}, refuse("jwt_key", "no key %.100q for %s in the issuer's set", head.KeyID, head.Algorithm)
	}
	var claims map[string]any
	if !slices.ContainsFunc(keys, func(key jose.JSONWebKey) bool { return t.Claims(key.Key, &said, &claims) == nil }) {
		return Proof{}, refuse("jwt_signature", "the signature is not by a key of the issuer")
	}
	return proofOf(p, by, user, &said, claims, now)
}

// proofOf judges the claims of a token that by has signed.
func proofOf(p *acl.Policy, by *acl.Issuer, user string, said *jwt.Claims, claims map[string]any, now time.Time) (Proof, error) {
	if !slices.ContainsFunc(said.Audience, func(a string) bool { return slices.Contains(by.Audience, a) }) {
		return Proof{}, refuse("jwt_audience", "it is for %.200q, want one of %q", []string(said.Audience), by.Audience)
	}
	if said.Expiry == nil || *said.Expiry > lastSecond || *said.Expiry < 0 {
		return Proof{}, refuse("jwt_expired", "it has no time at which it expires (exp)")
	}
	until := said.Expiry.Time().Add(by.Leeway)
	if !now.Before(until) {
		return Proof{}, refuse("jwt_expired", "it expired at %s", said.Expiry.Time().UTC().Format(time.RFC3339))
	}
	for _, c := range []struct {
		name string
		at   *jwt.NumericDate
	}{{"nbf", said.NotBefore}, {"iat", said.IssuedAt}} {
		if c.at != nil && (*c.at > lastSecond || c.at.Time().After(now.Add(by.Leeway))) {
			return Proof{}, refuse("jwt_early", "it is not valid yet: its %s is %d", c.name, *c.at)
		}
	}
	principal, refused := principalOf(p, by, claims)
	if refused != nil {
		return Proof{}, refused
	}
	if user != "" {
		if named, err := acl.ParseAddress(user, p.Domain()); err != nil || named != principal {
			return Proof{}, refuse("other_principal", "the token is of %s, and the user name is not", principal)
		}
	}
	return Proof{Principal: principal, Issuer: by.Name, Until: until}, nil
}

// principalOf returns whom the claims name. A bare name is of the policy's domain, or of
// the only one that the issuer may speak for.
func principalOf(p *acl.Policy, by *acl.Issuer, claims map[string]any) (string, *Refusal) {
	name, ok := claims[by.Claim].(string)
	if !ok {
		return "", refuse("jwt_principal", "it has no claim %s that is a string", by.Claim)
	}
	if verified, has := claims["email_verified"]; by.Claim == "email" && has && verified != true && verified != "true" {
		return "", refuse("jwt_principal", "the issuer has not verified the email address")
	}
	domain := p.Domain()
	switch {
	case slices.Contains(by.Domains, domain):
	case len(by.Domains) == 1:
		domain = by.Domains[0]
	default:
		domain = ""
	}
	principal, err := acl.ParseAddress(name, domain)
	if err != nil {
		return "", refuse("jwt_principal", "its %s %.100q is no address", by.Claim, name)
	}
	if !by.Proves(principal) {
		return "", refuse("jwt_principal", "the issuer may not prove %s", principal)
	}
	return principal, nil
}
