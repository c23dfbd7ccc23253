package broker

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// An edges passes the instants at which windows open and close.
//
// Closing needs nothing: every verdict is kept only until it would change, and
// what waits somewhere is asked again before it is sent. Opening does: the
// subscriber is to get the present state. There is one timer for the earliest
// edge of the policy, not one for each subscriber; at an edge each session with
// a subscription in whose permission time has a part scans what it matches for
// topics that were closed to it just before and are open now.
type edges struct {
	last int64 // edges up to here are passed; the delivery loop's
}

// edgesAtOnce bounds how many edges are told apart when the clock has jumped.
const edgesAtOnce = 64

// passEdges brings about the edges that are due and returns the next one, 0
// for none.
func (b *Broker) passEdges() (next int64) {
	now := b.now()
	b.loop.call(func(w *Wave) { next = b.edges.pass(b, now, w) })
	return next
}

// pass runs in the delivery loop.
func (e *edges) pass(b *Broker, now int64, w *Wave) (next int64) {
	if b.silence.held.Load() {
		return e.passPolicy(b, now, w) // the others' times are passed when it is over
	}
	b.loop.passTimes(now)
	return earlier(e.passPolicy(b, now, w), b.watch.next())
}

// passPolicy passes the edges of the operator's policy.
func (e *edges) passPolicy(b *Broker, now int64, w *Wave) (next int64) {
	p := b.policy.Load()
	if p == nil {
		e.last = max(e.last, now)
		return 0
	}
	var passed []int64
	at := p.NextEdge(e.last)
	for ; at != 0 && at <= now; at = p.NextEdge(at) {
		passed = append(passed, at)
		if len(passed) > edgesAtOnce {
			passed = passed[1:]
		}
	}
	e.last = max(e.last, now)
	if len(passed) == 0 {
		return at
	}
	b.stats.WindowsOpened.Add(uint64(len(passed)))
	for _, s := range b.loop.live {
		for _, sub := range s.subs {
			if sub.windowed {
				s.edge(p, sub, passed, now, w)
			}
		}
		s.scanning.runIfStarted()
	}
	return at
}

// edge brings about what edges mean to one subscription.
func (s *Session) edge(p *policy, sub *localSub, passed []int64, now int64, w *Wave) {
	wasOpen := p.Decide(s.who, ActSubscribe, sub.sub.Filter, passed[0]-1).Allow
	is := p.Decide(s.who, ActSubscribe, sub.sub.Filter, now)
	if sub.outside == End && s.closedSince(sub.sub.Filter, passed[0]-1, now) {
		s.subEnded(sub.sub.Filter, now, w)
		if s.durable {
			// The log's clock may be behind, and the subscriber back before it
			// has passed the edge: what it ends then is not that one.
			_ = s.p.propose(&event.Unsubscribe{Session: s.number, Epoch: s.epoch, Filters: []string{sub.sub.Filter}}, call{}, true)
		}
		return
	}
	if sub.outside == Announce && wasOpen != is.Allow {
		s.announce(sub.sub.Filter, "active", is, w)
	}
	s.scanning.add(scan{sub: sub, since: s.sinceOpening(s.b.loop.position()), opened: func(topicName string) bool {
		for _, at := range passed {
			if !p.Decide(s.who, ActSubscribe, topicName, at-1).Allow {
				return true
			}
		}
		return false
	}})
}

// closedSince says whether a subscription's window has closed after since, up
// to now: also if it has opened again.
func (s *Session) closedSince(filter string, since, now int64) bool {
	for {
		d := s.b.decide(s.who, ActSubscribe, filter, since)
		if d.Until == 0 || d.Until > now {
			return false
		}
		if d.Allow {
			return true
		}
		since = d.Until
	}
}

