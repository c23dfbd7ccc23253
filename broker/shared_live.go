package broker

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// Shared subscriptions on one node: who of a group is connected here, and who gets
// what does not go through the log.
//
// Such an event the node of its publisher gives to one member in the cluster. Its own
// it knows; of the others it knows how many members each node has said it holds (see
// interest). It goes round all of them by turns of its own, passes over whoever may
// not have it now or takes nothing for now, and hands the event to that member's node,
// which gives it to one of its own by the same rule, or to nobody: nothing is sent on.

// A seat is where a shared subscription stands in the index of local subscriptions:
// under what its filter matches, and a key of its own, for one session may have
// several that match the same.
type seat struct {
	group uint64 // its number; 0 if it is not shared, or another node's
	rest  string // what it matches
	key   uint64
	turns *turns
	many  int // of another node: how many members it has
}

// Turns are how many events of a group were given to somebody by this node.
type turns struct {
	atomic.Uint64
	seats int // guarded by seats.mu
}

// sharedKeys are keys in the index from here on, and below peerKeys: shared
// subscriptions'.
const sharedKeys = 1 << 62

func (l *localSub) isShared() bool { return l.sharing.key != 0 }

// place returns the filter and the key of l in the index.
func (l *localSub) place() (filter string, key uint64) {
	if l.isShared() {
		return l.sharing.rest, l.sharing.key
	}
	return l.sub.Filter, l.s.number
}

// seat returns what stands in the index for a filter that a peer wants; before is what
// does, nil for nothing.
func (p *peer) seat(filter string, many int, before *localSub) *localSub {
	rest, shared := sharedRest(filter)
	if !shared {
		return p.sub
	}
	l := &localSub{peer: p, sharing: seat{rest: rest, many: many}}
	l.sub.Filter = filter
	if before != nil {
		l.sharing.key, l.sharing.turns = before.sharing.key, before.sharing.turns
	} else {
		l.sharing.key, l.sharing.turns = p.r.b.seats.next(), p.r.b.seats.turns(filter)
	}
	return l
}

// placeOf is place for what a peer wants, and l.
func (l *localSub) placeOf(p *peer, filter string) (in string, key uint64, value *localSub) {
	if l.isShared() {
		return l.sharing.rest, l.sharing.key, l
	}
	return filter, p.key, l
}

// mayShare says whether a shared subscription to what rest matches may be granted at
// all.
func (s *Session) mayShare(rest string, now int64) error {
	if profileOf(s.b.machine.profiles, rest) != nil || strings.HasPrefix(rest, "$me/") {
		return &Refusal{Cause: ErrNotShared, Reason: "what is shown there is not the same for everybody: subscribe without $share"}
	}
	if !s.b.SharedAvailable() {
		return &Refusal{Cause: ErrNotShared, Reason: "not until all nodes of the cluster know them"}
	}
	return s.maySubscribe(rest, now)
}

// SharedAvailable says whether shared subscriptions are to be had.
func (b *Broker) SharedAvailable() bool { return b.Level() >= LevelShared }

// sharedAmong tells shared subscriptions from others.
func sharedAmong(subs []event.Subscription) (shared, others []event.Subscription) {
	for _, sub := range subs {
		if _, is := sharedRest(sub.Filter); is {
			shared = append(shared, sub)
		} else {
			others = append(others, sub)
		}
	}
	return shared, others
}

// attachShared is attach for a shared subscription. No state is shown to it, and it
// does not end with its window: others get what it may not. In the delivery loop.
func (s *Session) attachShared(sub event.Subscription, since, group uint64) *localSub {
	l := &localSub{s: s, sub: sub, since: since}
	if old := s.subs[sub.Filter]; old != nil {
		l.sharing = old.sharing
	} else {
		l.sharing.rest, _ = sharedRest(sub.Filter)
		l.sharing.key = s.b.seats.next()
		l.sharing.turns = s.b.seats.turns(sub.Filter)
	}
	l.sharing.group = group
	s.subs[sub.Filter] = l
	s.b.subscribe(l)
	s.out.share(s.b.limits.shareWindow(uint16(min(s.out.recvMax, 65535))))
	return l
}

// A gathering is a group as one node sees it: an audience has one for each.
type gathering struct {
	filter  string
	turns   *turns
	members []hearer // connected here, by their sessions' numbers
	groups  []uint64 // of each, the group's number
	away    []away
	all     int // how many members there are, everywhere
}

// An away is another node with members of a group.
type away struct {
	p    *peer
	many int
}

