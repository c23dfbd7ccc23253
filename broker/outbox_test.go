package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// At whatever step of a QoS 2 delivery the connection or the node ends, the next
// connection goes on there: PUBLISH again, as a duplicate with its packet id, until
// the log has the PUBREC; PUBREL until it has the PUBCOMP; then nothing.
func TestQoS2GoesOn(t *testing.T) {
	const again, release, nothing = "x=e q2 dup", "release 1", ""
	steps := []struct {
		name    string
		answers []Settlement
		settled bool // the log has been told of the last answer
		held    bool // the log stands still from the last answer on
		on      map[string]string
	}{
		{name: "sent", on: map[string]string{"lost": again, "taken over": again, "node dead": again}},
		{
			name: "PUBREC which the log has not got", answers: []Settlement{Received}, held: true,
			// Of a connection that ends it is told before the end.
			on: map[string]string{"lost": release, "taken over": release, "node dead": again},
		},
		{name: "PUBREC", answers: []Settlement{Received}, on: map[string]string{"lost": release, "taken over": release, "node dead": release}},
		{
			name: "PUBCOMP which the log has not got", answers: []Settlement{Received, Completed},
			on: map[string]string{"lost": nothing, "taken over": nothing, "node dead": release},
		},
		{
			name: "PUBCOMP", answers: []Settlement{Received, Completed}, settled: true,
			on: map[string]string{"lost": nothing, "taken over": nothing, "node dead": nothing},
		},
	}
	for _, step := range steps {
		for end, want := range step.on {
			for _, flush := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, flush %v", step.name, end, flush), func(t *testing.T) {
					bubble.Test(t, func(t *testing.T) {
						n := newNode(t, Limits{})
						c := n.deliveredQoS2()
						var goOn func()
						for i, a := range step.answers {
							if step.held && i == len(step.answers)-1 {
								goOn = n.log.hold()
							}
							must(t, c.answer(1, a))
							synctest.Wait()
						}
						if step.settled {
							elapse(time.Second)
						}
						got := n.nextConnection(c, end, goOn, flush)
						if want == "" && got != nil || want != "" && !slices.Equal(got, []string{want}) {
							t.Errorf("the next connection got %q, want %q", got, want)
						}
					})
				})
			}
		}
	}
}

