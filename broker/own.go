package broker

import (
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// What principals are shown of their own.
//
// Below $me/ each principal has a tree of its own: one topic there is as many
// resources as there are principals. $me/policy/ and a profile's prefix is what one
// has set; what a profile that is an OwnViewer has besides lies beside it, as
// $me/watchers/presence does. Nobody is ever shown another's, for nobody can name it.
//
// What changes there changes for one principal: of the sessions only theirs are
// looked at, however many others subscribe to the same name.

// ownTree is what topics begin with that are another's for each principal.
const ownTree = "$me/"

// An OwnViewer is a profile that shows principals more of their own than the policy
// that they have set.
type OwnViewer interface {
	Profile

	// Own returns what is shown as $me/, name, and the profile's prefix; nil for
	// nothing. It depends on nothing else.
	Own(name string) OwnView
}

// An OwnView is one thing that each principal is shown of their own. Safe for
// concurrent use.
type OwnView interface {
	// Show returns what who, who has an identity, is shown at the instant at.
	Show(keys Keys, who Who, at int64) Shown

	// Pace is that of each principal's, as a Pacer's; a burst of 0: each change is
	// shown at once.
	Pace() (burst int, interval time.Duration)
}

// A Series is an OwnView whose documents follow each other: each says which it is,
// and may tell no more than what is new since the one before.
type Series interface {
	OwnView

	// Next returns the n-th document that a session is sent, from 0 on. last is what
	// it returned with the one before, nil if that must not be built upon: then the
	// document has all. now is that for the next one. send is false if there is
	// nothing new to say. Shown.Ruled is when there may be, also then.
	Next(keys Keys, who Who, at int64, n uint64, last any) (s Shown, now any, send bool)
}

// A Paged is an OwnView of what may be more than one document has.
type Paged interface {
	OwnView

	// Page returns a document of what comes after a place, and of what comes first if that
	// is empty. seal makes of a place in it what who asks for the next one with.
	Page(keys Keys, who Who, at int64, after string, seal func(place string) string) Shown
}

// Keys are a profile's keys as a node has them now.
type Keys struct {
	store  *store.Store
	prefix string
}

// Get returns the value of a key, nil if there is none.
func (k Keys) Get(key string) []byte { return storedValue(k.store, resourceKey(nil, k.prefix, key)) }

// PolicyOf returns what the owner of a resource has set, nil for nothing.
func (k Keys) PolicyOf(owner string) []byte { return k.Get(policyPrefix + owner) }

// Keys returns the keys of a profile as this node has them now. For any goroutine.
func (b *Broker) Keys(prefix string) Keys { return Keys{b.config.Store, prefix} }

// Of returns the keys of another profile.
func (k Keys) Of(prefix string) Keys { return Keys{k.store, prefix} }

// Each calls yield with the keys that begin with prefix and their values, in order,
// after the key after unless that is empty, until it returns false.
func (k Keys) Each(prefix, after string, yield func(key string, value []byte) bool) {
	base := len(resourceKey(nil, k.prefix, ""))
	lower := resourceKey(nil, k.prefix, prefix)
	upper := store.End(lower)
	if after != "" {
		lower = append(resourceKey(nil, k.prefix, after), 0)
	}
	k.store.Scan(lower, upper, func(key, value []byte) bool { return yield(string(key[base:]), value) })
}

// OwnChanged says that what owner is shown of their own as $me/, name and the profile's
// prefix is not what it was.
func (t *ProfileTx) OwnChanged(name, owner string) {
	if owner != "" {
		t.m.changed(ownTree+name+"/"+t.prefix, owner)
	}
}

// policyView shows each principal the policy that they have set for a profile.
type policyView struct{}

// policyType is the content type of policies.
const policyType = "application/evt-policy+json"

func (policyView) Pace() (burst int, interval time.Duration) { return 0, 0 }

func (policyView) Show(keys Keys, who Who, _ int64) Shown {
	document := keys.PolicyOf(who.Principal)
	if document == nil {
		return Shown{Visible: true}
	}
	return Shown{Visible: true, Payload: document, Props: event.AppendContentType(nil, policyType)}
}

// mine is the Viewer, and the one Resource, of a topic of each principal's own.
type mine struct {
	Profile
	view OwnView
	keys Keys
}

// errNobody is what somebody without an identity is told who asks for theirs.
var errNobody = &Refusal{Reason: "identity-required: nobody knows who is meant by me"}

// errShown is what somebody is told who publishes what the broker shows.
var errShown = &Refusal{Cause: ErrTopicName, Reason: "this is shown by the broker: subscribe to it"}

// ownView returns the profile that a topic of everybody's own belongs to, and what it
// shows there; nil for none.
func ownView(profiles map[string]Profile, topicName string) (Profile, OwnView) {
	rest, own := strings.CutPrefix(topicName, ownTree)
	if !own {
		return nil, nil
	}
	if topicName == ownAudit {
		return audits{}, auditView{}
	}
	if p := profileOfPolicy(profiles, topicName); p != nil {
		return p, policyView{}
	}
	name, prefix, _ := strings.Cut(rest, "/")
	p := profiles[prefix]
	if p == nil {
		return nil, nil
	}
	if v, ok := p.(OwnViewer); ok {
		if view := v.Own(name); view != nil {
			return p, view
		}
	}
	return nil, nil
}

// mineOf returns the Viewer of a topic of everybody's own; ok is false if it is none.
func mineOf(profiles map[string]Profile, s *store.Store, topicName string) (m mine, ok bool) {
	p, view := ownView(profiles, topicName)
	if p == nil {
		return mine{}, false
	}
	return mine{p, view, Keys{s, p.Prefix()}}, true
}

func (mine) Owner(string) string { return "" }

func (v mine) Load(string, []byte, []byte) Resource { return v }

func (mine) Neutral() Shown { return Shown{Visible: true} }

func (v mine) Show(who Who, at int64) Shown { return v.view.Show(v.keys, who, at) }

// Pace is that of each principal's.
func (v mine) Pace() (burst int, interval time.Duration) { return v.view.Pace() }

// A series is how far a session is in one of documents that follow each other.
type series struct {
	n    uint64 // the next one's number
	last any    // nil: the next one has all
}

// judgeNext is judge for a Series.
func (s *Session) judgeNext(v Series, keys Keys, topicName string, now int64, wanted bool) (j judged) {
	s.shownMu.Lock()
	defer s.shownMu.Unlock()
	at := s.series[topicName]
	shown, last, send := v.Next(keys, s.who, now, at.n, at.last)
	s.b.watch.note(ownBucket(topicName, s.who.Principal), shown.Ruled, now)
	if !send {
		return judged{shown: shown}
	}
	return judged{shown: shown, retain: wanted && at.n == 0, send: true, next: &series{at.n + 1, last}}
}

// A byPrincipal finds the sessions of each who has an identity, in the order of their
// numbers. Whoever has very many pays for them, and nobody else.
type byPrincipal[S any] map[string]*someones[S]

type someones[S any] struct {
	numbers  []uint64
	sessions []S
}

func (b byPrincipal[S]) add(principal string, number uint64, session S) {
	if principal == "" {
		return
	}
	of := b[principal]
	if of == nil {
		of = new(someones[S])
		b[principal] = of
	}
	at, had := slices.BinarySearch(of.numbers, number)
	if had {
		of.sessions[at] = session
		return
	}
	of.numbers, of.sessions = slices.Insert(of.numbers, at, number), slices.Insert(of.sessions, at, session)
}

func (b byPrincipal[S]) remove(principal string, number uint64) {
	of := b[principal]
	if of == nil {
		return
	}
	at, had := slices.BinarySearch(of.numbers, number)
	if !had {
		return
	}
	of.numbers, of.sessions = slices.Delete(of.numbers, at, at+1), slices.Delete(of.sessions, at, at+1)
	if len(of.numbers) == 0 {
		delete(b, principal)
	}
}

// of returns the sessions of a principal. They must not be changed, and are good until
// the next add or remove.
func (b byPrincipal[S]) of(principal string) []S {
	if of := b[principal]; of != nil {
		return of.sessions
	}
	return nil
}

// markOwn marks the queues of one principal's durable sessions that subscribe to a topic
// of their own.
func (m *Machine) markOwn(topicName, whose string) {
	for _, r := range m.principals.of(whose) {
		s, ok := m.durable.Value(topicName, r.session)
		if !ok || s.QoS == 0 {
			continue
		}
		q := queued{}
		if s.ID != 0 {
			q.ids = []uint32{s.ID}
		}
		m.mark(r, topicName, q)
	}
}

// ownAtOnce is to how many sessions of a principal one task of the loop shows what is their
// own. What an owner of very many watchers is shown takes 2 ms of an idle core for each
// (BenchmarkWatcherList), and the next may be another document.
const ownAtOnce = 4

// showOwn shows a topic of somebody's own anew to their sessions that are connected
// here: to a few at once, to others, each by a task of its own, what it is by then. In the
// delivery loop.
func (l *loop) showOwn(v mine, topicName, whose string, now int64) {
	once := shownOnce{topic: topicName}
	marks := l.b.Level() < levelBeside
	shown := 0
	for _, s := range l.principals.of(whose) {
		sub := s.subs[topicName]
		if sub == nil || marks && s.durable && sub.sub.QoS > 0 || !s.begun.Load() {
			continue // it does not subscribe, or has it from its queue or its scan
		}
		if shown++; shown > ownAtOnce {
			s.scanning.owe(topicName, false)
			continue
		}
		how := showing{qos: min(sub.sub.QoS, 1)}
		if sub.sub.ID != 0 {
			how.ids = []uint32{sub.sub.ID}
		}
		s.show(&once, v, &how, now, &l.wave)
	}
}

// remarkOwn has the queues of somebody's sessions here marked for what is shown late
// of a topic of their own.
func (l *loop) remarkOwn(topicName, whose string, now int64) {
	for _, s := range l.principals.of(whose) {
		if sub := s.subs[topicName]; sub != nil && s.durable && sub.sub.QoS > 0 {
			s.remark(topicName, now)
		}
	}
}
