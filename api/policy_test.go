package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// fakePolicies notes what it is asked to do.
type fakePolicies struct {
	did []string
	err error
}

func (f *fakePolicies) do(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakePolicies) Denied(_ context.Context, id string) (Denial, error) {
	return Denial{ID: id, Principal: "bob@x.org", Rule: "r"}, f.do("denied %s", id)
}

func (f *fakePolicies) Version(_ context.Context, number uint64) (PolicyText, error) {
	return PolicyText{Number: max(number, 7), Data: []byte("rules: []"), Domain: "x.org"}, f.do("version %d", number)
}

func (f *fakePolicies) Versions(context.Context) []PolicyVersion { return []PolicyVersion{{Number: 7}} }

func (f *fakePolicies) Put(_ context.Context, c PolicyChange) (PolicyResult, error) {
	return PolicyResult{Number: 8}, f.do("put %s by %s on %d, dry %t%s", c.Data, c.By, c.Base, c.Dry, c.Shadow)
}

func (f *fakePolicies) Ask(_ context.Context, q PolicyQuestion) (any, error) {
	return map[string]bool{"allow": true}, f.do("%s %s %s %d", q.What, q.As, q.Topic, q.Version)
}

func (f *fakePolicies) Shadow(_ context.Context, stop bool) (Shadow, error) {
	return Shadow{}, f.do("shadow, stop %t", stop)
}

