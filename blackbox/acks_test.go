package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// The packet ids of the two directions have nothing to do with each other.
//
// MQTT 5: 2.2.1-3, 2.2.1-4.
// MQTT 3.1.1: 2.3.1-1, 2.3.1-4.
func TestMQTT09TwoPacketIdSpaces(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		other := mq.Open(t, addr, v5, clean(name(t, "other")))
		c := mq.Open(t, addr, v, durable(v, name(t)))
		c.Subscribe(topic, 1)
		other.Publish(topic, 1, "first")
		ours := c.Expect(mq.PUBLISH) // unacknowledged from here on
		id := ours.ID

		c.Send(mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: topic + "/x", QoS: 1}}})
		c.ExpectID(mq.SUBACK, id)
		c.Send(mq.Publish{Topic: topic + "/q1", QoS: 1, ID: id})
		if ack := c.ExpectID(mq.PUBACK, id); ack.Code >= 0x80 {
			t.Errorf("QoS 1 with the broker's id: got %v", ack)
		}
		c.Send(mq.Publish{Topic: topic + "/q2", QoS: 2, ID: id})
		if rec := c.ExpectID(mq.PUBREC, id); rec.Code >= 0x80 {
			t.Errorf("QoS 2 with the broker's id: got %v", rec)
		}
		c.Send(mq.Ack{Type: mq.PUBREL, ID: id})
		c.ExpectID(mq.PUBCOMP, id)
		c.Close()

		again := mq.Open(t, addr, v, durable(v, name(t)))
		if p := again.Expect(mq.PUBLISH); p.ID != id || !p.Dup() || string(p.Payload) != "first" {
			t.Errorf("after reconnecting: got %v, want the unacknowledged one with id %d and DUP", p, id)
		}
	})
}

// What was acknowledged is on the disk: a killed server still delivers it,
// retained value and queue entry alike.
//
// MQTT 5: 4.3.2-4, 4.5.0-1, 3.1.2-23.
// MQTT 3.1.1: 4.3.2-2, 4.5.0-1, 3.1.2-5.
func TestMQTT10PubackMeansStored(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	for round := range 3 {
		topic := fmt.Sprint("stored/", round)
		sub := s.open(v5, durable(v5, fmt.Sprint("sub", round)))
		sub.Subscribe(topic, 2)
		sub.Disconnect()
		pub := s.open(v5, clean("pub"))
		text := fmt.Sprint("acknowledged in round ", round)
		pub.PublishMessage(mq.Publish{Topic: topic, QoS: byte(1 + round%2), Retain: true, Payload: []byte(text)})
		s.restart()

		sub, ack := mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, fmt.Sprint("sub", round)))
		if !ack.SessionPresent {
			t.Errorf("round %d: the session is gone", round)
		}
		sub.ReceiveText(topic, text)
		late := s.open(v5, clean("late"))
		late.Subscribe(topic, 1)
		if p := late.ReceiveText(topic, text); !p.Retain() {
			t.Errorf("round %d: got %v, want the retained message", round, p)
		}
	}
}

// Each acknowledged publish that is alone in its batch has cost a sync of the
// disk: the counter of syncs grows at least as the count of publishes.
func TestMQTT10SyncsAreCounted(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	c := s.open(v5, clean("c"))
	c.Publish("t", 1, "warm")
	for _, qos := range []byte{1, 2} {
		const n = 50
		before := s.metric("bellwire_disk_syncs_total")
		for i := range n {
			c.Publish("t", qos, fmt.Sprint(i))
		}
		if grown := s.metric("bellwire_disk_syncs_total") - before; grown < n {
			t.Errorf("QoS %d: %d publishes one after the other cost %v syncs, want at least %d", qos, n, grown, n)
		}
	}
}

// Acknowledgements leave in the order of the publishes, whatever their QoS,
// size, topic or profile.
//
// MQTT 5: 2.2.1-5, 3.3.4-1.
// MQTT 3.1.1: 2.3.1-6, 3.3.4-1.
func TestMQTT11AcksInArrivalOrder(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		_, ack := mq.OpenAck(t, addr, v5, clean(name(t, "ask")))
		window := 200
		if n, ok := ack.Properties.Number(mq.PropReceiveMaximum); ok {
			window = min(window, int(n))
		}
		c := mq.Open(t, addr, v, clean(name(t)))
		rng := rand.New(rand.NewPCG(11, uint64(v)))
		for round := range 5 {
			checkAckOrder(t, c, rng, window, round)
		}
	})
}

