package broker

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

const jobs = "$share/g/jobs/#"

// payloads returns what a client has got on topics of jobs, in its order.
func (c *client) payloads() (got []string) {
	for _, g := range c.awaitGot(0) {
		got = append(got, g.payload)
	}
	return got
}

// publishJobs publishes numbered events at QoS 1.
func publishJobs(t *testing.T, pub *client, from, until int) {
	t.Helper()
	for i := from; i < until; i++ {
		if err := pub.publish("jobs/"+strconv.Itoa(i%3), strconv.Itoa(i), 1); err != nil {
			t.Fatal(err)
		}
	}
}

func wantPayloads(t *testing.T, c *client, want ...string) {
	t.Helper()
	c.await(len(want))
	c.n.tick()
	if got := c.payloads(); !slices.Equal(got, want) {
		t.Errorf("%s got %q, want %q", c.id, got, want)
	}
}

// Each event goes to one member, by turns, and to who has a subscription of his own
// besides; a member that has both gets both. Nothing retained is sent at SUBSCRIBE,
// RETAIN is set only as published and asked for, and each copy has its identifier.
func TestSharedByTurns(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	if err := pub.publish("jobs/0", "kept", 1, retain); err != nil {
		t.Fatal(err)
	}
	var members []*client
	for i := range 3 {
		c, _ := n.connect(fmt.Sprint("m", i), true, uint32(i/2*3600)) // the last is durable
		c.subscribe(jobs, 1, func(s *event.Subscription) { s.ID, s.RetainAsPublished = uint32(i+1), i == 1 })
		members = append(members, c)
	}
	watcher, _ := n.connect("watcher", true, 0)
	watcher.subscribe("jobs/#", 0)
	members[0].subscribe("jobs/2", 1, func(s *event.Subscription) { s.ID = 9 })
	watcher.want("jobs/0=kept q0 retain")

	publishJobs(t, pub, 0, 6)
	if err := pub.publish("jobs/0", "6", 1, retain); err != nil {
		t.Fatal(err)
	}
	if err := pub.publish("jobs/0", "7", 1, retain); err != nil {
		t.Fatal(err)
	}
	members[0].want("jobs/0=0 q1 ids[1]", "jobs/2=2 q1 ids[9]", "jobs/0=3 q1 ids[1]", "jobs/2=5 q1 ids[9]", "jobs/0=6 q1 ids[1]")
	members[1].want("jobs/1=1 q1 ids[2]", "jobs/1=4 q1 ids[2]", "jobs/0=7 q1 retain ids[2]")
	members[2].want("jobs/2=2 q1 ids[3]", "jobs/2=5 q1 ids[3]")
	watcher.await(9)
	for _, c := range members {
		c.ackAll()
	}
	n.quiet()
}

// quiet fails the test unless the log, told of all acknowledgements, has no copy of
// a shared subscription in any queue, and says so of itself.
func (n *node) quiet() {
	n.t.Helper()
	n.told()
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	for number, r := range n.machine.numbers {
		if len(r.copies) != 0 {
			n.t.Errorf("%d copies are left with session %d (%s)", len(r.copies), number, r.client)
		}
	}
}

// told returns when the log has been told of all that is over.
func (n *node) told() {
	n.t.Helper()
	n.loop.call(func(*Wave) {
		for _, s := range n.loop.live {
			s.settling.tell(s)
		}
	})
	for range 3 { // the telling, what it has given, and to whom
		n.catchUp()
	}
}

// A member that is behind gets no more until it has acknowledged; others do. When
// all are, what comes waits, and is given in its order as they make room.
func TestSharedBehind(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	slow, _ := n.connect("slow", true, 3600, receiveMax(2))
	slow.subscribe(jobs, 1)
	quick, _ := n.connect("quick", true, 0, receiveMax(6))
	quick.subscribe(jobs, 1)
	publishJobs(t, pub, 0, 12)
	wantPayloads(t, slow, "0", "2")
	wantPayloads(t, quick, "1", "3", "4", "5", "6", "7")
	slow.ackAll()
	wantPayloads(t, slow, "0", "2", "8", "9")
	quick.ackAll()
	wantPayloads(t, quick, "1", "3", "4", "5", "6", "7", "10", "11")
	slow.ackAll()
	quick.ackAll()
	n.quiet()
	publishJobs(t, pub, 12, 13)
	wantPayloads(t, slow, "0", "2", "8", "9", "12")
}

