package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// to is a policy that shows all of a kind to these people, and says to nobody else
// that there is something.
func to(who ...string) string {
	var identity []string
	for _, w := range who {
		identity = append(identity, `{"one":"pres:`+w+`"}`)
	}
	return strings.Replace(showAll, `{"many":{}}`, strings.Join(identity, ","), 1)
}

// One list of subscriptions has who is at the keyboard, and who is in the building:
// kinds of one facility, each with its own permission.
func TestS30NetAndPhysicalPresence(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	b.Publish("$me/policy/location", 1, `{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"pres:alice@example.net"}]},"then":{"handling":"allow"},"show":{"radius":0}}]}`)
	const place = "location/example.com/bob"
	a.SubscribeTo(nil, mq.Filter{Filter: bobsPresence, QoS: 1}, mq.Filter{Filter: place, QoS: 1})
	a.Receive()
	a.Receive()
	b.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	b.PublishMessage(retained(place, `{"type":"Feature","geometry":{"type":"Point","coordinates":[-3.7038,40.4168]},"properties":{}}`))
	got := map[string]string{}
	for _, p := range drain(a) {
		got[p.Topic] = string(p.Payload)
	}
	if !contains(got[bobsPresence], `"open"`) || !contains(got[place], "40.4168") {
		t.Errorf("alice is shown %v", got)
	}
	b.Publish("$me/policy/location", 1, "")
	if p := latest(t, a, place); contains(string(p.Payload), "40.4") {
		t.Errorf("the permission for the place is withdrawn, and she is shown %s", p.Payload)
	}
	b.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
	if p := latest(t, a, bobsPresence); !contains(string(p.Payload), `"closed"`) {
		t.Errorf("the other permission stands, and she is shown %s", p.Payload)
	}
}

// What bob says is his presence is shown as he says it, though the server can see
// that he is not connected.
func TestS38WhateverISay(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	a.Subscribe(bobsPresence, 1)
	b.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"at my desk"}}`, mq.User("evt-expires", "7200")))
	b.Disconnect()
	b.Closed()
	said := latest(t, a, bobsPresence)
	if !contains(string(said.Payload), `"open"`) || !contains(string(said.Payload), "at my desk") {
		t.Errorf("alice is shown %s", said.Payload)
	}
	s.advance(time.Hour)
	a.Quiet()
	if got := s.fetch(alice, "/v1/presence/example.com/bob", ""); got.body != string(said.Payload) {
		t.Errorf("an hour later: %+v, want the same", got)
	}
}

// A contact with an IP address is shown as it was published; without one no address
// appears in anything that a watcher is sent.
func TestS40WhoWishesToTellAnAddress(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	a.Subscribe(bobsPresence, 1)
	b.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	for _, p := range drain(a) {
		if all := fmt.Sprintf("%s %s %v", p.Topic, p.Payload, p.Properties); contains(all, "127.0.0.1") {
			t.Errorf("the server adds an address: %s", all)
		}
	}
	b.PublishMessage(retained(bobsPresence, `{"tuples":[{"id":"t","basic":"open","contact":{"uri":"sip:bob@203.0.113.7"}}]}`))
	if p := latest(t, a, bobsPresence); !contains(string(p.Payload), `"sip:bob@203.0.113.7"`) {
		t.Errorf("the contact that he tells: %s", p.Payload)
	}
}

// Somebody who speaks for two addresses has two: rules, watchers and state of the
// one have nothing to do with those of the other.
func TestS43AddressIsNoAccount(t *testing.T) {
	t.Parallel()
	const roberts = "presence/example.com/robert"
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, r := s.person(bob, "pc"), s.person(robert, "pc")
	a, z := s.person(alice, "pc"), s.person(zoe, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	r.Publish("$me/policy/presence", 1, strings.TrimSuffix(to(zoe), "}")+`,"delegates":[{"one":"pres:bob@example.com","sources":["*"]}]}`)
	for _, c := range []*mq.Client{a, z} {
		c.SubscribeTo(nil, mq.Filter{Filter: bobsPresence, QoS: 1}, mq.Filter{Filter: roberts, QoS: 1})
		c.Receive()
		c.Receive()
	}
	b.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"bob"}}`))
	b.PublishMessage(retained(roberts+"/pc", `{"basic":"open","notes":{"en":"robert"}}`))
	for who, want := range map[*mq.Client]string{a: bobsPresence, z: roberts} {
		got := drain(who)
		if len(got) != 1 || got[0].Topic != want {
			t.Errorf("got %v, want one of %s", got, want)
		}
	}
}

