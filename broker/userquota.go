package broker

import (
	"fmt"

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
	}
}

// countsSubs says whether r's subscriptions are held to a bound of more than its session.
func (m *Machine) countsSubs(r *record) bool {
	return r.use != nil && r.use.quota[useSubscriptions] > 0 ||
		r.user != nil && (m.limits.SubscriptionsPerPrincipal > 0 || m.limits.WildcardsPerPrincipal > 0)
}

// roomForUser says whether r's principal may have those filters, too.
func (m *Machine) roomForUser(r *record, fresh map[string]struct{}) error {
	if r.user == nil {
		return nil
	}
	if most := m.limits.SubscriptionsPerPrincipal; most > 0 && r.user.subs+len(fresh) > most {
		m.overs.add("subs.perPrincipal")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: one user has at most %d subscriptions in all sessions", most)}
	}
	wild := 0
	for filter := range fresh { // in any order: they are counted
		if topic.HasWildcard(filter) {
			wild++
		}
	}
	if most := m.limits.WildcardsPerPrincipal; most > 0 && wild > 0 && r.user.wildcards+wild > most {
		m.overs.add("subs.wildcardsPerPrincipal")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: one user has at most %d subscriptions with wildcards in all sessions", most)}
	}
	return nil
}
