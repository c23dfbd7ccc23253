package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A session is resumed as it stood: first what was under way, PUBRELs and
// PUBLISHes in their order with their ids and DUP, then the queue in order
// without DUP, all within the new Receive Maximum and with full topic names.
//
// MQTT 5: 4.4.0-1, 3.3.1-1, 4.3.3-3, 4.3.3-4, 4.3.3-5, 4.3.3-6, 3.1.2-5.
// MQTT 3.1.1: 4.4.0-1, 3.3.1-1, 4.3.3-1, 4.6.0-6, 3.1.2-4.
func TestMQTT23Resume(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	sub := mq.Open(t, addr, v5, receiveMax(name(t), 6, mq.Number(mq.PropTopicAliasMaximum, 10)))
	sub.Subscribe(topic, 2)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	for i, qos := range []byte{1, 2, 1, 2, 1, 2} {
		pub.Publish(topic, qos, fmt.Sprint(i+1))
	}
	var sent []*mq.Packet
	for range 6 {
		sent = append(sent, sub.Await(mq.PUBLISH, 0))
	}
	for _, i := range []int{1, 3} { // messages 2 and 4 get as far as PUBREL
		sub.Send(mq.Ack{Type: mq.PUBREC, ID: sent[i].ID})
		sub.Await(mq.PUBREL, sent[i].ID)
	}
	sub.Close()
	for i := 7; i <= 12; i++ {
		pub.Publish(topic, 1, fmt.Sprint(i))
	}

	sub = mq.Open(t, addr, v5, receiveMax(name(t), 6, mq.Number(mq.PropTopicAliasMaximum, 10)))
	var publishes, pubrels []uint16
	for range 6 {
		p := sub.Next()
		switch p.Type {
		case mq.PUBREL:
			pubrels = append(pubrels, p.ID)
		case mq.PUBLISH:
			publishes = append(publishes, p.ID)
			i := slices.IndexFunc(sent, func(q *mq.Packet) bool { return q.ID == p.ID })
			if i < 0 || !p.Dup() || p.Topic != topic || string(p.Payload) != string(sent[i].Payload) || p.QoS() != sent[i].QoS() {
				t.Errorf("got %v, want one of %v again, with DUP and its topic", p, sent)
			}
		default:
			t.Fatalf("got %v", p)
		}
	}
	if want := []uint16{sent[1].ID, sent[3].ID}; !slices.Equal(pubrels, want) {
		t.Errorf("PUBRELs came for %v, want %v", pubrels, want)
	}
	if want := []uint16{sent[0].ID, sent[2].ID, sent[4].ID, sent[5].ID}; !slices.Equal(publishes, want) {
		t.Errorf("PUBLISHes came again for %v, want %v", publishes, want)
	}
	sub.Quiet() // the window of six is full
	for _, id := range pubrels {
		sub.Send(mq.Ack{Type: mq.PUBCOMP, ID: id})
	}
	finish(sub, 1, []uint16{sent[0].ID, sent[2].ID, sent[4].ID})
	finish(sub, 2, []uint16{sent[5].ID})
	for i := 7; i <= 12; i++ {
		if p := sub.Receive(); string(p.Payload) != fmt.Sprint(i) || p.Dup() {
			t.Errorf("got %v, want message %d for the first time", p, i)
		}
	}
	sub.Quiet()
}

// The new Receive Maximum rules a resume, also where it is smaller than what
// was under way.
func TestMQTT23ResumeWithinASmallerWindow(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	sub := mq.Open(t, addr, v5, receiveMax(name(t), 25))
	sub.Subscribe(topic, 1)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	publishMany(t, pub, topic, 1, 1, 30)
	var ids []uint16
	for range 25 {
		ids = append(ids, sub.Await(mq.PUBLISH, 0).ID)
	}
	sub.Quiet()
	sub.Close()

	sub = mq.Open(t, addr, v5, receiveMax(name(t), 5))
	for i := 1; i <= 30; {
		var open []uint16
		for range 5 {
			p := sub.Await(mq.PUBLISH, 0)
			if string(p.Payload) != fmt.Sprint(i) || p.Dup() != (i <= 25) || i <= 25 && p.ID != ids[i-1] {
				t.Fatalf("got %v, want message %d, DUP and the old id up to 25", p, i)
			}
			open = append(open, p.ID)
			i++
		}
		sub.Quiet()
		finish(sub, 1, open)
	}
	sub.Quiet()
}

