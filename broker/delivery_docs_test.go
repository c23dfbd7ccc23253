package broker

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// docs are the resources of TestDeliveryModel: what a device is shown of them is what
// it should be however what it is sent besides comes and goes.
type docs struct {
	rng    *rand.Rand // a stream of its own
	owners []*client
	state  map[string]int  // by resource: how often it has changed
	shown  map[string]bool // its owner shows it to the device
	hidden map[string]bool // and it is certain that he does not, by what was sent so far
}

var docOwners = []string{"bob", "eve"}

func docTopic(owner string) string { return "note/x.org/" + owner }

func newDocs(seed uint64) *docs {
	return &docs{rng: rand.New(rand.NewPCG(seed, 3)), state: map[string]int{}, shown: map[string]bool{}, hidden: map[string]bool{"note/x.org/bob": true, "note/x.org/eve": true}}
}

// connect connects the owners to a new life of the node.
func (d *docs) connect(n *node) {
	d.owners = nil
	for _, owner := range docOwners {
		d.owners = append(d.owners, n.person(owner, 0))
	}
}

// change has an owner publish a state or two, or permit or forbid the device to see
// them, beside what else goes on.
func (r *deliveryRun) change() {
	x := r.docs.rng.IntN(100)
	i := r.docs.rng.IntN(len(docOwners))
	topicName := docTopic(docOwners[i])
	switch {
	case x < 40:
		for range 1 + r.docs.rng.IntN(6) {
			r.mu.Lock()
			r.docs.state[topicName]++
			payload := fmt.Sprint(r.docs.state[topicName])
			r.mu.Unlock()
			must(r.t, r.docs.owners[i].publish(topicName, payload, 1))
		}
		r.note("%s is %d", topicName, r.docs.state[topicName])
	case x < 50:
		shown := !r.docs.shown[topicName]
		rules := "{}"
		if shown {
			rules = `{"device":{}}`
		}
		r.mu.Lock()
		r.docs.shown[topicName], r.docs.hidden[topicName] = shown, false
		r.mu.Unlock()
		allow(r.docs.owners[i], rules)
		r.rest()
		r.mu.Lock()
		r.docs.hidden[topicName] = !shown
		r.mu.Unlock()
		r.note("%s is shown: %v", topicName, shown)
	}
}

// show takes a document. The device's lock is held.
func (c *deviceConn) show(d *Delivery) Outcome {
	run := c.d.run
	name, state := strings.Clone(d.Event.Topic), 0
	if len(d.Event.Payload) > 0 {
		var err error
		if state, err = strconv.Atoi(string(d.Event.Payload)); err != nil {
			run.t.Fatal(err)
		}
	}
	if c.full {
		run.fault("%s is offered to a sink that is full", name)
	}
	if c.room == 0 {
		c.full = true
		return Full
	}
	c.room--
	last, had := c.shown[name]
	run.mu.Lock()
	hidden := run.docs.hidden[name]
	run.mu.Unlock()
	switch {
	case c.over:
		run.fault("%s is sent on a connection that is over", name)
	case hidden && state != 0:
		run.fault("%s is shown, %d, and its owner does not permit that", name, state)
	case had && last == state:
		run.fault("%s is shown twice, %d", name, state)
	case state != 0 && last > state:
		run.fault("%s is shown as %d after %d", name, state, last)
	case len(c.flight) >= c.recvMax:
		run.fault("%s is sent while %d are under way, of at most %d", name, len(c.flight), c.recvMax)
	case d.QoS != 1 || d.PacketID == 0 || d.Dup:
		run.fault("%s is sent at QoS %d with id %d, dup %v", name, d.QoS, d.PacketID, d.Dup)
	}
	if other, used := c.flight[d.PacketID]; used {
		run.fault("%s has id %d, as %d has which is under way", name, d.PacketID, other)
	}
	if other, held := c.d.held[d.PacketID]; held {
		run.fault("%s has id %d, which event %d has not been released from", name, d.PacketID, other)
	}
	c.shown[name] = state
	c.flight[d.PacketID] = -1
	c.wire = append(c.wire, packet{id: d.PacketID, event: -1, qos: 1})
	run.note("  -> %s is %d, id %d", name, state, d.PacketID)
	return Sent
}

// compareDocs compares what the device was shown last with what is. Its lock is held.
func (r *deliveryRun) compareDocs() {
	for _, owner := range docOwners {
		name := docTopic(owner)
		want := 0
		if r.docs.shown[name] {
			want = r.docs.state[name]
		}
		if got := r.d.conn.shown[name]; got != want {
			r.fault("%s was shown last as %d, and is %d", name, got, want)
		}
	}
}
