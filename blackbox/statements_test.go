package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Tests of single statements of the standards that no other test is about.

// Names and filters are what their bytes are: nothing is stripped, folded, composed or
// made of one piece, neither where they match nor in what arrives.
//
// MQTT 5: 1.5.4-3, 4.7.3-4, 3.10.4-1. MQTT 3.1.1: 1.5.3-3, 4.7.3-4, 3.10.4-1.
func TestNamesAreTheirBytes(t *testing.T) {
	addr := plain(t)
	base := name(t)
	names := []string{
		base + "/a", base + "/A", base + "/a/", base + "//a", base + "/ a", base + "/\ufeffa", base + "/a\ufeff",
		base + "/\u00e9", base + "/e\u0301", base + "/ss", base + "/\u00df", base + "/%61", base + "/.", base + "/..", base + "/a\\",
	}
	versions(t, func(t *testing.T, v byte) {
		for i, own := range names {
			sub := mq.Open(t, addr, v, clean(name(t, fmt.Sprint("sub", i))))
			sub.Subscribe(own, 0)
			pub := mq.Open(t, addr, v, clean(name(t, fmt.Sprint("pub", i))))
			for _, n := range names {
				pub.Publish(n, 0, n)
			}
			pub.Quiet()
			sub.ReceiveText(own, own)
			sub.Quiet()
			if i > 0 {
				sub.Unsubscribe(names[0]) // another's: the own one stays
				pub.Publish(own, 0, "still")
				sub.ReceiveText(own, "still")
			}
			sub.Disconnect()
			pub.Disconnect()
		}
	})
}

// SUBSCRIBE, UNSUBSCRIBE and PINGREQ are answered each, in their order and with their
// ids, by one packet however many filters they have, of which each has its own code in
// its own place.
//
// MQTT 5: 2.2.1-6, 3.8.4-1, 3.8.4-2, 3.8.4-5, 3.8.4-6, 3.9.3-1, 3.10.4-4, 3.10.4-5, 3.10.4-6, 3.11.3-1, 3.12.4-1.
// MQTT 3.1.1: 2.3.1-7, 3.8.4-1, 3.8.4-2, 3.8.4-4, 3.8.4-5, 3.9.3-1, 3.10.4-4, 3.10.4-5, 3.10.4-6, 3.12.4-1.
func TestRequestsAreAnswered(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		c := mq.Open(t, addr, v, clean(name(t)))
		refused := map[byte]byte{v4: 0x80, v5: 0x8F}[v]
		a, b, d := name(t, "a"), name(t, "b"), name(t, "d")
		c.Send(mq.Subscribe{ID: 65535, Filters: []mq.Filter{{Filter: a, QoS: 2}, {Filter: "no/#/filter"}, {Filter: b}, {Filter: d, QoS: 1}}})
		if p := c.ExpectID(mq.SUBACK, 65535); !slices.Equal(p.Codes, []byte{2, refused, 0, 1}) {
			t.Errorf("got %v", p)
		}
		c.Send(mq.Subscribe{ID: 7, Filters: []mq.Filter{{Filter: a, QoS: 1}}})
		c.ExpectID(mq.SUBACK, 7)
		c.Send(mq.Unsubscribe{ID: 300, Filters: []string{b, name(t, "never"), d}})
		p := c.ExpectID(mq.UNSUBACK, 300)
		if v == v5 && !slices.Equal(p.Codes, []byte{0, 0x11, 0}) {
			t.Errorf("got %v", p)
		}
		c.Send(mq.Unsubscribe{ID: 301, Filters: []string{name(t, "never")}})
		c.ExpectID(mq.UNSUBACK, 301)
		c.Send(mq.Ping, mq.Ping, mq.Ping)
		for range 3 {
			c.Expect(mq.PINGRESP)
		}
		c.Publish(b, 0, "gone")
		c.Publish(a, 0, "there")
		c.ReceiveText(a, "there")
	})
}

