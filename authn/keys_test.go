package authn

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A provider serves a key set, as its handler says, and counts how often.
type provider struct {
	*httptest.Server
	asked  atomic.Int64
	handle atomic.Pointer[http.HandlerFunc]
}

func serves(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
}

func newProvider(t testing.TB, h http.HandlerFunc) *provider {
	p := &provider{}
	p.handle.Store(&h)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		(*p.handle.Load())(w, r)
	}))
	t.Cleanup(p.Server.Close)
	return p
}

func (p *provider) becomes(h http.HandlerFunc) { p.handle.Store(&h) }

// A clock that the test moves.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return noon.Add(time.Duration(c.at.Load())) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// Keys are fetched once for all who ask; a new key is known at once; whoever makes keys
// up has the set fetched once in half a minute; and what was fetched is used while the
// provider fails.
func TestKeysAreFetched(t *testing.T) {
	var c clock
	from := newProvider(t, serves(setOf(t, map[string]any{"ed": edKey.Public()})))
	p, k := issuer(t, from.URL, ""), newKeys(t, c.now)
	verify := func(token string) string {
		t.Helper()
		_, err := k.Verify(context.Background(), p, "", []byte(token), noon)
		r, ok := errors.AsType[*Refusal](err)
		switch {
		case err == nil:
			return "ok"
		case ok:
			return r.Reason
		}
		return err.Error()
	}
	expect := func(what, got, want string, asked int64) {
		t.Helper()
		if got != want || from.asked.Load() != asked {
			t.Errorf("%s: %s after %d fetches, want %s after %d", what, got, from.asked.Load(), want, asked)
		}
	}
	old, fresh := signed(t, "EdDSA", "ed", edKey, good(nil)), signed(t, "ES256", "ec", ecKey, good(nil))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got := verify(old); got != "ok" {
				t.Errorf("at first: %s", got)
			}
		})
	}
	all.Wait()
	expect("twenty at once", verify(old), "ok", 1)

	expect("a key that is not there, just fetched", verify(fresh), "jwt_key", 1)
	from.becomes(serves(allKeys(t)))
	c.advance(keysRetry)
	expect("a new key", verify(fresh), "ok", 2)
	for i := range 100 {
		if got := verify(signed(t, "EdDSA", fmt.Sprint("made-up-", i), otherKey, good(nil))); got != "jwt_key" {
			t.Fatal(got)
		}
	}
	expect("a hundred that are made up", verify(old), "ok", 2)
	c.advance(keysRetry)
	expect("one more later", verify(signed(t, "EdDSA", "made-up", otherKey, good(nil))), "jwt_key", 3)

	from.becomes(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	c.advance(24 * time.Hour)
	expect("old keys while the provider fails", verify(old), "ok", 3+k.waited(t, from, 4))
	expect("and what is made up", verify(signed(t, "EdDSA", "made-up", otherKey, good(nil))), "jwt_key", 4)
}

// waited waits for the fetch in the background, the n-th, and returns 1.
func (k *Keys) waited(t *testing.T, from *provider, n int64) int64 {
	t.Helper()
	k.wg.Wait()
	for deadline := time.Now().Add(10 * time.Second); from.asked.Load() < n && time.Now().Before(deadline); {
		_, _ = k.find(context.Background(), from.URL, "ed", "EdDSA")
		k.wg.Wait()
	}
	return from.asked.Load() - n + 1
}

