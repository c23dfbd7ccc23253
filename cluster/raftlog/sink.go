package raftlog

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// A Sink takes a snapshot in. One that Raft has asked the local state for takes
// no bytes: Flushed says that the state is durable, which is all there is to it.
// One from another node has arrived before Raft hears of it (see Arrival): what is
// written is its ticket, and Close makes it a copy.
type Sink struct {
	snapshots *Snapshots
	want      Meta
	flushed   bool
	ticket    []byte
}

var _ raft.SnapshotSink = (*Sink)(nil)

// maxTicket is how long a ticket may be.
const maxTicket = 64

// Create begins a snapshot.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("raftlog: snapshot version %d, this program knows 1", version)
	}
	return &Sink{
		snapshots: s,
		want:      Meta{Index: index, Term: term, Config: raft.EncodeConfiguration(c), ConfigIndex: configIndex},
	}, nil
}

// ID returns the id to open the snapshot by.
func (k *Sink) ID() string {
	if k.flushed {
		return LiveID
	}
	return k.want.ID()
}

// Flushed says that the state is, or need not be, durable up to the index of the
// snapshot, and that no copy is wanted.
func (k *Sink) Flushed() { k.flushed = true }

// Write takes the next bytes of the ticket.
func (k *Sink) Write(p []byte) (int, error) {
	if len(k.ticket)+len(p) > maxTicket {
		return 0, errors.New("raftlog: this is no ticket of a snapshot that has arrived")
	}
	k.ticket = append(k.ticket, p...)
	return len(p), nil
}

// Close completes the snapshot.
func (k *Sink) Close() error {
	if k.flushed {
		return nil
	}
	if err := k.take(); err != nil {
		return fmt.Errorf("raftlog: take over a snapshot: %w", err)
	}
	return nil
}

// take makes what has arrived a copy.
func (k *Sink) take() error {
	a, err := k.snapshots.claim(string(k.ticket))
	if err != nil {
		return err
	}
	if a.index != k.want.Index || a.term != k.want.Term {
		err = fmt.Errorf("%d-%d arrived as %s", a.index, a.term, k.want.ID())
		return errors.Join(err, k.snapshots.fs.RemoveAll(a.tmp))
	}
	// First that its place is taken, then the copy: a copy that nobody knows of is
	// harmless, a log with a gap behind it is not.
	k.snapshots.log.install(k.want.Index, k.want.Term)
	if err := k.snapshots.publish(a.tmp, k.want); err != nil {
		return errors.Join(err, k.snapshots.fs.RemoveAll(a.tmp))
	}
	return nil
}

// Cancel gives the snapshot up. What has arrived is dropped by who received it.
func (k *Sink) Cancel() error { return nil }
