package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Whoever asks for lists too often is told when to ask again, and nobody else is held
// up by it; what is fetched by name is counted apart.
func TestListsHaveARate(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	r := fakeResources(true)
	r.Lists, r.Now = new(Rate), func() time.Time { return now }
	h := Handler(Config{Resources: r})
	get := func(user, from, path string) (status int, wait string) {
		t.Helper()
		q := httptest.NewRequest(http.MethodGet, path, nil)
		if q.RemoteAddr = from; user != "" {
			q.SetBasicAuth(user, "right")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w.Code, w.Header().Get("Retry-After")
	}
	const list, other = "/v1/presence/example.com", "/v1/presence/example.com/+?after=x"
	for i := range listsAtOnce {
		if status, _ := get("ann", "192.0.2.1:1", list); status != http.StatusOK {
			t.Fatalf("list %d: %d", i, status)
		}
	}
	for _, c := range []struct {
		user, from, path string
		status           int
		wait             string
	}{
		{"ann", "192.0.2.1:1", list, 429, "1"},
		{"ann", "192.0.2.9:1", other, 429, "1"}, // wherever she asks from, and for whatever page
		{"ann", "192.0.2.1:1", "/v1/presence/example.com/bob", 200, ""},
		{"bob", "192.0.2.1:1", list, 200, ""},
		{"", "192.0.2.1:1", list, 200, ""},
	} {
		if status, wait := get(c.user, c.from, c.path); status != c.status || wait != c.wait {
			t.Errorf("%q at %s, %s: %d, to wait for %q, want %d, %q", c.user, c.from, c.path, status, wait, c.status, c.wait)
		}
	}
	for range listsAtOnce - 1 {
		get("", "192.0.2.1:2", list) // who says no name is one by address, whatever the port
	}
	if status, _ := get("", "192.0.2.1:3", list); status != 429 {
		t.Errorf("one more without a name: %d, want 429", status)
	}
	if status, _ := get("", "192.0.2.2:1", list); status != 200 {
		t.Errorf("from another address: %d, want 200", status)
	}
	if got := r.Lists.Refused.Load(); got != 3 {
		t.Errorf("%d are counted, want 3", got)
	}
	now = now.Add(listsInterval)
	if status, _ := get("ann", "192.0.2.1:1", list); status != http.StatusOK {
		t.Errorf("after a second: %d, want 200", status)
	}
	if status, _ := get("ann", "192.0.2.1:1", list); status != 429 {
		t.Errorf("and one more: %d, want 429", status)
	}
}

// What is kept of askers is bounded; who has waited long enough goes first.
func TestAskersAreBounded(t *testing.T) {
	var r Rate
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for i := range askersKept {
		r.take(fmt.Sprint("early ", i), now)
	}
	now = now.Add(2 * listsInterval)
	r.take("late", now)
	if len(r.busy) != 1 {
		t.Errorf("%d are kept though all but one may have all again", len(r.busy))
	}
	for i := range 2 * askersKept {
		r.take(fmt.Sprint("late ", i), now)
	}
	if len(r.busy) != askersKept {
		t.Errorf("%d are kept, want %d", len(r.busy), askersKept)
	}
}

// Whoever fetches too often is told when to ask again, whatever they ask for, be it there or
// not; nobody else is held up by it, and lists are counted apart.
func TestFetchesHaveARate(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	r := fakeResources(true)
	r.Lists, r.Fetches, r.Now = new(Rate), NewRate(3, 10), func() time.Time { return now }
	h := Handler(Config{Resources: r})
	get := func(user, path string) (status int, wait, body string) {
		t.Helper()
		q := httptest.NewRequest(http.MethodGet, path, nil)
		q.SetBasicAuth(user, "right")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w.Code, w.Header().Get("Retry-After"), w.Body.String()
	}
	for i := range 3 {
		if status, _, _ := get("ann", "/v1/presence/example.com/bob"); status != http.StatusOK {
			t.Fatalf("fetch %d: %d", i, status)
		}
	}
	refusal := ""
	for _, path := range []string{
		"/v1/presence/example.com/bob", "/v1/presence/example.com/nobody", "/v1/me/watchers/presence", "/v1/me/stats/presence",
		"/v1/me/policy/presence", "/v1/me/preview/presence", "/v1/me/sub/presence/example.com/bob",
	} {
		status, wait, body := get("ann", path)
		if status != http.StatusTooManyRequests || wait != "1" {
			t.Errorf("%s: %d, to wait for %q", path, status, wait)
		}
		if refusal == "" {
			refusal = body
		}
		if body != refusal {
			t.Errorf("%s: told %s, of others %s", path, body, refusal)
		}
	}
	if got := r.Fetches.Refused.Load(); got != 7 {
		t.Errorf("%d are counted, want 7", got)
	}
	for user, path := range map[string]string{"ann": "/v1/presence/example.com", "bob": "/v1/presence/example.com/bob"} {
		if status, _, _ := get(user, path); status != http.StatusOK {
			t.Errorf("%s, %s: %d, want 200", user, path, status)
		}
	}
	now = now.Add(100 * time.Millisecond)
	for _, want := range []int{http.StatusOK, http.StatusTooManyRequests} {
		if status, _, _ := get("ann", "/v1/presence/example.com/bob"); status != want {
			t.Errorf("after a tenth of a second: %d, want %d", status, want)
		}
	}
}