// The same across a killed server.
//
// MQTT 5: 4.4.0-1, 4.1.0-1.
// MQTT 3.1.1: 4.4.0-1, 4.1.0-1.
func TestMQTT23ResumeAfterKill(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	sub := s.open(v5, receiveMax("sub", 4))
	sub.Subscribe("t", 2)
	pub := s.open(v5, clean("pub"))
	for i := range 8 {
		pub.Publish("t", byte(1+i%2), fmt.Sprint(i+1))
	}
	var sent []*mq.Packet
	for range 4 {
		sent = append(sent, sub.Await(mq.PUBLISH, 0))
	}
	s.restart()
	sub = s.open(v5, receiveMax("sub", 4))
	for _, want := range sent {
		if p := sub.Await(mq.PUBLISH, 0); p.ID != want.ID || !p.Dup() || string(p.Payload) != string(want.Payload) {
			t.Errorf("got %v, want %v again with DUP", p, want)
		}
	}
	sub.Quiet()
	for _, p := range sent {
		finish(sub, p.QoS(), []uint16{p.ID})
	}
	sub.ReceiveAll("5", "6", "7", "8")
	sub.Quiet()
}

// Nothing is lost while the subscriber comes and goes all the time.
func TestMQTT24NoLossAtReconnect(t *testing.T) {
	addr := plain(t)
	const n, reconnects = 20_000, 150
	topic := name(t)
	m := receiveMax(name(t), 100)
	sub := mq.Open(t, addr, v5, m)
	sub.Subscribe(topic, 1)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	done := make(chan struct{})
	go func() {
		defer close(done)
		flood(t, pub.Conn, topic, n)
	}()
	rng := rand.New(rand.NewPCG(24, 0))
	seen := make([]bool, n+1)
	left, cuts := n, 0
	for left > 0 {
		if cuts < reconnects && rng.IntN(n/reconnects) == 0 {
			cuts++
			if cuts%3 > 0 {
				sub.Reset()
			}
			sub = mq.Open(t, addr, v5, m)
		}
		p := sub.Await(mq.PUBLISH, 0)
		var i int
		if _, err := fmt.Sscan(string(p.Payload), &i); err != nil {
			t.Fatalf("got %v", p)
		}
		if !seen[i] {
			seen[i] = true
			left--
		}
		sub.Send(mq.Ack{Type: mq.PUBACK, ID: p.ID})
	}
	<-done
	t.Logf("%d messages through %d reconnects", n, cuts)
}

// flood publishes numbers at QoS 1 with a hundred under way, from a goroutine.
func flood(t testing.TB, c *mq.Conn, topic string, n int) {
	const window = 100
	acked := 0
	for i := 1; i <= n; i++ {
		if err := c.Write(mq.Publish{Topic: topic, QoS: 1, ID: uint16(1 + i%60000), Payload: fmt.Append(nil, i)}); err != nil {
			t.Errorf("publish %d: %v", i, err)
			return
		}
		for ; i-acked >= window || i == n && acked < n; acked++ {
			if p, err := c.Read(mq.Patience); err != nil || p.Type != mq.PUBACK || p.Code >= 0x80 {
				t.Errorf("acknowledgement %d: got %v, %v", acked+1, p, err)
				return
			}
		}
	}
}

const noon = "2026-03-09T12:00:00Z" // a Monday

