package broker

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
)

// fanoutCache bounds how many topics' lists of durable subscribers are kept.
const fanoutCache = 1 << 16

// A fanout is who among the durable sessions has events of one topic queued.
// The lists are built once per topic by the index and belong to the Machine's
// goroutine; a policy change drops them all.
type fanout struct{ targets []target }

// fewSubscriptions is how many durable subscriptions there must be before events
// are weighed: what fewer can make of a batch needs no bound.
const fewSubscriptions = 64

// filterWeight is how many queue entries a filter costs as much as that is subscribed to or
// given up, in the Machine and on the node of the session.
const filterWeight = 8

// weigh returns how many queue entries c may become by the subscriptions there are
// now, or costs as much as. For any goroutine. Looking does not build a fanout: those
// are the Machine's own.
func (m *Machine) weigh(c event.Command) (entries int) {
	switch c := c.(type) {
	case *event.Publish:
		return m.weighEvent(c.Event)
	case *event.Subscribe:
		return filterWeight * len(c.Subs)
	case *event.Request:
		return filterWeight * len(c.Subs)
	case *event.Unsubscribe:
		return filterWeight * len(c.Filters)
	}
	return 0
}

func (m *Machine) weighEvent(e *event.Event) (entries int) {
	if e.QoS == 0 {
		return 0
	}
	subs := m.weights.Load()
	if subs.Len() >= fewSubscriptions {
		subs.Match(e.Topic, func(string, uint64, storedSub) { entries++ })
	}
	if groups := m.sharedWeights.Load(); groups.Len() >= fewSubscriptions {
		groups.Match(e.Topic, func(string, uint64, *group) { entries++ })
	}
	if streams := m.streamWeights.Load(); streams != nil { // each is one, whoever has joined it
		streams.Match(e.Topic, func(string, uint64, *stream) { entries++ })
	}
	return entries
}

// A target is one session with all its subscriptions that match the topic,
// merged: the highest QoS and every identifier, one copy (5.0 3.3.4).
type target struct {
	r *record
	merged

	first uint64 // the least of the subscriptions' (see storedSub)

	// own is what is left for events of the session itself: without the
	// subscriptions that said No Local. nil if none said so.
	own *merged

	verdict Decision
	judged  int64 // the instant verdict is about; it holds until verdict.Until
	known   bool
}

type merged struct {
	qos    uint8
	retain bool // Retain As Published
	any    bool // there is a subscription at all
	ids    []uint32
}

func (g *merged) add(s *event.Subscription) {
	g.any = true
	g.qos = max(g.qos, s.QoS)
	g.retain = g.retain || s.RetainAsPublished
	if s.ID != 0 && len(g.ids) < maxIDs {
		g.ids = append(g.ids, s.ID)
	}
}

// maxIDs bounds the Subscription Identifiers of one delivery: a session may have
// 65,536 filters that match one name, and each queue entry would carry as many.
const maxIDs = 64

// idBytes is what one of them is charged for.
const idBytes = 4

// fanoutOf builds the list of one topic.
func (m *Machine) fanoutOf(_ string, matches []topic.Entry[uint64, storedSub]) *fanout {
	f := &fanout{}
	sortEntries(matches)
	for i := 0; i < len(matches); {
		t := target{r: m.numbers[matches[i].Key], first: matches[i].Value.first}
		from := i
		i = mergeMatches(matches, i, &t.merged, &t.own, func(s storedSub) *event.Subscription { return &s.Subscription })
		for _, match := range matches[from:i] {
			t.first = min(t.first, match.Value.first)
		}
		if t.r != nil && t.qos > 0 {
			f.targets = append(f.targets, t)
		}
	}
	return f
}

// sortEntries makes the entries of one session neighbours, and their order the
// same on every node.
func sortEntries[V any](entries []topic.Entry[uint64, V]) {
	slices.SortFunc(entries, func(a, b topic.Entry[uint64, V]) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Filter, b.Filter))
	})
}

// mergeMatches merges the matches from i on that have the same key into all
// and, if any of them said No Local, the others into own. It returns the index
// of the next key's first match.
func mergeMatches[V any](matches []topic.Entry[uint64, V], i int, all *merged, own **merged, sub func(V) *event.Subscription) int {
	first := i
	noLocal := false
	for ; i < len(matches) && matches[i].Key == matches[first].Key; i++ {
		s := sub(matches[i].Value)
		all.add(s)
		noLocal = noLocal || s.NoLocal
	}
	if noLocal {
		*own = &merged{}
		for _, match := range matches[first:i] {
			if s := sub(match.Value); !s.NoLocal {
				(*own).add(s)
			}
		}
	}
	return i
}

