package blackbox

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Messages, reports and policies that are not what they say are refused with
// the reason and come to nobody; whoever sent them stays connected, and the
// inbox goes on where it was.
func TestMessageRefusals(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a := s.person(bob, "pc"), s.person(alice, "pc")
	b.Publish("$me/policy/im", 1, letsIn(alice))
	b.SubscribeTo(nil, mq.Filter{Filter: bobsInbox + "/#", QoS: 1})
	a.Subscribe(alicesInbox+"/#", 1)
	a.Publish(bobsInbox, 1, "before")
	if l := receiveBody(t, b, bobsInbox, alice, "before"); l.ISeq != 1 {
		t.Errorf("the first message of an inbox has the place %d", l.ISeq)
	}
	whole := strings.Repeat("x", 64<<10)
	kind := func(name string) mq.Property { return mq.Text(mq.PropContentType, name) }
	reports := bobsInbox + "/reports"
	for _, c := range []struct {
		name, topic, document string
		code                  byte
		reason                string
		with                  mq.Properties
	}{
		{"from the owner", bobsInbox, `{"from":"im:bob@example.com","body":"x"}`, 0x99, "from-mismatch: /from", nil},
		{"from a third", bobsInbox, `{"from":"im:carol@example.com","body":"x"}`, 0x99, "from-mismatch: /from", nil},
		{"from no address", bobsInbox, `{"from":"Alice","body":"x"}`, 0x99, "/from", nil},
		{"to another", bobsInbox, `{"to":["im:carol@example.com"],"body":"x"}`, 0x99, "entity-mismatch", nil},
		{"with a place", bobsInbox, `{"iseq":1,"body":"x"}`, 0x99, "/iseq", nil},
		{"with the broker's time", bobsInbox, `{"at":"2026-03-09T12:00:00Z","body":"x"}`, 0x99, "/at", nil},
		{"no body", bobsInbox, `{"id":"1"}`, 0x99, "schema", nil},
		{"nothing", bobsInbox, "", 0x99, "schema", nil},
		{"no end", bobsInbox, `{"body":`, 0x99, "schema", nil},
		{"a name twice", bobsInbox, `{"body":"x","body":"y"}`, 0x99, "schema", nil},
		{"not UTF-8", bobsInbox, "\xff\xfe", 0x99, "schema", nil},
		{"not base64", bobsInbox, `{"encoding":"base64","body":"?"}`, 0x99, "/body", nil},
		{"64 KiB and a byte", bobsInbox, whole + "x", 0x99, "too-large", nil},
		{"64 KiB and a byte of JSON", bobsInbox, `{"body":"x"}` + strings.Repeat(" ", len(whole)-len(`{"body":"x"}`)+1), 0x99, "too-large", nil},
		{"33 levels", bobsInbox, `{"body":"x","ext":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, 0x99, "too-large", nil},
		{"an id too long", bobsInbox, `{"id":"` + strings.Repeat("i", 256) + `","body":"x"}`, 0x99, "/id", nil},
		{"an id too long in a property", bobsInbox, "x", 0x99, "evt-id", mq.Properties{mq.User("evt-id", strings.Repeat("i", 256))}},
		{"a picture", bobsInbox, "\x89PNG", 0x99, "unsupported", mq.Properties{kind("image/png")}},
		{"wants what there is not", bobsInbox, "x", 0x99, "evt-wants", mq.Properties{mq.User("evt-wants", "read")}},
		{"too many hands", bobsInbox, `{"hops":0,"body":"x"}`, 0x83, "loop", nil},
		{"another spelling", "im/example.com/Bob", "x", 0x90, `"im/example.com/bob"`, nil},
		{"a device", bobsInbox + "/phone", "x", 0x90, "/reports", nil},
		{"a report of what was not sent", reports, `{"id":"1","disposition":"delivered"}`, 0x83, "no-such-message", mq.Properties{kind("application/evt-imdn+json")}},
		{"a report for another", reports, `{"id":"1","recipient":"im:carol@example.com","disposition":"delivered"}`, 0x99, "from-mismatch", mq.Properties{kind("application/evt-imdn+json")}},
		{"a report that it failed", reports, `{"id":"1","disposition":"failed"}`, 0x99, "/disposition", mq.Properties{kind("application/evt-imdn+json")}},
		{"typing of another", bobsInbox + "/typing", `{"state":"active","from":"im:carol@example.com"}`, 0x99, "from-mismatch", nil},
		{"two rules with one id", "$me/policy/im", `{"v":1,"rules":[{"id":"a"},{"id":"a"}]}`, 0x99, "duplicate-id", nil},
	} {
		m := mq.Publish{Topic: c.topic, Payload: []byte(c.document), Properties: c.with}
		if got := refusedBy(t, a, m, c.code); !contains(got, c.reason) {
			t.Errorf("%s: the reason is %q, want %q in it", c.name, got, c.reason)
		}
		b.Quiet()
	}
	// 3.1.1 has no words for it: acknowledged, and dropped.
	old := s.open(v4, as(alice, clean("old")))
	old.Publish(bobsInbox, 1, `{"from":"im:bob@example.com","body":"x"}`)
	old.Quiet()
	b.Quiet()
	// As large as can be, and a name that is the sender's own.
	a.Publish(bobsInbox, 1, whole)
	a.Publish(bobsInbox, 1, `{"from":"im:alice@example.net","body":"after"}`)
	if l := receiveBody(t, b, bobsInbox, alice, whole); l.ISeq != 2 {
		t.Errorf("what was refused took a place: the next is %d", l.ISeq)
	}
	receiveBody(t, b, bobsInbox, alice, "after")
	a.Quiet()
}

// That somebody is writing is shown to who is there, and kept for nobody:
// neither for a device that is away, nor for one that comes, nor through a
// death, retained or not, at whatever QoS.
func TestTypingIsNeverStored(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, a, eve := s.person(bob, "pc"), s.person(alice, "pc"), s.person(mallory, "pc")
	b.Publish("$me/policy/im", 1, letsIn(alice))
	b.Subscribe(bobsInbox+"/typing", 2)
	away := as(bob, durable(v5, "bob/away"))
	phone := s.open(v5, away)
	phone.Subscribe(bobsInbox+"/#", 2)
	phone.Disconnect()
	for qos := range byte(3) {
		for _, retain := range []bool{false, true} {
			m := mq.Publish{Topic: bobsInbox + "/typing", QoS: qos, Retain: retain, Payload: []byte("active")}
			a.PublishMessage(m)
			p := b.Receive()
			if l := readLetter(t, p); l.From != "im:"+alice || l.State != "active" || p.QoS() != 0 || p.Retain() {
				t.Errorf("QoS %d, retain %v: got %v %s", qos, retain, p, p.Payload)
			}
			eve.PublishMessage(m) // whom bob lets not
			b.Quiet()
		}
	}
	tablet := s.person(bob, "tablet")
	tablet.Subscribe(bobsInbox+"/#", 1)
	tablet.Quiet()
	s.open(v5, away).Quiet()
	s.restart()
	s.open(v5, away).Quiet()
}

// A message that comes again with its id, by whatever connection, before and
// after a death and within a week, is acknowledged as it was and delivered
// once; the same id of somebody else is another message.
func TestMessageAgainIsDeliveredOnce(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	a, c := s.person(alice, "pc"), s.person(carol, "pc")
	phone := as(bob, receiveMax("bob/phone", 10))
	b := s.open(v5, phone)
	b.Publish("$me/policy/im", 1, letsIn(alice, carol))
	b.Subscribe(bobsInbox, 1)
	const text = `{"id":"7f3a","body":"once"}`
	first := send(a, bobsInbox, text)
	if want := []string{"evt-id=7f3a"}; first.Code != 0 || !slices.Equal(first.Properties.User(), want) {
		t.Errorf("got %v with %q, want %q", first, first.Properties.User(), want)
	}
	again := func(c *mq.Client) {
		t.Helper()
		ack := send(c, bobsInbox, text)
		if ack.Code != 0 || !slices.Equal(ack.Properties.User(), first.Properties.User()) {
			t.Errorf("again: got %v with %q, the first time %q", ack, ack.Properties.User(), first.Properties.User())
		}
	}
	again(a)
	again(s.person(alice, "tablet"))
	send(c, bobsInbox, text)
	receiveBody(t, b, bobsInbox, alice, "once")
	receiveBody(t, b, bobsInbox, carol, "once")
	b.Quiet()
	s.restart()
	a = s.person(alice, "pc")
	again(a)
	b = s.open(v5, phone)
	for _, p := range drain(b) { // that it had both may not have been on the disk
		if l := readLetter(t, p); !p.Dup() || l.ISeq > 2 {
			t.Errorf("after the death: got %v %s", p, p.Payload)
		}
	}
	s.setClock("2026-03-16T11:59:59Z")
	again(a)
	b.Quiet()
	s.setClock("2026-03-16T12:00:00Z")
	again(a)
	if l := receiveBody(t, b, bobsInbox, alice, "once"); l.ISeq != 3 {
		t.Errorf("a week later it is another: got number %d, want 3", l.ISeq)
	}
}

// The packet id in what a test prints of a packet.
var numbersOfPackets = regexp.MustCompile(` id=\d+`)

// A message to an address that does not exist ends like one to somebody who
// takes none, for whatever reason they do not: the same acknowledgement, and
// the same report; and all else that one may try there ends alike, also past the bound on
// messages to strangers.
func TestNobodyLooksLikeSomebodyWhoTakesNothing(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	a := s.person(alice, "pc")
	a.Subscribe(alicesInbox+"/#", 1)
	s.person(bob, "pc").Publish("$me/policy/im", 1, letsIn(zoe))
	s.person(boss, "pc").Publish("$me/policy/im", 1, `{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"im:alice@example.net"}]},"then":{"handling":"block"}}]}`)
	watched := s.person(bob, "tablet")
	watched.Subscribe(bobsInbox+"/#", 1)
	ending := func(address string) string {
		t.Helper()
		local, domain, _ := strings.Cut(address, "@")
		inbox := "im/" + domain + "/" + local
		var said []string
		for _, text := range []string{`{"id":"1","wants":["delivered","displayed"],"date":"2026-03-09T12:00:00Z","body":"hello"}`, "hello"} {
			ack := send(a, inbox, text, mq.User("evt-id", "2"))
			report := a.Receive()
			said = append(said, ack.String(), strings.Join(ack.Properties.User(), " "), report.Topic, report.Properties.Text(mq.PropContentType), string(report.Payload))
		}
		if !contains(said[4], `"disposition":"failed","reason":"unavailable"`) {
			t.Errorf("%s: the report is %s", address, said[4])
		}
		typing := send(a, inbox+"/typing", "active")
		report := send(a, inbox+"/reports", `{"id":"1","disposition":"displayed"}`, mq.Text(mq.PropContentType, "application/evt-imdn+json"))
		watch := a.TrySubscribe(nil, mq.Filter{Filter: inbox, QoS: 1})
		said = append(said, typing.String(), report.String(), watch.String())
		a.Quiet()
		got := s.fetch(alice, "/v1/"+inbox, "")
		said = append(said, fmt.Sprint(got.status), got.body)
		all := strings.NewReplacer(address, "WHO", domain+"/"+local, "WHERE").Replace(strings.Join(said, "\n"))
		return numbersOfPackets.ReplaceAllString(all, " id=N")
	}
	unknown := ending("nobody@example.com")
	for _, address := range []string{
		carol, // has said nothing
		bob,   // takes messages, of others
		boss,  // does not want hers
		"nobody@nowhere.example",
	} {
		if got := ending(address); got != unknown {
			t.Errorf("a message to %s ends thus:\n%s\none to nobody thus:\n%s", address, got, unknown)
		}
	}
	watched.Quiet()

	sends := func(c *mq.Client, address string) (code byte, said string) {
		t.Helper()
		local, domain, _ := strings.Cut(address, "@")
		ack := send(c, "im/"+domain+"/"+local, "hello")
		return ack.Code, ack.Properties.Text(mq.PropReasonString)
	}
	for range 20 - 2*5 { // what is left of what she may send to strangers in an hour
		if code, said := sends(a, "nobody@example.com"); code != 0 {
			t.Errorf("alice is told %#02x %q", code, said)
		}
		a.Receive()
	}
	for _, address := range []string{"nobody@example.com", carol, bob, boss, "nobody@nowhere.example"} {
		if code, said := sends(a, address); code != 0x97 || said != "BW-8001 rate: at most 20 messages an hour to people who have not written to you and name you in no rule of theirs: the next in 180 s" {
			t.Errorf("one more to %s: %#02x %q", address, code, said)
		}
	}
	z := s.person(zoe, "pc")
	for range 30 { // he names her
		if code, said := sends(z, bob); code != 0 {
			t.Errorf("zoe is told %#02x %q", code, said)
		}
		watched.Receive()
	}
	if got := s.metric("bellwire_limit_refused_total", `limit="im.strangersPerHour"`); got != 5 {
		t.Errorf("%v are counted, want 5", got)
	}
}

// Who sends faster than they may is refused what is too much, and nothing else,
// and it comes when it is sent again in time. An inbox that nobody empties is
// full at a thousand: that is told who may send, and nobody else.
func TestMessageFlood(t *testing.T) {
	t.Parallel()
	const burst, full = 200, 1000
	s := kinds(t, clockStart)
	b, a, eve := s.person(bob, "pc"), s.person(alice, "pc"), s.person(mallory, "pc")
	b.Publish("$me/policy/im", 1, letsIn(alice))
	eve.Subscribe("im/example.com/mallory/reports", 1)
	// flood sends the numbers from first to last and wants the code for each.
	flood := func(c *mq.Client, first, last int, code byte, reason string) {
		t.Helper()
		for n := first; n <= last; n++ {
			ack := send(c, bobsInbox, fmt.Sprintf(`{"id":"%d","body":"%d"}`, n, n))
			if ack.Code != code || !contains(ack.Properties.Text(mq.PropReasonString), reason) {
				t.Fatalf("message %d: got %v %q, want code %#02x for %q", n, ack, ack.Properties.Text(mq.PropReasonString), code, reason)
			}
		}
	}
	flood(a, 1, burst, 0, "")
	flood(a, burst+1, burst+20, 0x97, "rate")
	flood(a, 1, burst, 0, "") // what it has already costs nothing
	s.advance(time.Second)
	flood(a, burst+1, burst+20, 0, "")
	flood(a, burst+21, burst+21, 0x97, "rate")
	for n := burst + 20; n < full; n += burst {
		s.advance(stageTime)
		flood(a, n+1, min(n+burst, full), 0, "")
	}
	s.advance(stageTime)
	flood(a, full+1, full+1, 0x97, "quota")
	flood(eve, 1, 1, 0, "")
	if l := readLetter(t, eve.Receive()); l.Disposition != "failed" || l.Reason != "unavailable" {
		t.Errorf("whom bob does not let is told %+v of an inbox that is full", l)
	}
	b.Subscribe(bobsInbox, 1) // its session ends with it: it is there for what comes now
	b.Quiet()
	b = s.open(v5, as(bob, receiveMax("bob/phone", 100)))
	b.Subscribe(bobsInbox, 1)
	for n := 1; n <= full; n++ {
		if l := receiveBody(t, b, bobsInbox, alice, fmt.Sprint(n)); l.ISeq != n {
			t.Fatalf("message %d has the place %d", n, l.ISeq)
		}
	}
	b.Quiet()
	until(t, "there is room again", patience, func() bool { // acknowledgements are ordered a while after they come
		return send(a, bobsInbox, "at last").Code == 0
	})
	receiveBody(t, b, bobsInbox, alice, "at last")
}

// A will to an inbox is a message like any other, from who left it, whatever it
// says; one that is none comes to nobody and harms nobody, through the death of
// the server as well.
func TestMessageWills(t *testing.T) {
	t.Parallel()
	s := kinds(t, clockStart)
	phone := as(bob, receiveMax("bob/phone", 10))
	b := s.open(v5, phone)
	b.Publish("$me/policy/im", 1, letsIn(alice))
	b.Subscribe(bobsInbox+"/#", 1)
	leave := func(who, device, topic, text string) *mq.Client {
		m := as(who, clean(who+"/"+device))
		m.Will = &mq.Will{Topic: topic, Payload: []byte(text), QoS: 1, Retain: true}
		return s.open(v5, m)
	}
	s.drop(leave(alice, "1", bobsInbox, `{"id":"w","body":"the line is dead"}`))
	receiveBody(t, b, bobsInbox, alice, "the line is dead")
	s.drop(leave(alice, "2", bobsInbox, `{"from":"im:carol@example.com","body":"x"}`))
	s.drop(leave(alice, "3", bobsInbox+"/phone", "x"))
	s.drop(leave(mallory, "4", bobsInbox, "x"))
	s.drop(leave(alice, "5", bobsInbox, `{"id":"w","body":"the line is dead"}`))
	s.drop(leave(alice, "6", bobsInbox+"/typing", "active"))
	if l := readLetter(t, b.Receive()); l.State != "active" || l.From != "im:"+alice {
		t.Errorf("got %+v, want that alice is writing", l)
	}
	leave(alice, "7", bobsInbox, "the server is dead")
	leave(alice, "8", bobsInbox, `{"from":"im:carol@example.com","body":"x"}`)
	leave(alice, "9", bobsInbox+"/typing", "active")
	s.restart()
	b = s.open(v5, phone)
	for {
		p := b.Receive()
		l := readLetter(t, p)
		if l.Body == "the line is dead" && p.Dup() || l.State == "active" && p.QoS() == 0 {
			continue // that it had the one may not have been on the disk; the other depends on which comes first
		}
		if l.Body != "the server is dead" || l.ISeq != 2 || l.From != "im:"+alice {
			t.Errorf("got %v %s, want what alice left", p, p.Payload)
		}
		return
	}
}

// What an inbox takes and keeps is for the operator to say, and state: a restart
// does not change it, SIGHUP does, and a bad file changes nothing.
func TestMessageLimitsAreState(t *testing.T) {
	t.Parallel()
	path := limitsFile(t, "v: 1\ndefault: {im.burst: 2, im.perSecond: 1}\n")
	s := kinds(t, clockStart, "--limits", path)
	change := func(rows, says string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("v: 1\ndefault: {"+rows+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.signal(syscall.SIGHUP)
		until(t, "the log says "+says, mq.Patience, func() bool { return strings.Contains(s.logs.String(), says) })
	}
	s.person(bob, "pc").Publish("$me/policy/im", 1, letsIn(alice))
	a := s.person(alice, "pc")
	sends := func(code byte, reason string) {
		t.Helper()
		ack := send(a, bobsInbox, "x")
		if got := ack.Properties.Text(mq.PropReasonString); ack.Code != code || !contains(got, reason) {
			t.Errorf("got %v, %q, want code %#02x and %q", ack, got, code, reason)
		}
	}
	sends(0, "")
	sends(0, "")
	sends(0x97, "rate: at most 1 messages a second, 2 at once")
	change("im.kept: 10_001", "im.kept: 10_001 is out of bounds")
	sends(0x97, "rate: ")
	if err := os.WriteFile(path, []byte("v: 1\ndefault: {im.burst: 4, im.kept: 3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart()
	a = s.person(alice, "pc")
	sends(0x97, "rate: ")
	change("im.burst: 4, im.perSecond: 1, im.kept: 3", "limits changed")
	sends(0, "")
	sends(0x97, "quota: the inbox of bob@example.com is full")
}