// CONNACK is the first thing a client is sent, and one, whatever waits for it; what a
// client sends behind a CONNECT that is refused is not looked at; and before CONNACK
// there is no DISCONNECT.
//
// MQTT 5: 3.2.0-1, 3.2.0-2, 3.2.2-1, 3.1.4-5, 3.1.4-6, 3.14.0-1, 3.2.2-7.
// MQTT 3.1.1: 3.2.0-1, 3.1.4-4, 3.1.4-5, 3.2.2-5.
func TestConnackComesFirst(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		c := mq.Open(t, addr, v, durable(v, name(t)))
		c.Subscribe(topic, 1)
		c.Disconnect()
		pub := mq.Open(t, addr, v, clean(name(t, "pub")))
		pub.Publish(topic, 1, "waits")
		for range 3 {
			again := mq.Dial(t, addr, v)
			again.Send(durable(v, name(t)), mq.Ping)
			if p := again.Expect(mq.CONNACK); p.Code != 0 || !p.SessionPresent || p.Raw[2] != 1 {
				t.Fatalf("got %v: % x", p, p.Raw)
			}
			again.Await(mq.PINGRESP, 0)
			if p := again.Await(mq.PUBLISH, 0); string(p.Payload) != "waits" {
				t.Errorf("got %v", p)
			}
			again.Quiet() // no second CONNACK
			again.Close()
		}
		witness := mq.Open(t, addr, v, clean(name(t, "witness")))
		witness.Subscribe(name(t, "refused"), 0)
		refused := mq.Dial(t, addr, v)
		refused.TrySend(mq.Connect{ClientID: "not\na client id", Clean: true},
			mq.Publish{Topic: name(t, "refused"), Payload: []byte("behind a refusal")}, mq.Ping)
		if got := refused.Closed(); len(got) != 1 || got[0].Type != mq.CONNACK || got[0].Code == 0 {
			t.Errorf("got %v, want a CONNACK that refuses and no more", got)
		}
		witness.Quiet()
	})
}

// Client ids that each server has to take are taken, and one is made for who has none:
// nobody else's, told in MQTT 5, and good for all that an id is good for.
//
// MQTT 5: 3.1.3-5, 3.1.3-6, 3.1.3-7, 3.2.2-16, 3.1.4-3. MQTT 3.1.1: 3.1.3-5, 3.1.3-6.
func TestClientIDs(t *testing.T) {
	addr := plain(t)
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	versions(t, func(t *testing.T, v byte) {
		for _, id := range []string{"0", letters[:23], letters[23:46], letters[39:]} {
			mq.Open(t, addr, v, clean(id)).Disconnect()
		}
		// All are there at once: an id that two had would end one of them.
		var all []*mq.Client
		told := map[string]bool{}
		for range 20 {
			c, ack := mq.OpenAck(t, addr, v, clean(""))
			all = append(all, c)
			if v < v5 {
				continue
			}
			id := ack.Properties.Text(mq.PropAssignedClientID)
			if id == "" || told[id] {
				t.Fatalf("assigned %q, after %v", id, told)
			}
			told[id] = true
		}
		for _, c := range all {
			c.Quiet()
		}
		for id := range told {
			mq.Open(t, addr, v, clean(id))
		}
		for _, c := range all {
			if v == v5 {
				c.ClosedWith(0x8E)
			}
		}
	})
	c, ack := mq.OpenAck(t, addr, v5, mq.Connect{Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 60)}})
	c.Subscribe(name(t), 0)
	c.Disconnect()
	m := durable(v5, ack.Properties.Text(mq.PropAssignedClientID))
	if _, ack := mq.OpenAck(t, addr, v5, m); !ack.SessionPresent {
		t.Error("the session of an id that was assigned was not kept")
	}
}

