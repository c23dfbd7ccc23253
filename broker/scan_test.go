package broker

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/bellwire/bellwire/internal/bubble"
)

// A narrow is a client that takes only so many deliveries until it is drained.
type narrow struct {
	*client
	room int
	full sync.WaitGroup
}

func (c *narrow) Deliver(d *Delivery, w *Wave) Outcome {
	c.mu.Lock()
	if c.room == 0 {
		c.room = -1
		c.mu.Unlock()
		c.full.Done()
		return Full
	}
	if c.room < 0 {
		c.mu.Unlock()
		return Full
	}
	c.room--
	c.mu.Unlock()
	return c.client.Deliver(d, w)
}

// Present state is complete however little a client takes at a time: none of
// it is lost for want of room, at QoS 0 neither, and none comes twice.
func TestScanWaitsForRoom(t *testing.T) {
	const topics, room = 1000, 37
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	for i := range topics {
		must(t, pub.publish(fmt.Sprintf("r/%04d", i), "v", 1, retain))
	}
	c := &narrow{client: &client{n: n}, room: room}
	c.changed = sync.NewCond(&c.mu)
	c.full.Add(1)
	s, _, _, err := n.Connect(ConnectRequest{Client: "sub", Principal: "sub", Version: 5, Clean: true, ReceiveMax: 10}, c)
	must(t, err)
	c.s = s
	var w Wave
	s.Start(&w)
	c.subscribe("r/#", 0)
	for taken := room; taken < topics; taken += room {
		c.full.Wait()
		c.full.Add(1)
		c.mu.Lock()
		c.room = room
		c.mu.Unlock()
		s.Drained(&w)
	}
	got := c.await(topics)
	for i, g := range got {
		if want := fmt.Sprintf("r/%04d=v q0 retain", i); g != want {
			t.Fatalf("delivery %d is %q, want %q", i, g, want)
		}
	}
}

// What changes while the present state is told, and does not find room, is told
// when there is, once, as it is then; whether its turn in the scan is past or yet
// to come, and whatever else there is to tell.
func TestLostWhileScanning(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		bubble.Test(t, func(t *testing.T) {
			n := newNode(t, Limits{})
			pub, _ := n.connect("pub", true, 0)
			for i := range 600 { // several pieces
				must(t, pub.publish(fmt.Sprintf("r/%03d", i), "older", 1, retain))
			}
			c := &narrow{client: &client{n: n, id: "sub"}, room: 200}
			c.changed = sync.NewCond(&c.mu)
			c.full.Add(1)
			s, _, _, err := n.Connect(ConnectRequest{Client: "sub", Principal: "sub", Version: 5, Clean: true, Expiry: expiry, ReceiveMax: 10}, c)
			must(t, err)
			c.s = s
			var w Wave
			s.Start(&w)
			c.subscribe("r/#", 0)
			c.full.Wait()
			for _, change := range []struct{ name, payload string }{
				{"r/010", "new"},
				{"r/010", "newer"},
				{"r/020", ""},
				{"r/500", "newer"},
				{"r/510", ""},
				{"r/600", "newer"},
				{"r/030", ""},
				{"r/030", "newer"},
				{"r/201", "newer"},
			} {
				must(t, pub.publish(change.name, change.payload, 1, retain))
			}
			must(t, pub.publish("r/040", "not retained, so not owed", 1))
			c.mu.Lock()
			c.room = 1 << 20
			c.mu.Unlock()
			s.Drained(&w)
			synctest.Wait()
			of := map[string][]string{}
			for _, g := range c.awaitGot(0) {
				of[g.topic] = append(of[g.topic], g.String())
			}
			for name, want := range map[string][]string{
				"r/009": {"r/009=older q0 retain"},
				"r/010": {"r/010=older q0 retain", "r/010=newer q0"},
				"r/020": {"r/020=older q0 retain", "r/020= q0"},
				"r/030": {"r/030=older q0 retain", "r/030=newer q0"},
				"r/040": {"r/040=older q0 retain"},
				"r/201": {"r/201=newer q0"},
				"r/500": {"r/500=newer q0"},
				"r/510": {"r/510= q0"},
				"r/600": {"r/600=newer q0"},
			} {
				if got := of[name]; !slices.Equal(got, want) {
					t.Errorf("expiry %d: of %s came %q, want %q", expiry, name, got, want)
				}
			}
			if len(of) != 601 {
				t.Errorf("expiry %d: told of %d topics, want 601", expiry, len(of))
			}
		})
	}
}

