package blackbox

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/api"
	"github.com/bellwire/bellwire/internal/effort"
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

// operatorRules have ana as the operator, who may do all; whatever is in rules comes on top.
func operatorPolicy(rules string) string {
	return "users:\n  ana@example.com: {token_sha256: " + hashOf("token-ana") + "}\n  bob@example.com: {token_sha256: " + hashOf("token-bob") +
		"}\ngroups:\n  operators: [ana@example.com]\nrules:\n  - {id: ana, allow: [publish, subscribe], who: [ana@example.com], topic: [\"#\"]}\n" + rules
}

const bobReadsWard = "  - {id: bob, allow: [subscribe], who: [bob@example.com], topic: [\"ward/#\"]}\n"

// An operator changes the policy over HTTP: it is in force at once, kept with number and
// author, compared, and taken back. What is faulty, what its own tests do not bear out,
// and what is made from another than the one in force changes nothing.
func TestPolicyIsChangedByVerbs(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", writeFile(t, "policy.yaml", operatorPolicy("")))
	acl := func(verb ...string) (string, string, int) {
		return run(t, append(append([]string{"acl"}, verb...), "--server", s.ready.HTTP, "-u", "ana", "-P", "token-ana")...)
	}
	want := func(wantCode int, wantText string, verb ...string) string {
		t.Helper()
		out, errs, code := acl(verb...)
		if code != wantCode || !strings.Contains(out+errs, wantText) {
			t.Errorf("acl %v: exit code %d, want %d and %q\n%s%s", verb, code, wantCode, wantText, out, errs)
		}
		return out
	}
	bob := s.open(v5, as("bob", clean("bob")))
	mayRead := func() bool {
		return bob.TrySubscribe(nil, mq.Filter{Filter: "ward/3", QoS: 1}).Codes[0] < 0x80
	}
	better := writeFile(t, "better.yaml", operatorPolicy(bobReadsWard+"tests:\n  - {as: bob, allow: [subscribe ward/3]}\n"))
	faulty := writeFile(t, "faulty.yaml", operatorPolicy("  - {id: x, allow: [read], who: [cy], topic: []}\nrulez: []\n"))
	failing := writeFile(t, "failing.yaml", operatorPolicy("tests:\n  - {name: bob reads, as: bob, allow: [subscribe ward/3]}\n"))
	if mayRead() {
		t.Error("bob may read at first")
	}
	for _, verb := range [][]string{{"apply", faulty}, {"apply", faulty, "--shadow", "1h"}, {"diff", faulty}} {
		want(2, faulty+":", verb...) // by the name that it has here
		want(2, `unknown key "rulez"`, verb...)
	}
	want(9, "bob reads", "apply", failing)
	want(9, failing+":", "apply", failing)
	want(9, "bellwire: the policy fails 1 test of its own: the one in force stays\n", "apply", failing)
	want(7, "policy 1 is in force, not 7", "apply", better, "--if-match", "7")
	want(0, "bob@example.com may now subscribe ward/# ", "diff", better)
	want(0, "policy 1 stays in force", "apply", better, "--dry-run")
	if mayRead() {
		t.Error("bob may read by a policy that was not put in force")
	}
	want(0, "policy 2 in force · 1 test passed", "apply", better, "--if-match", "1")
	if !mayRead() {
		t.Error("bob may not read by the policy in force")
	}
	want(0, "ALLOW   subscribe ward/3", "explain", "--as", "bob", "--domain", "example.com", "subscribe", "ward/3")
	want(0, "ana@example.com\nbob@example.com\n", "who", "subscribe ward/3")
	want(0, "subscribe ward/#\n", "can", "bob")
	want(0, "+ rule   bob", "diff")
	want(3, "bellwire: no such policy is kept: 9\n  bellwire acl history lists those that are     BW-2019\n", "rollback", "9")
	want(3, "tries one (bellwire acl apply FILE --shadow 1h)     BW-2019\n", "shadow")
	want(3, "under tenants which domains have a policy of their own     BW-2019\n", "history", "--domain", "none.example")
	want(0, "policy 3 in force", "rollback", "1")
	if mayRead() {
		t.Error("bob may read by the policy that was taken back")
	}
	history := want(0, "ana@example.com", "history")
	if lines := strings.Split(strings.TrimSpace(history), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "3 ") || !strings.HasSuffix(lines[0], "in force") || !strings.Contains(lines[2], "file") {
		t.Errorf("history:\n%s", history)
	}
	for path, wantText := range map[string]string{
		"/v1/acl/explain?as=bob&action=subscribe&topic=ward/3&version=2":   `{"allow":true,"rule":"bob","line":8,"until":null,"next":null}`,
		"/v1/policy/explain?as=bob&action=subscribe&topic=ward/3&sweep=7d": `"allow":false`,
		"/v1/policy/who?action=subscribe&topic=ward/3&version=2":           `{"who":["ana@example.com","bob@example.com"]}`,
		"/v1/policy/can?as=bob&version=2":                                  `{"can":["subscribe ward/#"]}`,
		"/v1/policy/diff?version=2":                                        `"rule","name":"bob"`,
		"/v1/policy/versions/2":                                            "id: bob",
	} {
		if is := s.fetch("ana", path, ""); is.status != 200 || !strings.Contains(is.body, wantText) {
			t.Errorf("%s: %d %s, want %s", path, is.status, is.body, wantText)
		}
		if is := s.fetch("bob", path, ""); is.status != 403 {
			t.Errorf("%s as bob: %d %s", path, is.status, is.body)
		}
	}
	for path, wantStatus := range map[string]int{
		"/v1/policy/explain?as=bob&action=read&topic=ward/3": 400, "/v1/policy/explain?as=bob&action=publish&topic=%23": 400,
		"/v1/policy/can?as=%20": 400, "/v1/policy/can?as=bob&at=noon": 400, "/v1/policy/versions/77": 404, "/v1/policy/who?version=x": 400,
	} {
		if is := s.fetch("ana", path, ""); is.status != wantStatus {
			t.Errorf("%s: %d %s, want %d", path, is.status, is.body, wantStatus)
		}
	}
	s.kill()
	s.start()
	want(0, "3 ", "history")
}

