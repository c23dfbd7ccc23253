package blackbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Bob counts exactly, three who show their name and two who do not. Others are told nothing,
// and cannot tell that from there being nobody, until he has it told: then all who watch are
// in the number, however they are seen; rounded, and not while there are too few. Also
// R5.1.2.
func TestS19CountForOthers(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	telling := func(what string) string {
		return strings.Replace(showAnybody, `"rules"`, `"publishCount":`+what+`,"rules"`, 1)
	}
	pc.Publish("$me/policy/presence", 1, showAnybody)
	under(a, bobsPresence, "")
	for who, as := range map[string]string{carol: "identified", boss: "identified", zoe: "anonymous", mallory: "anonymous"} {
		under(s.person(who, "pc"), bobsPresence, as)
	}
	takes(a, 1)
	if is := s.own(bob, ownStats); is != `{"identified":3,"pseudonymous":0,"anonymous":2,"pending":0,"polite":0,"fetchers24h":0,"total":5}` {
		t.Errorf("bob counts %s", is)
	}
	const bobs, nobodys = "$stats/" + bobsPresence, "$stats/presence/example.com/nobody"
	refused := func(when string) {
		t.Helper()
		var told []string
		for _, topic := range []string{bobs, nobodys} {
			code, reason := under(a, topic, "")
			got := s.fetch(alice, "/v1/"+strings.TrimPrefix(topic, "$stats/")+"/stats", "")
			told = append(told, fmt.Sprintf("%#02x %s, %d %s", code, reason, got.status, got.body))
		}
		if told[0] != told[1] || !strings.HasPrefix(told[0], "0x87") || !contains(told[0], ", 403 ") || !contains(told[0], "not-published") {
			t.Errorf("%s: of bob told %s, of nobody %s", when, told[0], told[1])
		}
	}
	refused("not published")
	pc.Publish("$me/policy/presence", 1, telling(`{"round":1,"min":6}`))
	refused("too few")

	pc.Publish("$me/policy/presence", 1, telling(`{"round":2}`))
	if code, reason := under(a, bobs, ""); code != 1 {
		t.Fatalf("published: %#02x %s", code, reason)
	}
	if all := takes(a, 1); string(all[0].Payload) != `{"total":4}` {
		t.Errorf("of five in pairs alice is sent %s", all[0].Payload)
	}
	if got := s.fetch(zoe, "/v1/presence/example.com/bob/stats", ""); got.status != 200 || got.body != `{"total":4}` {
		t.Errorf("zoe fetches %+v", got)
	}
	six := s.person(press, "pc")
	s.advance(5 * time.Second)
	under(six, bobsPresence, "anonymous")
	s.advance(5 * time.Second)
	if all := takes(a, 1); string(all[len(all)-1].Payload) != `{"total":6}` {
		t.Errorf("with a sixth she is sent %v", all)
	}
	s.advance(5 * time.Second)
	pc.Publish("$me/policy/presence", 1, telling(`{"round":2,"min":7}`))
	s.advance(5 * time.Second)
	if all := takes(a, 1); len(all[len(all)-1].Payload) != 0 {
		t.Errorf("too few, she is sent %v", all)
	}
	refused("too few again")
	for topic, code := range map[string]byte{"$stats/#": 0x8F, "$stats/presence/example.com/+": 0x8F, "$share/g/" + bobs: 0x9E} {
		if ack := a.TrySubscribe(nil, mq.Filter{Filter: topic, QoS: 1}); ack.Codes[0] != code {
			t.Errorf("%s: %v, want %#02x", topic, ack, code)
		}
	}
	refusedBy(t, pc, mq.Publish{Topic: bobs, Payload: []byte(`{"total":1000000}`)}, 0x90)
}

// What stands at bob's address is bob's, and says so: nobody else publishes there, who is
// not who they say cannot connect, and a document that names somebody else is refused, also
// of a delegate, at whose own address nothing names bob either. So what alice is shown, by
// whatever way, is of bob.
func TestR5_1_1WhoseItIs(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, m, delegate := s.person(bob, "pc"), s.person(alice, "pc"), s.person(mallory, "pc"), s.person(cal, "svc")
	pc.Publish("$me/policy/presence", 1, strings.Replace(showAll, `"rules"`, `"delegates":[{"one":"pres:`+cal+`","sources":["calendar"]}],"rules"`, 1))
	m.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Subscribe("presence/example.com/+", 1)
	takes(a, 1)

	const asBob, asCal = `{"entity":"pres:bob@example.com","basic":"closed"}`, `{"entity":"pres:` + cal + `","basic":"closed"}`
	for topic, payload := range map[string]string{bobsPresence: asBob, bobsPresence + "/pc": asBob, bobsPresence + "/calendar": asBob} {
		refusedBy(t, m, retained(topic, payload), 0x87)
	}
	if text := refusedBy(t, m, retained("presence/example.com/mallory", asBob), 0x99); !contains(text, "entity-mismatch") {
		t.Errorf("at their own address: told %q", text)
	}
	if text := refusedBy(t, delegate, retained(bobsPresence+"/calendar", asCal), 0x99); !contains(text, "entity-mismatch") {
		t.Errorf("a delegate, as themselves: told %q", text)
	}
	refusedBy(t, delegate, retained(bobsPresence+"/pc", asBob), 0x87)
	forged := as(bob, clean("forged"))
	forged.Password = []byte("token-" + mallory)
	c := mq.Dial(t, s.ready.MQTT, v5)
	c.Send(forged)
	if ack := c.Expect(mq.CONNACK); ack.Code != 0x86 {
		t.Errorf("with mallory's token as bob: %v", ack)
	}
	a.Quiet()

	delegate.PublishMessage(retained(bobsPresence+"/calendar", `{"persons":[{"id":"me","activities":["meeting"]}]}`))
	p := latest(t, a, bobsPresence)
	got := s.fetch(alice, "/v1/presence/example.com/bob", "")
	if p.Topic != bobsPresence || readPresence(t, p).Entity != "pres:bob@example.com" || got.body != string(p.Payload) {
		t.Errorf("alice is shown %s %s, fetches %s", p.Topic, p.Payload, got.body)
	}
}
