package blackbox

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// limitsFile writes limits and returns its path.
func limitsFile(t testing.TB, lines string) string {
	t.Helper()
	return writeFile(t, "limits.yaml", lines)
}

func receiveMax(id string, n uint32, more ...mq.Property) mq.Connect {
	m := durable(v5, id)
	m.Properties = append(append(m.Properties, mq.Number(mq.PropReceiveMaximum, n)), more...)
	return m
}

// A client never has more unacknowledged QoS 1 and 2 messages than it asked
// for, and gets all of a burst.
//
// MQTT 5: 3.3.4-9, 4.9.0-1, 4.9.0-2.
func TestMQTT16ReceiveMaximumTowardsTheClient(t *testing.T) {
	addr := plain(t)
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			const window, burst = 10, 510
			topic := name(t)
			sub := mq.Open(t, addr, v5, receiveMax(name(t, "sub"), window))
			sub.Subscribe(topic, qos)
			pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
			publishMany(t, pub, topic, qos, 1, burst)
			var open []uint16
			for i := 1; i <= burst; i++ {
				p := sub.Expect(mq.PUBLISH)
				if string(p.Payload) != fmt.Sprint(i) {
					t.Fatalf("got %v, want message %d", p, i)
				}
				open = append(open, p.ID)
				if len(open) == window || i == burst {
					sub.Quiet() // not one more while the window is full
					finish(sub, qos, open)
					open = nil
				}
			}
			sub.Quiet()
		})
	}
}

// finish takes part in the rest of several exchanges.
func finish(c *mq.Client, qos byte, ids []uint16) {
	for _, id := range ids {
		if qos == 1 {
			c.Send(mq.Ack{Type: mq.PUBACK, ID: id})
			continue
		}
		c.Send(mq.Ack{Type: mq.PUBREC, ID: id})
		c.Await(mq.PUBREL, id)
		c.Send(mq.Ack{Type: mq.PUBCOMP, ID: id})
	}
}

// publishMany publishes numbers at QoS 1 or 2, many in flight, and waits for
// all acknowledgements.
func publishMany(t testing.TB, c *mq.Client, topic string, qos byte, first, last int) {
	t.Helper()
	const atOnce = 100
	answer := map[byte]mq.Type{1: mq.PUBACK, 2: mq.PUBREC}[qos]
	for from := first; from <= last; from += atOnce {
		var batch []mq.Message
		var ids []uint16
		for i := from; i <= min(last, from+atOnce-1); i++ {
			id := c.ID()
			ids = append(ids, id)
			batch = append(batch, mq.Publish{Topic: topic, QoS: qos, ID: id, Payload: fmt.Append(nil, i)})
		}
		c.Send(batch...)
		for _, id := range ids {
			if ack := c.Await(answer, id); ack.Code >= 0x80 {
				t.Fatalf("publish: got %v", ack)
			}
			if qos == 2 {
				c.Send(mq.Ack{Type: mq.PUBREL, ID: id})
				c.Await(mq.PUBCOMP, id)
			}
		}
	}
}

// A refusing PUBREC frees its slot; four publishers against a window of ten
// stall nobody.
func TestMQTT16NoStallUnderContention(t *testing.T) {
	addr := plain(t)
	topic := name(t)
	const publishers, each = 4, 500
	sub := mq.Open(t, addr, v5, receiveMax(name(t, "sub"), 10))
	sub.Subscribe(topic, 2)
	var wg sync.WaitGroup
	for i := range publishers {
		pub := mq.Open(t, addr, v5, clean(name(t, fmt.Sprint("pub", i))))
		wg.Go(func() { publishQuietly(t, pub.Conn, topic, 2, each) })
	}
	for i := range publishers * each {
		p := sub.Await(mq.PUBLISH, 0)
		if i%3 == 0 {
			sub.Send(mq.Ack{Type: mq.PUBREC, ID: p.ID, Code: 0x80})
		} else {
			finish(sub, 2, []uint16{p.ID})
		}
	}
	wg.Wait()
	sub.Quiet()
}

// publishQuietly is a publisher for a goroutine: numbered messages, one after
// the other.
func publishQuietly(t testing.TB, c *mq.Conn, topic string, qos byte, n int) {
	for i := 1; i <= n; i++ {
		if err := publishOne(c, topic, qos, uint16(i), fmt.Sprint(i)); err != nil {
			t.Errorf("publish %d to %s: %v", i, topic, err)
			return
		}
	}
}

