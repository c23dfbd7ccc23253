package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// An otherNode is another node of the cluster, a Machine with the same log.
type otherNode struct {
	n     *node
	m     *Machine
	seq   uint64
	index uint64 // of n.entries: applied
}

// withPeer adds a peer to the log.
func (n *node) withPeer() *otherNode {
	n.t.Helper()
	s, err := store.Open(store.Options{Dir: "peer", FS: n.fs, Newest: uint8(NewestLevel), Logger: slog.New(slog.DiscardHandler), Die: func(r string) { panic(r) }})
	if err != nil {
		n.t.Fatal(err)
	}
	m, err := newMachine(s, n.config.Compile, n.limits.WithDefaults(), "", slog.New(slog.DiscardHandler), n.profiles...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			n.t.Error(err)
		}
	})
	m.node, m.life = "n2", 1<<lifeBits
	return &otherNode{n: n, m: m}
}

// order has the log order commands of the peer. n.log.mu is held.
func (p *otherNode) order(commands ...event.Command) {
	p.seq++
	b := event.AppendHeader(nil, event.Header{Node: "n2", Incarnation: p.m.life, Seq: p.seq})
	for _, c := range commands {
		b = event.AppendCommand(b, c)
	}
	p.n.entries = append(p.n.entries, kept{stamp: p.n.clock.now().UnixNano(), batches: [][]byte{b}})
	p.catchUp()
}

// catchUp applies what the log has. n.log.mu is held.
func (p *otherNode) catchUp() {
	for ; p.index < uint64(len(p.n.entries)); p.index++ {
		e := p.n.entries[p.index]
		p.m.Apply(p.index+1, 1, e.stamp, e.batches)
	}
}

// miss has the log order commands of n that n does not hear of. Nor does it of
// anything after them.
func (p *otherNode) miss(commands ...event.Command) (outcomes []*wait) {
	p.n.t.Helper()
	p.n.log.mu.Lock()
	p.n.log.heard, p.n.log.few = make(chan struct{}, 1), batchesInFlight
	propose := func(c event.Command, who call) {
		if err := p.n.propose(c, who, false); err != nil {
			p.n.t.Error(err)
		}
	}
	for range batchesInFlight { // what comes now gathers behind these
		propose(&event.Tick{}, call{})
	}
	for _, c := range commands {
		w := newWait()
		propose(c, call{c: w})
		outcomes = append(outcomes, w)
	}
	p.n.log.mu.Unlock()
	<-p.n.log.heard
	return outcomes
}

// restore gives n the peer's state, and has it hear of the log again.
func (p *otherNode) restore() {
	p.n.t.Helper()
	p.n.log.mu.Lock()
	defer p.n.log.mu.Unlock()
	p.catchUp()
	if _, _, err := p.m.Checkpoint("copy"); err != nil {
		p.n.t.Fatal(err)
	}
	if err := p.n.machine.Restore("copy"); err != nil {
		p.n.t.Fatal(err)
	}
	p.n.log.heard = nil
}

// A node that was behind and is given another's state goes on with the clients it
// holds: who was taken over, or has lost his session, is disconnected; a durable
// session gets what it missed, in order, with the subscriptions it has by now; who
// was promised what nobody kept is told; present state is shown; and what the node
// had proposed itself is done once, though nobody can say how it went.
func TestRestoreWithLiveSessions(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["shut"] = parseRules("allow * #\ndeny * shut/#")
	n.policies["users"] = parseRules("user removed x\nallow * #")
	n.policies["open"] = parseRules("allow * #")
	n.policy("users")
	open := func(id string, expiry uint32, filters ...string) *client {
		c, _ := n.connect(id, true, expiry)
		for _, f := range filters {
			c.subscribe(f, 1)
		}
		return c
	}
	durable := open("durable", 3600, "x", "dropped")
	taken, gone, removed := open("taken", 3600, "x"), open("gone", 3600, "x"), open("removed", 3600, "x")
	promised := open("promised", 0, "x")
	atMost, _ := n.connect("at most", true, 0)
	atMost.subscribe("#", 0)
	pub := open("pub", 3600)
	live := func(topic, payload string, retained bool) *event.Publish {
		return &event.Publish{Event: &event.Event{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: retained, At: n.now()}}
	}
	if err := pub.publish("x", "0", 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{durable, taken, gone, removed, promised, atMost} {
		c.await(1)
	}

	p := n.withPeer()
	own := live("x", "1", false)
	own.Event.Origin, own.Epoch = pub.s.number, pub.s.epoch
	outcomes := p.miss(own,
		&event.Subscribe{Session: durable.s.number, Epoch: durable.s.epoch, Subs: []event.Subscription{{Filter: "y", QoS: 1}}},
		&event.Unsubscribe{Session: durable.s.number, Epoch: durable.s.epoch, Filters: []string{"dropped"}},
		&event.Connect{Client: "turned away", Principal: "pub", Expiry: 3600},
	)
	n.log.mu.Lock()
	p.catchUp()
	p.order(&event.NodeUp{},
		&event.Connect{Client: "taken", Principal: "taken", Expiry: 3600, ReceiveMax: 9},
		&event.Connect{Client: "gone", Principal: "gone", Clean: true},
		live("x", "2", false), live("y", "3", false), live("dropped", "4", false), live("state", "5", true),
		&event.Policy{Data: []byte("open")},
	)
	p.order(&event.Tick{})
	n.log.mu.Unlock()
	p.restore()

	for _, o := range outcomes {
		if <-o.done; !errors.Is(o.err, ErrUnknown) {
			t.Errorf("outcome %v, want ErrUnknown", o.err)
		}
	}
	for c, want := range map[*client]error{taken: ErrStale, gone: ErrSessionEnded, removed: ErrSessionEnded, promised: ErrMissed} {
		if err := c.awaitEnd(); !errors.Is(err, want) {
			t.Errorf("%s ended with %v, want %v", c.id, err, want)
		}
	}
	atMost.await(2) // the state: it waits for nothing that follows
	for i, topic := range []string{"x", "y", "dropped"} {
		if err := pub.publish(topic, fmt.Sprint(6+i), 1); err != nil {
			t.Fatal(err)
		}
	}
	n.catchUp()
	durable.want("x=0 q1", "x=1 q1", "x=2 q1", "y=3 q1", "x=6 q1", "y=7 q1")
	atMost.want("x=0 q0", "state=5 q0 retain", "x=6 q0", "y=7 q0", "dropped=8 q0")
	if n.Policy() != Authorizer(n.policies["open"]) {
		t.Error("the policy of the copied state is not in force")
	}
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	if r := n.machine.sessions["turned away"]; r == nil || r.connected() {
		t.Errorf("session %+v: want it without a connection: nobody is there", r)
	}
	p.catchUp()
	at1, d1 := n.machine.Digest()
	if at2, d2 := p.m.Digest(); at1 != at2 || d1 != d2 {
		t.Errorf("entry %d: digest %x here, at entry %d %x there", at1, d1, at2, d2)
	}
}