// of returns what the target gets of events that origin published, nil for
// nothing.
func (t *target) of(origin uint64) *merged {
	if t.own == nil || origin != t.r.session {
		return &t.merged
	}
	if !t.own.any {
		return nil
	}
	return t.own
}

// permitted answers, deterministically, whether the target may have an event
// of topic that happened at at, and when its window closes (0: never).
func (t *target) permitted(m *Machine, topicName string, at int64) (ok bool, until int64) {
	if !t.known || at < t.judged || t.verdict.Until != 0 && at >= t.verdict.Until {
		if m.policy == nil {
			return false, 0
		}
		t.verdict = decideFor(m.profiles, m.read, m.policy, Who{Principal: t.r.principal, Client: t.r.client}, ActSubscribe, topicName, at)
		t.judged, t.known = at, true
	}
	return t.verdict.Allow, t.verdict.Until
}

// applyPublish orders one event: it is retained, queued for durable sessions,
// and handed to the nodes for the clients they hold. c.Event belongs to m.out.
func (m *Machine) applyPublish(c *event.Publish) error {
	e := c.Event
	if ahead := e.At - m.now; ahead > 0 { // a clock ahead of the log's gains nothing
		e.At = m.now
		if e.Expires != 0 && m.level >= LevelDelayed && IsDelayed(e.Topic) {
			e.Expires -= ahead // it is a span, not an instant: see delay
		}
	}
	if e.Origin != 0 {
		r, err := m.current(e.Origin, c.Epoch)
		if err != nil {
			return err
		}
		if c.PacketID != 0 {
			if _, repeat := r.inbound[c.PacketID]; repeat {
				return nil // routed when it first came (5.0 [MQTT-4.3.3-10])
			}
		}
		e.Client, e.Principal = r.client, r.principal
		if err := m.takeEffect(e, r); err != nil {
			return err
		}
		if c.PacketID != 0 {
			r.remember(c.PacketID)
			m.tx.Set(inboundKey(m.key, r.session, c.PacketID), nil)
		}
		return nil
	}
	return m.takeEffect(e, nil)
}

// takeEffect does what e asks for: a profile applies what is published to its
// topics, everything else is retained, if it asks for that, and routed. r is
// who published it, nil for the broker.
func (m *Machine) takeEffect(e *event.Event, r *record) error {
	if r != nil && m.level >= LevelDelayed && IsDelayed(e.Topic) {
		return m.delay(e, r)
	}
	if p := m.profileFor(e.Topic); p != nil && r != nil {
		if m.policy == nil {
			return &Refusal{Reason: noPolicy}
		}
		who := Who{Principal: r.principal, Client: r.client}
		if d := m.policy.Ceiling(who, ActPublish, e.Topic, e.At); !d.Allow {
			return m.refuseInLog(who, ActPublish, e.Topic, e.At, d.Reason)
		}
		return m.applyProfile(p, e, r)
	}
	if err := m.retain(e); err != nil {
		return err
	}
	m.route(e)
	return nil
}

// applyRelease forgets a QoS 2 packet id.
func (m *Machine) applyRelease(c *event.Release) error {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	if _, ok := r.inbound[c.PacketID]; !ok {
		return ErrNoPacketID
	}
	delete(r.inbound, c.PacketID)
	m.tx.Delete(inboundKey(m.key, r.session, c.PacketID))
	return nil
}

func inboundKey(buf []byte, session uint64, id uint16) []byte {
	return store.AppendUint16(store.AppendUint64(store.Key(buf, store.Inbound), session), id)
}

// route queues e for the durable sessions that subscribe to it and may see it,
// and adds it to what the nodes deliver.
func (m *Machine) route(e *event.Event) {
	e.Position = m.here()
	from, handed := len(m.out.queued), len(m.out.handed)
	body := uint64(0)
	if e.QoS > 0 {
		body = m.queueFor(e)
	}
	m.share(e, body)
	m.out.steps = append(m.out.steps, step{
		kind: stepEvent, event: e, from: from, until: len(m.out.queued), handedFrom: handed, handedUntil: len(m.out.handed),
	})
}

