package cluster

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// A transfer is a snapshot on its way to one node, by as many connections as that
// takes. For Raft it is one call: the copy that is sent stays as it is until the
// call returns, and so a break costs what was on its way, not what had come.
//
// On each connection the sender says which snapshot it has (frameTransfer: a key that
// it has drawn, and Raft's request), the receiver how much of that it has (frameHave),
// and the sender goes on there (frameChunk, with the place of its first byte). The
// receiver repeats frameHave each second, until it answers for Raft (frameReply), or
// refuses (frameFailed). What becomes of a transfer at the receiver: see arriving.
//
// It is given up when nothing of it has come for stuckTime, after transferTime in
// all, and when this node does not lead any more. Raft then begins another, of the
// state as it is by then.
type transfer struct {
	t       *transport
	to      raft.ServerID
	key     uint64
	request *raft.InstallSnapshotRequest
	data    io.Reader
	began   time.Time
	sent    bool // something of it

	mu    sync.Mutex // guards the following
	have  int64      // what has come, as the receiver says
	moved time.Time  // when that last changed, or the receiver was at work on the whole
}

const (
	// stuckTime is how long a transfer may make no headway. A transfer that was
	// broken off is kept for longer by its receiver.
	stuckTime = time.Minute

	// transferTime is how long a transfer may take in all: as long as it lasts, the
	// disk holds what has changed meanwhile.
	transferTime = 2 * time.Hour

	// haveTime is how often a receiver says how much has come, and quietTime after
	// how much silence the connection counts as broken.
	haveTime  = time.Second
	quietTime = 10 * time.Second

	// installTime is how long a node that cannot go on may take to restore a snapshot
	// when it has all of it.
	installTime = 10 * time.Minute

	// chunkBytes is how much goes in one frame. A part of a frame is lost with the
	// connection.
	chunkBytes = 16 << 10
)

// A rewinder is a snapshot that can be read again from a place that has been read.
type rewinder interface {
	io.Reader
	Rewind(to int64) error
}

// errNoTransfers means that the other node is of a version that takes snapshots in
// one piece only.
var errNoTransfers = errors.New("takes snapshots in one piece")

// InstallSnapshot is Raft's.
func (t *transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, a *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	now := t.now()
	s := &transfer{t: t, to: id, key: max(rand.Uint64(), 1), request: a, data: data, began: now, moved: now}
	t.setSending(id, a.LastLogIndex)
	defer t.setSending(id, 0)
	body, err := s.run()
	if errors.Is(err, errNoTransfers) {
		body, err = s.inOnePiece()
	}
	if err != nil {
		return fmt.Errorf("snapshot at %d for node %s: %w", a.LastLogIndex, id, err)
	}
	t.note(id)
	return decodeResponse(body, []byte(id), r)
}

// setSending notes the index of the snapshot that a node is being sent, 0 for none.
func (t *transport) setSending(id raft.ServerID, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sending[id] = index
	if index == 0 {
		delete(t.sending, id)
	}
}

// run sends until the receiver has answered, and returns its answer.
func (s *transfer) run() ([]byte, error) {
	pause := 50 * time.Millisecond
	for {
		before := s.headway()
		body, err := s.attempt()
		var broken *brokenError
		if err == nil || !errors.As(err, &broken) {
			return body, err
		}
		have := s.headway()
		switch given := s.givenUp(); {
		case given != nil:
			return nil, fmt.Errorf("%w, and %d of %d bytes have come: %w", given, have, s.request.Size, err)
		case !s.sent: // nothing is lost if Raft begins another
			return nil, err
		case have > before:
			pause = 50 * time.Millisecond
		}
		s.t.logger.Info("cluster: a snapshot will go on", "to", s.t.name(string(s.to)), "index", s.request.LastLogIndex,
			"have", have, "of", s.request.Size, "err", err.Error())
		select {
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		case <-s.t.done:
			return nil, errTransportClosed
		}
	}
}

// A brokenError is what ended a connection, and not the transfer.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// givenUp returns why the transfer is not to go on, nil if it is.
func (s *transfer) givenUp() error {
	now := s.t.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.t.leads(s.request.Term):
		return errGivenUp
	case now.Sub(s.moved) >= stuckTime:
		return fmt.Errorf("no headway in %v", stuckTime)
	case now.Sub(s.began) >= transferTime:
		return fmt.Errorf("not done in %v", transferTime)
	}
	return nil
}

func (s *transfer) headway() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have
}

// heard notes what the receiver says that it has.
func (s *transfer) heard(have int64) {
	now := s.t.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if have > s.have || have == s.request.Size {
		s.have, s.moved = have, now
	}
}

// attempt sends on one connection. An error that is a brokenError may be followed by
// another attempt.
func (s *transfer) attempt() ([]byte, error) {
	conn, err := s.t.dial(string(s.to), planeSnapshot)
	if refused := (*link.RefusedError)(nil); errors.As(err, &refused) {
		return nil, err
	}
	if err != nil {
		return nil, &brokenError{err}
	}
	done, err := s.t.guard(conn)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := conn.Write(frameTransfer, 1, encodeTransfer(s.key, s.request)); err != nil {
		return nil, &brokenError{err}
	}
	in := s.listen(conn)
	defer func() { <-in.ended }()
	defer conn.Close()
	select {
	case at := <-in.first:
		err = s.feed(conn, at)
	case <-in.ended:
		err = in.err
	}
	if broken := (*brokenError)(nil); err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	<-in.ended // with the answer, or with the connection: what it said last counts
	return in.body, in.err
}

