package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/broker/event"
)

const (
	forgedLine   = "hi\r\n09:00:00  boss@example.com  99  wire money"
	forgedShown  = `hi\r\n09:00:00  boss@example.com  99  wire money`
	setClipboard = "\x1b]52;c;cm0gLXJmIH4=\a"
	setShown     = `\x1b]52;c;cm0gLXJmIH4=\a`
)

func TestSafe(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"plain":                 "plain",
		`say "hi" \o/ it's`:     `say "hi" \o/ it's`,
		"Grüße, 你好, שלום, 👩‍👧":  "Grüße, 你好, שלום, 👩‍👧",
		"replaced \ufffd":       "replaced \ufffd", // the character itself is no fault
		forgedLine:              forgedShown,
		setClipboard:            setShown,
		"\x00\t\x1f":            `\x00\t\x1f`,
		"a\x7fb":                `a\x7fb`,
		"\u0080\u009b31m\u009f": `\u0080\u009b31m\u009f`,
		"\u00a0":                "\u00a0", // the first after C1
		"\u2027\u2028\u2029":    "\u2027" + `\u2028\u2029`,
		"\u202a\u202e\u202f":    `\u202a\u202e` + "\u202f",
		"\u2065\u2066\u2069":    "\u2065" + `\u2066\u2069`,
		"\xff\x9b ok \xc3":      `\xff\x9b ok \xc3`,
	} {
		if got := safe(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What a line says of a document is on that line, whichever part of the document
// it is from; a fault in it is told as safely.
func TestSafeLine(t *testing.T) {
	const esc = `\u001b]0;x\u0007\r\n`
	for _, x := range []struct {
		line           formatter
		topic, payload string
	}{
		{messageLine, "im/example.com/bo", `{"from":"im:a` + esc + `","subject":{"en":"` + esc + `"},"body":"` + esc + `"}`},
		{messageLine, "im/example.com/bo/reports", `{"id":"` + esc + `","recipient":"` + esc + `","disposition":"` + esc + `","reason":"` + esc + `"}`},
		{presenceLine, "presence/example.com/ana", `{"persons":[{"activities":["` + esc + `"],"note":"` + esc + `"}]}`},
		{locationLine, "location/example.com/ana", `{"shape":{"type":"` + esc + `"},"civic":{"country":"` + esc + `"}}`},
		{locationLine, "a\u202eb", `{}`},
		{locationLine, "a\u202eb", `no JSON`},
	} {
		var b bytes.Buffer
		err := safeLine(x.line)(&b, &paho.Publish{Topic: x.topic, Payload: []byte(x.payload)}, time.Unix(0, 0))
		text := b.String()
		if err != nil {
			text = err.Error()
		}
		if text == "" || strings.ContainsFunc(text, commands) || !strings.Contains(text, `\u202e`) && !strings.Contains(text, `\x1b]0;x\a\r\n`) {
			t.Errorf("%s: %q", x.payload, text)
		}
	}
}

// The verbs show what others wrote, and their terminal does nothing else with it.
func TestVerbsPrintSafely(t *testing.T) {
	port := startDev(t)
	as := func(who, stdin string, args ...string) ran {
		t.Helper()
		got := bellwire(t, stdin, append(args, "-p", port, "-u", who+"@example.com")...)
		if got.code != 0 {
			t.Fatalf("%s %q: %+v", who, args, got)
		}
		return got
	}
	const all = `{"v":1,"kind":"im","rules":[{"id":"all","if":{"identity":[{"many":{"domain":"example.com"}}]},"then":{"handling":"allow"},"show":{"send":true}}]}`
	as("bo", all, "policy", "set", "im", "-")
	as("ana", friendsOnly, "policy", "set", "presence", "-")
	if got := bellwire(t, "", "im", "tail", "--device", "pc", "-W", "1", "-p", port, "-u", "bo@example.com"); got.code != exitTimeout {
		t.Fatalf("%+v", got)
	}
	as("ana", "", "im", "send", "bo", forgedLine+setClipboard)
	as("ana", "", "presence", "set", "busy", "--note", setClipboard)
	for _, x := range []struct{ args, want string }{
		{"im tail --device pc -C 1", `^\S+  ana@example\.com +1  ` + regexp.QuoteMeta(forgedShown+setShown) + `\n$`},
		{"presence watch ana -C 1", `^\S+  ana@example\.com +busy +"` + regexp.QuoteMeta(setShown) + `"\n$`},
		{"presence ls", `^ADDRESS +STATUS +NOTE\nana@example\.com +busy +` + regexp.QuoteMeta(setShown) + `\n$`},
	} {
		if got := as("bo", "", strings.Fields(x.args)...); !regexp.MustCompile(x.want).MatchString(got.stdout) {
			t.Errorf("%s: %q, want %s", x.args, got.stdout, x.want)
		}
	}
}

// What a policy calls its rules and members does not reach the terminal as it is.
func TestPreviewPrintsSafely(t *testing.T) {
	got := bellwire(t, `{"v":1,"kind":"presence","rules":[{"id":"a\u202eb","if":{"\u009b2J":1},"then":{"handling":"allow"}}]}`,
		"policy", "preview", "presence", "-", "--as", "ana@example.com", "--watcher", "bo@example.com")
	for _, text := range []string{got.stdout, got.stderr} {
		if strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), commands) {
			t.Errorf("%q", text)
		}
	}
	if !strings.Contains(got.stdout+got.stderr, `a\u202eb`) || !strings.Contains(got.stderr, `\u009b2J`) {
		t.Errorf("%+v", got)
	}
}

