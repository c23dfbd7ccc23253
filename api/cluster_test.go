package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// A fakeCluster notes what it is asked to do.
type fakeCluster struct {
	did []string
	err error
}

func (f *fakeCluster) Status(context.Context) Status {
	return Status{Cluster: "9f3c1a2b-0000", Leader: "n1", Term: 3, Voters: 3, Up: 2, Members: []Member{{Name: "n1", PID: 7}}}
}

func (f *fakeCluster) Verify(context.Context) (Verification, error) {
	return Verification{Equal: true, Nodes: []Digest{{Node: "n1", Index: 5, Digest: "ab"}}}, f.do("verify")
}

func (f *fakeCluster) do(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeCluster) Remove(_ context.Context, node string, force bool, who string) error {
	return f.do("remove %s %t %s", node, force, who)
}

func (f *fakeCluster) Promote(_ context.Context, node string) error {
	return f.do("promote %s", node)
}

func (f *fakeCluster) Transfer(_ context.Context, node string) error {
	return f.do("transfer %s", node)
}

func (f *fakeCluster) Drain(_ context.Context, node string, force bool) error {
	return f.do("drain %s %t", node, force)
}

func (f *fakeCluster) Resume(_ context.Context, node string) error { return f.do("resume %s", node) }

// ask sends a request to a node whose operator is ana; local says that whoever
// connects from this machine could read the node's files.
func ask(t *testing.T, f *fakeCluster, local bool, change func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	h := Handler(Config{Cluster: f, Operators: &Operators{
		Identify: fakeResources(false).Identify,
		Includes: func(principal string) bool { return principal == "ana@x.org" },
		Local: func(from, to netip.AddrPort) bool {
			if from.String() != "127.0.0.1:40000" || to.String() != "127.0.0.1:8080" {
				t.Errorf("asked about %v, %v", from, to)
			}
			return local
		},
	}})
	r := httptest.NewRequest("POST", "/v1/cluster/remove", strings.NewReader(`{"node":"n2","force":true}`))
	r = fromHere(r)
	change(r)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Only operators change anything: who shows the credentials of one, and who is on
// the machine itself and could read the node's files anyway.
func TestOnlyOperators(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	look := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			r.Method, r.URL.Path = http.MethodGet, "/v1/cluster/verify"
			r.Header.Set(name, value)
		}
	}
	as := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	for _, c := range []struct {
		name   string
		local  bool
		change func(*http.Request)
		status int
	}{
		{"an operator", false, as("ana", "right"), 200},
		{"a guess", false, as("ana", "wrong"), 401},
		{"somebody else", false, as("bo", "right"), 403},
		{"somebody else on the machine", true, as("bo", "right"), 403},
		{"too many guesses", false, as("ana", "again"), 429},
		{"nobody can be checked now", false, as("ana", "busy"), 503},
		{"nobody", false, func(*http.Request) {}, 401},
		{"on the machine", true, func(*http.Request) {}, 200},
		{"on the machine, by name", true, func(r *http.Request) { r.Host = "localhost:8080" }, 200},
		{"on the machine, with a token of another kind", true, header("Authorization", "Bearer x"), 401},
		{"through a proxy", true, header("X-Forwarded-For", "10.0.0.9"), 401},
		{"through another proxy", true, header("Forwarded", "for=10.0.0.9"), 401},
		{"a name that was made to point here", true, func(r *http.Request) { r.Host = "evil.example" }, 401},
		{"a page in somebody's browser", true, header("Sec-Fetch-Site", "cross-site"), 403},
		{"a page in somebody's browser that looks", true, look("Sec-Fetch-Site", "cross-site"), 401},
		{"a page of an old browser that looks", true, look("Origin", "null"), 401},
		{"who types the address into a browser", true, look("Sec-Fetch-Site", "none"), 200},
		{"a page in an operator's browser", false, func(r *http.Request) {
			r.SetBasicAuth("ana", "right")
			r.Header.Set("Origin", "https://evil.example")
		}, 403},
		{"another machine", true, func(r *http.Request) { r.RemoteAddr = "10.0.0.9:40000" }, 401},
	} {
		f := &fakeCluster{}
		w := ask(t, f, c.local, c.change)
		if w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, w.Code, w.Body, c.status)
		}
		if did := len(f.did) > 0; did != (c.status == 200) {
			t.Errorf("%s: it did %q", c.name, f.did)
		}
	}
}

