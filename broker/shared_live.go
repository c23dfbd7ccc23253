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
// under what its filter matches, and a key of its own. There is one for all members
// here and one for each other node with members.
type seat struct {
	rest  string // what it matches; empty if it is not shared
	key   uint64
	turns *turns
	here  *muster // of members here
	many  int     // of another node: how many members it has

	// Of one member, whose own is not in the index.
	group  uint64 // its number
	merged        // what it gets, by its one subscription
}

// A muster is the members of one shared subscription that are connected here. Who
// comes or goes does so in the delivery loop, and no list of a topic is made anew for
// it; whoever has an event reads what is the list then.
type muster struct {
	filter  string
	at      *localSub                   // in the index
	members atomic.Pointer[[]*localSub] // by their sessions' numbers; never changed
}

func (u *muster) all() []*localSub {
	if u == nil {
		return nil
	}
	return *u.members.Load()
}

func placeHere(all []*localSub, number uint64) (at int, is bool) {
	return slices.BinarySearchFunc(all, number, func(l *localSub, number uint64) int { return cmp.Compare(l.s.number, number) })
}

// set adds a member, or puts it in the place of what it was before.
func (u *muster) set(l *localSub) (replaced bool) {
	all := u.all()
	at, is := placeHere(all, l.s.number)
	next := make([]*localSub, 0, len(all)+1)
	next = append(append(next, all[:at]...), l)
	if is {
		at++
	}
	next = append(next, all[at:]...)
	u.members.Store(&next)
	return is
}

// remove undoes set, and says how many are left.
func (u *muster) remove(number uint64) (had bool, left int) {
	all := u.all()
	at, is := placeHere(all, number)
	if !is {
		return false, len(all)
	}
	next := append(append(make([]*localSub, 0, len(all)-1), all[:at]...), all[at+1:]...)
	u.members.Store(&next)
	return true, len(next)
}

// Turns are how many events of a group were given to somebody by this node.
type turns struct {
	atomic.Uint64
	seats int // guarded by seats.mu
}

// sharedKeys are keys in the index from here on, and below peerKeys: shared
// subscriptions'.
const sharedKeys = 1 << 62

func (l *localSub) isShared() bool { return l.sharing.rest != "" }

// join makes l, which is shared, one of those who are here, and says whether its
// session was already. In the delivery loop, as is part.
func (b *Broker) join(l *localSub) (replaced bool) {
	u := b.seats.here[l.sub.Filter]
	if u == nil {
		u = &muster{filter: l.sub.Filter}
		u.members.Store(new([]*localSub))
		u.at = &localSub{sharing: seat{rest: l.sharing.rest, key: b.seats.next(), turns: b.seats.turns(u.filter), here: u}}
		u.at.sub.Filter = u.filter
		if b.seats.here == nil {
			b.seats.here = map[string]*muster{}
		}
		b.seats.here[u.filter] = u
		b.local.Set(u.at.sharing.rest, u.at.sharing.key, u.at)
	}
	return u.set(l)
}

// part undoes join.
func (b *Broker) part(l *localSub) (had bool) {
	u := b.seats.here[l.sub.Filter]
	if u == nil {
		return false
	}
	had, left := u.remove(l.s.number)
	if left == 0 {
		b.local.Delete(u.at.sharing.rest, u.at.sharing.key)
		delete(b.seats.here, u.filter)
		b.seats.leave(u.filter)
	}
	return had
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
	if profileOf(s.b.machine.profiles, rest) != nil || strings.HasPrefix(rest, "$me/") || strings.HasPrefix(rest, countsTree) {
		return &Refusal{Cause: ErrNotShared, Reason: "what is shown there is not the same for everybody: subscribe without $share"}
	}
	if isSystem(rest) {
		return &Refusal{Cause: ErrNotShared, Reason: "each node tells of itself: subscribe without $share"}
	}
	if !s.b.SharedAvailable() {
		return &Refusal{Cause: ErrNotShared, Reason: "not until all nodes of the cluster know them"}
	}
	return s.maySubscribe(rest, nil, now)
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
	s.renames(&sub)
	l := &localSub{s: s, sub: sub, since: since}
	l.sharing.rest, _ = sharedRest(sub.Filter)
	l.sharing.group = group
	l.sharing.add(&l.sub)
	s.shares = true
	if s.subs[sub.Filter] == nil {
		s.filters.add(sub.Filter, 1)
	}
	s.subs[sub.Filter] = l
	s.b.subscribe(l)
	s.out.share(s.b.limits.shareWindow(uint16(min(s.out.recvMax, 65535))))
	return l
}

