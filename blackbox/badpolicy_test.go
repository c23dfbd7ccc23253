package blackbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// pointers are the places that a refusal names, in their order.
func (a answer) pointers(t *testing.T) (all []string) {
	t.Helper()
	var problem struct {
		Faults []struct{ Pointer, What string }
	}
	if err := json.Unmarshal([]byte(a.body), &problem); err != nil {
		t.Fatalf("%+v: %v", a, err)
	}
	for _, f := range problem.Faults {
		if f.What == "" {
			t.Errorf("nothing is said of %s", f.Pointer)
		}
		all = append(all, f.Pointer)
	}
	return all
}

// Every bad policy of an owner's is refused by HTTP with 422 and over MQTT with 0x99, each
// with all its faults, by JSON pointer, and the policy in force stays.
func TestBadPoliciesAreRefusedWithAllFaults(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	good := rulesOf(forOne("a", alice, `"then":{"handling":"allow"},"show":{"services":["*"]}`))
	if got := s.ask(bob, "PUT", "/v1/me/policy/presence", good); got.status != 201 {
		t.Fatalf("%+v", got)
	}
	inForce := s.ask(bob, "GET", "/v1/me/policy/presence", "")
	rule := func(rest string) string { return `{"v":1,"rules":[{"id":"r",` + rest + `}]}` }
	weekly := func(tz, days, start, end, more string) string {
		return rule(fmt.Sprintf(`"if":{"weekly":{"tz":%q,"windows":[{"days":[%s],"start":%q,"end":%q}]%s}}`, tz, days, start, end, more))
	}
	validity := func(from, until string) string {
		return rule(fmt.Sprintf(`"if":{"validity":[{"from":%q,"until":%q}]}`, from, until))
	}
	many := strings.Repeat(`{"id":"x"},`, 500)
	for _, c := range []struct {
		name, document string
		pointers       []string
	}{
		{"a rule's id twice", `{"v":1,"rules":[{"id":"a"},{"id":"a"}]}`, []string{"/rules/1/id"}},
		{"a handling that there is not", rule(`"then":{"handling":"maybe"}`), []string{"/rules/0/then/handling"}},
		{"ends before it begins", validity("2026-06-08T00:00:00Z", "2026-06-01T00:00:00Z"), []string{"/rules/0/if/validity/0"}},
		{"ends when it begins", validity("2026-06-08T00:00:00Z", "2026-06-08T00:00:00Z"), []string{"/rules/0/if/validity/0"}},
		{"starts when it ends", weekly("UTC", `"mon"`, "08:00", "08:00", ""), []string{"/rules/0/if/weekly/windows/0"}},
		{"no such hour", weekly("UTC", `"mon"`, "08:00", "25:00", ""), []string{"/rules/0/if/weekly/windows/0"}},
		{"no such day", weekly("UTC", `"mun"`, "08:00", "17:00", ""), []string{"/rules/0/if/weekly/windows/0/days/0"}},
		{"no day", weekly("UTC", ``, "08:00", "17:00", ""), []string{"/rules/0/if/weekly/windows/0/days"}},
		{"no such date", weekly("UTC", `"mon"`, "08:00", "17:00", `,"exceptDates":["2026-02-30"]`), []string{"/rules/0/if/weekly/exceptDates/0"}},
		{"an offset for a zone", weekly("+05:00", `"mon"`, "08:00", "17:00", ""), []string{"/rules/0/if/weekly/tz"}},
		{"an abbreviation for a zone", weekly("CST", `"mon"`, "08:00", "17:00", ""), []string{"/rules/0/if/weekly/tz"}},
		{"a zone that there is not", weekly("Mars/Olympus", `"mon"`, "08:00", "17:00", ""), []string{"/rules/0/if/weekly/tz"}},
		{"an identity that is no URI", rule(`"if":{"identity":[{"one":"alice@example.net"}]}`), []string{"/rules/0/if/identity/0/one"}},
		{"a glob", rule(`"if":{"identity":[{"one":"pres:*@example.net"}]}`), []string{"/rules/0/if/identity/0/one"}},
		{"an expression", rule(`"if":{"identity":[{"one":"pres:.*@example.net"}]}`), []string{"/rules/0/if/identity/0/one"}},
		{"a glob for a domain", rule(`"if":{"identity":[{"many":{"domain":"*.net"}}]}`), []string{"/rules/0/if/identity/0/many/domain"}},
		{"an empty list of identities", rule(`"if":{"identity":[]}`), []string{"/rules/0/if/identity"}},
		{"501 rules", `{"v":1,"rules":[` + many + `{"id":"y"}]}`, []string{"/rules"}},
		{"more than 64 KiB", `{"v":1}` + strings.Repeat(" ", 64<<10), []string{""}},
		{"another's", `{"v":1,"entity":"pres:eve@example.com"}`, []string{"/entity"}},
		{"for another kind", `{"v":1,"kind":"location"}`, []string{"/kind"}},
		{"no JSON", `{"v":1`, []string{""}},
		{
			"many at once", `{"v":1,"rules":[{"id":"a","if":{"weekly":{"tz":"CST","windows":[{"days":["mon"],"start":"08:00","end":"08:00"}]}},"then":{"handling":"maybe"}},{"id":"a"}],"limit":[]}`,
			[]string{"/limit", "/rules/0/if/weekly/tz", "/rules/0/if/weekly/windows/0", "/rules/0/then/handling", "/rules/1/id"},
		},
	} {
		got := s.ask(bob, "PUT", "/v1/me/policy/presence", c.document)
		if pointers := slices.Sorted(slices.Values(got.pointers(t))); got.status != 422 || !slices.Equal(pointers, c.pointers) {
			t.Errorf("%s: PUT is answered %d, %q, want 422, %q", c.name, got.status, pointers, c.pointers)
		}
		reason := refusedBy(t, pc, mq.Publish{Topic: "$me/policy/presence", Payload: []byte(c.document)}, 0x99)
		for _, p := range c.pointers {
			if !strings.Contains(reason, p) {
				t.Errorf("%s: PUBACK says %q, want %s in it", c.name, reason, p)
			}
		}
		pc.Quiet()
		s.advance(60_000_000_000) // fetches and decisions are counted
		if now := s.ask(bob, "GET", "/v1/me/policy/presence", ""); now != inForce {
			t.Fatalf("%s: the policy in force is %+v, want %+v", c.name, now, inForce)
		}
	}
}

