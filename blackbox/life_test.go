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

// A subscriptionState is what a watcher is told of its subscription.
type subscriptionState struct {
	SID, State, Reason string
	Rem                *int
}

const bobsSubscription = "$me/sub/" + bobsPresence

// hears returns what a client was told of its subscriptions, in order, and what it was
// shown beside: so many at least, and what else has come with them.
func hears(t *testing.T, c *mq.Client, least int) (states []string, shown []*mq.Packet) {
	t.Helper()
	for _, p := range takes(c, least) {
		if !strings.HasPrefix(p.Topic, "$me/sub/") {
			shown = append(shown, p)
			continue
		}
		states = append(states, readTold(t, string(p.Payload)).words())
	}
	return states, shown
}

// takes receives so many, and what else has come with them.
func takes(c *mq.Client, least int) (all []*mq.Packet) {
	for range least {
		p := c.Receive()
		c.Acknowledge(p)
		all = append(all, p)
	}
	return append(all, drain(c)...)
}

func readTold(t *testing.T, text string) (s subscriptionState) {
	t.Helper()
	if text == "" {
		return subscriptionState{State: "none"}
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

func (s subscriptionState) words() string {
	words := strings.TrimSpace(s.State + " " + s.Reason)
	if s.Rem != nil {
		words += fmt.Sprintf(" for %d", *s.Rem)
	}
	return words
}

// stateOf is what somebody is told of their subscription to bob who subscribes to that
// now.
func stateOf(t *testing.T, s *server, who string) subscriptionState {
	t.Helper()
	c := s.person(who, "asks")
	c.Subscribe(bobsSubscription, 1)
	p := c.Receive()
	c.Disconnect()
	c.Closed()
	return readTold(t, string(p.Payload))
}

// about is a policy with one rule about alice.
func about(handling, more string) string {
	return `{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"pres:alice@example.net"}]},"then":{"handling":"` + handling + `"` + more + `},"show":{"services":["*"],"note":true}}]}`
}

const undecided = `{"v":1,"defaults":{"handling":"confirm"}}`

// Refused and told, politely, or without an answer: as bob wants it. Also R5.1.5,
// R5.1.13.
func TestS20RefusalIsTheOwnersChoice(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		style, policy string
		code          byte
		state         []string
		documents     int
	}{
		{"refuse", about("block", `,"style":"refuse"`), 0x87, nil, 0},
		{"polite", about("polite-block", ""), 1, []string{"active"}, 1},
		{"ignore", about("block", `,"style":"ignore"`), 1, []string{"pending"}, 0},
	} {
		t.Run(x.style, func(t *testing.T) {
			t.Parallel()
			s := kinds(t, "2026-03-09T12:00:00Z")
			pc, a := s.person(bob, "pc"), s.person(alice, "pc")
			pc.Publish("$me/policy/presence", 1, x.policy)
			pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
			a.Subscribe("$me/sub/#", 1)
			if ack := a.TrySubscribe(nil, mq.Filter{Filter: bobsPresence, QoS: 1}); ack.Codes[0] != x.code {
				t.Errorf("answered %v, want %#02x", ack, x.code)
			}
			states, shown := hears(t, a, len(x.state)+x.documents)
			if x.code == 0x87 {
				states = nil // it may be told what it knows
			}
			if !slices.Equal(states, x.state) || len(shown) != x.documents || len(shown) > 0 && !isNeutral(shown[0], bob) {
				t.Errorf("told %v, shown %v", states, shown)
			}
			pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
			a.Quiet()
			if states, shown := hears(t, a, 0); len(states)+len(shown) > 0 {
				t.Errorf("then told %v, shown %v", states, shown)
			}
		})
	}
}

// A subscription has the end that was asked for, if that is granted, and says how long
// it still has; asked for again it is refreshed; without that it ends.
func TestS23SubscriptionsEnd(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	a.Subscribe("$me/sub/#", 1)
	ask := func(seconds string) *mq.Packet {
		return a.TrySubscribe(mq.Properties{mq.User("evt-expires", seconds)}, mq.Filter{Filter: bobsPresence, QoS: 1})
	}
	ask("60")
	if states, _ := hears(t, a, 2); !slices.Equal(states, []string{"active for 60"}) {
		t.Errorf("told %v", states)
	}
	s.advance(50 * time.Second)
	ask("60")
	s.advance(50 * time.Second)
	if is := stateOf(t, s, alice).words(); is != "active for 10" {
		t.Errorf("refreshed, and 50 seconds later: %s", is)
	}
	takes(a, 1)
	s.advance(10 * time.Second)
	if states, _ := hears(t, a, 1); !slices.Equal(states, []string{"terminated timeout"}) {
		t.Errorf("told %v", states)
	}
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Quiet()
	if ack := ask("5"); ack.Codes[0] != 0x83 || !strings.Contains(ack.Properties.Text(mq.PropReasonString), "min-expires=30") {
		t.Errorf("five seconds: %v", ack)
	}
	ask("315360000")
	if is := stateOf(t, s, alice).words(); is != "active for 2592000" {
		t.Errorf("ten years: %s", is)
	}
}

// Bob lets alice in without a word: until she is shown something she cannot tell.
func TestS24SilentApproval(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, undecided)
	a.Subscribe("$me/sub/#", 1)
	a.Subscribe(bobsPresence, 1)
	if states, shown := hears(t, a, 1); !slices.Equal(states, []string{"pending"}) || len(shown) > 0 {
		t.Errorf("told %v, shown %v", states, shown)
	}
	pc.Publish("$ctl/approve", 1, `{"kind":"presence","watcher":"pres:alice@example.net","silent":true}`)
	a.Quiet()
	if is := stateOf(t, s, alice).words(); is != "pending" {
		t.Errorf("asked, it says %s", is)
	}
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	if _, shown := hears(t, a, 2); len(shown) != 1 || !contains(string(shown[0].Payload), `"open"`) {
		t.Errorf("shown %v", shown)
	}
	if is := stateOf(t, s, alice).words(); is != "active" {
		t.Errorf("then it says %s", is)
	}
}

