package broker

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
)

// An edges passes the instants at which windows open and close.
//
// Closing needs nothing: every verdict is kept only until it would change, and
// what waits somewhere is asked again before it is sent. Opening does: the
// subscriber is to get the present state. There is one timer for the earliest
// edge of the policy, not one for each subscriber; at an edge each session with
// a subscription in whose permission time has a part is looked at, and where
// something may have opened it is sent what was closed to it just before and is open
// now: see openings.
//
// An edge may concern a hundred thousand sessions. So that nothing else waits for
// them, they are passed in pieces (walk), between which the loop delivers what
// has come meanwhile; whoever passes them, the edges' own goroutine, waits for each.
// It does reviews, too, before.
type edges struct {
	mu    sync.Mutex // held while edges are passed: who comes second finds that they are
	last  int64      // edges up to here are passed; the delivery loop's
	waits *review    // likewise; nil for none

	kicked   chan struct{} // the next edge may have moved, or the clock
	openings openings
}

const (
	// edgesAtOnce bounds how many edges are told apart when the clock has jumped.
	edgesAtOnce = 64

	// edgePiece bounds how many sessions one task of the loop sends something, or
	// resources that nobody watches: some milliseconds.
	edgePiece = 512
)

// runEdges passes edges when they are due by the node's clock, until the node is
// closed. It is apart from what else is due: that must not wait for a large edge.
func (b *Broker) runEdges() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		edge := b.passEdges()
		timer.Reset(untilNext(b.now(), edge))
		select {
		case <-b.closing:
			return
		case <-b.edges.kicked:
		case <-timer.C:
		}
	}
}

// passEdges brings about the edges that are due and returns the next one, 0
// for none.
func (b *Broker) passEdges() (next int64) {
	e := &b.edges
	e.mu.Lock()
	defer e.mu.Unlock()
	now := b.now()
	var p passing
	held := false
	if !e.reviewed(b, func() { p, next, held = e.begin(b, now), e.next(b), b.silence.held.Load() }) {
		return 0
	}
	for more := len(p.sessions) > 0; more; {
		if !b.loop.call(func(w *Wave) { more = p.pass(w) }) {
			return 0
		}
	}
	if !e.openings.send(b, &p) || held {
		return next // what is held is shown when it is over
	}
	var t timesUnderWay
	for more := true; more; {
		if !b.loop.call(func(*Wave) { more = b.loop.passTimes(&t, now) }) {
			return 0
		}
	}
	return earlier(next, b.watch.next())
}

// A passing is edges of the operator's policy on their way through the sessions that
// were connected when they came. Who subscribes later is judged by what is open then.
type passing struct {
	walk
	policy *policy
	edges  []int64 // ascending; up to now
	now    int64
	here   uint64                 // the place in the log then
	open   map[string][]*localSub // to be sent what their filters match, by these
	said   map[announced]*event.Event
}

// An announced is what subscribers are told about their windows. Those of one filter are
// told the same mostly, and the same event is made and encoded once for them.
type announced struct {
	filter string
	allow  bool
	until  int64
}

// saidMost bounds how many are kept.
const saidMost = 256

// announcement returns what subscribers of a filter are told about their window; nil for
// nothing.
func (p *passing) announcement(filter string, is Decision) *event.Event {
	key := announced{filter, is.Allow, is.Until}
	e, known := p.said[key]
	if !known {
		if p.said == nil || len(p.said) == saidMost {
			p.said = map[announced]*event.Event{}
		}
		e = announcement(filter, "active", is, p.b.now())
		p.said[key] = e
	}
	return e
}

// begin returns the passing of the edges that are due. In the delivery loop.
func (e *edges) begin(b *Broker, now int64) passing {
	p := passing{walk: walk{b: b}, policy: b.policy.Load(), now: now, here: b.loop.position()}
	if p.policy == nil {
		e.last = max(e.last, now)
		return p
	}
	for at := p.policy.NextEdge(e.last); at != 0 && at <= now; at = p.policy.NextEdge(at) {
		p.edges = append(p.edges, at)
		if len(p.edges) > edgesAtOnce {
			p.edges = p.edges[1:]
		}
	}
	e.last = max(e.last, now)
	if len(p.edges) == 0 {
		return p
	}
	b.stats.WindowsOpened.Add(uint64(len(p.edges)))
	p.walk.begin(b)
	return p
}

// next returns the next edge of the operator's policy, 0 for none. In the delivery
// loop.
func (e *edges) next(b *Broker) int64 {
	if p := b.policy.Load(); p != nil {
		return p.NextEdge(e.last)
	}
	return 0
}

// pass looks at some subscriptions, and returns false when none is left. In the delivery
// loop.
func (p *passing) pass(w *Wave) (more bool) {
	return p.piece(func(sub *localSub) {
		if sub.windowed {
			p.edge(sub.s, sub, w)
		}
	}, func(s *Session) { s.scanning.runIfStarted() })
}

