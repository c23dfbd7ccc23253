package broker

import (
	"slices"
	"sort"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// Subscriptions that are requests (RFC 6665, RFC 3857).
//
// A SUBSCRIBE to a resource by its name asks its owner for something. Where the
// resource's profile is a Notifier, the request is ordered, also for a session that
// ends with its connection, and the profile answers it in log order, the same on
// every node; SUBACK comes after that. From then on the subscription has a life in
// the profile's state, which the profile can end: then the log takes it out of the
// session, wherever that is, as it does with those that end with their windows (see
// apply_ends).
//
// For sessions without a queue the log otherwise knows no subscriptions. What they
// subscribe to by request it keeps by session, as it does for all: so that whoever
// has asked is known to be gone when the session ends. Where a domain's subscriptions
// are bounded (DomainQuota), it keeps all of theirs so.
//
// Who subscribes by wildcard asks nobody, and is shown what it may see; see wide.go.

// A Notifier is a Viewer whose owners have a say in who subscribes to their resources,
// and learn of it.
type Notifier interface {
	Viewer

	// CheckRequest refuses what can be refused without the log: options that
	// nobody could grant. It is asked of filters with wildcards, too, of which the
	// profile hears nothing else. It depends on nothing else.
	CheckRequest(who Who, filter string, options []byte) error

	// Subscribed is called in log order when a session subscribes to a resource by
	// its name, anew or again. An error is what its client is told: then it has
	// no new subscription, and one that it had stays, unless the profile ends it. What the
	// profile has written stays, so that an owner may learn of whom it has refused.
	Subscribed(tx *ProfileTx, r *Request) error

	// Unsubscribed is called when that is over otherwise than by
	// ProfileTx.EndSubscription: because its client said so, or with its session.
	Unsubscribed(tx *ProfileTx, who Who, session uint64, topicName string, gone bool)

	// SubscriptionState returns what who is told of its own subscription to a
	// resource, at the instant at, by what get returns of the profile's keys.
	SubscriptionState(get func(key string) []byte, who Who, topicName string, at int64) Shown

	// SubscriptionsKey returns the prefix of those of the profile's keys behind
	// which the topics follow of who's subscriptions.
	SubscriptionsKey(who Who) string
}

// A Request is one subscription that a session asks for.
type Request struct {
	Who
	Session uint64
	Topic   string
	Options []byte // the SUBSCRIBE's User Properties, as Event.Props
	Lasting bool   // the session outlives its connection
	Known   bool   // the session subscribes to it already

	// Provided says that the session has not asked: its principal is provided with it.
	Provided bool

	// Once is set by Subscribed if the state is to be shown once, and nothing more:
	// a subscription that there was has ended.
	Once bool

	// Answer is what Subscribed has the client told with SUBACK: User Properties.
	Answer []byte
}

// notifierOf returns the profile that a filter is a request to, nil for none.
func notifierOf(profiles map[string]Profile, filter string) Notifier {
	n, ok := profileOf(profiles, filter).(Notifier)
	if !ok || topic.HasWildcard(filter) {
		return nil
	}
	return n
}

// applyRequest sets subscriptions, of which some are requests.
func (m *Machine) applyRequest(c *event.Request) (*subscribed, error) {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return nil, err
	}
	plain := event.Subscribe{Session: c.Session, Epoch: c.Epoch}
	if err := m.checkSubscribe(r, c.Subs); err != nil {
		return nil, err // before anything is changed
	}
	// One that is named twice, and granted first, is granted: its node is told of each filter
	// whether the session has it.
	refused, once, granted := map[string]error{}, map[string]bool{}, map[string]bool{}
	var answer []byte
	for i := range c.Subs {
		s := &c.Subs[i]
		n, wide := notifierOf(m.profiles, s.Filter), m.wideFor(r.principal, s.Filter)
		if (n != nil || len(wide) > 0) && m.level >= LevelRequests {
			q := Request{
				Who: Who{Principal: r.principal, Client: r.client}, Session: r.session, Topic: strings.Clone(s.Filter),
				Options: c.Props, Lasting: r.durable(), Known: m.hasAsked(r.session, s.Filter),
			}
			if err = m.namelessMore(r, &q); err != nil {
				refused[q.Topic] = err
				continue
			}
			if n != nil {
				err = n.Subscribed(&ProfileTx{m: m, prefix: n.Prefix()}, &q)
			} else {
				err = m.askWide(wide, &q)
			}
			if err != nil && !granted[q.Topic] {
				refused[q.Topic] = err
				continue
			}
			answer = append(answer, q.Answer...)
			if q.Once {
				once[q.Topic] = true
				m.dropAsked(r, q.Topic)
				m.dropSub(r, q.Topic)
				continue
			}
			granted[q.Topic] = true
			m.setAsked(r, q.Topic, !c.Queued)
			if !c.Queued {
				continue // the rest is its node's affair
			}
		} else if _, shared := sharedRest(s.Filter); !shared && !c.Queued {
			// It is counted, and its node's affair.
			m.setAsked(r, s.Filter, true)
			continue
		}
		plain.Subs = append(plain.Subs, *s)
	}
	done, err := m.applySubscribe(&plain)
	if err != nil {
		return nil, err
	}
	done.refused, done.once, done.answer = refused, once, answer
	return done, nil
}

