package blackbox

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const (
	anaMayAll  = `  - {id: ana, allow: [publish, subscribe], who: [ana@example.com], topic: ["#"]}` + "\n"
	bobMayRead = `  - {id: bob, allow: [subscribe], who: [bob@example.com], topic: ["t/#"]}` + "\n"
	bobMayNot  = `  - {id: bob-not, deny: [subscribe], who: [bob@example.com], topic: ["t/secret"]}` + "\n"
)

// Rights are asked at subscribe, at enqueue, for retained state, and again at
// dequeue and resume: after a revocation none of what waits is started, and a
// refusal neither ends the connection nor the subscription.
func TestMQTT53FourChecks(t *testing.T) {
	t.Parallel()
	users := []string{"ana", "bob"}
	policy := policyFile(t, users, anaMayAll+bobMayRead)
	s := serve(t, "--policy", policy)
	ana := s.open(v5, as("ana", clean("ana")))
	live := s.open(v5, as("bob", clean("live")))
	live.Subscribe("t/#", 1)
	stuck := s.open(v5, as("bob", receiveMax("stuck", 1)))
	stuck.Subscribe("t/#", 1)
	away := s.open(v5, as("bob", durable(v5, "away")))
	away.Subscribe("t/#", 1)
	away.Disconnect()
	for i := range 50 {
		ana.Publish("t/secret", 1, fmt.Sprint(i))
		live.ReceiveText("t/secret", fmt.Sprint(i))
	}
	ana.PublishMessage(mq.Publish{Topic: "t/secret", QoS: 1, Retain: true, Payload: []byte("kept")})
	live.ReceiveText("t/secret", "kept")
	begun := stuck.Await(mq.PUBLISH, 0)

	writePolicy(t, policy, users, anaMayAll+bobMayRead+bobMayNot)
	s.reload()
	ana.Publish("t/secret", 1, "live, revoked")
	ana.Publish("t/open", 1, "open")
	live.ReceiveText("t/open", "open")
	live.Quiet()
	stuck.Acknowledge(begun)
	stuck.ReceiveText("t/open", "open")
	stuck.Quiet()
	away, ack := mq.OpenAck(t, s.ready.MQTT, v5, as("bob", durable(v5, "away")))
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	away.ReceiveText("t/open", "open")
	away.Quiet()
	late := s.open(v5, as("bob", clean("late")))
	late.Subscribe("t/#", 1)
	late.Quiet()

	// Granted again: the subscriptions are still there, and are told what is retained,
	// before or after what comes live and is not.
	writePolicy(t, policy, users, anaMayAll+bobMayRead)
	s.reload()
	ana.Publish("t/secret", 1, "granted again")
	for _, c := range []*mq.Client{live, stuck, away, late} {
		got := map[string]bool{}
		for range 2 {
			p := c.Receive()
			got[string(p.Payload)] = p.Retain()
		}
		if want := map[string]bool{"kept": true, "granted again": false}; !maps.Equal(got, want) {
			t.Errorf("got %v, want %v: what is granted again, and what is retained", got, want)
		}
		c.Quiet()
	}
}

// What was sent and not acknowledged before the revocation is not sent again
// after it.
func TestMQTT53RevokedIsNotResent(t *testing.T) {
	t.Parallel()
	users := []string{"ana", "bob"}
	policy := policyFile(t, users, anaMayAll+bobMayRead)
	s := serve(t, "--policy", policy)
	ana := s.open(v5, as("ana", clean("ana")))
	bob := s.open(v5, as("bob", durable(v5, "bob")))
	bob.Subscribe("t/#", 1)
	ana.Publish("t/secret", 1, "sent once")
	bob.Await(mq.PUBLISH, 0)
	bob.Close()
	writePolicy(t, policy, users, anaMayAll+bobMayRead+bobMayNot)
	s.reload()
	ana.Publish("t/open", 1, "open")
	bob = s.open(v5, as("bob", durable(v5, "bob")))
	bob.ReceiveText("t/open", "open")
	bob.Quiet()
}

// A policy change reaches live subscriptions within a second of the signal.
func TestPolicyChangeWithinASecond(t *testing.T) {
	t.Parallel()
	users := []string{"ana", "bob"}
	policy := policyFile(t, users, anaMayAll+bobMayRead)
	s := serve(t, "--policy", policy)
	ana := s.open(v5, as("ana", clean("ana")))
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("t/#", 1)
	becomes := func(rules string) time.Duration {
		writePolicy(t, policy, users, anaMayAll+bobMayRead+rules)
		s.signal(syscall.SIGHUP)
		start := time.Now()
		want, left := rules == "", false
		for !left {
			ana.Publish("t/secret", 1, "probe")
			ana.Publish("t/open", 1, "mark")
			p := bob.Receive()
			got := p.Topic == "t/secret"
			if got {
				bob.ReceiveText("t/open", "mark")
			}
			left = got == want
			if late := time.Since(start); late > patience {
				t.Fatalf("%q has not reached a live subscription after %v", rules, late)
			}
		}
		return time.Since(start)
	}
	for range 2 {
		attempts(t, func(try *attempt) {
			try.within(time.Second, becomes(bobMayNot), "what bob may not is kept from him")
			try.within(time.Second, becomes(""), "what bob may again is sent to him")
		})
	}
}

