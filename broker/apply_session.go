package broker

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// current returns the session if epoch is that of its present connection.
func (m *Machine) current(session, epoch uint64) (*record, error) {
	r := m.numbers[session]
	switch {
	case r == nil:
		return nil, ErrSessionEnded
	case r.epoch != epoch || !r.connected():
		return nil, ErrStale
	}
	return r, nil
}

// applyConnect gives the client's session its next epoch, after ending the
// connection it had (5.0 3.1.4, [MQTT-3.1.4-3]).
func (m *Machine) applyConnect(from event.Header, c *event.Connect) (*opened, error) {
	r := m.sessions[c.Client]
	if r != nil && r.principal != c.Principal {
		// Whoever guesses a client id must not get, or discard, the queue of
		// somebody else.
		return nil, &Refusal{Reason: "the client id is in use by another principal"}
	}
	if r == nil {
		if err := m.roomForSession(c.Principal); err != nil {
			return nil, err
		}
	}
	if most := int(m.boundsOf(c.Principal).Sessions); r == nil && most > 0 && len(m.principals.of(c.Principal)) >= most {
		m.overs.add("sessions.perPrincipal")
		return nil, &Refusal{Cause: ErrQuota, Reason: fmt.Sprintf("quota: one user has at most %d sessions", most)}
	}
	if r == nil {
		if err := m.domains.of(c.Principal).room(useSessions, 1); err != nil {
			return nil, err
		}
	}
	if r != nil && r.connected() {
		m.lost(r)
		m.endConnection(r, departure{cause: ErrStale, will: true, cleared: c.Clean, why: codeTakenOver})
		r = m.sessions[c.Client]
	}
	if r != nil && c.Clean {
		m.endSession(r, ErrStale)
		r = nil
	}
	o := &opened{}
	if r != nil {
		m.unpark(r)
	}
	if r == nil {
		m.counters.session++
		r = &record{client: strings.Clone(c.Client), session: m.counters.session}
		m.sessions[r.client], m.numbers[r.session] = r, r
		r.principal = strings.Clone(c.Principal)
		m.principals.add(r.principal, r.session, r)
		m.nobody.addSession(r.principal, 1)
		r.use = m.domains.of(r.principal)
		r.use.add(useSessions, 1)
		r.user = m.userOf(r.principal)
	} else {
		o.present, o.offlineSince = true, r.offlineAt
		if r.seenAt != 0 {
			o.offlineSince = r.seenAt
		}
		m.clearWakes(r)
		if r.will != nil && r.willAt != 0 && r.willAt <= m.now && m.level >= LevelStreams {
			m.publishWill(r) // it was due before its client came back: it is late
		}
		m.awaiting.sessions.Add(-1)
		m.awaiting.subscriptions.Add(-int64(r.subs))
	}
	m.counters.epoch++
	r.epoch, r.version = m.counters.epoch, c.Version
	r.recvMax, r.expiry = max(c.ReceiveMax, 1), c.Expiry
	r.node, r.life, r.offlineAt, r.seenAt = from.Node, from.Incarnation, 0, 0
	r.will, r.willAt = cloneWill(c.Will), 0
	m.writeRecord(r)
	m.tx.Set(heldKey(m.key, r), nil)
	m.tellConnected(r)
	m.tellClient(r, clientChange{connected: true, Clean: &c.Clean, Present: &o.present, from: cloneOrigin(c.Origin)})
	m.present(r)
	if !o.present {
		m.provideAll(r)
		o.given = m.giveAll(r, c.Origin, m.here())
	}

	o.session, o.epoch = r.session, r.epoch
	// One that waited for its client has a queue, whatever becomes of it at
	// the end of this connection.
	o.durable = r.durable() || o.present
	m.payAhead(r)
	if from.Node == m.node && from.Incarnation == m.life {
		if int(r.subs) > m.budget.backs() {
			o.atOnce = m.budget.backs()
		}
		m.describe(r, o)
	}
	if r.queue.dropped != 0 {
		r.queue.dropped = 0
		m.touch(r)
	}
	return o, nil
}