// What a policy file, a topic or an id says is shown and not obeyed; a policy that
// is printed stays the document that it is.
func TestOtherVerbsPrintSafely(t *testing.T) {
	port := startDev(t)
	document := "{\"v\":1,\r\n\t\"rules\":[{\"id\":\"a\u009b\u202eb\u007f\",\"then\":{\"handling\":\"allow\"}}]}"
	file := writeFile(t, "policy.yaml", "rules:\n  - {id: r, deny: [publish], who: [\"ana@example.com\"], topic: [\"a\u202eb\"]}\ntests:\n  - {name: \"t\u202e\", as: ana@example.com, deny: [\"publish a\u202eb\"]}\n")
	for _, x := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{document, []string{"policy", "set", "im", "-", "-p", port, "-u", "ana@example.com"}, ""},
		{"", []string{"policy", "get", "im", "-p", port, "-u", "ana@example.com"}, `a\u009b\u202eb\u007f`},
		{"", []string{"im", "send", "ana", "x", "--message-id", "i\u202ed", "-p", port, "-u", "ana@example.com"}, `i\u202ed`},
		{"", []string{"acl", "explain", "--policy", file, "--as", "ana@example.com", "publish", "a\u202eb"}, `a\u202eb`},
		{"", []string{"acl", "test", file}, `t\u202e`},
		{"", []string{"policy", "get", "m\u202e", "-u", "ana@example.com"}, `m\u202e`},
	} {
		got := bellwire(t, x.stdin, x.args...)
		text := got.stdout + got.stderr
		if !strings.Contains(text, x.want) || strings.ContainsFunc(strings.NewReplacer("\n", "", "\t", "").Replace(text), commands) {
			t.Errorf("%q: %+v, want %s", x.args, got, x.want)
		}
		if x.args[1] == "get" && x.args[2] == "im" && !sameJSON(t, got.stdout, document) {
			t.Errorf("the document is another: %s", got.stdout)
		}
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Error(err)
	}
	return reflect.DeepEqual(x, y)
}

// A topic cannot have control characters and can have others that turn a line
// around.
func TestFeedPrintsSafely(t *testing.T) {
	var out bytes.Buffer
	f := newFeed(&out)
	d, err := newDemo(f, "example.com", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Routed(&event.Event{Topic: "a\u202eb", Payload: []byte("1")}, 1)
	d.line("delivered", "c\u202ed", forgedLine, "ana → bo", setClipboard)
	f.end("")
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], ` a\u202eb 1  1 publisher`) ||
		!strings.Contains(lines[1], `c\u202ed`) || !strings.Contains(lines[1], forgedShown) || !strings.Contains(lines[1], setShown) {
		t.Errorf("%q", lines)
	}
}

// What to do about a refusal is about its reason, where there is better advice than for the code.
func TestRefusalSaysWhatToDo(t *testing.T) {
	for text, want := range map[string]string{
		"BW-4001 ended by an administrator":                            "nothing keeps you from connecting again",
		"BW-4001 the client certificate is revoked":                    "another certificate",
		"BW-8001 a delay is of 86400 seconds at most":                  "a shorter delay",
		"BW-4001 anonymous clients are not permitted":                  "say who you are",
		"BW-4031 no rule allows it; bellwire acl explain 7Q2MK3XD":     "bellwire acl explain 7Q2MK3XD",
		"BW-8001 probation: retry-after=90, it opens again after that": "ask again in 1m30s",
	} {
		if f := refusal("refused", 0x98, text); !strings.Contains(f.todo, want) {
			t.Errorf("%s: %q, want %q", text, f.todo, want)
		}
	}
}

// A server's reason is its own text, with or without a code of ours.
func TestRefusalPrintsSafely(t *testing.T) {
	for _, text := range []string{setClipboard, "BW-3001 " + setClipboard} {
		if f := refusal("publish refused", 0x87, text); !strings.HasSuffix(f.what, ": "+setShown) {
			t.Errorf("%q: %q", text, f.what)
		}
	}
}

// What a server tells operators of others, whose topics, client ids and names those have
// chosen, is as safe.
func TestAnswersPrintSafely(t *testing.T) {
	const bad = "x\u009b2J\u202e"
	answers := map[string]any{
		"/v1/audit":           map[string]any{"entries": []any{map[string]any{"by": bad, "what": bad, "about": bad}}},
		"/v1/policy/denials":  map[string]any{"topic": bad, "text": "DENY publish " + bad + "\n"},
		"/v1/policy/versions": map[string]any{"versions": []any{map[string]any{"by": bad}}},
		"/v1/policy/shadow":   map[string]any{"by": bad},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		path := r.URL.Path
		if strings.HasPrefix(path, "/v1/policy/denials/") {
			path = "/v1/policy/denials"
		}
		_ = json.NewEncoder(w).Encode(answers[path])
	}))
	defer s.Close()
	at := strings.TrimPrefix(s.URL, "http://")
	for _, verb := range []string{"audit", "audit -o json", "acl explain abcd2345", "acl explain abcd2345 -o json", "acl history -o json", "acl shadow -o json"} {
		got := bellwire(t, "", append(strings.Fields(verb), "--server", at)...)
		lines := strings.ReplaceAll(got.stdout, "\n", "")
		if got.code != 0 || !strings.Contains(lines, `\u009b2J`) || strings.ContainsFunc(lines, commands) {
			t.Errorf("%s: %+v", verb, got)
		}
	}
}
