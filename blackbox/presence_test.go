package blackbox

import (
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// One address, many devices: what they say together is one document. A device
// that dies is out of it within its keep-alive and fifteen seconds. Also R3.2.4,
// R3.2.5.
func TestS4OneAddressManyDevices(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	a.Subscribe(bobsPresence, 1)
	if first := a.Receive(); !isNeutral(first, bob) {
		t.Errorf("before bob says anything: %s", first.Payload)
	}
	m := as(bob, clean("phone"))
	m.KeepAlive = 1
	phone := mq.Dial(t, s.ready.MQTT, v5)
	// It lives for a second and a half, and what it says comes with its CONNECT.
	phone.Send(m, mq.Publish{Topic: bobsPresence + "/phone", QoS: 1, ID: 1, Payload: []byte(`{"basic":"open"}`)})
	phone.Expect(mq.CONNACK)
	phone.ExpectID(mq.PUBACK, 1)
	pc.Publish(bobsPresence+"/pc", 1, `{"basic":"closed"}`)
	d := readPresence(t, latest(t, a, bobsPresence))
	if got := d.tuples(); d.Basic != "open" || !slices.Equal(got, []string{"open", "closed"}) {
		t.Errorf("together: summary %s, tuples %v, want open and both", d.Basic, got)
	}
	phone.Closed() // it sends nothing: its keep-alive ends it
	until(t, "its end is ordered", patience, func() bool { return s.metric("bellwire_sessions") == 2 })
	a.Quiet()
	s.advance(14 * time.Second)
	a.Quiet()
	s.advance(2 * time.Second)
	d = readPresence(t, latest(t, a, bobsPresence))
	if got := d.tuples(); d.Basic != "closed" || !slices.Equal(got, []string{"closed"}) {
		t.Errorf("the phone has died: summary %s, tuples %v, want closed and the pc's", d.Basic, got)
	}
}

// A device is a presentity like any other; a person in its document is accepted
// and not needed.
func TestS6DeviceIsAPresentity(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	d, a := s.person(press, "plc"), s.person(alice, "pc")
	d.Publish("$me/policy/presence", 1, showAll)
	a.Subscribe("presence/plant.example.com/press12", 1)
	d.Publish("presence/plant.example.com/press12", 1, `{"basic":"open","automata":true}`)
	if p := latest(t, a, "presence/plant.example.com/press12"); !contains(string(p.Payload), `"automata":true`) {
		t.Errorf("got %s, want automata in it", p.Payload)
	}
	d.Publish("presence/plant.example.com/press12", 1, `{"basic":"open","automata":true,"persons":[{"id":"fitter","activities":["meeting"]}]}`)
	if p := latest(t, a, "presence/plant.example.com/press12"); !contains(string(p.Payload), `"meeting"`) {
		t.Errorf("got %s, want the person in it", p.Payload)
	}
}

// Between eight and five only: nothing at 12:59:59Z, the state at 13:00:00Z,
// the neutral document at 22:00:00Z and nothing after; also when the boss is one
// of the colleagues, because a limit comes after all that is granted.
func TestS22OfficeHours(t *testing.T) {
	t.Parallel()
	const vectors = "../profiles/policy/testdata/policy.json"
	for name, policy := range map[string]string{"limit": vector(t, vectors, "policyWithLimit"), "grant": vector(t, vectors, "policy")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attempts(t, func(try *attempt) {
				s := kinds(t, "2026-03-09T12:59:59Z")
				pc := s.person(bob, "pc")
				pc.Publish("$me/policy/presence", 1, policy)
				day := mq.User("evt-expires", "86400")
				sphere := `"persons":[{"id":"me","sphere":"home"}]`
				if name == "limit" {
					sphere = `"persons":[{"id":"me","sphere":"work"}]` // he is a colleague, too
				}
				state := func(basic, note string) mq.Publish {
					return retained(bobsPresence+"/pc", `{"tuples":[{"id":"im","basic":"`+basic+`","contact":{"uri":"im:bob@example.com"},"note":{"en":"`+note+`"}}],`+sphere+`}`, day)
				}
				pc.PublishMessage(state("open", "early"))
				b, c := s.person(boss, "pc"), s.person(carol, "pc")
				b.Subscribe(bobsPresence, 1)
				c.Subscribe(bobsPresence, 1)
				if p := b.Receive(); !isNeutral(p, bob) || !p.Retain() {
					t.Errorf("12:59:59: %v %s, want the neutral document", p, p.Payload)
				}
				pc.PublishMessage(state("open", "morning"))
				b.Quiet()
				try.begin()
				s.setClock("2026-03-09T13:00:00Z")
				p := try.arrives(b)
				if p == nil || !contains(string(p.Payload), `"open"`) || p.Retain() {
					t.Fatalf("13:00:00: %v, want the state in time, as a change", p)
				}
				b.Acknowledge(p)
				b.Quiet()
				s.setClock("2026-03-09T21:59:59Z")
				b.Quiet()
				try.begin()
				s.setClock("2026-03-09T22:00:00Z")
				if p = try.arrives(b); p == nil || !isNeutral(p, bob) {
					t.Fatalf("22:00:00: %v, want the neutral document in time", p)
				}
				b.Acknowledge(p)
				for _, note := range []string{"pub", "bed"} {
					pc.PublishMessage(state("closed", note))
					pc.PublishMessage(state("open", note))
				}
				b.Quiet()
				if got := s.fetch(boss, "/v1/presence/example.com/bob", ""); got.body != string(p.Payload) {
					t.Errorf("by HTTP the boss is shown %+v", got)
				}
				last := drain(c)
				if seen := len(last) > 0 && contains(string(last[len(last)-1].Payload), "bed"); seen != (name == "limit") {
					t.Errorf("carol, who has no limit and sees bob when he is at work: %v", last)
				}
				s.setClock("2026-03-10T12:59:59Z")
				b.Quiet()
			})
		})
	}
}

