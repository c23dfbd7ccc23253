package blackbox

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// rich carries every property that a publisher may send on to subscribers.
var rich = mq.Properties{
	mq.Number(mq.PropPayloadFormat, 1),
	mq.Text(mq.PropContentType, "text/plain; charset=utf-8"),
	mq.Text(mq.PropResponseTopic, "reply/to/me"),
	mq.Binary(mq.PropCorrelationData, []byte{0, 1, 0xFF, 0x80}),
	mq.User("b", "2"), mq.User("a", "1"), mq.User("b", "2"), mq.User("", ""), mq.User("ключ", "значение"),
}

// checkRich wants every property of rich, and User Properties in order.
func checkRich(t testing.TB, how string, p *mq.Packet) {
	t.Helper()
	for _, want := range rich {
		i := slices.IndexFunc(p.Properties, func(q mq.Property) bool { return q.ID == want.ID && bytes.Equal(q.Value, want.Value) })
		if i < 0 {
			t.Errorf("%s: property %#02x % x did not arrive with %v", how, want.ID, want.Value, p)
		}
	}
	if got, want := p.Properties.User(), rich.User(); !slices.Equal(got, want) {
		t.Errorf("%s: user properties %q, want %q", how, got, want)
	}
}

// Properties arrive byte for byte: live at every QoS, from the queue, retained,
// and as a will, also after a kill.
//
// MQTT 5: 3.3.2-4, 3.3.2-15, 3.3.2-16, 3.3.2-17, 3.3.2-18, 3.3.2-20, 3.1.3-10.
func TestMQTT28PropertiesArrive(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	pub := s.open(v5, clean("pub"))
	live := s.open(v5, clean("live"))
	live.Subscribe("t/#", 2)
	for qos := range byte(3) {
		pub.PublishMessage(mq.Publish{Topic: "t/live", QoS: qos, Properties: rich, Payload: []byte("text")})
		checkRich(t, fmt.Sprint("live, QoS ", qos), live.ReceiveText("t/live", "text"))
	}
	away := s.open(v5, durable(v5, "away"))
	away.Subscribe("t/#", 2)
	away.Disconnect()
	pub.PublishMessage(mq.Publish{Topic: "t/kept", QoS: 1, Retain: true, Properties: rich, Payload: []byte("text")})
	dying := s.open(v5, mq.Connect{
		ClientID: "dying", Clean: true,
		Will: &mq.Will{Topic: "t/will", QoS: 1, Properties: rich, Payload: []byte("text")},
	})
	dying.Close()
	live.ReceiveText("t/kept", "text")
	checkRich(t, "will", live.ReceiveText("t/will", "text"))
	s.restart()

	away = s.open(v5, durable(v5, "away"))
	checkRich(t, "queued", away.ReceiveText("t/kept", "text"))
	checkRich(t, "queued will", away.ReceiveText("t/will", "text"))
	late := s.open(v5, clean("late"))
	late.Subscribe("t/#", 1)
	checkRich(t, "retained", late.ReceiveText("t/kept", "text"))
	old := s.open(v4, clean("old"))
	old.Subscribe("t/#", 1)
	old.ReceiveText("t/kept", "text")
}

