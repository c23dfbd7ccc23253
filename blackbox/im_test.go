package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const (
	bobsInbox   = "im/example.com/bob"
	alicesInbox = "im/example.net/alice"
)

// letsIn is an owner's policy for messages that lets these people do all that
// there is to do.
func letsIn(who ...string) string {
	var identity []string
	for _, w := range who {
		identity = append(identity, `{"one":"im:`+w+`"}`)
	}
	return `{"v":1,"rules":[{"id":"friends","if":{"identity":[` + strings.Join(identity, ",") + `]},
		"then":{"handling":"allow"},"show":{"send":true,"typing":true,"receipts":true}}]}`
}

// A letter is what these tests read of an envelope, a report or typing.
type letter struct {
	ID, From, Body, State          string
	Recipient, Disposition, Reason string
	ISeq                           int
}

func (l *letter) read(p *mq.Packet) error {
	if err := json.Unmarshal(p.Payload, l); err != nil {
		return fmt.Errorf("%v %s: %w", p, p.Payload, err)
	}
	return nil
}

func readLetter(t *testing.T, p *mq.Packet) (l letter) {
	t.Helper()
	if err := l.read(p); err != nil {
		t.Fatal(err)
	}
	return l
}

// receiveBody receives a letter, and wants it from whom and with that body.
func receiveBody(t *testing.T, c *mq.Client, topic, from, body string) letter {
	t.Helper()
	p := c.Receive()
	l := readLetter(t, p)
	if p.Topic != topic || l.From != "im:"+from || l.Body != body || p.Retain() {
		t.Fatalf("got %v %s, want %q from %s", p, p.Payload, body, from)
	}
	return l
}

// send publishes at QoS 1 and returns the acknowledgement.
func send(c *mq.Client, topic, text string, more ...mq.Property) *mq.Packet {
	m := mq.Publish{Topic: topic, QoS: 1, ID: c.ID(), Payload: []byte(text), Properties: more}
	c.Send(m)
	return c.Await(mq.PUBACK, m.ID)
}

// Others may send to an inbox and not read it; its owner reads it, and a
// delegate for as long as they are one. Also R2.3.6.
func TestS49SendersDoNotRead(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a, c, eve := s.person(bob, "pc"), s.person(alice, "pc"), s.person(carol, "pc"), s.person(mallory, "pc")
	b.Publish("$me/policy/im", 1, letsIn(alice))
	b.Subscribe(bobsInbox, 1)
	refused := func(c *mq.Client, filter string) {
		t.Helper()
		if ack := c.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != 0x87 {
			t.Errorf("subscribe to %s: got %v, want code 0x87", filter, ack)
		}
	}
	for _, who := range []*mq.Client{a, c, eve} {
		refused(who, bobsInbox)
		refused(who, bobsInbox+"/reports")
	}
	eve.Subscribe("im/#", 2) // what is hers: nothing
	b.Publish("$me/policy/im", 1, strings.TrimSuffix(letsIn(alice), "}")+
		`,"delegates":[{"one":"im:carol@example.com","read":true,"until":"2026-03-09T13:00:00Z"}]}`)
	c.Subscribe(bobsInbox, 1)
	a.Publish(bobsInbox, 1, "for bob and his secretary")
	for _, reader := range []*mq.Client{b, c} {
		receiveBody(t, reader, bobsInbox, alice, "for bob and his secretary")
	}
	s.setClock("2026-03-09T13:00:00Z")
	a.Publish(bobsInbox, 1, "for bob")
	receiveBody(t, b, bobsInbox, alice, "for bob")
	c.Quiet()
	refused(s.person(carol, "tablet"), bobsInbox)
	eve.Quiet()
	a.Quiet()
}