// publishOne publishes at QoS 1 or 2 and takes part in the exchange.
func publishOne(c *mq.Conn, topic string, qos byte, id uint16, payload string) error {
	if err := c.Write(mq.Publish{Topic: topic, QoS: qos, ID: id, Payload: []byte(payload)}); err != nil {
		return err
	}
	answer, err := c.Read(mq.Patience)
	if err != nil {
		return err
	}
	if answer.ID != id || answer.Code >= 0x80 {
		return fmt.Errorf("got %v", answer)
	}
	if qos == 1 {
		return nil
	}
	if err := c.Write(mq.Ack{Type: mq.PUBREL, ID: id}); err != nil {
		return err
	}
	if answer, err = c.Read(mq.Patience); err == nil && answer.Type != mq.PUBCOMP {
		err = fmt.Errorf("got %v, want PUBCOMP", answer)
	}
	return err
}

// A client may have as many publishes under way as the broker announced, which
// are enough to wait for commits, and one more is answered with 0x93.
//
// MQTT 5: 3.3.4-7.
func TestMQTT17ReceiveMaximumTowardsUs(t *testing.T) {
	addr := plain(t)
	c, ack := mq.OpenAck(t, addr, v5, clean(name(t)))
	limit := 65535
	if n, ok := ack.Properties.Number(mq.PropReceiveMaximum); ok {
		limit = int(n)
	}
	if limit < 256 && target == "" {
		t.Errorf("Receive Maximum is %d, want at least 256", limit)
	}
	for i := 1; i <= limit; i++ { // QoS 2 without PUBREL keeps its slot
		c.Send(mq.Publish{Topic: name(t), QoS: 2, ID: uint16(i)})
	}
	for i := 1; i <= limit; i++ {
		if rec := c.ExpectID(mq.PUBREC, uint16(i)); rec.Code >= 0x80 {
			t.Fatalf("got %v", rec)
		}
	}
	if limit < 65535 {
		c.TrySend(mq.Publish{Topic: name(t), QoS: 1, ID: uint16(limit + 1)})
		c.ClosedWith(0x93)
	}
}

// A 3.1.1 client knows no Receive Maximum: what it sends ahead is read as the
// broker gets to it, and all of it is acknowledged.
func TestMQTT17NoReceiveMaximumFor311(t *testing.T) {
	addr := plain(t)
	c := mq.Open(t, addr, v4, clean(name(t)))
	const n = 3000
	sent := make(chan error, 1)
	go func() {
		var batch []mq.Message
		for i := 1; i <= n; i++ {
			batch = append(batch, mq.Publish{Topic: name(t), QoS: 1, ID: uint16(i)})
		}
		sent <- c.Write(batch...)
	}()
	for i := 1; i <= n; i++ {
		c.ExpectID(mq.PUBACK, uint16(i))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A throttled subscriber that is cut off in the middle gets the rest, and
// again what it did not acknowledge.
//
// MQTT 5: 4.3.2-3, 4.4.0-1, 3.3.1-1.
// MQTT 3.1.1: 4.3.2-1, 4.4.0-1, 3.3.1-1.
func TestMQTT18KeptUntilAcknowledged(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		topic := name(t)
		m := durable(v, name(t))
		if v == v5 {
			m = receiveMax(name(t), 20)
		}
		sub := mq.Open(t, addr, v, m)
		sub.Subscribe(topic, 1)
		pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
		const n = 300
		publishMany(t, pub, topic, 1, 1, n)
		for next := 1; next <= n; {
			for range 15 { // acknowledge some, then cut the line with more under way
				p := sub.Await(mq.PUBLISH, 0)
				next = oneMore(t, p, next)
				sub.Send(mq.Ack{Type: mq.PUBACK, ID: p.ID})
				if next > n {
					break
				}
			}
			if err := sub.Reset(); err != nil {
				t.Fatal(err)
			}
			sub = mq.Open(t, addr, v, m)
		}
	})
}

// oneMore returns the number that may come after p, which must be next or,
// marked as sent before, an earlier one: a cut may lose acknowledgements.
func oneMore(t *testing.T, p *mq.Packet, next int) int {
	t.Helper()
	var got int
	if _, err := fmt.Sscan(string(p.Payload), &got); err != nil || got > next || got < next && !p.Dup() {
		t.Fatalf("got %v, want message %d, or an earlier one with DUP", p, next)
	}
	return max(next, got+1)
}

