package blackbox

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A takeover does not wait for the old socket: its client has stopped reading
// and the buffers are full, yet the new one is answered at once.
func TestMQTT30TakeoverNeverWaits(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	versions(t, func(t *testing.T, v byte) {
		id := name(t)
		pub := mq.Open(t, s.ready.MQTT, v5, clean(id+"-pub"))
		var took []time.Duration
		for range 5 {
			stuck := mq.DialSlow(t, s.ready.MQTT, v)
			stuck.Connect(durable(v, id))
			stuck.Subscribe(id, 0)
			payload := strings.Repeat("x", 50_000)
			for range 200 { // 10 MB: more than the socket takes
				pub.Publish(id, 0, payload)
			}
			pub.Quiet()
			start := time.Now()
			fresh := mq.Open(t, s.ready.MQTT, v, durable(v, id))
			took = append(took, time.Since(start))
			fresh.Close()
			stuck.Close()
		}
		sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
		t.Logf("takeovers took %v", took)
		if quick := bestOrMedian(took); quick > 100*time.Millisecond {
			t.Errorf("a takeover took %v (%v), want less than 100 ms", quick, took)
		}
	})
}

// The older connection is told, in MQTT 5, and closed.
//
// MQTT 5: 3.1.4-3, 3.1.3-2.
// MQTT 3.1.1: 3.1.4-2, 3.1.3-2.
func TestMQTT30TakeoverTellsTheOlder(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		older := mq.Open(t, addr, v, clean(name(t)))
		newer := mq.Open(t, addr, v, clean(name(t)))
		older.ClosedWith(0x8E)
		newer.Quiet()
	})
}

// Of many connections that fight for one client id exactly one survives.
//
// MQTT 5: 3.1.4-3.
// MQTT 3.1.1: 3.1.4-2.
func TestMQTT30OneSurvivor(t *testing.T) {
	addr := plain(t)
	const fighters = 50
	type result struct {
		conn *mq.Conn
		err  error
	}
	results := make(chan result, fighters)
	for range fighters {
		go func() {
			c, ack, err := mq.DialConnect(addr, v5, clean(name(t)))
			if err == nil && ack.Code != 0 {
				err = fmt.Errorf("got %v", ack)
			}
			results <- result{c, err}
		}()
	}
	alive := 0
	var conns []*mq.Conn
	for range fighters {
		r := <-results
		if r.err != nil {
			continue // taken over before its CONNACK was written: that is a close
		}
		conns = append(conns, r.conn)
		defer r.conn.Close()
	}
	for _, c := range conns {
		_ = c.Write(mq.Ping)
		if p, err := c.Read(mq.Patience); err == nil && p.Type == mq.PINGRESP {
			alive++
		}
	}
	if alive != 1 {
		t.Errorf("%d of %d connections with one client id live on, want 1", alive, fighters)
	}
}

// Clean Start forgets everything before CONNACK: nothing old arrives after it.
//
// MQTT 5: 3.1.2-4, 3.1.4-4, 3.2.2-2.
// MQTT 3.1.1: 3.1.2-6, 3.1.4-3, 3.2.2-1.
func TestMQTT33CleanStartDiscards(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		c := mq.Open(t, addr, v, durable(v, name(t)))
		c.Subscribe(topic, 2)
		pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
		pub.Publish(topic, 1, "under way")
		c.Await(mq.PUBLISH, 0)
		c.Send(mq.Publish{Topic: topic + "/x", QoS: 2, ID: 5})
		c.Await(mq.PUBREC, 5)
		c.Close()
		pub.Publish(topic, 2, "queued")

		c, ack := mq.OpenAck(t, addr, v, clean(name(t)))
		if ack.SessionPresent {
			t.Errorf("got %v", ack)
		}
		pub.Publish(topic, 1, "not subscribed any more")
		c.Quiet()
		other := mq.Open(t, addr, v5, clean(name(t, "other")))
		other.Subscribe(topic+"/x", 0)
		c.Send(mq.Publish{Topic: topic + "/x", QoS: 2, ID: 5, Payload: []byte("its id is free")})
		other.ReceiveText(topic+"/x", "its id is free")
		c.ExpectID(mq.PUBREC, 5)
		c.Subscribe(topic, 1)
		pub.Publish(topic, 1, "fresh")
		c.ReceiveText(topic, "fresh")
	})
}

// Session Present says whether there was a session; a clean one ends with its
// connection.
//
// MQTT 5: 3.1.2-6, 3.2.2-2, 3.2.2-3.
// MQTT 3.1.1: 3.1.2-4, 3.2.2-1, 3.2.2-2, 3.2.2-3, 3.1.2-6.
func TestMQTT33SessionPresent(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		for i, step := range []struct {
			m    mq.Connect
			want bool
		}{
			{durable(v, name(t)), false},
			{durable(v, name(t)), true},
			{clean(name(t)), false},
			{durable(v, name(t)), false}, // the clean one left nothing
			{durable(v, name(t)), true},
		} {
			c, ack := mq.OpenAck(t, addr, v, step.m)
			if ack.SessionPresent != step.want {
				t.Errorf("connect %d: got %v, want session=%t", i+1, ack, step.want)
			}
			c.Disconnect()
		}
	})
}

