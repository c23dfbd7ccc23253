package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fakeAudits notes the looks that are written down.
type fakeAudits struct {
	looks []Look
	read  []AuditQuery
	err   error
}

func (f *fakeAudits) Write(_ context.Context, l Look) error {
	f.looks = append(f.looks, l)
	return f.err
}

func (f *fakeAudits) Read(_ context.Context, q AuditQuery) (AuditPage, error) {
	f.read = append(f.read, q)
	return AuditPage{Entries: []any{}}, nil
}

func auditedBy(f *fakeAudits, who, path string) *httptest.ResponseRecorder {
	h := Handler(Config{Policies: new(fakePolicies), Operators: &Operators{
		Identify:    func(user, _, _ string) (string, error) { return user, nil },
		Includes:    func(principal string) bool { return principal == "ana@x.org" },
		Administers: func(principal string) []string { return map[string][]string{"cy@y.org": {"x.org"}}[principal] },
		Audits:      f,
	}})
	r := httptest.NewRequest("GET", path, http.NoBody)
	r.SetBasicAuth(who, "right")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Whatever an administrator looks at is written down before it is told, with whom it is
// about; what cannot be written is not told.
func TestLookThatIsNotAuditedIsRefused(t *testing.T) {
	for path, want := range map[string]Look{
		"/v1/policy/explain?as=bob@x.org&action=publish&topic=t": {By: "cy@y.org", What: "explain", About: "bob@x.org", Result: "told"},
		"/v1/policy/can?as=bob@x.org":                            {By: "cy@y.org", What: "can", About: "bob@x.org", Result: "told"},
		"/v1/policy/who?action=publish&topic=t":                  {By: "cy@y.org", What: "who", About: "*@x.org", Result: "told"},
		"/v1/policy/denials/7Q2MK3XD":                            {By: "cy@y.org", What: "denial", About: "bob@x.org", Result: "told"},
	} {
		f := new(fakeAudits)
		if w := auditedBy(f, "cy@y.org", path); w.Code != 200 || len(f.looks) != 1 || f.looks[0] != want {
			t.Errorf("%s: %d %s, written %+v", path, w.Code, w.Body, f.looks)
		}
		f = &fakeAudits{err: errors.New("no leader")}
		if w := auditedBy(f, "cy@y.org", path); w.Code != 503 || strings.Contains(w.Body.String(), "allow") || strings.Contains(w.Body.String(), "bob") {
			t.Errorf("%s, which cannot be written down: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/v1/policy", "/v1/policy/versions/3", "/v1/policy/diff"} {
		if w := auditedBy(&fakeAudits{err: errors.New("no leader")}, "ana@x.org", path); w.Code != 503 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// The audit is read by operators, of a domain by its administrators, and by everybody as far
// as it concerns them; whatever else somebody asks for.
func TestAuditIsForWhomItConcerns(t *testing.T) {
	own := func(who, domain string) *AuditQuery { return &AuditQuery{Domain: domain, About: who} }
	for _, c := range []struct {
		who, path string
		want      *AuditQuery // nil: 403
	}{
		{"ana@x.org", "/v1/audit", &AuditQuery{}},
		{"ana@x.org", "/v1/audit?domain=Y.org&before=7", &AuditQuery{Domain: "y.org", Before: 7}},
		{"cy@y.org", "/v1/audit?domain=x.org", &AuditQuery{Domain: "x.org"}},
		{"cy@y.org", "/v1/audit?domain=x.org&about=bob@x.org", &AuditQuery{Domain: "x.org", About: "bob@x.org"}},
		{"cy@y.org", "/v1/audit?domain=y.org", nil},
		{"cy@y.org", "/v1/audit", own("cy@y.org", "y.org")},
		{"bob@x.org", "/v1/audit", own("bob@x.org", "x.org")},
		{"bob@x.org", "/v1/audit?about=ana@x.org", own("bob@x.org", "x.org")},
		{"bob@x.org", "/v1/audit?domain=x.org", nil},
		{"bob@x.org", "/v1/audit?domain=none.org", nil},
		{"bob@x.org", "/v1/audit?domain=x.org&about=ana@x.org", nil},
	} {
		f := new(fakeAudits)
		w := auditedBy(f, c.who, c.path)
		if c.want == nil && (w.Code != 403 || len(f.read) > 0) || c.want != nil && (w.Code != 200 || len(f.read) != 1 || f.read[0] != *c.want) {
			t.Errorf("%s as %s: %d %s, read %+v", c.path, c.who, w.Code, w.Body, f.read)
		}
	}
	f := new(fakeAudits)
	if w := auditedBy(f, "ana@x.org", "/v1/audit?bfore=7"); w.Code != 400 || len(f.read) > 0 || !strings.Contains(w.Body.String(), `did you mean \"before\"?`) {
		t.Errorf("a misspelt parameter: %d %s, read %+v", w.Code, w.Body, f.read)
	}
}
