package blackbox

import (
	"fmt"
	"syscall"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const rewriteRules = `
  - {id: ana, allow: [publish, subscribe], who: [ana@example.com], topic: ["new/#"]}
  - {id: sys, allow: [publish, subscribe], who: [ana@example.com], topic: ["$SYS/#", "presence/#"]}
`

const rewriteSection = `rewrite:
  - {action: all, source_topic: "old/#", re: "^old/(.*)$", dest_topic: "new/$1"}
  - {action: all, source_topic: "trick/#", re: "^trick/(.*)$", dest_topic: "$1"}
  - {action: publish, source_topic: "later/#", re: "^later/(.*)$", dest_topic: "$delayed/1/new/$1"}
`

// What a client names is taken as what the policy rewrites it to: in PUBLISH, also by an alias
// and of a will, SUBSCRIBE, of a shared subscription too, and UNSUBSCRIBE. The rules are asked
// about that alone. What it may not become is refused in words.
func TestTopicsAreRewritten(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana"}, rewriteRules+rewriteSection))
	for _, v := range []byte{v4, v5} {
		ana := s.open(v, as("ana", clean(fmt.Sprint("ana", v))))
		ana.Subscribe("old/a/#", 1)
		ana.Publish("old/a/1", 1, "x")
		ana.ReceiveText("new/a/1", "x")
		ana.Publish("new/a/2", 0, "named so")
		ana.ReceiveText("new/a/2", "named so")
		ana.Publish("later/a/3", 1, "delayed")
		ana.ReceiveText("new/a/3", "delayed")
		ana.Subscribe("$share/g/old/s", 1)
		ana.Publish("new/s", 1, "shared")
		ana.ReceiveText("new/s", "shared")

		gone := s.open(v, as("ana", mq.Connect{ClientID: "gone", Clean: true, Will: &mq.Will{Topic: "old/a/will", Payload: []byte("gone")}}))
		gone.Close()
		ana.ReceiveText("new/a/will", "gone")

		want := map[bool]byte{true: 0x90, false: 0}[v == v5]
		for _, to := range []string{"$SYS/broker/uptime", "$me/policy/presence", "$adm/example.com/usage", "presence/example.com/ana", "$delayed/1/trick/$SYS/x"} {
			for qos := range byte(2) {
				if code := ana.TryPublish(mq.Publish{Topic: "trick/" + to, QoS: qos + 1}); to[:2] != "$d" && code != want {
					t.Errorf("published to trick/%s: %#02x, want %#02x", to, code, want)
				}
			}
		}
		want = map[bool]byte{true: 0x8F, false: 0x80}[v == v5]
		for _, to := range []string{"$SYS/#", "$share/g/trick/$SYS/#", "trick/presence/example.com/+", "trick/$me/sub/#"} {
			if to[0] == '$' && to[1] == 'S' {
				to = "trick/" + to
			}
			if p := ana.TrySubscribe(nil, mq.Filter{Filter: to}, mq.Filter{Filter: "old/ok"}); p.Codes[0] != want || p.Codes[1] != 0 {
				t.Errorf("subscribed to %s: %v, want %#02x and 0", to, p, want)
			}
		}
		if p := ana.Unsubscribe("old/a/#", "old/none", "trick/$SYS/#"); v == v5 && (p.Codes[0] != 0 || p.Codes[1] != 0x11 || p.Codes[2] != 0x8F) {
			t.Errorf("unsubscribed: %v", p)
		}
		ana.Publish("new/a/4", 1, "nobody")
		ana.Publish("old/ok", 1, "last")
		ana.ReceiveText("new/ok", "last")
		ana.Disconnect()
	}
	for _, to := range []string{"trick/$SYS/x", "later/x", "$delayed/1/new/x"} {
		w := mq.Dial(t, s.ready.MQTT, v5)
		w.Send(as("ana", mq.Connect{ClientID: "w", Clean: true, Will: &mq.Will{Topic: to}}))
		if p := w.Expect(mq.CONNACK); p.Code != 0x90 || p.Properties.Text(mq.PropReasonString) == "" {
			t.Errorf("a will to %s: %v", to, p)
		}
	}

	ana, bob := s.open(v5, as("ana", clean("ana"))), s.open(v5, as("ana", clean("bob")))
	ana.SubscribeTo(nil, mq.Filter{Filter: "old/#", QoS: 1, NoLocal: true})
	bob.Subscribe("new/#", 1)
	ask := func(topic string, alias uint32) {
		ana.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Payload: []byte("x"), Properties: mq.Properties{mq.Number(mq.PropTopicAlias, alias), mq.Text(mq.PropResponseTopic, "old/answer")}})
		p := bob.ReceiveText("new/q", "x")
		if to := p.Properties.Text(mq.PropResponseTopic); to != "old/answer" {
			t.Errorf("the response topic is %q", to)
		}
	}
	ask("old/q", 1)
	ask("", 1)
	bob.Publish("old/answer", 1, "y")
	ana.ReceiveText("new/answer", "y")
	ana.Quiet()
}

