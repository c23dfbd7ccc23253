package blackbox

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/api"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// explainID returns the id that ends a Reason String of a refusal by the policy.
func explainID(t testing.TB, p *mq.Packet) string {
	t.Helper()
	text := p.Properties.Text(mq.PropReasonString)
	_, id, ok := strings.Cut(text, "; bellwire acl explain ")
	if !ok || len(id) != 8 || !strings.HasPrefix(text, "BW-4031 ") {
		t.Fatalf("%v says %q, want BW-4031, why, and an id", p, text)
	}
	return id
}

const wardRules = `  - {id: ward-night, allow: [subscribe, publish], who: ["bob@example.com"], topic: ["ward/+/alarm"], when: {weekly: ["Mon-Sun 22:00-06:00"], tz: Europe/Madrid}}
groups:
  operators: [ana@example.com]
limits:
  - {id: home, topic: ["location/#"], only: {who: ["ana@example.com"]}}
`

// Every refusal by the operator's policy has an id: in the Reason String, but of those
// who declined one, and in the log. Whoever was refused, and operators, are told by it
// which rule it was and when that changes; anybody else, that there is no such thing.
func TestExplainByID(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob", "cy"}, wardRules), "--test-clock", "2026-11-23T12:00:00Z")
	bob := s.open(v5, as("bob", clean("bob")))
	explain := func(user, id string, flags ...string) (string, string, int) {
		return run(t, append([]string{"acl", "explain", id, "--server", s.ready.HTTP, "-u", user, "-P", "token-" + user}, flags...)...)
	}
	bob.Send(mq.Publish{Topic: "ward/3/alarm", QoS: 1, ID: bob.ID()})
	closed := explainID(t, bob.Expect(mq.PUBACK))
	bob.Send(mq.Publish{Topic: "ward/3/door", QoS: 2, ID: bob.ID()})
	noRule := bob.Expect(mq.PUBREC)
	if text := noRule.Properties.Text(mq.PropReasonString); !strings.HasPrefix(text, "BW-4031 no rule allows publish to ward/3/door; ") {
		t.Errorf("%q", text)
	}
	partial := bob.TrySubscribe(nil, mq.Filter{Filter: "ward/#"})
	bob.Send(mq.Publish{Topic: "location/example.com/bob", QoS: 1, ID: bob.ID()})
	limited := bob.Expect(mq.PUBACK)
	will := clean("will")
	will.Will = &mq.Will{Topic: "ward/3/door"}
	mourned := mq.Dial(t, s.ready.MQTT, v5)
	mourned.Send(as("bob", will))
	refused := mourned.Expect(mq.CONNACK)
	for id, wants := range map[string][]string{
		closed:                {"DENY    publish ward/3/alarm   as bob@example.com", "ward-night", "closed since 06:00 → opens 22:00"},
		explainID(t, noRule):  {"DENY    publish ward/3/door", "no rule allows", "bob@example.com may publish ward/+/alarm"},
		explainID(t, partial): {"DENY    subscribe ward/#", "PARTIAL"},
		explainID(t, limited): {"DENY    publish location/example.com/bob", "home"},
		explainID(t, refused): {"DENY    publish ward/3/door"},
	} {
		for _, user := range []string{"bob", "ana"} {
			is := s.fetch(user, "/v1/policy/denials/"+strings.ToLower(id), "")
			var d api.Denial
			err := json.Unmarshal([]byte(is.body), &d)
			for _, want := range wants {
				if is.status != 200 || err != nil || !strings.Contains(d.Text, want) {
					t.Errorf("%s as %s: no %q in %d %s", id, user, want, is.status, is.body)
				}
			}
		}
		if is := s.fetch("cy", "/v1/policy/denials/"+id, ""); is.status != 404 || strings.Contains(is.body, "bob") {
			t.Errorf("cy is told of bob's %s: %d %s", id, is.status, is.body)
		}
		if !strings.Contains(s.logs.String(), `"id":"`+id+`"`) {
			t.Errorf("%s is not in the log", id)
		}
	}
	bob.Send(mq.Publish{Topic: "ward/3/alarm", QoS: 1, ID: bob.ID()})
	if again := explainID(t, bob.Expect(mq.PUBACK)); again != closed {
		t.Errorf("the same refusal is %s and %s", closed, again)
	}
	var d api.Denial
	out, _, code := explain("bob", closed, "-o", "json")
	if err := json.Unmarshal([]byte(out), &d); code != 0 || err != nil || d.Rule != "ward-night" || d.Line != 6 || d.Times != 2 || d.Topic != "ward/3/alarm" || d.Client != "bob" {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	if out, errs, code := explain("cy", closed); code != 3 || out != "" || !strings.Contains(errs, "BW-4032") {
		t.Errorf("cy is told: exit code %d\n%s%s", code, out, errs)
	}
	if is := s.fetch("bob", "/v1/policy/denials/00000000", ""); is.status != 404 {
		t.Errorf("an id that nobody has: %d %s", is.status, is.body)
	}
}

// What an owner keeps from somebody has no id: there is nothing to ask about.
func TestOwnersAreNotExplained(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, everything))
	bob := s.open(v5, as("bob", clean("bob")))
	if ack := bob.TrySubscribe(nil, mq.Filter{Filter: "im/example.com/ana", QoS: 1}); ack.Codes[0] < 0x80 || strings.Contains(ack.Properties.Text(mq.PropReasonString), "explain") {
		t.Errorf("%v", ack)
	}
	if logged := s.logs.String(); strings.Contains(logged, "refused by the policy") {
		t.Error(logged)
	}
}

// Any node of a cluster passes the question on to the one that refused.
func TestClusterExplainByID(t *testing.T) {
	t.Parallel()
	p := loopback()
	p.policy = strings.Replace(trioPolicy, `["#"]`, `["t/#"]`, 1)
	c := p.start(t)
	for i, n := range c.nodes {
		client := n.open(v5, clean("c"))
		client.Send(mq.Publish{Topic: "other", QoS: 1, ID: client.ID()})
		id := explainID(t, client.Expect(mq.PUBACK))
		for _, at := range c.http {
			out, errs, code := run(t, "acl", "explain", id, "--server", at, "-u", "ana", "-P", "sesame")
			if code != 0 || !strings.Contains(out, "DENY    publish other   as anonymous") {
				t.Errorf("the id of n%d at %s: exit code %d\n%s%s", i+1, at, code, out, errs)
			}
		}
	}
}
