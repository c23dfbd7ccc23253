package blackbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// decision is a request to $ctl/ about alice's presence subscription.
func decision(verb, more string) mq.Publish {
	return mq.Publish{Topic: "$ctl/" + verb, QoS: 1, Payload: []byte(`{"kind":"presence","watcher":"pres:alice@example.net"` + more + `}`)}
}

// decides sends one and returns what is answered.
func decides(c *mq.Client, verb, more string) *mq.Packet {
	m := decision(verb, more)
	m.ID = c.ID()
	c.Send(m)
	return c.Await(mq.PUBACK, m.ID)
}

// userProperty is the value that a packet has of one, empty for none.
func userProperty(p *mq.Packet, name string) string {
	all := p.Properties.User()
	for _, text := range all {
		if value, ok := strings.CutPrefix(text, name+"="); ok {
			return value
		}
	}
	return ""
}

// Who is let in by a rule for a whole domain is denied alone, told, politely or by no
// answer; others of the domain notice nothing, and what is withdrawn is as it was. Also
// R5.1.13, R5.1.15.
func TestDenyBeatsRulesForMany(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, z := s.person(bob, "pc"), s.person(alice, "pc"), s.person(zoe, "pc")
	const net = `{"v":1,"rules":[{"id":"net","rank":1000,"if":{"identity":[{"many":{"domain":"example.net"}}]},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`
	pc.Publish("$me/policy/presence", 1, net)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Subscribe("$me/sub/#", 1)
	for _, c := range []*mq.Client{a, z} {
		c.Subscribe(bobsPresence, 1)
	}
	takes(a, 2)
	takes(z, 1)
	for _, x := range []struct {
		verb, more string
		states     []string
		shown      string // a word of the one document; neutral; empty for none
	}{
		{"deny", `,"style":"polite"`, nil, "neutral"},
		{"withdraw", "", nil, `"open"`},
		{"deny", `,"style":"ignore"`, []string{"pending"}, ""},
		{"withdraw", "", []string{"active"}, `"open"`},
		{"deny", "", []string{"terminated rejected"}, ""},
	} {
		if p := decides(pc, x.verb, x.more); p.Code != 0 {
			t.Fatalf("%s %s: %v", x.verb, x.more, p)
		}
		count := len(x.states)
		if x.shown != "" {
			count++
		}
		states, shown := hears(t, a, count)
		ok := slices.Equal(states, x.states) && (x.shown == "") == (len(shown) == 0)
		if ok && len(shown) == 1 {
			ok = x.shown == "neutral" && isNeutral(shown[0], bob) || contains(string(shown[0].Payload), x.shown)
		}
		if !ok {
			t.Errorf("%s %s: told %v, shown %v", x.verb, x.more, states, shown)
		}
	}
	if got := s.fetch(alice, "/v1/presence/example.com/bob", ""); got.status != 403 {
		t.Errorf("denied, she fetches %+v", got)
	}
	z.Quiet()
	decides(pc, "withdraw", "")
	if got := s.fetch(bob, "/v1/me/policy/presence", ""); got.body != net {
		t.Errorf("withdrawn, the policy is %s", got.body)
	}
	if p := decides(pc, "withdraw", ""); p.Code != 0x83 || !contains(p.Properties.Text(mq.PropReasonString), "no-such-decision") {
		t.Errorf("withdrawn twice: %v", p)
	}
}