func checkAckOrder(t *testing.T, c *mq.Client, rng *rand.Rand, window, round int) {
	t.Helper()
	var batch []mq.Message
	want := map[mq.Type][]uint16{}
	for i := range window {
		m := mq.Publish{
			Topic: name(t, fmt.Sprint(rng.IntN(5))), ID: uint16(1 + i), QoS: byte(1 + rng.IntN(2)),
			Retain: rng.IntN(4) == 0, Payload: make([]byte, 1+rng.IntN(2000)),
		}
		batch = append(batch, m)
		answer := mq.PUBACK
		if m.QoS == 2 {
			answer = mq.PUBREC
		}
		want[answer] = append(want[answer], m.ID)
	}
	c.Send(batch...)
	got := map[mq.Type][]uint16{}
	for range window {
		p := c.Next()
		got[p.Type] = append(got[p.Type], p.ID)
	}
	for typ, ids := range want {
		if !slices.Equal(got[typ], ids) {
			t.Fatalf("round %d: %v came for %v, want %v", round, typ, got[typ], ids)
		}
	}
	var rels []mq.Message
	for _, id := range want[mq.PUBREC] {
		rels = append(rels, mq.Ack{Type: mq.PUBREL, ID: id})
	}
	c.Send(rels...)
	for _, id := range want[mq.PUBREC] {
		c.ExpectID(mq.PUBCOMP, id)
	}
}

// A QoS 2 publish that is repeated before its PUBREL is acknowledged again and
// routed once: on one connection, after a reconnect, and after a takeover.
//
// MQTT 5: 4.3.3-8, 4.3.3-10.
// MQTT 3.1.1: 4.3.3-2.
func TestMQTT12QoS2Repeat(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		sub := mq.Open(t, addr, v, clean(name(t, "sub")))
		sub.Subscribe(topic, 2)
		c := mq.Open(t, addr, v, durable(v, name(t)))
		m := mq.Publish{Topic: topic, QoS: 2, ID: 7, Payload: []byte("once")}
		dup := m
		dup.Dup = true
		for _, again := range []mq.Publish{m, m, dup} {
			c.Send(again)
			if rec := c.ExpectID(mq.PUBREC, 7); rec.Code != 0 && rec.Code != 0x10 {
				t.Fatalf("got %v", rec)
			}
		}
		sub.ReceiveText(topic, "once")

		c.Close() // reconnect
		c = mq.Open(t, addr, v, durable(v, name(t)))
		c.Send(dup)
		c.ExpectID(mq.PUBREC, 7)

		second := mq.Open(t, addr, v, durable(v, name(t))) // takeover
		second.Send(dup)
		second.ExpectID(mq.PUBREC, 7)
		second.Send(mq.Ack{Type: mq.PUBREL, ID: 7})
		second.ExpectID(mq.PUBCOMP, 7)
		second.Publish(topic, 2, "next") // the id is free again, and order proves that nothing was doubled
		sub.ReceiveText(topic, "next")
		sub.Quiet()
	})
}

// The set of received ids survives a kill between PUBLISH and PUBREC, and
// between PUBREC and PUBREL.
//
// MQTT 5: 4.3.3-8, 4.3.3-10.
// MQTT 3.1.1: 4.3.3-2.
func TestMQTT12QoS2AcrossKill(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	for round := range 4 {
		topic := fmt.Sprint("twice/", round)
		pub := s.open(v5, durable(v5, fmt.Sprint("pub", round)))
		sub := s.open(v5, durable(v5, fmt.Sprint("sub", round)))
		sub.Subscribe(topic, 2)
		sub.Disconnect()
		m := mq.Publish{Topic: topic, QoS: 2, ID: 9, Payload: []byte("once")}
		pub.Send(m)
		if round%2 == 1 {
			pub.ExpectID(mq.PUBREC, 9)
		}
		s.restart()

		pub = s.open(v5, durable(v5, fmt.Sprint("pub", round)))
		m.Dup = true
		pub.Send(m)
		pub.ExpectID(mq.PUBREC, 9)
		pub.Send(mq.Ack{Type: mq.PUBREL, ID: 9})
		pub.ExpectID(mq.PUBCOMP, 9)
		pub.Publish(topic, 2, "next")
		sub = s.open(v5, durable(v5, fmt.Sprint("sub", round)))
		sub.ReceiveAll("once", "next")
		sub.Quiet()
	}
}