// ADM-4: a domain's ceiling cuts what owners grant, at once and on live subscriptions:
// what somebody outside was shown of a location turns neutral within a second. It does
// not touch those inside, and is lifted like that; by itself it allows nothing to anybody.
func TestADM4CeilingCutsWhatOwnersGrant(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		people := []string{"ana@example.com", "bob@example.com", "cy@example.com", "alice@example.net"}
		before := usersOf(people...) + "groups: {operators: [ana@example.com]}\n"
		ceiling := before + "limits:\n  - {id: location-stays-home, topic: [\"location/example.com/#\", \"plain/#\"], only: {who: [\"*@example.com\"]}}\n"
		s := serve(t, "--policy", writeFile(t, "policy.yaml", before))
		put := func(policy string) time.Time {
			t.Helper()
			name := writeFile(t, "next.yaml", policy)
			if out, errs, code := run(t, "acl", "apply", name, "--server", s.ready.HTTP, "-u", people[0], "-P", "token-"+people[0]); code != 0 {
				t.Fatalf("exit code %d %s%s", code, out, errs)
			}
			return time.Now()
		}
		const topic = "location/example.com/bob"
		bob := s.open(v5, as(people[1], clean("phone")))
		inside, outside := s.open(v5, as(people[2], clean("in"))), s.open(v5, as(people[3], clean("out")))
		outside.Subscribe(topic, 1)
		neutral := string(outside.Receive().Payload)
		bob.PublishMessage(retained(topic, `{"lat":41.8789,"lon":-87.6359,"civic":{"country":"US","A1":"IL","A3":"Chicago"}}`))
		bob.Publish("$me/policy/location", 1, `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},"show":{"civic":"city"}}]}`)
		shown := string(outside.Receive().Payload)
		inside.Subscribe(topic, 1)
		if got := string(inside.Receive().Payload); !strings.Contains(shown, "Chicago") || got != shown || shown == neutral {
			t.Fatalf("the owner shows everybody\n%s, inside\n%s, and to nobody\n%s", shown, got, neutral)
		}
		since := put(ceiling)
		if got := string(outside.Receive().Payload); got != neutral {
			t.Errorf("with the ceiling outside is shown %s, want %s", got, neutral)
		}
		try.within(time.Second, time.Since(since), "what the ceiling takes is not shown any more")
		inside.Quiet()
		bob.PublishMessage(retained(topic, `{"civic":{"country":"US","A1":"IL","A3":"Evanston"}}`))
		if got := string(inside.Receive().Payload); !strings.Contains(got, "Evanston") {
			t.Errorf("inside is shown %s", got)
		}
		outside.Quiet()
		late := s.open(v5, as(people[3], clean("late")))
		late.Subscribe(topic, 1)
		if got := string(late.Receive().Payload); got != neutral {
			t.Errorf("who comes from outside is shown %s", got)
		}
		if code := inside.TryPublish(mq.Publish{Topic: "plain/x", QoS: 1}); code != 0x87 {
			t.Errorf("a limit alone allows to publish: %#02x", code)
		}
		put(before)
		for _, c := range []*mq.Client{outside, late} {
			if got := string(c.Receive().Payload); !strings.Contains(got, "Evanston") {
				t.Errorf("without the ceiling outside is shown %s", got)
			}
		}
	})
}

