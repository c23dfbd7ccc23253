package broker

import (
	"bytes"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// Subscriptions that principals are provided with.
//
// Somebody else, who may, has a principal subscribe to a resource. So each session of
// theirs does, those that there are and those that come, as if its client had asked
// (Notifier): the client gets what there is to see without having sent a SUBSCRIBE. It is
// the profile's to say with what who is provided, and until when. A client that
// unsubscribes ends it as it ends what it has asked for.

// MostProvided is with how many subscriptions one principal is provided at most: each
// session of theirs that begins has them all.
const MostProvided = 100

// providedQoS is at what QoS they are delivered.
const providedQoS = 1

// Keys: the prefix, the principal, NUL, the topic. The value is recordVersion.
var providedPrefix = append([]byte{byte(store.Policies)}, "provided/"...)

func providedKey(principal, topicName string) []byte {
	return append(append(slices.Clone(providedPrefix), principal...), "\x00"+topicName...)
}

func (m *Machine) loadProvided() error {
	m.provided = map[string][]string{}
	var damaged error
	m.store.Scan(providedPrefix, store.End(providedPrefix), func(key, value []byte) bool {
		principal, topicName, ok := strings.Cut(string(key[len(providedPrefix):]), "\x00")
		if !ok || !bytes.Equal(value, []byte{recordVersion}) {
			damaged = event.ErrDamaged
		}
		m.provided[principal] = append(m.provided[principal], topicName)
		return damaged == nil
	})
	return damaged
}

// MayProvide refuses to provide a principal with a subscription that the operator's policy
// leaves to them at no time, or with one too many.
func (t *ProfileTx) MayProvide(principal, topicName string) error {
	m := t.m
	if m.policy == nil {
		return &Refusal{Reason: noPolicy}
	}
	of := m.provided[principal]
	if _, has := slices.BinarySearch(of, topicName); !has && len(of) >= MostProvided {
		return &Refusal{Cause: ErrQuota, Reason: "quota: they are provided with as many subscriptions as are possible"}
	}
	d := m.policy.Ceiling(Who{Principal: principal}, ActSubscribe, topicName, m.now)
	if !d.Allow && d.Until == 0 {
		return &Refusal{Reason: "the operator's policy does not leave that to them"}
	}
	return nil
}

// SetProvided says whether a principal is provided with a subscription to a resource.
func (t *ProfileTx) SetProvided(principal, topicName string, is bool) {
	m := t.m
	of := m.provided[principal]
	at, has := slices.BinarySearch(of, topicName)
	switch {
	case is == has:
	case is:
		m.provided[strings.Clone(principal)] = slices.Insert(of, at, strings.Clone(topicName))
		m.tx.Set(providedKey(principal, topicName), []byte{recordVersion})
	default:
		if of = slices.Delete(of, at, at+1); len(of) == 0 {
			delete(m.provided, principal)
		} else {
			m.provided[principal] = of
		}
		m.tx.Delete(providedKey(principal, topicName))
	}
}

// Provide has the sessions that a principal has subscribe to what it is provided with.
func (t *ProfileTx) Provide(principal, topicName string) {
	m := t.m
	for _, r := range slices.Clone(m.principals.of(principal)) {
		m.spend(1)
		if m.provide(r, topicName) && r.connected() && r.node == m.node && r.life == m.life {
			m.out.steps = append(m.out.steps, step{
				kind: stepProvided, session: r.session, epoch: r.epoch, topic: strings.Clone(topicName), position: t.Position(),
			})
		}
	}
}

// provideAll has a session that begins subscribe to all that its principal is provided with.
func (m *Machine) provideAll(r *record) {
	for _, topicName := range slices.Clone(m.provided[r.principal]) {
		m.spend(1)
		m.provide(r, topicName)
	}
}

// provide has a session subscribe to a resource, and says whether it does so only now. What
// the owner refuses by now, or there is no room for, it does not.
func (m *Machine) provide(r *record, topicName string) bool {
	n := notifierOf(m.profiles, topicName)
	if n == nil || m.hasAsked(r.session, topicName) {
		return false
	}
	sub := event.Subscription{Filter: strings.Clone(topicName), QoS: providedQoS}
	if m.checkSubscribe(r, []event.Subscription{sub}) != nil {
		return false
	}
	q := Request{
		Who: Who{Principal: r.principal, Client: r.client}, Session: r.session, Topic: sub.Filter, Lasting: r.durable(), Provided: true,
	}
	if n.Subscribed(&ProfileTx{m: m, prefix: n.Prefix()}, &q) != nil || q.Once {
		return false
	}
	m.setAsked(r, sub.Filter, !r.durable())
	if r.durable() {
		m.subscribe(r, sub, m.here())
	}
	return true
}

// providedSubs makes subscriptions of the topics of a session that has just begun, and has
// no queue.
func providedSubs(topics []string) (subs []storedSub) {
	for _, name := range topics {
		subs = append(subs, storedSub{Subscription: event.Subscription{Filter: name, QoS: providedQoS}})
	}
	return subs
}

// provided begins a subscription that the client has not asked for. In the delivery loop.
func (s *Session) provided(topicName string, since uint64, now int64) {
	if s.subs[topicName] != nil && s.returning == nil {
		return // of a session that comes back it may have been read already, as what was asked for
	}
	if !s.durable {
		since = s.b.loop.position()
	}
	l := s.attach(event.Subscription{Filter: topicName, QoS: providedQoS}, since, 0, now)
	l.asked = true
	s.reshow(topicName)
	s.scanning.add(scan{sub: l, since: since, initial: true})
	s.scanning.runIfStarted()
}
