package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// What is published at QoS 0 on any node after a SUBACK on any other reaches the
// subscriber, and nobody is sent what nobody there wants.
//
// Item 46.
func TestClusterSubackIsTrue(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	turn := func(i int, try *attempt) {
		at, other := c.nodes[i%clusterSize], c.nodes[(i+1+i/clusterSize%2)%clusterSize]
		unheard := func() float64 { return at.metric("bellwire_subscribe_unheard_total") }
		before := unheard()
		v := []byte{v4, v5}[i%2]
		sub, pub := at.open(v, clean(fmt.Sprint("sub", i))), other.open(v, clean(fmt.Sprint("pub", i)))
		topic := fmt.Sprint("t/", i)
		sub.Subscribe([]string{topic, "t/+", topic + "/#"}[i%3], byte(i%3))
		if unheard() > before { // it waits for others a quarter of a second, and they have to wait for a processor
			try.spoil("a SUBACK was sent before the others had heard")
			sub.Disconnect()
			pub.Disconnect()
			c.await("three voters that answer", allVote)
			return
		}
		pub.Publish(topic, 0, "first")
		sub.ReceiveText(topic, "first")
		sub.Disconnect()
		pub.Publish(topic, 0, "to nobody")
		pub.Publish("mark", 1, "") // it has been taken when this is
		pub.Disconnect()
	}
	for i := range 30 {
		attempts(t, func(try *attempt) { turn(i, try) })
	}
}

// A session goes from node to node with all that belongs to it: the older
// connection is told that it was taken over, wherever it is; what waits is
// delivered at the new place, in order; a QoS 2 exchange goes on where it was. And
// what is sent at one node is whole at each.
//
// Items 25, 28, 32.
func TestClusterSessionGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	pub := c.nodes[2].open(v5, clean("pub"))
	sub := c.nodes[0].open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 2)
	for i := range 12 {
		pub.Publish("t", 2, fmt.Sprint(i, " sent"))
		got := nextNew(t, sub, fmt.Sprint(i, " sent"))
		if i%2 == 1 {
			sub.Send(mq.Ack{Type: mq.PUBREC, ID: got.ID})
			sub.ExpectID(mq.PUBREL, got.ID)
		}
		before := sub
		next, ack := mq.OpenAck(t, c.nodes[(i+1)%clusterSize].ready.MQTT, v5, durable(v5, "sub"))
		if sub = next; !ack.SessionPresent {
			t.Fatalf("move %d: the session is gone", i)
		}
		before.ClosedWith(0x8E)
		if i%2 == 1 {
			sub.ExpectID(mq.PUBREL, got.ID)
			sub.Send(mq.Ack{Type: mq.PUBCOMP, ID: got.ID})
		} else {
			again := nextNew(t, sub, string(got.Payload)) // its last acknowledgements may not have been ordered
			if !again.Dup() || again.ID != got.ID {
				t.Fatalf("got %v, want %d again", again, i)
			}
			sub.Acknowledge(again)
		}
		sub.Close()
		for k := range 3 {
			pub.Publish("t", 1, fmt.Sprint(i, ".", k, " queued"))
		}
		sub = c.nodes[(i+2)%clusterSize].open(v5, durable(v5, "sub"))
		for k := range 3 {
			sub.Acknowledge(nextNew(t, sub, fmt.Sprint(i, ".", k, " queued")))
		}
		sub.Disconnect()
		sub = c.nodes[i%clusterSize].open(v5, durable(v5, "sub"))
	}
	c.messagesAreWhole()
	c.alike()
}