// A small reason to refuse, by what is answered: who takes only small packets, or no
// problem information, is sent the answer without its Reason String, and never more.
//
// MQTT 5: 3.1.2-24, 3.1.2-29, 3.2.2-19, 3.4.2-2, 3.5.2-2, 3.6.2-2, 3.6.2-3, 3.7.2-2, 3.7.2-3, 3.9.2-1, 3.11.2-1, 3.11.2-2, 3.14.2-3, 3.14.2-4.
func TestReasonsFit(t *testing.T) {
	addr := plain(t)
	const small = 64 // bytes; CONNACK needs some of them
	for _, x := range []struct {
		name   string
		send   mq.Message
		answer mq.Type
		code   byte
	}{
		{"PUBACK", mq.Publish{Topic: "$SYS/no", QoS: 1, ID: 1}, mq.PUBACK, 0x87},
		{"PUBREC", mq.Publish{Topic: "$SYS/no", QoS: 2, ID: 1}, mq.PUBREC, 0x87},
		{"PUBREL", mq.Ack{Type: mq.PUBREC, ID: 9}, mq.PUBREL, 0x92},
		{"PUBCOMP", mq.Ack{Type: mq.PUBREL, ID: 9}, mq.PUBCOMP, 0},
		{"SUBACK", mq.Subscribe{ID: 1, Filters: slices.Repeat([]mq.Filter{{Filter: "no/#/filter"}}, 20)}, mq.SUBACK, 0},
		{"UNSUBACK", mq.Unsubscribe{ID: 1, Filters: slices.Repeat([]string{"no/#/filter"}, 20)}, mq.UNSUBACK, 0},
		{"DISCONNECT", mq.Publish{Topic: "a", Properties: mq.Properties{mq.Text(mq.PropResponseTopic, "no/#/name/of/a/topic")}}, mq.DISCONNECT, 0x82},
		{"CONNACK", nil, mq.CONNACK, 0x85},
	} {
		for _, with := range []struct {
			name  string
			props mq.Properties
			none  bool
		}{
			{"all", nil, x.answer == mq.PUBCOMP},
			{"no problem information", mq.Properties{mq.Number(mq.PropRequestProblemInfo, 0)}, true},
			{"small packets", mq.Properties{mq.Number(mq.PropMaximumPacketSize, small)}, x.name == "PUBACK" || x.name == "PUBREC" || x.name == "PUBCOMP"},
			{"smaller ones", mq.Properties{mq.Number(mq.PropMaximumPacketSize, 30)}, true},
		} {
			t.Run(x.name+" with "+with.name, func(t *testing.T) {
				connect := mq.Connect{ClientID: name(t)[:8], Clean: true, Properties: with.props}
				c := mq.Dial(t, addr, v5)
				if x.send == nil {
					connect.ClientID = "not\na client id"
					c.Send(connect)
				} else {
					c.Connect(connect)
					c.TrySend(x.send)
				}
				p := c.Expect(x.answer)
				if x.code != 0 && p.Code != x.code {
					t.Errorf("got %v, want code %#02x", p, x.code)
				}
				if most, ok := connect.Properties.Number(mq.PropMaximumPacketSize); ok && len(p.Raw) > int(most) {
					t.Errorf("%v has %d bytes, more than %d", p, len(p.Raw), most)
				}
				if has := p.Properties.Has(mq.PropReasonString); has == with.none {
					t.Errorf("got %v: a Reason String: %t", p, has)
				}
				if len(p.Properties.User()) > 0 {
					t.Errorf("got User Properties %v", p.Properties.User())
				}
			})
		}
	}
}

// What CONNACK tells of lost events it leaves out where the client takes no packet so
// large.
//
// MQTT 5: 3.2.2-20.
func TestConnackFits(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--limits", writeFile(t, "limits.yaml", queueEventsLimit(1)))
	for most, told := range map[uint32]bool{1000: true, 30: false} {
		id := fmt.Sprint("c", most)
		c := s.open(v5, durable(v5, id))
		c.Subscribe(id, 1)
		c.Disconnect()
		pub := s.open(v5, clean(""))
		for i := range 4 {
			pub.Publish(id, 1, fmt.Sprint(i))
		}
		m := durable(v5, id)
		m.Properties = append(m.Properties, mq.Number(mq.PropMaximumPacketSize, most))
		_, ack := mq.OpenAck(t, s.ready.MQTT, v5, m)
		if has := len(ack.Properties.User()) > 0; has != told || len(ack.Raw) > int(most) {
			t.Errorf("at most %d bytes: CONNACK of %d with User Properties %v", most, len(ack.Raw), ack.Properties.User())
		}
	}
}