// Who is removed from the policy loses what waits for him, also where a rule for
// a whole domain still covers his name; when he is a user again he begins anew.
func TestRemovedUserLosesQueue(t *testing.T) {
	t.Parallel()
	everybody := `  - {id: domain, allow: [publish, subscribe], who: ["*@example.com"], topic: ["t/#"]}` + "\n"
	policy := policyFile(t, []string{"ana", "bob"}, everybody)
	s := serve(t, "--policy", policy)
	bob := s.open(v5, as("bob", durable(v5, "bob")))
	bob.Subscribe("t/#", 1)
	bob.Disconnect()
	ana := s.open(v5, as("ana", durable(v5, "ana")))
	ana.Subscribe("t/a", 1)
	ana.Publish("t/b", 1, "before")
	writePolicy(t, policy, []string{"ana"}, everybody)
	s.reload()
	until(t, "the session is gone", mq.Patience, func() bool { return s.metric("bellwire_sessions") == 1 })
	queued := s.metric("bellwire_messages_queued_total")
	ana.Publish("t/b", 1, "after")
	if got := s.metric("bellwire_messages_queued_total"); got != queued {
		t.Errorf("%v messages are queued for a user who is removed", got-queued)
	}
	writePolicy(t, policy, []string{"ana", "bob"}, everybody)
	s.reload()
	bob, ack := mq.OpenAck(t, s.ready.MQTT, v5, as("bob", durable(v5, "bob")))
	if ack.SessionPresent {
		t.Error("the session is still there")
	}
	bob.Quiet()
	ana.Publish("t/a", 1, "goes on")
	ana.ReceiveText("t/a", "goes on")
}

// Who proved what is no longer asked for is disconnected: a user that is removed
// from the policy, within a second; others notice nothing. So is who came by a way that
// logins close. And a policy whose own
// tests fail is not put in force, nor is a server kept from starting again by the
// file of a policy that it does not need.
func TestRevokedCredentialsEndConnections(t *testing.T) {
	t.Parallel()
	policy := policyFile(t, []string{"ana", "bob"}, anaMayAll+bobMayRead)
	s := serve(t, "--policy", policy)
	ana := s.open(v5, as("ana", clean("ana")))
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("t/#", 1)
	failing := anaMayAll + bobMayRead + "tests:\n  - {name: wrong, as: bob@example.com, at: 2026-03-09T12:00:00Z, allow: [publish t/a]}\n"
	writePolicy(t, policy, []string{"ana"}, failing)
	s.signal(syscall.SIGHUP)
	until(t, "the failing test is in the log", mq.Patience, func() bool { return strings.Contains(s.logs.String(), "wrong") })
	ana.Publish("t/a", 1, "before")
	bob.ReceiveText("t/a", "before")
	writePolicy(t, policy, []string{"ana"}, anaMayAll+bobMayRead)
	s.reload()
	bob.ClosedWith(0x87)
	ana.Publish("t/a", 1, "after")
	writePolicy(t, policy, []string{"ana"}, anaMayAll+bobMayRead+"logins: [{listeners: [mqtt], by: [jwt]}]\n")
	s.reload()
	ana.ClosedWith(0x87)
	writePolicy(t, policy, []string{"ana"}, anaMayAll+bobMayRead)
	s.reload()

	writePolicy(t, policy, nil, "rules: nonsense\n")
	s.kill()
	s.start()
	s.open(v5, as("ana", clean("ana"))).Publish("t/a", 1, "again")
}