// An administrator of a domain sees what the policy says of its people, and what was
// refused to them; of others, of the file and of its versions nothing, and changes nothing.
func TestAdministratorOfADomain(t *testing.T) {
	t.Parallel()
	policy := policyFile(t, []string{"ana", "bob", "cy"}, `  - {id: all, allow: [publish], who: ["*@*"], topic: [pub]}
roles:
  - {id: net, who: [cy@example.com], domain: example.net}
groups:
  operators: [ana@example.com]
`)
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(policy, []byte(strings.Replace(string(text), "users:\n", "users:\n  dee@example.net: {token_sha256: "+hashOf("token-dee@example.net")+"}\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, "--policy", policy)
	refused := func(user string) string {
		c := s.open(v5, as(user, clean(user)))
		c.Send(mq.Publish{Topic: "other", QoS: 1, ID: c.ID()})
		return explainID(t, c.Expect(mq.PUBACK))
	}
	dee, bob := refused("dee@example.net"), refused("bob")
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"/v1/policy/can?as=dee@example.net":                              {200, `{"can":["publish pub"]}`},
		"/v1/policy/explain?as=dee@example.net&action=publish&topic=pub": {200, `"allow":true`},
		"/v1/policy/who?action=publish&topic=pub":                        {200, `{"who":["*@example.net"]}`},
		"/v1/policy/denials/" + dee:                                      {200, "dee@example.net"},
		"/v1/policy/denials/" + bob:                                      {404, ""},
		"/v1/policy/can?as=bob":                                          {403, ""},
		"/v1/policy/can?as=anonymous":                                    {403, ""},
		"/v1/policy/explain?as=bob@example.com&action=publish&topic=pub": {403, ""},
		"/v1/policy/diff?than=1":                                         {403, ""},
		"/v1/policy":                                                     {403, ""},
		"/v1/policy/versions":                                            {403, ""},
		"/v1/policy/versions/1":                                          {403, ""},
		"/v1/policy/shadow":                                              {403, ""},
	} {
		if is := s.fetch("cy", path, ""); is.status != want.status || !strings.Contains(is.body, want.says) {
			t.Errorf("%s: %d %s, want %d %s", path, is.status, is.body, want.status, want.says)
		}
	}
	if is := s.fetch("bob", "/v1/policy/can?as=dee@example.net", ""); is.status != 403 {
		t.Errorf("bob, who administers nothing: %d %s", is.status, is.body)
	}
}

// A policy that is tried in the shadow of the one in force is asked all that clients ask,
// what was asked before included, on every node, and changes nothing; it ends by itself.
func TestClusterShadow(t *testing.T) {
	t.Parallel()
	p := loopback()
	p.policy = strings.Replace(trioPolicy, `["#"]`, `["t/#", "gate"]`, 1)
	c := p.start(t)
	acl := func(i int, verb ...string) (string, int) {
		out, errs, code := run(t, append(append([]string{"acl"}, verb...), "--server", c.http[i], "-u", "ana", "-P", "sesame")...)
		return out + errs, code
	}
	shadow := func(i int) (s api.Shadow) {
		t.Helper()
		if out, code := acl(i, "shadow", "-o", "json"); code != 0 || json.Unmarshal([]byte(out), &s) != nil {
			t.Fatalf("n%d: exit code %d %s", i+1, code, out)
		}
		return s
	}
	tried := writeFile(t, "tried.yaml", p.policy+
		"  - {id: new, allow: [publish], who: [anyone], topic: [new]}\n  - {id: shut, deny: [subscribe], who: [anyone], topic: [gate]}\n")
	clients := make([]*mq.Client, clusterSize)
	exchange := func() {
		t.Helper()
		for _, from := range clients {
			from.Publish("gate", 1, "x")
			for _, to := range clients {
				if got := to.Expect(mq.PUBLISH); got.Topic != "gate" {
					t.Fatalf("%v", got)
				}
			}
		}
	}
	for i, n := range c.nodes {
		clients[i] = n.open(v5, clean(fmt.Sprint("c", i)))
		clients[i].TrySubscribe(nil, mq.Filter{Filter: "gate"})
	}
	exchange() // answers are kept from here on
	if out, code := acl(0, "shadow"); code != 3 {
		t.Errorf("none is tried: exit code %d %s", code, out)
	}
	if out, code := acl(0, "apply", tried, "--shadow", "8d"); code != 2 {
		t.Errorf("for too long: exit code %d %s", code, out)
	}
	if out, code := acl(0, "apply", tried, "--shadow", "1h"); code != 0 || !strings.Contains(out, "n1, n2, n3") {
		t.Fatalf("exit code %d %s", code, out)
	}
	exchange()
	for i, client := range clients {
		if code := client.TryPublish(mq.Publish{Topic: "new", QoS: 1}); code != 0x87 {
			t.Errorf("n%d: published what the policy in force does not allow: %#02x", i+1, code)
		}
	}
	for i := range c.nodes {
		s := shadow(i)
		var got []string
		for _, d := range s.Differences {
			got = append(got, fmt.Sprintf("%s %s %t %t by %s", d.Action, d.Topic, d.Was, d.Is, d.Rule))
		}
		slices.Sort(got)
		if want := "publish new false true by new; subscribe gate true false by shut"; strings.Join(got, "; ") != want || len(s.Nodes) != clusterSize || s.Missed > 0 || s.Cost <= 0 {
			t.Errorf("n%d: %s in %+v, want %s", i+1, got, s, want)
		}
	}
	if out, code := acl(1, "shadow", "--stop"); code != 0 || !strings.Contains(out, "anonymous could no longer subscribe gate (shut)") || !strings.Contains(out, "anonymous could publish new (new)") {
		t.Errorf("exit code %d %s", code, out)
	}
	for i := range c.nodes {
		if out, code := acl(i, "shadow"); code != 3 {
			t.Errorf("n%d: it was ended: exit code %d %s", i+1, code, out)
		}
	}
	if out, code := acl(2, "apply", tried, "--shadow", "10ms"); code != 0 {
		t.Fatalf("exit code %d %s", code, out)
	}
	until(t, "its time is over", 30*time.Second, func() bool { _, code := acl(0, "shadow"); return code == 3 })
	exchange()
}

// gates are watchers at the nodes of a cluster of what a policy opens and closes.
type gates struct {
	c        *trio
	watchers [clusterSize]*mq.Client // nil: its node is down
	n        int                     // what was published last
}

// watch connects the watcher of node i.
func (g *gates) watch(i int) {
	g.c.t.Helper()
	g.watchers[i] = g.c.nodes[i].open(v5, clean(fmt.Sprint("gate watcher ", i)))
	g.watchers[i].TrySubscribe(nil, mq.Filter{Filter: "gate", QoS: 1}, mq.Filter{Filter: "open", QoS: 1})
}

// are says whether the gate is open, or not, to the watchers of all nodes: what is
// published there comes before what is published after it where everything is open.
func (g *gates) are(open bool) bool {
	g.c.t.Helper()
	var p *mq.Conn
	until(g.c.t, "a node whose watcher is there takes the publisher", patience, func() bool { // who leads may be down
		for i, w := range g.watchers {
			if w == nil {
				continue
			}
			var err error
			if p, _, err = connectAny(g.c.addresses(i), clean("gate publisher")); err == nil {
				return true
			}
		}
		return false
	})
	defer p.Close()
	g.n++
	text := fmt.Sprint(g.n)
	if err := p.Write(mq.Publish{Topic: "gate", Payload: []byte(text), QoS: 1, ID: 1}, mq.Publish{Topic: "open", Payload: []byte(text), QoS: 1, ID: 2}); err != nil {
		g.c.t.Fatal(err)
	}
	all := true
	for _, w := range g.watchers {
		if w == nil {
			continue
		}
		passed := false
		for {
			p := w.Expect(mq.PUBLISH)
			w.Send(mq.Ack{Type: mq.PUBACK, ID: p.ID})
			passed = passed || p.Topic == "gate" && string(p.Payload) == text
			if p.Topic == "open" && string(p.Payload) == text {
				break
			}
		}
		all = all && passed == open
	}
	return all
}

// become returns how long it takes until the gate is open, or not, to all.
func (g *gates) become(open bool) time.Duration {
	g.c.t.Helper()
	began := time.Now()
	for !g.are(open) {
		if time.Since(began) > 30*time.Second {
			g.c.t.Fatalf("the policy is not in force everywhere after %v", time.Since(began))
		}
	}
	return time.Since(began)
}

// put has node i put a policy in force.
func (g *gates) put(i int, policy string) {
	g.c.t.Helper()
	r, err := http.NewRequest("PUT", "http://"+g.c.http[i]+"/v1/policy", strings.NewReader(policy))
	if err != nil {
		g.c.t.Fatal(err)
	}
	r.SetBasicAuth("ana", "sesame")
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		g.c.t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		g.c.t.Fatalf("at n%d: %d %s", i+1, res.StatusCode, body)
	}
}

// A policy that any node has accepted is in force on all within a second, for live
// subscriptions, under load; also on the others if that node is killed at once.
func TestClusterPolicyWithinASecond(t *testing.T) {
	c := newTrio(t)
	c.await("the level that has numbers", func(all []member) bool {
		return allVote(all) && !slices.ContainsFunc(all, func(m member) bool { return m.Level < m.Supports })
	})
	g := &gates{c: c}
	for i := range c.nodes {
		g.watch(i)
	}
	l := c.load()
	l.start()
	shut := trioPolicy + "  - {id: shut, deny: [subscribe], who: [anyone], topic: [gate]}\n"
	open := true
	turn := func(i int) {
		policy := trioPolicy
		if open = !open; !open {
			policy = shut
		}
		g.put(i, policy)
	}
	for range effort.Rounds(1, 10) {
		for i := range c.nodes {
			attempts(t, func(try *attempt) {
				for range 2 {
					turn(i)
					try.within(time.Second, g.become(open), fmt.Sprintf("accepted by n%d, a gate's being open, %v, was in force on all nodes", i+1, open))
				}
			})
		}
	}
	for range effort.Rounds(1, 5) {
		for i, n := range c.nodes {
			attempts(t, func(try *attempt) {
				turn(i)
				n.kill()
				g.watchers[i].Close()
				g.watchers[i] = nil
				try.within(time.Second, g.become(open), fmt.Sprintf("accepted by n%d, which was killed then, a gate's being open, %v, was in force on the others", i+1, open))
				n.start()
				g.watch(i)
				c.caughtUp()
				if !g.are(open) {
					t.Errorf("n%d has another policy when it is back", i+1)
				}
			})
		}
	}
	l.finish()
	c.alike()
}

// hashOf returns what a policy file has of a token.
func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