// A subscription that ends ends nothing that its client has been sent: that comes
// again on the next connection until it is answered, and what waited behind it does
// not come. But if the policy has changed its mind as well, it comes neither.
func TestUnsubscribedCompletes(t *testing.T) {
	for _, qos := range []uint8{1, 2} {
		for _, policy := range []string{"all", "others"} {
			bubble.Test(t, func(t *testing.T) {
				n := newNode(t, Limits{})
				n.policies["others"] = parseRules("allow * # publish\nallow * y")
				c, _ := n.connect("sub", true, 3600, receiveMax(2))
				c.subscribe("x", 2)
				pub, _ := n.connect("pub", true, 0)
				for k := range 4 {
					must(t, pub.publishID(uint16(k+1), "x", fmt.Sprint(k), qos))
				}
				synctest.Wait()
				c.want(fmt.Sprintf("x=0 q%d", qos), fmt.Sprintf("x=1 q%d", qos))
				_, err := c.s.Unsubscribe([]string{"x"})
				must(t, err)
				n.policy(policy)
				c.s.Close(true, false, 0)
				c, _ = n.connect("sub", false, 3600)
				elapse(time.Second)
				want := []string{fmt.Sprintf("x=0 q%d dup", qos), fmt.Sprintf("x=1 q%d dup", qos)}
				if policy == "others" {
					want = [][]string{{}, {"release 1", "release 2"}}[qos-1]
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				if !slices.Equal(c.log, want) {
					t.Errorf("QoS %d, policy %s: the next connection was sent %q, want %q", qos, policy, c.log, want)
				}
			})
		}
	}
}

// deliveredQoS2 returns a client that was sent one event at QoS 2.
func (n *node) deliveredQoS2() *client {
	n.t.Helper()
	c, _ := n.connect("sub", true, 3600)
	c.subscribe("x", 2)
	pub, _ := n.connect("pub", true, 0)
	must(n.t, pub.publish("x", "e", 2))
	synctest.Wait()
	return c
}

// nextConnection ends a connection in one way or another, and returns what the
// client's next one is sent. goOn has the log go on; nil if it
// does not stand still.
func (n *node) nextConnection(c *client, end string, goOn func(), flush bool) []string {
	n.t.Helper()
	switch end {
	case "node dead":
		n.log.mu.Lock()
		n.log.lost = true // with the node what it had proposed and was not ordered
		n.log.mu.Unlock()
		if goOn != nil {
			goOn()
		}
		n.stop(flush)
		n.start()
		goOn = nil
	case "lost":
		c.s.Close(true, false, 0)
	}
	if goOn != nil {
		go func() {
			synctest.Wait() // until the next connection waits for the log
			goOn()
		}()
	}
	next, present := n.connect("sub", false, 3600)
	if !present {
		n.t.Error("the session is gone")
	}
	synctest.Wait()
	next.mu.Lock()
	defer next.mu.Unlock()
	return slices.Clone(next.log)
}

// The packet id of an event follows from its number, so ids come round after
// 65,535; while an early one is not acknowledged the window stalls rather than give
// its id to another event, and goes on when it is.
func TestPacketIDsComeRound(t *testing.T) {
	const events = maxSpan + 300
	for _, expiry := range []uint32{0, 3600}[:effort.RoundsOfOne(1, 2, 2)] {
		t.Run(fmt.Sprint("expiry ", expiry), func(t *testing.T) {
			n := newNode(t, Limits{})
			c, _ := n.connect("sub", true, expiry)
			c.subscribe("x", 1)
			pub, _ := n.connect("pub", true, 0)
			taken := 1 // of what has come; the first is not acknowledged
			for k := range events {
				publishSoon(t, pub, "x", fmt.Sprint(k))
				if k%500 == 0 || k == events-1 {
					must(t, pub.publish("y", "all before is ordered", 1))
					taken = takeFrom(c, taken)
				}
			}
			for now := -1; now != taken; {
				now = taken
				n.tick()
				taken = takeFrom(c, taken)
			}
			got := c.awaitGot(0)
			if len(got) != maxSpan {
				t.Fatalf("%d came while the first was not acknowledged, want %d", len(got), maxSpan)
			}
			must(t, c.answer(got[0].id, Acked))
			for taken < events {
				c.await(taken + 1)
				taken = takeFrom(c, taken)
			}
			for k, g := range c.awaitGot(0) {
				if g.payload != fmt.Sprint(k) || g.id != uint16(k%65535)+1 || g.dup {
					t.Fatalf("delivery %d is %v with id %d", k, g, g.id)
				}
			}
		})
	}
}

// publishSoon publishes at QoS 1 and does not wait for the answer.
func publishSoon(t *testing.T, pub *client, name, payload string) {
	t.Helper()
	var w Wave
	_, err := pub.s.Publish(&event.Event{Topic: name, Payload: []byte(payload), QoS: 1}, 0, deaf{}, 0, &w)
	must(t, err)
	w.Flush()
}

type deaf struct{}

func (deaf) Complete(uint64, error, *Wave) {}

// takeFrom acknowledges what c has got from its n-th delivery on, until no more
// comes of that, and returns how many it has got.
func takeFrom(c *client, n int) int {
	for {
		c.mu.Lock()
		fresh := slices.Clone(c.got[n:])
		c.mu.Unlock()
		if len(fresh) == 0 {
			return n
		}
		for _, g := range fresh {
			must(c.n.t, c.answer(g.id, Acked))
		}
		n += len(fresh)
	}
}

// What waits in memory for a client whose session ends with its connection is
// bounded, in events and in bytes: past that the connection ends, and nobody else
// notices.
func TestSlowVolatileClientIsEnded(t *testing.T) {
	for _, limits := range []Limits{{VolatileEvents: 5}, {VolatileBytes: 500}} {
		bubble.Test(t, func(t *testing.T) {
			n := newNode(t, limits)
			slow, _ := n.connect("slow", true, 0, receiveMax(2))
			quick, _ := n.connect("quick", true, 0)
			pub, _ := n.connect("pub", true, 0)
			slow.subscribe("x", 1)
			quick.subscribe("x", 1)
			published := 0
			for ; n.stats.SlowEnded.Load() == 0 && published < 20; published++ {
				if cause := slow.ended; cause != nil {
					t.Fatalf("ended after %d events: %v", published, cause)
				}
				must(t, pub.publish("x", strings.Repeat("x", 80), 1))
				synctest.Wait()
				quick.ackAll()
			}
			if cause := slow.awaitEnd(); !errors.Is(cause, ErrSlow) {
				t.Errorf("ended for %v, want %v", cause, ErrSlow)
			}
			if want := 2 + 5 + 1; published > want || published < 2+4 {
				t.Errorf("ended after %d events, want about %d", published, want)
			}
			must(t, pub.publish("x", "after", 1))
			synctest.Wait()
			if got := len(slow.awaitGot(0)); got != 2 {
				t.Errorf("the slow one got %d, want the 2 it takes at a time", got)
			}
			if got := len(quick.awaitGot(0)); got != published+1 {
				t.Errorf("the quick one got %d, want all %d", got, published+1)
			}
		})
	}
}

// Acknowledgements may come in any order; what is over is not sent again, and the
// rest is, in its order.
func TestAcknowledgedOutOfOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		c, _ := n.connect("sub", true, 3600, receiveMax(6))
		c.subscribe("x", 1)
		pub, _ := n.connect("pub", true, 0)
		for k := range 8 {
			must(t, pub.publish("x", fmt.Sprint(k), 1))
		}
		synctest.Wait()
		for _, id := range []uint16{5, 2, 4} {
			must(t, c.answer(id, Acked))
		}
		c.want("x=0 q1", "x=1 q1", "x=2 q1", "x=3 q1", "x=4 q1", "x=5 q1", "x=6 q1", "x=7 q1")
		for _, id := range []uint16{5, 9, 0} {
			if err := c.answer(id, Acked); !errors.Is(err, ErrNoPacketID) {
				t.Errorf("answer to id %d: %v, want %v", id, err, ErrNoPacketID)
			}
		}
		for range 2 { // taken over, and after the node died
			c, _ = n.connect("sub", false, 3600, receiveMax(6))
			c.want("x=0 q1 dup", "x=2 q1 dup", "x=5 q1 dup", "x=6 q1 dup", "x=7 q1 dup")
			elapse(time.Second)
			n.stop(false)
			n.start()
		}
	})
}

