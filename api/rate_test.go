package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
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

// Whoever fetches too often is told when to ask again, whatever they ask for, be it there or
// not; nobody else is held up by it, and lists are counted apart.
func TestFetchesHaveARate(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	r := fakeResources(true)
	r.Lists, r.Fetches, r.Now = new(Rate), NewRate(Bounds{3, time.Second / 10}), func() time.Time { return now }
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

// Who asks for one resource too often, however it is spelt and whatever they have of it, is
// told when to ask again, the same whether there is one or not; they may ask for others, and
// for what is their own, and others for it.
func TestFetchesOfOneResourceHaveARate(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	r := fakeResources(true)
	r.Repeats, r.Now = NewRate(Bounds{2, 30 * time.Second}), func() time.Time { return now }
	h := Handler(Config{Resources: r})
	tag := ""
	get := func(user, path string) *httptest.ResponseRecorder {
		q := httptest.NewRequest(http.MethodGet, path, nil)
		q.Header.Set("If-None-Match", tag)
		if user != "" {
			q.SetBasicAuth(user, "right")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w
	}
	const bobs = "/v1/presence/example.com/bob"
	tag = get("ann", bobs).Header().Get("ETag")
	for _, c := range []struct {
		after      time.Duration
		user, path string
		status     int
		wait       string
	}{
		{0, "ann", bobs, 304, ""},
		{0, "ann", bobs, 429, "30"},
		{0, "ann", "/v1/presence/EXAMPLE.com/Bob", 429, "30"},
		{0, "ann", bobs + "?x=1", 429, "30"},
		{0, "ann", "/v1/presence/example.com/%3F", 400, ""},
		{0, "ann", "/v1/location/example.com/bob", 200, ""},
		{0, "ann", "/v1/presence/example.com/unknown", 404, ""},
		{0, "ann", "/v1/presence/example.com/unknown", 404, ""},
		{0, "ann", "/v1/presence/example.com/unknown", 429, "30"},
		{0, "ann", "/v1/me/policy/presence", 200, ""},
		{0, "ann", "/v1/me/policy/presence", 200, ""},
		{0, "ann", "/v1/me/policy/presence", 200, ""},
		{0, "", bobs, 200, ""},
		{0, "bob", bobs, 200, ""},
		{20 * time.Second, "ann", bobs, 429, "10"},
		{10 * time.Second, "ann", bobs, 304, ""},
		{0, "ann", bobs, 429, "30"},
		{time.Hour, "ann", bobs, 304, ""},
		{0, "ann", bobs, 304, ""},
		{0, "ann", bobs, 429, "30"},
	} {
		now = now.Add(c.after)
		w := get(c.user, c.path)
		if wait := w.Header().Get("Retry-After"); w.Code != c.status || wait != c.wait {
			t.Errorf("%s, %q: %d, to wait for %q, want %d, %q", c.path, c.user, w.Code, wait, c.status, c.wait)
		}
		if w.Code == http.StatusTooManyRequests && !strings.Contains(w.Body.String(), "too many fetches of this resource (2 at once, and one more each 30s): subscribe to be told of changes, or ask again later") {
			t.Errorf("%s: told %s", c.path, w.Body)
		}
	}
	if got := r.Repeats.Refused.Load(); got != 7 {
		t.Errorf("%d are counted, want 7", got)
	}
	r.Repeats.Change(Bounds{4, 30 * time.Second})
	for i := range 3 {
		if w := get("ann", bobs); (w.Code == 304) != (i < 2) {
			t.Errorf("with two more at once: %d", w.Code)
		}
	}
}
