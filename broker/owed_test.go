package broker

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// owing is streaming with streams for any two, and queues of so many events.
func owing(t *testing.T, queueEvents int) (*driver, *machineUnderTest) {
	d, u := streaming(t)
	u.streams.crowd = 2
	s := Limits{Sessions: 100, QueueEvents: queueEvents}.Settings("")
	d.entry(&s)
	return d, u
}

// durable connects a durable session, which subscribes to filters.
func (d *driver) durable(client, principal string, filters ...string) *opened {
	d.t.Helper()
	o := d.connect(event.Connect{Client: client, Principal: principal, Expiry: event.Never, ReceiveMax: 1})
	var subs []event.Subscription
	for _, f := range filters {
		subs = append(subs, event.Subscription{Filter: f, QoS: 2})
	}
	if len(subs) > 0 {
		d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: subs})
	}
	return o
}

// leaves ends a connection by a DISCONNECT.
func (d *driver) leaves(o *opened) {
	d.t.Helper()
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch})
}

// A copy of QoS 2 that a member was given behind what streams owe it was not sent: if
// another connection discards its session, somebody else gets it. Without a debt it
// may have been sent, and nobody does ([MQTT-4.8.2-5]).
func TestSharedBehindWhatIsOwed(t *testing.T) {
	for owed, want := range map[int]uint64{0: 0, 10: 1} {
		t.Run(fmt.Sprint("owed=", owed), func(t *testing.T) {
			d, u := owing(t, 100)
			d.leaves(d.durable("keeper", "alice", "hot", "$share/g/jobs/#"))
			d.leaves(d.durable("one", "alice", "hot", "$share/g/jobs/#"))
			for n := range owed {
				d.entry(publishing("hot", fmt.Sprint(n), 1))
			}
			u.streams.ahead, u.streams.piece = 1, 1
			o := d.connect(event.Connect{Client: "one", Principal: "alice", Expiry: event.Never, ReceiveMax: 20})
			d.entry(publishing("jobs/1", "x", 2))
			if n := len(u.numbers[o.session].copies); n != 1 {
				t.Fatalf("the member has %d copies, want 1", n)
			}
			d.connect(event.Connect{Client: "one", Principal: "alice", Clean: true})
			d.entry(&event.Tick{})
			d.entry(&event.Tick{})
			if got := u.byFilter["$share/g/jobs/#"].queue.count; got != want {
				t.Errorf("%d copies wait for the other member, want %d", got, want)
			}
		})
	}
}

// A member that has room because what it was owed was pushed out is given more.
func TestOwedPushedOutMakesRoom(t *testing.T) {
	d, u := owing(t, 20)
	other := d.durable("other", "alice", "hot")
	d.leaves(d.durable("one", "alice", "hot", "cold", "$share/g/jobs/#"))
	d.leaves(other)
	for _, topic := range []string{"hot", "cold", "cold", "cold", "hot", "hot", "hot", "hot", "hot", "hot"} {
		d.entry(publishing(topic, "x", 1))
	}
	u.streams.ahead, u.streams.piece = 20, 1 // as if many others were being paid
	o := d.durable("one", "alice")
	all := []event.Command{&event.Unsubscribe{Session: o.session, Epoch: o.epoch, Filters: []string{"hot"}}, publishing("jobs/1", "x", 1)}
	for range 30 {
		all = append(all, publishing("hot", "too many", 1))
	}
	d.entry(all...)
	for range 5 {
		d.entry(&event.Tick{})
	}
	r, g := u.numbers[o.session], u.byFilter["$share/g/jobs/#"]
	if r.queue.dropped == 0 || r.queue.count != 1 || len(r.copies) != 1 || g.queue.count != 0 {
		t.Errorf("of what the member had %d are lost; it has %d entries, %d of them copies, and the group %d; want some, 1, 1, 0",
			r.queue.dropped, r.queue.count, len(r.copies), g.queue.count)
	}
}

// What waits behind an event that only a member can have who is behind goes on when
// that is no more so: it has expired, a bound has pushed it out, or somebody else may
// have it by now.
func TestSharedGoesOnBehindTheFirst(t *testing.T) {
	for name, c := range map[string]struct {
		expires int64 // the first, so long after now; 0 for never
		then    func(d *driver, busy *opened)
	}{
		"it has expired": {1e9, func(d *driver, _ *opened) {
			d.entry(publishing("jobs/2", "x", 1))
			d.now += 2e9
		}},
		"it was pushed out": {0, func(d *driver, _ *opened) {
			for range 21 {
				d.entry(publishing("jobs/2", "x", 1))
			}
		}},
		"another may have it": {0, func(d *driver, busy *opened) {
			e := publishing("jobs/1", "of before noon", 1)
			e.Event.At = d.now - 60e9
			d.entry(e)
			d.entry(&event.Settle{Session: busy.session, Epoch: busy.epoch, Below: 1, Sent: 1})
			d.now += 11 * 60e9
		}},
		"the second has expired": {0, func(d *driver, busy *opened) {
			e := publishing("jobs/1", "of noon", 1)
			e.Event.At, e.Event.Expires = d.now, d.now+1e9
			d.entry(e)
			d.entry(publishing("jobs/2", "x", 1))
			d.entry(&event.Settle{Session: busy.session, Epoch: busy.epoch, Below: 1, Sent: 1})
			d.entry(&event.Tick{}) // busy is given the first, and is behind again
			d.now += 2e9
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d, u := owing(t, 20)
			d.entry(&event.Policy{Data: []byte("noon")})
			busy := d.durable("busy", "busy", "$share/g/jobs/#")
			idle := d.durable("idle", "idle", "$share/g/jobs/#")
			for n, payload := range []string{"keeps busy", "the first"} {
				e := publishing("jobs/1", payload, 1)
				if e.Event.At = d.now; n == 1 && c.expires != 0 {
					e.Event.Expires = d.now + c.expires
				}
				d.entry(e)
			}
			if n := u.numbers[idle.session].queue.count; n != 0 {
				t.Fatalf("idle has %d before its turn", n)
			}
			c.then(d, busy)
			d.entry(&event.Tick{})
			d.entry(&event.Tick{})
			if n := u.numbers[idle.session].queue.count; n == 0 {
				t.Errorf("idle has nothing; %d wait in the group", u.byFilter["$share/g/jobs/#"].queue.count)
			}
		})
	}
}
