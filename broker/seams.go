package broker

import (
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// A Log orders batches for every node's Machine. Cluster nodes satisfy it,
// those of one voter and those of several; the broker cannot tell. One that is
// Peers, too, connects the node with others; one that has a method
//
//	Silence() time.Duration
//
// says by it how long this node has heard of no leader, 0 on the leader itself; and
// by a method
//
//	Member(node string) bool
//
// whether a node is one of the cluster.
type Log interface {
	// Submit hands over one numbered batch, of at most MaxBatch bytes, and
	// returns at once. Batches reach
	// the Machine in the order of the calls. failed is called at most once,
	// from any goroutine: with the reason why the batch certainly will not be
	// applied, or why that is unknown. A batch that is applied is seen in
	// Machine.Apply and nowhere else.
	Submit(batch []byte, failed func(error))

	// Leader says whether this node is the one that proposes Ticks.
	Leader() bool
}

// Peers carries messages between the brokers of a cluster: what needs no log. A
// Log that is Peers too is that of a node among others; one that is not is that of
// a node alone.
type Peers interface {
	// Send queues message for the node with that id, behind those before it. It
	// returns false if there is no link to it or too much waits for it already:
	// then the message is lost, and the caller counts it. It copies message and
	// never blocks. What it takes may be lost too, when the link ends.
	//
	// Messages are of 64 KiB at most, or of one event more.
	Send(node string, message []byte) bool
}

// MaxBatch is the size of the largest batch, in bytes: one that carries a single
// large command. The most are of a quarter of that.
const MaxBatch = 1 << 20

// An Action is what somebody wants to do on a topic.
type Action uint8

const (
	ActPublish Action = iota
	ActSubscribe
)

// A Who is somebody who wants to do something: a principal (empty for an
// anonymous client) behind a client id.
type Who struct{ Principal, Client string }

// A Decision is what the policy says about one question at one instant.
type Decision struct {
	Allow bool

	// Until is the first later instant, unix nanoseconds, at which the answer
	// would be the other one; 0 if it holds for good. Windowed says whether
	// time has a part in the answer at all.
	Until    int64
	Windowed bool

	Outside Outside // what a live subscription gets while closed
	Reason  string  // for the client: why not, and how to learn more
}

// Outside says what a live subscription gets while its window is closed.
type Outside uint8

const (
	Hold     Outside = iota // nothing; state when it opens
	Announce                // an event that says so, and until when
	End                     // an event that says so, and the subscription ends
)

// An Authorizer is one version of the operator's policy. It is immutable, has
// no clock, and answers one question about one instant always alike; the
// Machine relies on that. Safe for concurrent use.
type Authorizer interface {
	// Decide answers whether who may do what on topic at the instant at.
	// Callers cache the answer until Until.
	Decide(who Who, what Action, topic string, at int64) Decision

	// Ceiling answers whether the operator leaves to who what the owner of a
	// profile's topic may allow: only what denies has a say. Outside is of no
	// meaning.
	Ceiling(who Who, what Action, topic string, at int64) Decision

	// Grant answers whether who may subscribe to filter at all: whether some
	// rule covers all of it at some instant from at on.
	Grant(who Who, filter string, at int64) Decision

	// Authenticate returns the principal that user and password prove, or
	// ErrBadCredentials. It may take a tenth of a second.
	Authenticate(user string, password []byte) (principal string, err error)

	// NextEdge returns the first instant after after at which any window
	// opens or closes, 0 for never.
	NextEdge(after int64) int64
}

// A credentialer is an Authorizer that says what a principal has to prove: two
// versions of a policy that say the same ask for the same. Who is connected as a
// principal of which another thing is asked, or that is no more, is disconnected.
// way is how it was proved: ConnectRequest.Way.
type credentialer interface {
	Credential(principal, way string) string
}

// Admitted is a Sink whose client came in by a way that a policy may close. MayStay says
// whether who, who proved it by way (ConnectRequest.Way), could come in like that under
// policy, whatever the secret is: that is Credential's to say. It is asked of each
// connection when the policy changes, and once when a session is opened, must be quick, and
// must not block. Who may not is disconnected.
type Admitted interface {
	MayStay(who Who, way string, policy Authorizer) bool
}

// A knower is an Authorizer whose policy names people. Who was one of them, is
// no more, and cannot be proved in another way has lost his sessions, and all that
// waits for them (see gone).
// Known returns them in order. They lose what profiles keep of them, too: see
// Forgetter.
type knower interface {
	Knows(principal string) bool
	Known() []string
}

// A Rewriter is an Authorizer under which some topics stand for others: whoever speaks for
// clients asks it first, and the broker about what it returns. name is a valid name to
// publish to, or filter to subscribe to. The error, a reason for people, means that what
// it would be is none. It allocates nothing for a name that stands for itself.
type Rewriter interface {
	Rewrite(who Who, what Action, name string) (to string, err error)
}

// Compile makes an Authorizer of the bytes of a policy and the domain of bare
// names in it, which are state: every node compiles the same ones. It must be
// deterministic. The delivery of everything waits for it: whoever has a policy
// ordered should have made it before, so that nothing is left to do here.
type Compile func(policy []byte, domain string) (Authorizer, error)

// A Completer is told what became of something it proposed. tag is the one it
// proposed with. It is called once for each proposal, from the delivery loop
// (or the proposer, for what was never ordered), must not block, and queues
// what it wants to send, marking itself in w.
//
// err is nil, or one of this package's sentinels.
type Completer interface {
	Complete(tag uint64, err error, w *Wave)
}

// An Answerer is a Completer that can pass on what a profile has to say to who
// published: User Properties in wire form, which never change. Answer is called
// before Complete, and only if there are some.
type Answerer interface {
	Answer(tag uint64, props []byte)
}

// A Sink is the connected end of a session: one client on the other side of
// some protocol. Its methods are called from many goroutines and never block
// on the network: they queue, and Flush writes what the socket takes.
type Sink interface {
	// Deliver queues one event for the client and says what became of it. It
	// keeps neither d nor anything that d points to.
	Deliver(d *Delivery, w *Wave) Outcome

	// Release queues the second half of a QoS 2 delivery (PUBREL).
	Release(packetID uint16, w *Wave)

	// Flush writes what is queued as far as the socket takes it now; the rest
	// follows when it takes more. Whoever found the sink unmarked in Deliver,
	// Release or Complete calls it, through Wave.Flush.
	Flush()

	// End closes the connection for cause, telling the client if its protocol
	// can. It returns at once. The sink then calls Session.Close as after any
	// other end.
	End(cause error)
}

// A Delivery is one event as one session gets it.
type Delivery struct {
	Event    *event.Event
	QoS      uint8
	Retain   bool
	Dup      bool     // it was, or may have been, sent before
	PacketID uint16   // for QoS 1 and 2
	IDs      []uint32 // Subscription Identifiers of all that match; read only

	// Wanted says that a QoS 0 delivery for which there is no room is not lost
	// but offered again after Drained, as those of QoS 1 and 2 are: it is
	// present state, of which none may be missing.
	Wanted bool

	// Expiry is the Message Expiry Interval to send, in seconds, if Expires:
	// what the publisher set less the time it waited, and no later than the
	// subscriber's window closes.
	Expiry  uint32
	Expires bool
}

// An Outcome is what a Sink did with a delivery.
type Outcome uint8

const (
	// Sent: it is queued, and for QoS 1 and 2 the packet id is under way.
	Sent Outcome = iota

	// TooLarge: the client said it takes no packet of that size. It counts as
	// delivered (5.0 [MQTT-3.1.2-25]) and uses no packet id.
	TooLarge

	// Full: too many bytes wait for the socket already. A QoS 0 event that is
	// not Wanted is lost and the sink has counted it; others the session keeps
	// and offers again after Session.Drained.
	Full
)

// A Wave is the set of sinks that one piece of work has made dirty: they are
// flushed together when the work is done, so that a client gets one write and
// not one per event. It belongs to one goroutine. The zero Wave is ready.
type Wave struct {
	dirty []Sink

	frames []frame // what goes to other nodes

	common *event.Event // what many are being handed, by the delivery loop; nil for nothing
	kept   *event.Event // the one copy of it for all who keep it, once there is one

	// Scratch: what is handed through an interface would escape.
	delivery Delivery
	publish  event.Publish
	held     event.Event // see heldEvent
}

// Mark adds s to the sinks to flush. A sink calls it when it goes from having
// nothing queued to having something; until its Flush it need not again.
func (w *Wave) Mark(s Sink) { w.dirty = append(w.dirty, s) }

// Flush flushes every marked sink once and leaves the wave empty.
func (w *Wave) Flush() {
	w.sendFrames()
	for i, s := range w.dirty {
		w.dirty[i] = nil
		s.Flush()
	}
	w.dirty = w.dirty[:0]
}

// A Clock tells the node's time: unix nanoseconds that never run back.
type Clock func() time.Time
