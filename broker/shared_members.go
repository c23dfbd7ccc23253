package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
)

// How sessions join groups, are members, and leave: see shared.go for what groups are.

// newShared counts the shared subscriptions among subs that r does not have.
func (m *Machine) newShared(r *record, subs []event.Subscription) (n int) {
	for i := range subs {
		if _, shared := sharedRest(subs[i].Filter); shared {
			if _, had := m.subOf(subs[i].Filter, r.session); !had {
				n++
			}
		}
	}
	return n
}

// tooManyShared refuses so many fresh shared subscriptions more of r's, which are among subs.
// Clients without a principal are nobody together: one of them would take from all others
// what they may found.
func (m *Machine) tooManyShared(r *record, subs []event.Subscription, fresh int) error {
	if fresh == 0 {
		return nil
	}
	if len(r.groups)+fresh > m.limits.GroupsPerSession {
		m.overs.add("share.perSession")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: a session has at most %d shared subscriptions", m.limits.GroupsPerSession)}
	}
	for i := range subs {
		g := m.byFilter[subs[i].Filter]
		if g == nil || len(g.members) < m.limits.GroupMembers {
			continue
		}
		if _, is := g.find(r.session); !is {
			m.overs.add("share.members")
			return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: a shared subscription has at most %d members", m.limits.GroupMembers)}
		}
	}
	if r.principal == "" {
		return nil
	}
	founds := 0
	for i := range subs {
		if _, shared := sharedRest(subs[i].Filter); shared && m.byFilter[subs[i].Filter] == nil {
			founds++
		}
	}
	if founds > 0 && m.founded[r.principal]+founds > m.limits.GroupsPerPrincipal {
		m.overs.add("share.groupsPerPrincipal")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: the sessions of a user found at most %d groups of shared subscriptions; others may be joined", m.limits.GroupsPerPrincipal)}
	}
	return nil
}

// joinGroup makes r a member of the group of a shared subscription.
func (m *Machine) joinGroup(r *record, sub event.Subscription, here uint64) (group uint64) {
	rest, _ := sharedRest(sub.Filter)
	g := m.byFilter[sub.Filter]
	if g == nil {
		g = m.newGroup(strings.Clone(sub.Filter), rest, r.principal)
	}
	s := storedSub{Subscription: sub, since: here, first: r.queue.next, group: g.session}
	s.Filter, s.Named, s.RetainHandling = g.filter, strings.Clone(s.Named), 0
	at, had := g.find(r.session)
	if had {
		s.first = g.members[at].sub.first
	} else {
		m.addSub(r, g.filter, 1)
		r.groups = append(r.groups, g)
		m.subbed = append(m.subbed, sessionFilter{r.session, g.filter})
	}
	g.setMember(at, had, r, s)
	m.writeSub(r, &s)
	m.present(r)
	return g.session
}

// setMember makes r, whose place is at, a member.
func (g *group) setMember(at int, had bool, r *record, s storedSub) {
	one := &groupMember{r: r, sub: s}
	one.add(&one.sub.Subscription)
	if had {
		g.members[at] = one
	} else {
		g.members = slices.Insert(g.members, at, one)
	}
	g.come(r)
}

// come makes r, a member, one of those who are there, if it is connected.
func (g *group) come(r *record) {
	if at, is := g.find(r.session); is && r.connected() {
		one := g.members[at]
		if at, is = placeOf(g.present, r.session); is {
			g.present[at] = one
		} else {
			g.present = slices.Insert(g.present, at, one)
		}
	}
}

// part undoes come.
func (g *group) part(r *record) {
	if at, is := placeOf(g.present, r.session); is {
		g.present = slices.Delete(g.present, at, at+1)
	}
}

// find returns the place of a session among the members.
func (g *group) find(session uint64) (at int, is bool) { return placeOf(g.members, session) }

func placeOf(members []*groupMember, session uint64) (at int, is bool) {
	return slices.BinarySearchFunc(members, session, func(one *groupMember, number uint64) int { return cmp.Compare(one.r.session, number) })
}

func (m *Machine) newGroup(filter, rest, founder string) *group {
	m.counters.session++
	g := &group{filter: filter, rest: rest, founder: founder}
	g.session = m.counters.session
	m.addGroup(g)
	m.touchGroup(g)
	return g
}

func (m *Machine) addGroup(g *group) {
	m.byFilter[g.filter], m.groups[g.session], m.numbers[g.session] = g, g, &g.record
	m.founded[g.founder]++
	if g.use = m.domains.of(g.founder); g.use != nil {
		g.use.groups++
	}
	m.shared.Set(g.rest, g.session, g)
}

// leave ends r's shared subscription to filter, and says whether there was one.
func (m *Machine) leave(r *record, filter string) bool {
	g := m.byFilter[filter]
	if g == nil {
		return false
	}
	at, is := g.find(r.session)
	if !is {
		return false
	}
	g.members = slices.Delete(g.members, at, at+1)
	g.part(r)
	r.groups = slices.DeleteFunc(r.groups, func(one *group) bool { return one == g })
	m.addSub(r, filter, -1)
	m.tx.Delete(subKey(m.key, r.session, filter))
	if len(g.members) > 0 {
		m.feedNow(g)
	} else {
		m.endGroup(g)
	}
	return true
}

// endGroup removes a group that has no member any more, and what it keeps.
func (m *Machine) endGroup(g *group) {
	m.out.queueDropped += g.queue.count
	m.sharedWaiting.Add(-int64(g.counted))
	m.clearEdge(g)
	if m.founded[g.founder]--; m.founded[g.founder] == 0 {
		delete(m.founded, g.founder)
	}
	m.charge(&g.record, -int64(g.queue.count), -g.queue.bytes)
	if g.use != nil {
		g.use.groups--
		m.domains.prune(g.use)
	}
	delete(m.byFilter, g.filter)
	delete(m.groups, g.session)
	delete(m.numbers, g.session)
	m.shared.Delete(g.rest, g.session)
	m.tx.Delete(groupKey(m.key, g.filter))
	m.tx.Delete(cursorKey(m.key, g.session))
	if g.queue.next > 0 {
		m.setChore(wakePurge, g.session, 0)
	}
	g.queueDirty, g.dirty = true, true // neither is written again
}

// subOf returns a session's subscription to filter, shared or not.
func (m *Machine) subOf(filter string, session uint64) (storedSub, bool) {
	if _, shared := sharedRest(filter); !shared {
		return m.durable.Value(filter, session)
	}
	if g := m.byFilter[filter]; g != nil {
		if at, is := g.find(session); is {
			return g.members[at].sub, true
		}
	}
	return storedSub{}, false
}
