package blackbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// failed receives the report that a message has failed, and returns why.
func failed(t *testing.T, c *mq.Client, to string) string {
	t.Helper()
	p := c.Receive()
	l := readLetter(t, p)
	if !strings.HasSuffix(p.Topic, "/reports") || l.Disposition != "failed" || l.Recipient != "im:"+to {
		t.Fatalf("got %v %s", p, p.Payload)
	}
	return l.Reason
}

// Whose messages an owner does not take is told so, or what who writes to nobody is told,
// as the owner wants it: by the policy for messages, and by the blocklist before that.
// Whatever it is, the message is acknowledged alike and nobody reads it.
func TestR2_3_5SendersAreRefusedByStyle(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	b, eve := s.person(bob, "pc"), s.person(mallory, "pc")
	b.Subscribe(bobsInbox, 1)
	eve.Subscribe("im/example.com/mallory/reports", 1)
	rule := func(then string) string {
		return `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{"except":[{"id":"im:mallory@example.com"}]}}]},"then":{"handling":"allow"},"show":{"send":true}},
			{"id":"eve","if":{"identity":[{"one":"im:mallory@example.com"}]},"then":{` + then + `},"show":{"send":true}}]}`
	}
	send(eve, "im/example.com/nobody", `{"id":"0","body":"hello?"}`)
	unknown := failed(t, eve, "nobody@example.com")
	for i, x := range []struct{ policy, list, reason string }{
		{rule(`"handling":"block"`), "", unknown},
		{rule(`"handling":"block","style":"refuse"`), "", "forbidden"},
		{rule(`"handling":"block","style":"polite"`), "", unknown},
		{rule(`"handling":"block","style":"ignore"`), "", unknown},
		{rule(`"handling":"confirm"`), "", unknown},
		{rule(`"handling":"allow"`), `{"v":1,"blocked":[{"one":"pres:mallory@example.com"}]}`, unknown},
		{rule(`"handling":"allow"`), `{"v":1,"blocked":[{"many":{"domain":"example.com"},"style":"refuse"}]}`, "forbidden"},
	} {
		b.Publish("$me/policy/im", 1, x.policy)
		b.Publish("$me/blocklist", 1, x.list)
		id := string(rune('a' + i))
		ack := send(eve, bobsInbox, `{"id":"`+id+`","body":"hello?"}`)
		if ack.Code != 0 && ack.Code != 0x10 || !slices.Contains(ack.Properties.User(), "evt-id="+id) {
			t.Errorf("%+v: acknowledged by %v", x, ack)
		}
		if got := failed(t, eve, bob); got != x.reason {
			t.Errorf("%+v: told %q", x, got)
		}
		b.Quiet()
	}
	b.Publish("$me/blocklist", 1, "")
	send(eve, bobsInbox, `{"id":"z","body":"at last"}`)
	receiveBody(t, b, bobsInbox, mallory, "at last")
	eve.Quiet()
}

// The owner's blocklist keeps somebody out of all kinds at once, whatever the policies say,
// by name and by wildcard, live and fetched; in the tools and over HTTP it is the same.
func TestR5_1_13BlockedOfAllKinds(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		s := kinds(t, "2026-03-09T12:00:00Z")
		pc, a := s.person(bob, "pc"), s.person(alice, "pc")
		everybody := `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},"show":{"services":["*"],"radius":0}}]}`
		pc.Publish("$me/policy/presence", 1, everybody)
		pc.Publish("$me/policy/location", 1, everybody)
		pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
		pc.PublishMessage(retained("location/example.com/bob", `{"lat":40,"lon":-3,"accuracy":20}`))
		for _, filter := range []string{bobsPresence, "location/example.com/bob", "presence/example.com/+"} {
			a.Subscribe(filter, 1)
		}
		for range 3 {
			if p := a.Receive(); isNeutral(p, bob) {
				t.Fatalf("alice is shown %v %s", p, p.Payload)
			}
		}
		a.Quiet()
		host, port, _ := strings.Cut(s.ready.MQTT, ":")
		as := []string{"-h", host, "-p", port, "-u", bob, "-P", "token-" + bob}
		command := func(want int, args ...string) string {
			t.Helper()
			out, errs, code := run(t, append(append([]string{"blocklist"}, args...), as...)...)
			if code != want {
				t.Errorf("bellwire blocklist %v ends with %d, want %d: %s%s", args, code, want, out, errs)
			}
			return out + errs
		}
		command(3, "get")
		try.begin()
		command(0, "add", alice)
		for range 2 {
			p := try.arrives(a)
			if p == nil || contains(string(p.Payload), "open") || contains(string(p.Payload), "Circle") {
				t.Fatalf("blocked, alice is sent %v", p)
			}
			a.Acknowledge(p)
		}
		pc.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"news"}}`))
		a.Quiet()
		if got := s.fetch(alice, "/v1/presence/example.com/bob", ""); got.status != 200 || !strings.Contains(got.body, `"id":"none"`) {
			t.Errorf("alice fetches %+v", got)
		}
		if got, fetched := strings.TrimSpace(command(0, "get")), s.fetch(bob, "/v1/me/blocklist", ""); got != `{"v":1,"blocked":[{"one":"pres:alice@example.net"}]}` || fetched.body != got {
			t.Errorf("the list is %s, by HTTP %+v", got, fetched)
		}
		if got := s.fetch(alice, "/v1/me/blocklist", ""); got.status != 404 {
			t.Errorf("alice's own: %+v", got)
		}
		command(0, "add", "spam.example", "--style", "refuse")
		command(3, "rm", "eve@example.net")
		try.begin()
		command(0, "rm", alice)
		p := try.arrives(a)
		if p == nil {
			t.Fatal("free again, alice is sent nothing")
		}
		a.Acknowledge(p)
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, []byte(`{"v":1,"blocked":[{"one":"alice"},{"style":"rude"}]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := command(2, "set", bad); !strings.Contains(got, "/blocked/0/one") || !strings.Contains(got, "/blocked/1/style") {
			t.Errorf("a bad list: %s", got)
		}
		if ack := send(pc, "$me/blocklist", `{"v":3}`); ack.Code != 0x99 || !contains(ack.Properties.Text(mq.PropReasonString), "/v") {
			t.Errorf("a bad list is answered %v", ack)
		}
	})
}
