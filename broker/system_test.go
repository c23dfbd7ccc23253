package broker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
)

// A teller is a node that tells of itself two numbers, and how often it was asked for them.
type teller struct {
	*node
	own, shared atomic.Int64
	reads       atomic.Int64
}

// tells has n tell of itself when it is told to.
func tells(n *node) *teller {
	y := &teller{node: n}
	read := func(v *atomic.Int64) func() string {
		return func() string { y.reads.Add(1); return fmt.Sprint(v.Load()) }
	}
	n.policies["sys"] = parseRules("allow * #\nallow * $SYS/#")
	n.policy("sys")
	n.StartSystem(SystemConfig{Every: time.Hour, Values: []SystemValue{
		{Topic: SystemTopic(n.name) + "shared", Shared: true, Read: read(&y.shared)},
		{Topic: "$SYS/broker/own", Read: read(&y.own)},
	}})
	return y
}

// Who subscribes is sent the present value at once, as retained, and then what changes, each
// once; wildcards at the first level match nothing of it; nothing is read that nobody wants,
// and the log hears of none of it.
func TestSystemValues(t *testing.T) {
	n := tells(newNode(t, Limits{}))
	n.own.Store(1)
	for range 3 {
		n.TellSystem()
	}
	if reads := n.reads.Load(); reads > 0 {
		t.Errorf("%d values read for nobody", reads)
	}
	c, _ := n.connect("c", true, 0)
	everything, _ := n.connect("e", true, 0)
	for _, filter := range []string{"#", "+/broker/own", "+/#"} {
		everything.subscribe(filter, 0)
	}
	logged := n.logged()
	c.subscribe("$SYS/broker/#", 2)
	c.await(1)
	n.TellSystem() // nothing new
	n.own.Store(2)
	n.TellSystem()
	c.await(2)
	if reads := n.reads.Load(); reads != 3 {
		t.Errorf("%d values were read, want 3: at the subscription, and at two looks", reads)
	}
	if now := n.logged(); now != logged {
		t.Errorf("the log has %d commands more", now-logged)
	}
	c.subscribe("$SYS/broker/own", 0, func(s *event.Subscription) { s.RetainHandling = 2 })
	c.subscribe(SystemTopic("n1")+"+", 0)
	c.want("$SYS/broker/own=1 q0 retain", "$SYS/broker/own=2 q0", "$SYS/bellwire/nodes/n1/shared=0 q0 retain")
	if got := everything.await(0); len(got) > 0 {
		t.Errorf("wildcards at the first level were sent %q", got)
	}
}

// Nobody publishes there, whatever the policy says, nor has a will there, nor shares a
// subscription to what each node tells of itself.
func TestSystemIsNobodysToPublish(t *testing.T) {
	n := tells(newNode(t, Limits{}))
	c, _ := n.connect("c", true, 0)
	for _, topicName := range []string{"$SYS", "$SYS/broker/own", "$SYS/x"} {
		for qos := range uint8(3) {
			if err := c.publishID(uint16(qos+1), topicName, "x", qos); !errors.Is(err, ErrRefused) {
				t.Errorf("publish to %s at QoS %d: %v, want %v", topicName, qos, err, ErrRefused)
			}
		}
	}
	_, _, err := n.tryConnect("w", true, 0, func(r *ConnectRequest) { r.Will = &event.Will{Topic: "$SYS/broker/own"} })
	if !errors.Is(err, ErrRefused) {
		t.Errorf("a will: %v, want %v", err, ErrRefused)
	}
	if err := c.trySubscribe("$share/g/$SYS/#", 0); !errors.Is(err, ErrNotShared) {
		t.Errorf("a shared subscription: %v, want %v", err, ErrNotShared)
	}
}

// A durable session that is back is told how things are now; while it was away nothing was
// queued for it.
func TestSystemForWhoIsBack(t *testing.T) {
	n := tells(newNode(t, Limits{}))
	c, _ := n.connect("c", false, 3600)
	c.subscribe("$SYS/broker/+", 2)
	c.want("$SYS/broker/own=0 q0 retain")
	c.s.Close(false, false, 0)
	n.tick()
	n.own.Store(7)
	n.TellSystem()
	c, _ = n.connect("c", false, 3600)
	c.want("$SYS/broker/own=7 q0 retain")
	if events, bytes := n.QueuesHold(); events != 0 || bytes != 0 {
		t.Errorf("%d events of %d bytes are queued", events, bytes)
	}
}

// What the policy does not let somebody read they are not told, also below a filter that they
// may have.
func TestSystemIsTheOperatorsToShow(t *testing.T) {
	n := tells(newNode(t, Limits{}))
	n.policies["some"] = parseRules("allow c $SYS/#\ndeny c $SYS/bellwire/#\nallow * #")
	n.policy("some")
	c, _ := n.connect("c", true, 0)
	c.subscribe("$SYS/#", 0)
	c.want("$SYS/broker/own=0 q0 retain")
	d, _ := n.connect("d", true, 0)
	if err := d.trySubscribe("$SYS/broker/own", 0); !errors.Is(err, ErrRefused) {
		t.Errorf("who may not: %v", err)
	}
}

// What has the node's name is told to other nodes' clients, too: each change, and to who
// subscribes next what was told last, while it is news. What has not stays where it is.
func TestSystemOfOtherNodes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 2)
		var y [2]*teller
		for i, m := range n {
			m.policies["sys"] = parseRules("allow * #\nallow * $SYS/#")
			y[i] = tells(m.node)
		}
		l.settle()
		c, _ := n[0].connect("c", true, 0)
		c.subscribe("$SYS/#", 0)
		l.settle()
		tell := func() {
			for _, m := range n {
				m.TellSystem()
			}
			l.settle()
		}
		y[1].shared.Store(5)
		y[1].own.Store(5)
		tell()
		tell()
		other := SystemTopic(n[1].name) + "shared=5 q0"
		c.want(SystemTopic(n[0].name)+"shared=0 q0 retain", "$SYS/broker/own=0 q0 retain", other)
		d, _ := n[0].connect("d", true, 0)
		d.subscribe(SystemTopic(n[1].name)+"+", 0)
		l.settle()
		d.want(other + " retain")
		if _, err := c.s.Unsubscribe([]string{"$SYS/#"}); err != nil {
			t.Fatal(err)
		}
		d.s.Close(false, false, 0)
		l.settle()
		l.clock.advance(3*time.Hour + time.Second)
		tell()
		e, _ := n[0].connect("e", true, 0)
		e.subscribe(SystemTopic(n[1].name)+"+", 0)
		l.settle()
		e.want()
		tell()
		e.want(other)
	})
}
