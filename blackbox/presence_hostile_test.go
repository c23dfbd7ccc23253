package blackbox

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// pidf is a PIDF document's content type.
const pidf = "application/pidf+xml"

// Documents that are not what they say are refused with the reason and change
// nothing; whoever sent them stays connected.
func TestPresenceRefusals(t *testing.T) {
	t.Parallel()
	s := restlessKinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Subscribe(bobsPresence, 1)
	before := a.Receive()
	sample := func(name string) string {
		text, err := os.ReadFile("../profiles/presence/testdata/samples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	nested := func(levels int) string {
		return strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels)
	}
	for _, c := range []struct{ name, kind, document, reason string }{
		{"no status", pidf, sample("n01-missing-status.xml"), "schema"},
		{"empty status", pidf, sample("n02-empty-status.xml"), "schema"},
		{"Open", pidf, sample("n03-bad-basic.xml"), "schema"},
		{"an id twice", pidf, sample("n04-duplicate-id.xml"), "duplicate-id"},
		{"a time in small letters", pidf, sample("n05-lowercase-t.xml"), "schema"},
		{"entities", pidf, sample("n07-doctype-entity.xml"), "dtd-forbidden"},
		{"another namespace", pidf, sample("n08-wrong-namespace.xml"), "namespace"},
		{"somebody else", "", `{"entity":"pres:eve@example.com","basic":"open"}`, "entity-mismatch"},
		{"not UTF-8", "", "{\"basic\":\"open\",\"notes\":{\"en\":\"\xff\"}}", "schema"},
		{"UTF-16", "", "\xff\xfe{\x00}\x00", "schema"},
		{"a name twice", "", `{"basic":"open","basic":"closed"}`, "schema"},
		{"NaN", "", `{"tuples":[{"id":"a","contact":{"uri":"im:a","priority":NaN}}]}`, "schema"},
		{"no end", "", `{"basic":`, "schema"},
		{"no JSON", "", `basic=open`, "schema"},
		{"a list", "", `[]`, "schema"},
		{"64 KiB and a byte", "", `{"basic":"open"}` + strings.Repeat(" ", 64<<10+1-len(`{"basic":"open"}`)), "too-large"},
		{"33 levels", "", nested(33), "too-large"},
		{"10,000 levels", "", strings.Repeat("[", 10000), "too-large"},
		{"101 tuples", "", `{"tuples":[` + strings.Repeat(`{"id":"x"},`, 100) + `{"id":"x"}]}`, ""},
		{"a picture", "image/png", "\x89PNG", "unsupported"},
	} {
		var props []mq.Property
		if c.kind != "" {
			props = append(props, mq.Text(mq.PropContentType, c.kind))
		}
		if got := refusedBy(t, pc, retained(bobsPresence, c.document, props...), 0x99); !contains(got, c.reason) {
			t.Errorf("%s: the reason is %q, want %q in it", c.name, got, c.reason)
		}
		a.Quiet()
	}
	// 3.1.1 has no words for it: acknowledged, and dropped.
	old := s.open(v4, as(bob, clean("old")))
	old.Publish(bobsPresence, 1, `{"basic":"Open"}`)
	old.Quiet()
	if got := s.fetch(alice, "/v1/presence/example.com/bob", ""); got.body != string(before.Payload) {
		t.Errorf("after all that alice is shown %s, want %s", got.body, before.Payload)
	}
	// As large and as deep as can be.
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`+strings.Repeat(" ", 64<<10-len(`{"basic":"open"}`))))
	pc.PublishMessage(retained(bobsPresence+"/deep", `{"x":`+nested(31)+`}`))
}

// The topics of presence: one spelling each, sources that may be named, and
// conditions that do not hold.
func TestPresenceTopicsAndConditions(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, nobody := s.person(bob, "pc"), s.person(mallory, "pc")
	for topic, code := range map[string]byte{
		"presence/EXAMPLE.com/bob": 0x90, "presence/example.com/Bob": 0x90, "presence/example.com": 0x90, "presence/example.com/bob/a/b/c": 0x90,
		"presence/example.com/bob/~pc": 0x90, "presence/example.com/bob/@work": 0x90, "presence/example.com/bob/typing": 0x90,
		"presence/example.com/carol": 0x87, "presence/example.com/carol/pc": 0x87, "presence/nowhere.example/x": 0x87,
	} {
		refusedBy(t, pc, retained(topic, `{"basic":"open"}`), code)
	}
	refusedBy(t, nobody, retained(bobsPresence, `{"basic":"closed"}`), 0x87)
	m := retained(bobsPresence, `{"basic":"open"}`)
	for _, c := range []struct {
		property mq.Property
		code     byte
		reason   string
	}{
		{mq.User("evt-etag", "nobody's"), 0x83, "stale-etag"},
		{mq.User("evt-expires", "29"), 0x83, "min-expires=30"},
		{mq.User("evt-expires", "-1"), 0x99, "seconds"},
		{mq.User("evt-expires", "soon"), 0x99, "seconds"},
		{mq.User("evt-bind", "forever"), 0x99, "connection or none"},
	} {
		m.Properties = mq.Properties{c.property}
		if got := refusedBy(t, pc, m, c.code); !contains(got, c.reason) {
			t.Errorf("the reason is %q, want %q in it", got, c.reason)
		}
	}
	for _, topic := range []string{"$me/policy/mood", "$me/policy/", "$me/policy/presence/x"} {
		if got := refusedBy(t, pc, mq.Publish{Topic: topic, Payload: []byte(`{"v":1}`)}, 0x83); !contains(got, "bad-event") {
			t.Errorf("publish to %s: the reason is %q, want bad-event in it", topic, got)
		}
	}
	for filter, code := range map[string]byte{"$me/policy/mood": 0x83, "$me/policy/+": 0x87, "presence/example.com/bob/pc": 0x8F, "presence/Example.com/bob": 0x8F, "$share/g/presence/example.com/bob": 0x9E} {
		if ack := nobody.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != code {
			t.Errorf("subscribe to %s: got %v, want code %#02x", filter, ack, code)
		}
	}
	if got := s.fetch(mallory, "/v1/presence/example.com/bob", ""); got.status != 200 || contains(got.body, `"open"`) {
		t.Errorf("nothing was accepted: %+v", got)
	}
}

// A policy with faults is refused with all of them and their places; the old
// one stays in force.
func TestPresencePolicyRefusals(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Subscribe(bobsPresence, 1)
	before := a.Receive()
	rules := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"id":"r%d","then":{"handling":"polite-block"}}`, i))
		}
		return `{"v":1,"rules":[` + strings.Join(all, ",") + `]}`
	}
	weekly := func(tz, start, end string) string {
		return fmt.Sprintf(`{"v":1,"rules":[{"id":"a","if":{"weekly":{"tz":%q,"windows":[{"days":["mon"],"start":%q,"end":%q}]}}}]}`, tz, start, end)
	}
	for _, c := range []struct{ document, words string }{
		{rules(501), "/rules"},
		{`{"v":1,"rules":[],"limit":[{"id":"hours"}]}`, `/limit: no such member here: did you mean "limits"?`},
		{`{"v":1,"rules":[{"id":"a","if":{"weekley":{}},"then":{"handeling":"allow"},"show":{"activites":true}}]}`, `/rules/0/if/weekley "weekly"? /rules/0/then/handeling "handling"? /rules/0/show/activites "activities"?`},
		{weekly("Mars/Olympus", "08:00", "17:00"), "/rules/0/if/weekly/tz"},
		{weekly("+05:00", "08:00", "17:00"), "/rules/0/if/weekly/tz"},
		{weekly("CST", "08:00", "17:00"), "/rules/0/if/weekly/tz"},
		{weekly("../../etc/passwd", "08:00", "17:00"), "/rules/0/if/weekly/tz"},
		{weekly("Europe/Berlin", "08:00", "08:00"), "/rules/0/if/weekly/windows/0"},
		{weekly("Europe/Berlin", "25:00", "26:00"), "/rules/0/if/weekly/windows/0"},
		{`{"v":1,"rules":[{"id":"a"},{"id":"a"}]}`, "duplicate-id"},
		{`{"v":1,"rules":[{"id":"a","then":{"handling":"maybe"}}]}`, "/rules/0/then/handling"},
		{`{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"*@example.com"}]}}]}`, "/rules/0/if/identity/0/one"},
		{`{"v":1,"rules":[{"id":"a","if":{"validity":[{"from":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}]}}]}`, "/rules/0/if/validity/0"},
		{`{"v":1,"entity":"pres:eve@example.com"}`, "entity-mismatch"},
		{`{"v":1,"kind":"location"}`, "/kind"},
		{`{"v":1}` + strings.Repeat(" ", 64<<10), "too-large"},
		{`{"v":1,"x":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`, "too-large"},
		{`{`, "schema"},
		{
			`{"v":3,"defaults":{"handling":"perhaps"},"rules":[{"id":""}],"limits":[{"id":"l","only":{}}],"delegates":[{"one":"bob"}]}`,
			"/v /defaults/handling /rules/0/id /limits/0/only /delegates/0/one",
		},
	} {
		got := refusedBy(t, pc, mq.Publish{Topic: "$me/policy/presence", Payload: []byte(c.document)}, 0x99)
		for _, word := range strings.Fields(c.words) {
			if !contains(got, word) {
				t.Errorf("%.80s: the reason is %q, want %q in it", c.document, got, word)
			}
		}
		a.Quiet()
	}
	if got := s.fetch(alice, "/v1/presence/example.com/bob", ""); got.body != string(before.Payload) {
		t.Errorf("after all that alice is shown %s, want %s", got.body, before.Payload)
	}
	pc.Publish("$me/policy/presence", 1, rules(500))
	if p := a.Receive(); !isNeutral(p, bob) {
		t.Errorf("500 rules that show nothing: %s", p.Payload)
	}
}

