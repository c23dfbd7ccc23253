package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/bellwire/bellwire/acl"
)

var noon = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

// Key pairs of each kind: made once, for RSA takes its time.
var (
	rsaKey, _      = rsa.GenerateKey(rand.Reader, 2048)
	ecKey, _       = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec384, _       = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edKey, _    = ed25519.GenerateKey(rand.Reader)
	_, otherKey, _ = ed25519.GenerateKey(rand.Reader)
)

// setOf is a key set of public keys, by their ids.
func setOf(t testing.TB, keys map[string]any) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for id, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key, KeyID: id})
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func allKeys(t testing.TB) []byte {
	return setOf(t, map[string]any{"rsa": rsaKey.Public(), "ec": ecKey.Public(), "ec384": ec384.Public(), "ed": edKey.Public()})
}

// signed returns a token with claims, signed by key.
func signed(t testing.TB, alg, kid string, key any, claims map[string]any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// good are claims of ana's that are accepted at noon, but for changes; nil takes one out.
func good(changes map[string]any) map[string]any {
	claims := map[string]any{"iss": "https://login.example.com", "aud": "bellwire", "sub": "ana", "exp": noon.Add(time.Hour).Unix(), "iat": noon.Unix()}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// issuer returns a policy with one issuer, whose keys are in a file, and more lines of it.
func issuer(t testing.TB, from, more string) *acl.Policy {
	t.Helper()
	p, err := acl.Parse("policy.yaml", fmt.Appendf(nil, "issuers:\n  - issuer: https://login.example.com\n    audience: [bellwire, other]\n    keys: %q\n%s", from, more), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newKeys(t testing.TB, now func() time.Time) *Keys {
	k := NewKeys(now, slog.New(slog.DiscardHandler))
	t.Cleanup(k.Close)
	return k
}

func at(instant time.Time) func() time.Time { return func() time.Time { return instant } }

func file(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func enc(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Tokens of each algorithm that the issuer uses prove their principal, until they expire;
// with the key's id, or without one if any key fits.
func TestTokensProve(t *testing.T) {
	p := issuer(t, file(t, allKeys(t)), "    algorithms: [EdDSA, ES256, ES384, RS256, PS512]\n    domains: [example.com, example.org]\n    leeway: 10s\n")
	k := newKeys(t, at(noon))
	for _, c := range []struct {
		alg, kid string
		key      any
		claims   map[string]any
		user     string
		want     string
	}{
		{"EdDSA", "ed", edKey, nil, "", "ana@example.com"},
		{"ES256", "ec", ecKey, nil, "ana", "ana@example.com"},
		{"ES384", "ec384", ec384, nil, "ANA@example.com", "ana@example.com"},
		{"RS256", "rsa", rsaKey, nil, "", "ana@example.com"},
		{"PS512", "", rsaKey, map[string]any{"sub": "Bo@Example.ORG"}, "bo@example.org", "bo@example.org"},
		{"EdDSA", "", edKey, map[string]any{"aud": []string{"x", "other"}, "nbf": noon.Add(10 * time.Second).Unix(), "iat": nil}, "", "ana@example.com"},
		{"EdDSA", "ed", edKey, map[string]any{"exp": noon.Add(-9 * time.Second).Unix()}, "", "ana@example.com"},
	} {
		token := signed(t, c.alg, c.kid, c.key, good(c.claims))
		if !IsSigned([]byte(token)) || Claimed([]byte(token)) == "" {
			t.Errorf("%s is not known as a signed token of somebody", token)
		}
		proof, err := k.Verify(context.Background(), p, c.user, []byte(token), noon)
		if err != nil || proof.Principal != c.want || !proof.Until.Equal(time.Unix(good(c.claims)["exp"].(int64), 0).Add(10*time.Second)) {
			t.Errorf("%s %q: %+v, %v, want %s", c.alg, c.kid, proof, err, c.want)
		}
	}
}

// What is forged, confused, stale, early, for others or of others is refused, each for
// its reason.
func TestTokensAreRefused(t *testing.T) {
	p := issuer(t, file(t, allKeys(t)), "    algorithms: [EdDSA, ES256, RS256]\n    except: [mallory@example.com]\n")
	k := newKeys(t, at(noon))
	right := signed(t, "EdDSA", "ed", edKey, good(nil))
	head, rest, _ := strings.Cut(right, ".")
	body, signature, _ := strings.Cut(rest, ".")
	// A public key as the secret of an HMAC, in each form that one might take it in.
	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	confused := func(secret []byte) string {
		text := enc(`{"alg":"HS256","kid":"rsa"}`) + "." + body
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(text))
		return text + "." + enc(string(h.Sum(nil)))
	}
	with := func(header string) string { return enc(header) + "." + body + "." + signature }
	claims := func(changes map[string]any) string { return signed(t, "EdDSA", "ed", edKey, good(changes)) }
	for _, c := range []struct{ name, token, user, want string }{
		{"alg none", with(`{"alg":"none"}`), "", "jwt_algorithm"},
		{"alg none without a signature", enc(`{"alg":"none"}`) + "." + body + ".", "", "jwt_algorithm"},
		{"alg nOnE", with(`{"alg":"nOnE"}`), "", "jwt_algorithm"},
		{"no alg", with(`{"kid":"ed"}`), "", "jwt_algorithm"},
		{"HMAC of the public key, DER", confused(der), "", "jwt_algorithm"},
		{"HMAC of the public key, PEM", confused(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "", "jwt_algorithm"},
		{"HMAC of the key set", confused(allKeys(t)), "", "jwt_algorithm"},
		{"an algorithm that the issuer does not use", signed(t, "PS256", "rsa", rsaKey, good(nil)), "", "jwt_algorithm"},
		{"the key of another algorithm", with(`{"alg":"RS256","kid":"ed"}`), "", "jwt_key"},
		{"the curve of another algorithm", with(`{"alg":"ES256","kid":"ec384"}`), "", "jwt_key"},
		{"a key that is not there", signed(t, "EdDSA", "x", edKey, good(nil)), "", "jwt_key"},
		{"another's key under the id", signed(t, "EdDSA", "ed", otherKey, good(nil)), "", "jwt_signature"},
		{"a key that it brings along", func() string {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: "EdDSA", Key: otherKey}, &jose.SignerOptions{EmbedJWK: true})
			if err != nil {
				t.Fatal(err)
			}
			token, err := jwt.Signed(signer).Claims(good(nil)).Serialize()
			if err != nil {
				t.Fatal(err)
			}
			return token
		}(), "", "jwt_signature"},
		{"other claims under the signature", head + "." + enc(strings.ReplaceAll(mustDecode(t, body), "ana", "bob")) + "." + signature, "", "jwt_signature"},
		{"a signature cut short", right[:len(right)-4], "", "jwt_signature"},
		{"a critical header", with(`{"alg":"EdDSA","kid":"ed","crit":["x"],"x":1}`), "", "jwt_signature"},
		{"another header twice", with(`{"alg":"EdDSA","alg":"none"}`), "", "jwt_malformed"},
		{"claims that are no object", signedRaw(t, `["x"]`), "", "jwt_malformed"},
		{"claims twice", signedRaw(t, `{"iss":"https://login.example.com","sub":"ana","sub":"bo","aud":"bellwire","exp":4102444800}`), "", "jwt_malformed"},
		{"claims that end", signedRaw(t, `{"iss":`), "", "jwt_malformed"},
		{"very deep", signedRaw(t, `{"iss":`+strings.Repeat("[", 9000)), "", "jwt_malformed"},
		{"very large", claims(map[string]any{"x": strings.Repeat("x", 20_000)}), "", "jwt_malformed"},
		{"two parts", head + "." + body, "", "jwt_malformed"},
		{"nothing", "", "", "jwt_malformed"},
		{"another issuer", claims(map[string]any{"iss": "https://evil.example.com"}), "", "jwt_issuer"},
		{"no issuer", claims(map[string]any{"iss": nil}), "", "jwt_issuer"},
		{"the issuer in other letters", claims(map[string]any{"iss": "https://LOGIN.example.com"}), "", "jwt_issuer"},
		{"another audience", claims(map[string]any{"aud": "shop"}), "", "jwt_audience"},
		{"no audience", claims(map[string]any{"aud": nil}), "", "jwt_audience"},
		{"expired", claims(map[string]any{"exp": noon.Add(-30 * time.Second).Unix()}), "", "jwt_expired"},
		{"that does not expire", claims(map[string]any{"exp": nil}), "", "jwt_expired"},
		{"that expires after all", claims(map[string]any{"exp": int64(1) << 61}), "", "jwt_expired"},
		{"that expires before all", claims(map[string]any{"exp": -1}), "", "jwt_expired"},
		{"a text as time", claims(map[string]any{"exp": "tomorrow"}), "", "jwt_malformed"},
		{"not valid yet", claims(map[string]any{"nbf": noon.Add(31 * time.Second).Unix()}), "", "jwt_early"},
		{"issued later", claims(map[string]any{"iat": noon.Add(time.Hour).Unix()}), "", "jwt_early"},
		{"no subject", claims(map[string]any{"sub": nil}), "", "jwt_principal"},
		{"a number as subject", claims(map[string]any{"sub": 7}), "", "jwt_malformed"},
		{"no address", claims(map[string]any{"sub": "a b"}), "", "jwt_principal"},
		{"of another domain", claims(map[string]any{"sub": "ana@example.org"}), "", "jwt_principal"},
		{"who is not to be proved", claims(map[string]any{"sub": "Mallory"}), "", "jwt_principal"},
		{"another user name", right, "bo", "other_principal"},
		{"another domain of the user name", right, "ana@example.org", "other_principal"},
	} {
		proof, err := k.Verify(context.Background(), p, c.user, []byte(c.token), noon)
		r, ok := errors.AsType[*Refusal](err)
		if !ok || r.Reason != c.want || proof != (Proof{}) {
			t.Errorf("%s: %+v, %v, want %s", c.name, proof, err, c.want)
		}
		if ok && len(r.Error()) > 1000 {
			t.Errorf("%s: a reason of %d bytes", c.name, len(r.Error()))
		}
	}
	if _, err := k.Verify(context.Background(), p, "", []byte(right), noon); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func mustDecode(t testing.TB, s string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// signedRaw signs a payload as it stands.
func signedRaw(t testing.TB, payload string) string {
	t.Helper()
	text := enc(`{"alg":"EdDSA","kid":"ed"}`) + "." + enc(payload)
	return text + "." + enc(string(ed25519.Sign(edKey, []byte(text))))
}

// An email address counts if the issuer has verified it, or does not say.
func TestTokensByEmail(t *testing.T) {
	p := issuer(t, file(t, allKeys(t)), "    principal: email\n")
	k := newKeys(t, at(noon))
	for _, c := range []struct {
		verified any
		want     bool
	}{{nil, true}, {true, true}, {"true", true}, {false, false}, {"false", false}, {1, false}} {
		token := signed(t, "EdDSA", "ed", edKey, good(map[string]any{"sub": "u-17", "email": "ana@example.com", "email_verified": c.verified}))
		if proof, err := k.Verify(context.Background(), p, "", []byte(token), noon); (err == nil) != c.want || c.want && proof.Principal != "ana@example.com" {
			t.Errorf("email_verified %v: %+v, %v", c.verified, proof, err)
		}
	}
}

// What a key pair of ours signs is accepted, and shown by Inspect; what is no signing key
// signs nothing.
func TestSign(t *testing.T) {
	private, set, err := NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := Sign(private, good(nil))
	if err != nil {
		t.Fatal(err)
	}
	if proof, err := newKeys(t, at(noon)).Verify(context.Background(), issuer(t, file(t, set), ""), "", []byte(token), noon); err != nil || proof.Principal != "ana@example.com" {
		t.Errorf("%+v, %v", proof, err)
	}
	if header, claims, err := Inspect([]byte(token)); err != nil || header["alg"] != "EdDSA" || claims["sub"] != "ana" {
		t.Errorf("%v, %v, %v", header, claims, err)
	}
	for _, key := range [][]byte{nil, set, []byte(`{"kty":"oct","k":"c2VjcmV0"}`), setOf(t, map[string]any{"rsa": rsaKey.Public()})} {
		if token, err := Sign(key, good(nil)); err == nil {
			t.Errorf("%s signs %s", key, token)
		}
	}
	if _, _, err := Inspect([]byte("a.b.c")); err == nil {
		t.Error("Inspect reads what is no token")
	}
}

// Passwords and tokens of other kinds are not taken for signed ones.
func TestIsSigned(t *testing.T) {
	for text, want := range map[string]bool{
		"eyJh.eyJp.c2ln": true, "": false, "hunter2": false, "bw_dev_x": false, "eyJh.eyJp": false, "eyJh.eyJp.c2ln.x": false,
		"eyJh..c2ln": false, "eyJh.ey p.c2ln": false, "xyJh.eyJp.c2ln": false, "eyJh.eyJp.c2ln\n": false,
	} {
		if got := IsSigned([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// Whatever bytes are shown, none but what the issuer signed proves anybody.
func FuzzToken(f *testing.F) {
	p := issuer(f, file(f, allKeys(f)), "")
	k := newKeys(f, at(noon))
	right := signed(f, "EdDSA", "ed", edKey, good(nil))
	f.Add([]byte(right[:len(right)-1]))
	f.Add([]byte(enc(`{"alg":"none"}`) + "." + enc(`{"iss":"https://login.example.com"}`) + "."))
	f.Add([]byte(signedRaw(f, `{"iss":"https://login.example.com","exp":1e300}`)))
	f.Fuzz(func(t *testing.T, token []byte) {
		Claimed(token)
		_, _, _ = Inspect(token)
		proof, err := k.Verify(context.Background(), p, "", token, noon)
		if err == nil && string(token) != right {
			t.Fatalf("%q proves %+v", token, proof)
		}
		if _, ok := errors.AsType[*Refusal](err); err != nil && !ok {
			t.Fatal(err)
		}
	})
}

// Whatever a key set has, it is read or refused, and only public keys of it are used.
func FuzzKeySet(f *testing.F) {
	f.Add(allKeys(f))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"},{"kty":"OKP","crv":"Ed25519","x":"AA"},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, key := range keys {
			if !key.IsPublic() || !usable(key.Key) {
				t.Fatalf("key %+v is used", key)
			}
		}
	})
}

func BenchmarkVerifyToken(b *testing.B) {
	p := issuer(b, file(b, allKeys(b)), "    algorithms: [EdDSA, ES256, RS256]\n")
	k := newKeys(b, at(noon))
	for _, c := range []struct {
		alg, kid string
		key      any
	}{{"EdDSA", "ed", edKey}, {"ES256", "ec", ecKey}, {"RS256", "rsa", rsaKey}} {
		token := []byte(signed(b, c.alg, c.kid, c.key, good(nil)))
		b.Run(c.alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Verify(context.Background(), p, "", token, noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