// A repeat of what was routed is told so, also if it would be refused by now: a client that
// is told that it was not would publish it anew, and one that goes by the code uses its
// packet id for another event, which is not to be taken for the repeat.
//
// MQTT 5: 4.3.3-9, 4.3.3-10.
func TestMQTT12QoS2RepeatOfWhatIsForbiddenSince(t *testing.T) {
	t.Parallel()
	policy := policyFile(t, []string{"pub", "sub"}, everything)
	s := serve(t, "--policy", policy)
	sub := s.open(v5, as("sub", clean("sub")))
	sub.Subscribe("#", 2)
	m := mq.Publish{Topic: "a", QoS: 2, ID: 7, Payload: []byte("once")}
	pub := s.open(v5, as("pub", durable(v5, "pub")))
	pub.Send(m)
	pub.ExpectID(mq.PUBREC, 7)
	sub.ReceiveText("a", "once")
	pub.Close()
	writePolicy(t, policy, []string{"pub", "sub"}, everything+`  - {id: no, deny: [publish], who: ["*@example.com"], topic: [a]}`+"\n")
	s.reload()

	pub = s.open(v5, as("pub", durable(v5, "pub")))
	m.Dup = true
	pub.Send(m)
	rec := pub.ExpectID(mq.PUBREC, 7)
	if rec.Code >= 0x80 {
		t.Errorf("the repeat: got %v", rec)
	} else {
		pub.Send(mq.Ack{Type: mq.PUBREL, ID: 7})
		pub.ExpectID(mq.PUBCOMP, 7)
	}
	for _, x := range []struct {
		topic   string
		refused bool
	}{{"a", true}, {"b", false}} { // the id is free
		pub.Send(mq.Publish{Topic: x.topic, QoS: 2, ID: 7, Payload: []byte("another")})
		if rec := pub.ExpectID(mq.PUBREC, 7); rec.Code >= 0x80 != x.refused {
			t.Errorf("another to %q: got %v", x.topic, rec)
		}
	}
	sub.ReceiveText("b", "another")
	sub.Quiet()
}

// Acknowledgements for ids that nobody knows are answered as the standard says.
//
// MQTT 5: 4.3.3-11, 3.6.2-1, 3.7.2-1.
// MQTT 3.1.1: 4.3.3-2.
func TestMQTT13UnknownIds(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		c := mq.Open(t, addr, v, clean(name(t)))
		c.Send(mq.Ack{Type: mq.PUBREL, ID: 77})
		// It may be one whose PUBCOMP was lost: complete, not an error.
		if comp := c.ExpectID(mq.PUBCOMP, 77); comp.Code != 0 {
			t.Errorf("PUBREL for an unknown id: got %v, want code 0", comp)
		}
		c.Send(mq.Ack{Type: mq.PUBREC, ID: 78})
		rel := c.ExpectID(mq.PUBREL, 78)
		if want := map[byte]byte{v4: 0, v5: 0x92}[v]; rel.Code != want {
			t.Errorf("PUBREC for an unknown id: got %v, want code %#02x", rel, want)
		}
		c.Send(mq.Ack{Type: mq.PUBACK, ID: 79}, mq.Ack{Type: mq.PUBCOMP, ID: 80})
		c.Quiet()
	})
}

// An acknowledgement that the delivery with its id does not have, or not yet, is
// a protocol error: 0x82, and in 3.1.1 the close. The delivery is not over by it.
func TestMQTT13WrongKindOfAcknowledgement(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		for _, wrong := range []struct {
			name string
			qos  byte
			acks []mq.Type // the last is wrong
		}{
			{"PUBREC at QoS 1", 1, []mq.Type{mq.PUBREC}},
			{"PUBCOMP at QoS 1", 1, []mq.Type{mq.PUBCOMP}},
			{"PUBACK at QoS 2", 2, []mq.Type{mq.PUBACK}},
			{"PUBCOMP before PUBREC", 2, []mq.Type{mq.PUBCOMP}},
			{"PUBACK after PUBREC", 2, []mq.Type{mq.PUBREC, mq.PUBACK}},
		} {
			t.Run(wrong.name, func(t *testing.T) {
				topic := name(t)
				sub := mq.Open(t, addr, v, durable(v, name(t)))
				sub.Subscribe(topic, 2)
				mq.Open(t, addr, v5, clean(name(t, "pub"))).Publish(topic, wrong.qos, "x")
				p := sub.Expect(mq.PUBLISH)
				for i, ack := range wrong.acks {
					if i > 0 {
						sub.ExpectID(mq.PUBREL, p.ID)
					}
					sub.TrySend(mq.Ack{Type: ack, ID: p.ID})
				}
				sub.ClosedWith(0x82)
				again := mq.Open(t, addr, v, durable(v, name(t)))
				if len(wrong.acks) > 1 {
					again.ExpectID(mq.PUBREL, p.ID)
				} else if r := again.Expect(mq.PUBLISH); r.ID != p.ID || !r.Dup() {
					t.Errorf("got %v, want %d again", r, p.ID)
				}
			})
		}
	})
}

// A PUBREC that refuses ends the exchange: no PUBREL follows, and the id and
// the window's slot are free.
//
// MQTT 5: 4.4.0-2.
func TestMQTT13PubrecRefusalEndsTheExchange(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	sub := mq.Open(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Properties: mq.Properties{mq.Number(mq.PropReceiveMaximum, 1)}})
	sub.Subscribe(topic, 2)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	pub.Publish(topic, 2, "refused")
	pub.Publish(topic, 2, "taken")
	p := sub.Expect(mq.PUBLISH)
	sub.Send(mq.Ack{Type: mq.PUBREC, ID: p.ID, Code: 0x99})
	sub.ReceiveText(topic, "taken") // no PUBREL in between, or this would see it
	sub.Quiet()
}