// A set that cannot be had, or that is none, proves nothing, takes bounded time and
// memory, and is asked for again after a while, not with each token.
func TestBadProviders(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("missing: RSA keys of 1024 bits, %v", err)
	}
	many := `{"keys":[` + strings.Repeat(`{"kty":"oct","k":"c2VjcmV0"},`, keysMost) + `{}]}`
	token := []byte(signed(t, "EdDSA", "ed", edKey, good(nil)))
	for name, h := range map[string]http.HandlerFunc{
		"not found": http.NotFound,
		"redirect":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"no JSON":   serves([]byte("<html>")),
		"no set":    serves([]byte(`[]`)),
		"empty":     serves([]byte(`{"keys":[]}`)),
		"secrets":   serves([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"ed","alg":"EdDSA"}]}`)),
		"private":   serves(privateSet(t)),
		"weak":      serves(setOf(t, map[string]any{"ed": small.Public()})),
		"too many":  serves([]byte(many)),
		"huge":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte(" "), 4<<20)) },
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"keys":[`))
		},
		"huge header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 64<<10))
			_, _ = w.Write(allKeys(t))
		},
		"another's keys": serves(setOf(t, map[string]any{"ed": otherKey.Public()})),
	} {
		var c clock
		from := newProvider(t, h)
		p, k := issuer(t, from.URL, ""), newKeys(t, c.now)
		for range 3 {
			_, err := k.Verify(context.Background(), p, "", token, noon)
			if name == "another's keys" {
				if r, ok := errors.AsType[*Refusal](err); !ok || r.Reason != "jwt_signature" {
					t.Errorf("%s: %v", name, err)
				}
			} else if !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v, want ErrUnavailable", name, err)
			}
		}
		if got := from.asked.Load(); got != 1 {
			t.Errorf("%s: asked %d times", name, got)
		}
		from.becomes(serves(allKeys(t)))
		c.advance(keysAge)
		if name == "another's keys" {
			continue // those are used until the new ones have come
		}
		if _, err := k.Verify(context.Background(), p, "", token, noon); err != nil {
			t.Errorf("%s: when it works again: %v", name, err)
		}
	}

	hanging := newProvider(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	k := NewKeys(at(noon), newKeys(t, at(noon)).logger)
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error, 2)
	go func() {
		_, err := k.Verify(ctx, issuer(t, hanging.URL, ""), "", token, noon)
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up waiting: %v", err)
	}
	go func() {
		_, err := k.Verify(context.Background(), issuer(t, hanging.URL, ""), "", token, noon)
		got <- err
	}()
	k.Stop() // ends what hangs
	if err := <-got; !errors.Is(err, ErrUnavailable) {
		t.Errorf("who waits when it is stopped: %v", err)
	}
	if _, err := k.Verify(context.Background(), issuer(t, hanging.URL, ""), "", token, noon); !errors.Is(err, ErrUnavailable) {
		t.Errorf("who comes after that: %v", err)
	}
	k.Close()
}

func privateSet(t testing.TB) []byte {
	private, _, err := NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(`{"keys":[` + string(private) + `]}`)
}

// A file is read again when it has changed; one that is gone, or no file, proves nothing
// new.
func TestKeysInAFile(t *testing.T) {
	var c clock
	name := file(t, setOf(t, map[string]any{"ed": edKey.Public()}))
	p, k := issuer(t, name, ""), newKeys(t, c.now)
	old, fresh := []byte(signed(t, "EdDSA", "ed", edKey, good(nil))), []byte(signed(t, "ES256", "ec", ecKey, good(nil)))
	if _, err := k.Verify(context.Background(), p, "", old, noon); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(name, setOf(t, map[string]any{"ec": ecKey.Public()}), 0o600); err != nil {
		t.Fatal(err)
	}
	c.advance(keysFileAge)
	if _, err := k.Verify(context.Background(), p, "", old, noon); err == nil {
		t.Error("a key that was taken out is still good")
	}
	if _, err := k.Verify(context.Background(), p, "", fresh, noon); err != nil {
		t.Error(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	c.advance(keysFileAge)
	if _, err := k.Verify(context.Background(), p, "", fresh, noon); err != nil {
		t.Errorf("without the file, what was read before: %v", err)
	}
	for _, from := range []string{"/nonexistent", t.TempDir(), "/dev/zero"} {
		if _, err := k.Verify(context.Background(), issuer(t, from, ""), "", fresh, noon); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", from, err)
		}
	}
	for i := range 2 * keysSets { // sets of former policies are let go
		k.set(fmt.Sprint("/", i))
	}
	if len(k.sets) > keysSets {
		t.Errorf("%d sets are kept", len(k.sets))
	}
}
