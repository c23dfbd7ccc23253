package broker

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/event"
)

// What clients without a principal may have of what all share and keep: sessions, and topics
// with a retained event. Who names themselves is as many as they like, so one of them could
// have all of it, for good, and who has a name would be kept out. So they have half, all
// together, where the policy has anybody sign in: where nobody does there is nobody to leave
// the other half to. (Of what waits for its time it is DelayLimits that says so, and of
// subscriptions Session.mayTake.)
//
// Both are counted from the state: a session is of nobody by its record, a retained event by
// its stored form, which says so from LevelNobody on. What is there stays, whatever the policy.

// A namer is an Authorizer under which some clients may have a name.
type namer interface {
	// SignsIn says whether anybody can sign in. It must be deterministic.
	SignsIn() bool
}

// A nobody counts what clients without a principal have. The Machine alone has it.
type nobody struct{ sessions, retained int }

// nobodysShare is what they may have of most: more than half if that is odd.
func (m *Machine) nobodysShare(most int) int {
	if n, ok := m.policy.(namer); !ok || !n.SignsIn() || m.level < LevelNobody {
		return most
	}
	return most - most/2
}

// addSession counts a session more of a principal, or one less if n is -1.
func (c *nobody) addSession(principal string, n int) {
	if principal == "" {
		c.sessions += n
	}
}

// addRetained counts a topic more that nobody has retained an event on, or one less.
func (c *nobody) addRetained(by string, n int) {
	if by == ofNobody {
		c.retained += n
	}
}

// roomForSession says whether there may be a session more of that principal.
func (m *Machine) roomForSession(principal string) error {
	most := m.limits.Sessions
	if len(m.sessions) >= most {
		m.overs.add("sessions")
		return fmt.Errorf("%w: there are at most %d sessions here", ErrQuota, most)
	}
	if share := m.nobodysShare(most); principal == "" && m.nobody.sessions >= share {
		m.overs.add("sessions")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: clients without a user name have at most %d of the %d sessions here: connect with a user name", share, most)}
	}
	return nil
}

// roomForRetained says whether by may retain an event on a topic that has old.
func (m *Machine) roomForRetained(by string, old presentValue) error {
	most := m.limits.RetainedTopics
	if !old.exists && m.retained.Load() >= int64(most) {
		m.overs.add("retained.topics")
		return fmt.Errorf("%w: at most %d topics have a retained event here", ErrQuota, most)
	}
	if share := m.nobodysShare(most); share < most && by == ofNobody && old.by != by && m.nobody.retained >= share {
		m.overs.add("retained.topics")
		return &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: clients without a user name retain events on at most %d of the %d topics here: connect with a user name", share, most)}
	}
	return nil
}

// ofNobody is in place of the domain of who retains an event without a name. No domain has
// such a name.
const ofNobody = "\x00"

// retainsAs returns by what a retained event is counted: the domain of its publisher, ofNobody,
// or nothing.
func (m *Machine) retainsAs(e *event.Event) string {
	switch {
	case m.level < LevelPolicies: // whose it is is not kept
		return ""
	case m.level >= LevelNobody && e.Principal == "" && e.Client != "":
		return ofNobody
	}
	return domainOf(e.Principal)
}
