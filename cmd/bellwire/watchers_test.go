package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/mqtttest"
)

// An owner sees who watches and who asks, by these verbs and by HTTP alike, and decides;
// what watchers offer is what the owner sees of them.
func TestWatchersVerbs(t *testing.T) {
	s, err := startServer(t.Context(), testConfig(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.shutdown() }) // after those who watch
	_, port, _ := strings.Cut(s.mqttListener.Addr().String(), ":")
	as := func(who, stdin string, args ...string) ran {
		return bellwire(t, stdin, append(args, "-p", port, "-u", who+"@example.com")...)
	}
	const undecided = `{"v":1,"defaults":{"handling":"confirm"}}`
	const header = `ADDRESS +STATUS +SINCE +EXPIRES +ID +NOTE *\n`
	const since = `(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d`
	live := func(who string, args ...string) { // watches ana until the test is over
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			run(ctx, append([]string{"presence", "watch", "ana", "-p", port, "-u", who + "@example.com"}, args...), strings.NewReader(""), io.Discard, io.Discard)
		}()
		t.Cleanup(func() { cancel(); <-ended })
	}
	waiting := false
	for _, step := range []struct {
		who, stdin string
		args       []string
		live       bool // it runs on, and what the next step wants comes to be
		code       int
		stdout     string // a pattern for all of it
		stderr     string // for a part of it
	}{
		{who: "ana", args: []string{"watchers", "ls"}, stdout: header},
		{who: "ana", args: []string{"watchers", "ls", "-o", "json"}, stdout: `\[\]\n`},
		{who: "ana", stdin: undecided, args: []string{"policy", "set", "presence", "-"}},
		{who: "ana", args: []string{"presence", "set", "busy"}},
		{who: "bo", args: []string{"presence", "watch", "ana", "--note", "It's \x1b[31mBo", "--expires", "10m", "-W", "1"}, code: exitFailed, stderr: `control character`},
		{who: "bo", args: []string{"--note", "It's Bo", "--expires", "10m"}, live: true},
		{who: "ana", args: []string{"watchers", "ls"}, stdout: header + `bo@example\.com +pending +` + since + ` +(10m0s|9m5\ds) +s-\S+ +It's Bo\n`},
		{who: "ana", args: []string{"watchers", "ls", "presence", "-o", "json"}, stdout: `\[\{"id":"s-.*"uri":"pres:bo@example\.com","status":"pending".*"note":"It's Bo".*\}\]\n`},
		{who: "ana", args: []string{"watchers", "ls", "location"}, stdout: header},
		{who: "ana", args: []string{"watchers", "approve", "bo"}, stdout: `approved: bo@example\.com, presence, 1 subscription, by rule \S+ of your policy, for good: everything is shown \(less: --show\)\n`},
		{who: "ana", args: []string{"watchers", "ls"}, stdout: header + `bo@example\.com +active +` + since + ` .*It's Bo\n`},
		{who: "ana", args: []string{"watchers", "approve", "mia", "--silent", "--until", "90m", "-o", "json"}, stdout: `\{"rule":"\S+","etag":"\S+","matched":0\}\n`},
		{who: "ana", args: []string{"policy", "get", "presence"}, stdout: `(?s:.*"silent": ?true.*)`},
		{who: "mia", args: []string{"presence", "watch", "ana", "--expires", "0"}, stdout: `\S+  ana@example\.com +busy +\n`},
		{who: "una", args: []string{"presence", "watch", "ana", "--expires", "0", "-W", "1"}, code: exitTimeout, stderr: `watch without --expires 0 to ask them`},
		{who: "zoe", args: []string{"presence", "watch", "ana", "--expires", "5s"}, code: exitFailed, stderr: `min-expires=30.*--expires 30s`},
		{who: "zoe", args: []string{"presence", "watch", "ana", "--visibility", "hidden"}, code: exitFailed, stderr: `^bellwire: subscribe to .* refused: evt-visibility .* anonymous, pseudonymous or identified, .*BW-3002\n$`},
		{who: "zoe", args: []string{"--visibility", "anonymous"}, live: true},
		{who: "ana", args: []string{"watchers", "ls"}, stdout: header + `anonymous +pending (?s:.*)`},
		{who: "eve", args: []string{"--visibility", "pseudonymous"}, live: true},
		{who: "ana", args: []string{"watchers", "ls"}, stdout: header + `p-[a-z2-7]{24}@example\.com +pending (?s:.*)`},
		{who: "ana", args: []string{"watchers", "deny", "gil", "--style", "polite"}, stdout: `denied: gil@example\.com, presence, 0 subscriptions, by rule \S+ of your policy, for good\n`},
		{who: "gil", args: []string{"presence", "watch", "ana", "-C", "1"}, stdout: `\S+  ana@example\.com +offline +\n`},
		{who: "ana", args: []string{"watchers", "withdraw", "gil"}, stdout: `withdrawn: gil@example\.com, presence, 0 subscriptions, rule \S+ of your policy is gone: what the others say holds again\n`},
		{who: "ana", args: []string{"watchers", "withdraw", "gil"}, code: exitFailed, stderr: `cannot withdraw: no-such-decision`},
		{who: "ana", args: []string{"watchers", "deny", "gil", "location", "--until", "1h"}, stdout: `denied: gil@example\.com, location, .*\n`},
		{who: "gil", args: []string{"location", "watch", "ana", "-C", "1"}, code: exitDenied, stderr: `rejected.*ask them: .*BW-4003`},
		{who: "ana", args: []string{"watchers", "revoke", "nobody", "--until", "1h"}, code: exitNotFound, stderr: `nobody@example\.com has no subscription to your presence`},
		{who: "ana", args: []string{"watchers", "revoke", "--sid", "s-none"}, code: exitFailed, stderr: `cannot revoke: no-such-subscription.*bellwire watchers ls lists`},
		{who: "ana", args: []string{"watchers", "deny", "bo", "mood"}, code: exitUsage, stderr: `"mood" is no kind that is watched: presence or location`},
		{who: "ana", args: []string{"watchers", "ls", "im"}, code: exitUsage, stderr: `"im" is no kind that is watched`},
		{who: "ana", args: []string{"watchers", "deny", "bo", "--style", "rudely"}, code: exitUsage, stderr: `want refuse, polite or ignore`},
		{who: "ana", args: []string{"watchers", "revoke", "bo", "--until", "soon"}, code: exitUsage, stderr: `--until "soon": want 90m`},
		{who: "bo", args: []string{"presence", "watch", "ana", "--expires", "soon"}, code: exitUsage, stderr: `--expires "soon": want 90m`},
		{who: "ana", args: []string{"watchers", "approve"}, code: exitUsage, stderr: `takes an address`},
		{who: "ana", args: []string{"watchers", "approve", "bo", "--sid", "s-1"}, code: exitUsage, stderr: `"bo" is no kind`},
		{who: "ana", args: []string{"watchers", "approve", "kai", "--show", "services,note", "--until", "90m"}, stdout: `approved: kai@example\.com, presence, 0 subscriptions, by rule \S+ of your policy, until [-0-9 :]+: shown is \{"note":true,"services":\["\*"\]\}\n`},
		{who: "kai", args: []string{"presence", "watch", "ana", "--expires", "0"}, stdout: `\S+  ana@example\.com +available +\n`},
		{who: "ana", args: []string{"watchers", "approve", "kai", "--show", "nots"}, code: exitUsage, stderr: `there is no "nots" to show: did you mean note\?.*presence can show services`},
	} {
		if step.live {
			live(step.who, step.args...)
			waiting = true
			continue
		}
		matches := func(got ran) bool {
			return got.code == step.code && regexp.MustCompile(`^`+step.stdout+`$`).MatchString(got.stdout) && regexp.MustCompile(`(?s)`+step.stderr).MatchString(got.stderr)
		}
		got := as(step.who, step.stdin, step.args...)
		for deadline := time.Now().Add(mqtttest.Patience); waiting && !matches(got) && time.Now().Before(deadline); {
			got = as(step.who, step.stdin, step.args...)
		}
		waiting = false
		if !matches(got) {
			t.Errorf("%s %q: %+v, want %d, %s and %s", step.who, step.args, got, step.code, step.stdout, step.stderr)
		}
	}
	checkWatchersByHTTP(t, "http://"+s.httpListener.Addr().String())

	var rows []watcherRow
	if err := json.Unmarshal([]byte(as("ana", "", "watchers", "ls", "-o", "json").stdout), &rows); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if rows[i].who() != "anonymous" || rows[i].Status != "pending" {
			continue
		}
		if got := as("ana", "", "watchers", "approve", "--sid", rows[i].ID); got.code != exitFailed || !strings.Contains(got.stderr, "anonymous") {
			t.Errorf("nobody can be named in a rule: %+v", got)
		}
		if got := as("ana", "", "watchers", "revoke", "--sid", rows[i].ID); got.code != 0 || !strings.HasPrefix(got.stdout, "revoked: "+rows[i].ID) {
			t.Errorf("the anonymous watcher is revoked: %+v", got)
		}
		return
	}
	t.Errorf("nobody is anonymous among %+v", rows)
}