// messagesAreWhole wants what is sent at one node at each of them with all its properties,
// and what is left of its expiry: live, as a will, from the queue of a session that was
// elsewhere, and retained.
func (c *trio) messagesAreWhole() {
	c.t.Helper()
	expiring := append(slices.Clone(rich), mq.Number(mq.PropMessageExpiry, 1000))
	check := func(how string, from int, client *mq.Client, topic string) {
		c.t.Helper()
		how = fmt.Sprint(how, ", node ", from)
		p := client.ReceiveText(topic, "text")
		checkRich(c.t, how, p)
		if n, ok := p.Properties.Number(mq.PropMessageExpiry); !ok || n == 0 || n > 1000 {
			c.t.Errorf("%s: expiry %d %t, want what is left of 1000", how, n, ok)
		}
	}
	var live [clusterSize]*mq.Client
	away := func(i int) mq.Connect { return durable(v5, fmt.Sprint("away", i)) }
	for i, n := range c.nodes {
		session := n.open(v5, away(i))
		session.Subscribe("whole/#", 1)
		session.Disconnect()
		live[i] = n.open(v5, clean(fmt.Sprint("live", i)))
		live[i].Subscribe("whole/#", 1)
	}
	pub := c.nodes[0].open(v5, clean("whole"))
	pub.PublishMessage(mq.Publish{Topic: "whole/kept", QoS: 1, Retain: true, Payload: []byte("text"), Properties: expiring})
	for i := range live {
		check("live", i, live[i], "whole/kept")
	}
	dying := c.nodes[1].open(v5, mq.Connect{
		ClientID: "dying", Clean: true, Will: &mq.Will{Topic: "whole/will", QoS: 1, Payload: []byte("text"), Properties: expiring},
	})
	dying.Close()
	for i := range live {
		check("will", i, live[i], "whole/will")
	}
	for i := range c.nodes {
		at := (i + 1) % clusterSize
		session := c.nodes[at].open(v5, away(i))
		check("queued", at, session, "whole/kept")
		check("queued will", at, session, "whole/will")
		late := c.nodes[i].open(v5, clean(fmt.Sprint("late", i)))
		late.Subscribe("whole/#", 1)
		check("retained", i, late, "whole/kept")
	}
}