// One connection watches, is watched, sends and receives.
func TestS50OneConnectionIsAll(t *testing.T) {
	t.Parallel()
	const alicesPresence = "presence/example.net/alice"
	s := kinds(t, "2026-03-09T12:00:00Z")
	a, b := s.person(alice, "all"), s.person(bob, "all")
	for _, c := range []*mq.Client{a, b} {
		c.Publish("$me/policy/presence", 1, showAll)
		c.Publish("$me/policy/im", 1, letsIn(alice, bob))
	}
	a.SubscribeTo(nil, mq.Filter{Filter: bobsPresence, QoS: 1}, mq.Filter{Filter: alicesInbox, QoS: 1})
	b.SubscribeTo(nil, mq.Filter{Filter: alicesPresence, QoS: 1}, mq.Filter{Filter: bobsInbox, QoS: 1})
	for c, of := range map[*mq.Client]string{a: bob, b: alice} {
		if p := c.Receive(); !isNeutral(p, of) {
			t.Errorf("before %s says anything: %v %s", of, p, p.Payload)
		}
	}
	for _, way := range []struct {
		from, to        *mq.Client
		who             string
		presence, inbox string
	}{{a, b, alice, alicesPresence, bobsInbox}, {b, a, bob, bobsPresence, alicesInbox}} {
		way.from.PublishMessage(retained(way.presence, `{"basic":"open","notes":{"en":"here I am"}}`))
		way.from.Publish(way.inbox, 1, "do you see me?")
		if p := way.to.Receive(); p.Topic != way.presence || !contains(string(p.Payload), "here I am") {
			t.Errorf("the other watches %s: got %v %s", way.who, p, p.Payload)
		}
		receiveBody(t, way.to, way.inbox, way.who, "do you see me?")
	}
	a.Quiet()
	b.Quiet()
}

// Messages need no presence: they come to an inbox whose owner has none, and
// who sends to it is shown that nobody is there, before and after.
func TestS55InboxWithoutPresence(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/im", 1, letsIn(alice))
	b.Subscribe(bobsInbox, 1)
	a.Subscribe(bobsPresence, 1)
	before := a.Receive()
	if !isNeutral(before, bob) {
		t.Errorf("bob, who has no presence, is shown as %s", before.Payload)
	}
	if ack := send(a, bobsInbox, "anybody there?"); ack.Code != 0 {
		t.Errorf("got %v", ack)
	}
	receiveBody(t, b, bobsInbox, alice, "anybody there?")
	a.Quiet()
	if got := s.fetch(alice, "/v1/presence/example.com/bob", ""); got.status != 200 || got.body != string(before.Payload) {
		t.Errorf("by HTTP alice is shown %+v", got)
	}
}

// The kinds of an address stand alone: who has presence and takes no messages
// looks to senders like nobody, who takes messages and has no presence looks to
// watchers like nobody, and messages go where a presence says, not to where it
// is.
func TestS56KindsAreIndependent(t *testing.T) {
	t.Parallel()
	const pressesPresence = "presence/plant.example.com/press12"
	s := kinds(t, "2026-03-09T12:00:00Z")
	d, b, a := s.person(press, "plc"), s.person(bob, "pc"), s.person(alice, "pc")
	d.Publish("$me/policy/presence", 1, showAll)
	d.PublishMessage(retained(pressesPresence, `{"tuples":[{"id":"desk","basic":"open","contact":{"uri":"im:bob@example.com"}}]}`))
	b.Publish("$me/policy/im", 1, letsIn(alice))
	b.Subscribe(bobsInbox, 1)
	a.Subscribe(alicesInbox+"/reports", 1)

	failure := func(topic, address string) letter {
		t.Helper()
		if ack := send(a, topic, "hello", mq.User("evt-id", "to-"+address)); ack.Code != 0 {
			t.Errorf("a message to %s: got %v", address, ack)
		}
		l := readLetter(t, a.Receive())
		if l.Disposition != "failed" || l.Recipient != "im:"+address || l.ID != "to-"+address {
			t.Errorf("a message to %s: the report is %+v, want that it failed", address, l)
		}
		return l
	}
	known, unknown := failure("im/plant.example.com/press12", press), failure("im/example.com/nobody", "nobody@example.com")
	if known.Reason != unknown.Reason {
		t.Errorf("the reasons differ: %q of who has presence and no inbox, %q of nobody", known.Reason, unknown.Reason)
	}
	d.Quiet()

	a.Subscribe(bobsPresence, 1)
	if p := a.Receive(); !isNeutral(p, bob) {
		t.Errorf("bob, who has an inbox and no presence, is shown as %s", p.Payload)
	}

	a.Subscribe(pressesPresence, 1)
	contact := readPresence(t, a.Receive()).Tuples[0].Contact
	if contact == nil || contact.URI != "im:"+bob {
		t.Fatalf("the contact is %+v, want bob's inbox", contact)
	}
	a.Publish(bobsInbox, 1, "the press stands still")
	receiveBody(t, b, bobsInbox, alice, "the press stands still")
}