// Nobody who did not ask is given Response Information, or asked to authenticate by a
// method.
//
// MQTT 5: 3.1.2-28, 4.12.0-6.
func TestNothingUnasked(t *testing.T) {
	addr := plain(t)
	for _, props := range []mq.Properties{nil, {mq.Number(mq.PropRequestResponseInfo, 0)}} {
		_, ack := mq.OpenAck(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Properties: props})
		for _, unasked := range []byte{mq.PropResponseInfo, mq.PropAuthMethod, mq.PropAuthData} {
			if ack.Properties.Has(unasked) {
				t.Errorf("%v: CONNACK has the property %#x", props, unasked)
			}
		}
	}
}

// Each delivery of QoS 1 and 2 has a packet id that no other has that is under way, and
// no DUP at first, whatever DUP its publisher set.
//
// MQTT 5: 2.2.1-2, 2.2.1-4, 3.3.1-2, 3.3.1-3, 4.3.1-1, 4.3.2-1, 4.3.2-2, 4.3.3-1, 4.3.3-2.
// MQTT 3.1.1: 2.3.1-4, 2.3.1-5, 3.3.1-2, 3.3.1-3, 4.3.1-1, 4.3.2-1, 4.3.3-1.
func TestFirstDeliveries(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		sub := mq.Open(t, addr, v, clean(name(t)))
		sub.Subscribe(topic, 2)
		pub := mq.Open(t, addr, v, clean(name(t, "pub")))
		const n = 60
		for i := range n {
			pub.PublishMessage(mq.Publish{Topic: topic, QoS: byte(i % 3), Dup: i%3 > 0 && i%2 == 0, Payload: []byte(fmt.Sprint(i))})
		}
		under := map[uint16]bool{}
		for i := range n {
			p := sub.Expect(mq.PUBLISH)
			switch {
			case string(p.Payload) != fmt.Sprint(i) || p.Dup() || p.QoS() != byte(i%3):
				t.Fatalf("delivery %d: got %v", i, p)
			case p.QoS() == 0:
			case p.ID == 0 || under[p.ID]:
				t.Fatalf("delivery %d: got %v, and its id is under way", i, p)
			default:
				under[p.ID] = true
			}
		}
	})
}

// A publisher may use a packet id again when its exchange is over: after PUBACK, with or
// without DUP, after PUBCOMP, and after a PUBREC that refuses.
//
// MQTT 5: 4.3.2-5, 4.3.3-9, 4.3.3-12. MQTT 3.1.1: 4.3.2-2, 4.3.3-2.
func TestPacketIDsAreUsedAgain(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		sub := mq.Open(t, addr, v, clean(name(t)))
		sub.Subscribe(topic, 0)
		c := mq.Open(t, addr, v, clean(name(t, "pub")))
		publish := func(to string, qos byte, payload string, dup bool) *mq.Packet {
			c.Send(mq.Publish{Topic: to, QoS: qos, ID: 5, Dup: dup, Payload: []byte(payload)})
			return c.ExpectID(map[byte]mq.Type{1: mq.PUBACK, 2: mq.PUBREC}[qos], 5)
		}
		publish(topic, 1, "1", false)
		publish(topic, 1, "2", true)
		if v == v5 {
			if p := publish("$SYS/no", 2, "refused", false); p.Code < 0x80 {
				t.Fatalf("got %v, want a refusal", p)
			}
		}
		for _, payload := range []string{"3", "4"} {
			publish(topic, 2, payload, false)
			publish(topic, 2, payload, true) // a repeat, routed once
			c.Send(mq.Ack{Type: mq.PUBREL, ID: 5})
			c.ExpectID(mq.PUBCOMP, 5)
		}
		sub.ReceiveAll("1", "2", "3", "4")
		sub.Quiet()
	})
}

