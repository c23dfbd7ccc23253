package broker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// Packet ids of documents count down from below what is under way of the queue, and
// are never one that the queue or another document has.
func TestPacketIDsBeside(t *testing.T) {
	taken := func(numbers ...uint64) map[uint16]struct{} {
		ids := map[uint16]struct{}{}
		for _, n := range numbers {
			ids[packetID(n)] = struct{}{}
		}
		return ids
	}
	lots := map[uint16]struct{}{}
	for n := range uint64(besideIDs) {
		lots[packetID(100_000-1-n)] = struct{}{}
	}
	for _, c := range []struct {
		name        string
		given       uint64 // number of the last
		ids         map[uint16]struct{}
		below, sent uint64
		want        uint64 // a number with that packet id; 0 for none
	}{
		{"the first of a new session", 0, nil, 0, 0, 65534},
		{"the first beside a queue", 0, nil, 100_000, 100_010, 99_999},
		{"the next counts down", 100_000 + maxSpan, nil, 100_000, 100_010, 99_998},
		{"one that is taken is passed over", 100_000 + maxSpan, taken(99_998, 99_997), 100_000, 100_010, 99_996},
		{"the queue has gone on: it goes on, too", 100_000 + maxSpan, nil, 100_500, 100_510, 99_998},
		{"at the end of its half it begins again", 100_000 + maxSpan - besideIDs + 1, nil, 100_000, 100_010, 99_999},
		{"but for what is taken there", 100_000 + maxSpan - besideIDs + 1, taken(99_999), 100_000, 100_010, 99_998},
		{"far behind it begins again", 65_535 + 7, nil, 100_000, 100_010, 99_999},
		{"the queue has nearly all", 0, nil, 100_000, 100_000 + maxSpan, 99_999},
		{"it has all but one, which is taken", 0, taken(99_999), 100_000, 100_000 + maxSpan, 0},
		{"all are taken", 0, lots, 100_000, 100_000, 0},
	} {
		b := beside{ids: c.ids, at: c.given}
		got, want := b.next(c.below, c.sent), uint16(0)
		if c.want != 0 {
			want = packetID(c.want)
		}
		if got != want {
			t.Errorf("%s: got %d, want %d", c.name, got, want)
		}
	}
}

// Against whatever queue and client: an id that is given is free, and there is none
// only if none is free that the queue does not come to soon.
func TestPacketIDsBesideAreFree(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		var b beside
		below := uint64(rng.IntN(200_000))
		sent := below
		for range 3000 {
			switch rng.IntN(4) {
			case 0:
				sent = min(sent+uint64(rng.IntN(200)), below+maxSpan)
			case 1:
				below = min(below+uint64(rng.IntN(400)), sent)
			case 2:
				for id := range b.ids {
					delete(b.ids, id)
					break
				}
			}
			id := b.next(below, sent)
			if id == 0 {
				t.Fatalf("none is free from %d to %d, with %d documents", below, sent, len(b.ids))
			}
			if seq := below + (uint64(id)+65535-1-below%65535)%65535; seq < sent {
				t.Fatalf("%d is under way as number %d, from %d to %d", id, seq, below, sent)
			}
			if b.has(id) {
				t.Fatalf("%d is a document's", id)
			}
			if b.ids == nil {
				b.ids = map[uint16]struct{}{}
			}
			b.ids[id] = struct{}{}
		}
	}
}

// The queue waits for a document that has its next packet id.
func TestQueueWaitsForPacketID(t *testing.T) {
	o := outbox{started: true, recvMax: 10, underWay: 3, below: 5, sent: 7}
	o.beside.ids = map[uint16]struct{}{packetID(7): {}}
	if o.room() {
		t.Error("number 7 may be sent while a document has its packet id")
	}
	must(t, o.settleBeside(packetID(7), Acked))
	if !o.room() {
		t.Error("number 7 may not be sent after that was acknowledged")
	}
}

// What was under way on an earlier connection the client may still know by its packet
// id, though it has not been sent on this one.
func TestPacketIDsOfAnEarlierConnection(t *testing.T) {
	o := outbox{s: &Session{b: &Broker{}, sink: &taking{}}, started: true, recvMax: 10, below: 100_000, sent: 100_000, begun: 100_000 + maxSpan}
	for i, want := range []bool{true, false} {
		d := &Delivery{Event: &event.Event{Topic: "note/x.org/bob"}, QoS: 1}
		if sent := o.sendBeside(d, nil); sent != want {
			t.Errorf("document %d: sent %v with id %d, want %v: but one all ids are taken", i, sent, d.PacketID, want)
		}
	}
}

// A document is acknowledged by PUBACK and by nothing else.
func TestDocumentIsAcknowledged(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNotesNode(t)
		bob := n.person("bob", 3600)
		bob.subscribe("note/x.org/bob", 2)
		id := bob.awaitGot(1)[0].id
		for _, what := range []Settlement{Received, Rejected, Completed} {
			if err := bob.answer(id, what); !errors.Is(err, ErrWrongAck) {
				t.Errorf("answer %d: %v, want ErrWrongAck", what, err)
			}
		}
		must(t, bob.answer(id, Acked))
		if err := bob.answer(id, Acked); !errors.Is(err, ErrNoPacketID) {
			t.Errorf("a second PUBACK: %v, want ErrNoPacketID", err)
		}
	})
}

