package api

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// fakeDelayed notes what it was asked to list.
type fakeDelayed struct {
	Delayed
	did []string
}

func (f *fakeDelayed) List(_ context.Context, of, after string) (DelayedPage, error) {
	f.did = append(f.did, "list "+of+" "+after)
	return DelayedPage{}, nil
}

func (f *fakeDelayed) Remove(_ context.Context, of, id string) (DelayedEvent, error) {
	f.did = append(f.did, "remove "+of+" "+id)
	return DelayedEvent{}, nil
}

// A misspelt parameter is refused: it would list from the beginning again, for ever.
func TestDelayedQuery(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
		did, says    string
	}{
		{"GET", "?all", 200, "list  ", ""},
		{"GET", "?all&after=7", 200, "list  7", ""},
		{"GET", "?all&aftr=7", 400, "", `"detail":"\"aftr\": did you mean \"after\"? there are after, all, once each"`},
		{"GET", "?all&x=7", 400, "", `"detail":"\"x\": there are after, all, once each"`},
		{"GET", "?all&after=7&after=8", 400, "", `\"after\": give it once`},
		{"DELETE", "/7?all", 200, "remove  7", ""},
		{"DELETE", "/7?all&dry_run", 400, "", `\"dry_run\": there is only all, once`},
	} {
		f := new(fakeDelayed)
		h := Handler(Config{Resources: fakeResources(false), Delayed: f, Operators: &Operators{
			Identify: fakeResources(false).Identify,
			Includes: func(string) bool { return false },
			Local:    func(netip.AddrPort, netip.AddrPort) bool { return true },
		}})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, fromHere(httptest.NewRequest(c.method, "/v1/delayed"+c.path, nil)))
		if did := strings.Join(f.did, "; "); w.Code != c.status || did != c.did || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d %s, did %q; want %d with %s, did %q", c.method, c.path, w.Code, w.Body, did, c.status, c.says, c.did)
		}
	}
}
