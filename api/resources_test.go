package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// fakeResources show who asks for what, so that tests see what was understood.
func fakeResources(anonymous bool) *Resources {
	return &Resources{
		Anonymous: anonymous,
		Identify: func(user, password, from string) (string, error) {
			switch password {
			case "right":
				return user + "@x.org", nil
			case "busy":
				return "", fmt.Errorf("%w: too many log in", ErrUnavailable)
			case "again":
				return "", &TooMany{1500 * time.Millisecond}
			case "from":
				return from, nil
			}
			return "", errors.New("no")
		},
		Name: func(kind, domain, local string) (string, error) {
			if local == "?" {
				return "", fmt.Errorf("%w: write a name", ErrBadName)
			}
			return strings.ToLower(kind + "/" + domain + "/" + local), nil
		},
		Show: func(principal, kind, domain, local string) (Document, error) {
			switch local {
			case "unknown":
				return Document{}, fmt.Errorf("%w: bad-event", ErrNoKind)
			case "odd":
				return Document{}, fmt.Errorf("%w: write even", ErrBadName)
			case "secret":
				return Document{}, fmt.Errorf("%w: identity-required", ErrNotPermitted)
			case "broken":
				return Document{}, errors.New("disk")
			case "cutoff":
				return Document{}, fmt.Errorf("%w: no leader", ErrUnavailable)
			}
			return Document{Type: "text/x", Body: fmt.Appendf(nil, "%s|%s|%s|%s", principal, kind, domain, local)}, nil
		},
		List: func(principal, kind, domain, after string, yield func(string, Document) bool) (string, error) {
			for i := range 300 {
				name := fmt.Sprintf("%s/%s/p%03d", kind, domain, i)
				if name > after && !yield(name, Document{Type: "application/json", Body: []byte(`{"for":"` + principal + `"}`)}) {
					return name, nil
				}
			}
			return "", nil
		},
		Policy: func(principal, kind string) (Document, error) {
			if kind == "unset" {
				return Document{}, nil
			}
			return Document{Type: "application/evt-policy+json", Body: []byte(principal + kind)}, nil
		},
		Own: func(principal, name, kind, _ string) (Document, error) {
			if kind == "unknown" {
				return Document{}, fmt.Errorf("%w: bad-event", ErrNoKind)
			}
			return Document{Type: "application/json", Body: fmt.Appendf(nil, "%s|%s|%s", principal, name, kind)}, nil
		},
		Subscription: func(principal, kind, domain, local string) (Document, error) {
			if local == "nobody" {
				return Document{}, nil
			}
			return Document{Type: "application/json", Body: fmt.Appendf(nil, "%s|sub|%s|%s|%s", principal, kind, domain, local)}, nil
		},
		Control: func(_ context.Context, principal, kind, verb string, data []byte) ([]byte, error) {
			switch string(data) {
			case "moved":
				return nil, fmt.Errorf("%w: stale-etag", ErrChanged)
			case "odd":
				return nil, fmt.Errorf("%w: schema", ErrUnacceptable)
			case "secret":
				return nil, fmt.Errorf("%w: identity-required", ErrNotPermitted)
			}
			if verb == "unknown" {
				return nil, fmt.Errorf("%w: bad-event", ErrNoKind)
			}
			return fmt.Appendf(nil, "%s|%s|%s|%s", principal, kind, verb, data), nil
		},
	}
}