// Payloads are bytes: empty, binary and as large as announced, in both
// versions and at every QoS.
func TestMQTT28PayloadsAreBytes(t *testing.T) {
	addr := plain(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, payload := range []string{"", "\x00", string(every), strings.Repeat(string(every), 500)} {
		for _, v := range []byte{v4, v5} {
			sub := mq.Open(t, addr, v, clean(name(t, "sub")))
			sub.Subscribe(name(t), 2)
			for qos := range byte(3) {
				pub := mq.Open(t, addr, 9-v, clean(name(t, "pub")))
				pub.Publish(name(t), qos, payload)
				if p := sub.ReceiveText(name(t), payload); p.QoS() != qos {
					t.Errorf("QoS %d arrived as %v", qos, p)
				}
			}
		}
	}
}

// A copy has the lower QoS of publish and subscription.
//
// MQTT 5: 3.8.4-8, 2.2.1-2, 4.3.1-1.
// MQTT 3.1.1: 3.8.4-6, 2.3.1-5, 4.3.1-1.
func TestMQTT29DeliveredQoS(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
		for granted := range byte(3) {
			sub := mq.Open(t, addr, v, clean(name(t, "sub")))
			sub.Subscribe(name(t), granted)
			for qos := range byte(3) {
				pub.Publish(name(t), qos, "x")
				if p := sub.Receive(); p.QoS() != min(granted, qos) {
					t.Errorf("published at %d, subscribed at %d: got %v", qos, granted, p)
				}
			}
		}
	})
}

// No Local keeps a client's own messages from it, live and queued, by client
// id and not by connection.
//
// MQTT 5: 3.8.3-3.
func TestMQTT29NoLocal(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	c := mq.Open(t, addr, v5, durable(v5, name(t)))
	c.SubscribeTo(nil, mq.Filter{Filter: topic, QoS: 1, NoLocal: true})
	other := mq.Open(t, addr, v5, clean(name(t, "other")))
	c.Publish(topic, 0, "own")
	c.Publish(topic, 1, "own")
	other.Publish(topic, 1, "other's")
	c.ReceiveText(topic, "other's")
	c.Quiet()
	c = mq.Open(t, addr, v5, durable(v5, name(t)))
	c.Publish(topic, 1, "own, after a reconnect")
	other.Publish(topic, 1, "other's again")
	c.ReceiveText(topic, "other's again")
	c.Quiet()

	// What is retained stays the client's own, in whichever session it was published.
	c.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("own, retained")})
	other.PublishMessage(mq.Publish{Topic: topic + "/other", QoS: 1, Retain: true, Payload: []byte("other's, retained")})
	both := []mq.Filter{{Filter: topic + "/#", QoS: 1, NoLocal: true}}
	for _, anew := range []mq.Connect{clean(name(t)), durable(v5, name(t))} {
		c = mq.Open(t, addr, v5, anew)
		c.SubscribeTo(nil, both...)
		c.ReceiveText(topic+"/other", "other's, retained")
		c.Quiet()
	}
	other.SubscribeTo(nil, both...)
	other.ReceiveText(topic, "own, retained")
	other.Quiet()
}

// Retain As Published keeps the publisher's flag; without it live copies have
// none. The same from the queue.
//
// MQTT 5: 3.3.1-12, 3.3.1-13.
func TestMQTT29RetainAsPublished(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	subscribe := func(id string, rap bool) *mq.Client {
		c := mq.Open(t, addr, v5, durable(v5, name(t, id)))
		c.SubscribeTo(nil, mq.Filter{Filter: topic, QoS: 1, RetainAsPublished: rap, RetainHandling: 2})
		return c
	}
	with, without := subscribe("with", true), subscribe("without", false)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	check := func(how string) {
		t.Helper()
		for _, retain := range []bool{true, false} {
			if p := with.Receive(); p.Retain() != retain {
				t.Errorf("%s, Retain As Published: got %v, want retain=%t", how, p, retain)
			}
			if p := without.Receive(); p.Retain() {
				t.Errorf("%s: got %v, want retain=false", how, p)
			}
		}
	}
	publish := func() {
		pub.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("x")})
		pub.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Payload: []byte("x")})
	}
	publish()
	check("live")
	with.Disconnect()
	without.Disconnect()
	publish()
	with = mq.Open(t, addr, v5, durable(v5, name(t, "with")))
	without = mq.Open(t, addr, v5, durable(v5, name(t, "without")))
	check("queued")
}