// describe adds to o what the node needs to go on with the session.
func (m *Machine) describe(r *record, o *opened) {
	q := &r.queue
	o.below, o.sent, o.maybe, o.next, o.dropped = q.below, q.sent, q.maybe, q.next, q.dropped
	o.ready = r.ready()
	r.told = o.ready
	o.inFlight, o.untold = m.limits.inFlight(r.recvMax), m.limits.untold()
	o.done = slices.Clone(q.done)
	o.received = append(o.received, q.received...)
	o.inbound = maps.Clone(r.inbound)
	if o.atOnce > 0 {
		for _, g := range r.groups { // in any order
			if s, ok := m.subOf(g.filter, r.session); ok {
				o.subs = append(o.subs, s)
			}
		}
	} else {
		for _, filter := range m.filters(r) {
			if s, ok := m.subOf(filter, r.session); ok {
				o.subs = append(o.subs, s)
			}
		}
	}
	o.asked = m.askedBy(r.session)
	if !r.durable() {
		o.subs = append(o.subs, providedSubs(slices.DeleteFunc(slices.Clone(o.asked), o.isGiven))...)
	}
}

// filters returns the filters of r's subscriptions, and perhaps some that it
// no longer has: those in the store, and those that this entry's Tx, which
// cannot be read, set. Which of them are in force the index knows.
func (m *Machine) filters(r *record) (filters []string) {
	if r.subs == 0 {
		return nil
	}
	filters, read := m.filtersRead[r.session]
	if !read {
		lower := subKey(nil, r.session, "")
		m.store.Scan(lower, store.End(lower), func(key, _ []byte) bool {
			filters = append(filters, string(key[9:]))
			return true
		})
	}
	for _, s := range m.subbed {
		if s.session == r.session {
			filters = append(filters, s.filter)
		}
	}
	// Sorted, not searched for each: one packet can set 25,000 of them.
	slices.Sort(filters)
	return slices.Compact(filters)
}

// applyDisconnect ends the connection of an epoch.
func (m *Machine) applyDisconnect(c *event.Disconnect) error {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	if c.SetExpiry && r.durable() { // 5.0 [MQTT-3.14.2-2]: what was 0 stays 0
		r.expiry = c.Expiry
	}
	if q := &r.queue; c.Exact || c.Sent > q.sent {
		q.sent = min(c.Sent, q.next)
		if c.Exact { // in place of what was presumed: see lost
			q.maybe = min(c.Maybe, q.next)
		}
		q.normalize()
		m.touch(r)
	}
	m.endConnection(r, departure{will: c.PublishWill, why: c.Why})
	m.park(r)
	return nil
}

// A departure is how a connection ends.
type departure struct {
	cause error // what the node that holds the connection is told; nil if it knows
	will  bool  // the will is published
	why   uint8 // as event.Disconnect has it

	// The session is about to be discarded, so that a delay of the will has no meaning
	// (5.0 3.1.3.2.2: the will is sent when the session ends).
	cleared bool
}

// Reason codes of MQTT 5 for what the log ends itself.
const (
	codeNotAuthorized  = 0x87
	codeTakenOver      = 0x8E
	codeAdministrative = 0x98
)

// endConnection makes r a session without a connection: the will is published
// or scheduled, the session ends or its expiry begins.
func (m *Machine) endConnection(r *record, e departure) {
	m.tx.Delete(heldKey(m.key, r))
	m.spend(endWeight)
	if e.cause != nil && r.node == m.node && r.life == m.life {
		m.out.steps = append(m.out.steps, step{kind: stepEnded, session: r.session, epoch: r.epoch, cause: e.cause})
	}
	m.tellClient(r, clientChange{why: e.why})
	r.node, r.life, r.offlineAt = "", 0, m.now
	m.awaiting.sessions.Add(1)
	m.awaiting.subscriptions.Add(int64(r.subs))
	r.queue.recent = recent{}
	for _, g := range r.groups { // before its will is routed, which it must not be given
		g.part(r)
	}
	if !errors.Is(e.cause, ErrStale) {
		m.tellDisconnected(r, e.will)
	}
	switch {
	case r.will == nil:
	case !e.will:
		r.will = nil
	case e.cleared || r.expiry == 0 || r.will.Delay == 0:
		m.publishWill(r)
	default:
		r.willAt = m.now + seconds(min(r.will.Delay, r.expiry))
		m.setWake(r.willAt, wakeWill, r.session, r.epoch)
	}
	if !r.durable() {
		m.endSession(r, nil)
		return
	}
	if r.expiry != event.Never {
		m.setWake(m.now+seconds(r.expiry), wakeExpiry, r.session, r.epoch)
	}
	m.absent(r)
	m.writeRecord(r)
}

