package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// kill -9 of the leader, of a follower, of the node of a subscriber, under load
// on all nodes: all that was acknowledged is delivered, in order for each
// publisher, and delivery goes on at once. Each node that was killed comes back, and
// catches up. Delivery goes on within a second; when soaking, the machine is ours, and
// all the times are held to what is promised.
//
// Item 57.
func TestClusterKills(t *testing.T) {
	c := newTrio(t)
	l := c.load()
	l.start()
	rng := rand.New(rand.NewPCG(effort.First(), 41))
	took := map[string][]time.Duration{}
	victims := []string{"leader", "follower", "subscriber's node"}
	for range effort.Turns(t) {
		for _, who := range victims {
			attempts(t, func(try *attempt) {
				l.await(clusterRate()/5 + rng.Int64N(clusterRate()))
				i := c.leader()
				switch who {
				case "follower":
					i = (i + 1 + rng.IntN(2)) % clusterSize
				case "subscriber's node":
					i = c.home(l, l.subscribers[rng.IntN(2)].id)
				}
				since := c.logged()
				d, course := l.resumes(c.nodes[i].kill)
				took[who] = append(took[who], d)
				if d >= lateAgain {
					t.Logf("after the %s, n%d, was killed delivery went on after %v only:\n%s\n%s", who, i+1, d, course, since())
				}
				if !machineIsOurs() { // where all of them are asked
					try.within(time.Second, d, "after the "+who+" was killed delivery went on")
				}
				l.await(clusterRate() / 5)
				c.nodes[i].start()
				c.caughtUp()
			})
		}
	}
	l.finish()
	c.alike()
	var all []time.Duration
	for _, who := range victims {
		all = append(all, took[who]...)
		told(t, who+" killed", took[who])
	}
	if median, p99 := told(t, "any killed", all); machineIsOurs() && (median >= 600*time.Millisecond || p99 >= time.Second) {
		t.Errorf("delivery went on after %v at the median, p99 %v: want less than 600ms and 1s", median, p99)
	}
}

// lateAgain is from when on it is told why delivery did not go on sooner.
const lateAgain = 500 * time.Millisecond

// logged returns what tells what all nodes have logged since.
func (c *trio) logged() (since func() string) {
	at := make([]int, len(c.nodes))
	for i, n := range c.nodes {
		at[i] = len(n.logs.String())
	}
	return func() string {
		var all strings.Builder
		for i, n := range c.nodes {
			fmt.Fprintf(&all, "n%d:\n%s", i+1, n.logs.String()[at[i]:])
		}
		return all.String()
	}
}

// told logs how long it took until delivery to and from all clients went on.
func told(t *testing.T, what string, all []time.Duration) (median, p99 time.Duration) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(all))
	median, p99 = sorted[len(sorted)/2], sorted[(len(sorted)*99-1)/100]
	t.Logf("%s %d times: delivery to and from all went on after %v at the median, p99 %v, at most %v", what, len(sorted),
		median.Round(time.Millisecond), p99.Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond))
	return median, p99
}

// home returns the node to which a client is connected, or was last.
func (c *trio) home(l *load, id string) int {
	c.t.Helper()
	var at string
	until(c.t, id+" is connected for the first time", patience, func() bool {
		at = l.at(id)
		return at != "none"
	})
	for i, n := range c.nodes {
		if n.ready.MQTT == at {
			return i
		}
	}
	c.t.Fatalf("%s is at %s, and no node is", id, at)
	return 0
}

// All nodes are killed at once, and started again: nothing that was acknowledged
// is lost, and nobody has to help.
func TestClusterAllKilled(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	for round := range effort.Turns(t) {
		l.await(500 + int64(round)*100)
		for _, n := range c.nodes {
			if err := syscall.Kill(n.pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range c.nodes {
			n.kill()
		}
		c.startAll()
	}
	l.await(200)
	l.finish()
	c.alike()
}

// startAll starts all nodes.
func (c *trio) startAll() {
	c.t.Helper()
	c.startThese(c.nodes...)
}

// startThese starts nodes at the same time: none serves before most are there.
func (c *trio) startThese(nodes ...*server) {
	c.t.Helper()
	started := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { started <- n.launch() }()
	}
	for range nodes {
		if err := <-started; err != nil {
			c.t.Fatal(err)
		}
	}
}

// The leader stands still for ten seconds (SIGSTOP): the others elect another and
// go on. When it goes on, it acknowledges nothing that is not so, catches up, and
// serves.
func TestClusterLeaderStandsStill(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	l := c.load()
	l.start()
	for range effort.Turns(t) {
		l.await(500)
		stopped := c.nodes[c.leader()]
		// Publishers at the node that stands still wait for their answers: those
		// elsewhere must go on.
		stopped.halt()
		meanwhile := l.goesOn(10*time.Second, 500)
		stopped.signal(syscall.SIGCONT)
		t.Logf("%d acknowledged while the leader stood still", meanwhile)
	}
	l.await(500)
	l.finish()
	c.alike()
}

// Exactly once, from end to end, while the nodes of publisher and subscriber are
// killed under them: sessions go on elsewhere, with what they had under way.
//
// Item 12.
func TestClusterExactlyOnce(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	rng := rand.New(rand.NewPCG(effort.First(), 42))
	exactlyOnce(t, c.nodes[0], func(l *load) {
		for range effort.Turns(t) {
			l.await(20 + rng.Int64N(300))
			i := rng.IntN(clusterSize)
			c.nodes[i].kill()
			l.await(50)
			c.nodes[i].start()
		}
	}, func(l *load) {
		l.homes = map[string][]string{"once": c.addresses(1), "rx": c.addresses(2)}
	})
	c.alike()
}

// The will of a client whose node is killed is published once, by the others; of
// one that comes back in time, elsewhere, not at all.
//
// Item 42.
func TestClusterWillOnce(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	dies := (c.leader() + 1) % clusterSize
	other := (dies + 1) % clusterSize
	watcher := mq.Open(t, c.nodes[other].ready.MQTT, v5, clean("watcher"))
	watcher.Subscribe("wills/#", 0)
	const wills = 20
	for i := range wills {
		m := willed(durable(v5, fmt.Sprint("w", i)), fmt.Sprint("wills/", i), "gone")
		if i%2 == 1 {
			m.Will.Properties = mq.Properties{mq.Number(mq.PropWillDelay, 300)}
		}
		mq.Open(t, c.nodes[dies].ready.MQTT, v5, m)
	}
	c.nodes[dies].kill()
	for i := 1; i < wills; i += 2 { // those with a delay come back
		mq.Open(t, c.nodes[other].ready.MQTT, v5, durable(v5, fmt.Sprint("w", i)))
	}
	start := time.Now()
	got := map[string]int{}
	for len(got) < wills/2 {
		p := watcher.Arrives(2 * time.Minute) // whoever leads has to miss it for as long as it leads
		if p == nil {
			t.Fatalf("no more wills; there came %v", got)
		}
		got[p.Topic]++
	}
	t.Logf("the wills came %v after the node's death", time.Since(start).Round(10*time.Millisecond))
	c.nodes[dies].start()
	mq.Open(t, c.nodes[dies].ready.MQTT, v5, clean("mark")).Publish("wills/mark", 1, "last")
	for {
		p := watcher.Next()
		if p.Topic == "wills/mark" {
			break
		}
		got[p.Topic]++
	}
	for i := range wills {
		want := 1 - i%2
		if n := got[fmt.Sprint("wills/", i)]; n != want {
			t.Errorf("will %d came %d times, want %d", i, n, want)
		}
	}
}