// Whoever is politely blocked, whoever comes outside the hours, and whoever watches
// somebody who is not there is answered alike, to the byte, for an hour. Also R5.1.15.
func TestS25DeniedLooksLikeNobodyHome(t *testing.T) {
	t.Parallel()
	closed := strings.Replace(about("allow", ""), `]},"then"`, `],"weekly":{"tz":"UTC","windows":[{"days":["sun"],"start":"08:00","end":"17:00"}]}},"then"`, 1)
	traces := map[string]string{}
	for name, policy := range map[string]string{"polite": about("polite-block", ""), "window": closed, "away": about("allow", ""), "nobody": ""} {
		s := kinds(t, "2026-03-09T12:00:00Z")
		pc, a := s.person(bob, "pc"), s.person(alice, "pc")
		if policy != "" {
			pc.Publish("$me/policy/presence", 1, policy)
		}
		var trace strings.Builder
		note := func(least int) {
			for _, p := range takes(a, least) {
				p.ID = 0
				if strings.HasPrefix(p.Topic, "$me/") {
					is := readTold(t, string(p.Payload))
					fmt.Fprintf(&trace, "%d ", len(is.SID))
					p.Payload = []byte(strings.Replace(string(p.Payload), is.SID, "-", 1))
				}
				fmt.Fprintf(&trace, "%s %x %d %v %v\n", p.Topic, p.Payload, p.Flags, p.Properties, p.Retain())
			}
		}
		a.Subscribe("$me/sub/#", 1)
		for i := range 4 {
			ack := a.TrySubscribe(nil, mq.Filter{Filter: bobsPresence, QoS: 1})
			fmt.Fprintf(&trace, "%v %d\n", ack.Codes, len(ack.Properties))
			note(1 + max(0, 1-i)) // the document each time, the state once
			if policy != "" && name != "away" {
				pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
				note(0)
			}
			s.advance(15 * time.Minute)
			note(0)
		}
		traces[name] = trace.String()
	}
	for name, trace := range traces {
		if trace != traces["nobody"] {
			t.Errorf("%s looks like\n%s\nnobody like\n%s", name, trace, traces["nobody"])
		}
	}
}