// A client that takes fewer at a time than before is sent what was under way first,
// and no more at a time than it says now.
func TestReceiveMaximumShrinks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		c, _ := n.connect("sub", true, 3600, receiveMax(5))
		c.subscribe("x", 2)
		pub, _ := n.connect("pub", true, 0)
		for k := range 6 {
			must(t, pub.publishID(uint16(k+1), "x", fmt.Sprint(k), 2))
		}
		synctest.Wait()
		for _, id := range []uint16{1, 3} {
			must(t, c.answer(id, Received))
		}
		synctest.Wait()
		c, _ = n.connect("sub", false, 3600, receiveMax(1))
		var log []string
		for _, next := range []struct {
			id   uint16
			what []Settlement
			sent string
		}{
			{1, []Settlement{Completed}, "release 1"},
			{2, []Settlement{Received, Completed}, "x=1 q2 dup|release 2"},
			{3, []Settlement{Completed}, "release 3"},
			{4, []Settlement{Received, Completed}, "x=3 q2 dup|release 4"},
			{5, []Settlement{Received, Completed}, "x=4 q2 dup|release 5"},
			{6, []Settlement{Received, Completed}, "x=5 q2|release 6"},
		} {
			for _, a := range next.what {
				must(t, c.answer(next.id, a))
				synctest.Wait()
			}
			log = append(log, strings.Split(next.sent, "|")...)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if !slices.Equal(c.log, log) {
			t.Errorf("was sent %q, want %q", c.log, log)
		}
	})
}

// What waited for the window when a connection was taken over, and was sent by none, has no
// DUP on any connection to come: the node that took over knows what the first had sent. What
// was sent has it on each, and so has all that may have been, if the node died since.
func TestDupOfWhatWaited(t *testing.T) {
	const first, second = "x=0 q1 dup", "x=1 q1"
	for name, c := range map[string]struct {
		between func(n *node, c *client)
		want    []string
	}{
		"lost": {func(_ *node, c *client) { c.s.Close(true, false, 0) }, []string{first, second}},
		"taken over again": {func(n *node, _ *client) {
			c, _ := n.connect("sub", false, 3600, receiveMax(1))
			c.s.Close(true, false, 0)
		}, []string{first, second}},
		"sent by another": {func(n *node, c *client) {
			c.s.Close(true, false, 0)
			n.tick()
			c, _ = n.connect("sub", false, 3600)
			c.s.Close(true, false, 0)
		}, []string{first, "x=1 q1 dup", "x=2 q1 dup"}},
		"node dead": {func(n *node, _ *client) { n.restart() }, []string{first, "x=1 q1 dup", "x=2 q1 dup"}},
	} {
		for _, flush := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, flush %v", name, flush), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) {
					n := newNode(t, Limits{})
					sub, _ := n.connect("sub", true, 3600, receiveMax(1))
					sub.subscribe("x", 1)
					pub, _ := n.connect("pub", true, 0)
					for k := range 3 {
						must(t, pub.publish("x", fmt.Sprint(k), 1))
					}
					synctest.Wait()
					sub.want("x=0 q1")
					over, _ := n.connect("sub", false, 3600, receiveMax(1))
					over.want(first)
					c.between(n, over)
					synctest.Wait()
					n.stop(flush) // who knew it is gone: the log has been told
					n.start()
					last, _ := n.connect("sub", false, 3600, receiveMax(uint16(len(c.want))))
					last.want(c.want...)
				})
			})
		}
	}
}

// What a client has acknowledged on a connection that was taken over is told to the log by the
// one that took it over, also if that ends before it has come by: it is not sent again.
func TestInheritedIsTold(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		sub, _ := n.connect("sub", true, 3600)
		sub.subscribe("x", 1)
		pub, _ := n.connect("pub", true, 0)
		for k := range 4 {
			must(t, pub.publish("x", fmt.Sprint(k), 1))
		}
		synctest.Wait()
		sub.want("x=0 q1", "x=1 q1", "x=2 q1", "x=3 q1")
		must(t, sub.answer(2, Acked))
		must(t, sub.answer(4, Acked))
		for range 2 {
			over, _ := n.connect("sub", false, 3600, receiveMax(1))
			over.want("x=0 q1 dup")
			sub = over
		}
		sub.s.Close(true, false, 0)
		last, _ := n.connect("sub", false, 3600)
		last.want("x=0 q1 dup", "x=2 q1 dup")
	})
}