// publishWill publishes r's will now, if the logged policy still lets its
// principal: what was permitted at CONNECT may no longer be.
func (m *Machine) publishWill(r *record) {
	w := r.will
	r.will, r.willAt = nil, 0
	if m.bare {
		return
	}
	who := Who{Principal: r.principal, Client: r.client}
	if m.policy == nil || !decideFor(m.profiles, m.read, m.policy, who, ActPublish, w.Topic, m.now).Allow {
		m.out.willsRefused++
		return
	}
	e := m.out.newEvent()
	e.Topic, e.Payload, e.Props, e.QoS, e.Retain = w.Topic, w.Payload, w.Props, w.QoS, w.Retain
	e.At, e.Origin, e.Client, e.Principal = m.now, r.session, r.client, r.principal
	if w.Expires {
		e.Expires = event.ExpiresAt(m.now, w.Expiry)
	}
	if p := m.profileFor(e.Topic); p != nil {
		_ = m.applyProfile(p, e, r) // there is nobody left to refuse it to
		return
	}
	m.publishDue(e)
}

// endSession removes r and all that belongs to it. What may be long, its queue,
// is purged in pieces.
func (m *Machine) endSession(r *record, cause error) {
	if r.connected() {
		m.endConnection(r, departure{cause: cause, will: true, cleared: true, why: codeNotAuthorized})
	}
	if m.numbers[r.session] != r {
		return // ended with its connection
	}
	m.spend(endWeight)
	m.tellGone(r)
	m.clearWakes(r)
	if r.will != nil && r.willAt != 0 {
		m.publishWill(r)
	}
	unsent := uint64(0)
	if len(r.copies) > 0 {
		unsent = r.firstUnsent()
	}
	m.forgive(r)
	delete(m.sessions, r.client)
	delete(m.numbers, r.session)
	m.principals.remove(r.principal, r.session)
	m.nobody.addSession(r.principal, -1)
	if len(m.principals.of(r.principal)) == 0 {
		delete(m.users, r.principal)
	}
	m.tx.Delete(r.key(m.key))
	if r.subs > 0 {
		m.endSubs(r)
	}
	r.over = true
	r.use.add(useSessions, -1)
	m.charge(r, -int64(r.queue.count), -r.queue.bytes)
	m.awaiting.sessions.Add(-1)
	m.domains.prune(r.use)
	m.tx.Delete(cursorKey(m.key, r.session))
	if r.queue.next > 0 {
		m.setChore(wakePurge, r.session, unsent)
	}
	if len(r.inbound) > 0 {
		lower := store.AppendUint64(store.Key(m.key, store.Inbound), r.session)
		m.tx.DeleteRange(lower, store.End(lower))
	}
	r.queueDirty = true // keeps touch from writing it again
}

// dropSubs removes all subscriptions of r.
func (m *Machine) dropSubs(r *record) {
	m.spend(int(r.subs))
	for _, filter := range m.filters(r) {
		if m.leave(r, filter) {
			continue
		}
		if s, ok := m.durable.Value(filter, r.session); ok {
			m.setEnd(r, &s, 0)
			m.deleteSub(r, filter)
			m.addSub(r, filter, -1)
		}
	}
	lower := store.AppendUint64(store.Key(nil, store.Subs), r.session)
	m.tx.DeleteRange(lower, store.End(lower))
}

// applySubscribe sets subscriptions and says which of them retained events are
// to be sent to.
func (m *Machine) applySubscribe(c *event.Subscribe) (*subscribed, error) {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return nil, err
	}
	if err := m.checkSubscribe(r, c.Subs); err != nil {
		return nil, err // before anything is changed: all are refused
	}
	replay := make([]bool, len(c.Subs))
	groups := map[string]uint64{}
	awaited := m.awaitedBy(r, c.Subs)
	here := m.here()
	for i := range c.Subs {
		if _, shared := sharedRest(c.Subs[i].Filter); shared {
			groups[strings.Clone(c.Subs[i].Filter)] = m.joinGroup(r, c.Subs[i], here)
			continue
		}
		replay[i] = m.subscribe(r, c.Subs[i], here)
	}
	m.tellSubscribed(r, awaited)
	return &subscribed{replay: replay, since: here, groups: groups}, nil
}

