package blackbox

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const memoryRules = `rules:
  - {id: all, allow: [publish, subscribe], who: [anyone], topic: ["#"]}
`

const (
	durability = `durability: {memory: ["telemetry/#"], log: ["telemetry/alarm"]}
`
	inMemory = memoryRules + durability
)

// What the operator has in memory only is acknowledged when it has been handed to
// those who are there, without a sync, and a kill takes what they had not been sent.
// What a durable session is to have, what is retained, and what is excepted, outlives
// the kill like anything else; and so does a topic from when the policy says so.
func TestMemoryThroughAKill(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "policy.yaml", inMemory)
	s := serve(t, "--allow-anonymous", "--policy", file)
	pub := s.open(v5, clean("pub"))
	sub := s.open(v5, clean("sub"))
	sub.Subscribe("#", 2)
	// Not the syncs of the disk: a commit from before has another, a second later.
	commits, counted := s.metric("bellwire_log_commits_total"), s.metric("bellwire_messages_in_memory_total")
	for qos := range byte(3) {
		pub.Publish("telemetry/a", qos, fmt.Sprint("m", qos))
	}
	sub.ReceiveAll("m0", "m1", "m2")
	if got := s.metric("bellwire_log_commits_total"); got != commits {
		t.Errorf("%v synced commits for what is in memory", got-commits)
	}
	if got := s.metric("bellwire_messages_in_memory_total"); got != counted+2 {
		t.Errorf("%v are counted, want 2", got-counted)
	}

	// A subscriber that acknowledges nothing more has not been sent the second one.
	slow := clean("slow")
	slow.Properties = mq.Properties{mq.Number(mq.PropReceiveMaximum, 1)}
	behind := s.open(v5, slow)
	behind.Subscribe("telemetry/b", 1)
	pub.Publish("telemetry/b", 1, "sent")
	pub.Publish("telemetry/b", 1, "waits")
	if p := behind.Expect(mq.PUBLISH); string(p.Payload) != "sent" {
		t.Errorf("got %v", p)
	}

	away := s.open(v5, durable(v5, "away"))
	away.Subscribe("telemetry/kept", 1)
	away.Subscribe("telemetry/alarm", 1)
	away.Disconnect()
	pub.Publish("telemetry/kept", 1, "for who is away")
	pub.Publish("telemetry/alarm", 1, "excepted")
	pub.PublishMessage(mq.Publish{Topic: "telemetry/b", QoS: 1, Retain: true, Payload: []byte("retained")})
	s.restart()

	back, ack := mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, "away"))
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	back.ReceiveAll("for who is away", "excepted")
	again := s.open(v5, slow)
	again.Subscribe("telemetry/b", 1)
	if p := again.Expect(mq.PUBLISH); string(p.Payload) != "retained" {
		t.Errorf("got %v, want what was retained, and nothing that was in memory", p)
	}

	if err := os.WriteFile(file, []byte(memoryRules), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload()
	pub = s.open(v5, clean("pub"))
	before := s.metric("bellwire_messages_in_memory_total")
	pub.Publish("telemetry/a", 1, "logged")
	if got := s.metric("bellwire_messages_in_memory_total"); got != before {
		t.Error("in memory, though the policy says so no more")
	}
}

// What is in memory reaches subscribers of every node, at its QoS. With a node of the
// cluster away it takes the log, for nobody knows whether that one's clients want it.
func TestClusterMemory(t *testing.T) {
	t.Parallel()
	p := loopback()
	p.policy = trioPolicy + durability
	c := p.start(t)
	var subs []*mq.Client
	for i := range c.nodes {
		sub := c.nodes[i].open(v5, clean(fmt.Sprint("sub", i)))
		sub.Subscribe("telemetry/#", byte(i))
		subs = append(subs, sub)
	}
	pub := c.nodes[0].open(v5, clean("pub"))
	counted := func() float64 { return c.nodes[0].metric("bellwire_messages_in_memory_total") }
	tries := 0
	until(t, "nothing takes the log that need not, and all nodes have heard who subscribes", mq.Patience, func() bool {
		tries++
		text, before := fmt.Sprint("first ", tries), counted()
		pub.Publish("telemetry/b", 1, text)
		all := counted() > before
		for _, sub := range subs {
			for came := false; !came; {
				p := sub.Arrives(time.Second / 4) // a SUBACK waits no longer for who has to hear of it
				if p == nil {
					return false
				}
				sub.Acknowledge(p)
				came = string(p.Payload) == text
			}
		}
		return all
	})
	sent := 0
	attempts(t, func(try *attempt) {
		before, first := counted(), sent
		for range 50 {
			pub.Publish("telemetry/a", byte(1+sent%2), fmt.Sprint("m", sent))
			sent++
		}
		if got := counted() - before; got != 50 { // a node that has to wait for a processor may be taken for away
			try.spoil("%v in memory, want 50", got)
		}
		for i, sub := range subs {
			for at := first; at < sent; {
				p := sub.Receive()
				text := string(p.Payload)
				if strings.HasPrefix(text, "first") {
					continue
				}
				if text != fmt.Sprint("m", at) || p.QoS() != min(byte(i), byte(1+at%2)) {
					t.Fatalf("the subscriber at node %d got %v, want m%d", i, p, at)
				}
				at++
			}
		}
	})
	c.nodes[2].kill()
	until(t, "it takes the log while a node is away", mq.Patience, func() bool {
		before := counted()
		pub.Publish("telemetry/b", 1, "later")
		return counted() == before
	})
}

// explain says what an acknowledgement does not promise, and a filter on what has owners
// is a fault of the file.
func TestMemoryIsExplained(t *testing.T) {
	t.Parallel()
	out, _, code := run(t, "acl", "explain", "--policy", writeFile(t, "policy.yaml", inMemory), "--as", "ana@example.com", "publish", "telemetry/a")
	if code != 0 || !strings.Contains(out, "keeps    in memory") || !strings.Contains(out, "policy.yaml:3") {
		t.Errorf("%d:\n%s", code, out)
	}
	_, bad, code := run(t, "acl", "test", writeFile(t, "policy.yaml", "durability: {memory: [presence/#]}\n"))
	if code != 2 || !strings.Contains(bad, "kept for its owner") {
		t.Errorf("%d:\n%s", code, bad)
	}
}