// guard closes conn when the transport stops; done ends that, and closes conn.
func (t *transport) guard(conn *link.Conn) (done func(), err error) {
	if !t.begin() {
		_ = conn.Close()
		return nil, errTransportClosed
	}
	stopped := make(chan struct{})
	go func() {
		defer t.tasks.Done()
		select {
		case <-t.done:
		case <-stopped:
		}
		_ = conn.Close()
	}()
	return func() { close(stopped); _ = conn.Close() }, nil
}

// A listener reads what a receiver says on one connection.
type listener struct {
	first chan int64    // holds the first frameHave
	ended chan struct{} // closed after the following are set: by the answer, or the end
	body  []byte
	err   error
}

// listen reads what the receiver says. When it has said the last the connection is
// closed, so that who sends stops, too.
func (s *transfer) listen(conn *link.Conn) *listener {
	in := &listener{first: make(chan int64, 1), ended: make(chan struct{})}
	quiet := time.AfterFunc(quietTime, func() { _ = conn.Close() })
	go func() {
		defer close(in.ended)
		defer conn.Close()
		defer quiet.Stop()
		for told := false; ; told = true {
			kind, _, body, err := conn.Read()
			quiet.Reset(quietTime)
			switch {
			case errors.Is(err, io.EOF) && !told && !s.t.goesOn(s.to):
				in.err = errNoTransfers
			case err != nil:
				in.err = &brokenError{err}
			case kind == frameReply:
				in.body = body
			case kind == frameFailed:
				in.err = errors.New(string(body))
			case kind == frameHave:
				if in.err = s.said(body, in, told); in.err == nil {
					continue
				}
			default:
				in.err = errFrame
			}
			return
		}
	}()
	return in
}

// said takes one frameHave.
func (s *transfer) said(body []byte, in *listener, told bool) error {
	have, err := decodeHave(body)
	if err != nil {
		return err
	}
	if have > s.request.Size {
		return fmt.Errorf("it says that it has %d of %d bytes", have, s.request.Size)
	}
	s.heard(have)
	if !told {
		s.t.setGoesOn(s.to)
		in.first <- have
	}
	return s.givenUp()
}

func (t *transport) goesOn(id raft.ServerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.goOn[id]
}

func (t *transport) setGoesOn(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.goOn[id] = true
}

// feed sends what the receiver does not have.
func (s *transfer) feed(conn *link.Conn, at int64) error {
	if r, ok := s.data.(rewinder); ok {
		if err := r.Rewind(at); err != nil {
			return err
		}
	} else if at > 0 {
		return fmt.Errorf("it has %d bytes of what cannot be read again", at)
	}
	buf := make([]byte, chunkBytes)
	for at < s.request.Size {
		if err := s.givenUp(); err != nil {
			return err
		}
		n, err := s.data.Read(buf[:min(s.request.Size-at, chunkBytes)])
		if n > 0 {
			if err := conn.Write(frameChunk, uint64(at), buf[:n]); err != nil {
				return &brokenError{err}
			}
			s.sent = true
			at += int64(n)
		}
		if err != nil && at < s.request.Size {
			return fmt.Errorf("%d bytes are missing: %w", s.request.Size-at, err)
		}
	}
	return nil
}

// inOnePiece sends a snapshot to a node that cannot go on with one.
func (s *transfer) inOnePiece() ([]byte, error) {
	if r, ok := s.data.(rewinder); ok {
		if err := r.Rewind(0); err != nil {
			return nil, err
		}
	}
	conn, err := s.t.dial(string(s.to), planeSnapshot)
	if err != nil {
		return nil, err
	}
	done, err := s.t.guard(conn)
	if err != nil {
		return nil, err
	}
	defer done()
	slow := time.AfterFunc(installTime, func() { _ = conn.Close() })
	defer slow.Stop()
	if err := conn.Write(frameSnapshot, 1, encodeSnapshot(s.request)); err != nil {
		return nil, err
	}
	if err := s.feedOnce(conn, slow); err != nil {
		return nil, err
	}
	kind, _, body, err := conn.Read()
	switch {
	case err != nil:
		return nil, err
	case kind != frameReply:
		return nil, errors.New(string(body))
	}
	return body, nil
}

func (s *transfer) feedOnce(conn *link.Conn, slow *time.Timer) error {
	buf := make([]byte, chunkBytes)
	for left := s.request.Size; left > 0; {
		n, err := s.data.Read(buf[:min(left, chunkBytes)])
		if n > 0 {
			if err := conn.Write(frameChunk, 1, buf[:n]); err != nil {
				return err
			}
			slow.Reset(installTime)
			left -= int64(n)
		}
		if err != nil && left > 0 {
			return fmt.Errorf("%d bytes are missing: %w", left, err)
		}
	}
	return nil
}