// Each verb does what it says, with what it was given.
func TestClusterVerbs(t *testing.T) {
	for _, c := range []struct{ method, path, body, did string }{
		{"POST", "/v1/cluster/remove", `{"node":"n2"}`, "remove n2 false local"},
		{"POST", "/v1/cluster/remove", `{"node":"n2","force":true}`, "remove n2 true local"},
		{"POST", "/v1/cluster/promote", `{"node":"n2"}`, "promote n2"},
		{"POST", "/v1/cluster/transfer-leader", `{"node":"n2"}`, "transfer n2"},
		{"POST", "/v1/cluster/transfer-leader", `{}`, "transfer "},
		{"POST", "/v1/cluster/drain", `{"node":"n2","force":true}`, "drain n2 true"},
		{"POST", "/v1/cluster/resume", `{"node":"n2"}`, "resume n2"},
		{"GET", "/v1/cluster/verify", "", "verify"},
		{"POST", "/v1/cluster/remove", `{}`, ""},
		{"POST", "/v1/cluster/remove", `{"nod":"n2"}`, ""},
		{"POST", "/v1/cluster/remove", `n2`, ""},
	} {
		f := &fakeCluster{}
		w := ask(t, f, true, func(r *http.Request) {
			n := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Method, r.URL, r.Body = n.Method, n.URL, n.Body
		})
		if got := strings.Join(f.did, ";"); got != c.did {
			t.Errorf("%s %s: it did %q, want %q", c.path, c.body, got, c.did)
		}
		if want := map[bool]int{true: 200, false: 400}[c.did != ""]; w.Code != want {
			t.Errorf("%s %s: %d %s, want %d", c.path, c.body, w.Code, w.Body, want)
		}
	}
}

// What a cluster refuses is told with its status, its code and, where there is
// some, advice.
func TestClusterRefusals(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		says   []string
	}{
		{&QuorumError{Node: "n2", What: "removed", Up: 2, Voters: 3, Down: []string{"n3"}}, 409, []string{
			`"BW-7004"`, "node n2 cannot be removed: the cluster would lose quorum (2 of 3 voters up)", "bring n3 back, or accept the risk with --force, over HTTP force: true",
		}},
		{&QuorumError{Node: "n2", What: "drained", Up: 2, Voters: 2}, 409, []string{`"BW-7004"`, "add a node first"}},
		{fmt.Errorf("%w: %q", ErrNoNode, "n9"), 404, []string{`"BW-7003"`, "n9"}},
		{ErrNoLeader, 503, []string{`"BW-7001"`}},
		{fmt.Errorf("%w: last", ErrConflict), 409, []string{`"BW-7005"`}},
		{context.DeadlineExceeded, 504, []string{`"BW-7006"`}},
		{errors.New("disk"), 500, []string{`"BW-9001"`, "disk"}},
	} {
		w := ask(t, &fakeCluster{err: c.err}, true, func(*http.Request) {})
		if w.Code != c.status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v: %d %v", c.err, w.Code, w.Header())
		}
		for _, says := range c.says {
			if !strings.Contains(w.Body.String(), says) {
				t.Errorf("%v: %s does not say %s", c.err, w.Body, says)
			}
		}
	}
}

// How the cluster is takes no credentials, and is there without a leader; but it is
// not told to who shows bad ones.
func TestClusterStatus(t *testing.T) {
	f := &fakeCluster{}
	w := ask(t, f, false, func(r *http.Request) {
		n := httptest.NewRequest("GET", "/v1/cluster", nil)
		r.Method, r.URL, r.Body = n.Method, n.URL, n.Body
	})
	var got Status
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 || got.Leader != "n1" || got.CanLose() != 0 {
		t.Errorf("%d %s: %+v, %v", w.Code, w.Body, got, err)
	}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		status int
	}{
		{"an operator", func(r *http.Request) { r.SetBasicAuth("ana", "right") }, 200},
		{"somebody else", func(r *http.Request) { r.SetBasicAuth("bo", "right") }, 200},
		{"a guess", func(r *http.Request) { r.SetBasicAuth("ana", "wrong") }, 401},
		{"too many guesses", func(r *http.Request) { r.SetBasicAuth("ana", "again") }, 429},
		{"a token of another kind", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, 401},
	} {
		w := ask(t, f, true, func(r *http.Request) {
			n := httptest.NewRequest("GET", "/v1/cluster", nil)
			r.Method, r.URL, r.Body = n.Method, n.URL, n.Body
			c.change(r)
		})
		if w.Code != c.status || c.status == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %v %s, want %d", c.name, w.Code, w.Header(), w.Body, c.status)
		}
		if c.status != 200 && strings.Contains(w.Body.String(), "n1") {
			t.Errorf("%s is told how the cluster is: %s", c.name, w.Body)
		}
	}
	for _, c := range []struct{ voters, up, lose int }{{1, 1, 0}, {2, 2, 0}, {3, 3, 1}, {3, 2, 0}, {3, 1, -1}, {5, 5, 2}, {5, 2, -1}} {
		if got := (Status{Voters: c.voters, Up: c.up}).CanLose(); got != c.lose {
			t.Errorf("%d of %d can lose %d, want %d", c.up, c.voters, got, c.lose)
		}
	}
}
