package broker

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// How profiles send events of their own.
//
// What a profile routes goes to whoever subscribes to its topic and may read
// it, as any event does: durable sessions have it queued, others get it at once
// from their node. A profile that has to know what became of it names it by a
// reference, which is kept with each queue entry: when a session has taken the
// event, the profile is told the reference. What was pushed out, or expired, or
// was withheld by the policy, or ended with its session, nobody is told of: it is
// not taken, and whoever keeps the event until it is knows that.

// A Gatekeeper is a profile that decides by its state who may read a topic, in
// place of Watch, which still judges filters that have wildcards. It is no
// Viewer: what those show decides.
type Gatekeeper interface {
	// MayRead answers by what get returns of the profile's keys, and by
	// nothing else: the same on every node. When an owner's policy changes it
	// is asked anew, and callers keep the answer until then or until Until.
	MayRead(get func(key string) []byte, who Who, topicName string, at int64) Decision
}

// A ReceiptWatcher is a profile that wants to know which of the events that it
// routed with a reference were taken.
type ReceiptWatcher interface {
	// Taken is called in log order for each durable session that has taken
	// one: acknowledged it, or was offered it and cannot take packets of its
	// size. Not for one that may not have it.
	Taken(tx *ProfileTx, ref string, who Who)
}

// A Sifter is a profile of whose events some are not to be sent any more: what was
// queued, or sent and not acknowledged, is not sent again either.
type Sifter interface {
	// MayStill says whether an event on a topic of the profile may be sent now, whoever
	// may read it, by what read returns of a profile's keys, and by nothing else: the
	// same on every node. It is asked before what has waited is sent.
	MayStill(read func(prefix, key string) []byte, e *event.Event) bool
}

// A SubscriptionWatcher is a profile that wants to know when durable sessions
// begin to listen, because it may have kept something for them.
type SubscriptionWatcher interface {
	// Awaits returns the topics of which something may be kept for who. It
	// depends on nothing else.
	Awaits(who Who) []string

	// Subscribed is called in log order when a session has come to subscribe
	// to such a topic at QoS 1 or 2, by whatever filter. What it is then sent
	// comes after its SUBACK, and before what is published later. It should not
	// send without bound, for it has the whole node wait: what is more can be sent
	// when the profile is woken (WakeAt), by which time other events may have gone
	// by, unless they were routed to all but this session (RouteExcept).
	Subscribed(tx *ProfileTx, who Who, session uint64, topicName string)
}

// Route announces an event on a topic of the profile. e must not change any
// more; its Position is set. ref is what Taken is told, empty for nothing. It
// returns how many durable sessions have it queued.
func (t *ProfileTx) Route(e *event.Event, ref string) (queued int) {
	return t.RouteExcept(e, ref, nil)
}

// RouteExcept is Route, but for the durable sessions for which except, if not
// nil, says so: they have nothing queued. It may be asked twice, and depends on
// nothing but the state.
func (t *ProfileTx) RouteExcept(e *event.Event, ref string, except func(session uint64) bool) (queued int) {
	m := t.m
	from := len(m.out.queued)
	m.ref, m.except = t.reference(ref), except
	m.route(e)
	m.ref, m.except = "", nil
	return len(m.out.queued) - from
}

// Regrant says that who may read which topics is not what it was, for a reason other than
// SetPolicy.
func (t *ProfileTx) Regrant() { t.m.regrant() }

// Subscribes says whether a durable session subscribes to a topic at QoS 1 or 2.
func (t *ProfileTx) Subscribes(session uint64, topicName string) bool {
	return t.m.targetOf(session, topicName) != nil
}

// Queued says whether a session has something with a reference in its queue:
// it was routed or sent there, and is neither taken nor given up.
func (t *ProfileTx) Queued(session uint64, ref string) bool {
	r := t.m.numbers[session]
	return r != nil && r.refs[t.reference(ref)] > 0
}

// Send is Route for one durable session alone. It returns false if that does
// not subscribe to the topic at QoS 1 or 2, or may not read it. What is Queued
// there is not queued again.
func (t *ProfileTx) Send(session uint64, e *event.Event, ref string) bool {
	m := t.m
	target := m.targetOf(session, e.Topic)
	if target == nil {
		return false
	}
	ok, until := target.permitted(m, e.Topic, e.At)
	if !ok {
		return false
	}
	if ref == "" || !t.Queued(session, ref) {
		m.send(target, e, t.reference(ref), until)
	}
	return true
}