// gather makes gatherings of the shared subscriptions that match a topic.
func (b *Broker) gather(topicName string, matches []topic.Entry[uint64, *localSub]) (gs []*gathering) {
	if len(matches) == 0 || profileFor(b.machine.profiles, topicName) != nil {
		return nil
	}
	slices.SortFunc(matches, func(x, y topic.Entry[uint64, *localSub]) int {
		return cmp.Or(cmp.Compare(x.Value.sub.Filter, y.Value.sub.Filter), cmp.Compare(x.Value.numberOf(), y.Value.numberOf()))
	})
	for i := 0; i < len(matches); {
		first := i
		g := &gathering{filter: matches[i].Value.sub.Filter, turns: matches[i].Value.sharing.turns}
		here := 0
		for ; i < len(matches) && matches[i].Value.sub.Filter == g.filter; i++ {
			if matches[i].Value.peer == nil {
				here++
			}
		}
		g.members = make([]hearer, here) // not appended to: a hearer must not be copied
		here = 0
		for _, m := range matches[first:i] {
			l := m.Value
			if l.peer != nil {
				g.away = append(g.away, away{l.peer, l.sharing.many})
				g.all += l.sharing.many
				continue
			}
			h := &g.members[here]
			here++
			h.s, h.since = l.s, l.since
			h.add(&l.sub)
			g.groups = append(g.groups, l.sharing.group)
			g.all++
		}
		gs = append(gs, g)
	}
	return gs
}

// numberOf orders subscriptions: by session, other nodes' after them.
func (l *localSub) numberOf() uint64 {
	if l.peer != nil {
		return l.peer.key
	}
	return l.s.number
}

// member returns what is known of a session as one of a group, nil if it is none of
// those who are connected here.
func (a *audience) member(group, number uint64) *hearer {
	for _, g := range a.groups {
		if i := placeAmong(g.members, number); i >= 0 && g.groups[i] == group {
			return &g.members[i]
		}
	}
	return nil
}

// pick gives an event that is not ordered to one member, wherever that is.
func (g *gathering) pick(b *Broker, e *event.Event, now int64, w *Wave) {
	if e.Expired(now) {
		b.stats.Expired.Add(1)
		return
	}
	first := int(g.turns.Add(1) % uint64(g.all))
	for i := range g.all {
		at := (first + i) % g.all
		if at < len(g.members) {
			if g.members[at].take(b, e, now, w) {
				return
			}
			continue
		}
		at -= len(g.members)
		for k := range g.away {
			if at < g.away[k].many {
				if g.away[k].p.up.Load() {
					w.relayShared(g.away[k].p, g.filter, e)
					return
				}
				break
			}
			at -= g.away[k].many
		}
	}
	b.stats.SharedLost.Add(1)
}

// pickHere gives an event that another node relayed for a group to one member here.
func (a *audience) pickHere(b *Broker, filter string, e *event.Event, now int64, w *Wave) {
	i := slices.IndexFunc(a.groups, func(g *gathering) bool { return g.filter == filter && len(g.members) > 0 })
	if i < 0 {
		b.stats.RelayUnwanted.Add(1)
		return
	}
	if e.Expired(now) {
		b.stats.Expired.Add(1)
		return
	}
	g := a.groups[i]
	first := int(g.turns.Add(1) % uint64(len(g.members)))
	for k := range g.members {
		if g.members[(first+k)%len(g.members)].take(b, e, now, w) {
			return
		}
	}
	b.stats.SharedLost.Add(1)
}

// take hands an event to a member at QoS 0, unless it may not have it now, or there
// is no room for it.
func (h *hearer) take(b *Broker, e *event.Event, now int64, w *Wave) bool {
	if h.s.closed.Load() || !h.s.begun.Load() || b.holds(e.Topic) {
		return false
	}
	ok, until := h.permitted(b, e.Topic, now)
	if !ok {
		return false
	}
	d := &w.delivery
	*d = Delivery{Event: e, Retain: h.retain && e.Retain, IDs: h.ids, Wanted: true}
	d.limitTo(e, until, now)
	return h.s.hear(d, until, w)
}

// hand hands an event that was ordered to the members at QoS 0 that it was assigned
// to. In the delivery loop.
func (l *loop) hand(a *audience, handed []handed, e *event.Event, now int64) {
	for i := range handed {
		h := &handed[i]
		s := l.live[h.session]
		if s == nil {
			continue
		}
		one := a.member(h.group, h.session)
		switch {
		case one == nil: // it has unsubscribed
		case e.Expired(now):
			l.b.stats.Expired.Add(1)
		case !one.take(l.b, e, now, &l.wave):
			l.b.stats.SharedLost.Add(1)
		}
	}
}

// fitShared asks, as the last thing before sending, whether a member may still be
// sent what it was given, and until when.
func (s *Session) fitShared(e *event.Event, group uint64, now int64) (why fitness, until int64) {
	h := s.b.local.LookupString(e.Topic).member(group, s.number)
	if h == nil {
		return unsubscribed, 0
	}
	if why = s.unfit(e, 0, h, now); why == fit {
		_, until = h.permitted(s.b, e.Topic, now)
	}
	return why, until
}
