package blackbox

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// willed is a CONNECT with a will.
func willed(m mq.Connect, topic, payload string, props ...mq.Property) mq.Connect {
	m.Will = &mq.Will{Topic: topic, Payload: []byte(payload), QoS: 1, Properties: props}
	return m
}

// A will is published at every end but DISCONNECT 0x00.
//
// MQTT 5: 3.1.2-7, 3.1.2-8, 3.1.2-10, 3.14.4-3.
// MQTT 3.1.1: 3.1.2-8, 3.1.2-10, 3.14.4-3.
func TestMQTT37WhenAWillIsPublished(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		watcher := mq.Open(t, addr, v5, clean(name(t, "watcher")))
		watcher.Subscribe(name(t)+"/#", 1)
		for i, end := range []struct {
			name string
			do   func(c *mq.Client)
			will bool
		}{
			{"socket closed", func(c *mq.Client) { c.Close() }, true},
			{"socket reset", func(c *mq.Client) { c.Reset() }, true},
			{"protocol error", func(c *mq.Client) { c.TrySend(mq.Frame(0x00)); c.Closed() }, true},
			{"takeover", func(c *mq.Client) { mq.Open(t, addr, v, clean(name(t))).Disconnect() }, true},
			{"DISCONNECT", func(c *mq.Client) { c.Disconnect() }, false},
			{"DISCONNECT then bytes", func(c *mq.Client) { c.TrySend(mq.Bye, mq.Raw{0, 0}); c.Closed() }, false},
		} {
			topic := fmt.Sprint(name(t), "/", i)
			c := mq.Open(t, addr, v, willed(clean(name(t)), topic, end.name))
			end.do(c)
			if end.will {
				watcher.ReceiveText(topic, end.name)
			}
		}
		if v == v5 {
			for _, code := range []byte{0x04, 0x80, 0x99} {
				topic := fmt.Sprint(name(t), "/code/", code)
				c := mq.Open(t, addr, v, willed(clean(name(t)), topic, "x"))
				c.Send(mq.Reason{Type: mq.DISCONNECT, Code: code})
				watcher.ReceiveText(topic, "x")
			}
		}
		mq.Open(t, addr, v5, clean(name(t, "mark"))).Publish(name(t)+"/mark", 1, "last")
		watcher.ReceiveText(name(t)+"/mark", "last") // nothing came for the orderly ends
		watcher.Quiet()
	})
}

// A server that is killed publishes the wills of the connections it had, when
// it is back; after an orderly stop too, for those that do not come back.
func TestMQTT37WillsAfterTheServersDeath(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	watcher := s.open(v5, durable(v5, "watcher"))
	watcher.Subscribe("will/#", 1)
	s.open(v5, willed(clean("c"), "will/c", "gone"))
	s.signal(syscall.SIGKILL)
	<-s.exited
	s.ended = true
	s.start()
	watcher = s.open(v5, durable(v5, "watcher"))
	watcher.ReceiveText("will/c", "gone")
	watcher.Quiet()
}

// A will is judged at CONNECT, and again when it is published.
//
// MQTT 5: 3.1.4-2.
func TestMQTT38WillACL(t *testing.T) {
	t.Parallel()
	all := `
  - {id: watch, allow: [subscribe], who: [bob@example.com], topic: ["#"]}
  - {id: own, allow: [publish], who: [ana@example.com], topic: ["ana/#"]}
`
	revoked := `
  - {id: watch, allow: [subscribe], who: [bob@example.com], topic: ["#"]}
  - {id: own, allow: [publish], who: [ana@example.com], topic: ["ana/still/#"]}
`
	users := []string{"ana", "bob"}
	policy := policyFile(t, users, all)
	s := serve(t, "--policy", policy)
	versions(t, func(t *testing.T, v byte) {
		c := mq.Dial(t, s.ready.MQTT, v)
		c.Send(willed(as("ana", clean("refused")), "bob/x", "x"))
		got := c.Closed()
		if want := map[byte]byte{v4: 5, v5: 0x87}[v]; len(got) != 1 || got[0].Code != want {
			t.Errorf("a will on a topic that is not permitted: got %v, want CONNACK code=%#02x", got, want)
		}
	})
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Subscribe("#", 1)
	s.open(v5, willed(as("ana", clean("granted")), "ana/x", "granted")).Close()
	bob.ReceiveText("ana/x", "granted")

	c := s.open(v5, willed(as("ana", clean("revoked")), "ana/x", "revoked"))
	still := s.open(v5, willed(as("ana", clean("still")), "ana/still/x", "still granted"))
	writePolicy(t, policy, users, revoked)
	s.reload()
	c.Close()
	until(t, "the revoked will is dropped and counted", mq.Patience, func() bool {
		return s.dropped("acl", "publish_refused") > 0
	})
	still.Close()
	bob.ReceiveText("ana/still/x", "still granted")
	bob.Quiet()
}

