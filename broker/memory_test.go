package broker

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
)

// logged returns how many entries the log has.
func (n *node) logged() int {
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	return len(*n.log.kept)
}

// What the operator wants in memory only is acknowledged and delivered without the log,
// at QoS 1 and 2, with what each subscriber is owed of it: one copy, the lower QoS, an
// acknowledgement. Where the log keeps something for somebody, it has it.
func TestMemoryTakesNoLog(t *testing.T) {
	n := newNode(t, Limits{})
	sub, _ := n.connect("sub", true, 0)
	sub.subscribe("memory/#", 2)
	low, _ := n.connect("low", true, 0)
	low.subscribe("memory/+", 1)
	zero, _ := n.connect("zero", true, 3600)
	zero.subscribe("memory/a", 0)
	pub, _ := n.connect("pub", true, 0)
	before := n.logged()
	for qos := range uint8(3) {
		must(t, pub.publishID(7, "memory/a", fmt.Sprint("m", qos), qos))
	}
	must(t, pub.publishID(7, "memory/a", "m2", 2)) // it was not released
	if _, err := pub.s.Release(7, nil, 0); err != nil {
		t.Fatal(err)
	}
	must(t, pub.publishID(7, "memory/a", "again", 2))
	if got := n.logged() - before; got != 0 {
		t.Errorf("%d entries of the log for what is in memory", got)
	}
	if got := n.stats.InMemory.Load(); got != 3 {
		t.Errorf("%d counted, want 3", got)
	}
	sub.want("memory/a=m0 q0", "memory/a=m1 q1", "memory/a=m2 q2", "memory/a=again q2")
	low.want("memory/a=m0 q0", "memory/a=m1 q1", "memory/a=m2 q1", "memory/a=again q1")
	zero.want("memory/a=m0 q0", "memory/a=m1 q0", "memory/a=m2 q0", "memory/a=again q0")
	got := sub.awaitGot(4)
	must(t, sub.answer(got[1].id, Acked))
	must(t, sub.answer(got[2].id, Received))
	must(t, sub.answer(got[2].id, Completed))
	for _, c := range []struct {
		why, topic string
		pub        *client
		qos        uint8
		change     func()
		with       []func(*event.Event)
	}{
		{"it is retained", "memory/r", pub, 1, func() {}, []func(*event.Event){retain}},
		{"its publisher's session is durable", "memory/d", func() *client { c, _ := n.connect("lasting", true, 3600); return c }(), 2, func() {}, nil},
		{"a durable session subscribes at QoS 1", "memory/a", pub, 1, func() {
			away, _ := n.connect("away", true, 3600)
			away.subscribe("memory/a", 1)
			away.s.Close(false, false, 0)
		}, nil},
		{"a group subscribes", "memory/b/c", pub, 1, func() { zero.subscribe("$share/g/memory/b/#", 1) }, nil},
	} {
		c.change()
		n.tick()
		before := n.logged()
		must(t, c.pub.publishID(9, c.topic, "x", c.qos, c.with...))
		if got := n.logged() - before; got == 0 {
			t.Errorf("%s, and the log has nothing of it", c.why)
		}
	}
	back, present := n.connect("away", false, 3600)
	if !present {
		t.Fatal("no session")
	}
	back.want("memory/a=x q1")
}

// Nothing overtakes what its publisher has on the way through the log.
func TestMemoryStaysBehindTheLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		sub, _ := n.connect("sub", true, 0)
		sub.subscribe("#", 1)
		pub, _ := n.connect("pub", true, 0)
		goOn := n.log.hold()
		var w Wave
		for _, name := range []string{"log/a", "memory/a"} {
			logged, err := pub.s.Publish(&event.Event{Topic: name, Payload: []byte("x"), QoS: 1}, 0, deaf{}, 0, &w)
			if must(t, err); !logged {
				t.Errorf("%s does not take the log", name)
			}
		}
		goOn()
		sub.want("log/a=x q1", "memory/a=x q1")
		n.tick()
		must(t, pub.publish("memory/a", "y", 1))
		if got := n.stats.InMemory.Load(); got != 1 {
			t.Errorf("%d in memory, want what came when nothing was under way", got)
		}
	})
}

// What waits in memory for a client that is behind is asked about again before it is
// sent, is bounded, and ends with the connection: who falls too far behind loses that.
func TestMemoryWaitsWithinBounds(t *testing.T) {
	n := newNode(t, Limits{VolatileEvents: 10})
	n.policies["day"] = parseRules("allow * # publish\nallow * memory/# subscribe 08:00-13:00")
	n.policy("day")
	slow, _ := n.connect("slow", true, 0, receiveMax(1))
	slow.subscribe("memory/#", 1)
	pub, _ := n.connect("pub", true, 0)
	for i := range 3 {
		must(t, pub.publish("memory/a", fmt.Sprint(i), 1))
	}
	if got := slow.await(1); len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	n.pass(time.Hour) // its window has closed
	slow.ackAll()
	n.tick()
	if got := slow.await(1); len(got) != 1 {
		t.Errorf("got %v, though its window is closed", got)
	}
	n.policy("all")
	for i := range 12 {
		must(t, pub.publish("memory/a", fmt.Sprint("more", i), 1))
	}
	if err := slow.awaitEnd(); err != ErrSlow {
		t.Errorf("ended by %v, want %v", err, ErrSlow)
	}
}