// checkWatchersByHTTP fetches what ana is shown of her watchers, and decides.
func checkWatchersByHTTP(t *testing.T, server string) {
	t.Helper()
	ask := func(method, path, who, body, tag string) (int, string, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if who != "" {
			r.SetBasicAuth(who+"@example.com", "any")
		}
		r.Header.Set("If-None-Match", tag)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text), answer.Header.Get("ETag")
	}
	for _, x := range []struct {
		method, path, who, body string
		status                  int
		says                    string
	}{
		{"GET", "/v1/me/watchers/presence", "ana", "", 200, `"resource":"pres:ana@example.com"`},
		{"GET", "/v1/me/watchers/presence", "ana", "", 200, `"uri":"pres:bo@example.com","status":"active"`},
		{"GET", "/v1/me/watchers/presence", "bo", "", 200, `"watchers":[]`}, // each their own
		{"GET", "/v1/me/watchers/presence", "", "", 401, "say who you are"},
		{"GET", "/v1/me/stats/presence", "", "", 401, "say who you are"},
		{"GET", "/v1/me/stats/presence", "ana", "", 200, `"identified":`},
		{"GET", "/v1/me/stats/presence", "bo", "", 200, `"total":0`},
		{"GET", "/v1/me/watchers/mood", "ana", "", 404, "no such kind"},
		{"GET", "/v1/me/watchers/im", "ana", "", 404, `there are no watchers of \"im\"`},
		{"GET", "/v1/me/sub/presence/example.com/ana", "bo", "", 200, `"state":"active"`},
		{"GET", "/v1/me/sub/presence/example.com/ana", "ian", "", 404, "no subscription of yours"},
		{"POST", "/v1/presence/subscriptions/revoke", "ana", `{"watcher":"pres:bo@example.com"}`, 200, `"matched":1`},
		{"GET", "/v1/me/sub/presence/example.com/ana", "bo", "", 200, `"state":"terminated"`},
		{"POST", "/v1/presence/subscriptions/approve", "ana", `{"watcher":"pres:ian@example.com"}`, 200, `"rule":`},
		{"POST", "/v1/presence/subscriptions/approve", "ana", `{"watcher":"pres:ian@example.com","ifMatch":"x"}`, 412, "stale-etag"},
		{"POST", "/v1/presence/subscriptions/approve", "ana", `{"who":"ian"}`, 422, "schema"},
		{"POST", "/v1/presence/subscriptions/praise", "ana", `{}`, 404, "no such request here"},
		{"POST", "/v1/presence/subscriptions/provision", "ana", `{"watcher":"pres:ian@example.com"}`, 404, "no such request here"},
		{"POST", "/v1/presence/subscriptions/approve", "", `{"watcher":"pres:ian@example.com"}`, 403, "identity-required"},
	} {
		status, body, _ := ask(x.method, x.path, x.who, x.body, "")
		if status != x.status || !strings.Contains(body, x.says) {
			t.Errorf("%s %s as %q: %d %s, want %d and %s", x.method, x.path, x.who, status, body, x.status, x.says)
		}
	}
	_, _, tag := ask("GET", "/v1/me/stats/presence", "ana", "", "")
	if status, body, _ := ask("GET", "/v1/me/stats/presence", "ana", "", tag); status != 304 || body != "" || tag == "" {
		t.Errorf("with the tag %q: %d %s", tag, status, body)
	}
}

