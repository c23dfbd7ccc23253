package broker

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/disk"
)

// sharedTwins are two machines at the newest level that apply the same; what is
// entered is compared in both.
func sharedTwins(t *testing.T, limits Limits) (u, twin *machineUnderTest, d *driver) {
	u, twin = openMachine(t, disk.Memory(), "/data/state", "n1"), openMachine(t, disk.Memory(), "/data/state", "n1")
	d = drive(t, u, twin)
	d.entry(&event.Raise{Level: uint8(LevelStreams)})
	s := limits.Settings("")
	d.entry(&s)
	return u, twin, d
}

// The will of a member whose turn it is goes to somebody else of its own group, on a
// node that has just started as on one that knows the topic's members already.
func TestSharedWillOfAMember(t *testing.T) {
	_, twin, d := sharedTwins(t, Limits{})
	var o *opened
	for _, c := range []string{"m1", "m2"} {
		o = d.connect(event.Connect{Client: c, Principal: "alice", ReceiveMax: 10, Will: &event.Will{Topic: "jobs/1", Payload: []byte("w"), QoS: 1}})
		d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "$share/g/jobs/#", QoS: 1}}})
	}
	d.entry(publishing("jobs/1", "x", 1)) // to m1
	must(t, twin.load())
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch, PublishWill: true})
}

// What a session's bound pushes out when it is back, of events that it was assigned
// beside those that a stream owes it, goes back to their group; and a node that has
// started since counts the same bodies.
func TestSharedBesideWhatIsOwed(t *testing.T) {
	const bound = 200
	u, twin, d := sharedTwins(t, Limits{Sessions: 1000, QueueEvents: bound})
	as := func(client string) event.Connect {
		return event.Connect{Client: client, Principal: "alice", Expiry: event.Never, ReceiveMax: 100}
	}
	subscribe := func(client, filter string) {
		o := d.connect(as(client))
		d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: filter, QoS: 1}}})
		d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	}
	flood := func(n int) {
		for ; n > 0; n -= 20 {
			var all []event.Command
			for range 20 {
				all = append(all, publishing("hot", "x", 1))
			}
			d.entry(all...)
		}
	}
	for i := range 40 {
		subscribe(fmt.Sprint("away", i), "hot")
	}
	subscribe("keeper", "$share/g/jobs/#") // is away, so that the group does not end
	subscribe("away0", "$share/g/jobs/#")
	flood(bound - 20)
	for _, m := range []*machineUnderTest{u, twin} {
		m.streams.ahead, m.streams.piece = 1, 1 // as if many others were being paid
	}
	d.connect(as("away0"))
	d.entry(publishing("jobs/1", "1", 1), publishing("jobs/1", "2", 1), publishing("jobs/2", "3", 2))
	o := d.connect(as("away0")) // its connection is lost: nobody says what was sent
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
	flood(5 * bound)
	o = d.connect(as("away0"))
	for range 20 {
		d.entry(&event.Tick{})
	}
	r, g := u.numbers[o.session], u.byFilter["$share/g/jobs/#"]
	if got := len(r.copies) + int(g.queue.count); got != 3 {
		t.Errorf("the member has %d of them and the group %d, want 3 in all", len(r.copies), g.queue.count)
	}
	must(t, twin.load())
	for n, s := range u.segments {
		if after := twin.segments[n]; after == nil || after.live != s.live {
			t.Errorf("segment %d: %d entries refer to it; after a start %+v", n, s.live, after)
		}
	}
}

// A member that passes over what it has is given more, though it settles nothing.
func TestSharedPassedOverMakesRoom(t *testing.T) {
	u, _, d := sharedTwins(t, Limits{})
	o := d.connect(event.Connect{Client: "m", Principal: "alice", Expiry: event.Never, ReceiveMax: 2})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "$share/g/jobs/#", QoS: 1}, {Filter: "x", QoS: 1}}})
	d.entry(publishing("x", "1", 1), publishing("x", "2", 1))
	d.entry(publishing("jobs/1", "1", 1)) // waits: it is behind
	d.entry(&event.PassOver{Session: o.session, Epoch: o.epoch, Entries: []uint64{0, 1}})
	d.entry(&event.Tick{})
	r, g := u.numbers[o.session], u.byFilter["$share/g/jobs/#"]
	if r.queue.count != 1 || g.queue.count != 0 {
		t.Errorf("the member has %d and the group %d, want 1 and 0", r.queue.count, g.queue.count)
	}
}