// Who looks at all addresses of a domain is shown those that permit it; that there
// are others she is not told, by subscription or list.
func TestS44OtherAddressesStayUnknown(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, r, a := s.person(bob, "pc"), s.person(robert, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	r.Publish("$me/policy/presence", 1, to(zoe))
	for topic, c := range map[string]*mq.Client{bobsPresence: b, "presence/example.com/robert": r} {
		c.PublishMessage(retained(topic, `{"basic":"open"}`))
	}
	a.Subscribe("presence/example.com/+", 1)
	if got := a.Receive(); got.Topic != bobsPresence {
		t.Errorf("by wildcard: %v, want bob's", got)
	}
	a.Quiet()
	if list := s.fetch(alice, "/v1/presence/example.com/+", ""); !contains(list.body, "bob") || contains(list.body, "robert") {
		t.Errorf("by HTTP: %+v, want bob's and not robert's", list)
	}
	r.Publish("$me/policy/presence", 1, to(alice))
	if p := latest(t, a, "presence/example.com/robert"); !contains(string(p.Payload), `"open"`) {
		t.Errorf("robert grants: %s", p.Payload)
	}
}

// An address has one topic. Policies may write it with any of its schemes and in
// capitals; of topics every other spelling is refused, so that two spellings never
// are two subscriptions.
func TestS45OneSpelling(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	a.Subscribe(bobsPresence, 1)
	a.Receive()
	for _, uri := range []string{"pres:alice@example.net", "im:alice@example.net", "pres:Alice@EXAMPLE.net", "pres:%61lice@example.net"} {
		b.Publish("$me/policy/presence", 1, strings.Replace(to(alice), "pres:alice@example.net", uri, 1))
		if p := latest(t, a, bobsPresence); !contains(string(p.Payload), `"open"`) {
			t.Errorf("as %s alice is shown %s", uri, p.Payload)
		}
		b.Publish("$me/policy/presence", 1, "")
		if p := latest(t, a, bobsPresence); !isNeutral(p, bob) {
			t.Errorf("without a policy alice is shown %s", p.Payload)
		}
	}
	for _, topic := range []string{"presence/EXAMPLE.com/bob", "presence/example.com/Bob", "presence/example.com/%62ob", "presence/example.com./bob", "presence/bücher.example/bob"} {
		if ack := a.TrySubscribe(nil, mq.Filter{Filter: topic, QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != 0x8F {
			t.Errorf("subscribe to %s: %v, want code 0x8f", topic, ack)
		}
	}
	one, other := s.fetch(alice, "/v1/presence/example.com/bob", ""), s.fetch(alice, "/v1/presence/EXAMPLE.com/Bob", "")
	if one.status != 200 || one != other {
		t.Errorf("in capitals: %+v, otherwise %+v", other, one)
	}
}

// When bob says that somebody no longer publishes for him, what they published is
// gone within the second.
func TestR2_3_4DelegateIsDismissed(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		s := kinds(t, "2026-03-09T12:00:00Z")
		b, svc, a := s.person(bob, "pc"), s.person(cal, "cron"), s.person(alice, "pc")
		with := strings.TrimSuffix(to(alice), "}") + `,"delegates":[{"one":"pres:calendar-svc@example.com","sources":["calendar"]}]}`
		b.Publish("$me/policy/presence", 1, with)
		a.Subscribe(bobsPresence, 1)
		svc.PublishMessage(retained(bobsPresence+"/calendar", `{"persons":[{"id":"cal","activities":["meeting"]}]}`))
		if p := latest(t, a, bobsPresence); !contains(string(p.Payload), "meeting") {
			t.Fatalf("alice is shown %s", p.Payload)
		}
		try.begin()
		b.Publish("$me/policy/presence", 1, to(alice))
		if p := try.arrives(a); p == nil || contains(string(p.Payload), "meeting") {
			t.Errorf("the delegate is dismissed: %v", p)
		}
		refusedBy(t, svc, retained(bobsPresence+"/calendar", `{"basic":"open"}`), 0x87)
	})
}

// While bob is away his rules decide: whom he permits gets, by subscription and by
// fetch, what he said last; whom he does not, nothing; and when he is back, who
// subscribed meanwhile is told. Also R3.2.1, R3.2.2.
func TestR2_3_7DecidedWhileAway(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b := s.person(bob, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	b.PublishMessage(retained(bobsPresence, `{"basic":"closed","notes":{"en":"on holiday"}}`, mq.User("evt-expires", "86400")))
	b.Disconnect()
	b.Closed()
	a, z := s.person(alice, "pc"), s.person(zoe, "pc")
	for _, c := range []*mq.Client{a, z} {
		c.Subscribe(bobsPresence, 1)
	}
	p, q := a.Receive(), z.Receive()
	if !contains(string(p.Payload), "on holiday") || !isNeutral(q, bob) {
		t.Errorf("alice is shown %s, zoe %s", p.Payload, q.Payload)
	}
	for who, want := range map[string]*mq.Packet{alice: p, zoe: q} {
		if got := s.fetch(who, "/v1/presence/example.com/bob", ""); got.status != 200 || got.body != string(want.Payload) {
			t.Errorf("%s fetches %+v", who, got)
		}
	}
	b = s.person(bob, "pc")
	b.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	if p := latest(t, a, bobsPresence); !contains(string(p.Payload), `"open"`) {
		t.Errorf("bob is back: %s", p.Payload)
	}
	z.Quiet()
}

// Of a hundred watchers each is told of a change once, but for those whom the rules
// keep it from.
func TestR3_2_3EachIsTold(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b := s.person(bob, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	var may, not []*mq.Client
	for i := range 100 {
		may = append(may, s.person(alice, fmt.Sprint("device ", i)))
	}
	for i := range 10 {
		not = append(not, s.person(zoe, fmt.Sprint("device ", i)))
	}
	for _, c := range slices.Concat(may, not) {
		c.Subscribe(bobsPresence, 1)
		c.Receive()
	}
	b.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	for i, c := range may {
		if got := drain(c); len(got) != 1 || !contains(string(got[0].Payload), `"open"`) {
			t.Errorf("watcher %d is sent %v", i, got)
		}
	}
	for _, c := range not {
		c.Quiet()
	}
}

// What is shown says until when it may be believed, and a tag by which a copy can be
// asked for again: as soon as it changes, the tag is another. Also R3.3.2.
func TestR3_3_1CopiesSayHowLong(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/presence", 1, strings.Replace(to(alice), `]},"then"`,
		`],"validity":[{"from":"2026-03-09T00:00:00Z","until":"2026-03-09T12:30:00Z"}]},"then"`, 1))
	b.PublishMessage(retained(bobsPresence, `{"basic":"open"}`, mq.User("evt-expires", "7200")))
	a.Subscribe(bobsPresence, 1)
	p := a.Receive()
	if life, ok := p.Properties.Number(mq.PropMessageExpiry); !ok || life > 1800 {
		t.Errorf("it says that it may be believed for %d s, and alice is shown it for half an hour: %v", life, p.Properties)
	}
	was := s.fetch(alice, "/v1/presence/example.com/bob", "")
	if again := s.fetch(alice, "/v1/presence/example.com/bob", was.etag); again.status != 304 {
		t.Errorf("unchanged: %+v", again)
	}
	b.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
	if is := s.fetch(alice, "/v1/presence/example.com/bob", was.etag); is.status != 200 || is.etag == was.etag {
		t.Errorf("changed: %+v", is)
	}
}

// A copy, and its tag, get nobody around the rules: when alice may no longer see it,
// her tag is answered with what she may see, and carol's question with hers.
func TestR3_3_3CopiesKeepToTheRules(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	const path = "/v1/presence/example.com/bob"
	b := s.person(bob, "pc")
	b.Publish("$me/policy/presence", 1, to(alice))
	b.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"for alice"}}`))
	hers := s.fetch(alice, path, "")
	if !contains(hers.body, "for alice") {
		t.Fatalf("alice fetches %+v", hers)
	}
	if got := s.fetch(carol, path, hers.etag); got.status != 200 || contains(got.body, "for alice") || contains(got.body, `"open"`) {
		t.Errorf("carol, with alice's tag: %+v", got)
	}
	b.Publish("$me/policy/presence", 1, to(zoe))
	after := s.fetch(alice, path, hers.etag)
	if after.status != 200 || contains(after.body, "for alice") || after.etag == hers.etag {
		t.Errorf("alice, who may no longer see it: %+v", after)
	}
	if got := s.fetch(carol, path, after.etag); got.status != 304 {
		t.Errorf("carol is shown what alice is shown: %+v", got)
	}
}