func expiry(id string, seconds uint32) mq.Connect {
	return mq.Connect{ClientID: id, Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, seconds)}}
}

// A session that has expired has left nothing behind: no subscription, no
// queue, no ids. Until a second before, all is there.
//
// MQTT 5: 4.1.0-2, 3.1.2-23.
func TestMQTT34SessionExpiry(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	pub := s.open(v5, clean("pub"))
	make := func() {
		c := s.open(v5, expiry("c", 100))
		c.Subscribe("t", 1)
		c.Send(mq.Publish{Topic: "u", QoS: 2, ID: 5})
		c.ExpectID(mq.PUBREC, 5)
		s.drop(c)
		pub.Publish("t", 1, "queued")
	}
	sessions := s.metric("bellwire_sessions")
	make()
	s.advance(99 * time.Second)
	c, ack := mq.OpenAck(t, s.ready.MQTT, v5, expiry("c", 100))
	if !ack.SessionPresent {
		t.Errorf("after 99 of 100 s: got %v", ack)
	}
	c.ReceiveText("t", "queued")
	s.drop(c)

	make()
	s.advance(101 * time.Second)
	if got := s.metric("bellwire_sessions"); got != sessions {
		t.Errorf("%v sessions are left, want the %v from before", got, sessions)
	}
	c, ack = mq.OpenAck(t, s.ready.MQTT, v5, expiry("c", 100))
	if ack.SessionPresent {
		t.Errorf("after 101 of 100 s: got %v", ack)
	}
	pub.Publish("t", 1, "not subscribed")
	c.Quiet()
	pub.Subscribe("u", 0)
	c.Send(mq.Publish{Topic: "u", QoS: 2, ID: 5, Payload: []byte("its id is free")})
	pub.ReceiveText("u", "its id is free")
	c.ExpectID(mq.PUBREC, 5)
}

// Time passes for a session while the server is down.
func TestMQTT34ExpiryWhileDown(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	c := s.open(v5, expiry("c", 100))
	c.Subscribe("t", 1)
	s.drop(c)
	forever := s.open(v5, expiry("forever", 0xFFFFFFFF))
	forever.Subscribe("t", 1)
	s.drop(forever)
	s.advance(time.Second)
	s.kill()
	for i, a := range s.args {
		if a == noon {
			s.args[i] = "2026-03-09T13:00:00Z"
		}
	}
	s.start()
	s.advance(time.Second)
	if _, ack := mq.OpenAck(t, s.ready.MQTT, v5, expiry("c", 100)); ack.SessionPresent {
		t.Errorf("an hour later: got %v", ack)
	}
	if _, ack := mq.OpenAck(t, s.ready.MQTT, v5, expiry("forever", 0xFFFFFFFF)); !ack.SessionPresent {
		t.Errorf("the session without an end: got %v", ack)
	}
}

// Session Expiry may be changed at DISCONNECT, but not from none to some.
func TestMQTT35ExpiryChangedByDisconnect(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	bye := func(seconds uint32) mq.Reason {
		return mq.Reason{Type: mq.DISCONNECT, Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, seconds)}}
	}
	for _, c := range []struct {
		at, then uint32
		wait     time.Duration
		present  bool
	}{
		{100, 1000, 500 * time.Second, true},
		{1000, 10, 20 * time.Second, false},
		{1000, 0, 0, false},
		{100, 0xFFFFFFFF, 1000 * time.Hour, true},
	} {
		id := fmt.Sprint("from", c.at, "to", c.then)
		cl := s.open(v5, expiry(id, c.at))
		cl.Send(bye(c.then))
		cl.Closed()
		if c.wait > 0 {
			s.advance(c.wait)
		}
		if _, ack := mq.OpenAck(t, s.ready.MQTT, v5, expiry(id, 100)); ack.SessionPresent != c.present {
			t.Errorf("expiry %d, changed to %d, after %v: got %v, want session=%t", c.at, c.then, c.wait, ack, c.present)
		}
	}
	cl := s.open(v5, expiry("none", 0))
	cl.TrySend(bye(10))
	cl.ClosedWith(0x82)
}

// An offline session costs little memory; the rest is on the disk.
func TestMQTT36OfflineSessionsAreCheap(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--pprof")
	const few, many = 1_000, 11_000
	makeSessions(t, s, 0, few)
	before := s.liveHeap()
	makeSessions(t, s, few, many)
	each := (s.liveHeap() - before) / (many - few)
	t.Logf("an offline session costs %d bytes of memory", each)
	if each > 1024 {
		t.Errorf("an offline session costs %d bytes, want less than 1 KiB", each)
	}
}