// A source that floods does not flood those who watch; what they were shown
// last is what it said last.
func TestPresenceFlood(t *testing.T) {
	t.Parallel()
	s := restlessKinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	var watchers []*mq.Client
	for i, m := range []mq.Connect{clean("w0"), durable(v5, "w1"), clean("w2"), durable(v5, "w3")} {
		w := s.open(v5, as(alice, m))
		w.Subscribe(bobsPresence, byte(i/2))
		w.Receive()
		watchers = append(watchers, w)
	}
	const seconds, each = 30, 20
	for i := range seconds {
		for j := range each {
			pc.PublishMessage(retained(bobsPresence, fmt.Sprintf(`{"basic":"open","notes":{"en":"%d"}}`, i*each+j)))
		}
		s.advance(time.Second)
	}
	s.advance(time.Minute)
	last := fmt.Sprint(seconds*each - 1)
	for i, w := range watchers {
		all := drain(w)
		if len(all) == 0 || len(all) > 100 {
			t.Fatalf("watcher %d was sent %d documents of %d changes", i, len(all), seconds*each)
		}
		var d struct{ Notes map[string]any }
		if err := json.Unmarshal(all[len(all)-1].Payload, &d); err != nil || fmt.Sprint(d.Notes["en"]) != last {
			t.Errorf("watcher %d was shown %s last, want %s (%v)", i, all[len(all)-1].Payload, last, err)
		}
	}
}

