package raftlog

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// An Arrival is a snapshot that another node sends, as far as it has come. It is
// written to as its bytes arrive, by as many connections as that takes, and it
// unpacks and counts what it is given at once: nothing is written twice, and what
// it takes of the disk is known from the beginning.
//
// Raft is told when the whole has been proved: it then reads the Ticket in place of
// the bytes, and the Sink to which it writes that takes the files over. So Raft
// neither waits for a network, nor hears of a snapshot that is damaged.
//
// One goroutine at a time may use it.
type Arrival struct {
	snapshots *Snapshots
	index     uint64
	term      uint64
	size      int64
	have      int64
	tmp       string
	pipe      *io.PipeWriter
	unpacked  chan struct{} // closed when the goroutine has ended; got and err are set
	got       Meta
	err       error
	taken     bool // its files are a Sink's; guarded by snapshots.mu
}

var (
	errNotWhole = errors.New("it is not whole")
	errDropped  = errors.New("dropped")
)

// Receive begins to take in a snapshot at an index and of a term, whose stream has
// size bytes. Drop has to be called, whatever becomes of it. It fails when the disk
// has no room for it.
func (s *Snapshots) Receive(index, term uint64, size int64) (*Arrival, error) {
	if free, _ := s.fs.Free(); size < 0 || uint64(size) > free {
		return nil, fmt.Errorf("raftlog: receive a snapshot: it takes %d bytes, and %d are free on the disk: make room", size, free)
	}
	r, w := io.Pipe()
	a := &Arrival{snapshots: s, index: index, term: term, size: size, tmp: s.tempDir("receive"), pipe: w, unpacked: make(chan struct{})}
	go func() { // ends with Finish or Drop
		defer close(a.unpacked)
		a.got, a.err = unpack(s.fs, r, a.tmp)
		if a.err == nil {
			a.err = nothingLeft(r)
		}
		r.CloseWithError(errors.Join(a.err, io.ErrClosedPipe))
	}()
	return a, nil
}

// nothingLeft reads r to its end, which should be at once, but for zeros.
func nothingLeft(r io.Reader) error {
	b := make([]byte, tarBlock)
	for {
		n, err := r.Read(b)
		if slices.ContainsFunc(b[:n], func(c byte) bool { return c != 0 }) {
			return fmt.Errorf("%w: something follows the snapshot", ErrDamaged)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Have returns how many bytes of the stream have come: the next Write goes on there.
func (a *Arrival) Have() int64 { return a.have }

// Write takes the next bytes of the stream. It fails as soon as it is seen that they
// are damaged; then the whole is.
func (a *Arrival) Write(p []byte) (int, error) {
	if int64(len(p)) > a.size-a.have {
		return 0, fmt.Errorf("raftlog: receive a snapshot: %w: more than the %d bytes that were announced", ErrDamaged, a.size)
	}
	n, err := a.pipe.Write(p)
	a.have += int64(n)
	if err != nil {
		<-a.unpacked
		return n, fmt.Errorf("raftlog: receive a snapshot: %w", errors.Join(a.err, err))
	}
	return n, nil
}

// Finish proves the snapshot when all of it has come: it is the one that was
// announced, its sums are right, and it is durable. Otherwise, ErrDamaged or the
// disk's error.
func (a *Arrival) Finish() error {
	err := errNotWhole
	if a.have == a.size {
		err = nil
	}
	_ = a.pipe.CloseWithError(err) // never fails; nil is the end
	<-a.unpacked
	switch {
	case a.err != nil:
		err = a.err
	case err == nil && (a.got.Index != a.index || a.got.Term != a.term):
		err = fmt.Errorf("%w: %s arrived as %d-%d", ErrDamaged, a.got.ID(), a.index, a.term)
	}
	if err != nil {
		return fmt.Errorf("raftlog: receive a snapshot: %w", err)
	}
	a.snapshots.mu.Lock()
	defer a.snapshots.mu.Unlock()
	a.snapshots.arrived[a.ticket()] = a
	return nil
}

func (a *Arrival) ticket() string { return a.snapshots.fs.PathBase(a.tmp) }

// Ticket is what Raft reads in place of the stream, after Finish.
func (a *Arrival) Ticket() []byte { return []byte(a.ticket()) }

// Drop gives up what no Sink has taken over.
func (a *Arrival) Drop() error {
	_ = a.pipe.CloseWithError(errDropped)
	<-a.unpacked
	a.snapshots.mu.Lock()
	delete(a.snapshots.arrived, a.ticket())
	taken := a.taken
	a.snapshots.mu.Unlock()
	if taken {
		return nil
	}
	return a.snapshots.fs.RemoveAll(a.tmp)
}

// claim returns the arrival of a ticket, for a Sink: its files are the caller's.
func (s *Snapshots) claim(ticket string) (*Arrival, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.arrived[ticket]
	if a == nil {
		return nil, fmt.Errorf("%w has arrived as %q", ErrNoSnapshot, ticket)
	}
	delete(s.arrived, ticket)
	a.taken = true
	return a, nil
}