// Message expiry counts down wherever a message waits, and what has expired is
// never started.
//
// MQTT 5: 3.3.2-5, 3.3.2-6.
func TestMQTT25MessageExpiry(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	expiring := func(topic, payload string, seconds uint32, retain bool) mq.Publish {
		return mq.Publish{
			Topic: topic, QoS: 1, Retain: retain, Payload: []byte(payload),
			Properties: mq.Properties{mq.Number(mq.PropMessageExpiry, seconds)},
		}
	}
	sub := s.open(v5, receiveMax("sub", 1))
	sub.Subscribe("t/#", 1)
	pub := s.open(v5, clean("pub"))

	// Live: nothing waited, nothing is taken off; none is added where none was.
	pub.PublishMessage(expiring("t/live", "live", 100, false))
	if n, ok := sub.ReceiveText("t/live", "live").Properties.Number(mq.PropMessageExpiry); !ok || n != 100 {
		t.Errorf("live: expiry %d %t, want 100", n, ok)
	}
	pub.Publish("t/live", 1, "without")
	if n, ok := sub.ReceiveText("t/live", "without").Properties.Number(mq.PropMessageExpiry); ok {
		t.Errorf("an expiry of %d was added", n)
	}

	// Behind a full window, in the queue of a connected client.
	pub.Publish("t/window", 1, "blocks")
	first := sub.Await(mq.PUBLISH, 0)
	pub.PublishMessage(expiring("t/window", "short", 10, false))
	pub.PublishMessage(expiring("t/window", "long", 100, false))
	s.advance(30 * time.Second)
	finish(sub, 1, []uint16{first.ID})
	if n, _ := sub.ReceiveText("t/window", "long").Properties.Number(mq.PropMessageExpiry); n != 70 {
		t.Errorf("behind a full window: expiry %d, want 70", n)
	}

	// Begun before it expired: it completes, also after a reconnect.
	pub.PublishMessage(expiring("t/begun", "begun", 10, false))
	begun := sub.Await(mq.PUBLISH, 0)
	sub.Close()

	// In the queue of an absent one, and retained.
	pub.PublishMessage(expiring("t/queue", "short", 10, true))
	pub.PublishMessage(expiring("t/queue", "long", 100, true))
	pub.PublishMessage(expiring("t/gone", "gone", 10, true))
	pub.PublishMessage(mq.Publish{Topic: "t/queue", QoS: 1, Payload: []byte("without")})
	s.advance(40 * time.Second)
	s.restart()

	sub = s.open(v5, receiveMax("sub", 10))
	p := sub.Await(mq.PUBLISH, 0)
	if p.ID != begun.ID || !p.Dup() {
		t.Errorf("got %v, want the exchange that had begun", p)
	}
	if n, ok := p.Properties.Number(mq.PropMessageExpiry); ok && n > 10 {
		t.Errorf("resent with expiry %d: underflow", n)
	}
	finish(sub, 1, []uint16{p.ID})
	if n, _ := sub.ReceiveText("t/queue", "long").Properties.Number(mq.PropMessageExpiry); n != 60 {
		t.Errorf("queued: expiry %d, want 60", n)
	}
	if n, ok := sub.ReceiveText("t/queue", "without").Properties.Number(mq.PropMessageExpiry); ok {
		t.Errorf("queued: an expiry of %d was added", n)
	}
	sub.Quiet()
	late := s.open(v5, clean("late"))
	late.Subscribe("t/#", 1)
	if n, _ := late.ReceiveText("t/queue", "long").Properties.Number(mq.PropMessageExpiry); n != 60 {
		t.Errorf("retained: expiry %d, want 60", n)
	}
	late.Quiet()
	s.advance(time.Hour)
	later := s.open(v5, clean("later"))
	later.Subscribe("t/#", 1)
	later.Quiet()
}

