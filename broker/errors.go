package broker

import (
	"errors"
	"fmt"
)

// What became of a proposal or a request, told by errors.Is. Any other error
// is our own fault.
var (
	// ErrRefused means that policy or validity turned it away. It is the
	// client's doing: the same request will be refused again.
	ErrRefused = errors.New("refused")

	// ErrNoCommit means that it was not ordered and will not be, because too
	// few nodes answer. It is nobody's doing: try again later.
	ErrNoCommit = errors.New("no quorum")

	// ErrUnknown means that we stopped waiting. It may yet be ordered: trying
	// again may do it twice.
	ErrUnknown = errors.New("outcome unknown")

	// ErrStale means that a later connection of the same client id has taken
	// the session over.
	ErrStale = errors.New("session taken over")

	// ErrSessionEnded means that the session is no more: expired, discarded
	// by Clean Start, or removed.
	ErrSessionEnded = errors.New("session ended")

	// ErrNoPacketID means that a release named a packet id that is not in use
	// (reason 0x92).
	ErrNoPacketID = errors.New("packet identifier not found")

	// ErrWrongAck means that a delivery under way was acknowledged by a packet
	// that its QoS does not have, or not yet (reason 0x82).
	ErrWrongAck = errors.New("wrong kind of acknowledgement")

	// ErrQuota means that a bound of Limits is reached (reason 0x97). What follows it and ": " in an error that
	// wraps it is for the client: which bound that is.
	ErrQuota = errors.New("quota exceeded")

	// ErrDiskFull means that free space is below the low-water mark: durable
	// publishes are refused until there is more (reason 0x97 "disk-full").
	ErrDiskFull = fmt.Errorf("disk full: %w", ErrQuota)

	// ErrBadEvent means that the topic belongs to a kind that is not enabled
	// here (reason 0x83 "bad-event").
	ErrBadEvent = errors.New("bad-event")

	// ErrNotShared means that a shared subscription is not to be had: to what its
	// filter matches never, or for now nowhere (reason 0x9E).
	ErrNotShared = errors.New("no shared subscriptions")

	// ErrPayload means that a payload is not what its topic takes (reason 0x99).
	ErrPayload = errors.New("payload not acceptable")

	// ErrTopicName means a topic below a profile's prefix that names nothing
	// there (reason 0x90).
	ErrTopicName = errors.New("topic name invalid")

	// ErrCondition means that a condition which the publisher set, or one on
	// what it asked for, does not hold (reason 0x83 and the Reason String).
	ErrCondition = errors.New("condition not met")

	// ErrBadCredentials means that user and password prove nothing: unknown
	// user and wrong password are told alike.
	ErrBadCredentials = errors.New("bad user name or password")

	// ErrSlow ends a connection whose client did not take what it was sent
	// (reason 0x97).
	ErrSlow = errors.New("client too slow")

	// ErrMissed ends a connection that was not given all that it subscribes to,
	// because this node was so far behind that it went on from a copy of another
	// node's state, and nothing had kept it for this client (reason 0x89).
	ErrMissed = errors.New("events were missed: subscribe again")

	// ErrAway ends the connections of a node that the others have given up for
	// lost, or that has not heard of them for too long (reason 0x9C): what a
	// client's session is by now, another node knows.
	ErrAway = errors.New("this node was out of touch with the others: connect again, or to another one")

	// ErrKicked ends a connection because an administrator says so (reason 0x98).
	ErrKicked = errors.New("ended by an administrator")

	// ErrNoBan means that there is no ban of such names, and ErrNoClient that no such client
	// is connected, or has a session.
	ErrNoBan    = fmt.Errorf("no such ban: %w", ErrCondition)
	ErrNoClient = fmt.Errorf("no such client: %w", ErrCondition)

	// ErrFailed means that the command made the state machine panic; it was
	// rolled back, everywhere alike, and is recorded. Our bug.
	ErrFailed = errors.New("command failed")

	// ErrClosing means that the node is shutting down.
	ErrClosing = errors.New("server shutting down")
)

// A Refusal is an error that the same request will meet again, with what the
// client may be told.
type Refusal struct {
	// Cause is ErrPayload, ErrTopicName, ErrCondition, ErrQuota, ErrBadEvent or
	// ErrNotShared; nil means that policy does not allow it. Each is an ErrRefused here.
	Cause  error
	Reason string

	denial *Denial // by the Machine's policy; nil otherwise
}

func (r *Refusal) Error() string {
	if r.Cause != nil {
		return r.Cause.Error() + ": " + r.Reason
	}
	return "refused: " + r.Reason
}

// Is makes errors.Is(err, ErrRefused) true.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }
