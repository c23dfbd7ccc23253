package broker

import (
	"slices"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
)

// What an outbox does with copies that its session was given as a member of a group.
//
// A durable session has them in its queue as it has others. What it cannot be sent is
// not passed over but returned, for another of the group.
//
// Of a session that ends with its connection the queue in the log has these copies
// and nothing else. Its deliveries are numbered as they come, so there is a note of
// which entry each of them is: it is lent. The log is told of those that are over, as
// it is for others; when the connection ends it takes back the rest.
type lending struct {
	atOnce   uint64            // how many entries the log gives at once; 0 if the session shares nothing
	returned []uint64          // entries that go to another, of which the log has not been told; ascending
	lent     map[uint64]uint64 // entries by the numbers of their deliveries
	over     []uint64          // entries that are over, of which the log has not been told
	sent     uint64            // those before were sent
	owes     atomic.Bool       // there is one in returned or over; read without the outbox's mu
}

// fitEntry asks it for an entry of the queue, and says until when the event may be
// sent.
func (s *Session) fitEntry(e *event.Event, group uint64, deadline int64, h *hearer, now int64) (fitness, int64) {
	if group != 0 {
		return s.fitShared(e, group, now)
	}
	return s.unfit(e, deadline, h, now), deadline
}

// share notes that the session has a shared subscription, and how many entries the
// log gives it at once.
func (o *outbox) share(atOnce uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lending.atOnce = atOnce
}

// hungry says that the log should be told at once what is over, for it gives no more
// before.
func (o *outbox) hungry() bool {
	n := uint64(len(o.lending.over))
	if o.s.durable {
		n = o.untold
	}
	return o.lending.atOnce != 0 && 2*n >= o.lending.atOnce
}

// offerLent tells the outbox of a session that ends with its connection that it was
// given e. In the delivery loop.
func (s *Session) offerLent(q *queued, e *event.Event, now int64, w *Wave) {
	o := &s.out
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		return // the log takes it back
	}
	why, until := s.fitShared(e, q.group, now)
	if why != fit {
		o.unlend(why, q.seq)
		o.mu.Unlock()
		return
	}
	o.next++
	d := &w.delivery
	*d = Delivery{Event: e, QoS: q.qos, Retain: q.retain, IDs: q.ids}
	d.limitTo(e, until, now)
	if o.sent == o.next-1 && o.room() && !s.b.holds(e.Topic) && o.sendLent(d, q.seq, w) {
		o.mu.Unlock()
		return
	}
	slow := o.hold(held{event: w.keep(e), qos: q.qos, retain: q.retain, ids: q.ids, entry: q.seq, group: q.group})
	o.mu.Unlock()
	if slow {
		o.endSlow()
	}
}

// sendLent sends number o.sent, which is an entry, as d, unless the sink is full. mu
// is held.
func (o *outbox) sendLent(d *Delivery, entry uint64, w *Wave) bool {
	number := o.sent
	if o.lending.lent == nil {
		o.lending.lent = map[uint64]uint64{}
	}
	o.lending.lent[number] = entry
	if !o.send(d, w) {
		delete(o.lending.lent, number)
		return false
	}
	o.lending.sent = entry + 1
	return true
}

// sendHeldLent is sendHeld for an entry. mu is held.
func (o *outbox) sendHeldLent(h *held, now int64, w *Wave) bool {
	why, until := o.s.fitShared(h.event, h.group, now)
	if why != fit {
		o.unlend(why, h.entry)
		o.s.skip(fit, o.sent, nil, now)
		return true
	}
	d := &w.delivery
	*d = Delivery{Event: w.heldEvent(h), QoS: h.qos, Retain: h.retain, IDs: h.ids}
	defer w.heldSent()
	d.limitTo(h.event, until, now)
	return o.sendLent(d, h.entry, w)
}

// unlend ends the loan of an entry that was not sent: it is over if it has expired,
// else another is to have it. mu is held.
func (o *outbox) unlend(why fitness, entry uint64) {
	if why == expired {
		o.s.b.stats.Expired.Add(1)
		o.lending.over = append(o.lending.over, entry)
	} else {
		o.lending.returned = append(o.lending.returned, entry)
	}
	o.lending.owes.Store(true)
	o.s.settling.note(o.s, false)
}

// repaid notes that a delivery is over, if it is an entry. mu is held.
func (o *outbox) repaid(number uint64) {
	entry, is := o.lending.lent[number]
	if !is {
		return
	}
	delete(o.lending.lent, number)
	o.lending.over = append(o.lending.over, entry)
	o.lending.owes.Store(true)
}

// giveBack ends a delivery of a durable session that may not be sent: another of its
// group is to have it. mu is held.
func (o *outbox) giveBack(seq uint64) {
	o.lending.returned = append(o.lending.returned, seq)
	o.over(seq)
	o.s.settling.note(o.s, false)
}

// lentTelling gathers what the log has not been told of entries of a session that
// ends with its connection. mu is held.
func (o *outbox) lentTelling() telling {
	slices.Sort(o.lending.over)
	return telling{sent: o.lending.sent, over: slices.Clone(o.lending.over), returned: slices.Clone(o.lending.returned)}
}

// lentTold notes that the log has been told. mu is held.
func (o *outbox) lentTold(t *telling) {
	o.lending.over = o.lending.over[len(t.over):]
	o.returnedTold(t)
	o.lending.owes.Store(len(o.lending.over)+len(o.lending.returned) > 0)
}

func (o *outbox) returnedTold(t *telling) {
	if o.lending.returned = o.lending.returned[len(t.returned):]; len(o.lending.returned) == 0 {
		o.lending.returned = nil
	}
}

// tell says in c how far the session's queue in the log was sent. If an earlier
// connection was taken over here, what it had sent is known, of which the log could
// only presume the most: without this all that waited then would be marked DUP on the
// connections to come, though the first of them has sent none of it.
func (o *outbox) tell(c *event.Disconnect) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !o.s.durable:
		c.Sent = o.lending.sent
	case o.inherited && o.s.b.Level() >= LevelExact:
		c.Exact, c.Sent, c.Maybe = true, max(o.begun, o.sent), max(o.dupBelow, o.sent)
	default:
		c.Sent = o.sent
	}
}