// An interval of 0 is for whoever is there at once, and told so: it is delivered
// live, and to nobody who comes a second later, neither queued nor retained.
func TestMQTT25ExpiryZero(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	live := s.open(v5, clean("live"))
	live.Subscribe("t", 2)
	away := s.open(v5, durable(v5, "away"))
	away.Subscribe("t", 2)
	away.Disconnect()
	pub := s.open(v5, clean("pub"))
	for qos := range byte(3) {
		pub.PublishMessage(mq.Publish{
			Topic: "t", QoS: qos, Retain: qos == 1, Payload: []byte("now"), Properties: mq.Properties{mq.Number(mq.PropMessageExpiry, 0)},
		})
		p := live.ReceiveText("t", "now")
		if got, there := p.Properties.Number(mq.PropMessageExpiry); !there || got != 0 {
			t.Errorf("QoS %d: got %v, want an interval of 0", qos, p)
		}
	}
	s.advance(time.Second)
	away = s.open(v5, durable(v5, "away"))
	away.Quiet()
	late := s.open(v5, clean("late"))
	late.Subscribe("t", 1)
	late.Quiet()
	if got := s.metric("bellwire_retained_messages"); got != 0 {
		t.Errorf("%v messages are retained", got)
	}
}

// A retained message without expiry does not get one by itself: a day, a year
// later it is there.
func TestMQTT25RetainedStays(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	s.open(v5, clean("pub")).PublishMessage(mq.Publish{Topic: "t", QoS: 1, Retain: true, Payload: []byte("still")})
	s.advance(366 * 24 * time.Hour)
	sub := s.open(v5, clean("sub"))
	sub.Subscribe("t", 1)
	sub.ReceiveText("t", "still")
}

// A message too large for a client counts as done: it takes no id and no slot,
// and its neighbours arrive.
//
// MQTT 5: 3.1.2-24, 3.1.2-25.
func TestMQTT26ClientsMaximumPacketSize(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	m := receiveMax(name(t), 2, mq.Number(mq.PropMaximumPacketSize, 200))
	sub := mq.Open(t, addr, v5, m)
	sub.Subscribe(topic, 2)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	exact := sized(t, topic, 200)
	over := make([]byte, len(exact.Payload)+3) // at QoS 0 the packet id is spared
	round := func(mark string) {
		for i := range 5 {
			pub.PublishMessage(mq.Publish{Topic: topic, QoS: byte(i % 3), Payload: over})
			pub.Publish(topic, 1, fmt.Sprint(mark, i))
		}
		pub.PublishMessage(exact)
	}
	receive := func(mark string) {
		t.Helper()
		for i := range 5 {
			sub.ReceiveText(topic, fmt.Sprint(mark, i))
		}
		sub.ReceiveText(topic, string(exact.Payload))
		sub.Quiet()
	}
	round("live")
	receive("live")
	sub.Close()
	round("queued")
	sub = mq.Open(t, addr, v5, m)
	receive("queued")
}

// Who comes back and takes smaller packets than before is not sent again what is too large now.
// At QoS 2 the exchange is completed all the same: the client may have the packet id from before,
// and would take for that event whatever comes under it later.
//
// MQTT 5: 3.1.2-24, 3.1.2-25.
func TestMQTT26ResumeWithSmallerPackets(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	sub := mq.Open(t, addr, v5, durable(v5, name(t)))
	sub.Subscribe(topic, 2)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	large := make([]byte, 500)
	var ids []uint16
	for _, m := range []mq.Publish{{QoS: 1, Payload: large}, {QoS: 2, Payload: large}, {QoS: 2, Payload: []byte("small")}} {
		m.Topic = topic
		pub.PublishMessage(m)
		ids = append(ids, sub.Expect(mq.PUBLISH).ID)
	}
	sub.Close()
	m := durable(v5, name(t))
	m.Properties = append(m.Properties, mq.Number(mq.PropMaximumPacketSize, 200))
	sub = mq.Open(t, addr, v5, m)
	if p := sub.Await(mq.PUBLISH, 0); p.ID != ids[2] || !p.Dup() {
		t.Errorf("got %v, want the small one again with id %d", p, ids[2])
	}
	sub.Await(mq.PUBREL, ids[1])
	sub.Send(mq.Ack{Type: mq.PUBCOMP, ID: ids[1]}, mq.Ack{Type: mq.PUBREC, ID: ids[2]})
	sub.ExpectID(mq.PUBREL, ids[2])
	sub.Send(mq.Ack{Type: mq.PUBCOMP, ID: ids[2]})
	pub.Publish(topic, 2, "next")
	sub.ReceiveText(topic, "next")
	sub.Quiet()
}