// Who may not see is told so, or shown nothing, or has no answer yet: by fetching as by
// subscribing.
func TestR2_3_1FetchIsControlled(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	for policy, want := range map[string]int{about("block", ""): 403, about("polite-block", ""): 200, about("confirm", ""): 202, about("allow", ""): 200} {
		pc.Publish("$me/policy/presence", 1, policy)
		is := s.fetch(alice, "/v1/presence/example.com/bob", "")
		if is.status != want || contains(is.body, `"basic":"open"`) != (policy == about("allow", "")) {
			t.Errorf("%s: %+v, want %d", policy, is, want)
		}
	}
}

// People of one domain ask those of another so often in an hour, whoever of them does, and
// whether there is somebody or not; it is so after a restart, and others may ask.
func TestDomainAsksAnother(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z", "--limits", limitsFile(t, "v: 1\ndefault: {watch.default: confirm, watch.perDomainPerHour: 2}\n"))
	asks := func(who, local string) (code byte, reason string) {
		t.Helper()
		c := s.person(who, "asks for "+local)
		ack := c.TrySubscribe(nil, mq.Filter{Filter: "presence/example.com/" + local, QoS: 1})
		return ack.Codes[0], ack.Properties.Text(mq.PropReasonString)
	}
	granted := func(who, local string) {
		t.Helper()
		if code, reason := asks(who, local); code != 1 {
			t.Errorf("%s asks for %s: %#02x %q", who, local, code, reason)
		}
	}
	granted(alice, "bob")
	granted(zoe, "nobody")
	s.restart()
	for who, local := range map[string]string{alice: "carol", zoe: "none"} {
		if code, reason := asks(who, local); code != 0x97 || !contains(reason, "rate: your domain has asked for as much of others as it may in an hour, 2: the next in ") {
			t.Errorf("%s asks for %s: %#02x %q", who, local, code, reason)
		}
	}
	granted(carol, "bob")
	if got := s.metric("bellwire_limit_refused_total", `limit="watch.pending"`); got != 2 {
		t.Errorf("%v are counted, want 2", got)
	}
	s.advance(31 * time.Minute)
	granted(zoe, "none")
}

// Nobody can ask for, end, or approve what is another's.
func TestR5_1_6NobodySubscribesForAnother(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, m := s.person(bob, "pc"), s.person(alice, "pc"), s.person(mallory, "pc")
	pc.Publish("$me/policy/presence", 1, undecided)
	m.Subscribe("$me/sub/#", 1)
	a.Subscribe("$me/sub/#", 1)
	a.Subscribe(bobsPresence, 1)
	sid := stateOf(t, s, alice).SID
	takes(a, 1)
	m.Publish("$ctl/approve", 1, `{"kind":"presence","watcher":"pres:alice@example.net"}`) // to see mallory
	if text := refusedBy(t, m, mq.Publish{Topic: "$ctl/revoke", Payload: []byte(`{"kind":"presence","sid":"` + sid + `"}`)}, 0x83); !strings.Contains(text, "no-such-subscription") {
		t.Errorf("told %q", text)
	}
	if is := stateOf(t, s, mallory).words(); is != "none" {
		t.Errorf("mallory subscribes: %s", is)
	}
	a.Quiet()
	m.Quiet()
	if is := stateOf(t, s, alice).words(); is != "pending" {
		t.Errorf("alice's is %s", is)
	}
}