// Which resources a session subscribes to by request is in the store, and how many
// of them in memory: sessions that ask for nothing end without a look.

func askedKey(buf []byte, session uint64, topicName string) []byte {
	return append(store.AppendUint64(store.Key(buf, store.Asked), session), topicName...)
}

// An askedHow is what is kept of one.
type askedHow uint8

const (
	notAsked    askedHow = iota
	askedQueued          // the session has the subscription, too
	askedLoose           // it has not: its node knows it, and here it is counted
)

// looseValue is what the store has under the key of a loose one; of others nothing.
var looseValue = []byte{1}

func askedOf(value []byte) askedHow {
	if len(value) > 0 {
		return askedLoose
	}
	return askedQueued
}

func (m *Machine) askedNowOf(session uint64, topicName string) askedHow {
	if m.asking[session] == 0 {
		return notAsked
	}
	key := askedKey(nil, session, topicName)
	if is, ok := m.askedNow[string(key)]; ok {
		return is
	}
	value, ok := m.store.Get(key, nil)
	if !ok {
		return notAsked
	}
	return askedOf(value)
}

func (m *Machine) hasAsked(session uint64, topicName string) bool {
	return m.askedNowOf(session, topicName) != notAsked
}

// setAsked notes that a session has asked, also for what is only counted.
func (m *Machine) setAsked(r *record, topicName string, loose bool) {
	if m.hasAsked(r.session, topicName) {
		return
	}
	key, is, value := askedKey(nil, r.session, topicName), askedQueued, []byte(nil)
	if loose {
		is, value = askedLoose, looseValue
		r.countSub(topicName, 1)
	}
	m.tx.Set(key, value)
	m.askedNow[string(key)] = is
	m.asking[r.session]++
}

// dropAsked undoes setAsked and says whether there was anything to undo.
func (m *Machine) dropAsked(r *record, topicName string) bool {
	was := m.askedNowOf(r.session, topicName)
	if was == notAsked {
		return false
	}
	if was == askedLoose {
		r.countSub(topicName, -1)
	}
	key := askedKey(nil, r.session, topicName)
	m.tx.Delete(key)
	m.askedNow[string(key)] = notAsked
	if m.asking[r.session]--; m.asking[r.session] == 0 {
		delete(m.asking, r.session)
	}
	return true
}