// A topic alias stands for its topic before anything is asked about it; a
// wrong one ends the connection, an unknown one too.
//
// MQTT 5: 3.3.2-7, 3.3.2-9, 3.3.2-12, 3.2.2-17.
func TestMQTT27TopicAliasIn(t *testing.T) {
	addr := plain(t)
	alias := func(topic string, n uint32, payload string) mq.Publish {
		return mq.Publish{Topic: topic, QoS: 1, Payload: []byte(payload), Properties: mq.Properties{mq.Number(mq.PropTopicAlias, n)}}
	}
	sub := mq.Open(t, addr, v5, clean(name(t, "sub")))
	sub.Subscribe(name(t)+"/#", 1)
	c, ack := mq.OpenAck(t, addr, v5, clean(name(t)))
	maximum, _ := ack.Properties.Number(mq.PropTopicAliasMaximum)
	if maximum < 2 {
		t.Fatalf("Topic Alias Maximum is %d", maximum)
	}
	c.PublishMessage(alias(name(t)+"/a", 1, "1"))
	c.PublishMessage(alias(name(t)+"/b", 2, "2"))
	c.PublishMessage(alias("", 1, "3"))
	c.PublishMessage(alias(name(t)+"/c", 1, "4")) // redefined
	c.PublishMessage(alias("", 1, "5"))
	c.PublishMessage(alias("", 2, "6"))
	for _, want := range [][2]string{{"/a", "1"}, {"/b", "2"}, {"/a", "3"}, {"/c", "4"}, {"/c", "5"}, {"/b", "6"}} {
		p := sub.ReceiveText(name(t)+want[0], want[1])
		if p.Properties.Has(mq.PropTopicAlias) {
			t.Errorf("the publisher's alias was passed on: %v", p)
		}
	}
	for _, bad := range []struct {
		m    mq.Publish
		code byte
	}{
		{alias(name(t), 0, "x"), 0x94},
		{alias("", maximum, "x"), 0x82},
	} {
		c := mq.Open(t, addr, v5, clean(name(t)))
		bad.m.ID = 1
		c.TrySend(bad.m)
		c.ClosedWith(bad.code)
	}
	again := mq.Open(t, addr, v5, clean(name(t)))
	m := alias("", 1, "x")
	m.ID = 1
	again.TrySend(m) // aliases end with their connection
	again.ClosedWith(0x82)
	sub.Quiet()
}

// What the broker sends under an alias it has told on the same connection, and
// never more aliases than the client takes.
//
// MQTT 5: 3.1.2-26, 3.1.2-27, 3.3.2-8, 3.3.2-11.
func TestMQTT27TopicAliasOut(t *testing.T) {
	addr := plain(t)
	const maximum = 2
	m := receiveMax(name(t), 100, mq.Number(mq.PropTopicAliasMaximum, maximum))
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	sub := mq.Open(t, addr, v5, m)
	sub.Subscribe(name(t)+"/#", 1)
	for range 3 {
		known := map[uint32]string{}
		for i := range 40 {
			topic := fmt.Sprintf("%s/%d", name(t), i%4)
			pub.Publish(topic, 1, topic)
			p := sub.Receive()
			got := p.Topic
			if n, ok := p.Properties.Number(mq.PropTopicAlias); ok {
				if n == 0 || n > maximum {
					t.Fatalf("alias %d, the client takes %d", n, maximum)
				}
				if got == "" {
					got = known[n]
				}
				known[n] = got
			}
			if got != topic {
				t.Fatalf("got %v for topic %q, want %q", p, got, topic)
			}
		}
		sub.Close()
		sub = mq.Open(t, addr, v5, m)
	}
	none := mq.Open(t, addr, v5, clean(name(t, "none")))
	none.Subscribe(name(t)+"/#", 1)
	for range 5 {
		pub.Publish(name(t)+"/0", 1, "x")
		if p := none.Receive(); p.Properties.Has(mq.PropTopicAlias) {
			t.Fatalf("got %v with an alias, the client takes none", p)
		}
	}
}
