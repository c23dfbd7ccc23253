package broker

import (
	"fmt"
	"sync"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// A nowhere is a Sink that takes everything and keeps nothing.
type nowhere struct {
	mu   sync.Mutex
	want int           // deliveries until it is enough
	done chan struct{} // closed then
}

func (s *nowhere) Deliver(*Delivery, *Wave) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want--; s.want == 0 {
		close(s.done)
	}
	return Sent
}

func (s *nowhere) Release(uint16, *Wave) {}
func (s *nowhere) Flush()                {}
func (s *nowhere) End(error)             {}

// connectNowhere connects a client whose every delivery goes nowhere.
func (n *node) connectNowhere(id string, expiry uint32, sink *nowhere) *Session {
	n.t.Helper()
	s, _, _, err := n.Connect(ConnectRequest{Client: id, Principal: id, Version: 5, Expiry: expiry, ReceiveMax: 65535}, sink)
	must(n.t, err)
	return s
}

func start(s *Session) {
	var w Wave
	s.Start(&w)
	w.Flush()
}

// fanOut returns a publisher's session, and what it publishes to so many
// subscribers at QoS 0.
func fanOut(t testing.TB, subscribers int) (*Session, *event.Event) {
	n := newNode(t, Limits{})
	for i := range subscribers {
		s := n.connectNowhere(fmt.Sprint("sub", i), 0, &nowhere{})
		start(s)
		s.Subscribe([]event.Subscription{{Filter: "some/+"}}, func([]SubResult, *Wave) {})
	}
	pub := n.connectNowhere("pub", 0, &nowhere{})
	start(pub)
	return pub, &event.Event{Topic: "some/topic", Payload: make([]byte, 64)}
}

// A QoS 0 event costs its path no memory, however many it goes to.
func TestQoS0AllocatesNothing(t *testing.T) {
	for _, subscribers := range []int{0, 1, 100} {
		pub, e := fanOut(t, subscribers)
		var w Wave
		allocs := testing.AllocsPerRun(200, func() {
			if _, err := pub.Publish(e, 0, nil, 0, &w); err != nil {
				t.Fatal(err)
			}
			w.Flush()
		})
		if allocs != 0 {
			t.Errorf("%d subscribers: %v allocations for an event", subscribers, allocs)
		}
	}
}

func BenchmarkQoS0(b *testing.B) {
	for _, subscribers := range []int{1, 100} {
		b.Run(fmt.Sprint("subscribers=", subscribers), func(b *testing.B) {
			pub, e := fanOut(b, subscribers)
			var w Wave
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pub.Publish(e, 0, nil, 0, &w); err != nil {
					b.Fatal(err)
				}
				w.Flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*subscribers), "ns/delivery")
		})
	}
}

// BenchmarkApply is what the Machine alone does for a durable event, which so many
// durable sessions queue, and which they have acknowledged by the next entry: events
// of one topic, and of fifty topics with a session each.
func BenchmarkApply(b *testing.B) {
	for _, c := range []struct{ topics, subscribers, perEntry int }{{1, 0, 100}, {1, 1, 100}, {1, 10, 100}, {50, 1, 1000}} {
		b.Run(fmt.Sprintf("topics=%d/subscribers=%d", c.topics, c.subscribers), func(b *testing.B) {
			benchmarkApply(b, c.topics, c.subscribers, c.perEntry)
		})
	}
}