// edge brings about what edges mean to one subscription.
func (p *passing) edge(s *Session, sub *localSub, w *Wave) {
	filter, before := sub.sub.Filter, p.edges[0]-1
	if sub.outside == End && s.closedSince(filter, before, p.now) {
		s.subEnded(filter, p.now, w)
		if s.durable || sub.counted {
			// The log's clock may be behind, and the subscriber back before it
			// has passed the edge: what it ends then is not that one.
			_ = s.p.propose(&event.Unsubscribe{Session: s.number, Epoch: s.epoch, Filters: []string{filter}}, call{}, true)
		}
		return
	}
	if sub.outside == Announce {
		if is := p.policy.Decide(s.who, ActSubscribe, filter, p.now); is.Allow != p.policy.Decide(s.who, ActSubscribe, filter, before).Allow {
			if e := p.announcement(filter, is); e != nil {
				s.hear(&Delivery{Event: e}, 0, w)
			}
		}
	}
	if o, ok := p.policy.Authorizer.(opener); ok && !o.MayOpen(s.who, filter, before, p.now) {
		return
	}
	if s.scanning.idle() && !(s.durable && sub.sub.QoS > 0) && !mayWatch(p.b.machine.profiles, filter) {
		if p.open == nil {
			p.open = map[string][]*localSub{}
		}
		p.open[filter] = append(p.open[filter], sub)
		return
	}
	p.scan(sub)
}

// An opener is an Authorizer that can tell that nothing has opened, which spares a
// look at what there is: see acl.Policy.MayOpen.
type opener interface {
	MayOpen(who Who, filter string, after, upto int64) bool
}

// scan has a subscription's own scan send it what has opened. In the delivery loop.
func (p *passing) scan(sub *localSub) {
	s := sub.s
	s.scanning.add(scan{sub: sub, since: s.sinceOpening(p.here), opened: func(topicName string) bool { return p.opened(s.who, topicName) }})
}

// opened says whether a topic was closed to somebody before one of the edges.
func (p *passing) opened(who Who, topicName string) bool {
	for _, at := range p.edges {
		if !p.policy.Decide(who, ActSubscribe, topicName, at-1).Allow {
			return true
		}
	}
	return false
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

// announcement tells subscribers that their window has opened or closed, and what
// their subscription is now: active or terminated. It is nil if no packet could name the
// filter: of one of 22,000 percent signs the topic has three times as many.
func announcement(filter, state string, d Decision, now int64) *event.Event {
	name := ownSub + wildcards.Replace(filter)
	if len(name) > topic.MaxBytes {
		return nil
	}
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
	return &event.Event{Topic: name, Payload: payload, At: now}
}

// subEnded ends a subscription whose rule says that it ends with its window, if
// that has not happened, and tells the subscriber. Whoever comes first does it:
// the node's clock (for a session without a queue nobody else), or the log.
func (s *Session) subEnded(filter string, now int64, w *Wave) {
	if s.returning != nil {
		s.returning.ended[filter] = true
	}
	sub := s.subs[filter]
	if sub == nil {
		return
	}
	if !sub.asked || profileOf(s.b.machine.profiles, filter) == nil { // of a request its profile tells
		if e := announcement(filter, "terminated", s.b.decide(s.who, ActSubscribe, filter, now), s.b.now()); e != nil {
			s.hear(&Delivery{Event: e}, 0, w)
		}
	}
	delete(s.subs, filter)
	s.b.unsubscribe(sub)
}

// isPutOut ends the connection if its client could not come in any more as it came: what it
// proved under the policy before is not what is asked for, or nobody may come by that way
// any more. In the delivery loop.
func (s *Session) isPutOut(before Authorizer) bool {
	if s.revoked(before) {
		s.revoke(before)
		return true
	}
	a, ok := s.sink.(Admitted)
	if is := s.b.Policy(); ok && is != nil && !a.MayStay(s.who, s.way, is) {
		s.sink.End(&Refusal{Reason: "who signs in here has to do it in another way now"})
		return true
	}
	return false
}

// revoked says whether what s's client proved under the policy before is not what the
// present one asks for.
func (s *Session) revoked(before Authorizer) bool {
	is := s.b.Policy()
	if before == nil || s.who.Principal == "" {
		return false
	}
	was, ok1 := before.(credentialer)
	now, ok2 := is.(credentialer)
	if !ok1 || !ok2 {
		return false
	}
	proved := was.Credential(s.who.Principal, s.way)
	return proved != "" && proved != now.Credential(s.who.Principal, s.way)
}

// revoke ends the connection of somebody whose credentials, as of the policy before, are
// no longer valid. The session of a user who is no more the log ends, of all nodes alike; but not
// one that began after that, by somebody who had signed in before.
func (s *Session) revoke(before Authorizer) {
	s.sink.End(&Refusal{Reason: "the credentials are no longer valid"})
	was, ok := before.(knower)
	if is, _ := s.b.Policy().(knower); ok && is != nil && was.Knows(s.who.Principal) && gone(is, s.who.Principal) {
		_ = s.p.propose(&event.Disconnect{Session: s.number, Epoch: s.epoch, SetExpiry: true, At: s.b.now(), Why: s.b.why(codeNotAuthorized)}, call{}, true)
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