// nextNew receives a message for the first time. Before it there may be what the
// client has answered already, at a node that was slower to say so than the client
// was to go elsewhere: that it answers again.
func nextNew(t *testing.T, c *mq.Client, payload string) *mq.Packet {
	t.Helper()
	for {
		p := c.Next()
		switch {
		case p.Type == mq.PUBREL:
			c.Send(mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
		case p.Type == mq.PUBLISH && p.QoS() == 1 && p.Dup() && string(p.Payload) != payload:
			c.Acknowledge(p)
		case p.Type == mq.PUBLISH && string(p.Payload) == payload:
			return p
		default:
			t.Fatalf("got %v, want %q", p, payload)
		}
	}
}

// A node that stands still is given up: wills of its clients are sent, and their
// sessions go on elsewhere. When it goes on it sends its clients away, does no harm
// to those that are elsewhere, and serves again as the same process.
//
// Item 65.
func TestClusterNodeGivenUpComesBack(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	lead := c.leader()
	still, other := c.nodes[(lead+1)%clusterSize], c.nodes[(lead+2)%clusterSize]
	watcher := other.open(v5, clean("watcher"))
	watcher.Subscribe("will/#", 1)
	moves, stays := still.open(v5, durable(v5, "moves")), still.open(v5, willed(durable(v5, "stays"), "will/stays", "gone"))
	moves.Subscribe("t", 1)
	pub := other.open(v5, clean("pub"))
	pub.Publish("t", 1, "0")
	moves.ReceiveText("t", "0")

	still.halt()
	pub.Publish("t", 1, "1")
	watcher.ReceiveText("will/stays", "gone")
	moved, ack := mq.OpenAck(t, other.ready.MQTT, v5, willed(durable(v5, "moves"), "will/moves", "gone"))
	if !ack.SessionPresent {
		t.Error("the session is gone")
	}
	for _, payload := range []string{"0", "1"} { // of the first the acknowledgement may be lost
		if got := moved.Receive(); string(got.Payload) == "1" {
			break
		} else if string(got.Payload) != payload {
			t.Errorf("got %v", got)
		}
	}
	still.signal(syscall.SIGCONT)
	for _, old := range []*mq.Client{moves, stays} {
		got := old.Closed() // it may be sent what was ordered before its node was given up
		if len(got) == 0 || got[len(got)-1].Type != mq.DISCONNECT || got[len(got)-1].Code != 0x9C {
			t.Errorf("got %v before the close, want DISCONNECT 0x9C", got)
		}
	}
	// It may begin anew before it looks how long it stood still, and then refuses for a moment.
	until(t, "the node knows that it stood still", mq.Patience, func() bool {
		return strings.Contains(still.logs.String(), "no leader is heard of: publishes")
	})
	until(t, "the node serves again", mq.Patience, func() bool {
		back, ack, err := mq.DialConnect(still.ready.MQTT, v5, durable(v5, "stays"))
		if err != nil || ack.Code != 0 {
			return false
		}
		defer back.Close()
		return ack.SessionPresent
	})
	again := still.open(v5, clean("again"))
	again.Publish("t", 1, "2")
	moved.ReceiveText("t", "2")
	moved.Quiet()
	watcher.Quiet() // one will, and none of who went elsewhere
	if got := still.metric("bellwire_lives_closed_total"); got != 1 {
		t.Errorf("%v lives were closed, want 1", got)
	}
	c.alike()
}

// A node without a quorum says so: publishes that would have to be kept are refused,
// 3.1.1 clients are not acknowledged, nobody is let in; events of QoS 0 go on. After
// a while it sends its clients away, and when the others are back it serves.
//
// MQTT 3.1.1: 4.8.0-2.
// Items 15, 58.
func TestClusterWithoutQuorum(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	left := c.nodes[0]
	pub, old, sub := left.open(v5, clean("pub")), left.open(v4, clean("old")), left.open(v5, durable(v5, "sub"))
	sub.Subscribe("t", 1)
	for _, n := range c.nodes[1:] {
		n.halt()
	}
	var refused *mq.Packet
	until(t, "new clients are refused", patience, func() bool {
		conn, ack, err := mq.DialConnect(left.ready.MQTT, v5, clean("new"))
		if err != nil {
			return false
		}
		conn.Close()
		refused = ack
		return ack.Code == 0x88
	})
	if !strings.Contains(refused.String(), "no-quorum") {
		t.Errorf("refused with %v, want a reason that says no-quorum", refused)
	}
	pub.Publish("t", 0, "at most once")
	sub.ReceiveText("t", "at most once")
	id := pub.ID()
	pub.Send(mq.Publish{Topic: "t", QoS: 1, ID: id, Payload: []byte("refused")})
	if got := pub.ExpectID(mq.PUBACK, id); got.Code != 0x83 || !strings.Contains(got.String(), "no-quorum") {
		t.Errorf("a publish was answered %v, want 0x83 no-quorum", got)
	}
	old.Send(mq.Publish{Topic: "t", QoS: 1, ID: 1, Payload: []byte("not acknowledged")})
	if got := old.Closed(); len(got) != 0 {
		t.Errorf("a 3.1.1 publish was answered %v", got)
	}
	for _, c := range []*mq.Client{pub, sub} {
		c.ClosedWith(0x9C)
	}
	for _, n := range c.nodes[1:] {
		n.signal(syscall.SIGCONT)
	}
	until(t, "it serves again", mq.Patience, func() bool {
		conn, ack, err := mq.DialConnect(left.ready.MQTT, v5, durable(v5, "sub"))
		if err != nil {
			return false
		}
		conn.Close()
		return ack.Code == 0 && ack.SessionPresent
	})
	sub = left.open(v5, durable(v5, "sub"))
	left.open(v5, clean("pub")).Publish("t", 1, "again")
	sub.ReceiveText("t", "again")
	c.alike()
}