// An exchange that has begun is completed though its message expires meanwhile, on
// either side, and also after a reconnect; and nothing is sent again on a connection
// that goes on.
//
// MQTT 5: 4.3.3-7, 4.3.3-13, 4.4.0-1.
func TestExchangesOutliveExpiry(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", "2026-03-09T12:00:00Z")
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 2)
	pub := s.open(v5, durable(v5, "pub"))
	m := mq.Publish{Topic: "t", QoS: 2, ID: 4, Payload: []byte("x"), Properties: mq.Properties{mq.Number(mq.PropMessageExpiry, 5)}}
	pub.Send(m)
	pub.ExpectID(mq.PUBREC, 4)
	p := sub.Expect(mq.PUBLISH)
	s.advance(time.Minute)
	sub.Quiet() // not sent again
	sub.Close()

	sub = s.open(v5, durable(v5, "sub"))
	again := sub.Expect(mq.PUBLISH)
	if again.ID != p.ID || !again.Dup() || string(again.Payload) != "x" {
		t.Fatalf("got %v, want %v again", again, p)
	}
	sub.Send(mq.Ack{Type: mq.PUBREC, ID: p.ID})
	sub.ExpectID(mq.PUBREL, p.ID)
	s.advance(time.Hour / 2)
	sub.Close()
	sub = s.open(v5, durable(v5, "sub"))
	sub.ExpectID(mq.PUBREL, p.ID)
	sub.Send(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
	sub.Quiet()

	m.Dup = true
	pub.Send(m, mq.Ack{Type: mq.PUBREL, ID: 4})
	pub.ExpectID(mq.PUBREC, 4)
	pub.ExpectID(mq.PUBCOMP, 4)
	sub.Quiet()
}

// A client that has used up what it takes at once is served all the same: what it asks
// is answered, what it publishes acknowledged, and what has QoS 0 arrives.
//
// MQTT 5: 3.3.4-10, 4.9.0-2, 4.9.0-3.
func TestUsedUpQuota(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	sub := mq.Open(t, addr, v5, mq.Connect{ClientID: name(t), Clean: true, Properties: mq.Properties{mq.Number(mq.PropReceiveMaximum, 1)}})
	sub.Subscribe(topic, 2)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	pub.Publish(topic, 2, "1")
	pub.Publish(topic, 1, "2")
	first := sub.Expect(mq.PUBLISH)
	sub.Quiet()
	sub.Subscribe(name(t, "other"), 1)
	sub.Publish(name(t, "elsewhere"), 2, "x")
	pub.Publish(name(t, "other"), 0, "at QoS 0")
	if p := sub.Expect(mq.PUBLISH); string(p.Payload) != "at QoS 0" {
		t.Errorf("got %v", p)
	}
	sub.Unsubscribe(name(t, "other"))
	sub.Acknowledge(first)
	sub.ReceiveText(topic, "2")
	sub.Quiet()
}