// askedBy returns what a session subscribes to by request, sorted.
func (m *Machine) askedBy(session uint64) (topics []string) {
	if m.asking[session] == 0 {
		return nil
	}
	lower := askedKey(nil, session, "")
	m.store.Scan(lower, store.End(lower), func(key, _ []byte) bool {
		if is, ok := m.askedNow[string(key)]; !ok || is != notAsked {
			topics = append(topics, string(key[len(lower):]))
		}
		return true
	})
	for key, is := range m.askedNow { // in any order: it is sorted
		if name, of := strings.CutPrefix(key, string(lower)); of && is != notAsked {
			topics = append(topics, name)
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

func (m *Machine) loadAsked() error {
	m.asking, m.askedNow = map[uint64]int{}, map[string]askedHow{}
	return m.each(store.Asked, "requests", func(key, value []byte) error {
		if len(key) < 9 {
			return event.ErrDamaged
		}
		session := store.Uint64At(key, 0)
		m.asking[session]++
		if r := m.numbers[session]; r != nil && askedOf(value) == askedLoose {
			r.countSub(string(key[8:]), 1)
		}
		return nil
	})
}

// tellUnsubscribed tells a profile that a session has ended a subscription that was a
// request, if that is one.
func (m *Machine) tellUnsubscribed(r *record, filter string, gone bool) (was bool) {
	if !m.dropAsked(r, filter) {
		return false
	}
	if m.bare {
		return true
	}
	who := Who{Principal: r.principal, Client: r.client}
	if n := notifierOf(m.profiles, filter); n != nil {
		n.Unsubscribed(&ProfileTx{m: m, prefix: n.Prefix()}, who, r.session, filter, gone)
	}
	for _, n := range wideOf(m.profiles, m.prefixes, filter) {
		n.UnsubscribedWide(&ProfileTx{m: m, prefix: n.Prefix()}, who, r.session, filter)
	}
	return true
}

// tellGone does that for all that a session has asked for, which ends.
func (m *Machine) tellGone(r *record) {
	for _, name := range m.askedBy(r.session) {
		m.spend(1)
		m.tellUnsubscribed(r, name, true)
	}
}

// EndSubscription takes a subscription that was a request, to a resource or by a filter with
// wildcards, out of a session. Of what it
// has had queued nothing is sent any more.
func (t *ProfileTx) EndSubscription(session uint64, topicName string) {
	m := t.m
	r := m.numbers[session]
	if r == nil || !m.dropAsked(r, topicName) {
		return
	}
	m.dropSub(r, topicName)
	if r.connected() && r.node == m.node && r.life == m.life {
		m.out.steps = append(m.out.steps, step{kind: stepSubEnded, session: r.session, epoch: r.epoch, topic: strings.Clone(topicName)})
	}
}

// ClientOf returns the client id of a session, empty of one that is no more.
func (t *ProfileTx) ClientOf(session uint64) string {
	if r := t.m.numbers[session]; r != nil {
		return r.client
	}
	return ""
}

// Told says that what a principal is told of its subscription to a resource is not
// what it was (Notifier.SubscriptionState).
func (t *ProfileTx) Told(principal, topicName string) {
	if principal != "" {
		t.m.changed(ownSub+topicName, principal)
	}
}

// Each calls yield with the profile's keys that begin with prefix and their values,
// in order, after the key after unless that is empty, until it returns false. The
// values must not be changed, nor may keys be set meanwhile.
func (t *ProfileTx) Each(prefix, after string, yield func(key string, value []byte) bool) {
	m := t.m
	base := resourceKey(nil, t.prefix, "")
	lower := resourceKey(nil, t.prefix, prefix)
	upper := store.End(lower)
	var fresh []string           // set or removed by this entry
	for key := range m.written { // in any order: it is sorted
		if strings.HasPrefix(key, string(lower)) && (after == "" || key[len(base):] > after) {
			fresh = append(fresh, key)
		}
	}
	sort.Strings(fresh)
	if after != "" {
		lower = append(resourceKey(nil, t.prefix, after), 0)
	}
	going := true
	// until yields what is fresh before a key.
	until := func(key string) {
		for going && len(fresh) > 0 && (key == "" || fresh[0] < key) {
			if v := m.written[fresh[0]]; v != nil {
				going = yield(fresh[0][len(base):], v)
			}
			fresh = fresh[1:]
		}
	}
	m.store.Scan(lower, upper, func(key, value []byte) bool {
		if until(string(key)); !going {
			return false
		}
		if len(fresh) > 0 && fresh[0] == string(key) {
			return true // it is yielded before the next one
		}
		going = yield(string(key[len(base):]), value)
		return going
	})
	until("")
}

// Soon has Waker.Wake called by the next entry, or when it is its turn: what is done
// then is of that entry's budget. Asking twice with one entry is asking once.
func (t *ProfileTx) Soon(id string) { t.m.setChoreName(wakeProfile, t.prefix+"\x00"+id) }

// Spend takes note that a wake has done so much, in items of about the cost of taking
// an entry out of a queue, beside one.
func (t *ProfileTx) Spend(items int) { t.m.spend(items) }

// Piece returns how many items more a wake may do; at least 1.
func (t *ProfileTx) Piece() int { return t.m.piece() }
