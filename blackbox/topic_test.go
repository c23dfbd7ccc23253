package blackbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// What a filter matches, live and for retained messages: the parent level is
// in a/#, and no wildcard at the start of a filter reaches what begins with $.
//
// MQTT 5: 4.7.2-1, 3.3.2-3, 4.7.1-1, 4.7.1-2.
// MQTT 3.1.1: 4.7.2-1, 3.3.2-3, 4.7.1-2, 4.7.1-3.
func TestMQTT44Matching(t *testing.T) {
	addr := plain(t)
	root := name(t)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	for i, c := range []struct {
		filter, topic string
		match         bool
	}{
		{"a/#", "a", true},
		{"a/#", "a/b", true},
		{"a/#", "a/b/c", true},
		{"a/#", "ab", false},
		{"+/#", "a", true},
		{"+/b/#", "a/b", true},
		{"+/b/#", "a/c", false},
		{"+", "a", true},
		{"+", "a/b", false},
		{"+", "/a", false},
		{"+/+", "/a", true},
		{"/+", "/a", true},
		{"a/+", "a/", true},
		{"a/+", "a", false},
		{"a/+/c", "a//c", true},
		{"a/b", "a/B", false},
		{"a", "a/", false},
		{"#", "/", true},
		{"a//b", "a/b", false},
		{"+/b/+", "a/b/c", true},
		{"a/+/#", "a/b", true},
		{"a/+/#", "a", false},
		{"a b", "a b", true},
		{"é/+", "é/x", true},
	} {
		t.Run(c.filter+" and "+c.topic, func(t *testing.T) {
			// Both live below a level of their own, where # cannot wander.
			filter, topic := fmt.Sprintf("%s%d/%s", root, i, c.filter), fmt.Sprintf("%s%d/%s", root, i, c.topic)
			pub.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("kept")})
			sub := mq.Open(t, addr, v5, clean(name(t)))
			sub.Subscribe(filter, 1)
			if c.match {
				sub.ReceiveText(topic, "kept")
			}
			sub.Quiet()
			pub.Publish(topic, 1, "live")
			if c.match {
				sub.ReceiveText(topic, "live")
			}
			sub.Quiet()
		})
	}
}

// Filters that begin with a wildcard do not reach the trees that begin with $,
// and retained messages there stay hidden from them; $SYS/# does reach them.
//
// MQTT 5: 4.7.2-1.
// MQTT 3.1.1: 4.7.2-1.
func TestMQTT44DollarTrees(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"root"}, `
  - {id: all, allow: [publish, subscribe], who: [root@example.com], topic: ["#", "$SYS/#", "$own/#"]}
`))
	sub := s.open(v5, as("root", clean("wild")))
	for _, f := range []string{"#", "+/x", "+/#", "+/+"} {
		sub.Subscribe(f, 1)
	}
	own := s.open(v5, as("root", clean("own")))
	own.Subscribe("$own/#", 1)
	pub := s.open(v5, as("root", clean("pub")))
	pub.PublishMessage(mq.Publish{Topic: "$own/x", QoS: 1, Retain: true, Payload: []byte("hidden")})
	own.ReceiveText("$own/x", "hidden")
	pub.Publish("a/x", 1, "seen")
	sub.ReceiveText("a/x", "seen")
	sub.Quiet()
	sys := s.open(v5, as("root", clean("sys")))
	sys.Subscribe("$SYS/#", 0)
	if p := sys.Receive(); !strings.HasPrefix(p.Topic, "$SYS/") {
		t.Fatalf("got %v", p)
	}
	if code := pub.TryPublish(mq.Publish{Topic: "$SYS/x", QoS: 1}); code != 0x87 {
		t.Errorf("published to $SYS: %#02x", code)
	}
	sub.Quiet()
}

// A bad filter is refused for itself alone; the entries beside it are granted.
//
// MQTT 5: 3.8.4-5, 3.8.4-6, 3.8.4-7, 4.7.1-1, 4.7.1-2.
// MQTT 3.1.1: 3.8.4-4, 3.8.4-5, 4.7.1-2, 4.7.1-3.
func TestMQTT45BadFilters(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		want := map[byte]byte{v4: 0x80, v5: 0x8F}[v]
		for _, bad := range []string{"a/#/b", "a+", "+a", "a/b#", "#a", "a/+b/c", "##", "++", "$share/g", "$share//a", "$share/g+/a", "$share/g#/a", "$share/g/", "$share", "$share/"} {
			c := mq.Open(t, addr, v, clean(name(t)))
			ack := c.TrySubscribe(nil, mq.Filter{Filter: name(t) + "/1", QoS: 1}, mq.Filter{Filter: bad, QoS: 1}, mq.Filter{Filter: name(t) + "/2", QoS: 2})
			if len(ack.Codes) != 3 || ack.Codes[0] != 1 || ack.Codes[1] != want || ack.Codes[2] != 2 {
				t.Errorf("%q: got %v, want codes 01 %02x 02", bad, ack, want)
				continue
			}
			c.Publish(name(t)+"/1", 1, "x")
			c.ReceiveText(name(t)+"/1", "x")
			c.Disconnect()
		}
	})
}

