package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
	"github.com/bellwire/bellwire/internal/effort"
)

// An event that is retained on a topic, or clears it, after a scan has read the
// topic's older value and before that is delivered: the older never comes after it,
// whatever the QoS of either, and what else the scan found comes once.
func TestNothingOlderAfterNewer(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		for i := 0; i < 3*3*3; i += effort.RoundsOfOne(4, 1, 1) {
			sub, older, newer := uint8(i/9), uint8(i/3%3), uint8(i%3)
			for _, payload := range []string{"newer", ""} {
				name := fmt.Sprintf("expiry %d, subscribed at QoS %d, older %d, newer %d %q", expiry, sub, older, newer, payload)
				t.Run(name, func(t *testing.T) {
					bubble.Test(t, func(t *testing.T) { newerWhileScanning(t, expiry, sub, older, newer, payload) })
				})
			}
		}
	}
}

func newerWhileScanning(t *testing.T, expiry uint32, sub, older, newer uint8, payload string) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	for i, name := range []string{"r/1", "r/2", "r/3"} {
		must(t, pub.publishID(uint16(i+10), name, "older", older, retain))
	}
	c, _ := n.connect("sub", true, expiry)
	goOn := n.pauseScan("sub", "r/2")
	c.subscribe("r/#", sub)
	synctest.Wait() // the scan has read r/2
	must(t, pub.publishID(20, "r/2", payload, newer, retain))
	synctest.Wait()
	close(goOn)
	n.catchUp()

	var others, of []string
	for _, g := range c.awaitGot(0) {
		if g.topic == "r/2" {
			of = append(of, g.payload)
		} else {
			others = append(others, g.topic)
		}
	}
	if slices.Sort(others); !slices.Equal(others, []string{"r/1", "r/3"}) {
		t.Errorf("of other topics came %q, want each once", others)
	}
	if !slices.Equal(of, []string{payload}) && !slices.Equal(of, []string{"older", payload}) {
		t.Errorf("of the topic came %q, want %q, after the older or alone", of, payload)
	}
}

// pauseScan has the next scan of a client stop where it asks about a topic, until
// what it returns is closed.
func (n *node) pauseScan(client, topicName string) (goOn chan struct{}) {
	n.t.Helper()
	goOn = make(chan struct{})
	waited := false // by the scan: the delivery loop asks after that
	var mu sync.Mutex
	r := parseRules("allow * #")
	r.asked = func(who Who, what Action, name string) {
		if who.Client != client || what != ActSubscribe || name != topicName {
			return
		}
		mu.Lock()
		first := !waited
		waited = true
		mu.Unlock()
		if first {
			<-goOn
		}
	}
	n.policies["pausing"] = r
	n.policy("pausing")
	return goOn
}

// A client that goes while it is told the present state, and is back, is told the
// rest, also of what was retained meanwhile, whether that was queued for it or not.
func TestResumedScanIsComplete(t *testing.T) {
	for i := range 9 {
		sub, newer := uint8(i/3), uint8(i%3)
		topics := 300 // more than one piece
		if sub == 0 {
			topics = 900
		}
		last := fmt.Sprintf("r/%03d", topics*5/6)
		t.Run(fmt.Sprintf("subscribed at QoS %d, newer %d", sub, newer), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				n := newNode(t, Limits{})
				pub, _ := n.connect("pub", true, 0)
				for i := range topics {
					must(t, pub.publish(fmt.Sprintf("r/%03d", i), "older", 1, retain))
				}
				c, _ := n.connect("sub", true, 3600)
				goOn := n.pauseScan("sub", fmt.Sprintf("r/%03d", topics*2/3))
				c.subscribe("r/#", sub)
				synctest.Wait()
				for range 3 {
					c.ackAll()
					synctest.Wait()
				}
				c.s.Close(true, false, 0)
				synctest.Wait()
				close(goOn)
				must(t, pub.publishID(7, last, "newer", newer, retain))
				n.catchUp()
				seen := map[string]string{}
				note := func(gots []got) {
					for _, g := range gots {
						seen[g.topic] = g.payload
					}
				}
				note(c.awaitGot(0))
				before := len(seen)
				c, _ = n.connect("sub", false, 3600)
				for range 8 {
					n.catchUp()
					note(c.awaitGot(0))
					c.ackAll()
				}
				if before == 0 || before == topics || len(seen) != topics || seen[last] != "newer" {
					t.Errorf("told %d before and %d in all, want %d; %s is %q", before, len(seen), topics, last, seen[last])
				}
			})
		})
	}
}

// What a subscription asks for of retained events: at once, if it is new, never;
// and whether live events tell that they were retained.
func TestRetainOptions(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		for handling := range uint8(3) {
			for _, asPublished := range []bool{false, true} {
				t.Run(fmt.Sprint("expiry ", expiry, " handling ", handling, " as published ", asPublished), func(t *testing.T) {
					retainOptions(t, expiry, func(s *event.Subscription) {
						s.RetainHandling, s.RetainAsPublished, s.ID = handling, asPublished, 9
					})
				})
			}
		}
	}
}

func retainOptions(t *testing.T, expiry uint32, options func(*event.Subscription)) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	must(t, pub.publish("r/1", "kept", 1, retain))
	c, _ := n.connect("sub", true, expiry)
	c.subscribe("r/+", 1, options)
	n.catchUp()
	must(t, pub.publish("r/1", "live", 1, retain))
	must(t, pub.publish("r/1", "not kept", 1))
	n.catchUp()
	c.subscribe("r/+", 1, options)
	n.catchUp()
	var asked event.Subscription
	options(&asked)
	live := "r/1=live q1 ids[9]"
	if asked.RetainAsPublished {
		live = "r/1=live q1 retain ids[9]"
	}
	want := []string{"r/1=kept q1 retain ids[9]", live, "r/1=not kept q1 ids[9]", "r/1=live q1 retain ids[9]"}
	switch asked.RetainHandling {
	case 1:
		want = want[:3]
	case 2:
		want = want[1:3]
	}
	c.want(want...)
}

