package broker

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
)

// Subscriptions that clients are given by the policy when their sessions begin, as EMQX's
// auto-subscription has it: to plain topics, without a SUBSCRIBE, and so without a SUBACK.
//
// They begin with the session, in the log, by the policy in force there: a session that a
// returning client finds is given nothing anew, for it has what it was given, but for what
// its client has unsubscribed from since; a clean start begins one. Afterwards they are
// subscriptions like any: they count, windows close them, a SUBSCRIBE to the same filter takes
// their place. One that the rules do not grant, or for which there is no room, is passed over,
// counted, and told to the operator once for each entry.

// A Giver is an Authorizer under which clients are given subscriptions. It must be
// deterministic. The filters are of plain topics, valid, each once, and not shared.
type Giver interface {
	// Given returns those of a client that comes from address, host:port, empty if it is not
	// known.
	Given(who Who, address string) []Given
}

// A Given is a subscription that a client is given.
type Given struct {
	Entry string // what gives it, by its name in the policy
	event.Subscription
}

// giveAll has a session that begins subscribe to what its client is given. Those of a session
// that ends with its connection are returned: they are its node's affair.
func (m *Machine) giveAll(r *record, origin *event.Origin, here uint64) (loose []storedSub) {
	g, ok := m.policy.(Giver)
	if !ok || m.level < LevelClients {
		return nil
	}
	address := ""
	if origin != nil {
		address = origin.Address
	}
	who := Who{Principal: r.principal, Client: r.client}
	for _, one := range g.Given(who, address) {
		m.spend(1)
		if why := m.mayGive(r, who, &one, len(loose)); why != "" {
			m.passOver(r, &one, why)
			continue
		}
		if r.durable() {
			m.subscribe(r, one.Subscription, here)
			continue
		}
		if m.countsSubs(r) {
			m.setAsked(r, one.Filter, true) // it is counted
		}
		replay := one.RetainHandling < 2 && m.mayHaveRetained(one.Filter)
		loose = append(loose, storedSub{Subscription: one.Subscription, since: here, replaying: replay})
	}
	return loose
}

// mayGive says why a session is not given a subscription; empty if it is. It has so many that
// the Machine does not know.
func (m *Machine) mayGive(r *record, who Who, one *Given, loose int) (why string) {
	if !m.policy.Grant(who, one.Filter, m.now).Allow {
		return "no rule permits it"
	}
	if loose >= int(m.boundsOf(r.principal).SubscriptionsPerSession) || m.checkSubscribe(r, []event.Subscription{one.Subscription}) != nil {
		return "there are as many subscriptions as may be"
	}
	return ""
}

// passedMost bounds what a node remembers to have told of under one policy.
const passedMost = 1_000

// passOver counts that a client is not given a subscription, and tells the operator of the
// first of an entry under a policy, on the node of the client.
func (m *Machine) passOver(r *record, one *Given, why string) {
	if r.node != m.node || r.life != m.life {
		return
	}
	m.out.givenRefused++
	if _, told := m.notGiven[one.Entry]; told || len(m.notGiven) >= passedMost {
		return
	}
	if m.notGiven == nil {
		m.notGiven = map[string]struct{}{}
	}
	m.notGiven[strings.Clone(one.Entry)] = struct{}{}
	m.logger.Warn("clients are not given a subscription of the policy's", "entry", one.Entry, "client", r.client, "filter", one.Filter, "why", why)
}

// takeGiven begins what a session that ends with its connection was given. In the delivery
// loop, before anybody else has the session.
func (s *Session) takeGiven(o *opened, now int64) {
	for i := range o.given {
		one := &o.given[i]
		_, counted := slices.BinarySearch(o.asked, one.Filter)
		if counted { // by the log, until it hears that it ends: also if there is no room here
			if s.told == nil {
				s.told = map[string]struct{}{}
			}
			s.told[one.Filter] = struct{}{}
		}
		if !s.hasRoomForGiven(one.Filter) {
			continue
		}
		sub := s.attach(one.Subscription, one.since, 0, now)
		sub.counted = counted
		if one.replaying {
			s.scanning.add(scan{sub: sub, since: one.since, initial: true})
		}
	}
}

// hasRoomForGiven says whether what bounds all filters of a node has room for one that a
// session is given which ends with its connection. If not, that is counted, and told once.
//
// A session that outlasts its connection has it all the same: what it subscribes to is state,
// alike on all nodes, and these bounds are a node's own. There may be as many of those as
// sessions, each with as many as one client is given.
func (s *Session) hasRoomForGiven(filter string) bool {
	var more filterNeed
	more.add(filter, 1)
	bound, err := s.mayTake(&more)
	if err == nil {
		return true
	}
	s.b.machine.overs.add(bound)
	s.b.stats.GivenRefused.Add(1)
	if l := &s.b.loop; !l.givenTold {
		l.givenTold = true
		s.b.logger.Warn("clients are not given a subscription of the policy's, for there is no room on this node", "client", s.who.Client, "filter", filter, "why", err)
	}
	return false
}

// isGiven says whether filter is one of those.
func (o *opened) isGiven(filter string) bool {
	return slices.ContainsFunc(o.given, func(s storedSub) bool { return s.Filter == filter })
}