// A will keeps QoS and retain; an empty one clears what is retained.
//
// MQTT 5: 3.1.2-14, 3.1.2-15.
// MQTT 3.1.1: 3.1.2-16, 3.1.2-17.
func TestMQTT39WillKeepsItsFlags(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		die := func(payload string, qos byte) {
			m := clean(name(t))
			m.Will = &mq.Will{Topic: topic, Payload: []byte(payload), QoS: qos, Retain: true}
			mq.Open(t, addr, v, m).Close()
		}
		watcher := mq.Open(t, addr, v, clean(name(t, "watcher")))
		watcher.Subscribe(topic, 2)
		for qos := range byte(3) {
			die(fmt.Sprint("status ", qos), qos)
			if p := watcher.ReceiveText(topic, fmt.Sprint("status ", qos)); p.QoS() != qos || p.Retain() {
				t.Errorf("got %v, want QoS %d and no retain flag on a live copy", p, qos)
			}
		}
		late := mq.Open(t, addr, v, clean(name(t, "late")))
		late.Subscribe(topic, 2)
		if p := late.ReceiveText(topic, "status 2"); p.QoS() != 2 || !p.Retain() {
			t.Errorf("got %v, want the retained will", p)
		}
		die("", 1)
		watcher.ReceiveText(topic, "")
		later := mq.Open(t, addr, v, clean(name(t, "later")))
		later.Subscribe(topic, 2)
		later.Quiet()
	})
}

// A will waits its delay, but no longer than its session lives; resuming
// cancels it, and a session that ends by Clean Start ends the wait.
//
// MQTT 5: 3.1.3-9, 3.1.2-8.
func TestMQTT40WillDelay(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	watcher := s.open(v5, clean("watcher"))
	watcher.Subscribe("will/#", 1)
	delay := mq.Number(mq.PropWillDelay, 30)

	t.Run("after the delay", func(t *testing.T) {
		s.drop(s.open(v5, willed(expiry("a", 100), "will/a", "a", delay)))
		s.advance(29 * time.Second)
		watcher.Quiet()
		s.advance(2 * time.Second)
		watcher.ReceiveText("will/a", "a")
	})
	t.Run("no later than the session ends", func(t *testing.T) {
		s.drop(s.open(v5, willed(expiry("b", 10), "will/b", "b", delay)))
		s.advance(9 * time.Second)
		watcher.Quiet()
		s.advance(2 * time.Second)
		watcher.ReceiveText("will/b", "b")
	})
	t.Run("at once without a session", func(t *testing.T) {
		s.open(v5, willed(expiry("c", 0), "will/c", "c", delay)).Close()
		watcher.ReceiveText("will/c", "c")
	})
	t.Run("not when the session resumes", func(t *testing.T) {
		s.drop(s.open(v5, willed(expiry("d", 100), "will/d", "d", delay)))
		s.advance(20 * time.Second)
		d := s.open(v5, expiry("d", 100))
		s.advance(time.Hour)
		watcher.Quiet()
		d.Quiet()
	})
	t.Run("not by a takeover that resumes", func(t *testing.T) {
		older := s.open(v5, willed(expiry("e", 100), "will/e", "e", delay))
		e := s.open(v5, expiry("e", 100))
		older.ClosedWith(0x8E)
		s.advance(time.Hour)
		watcher.Quiet()
		e.Quiet()
	})
	t.Run("at once by a takeover with Clean Start", func(t *testing.T) {
		s.open(v5, willed(expiry("f", 100), "will/f", "f", delay))
		s.open(v5, clean("f"))
		watcher.ReceiveText("will/f", "f")
	})
	t.Run("at once by Clean Start while it waits", func(t *testing.T) {
		s.drop(s.open(v5, willed(expiry("g", 100), "will/g", "g", delay)))
		s.open(v5, clean("g"))
		watcher.ReceiveText("will/g", "g")
	})
	t.Run("across a kill", func(t *testing.T) {
		s.drop(s.open(v5, willed(expiry("h", 100), "will/h", "h", delay)))
		s.advance(20 * time.Second)
		s.restart()
		watcher = s.open(v5, clean("watcher"))
		watcher.Subscribe("will/#", 1)
		s.setClock("2026-03-09T20:00:00Z")
		watcher.ReceiveText("will/h", "h")
	})
	watcher.Quiet()
}