// Levels and length of topics and filters are bounded, and the bounds hold for
// one entry, not for the connection.
//
// MQTT 5: 4.7.3-3.
// MQTT 3.1.1: 4.7.3-3.
func TestMQTT45TopicsAreBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	c := s.open(v5, clean("c"))
	deep := strings.Repeat("a/", 30_000) + "a"
	if ack := c.TrySubscribe(nil, mq.Filter{Filter: deep, QoS: 1}, mq.Filter{Filter: "t", QoS: 1}); len(ack.Codes) != 2 || ack.Codes[0] != 0x8F || ack.Codes[1] != 1 {
		t.Errorf("a filter of 30,000 levels: got %v, want codes 8f 01", ack)
	}
	if code := c.TryPublish(mq.Publish{Topic: deep, QoS: 1}); code != 0x90 {
		t.Errorf("a topic of 30,000 levels: got %#02x, want 0x90", code)
	}
	c.Publish("t", 1, "x")
	c.ReceiveText("t", "x")
}

// UNSUBSCRIBE says for each filter whether it existed.
//
// MQTT 5: 3.10.4-1, 3.10.4-5, 3.11.3-2.
// MQTT 3.1.1: 3.10.4-1, 3.10.4-5.
func TestMQTT45UnsubscribeTellsTheTruth(t *testing.T) {
	addr := plain(t)
	c := mq.Open(t, addr, v5, clean(name(t)))
	c.Subscribe(name(t)+"/+", 1)
	ack := c.Unsubscribe(name(t)+"/a", name(t)+"/+", name(t)+"/+")
	if len(ack.Codes) != 3 || ack.Codes[0] != 0x11 || ack.Codes[1] != 0 || ack.Codes[2] != 0x11 {
		t.Errorf("got %v, want codes 11 00 11", ack)
	}
	old := mq.Open(t, addr, v4, clean(name(t, "old")))
	old.Unsubscribe(name(t) + "/absent")
	old.Quiet()
}

// After UNSUBACK nothing is started for the filter: what was queued for it
// goes, what had been sent completes.
//
// MQTT 5: 3.10.4-2, 3.10.4-3.
// MQTT 3.1.1: 3.10.4-2, 3.10.4-3.
func TestMQTT47UnsubscribeEndsDelivery(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	sub := mq.Open(t, addr, v5, receiveMax(name(t), 2))
	sub.Subscribe(topic+"/gone", 1)
	sub.Subscribe(topic+"/stays", 1)
	for i := range 10 {
		pub.Publish(topic+"/gone", 1, fmt.Sprint(i))
	}
	pub.Publish(topic+"/stays", 1, "stays")
	begun := []*mq.Packet{sub.Await(mq.PUBLISH, 0), sub.Await(mq.PUBLISH, 0)}
	if ack := sub.Unsubscribe(topic + "/gone"); len(ack.Codes) != 1 || ack.Codes[0] != 0 {
		t.Fatalf("got %v", ack)
	}
	for _, p := range begun {
		sub.Acknowledge(p)
	}
	sub.ReceiveText(topic+"/stays", "stays")
	pub.Publish(topic+"/gone", 1, "new")
	sub.Quiet()
	sub = mq.Open(t, addr, v5, receiveMax(name(t), 2))
	sub.Quiet()
}

// A subscriber to # gets every retained message there is, each once, within
// its window, while others go on as if nothing were.
func TestMQTT48RetainedIsComplete(t *testing.T) {
	t.Parallel()
	n := effort.Rounds(20_000, 100_000)
	s := serve(t, "--allow-anonymous")
	pub := s.open(v5, clean("pub"))
	for from := 0; from < n; from += 200 {
		var batch []mq.Message
		for i := from; i < from+200; i++ {
			batch = append(batch, mq.Publish{Topic: fmt.Sprintf("kept/%d/%d", i%100, i), QoS: 1, ID: uint16(1 + i%200), Retain: true, Payload: fmt.Append(nil, i)})
		}
		pub.Send(batch...)
		for range 200 {
			pub.Expect(mq.PUBACK)
		}
	}
	live := s.open(v5, clean("live"))
	live.Subscribe("live", 1)
	sub := s.open(v5, receiveMax("sub", 50))
	sub.Send(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: "#", QoS: 1}}})
	if ack := sub.Await(mq.SUBACK, 1); ack.Codes[0] != 1 {
		t.Fatalf("got %v", ack)
	}
	seen := map[string]bool{}
	for len(seen) < n {
		p := sub.Receive()
		if p.Topic == "live" {
			continue
		}
		if seen[p.Topic] || !p.Retain() || !strings.HasSuffix(p.Topic, "/"+string(p.Payload)) {
			t.Fatalf("got %v, seen before: %t", p, seen[p.Topic])
		}
		seen[p.Topic] = true
		if len(seen)%1000 == 0 {
			pub.Publish("live", 1, fmt.Sprint(len(seen)))
			live.ReceiveText("live", fmt.Sprint(len(seen)))
		}
	}
	fast := s.open(v4, clean("narrow")) // an index, not a scan: one of them is found at once
	fast.Subscribe("kept/7/107", 1)
	fast.ReceiveText("kept/7/107", "107")
	fast.Quiet()
}