// However often resources change, that pushes nothing out of the queue of anybody who
// watches them: connected and taking nothing, with a full socket, or away; whether or
// not he may see them. Nor does it make the queue longer, or the log know of it.
func TestChangesPushOutNothing(t *testing.T) {
	const events, bound = 50, 100
	changes := effort.RoundsOfOne(2_000, 10_000, 10_000)
	for _, how := range []string{"takes nothing", "socket full", "away"} {
		t.Run(how, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				n := newNodeWith(t, Limits{QueueEvents: bound}, notes{})
				watchers := map[string]*client{}
				for _, name := range []string{"friend", "stranger"} {
					c, _ := n.connect(name, false, 3600, receiveMax(2))
					c.subscribe("plain", 1)
					c.subscribe("note/#", 1)
					watchers[name] = c
					switch how {
					case "away":
						c.s.Close(false, false, 0)
					case "socket full":
						c.mu.Lock()
						c.full = true
						c.mu.Unlock()
					}
				}
				bob, pub := n.person("bob", 0), n.person("pub", 0)
				allow(bob, `{"friend":{}}`)
				for i := range changes {
					must(t, bob.publish("note/x.org/bob", fmt.Sprint(i), 1))
					if i%(changes/events) == 0 {
						must(t, pub.publish("plain", fmt.Sprint(i/(changes/events)), 1))
					}
				}
				synctest.Wait()
				for name, c := range watchers {
					if q := &n.machine.sessions[name].queue; q.count != events || q.next != events {
						t.Errorf("%s: %d events are queued, under numbers to %d, want %d", name, q.count, q.next, events)
					}
					if how == "away" {
						c, _ = n.connect(name, false, 3600, receiveMax(2))
					}
					checkTaken(t, c, events, fmt.Sprint(changes-1))
				}
			})
		})
	}
}

// checkTaken has c take all there is, and checks that it gets so many plain events in
// their order, and at last this document if it is a friend.
func checkTaken(t *testing.T, c *client, events int, last string) {
	t.Helper()
	c.drained()
	for seen := -1; seen != len(c.await(0)); {
		seen = len(c.await(0))
		c.ackAll()
		elapse(time.Second)
	}
	var plain, want []string
	shown := ""
	for _, g := range c.awaitGot(0) {
		if g.topic == "plain" {
			plain = append(plain, g.payload)
		} else {
			shown = g.payload
		}
	}
	for i := range events {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(plain, want) || c.dropped != 0 {
		t.Errorf("%s got %q, want %q; %d are said to be lost", c.id, plain, want, c.dropped)
	}
	if c.id == "stranger" {
		last = ""
	}
	if shown != last {
		t.Errorf("%s was shown last %q, want %q", c.id, shown, last)
	}
}

// A change that waits keeps its place among what is queued: behind what came before
// it, before what comes after, and of several changes that of the first.
func TestDocumentsKeepTheirPlace(t *testing.T) {
	for _, most := range []uint16{1, 2, 100} {
		bubble.Test(t, func(t *testing.T) {
			n := newNotesNode(t)
			ann, _ := n.connect("ann", false, 3600, receiveMax(most))
			bob, eve, pub := n.person("bob", 0), n.person("eve", 0), n.person("pub", 0)
			for _, owner := range []*client{bob, eve} {
				allow(owner, `{"ann":{}}`)
			}
			ann.subscribe("#", 1)
			ann.mu.Lock()
			ann.full = true
			ann.mu.Unlock()
			for _, what := range strings.Fields("plain=0 plain=1 note/x.org/bob=2 plain=3 note/x.org/eve=4 note/x.org/bob=5 plain=6 note/x.org/eve=7") {
				topicName, payload, _ := strings.Cut(what, "=")
				publisher := map[string]*client{"plain": pub, "note/x.org/bob": bob, "note/x.org/eve": eve}[topicName]
				must(t, publisher.publish(topicName, payload, 1))
			}
			ann.drained()
			want := strings.Fields("plain=0 plain=1 note/x.org/bob=5 plain=3 note/x.org/eve=7 plain=6")
			for i := range want {
				want[i] += " q1"
			}
			for range want {
				synctest.Wait()
				ann.ackAll()
			}
			ann.want(want...)
		})
	}
}

// drained has the client's socket take things again.
func (c *client) drained() {
	c.mu.Lock()
	c.full = false
	c.mu.Unlock()
	var w Wave
	c.s.Drained(&w)
	w.Flush()
}

// What changes back before the client has room for it was no change to it.
func TestChangedBackIsNotShown(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		bubble.Test(t, func(t *testing.T) {
			n := newNotesNode(t)
			ann, _ := n.connect("ann", false, expiry, receiveMax(1))
			bob := n.person("bob", 0)
			allow(bob, `{"ann":{}}`)
			must(t, bob.publish("note/x.org/bob", "in", 1))
			ann.subscribe("note/#", 1)
			ann.await(1)
			must(t, bob.publish("note/x.org/bob", "out", 1))
			must(t, bob.publish("note/x.org/bob", "in", 1))
			ann.ackAll()
			synctest.Wait()
			ann.want("note/x.org/bob=in q1 retain")
			must(t, bob.publish("note/x.org/bob", "away", 1))
			ann.want("note/x.org/bob=in q1 retain", "note/x.org/bob=away q1")
		})
	}
}