// A message that the operator keeps from one device of its owner is not taken by
// that: it is there for a device that the operator lets have it, and its sender
// is not told before that one has it.
func TestMessageWithheldIsKept(t *testing.T) {
	t.Parallel()
	const notThePhone = `  - {id: phones, deny: [subscribe], who: [bob@example.com], topic: ["im/#"]}` + "\n"
	users := []string{"ana", "bob"}
	policy := policyFile(t, users, anaMayAll)
	s := serve(t, "--policy", policy)
	ana := s.open(v5, as("ana", clean("ana")))
	ana.Subscribe("im/example.com/ana/reports", 1)
	phone := s.open(v5, as("bob", durable(v5, "phone")))
	phone.Publish("$me/policy/im", 1, letsIn("ana@example.com"))
	phone.Subscribe(bobsInbox, 1)
	phone.Disconnect()
	ana.Publish(bobsInbox, 1, `{"id":"1","wants":["delivered"],"body":"for bob"}`)

	writePolicy(t, policy, users, anaMayAll+notThePhone)
	s.reload()
	phone = s.open(v5, as("bob", durable(v5, "phone")))
	phone.Quiet()
	phone.Disconnect() // what became of its queue the log is told first
	ana.Quiet()

	writePolicy(t, policy, users, anaMayAll)
	s.reload()
	pc := s.open(v5, as("bob", durable(v5, "pc")))
	pc.Subscribe(bobsInbox, 1)
	receiveBody(t, pc, bobsInbox, "ana@example.com", "for bob")
	if l := readLetter(t, ana.Receive()); l.ID != "1" || l.Disposition != "delivered" {
		t.Errorf("ana is told %+v, want that it is delivered", l)
	}
}

// Two devices that come to a full inbox at once, and take what they are given as
// it comes, have every message each, in the inbox's order, and after those what
// is sent in the meantime: also what the other had first.
func TestMessagesForTwoNewDevices(t *testing.T) {
	t.Parallel()
	const each = 200 // as many as one may send at once
	s := kinds(t, clockStart)
	s.person(bob, "first").Publish("$me/policy/im", 1, letsIn(alice, carol, mallory))
	sendAll := func(who string) error {
		c := s.person(who, "pc")
		for i := range each {
			if ack := send(c, bobsInbox, fmt.Sprint(who, i)); ack.Code != 0 {
				return fmt.Errorf("message %d of %s: %v", i, who, ack)
			}
		}
		return nil
	}
	for _, who := range []string{alice, carol} {
		if err := sendAll(who); err != nil {
			t.Fatal(err)
		}
	}
	const total = 3 * each
	devices := []*mq.Client{s.open(v5, as(bob, receiveMax("pc", 50))), s.open(v5, as(bob, receiveMax("tablet", 50)))}
	var wg sync.WaitGroup
	faults := make(chan error, len(devices)+1)
	for _, d := range devices {
		wg.Go(func() {
			d.Subscribe(bobsInbox, 1)
			for want := 1; want <= total; want++ {
				var l letter
				if err := l.read(d.Receive()); err != nil || l.ISeq != want {
					faults <- fmt.Errorf("got message %d (%v), want %d", l.ISeq, err, want)
					return
				}
			}
		})
	}
	wg.Go(func() {
		if err := sendAll(mallory); err != nil {
			faults <- err
		}
	})
	wg.Wait()
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	for _, d := range devices {
		d.Disconnect()
	}
	late := s.open(v5, as(bob, durable(v5, "late")))
	late.Subscribe(bobsInbox, 1)
	late.Quiet()
}

