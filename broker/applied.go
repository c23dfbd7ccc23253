package broker

import "github.com/bellwire/bellwire/broker/event"

// An applied is what one log entry gives a node to do, in order. The Machine
// fills it in, the delivery loop works it off and gives it back.
type applied struct {
	index uint64
	stamp int64
	steps []step

	events []*event.Event // events[:used] belong to steps; the rest is spare
	used   int
	queued []queued
	handed []handed

	paid                             uint64 // entries that streams owed
	copied                           uint64 // bodies of nearly empty segments that were stored anew
	copiedBytes                      uint64 // and what they take
	queueDropped                     uint64 // entries that a queue's bound pushed out
	delayedPublished, delayedRefused uint64 // delayed events whose time had come: published, and not, for the policy forbids it by now

	givenRefused uint64 // subscriptions that clients here were not given
	willsRefused uint64 // wills that the policy did not permit any more

	sharedReturned uint64 // copies that went back to their groups
	sharedRefused  uint64 // SUBSCRIBEs that asked for too many
	sharedExpired  uint64 // and such as expired there
}

// A step is one thing to do.
type step struct {
	kind stepKind

	// stepEvent: deliver event to the subscribers connected here, and queued
	// entries from to until of applied.queued to their sessions.
	event       *event.Event
	topic       string // stepChanged: the resource; stepSubEnded: the filter
	of          string // stepPassed: by what it happened
	ruled       bool   // stepChanged: because its owner has another policy
	whose       string // stepChanged: the only principal to whom it is another; empty for all
	from, until int

	// stepEvent and stepReplayed: applied.handed from here until there are for their
	// sessions.
	handedFrom, handedUntil int

	// stepEnded: the connection of this epoch is over, for cause. stepSubEnded:
	// its subscription is.
	session, epoch uint64
	cause          error

	// stepDone: the n-th command of our own batch is over.
	batch uint64
	n     int
	err   error
	value any // what the command returns besides: *opened, *subscribed, []bool

	// stepPolicy: the policy in force from position on, a place in the log.
	policy   Authorizer
	position uint64
	number   uint64 // of the policy; of stepNumbered, too

	// stepSettings: those in force from here on.
	settings *event.Settings

	restored *restored // stepRestored

	life uint64 // stepLife: the one that begins

	client *clientChange // stepClient
}

type stepKind uint8

const (
	stepEvent    stepKind = iota
	stepReplayed          // deliver only the queued entries: the event is a retained one
	stepEnded
	stepDone
	stepPolicy
	stepBatchDone // all of our batch is done: its slot is free
	stepChanged   // show a resource anew; queued are marks for it
	stepPassed    // show what happened on the way to a resource's state
	stepSweep     // show many their own, or counts, anew, before long: topic is that, or the tree, whose the domain
	stepMarked    // queued are marks
	stepSettings
	stepRestored // the state was replaced by a later one
	stepSubEnded // a subscription has ended with its window
	stepProvided // one has begun that its client has not asked for
	stepRegrant  // who may read what, a profile has to be asked anew
	stepLife     // this node's life is over, by the log's account: another begins
	stepNumbered // the policy in force has a number from here on
	stepSecret   // the cluster has a secret from here on
	stepAdjust   // a profile has other settings
	stepReply    // a client has asked for something, and this is the answer
	stepBans     // others are banned
	stepClient   // a connection has begun or ended, somewhere
	stepPaid     // a queue has what it is to have up to the number position
)

// A queued is one entry that a queue has grown by.
type queued struct {
	session  uint64
	seq      uint64
	qos      uint8
	retain   bool
	deadline int64 // the subscriber's window closes; 0 for never
	ids      []uint32
	mark     string // the resource, if the entry is a mark
	named    bool   // a profile wants to know whether it is taken
	group    uint64 // whose shared subscription it is of; 0 for none
	returns  returns
}

// A handed is an event at QoS 0 for one session, as a member of a group.
type handed struct {
	session, group uint64
	retain         bool
	ids            []uint32
}

// newEvent returns an empty event that lives as long as a is in use.
func (a *applied) newEvent() *event.Event {
	if a.used == len(a.events) {
		a.events = append(a.events, new(event.Event))
	}
	e := a.events[a.used]
	a.used++
	return e
}

// reset makes a empty for the next entry. Memory that one large entry needed
// is kept within bounds, so that it does not stay for ever.
func (a *applied) reset() {
	for _, e := range a.events[:a.used] {
		e.Reset()
	}
	clear(a.steps)
	clear(a.queued)
	clear(a.handed)
	a.steps, a.queued, a.handed, a.used, a.paid, a.queueDropped, a.willsRefused = a.steps[:0], a.queued[:0], a.handed[:0], 0, 0, 0, 0
	a.delayedPublished, a.delayedRefused, a.givenRefused = 0, 0, 0
	a.sharedReturned, a.sharedRefused, a.sharedExpired, a.copied, a.copiedBytes = 0, 0, 0, 0, 0
	if len(a.events) > 4096 {
		a.events, a.queued, a.handed, a.steps = nil, nil, nil, nil
	}
}

// An opened is what the Machine answers to a Connect.
type opened struct {
	session, epoch uint64
	present        bool
	durable        bool
	inFlight       uint64 // how many deliveries may be under way at once
	untold         uint64 // and how many over before the log has been told
	dropped        uint64
	offlineSince   int64 // when the last connection ended, or earlier; 0 for a new session

	// The state of the queue: entries below below are over, as are those of
	// done; received ones await PUBCOMP; those below sent are under way, of
	// those from maybe on it is certain that they were never sent; next is the
	// next to come. Those from ready on are not to be read yet.
	below, sent, maybe, next uint64
	ready                    uint64
	done                     spans
	received                 []uint64

	inbound map[uint16]struct{} // packet ids of QoS 2 publishes that are not released; nil for none

	subs   []storedSub
	atOnce int         // not 0: those that are not shared are in the store, and are put in force so many at a time
	asked  []string    // what the session subscribes to by request, or the log counts
	given  []storedSub // of a session that ends with its connection: what its client has not asked for
}

// A subscribed is what the Machine answers to a Subscribe.
type subscribed struct {
	replay []bool            // of each subscription: there may be retained events to send
	since  uint64            // events up to here are for the retained scan, later ones live
	groups map[string]uint64 // of the shared ones, by filter

	// Of those that were requests, by topic: why they were not granted, and which
	// are to be shown once only; and what the client is told with the answer.
	refused map[string]error
	once    map[string]bool
	answer  []byte
}
