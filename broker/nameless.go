package broker

import (
	"fmt"

	"github.com/bellwire/bellwire/broker/topic"
)

// What clients without a principal watch.
//
// Owners cannot keep out somebody in particular of whom nobody knows who it is, and what one
// of them is refused another asks for. So each watches one resource of a Notifier at a time,
// by its name, whichever profile's it is: nobody learns of a domain, or of two people
// together, without saying who they are. Plain topics are not concerned: a filter such as #
// is granted as the policy has it, shows no resource, and is on no owner's list.
//
// What shows is decided where it is shown (Session.judge), so that it holds for subscriptions
// of any age; how many there are in the log, which knows those of a session that is back.

// mostNameless is how many resources a session without a principal subscribes to at once.
const mostNameless = 1

// Errors of nameless sessions.
var (
	errNamelessWide = &Refusal{Reason: "identity-required: without a user name one address is watched, and by its name: connect with a user name to watch by wildcards"}
	errNamelessMore = &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: without a user name %d address is watched at a time: end that subscription, or connect with a user name", mostNameless)}
)

// nameless says whether nobody knows who it is.
func (w *Who) nameless() bool { return w.Principal == "" }

// mayWatchBy says whether they see resources by a filter.
func (w *Who) mayWatchBy(filter string) bool { return !w.nameless() || !topic.HasWildcard(filter) }

// namelessMore refuses a nameless session one resource more than it may subscribe to. What it
// has by an older node's leave it keeps. Requires Machine's lock, as all of Apply.
func (m *Machine) namelessMore(r *record, q *Request) error {
	if !q.nameless() || q.Known {
		return nil
	}
	has := 0
	for _, name := range m.askedBy(r.session) {
		if notifierOf(m.profiles, name) != nil {
			has++
		}
	}
	if has < mostNameless {
		return nil
	}
	m.overs.add("watch")
	return errNamelessMore
}

// wideFor is wideOf for who subscribes: nobody takes note of who sees nothing.
func (m *Machine) wideFor(principal, filter string) []WideNotifier {
	if principal == "" {
		return nil
	}
	return wideOf(m.profiles, m.prefixes, filter)
}

// sees says whether s is shown a resource at all. Requires shownMu.
func (s *Session) sees(topicName string) bool {
	if !s.who.nameless() {
		return true
	}
	_, exactly := s.named[topicName]
	return exactly || notifierOf(s.b.machine.profiles, topicName) == nil
}

// scans says whether there is anything of a profile's for s to see by a filter.
func (s *Session) scans(v Viewer, filter string) bool {
	_, asks := v.(Notifier)
	return !asks || s.who.mayWatchBy(filter)
}