// A SUBSCRIBE of the same filter takes the place of the one before: what is retained
// comes again, the new QoS holds, and of what is published meanwhile nothing is lost.
//
// MQTT 5: 3.8.4-3, 3.8.4-4, 3.3.4-2. MQTT 3.1.1: 3.8.4-3, 3.3.5-1.
func TestSubscribeAgain(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		pub := mq.Open(t, addr, v, clean(name(t, "pub")))
		pub.PublishMessage(mq.Publish{Topic: topic + "/kept", QoS: 1, Retain: true, Payload: []byte("kept")})
		sub := mq.Open(t, addr, v, clean(name(t)))
		sub.Subscribe(topic+"/#", 1)
		sub.ReceiveText(topic+"/kept", "kept")
		const n = 200
		done := make(chan error, 1)
		go func() { done <- publishNumbers(addr, v, topic+"/live", n) }()
		next, kept := 1, 0
		for next <= n {
			id := sub.ID()
			sub.Send(mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: topic + "/#", QoS: 1 + byte(id)%2}}})
			for acked := false; !acked; {
				switch p := sub.Next(); {
				case p.Type == mq.SUBACK:
					acked = true
				case p.Topic == topic+"/kept":
					kept++
					sub.Acknowledge(p)
				case string(p.Payload) == fmt.Sprint(next):
					next++
					sub.Acknowledge(p)
				default:
					t.Fatalf("got %v, want %d", p, next)
				}
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if kept == 0 {
			t.Error("what is retained never came again")
		}
		// Overlapping filters: the highest of their QoS, once.
		sub.Subscribe(topic+"/+", 2)
		sub.Subscribe(topic+"/over", 0)
		pub.Publish(topic+"/over", 2, "over")
		for {
			p := sub.Receive()
			if p.Topic == topic+"/kept" {
				continue
			}
			if p.QoS() != 2 || string(p.Payload) != "over" {
				t.Errorf("got %v, want it once with QoS 2", p)
			}
			break
		}
		sub.Quiet()
		pub.PublishMessage(mq.Publish{Topic: topic + "/kept", QoS: 1, Retain: true})
	})
}

// publishNumbers publishes the numbers from 1 to n with QoS 1, one after the other.
func publishNumbers(addr string, v byte, topic string, n int) error {
	c, _, err := mq.DialConnect(addr, v, clean(""))
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range n {
		if err := c.Write(mq.Publish{Topic: topic, QoS: 1, ID: uint16(i + 1), Payload: []byte(fmt.Sprint(i + 1))}); err != nil {
			return err
		}
		if p, err := c.Read(mq.Patience); err != nil || p.ID != uint16(i+1) {
			return fmt.Errorf("publish %d: got %v, %v", i+1, p, err)
		}
	}
	return nil
}

// Members of a group are sent with the QoS that each was granted.
//
// MQTT 5: 4.8.2-3.
func TestSharedQoS(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	var members []*mq.Client
	for qos := range byte(3) {
		c := mq.Open(t, addr, v5, clean(name(t, fmt.Sprint(qos))))
		c.Subscribe("$share/g/"+topic, qos)
		members = append(members, c)
	}
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	const n = 30
	for i := range n {
		pub.Publish(topic, 2, fmt.Sprint(i))
	}
	got := 0
	for qos, c := range members {
		c.Send(mq.Ping)
		for waits := true; waits; {
			switch p := c.Next(); p.Type {
			case mq.PUBLISH:
				got++
				if p.QoS() != byte(qos) {
					t.Errorf("the member of QoS %d got %v", qos, p)
				}
				c.Acknowledge(p)
			case mq.PINGRESP:
				waits = false
			}
		}
	}
	if got != n {
		t.Errorf("%d of %d came", got, n)
	}
}

// A retained message belongs to no session: it is there when the session that
// published it, and the one that was sent it, are gone. And where there is no will flag
// there is no will.
//
// MQTT 3.1.1: 3.1.2-7, 3.1.2-12.
func TestRetainedOutlivesSessions(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		watch := mq.Open(t, addr, v, clean(name(t, "watch")))
		watch.Subscribe(topic+"/#", 0)
		pub := mq.Open(t, addr, v, clean(name(t)))
		pub.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true, Payload: []byte("kept")})
		watch.ReceiveText(topic, "kept")
		pub.Close() // lost, without a will
		mq.Open(t, addr, v, clean(name(t))).Disconnect()
		watch.Quiet()
		late := mq.Open(t, addr, v, clean(name(t, "late")))
		late.Subscribe(topic, 0)
		late.ReceiveText(topic, "kept")
		late.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true})
	})
}