// Owners read, put and end their policies by HTTP, under the condition that nobody has
// changed them meanwhile, and as XML if they say so, there and over MQTT.
func TestOwnersPolicyByHTTP(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "phone")
	pc.PublishMessage(retained(bobsPresence, `{"tuples":[{"id":"t","basic":"open","contact":{"uri":"im:bob@example.com"}}]}`))
	const (
		path = "/v1/me/policy/presence"
		xml  = `<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:pr="urn:ietf:params:xml:ns:pres-rules"><rule id="x"><conditions><identity><one id="sip:alice@example.net"/><one id="pres:alice@example.net"/></identity></conditions><actions><pr:sub-handling>allow</pr:sub-handling></actions><transformations><pr:provide-services><pr:all-services/></pr:provide-services></transformations></rule></ruleset>`
	)
	ofXML := []string{"Content-Type", "application/auth-policy+xml; charset=utf-8"}
	sees := func(what string, is bool) {
		t.Helper()
		if got := s.fetch(alice, "/v1/"+bobsPresence, ""); strings.Contains(got.body, "im:bob@example.com") != is {
			t.Errorf("%s: alice is shown %+v", what, got)
		}
	}
	want := func(what string, got answer, status int) answer {
		t.Helper()
		if got.status != status {
			t.Errorf("%s: got %+v, want %d", what, got, status)
		}
		return got
	}
	good := rulesOf(forOne("a", alice, `"then":{"handling":"allow"},"show":{"services":["*"]}`))
	want("there is none", s.ask(bob, "GET", path, ""), 404)
	want("none is to be replaced", s.ask(bob, "PUT", path, good, "If-Match", `"x"`), 412)
	sees("nothing is set", false)
	first := want("the first", s.ask(bob, "PUT", path, good, "If-None-Match", "*"), 201)
	sees("the first", true)
	if got := s.ask(bob, "GET", path, ""); got.etag != first.etag || got.body != good {
		t.Errorf("the policy is %+v, want tag %s", got, first.etag)
	}
	want("there is one", s.ask(bob, "PUT", path, good, "If-None-Match", "*"), 412)
	want("not that one", s.ask(bob, "PUT", path, rulesOf(), "If-None-Match", first.etag), 412)
	second := want("the second", s.ask(bob, "PUT", path, rulesOf(), "If-Match", `"x", `+first.etag), 200)
	sees("the second", false)
	want("made from the first", s.ask(bob, "PUT", path, good, "If-Match", first.etag), 412)
	want("in XML", s.ask(bob, "PUT", path, xml, append(ofXML, "If-Match", second.etag)...), 200)
	sees("in XML", true)
	if got := want("XML that is none", s.ask(bob, "PUT", path, "<ruleset", ofXML...), 422); !strings.Contains(got.body, "faults") {
		t.Errorf("%+v", got)
	}
	if got := want("XML with two faults", s.ask(bob, "PUT", path, strings.ReplaceAll(strings.ReplaceAll(xml, ` id="x"`, ""), "</rule>", "<more/></rule>"), ofXML...), 422); len(got.pointers(t)) != 2 {
		t.Errorf("%+v", got)
	}
	sees("after those", true)
	want("ended", s.ask(bob, "DELETE", path, ""), 204)
	sees("ended", false)
	want("there is none any more", s.ask(bob, "GET", path, ""), 404)
	want("an empty one", s.ask(bob, "PUT", path, ""), 422)
	want("no such kind", s.ask(bob, "PUT", "/v1/me/policy/mood", good), 404)
	pc.PublishMessage(mq.Publish{Topic: "$me/policy/presence", QoS: 1, Payload: []byte(xml), Properties: mq.Properties{mq.Text(mq.PropContentType, "application/auth-policy+xml")}})
	sees("in XML over MQTT", true)
	refusedBy(t, pc, mq.Publish{Topic: "$me/policy/presence", Payload: []byte("<ruleset/>"), Properties: mq.Properties{mq.Text(mq.PropContentType, "application/auth-policy+xml")}}, 0x99)
	sees("after a bad one", true)
	// What is put is shown to the owner's own sessions, and decides of messages, too.
	pc.Subscribe("$me/policy/im", 1)
	pc.ReceiveText("$me/policy/im", "")
	message := rulesOf(forOne("a", alice, `"then":{"handling":"allow"},"show":{"send":true}`))
	put := want("of messages", s.ask(bob, "PUT", "/v1/me/policy/im", message), 201)
	pc.ReceiveText("$me/policy/im", message)
	want("of messages, made from another", s.ask(bob, "PUT", "/v1/me/policy/im", message, "If-Match", `"x"`), 412)
	want("of messages, in its place", s.ask(bob, "PUT", "/v1/me/policy/im", rulesOf(), "If-Match", put.etag), 200)
	a.Quiet()
}