// What is decided about who has not asked is for when they do; about who has asked and is
// gone, likewise; twice is once; and an id that there is not is refused, whoever's it was.
func TestDecisionsThatComeTooLate(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, undecided)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`, mq.User("evt-expires", day)))

	if p := decides(pc, "approve", ""); p.Code != 0 || userProperty(p, "matched") != "0" { // of nobody yet
		t.Errorf("who has not asked: %v", p)
	}
	a := s.person(alice, "pc")
	a.Subscribe("$me/sub/#", 1)
	a.Subscribe(bobsPresence, 1)
	if states, shown := hears(t, a, 2); !slices.Equal(states, []string{"active"}) || len(shown) != 1 {
		t.Errorf("then she asks, is told %v, shown %v", states, shown)
	}
	for range 2 {
		if p := decides(pc, "approve", ""); p.Code != 0 || userProperty(p, "matched") != "1" || userProperty(p, "rule") != "r-1" {
			t.Errorf("again: %v", p)
		}
	}
	a.Quiet()
	sid := stateOf(t, s, alice).SID
	decides(pc, "withdraw", "")
	takes(a, 1)
	a.Disconnect()
	a.Closed()
	s.advance(time.Hour) // the request has run out, undecided
	if l := s.watchersOf(t, bob); l.String() != "identified waiting timeout" {
		t.Errorf("bob sees %v", &l)
	}
	if p := decides(pc, "approve", ""); p.Code != 0 || userProperty(p, "matched") != "1" {
		t.Errorf("who is gone is approved: %v", p)
	}
	if is := stateOf(t, s, alice).words(); is != "terminated timeout" { // it does not revive
		t.Errorf("that tells her %s", is)
	}
	a = s.person(alice, "pc")
	a.Subscribe(bobsPresence, 1)
	if _, shown := hears(t, a, 1); len(shown) != 1 || !contains(string(shown[0].Payload), `"open"`) {
		t.Errorf("she asks again and is shown %v", shown)
	}
	for _, id := range []string{sid, "s-aaaaaaaaaaaaaaaa"} { // what was, and what never was
		for _, verb := range []string{"approve", "deny", "withdraw", "revoke"} {
			if text := refusedBy(t, pc, mq.Publish{Topic: "$ctl/" + verb, Payload: []byte(`{"kind":"presence","sid":"` + id + `"}`)}, 0x83); !contains(text, "no-such-subscription") {
				t.Errorf("%s %s: told %q", verb, id, text)
			}
		}
	}
	a.Quiet()
}

// Two devices of bob's approve and block at the same time. Whoever names the policy that
// they have seen is refused if another was first; who names none decides, and the last one
// in the log has it: the policy says one thing about her, and her subscription is that.
func TestApproveAndBlockRace(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, phone, a := s.person(bob, "pc"), s.person(bob, "phone"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, undecided)
	a.Subscribe(bobsPresence, 1)
	race := func(approve, deny string) (first, second *mq.Packet) {
		one, two := decision("approve", approve), decision("deny", deny)
		one.ID, two.ID = pc.ID(), phone.ID()
		pc.Send(one)
		phone.Send(two)
		return pc.Await(mq.PUBACK, one.ID), phone.Await(mq.PUBACK, two.ID)
	}
	says := func() (state, tag string) {
		var p struct {
			Rules []struct{ Then struct{ Handling string } }
		}
		got := s.ask(bob, "POST", "/v1/presence/subscriptions/approve", `{"watcher":"pres:carol@example.com"}`) // to learn the tag
		var is struct{ ETag string }
		if err := json.Unmarshal([]byte(got.body), &is); err != nil || got.status != 200 {
			t.Fatalf("%+v: %v", got, err)
		}
		if err := json.Unmarshal([]byte(s.fetch(bob, "/v1/me/policy/presence", "").body), &p); err != nil || len(p.Rules) > 2 {
			t.Fatalf("%+v, %v: rules about two", p, err)
		}
		for _, r := range p.Rules[:len(p.Rules)-1] {
			state = map[string]string{"allow": "active", "block": "pending"}[r.Then.Handling]
		}
		return state, is.ETag
	}
	for range 8 {
		if one, two := race("", `,"style":"ignore"`); one.Code != 0 || two.Code != 0 {
			t.Fatalf("answered %v and %v", one, two)
		}
		state, tag := says()
		if is := stateOf(t, s, alice).State; is != state {
			t.Errorf("the policy has it %s, and her subscription is %s", state, is)
		}
		match := fmt.Sprintf(`,"ifMatch":%q`, tag)
		one, two := race(match, match+`,"style":"ignore"`)
		won, lost := one, two
		if one.Code != 0 {
			won, lost = two, one
		}
		if won.Code != 0 || lost.Code != 0x83 || !contains(lost.Properties.Text(mq.PropReasonString), "stale-etag") {
			t.Errorf("of one version: answered %v and %v", one, two)
		}
		want := "active"
		if won == two {
			want = "pending"
		}
		if is := stateOf(t, s, alice).State; is != want {
			t.Errorf("%s won, and her subscription is %s", want, is)
		}
		if got := s.ask(bob, "POST", "/v1/presence/subscriptions/deny", `{"watcher":"pres:alice@example.net"`+match+`}`); got.status != 412 {
			t.Errorf("by HTTP, of an older version: %+v", got)
		}
	}
}

// Who floods others with requests is stopped, and what is told is the same to the octet of
// bob, who has not decided, of carol, who ignores all, and of an address that nobody has:
// requests of one that wait, requests to one address, and repeats. Nobody else is held up.
func TestRequestsFlood(t *testing.T) {
	t.Parallel()
	rows := "v: 1\ndefault: {watch.default: confirm, watch.pending: 4, watch.pendingPerAddress: 3, watch.perMinute: 5, watch.perWatcher: 6}\n"
	s := kinds(t, "2026-03-09T12:00:00Z", "--limits", limitsFile(t, rows))
	s.person(bob, "pc").Publish("$me/policy/presence", 1, undecided)
	s.person(carol, "pc").Publish("$me/policy/presence", 1, `{"v":1,"rules":[{"id":"i","if":{"identity":[{"many":{}}]},"then":{"handling":"block","style":"ignore"}}]}`)
	addresses := []string{bobsPresence, carolsPresence, "presence/example.com/nobody"}
	told := func(c *mq.Client, topic string) string {
		ack := c.TrySubscribe(nil, mq.Filter{Filter: topic, QoS: 1})
		if ack.Codes[0] < 0x80 {
			return fmt.Sprintf("%#02x, %d properties", ack.Codes[0], len(ack.Properties))
		}
		return fmt.Sprintf("%#02x %s, %d properties", ack.Codes[0], ack.Properties.Text(mq.PropReasonString), len(ack.Properties))
	}
	// each asks somebody of their own for each address, so that no bound mixes with another
	alike := func(what string, ask func(topic string) []string, want string) {
		t.Helper()
		first := ask(addresses[0])
		if last := first[len(first)-1]; !strings.HasPrefix(last, "0x97") || !contains(last, want) || slices.ContainsFunc(first[:len(first)-1], func(s string) bool { return !strings.HasPrefix(s, "0x01") }) {
			t.Errorf("%s: %q", what, first)
		}
		for _, topic := range addresses[1:] {
			if got := ask(topic); !slices.Equal(got, first) {
				t.Errorf("%s: of %s told %q, of %s %q", what, topic, got, addresses[0], first)
			}
		}
	}
	alike("repeats", func(topic string) (all []string) {
		c := s.person(alice, "repeats")
		for range 6 {
			all = append(all, told(c, topic))
		}
		all = append(all, told(c, topic))
		c.Unsubscribe(topic)
		c.Disconnect()
		c.Closed()
		return all[1:]
	}, "rate")
	s.advance(2 * time.Minute)
	alike("requests of one", func(topic string) (all []string) {
		c := s.person(mallory, "asks")
		for i := range 4 {
			all = append(all, told(c, fmt.Sprint("presence/example.com/p", i)))
		}
		all = append(all, told(c, topic))
		c.Disconnect()
		c.Closed()
		s.advance(40 * 24 * time.Hour)
		return all
	}, "requests of yours wait")
	alike("requests to one address", func(topic string) (all []string) {
		for _, who := range []string{alice, boss, zoe, press} {
			all = append(all, told(s.person(who, "asks"), topic))
		}
		return all
	}, "as many requests as are possible")
	if is := told(s.person(cal, "asks"), "presence/example.com/other"); !strings.HasPrefix(is, "0x01") {
		t.Errorf("cal, who asks one, is told %s", is)
	}
}