// Each subscription that is set brings the present state on its own, with its own
// identifier and QoS, while live events come once, merged.
func TestOverlappingSubscriptions(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		pub, _ := n.connect("pub", true, 0)
		must(t, pub.publish("r/1", "kept", 2, retain))
		c, _ := n.connect("sub", true, expiry)
		for i, filter := range []string{"r/1", "r/+", "#"} {
			c.subscribe(filter, uint8(i), func(s *event.Subscription) { s.ID = uint32(i + 1) })
			n.catchUp()
		}
		must(t, pub.publishID(2, "r/1", "live", 2, retain))
		got := c.await(4)
		want := []string{"r/1=kept q0 retain ids[1]", "r/1=kept q1 retain ids[2]", "r/1=kept q2 retain ids[3]"}
		if !slices.Equal(got[:3], want) {
			t.Errorf("expiry %d: got %q, want %q", expiry, got[:3], want)
		}
		if live := got[3]; !strings.HasPrefix(live, "r/1=live q2 ids[") || len(live) != len("r/1=live q2 ids[1 2 3]") {
			t.Errorf("expiry %d: live came %q, want QoS 2 and all three identifiers", expiry, live)
		}
	}
}

// A scanRun is a subscriber with little room and a publisher that changes what is
// retained while it is told.
type scanRun struct {
	t       *testing.T
	rng     *rand.Rand
	n       *node
	qos     uint8
	expiry  uint32
	c       *client
	version int64
	now     map[string]int64 // the version that is retained; 0 for none
	last    map[string]int64 // the last to come, over all connections: what was acknowledged on one does not come again
}

// While retained events are set and cleared, a client that now and then has no
// room, subscribes again, or comes back, sees each topic's versions in their
// order, and in the end the last of each.
func TestScanModel(t *testing.T) {
	effort.ParallelSeeds(t, func(t *testing.T, seed uint64) {
		bubble.Test(t, func(t *testing.T) {
			r := &scanRun{t: t, rng: rand.New(rand.NewPCG(seed, 2)), n: newNode(t, Limits{}), now: map[string]int64{}, last: map[string]int64{}}
			r.qos, r.expiry = uint8(seed%2), uint32(seed/2%2*3600)
			r.run()
		})
	})
}

func (r *scanRun) run() {
	pub, _ := r.n.connect("pub", true, 0)
	for range 400 {
		r.change(pub)
	}
	r.connect(true)
	r.c.subscribe("r/#", r.qos)
	for range 60 {
		switch n := r.rng.IntN(10); {
		case n < 5:
			for range r.rng.IntN(20) {
				r.change(pub)
			}
		case n < 7:
			// What is live at QoS 0 is lost for want of room, but while there is
			// a scan.
			r.room(r.qos == 0 || r.rng.IntN(2) == 0)
		case n < 8:
			r.c.ackAll()
		case n < 9:
			if r.qos == 0 && r.rng.IntN(2) == 0 {
				synctest.Wait()
				r.room(false)
			}
			r.c.subscribe(pick(r.rng, "r/#", "r/+"), r.qos)
		case r.expiry > 0:
			r.c.s.Close(true, false, 0)
			r.check(false)
			r.connect(false)
			if r.qos == 0 { // what happened while it was away it has missed
				clear(r.last)
				r.c.subscribe("r/#", 0)
			}
		}
	}
	r.check(true)
}

func (r *scanRun) connect(clean bool) {
	r.c, _ = r.n.connect("sub", clean, r.expiry, receiveMax(pick[uint16](r.rng, 1, 5, 300)))
}

// change sets or clears what is retained on some topic.
func (r *scanRun) change(pub *client) {
	name := fmt.Sprintf("r/%03d", r.rng.IntN(300))
	r.version++
	payload, version := strconv.FormatInt(r.version, 10), r.version
	if r.now[name] != 0 && r.rng.IntN(4) == 0 {
		payload, version = "", 0
	}
	must(r.t, pub.publish(name, payload, r.qos, retain))
	r.now[name] = version
}

// room fills the client's socket, or empties it.
func (r *scanRun) room(there bool) {
	c := r.c
	c.mu.Lock()
	c.full = !there
	c.mu.Unlock()
	if there {
		var w Wave
		c.s.Drained(&w)
		w.Flush()
	}
}

// check looks at what the present connection has got: of each topic no version
// after a later one, and none that came before a clearing. If all is taken first,
// the last is what is retained.
func (r *scanRun) check(taken bool) {
	for before := -1; taken && before != len(r.c.awaitGot(0)); {
		before = len(r.c.awaitGot(0))
		r.room(true)
		r.c.ackAll()
		elapse(time.Second)
		synctest.Wait()
	}
	last, newest := r.last, map[string]int64{}
	cleared := map[string]bool{}
	for _, g := range r.c.awaitGot(0) {
		if g.payload == "" {
			last[g.topic], cleared[g.topic] = 0, true
			continue
		}
		version, err := strconv.ParseInt(g.payload, 10, 64)
		must(r.t, err)
		if version < newest[g.topic] || cleared[g.topic] && version == newest[g.topic] {
			r.t.Errorf("%s: version %d comes after %d", g.topic, version, newest[g.topic])
		}
		last[g.topic], newest[g.topic], cleared[g.topic] = version, version, false
	}
	for name, version := range r.now {
		if taken && last[name] != version {
			r.t.Errorf("%s: the last to come is %d, retained is %d", name, last[name], version)
		}
	}
}
