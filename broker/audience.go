package broker

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// A localSub is one subscription of a session that is connected here. It does
// not change; a new one takes its place.
type localSub struct {
	s   *Session
	sub event.Subscription

	// since is the place in the log at which the subscription began: what was
	// ordered up to there is for its scan of retained events.
	since    uint64
	windowed bool // time has a part in whether it may receive
	outside  Outside
	asked    bool // the log has it as a request
	counted  bool // the log only counts it

	judged uint64 // version of the policy by which it is known what to show it; the delivery loop's: it changes (see review)

	peer *peer // not nil: it is another node's interest, and nothing else is set but what of sub and sharing is needed

	sharing seat // of a shared subscription; the zero seat of others
}

// An audience is everybody connected here who subscribes to one topic, in the
// order of the sessions' numbers. The index builds it once per topic and drops
// it when a subscription to the topic or the policy changes. It is shared;
// only the verdicts in it change.
type audience struct {
	hearers []hearer
	peers   []*peer // nodes that hold others
	groups  []*gathering
}

// A hearer is one session with all its subscriptions that match, merged: one
// copy with the highest QoS and all identifiers (5.0 3.3.4).
type hearer struct {
	s *Session
	merged
	own   *merged // for the session's own events, if a subscription says No Local
	since uint64

	// verdict caches what the policy says about this session and topic: t > 0
	// permits before t, t < 0 refuses before -t, 0 is not known.
	verdict atomic.Int64
}

func (b *Broker) audienceOf(topicName string, matches []topic.Entry[uint64, *localSub]) *audience {
	sortEntries(matches)
	from := func(key uint64) int {
		i, _ := slices.BinarySearchFunc(matches, key, func(e topic.Entry[uint64, *localSub], key uint64) int { return cmp.Compare(e.Key, key) })
		return i
	}
	peers := b.relays.interested(matches[from(peerKeys):])
	groups := b.gather(topicName, matches[from(sharedKeys):from(peerKeys)])
	matches = matches[:from(sharedKeys)]
	n := 0
	for i := range matches {
		if i == 0 || matches[i].Key != matches[i-1].Key {
			n++
		}
	}
	a := &audience{hearers: make([]hearer, n), peers: peers, groups: groups}
	for i, n := 0, 0; i < len(matches); n++ {
		h := &a.hearers[n]
		h.s, h.since = matches[i].Value.s, math.MaxUint64
		first := i
		i = mergeMatches(matches, i, &h.merged, &h.own, func(l *localSub) *event.Subscription { return &l.sub })
		for _, m := range matches[first:i] {
			h.since = min(h.since, m.Value.since)
		}
	}
	return a
}

// find returns what the audience knows of a session, or nil.
func (a *audience) find(number uint64) *hearer {
	if i := placeAmong(a.hearers, number); i >= 0 {
		return &a.hearers[i]
	}
	return nil
}

// placeAmong returns the place of a session, -1 if it is not there.
func placeAmong(hearers []hearer, number uint64) int {
	i := sort.Search(len(hearers), func(i int) bool { return hearers[i].s.number >= number })
	if i == len(hearers) || hearers[i].s.number != number {
		return -1
	}
	return i
}

// permitted says whether the hearer may be sent an event of topicName now, and
// until when (0: for good).
func (h *hearer) permitted(b *Broker, topicName string, now int64) (ok bool, until int64) {
	v := h.verdict.Load()
	if v > now {
		return true, untilOf(v)
	}
	if v < 0 && -v > now {
		return false, untilOf(-v)
	}
	d := b.decide(h.s.who, ActSubscribe, topicName, now)
	v = d.Until
	if v == 0 {
		v = math.MaxInt64
	}
	if !d.Allow {
		v = -v
	}
	h.verdict.Store(v)
	return d.Allow, d.Until
}

func untilOf(v int64) int64 {
	if v == math.MaxInt64 {
		return 0
	}
	return v
}

// deliver hands e to everybody who gets it at once: all but durable sessions
// that get it through their queue.
func (a *audience) deliver(b *Broker, e *event.Event, now int64, w *Wave) {
	if e.Expired(now) {
		b.stats.Expired.Add(uint64(len(a.hearers)))
		return
	}
	held := b.silence.held.Load() && b.holds(e.Topic)
	for i := range a.hearers {
		h := &a.hearers[i]
		if e.Position != 0 && e.Position <= h.since || h.s.closed.Load() {
			continue
		}
		g := &h.merged
		if h.own != nil && e.Origin == h.s.number {
			if g = h.own; !g.any {
				continue
			}
		}
		qos := min(g.qos, e.QoS)
		if qos > 0 && h.s.durable {
			if e.Position != 0 {
				// It comes from the queue, and may come before what a scan has read.
				h.s.scanning.touch(e)
				continue
			}
			// Of what is kept in memory only nothing is queued: it has subscribed while
			// the event was under way. It is better off with it than without.
			qos = 0
		}
		ok, until := h.permitted(b, e.Topic, now)
		if ok && qos == 0 && held {
			ok, until = false, 0
		}
		if !ok {
			h.s.withheld(e, until != 0, now)
			continue
		}
		h.s.scanning.touch(e)
		d := &w.delivery
		*d = Delivery{Event: e, QoS: qos, Retain: g.retain && e.Retain, IDs: g.ids}
		d.limitTo(e, until, now)
		d.Wanted = qos == 0 && h.s.scanning.mayOwe(e)
		if !h.s.hear(d, until, w) {
			h.s.scanning.owe(e.Topic, len(e.Payload) == 0)
		}
	}
	if b.config.Tap != nil {
		a.routed(b, e, now)
	}
}

// limitTo sets the Message Expiry Interval to send: what is left of the
// publisher's, and no more than until the subscriber's window closes. An event
// that has none gets none, unless the window is about to close.
func (d *Delivery) limitTo(e *event.Event, until, now int64) {
	if until == 0 || e.Expires != 0 && e.Expires <= until {
		d.Expiry, d.Expires = e.Remaining(now)
		return
	}
	if d.Expires = true; now < until {
		d.Expiry = event.SecondsUntil(until, now)
	}
}