// Two watch one topic and are shown different things; that the one may see
// nothing the answer to its subscription does not tell. Also R5.1.15.
func TestS35DifferentThingsToDifferentPeople(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, `{"v":1,"rules":[{"id":"alice","if":{"identity":[{"one":"pres:alice@example.net"}]},
		"then":{"handling":"allow"},"show":{"services":["*"],"note":true}},
		{"id":"zoe","if":{"identity":[{"one":"pres:zoe@example.net"}]},"then":{"handling":"polite-block"}}]}`)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"at the pub"}}`))
	var codes [][]byte
	for _, who := range []string{alice, zoe, mallory} {
		c := s.person(who, "pc")
		codes = append(codes, c.TrySubscribe(nil, mq.Filter{Filter: bobsPresence, QoS: 1}).Codes)
		p := c.Receive()
		if full := contains(string(p.Payload), "at the pub"); full != (who == alice) || !full && !isNeutral(p, bob) {
			t.Errorf("%s is shown %s", who, p.Payload)
		}
		pc.PublishMessage(retained(bobsPresence+"/phone", `{"basic":"closed"}`))
		if who != alice {
			c.Quiet()
		}
	}
	if !slices.EqualFunc(codes[1:], codes[:2], slices.Equal) {
		t.Errorf("the answers to the subscriptions differ: %v", codes)
	}
}

// A process publishes for bob as his delegate: the source that it has, and no
// other.
func TestS41DelegatePublishesItsSourceOnly(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, svc, a := s.person(bob, "pc"), s.person(cal, "cron"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, strings.TrimSuffix(showAll, "}")+
		`,"delegates":[{"one":"pres:calendar-svc@example.com","sources":["calendar"],"until":"2026-03-09T13:00:00Z"}]}`)
	a.Subscribe(bobsPresence, 1)
	svc.PublishMessage(retained(bobsPresence+"/calendar", `{"persons":[{"id":"cal","activities":["meeting"]}]}`))
	if p := latest(t, a, bobsPresence); !contains(string(p.Payload), "meeting") {
		t.Errorf("alice is shown %s, want the meeting", p.Payload)
	}
	refusedBy(t, svc, retained(bobsPresence+"/phone", `{"basic":"open"}`), 0x87)
	refusedBy(t, svc, retained(bobsPresence, `{"basic":"open"}`), 0x87)
	a.Quiet()
	s.setClock("2026-03-09T13:00:00Z")
	refusedBy(t, svc, retained(bobsPresence+"/calendar", `{"basic":"open"}`), 0x87)
}

// A presence says whether, and how, to reach somebody: the best way first.
func TestS53HowAndWhether(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence, `{"tuples":[
		{"id":"a","basic":"open","contact":{"uri":"tel:none"}},
		{"id":"b","basic":"open","contact":{"uri":"tel:some","priority":0.3}},
		{"id":"c","basic":"closed","contact":{"uri":"tel:closed","priority":1}},
		{"id":"d","basic":"open","contact":{"uri":"tel:best","priority":0.8}},
		{"id":"e","basic":"open","contact":{"uri":"tel:wrong","priority":1.5}},
		{"id":"f","basic":"open","contact":{"uri":"tel:zero","priority":0}}]}`))
	a.Subscribe(bobsPresence, 1)
	d := readPresence(t, a.Receive())
	var order, absent []string
	for _, tu := range d.Tuples {
		order = append(order, strings.TrimPrefix(tu.Contact.URI, "tel:"))
		if tu.Contact.Priority == nil {
			absent = append(absent, strings.TrimPrefix(tu.Contact.URI, "tel:"))
		}
	}
	slices.Sort(absent)
	if len(order) != 6 || !slices.Equal(order[:3], []string{"best", "some", "zero"}) || order[5] != "closed" {
		t.Errorf("order %v, want the best open one first, those without a priority after all that have one, closed ones last", order)
	}
	if !slices.Equal(absent, []string{"none", "wrong"}) {
		t.Errorf("without a priority: %v, want none and the one of 1.5", absent)
	}
}

// Pushed and pulled it is the same document. Also R2.3.3.
func TestS62PushAndPull(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, strings.Replace(showAll, `{"many":{}}`, `{"one":"pres:alice@example.net"}`, 1))
	for _, who := range []string{alice, zoe, bob} {
		c := s.person(who, "tablet")
		c.Subscribe(bobsPresence, 1)
		first := c.Receive()
		was := s.fetch(who, "/v1/presence/example.com/bob", "")
		if was.status != 200 || was.body != string(first.Payload) || was.kind != first.Properties.Text(mq.PropContentType) || was.etag == "" {
			t.Errorf("%s: by HTTP %+v, by MQTT %s", who, was, first.Payload)
		}
		if same := s.fetch(who, "/v1/presence/example.com/bob", was.etag); same.status != 304 || same.body != "" {
			t.Errorf("%s: with the tag of what there is: %+v", who, same)
		}
		pc.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"`+who+`"}}`))
		is := s.fetch(who, "/v1/presence/example.com/bob", was.etag)
		if who == zoe {
			c.Quiet()
			if is.status != 304 {
				t.Errorf("zoe, who may see nothing, can tell that it changed: %+v", is)
			}
			continue
		}
		if p := latest(t, c, bobsPresence); is.status != 200 || is.body != string(p.Payload) || is.etag == was.etag {
			t.Errorf("%s: by HTTP %+v, by MQTT %s", who, is, p.Payload)
		}
	}
	if got := s.fetch("", "/v1/presence/example.com/bob", ""); got.status != 401 {
		t.Errorf("nobody: %+v, want 401", got)
	}
	if got := s.fetch(alice, "/v1/nokind/example.com/bob", ""); got.status != 404 {
		t.Errorf("no kind: %+v, want 404", got)
	}
}
