package blackbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A hostile client can end its own connection and no other: packets that were
// legal until a few bytes were changed, cut, doubled or left out, before and
// after CONNECT, while three healthy clients go on. The server neither dies nor
// tells of a panic, and what it holds for them is given back.
//
// MQTT 5: 4.13.1-1.
// Item 63.
func TestHostileClientsHarmNobody(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	healthy := newWitnesses(t, s.ready.MQTT)
	rng := rand.New(rand.NewPCG(63, effort.First()))
	for i := range effort.Turns(t) {
		if err := attack(s.ready.MQTT, rng); err != nil {
			t.Fatalf("attack %d: %v", i, err)
		}
		if i%100 == 0 {
			healthy.check(t, 2, fmt.Sprint("attack ", i))
		}
	}
	healthy.check(t, 2, "the last attack")
	until(t, "their connections are gone", 30*time.Second, func() bool { return s.metric("bellwire_sockets") <= 3 })
	if got := s.metric("bellwire_panics_total"); got != 0 {
		t.Errorf("%v connections ended by a panic", got)
	}
}

// attack opens a connection, perhaps connects, sends damaged packets, and
// leaves. Only that the server is not to be reached is an error.
func attack(addr string, rng *rand.Rand) error {
	nc, err := net.DialTimeout("tcp", addr, mq.Patience)
	if err != nil {
		return err
	}
	defer nc.Close()
	v := byte(4 + rng.IntN(2))
	id := fmt.Sprint("hostile", rng.IntN(20)) // a few ids: they take each other over
	connect := mq.Connect{ClientID: id, Clean: rng.IntN(2) == 0, KeepAlive: 10}.Encode(v)
	if rng.IntN(4) == 0 {
		connect = mutate(connect, rng)
	}
	b := connect
	for range rng.IntN(5) {
		p := legal(rng).Encode(v)
		if rng.IntN(2) == 0 {
			p = mutate(p, rng)
		}
		b = append(b, p...)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Millisecond))
	_, _ = nc.Write(b)
	_, _ = nc.Read(make([]byte, 4096))
	return nil
}

// legal is one of the packets that a client may send.
func legal(rng *rand.Rand) mq.Message {
	id := uint16(1 + rng.IntN(3))
	topic := []string{"h", "h/a", "h/b/c", "$SYS/x", "h/" + fmt.Sprint(rng.IntN(1000))}[rng.IntN(5)]
	switch rng.IntN(9) {
	case 0, 1, 2:
		m := mq.Publish{Topic: topic, QoS: byte(rng.IntN(3)), ID: id, Retain: rng.IntN(4) == 0, Payload: make([]byte, rng.IntN(300))}
		if rng.IntN(2) == 0 {
			m.Properties = mq.Properties{mq.Number(mq.PropTopicAlias, uint32(1+rng.IntN(3))), mq.User("a", "b"), mq.Number(mq.PropMessageExpiry, 60)}
		}
		return m
	case 3:
		filters := []string{"#", "h/+", "h/#", "$share/g/h", topic}
		return mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: filters[rng.IntN(5)], QoS: byte(rng.IntN(3)), NoLocal: rng.IntN(2) == 0, RetainHandling: byte(rng.IntN(3))}}}
	case 4:
		return mq.Unsubscribe{ID: id, Filters: []string{"#", topic}}
	case 5:
		return mq.Ack{Type: mq.PUBREL, ID: id}
	case 6:
		return mq.Ack{Type: []mq.Type{mq.PUBACK, mq.PUBREC, mq.PUBCOMP}[rng.IntN(3)], ID: id}
	case 7:
		return mq.Reason{Type: mq.DISCONNECT, Code: []byte{0, 4}[rng.IntN(2)], Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, uint32(rng.IntN(3)))}}
	}
	return mq.Ping
}

// mutate damages a packet.
func mutate(b []byte, rng *rand.Rand) []byte {
	b = append([]byte{}, b...)
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			break
		}
		i := rng.IntN(len(b))
		switch rng.IntN(5) {
		case 0:
			b[i] ^= 1 << rng.IntN(8)
		case 1:
			b[i] = []byte{0, 1, 0x7F, 0x80, 0xFF}[rng.IntN(5)]
		case 2:
			b = b[:i]
		case 3:
			b = append(b[:i:i], append([]byte{byte(rng.Uint32())}, b[i:]...)...)
		default:
			b = append(b, b[i:]...)
		}
	}
	return b
}

