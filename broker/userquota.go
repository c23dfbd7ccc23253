package broker

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// What one principal subscribes to in all of its sessions together.
//
// It is counted as what domains use is (see quota.go), by the same calls: from the state, as
// the Machine applies, so that it is exact through takeovers, expiries, restarts and copies of
// the state, and refuses alike on all nodes. Subscriptions of sessions that end with their
// connections are ordered, too, while there is such a bound; those from before it are counted
// when they are made again. Requests and shared subscriptions count like others: a principal
// has one sum. Clients without a principal are not held to it.

// A userCount is what one principal subscribes to. The Machine alone has it.
type userCount struct{ subs, wildcards int }

// userOf returns the count of a principal, nil for none.
func (m *Machine) userOf(principal string) *userCount {
	if principal == "" {
		return nil
	}
	c := m.users[principal]
	if c == nil {
		c = new(userCount)
		m.users[principal] = c // of a session's own copy of the name
	}
	return c
}

// countSub counts one subscription more, or one less if n is -1, of whose r is.
func (r *record) countSub(filter string, n int) {
	r.use.add(useSubscriptions, n)
	if r.user == nil {
		return
	}
	r.user.subs += n
	if topic.HasWildcard(filter) {
		r.user.wildcards += n
		r.wildcards += n
	}
}

// uncount counts none of r's subscriptions any more, of which none is counted but those
// that the store has.
func (r *record) uncount() {
	n := int(r.subs)
	r.use.add(useSubscriptions, -n)
	if r.user != nil {
		r.user.subs -= n
		r.user.wildcards -= r.wildcards
	}
	r.subs, r.wildcards = 0, 0
}

// countsSubs says whether r's subscriptions are held to a bound of more than its session.
func (m *Machine) countsSubs(r *record) bool {
	if r.use != nil && r.use.quota[useSubscriptions] > 0 {
		return true
	}
	most := m.boundsOf(r.principal)
	return r.user != nil && most.Subscriptions+most.Wildcards > 0
}

// A single has the bounds of principals that have bounds of their own, by their names.
type single map[string]event.PrincipalBounds

// singleOf reads those of limits.
func singleOf(form string) single {
	of, err := event.ReadPrincipals(form)
	if err != nil {
		panic(fmt.Sprintf("settings in force: %v", err)) // they were checked
	}
	return of
}

// bounds are those of a principal under limits: its own, and where it has none everybody's. 0
// bounds nothing.
func (s single) bounds(l *Limits, principal string) event.PrincipalBounds {
	b := s[principal]
	def(&b.Sessions, uint64(l.SessionsPerPrincipal))
	def(&b.Subscriptions, uint64(l.SubscriptionsPerPrincipal))
	def(&b.Wildcards, uint64(l.WildcardsPerPrincipal))
	def(&b.SubscriptionsPerSession, uint64(l.SubscriptionsPerSession))
	return b
}

// boundsOf are the bounds in force of a principal, as of the command under way.
func (m *Machine) boundsOf(principal string) event.PrincipalBounds {
	return m.single.bounds(&m.limits, principal)
}

// boundsOf are the bounds in force of a principal on this node. For any goroutine.
func (b *Broker) boundsOf(principal string) event.PrincipalBounds {
	if in := b.settings.Load(); in != nil {
		l := b.limits.Agreed(in)
		return (*b.single.Load()).bounds(&l, principal)
	}
	return singleOf(b.limits.Principals).bounds(&b.limits, principal)
}

// adoptSettings puts settings in force on this node, nil for those that are configured.
func (b *Broker) adoptSettings(in *event.Settings) {
	if in != nil {
		of := singleOf(in.Principals)
		b.single.Store(&of) // before: who sees the settings sees these
	}
	b.settings.Store(in)
}

// roomForUser says whether r's principal may have those filters, too.
func (m *Machine) roomForUser(r *record, fresh map[string]struct{}) error {
	if r.user == nil {
		return nil
	}
	bounds := m.boundsOf(r.principal)
	if most := int(bounds.Subscriptions); most > 0 && r.user.subs+len(fresh) > most {
		m.overs.add("subs.perPrincipal")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: one user has at most %d subscriptions in all sessions", most)}
	}
	wild := 0
	for filter := range fresh { // in any order: they are counted
		if topic.HasWildcard(filter) {
			wild++
		}
	}
	if most := int(bounds.Wildcards); most > 0 && wild > 0 && r.user.wildcards+wild > most {
		m.overs.add("subs.wildcardsPerPrincipal")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: one user has at most %d subscriptions with wildcards in all sessions", most)}
	}
	return nil
}