// makeSessions makes durable sessions, each with a subscription of its own, and
// leaves them.
func makeSessions(t *testing.T, s *server, from, to int) {
	t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for i := range next {
				if err := makeSession(s.ready.MQTT, i); err != nil {
					t.Errorf("session %d: %v", i, err)
				}
			}
		})
	}
	for i := from; i < to; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
}

func makeSession(addr string, i int) error {
	c, ack, err := mq.DialConnect(addr, v5, durable(v5, fmt.Sprint("session", i)))
	if err != nil {
		return err
	}
	defer c.Close()
	if ack.Code != 0 {
		return fmt.Errorf("got %v", ack)
	}
	if err := c.Write(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: fmt.Sprint("t/", i), QoS: 1}}}); err != nil {
		return err
	}
	if p, err := c.Read(mq.Patience); err != nil || p.Type != mq.SUBACK {
		return fmt.Errorf("got %v, %w", p, err)
	}
	return c.Write(mq.Bye)
}

// A session belongs to who made it: another user who takes its client id gets
// neither its queue nor its end.
func TestMQTT30AnotherPrincipalsSession(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", policyFile(t, []string{"ana", "bob"}, everything))
	ana := s.open(v5, as("ana", durable(v5, "id")))
	ana.Subscribe("t", 1)
	for _, m := range []mq.Connect{as("bob", durable(v5, "id")), as("bob", clean("id"))} {
		for _, v := range []byte{v4, v5} {
			c := mq.Dial(t, s.ready.MQTT, v)
			c.Send(m)
			if got := c.Closed(); len(got) != 1 || got[0].Type != mq.CONNACK || got[0].Code == 0 {
				t.Errorf("got %v, want a refusing CONNACK", got)
			}
		}
	}
	bob := s.open(v5, as("bob", clean("bob")))
	bob.Publish("t", 1, "for ana")
	ana.ReceiveText("t", "for ana")
	ana.Disconnect()
	bob.Publish("t", 1, "later")
	ana = s.open(v5, as("ana", durable(v5, "id")))
	ana.ReceiveText("t", "later")
}

// Client ids are any text; sessions, wills and queues under them survive a
// kill.
func TestMQTT32AnyClientID(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	ids := []string{"a", " ", "a/b", "a+#$", "ключ 鍵", strings.Repeat("x", 1024), "0", "%00", "~", `"\'`}
	for i, id := range ids {
		c := s.open(v5, durable(v5, id))
		c.Subscribe(fmt.Sprint("t/", i), 1)
		c.Disconnect()
	}
	pub := s.open(v5, clean("pub"))
	for i := range ids {
		pub.Publish(fmt.Sprint("t/", i), 1, fmt.Sprint(i))
	}
	s.restart()
	for i, id := range ids {
		c, ack := mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, id))
		if !ack.SessionPresent {
			t.Errorf("%.20q: the session is gone", id)
			continue
		}
		c.ReceiveText(fmt.Sprint("t/", i), fmt.Sprint(i))
		c.Quiet()
	}
}

// Many sessions that end at one instant end all, with their subscriptions and
// queues, while others go on; their wills come, each once.
func TestMQTT34ManyExpireAtOnce(t *testing.T) {
	t.Parallel()
	const n = 1500
	s := serve(t, "--allow-anonymous", "--test-clock", noon)
	healthy := newWitnesses(t, s.ready.MQTT)
	watcher := s.open(v5, clean("watcher"))
	watcher.Subscribe("will/#", 1)
	for i := range n {
		m := expiry(fmt.Sprint(i), 100)
		if i%3 == 0 {
			m = willed(m, fmt.Sprint("will/", i), fmt.Sprint(i), mq.Number(mq.PropWillDelay, 1000))
		}
		c, ack, err := mq.DialConnect(s.ready.MQTT, v5, m)
		if err != nil || ack.Code != 0 {
			t.Fatalf("session %d: %v, %v", i, ack, err)
		}
		if err := c.Write(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: "all", QoS: 1}}}); err != nil {
			t.Fatal(err)
		}
		if p, err := c.Read(mq.Patience); err != nil || p.Type != mq.SUBACK {
			t.Fatalf("session %d: %v, %v", i, p, err)
		}
		c.Close()
	}
	until(t, "their ends are noticed", mq.Patience, func() bool { return s.metric("bellwire_connections") == 4 })
	pub := s.open(v5, clean("pub"))
	for i := range 20 {
		pub.Publish("all", 1, fmt.Sprint(i))
	}
	s.advance(99 * time.Second)
	watcher.Quiet()
	s.advance(2 * time.Second)
	if got := s.metric("bellwire_sessions"); got != 5 {
		t.Errorf("%v sessions are left, want 5", got)
	}
	for range n / 3 {
		watcher.Receive()
	}
	watcher.Quiet()
	healthy.check(t, 2, "afterwards")
	again, ack := mq.OpenAck(t, s.ready.MQTT, v5, expiry("7", 100))
	if ack.SessionPresent {
		t.Errorf("got %v", ack)
	}
	pub.Publish("all", 1, "x")
	again.Quiet()
}
