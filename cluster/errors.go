package cluster

import (
	"errors"

	"github.com/bellwire/bellwire/cluster/raftlog"
)

// What became of a batch, told by errors.Is to the function that Submit was
// given.
var (
	// ErrNoCommit means that the batch has not been ordered and will not be:
	// there is no quorum, or this node is closing. It may be submitted again.
	ErrNoCommit = errors.New("not committed")

	// ErrBusy is an ErrNoCommit: Config.Backlog is reached. Whoever submits is
	// faster than the disk and should have waited.
	ErrBusy = &reason{"backlog full", ErrNoCommit}

	// ErrUnknown means that the batch was on its way when this node lost its
	// leadership or was closed. It may yet be applied, or have been.
	ErrUnknown = errors.New("outcome unknown")

	// ErrTooLarge means that the batch is larger than MaxBatch. It is the
	// caller's fault.
	ErrTooLarge = errors.New("batch too large")
)

// Why a directory cannot be used. Nothing in it has been changed.
var (
	// ErrDamaged means that the directory does not hold what was written to
	// it.
	ErrDamaged = raftlog.ErrDamaged

	// ErrNewer means that a later version of this program has written to it.
	ErrNewer = raftlog.ErrNewer

	// ErrInUse means that a running process uses it.
	ErrInUse = raftlog.ErrInUse

	// ErrOthers means that it belongs to a node among others, which was to be
	// started alone.
	ErrOthers = errors.New("belongs to a node of a cluster")

	// ErrOtherNode means that it belongs to a node of another name.
	ErrOtherNode = errors.New("belongs to another node")
)

// A reason is an error of a more general kind.
type reason struct {
	text string
	kind error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.kind }