// What is sent to bob comes to robert, by bob's policy, in time and while robert lets its
// sender in; what alice is told of it names bob, and is what she is told of what bob has
// himself. So she learns of one mailbox, and of no other.
func TestS46ForwardedUnseen(t *testing.T) {
	t.Parallel()
	const (
		robert       = "robert@example.com"
		robertsInbox = "im/example.com/robert"
		wants        = `"wants":["delivered","displayed"]`
	)
	s := kinds(t, "2026-03-09T12:00:00Z")
	kept := mq.Number(mq.PropSessionExpiry, 86400)
	b, rob, a := s.person(bob, "pc", kept), s.person(robert, "phone", kept), s.person(alice, "pc")
	night := `{"id":"night","if":{"identity":[{"one":"im:` + alice + `"}],"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"18:00","end":"24:00"}]}},
		"then":{"handling":"allow","forward":"im:` + robert + `"}}`
	b.Publish("$me/policy/im", 1, strings.TrimSuffix(letsIn(alice), "]}")+","+night+"]}")
	rob.Publish("$me/policy/im", 1, letsIn(alice))
	b.Subscribe(bobsInbox, 1)
	rob.Subscribe(robertsInbox, 1)
	a.Subscribe("im/#", 1)
	// told is what alice is told of a message that somebody's device takes and shows.
	told := func(id string, reader *mq.Client, inbox string) string {
		t.Helper()
		ack := send(a, bobsInbox, `{"id":"`+id+`",`+wants+`,"body":"Hello"}`)
		p := reader.Receive()
		if l := readLetter(t, p); p.Topic != inbox || l.From != "im:"+alice || l.ID != id || !strings.Contains(string(p.Payload), `"to":["im:bob@example.com"]`) {
			t.Errorf("%s has %v %s", inbox, p, p.Payload)
		}
		all := fmt.Sprint(ack.Code, len(ack.Properties))
		for range 2 {
			p := a.Receive()
			all += fmt.Sprintf("\n%s %s %v %d", p.Topic, p.Payload, p.Properties, p.QoS())
			if readLetter(t, p).Disposition == "delivered" {
				send(reader, alicesInbox+"/reports", `{"id":"`+id+`","disposition":"displayed"}`)
			}
		}
		return strings.ReplaceAll(all, id, "ID")
	}
	want := told("one", b, bobsInbox)
	s.setClock("2026-03-09T18:00:00Z")
	if got := told("two", rob, robertsInbox); strings.ReplaceAll(got, "T18:", "T12:") != want || strings.Contains(got, "robert") {
		t.Errorf("forwarded, alice is told\n%s, want\n%s", got, want)
	}
	out, errs, code := run(t, "policy", "preview", "im", "--watcher", alice, "--server", "http://"+s.ready.HTTP, "-u", bob, "-P", "token-"+bob)
	if code != 0 || !strings.Contains(out, "messages go to the inbox of robert@example.com by night") || !strings.Contains(out, "until 2026-03-10T00:00:00Z") {
		t.Errorf("bob asks where they go: %d %s%s", code, out, errs)
	}
	for _, who := range []string{alice, robert} {
		if got := s.fetch(who, "/v1/me/preview/im?watcher=alice@example.net&of=bob@example.com", ""); got.status != 403 {
			t.Errorf("%s is told where bob's messages go: %+v", who, got)
		}
	}
	// Robert takes nothing more of hers: she cannot tell that from bob.
	rob.Publish("$me/policy/im", 1, letsIn(carol))
	send(a, bobsInbox, `{"id":"three",`+wants+`,"body":"Hello?"}`)
	if l := readLetter(t, a.Receive()); l.Disposition != "failed" || l.Reason != "unavailable" || l.Recipient != "im:"+bob {
		t.Errorf("alice is told %+v", l)
	}
	b.Quiet()
	rob.Quiet()
}

// Five messages of alice's wait for bob's phone when he blocks her: the phone gets none of
// them, not the one either that it was sent and has not acknowledged, and she is told of
// each that it failed as one to nobody does; carol's come.
func TestBlockedWhileMessagesWait(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	kept := mq.Number(mq.PropSessionExpiry, 86400)
	pc, a, c := s.person(bob, "pc"), s.person(alice, "pc"), s.person(carol, "pc")
	pc.Publish("$me/policy/im", 1, letsIn(alice, carol))
	phone := s.person(bob, "phone", kept)
	phone.Subscribe(bobsInbox, 1)
	a.Subscribe(alicesInbox+"/reports", 1)
	a.Publish(bobsInbox, 1, "message 0")
	phone.Await(mq.PUBLISH, 0) // and does not acknowledge it
	phone.Close()
	for i := range 4 {
		a.Publish(bobsInbox, 1, fmt.Sprint("message ", i+1))
	}
	c.Publish(bobsInbox, 1, "from carol")
	pc.Publish("$me/blocklist", 1, `{"v":1,"blocked":[{"one":"im:`+alice+`","style":"refuse"}]}`)
	for range 5 {
		if l := readLetter(t, a.Receive()); l.Disposition != "failed" || l.Reason != "unavailable" || l.Recipient != "im:"+bob {
			t.Errorf("alice is told %+v", l)
		}
	}
	m := as(bob, mq.Connect{ClientID: bob + "/phone", Properties: mq.Properties{kept}})
	phone = s.open(v5, m)
	receiveBody(t, phone, bobsInbox, carol, "from carol")
	phone.Quiet()
	a.Quiet()
}
