package broker

import (
	"fmt"
	"slices"
	"testing"
)

// An event reaches whoever subscribed to it, once, at the lower of both QoS.
func TestPublishReachesSubscribers(t *testing.T) {
	n := newNode(t, Limits{})
	a, _ := n.connect("a", true, 0)
	b, _ := n.connect("b", true, 3600)
	a.subscribe("x/#", 1)
	b.subscribe("x/+", 2)
	for qos := range uint8(3) {
		if err := a.publish("x/1", fmt.Sprint("m", qos), qos); err != nil {
			t.Fatal(err)
		}
	}
	a.want("x/1=m0 q0", "x/1=m1 q1", "x/1=m2 q1")
	b.want("x/1=m0 q0", "x/1=m1 q1", "x/1=m2 q2")
}

// What was queued for a durable session while it was away comes in order when
// it returns, also after a restart of the node; what it did not acknowledge
// comes again, as a duplicate, first.
func TestDurableSessionResumes(t *testing.T) {
	n := newNode(t, Limits{})
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("x", 1)
	pub, _ := n.connect("pub", true, 0)
	if err := pub.publish("x", "0", 1); err != nil {
		t.Fatal(err)
	}
	sub.want("x=0 q1")
	sub.s.Close(true, false, 0)
	for i := 1; i < 200; i++ {
		if err := pub.publish("x", fmt.Sprint(i), 1); err != nil {
			t.Fatal(err)
		}
	}
	n.restart()
	sub, present := n.connect("sub", false, 3600)
	if !present {
		t.Error("session not present after a restart")
	}
	got := sub.await(100)
	if len(got) != 100 {
		t.Errorf("%d under way, want Receive Maximum 100", len(got))
	}
	sub.ackAll()
	got = sub.await(200)
	want := []string{"x=0 q1 dup"}
	for i := 1; i < 200; i++ {
		want = append(want, fmt.Sprintf("x=%d q1", i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A session that waited for its client is there for it, queue and all, also if
// the client asks for no expiry this time: then it ends with this connection
// (5.0 3.1.2.11.2).
func TestLastConnectionOfASession(t *testing.T) {
	n := newNode(t, Limits{})
	sub, _ := n.connect("sub", true, 3600)
	sub.subscribe("x", 2)
	sub.s.Close(false, false, 0)
	pub, _ := n.connect("pub", true, 0)
	for i := range 3 {
		if err := pub.publish("x", fmt.Sprint(i), uint8(1+i%2)); err != nil {
			t.Fatal(err)
		}
	}
	sub, present := n.connect("sub", false, 0)
	if !present {
		t.Error("session not present")
	}
	sub.want("x=0 q1", "x=1 q2", "x=2 q1")
	sub.ackAll()
	if err := pub.publish("x", "live", 1); err != nil {
		t.Fatal(err)
	}
	sub.want("x=0 q1", "x=1 q2", "x=2 q1", "x=live q1")
	sub.s.Close(false, false, 0)
	if _, present = n.connect("sub", false, 0); present {
		t.Error("the session outlived a connection that asked for no expiry")
	}
}

// A subscriber gets the retained event of each topic it matches, and clearing
// one removes it.
func TestRetained(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	for i := range 300 {
		if err := pub.publish(fmt.Sprintf("r/%03d", i), "v", 1, retain); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.publish("r/007", "", 1, retain); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id     string
		expiry uint32
		qos    uint8
	}{{"volatile0", 0, 0}, {"volatile1", 0, 1}, {"durable1", 3600, 1}, {"durable0", 3600, 0}} {
		sub, _ := n.connect(c.id, true, c.expiry)
		sub.subscribe("r/#", c.qos)
		seen := map[string]bool{}
		for len(seen) < 299 {
			got := sub.await(min(len(seen)+1, 299))
			for _, g := range got {
				seen[g] = true
			}
			sub.ackAll()
		}
		if len(sub.got) != 299 || seen[fmt.Sprintf("r/007=v q%d retain", c.qos)] {
			t.Errorf("%s got %d retained events, want 299 without r/007", c.id, len(sub.got))
		}
	}
}