// queueFor queues e for durable sessions' own subscriptions, and returns the number
// of its body, 0 if it was not stored for itself.
func (m *Machine) queueFor(e *event.Event) (body uint64) {
	streams := m.streamsOf(e)
	f := m.fanouts().LookupString(e.Topic)
	if len(streams) > 0 {
		body = m.storeBody(e)
	} else if len(f.targets) > 1 {
		body = m.bodyIfShared(f, e)
	}
	for _, s := range streams {
		m.extend(s, e, body)
	}
	for i := range f.targets {
		t := &f.targets[i]
		g := t.of(e.Origin)
		if t.r.over || g == nil || g.qos == 0 || m.except != nil && m.except(t.r.session) || m.has(t.r, streams) {
			continue
		}
		ok, until := t.permitted(m, e.Topic, e.At)
		if !ok || m.dropsForQuota(t.r, e.Size()) {
			continue
		}
		m.enqueue(t.r, e, queued{
			qos: min(g.qos, e.QoS), retain: g.retain && e.Retain, deadline: until, ids: g.ids,
		}, body)
	}
	return body
}

// bodyIfShared stores e as a body if more than one session will queue it.
func (m *Machine) bodyIfShared(f *fanout, e *event.Event) uint64 {
	n := 0
	for i := range f.targets {
		t := &f.targets[i]
		if g := t.of(e.Origin); t.r.over || g == nil || g.qos == 0 || m.except != nil && m.except(t.r.session) {
			continue
		}
		if ok, _ := t.permitted(m, e.Topic, e.At); ok {
			if n++; n > 1 {
				return m.storeBody(e)
			}
		}
	}
	return 0
}

// A stored retained event: version u8 = 1 | its position in the log, 8 bytes | event; or
// version u8 = 2 | position | the domain of who has published it, or ofNobody, with its length
// in front | event.
const retainedOf = 2

func retainedKey(buf []byte, topicName string) []byte {
	return append(store.Key(buf, store.Retained), topicName...)
}

func decodeRetained(b []byte, e *event.Event) error {
	if len(b) < 9 || b[0] != recordVersion && b[0] != retainedOf {
		return event.ErrDamaged
	}
	rest, ok := b[9:], true
	if b[0] == retainedOf {
		_, rest, ok = cutName(rest)
	}
	if !ok {
		return event.ErrDamaged
	}
	if err := e.Decode(rest); err != nil {
		return err
	}
	e.Position = store.Uint64At(b, 1)
	return nil
}

// retainedBy returns what retainsAs said of what b, which can be decoded, has.
func retainedBy(b []byte) string {
	if b[0] != retainedOf {
		return ""
	}
	by, _, _ := cutName(b[9:])
	return by
}

// countRetained counts a topic more, or one less, that has what is counted by that.
func (m *Machine) countRetained(by string, n int) {
	m.nobody.addRetained(by, n)
	if by != ofNobody {
		c := m.domains.named(by)
		c.add(useRetained, n)
		m.domains.prune(c)
	}
}

// appendRetained appends the stored form of e, without it for who appends that.
func appendRetained(b []byte, position uint64, by string) []byte {
	if by == "" {
		return store.AppendUint64(append(b, recordVersion), position)
	}
	return store.AppendName(store.AppendUint64(append(b, retainedOf), position), by)
}

// retain keeps e as the topic's present value if it asks for that; an empty
// payload removes the value (5.0 [MQTT-3.3.1-6]).
func (m *Machine) retain(e *event.Event) error {
	if !e.Retain {
		return nil
	}
	old := m.retainedNow(e.Topic)
	key := retainedKey(m.key, e.Topic)
	if len(e.Payload) == 0 || e.Momentary() { // what is for whoever is there leaves nothing for who comes later
		if old.exists {
			m.tx.Delete(key)
			m.retained.Add(-1)
			m.countRetained(old.by, -1)
		}
		m.letLast(e.Topic, old)
		m.fresh[e.Topic] = presentValue{}
		return nil
	}
	by := m.retainsAs(e)
	if by != ofNobody && (by != old.by || !old.exists) {
		if err := m.domains.named(by).room(useRetained, 1); err != nil {
			return err
		}
	}
	if err := m.roomForRetained(by, old); err != nil {
		return err
	}
	if !old.exists {
		m.retained.Add(1)
	} else {
		m.countRetained(old.by, -1)
	}
	m.countRetained(by, 1)
	origin := e.Origin
	e.Origin = m.keptOrigin(e)
	m.tx.Set(key, e.Append(appendRetained(m.val[:0], m.here(), by)))
	e.Origin = origin
	m.letLast(e.Topic, old)
	m.fresh[e.Topic] = presentValue{exists: true, expires: e.Expires, by: by}
	if e.Expires != 0 {
		m.setWakeName(e.Expires, wakeRetained, e.Topic)
	}
	return nil
}