// So much may be owed, and no more: what else is lost is counted by the sink, for
// which it is like any event at QoS 0.
func TestOwedIsBounded(t *testing.T) {
	const more = 3
	bubble.Test(t, func(t *testing.T) {
		n := newNode(t, Limits{})
		pub, _ := n.connect("pub", true, 0)
		must(t, pub.publish("r", "v", 1, retain))
		c, _ := n.connect("sub", true, 0)
		c.full = true
		c.subscribe("#", 0)
		for i := range owedMost + more {
			must(t, pub.publish(fmt.Sprint("r/", i), "v", 1, retain))
		}
		must(t, pub.publish("x", "not retained", 1))
		n.tick()
		c.mu.Lock()
		c.full = false
		if c.lost != more+1 {
			t.Errorf("%d were offered once and lost, want %d", c.lost, more+1)
		}
		c.mu.Unlock()
		var w Wave
		c.s.Drained(&w)
		synctest.Wait()
		if got := len(c.awaitGot(0)); got != 1+owedMost {
			t.Errorf("%d came, want %d", got, 1+owedMost)
		}
	})
}

// A client that takes nothing while more resources change than it can be owed is
// too slow; until then it is connected, and shown what is there when it takes
// something.
func TestOwedResourcesAreBounded(t *testing.T) {
	n := newNotesNode(t)
	bob, watcher := n.person("bob", 0), n.person("ann", 3600)
	allow(bob, `{"ann@x.org":{}}`)
	watcher.subscribe("note/#", 0)
	fill := func(from, until int) {
		t.Helper()
		n.loop.call(func(*Wave) {
			for i := from; i < until; i++ {
				watcher.s.scanning.owe(fmt.Sprint("note/x.org/", i), false)
			}
		})
	}
	full := func(text string) {
		t.Helper()
		n.catchUp()
		watcher.stall(true)
		must(t, bob.publish("note/x.org/bob", text, 1)) // for which there is no room
		n.tick()
		fill(1, owedKept)
		fill(1, owedKept) // the same
		if n.Stats().SlowEnded.Load() != 0 {
			t.Error("ended before so much was owed")
		}
	}
	full("hello")
	watcher.stall(false)
	watcher.want("note/x.org/bob=hello q0 retain")
	full("are you there?")
	fill(owedKept, owedKept+1)
	if cause := watcher.awaitEnd(); !errors.Is(cause, ErrSlow) || n.Stats().SlowEnded.Load() != 1 {
		t.Errorf("ended for %v, %d ends counted, want %v and 1", cause, n.Stats().SlowEnded.Load(), ErrSlow)
	}
	watcher = n.person("ann", 3600)
	watcher.want("note/x.org/bob=are you there? q0 retain")
}

// stall has the client take nothing, or something again.
func (c *client) stall(is bool) {
	c.mu.Lock()
	c.full = is
	c.mu.Unlock()
	if !is {
		var w Wave
		c.s.Drained(&w)
		w.Flush()
	}
}

// What is larger than the client takes is counted, at whatever QoS and however it
// comes.
func TestTooLargeIsCounted(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		for qos := range uint8(3) {
			bubble.Test(t, func(t *testing.T) {
				n := newNode(t, Limits{})
				pub, _ := n.connect("pub", true, 0)
				must(t, pub.publish("r", "too large", 2, retain))
				c, _ := n.connect("sub", true, expiry)
				c.largest = 3
				c.subscribe("#", qos)
				synctest.Wait()
				must(t, pub.publishID(2, "r", "too large", 2))
				synctest.Wait()
				if got := n.stats.TooLarge.Load(); got != 2 {
					t.Errorf("QoS %d, expiry %d: %d are counted, want 2", qos, expiry, got)
				}
			})
		}
	}
}
