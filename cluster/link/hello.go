package link

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	preface      = "bellwire"
	helloVersion = 1
	maxHello     = 64 << 10
)

// A Plane is what a connection is for. Those who use link number them.
type Plane uint8

// A hello is the first thing that the one who dials says.
type hello struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster,omitempty"` // empty from a node that wants to join one
	Called  string `json:"called,omitempty"`  // its name for people; empty from earlier versions
	To      string `json:"to,omitempty"`      // who is meant; empty for whoever is there
	Plane   Plane  `json:"plane"`
	Self    Member `json:"self"`
	Levels  Levels `json:"levels"`

	// Members is what the node knows of where all are.
	Members []Member `json:"members,omitempty"`
}

// An answer is what the other says to it.
type answer struct {
	Version int      `json:"version"`
	Refusal Refusal  `json:"refusal,omitempty"` // empty: welcome
	Reason  string   `json:"reason,omitempty"`
	Cluster string   `json:"cluster,omitempty"`
	Self    Member   `json:"self"`
	Members []Member `json:"members,omitempty"`
	Levels  Levels   `json:"levels"`

	// Of RefusedMember: see NoMember.
	Without   uint64 `json:"without,omitempty"`
	RemovedBy string `json:"removed_by,omitempty"`
}

// Levels say what a node can do and what its cluster has agreed on: feature levels,
// of which link knows only which is the greater. Programs of the first do not say
// any: none is 1.
type Levels struct {
	Knows   uint8 `json:"knows,omitempty"`    // the newest that its program knows
	InForce uint8 `json:"in_force,omitempty"` // as far as it has heard
}

func (l Levels) defaulted() Levels { return Levels{max(l.Knows, 1), max(l.InForce, 1)} }

// against says why a node of levels l does not talk with one of other's: one of the
// two would be sent what it does not know. name is the other's. It is empty if they
// may.
func (l Levels) against(other Levels, name string) string {
	l, other = l.defaulted(), other.defaulted()
	switch {
	case other.Knows < l.InForce:
		return fmt.Sprintf("node %q knows feature level %d, and this cluster is at %d: upgrade it", name, other.Knows, l.InForce)
	case l.Knows < other.InForce:
		return fmt.Sprintf("node %q says that the cluster is at feature level %d, and this node knows %d: upgrade this one", name, other.InForce, l.Knows)
	}
	return ""
}

// A Refusal says why a connection was not accepted.
type Refusal string

const (
	RefusedVersion Refusal = "version"       // the other speaks another version
	RefusedLevel   Refusal = "level"         // the other, or we, would have to be upgraded
	RefusedCluster Refusal = "other-cluster" // the other belongs to another cluster
	RefusedNode    Refusal = "other-node"    // another node is at this address
	RefusedName    Refusal = "other-name"    // the certificate is another node's
	RefusedMember  Refusal = "no-member"     // we are not, or no longer, a member
	RefusedBusy    Refusal = "busy"          // too many connections
	RefusedYet     Refusal = "not-yet"       // we are about to join a cluster: ask again
)

// passing says that the reason goes away by itself.
func (r Refusal) passing() bool { return r == RefusedBusy || r == RefusedYet }

// ErrRefused is wrapped by every RefusedError.
var ErrRefused = errors.New("refused")

// A RefusedError says who refused a connection, and why.
type RefusedError struct {
	Code   Refusal
	Reason string
	By     string // the node's name, or its address

	// Without and RemovedBy are of a NoMember. They are given only if it is proved
	// that the node is the one that was dialled, and of our cluster.
	Without   uint64
	RemovedBy string

	// Elsewhere is of RefusedNode: the other cluster that the node is of which is
	// there, by the name of the one that was dialled, which it has proved.
	Elsewhere string
}

// A Seeker is a node of another cluster that has looked at our address for a member of
// that, by our name. It has proved its own.
type Seeker struct {
	Self    Member
	Cluster string
	Called  string // the cluster's name for people, empty if it has none or does not say
	Wanted  string // the id of the member that it looks for
}

// A NoMember is what Config.Admit returns of a node that is none. The node is told all
// of it.
type NoMember struct {
	Reason string

	// Without is the index of an agreed configuration without the node, if there is
	// one: with that it can tell whether it is a member no more, or not yet.
	Without uint64
	By      string // who removed it, for people; empty if that is not known
}

func (e *NoMember) Error() string { return e.Reason }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("node %s refuses (%s): %s", e.By, e.Code, e.Reason)
}

func (e *RefusedError) Unwrap() error { return ErrRefused }

// Passing says that the reason goes away by itself: it is worth asking again.
func (e *RefusedError) Passing() bool { return e.Code.passing() }

// writeMessage writes v after the preface.
func writeMessage(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxHello {
		return fmt.Errorf("hello of %d bytes, of at most %d", len(body), maxHello)
	}
	b := make([]byte, 0, len(preface)+4+len(body))
	b = append(b, preface...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	_, err = w.Write(append(b, body...))
	return err
}

// errStranger is what talks to us and is no node.
var errStranger = errors.New("no node of a cluster")

// readMessage reads preface and v.
func readMessage(r io.Reader, v any) error {
	var head [len(preface) + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if string(head[:len(preface)]) != preface {
		return fmt.Errorf("%w: it begins with %q", errStranger, head[:len(preface)])
	}
	size := binary.BigEndian.Uint32(head[len(preface):])
	if size > maxHello {
		return fmt.Errorf("%w: hello of %d bytes", errStranger, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", errStranger, err)
	}
	return nil
}
