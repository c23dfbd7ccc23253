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

// A misspelt parameter is refused: it would list from the beginning again, for ever.
func TestDelayedQuery(t *testing.T) {
	for _, c := range []struct {
		query  string
		status int
		did    string
	}{
		{"?all", 200, "list  "},
		{"?all&after=7", 200, "list  7"},
		{"?all&aftr=7", 400, ""},
		{"?all&after=7&after=8", 400, ""},
	} {
		f := new(fakeDelayed)
		h := Handler(Config{Resources: fakeResources(false), Delayed: f, Operators: &Operators{
			Identify: fakeResources(false).Identify,
			Includes: func(string) bool { return false },
			Local:    func(netip.AddrPort, netip.AddrPort) bool { return true },
		}})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, fromHere(httptest.NewRequest("GET", "/v1/delayed"+c.query, nil)))
		if did := strings.Join(f.did, "; "); w.Code != c.status || did != c.did || c.status == 400 && !strings.Contains(w.Body.String(), "after, all") {
			t.Errorf("%s: %d %s, did %q; want %d, did %q", c.query, w.Code, w.Body, did, c.status, c.did)
		}
	}
}