func askPolicies(t *testing.T, f *fakePolicies, who, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	h := Handler(Config{Policies: f, Operators: &Operators{
		Identify: func(user, password, _ string) (string, error) {
			if password != "right" {
				return "", errors.New("wrong")
			}
			return user + "@x.org", nil
		},
		Includes: func(principal string) bool { return principal == "ana@x.org" },
	}})
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if who != "" {
		r.SetBasicAuth(who, "right")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Everything about the policy is for operators: whoever else asks is refused before
// anything is done. Only of a refusal whom it hit is told.
func TestPolicyIsForOperators(t *testing.T) {
	for _, c := range []struct{ method, path, body, did string }{
		{"GET", "/v1/policy", "", "version 0"},
		{"GET", "/v1/policy/versions/3", "", "version 3"},
		{"GET", "/v1/policy/versions", "", ""},
		{"PUT", "/v1/policy", "x", "put x by ana@x.org on 0, dry false"},
		{"PUT", "/v1/policy?dry_run", "x", "put x by ana@x.org on 0, dry true"},
		{"POST", "/v1/policy/rollback", `{"to":3}`, "version 3; put rules: [] by ana@x.org on 0, dry false"},
		{"PUT", "/v1/policy?dry_run=false", "x", "put x by ana@x.org on 0, dry false"},
		{"POST", "/v1/policy/rollback?dry_run", `{"to":3}`, "version 3; put rules: [] by ana@x.org on 0, dry true"},
		{"GET", "/v1/policy/explain?as=bob&topic=t", "", "explain bob t 0"},
		{"GET", "/v1/acl/explain?as=bob&topic=t&version=2", "", "explain bob t 2"},
		{"GET", "/v1/policy/who?topic=t", "", "who  t 0"},
		{"GET", "/v1/policy/can?as=bob", "", "can bob  0"},
		{"POST", "/v1/policy/diff", "x", "diff   0"},
		{"PUT", "/v1/policy?shadow=1h", "x", "put x by ana@x.org on 0, dry false1h"},
		{"GET", "/v1/policy/shadow", "", "shadow, stop false"},
		{"DELETE", "/v1/policy/shadow", "", "shadow, stop true"},
	} {
		for who, want := range map[string]int{"": http.StatusUnauthorized, "bob": http.StatusForbidden, "ana": http.StatusOK} {
			f := new(fakePolicies)
			w := askPolicies(t, f, who, c.method, c.path, c.body)
			did := ""
			if want == http.StatusOK {
				did = c.did
			}
			if got := strings.Join(f.did, "; "); w.Code != want || got != did {
				t.Errorf("%s %s as %q: %d %s, did %q, want %d and %q", c.method, c.path, who, w.Code, w.Body, got, want, did)
			}
		}
	}
	for who, want := range map[string]int{"": 401, "bob": 200, "ana": 200, "cy": 404} {
		if w := askPolicies(t, new(fakePolicies), who, "GET", "/v1/policy/denials/7Q2MK3XD", ""); w.Code != want {
			t.Errorf("a refusal of bob as %q: %d %s", who, w.Code, w.Body)
		}
	}
}

// Each way in which a change fails has its status and code, and tells all faults; a
// condition is handed on, and one that is none is refused.
func TestPolicyRefusals(t *testing.T) {
	faults := &PolicyFaults{Faults: []PolicyFault{{Line: 3, What: "a"}, {Line: 5, What: "b"}}, Report: "report"}
	failed := &PolicyFaults{Faults: []PolicyFault{{Line: 3, Test: "t", What: "a"}}, Tests: true}
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{faults, 422, "BW-2011"},
		{faults, 422, `"faults":[{"line":3,"what":"a"},{"line":5,"what":"b"}],"report":"report"`},
		{failed, 422, "BW-2018"},
		{fmt.Errorf("%w: 9", ErrNotInForce), 412, "BW-2017"},
		{ErrNoPolicy, 404, "BW-2019"},
		{ErrBadQuestion, 400, "BW-2001"},
		{ErrNoShadow, 404, "BW-2019"},
		{ErrNoTenant, 404, "BW-2019"},
		{fmt.Errorf("%w: when?", ErrBadQuestion), 400, `"detail":"when?"`},
		{fmt.Errorf("%w: x", ErrNoLeader), 503, "BW-7001"},
		{context.DeadlineExceeded, 504, "BW-7006"},
		{fmt.Errorf("%w: x", ErrMayBeDone), 504, "may yet be done"},
		{fmt.Errorf("%w: x", ErrConflict), 409, "BW-7005"},
		{errors.New("x"), 500, "BW-9001"},
	} {
		if w := askPolicies(t, &fakePolicies{err: c.err}, "ana", "PUT", "/v1/policy", "x"); w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%v: %d %s, want %d and %s", c.err, w.Code, w.Body, c.status, c.says)
		}
	}
	f := new(fakePolicies)
	for _, c := range [][]string{{"If-Match", `"7", "8"`}, {"If-None-Match", `"8"`}} {
		if w := askPolicies(t, f, "ana", "PUT", "/v1/policy", "x", c...); w.Code != 200 || !slices.Equal(f.did, []string{"version 0", "put x by ana@x.org on 7, dry false"}) {
			t.Errorf("%v: %d %v", c, w.Code, f.did)
		}
		f = new(fakePolicies)
	}
	for _, c := range [][]string{{"If-Match", `"6", "8"`}, {"If-None-Match", "*"}, {"If-None-Match", `"6", "7"`}} {
		if w := askPolicies(t, f, "ana", "PUT", "/v1/policy", "x", c...); w.Code != 412 || !slices.Equal(f.did, []string{"version 0"}) {
			t.Errorf("%v: %d %v", c, w.Code, f.did)
		}
		f = new(fakePolicies)
	}
	if w := askPolicies(t, f, "ana", "PUT", "/v1/policy", "x", "If-Match", `"7"`); w.Code != 200 || f.did[0] != "put x by ana@x.org on 7, dry false" || w.Header().Get("ETag") != `"8"` {
		t.Errorf("%d %v %v", w.Code, f.did, w.Header())
	}
	for _, query := range []string{"shadow", "shadow=", "dry-run", "dryrun=1", "dry_run=maybe", "dry_run&shadow=1h", "to=3"} {
		for method, path := range map[string]string{"PUT": "/v1/policy", "POST": "/v1/policy/rollback"} {
			f := new(fakePolicies)
			if w := askPolicies(t, f, "ana", method, path+"?"+query, `{"to":3}`); w.Code != 400 || len(f.did) > 0 || !strings.Contains(w.Body.String(), "BW-2001") {
				t.Errorf("%s ?%s: %d %s, did %v", method, query, w.Code, w.Body, f.did)
			}
		}
	}
	for path, says := range map[string]string{"can?az=bob@x.org": "there are ", "diff?versoin=7": "version", "explain?as=bob@x.org&as=eve@x.org": "give it once"} {
		if w := askPolicies(t, f, "ana", "GET", "/v1/policy/"+path, ""); w.Code != 400 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, tag := range []string{"7x", `W/"7"`, `"a"`} {
		f := new(fakePolicies)
		if w := askPolicies(t, f, "ana", "PUT", "/v1/policy", "x", "If-Match", tag); w.Code != 400 || len(f.did) > 0 {
			t.Errorf("If-Match %s: %d %v", tag, w.Code, f.did)
		}
	}
	if w := askPolicies(t, f, "ana", "PUT", "/v1/policy", strings.Repeat("#", maxPolicy+1)); w.Code != 413 {
		t.Errorf("too large: %d", w.Code)
	}
	if w := askPolicies(t, new(fakePolicies), "ana", "GET", "/v1/policy", "", "If-None-Match", `"7"`); w.Code != 304 {
		t.Errorf("not modified: %d", w.Code)
	}
	if w := askPolicies(t, new(fakePolicies), "ana", "PUT", "/v1/policy", "x", "Sec-Fetch-Site", "cross-site"); w.Code != 403 {
		t.Errorf("from a page of another origin: %d", w.Code)
	}
}

// A policy is put in force only where the entity tag is that of the one in force: no number
// stands for any, and any for none.
func TestPolicyConditions(t *testing.T) {
	for _, c := range []struct {
		match  string
		err    error
		status int
		did    string
	}{
		{`"7"`, nil, 200, "put x by ana@x.org on 7, dry false"},
		{`"0"`, nil, 412, "version 0"},
		{`*`, nil, 200, "version 0; put x by ana@x.org on 7, dry false"},
		{`*`, ErrNoPolicy, 412, "version 0"},
		{`"6", "7"`, nil, 200, "version 0; put x by ana@x.org on 7, dry false"},
		{`"5", "6"`, nil, 412, "version 0"},
	} {
		f := &fakePolicies{err: c.err}
		w := askPolicies(t, f, "ana", "PUT", "/v1/policy", "x", "If-Match", c.match)
		if did := strings.Join(f.did, "; "); w.Code != c.status || did != c.did {
			t.Errorf("If-Match: %s, %v: %d %s, did %q; want %d, %q", c.match, c.err, w.Code, w.Body, did, c.status, c.did)
		}
	}
}

// A policy is called in messages what its sender calls it; what could be no name is none.
func TestFileHeader(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "better.yaml": "better.yaml", "a%20%C3%B1.yaml": "a ñ.yaml", "%1B%5B31m": "", "%FF": "", "%x": "", strings.Repeat("a", 256): "",
	} {
		r := httptest.NewRequest("PUT", "/v1/policy", nil)
		r.Header.Set(FileHeader, header)
		if got := fileOf(r); got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
}

func TestFaultsAreCounted(t *testing.T) {
	for want, e := range map[string]PolicyFaults{
		"the policy has 1 fault: the one in force stays":              {Faults: make([]PolicyFault, 1)},
		"the policy has 2 faults: the one in force stays":             {Faults: make([]PolicyFault, 2)},
		"the policy fails 1 test of its own: the one in force stays":  {Faults: make([]PolicyFault, 1), Tests: true},
		"the policy fails 2 tests of its own: the one in force stays": {Faults: make([]PolicyFault, 2), Tests: true},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}
