package broker

import "github.com/bellwire/bellwire/broker/event"

// Events that are kept in memory only. The operator may say of plain topics that they
// need no log (`durability: memory`). What is published there at QoS 1 or 2 goes the way
// of QoS 0: the publisher's own goroutine hands it to who is connected here, and to the
// links to the nodes where others are. Then it is acknowledged.
//
// What the acknowledgement promises is what that is: it waits in the outputs, and
// bounded lists, of the sessions that were connected and may have it, and in the links.
// Who takes it acknowledges it, in the same order with the same ids as else, and is sent
// nothing twice but PUBREL. Whoever's connection ends first, or whose node dies, does
// not get it, nor do those behind a link that breaks or is full: it is counted.
//
// The log takes it all the same where it is to be kept for somebody: retained; behind an
// earlier publish of its client that is not ordered yet; where a session that outlives
// its connection, or a group, subscribes to the topic at QoS 1 or 2; while a node of
// the cluster cannot be reached; of QoS 2, if the publisher's own session outlives
// its connection, for only the log knows over connections which packet ids it has had.
// So nothing has less than it was promised, and a durable session's queue has all.
//
// Wills are in the log with their sessions, and take it. What profiles serve is never
// kept in memory only.

// A memorizer is an Authorizer that says which topics' events are kept in memory only.
type memorizer interface{ Memory(topicName string) bool }

// inMemory says whether ev, of QoS 1 or 2 and no profile's, is kept in memory only.
func (s *Session) inMemory(ev *event.Event) bool {
	return !ev.Retain && s.verdicts[ev.Topic].memory && s.pending.Load() == 0 && !(ev.QoS == 2 && s.durable) && !s.b.silence.all.Load() && s.b.Level() >= levelMemory && !s.b.machine.keeps(ev.Topic) && s.b.reached()
}

// publishInMemory hands ev to everybody who gets it.
func (s *Session) publishInMemory(ev *event.Event, packetID uint16, now int64, w *Wave) error {
	if ev.QoS == 2 && s.remember(packetID) {
		return nil // routed when it first came
	}
	s.b.stats.Published[ev.QoS].Add(1)
	s.b.stats.InMemory.Add(1)
	s.b.deliverHere(ev, now, w)
	return nil
}

// reached says whether every node of the cluster has a link now: of one that has not
// nobody knows whether it wants something.
func (b *Broker) reached() bool {
	for _, p := range *b.relays.list.Load() {
		if p.up.Load() {
			continue
		}
		if log, ok := b.log.(membership); !ok || log.Member(p.node) {
			return false
		}
	}
	return true
}

// keeps says whether the log keeps a topic's events for somebody: a durable session at
// QoS 1 or 2, or a group. For any goroutine. A subscription that is on its way counts
// from when it is applied here; see audience.deliver for what comes in between.
func (m *Machine) keeps(topicName string) (keeps bool) {
	if subs := m.weights.Load(); subs.Len() > 0 {
		subs.Match(topicName, func(_ string, _ uint64, s storedSub) { keeps = keeps || s.QoS > 0 })
	}
	if groups := m.sharedWeights.Load(); !keeps && groups.Len() > 0 {
		groups.Match(topicName, func(string, uint64, *group) { keeps = true })
	}
	if streams := m.streamWeights.Load(); !keeps && streams != nil && streams.Len() > 0 {
		streams.Match(topicName, func(string, uint64, *stream) { keeps = true })
	}
	return keeps
}