// Another policy rewrites by its own entries at once, also for who is connected and behind an
// alias; subscriptions that there are stay what they are, and end by the name that their
// client knows them by.
func TestRewritingChangesWithThePolicy(t *testing.T) {
	t.Parallel()
	policy := policyFile(t, []string{"ana"}, rewriteRules+rewriteSection)
	s := serve(t, "--policy", policy)
	ana := s.open(v5, as("ana", clean("ana")))
	ana.Subscribe("old/#", 1)
	probe := mq.Publish{Topic: "old/x", QoS: 1, Payload: []byte("x"), Properties: mq.Properties{mq.Number(mq.PropTopicAlias, 1)}}
	ana.PublishMessage(probe)
	ana.ReceiveText("new/x", "x")
	probe.Topic = ""
	ana.PublishMessage(probe)
	ana.ReceiveText("new/x", "x")
	writePolicy(t, policy, []string{"ana"}, rewriteRules)
	s.signal(syscall.SIGHUP)
	until(t, "the other policy", patience, func() bool {
		code := ana.TryPublish(probe)
		if code == 0 {
			ana.ReceiveText("new/x", "x")
		}
		return code == 0x87
	})
	ana.Publish("new/y", 1, "still")
	ana.ReceiveText("new/y", "still")
	if code := ana.TrySubscribe(nil, mq.Filter{Filter: "old/#"}).Codes[0]; code != 0x87 {
		t.Errorf("old/# is granted: %#02x", code)
	}
	gone := func(c *mq.Client, filter string, want byte) {
		t.Helper()
		if p := c.Unsubscribe(filter); p.Codes[0] != want {
			t.Errorf("unsubscribed from %s: %v, want %#02x", filter, p, want)
		}
	}
	back := func(id string) *mq.Client {
		return s.open(v5, as("ana", mq.Connect{ClientID: id, Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 3600)}}))
	}
	gone(ana, "old/#", 0)
	gone(ana, "old/#", 0x11)
	ana.Publish("new/y", 1, "no more")
	ana.Quiet()
	device := back("device")
	device.Subscribe("new/a", 1)
	writePolicy(t, policy, []string{"ana"}, rewriteRules+rewriteSection)
	s.signal(syscall.SIGHUP)
	until(t, "the first policy again", patience, func() bool { return ana.TryPublish(probe) == 0 })
	device.Subscribe("old/b", 1)
	device.Subscribe("$share/g/old/c", 1)
	device.Disconnect()
	writePolicy(t, policy, []string{"ana"}, rewriteRules+`rewrite: [{action: all, source_topic: "new/a", re: "^new/a$", dest_topic: "new/other"}]
`)
	s.signal(syscall.SIGHUP)
	until(t, "a third", patience, func() bool { return ana.TryPublish(probe) == 0x87 })
	device = back("device")
	for _, filter := range []string{"new/a", "old/b", "$share/g/old/c"} { // made before the rule, and by one that is no more
		gone(device, filter, 0)
		gone(device, filter, 0x11)
	}
}