func benchmarkApply(b *testing.B, topics, subscribers, perEntry int) {
	n := bareNode(b, Limits{})
	u := &machineUnderTest{Machine: n.machine}
	u.deliver = func(a *applied) { u.steps = append(u.steps, *a) }
	d, m := drive(b, u), u.Machine
	b.Cleanup(n.Broker.Close)
	var sessions []*opened
	var publishes []event.Command
	for t := range topics {
		name := fmt.Sprint("a/", t)
		publishes = append(publishes, event.Command(publishing(name, string(make([]byte, 64)), 1)))
		for i := range subscribers {
			o := d.connect(event.Connect{Client: fmt.Sprint("c", t, "-", i), Principal: "alice", Expiry: 3600, ReceiveMax: 65535})
			d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: name, QoS: 1}}})
			sessions = append(sessions, o)
		}
	}
	var one applied
	m.deliver, m.spare = func(a *applied) { a.reset() }, func() *applied { return &one }
	var batch []byte
	b.ReportAllocs()
	for b.Loop() {
		d.seq++
		batch = event.AppendHeader(batch[:0], event.Header{Node: "n1", Incarnation: 1 << lifeBits, Seq: d.seq})
		for _, s := range sessions {
			next := m.numbers[s.session].queue.next
			batch = event.AppendCommand(batch, &event.Settle{Session: s.session, Epoch: s.epoch, Below: next, Sent: next})
		}
		for i := range perEntry {
			batch = event.AppendCommand(batch, publishes[i%topics])
		}
		d.index++
		m.Apply(d.index, 1, d.now, [][]byte{batch})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perEntry), "ns/event")
}

// BenchmarkResume is a client that is back to a queue of 10,000 events, all under
// way from before, and is sent them.
func BenchmarkResume(b *testing.B) {
	const events = 10_000
	n := newNode(b, Limits{})
	s := n.connectNowhere("sub", 3600, &nowhere{})
	s.Subscribe([]event.Subscription{{Filter: "x", QoS: 1}}, func([]SubResult, *Wave) {})
	s.Close(false, false, 0)
	pub, _ := n.connect("pub", true, 0)
	for range events {
		var w Wave
		_, err := pub.s.Publish(&event.Event{Topic: "x", Payload: make([]byte, 64), QoS: 1}, 0, deaf{}, 0, &w)
		must(b, err)
	}
	n.tick()
	b.ReportAllocs()
	for b.Loop() {
		sink := &nowhere{want: events, done: make(chan struct{})}
		s := n.connectNowhere("sub", 3600, sink)
		start(s)
		<-sink.done
		s.Close(false, false, 0)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
}

// BenchmarkKeptDecision is a decision of the policy that is kept: by a subscriber's
// place in the audience of a topic, and by a publisher's session.
func BenchmarkKeptDecision(b *testing.B) {
	pub, e := fanOut(b, 1)
	n, now := pub.b, pub.b.now()
	b.Run("subscribe", func(b *testing.B) {
		h := &n.local.LookupString(e.Topic).hearers[0]
		for b.Loop() {
			if ok, _ := h.permitted(n, e.Topic, now); !ok {
				b.Fatal("not permitted")
			}
		}
	})
	b.Run("publish", func(b *testing.B) {
		for b.Loop() {
			if err := pub.mayPublish(e.Topic, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkBacklog is what it costs that a client takes one of so many events that wait for it
// in memory, and another comes.
func BenchmarkBacklog(b *testing.B) {
	for _, waiting := range []int{100, 9000} {
		b.Run(fmt.Sprint("waiting=", waiting), func(b *testing.B) {
			n := newNode(b, Limits{})
			s, _, _, err := n.Connect(ConnectRequest{Client: "c", Principal: "c", Version: 5, ReceiveMax: 1}, &nowhere{})
			must(b, err)
			start(s)
			s.Subscribe([]event.Subscription{{Filter: "x", QoS: 1}}, func([]SubResult, *Wave) {})
			e := &event.Event{Topic: "x", Payload: make([]byte, 64), QoS: 1}
			come := func(many int) {
				n.loop.call(func(w *Wave) {
					for range many {
						s.hear(&Delivery{Event: e, QoS: 1}, 0, w)
					}
				})
			}
			come(waiting)
			var w Wave
			for seq := uint64(0); b.Loop(); seq++ {
				come(1)
				must(b, s.Settle(packetID(seq), Acked, &w))
			}
		})
	}
}
