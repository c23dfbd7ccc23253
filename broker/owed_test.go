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

// What a session that is away is owed, within its bound, is not pushed out by events
// that a later policy keeps from it, however many others are owed of the same filter.
func TestOwedOutlivesAPolicy(t *testing.T) {
	const owed, bound = 5, 20
	d, u := owing(t, bound)
	for client, principal := range map[string]string{"a1": "alice@a", "a2": "alice@a", "b": "bob@b"} {
		d.leaves(d.durable(client, principal, "c/#"))
	}
	for n := range owed {
		d.entry(publishing("c/1", fmt.Sprint(n), 1))
	}
	d.entry(&event.Policy{Data: []byte("some")}) // bob has nothing of c/#
	for range 5 {
		d.entry(&event.Tick{}) // all are judged anew
	}
	for n := range 5 * bound {
		d.entry(publishing("c/1", fmt.Sprint("not for bob ", n), 1))
	}
	o := d.durable("b", "bob@b")
	if o.next != owed || o.dropped != 0 {
		t.Errorf("back it has %d events, and %d are lost; want %d and 0", o.next, o.dropped, owed)
	}
	if got := u.numbers[o.session].queue.count; got != owed {
		t.Errorf("its queue has %d entries, want %d", got, owed)
	}
	if o = d.durable("a1", "alice@a"); o.next != owed+5*bound || o.dropped != owed+4*bound {
		t.Errorf("one who may have all has events up to %d, and %d are lost; want %d and %d", o.next, o.dropped, owed+5*bound, owed+4*bound)
	}
}

// What was queued between what streams owe a session, and may be under way, stays at
// the bound: the oldest that is not goes.
func TestOwedBetweenIsUnderWay(t *testing.T) {
	const bound = 20
	d, u := owing(t, bound)
	d.leaves(d.durable("other", "alice@a", "hot"))
	d.leaves(d.durable("one", "alice@a", "hot", "cold"))
	for n := range bound { // under even numbers what is owed, under odd ones what is not
		d.entry(publishing([]string{"hot", "cold"}[n%2], fmt.Sprint(n), 1))
	}
	u.streams.ahead, u.streams.piece = 1, 1 // as if many others were being paid
	o := d.durable("one", "alice@a")
	d.entry(publishing("cold", "one too many", 1))
	d.entry(&event.Tick{})
	underWay := u.limits.window(1)
	if underWay%2 != 0 || o.next != bound {
		t.Fatalf("%d may be under way of %d, want an even number of %d", underWay, o.next, bound)
	}
	r := u.numbers[o.session]
	for n := range underWay {
		if _, ok := u.store.Get(entryKey(nil, o.session, n), nil); !ok {
			t.Errorf("entry %d, which may be under way, is gone", n)
		}
	}
	if r.queue.dropped != 1 || !r.queue.done.has(underWay) {
		t.Errorf("%d are lost, and over are %v; want 1, the number %d", r.queue.dropped, r.queue.done, underWay)
	}
}

// Who has joined a stream does not join another that has the same events, when its
// filter has become crowded since.
func TestOwedOnce(t *testing.T) {
	d, u := owing(t, 100)
	d.leaves(d.durable("other", "alice@a", "a/1"))
	o := d.connect(event.Connect{
		Client: "one", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 1,
		Will: &event.Will{Topic: "w", Delay: 10},
	})
	d.entry(&event.Subscribe{Session: o.session, Epoch: o.epoch, Subs: []event.Subscription{{Filter: "a/1", QoS: 1}, {Filter: "a/#", QoS: 1}}})
	d.entry(&event.Disconnect{Session: o.session, Epoch: o.epoch, PublishWill: true})
	if joins := u.numbers[o.session].debts[0].joins; len(joins) != 1 || joins[0].s.filter != "a/1" {
		t.Fatalf("it has joined %+v, want the stream of a/1", joins)
	}
	d.leaves(d.durable("third", "alice@a", "a/#"))
	d.now += 11e9
	d.entry(&event.Tick{}) // its will: it is looked at what it may join
	d.entry(publishing("a/1", "x", 1), publishing("a/2", "y", 1))
	d.entry(publishing("a/1", "z", 1))
	if o = d.durable("one", "alice@a"); o.next != 3 {
		t.Errorf("of three events it has %d", o.next)
	}
}

// A copy of QoS 2 that a member was given behind what streams owe it was not sent: if
// another connection discards its session, somebody else gets it. Without a debt it
// may have been sent, and nobody does ([MQTT-4.8.2-5]).
func TestSharedBehindWhatIsOwed(t *testing.T) {
	for owed, want := range map[int]uint64{0: 0, 10: 1} {
		t.Run(fmt.Sprint("owed=", owed), func(t *testing.T) {
			d, u := owing(t, 100)
			d.leaves(d.durable("keeper", "alice@a", "hot", "$share/g/jobs/#"))
			d.leaves(d.durable("one", "alice@a", "hot", "$share/g/jobs/#"))
			for n := range owed {
				d.entry(publishing("hot", fmt.Sprint(n), 1))
			}
			u.streams.ahead, u.streams.piece = 1, 1
			o := d.connect(event.Connect{Client: "one", Principal: "alice@a", Expiry: event.Never, ReceiveMax: 20})
			d.entry(publishing("jobs/1", "x", 2))
			if n := len(u.numbers[o.session].copies); n != 1 {
				t.Fatalf("the member has %d copies, want 1", n)
			}
			d.connect(event.Connect{Client: "one", Principal: "alice@a", Clean: true})
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
	other := d.durable("other", "alice@a", "hot")
	d.leaves(d.durable("one", "alice@a", "hot", "cold", "$share/g/jobs/#"))
	d.leaves(other)
	for _, topic := range []string{"hot", "cold", "cold", "cold", "hot", "hot", "hot", "hot", "hot", "hot"} {
		d.entry(publishing(topic, "x", 1))
	}
	u.streams.ahead, u.streams.piece = 20, 1 // as if many others were being paid
	o := d.durable("one", "alice@a")
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