// subscribe sets a subscription of a session that has a queue, which is no shared one, and
// says whether there may be retained events to be sent to it.
func (m *Machine) subscribe(r *record, sub event.Subscription, here uint64) (replay bool) {
	s := storedSub{Subscription: sub, since: here}
	s.Filter, s.Named = strings.Clone(s.Filter), strings.Clone(s.Named)
	old, had := m.durable.Value(s.Filter, r.session)
	s.ends, s.first = old.ends, old.first
	m.setEnd(r, &s, m.endsAt(r, s.Filter, m.now))
	if !had {
		s.first = r.queue.next
		m.addSub(r, s.Filter, 1)
		m.subbed = append(m.subbed, sessionFilter{r.session, s.Filter})
	}
	wanted := s.RetainHandling == 0 || s.RetainHandling == 1 && !had
	if had && !wanted {
		s.since, s.replaying, s.position = old.since, old.replaying, old.position
	}
	replay = wanted && m.mayHaveRetained(s.Filter)
	s.replaying = s.replaying || replay
	m.setSub(r, &s)
	m.writeSub(r, &s)
	return replay
}

// checkSubscribe says whether r may subscribe to so many.
func (m *Machine) checkSubscribe(r *record, subs []event.Subscription) error {
	if most := int(m.boundsOf(r.principal).SubscriptionsPerSession); int(r.subs)+len(subs) > most && int(r.subs)+m.newFilters(r, subs) > most {
		m.overs.add("subs.perSession")
		return fmt.Errorf("%w: a session has at most %d subscriptions here", ErrQuota, most)
	}
	if err := m.roomForSubs(r, subs); err != nil {
		return err
	}
	if fresh := m.newShared(r, subs); fresh > 0 && m.level < LevelShared {
		return &Refusal{Cause: ErrNotShared, Reason: "not at this level"}
	} else if err := m.tooManyShared(r, subs, fresh); err != nil {
		m.out.sharedRefused++
		return err
	}
	return nil
}

// newFilters counts the filters of subs that r has no subscription to.
func (m *Machine) newFilters(r *record, subs []event.Subscription) int {
	fresh := make(map[string]struct{}, len(subs))
	for i := range subs {
		if _, had := m.subOf(subs[i].Filter, r.session); !had {
			fresh[subs[i].Filter] = struct{}{}
		}
	}
	return len(fresh)
}

// mayHaveRetained says whether there may be retained events that filter
// matches. Most sessions subscribe to names, most of which have none: they are
// spared a scan.
func (m *Machine) mayHaveRetained(filter string) bool {
	return mayWatch(m.profiles, filter) ||
		m.retained.Load() > 0 && (topic.HasWildcard(filter) || m.retainedNow(filter).exists)
}

// applyUnsubscribe removes subscriptions and says which existed. What they had
// queued goes when it is its turn: the node finds no subscription for it.
func (m *Machine) applyUnsubscribe(c *event.Unsubscribe) ([]bool, error) {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return nil, err
	}
	existed := make([]bool, len(c.Filters))
	for i, f := range c.Filters {
		was := m.tellUnsubscribed(r, f, false)
		existed[i] = m.dropSub(r, f) || was
	}
	return existed, nil
}

// dropSub removes a subscription and says whether there was one.
func (m *Machine) dropSub(r *record, filter string) bool {
	s, ok := m.durable.Value(filter, r.session)
	if !ok {
		return m.leave(r, filter)
	}
	m.setEnd(r, &s, 0)
	m.deleteSub(r, filter)
	m.addSub(r, filter, -1)
	m.tx.Delete(subKey(m.key, r.session, filter))
	return true
}

func (m *Machine) writeRecord(r *record) {
	m.tx.Set(r.key(m.key), r.append(m.val[:0]))
}

func (m *Machine) writeSub(r *record, s *storedSub) {
	m.tx.Set(subKey(m.key, r.session, s.Filter), s.append(m.val[:0]))
}

func heldKey(buf []byte, r *record) []byte {
	buf = store.AppendName(store.Key(buf, store.Held), r.node)
	return store.AppendUint64(store.AppendUint64(buf, r.life), r.session)
}

func cursorKey(buf []byte, session uint64) []byte {
	return store.AppendUint64(store.Key(buf, store.Cursors), session)
}

func cloneWill(w *event.Will) *event.Will {
	if w == nil {
		return nil
	}
	c := *w
	c.Topic = strings.Clone(w.Topic)
	c.Payload = append([]byte{}, w.Payload...)
	c.Props = append([]byte{}, w.Props...)
	return &c
}

func cloneOrigin(o *event.Origin) *event.Origin {
	if o == nil {
		return nil
	}
	return &event.Origin{Address: strings.Clone(o.Address), Listener: strings.Clone(o.Listener), KeepAlive: o.KeepAlive}
}

func seconds(n uint32) int64 { return int64(n) * 1e9 }