// A subscriber that stops reading delays neither the publisher nor others, at
// QoS 0 and 1, in either version, by a tenth; more is sent to it than any buffer
// takes. One of those that stop has a durable session, whose queue goes on: compared
// is with nobody at all.
func TestMQTT19SlowConsumerHarmsNobody(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	stuck := func(v byte, qos byte, m mq.Connect) {
		c := mq.DialSlow(t, s.ready.MQTT, v)
		c.Connect(m)
		c.Subscribe("beside", qos)
	}
	healthy := s.open(v5, clean("healthy"))
	healthy.Subscribe("alone", 1)
	healthy.Subscribe("beside", 1)
	pub := s.open(v5, clean("pub"))
	stuck(v5, 0, clean("stuck0"))
	stuck(v4, 1, clean("stuck1"))
	stuck(v5, 1, durable(v5, "stuck durable"))
	const size = 2000
	large := strings.Repeat("x", 10*size)
	for s.metric("bellwire_slow_consumers_total") == 0 || s.metric("bellwire_messages_dropped_total") == 0 {
		timeRound(pub, healthy, "beside", large, 200) // until all three are stuck
	}

	slowsBy(t, "three clients that do not read", func(beside bool) time.Duration {
		topic := "alone"
		if beside {
			topic = "beside"
		}
		return timeRound(pub, healthy, topic, strings.Repeat("x", size), 10)
	})
}

// A thousand durable sessions that are away, and subscribe to what is published,
// delay the publisher and who is there by less than a tenth. Each of them has all of
// it when it is back.
func TestMQTT20AbsentSessionsCostNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	const sessions = 1000
	var away []*mq.Client
	for i := range sessions {
		c := s.open(v5, durable(v5, fmt.Sprint("away", i)))
		c.Subscribe("beside", 1)
		away = append(away, c)
	}
	for _, c := range away {
		c.Disconnect()
	}
	healthy := s.open(v5, clean("healthy"))
	healthy.Subscribe("alone", 1)
	healthy.Subscribe("beside", 1)
	pub := s.open(v5, clean("pub"))
	beside := 0
	slowsBy(t, "a thousand sessions that are away", func(hot bool) time.Duration {
		if hot {
			beside += 10
			return timeRound(pub, healthy, "beside", fmt.Sprint(beside), 10)
		}
		return timeRound(pub, healthy, "alone", "x", 10)
	})
	back := s.open(v5, durable(v5, "away7"))
	for n := range beside {
		p := back.Receive()
		if want := fmt.Sprint(10 + n/10*10); string(p.Payload) != want || p.Dup() {
			t.Fatalf("back it has %v as message %d of %d, want %s", p, n, beside, want)
		}
	}
}

// slowsBy fails if the rounds that round(true) times take more than a tenth longer
// than those that round(false) times; what they have beside them is named.
func slowsBy(t *testing.T, what string, round func(beside bool) time.Duration) {
	t.Helper()
	// The median of many pairs decides, whose two rounds follow each other, either
	// first in turn: what else the machine does meets both.
	const most, atLeast, atMost = 1.1, 100, 20_000
	slower := 0 // pairs in which the one beside them took longer than that
	for n := 1; n <= atMost; n++ {
		var alone, beside time.Duration
		for k := range 2 {
			if (k+n)%2 == 0 {
				alone = round(false)
			} else {
				beside = round(true)
			}
		}
		if float64(beside) > most*float64(alone) {
			slower++
		}
		if n < atLeast {
			continue
		}
		// Were the median just most, half of the pairs would be slower, give or
		// take this much. Four times that is no chance: until it is that clear, one
		// goes on, which on a machine that is busy otherwise takes many pairs.
		deviation := math.Sqrt(float64(n)) / 2
		switch off := float64(slower) - float64(n)/2; {
		case off < -4*deviation:
			t.Logf("beside %s, %d of %d pairs take more than %v times as long as alone", what, slower, n, most)
			return
		case off > 4*deviation:
			t.Fatalf("beside %s, %d of %d pairs take more than %v times as long, want less than half", what, slower, n, most)
		}
	}
	t.Errorf("beside %s, %d of %d pairs take more than %v times as long, want clearly less than half", what, slower, atMost, most)
}

// timeRound publishes n messages, each acknowledged, and waits until the
// subscriber has them all.
func timeRound(pub, sub *mq.Client, topic, payload string, n int) time.Duration {
	start := time.Now()
	const atOnce = 50
	for left := n; left > 0; left -= atOnce {
		batch := make([]mq.Message, min(left, atOnce))
		for i := range batch {
			batch[i] = mq.Publish{Topic: topic, QoS: 1, ID: pub.ID(), Payload: []byte(payload)}
		}
		pub.Send(batch...)
		for range batch {
			pub.Expect(mq.PUBACK)
		}
		for range batch {
			sub.Receive()
		}
	}
	return time.Since(start)
}