// A will is delivered once to each subscriber, whatever its QoS.
func TestMQTT41ExactlyOneWill(t *testing.T) {
	addr := plain(t)
	for qos := range byte(3) {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			var subs []*mq.Client
			for i := range 3 {
				c := mq.Open(t, addr, v5, clean(name(t, fmt.Sprint(i))))
				c.Subscribe(name(t), byte(i))
				subs = append(subs, c)
			}
			m := clean(name(t))
			m.Will = &mq.Will{Topic: name(t), Payload: []byte("gone"), QoS: qos}
			mq.Open(t, addr, v5, m).Close()
			for i, c := range subs {
				if p := c.ReceiveText(name(t), "gone"); p.QoS() != min(qos, byte(i)) {
					t.Errorf("got %v", p)
				}
			}
			mq.Open(t, addr, v5, clean(name(t, "mark"))).Publish(name(t), 1, "mark")
			for _, c := range subs {
				c.ReceiveText(name(t), "mark")
				c.Quiet()
			}
		})
	}
}

// A will of one connection is never delivered after a message of the next: who
// believes the last thing heard is never wrong.
func TestMQTT43WillsFollowTheEpoch(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	watcher := mq.Open(t, addr, v5, clean(name(t, "watcher")))
	watcher.Subscribe(topic, 1)
	rng := rand.New(rand.NewPCG(43, 0))
	const rounds = 200
	var last *mq.Client
	for i := range rounds {
		c := mq.Open(t, addr, v5, willed(clean(name(t)), topic, fmt.Sprint("offline ", i)))
		c.Publish(topic, 1, fmt.Sprint("online ", i))
		if last != nil {
			last.Close()
		}
		last = nil
		switch rng.IntN(3) {
		case 0:
			c.Close()
		case 1:
			c.Reset()
		default:
			last = c // the next connection takes it over
		}
	}
	state := -1
	for seen := 0; seen < 2*rounds-1; {
		p := watcher.Receive()
		var word string
		var i int
		if _, err := fmt.Sscan(string(p.Payload), &word, &i); err != nil {
			t.Fatalf("got %v", p)
		}
		if word == "offline" && i < state {
			t.Fatalf("%q arrived after connection %d was online", p.Payload, state)
		}
		if word == "online" {
			state = i
		}
		seen++
		if word == "online" && i == rounds-1 {
			break
		}
	}
}

// However many clients a dying server held, each will is published once it is
// back, and once.
func TestMQTT41ManyWillsAfterTheServersDeath(t *testing.T) {
	t.Parallel()
	const n = 600
	s := serve(t, "--allow-anonymous")
	watcher := s.open(v5, durable(v5, "watcher"))
	watcher.Subscribe("will/#", 1)
	watcher.Disconnect()
	conns := map[int]*mq.Conn{}
	for i := range n {
		c, ack, err := mq.DialConnect(s.ready.MQTT, v5, willed(clean(fmt.Sprint(i)), fmt.Sprint("will/", i), fmt.Sprint(i)))
		if err != nil || ack.Code != 0 {
			t.Fatalf("client %d: %v, %v", i, ack, err)
		}
		defer c.Close()
		conns[i] = c
	}
	for i := range 100 { // these leave in order
		if err := conns[i].Write(mq.Bye); err != nil {
			t.Fatal(err)
		}
		if p, err := conns[i].Read(mq.Patience); err == nil {
			t.Fatalf("got %v", p)
		}
	}
	until(t, "the orderly ends are known", mq.Patience, func() bool { return s.metric("bellwire_sessions") == n-100+1 })
	s.restart()
	s.restart() // and not again by another death
	watcher = s.open(v5, durable(v5, "watcher"))
	seen := map[string]bool{}
	for range n - 100 {
		p := watcher.Receive()
		if seen[p.Topic] || p.Topic != "will/"+string(p.Payload) || len(p.Payload) < 3 {
			t.Fatalf("got %v, seen before: %t", p, seen[p.Topic])
		}
		seen[p.Topic] = true
	}
	watcher.Quiet()
}