// A device whose clock is years ahead is not the newest for ever: its place among
// others is that of when it published, and what it wrote is shown as it wrote it.
func TestPresenceClockIsAhead(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	const ahead = `"timestamp":"2031-01-01T00:00:00Z"`
	pc.PublishMessage(retained(bobsPresence+"/ahead", `{"persons":[{"id":"p","activities":["meeting"],`+ahead+`}]}`))
	s.setClock("2026-03-09T12:10:00Z")
	pc.PublishMessage(retained(bobsPresence+"/right", `{"persons":[{"id":"p","activities":["away"],"timestamp":"2026-03-09T12:10:00Z"}]}`))
	a.Subscribe(bobsPresence, 1)
	shown := string(a.Receive().Payload)
	away, meeting := strings.Index(shown, "away"), strings.Index(shown, "meeting")
	if away < 0 || meeting < away || !strings.Contains(shown, ahead) {
		t.Errorf("got %s, want what was published last first, and %s", shown, ahead)
	}
	s.setClock("2026-03-09T12:20:00Z")
	pc.PublishMessage(retained(bobsPresence+"/ahead", `{"persons":[{"id":"p","activities":["meeting"],`+ahead+`}]}`))
	shown = string(a.Receive().Payload)
	if strings.Index(shown, "meeting") > strings.Index(shown, "away") {
		t.Errorf("got %s, want the one that was published again first", shown)
	}
}
