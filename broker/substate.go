package broker

import (
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// ownSub is the topic below which clients are told of their own subscriptions: for
// requests what the profile says (Notifier.SubscriptionState), which can be subscribed
// to and fetched like any resource, and is another for each principal.
const ownSub = "$me/sub/"

// notifierOfState returns the profile of which a topic is the state of a subscription.
func notifierOfState(profiles map[string]Profile, topicName string) Notifier {
	of, own := strings.CutPrefix(topicName, ownSub)
	if !own {
		return nil
	}
	n, _ := profileOf(profiles, of).(Notifier)
	return n
}

// mayBeState says whether a filter may match states of subscriptions.
func mayBeState(profiles map[string]Profile, filter string) bool {
	rest, own := strings.CutPrefix(filter, ownSub)
	if !own {
		return false
	}
	for prefix, p := range profiles {
		if _, ok := p.(Notifier); ok && watches(rest, prefix) {
			return true
		}
	}
	return false
}

// states is the Viewer of $me/sub/ and a Notifier's topics.
type states struct {
	Notifier
	b    *Broker
	name string // the resource's; empty for a filter's
}

func (states) Owner(string) string { return "" }

func (v states) Load(topicName string, _, _ []byte) Resource {
	v.name = strings.TrimPrefix(topicName, ownSub)
	return v
}

// Watch is the policy's affair.
func (states) Watch(who Who, _ string) error {
	if who.Principal == "" {
		return errNobody
	}
	return nil
}

func (states) Neutral() Shown { return Shown{Visible: true} }

func (v states) Show(who Who, at int64) Shown {
	get := func(key string) []byte { return v.b.profileValue(v.Prefix(), key) }
	return v.SubscriptionState(get, who, v.name, at)
}

// namesFor returns the states that filter matches of who's subscriptions after the one
// called after, at most so many of those looked at, and which was the last of these,
// empty if there are no more.
func (v states) namesFor(who Who, filter, after string, most int) (names []string, last string) {
	key := v.SubscriptionsKey(who)
	lower := resourceKey(nil, v.Prefix(), key)
	upper, skip := store.End(lower), len(lower)
	if after != "" {
		lower = append(resourceKey(nil, v.Prefix(), key+strings.TrimPrefix(after, ownSub)), 0)
	}
	looked := 0
	v.b.config.Store.Scan(lower, upper, func(key, _ []byte) bool {
		if looked++; looked > most {
			return false
		}
		last = ownSub + string(key[skip:])
		if topic.Match(filter, last) {
			names = append(names, last)
		}
		return true
	})
	if looked <= most {
		last = ""
	}
	return names, last
}

// showOnce shows a resource to a session that has asked for its state and for nothing
// more. In the delivery loop.
func (s *Session) showOnce(topicName string, now int64, w *Wave) {
	v := s.b.viewerOf(topicName)
	if v == nil {
		return
	}
	// What is kept may not know yet as whom this request is seen: it was answered in the
	// command that changes that.
	shown := s.b.show(s.b.watch.read(v, topicName).Resource, s.who, topicName, now)
	if shown.Absent {
		return
	}
	e := &event.Event{Topic: topicName, Payload: shown.Payload, Props: shown.Props}
	s.hear(&Delivery{Event: e, Retain: true}, 0, w)
}