// A refused publish is told at its first acknowledgement, or in 3.1.1
// acknowledged, dropped and counted. It is never met with silence.
//
// MQTT 5: 3.4.2-1, 3.5.2-1.
// MQTT 3.1.1: 3.3.5-2.
func TestMQTT14RefusedPublish(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, `
  - {id: own, allow: [publish, subscribe], who: [ana@example.com], topic: ["ana/#"]}
  - {id: read, allow: [subscribe], who: [bob@example.com], topic: ["#"]}
`))
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("#", 2)
	c := s.open(v5, as("ana", clean("ana5")))
	for _, topic := range []string{"bob/x", "$SYS/x", "$other/x"} {
		for _, qos := range []byte{1, 2} {
			if code := c.TryPublish(mq.Publish{Topic: topic, QoS: qos}); code != 0x87 {
				t.Errorf("QoS %d to %s: got %#02x, want 0x87", qos, topic, code)
			}
		}
	}
	before := s.dropped("acl", "publish_refused")
	old := s.open(v4, as("ana", clean("ana4")))
	for _, topic := range []string{"bob/x", "$SYS/x"} {
		old.Publish(topic, 0, "x")
		old.Publish(topic, 1, "x")
		old.Publish(topic, 2, "x")
	}
	old.Quiet()
	if got := s.dropped("acl", "publish_refused") - before; got != 6 {
		t.Errorf("6 refused publishes of a 3.1.1 client were counted as %v", got)
	}
	c.Publish("ana/x", 1, "allowed")
	bob.ReceiveText("ana/x", "allowed")
	bob.Quiet()
}

// A full disk never brings a success: 0x97 with its reason, and in 3.1.1 no
// acknowledgement and the close. What was acknowledged before stays, and
// service comes back by itself.
//
// MQTT 3.1.1: 4.8.0-2.
func TestMQTT15DiskFull(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", "2026-03-09T12:00:00Z")
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	c := s.open(v5, clean("c"))
	c.Publish("t", 1, "before")
	s.disk("full")
	for _, qos := range []byte{1, 2} {
		id := c.ID()
		c.Send(mq.Publish{Topic: "t", QoS: qos, ID: id, Payload: []byte("refused")})
		answer := c.Next()
		if answer.ID != id || answer.Code != 0x97 {
			t.Errorf("QoS %d: got %v, want code 0x97", qos, answer)
		}
		if reason := answer.Properties.Text(mq.PropReasonString); !contains(reason, "disk-full") {
			t.Errorf("QoS %d: reason string %q, want disk-full in it", qos, reason)
		}
	}
	old := s.open(v4, clean("old"))
	old.TrySend(mq.Publish{Topic: "t", QoS: 1, ID: 1, Payload: []byte("refused")})
	old.ClosedWith(0)
	c.Publish("volatile", 0, "QoS 0 needs no disk")
	c.Quiet()

	s.disk("ok")
	until(t, "publishes are accepted again", mq.Patience, func() bool {
		return c.TryPublish(mq.Publish{Topic: "t", QoS: 1, Payload: []byte("after")}) == 0
	})
	sub = s.open(v5, durable(v5, "sub"))
	sub.ReceiveAll("before", "after")
	sub.Quiet()
}

// The next publish may follow the PUBREL of the one before in one write, with
// the same packet id: both are routed.
//
// MQTT 5: 4.3.3-11, 4.3.3-12.
// MQTT 3.1.1: 4.3.3-2.
func TestMQTT12PacketIdReusedAtOnce(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		for how, m := range map[string]mq.Connect{"clean": clean(name(t, "clean")), "durable": durable(v, name(t, "durable"))} {
			t.Run(how, func(t *testing.T) {
				sub := mq.Open(t, addr, v5, clean(name(t, "sub")))
				sub.Subscribe(name(t), 0)
				c := mq.Open(t, addr, v, m)
				publish := func(payload string, dup bool) mq.Publish {
					return mq.Publish{Topic: name(t), QoS: 2, ID: 5, Dup: dup, Payload: []byte(payload)}
				}
				c.Send(publish("a", false), publish("a", true))
				c.ExpectID(mq.PUBREC, 5)
				c.ExpectID(mq.PUBREC, 5)
				for _, next := range []string{"b", "c"} {
					c.Send(mq.Ack{Type: mq.PUBREL, ID: 5}, publish(next, false))
					c.ExpectID(mq.PUBCOMP, 5)
					c.ExpectID(mq.PUBREC, 5)
				}
				sub.ReceiveAll("a", "b", "c")
				sub.Quiet()
			})
		}
	})
}
