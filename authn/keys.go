package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Bounds on key sets.
const (
	keysBytes   = 256 << 10        // of a set
	keysMost    = 100              // in a set
	keysTime    = 5 * time.Second  // to fetch one
	keysAge     = 5 * time.Minute  // after which one from a URL is fetched again; the old one is used meanwhile
	keysFileAge = 5 * time.Second  // after which a file is read again
	keysRetry   = 30 * time.Second // between fetches that a token asks for whose key is not there, and after one that failed
	keysSets    = 4 * 16           // sets that are kept: those of a few policies, one after the other
	rsaBits     = 2048             // of an RSA key, at least
)

// ErrUnavailable means that the keys which a token was signed with cannot be had. It is
// not the client's doing: try again later.
var ErrUnavailable = errors.New("the issuer's keys cannot be had")

// Keys holds the key sets (JWKS) of issuers: it fetches each when it is first asked for,
// again when it is old, or when a token was signed with a key that is not in it; so that
// new keys are known at once, and whoever sends tokens with keys that he made up has it
// fetched once in keysRetry at most. What was fetched once is used until there is
// something newer, also if the issuer cannot be reached.
//
// It is safe for concurrent use; each set is fetched by one goroutine at a time. It must
// be closed.
type Keys struct {
	now    func() time.Time
	logger *slog.Logger
	client *http.Client

	ctx  context.Context // ends with Stop
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex // guards the following
	sets map[string]*keySet
}

// A keySet is one of them.
type keySet struct {
	from string

	mu      sync.Mutex // guards the following
	keys    []jose.JSONWebKey
	fetched time.Time     // when keys were; zero: never
	tried   time.Time     // when fetching was begun last
	loading chan struct{} // closed when it is over; nil while nobody fetches
}

// NewKeys returns an empty one. now tells how old sets are.
func NewKeys(now func() time.Time, logger *slog.Logger) *Keys {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes, transport.DisableKeepAlives = 16<<10, true
	k := &Keys{now: now, logger: logger, sets: map[string]*keySet{}, client: &http.Client{
		Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it redirects, which is not followed: name the URL that it redirects to")
		},
	}}
	k.ctx, k.stop = context.WithCancel(context.Background())
	return k
}

// Stop ends what is being fetched, and nothing more is: whose token waits for it is told
// ErrUnavailable. What was fetched goes on being used.
func (k *Keys) Stop() { k.stop() }

// Close is Stop, and returns when nothing is being fetched. Nobody may ask any more.
func (k *Keys) Close() {
	k.stop()
	k.wg.Wait()
}

// find returns the keys of the set at from that may have made a signature of algorithm
// alg: those of the id, or any if it is empty. There are none if the set has none. The
// error is ErrUnavailable, or ctx's.
func (k *Keys) find(ctx context.Context, from, id, alg string) ([]jose.JSONWebKey, error) {
	s := k.set(from)
	fits := func() (found []jose.JSONWebKey) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, key := range s.keys {
			if (id == "" || key.KeyID == id) && (key.Algorithm == "" || key.Algorithm == alg) && keyFits(key.Key, alg) {
				found = append(found, key)
			}
		}
		return found
	}
	found := fits()
	loading, had := k.refresh(s, len(found) == 0)
	if loading != nil && (!had || len(found) == 0 || isFile(from)) {
		select {
		case <-loading:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		found = fits()
	}
	if s.mu.Lock(); s.fetched.IsZero() {
		s.mu.Unlock()
		return nil, ErrUnavailable
	}
	s.mu.Unlock()
	return found, nil
}

// set returns the one at from.
func (k *Keys) set(from string) *keySet {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.sets[from]
	if s == nil {
		if len(k.sets) >= keysSets {
			clear(k.sets) // of policies that are no more in force; those that are come back
		}
		s = &keySet{from: from}
		k.sets[from] = s
	}
	return s
}

// refresh has the set fetched if that is due: missing says that a key was not in it. It
// returns what is closed when that is over, nil if nobody fetches, and whether there was a
// set before.
func (k *Keys) refresh(s *keySet, missing bool) (loading <-chan struct{}, had bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had = !s.fetched.IsZero()
	if s.loading != nil {
		return s.loading, had
	}
	now, age, retry := k.now(), keysAge, keysRetry
	if isFile(s.from) {
		age, retry = keysFileAge, keysFileAge
	}
	due := s.tried.IsZero() || now.Sub(s.tried) >= retry && (missing || now.Sub(s.fetched) >= age)
	if !due || k.ctx.Err() != nil {
		return nil, had
	}
	s.tried, s.loading = now, make(chan struct{})
	done := s.loading
	k.wg.Go(func() {
		keys, err := k.load(s.from)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.loading = nil; err == nil {
			s.keys, s.fetched = keys, s.tried
		} else if k.ctx.Err() == nil {
			k.logger.Warn("cannot fetch an issuer's keys; tokens are checked with those fetched before, if there are any", "keys", s.from, "fetched", s.fetched, "err", err)
		}
		close(done)
	})
	return done, had
}

func isFile(from string) bool { return strings.HasPrefix(from, "/") }

// load fetches a set.
func (k *Keys) load(from string) ([]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(k.ctx, keysTime)
	defer cancel()
	var body io.ReadCloser
	if isFile(from) {
		f, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK, 0) // of a pipe, open could take for ever
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			f.Close() // so could a read
			return nil, fmt.Errorf("%s is no regular file", from)
		}
		body = f
	} else {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Accept", "application/jwk-set+json, application/json")
		res, err := k.client.Do(r)
		if err != nil {
			return nil, err
		}
		body = res.Body
		if res.StatusCode != http.StatusOK {
			body.Close()
			return nil, fmt.Errorf("it answers %s", res.Status)
		}
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, keysBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > keysBytes:
		return nil, fmt.Errorf("the set has more than %d bytes", keysBytes)
	}
	return parseKeys(data)
}

// parseKeys reads a key set. A key of a kind that is not for checking signatures here is
// left out (RFC 7517 5); a set without any other is refused.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("it is no key set: %w", err)
	}
	if len(set.Keys) > keysMost {
		return nil, fmt.Errorf("the set has more than %d keys", keysMost)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && (key.Use == "" || key.Use == "sig") && key.IsPublic() && usable(key.Key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the set has no public key that signatures can be checked with")
	}
	return keys, nil
}

// usable says whether a key is a public one that is strong enough.
func usable(key any) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= rsaBits && key.N.BitLen() <= 8*rsaBits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// keyFits says whether a signature of algorithm alg can be of key: never is a public key
// the secret of another algorithm.
func keyFits(key any, alg string) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		curve := map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg]
		return curve != "" && key.Curve.Params().Name == curve
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}
