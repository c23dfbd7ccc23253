package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/authn"
)

const friendsOnly = `{"v":1,"kind":"presence","rules":[{"id":"friends",
 "if":{"identity":[{"one":"pres:bo@example.com"}]},"then":{"handling":"allow"},
 "show":{"services":["*"],"persons":["*"],"activities":true,"note":true}}]}`

// What one person publishes another sees as far as the first one's policy says,
// and not before it says so.
func TestPresenceVerbs(t *testing.T) {
	port := startDev(t)
	policy := filepath.Join(t.TempDir(), "ana.json")
	if err := os.WriteFile(policy, []byte(friendsOnly+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	as := func(who, stdin string, args ...string) ran {
		return bellwire(t, stdin, append(args, "-p", port, "-u", who+"@example.com")...)
	}
	for _, step := range []struct {
		who, stdin string
		args       []string
		code       int
		stdout     string // a pattern for all of it
		stderr     string // for a part of it
	}{
		{who: "ana", args: []string{"presence", "set", "busy", "--note", "call until 13:00", "--until", "90m"}},
		{who: "bo", args: []string{"presence", "watch", "ana@example.com", "-C", "1"}, stdout: `\d\d:\d\d:\d\d  ana@example\.com +offline +\n`},
		{who: "bo", args: []string{"presence", "ls"}, stdout: `ADDRESS +STATUS +NOTE\n`},
		{who: "ana", args: []string{"policy", "get", "presence"}, code: exitNotFound, stderr: `no policy for presence is set.*\n.*BW-6002`},
		{who: "ana", args: []string{"policy", "set", "presence", policy}},
		{who: "ana", args: []string{"policy", "get", "presence"}, stdout: regexp.QuoteMeta(friendsOnly) + `\n`},
		{who: "bo", args: []string{"presence", "watch", "ana", "-C", "1"}, stdout: `\d\d:\d\d:\d\d  ana@example\.com +busy +"call until 13:00"\n`},
		{who: "zoe", args: []string{"presence", "watch", "ana", "-C", "1"}, stdout: `\S+  ana@example\.com +offline +\n`},
		{who: "bo", args: []string{"presence", "ls", "example.com"}, stdout: `ADDRESS +STATUS +NOTE\nana@example\.com +busy +call until 13:00\n`},
		{who: "zoe", args: []string{"presence", "ls"}, stdout: `ADDRESS +STATUS +NOTE\n`},
		{who: "bo", args: []string{"presence", "set", "ana@example.com", "away"}, code: exitDenied, stderr: `theirs, or a delegate's, to publish`},
		{who: "ana", args: []string{"presence", "set", "meeting", "--note", "room 2", "--source", "calendar"}},
		{who: "bo", args: []string{"presence", "watch", "ana", "-C", "1"}, stdout: `\S+  ana@example\.com +meeting, busy \(2 devices\) +"room 2"\n`},
		{who: "bo", args: []string{"presence", "ls"}, stdout: `ADDRESS +STATUS +NOTE\nana@example\.com +meeting, busy \(2 devices\) +room 2\n`},
		{who: "ana", args: []string{"presence", "set", "offline", "--source", "calendar"}},
		{who: "ana", args: []string{"presence", "set", "offline"}},
		{who: "bo", args: []string{"presence", "watch", "ana", "-C", "1", "-o", "jsonl"}, stdout: `\{.*"basic":"closed".*\}\n`},
		{who: "ana", stdin: "\n", args: []string{"policy", "set", "presence", "-"}},
		{who: "ana", args: []string{"policy", "get", "presence"}, code: exitNotFound, stderr: `no policy`},
		{who: "ana", args: []string{"location", "set", "40.4168,-3.7038", "--accuracy", "30"}},
		{who: "ana", args: []string{"location", "watch", "ana", "-C", "1"}, stdout: `\S+  ana@example\.com +40\.416800,-3\.703800 within 30 m\n`},
		{who: "bo", args: []string{"location", "watch", "ana", "-C", "1"}, stdout: `\S+  ana@example\.com +unknown\n`},
		{who: "ana", args: []string{"location", "set", "-3.5,40.1", "--accuracy", "30"}},
		{who: "ana", args: []string{"location", "watch", "ana", "-C", "1"}, stdout: `\S+  ana@example\.com +-3\.500000,40\.100000 within 30 m\n`},
		{who: "ana", args: []string{"policy", "get", "im"}, code: exitNotFound, stderr: `only whom you have written to gets through`},
	} {
		got := as(step.who, step.stdin, step.args...)
		if got.code != step.code || !regexp.MustCompile(`^`+step.stdout+`$`).MatchString(got.stdout) || !regexp.MustCompile(`(?s)`+step.stderr).MatchString(got.stderr) {
			t.Errorf("%s %q: %+v, want %d, %s and %s", step.who, step.args, got, step.code, step.stdout, step.stderr)
		}
	}
}

// What makes no sense is refused before anything is sent, and says what would.
func TestProfileVerbsRefuse(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.json")
	if err := os.WriteFile(bad, []byte(`{"v":1,"rules":[{"id":"a","then":{"handling":"alow"}},{"id":"a"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const withoutDomain = `(?s)-u "ana" is no address.*write your whole address, .*: -u ana@example\.com`
	for _, x := range []struct {
		args   string
		stderr string
	}{
		{"presence set busy", `(?s)not said who you are.*add -u NAME@DOMAIN`},
		{"presence set -u ana busy", withoutDomain},
		{"presence watch -u ana bo", withoutDomain},
		{"policy set presence -u ana " + bad, withoutDomain},
		{"location set -u ana 1,2", withoutDomain},
		{"agent -u ana", withoutDomain},
		{"im tail -u ana", withoutDomain},
		{"im send -u ana bo hello", withoutDomain},
		{"presence set -u @example.com busy", `-u NAME@example\.com`},
		{"presence set -u ana@example.com", `takes a status`},
		{"presence set -u ana@example.com busy --until 3", `want 90m, 13:00 or`},
		{"presence set -u ana@example.com busy --until 2020-01-01T00:00:00Z", `is over`},
		{"presence set -u ana@example.com busy --source reports", `reserved`},
		{"presence set -u ana@example.com busy --hold --until 1h", `exclude each other`},
		{"presence watch -u ana@example.com", `takes the addresses to watch`},
		{"presence watch bo", `has no domain`},
		{"presence watch -u ana@example.com bo -o xml", `want jsonl`},
		{"presence wacth", `did you mean bellwire presence watch`},
		{"clients kick", `did you mean bellwire kick?`},
		{"location set -u ana@example.com 91,0", `is no position`},
		{"location set -91,0 -u ana@example.com", `"-91,0" is no position`},
		{"location set -u ana@example.com north", `is no position`},
		{"policy get mood", `is no kind`},
		{"policy set presence " + bad + " -u ana@example.com", `(?s)/rules/0/then/handling.*/rules/1/id.*has 2 faults`},
		{"policy set presence none.json -u ana@example.com", `cannot read none.json`},
		{"policy preview presence " + bad, `add --as`},
	} {
		got := bellwire(t, "", strings.Fields(x.args)...)
		if (got.code != exitUsage && got.code != exitFailed) || got.stdout != "" || !regexp.MustCompile(x.stderr).MatchString(got.stderr) {
			t.Errorf("%s: %+v, want %s", x.args, got, x.stderr)
		}
	}
}

// A preview says what would be seen, why, and until when, of any instant.
func TestPolicyPreview(t *testing.T) {
	policy := `{"v":1,"kind":"presence","rules":[{"id":"office",
 "if":{"identity":[{"one":"pres:boss@example.com"}],
       "weekly":{"tz":"America/Chicago","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]}},
 "then":{"handling":"allow"},"show":{"services":["*"]}}]}`
	preview := func(at string) ran {
		return bellwire(t, policy, "policy", "preview", "presence", "-", "--as", "bob@example.com", "--watcher", "boss@example.com", "--at", at)
	}
	open := preview("2026-03-09T13:00:00Z")
	if open.code != 0 || !strings.Contains(open.stdout, "ALLOW, VIEW FILTERED") || !strings.Contains(open.stdout, "until 2026-03-09T22:00:00Z") || !strings.Contains(open.stdout, `{"services":["*"]}`) {
		t.Errorf("open: %+v", open)
	}
	shut := preview("2026-03-09T12:59:59Z")
	if shut.code != 0 || !strings.Contains(shut.stdout, "ALLOW, VIEW NEUTRAL") || !strings.Contains(shut.stdout, "does not hold: weekly") {
		t.Errorf("shut: %+v", shut)
	}
}

// What a policy says without effect is told by each verb that reads it, with the
// file's name. What it says that nobody knows is refused by each, all of it.
func TestPolicyWarnings(t *testing.T) {
	port := startDev(t)
	verbs := func(file string) map[string]ran {
		return map[string]ran{
			"set":     bellwire(t, "", "policy", "set", "presence", file, "-p", port, "-u", "ana@example.com"),
			"preview": bellwire(t, "", "policy", "preview", "presence", file, "--as", "ana@example.com"),
		}
	}
	file := writeFile(t, "ana.json", `{"v":1,"defaults":{"outside": "announce"},"rules":[{"id":"a","if":{"identity":[{"one":"sip:x@y.z"}]}}]}`)
	var want strings.Builder
	for _, line := range []string{
		`/defaults/outside: the watcher is told that something has changed, and not what: "reveal": true says what, and when it changes again`,
		"/rules/0/if/identity/0/one: sip: URIs name nobody who watches here: write pres:name@domain",
		`/rules/0: without a handling the rule allows nobody: write "then": {"handling": "allow"}`,
	} {
		want.WriteString("warning: " + file + ": " + line + "\n")
	}
	for verb, got := range verbs(file) {
		if got.code != 0 || got.stderr != want.String() {
			t.Errorf("%s: %+v, want %s", verb, got, &want)
		}
	}
	file = writeFile(t, "unknown.json", `{"v":1,"colour":1,"rules":[{"id":"a","if":{"identety":[]},"then":{"handling":"allow","handeling":"x"},"show":{"notes":true}}]}`)
	for verb, got := range verbs(file) {
		if got.code != exitUsage && got.code != exitFailed || !strings.Contains(got.stderr, "has 4 faults") {
			t.Errorf("%s: %+v", verb, got)
		}
		for _, line := range []string{`/colour: no such member here`, `/rules/0/if/identety: no such member here: did you mean "identity"?`, `/rules/0/then/handeling: no such member here: did you mean "handling"?`, `/rules/0/show/notes: no such member here: did you mean "note"?`} {
			if !strings.Contains(got.stderr, file+": "+line) {
				t.Errorf("%s: %+v, want %s", verb, got, line)
			}
		}
	}
}

// A condition that a kind cannot judge is refused where the policy comes in, with
// its place: contact false would let in everybody.
func TestConditionsThatCannotBeJudged(t *testing.T) {
	port := startDev(t)
	const never = `cannot be judged for `
	for _, x := range []struct{ kind, conditions, fault string }{
		{"presence", `"contact":false`, "/rules/0/if/contact: " + never + "presence: contact is judged for messages only"},
		{"location", `"contact":false`, "/rules/0/if/contact: " + never},
		{"location", `"sphere":["work"]`, "/rules/0/if/sphere: " + never + "location: sphere is judged for presence only"},
		{"im", `"sphere":["work"]`, "/rules/0/if/sphere: " + never},
		{"presence", `"sphere":["work"]`, ""},
		{"im", `"contact":false`, ""},
	} {
		file := writeFile(t, "ana.json", `{"v":1,"rules":[{"id":"a","if":{`+x.conditions+`},"then":{"handling":"allow"}}]}`)
		for verb, got := range map[string]ran{
			"set":     bellwire(t, "", "policy", "set", x.kind, file, "-p", port, "-u", "ana@example.com"),
			"preview": bellwire(t, "", "policy", "preview", x.kind, file, "--as", "ana@example.com"),
			"pub":     bellwire(t, "", "pub", "-p", port, "-u", "ana@example.com", "-q", "1", "-t", "$me/policy/"+x.kind, "-f", file),
		} {
			if (got.code == 0) != (x.fault == "") || !strings.Contains(got.stderr, x.fault) {
				t.Errorf("%s %s: %+v, want %q", verb, x.kind, got, x.fault)
			}
		}
	}
}

// Two people of one name in two domains have a device of one name each. Who has
// taken somebody's client id keeps it, and the other is told that, and what to do.
func TestDevicesOfTwoDomains(t *testing.T) {
	port := startDev(t)
	tail := func(who string) ran {
		return bellwire(t, "", "im", "tail", "-p", port, "-u", who, "--device", "laptop", "-W", "1")
	}
	for _, who := range []string{"ana@example.com", "ana@example.org"} {
		if got := tail(who); got.code != exitTimeout {
			t.Errorf("%s: %+v", who, got)
		}
	}
	taken := bellwire(t, "", "sub", "-p", port, "-u", "eve@example.com", "-i", "bo@example.com/laptop", "-c", "-x", "3600", "-t", "x", "-W", "1")
	got := tail("bo@example.com")
	if got.code != exitDenied || !strings.Contains(got.stderr, `device "laptop"`) || !strings.Contains(got.stderr, "--device") {
		t.Errorf("%+v, then %+v", taken, got)
	}
}

func TestSecondsUntil(t *testing.T) {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"90m": "5400", "1h30m": "5400", "13:00": "3600", "11:00": "82800", "12:00": "86400", "2026-03-09T12:00:30Z": "30",
		"0s": "", "-5m": "", "25:00": "", "2026-03-09T12:00:00Z": "", "soon": "",
	} {
		got, err := secondsUntil("--until", text, now)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}

// A status is a document that presence accepts, and reads back as that status.
func TestStatusDocument(t *testing.T) {
	for _, status := range []string{"available", "busy", "on-the-phone"} {
		var p shownPresence
		if err := json.Unmarshal(statusDocument(status, `say "hi"`, time.Now()), &p); err != nil || p.status() != status || p.note() != `say "hi"` {
			t.Errorf("%s: %s %q, %v", status, p.status(), p.note(), err)
		}
	}
}

// What a document may say in several ways is read in each of them.
func TestShownPresence(t *testing.T) {
	for document, want := range map[string]string{
		`{}`:                                    "unknown ",
		`{"basic":"open","notes":{}}`:           "available ",
		`{"tuples":[{"basic":"open"}]}`:         "available ", // as it is published
		`{"basic":"open","tuples":[{},{}]}`:     "available (2 devices) ",
		`{"basic":"open","notes":"one"}`:        "available one",
		`{"basic":"closed","notes":{"en":"x"}}`: "offline x",
		`{"notes":{"en":["two","one"]}}`:        "unknown two",
		`{"notes":{"fr":"un","en":"one"}}`:      "unknown one",
		`{"persons":[{"activities":["busy"],"note":{"en":["new","old"]}},{"activities":["busy","meeting"],"note":{"en":"x"}}]}`: "busy, meeting new",
		`{"persons":[{"activities":{"is":["meeting"],"until":"2026-03-09T14:00:00Z"}},{"note":{"en":"x"}}]}`:                    "meeting x",
	} {
		var p shownPresence
		err := json.Unmarshal([]byte(document), &p)
		if got := p.status() + " " + p.note(); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", document, got, err, want)
		}
	}
}

// An agent's machine is there while the agent runs and its connection lasts, and
// its numbers are plain events.
func TestAgent(t *testing.T) {
	port := startDev(t)
	numbers := startSub(t, "-p", port, "-u", "ops@example.com", "-t", "hosts/web1/#", "-v")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var notes bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"agent", "-p", port, "-u", "web1@example.com", "--interval", "1s"}, strings.NewReader(""), io.Discard, &notes)
	}()
	seen := map[string]bool{}
	for len(seen) < 4 {
		line := numbers.next(t, 1)
		name, _, _ := strings.Cut(line, " ")
		seen[name] = true
	}
	for _, name := range []string{"load", "memory", "disk", "net"} {
		if !seen["hosts/web1/"+name] {
			t.Errorf("no %s among %v", name, seen)
		}
	}
	watch := []string{"presence", "watch", "web1", "-C", "1", "-p", port, "-u", "web1@example.com", "-o", "jsonl"}
	if got := bellwire(t, "", watch...); !strings.Contains(got.stdout, `"automata":true`) || !strings.Contains(got.stdout, `"basic":"open"`) {
		t.Errorf("while it runs: %+v", got)
	}
	cancel()
	const said = "bellwire: presence of web1@example.com is published, for whom its policy shows it, and numbers to hosts/web1/# every 1s\n"
	if code := <-ended; code != 0 || notes.String() != said {
		t.Errorf("it ended with %d: %s", code, &notes)
	}
	if got := bellwire(t, "", watch...); !strings.Contains(got.stdout, `"basic":"closed"`) {
		t.Errorf("after it: %+v", got)
	}
	if got := bellwire(t, "", "agent", "-p", port, "-u", "web1@example.com", "--interval", "1ms"); got.code != exitUsage {
		t.Errorf("an interval of a millisecond: %+v", got)
	}
}

// A message is kept for a device that is away, comes once to each device, and is
// refused to nobody's face.
func TestMessageVerbs(t *testing.T) {
	port := startDev(t)
	as := func(who, stdin string, args ...string) ran {
		return bellwire(t, stdin, append(args, "-p", port, "-u", who+"@example.com")...)
	}
	const all = `{"v":1,"kind":"im","rules":[{"id":"all","if":{"identity":[{"many":{"domain":"example.com"}}]},"then":{"handling":"allow"},"show":{"send":true}}]}`
	if got := as("bo", all, "policy", "set", "im", "-"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	for _, device := range []string{"phone", "pc"} { // each is known to the inbox from here on
		if got := as("bo", "", "im", "tail", "--device", device, "-W", "1"); got.code != exitTimeout {
			t.Fatalf("%+v", got)
		}
	}
	for _, id := range []string{"m1", "m2", "m1"} {
		if got := as("ana", "", "im", "send", "bo", "this", "is", id, "--message-id", id, "--subject", "news"); got != (ran{stdout: id + "\n"}) {
			t.Fatalf("%+v", got)
		}
	}
	for _, device := range []string{"phone", "pc"} {
		got := as("bo", "", "im", "tail", "--device", device, "-C", "2")
		want := `^\S+  ana@example\.com +1  news: this is m1\n\S+  ana@example\.com +2  news: this is m2\n$`
		if got.code != 0 || !regexp.MustCompile(want).MatchString(got.stdout) {
			t.Errorf("%s: %+v", device, got)
		}
	}
	got := as("ana", "", "im", "send", "zoe", "hello")
	if got.code != 0 || got.stderr != "" || !regexp.MustCompile(`^\S+\n$`).MatchString(got.stdout) {
		t.Errorf("to somebody who takes nothing: %+v", got)
	}
	if got := as("ana", "", "im", "send", "bo"); got.code != exitUsage {
		t.Errorf("without a text: %+v", got)
	}
}

// A policy in XML is put in force as the JSON that says the same, faults in it are told
// with where they are, and what it cannot say is told when it is written.
func TestPolicyXML(t *testing.T) {
	const rule = `<cr:ruleset xmlns:pr="urn:ietf:params:xml:ns:pres-rules" xmlns:cr="urn:ietf:params:xml:ns:common-policy"><cr:rule id="a"><cr:conditions>%s</cr:conditions>` +
		`<cr:actions><pr:sub-handling>allow</pr:sub-handling></cr:actions><cr:transformations><pr:provide-note>true</pr:provide-note></cr:transformations></cr:rule></cr:ruleset>`
	var told bytes.Buffer
	made, err := fromXML(&told, "ana.xml", fmt.Appendf(nil, rule, `<cr:identity/><cr:sphere value="work"/>`))
	if want := `{"rules":[{"id":"a","if":{"sphere":["work"]},"show":{"note":true},"then":{"handling":"allow"}}],"v":1}`; err != nil || string(made) != want {
		t.Errorf("%s, %v, want %s", made, err, want)
	}
	if want := "warning: ana.xml: /ruleset/rule[1]/conditions/identity: an empty identity is as none: the rule is about anybody\n"; told.String() != want {
		t.Errorf("told %q, want %q", told.String(), want)
	}
	if _, err := fromXML(&told, "ana.xml", fmt.Appendf(nil, rule, `<cr:identity><cr:two/></cr:identity>`)); err == nil || !strings.Contains(err.Error(), "1 fault") {
		t.Errorf("%v", err)
	}
}

// A word that is almost another is told of: one that would say that somebody is there who
// is not is refused, any other is published.
func TestMisspeltStatus(t *testing.T) {
	for _, c := range []struct{ status, warning, refused string }{
		{"busy", "", ""},
		{"available", "", ""},
		{"on-the-phone", "", ""},
		{"gone-fishing", "", ""},
		{"bsy", "warning: bsy is shown as it is written: did you mean busy?\n", ""},
		{"meting", "warning: meting is shown as it is written: did you mean meeting?\n", ""},
		{"ofline", "", `did you mean "offline"?`},
		{"availble", "", `did you mean "available"?`},
	} {
		var w strings.Builder
		err := checkStatus(&w, c.status)
		if w.String() != c.warning || (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %q, %v", c.status, w.String(), err)
		}
	}
}

// Who gives a signed token need not say again who it says they are.
func TestSelfByToken(t *testing.T) {
	private, _, err := authn.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ user, subject, want, says string }{
		{"", "ana@example.com", "ana@example.com", ""},
		{"bo@example.com", "ana@example.com", "bo@example.com", ""},
		{"", "8f3c", "", "is no address"},
		{"", "", "", "is no address"},
	} {
		token, err := authn.Sign(private, map[string]any{"sub": c.subject})
		if err != nil {
			t.Fatal(err)
		}
		f := clientFlags{username: c.user, password: token}
		got, err := f.self()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) || err == nil && got.String() != c.want {
			t.Errorf("%q with a token of %q: %v, %v; want %q, %q", c.user, c.subject, got, err, c.want, c.says)
		}
		if of, err := f.addressOf("zoe"); c.says == "" && (err != nil || of.String() != "zoe@example.com") {
			t.Errorf("zoe for %q: %v, %v", c.subject, of, err)
		}
	}
	if _, err := (&clientFlags{password: "sesame"}).self(); err == nil || !strings.Contains(err.Error(), "not said who you are") {
		t.Errorf("a password alone: %v", err)
	}
}