func get(h http.Handler, path, user string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	if name, password, ok := strings.Cut(user, ":"); ok {
		r.SetBasicAuth(name, password)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestFetch(t *testing.T) {
	for _, x := range []struct {
		path, user string
		anonymous  bool
		status     int
		body       string // a part of it
	}{
		{"/v1/presence/example.com/bob", "ann:right", false, 200, "ann@x.org|presence|example.com|bob"},
		{"/v1/presence/example.com/a%2Fb", "ann:right", false, 200, "|a/b"},
		{"/v1/presence/example.com/bob", "", true, 200, "|presence|example.com|bob"},
		{"/v1/presence/example.com/bob", "", false, 401, "say who you are"},
		{"/v1/presence/example.com/bob", "ann:wrong", true, 401, "bad user name or password"},
		{"/v1/presence/example.com/bob", "ann:busy", true, 503, "too many"},
		{"/v1/presence/example.com/bob", "ann:again", true, 429, "too many have failed"},
		{"/v1/presence/example.com/bob", "ann:from", true, 200, "192.0.2.1:1234|"},
		{"/v1/presence/example.com?aftr=x", "ann:right", false, 400, `did you mean \"after\"?`},
		{"/v1/me/watchers/presence?aftr=x", "ann:right", false, 400, `did you mean \"after\"?`},
		{"/v1/me/preview/presence?wathcer=x", "ann:right", false, 400, `did you mean \"watcher\"?`},
		{"/v1/presence/example.com/unknown", "ann:right", false, 404, "bad-event"},
		{"/v1/presence/example.com/odd", "ann:right", false, 400, "write even"},
		{"/v1/presence/example.com/secret", "ann:right", false, 403, "identity-required"},
		{"/v1/presence/example.com/broken", "ann:right", false, 500, "disk"},
		{"/v1/presence/example.com/cutoff", "ann:right", false, 503, "no leader"},
		{"/v1/me/policy/presence", "ann:right", false, 200, "ann@x.orgpresence"},
		{"/v1/me/policy/unset", "ann:right", false, 404, "default"},
		{"/v1/presence/example.com/bob/phone", "ann:right", false, 404, ""},
		{"/v1/me/sub/presence/example.com/bob", "ann:right", false, 200, "ann@x.org|sub|presence|example.com|bob"},
		{"/v1/me/sub/presence/example.com/nobody", "ann:right", false, 404, "no subscription of yours"},
		{"/v1/me/sub/presence/example.com/bob", "", false, 401, "say who you are"},
		{"/v1/me/watchers/presence", "ann:right", false, 200, "ann@x.org|watchers|presence"},
		{"/v1/me/stats/location", "ann:right", true, 200, "ann@x.org|stats|location"},
		{"/v1/me/watchers/unknown", "ann:right", false, 404, "bad-event"},
		{"/v1/me/watchers/presence", "", false, 401, "say who you are"},
		{"/v1/me/watchers/presence", "", true, 401, "say who you are"}, // nobody has watchers
		{"/v1/me/stats/presence", "", true, 401, "say who you are"},
		{"/v1/me/stats/presence", "ann:wrong", true, 401, "bad user name or password"},
	} {
		w := get(Handler(Config{Resources: fakeResources(x.anonymous)}), x.path, x.user)
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.body) {
			t.Errorf("%s as %q: %d %s, want %d and %q", x.path, x.user, w.Code, w.Body, x.status, x.body)
		}
		if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: 401 without a challenge", x.path)
		}
		if want, after := map[int]string{429: "2", 503: "5"}[w.Code], w.Header().Get("Retry-After"); after != want {
			t.Errorf("%s: try again after %q seconds, want %q", x.path, after, want)
		}
	}
}

// A client that has the present document is told so, and no other.
func TestEntityTag(t *testing.T) {
	h := Handler(Config{Resources: fakeResources(false)})
	first := get(h, "/v1/presence/x.org/bob", "ann:right")
	tag := first.Header().Get("ETag")
	for _, x := range []struct {
		user, header string
		status       int
	}{
		{"ann:right", tag, 304},
		{"ann:right", `"other", W/` + tag, 304},
		{"ann:right", "*", 304},
		{"ann:right", `"other"`, 200},
		{"eve:right", tag, 200},
	} {
		w := get(h, "/v1/presence/x.org/bob", x.user, "If-None-Match", x.header)
		if w.Code != x.status || (w.Code == 304) != (w.Body.Len() == 0) {
			t.Errorf("%+v: %d %q", x, w.Code, w.Body)
		}
	}
	if cc := first.Header().Get("Cache-Control"); cc != "private, no-cache" || first.Header().Get("Vary") != "Authorization" {
		t.Errorf("a cache may keep it: %q", cc)
	}
}

// What owners are shown of their own has an entity tag, and no cache may keep it.
func TestOwnHasEntityTag(t *testing.T) {
	h := Handler(Config{Resources: fakeResources(true)})
	for _, path := range []string{"/v1/me/watchers/presence", "/v1/me/stats/presence", "/v1/me/sub/presence/x.org/bob"} {
		first := get(h, path, "ann:right")
		tag := first.Header().Get("ETag")
		again, other := get(h, path, "ann:right", "If-None-Match", tag), get(h, path, "eve:right", "If-None-Match", tag)
		if tag == "" || again.Code != 304 || again.Body.Len() > 0 || other.Code != 200 || first.Header().Get("Cache-Control") != "private, no-cache" {
			t.Errorf("%s: %d with tag %q, again %d %q, somebody else %d", path, first.Code, tag, again.Code, again.Body, other.Code)
		}
	}
}