// A clean subscriber that stays behind is told and let go when its bound is
// reached, and comes back.
func TestMQTT19SlowCleanSubscriberIsEnded(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	slow := mq.DialSlow(t, s.ready.MQTT, v5)
	slow.Connect(clean("slow"))
	slow.Subscribe("t", 1)
	pub := s.open(v5, clean("pub"))
	payload := strings.Repeat("x", 20_000)
	ended := func() bool { return s.metric("bellwire_slow_consumers_total") > 0 }
	for i := 0; i < 4000 && !ended(); i += 50 {
		for range 50 {
			pub.Publish("t", 1, payload)
		}
	}
	until(t, "the slow client's connection is ended", 90*time.Second, ended)
	until(t, "it is ended with 0x97", mq.Patience, func() bool {
		return s.metric("bellwire_disconnects_total", `reason="quota_exceeded"`) == 1
	})
	slow = s.open(v5, clean("slow"))
	slow.Subscribe("t", 1)
	pub.Publish("t", 1, "fresh")
	slow.ReceiveText("t", "fresh")
}

// Offline subscribers cost a log append, not a delay: a hundred of them on a
// topic, and its live subscriber goes on; all of them have it all later.
//
// MQTT 5: 4.5.0-1, 3.1.2-23.
// MQTT 3.1.1: 4.5.0-1, 3.1.2-5.
func TestMQTT21OfflineSubscribersGetEverything(t *testing.T) {
	addr := plain(t)
	const offline, n = 100, 50
	for i := range offline {
		c := mq.Open(t, addr, v5, durable(v5, name(t, fmt.Sprint(i))))
		c.Subscribe(name(t), 1)
		c.Disconnect()
	}
	live := mq.Open(t, addr, v5, clean(name(t, "live")))
	live.Subscribe(name(t), 1)
	pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
	publishMany(t, pub, name(t), 1, 1, n)
	live.ReceiveAll(mq.Numbered(1, n)...)
	for i := range offline {
		c := mq.Open(t, addr, v5, durable(v5, name(t, fmt.Sprint(i))))
		c.ReceiveAll(mq.Numbered(1, n)...)
		c.Quiet()
	}
}

// Ten thousand messages wait for an offline session and arrive in order.
func TestMQTT21TenThousandQueuedArriveInOrder(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	versions(t, func(t *testing.T, v byte) {
		const n = 10_000
		sub := mq.Open(t, s.ready.MQTT, v, durable(v, name(t)))
		sub.Subscribe(name(t), 1)
		sub.Disconnect()
		pub := mq.Open(t, s.ready.MQTT, v5, clean(name(t, "pub")))
		publishMany(t, pub, name(t), 1, 1, n)
		if v == v5 {
			s.restart()
		}
		sub, ack := mq.OpenAck(t, s.ready.MQTT, v, durable(v, name(t)))
		if !ack.SessionPresent {
			t.Error("the session is gone")
		}
		if got := ack.Properties.User(); len(got) != 0 {
			t.Errorf("nothing was dropped, but CONNACK says %v", got)
		}
		sub.ReceiveAll(mq.Numbered(1, n)...)
		sub.Quiet()
	})
}

// Past its bound a queue loses its oldest, which are counted, told at resume,
// and stay lost; the documented number arrives.
func TestMQTT21QueueBound(t *testing.T) {
	t.Parallel()
	const bound, published = 1000, 1500
	s := serve(t, "--allow-anonymous", "--limits", limitsFile(t, queueEventsLimit(bound)))
	sub := s.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	sub.Disconnect()
	old := s.open(v4, durable(v4, "old"))
	old.Subscribe("t", 1)
	old.Disconnect()
	pub := s.open(v5, clean("pub"))
	publishMany(t, pub, "t", 1, 1, published)
	pub.Publish("other", 1, "x") // a queue is trimmed before the next entry is applied
	if got := s.dropped("queue_full"); got != 2*(published-bound) {
		t.Errorf("%v messages are counted as dropped, want %d", got, 2*(published-bound))
	}
	s.restart()
	sub, ack := mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, "sub"))
	if got, want := fmt.Sprint(ack.Properties.User()), "[bellwire-dropped=500]"; got != want {
		t.Errorf("CONNACK says %s, want %s", got, want)
	}
	sub.ReceiveAll(mq.Numbered(published-bound+1, published)...)
	sub.Quiet()
	sub.Disconnect()
	sub, ack = mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, "sub"))
	if got := ack.Properties.User(); len(got) != 0 {
		t.Errorf("told twice: %v", got)
	}
	sub.Quiet()
	old = s.open(v4, durable(v4, "old"))
	old.ReceiveAll(mq.Numbered(published-bound+1, published)...)
	old.Quiet()
}

