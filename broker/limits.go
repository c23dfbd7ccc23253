package broker

import (
	"cmp"
	"fmt"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// Limits bound what one node holds. Zero of any field means its default.
//
// Those down to QueueBytes are about what all nodes hold alike, and decide how
// commands are applied. They are in force as the log has them (see
// Broker.SetSettings); what is configured here is what a node whose log has none
// begins with.
type Limits struct {
	// Sessions is how many sessions may exist, connected or not. 0 means
	// 1,000,000. One more is refused with ErrQuota.
	Sessions int

	// SessionsPerPrincipal is how many of them one principal may have: 0 bounds nothing. One
	// more is refused with ErrQuota, and those there are stay. Clients without a principal are
	// not held to it.
	SessionsPerPrincipal int

	// SubscriptionsPerPrincipal is how many subscriptions one principal may have in all of
	// its sessions, and WildcardsPerPrincipal how many of them may be to filters with
	// wildcards: 0 bounds nothing. One more is refused with ErrQuota, and those there are
	// stay. See userCount.
	SubscriptionsPerPrincipal, WildcardsPerPrincipal int

	// Principals are bounds of single principals, which hold in place of these, as
	// event.Principals has them.
	Principals string

	// SubscriptionsPerSession: 0 means 100,000. One more is refused with
	// ErrQuota.
	SubscriptionsPerSession int

	// GroupMembers is how many sessions may share one subscription: 0 means 10,000. One more
	// is refused with ErrQuota, and those there are stay: what gives an event to a member looks
	// at as many, and who joins or leaves moves them.
	GroupMembers int

	// GroupsPerSession is how many shared subscriptions a session may have: 0 means 32. One
	// more is refused with ErrQuota, and those there are stay. An event is queued once for each,
	// so one client could make much of little.
	GroupsPerSession int

	// GroupsPerPrincipal is how many groups of its founding a principal may have, over all its
	// sessions: 0 means 1,024. Who founds one more is refused with ErrQuota, and may join what
	// there is. Clients without a principal may found as many as their sessions may have.
	GroupsPerPrincipal int

	// RetainedTopics: 0 means 10,000,000. A publish that would retain one
	// more topic is refused with ErrQuota.
	RetainedTopics int

	// QueueEvents and QueueBytes bound the queue of one durable session: 0
	// means 100,000 and 64 MiB. Past either the oldest events that are not
	// under way are dropped, expired ones first, counted, and told at resume.
	// At most half of QueueEvents is under way at once, whatever the client's
	// Receive Maximum.
	QueueEvents int
	QueueBytes  int64

	// VolatileEvents and VolatileBytes bound what waits in memory for a
	// session that ends with its connection: 0 means 10,000 and 8 MiB. Past
	// either the connection ends with ErrSlow. Of any other session names of
	// resources wait there, at most 65,536 of VolatileBytes.
	VolatileEvents int
	VolatileBytes  int64

	// Backlog is how many bytes of commands may wait to be ordered: 0 means
	// 16 MiB. Past it publishers are not read; a quarter more is kept for what
	// frees resources: acknowledgements, disconnects, Ticks.
	Backlog int

	// Subscriptions bounds those of this node's clients, and all durable ones of the cluster,
	// each as many as its topic.Weight says. Clients without a principal may have half. 0
	// means 10,000,000. What is over it is refused with ErrQuota.
	Subscriptions int

	// DeepLevels bounds what one look-up of a topic takes, and so what each event takes
	// whose topic is new: the sum of topic.DeepLevels of all filters of this node, and of
	// all durable ones of the cluster, each once. A session may have an eighth of it, and clients
	// without a principal all together half. 0 means 32,768. Filters that are over it are refused with ErrQuota.
	DeepLevels int

	// SessionExpiryMax caps the session expiry that clients may ask for, in
	// seconds. 0 means no cap.
	SessionExpiryMax uint32

	// SettleEvery is how long acknowledgements of durable deliveries are
	// gathered before they are logged: 0 means 50 ms.
	SettleEvery time.Duration
}

// Defaults of the bounds of shared subscriptions, which no settings have.
const (
	groupMembers       = 10_000
	groupsPerSession   = 32
	groupsPerPrincipal = 1024
)

// WithDefaults returns l with its zero fields replaced.
func (l Limits) WithDefaults() Limits {
	def(&l.Sessions, 1_000_000)
	def(&l.SubscriptionsPerSession, 100_000)
	def(&l.GroupMembers, groupMembers)
	def(&l.GroupsPerSession, groupsPerSession)
	def(&l.GroupsPerPrincipal, groupsPerPrincipal)
	def(&l.RetainedTopics, 10_000_000)
	def(&l.QueueEvents, 100_000)
	def(&l.QueueBytes, 64<<20)
	def(&l.VolatileEvents, 10_000)
	def(&l.VolatileBytes, 8<<20)
	def(&l.Backlog, 16<<20)
	def(&l.Subscriptions, 10_000_000)
	def(&l.DeepLevels, 32_768)
	def(&l.SettleEvery, 50*time.Millisecond)
	return l
}

// Settings returns what the log is to be told of l, its zero fields replaced,
// and of the domain of bare names.
func (l Limits) Settings(domain string) event.Settings {
	l = l.WithDefaults()
	unless := func(bound, usual int) uint64 { // settings of before there was the bound have none
		if bound == usual {
			return 0
		}
		return uint64(bound)
	}
	return event.Settings{
		Domain: domain, Sessions: uint64(l.Sessions), SubscriptionsPerSession: uint64(l.SubscriptionsPerSession),
		RetainedTopics: uint64(l.RetainedTopics), QueueEvents: uint64(l.QueueEvents), QueueBytes: uint64(l.QueueBytes),
		SessionsPerPrincipal: uint64(l.SessionsPerPrincipal), SubscriptionsPerPrincipal: uint64(l.SubscriptionsPerPrincipal), WildcardsPerPrincipal: uint64(l.WildcardsPerPrincipal),
		Principals: l.Principals, GroupMembers: unless(l.GroupMembers, groupMembers),
		GroupsPerSession: unless(l.GroupsPerSession, groupsPerSession), GroupsPerPrincipal: unless(l.GroupsPerPrincipal, groupsPerPrincipal),
	}
}

// Agreed returns l with what s says in its place.
func (l Limits) Agreed(s *event.Settings) Limits {
	l.Sessions, l.SubscriptionsPerSession = int(s.Sessions), int(s.SubscriptionsPerSession)
	l.SessionsPerPrincipal = int(s.SessionsPerPrincipal)
	l.SubscriptionsPerPrincipal, l.WildcardsPerPrincipal = int(s.SubscriptionsPerPrincipal), int(s.WildcardsPerPrincipal)
	l.Principals = s.Principals
	l.GroupMembers = int(cmp.Or(s.GroupMembers, groupMembers))
	l.GroupsPerSession = int(cmp.Or(s.GroupsPerSession, groupsPerSession))
	l.GroupsPerPrincipal = int(cmp.Or(s.GroupsPerPrincipal, groupsPerPrincipal))
	l.RetainedTopics, l.QueueEvents, l.QueueBytes = int(s.RetainedTopics), int(s.QueueEvents), int64(s.QueueBytes)
	return l
}

// checkSettings says what is wrong with s.
func checkSettings(s *event.Settings) error {
	for _, f := range [...]struct {
		name  string
		value uint64
	}{
		{"sessions", s.Sessions},
		{"subscriptions per session", s.SubscriptionsPerSession},
		{"retained topics", s.RetainedTopics},
		{"events of a queue", s.QueueEvents},
		{"bytes of a queue", s.QueueBytes},
	} {
		if f.value < 1 || f.value > 1<<50 {
			return &Refusal{Reason: fmt.Sprintf("settings: %s: %d, want 1 to %d", f.name, f.value, uint64(1<<50))}
		}
	}
	for _, f := range [...]struct {
		name  string
		value uint64
	}{
		{"sessions", s.SessionsPerPrincipal},
		{"subscriptions", s.SubscriptionsPerPrincipal},
		{"filters with wildcards", s.WildcardsPerPrincipal},
		{"groups founded", s.GroupsPerPrincipal},
	} {
		if f.value > 1<<50 {
			return &Refusal{Reason: fmt.Sprintf("settings: %s per principal: %d, want at most %d", f.name, f.value, uint64(1<<50))}
		}
	}
	if s.GroupMembers > 1<<50 || s.GroupsPerSession > 1<<50 {
		return &Refusal{Reason: fmt.Sprintf("settings: members of a group: %d, groups of a session: %d, want at most %d", s.GroupMembers, s.GroupsPerSession, uint64(1<<50))}
	}
	if _, err := event.ReadPrincipals(s.Principals); err != nil {
		return &Refusal{Reason: "settings: " + err.Error()}
	}
	return nil
}

// inFlight returns how many deliveries of a durable session may be under way at
// once, if its client takes recvMax: not so many that its queue's bound could
// have nothing to drop.
func (l *Limits) inFlight(recvMax uint16) uint64 {
	return min(uint64(max(recvMax, 1)), uint64(max(l.QueueEvents/2, 1)))
}

// window returns how many entries of a durable session's queue may be under way
// as far as the log knows: those that are, and those whose acknowledgement it has
// not been told. The first so many entries of a connected session are never
// dropped, and its node sends none beyond them.
func (l *Limits) window(recvMax uint16) uint64 {
	return l.inFlight(recvMax) + l.untold()
}

// A queueBound is what one queue may hold.
type queueBound struct {
	events int
	bytes  int64
}

func (l *Limits) queueBound() queueBound { return queueBound{l.QueueEvents, l.QueueBytes} }

// untold is how many deliveries may be over before the log has been told.
func (l *Limits) untold() uint64 { return uint64(max(min(l.QueueEvents/4, 4096), 1)) }

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