// Per topic the retained value never comes after a newer live one, and a
// publish that races a SUBSCRIBE is seen.
func TestMQTT49SnapshotThenLive(t *testing.T) {
	addr := plain(t)
	const topics, rounds, subscribers = 5, 60, 8
	root := name(t)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	for i := range topics {
		pub.PublishMessage(mq.Publish{Topic: fmt.Sprint(root, "/", i), QoS: 1, Retain: true, Payload: []byte("0")})
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for r := 1; r <= rounds; r++ {
			for i := range topics {
				m := mq.Publish{Topic: fmt.Sprint(root, "/", i), QoS: 1, ID: 1, Retain: true, Payload: fmt.Append(nil, r)}
				if err := pub.Write(m); err != nil {
					t.Error(err)
					return
				}
				if p, err := pub.Read(mq.Patience); err != nil || p.Type != mq.PUBACK {
					t.Errorf("got %v, %v", p, err)
					return
				}
			}
		}
	})
	for range subscribers { // each comes while values change, and follows them to the last
		c := mq.Open(t, addr, v5, clean(name(t, "sub")))
		c.Send(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: root + "/+", QoS: 1}}})
		c.Await(mq.SUBACK, 1)
		last := map[string]int{}
		for done := 0; done < topics; {
			p := c.Receive()
			var v int
			if _, err := fmt.Sscan(string(p.Payload), &v); err != nil {
				t.Fatalf("got %v", p)
			}
			before, known := last[p.Topic]
			if known && v != before+1 {
				t.Fatalf("%s: %d came after %d", p.Topic, v, before)
			}
			if known && p.Retain() {
				t.Fatalf("%s: the retained value %d came after the live %d", p.Topic, v, before)
			}
			last[p.Topic] = v
			if v == rounds {
				done++
			}
		}
		c.Quiet()
	}
	wg.Wait()
}

// The retain flag is for the state sent at subscribe; an empty payload clears
// it and is itself delivered live; the last value wins, whatever its QoS.
//
// MQTT 5: 3.3.1-5, 3.3.1-6, 3.3.1-7, 3.3.1-8, 3.3.1-12.
// MQTT 3.1.1: 3.3.1-5, 3.3.1-6, 3.3.1-7, 3.3.1-8, 3.3.1-9, 3.3.1-10, 3.3.1-11, 3.3.1-12.
func TestMQTT50Retain(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		pub := mq.Open(t, addr, v, clean(name(t, "pub")))
		retain := func(payload string, qos byte) {
			pub.PublishMessage(mq.Publish{Topic: topic, QoS: qos, Retain: true, Payload: []byte(payload)})
		}
		fresh := func(want string) {
			t.Helper()
			c := mq.Open(t, addr, v, clean(name(t, "fresh")))
			c.Subscribe(topic, 2)
			if want != "" {
				if p := c.ReceiveText(topic, want); !p.Retain() || p.Dup() {
					t.Errorf("got %v, want retain and no dup", p)
				}
			}
			c.Quiet()
			c.Disconnect()
		}
		live := mq.Open(t, addr, v, clean(name(t, "live")))
		live.Subscribe(topic, 2)
		for qos := range byte(3) {
			retain(fmt.Sprint("value ", qos), qos)
			if p := live.ReceiveText(topic, fmt.Sprint("value ", qos)); p.Retain() {
				t.Errorf("got %v, want no retain flag on a live copy", p)
			}
			fresh(fmt.Sprint("value ", qos))
		}
		pub.Publish(topic, 1, "not retained")
		live.ReceiveText(topic, "not retained")
		fresh("value 2")
		retain("", 1)
		live.ReceiveText(topic, "")
		fresh("")
	})
}

// Publishing where no client may: refused as any other, and $share is no topic
// at all.
func TestMQTT52PublishToDollarTrees(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	c := s.open(v5, clean("c"))
	for _, qos := range []byte{1, 2} {
		if code := c.TryPublish(mq.Publish{Topic: "$SYS/broker/clients", QoS: qos}); code != 0x87 {
			t.Errorf("QoS %d to $SYS: got %#02x, want 0x87", qos, code)
		}
		if code := c.TryPublish(mq.Publish{Topic: "$share/g/a", QoS: qos}); code != 0x90 {
			t.Errorf("QoS %d to $share: got %#02x, want 0x90", qos, code)
		}
	}
	c.Publish("$SYS/x", 0, "x")
	c.Publish("$share/g/a", 0, "x")
	c.Quiet()
	old := s.open(v4, clean("old"))
	old.Publish("$SYS/x", 1, "x")
	old.Publish("$SYS/x", 2, "x")
	old.Quiet()
}
