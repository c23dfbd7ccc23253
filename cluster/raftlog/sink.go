package raftlog

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// A Sink takes a snapshot in. One that Raft has asked the local state for takes
// no bytes: Flushed says that the state is durable, which is all there is to it.
// One from another node is written to, and becomes a copy when it is closed.
type Sink struct {
	snapshots *Snapshots
	want      Meta
	flushed   bool

	// The following are set by the first Write.
	tmp  string
	pipe *io.PipeWriter
	done chan error // what became of unpacking
	got  Meta
}

var _ raft.SnapshotSink = (*Sink)(nil)

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

// Write takes the next bytes of the stream.
func (k *Sink) Write(p []byte) (int, error) {
	if k.pipe == nil {
		k.begin()
	}
	return k.pipe.Write(p)
}

// begin starts to unpack what is written. The goroutine ends with Close or
// Cancel.
func (k *Sink) begin() {
	r, w := io.Pipe()
	k.tmp, k.pipe, k.done = k.snapshots.tempDir("receive"), w, make(chan error, 1)
	go func() {
		var err error
		k.got, err = unpack(k.snapshots.fs, r, k.tmp)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // nothing should follow, and no writer should block
		}
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		k.done <- err
	}()
}

// Close completes the snapshot. Of one that was received it returns an error if
// the stream was damaged or is not the snapshot that was announced.
func (k *Sink) Close() error {
	if k.pipe == nil {
		if k.flushed {
			return nil
		}
		return errors.New("raftlog: an empty snapshot")
	}
	err := k.pipe.Close()
	if e := <-k.done; e != nil {
		err = e
	} else if k.got.Index != k.want.Index || k.got.Term != k.want.Term {
		err = fmt.Errorf("snapshot %s arrived as %s", k.got.ID(), k.want.ID())
	}
	if err == nil {
		// First that its place is taken, then the copy: a copy that nobody knows
		// of is harmless, a log with a gap behind it is not.
		k.snapshots.log.install(k.want.Index, k.want.Term)
		err = k.snapshots.publish(k.tmp, k.want)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("raftlog: receive a snapshot: %w", err), k.snapshots.fs.RemoveAll(k.tmp))
	}
	return nil
}

// Cancel gives the snapshot up.
func (k *Sink) Cancel() error {
	if k.pipe == nil {
		return nil
	}
	k.pipe.CloseWithError(errors.New("canceled"))
	<-k.done
	return k.snapshots.fs.RemoveAll(k.tmp)
}