// Retain Handling: 0 sends at every subscribe, 1 only for a new subscription,
// 2 never.
//
// MQTT 5: 3.3.1-9, 3.3.1-10, 3.3.1-11, 3.8.4-4.
func TestMQTT29RetainHandling(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	pub.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("kept")})
	for handling, sends := range [][2]bool{{true, true}, {true, false}, {false, false}} {
		c := mq.Open(t, addr, v5, clean(name(t, fmt.Sprint(handling))))
		for i, want := range sends {
			c.SubscribeTo(nil, mq.Filter{Filter: topic, QoS: 1, RetainHandling: byte(handling)})
			if want {
				if p := c.ReceiveText(topic, "kept"); !p.Retain() {
					t.Errorf("handling %d, subscribe %d: got %v, want retain", handling, i+1, p)
				}
			}
			c.Quiet()
		}
	}
	// For an existing subscription of a resumed session, 1 sends nothing.
	c := mq.Open(t, addr, v5, durable(v5, name(t, "resumed")))
	c.SubscribeTo(nil, mq.Filter{Filter: topic, QoS: 1, RetainHandling: 1})
	c.ReceiveText(topic, "kept")
	c.Disconnect()
	c = mq.Open(t, addr, v5, durable(v5, name(t, "resumed")))
	c.SubscribeTo(nil, mq.Filter{Filter: topic, QoS: 1, RetainHandling: 1})
	c.Quiet()
}

// Overlapping filters make one copy with the highest QoS and all identifiers;
// retained and queued copies have them too, and a new SUBSCRIBE replaces the
// identifier.
//
// MQTT 5: 3.3.4-2, 3.3.4-3, 3.3.4-4, 3.8.4-3.
func TestMQTT29SubscriptionIdentifiers(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	id := func(n uint32) mq.Properties { return mq.Properties{mq.Number(mq.PropSubscriptionID, n)} }
	check := func(how string, p *mq.Packet, want ...uint32) {
		t.Helper()
		got := p.Properties.Numbers(mq.PropSubscriptionID)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: identifiers %v, want %v", how, got, want)
		}
	}
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	pub.PublishMessage(mq.Publish{Topic: topic + "/a", QoS: 1, Retain: true, Payload: []byte("kept")})
	c := mq.Open(t, addr, v5, durable(v5, name(t)))
	c.SubscribeTo(id(268435455), mq.Filter{Filter: topic + "/+", QoS: 0})
	check("retained", c.ReceiveText(topic+"/a", "kept"), 268435455)
	c.SubscribeTo(id(2), mq.Filter{Filter: topic + "/a", QoS: 2, RetainHandling: 2})
	c.SubscribeTo(nil, mq.Filter{Filter: topic + "/#", QoS: 1, RetainHandling: 2}) // has none

	pub.Publish(topic+"/a", 2, "live")
	p := c.ReceiveText(topic+"/a", "live")
	check("live", p, 2, 268435455)
	if p.QoS() != 2 {
		t.Errorf("got %v, want the highest QoS of the filters that match", p)
	}
	pub.Publish(topic+"/b", 1, "other")
	check("one match", c.ReceiveText(topic+"/b", "other"), 268435455)
	c.Quiet() // and no second copies

	c.SubscribeTo(id(3), mq.Filter{Filter: topic + "/a", QoS: 1, RetainHandling: 2})
	c.Disconnect()
	pub.Publish(topic+"/a", 1, "queued")
	c = mq.Open(t, addr, v5, durable(v5, name(t)))
	check("queued, replaced", c.ReceiveText(topic+"/a", "queued"), 3, 268435455)
	c.Quiet()
	old := mq.Open(t, addr, v4, clean(name(t, "old")))
	old.Subscribe(topic+"/+", 1)
	old.Subscribe(topic+"/a", 1)
	old.Await(mq.PUBLISH, 0)
	old.Await(mq.PUBLISH, 0) // retained, once for each SUBSCRIBE
	pub.Publish(topic+"/a", 1, "once")
	old.Await(mq.PUBLISH, 0)
	old.Quiet()
}