// letLast sees to it that nothing comes of a topic's value when it would have expired.
func (m *Machine) letLast(topicName string, old presentValue) {
	if old.expires != 0 {
		m.tx.Delete(wakeNameKey(m.key, old.expires, wakeRetained, topicName))
	}
}

// A presentValue is what there is to know of a topic's retained value.
type presentValue struct {
	exists  bool
	expires int64
	by      string // see retainsAs
}

// retainedNow returns the topic's value as the commands so far left it: this
// entry's are in memory, for the Tx cannot be read.
func (m *Machine) retainedNow(topicName string) presentValue {
	if f, ok := m.fresh[topicName]; ok {
		return f
	}
	var ok bool
	if m.body, ok = m.store.Get(retainedKey(m.key, topicName), m.body); !ok {
		return presentValue{}
	}
	var e event.Event
	if err := decodeRetained(m.body, &e); err != nil {
		panic(fatal{"retained event: " + err.Error()})
	}
	return presentValue{exists: true, expires: e.Expires, by: retainedBy(m.body)}
}

// expireRetained removes a topic's value if it has expired; another value may
// have taken its place.
func (m *Machine) expireRetained(topicName string) {
	key := retainedKey(m.key, topicName)
	v, ok := m.store.Get(key, nil)
	if _, fresh := m.fresh[topicName]; !ok || fresh {
		return
	}
	var e event.Event
	if err := decodeRetained(v, &e); err != nil {
		panic(fatal{"retained event: " + err.Error()})
	}
	if e.Expired(m.now) {
		m.tx.Delete(key)
		m.retained.Add(-1)
		m.countRetained(retainedBy(v), -1)
		m.fresh[strings.Clone(topicName)] = presentValue{}
	}
}

// applyReplay queues retained events for a durable session's subscription.
func (m *Machine) applyReplay(c *event.Replay) error {
	r, err := m.current(c.Session, c.Epoch)
	if err != nil {
		return err
	}
	s, ok := m.durable.Value(c.Filter, c.Session)
	if !ok {
		return nil // unsubscribed in the meantime
	}
	at := min(c.At, m.now)
	who := Who{Principal: r.principal, Client: r.client}
	for _, name := range c.Topics {
		m.replay(r, &s, who, name, c.After, at)
	}
	if c.Position != "" || c.Final {
		s.replaying, s.position = !c.Final, strings.Clone(c.Position)
		m.setSub(r, &s)
		m.writeSub(r, &s)
	}
	return nil
}

func (m *Machine) replay(r *record, s *storedSub, who Who, name string, after uint64, at int64) {
	if mayWatch(m.profiles, name) {
		m.replayMark(r, s, name)
		return
	}
	if _, fresh := m.fresh[name]; fresh {
		return // this entry's value goes out as a live event
	}
	v, ok := m.store.Get(retainedKey(m.key, name), nil)
	if !ok {
		return
	}
	e := m.out.newEvent()
	if err := decodeRetained(v, e); err != nil {
		panic(fatal{"retained event: " + err.Error()})
	}
	if e.Position > after || e.Expired(m.now) || m.policy == nil || s.NoLocal && isOwn(e.Origin, r.session, r.client) {
		return
	}
	d := m.policy.Decide(who, ActSubscribe, name, at)
	qos := min(s.QoS, e.QoS)
	if !d.Allow || qos == 0 {
		return
	}
	q := queued{qos: qos, retain: true, deadline: d.Until}
	if s.ID != 0 {
		q.ids = []uint32{s.ID}
	}
	from := len(m.out.queued)
	m.enqueue(r, e, q, 0)
	m.out.steps = append(m.out.steps, step{kind: stepReplayed, event: e, from: from, until: len(m.out.queued)})
}