// A gathering is a group as one node sees it, for one topic: an audience has one for
// each.
type gathering struct {
	filter string
	list   uint64 // its number among the verdicts'
	turns  *turns
	here   *muster // nil if there is nobody
	away   []away
	far    int // how many members those have
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
	var g *gathering
	for _, m := range matches {
		l := m.Value
		if g == nil || g.filter != l.sub.Filter {
			g = &gathering{filter: l.sub.Filter, list: b.seats.next(), turns: l.sharing.turns}
			gs = append(gs, g)
		}
		if l.peer == nil {
			g.here = l.sharing.here
			continue
		}
		g.away = append(g.away, away{l.peer, l.sharing.many})
		g.far += l.sharing.many
	}
	return gs
}

// numberOf orders what stands in the index for one filter: other nodes' last.
func (l *localSub) numberOf() uint64 {
	if l.peer != nil {
		return l.peer.key
	}
	return 0
}

// member returns what is known of a session as one of a group, nil if it is none of
// those who are connected here.
func (a *audience) member(group, number uint64) (*gathering, *localSub) {
	for _, g := range a.groups {
		all := g.here.all()
		if i, is := placeHere(all, number); is && all[i].sharing.group == group {
			return g, all[i]
		}
	}
	return nil, nil
}

// permitted is as of a hearer, for a member.
func (g *gathering) permitted(b *Broker, l *localSub, topicName string, now int64) (ok bool, until int64) {
	return b.verdicts.ask(g.list, l.s.number, now, func() Decision { return b.decide(l.s.who, ActSubscribe, topicName, now) })
}

// pick gives an event that is not ordered to one member, wherever that is.
func (g *gathering) pick(b *Broker, e *event.Event, now int64, w *Wave) {
	if e.Expired(now) {
		b.stats.Expired.Add(1)
		return
	}
	here := g.here.all()
	all := len(here) + g.far
	turn := g.turns.Add(1)
	for i := range uint64(all) {
		at := int((turn + i) % uint64(all))
		if at < len(here) {
			if g.take(here[at], b, e, now, w) {
				return
			}
			continue
		}
		at -= len(here)
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
	i := slices.IndexFunc(a.groups, func(g *gathering) bool { return g.filter == filter })
	var here []*localSub
	if i >= 0 {
		here = a.groups[i].here.all()
	}
	if len(here) == 0 {
		b.stats.RelayUnwanted.Add(1)
		return
	}
	if e.Expired(now) {
		b.stats.Expired.Add(1)
		return
	}
	g := a.groups[i]
	turn := g.turns.Add(1)
	for k := range uint64(len(here)) {
		if g.take(here[(turn+k)%uint64(len(here))], b, e, now, w) {
			return
		}
	}
	b.stats.SharedLost.Add(1)
}

// take hands an event to a member at QoS 0, unless it may not have it now, or there
// is no room for it.
func (g *gathering) take(l *localSub, b *Broker, e *event.Event, now int64, w *Wave) bool {
	if l.s.closed.Load() || !l.s.begun.Load() || b.holds(e.Topic) {
		return false
	}
	ok, until := g.permitted(b, l, e.Topic, now)
	if !ok {
		return false
	}
	d := &w.delivery
	*d = Delivery{Event: e, Retain: l.sharing.retain && e.Retain, IDs: l.sharing.ids, Wanted: true}
	d.limitTo(e, until, now)
	return l.s.hear(d, until, w)
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
		g, one := a.member(h.group, h.session)
		switch {
		case one == nil: // it has unsubscribed
		case e.Expired(now):
			l.b.stats.Expired.Add(1)
		case !g.take(one, l.b, e, now, &l.wave):
			l.b.stats.SharedLost.Add(1)
		}
	}
}

// fitShared asks, as the last thing before sending, whether a member may still be
// sent what it was given, and until when.
func (s *Session) fitShared(e *event.Event, group uint64, now int64) (why fitness, until int64) {
	g, l := s.b.local.LookupString(e.Topic).member(group, s.number)
	if l == nil {
		return unsubscribed, 0
	}
	ok, until := g.permitted(s.b, l, e.Topic, now)
	switch {
	case !ok && until != 0:
		return shut, until
	case !ok:
		return withheld, 0
	case e.Expired(now):
		return expired, until
	}
	return fit, until
}