// A client for which too many documents wait is ended, and shown all when it is back.
func TestTooManyDocumentsWait(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNodeWith(t, Limits{VolatileBytes: 200}, notes{})
		ann, _ := n.connect("ann", false, 3600, receiveMax(1))
		ann.subscribe("note/#", 1)
		for i := range 10 {
			owner := n.person(fmt.Sprint("p", i), 0)
			allow(owner, `{"ann":{}}`)
			must(t, owner.publish(fmt.Sprint("note/x.org/p", i), "here", 1))
		}
		if err := ann.awaitEnd(); !errors.Is(err, ErrSlow) {
			t.Errorf("ended with %v, want ErrSlow", err)
		}
		if n.Stats().SlowEnded.Load() != 1 {
			t.Errorf("%d are counted as slow, want 1", n.Stats().SlowEnded.Load())
		}
		ann.s.Close(true, false, 0)
		ann, _ = n.connect("ann", false, 3600)
		if got := ann.await(10); len(got) != 10 {
			t.Errorf("got %q, want all ten", got)
		}
	})
}

// atLevel returns a node whose level is that.
func atLevel(t *testing.T, level Level, profiles ...Profile) *node {
	n := bareNode(t, Limits{}, profiles...)
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	must(t, n.Raise(context.Background(), level))
	n.policy("all")
	return n
}

// A session whose queue has marks when the level rises is shown how things are, at
// last, and nothing twice.
func TestMarksOfALowerLevel(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := atLevel(t, levelBeside-1, notes{})
		ann, _ := n.connect("ann", false, 3600, receiveMax(1))
		bob := n.person("bob", 0)
		allow(bob, `{"ann":{}}`)
		must(t, bob.publish("note/x.org/bob", "0", 1))
		ann.subscribe("note/#", 1)
		ann.await(1)
		for i := range 5 {
			must(t, bob.publish("note/x.org/bob", fmt.Sprint("below ", i), 1))
		}
		synctest.Wait()
		if q := &n.machine.sessions["ann"].queue; q.count < 5 {
			t.Fatalf("%d marks are queued, want one for each change", q.count)
		}
		must(t, n.Raise(context.Background(), levelBeside))
		for i := range 5 {
			must(t, bob.publish("note/x.org/bob", fmt.Sprint("above ", i), 1))
		}
		for range 10 {
			synctest.Wait()
			ann.ackAll()
		}
		ann.want("note/x.org/bob=0 q1 retain", "note/x.org/bob=above 4 q1")
		elapse(time.Second)
		synctest.Wait()
		if q := &n.machine.sessions["ann"].queue; q.count != 0 {
			t.Errorf("%d marks are left", q.count)
		}
	})
}

// BenchmarkWatch is what a change costs for each of 100 durable sessions that watch a
// resource and take what they are sent.
func BenchmarkWatch(b *testing.B) {
	n := newNodeWith(b, Limits{}, notes{})
	const watchers = 100
	sinks := make([]*taking, watchers)
	bob := n.person("bob", 0)
	rules := &strings.Builder{}
	for i := range sinks {
		fmt.Fprintf(rules, `,"w%d":{}`, i)
	}
	allow(bob, "{"+rules.String()[1:]+"}")
	for i := range sinks {
		sinks[i] = &taking{}
		s, _, _, err := n.Connect(ConnectRequest{Client: fmt.Sprint("w", i), Principal: fmt.Sprint("w", i), Version: 5, Expiry: 3600, ReceiveMax: 100}, sinks[i])
		must(b, err)
		sinks[i].s = s
		start(s)
		s.Subscribe([]event.Subscription{{Filter: "note/#", QoS: 1}}, func([]SubResult, *Wave) {})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		must(b, bob.publish("note/x.org/bob", fmt.Sprint(i), 1))
		n.tickNow(b)
		for _, s := range sinks {
			s.take(b)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*watchers), "ns/watcher")
}

func (n *node) tickNow(t testing.TB) { must(t, n.do(context.Background(), &event.Tick{})) }

// A taking is a sink whose client acknowledges all when it is told to.
type taking struct {
	nowhere
	s   *Session
	mu  sync.Mutex
	ids []uint16
}

func (s *taking) Deliver(d *Delivery, _ *Wave) Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, d.PacketID)
	return Sent
}

func (s *taking) take(t testing.TB) {
	s.mu.Lock()
	ids := slices.Clone(s.ids)
	s.ids = s.ids[:0]
	s.mu.Unlock()
	var w Wave
	for _, id := range ids {
		must(t, s.s.Settle(id, Acked, &w))
	}
	w.Flush()
}