// One packet full of filters, as large as a packet may be, costs the client
// its time and nobody else's: what is done for it does not grow with the square
// of their number.
func TestManyFiltersInOnePacket(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	healthy := newWitnesses(t, s.ready.MQTT)
	var filters []mq.Filter
	var names []string
	for i := range 25_000 { // 250 KB
		filters = append(filters, mq.Filter{Filter: fmt.Sprintf("%05d", i), QoS: 1})
		names = append(names, filters[i].Filter)
	}
	for _, m := range []mq.Connect{clean("clean"), durable(v5, "durable")} {
		attempts(t, func(try *attempt) {
			c := s.open(v5, m)
			defer c.Disconnect()
			slowest, busy := time.Duration(0), time.Duration(0)
			during := func(send mq.Message, answer mq.Type) *mq.Packet {
				c.Send(send)
				for {
					start, spent := time.Now(), processorTime(t, s.pid())
					healthy.check(t, 2, "meanwhile")
					slowest, busy = max(slowest, time.Since(start)), max(busy, processorTime(t, s.pid())-spent)
					if p := c.Arrives(time.Millisecond); p != nil {
						if p.Type != answer {
							t.Fatalf("got %v, want %v", p, answer)
						}
						return p
					}
				}
			}
			during(mq.Subscribe{ID: 1, Filters: filters}, mq.SUBACK)
			ack := during(mq.Unsubscribe{ID: 2, Filters: names}, mq.UNSUBACK)
			if len(ack.Codes) != len(names) || ack.Codes[0] != 0 || ack.Codes[len(names)-1] != 0 {
				t.Errorf("%s: %d codes, want %d of 0x00", m.ClientID, len(ack.Codes), len(names))
			}
			t.Logf("%s: others waited at most %v, for %v of processors", m.ClientID, slowest, busy)
			try.within(3*time.Second, slowest, m.ClientID+": others had their answers")
			if busy > 3*time.Second { // that no processor was to be had meanwhile is not its doing
				t.Errorf("%s: others waited %v for %v of processors, spent on a packet of 25,000 filters", m.ClientID, slowest, busy)
			}
		})
	}
}

// What clients made a server hold is given back when they are gone: sessions,
// subscriptions, topics and queues that come and go leave nothing.
//
// Item 65.
func TestMemoryReturns(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous", "--pprof")
	visit := func(n, i int) error {
		m := clean(fmt.Sprint("wave", i))
		if i%2 == 0 {
			m = durable(v5, m.ClientID)
		}
		c, ack, err := mq.DialConnect(s.ready.MQTT, v5, m)
		if err != nil || ack.Code != 0 {
			return fmt.Errorf("client %d: %v, %w", i, ack, err)
		}
		defer c.Close()
		topic := fmt.Sprintf("wave/%d/%d", n, i)
		err = c.Write(mq.Subscribe{ID: 1, Filters: []mq.Filter{{Filter: topic, QoS: 1}, {Filter: topic + "/+", QoS: 1}}},
			mq.Publish{Topic: topic + "/x", QoS: 1, ID: 1, Retain: true, Payload: make([]byte, 2000)},
			mq.Publish{Topic: topic + "/x", QoS: 1, ID: 2, Retain: true})
		for got := 0; err == nil && got < 3; { // SUBACK and two PUBACKs; copies come too
			var p *mq.Packet
			if p, err = c.Read(mq.Patience); err == nil && p.Type != mq.PUBLISH {
				got++
			}
		}
		if err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		return c.Write(mq.Reason{Type: mq.DISCONNECT, Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 0)}})
	}
	wave := func(n int) {
		const abreast = 10
		ends := make(chan error)
		for first := range abreast {
			go func() {
				var err error
				for i := first; err == nil && i < n; i += abreast {
					err = visit(n, i)
				}
				ends <- err
			}()
		}
		var all []error
		for range abreast {
			all = append(all, <-ends)
		}
		if err := errors.Join(all...); err != nil {
			t.Fatal(err)
		}
		until(t, "all are gone", mq.Patience, func() bool { return s.metric("bellwire_sessions") == 0 })
	}
	wave(1000) // buffers, caches and pools have their size now
	before := s.liveHeap()
	for range 3 {
		wave(1000)
	}
	grown := s.liveHeap() - before
	t.Logf("after 3000 more clients the heap has grown by %d KiB", grown>>10)
	if grown > 3000*500 {
		t.Errorf("each of 3000 clients left %d bytes behind", grown/3000)
	}
}