// A durable session that subscribes while an event is under way that nobody kept
// anything for gets it all the same.
func TestMemoryMeetsASubscriber(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	must(t, pub.publish("memory/a", "first", 1))
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("memory/a", 1)
	var w Wave
	must(t, pub.s.publishInMemory(&event.Event{Topic: "memory/a", Payload: []byte("x"), QoS: 1, At: n.now(), Origin: pub.s.number}, 0, n.now(), &w))
	w.Flush()
	sub.want("memory/a=x q0")
}

// Subscribers on other nodes get what is in memory at its QoS. A node that cannot be
// reached gets it through the log.
func TestMemoryGoesToOtherNodes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		sub, _ := n[1].connect("sub", true, 0)
		sub.subscribe("memory/+", 2)
		zero, _ := n[2].connect("zero", true, 0)
		zero.subscribe("memory/+", 0)
		pub, _ := n[0].connect("pub", true, 0)
		l.settle()
		must(t, pub.publish("memory/a", "not yet", 1))
		if got := n[0].stats.InMemory.Load(); got != 0 {
			t.Error("in memory, before all nodes know that there is such a thing")
		}
		must(t, n[0].Raise(t.Context(), NewestLevel))
		l.settle()
		for qos := range uint8(3) {
			must(t, pub.publishID(uint16(qos)+1, "memory/a", fmt.Sprint("m", qos), qos))
		}
		l.settle()
		sub.want("memory/a=not yet q1", "memory/a=m0 q0", "memory/a=m1 q1", "memory/a=m2 q2")
		zero.want("memory/a=not yet q0", "memory/a=m0 q0", "memory/a=m1 q0", "memory/a=m2 q0")
		if got := n[0].stats.InMemory.Load(); got != 2 {
			t.Errorf("%d in memory, want 2", got)
		}
		n[0].PeerDown(n[1].name)
		must(t, pub.publish("memory/a", "by the log", 1))
		l.settle()
		if got := sub.await(5); got[4] != "memory/a=by the log q1" {
			t.Errorf("got %v", got)
		}
		if got := n[0].stats.InMemory.Load(); got != 2 {
			t.Errorf("%d in memory with a node away, want 2", got)
		}
	})
}

// An acknowledging is a client that acknowledges what it gets when it is told to.
type acknowledging struct {
	nowhere
	mu   sync.Mutex
	last []uint16
}

func (a *acknowledging) Deliver(d *Delivery, _ *Wave) Outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = append(a.last, d.PacketID)
	return Sent
}

func memoryFanOut(t testing.TB, subscribers int) (pub *Session, publish func()) {
	n := newNode(t, Limits{})
	other, _ := n.connect("other", true, 3600)
	other.subscribe("another/+", 1) // there is something to look through
	sinks, subs := make([]*acknowledging, subscribers), make([]*Session, subscribers)
	for i := range subs {
		sinks[i] = &acknowledging{}
		s, _, _, err := n.Connect(ConnectRequest{Client: fmt.Sprint("sub", i), Principal: "sub", Version: 5, ReceiveMax: 100}, sinks[i])
		must(t, err)
		subs[i] = s
		start(s)
		s.Subscribe([]event.Subscription{{Filter: "memory/+", QoS: 1}}, func([]SubResult, *Wave) {})
	}
	pub = n.connectNowhere("pub", 0, &nowhere{})
	start(pub)
	var w Wave
	e := &event.Event{Topic: "memory/topic", Payload: make([]byte, 64), QoS: 1}
	return pub, func() {
		if logged, err := pub.Publish(e, 0, deaf{}, 0, &w); err != nil || logged {
			t.Fatal(logged, err)
		}
		for i, s := range subs {
			for _, id := range sinks[i].last {
				if err := s.Settle(id, Acked, &w); err != nil {
					t.Fatal(err)
				}
			}
			sinks[i].last = sinks[i].last[:0]
		}
		w.Flush()
	}
}

// An event of QoS 1 that is in memory only costs its path no memory, however many it
// goes to.
func TestMemoryAllocatesNothing(t *testing.T) {
	for _, subscribers := range []int{0, 1, 100} {
		_, publish := memoryFanOut(t, subscribers)
		publish()
		if allocs := testing.AllocsPerRun(200, publish); allocs != 0 {
			t.Errorf("%d subscribers: %v allocations for an event", subscribers, allocs)
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	for _, subscribers := range []int{1, 100} {
		b.Run(fmt.Sprint("subscribers=", subscribers), func(b *testing.B) {
			_, publish := memoryFanOut(b, subscribers)
			b.ReportAllocs()
			for b.Loop() {
				publish()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*subscribers), "ns/delivery")
		})
	}
}
