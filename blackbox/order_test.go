package blackbox

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// Events of one publisher on one topic arrive in order whatever their QoS: one
// that needs no disk does not overtake one that does.
//
// MQTT 5: 4.6.0-5, 4.6.0-6.
// MQTT 3.1.1: 4.6.0-5, 4.6.0-6.
func TestMQTT22OrderAcrossQoS(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		sub := mq.Open(t, addr, v, clean(name(t, "sub")))
		sub.Subscribe(name(t), 2)
		pub := mq.Open(t, addr, v, clean(name(t, "pub")))
		const n, atOnce = 600, 60
		for from := 1; from <= n; from += atOnce {
			var batch []mq.Message
			answers := 0
			for i := from; i < from+atOnce; i++ {
				m := mq.Publish{Topic: name(t), QoS: byte(i * i % 3), Payload: fmt.Append(nil, i), Retain: i%7 == 0}
				if m.QoS > 0 {
					m.ID = uint16(i)
					answers++
				}
				batch = append(batch, m)
				if m.QoS == 2 {
					batch = append(batch, mq.Ack{Type: mq.PUBREL, ID: m.ID})
					answers++
				}
			}
			pub.Send(batch...)
			for range answers {
				pub.Next()
			}
			sub.ReceiveAll(mq.Numbered(from, from+atOnce-1)...)
		}
	})
}

// All subscribers of a topic see durable events in one order, however many
// publish at once: live ones, throttled ones, and one that was away.
func TestMQTT22OneOrderForAll(t *testing.T) {
	addr := plain(t)
	const publishers, each = 4, 150
	away := mq.Open(t, addr, v5, durable(v5, name(t, "away")))
	away.Subscribe(name(t), 1)
	away.Disconnect()
	subs := []*mq.Client{
		mq.Open(t, addr, v5, clean(name(t, "live"))),
		mq.Open(t, addr, v4, durable(v4, name(t, "old"))),
		mq.Open(t, addr, v5, receiveMax(name(t, "throttled"), 3)),
	}
	for _, c := range subs {
		c.Subscribe(name(t), 1)
	}
	var wg sync.WaitGroup
	for i := range publishers {
		pub := mq.Open(t, addr, v5, clean(name(t, fmt.Sprint(i))))
		wg.Go(func() {
			for n := range each {
				if err := publishOne(pub.Conn, name(t), 1, 1, fmt.Sprint(i, ":", n)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	subs = append(subs, nil)
	var orders [][]string
	for i, c := range subs {
		if c == nil {
			wg.Wait()
			c = mq.Open(t, addr, v5, durable(v5, name(t, "away")))
		}
		var order []string
		for range publishers * each {
			order = append(order, string(c.Receive().Payload))
		}
		c.Quiet()
		orders = append(orders, order)
		if !slices.Equal(order, orders[0]) {
			t.Errorf("subscriber %d saw another order than the first", i)
		}
	}
}

// The retained messages that a durable session is owed are owed across its
// reconnects and the server's death: the scan goes on where it was.
func TestMQTT48ReplayAcrossKill(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	const n = 3000
	pub := s.open(v5, clean("pub"))
	for from := 0; from < n; from += 100 {
		var batch []mq.Message
		for i := from; i < from+100; i++ {
			batch = append(batch, mq.Publish{Topic: fmt.Sprintf("kept/%04d", i), QoS: 1, ID: uint16(1 + i%100), Retain: true, Payload: fmt.Append(nil, i)})
		}
		pub.Send(batch...)
		for range 100 {
			pub.Expect(mq.PUBACK)
		}
	}
	m := receiveMax("sub", 20)
	sub := s.open(v5, m)
	sub.Send(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: "kept/+", QoS: 1}}})
	seen := map[string]bool{}
	granted := false
	take := func(count int) {
		for range count {
			p := sub.Next()
			if p.Type == mq.SUBACK {
				granted = true
				continue
			}
			if p.Type != mq.PUBLISH || p.Topic[len(p.Topic)-4:] != fmt.Sprintf("%04s", p.Payload) {
				t.Fatalf("got %v", p)
			}
			sub.Send(mq.Ack{Type: mq.PUBACK, ID: p.ID})
			if seen[p.Topic] && !p.Dup() {
				t.Fatalf("got %v again without DUP", p)
			}
			seen[p.Topic] = true
			if len(seen) == n {
				return
			}
		}
	}
	take(300)
	if !granted {
		t.Fatal("no SUBACK among the first 300 packets")
	}
	for round := 0; len(seen) < n; round++ {
		if round%2 == 0 {
			s.restart()
		} else {
			sub.Close()
		}
		sub = s.open(v5, m)
		take(n/6 + 30)
	}
	sub.Quiet()
}

// A filter that stands twice in one SUBSCRIBE is one subscription, with the
// last options.
//
// MQTT 5: 3.8.4-3, 3.8.4-5.
func TestMQTT29SameFilterTwice(t *testing.T) {
	addr := plain(t)
	for _, m := range []mq.Connect{clean(name(t, "clean")), durable(v5, name(t, "durable"))} {
		c := mq.Open(t, addr, v5, m)
		c.SubscribeTo(nil, mq.Filter{Filter: name(t), QoS: 0}, mq.Filter{Filter: name(t), QoS: 2})
		pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
		pub.Publish(name(t), 2, "x")
		if p := c.ReceiveText(name(t), "x"); p.QoS() != 2 {
			t.Errorf("got %v, want QoS 2", p)
		}
		c.Quiet()
		if ack := c.Unsubscribe(name(t)); ack.Codes[0] != 0 {
			t.Errorf("got %v", ack)
		}
		pub.Publish(name(t), 2, "y")
		c.Quiet()
	}
}