// When a session ends, whether with its connection or by its time, what it had not
// acknowledged goes to others: at QoS 1 all of it, at QoS 2 what was not sent.
func TestSharedSessionEnds(t *testing.T) {
	for name, expiry := range map[string]uint32{"with its connection": 0, "by its time": 60} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, Limits{})
			pub, _ := n.connect("pub", true, 0)
			gone, _ := n.connect("gone", true, expiry)
			gone.subscribe(jobs, 2)
			for i, qos := range []uint8{1, 2, 1, 1} {
				if err := pub.publishID(uint16(i+1), "jobs/1", fmt.Sprint(i), qos); err != nil {
					t.Fatal(err)
				}
			}
			gone.await(4)
			gone.full = true // what comes now it is not sent
			for i, qos := range []uint8{2, 1} {
				if err := pub.publishID(uint16(i+9), "jobs/1", fmt.Sprint(4+i), qos); err != nil {
					t.Fatal(err)
				}
			}
			if err := gone.answer(gone.awaitGot(4)[2].id, Acked); err != nil {
				t.Fatal(err)
			}
			heir, _ := n.connect("heir", true, 0)
			heir.subscribe(jobs, 2)
			heir.want()
			gone.s.Close(false, false, 0)
			if expiry > 0 {
				n.tick()
				n.catchUp()
				heir.want("jobs/1=4 q2", "jobs/1=5 q1") // at once, for it had not been sent
				n.pass(time.Duration(expiry+1) * time.Second)
				heir.want("jobs/1=4 q2", "jobs/1=5 q1", "jobs/1=0 q1", "jobs/1=3 q1")
			} else {
				heir.want("jobs/1=0 q1", "jobs/1=3 q1", "jobs/1=4 q2", "jobs/1=5 q1")
			}
			if got := n.stats.SharedReturned.Load(); got != 4 {
				t.Errorf("%d copies went back, want 4", got)
			}
		})
	}
}

// A durable member that is back goes on with what it had been sent, though others
// are there; so it does at a takeover.
func TestSharedGoesOn(t *testing.T) {
	n := newNode(t, Limits{})
	pub, _ := n.connect("pub", true, 0)
	one, _ := n.connect("one", true, 3600)
	one.subscribe(jobs, 2)
	for i, qos := range []uint8{1, 2} {
		if err := pub.publishID(uint16(i+1), "jobs/1", fmt.Sprint(i), qos); err != nil {
			t.Fatal(err)
		}
	}
	one.want("jobs/1=0 q1", "jobs/1=1 q2")
	other, _ := n.connect("other", true, 0)
	other.subscribe(jobs, 2)
	over, present := n.connect("one", false, 3600) // a takeover
	if !present {
		t.Error("the session is gone")
	}
	over.want("jobs/1=0 q1 dup", "jobs/1=1 q2 dup")
	over.s.Close(false, false, 0)
	n.tick()
	publishJobs(t, pub, 2, 4)
	other.await(2)
	again, _ := n.connect("one", false, 3600)
	again.want("jobs/1=0 q1 dup", "jobs/1=1 q2 dup")
	wantPayloads(t, other, "2", "3")
}

// Nobody connected: what comes waits for a durable member if the group has one, in
// its order and within bounds, the oldest being lost and counted. Without one it is
// for nobody.
func TestSharedWaits(t *testing.T) {
	n := newNode(t, Limits{QueueEvents: 40})
	pub, _ := n.connect("pub", true, 0)
	away, _ := n.connect("away", true, 3600)
	away.subscribe(jobs, 1)
	away.s.Close(false, false, 0)
	brief, _ := n.connect("brief", true, 0)
	brief.subscribe("$share/brief/jobs/#", 1)
	brief.s.Close(false, false, 0)
	n.tick()
	publishJobs(t, pub, 0, 50)
	if err := pub.publish("jobs/1", "brief", 1, expiresIn(n, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	n.tick()
	n.tick() // what an entry has dropped is counted when it is over
	if got := n.stats.QueueDropped.Load(); got != 11 {
		t.Errorf("%d were pushed out, want 11", got)
	}
	n.crash()
	n.clock.advance(time.Minute)
	back, _ := n.connect("away", false, 3600)
	var want []string
	for i := 11; i < 31; i++ { // half of the bound may be under way at once
		want = append(want, strconv.Itoa(i))
	}
	wantPayloads(t, back, want...)
	back.ackAll()
	n.told()
	for i := 31; i < 50; i++ {
		want = append(want, strconv.Itoa(i))
	}
	wantPayloads(t, back, want...)
	back.ackAll()
	n.quiet()
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	if got := len(n.machine.groups); got != 1 {
		t.Errorf("%d groups, want the one that has a member", got)
	}
}

func expiresIn(n *node, d time.Duration) func(*event.Event) {
	return func(e *event.Event) { e.Expires = n.clock.now().Add(d).UnixNano() }
}

// crash ends the node without a word; its next life replays the log.
func (n *node) crash() { n.t.Helper(); n.stop(false); n.start() }

// A process that stood still gives its members nothing before it has heard: neither
// what does not go through the log, which others may have, nor what does, which is
// sent then, whether the member's session outlasts its connection or not.
func TestSharedWhileNothingIsHeard(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		c, _ := n.connect("m", true, expiry)
		c.subscribe(jobs, 1)
		pub, _ := n.connect("pub", true, 0)
		n.standstill()
		must(t, pub.publish("jobs/1", "0", 0))
		publishJobs(t, pub, 1, 3)
		must(t, pub.publish("jobs/1", "3", 0))
		n.tick()
		if got := c.payloads(); len(got) != 0 {
			t.Errorf("expiry %d: while nothing was heard it got %q", expiry, got)
		}
		n.silence.all.Store(false)
		n.silence.held.Store(false)
		n.loop.do(func(*Wave) { n.loop.showAnew() })
		wantPayloads(t, c, "1", "2")
		if got := n.Stats().SharedLost.Load(); got != 2 {
			t.Errorf("expiry %d: %d counted as lost, want the 2 of QoS 0", expiry, got)
		}
	}
}
