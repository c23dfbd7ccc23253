package authn

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// NewSigningKey makes a key pair for whoever issues tokens (Ed25519): the private key, as
// a JWK, and the key set (JWKS) that the policy's issuer names as its keys.
func NewSigningKey() (private, set []byte, err error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("authn: %w", err)
	}
	id := rand.Text()[:8]
	private, err1 := json.MarshalIndent(jose.JSONWebKey{Key: key, KeyID: id, Algorithm: "EdDSA", Use: "sig"}, "", "  ")
	set, err2 := json.MarshalIndent(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: id, Algorithm: "EdDSA", Use: "sig"}}}, "", "  ")
	return append(private, '\n'), append(set, '\n'), errors.Join(err1, err2)
}

// Sign returns a token with the claims, signed by a private key that is a JWK with its
// algorithm, as NewSigningKey makes it.
func Sign(private []byte, claims map[string]any) (string, error) {
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(private); err != nil {
		return "", fmt.Errorf("authn: the signing key is no JWK: %w", err)
	}
	if key.IsPublic() || key.Algorithm == "" {
		return "", errors.New("authn: the signing key is no private key with an algorithm")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("authn: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("authn: %w", err)
	}
	return token, nil
}

// Inspect returns the header and the claims of a signed token as they stand there; nothing
// is checked but that it is one.
func Inspect(token []byte) (header, claims map[string]any, err error) {
	t, refused := read(token)
	if refused != nil {
		return nil, nil, refused
	}
	if err := t.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return nil, nil, refuse("jwt_malformed", "its claims are no JSON object")
	}
	header = map[string]any{"alg": t.Headers[0].Algorithm, "kid": t.Headers[0].KeyID}
	return header, claims, nil
}
