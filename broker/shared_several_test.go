package broker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// On three nodes each event goes to one member, whether it is ordered or not, of all
// nodes' members in turns. When a node is lost, what its members had goes to others;
// nothing is lost, and all have the same state.
func TestSharedAcrossNodes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		if err := n[0].Raise(context.Background(), NewestLevel); err != nil {
			t.Fatal(err)
		}
		l.settle()
		var members []*client
		for i := range 4 {
			c, _ := n[i%3].connect(fmt.Sprint("m", i), true, 0)
			c.subscribe(jobs, 1)
			members = append(members, c)
		}
		pub, _ := n[1].connect("pub", true, 0)
		for i := range 80 {
			if err := pub.publish("jobs/1", fmt.Sprint(i), uint8(i/40)); err != nil { // 40 of each QoS
				t.Fatal(err)
			}
		}
		l.settle()
		var all []string
		for _, c := range members {
			got := c.payloads()
			if len(got) != 20 {
				t.Errorf("%s got %d, want 20: %q", c.id, len(got), got)
			}
			var byQoS [2][]int // what is ordered may overtake what waits in a link ([MQTT-4.6.0-6] is of one QoS)
			for _, p := range got {
				i, err := strconv.Atoi(p)
				must(t, err)
				byQoS[i/40] = append(byQoS[i/40], i)
			}
			if !slices.IsSorted(byQoS[0]) || !slices.IsSorted(byQoS[1]) {
				t.Errorf("%s got them out of order: %q", c.id, got)
			}
			all = append(all, got...)
		}
		slices.Sort(all)
		if all = slices.Compact(all); len(all) != 80 {
			t.Errorf("%d of 80 came", len(all))
		}
		for _, c := range members {
			c.ackAll()
		}
		l.settle()

		for i := range 8 {
			if err := pub.publish("jobs/1", fmt.Sprint("x", i), 1); err != nil {
				t.Fatal(err)
			}
		}
		l.settle()
		l.cutOff(n[2]) // with m2, which has two of them
		for range 3 {
			l.lead().NodeLost("n3")
		}
		elapse(time.Second)
		pub0, _ := n[0].connect("pub0", true, 0)
		for i := range 3 {
			if err := pub0.publish("jobs/1", fmt.Sprint("y", i), 1); err != nil {
				t.Fatal(err)
			}
			if err := pub0.publish("jobs/1", fmt.Sprint("z", i), 0); err != nil {
				t.Fatal(err)
			}
		}
		elapse(time.Second)
		got := map[string]int{}
		for _, i := range []int{0, 1, 3} {
			for _, p := range members[i].payloads() {
				if p[0] >= 'x' {
					got[p]++
				}
			}
		}
		for _, p := range []string{"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "y0", "y1", "y2", "z0", "z1", "z2"} {
			if got[p] != 1 {
				t.Errorf("%s came %d times to those who are left, want once", p, got[p])
			}
		}
		l.heal(n[2])
		l.settle()
		l.checkDigests()
	})
}

// A process that stood still relays nothing of QoS 0 before it has heard, to members
// neither: the right of who publishes may have been revoked meanwhile, and of that
// other nodes do not ask. Then it goes on.
func TestNothingIsRelayedUnheard(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		must(t, n[0].Raise(context.Background(), NewestLevel))
		pub, _ := n[0].connect("pub", true, 0)
		sub, _ := n[1].connect("sub", true, 0)
		sub.subscribe("jobs/#", 0)
		one, _ := n[2].connect("one", true, 0)
		one.subscribe(jobs, 0)
		l.settle()
		must(t, pub.publish("jobs/1", "before", 0))
		l.settle()
		n[0].standstill()
		must(t, pub.publish("jobs/1", "unheard", 0))
		if s := n[0].Stats(); s.RelayLost.Load() != 1 || s.SharedLost.Load() != 1 {
			t.Errorf("lost to nodes %d, to groups %d, want 1 each", s.RelayLost.Load(), s.SharedLost.Load())
		}
		elapse(time.Second)
		l.settle()
		must(t, pub.publish("jobs/1", "heard", 0))
		l.settle()
		sub.want("jobs/1=before q0", "jobs/1=heard q0")
		one.want("jobs/1=before q0", "jobs/1=heard q0")
	})
}
