package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of presence `acl explain` and `acl test` say what the server does: what the
// operator's file does not forbid is the owner's to permit, and what it forbids
// no owner gives.
func TestExplainSaysWhatTheServerDoes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	policy := `
rules:
  - {id: plain, allow: [publish, subscribe], who: [anyone], topic: ["home/#"]}
  - {id: no-eve, deny: [subscribe], who: [eve@example.com], topic: ["presence/#"]}
limits:
  - {id: at-home, topic: ["presence/example.com/#"], only: {who: ["*@example.com"]}}
tests:
  - as: bo@example.com
    allow: ["subscribe presence/example.com/ana", "publish im/example.com/ana", "publish $me/policy/presence"]
  - as: zoe@example.net
    deny: ["subscribe presence/example.com/ana"]
    by: at-home
`
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := bellwire(t, "", "acl", "test", file); got.code != 0 {
		t.Errorf("acl test: %+v", got)
	}
	c := testConfig(t, t.TempDir())
	c.policy, c.policyName = []byte(policy), file
	s, err := startServer(t.Context(), c)
	if err != nil {
		t.Fatal(err) // its own tests failed
	}
	defer s.shutdown()
	_, port, _ := strings.Cut(s.mqttListener.Addr().String(), ":")
	for stdin, args := range map[string][]string{
		"": {"presence", "set", "busy"},
		`{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"services":["*"],"persons":["*"],"activities":true}}]}`: {"policy", "set", "presence", "-"},
	} {
		if got := bellwire(t, stdin, append(args, "-p", port, "-u", "ana@example.com")...); got.code != 0 {
			t.Fatalf("%q: %+v", args, got)
		}
	}
	for _, x := range []struct{ who, verdict, says string }{
		{"bo@example.com", "OWNER", "the policy of ana@example.com decides: bellwire policy preview presence FILE --as ana@example.com --watcher bo@example.com\n"},
		{"ana@example.com", "OWNER", "it is their own"},
		{"eve@example.com", "DENY", "no-eve"},
		{"zoe@example.net", "DENY", "at-home"},
	} {
		got := bellwire(t, "", "acl", "explain", "--policy", file, "--as", x.who, "subscribe", "presence/example.com/ana")
		if !strings.HasPrefix(got.stdout, x.verdict+" ") || !strings.Contains(got.stdout, x.says) {
			t.Errorf("%s: %+v, want %s, %q", x.who, got, x.verdict, x.says)
		}
		if open := isShown(t, s, x.who, `"open"`); open != (x.verdict == "OWNER") {
			t.Errorf("%s is told %s, and the server shows it: %v", x.who, x.verdict, open)
		}
	}
	for _, x := range []struct{ args, says string }{
		{"publish $me/policy/im", "bellwire policy get im"},
		{"subscribe presence/example.com/+", "of each that it matches"},
		{"subscribe im/example.com", "it is nobody's"},
		{"publish im/example.com/ana", "policy preview im FILE --as ana@example.com --watcher bo@example.com"},
	} {
		args := append([]string{"acl", "explain", "--policy", file, "--as", "bo@example.com"}, strings.Fields(x.args)...)
		if got := bellwire(t, "", args...); !strings.HasPrefix(got.stdout, "OWNER ") || !strings.Contains(got.stdout, x.says) {
			t.Errorf("%s: %+v, want %q", x.args, got, x.says)
		}
	}
	got := bellwire(t, "", "acl", "explain", "--policy", file, "--as", "bo@example.com", "-o", "json", "publish", "im/example.com/ana")
	var answer struct{ Allow, Owner bool }
	if err := json.Unmarshal([]byte(got.stdout), &answer); err != nil || !answer.Allow || !answer.Owner {
		t.Errorf("%+v: %v", got, err)
	}
}

// Who asks by HTTP for a kind that there is not is told so, and which there are.
func TestNoSuchKind(t *testing.T) {
	s, err := startServer(t.Context(), testConfig(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.shutdown()
	for path, says := range map[string]string{
		"mood/example.com/ana": `no such kind \"mood\": there are im, location, presence (bad-event)`,
		"mood/example.com":     `no such kind \"mood\"`,
		"me/policy/mood":       `no such kind \"mood\"`,
		"im/example.com/ana":   `no such kind to fetch: what comes to \"im\" is sent to who subscribes, by MQTT (bad-event)`,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/v1/%s", s.httpListener.Addr(), path), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusNotFound || !strings.Contains(string(body), says) {
			t.Errorf("%s: %d %s, %v, want %s", path, answer.StatusCode, body, err, says)
		}
	}
}

// isShown says whether the server shows somebody ana's presence with a text in it.
func isShown(t *testing.T, s *server, who, text string) bool {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/v1/presence/example.com/ana", s.httpListener.Addr()), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(who, "any")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var document json.RawMessage
	if err := json.NewDecoder(answer.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(document), text)
}