// A session lasts as long as its connection, whatever its expiry, and a clean one no
// longer: state, subscriptions and what is under way are there until then.
//
// MQTT 5: 4.1.0-1, 4.1.0-2. MQTT 3.1.1: 4.1.0-1, 4.1.0-2.
func TestSessionLastsAsItsConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", "2026-03-09T12:00:00Z")
	versions(t, func(t *testing.T, v byte) {
		c := s.open(v, clean(name(t)))
		c.Subscribe(name(t), 1)
		c.Send(mq.Publish{Topic: name(t, "elsewhere"), QoS: 2, ID: 3, Payload: []byte("x")})
		c.ExpectID(mq.PUBREC, 3)
		s.advance(30 * 24 * time.Hour)
		pub := s.open(v, clean(name(t, "pub")))
		pub.Publish(name(t), 1, "a month later")
		c.ReceiveText(name(t), "a month later")
		c.Send(mq.Publish{Topic: name(t, "elsewhere"), QoS: 2, ID: 3, Dup: true, Payload: []byte("x")}, mq.Ack{Type: mq.PUBREL, ID: 3})
		c.ExpectID(mq.PUBREC, 3)
		c.ExpectID(mq.PUBCOMP, 3)
		c.Close()
		pub.Publish(name(t), 1, "to nobody")
		_, ack := mq.OpenAck(t, s.ready.MQTT, v, durable(v, name(t)))
		if ack.SessionPresent {
			t.Error("a clean session outlived its connection")
		}
	})
}

// A client of MQTT 3.1 is served as one of 3.1.1: publish and subscribe at each QoS with
// one of 5, a session that is kept, a will, and DUP where only 3.1 has it.
func TestMQTT31(t *testing.T) {
	const v3 = 3
	addr := plain(t)
	topic := name(t)
	id := "three-" + strings.Repeat("1", 40) // 3.1 has 23 characters at most: nobody is kept to that
	peer := mq.Open(t, addr, v5, clean(name(t, "peer")))
	peer.Subscribe(topic+"/#", 2)
	m := mq.Connect{ClientID: id, Will: &mq.Will{Topic: topic + "/will", QoS: 1, Payload: []byte("gone")}}
	c := mq.Open(t, addr, v3, m)
	for qos := range byte(3) {
		c.Publish(topic+"/up", qos, fmt.Sprint(qos))
		peer.ReceiveText(topic+"/up", fmt.Sprint(qos))
	}
	subscribe := mq.Subscribe{ID: 9, Filters: []mq.Filter{{Filter: topic + "/down", QoS: 2}}}.Encode(v3)
	c.Send(mq.Raw(subscribe), mq.Raw(join([]byte{subscribe[0] | 8}, subscribe[1:])))
	c.ExpectID(mq.SUBACK, 9)
	c.ExpectID(mq.SUBACK, 9)
	c.Close()
	peer.ReceiveText(topic+"/will", "gone")
	peer.Publish(topic+"/down", 2, "kept")
	peer.ReceiveText(topic+"/down", "kept")

	c, ack := mq.OpenAck(t, addr, v3, mq.Connect{ClientID: id})
	if ack.SessionPresent {
		t.Error("a client of 3.1 was told of its session in a byte that is reserved there")
	}
	p := c.Expect(mq.PUBLISH)
	c.Send(mq.Ack{Type: mq.PUBREC, ID: p.ID})
	c.ExpectID(mq.PUBREL, p.ID)
	c.Send(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
	c.Send(mq.Frame(0x6A, 0, 7)) // PUBREL with DUP
	c.ExpectID(mq.PUBCOMP, 7)
	c.Send(mq.Frame(0xAA, join([]byte{0, 8, 0, byte(len(topic) + 5)}, []byte(topic+"/down"))...))
	c.ExpectID(mq.UNSUBACK, 8)
	if got := c.TrySubscribe(nil, mq.Filter{Filter: "no/#/filter"}).Codes; !slices.Equal(got, []byte{0x80}) {
		t.Errorf("a filter that is none: got % x", got)
	}
	c.Disconnect()
}