// A policy file that is empty, cut off or a pipe when it is read again changes nothing and
// hangs nothing: what waits for users stays, and the next signal is heeded. Nobody else
// takes an empty policy, either.
func TestEmptyPolicyKeepsAll(t *testing.T) {
	t.Parallel()
	users := []string{"ana", "bob", "cy", "dan", "eve", "op"}
	rules := anaMayAll + bobMayRead + "groups:\n  operators: [op@example.com]\n"
	policy := policyFile(t, users, rules)
	s := serve(t, "--policy", policy)
	bob := s.open(v5, as("bob", durable(v5, "bob")))
	bob.Subscribe("t/#", 1)
	bob.Disconnect()
	ana := s.open(v5, as("ana", clean("ana")))
	ana.Publish("t/a", 1, "acknowledged")

	const kept = `"msg":"policy not changed: the one in force stays"`
	n := 0
	refused := func(what, why string) {
		t.Helper()
		n++
		s.signal(syscall.SIGHUP)
		until(t, what+" is refused", mq.Patience, func() bool { return strings.Count(s.logs.String(), kept) == n })
		if !strings.Contains(s.logs.String(), why) {
			t.Errorf("%s: the log has no %q", what, why)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	refused("an empty file", "the file says nothing")
	write("# later\n")
	refused("a comment", "the file says nothing")
	writePolicy(t, policy, users[:2], anaMayAll+bobMayRead)
	refused("a part of the file", "the group operators would have no member any more")
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(policy, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a pipe", "is no regular file")
	if err := os.Remove(policy); err != nil {
		t.Fatal(err)
	}

	for _, args := range [][]string{
		{"acl", "test", os.DevNull, "--domain", "example.com"},
		{"acl", "apply", os.DevNull, "--dry-run", "--server", s.ready.HTTP},
		{"acl", "apply", os.DevNull, "--server", s.ready.HTTP},
	} {
		if out, errs, code := run(t, args...); code != 2 || !strings.Contains(out+errs, "the file says nothing") {
			t.Errorf("%v: exit code %d, %s%s", args, code, out, errs)
		}
	}
	writePolicy(t, policy, users[:2], anaMayAll+bobMayRead)
	apply := []string{"acl", "apply", policy, "--server", s.ready.HTTP}
	if _, errs, code := run(t, apply...); code != 7 || !strings.Contains(errs, "--remove-users") {
		t.Errorf("a part of the file: exit code %d, %s", code, errs)
	}

	bob = s.open(v5, as("bob", durable(v5, "bob")))
	bob.ReceiveText("t/a", "acknowledged")
	if _, errs, code := run(t, append(apply, "--remove-users")...); code != 0 {
		t.Errorf("confirmed: exit code %d, %s", code, errs)
	}
	writePolicy(t, policy, users, rules)
	s.reload()
}

// A bad policy file leaves the running one in force, and the log names every
// fault with its place; a server is not started with it.
func TestBadPolicyKeepsTheOld(t *testing.T) {
	t.Parallel()
	users := []string{"ana", "bob"}
	policy := policyFile(t, users, anaMayAll+bobMayRead)
	s := serve(t, "--policy", policy)
	bad := "rules:\n  - {id: a, allow: [publish], who: [ana@example.com], topic: [\"a/#/b\"]}\n  - {id: a, alow: [publish]}\n"
	if err := os.WriteFile(policy, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	until(t, "the fault is in the log", mq.Patience, func() bool { return strings.Contains(s.logs.String(), "policy.yaml") })
	ana := s.open(v5, as("ana", clean("ana")))
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("t/#", 1)
	ana.Publish("t/x", 1, "as before")
	bob.ReceiveText("t/x", "as before")

	out, errs, code := run(t, "serve", "--data", t.TempDir(), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--domain", "example.com", "--policy", policy)
	if code != 2 || out != "" || !strings.Contains(errs, "policy.yaml") || !strings.Contains(errs, "alow") || !strings.Contains(errs, "^") {
		t.Errorf("started with a bad policy: exit code %d, stdout %q, want 2 and a caret under the fault\n%s", code, out, errs)
	}
}

// A refusal hides or suspends; connection and subscription live.
func TestMQTT54RefusalEndsNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll+bobMayRead+bobMayNot))
	bob := s.open(v5, as("bob", clean("bob")))
	ack := bob.TrySubscribe(nil, mq.Filter{Filter: "other/#", QoS: 1}, mq.Filter{Filter: "t/#", QoS: 1}, mq.Filter{Filter: "#", QoS: 1})
	if len(ack.Codes) != 3 || ack.Codes[0] != 0x87 || ack.Codes[1] != 1 || ack.Codes[2] != 0x87 {
		t.Errorf("got %v, want codes 87 01 87", ack)
	}
	if code := bob.TryPublish(mq.Publish{Topic: "t/x", QoS: 1}); code != 0x87 {
		t.Errorf("publish: got %#02x, want 0x87", code)
	}
	ana := s.open(v5, as("ana", clean("ana")))
	ana.Publish("t/secret", 1, "hidden")
	ana.Publish("t/x", 1, "shown")
	bob.ReceiveText("t/x", "shown")
	bob.Quiet()
	old := s.open(v4, as("bob", clean("old")))
	if ack := old.TrySubscribe(nil, mq.Filter{Filter: "other/#", QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != 0x80 {
		t.Errorf("3.1.1: got %v, want code 0x80", ack)
	}
	old.Quiet()
}

// A refusal says why to who asked for reasons, and how to learn more.
func TestMQTT54RefusalsExplain(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"bob"}, bobMayRead))
	bob := s.open(v5, as("bob", clean("bob")))
	id := bob.ID()
	bob.Send(mq.Publish{Topic: "other", QoS: 1, ID: id})
	if p := bob.ExpectID(mq.PUBACK, id); p.Code != 0x87 || !strings.HasPrefix(p.Properties.Text(mq.PropReasonString), "BW-4031 ") {
		t.Errorf("got %v, want 0x87 with a reason that begins with its number", p)
	}
	m := as("bob", clean("terse"))
	m.Properties = mq.Properties{mq.Number(mq.PropRequestProblemInfo, 0)}
	terse := s.open(v5, m)
	terse.Send(mq.Publish{Topic: "other", QoS: 1, ID: 1})
	if p := terse.ExpectID(mq.PUBACK, 1); p.Code != 0x87 || len(p.Properties) != 0 {
		t.Errorf("got %v with % x, want no reason: the client declined it", p, p.Raw)
	}
}

// Where the rules cannot answer, the answer is no: an unknown zone makes the
// file bad, and nothing is served by it.
func TestMQTT55FailClosed(t *testing.T) {
	t.Parallel()
	policy := policyFile(t, []string{"ana", "bob"}, anaMayAll+
		`  - {id: bob, allow: [subscribe], who: [bob@example.com], topic: ["t/#"], when: {weekly: ["Mon-Sun 00:00-24:00"], tz: Atlantis/Capital}}`+"\n")
	_, errs, code := run(t, "serve", "--data", t.TempDir(), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--domain", "example.com", "--policy", policy)
	if code != 2 || !strings.Contains(errs, "Atlantis/Capital") {
		t.Errorf("an unknown zone: exit code %d, want 2 and the zone named\n%s", code, errs)
	}
	// A policy without a rule for somebody is a no, and without any rule too.
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, anaMayAll))
	bob := s.open(v5, as("bob", clean("bob")))
	if ack := bob.TrySubscribe(nil, mq.Filter{Filter: "t", QoS: 1}); len(ack.Codes) != 1 || ack.Codes[0] != 0x87 {
		t.Errorf("got %v, want code 0x87", ack)
	}
}