// send queues e for one session alone.
func (m *Machine) send(to *target, e *event.Event, ref string, until int64) {
	e.Position = m.here()
	from := len(m.out.queued)
	m.ref = ref
	m.enqueue(to.r, e, queued{qos: min(to.qos, e.QoS), deadline: until, ids: to.ids}, 0)
	m.ref = ""
	m.out.steps = append(m.out.steps, step{kind: stepReplayed, event: e, from: from, until: len(m.out.queued)})
}

func (r *record) noteRef(ref string) {
	if r.refs == nil {
		r.refs = map[string]int{}
	}
	r.refs[ref]++
}

// forgetRef takes note that an entry is removed from r's queue.
func (r *record) forgetRef(ref string) {
	if r.refs[ref]--; r.refs[ref] <= 0 {
		delete(r.refs, ref)
	}
}

// reference makes of a profile's reference that of a queue entry.
func (t *ProfileTx) reference(ref string) string {
	if ref == "" {
		return ""
	}
	return t.prefix + "\x00" + ref
}

// targetOf returns a durable session as a subscriber of a topic at QoS 1 or 2,
// nil if it is none.
func (m *Machine) targetOf(session uint64, topicName string) *target {
	targets := m.durable.LookupString(topicName).targets
	for i := range targets {
		if targets[i].r.session == session {
			return &targets[i]
		}
	}
	return nil
}

// A receipt is a queue entry that is over, whose profile wants to know.
type receipt struct {
	seq uint64
	entry
}

// eventOf returns the event of an entry.
func (m *Machine) eventOf(e *entry) *event.Event {
	body := e.inline // the event aliases it
	if e.body != 0 {
		body, _ = m.store.Get(bodyKey(nil, e.body), nil)
	}
	ev := new(event.Event)
	if err := ev.Decode(body); err != nil {
		panic(fatal{"queued event: " + err.Error()})
	}
	return ev
}

// tellTaken tells a profile that r has taken an event.
func (m *Machine) tellTaken(r *record, settled *receipt) {
	prefix, ref, _ := strings.Cut(settled.ref, "\x00")
	if w, ok := m.profiles[prefix].(ReceiptWatcher); ok {
		w.Taken(&ProfileTx{m: m, prefix: prefix}, ref, Who{Principal: r.principal, Client: r.client})
	}
}

// passedOver sees to an event that r's node has not let it have, which its
// profile therefore still has. If r has ended its subscription since it was
// queued and begun it anew, the new one is still to have it, for Send has not
// queued it twice: it is queued once more.
func (m *Machine) passedOver(r *record, settled *receipt) {
	e := m.eventOf(&settled.entry)
	to := m.targetOf(r.session, e.Topic)
	if to == nil || settled.seq >= to.first || e.Expired(m.now) || r.refs[settled.ref] > 0 {
		return
	}
	if ok, until := to.permitted(m, e.Topic, e.At); ok {
		m.send(to, e, settled.ref, until)
	}
}

// An awaited is a topic of which a profile may have kept something for a
// session that subscribes to it now.
type awaited struct{ prefix, topic string }

// awaitedBy returns what subs make r subscribe to that profiles want to know
// of, in the order of their prefixes.
func (m *Machine) awaitedBy(r *record, subs []event.Subscription) (all []awaited) {
	for _, prefix := range m.prefixes {
		w, ok := m.profiles[prefix].(SubscriptionWatcher)
		if !ok {
			continue
		}
		for _, name := range w.Awaits(Who{Principal: r.principal, Client: r.client}) {
			matches := func(s event.Subscription) bool { return s.QoS > 0 && topic.Match(s.Filter, name) }
			if slices.ContainsFunc(subs, matches) && !m.listens(r, name) {
				all = append(all, awaited{prefix, name})
			}
		}
	}
	return all
}

// listens says whether r subscribes to a topic at QoS 1 or 2.
func (m *Machine) listens(r *record, topicName string) bool {
	return m.targetOf(r.session, topicName) != nil
}

