package broker

import (
	"sync"
	"sync/atomic"
)

// Stats count what the broker did since it started. They add up: every event
// that matched a subscriber was delivered, queued, or is in one of the others.
type Stats struct {
	Published        [3]atomic.Uint64 // events accepted, by QoS
	InMemory         atomic.Uint64    // of these, at QoS 1 and 2, that no log has
	PublishRefused   atomic.Uint64    // by policy, quota or reserved topic; wills too
	Delivered        [3]atomic.Uint64 // events handed to a connection, by QoS sent
	Queued           atomic.Uint64    // entries added to durable queues
	Withheld         atomic.Uint64    // deliveries that the policy or a window did not permit
	Shut             atomic.Uint64    // of these, what would be permitted at a later time
	Expired          atomic.Uint64    // deliveries whose event had expired
	TooLarge         atomic.Uint64    // deliveries over the client's Maximum Packet Size
	QueueDropped     atomic.Uint64    // entries that a queue's bound pushed out
	SlowEnded        atomic.Uint64    // connections ended for not taking what they were sent
	Sessions         atomic.Int64     // connected here
	Subscriptions    atomic.Int64     // that these have
	SharedHere       atomic.Int64     // of them, shared ones
	Takeovers        atomic.Uint64    // connections ended by a later one
	Replayed         atomic.Uint64    // retained events sent to subscribers
	Coalesced        atomic.Uint64    // changes of a resource that were not shown at once, for there were too many
	ShownForgotten   atomic.Uint64    // resources of which it was forgotten that a session was shown them, by wildcards
	WindowsOpened    atomic.Uint64    // edges passed at which something may have opened or closed
	SubscribeDenied  atomic.Uint64
	FetchesUnnoted   atomic.Uint64 // by whom and what, of which there were too many to note
	RelaySent        atomic.Uint64 // events that no log has, handed to links, once for each node
	RelayLost        atomic.Uint64 // of those for which a link had no room, or was not there
	RelayReceived    atomic.Uint64 // events that other nodes relayed here
	RelayUnwanted    atomic.Uint64 // of these, to which nobody here subscribes
	RelayDropped     atomic.Uint64 // frames of events for which there was no room while the log was behind
	RelayRefused     atomic.Uint64 // messages of other nodes that could not be read, or not wholly
	SharedReturned   atomic.Uint64 // copies of shared subscriptions that went from one member to another, or to wait for one
	BodiesCopied     atomic.Uint64 // events stored anew, because little else was left of their segment
	BytesCopied      atomic.Uint64 // and what they take
	SharedRefused    atomic.Uint64 // SUBSCRIBEs for more shared subscriptions than a session, or groups than a principal, may have
	SharedLost       atomic.Uint64 // QoS 0 events that nobody of a group could take
	Unheard          atomic.Uint64 // SUBACKs sent before all nodes had heard of the filters
	Silences         atomic.Uint64 // times that no leader was heard of for a second
	Lives            atomic.Uint64 // this node's lives that the log has closed
	DelayedPublished atomic.Uint64 // events that were published when their time had come
	GivenRefused     atomic.Uint64 // subscriptions that the policy gives, and its rules or bounds do not let clients here have
	DelayedRefused   atomic.Uint64 // and that were not, for the policy did not permit it any more
}

// Stats returns the counters.
func (b *Broker) Stats() *Stats { return &b.stats }

// Retained returns how many topics have a retained event.
func (b *Broker) Retained() int64 { return b.machine.retained.Load() }

// countSubscription counts that a session here has one more, or less.
func (b *Broker) countSubscription(l *localSub, more int64) {
	b.stats.Subscriptions.Add(more)
	if l.isShared() {
		b.stats.SharedHere.Add(more)
	}
}

// SharedWaiting returns how many events wait for a member of their group.
func (b *Broker) SharedWaiting() int64 { return b.machine.sharedWaiting.Load() }

// BodySegments returns how many segments there are of events that several queues share,
// each of 1,024.
func (b *Broker) BodySegments() int64 { return b.machine.segmentsShown.Load() }

// SessionsWaiting returns how many sessions wait for their clients, which are connected
// nowhere, and how many subscriptions those have.
func (b *Broker) SessionsWaiting() (sessions, subscriptions int64) {
	return b.machine.awaiting.sessions.Load(), b.machine.awaiting.subscriptions.Load()
}

// QueuesHold returns how many events wait in queues of durable sessions and of groups, one
// that waits in several counted in each, and how many bytes they are charged for.
func (b *Broker) QueuesHold() (events, bytes int64) {
	return b.machine.awaiting.events.Load(), b.machine.awaiting.bytes.Load()
}

// SessionsExpired returns how many sessions this node has seen expire in the log since it was
// started.
func (b *Broker) SessionsExpired() uint64 { return b.machine.awaiting.expired.Load() }

// SessionsKnown returns how many sessions there are, connected anywhere or not.
func (b *Broker) SessionsKnown() int64 { return b.machine.known.Load() }

// An awaiting counts what waits for clients, as the Machine applies: sessions that are connected
// nowhere, and what is in queues. The Machine alone writes it.
type awaiting struct {
	sessions, subscriptions atomic.Int64
	events, bytes           atomic.Int64
	expired                 atomic.Uint64
}

// Overs count what bounds have refused since the node was started, by the names that the
// bounds have for people: as it applied the log, or before. What is rolled back stays counted.
type overs struct {
	mu sync.Mutex
	n  map[string]uint64
}

func (o *overs) add(limit string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = map[string]uint64{}
	}
	o.n[limit]++
}

// Over returns how often a bound has refused something since this node was started: sessions,
// sessions.perPrincipal, subs.perSession, share.members,
// share.perSession, share.groupsPerPrincipal, retained.topics, or one that a profile has noted
// (ProfileTx.Over, Publication.Over). For any goroutine.
func (b *Broker) Over(limit string) uint64 {
	o := &b.machine.overs
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[limit]
}

// Over notes that a bound of the profile's, of that name, has refused something.
func (t *ProfileTx) Over(limit string) { t.m.overs.add(limit) }

// CountOver is that of ProfileTx for who asks before the broker is asked. For any goroutine.
func (b *Broker) CountOver(limit string) { b.machine.overs.add(limit) }

// Over is that of ProfileTx, for Admit only.
func (p *Publication) Over(limit string) { p.node.machine.overs.add(limit) }

// charge counts what a queue has grown by.
func (m *Machine) charge(r *record, events, bytes int64) {
	r.use.add(useQueueBytes, int(bytes))
	m.awaiting.events.Add(events)
	m.awaiting.bytes.Add(bytes)
}

// countWaitingSessions counts anew what waits.
func (m *Machine) countWaitingSessions() {
	var sessions, subscriptions, events, bytes int64
	for _, r := range m.sessions { // in any order: a sum
		events, bytes = events+int64(r.queue.count), bytes+r.queue.bytes
		if !r.connected() {
			sessions, subscriptions = sessions+1, subscriptions+int64(r.subs)
		}
	}
	for _, g := range m.groups {
		events, bytes = events+int64(g.queue.count), bytes+g.queue.bytes
	}
	m.awaiting.sessions.Store(sessions)
	m.awaiting.subscriptions.Store(subscriptions)
	m.awaiting.events.Store(events)
	m.awaiting.bytes.Store(bytes)
}