// A windowState is the payload of the event that tells a subscriber about its
// window, on $me/sub/ and the filter, whose wildcards are percent-encoded: a
// topic has none (5.0 [MQTT-3.3.2-2]).
type windowState struct {
	State  string `json:"state"`
	Window string `json:"window"`
	Next   string `json:"next,omitempty"`
}

var wildcards = strings.NewReplacer("%", "%25", "+", "%2B", "#", "%23")

// announce tells a subscriber that its window has opened or closed, and what its
// subscription is now: active or terminated.
func (s *Session) announce(filter, state string, d Decision, w *Wave) {
	is := windowState{State: state, Window: "closed"}
	if d.Allow {
		is.Window = "open"
	}
	if d.Until != 0 {
		is.Next = time.Unix(0, d.Until).UTC().Format(time.RFC3339)
	}
	payload, err := json.Marshal(is)
	if err != nil {
		panic(err) // three strings
	}
	e := &event.Event{Topic: "$me/sub/" + wildcards.Replace(filter), Payload: payload, At: s.b.now()}
	s.hear(&Delivery{Event: e}, 0, w)
}

// subEnded ends a subscription whose rule says that it ends with its window, if
// that has not happened, and tells the subscriber. Whoever comes first does it:
// the node's clock (for a session without a queue nobody else), or the log.
func (s *Session) subEnded(filter string, now int64, w *Wave) {
	sub := s.subs[filter]
	if sub == nil {
		return
	}
	if !sub.asked { // of a request its profile tells
		s.announce(filter, "terminated", s.b.decide(s.who, ActSubscribe, filter, now), w)
	}
	delete(s.subs, filter)
	s.b.unsubscribe(sub)
}

// policyChanged sends every subscription the state that a new policy opens to
// it, and notes anew in which of them time has a part. here is the policy's place
// in the log: an event of the same entry that was retained before it was judged
// by the former policy, so the scan must find it. In the delivery loop.
func (e *edges) policyChanged(b *Broker, before *policy, here uint64) {
	now := b.now()
	for _, s := range b.loop.live {
		if before != nil && b.revoked(before.Authorizer, s.who.Principal) {
			s.revoke()
			continue
		}
		for filter, old := range s.subs {
			if old.isShared() {
				continue // no state is shown to it
			}
			grant := b.grant(s.who, filter, now)
			sub := *old
			sub.windowed, sub.outside = grant.Windowed, grant.Outside
			s.subs[filter] = &sub
			b.subscribe(&sub)
			s.scanning.add(scan{sub: &sub, since: s.sinceOpening(here), opened: func(topicName string) bool {
				return before != nil && !before.Decide(s.who, ActSubscribe, topicName, now).Allow
			}})
		}
		s.scanning.runIfStarted()
	}
}

// revoked says whether what principal proved under the policy before is not
// what the present one asks for.
func (b *Broker) revoked(before Authorizer, principal string) bool {
	is := b.Policy()
	if before == nil || principal == "" {
		return false
	}
	was, ok1 := before.(credentialer)
	now, ok2 := is.(credentialer)
	if !ok1 || !ok2 {
		return false
	}
	proved := was.Credential(principal)
	return proved != "" && proved != now.Credential(principal)
}

// revoke ends the connection of somebody whose credentials are no longer valid.
// The session of a user who is no more the log ends, of all nodes alike; but not
// one that began after that, by somebody who had signed in before.
func (s *Session) revoke() {
	s.sink.End(&Refusal{Reason: "the credentials are no longer valid"})
	if p, ok := s.b.Policy().(knower); ok && !p.Knows(s.who.Principal) {
		_ = s.p.propose(&event.Disconnect{Session: s.number, Epoch: s.epoch, SetExpiry: true, At: s.b.now()}, call{}, true)
	}
}

// mayHaveOpened says whether a window opened or closed between two instants.
func (b *Broker) mayHaveOpened(from, to int64) bool {
	p := b.policy.Load()
	if p == nil {
		return false
	}
	at := p.NextEdge(from)
	return at != 0 && at <= to
}