// Limits of what all nodes hold alike are state: a restart does not change them,
// SIGHUP does, also for the queues there are; a bad file changes nothing.
func TestLimitsAreState(t *testing.T) {
	t.Parallel()
	path := limitsFile(t, queueEventsLimit(100))
	s := serve(t, "--allow-anonymous", "--limits", path)
	s.open(v5, durable(v5, "sub")).Subscribe("t", 1)
	change := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	says := func(words string) {
		t.Helper()
		until(t, "the log says "+words, mq.Patience, func() bool { return strings.Contains(s.logs.String(), words) })
	}
	change(queueEventsLimit(20))
	s.restart()
	says("differ from those in force")
	pub := s.open(v5, clean("pub"))
	publishMany(t, pub, "t", 1, 1, 90)
	pub.Publish("other", 1, "x")
	if got := s.dropped("queue_full"); got != 0 {
		t.Errorf("%v messages are dropped, and the bound in force is 100", got)
	}
	change("v: 1\ndefault: {session.queueEvents: -1}\n")
	s.signal(syscall.SIGHUP)
	says("limits not changed")
	change(queueEventsLimit(20))
	s.signal(syscall.SIGHUP)
	says("limits changed")
	pub.Publish("other", 1, "x")
	if got := s.dropped("queue_full"); got != 70 {
		t.Errorf("%v messages are dropped, want 70", got)
	}
	sub := s.open(v5, durable(v5, "sub"))
	sub.ReceiveAll(mq.Numbered(71, 90)...)
	sub.Quiet()
}

// What is under way is not the loser of a full queue.
func TestMQTT21InFlightIsNeverDropped(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--limits", limitsFile(t, queueEventsLimit(100)))
	sub := s.open(v5, receiveMax("sub", 5))
	sub.Subscribe("t", 1)
	pub := s.open(v5, clean("pub"))
	publishMany(t, pub, "t", 1, 1, 5)
	var ids []uint16
	for range 5 {
		ids = append(ids, sub.Expect(mq.PUBLISH).ID)
	}
	sub.Close()
	publishMany(t, pub, "t", 1, 6, 300)
	sub = s.open(v5, receiveMax("sub", 5))
	for i, id := range ids {
		if p := sub.Expect(mq.PUBLISH); p.ID != id || !p.Dup() || string(p.Payload) != fmt.Sprint(i+1) {
			t.Errorf("got %v, want message %d again with id %d", p, i+1, id)
		}
	}
	finish(sub, 1, ids)
	// The bound holds for the whole queue; what is under way has its place in it.
	first := sub.Receive()
	var from int
	if _, err := fmt.Sscan(string(first.Payload), &from); err != nil || from < 201 || from > 206 {
		t.Fatalf("got %v, want the first of the newest hundred", first)
	}
	sub.ReceiveAll(mq.Numbered(from+1, 300)...)
	sub.Quiet()
}

// First deliveries ascend through throttling, cuts, resends and takeovers.
//
// MQTT 5: 4.6.0-5, 4.6.0-6.
// MQTT 3.1.1: 4.6.0-5, 4.6.0-6.
func TestMQTT22OrderThroughCuts(t *testing.T) {
	addr := plain(t)
	versions(t, func(t *testing.T, v byte) {
		const n = 3000
		topic := name(t)
		m := durable(v, name(t))
		if v == v5 {
			m = receiveMax(name(t), 7)
		}
		sub := mq.Open(t, addr, v, m)
		sub.Subscribe(topic, 1)
		pub := mq.Open(t, addr, v5, clean(name(t, "pub")))
		done := make(chan struct{})
		go func() {
			defer close(done)
			publishQuietly(t, pub.Conn, topic, 1, n)
		}()
		rng := rand.New(rand.NewPCG(22, uint64(v)))
		for next := 1; next <= n; {
			if rng.IntN(100) == 0 {
				if rng.IntN(2) == 0 { // else a takeover
					sub.Close()
				}
				sub = mq.Open(t, addr, v, m)
			}
			p := sub.Await(mq.PUBLISH, 0)
			next = oneMore(t, p, next)
			sub.Send(mq.Ack{Type: mq.PUBACK, ID: p.ID})
		}
		<-done
	})
}