// Rules have no order, a deny wins wherever it stands, a rule for a/b says
// nothing about a/b/c, and the same question has the same answer every time.
func TestMQTT56RulesAreUnorderedAndExact(t *testing.T) {
	t.Parallel()
	rules := []string{
		`  - {id: x1, allow: [publish], who: [ana@example.com], topic: ["a/b", "d/#", "u/{local}/+"]}` + "\n",
		`  - {id: x2, deny: [publish], who: ["*@example.com"], topic: ["d/no"]}` + "\n",
		`  - {id: x3, allow: [publish], who: ["*@example.com"], topic: ["d/no", "c/{client}"]}` + "\n",
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			s := serve(t, "--policy", policyFile(t, []string{"ana"}, rules[order[0]]+rules[order[1]]+rules[order[2]]))
			ana := s.open(v5, as("ana", clean("phone")))
			for range 100 {
				for topic, want := range map[string]byte{
					"a/b": 0, "a/b/c": 0x87, "a": 0x87, "a/B": 0x87, "d/yes": 0, "d/no": 0x87, "d": 0,
					"u/ana/x": 0, "u/bob/x": 0x87, "u/ana": 0x87, "c/phone": 0, "c/other": 0x87,
				} {
					if code := ana.TryPublish(mq.Publish{Topic: topic, QoS: 1}); code != want && !(want == 0 && code == 0x10) {
						t.Fatalf("%s: got %#02x, want %#02x", topic, code, want)
					}
				}
			}
		})
	}
}

// A topic alias does not hide a topic from the rules.
func TestMQTT27AliasIsResolvedBeforeTheRules(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana"}, `
  - {id: a, allow: [publish, subscribe], who: [ana@example.com], topic: ["open/#"]}
`))
	ana := s.open(v5, as("ana", clean("ana")))
	ana.Subscribe("open/#", 1)
	alias := func(topic string, n uint32) mq.Publish {
		return mq.Publish{Topic: topic, QoS: 1, Payload: []byte("x"), Properties: mq.Properties{mq.Number(mq.PropTopicAlias, n)}}
	}
	for _, step := range []struct {
		m    mq.Publish
		want byte
	}{
		{alias("closed/x", 1), 0x87}, {alias("", 1), 0x87}, {alias("open/x", 2), 0}, {alias("", 2), 0}, {alias("open/x", 1), 0}, {alias("", 1), 0}, {alias("closed/y", 2), 0x87}, {alias("", 2), 0x87},
	} {
		if code := ana.TryPublish(step.m); code != step.want {
			t.Errorf("%q: got %#02x, want %#02x", step.m.Topic, code, step.want)
		}
	}
	for range 4 {
		ana.ReceiveText("open/x", "x")
	}
	ana.Quiet()
}