// What owners ask for is done in their name, and what is refused says why.
func TestControl(t *testing.T) {
	for _, x := range []struct {
		verb, user, body string
		anonymous        bool
		status           int
		says             string
	}{
		{"approve", "ann:right", "data", false, 200, "ann@x.org|presence|approve|data"},
		{"deny", "ann:right", "moved", false, 412, "stale-etag"},
		{"deny", "ann:right", "odd", false, 422, "schema"},
		{"revoke", "", "secret", true, 403, "identity-required"},
		{"revoke", "", "data", false, 401, "say who you are"},
		{"revoke", "ann:wrong", "data", true, 401, "bad user name"},
		{"unknown", "ann:right", "data", false, 404, "bad-event"},
		{"cancel", "ann:right", "data", false, 404, "no such request here"},
		{"approve", "ann:right", strings.Repeat("x", maxControl+1), false, 413, "at most 65536 bytes"},
	} {
		r := httptest.NewRequest("POST", "/v1/presence/subscriptions/"+x.verb, strings.NewReader(x.body))
		if name, password, ok := strings.Cut(x.user, ":"); ok {
			r.SetBasicAuth(name, password)
		}
		w := httptest.NewRecorder()
		Handler(Config{Resources: fakeResources(x.anonymous)}).ServeHTTP(w, r)
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.says) {
			t.Errorf("%s %.20q as %q: %d %s, want %d and %q", x.verb, x.body, x.user, w.Code, w.Body, x.status, x.says)
		}
		if w.Code == 200 && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: a cache may keep the answer", x.verb)
		}
	}
}

// Conditions hold as RFC 9110 has them: lists, any, strongly for If-Match and weakly for
// If-None-Match.
func TestConditions(t *testing.T) {
	const tag = `"a"`
	for _, c := range []struct {
		field string
		lines []string
		there bool
		holds bool
	}{
		{"If-Match", nil, false, true},
		{"If-Match", []string{tag}, true, true},
		{"If-Match", []string{tag}, false, false},
		{"If-Match", []string{`"b"`}, true, false},
		{"If-Match", []string{`"b", ` + tag}, true, true},
		{"If-Match", []string{`"b"`, tag}, true, true},
		{"If-Match", []string{"W/" + tag}, true, false},
		{"If-Match", []string{"a"}, true, false},
		{"If-Match", []string{"*"}, true, true},
		{"If-Match", []string{"*"}, false, false},
		{"If-None-Match", []string{tag}, true, false},
		{"If-None-Match", []string{tag}, false, true},
		{"If-None-Match", []string{"W/" + tag}, true, false},
		{"If-None-Match", []string{`"b",` + tag}, true, false},
		{"If-None-Match", []string{`"b"`}, true, true},
		{"If-None-Match", []string{"*"}, true, false},
		{"If-None-Match", []string{"*"}, false, true},
	} {
		r := httptest.NewRequest("PUT", "/", nil)
		r.Header[c.field] = c.lines
		conditioned, match, none := conditions(r, c.there, tag)
		if conditioned != (c.lines != nil) || (match && none) != c.holds {
			t.Errorf("%s: %q, there %v: %v %v, want %v", c.field, c.lines, c.there, match, none, c.holds)
		}
	}
}

// A list comes in pages that together have everything once.
func TestList(t *testing.T) {
	h := Handler(Config{Resources: fakeResources(false)})
	seen, after := 0, ""
	for page := 0; page == 0 || after != ""; page++ {
		var got struct {
			Items []listed
			Next  string
		}
		w := get(h, "/v1/presence/x.org?after="+after, "ann:right")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Items) > mostListed || page > 5 {
			t.Fatalf("page %d: %v, %d items", page, err, len(got.Items))
		}
		for _, item := range got.Items {
			if want := fmt.Sprintf("presence/x.org/p%03d", seen); item.Resource != want || string(item.Document) != `{"for":"ann@x.org"}` {
				t.Fatalf("got %+v, want %s", item, want)
			}
			seen++
		}
		after = got.Next
	}
	if seen != 300 {
		t.Errorf("%d of 300", seen)
	}
}

// The filter of a subscription is a list, too; somebody whose name is the wildcard is not.
func TestListByWildcard(t *testing.T) {
	h := Handler(Config{Resources: fakeResources(false)})
	want := get(h, "/v1/presence/x.org?after=", "ann:right")
	if got := get(h, "/v1/presence/x.org/+?after=", "ann:right"); got.Code != 200 || got.Body.String() != want.Body.String() || got.Header().Get("ETag") != "" {
		t.Errorf("the wildcard: %d %.80s, want the list", got.Code, got.Body)
	}
	if got := get(h, "/v1/presence/x.org/%2B", "ann:right"); strings.Contains(got.Body.String(), "items") {
		t.Errorf("somebody whose name is +: %d %.80s", got.Code, got.Body)
	}
}
