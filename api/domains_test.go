package api

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// fakeDomains counts how often it is asked anything.
type fakeDomains struct{ asked int }

func (f *fakeDomains) did() error { f.asked++; return ErrNoTenant }

func (f *fakeDomains) Policy(context.Context, string, uint64) (PolicyText, error) {
	return PolicyText{}, f.did()
}

func (f *fakeDomains) PolicyVersions(context.Context, string) ([]PolicyVersion, error) {
	return nil, f.did()
}

func (f *fakeDomains) PutPolicy(context.Context, string, PolicyChange) (PolicyResult, error) {
	return PolicyResult{}, f.did()
}

func (f *fakeDomains) DiffPolicy(context.Context, string, PolicyQuestion) (any, error) {
	return nil, f.did()
}

func (f *fakeDomains) Subscriptions(context.Context, string, string) (SubscriptionList, error) {
	return SubscriptionList{}, f.did()
}

func (f *fakeDomains) Invitations(context.Context, string, string) (InvitationList, error) {
	return InvitationList{}, f.did()
}
func (f *fakeDomains) Cancel(context.Context, string, Cancelling) (int, error) { return 0, f.did() }
func (f *fakeDomains) Provision(context.Context, string, string, Provision) (string, error) {
	return "", f.did()
}
func (f *fakeDomains) Invite(context.Context, string, string, Invitation) error { return f.did() }
func (f *fakeDomains) Usage(context.Context, string) (DomainUsage, error) {
	return DomainUsage{}, f.did()
}

// countedAudits counts likewise.
type countedAudits struct{ read, written int }

func (f *countedAudits) Write(context.Context, Look) error { f.written++; return nil }
func (f *countedAudits) Read(context.Context, AuditQuery) (AuditPage, error) {
	f.read++
	return AuditPage{}, nil
}

// Who administers one domain and asks about another is answered before anything is looked at
// or written: so neither the answer nor the time that it takes can depend on what there is.
// Over MQTT it is the same; and who may is answered by what was asked.
func TestOthersDomainsAreNotLookedAt(t *testing.T) {
	d, a := &fakeDomains{}, &countedAudits{}
	h := Handler(Config{Domains: d, Operators: &Operators{
		Identify: func(user, _, _ string) (string, error) { return user, nil },
		Includes: func(string) bool { return false },
		Audits:   a,
		Administers: func(principal string) []string {
			if principal == "adm@y.org" {
				return []string{"y.org"}
			}
			return nil
		},
	}})
	const it = `{"kind":"presence","watcher":"a@x.org","target":"b@x.org"}`
	for _, domain := range []string{"x.org", "y.org"} {
		for _, c := range []struct{ method, path, topic, body string }{
			{"GET", "policy", "policy", ""},
			{"GET", "policy/versions", "policy/versions", ""},
			{"GET", "policy/diff", "policy/diff", ""},
			{"PUT", "policy", "policy/put", `{"policy":"rules: []"}`},
			{"DELETE", "policy", "policy/end", ""},
			{"POST", "policy/rollback", "policy/rollback", `{"to":1}`},
			{"GET", "usage", "usage", ""},
			{"GET", "subscriptions", "subs", ""},
			{"POST", "subscriptions/cancel", "cancel", strings.ReplaceAll(it, "x.org", domain)},
			{"POST", "subscriptions/provision", "provision", strings.ReplaceAll(it, "x.org", domain)},
			{"POST", "subscriptions/invite", "invite", strings.ReplaceAll(it, "x.org", domain)},
		} {
			*d, *a = fakeDomains{}, countedAudits{}
			r := httptest.NewRequest(c.method, "/v1/domains/"+domain+"/"+c.path, strings.NewReader(c.body))
			r.SetBasicAuth("adm@y.org", "")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			asked, written := d.asked, a.written
			served := Serve(t.Context(), h, "adm@y.org", "$adm/"+domain+"/"+c.topic, []byte(c.body))
			if served.Status != w.Code {
				t.Errorf("%s %s: %d by HTTP, %d over MQTT", domain, c.path, w.Code, served.Status)
			}
			if own := domain == "y.org"; own != (asked > 0) || !own && (w.Code != 403 || d.asked+a.written+written > 0) || own && d.asked != 2*asked {
				t.Errorf("%s %s: %d, asked %d times, %d over MQTT, written %d", domain, c.path, w.Code, asked, d.asked-asked, a.written)
			}
		}
	}
	for _, domain := range []string{".", ".."} { // no way to another path
		if s := Serve(t.Context(), h, "adm@y.org", "$adm/"+domain+"/usage", nil); s.Status != 400 || !strings.Contains(s.Detail, "is no domain") {
			t.Errorf("%s: %+v", domain, s)
		}
	}
	if s := Serve(t.Context(), h, "adm@y.org", "$adm/x.org/audit", nil); s.Status != 403 || a.read > 0 {
		t.Errorf("the audit: %d", s.Status)
	}
	if s := Serve(t.Context(), h, "adm@y.org", "$adm/y.org/audit", nil); s.Status != 200 || a.read != 1 {
		t.Errorf("the own audit: %d", s.Status)
	}
}

// What DELETE does not know is told by its name, and ends nothing.
func TestWhatEndsADomainsPolicy(t *testing.T) {
	f := new(fakeDomains)
	h := Handler(Config{Domains: f, Operators: &Operators{Identify: fakeResources(false).Identify, Includes: func(string) bool { return true }}})
	for query, says := range map[string]string{"dry_run": "not for DELETE", "shadow=1h": "not for DELETE", "dryrun": "dryrun"} {
		r := httptest.NewRequest("DELETE", "/v1/domains/x.org/policy?"+query, nil)
		r.SetBasicAuth("ana", "right")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 400 || !strings.Contains(w.Body.String(), says) || f.asked > 0 {
			t.Errorf("%s: %d %s, %d asked", query, w.Code, w.Body, f.asked)
		}
	}
}

// What is too large for a packet is refused, and said.
func TestServeIsBounded(t *testing.T) {
	w := &recorder{}
	w.header = map[string][]string{}
	fmt.Fprintf(w, "%q", strings.Repeat("x", maxReply))
	if s := w.served(); s.Status != 413 || !strings.Contains(s.Detail, "ask for less") || len(s.Reply) > 1000 {
		t.Errorf("%d %s, %d bytes", s.Status, s.Detail, len(s.Reply))
	}
	if err := readAsked(new(admRequest), []string{"to"}, []byte(`[1]`)); err == nil || errors.Is(err, ErrBadQuestion) {
		t.Error(err)
	}
}