// A watch that has an end says so to the server, and is over by itself.
func TestAskFlags(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		ask   askFlags
		user  string
		count int
		ended time.Time
	}{
		{askFlags{}, "", 0, time.Time{}},
		{askFlags{expires: "10m"}, "evt-expires=600 ", 0, now.Add(10 * time.Minute)},
		{askFlags{expires: "13:00", note: "hello"}, "evt-expires=3600 evt-note=hello ", 0, now.Add(time.Hour)},
		{askFlags{expires: "0", visibility: "anonymous"}, "evt-expires=0 evt-visibility=anonymous ", 2, time.Time{}},
	} {
		var w watchFlags
		w.sub.client.props = subProperties()
		ended, err := x.ask.apply(&w, 2, now)
		var user strings.Builder
		for _, u := range w.sub.client.props.of("subscribe").User {
			user.WriteString(u.Key + "=" + u.Value + " ")
		}
		if err != nil || user.String() != x.user || w.sub.count != x.count || !ended.Equal(x.ended) || (w.sub.wait > 0) != (x.ask.expires == "0") {
			t.Errorf("%+v: %q, %d, %d, %v, %v", x.ask, user.String(), w.sub.count, w.sub.wait, ended, err)
		}
	}
}

// What an owner names to be shown is what a policy has for it; what there is not, or has
// another form, is refused with what there is.
func TestReadShow(t *testing.T) {
	for _, x := range []struct{ of, text, show, fault string }{
		{"presence", "services,persons, note", `{"note":true,"persons":["*"],"services":["*"]}`, ""},
		{"presence", "services=im,services=sip,userInput=bare", `{"services":["im","sip"],"userInput":"bare"}`, ""},
		{"location", "radius=1000,civic=city", `{"civic":"city","radius":1000}`, ""},
		{"location", `{"radius": 0}`, `{"radius":0}`, ""},
		{"presence", "radius=1000", "", `there is no "radius" to show`},
		{"presence", "nots", "", "did you mean note?"},
		{"presence", "note=yes", "", "note is shown or not"},
		{"presence", "userInput", "", "userInput=bare|thresholds|full"},
		{"presence", "persons=x", "", "write * for all"},
		{"presence", `{"nots":true}`, "", "nots"},
		{"presence", `{"note":`, "", "this is no JSON"},
		{"presence", "", "", `there is no "" to show`},
		{"location", "radius=far", "", `radius is "far": want radius=0…1000000`},
		{"location", "radius=9000000,civic=town", "", "out of range"},
	} {
		show, err := readShow("--show", x.of, x.text)
		if string(show) != x.show || (err == nil) != (x.fault == "") || err != nil && !strings.Contains(err.Error(), x.fault) {
			t.Errorf("%s %q: %s, %v, want %s %s", x.of, x.text, show, err, x.show, x.fault)
		}
	}
}