func (m *Machine) tellSubscribed(r *record, all []awaited) {
	for _, a := range all {
		w := m.profiles[a.prefix].(SubscriptionWatcher)
		w.Subscribed(&ProfileTx{m: m, prefix: a.prefix}, Who{Principal: r.principal, Client: r.client}, r.session, a.topic)
	}
}

// read returns the value of a profile's key as the commands so far left it.
func (m *Machine) read(prefix, key string) []byte {
	k := resourceKey(nil, prefix, key)
	if v, ok := m.written[string(k)]; ok {
		return v
	}
	return storedValue(m.store, k)
}

func storedValue(s *store.Store, key []byte) []byte {
	v, ok := s.Get(key, nil)
	if !ok {
		return nil
	}
	return v
}

// Get returns the value of one of the profile's keys as this node has it now,
// nil for none. For Admit only: what is judged by it is judged again, for good,
// when it is applied.
func (p *Publication) Get(key string) []byte { return p.node.profileValue(p.prefix, key) }

// PolicyOf returns what the owner of a resource has set, as Get does.
func (p *Publication) PolicyOf(owner string) []byte { return p.Get(policyPrefix + owner) }

func (b *Broker) profileValue(prefix, key string) []byte {
	return storedValue(b.config.Store, resourceKey(nil, prefix, key))
}

// PolicyKey is the key under which a profile finds what an owner has set, for
// MayRead.
func PolicyKey(owner string) string { return policyPrefix + owner }

// decideFor asks the profile of a topic, if it has one, and the policy for what
// it leaves of that; else the policy alone. read returns what the profiles have
// in the store.
func decideFor(profiles map[string]Profile, read func(prefix, key string) []byte, p Authorizer, who Who, what Action, topicName string, at int64) Decision {
	if what == ActPublish && profileFor(profiles, topicName) != nil {
		return p.Ceiling(who, what, topicName, at)
	}
	profile := profileOf(profiles, topicName)
	if profile == nil {
		d := p.Decide(who, what, topicName, at)
		if d.Allow && what == ActSubscribe && strings.HasPrefix(topicName, clientsTree) && !mayWatchClient(p, who, topicName) {
			return Decision{Reason: "it is for operators and administrators of the domain", Until: d.Until}
		}
		return d
	}
	d := Decision{Allow: true}
	if g, ok := profile.(Gatekeeper); ok {
		d = g.MayRead(func(key string) []byte { return read(profile.Prefix(), key) }, who, topicName, at)
	} else if err := profile.Watch(who, topicName); err != nil {
		d = Decision{Reason: err.Error()}
	}
	if !d.Allow {
		return d
	}
	ceiling := p.Ceiling(who, what, topicName, at)
	ceiling.Until = earlier(ceiling.Until, d.Until)
	return ceiling
}

// mayStill asks the profile of a topic, if it sifts.
func (b *Broker) mayStill(e *event.Event) bool {
	s, ok := profileOf(b.machine.profiles, e.Topic).(Sifter)
	return !ok || b.Level() < LevelOwners || s.MayStill(b.profileValue, e)
}

// mayWatchNow says whether who may subscribe to a filter of a profile's topics.
func (b *Broker) mayWatchNow(p Profile, who Who, filter string, now int64) error {
	if err := p.Watch(who, filter); err != nil {
		return err
	}
	g, ok := p.(Gatekeeper)
	if !ok || topic.HasWildcard(filter) {
		return nil
	}
	d := g.MayRead(func(key string) []byte { return b.profileValue(p.Prefix(), key) }, who, filter, now)
	if !d.Allow {
		return &Refusal{Reason: d.Reason}
	}
	return nil
}

// regrant has everybody who keeps an answer of MayRead ask again.
func (m *Machine) regrant() {
	m.durable.Invalidate()
	if m.eager != nil {
		m.eager.Invalidate()
	}
	m.out.steps = append(m.out.steps, step{kind: stepRegrant})
}

// deliverUnordered hands an event that is not ordered to those connected now.
func (s *Session) deliverUnordered(ev *event.Event, now int64, w *Wave) {
	qos, retain := ev.QoS, ev.Retain
	ev.QoS, ev.Retain = 0, false
	s.b.stats.Published[0].Add(1)
	s.b.deliverHere(ev, now, w)
	ev.QoS, ev.Retain = qos, retain
}