// What a watcher has ended is over: nothing more is sent. Also R5.1.8.
func TestR5_1_7WatcherEnds(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, m := s.person(bob, "pc"), s.person(alice, "pc"), s.person(mallory, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	a.Subscribe(bobsPresence, 1)
	takes(a, 1)
	m.Unsubscribe(bobsPresence)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	if _, shown := hears(t, a, 1); len(shown) != 1 {
		t.Errorf("mallory's UNSUBSCRIBE: alice is shown %v", shown)
	}
	a.Unsubscribe(bobsPresence)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
	a.Quiet()
	if is := stateOf(t, s, alice).words(); is != "terminated" {
		t.Errorf("it is %s", is)
	}
	a.TrySubscribe(mq.Properties{mq.User("evt-expires", "0")}, mq.Filter{Filter: bobsPresence, QoS: 1})
	if _, shown := hears(t, a, 1); len(shown) != 1 {
		t.Errorf("asked once it is shown %v", shown)
	}
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Quiet()
}

// Bob ends a subscription: within a second nothing more is sent, nothing that waited is,
// and alice is told, also when she comes back later. Also R5.1.16, R5.1.10.
func TestR5_1_9WatcherIsTold(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		s := restlessKinds(t, "2026-03-09T12:00:00Z")
		pc, live := s.person(bob, "pc"), s.person(alice, "pc")
		pc.Publish("$me/policy/presence", 1, showAll)
		m := as(alice, mq.Connect{ClientID: "alice/phone", Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 86400)}})
		phone := s.open(v5, m)
		for _, c := range []*mq.Client{live, phone} {
			c.Subscribe(bobsSubscription, 1)
			takes(c, 1)
			c.Subscribe(bobsPresence, 1)
		}
		takes(live, 2)  // the document, and that it is active
		takes(phone, 1) // it is the same subscription
		phone.Disconnect()
		phone.Closed()
		for i := range 50 {
			pc.PublishMessage(retained(bobsPresence, fmt.Sprintf(`{"basic":"open","notes":{"en":"%d"}}`, i)))
		}
		latest(t, live, bobsPresence)
		try.begin()
		pc.Publish("$ctl/revoke", 1, `{"kind":"presence","watcher":"pres:alice@example.net"}`)
		p := try.arrives(live)
		if p == nil || readTold(t, string(p.Payload)).words() != "terminated deactivated" {
			t.Fatalf("in time came %v", p)
		}
		live.Acknowledge(p)
		pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
		live.Quiet()
		phone = s.open(v5, m)
		states, shown := hears(t, phone, 1)
		if !slices.Equal(states, []string{"terminated deactivated"}) || len(shown) > 0 {
			t.Errorf("back later she is told %v, and shown %v", states, shown)
		}
		if is := stateOf(t, s, alice).words(); is != "terminated deactivated" {
			t.Errorf("asked, it says %s", is)
		}
	})
}

// Who approves is answered; who waited is told, and shown how things are.
func TestApprovalIsAnswered(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, undecided)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Subscribe("$me/sub/#", 1)
	a.Subscribe(bobsPresence, 1)
	takes(a, 1)
	pc.Subscribe("$me/rsp", 1)
	pc.Send(mq.Publish{
		Topic: "$ctl/approve", QoS: 1, ID: pc.ID(), Payload: []byte(`{"id":"1","kind":"presence","watcher":"pres:alice@example.net"}`),
		Properties: mq.Properties{mq.Text(mq.PropResponseTopic, "$me/rsp"), mq.Text(mq.PropCorrelationData, "x")},
	})
	if p := pc.Expect(mq.PUBLISH); p.Topic != "$me/rsp" || !contains(string(p.Payload), `"matched":1`) || p.Properties.Text(mq.PropCorrelationData) != "x" {
		t.Errorf("the answer is %v %s", p, p.Payload)
	}
	pc.Expect(mq.PUBACK)
	states, shown := hears(t, a, 2)
	if !slices.Equal(states, []string{"active"}) || len(shown) != 1 || !contains(string(shown[0].Payload), `"open"`) {
		t.Errorf("told %v, shown %v", states, shown)
	}
}

// What is granted is told with SUBACK, but not to a client that has declined problem
// information: it has User Properties in no other packets than 5.0 3.1.2.11.7 says.
func TestGrantedIsTold(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	for most, declines := range map[int]bool{2: false, 0: true} {
		var with mq.Properties
		if declines {
			with = mq.Properties{mq.Number(mq.PropRequestProblemInfo, 0)}
		}
		a := s.person(alice, fmt.Sprint("pc", most), with...)
		ack := a.TrySubscribe(mq.Properties{mq.User("evt-expires", "60")}, mq.Filter{Filter: bobsPresence, QoS: 1})
		if ack.Codes[0] != 1 || len(ack.Properties) != most {
			t.Errorf("declines: %v, answered %v with % x, want %d properties", declines, ack, ack.Raw, most)
		}
	}
}
