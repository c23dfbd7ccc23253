package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
	"github.com/bellwire/bellwire/cluster/raftlog"
)

// An arriving is the snapshot that this node is being sent, or the last one that it
// was sent. There is one at most, so what it takes of the disk is bounded; another
// one, of a leader of the same term or a later one, takes its place. What has come is
// kept for keepTime when the connection breaks, and goes on when the same transfer of
// the same sender is announced again.
//
// Raft gets it when it is whole and proved: Raft neither waits for the network
// meanwhile, nor does it hear of one that is damaged. What Raft has answered is kept,
// for a sender that has not heard it.
//
// What must hold: one connection at a time feeds it, the newest, and only the one
// that holds turn touches arrival.
type arriving struct {
	from    string
	key     uint64 // 0: it does not go on after a break
	request *raft.InstallSnapshotRequest
	arrival *raftlog.Arrival
	have    atomic.Int64
	turn    chan struct{} // holds one while somebody touches arrival
	gone    chan struct{} // closed when it is dropped
	settled chan struct{} // closed when Raft has answered; the following are set

	response any
	err      error

	proved bool // it has been handed to Raft; guarded by turn

	conn *link.Conn  // that feeds it, or is about to; guarded by transport.mu
	idle *time.Timer // drops it, when there is no conn; guarded by transport.mu
}

// keepTime is how long what has come of a snapshot is kept after a break. It is more
// than a sender tries for.
const keepTime = 2 * stuckTime

var (
	errOvertaken = errors.New("another connection, or another snapshot, has taken its place")
	errLies      = errors.New("the pieces do not follow each other")
)

// A staleError answers a leader whose term is over, as Raft would.
type staleError struct{ term uint64 }

func (e *staleError) Error() string { return fmt.Sprintf("term %d has begun", e.term) }

// serveSnapshot receives a snapshot, or a part of one.
func (t *transport) serveSnapshot(c *link.Conn) {
	kind, _, body, err := c.Read()
	if err != nil {
		return
	}
	var key uint64
	var request *raft.InstallSnapshotRequest
	switch kind {
	case frameTransfer:
		key, request, err = decodeTransfer(body, []byte(c.Peer.ID))
	case frameSnapshot:
		request, err = decodeSnapshot(body, []byte(c.Peer.ID))
	default:
		return
	}
	if err != nil {
		return
	}
	response, err := t.takeIn(c, key, request)
	var stale *staleError
	if errors.As(err, &stale) {
		response, err = &raft.InstallSnapshotResponse{RPCHeader: request.RPCHeader, Term: stale.term}, nil
	}
	if broken := (*brokenError)(nil); errors.As(err, &broken) {
		return // nobody is there to be told
	}
	if err != nil {
		t.logger.Warn("cluster: a snapshot is refused", "from", c.Peer.Name, "index", request.LastLogIndex, "err", err.Error())
	}
	if reply(c, 1, response, err) == nil && err != nil {
		drain(c)
	}
}

// drain reads what was on its way to us when we refused: with that unread, the kernel
// would throw away the refusal, too. The sender hangs up when it has read it.
func drain(c *link.Conn) {
	for range 64 {
		if _, _, _, err := c.Read(); err != nil {
			return
		}
	}
}

// takeIn takes what one connection brings, and returns what Raft says to the whole.
func (t *transport) takeIn(c *link.Conn, key uint64, request *raft.InstallSnapshotRequest) (any, error) {
	in, err := t.expect(c, key, request)
	if err != nil {
		return nil, err
	}
	if key != 0 {
		if err := tellHave(c, in); err != nil {
			t.pause(in, c)
			<-in.turn
			return nil, &brokenError{err}
		}
		stop := t.keepTelling(c, in)
		defer stop()
	}
	err = t.fill(c, in)
	broken := (*brokenError)(nil)
	switch {
	case err == nil:
	case errors.As(err, &broken) && key != 0:
		t.pause(in, c)
		<-in.turn
		return nil, err
	default:
		<-in.turn
		t.discard(in, c)
		return nil, err
	}
	<-in.turn
	defer t.pause(in, c)
	select {
	case <-in.settled:
		return in.response, in.err // with errTransportClosed, if this node closes
	case <-in.gone:
		return nil, errOvertaken
	case <-t.done:
		return nil, errTransportClosed
	}
}

// expect returns the snapshot that c brings, or goes on with. The caller then holds
// its turn.
func (t *transport) expect(c *link.Conn, key uint64, request *raft.InstallSnapshotRequest) (*arriving, error) {
	if term := t.term(); request.Term < term {
		return nil, &staleError{term}
	}
	t.mu.Lock()
	old := t.arriving
	if old.is(c.Peer.ID, key, request) {
		before := old.conn
		old.conn = c
		if old.idle != nil {
			old.idle.Stop()
		}
		t.mu.Unlock()
		if before != nil {
			_ = before.Close()
		}
		return old, t.wait(old, c)
	}
	if old != nil && request.Term < old.request.Term {
		defer t.mu.Unlock()
		return nil, &staleError{old.request.Term}
	}
	in := &arriving{
		from: c.Peer.ID, key: key, request: request, conn: c,
		turn: make(chan struct{}, 1), gone: make(chan struct{}), settled: make(chan struct{}),
	}
	in.turn <- struct{}{}
	t.arriving = in
	t.mu.Unlock()
	err := t.drop(old)
	if err == nil {
		in.arrival, err = t.receive(request.LastLogIndex, request.LastLogTerm, request.Size)
	}
	if err != nil {
		<-in.turn
		t.discard(in, c)
		return nil, err
	}
	t.logger.Info("cluster: a snapshot begins to arrive", "from", c.Peer.Name, "index", request.LastLogIndex, "bytes", request.Size)
	return in, nil
}

// is says whether a connection goes on with in.
func (in *arriving) is(from string, key uint64, r *raft.InstallSnapshotRequest) bool {
	return in != nil && key != 0 && in.key == key && in.from == from && bytes.Equal(encodeSnapshot(in.request), encodeSnapshot(r))
}

// wait waits for the turn of a snapshot that goes on.
func (t *transport) wait(in *arriving, c *link.Conn) error {
	select {
	case in.turn <- struct{}{}:
	case <-in.gone:
		return &brokenError{errOvertaken}
	case <-t.done:
		return &brokenError{errTransportClosed}
	}
	t.mu.Lock()
	newest := t.arriving == in && in.conn == c
	t.mu.Unlock()
	if !newest {
		<-in.turn
		return &brokenError{errOvertaken}
	}
	t.goneOn.Add(1)
	t.logger.Info("cluster: a snapshot goes on", "from", c.Peer.Name, "index", in.request.LastLogIndex, "have", in.have.Load(), "of", in.request.Size)
	return nil
}

// fill writes what c brings until the snapshot is whole, proves it, and hands it to
// Raft. The caller holds its turn.
func (t *transport) fill(c *link.Conn, in *arriving) error {
	for in.have.Load() < in.request.Size {
		kind, place, body, err := c.Read()
		switch {
		case err != nil:
			return &brokenError{err}
		case kind != frameChunk || len(body) == 0:
			return errFrame
		case in.key != 0 && int64(place) != in.have.Load():
			return fmt.Errorf("%w: %d bytes have come, and this one is at %d", errLies, in.have.Load(), place)
		}
		_, err = in.arrival.Write(body)
		in.have.Store(in.arrival.Have())
		if err != nil {
			return err
		}
	}
	if in.proved {
		return nil
	}
	if err := in.arrival.Finish(); err != nil {
		return err
	}
	if !t.begin() {
		return &brokenError{errTransportClosed}
	}
	in.proved = true
	t.logger.Info("cluster: a snapshot has arrived", "from", c.Peer.Name, "index", in.request.LastLogIndex, "bytes", in.request.Size)
	go func() {
		defer t.tasks.Done()
		t.install(in)
	}()
	return nil
}

// install has Raft take the snapshot over, in whose place it reads its ticket.
func (t *transport) install(in *arriving) {
	r := *in.request
	ticket := in.arrival.Ticket()
	r.Size = int64(len(ticket))
	stream := &away{r: bytes.NewReader(ticket), main: &t.installing}
	in.response, in.err = t.raft(&r, stream)
	stream.close()
	close(in.settled)
	select {
	case in.turn <- struct{}{}:
	case <-in.gone:
		return
	}
	defer func() { <-in.turn }()
	if err := in.arrival.Drop(); err != nil { // Raft may not have wanted it
		t.logger.Warn(notRemoved, "err", err.Error())
	}
}

const notRemoved = "cluster: what had come of a snapshot is not removed before the next start"

// An away reads for Raft's main loop, which is away from the first read until it has
// answered.
type away struct {
	r     io.Reader
	main  *occupation
	began atomic.Bool
}

// Read is io.Reader's.
func (r *away) Read(b []byte) (int, error) {
	if !r.began.Swap(true) {
		r.main.begin()
	}
	return r.r.Read(b)
}

func (r *away) close() {
	if r.began.Load() {
		r.main.end()
	}
}

// tellHave tells the sender how much has come.
func tellHave(c *link.Conn, in *arriving) error {
	return c.Write(frameHave, 1, binary.AppendUvarint(nil, uint64(in.have.Load())))
}

// keepTelling tells the sender each second how much has come, until stop has been
// called, which waits.
func (t *transport) keepTelling(c *link.Conn, in *arriving) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(haveTime)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if tellHave(c, in) != nil {
				_ = c.Close() // who reads it ends, too
				return
			}
		}
	}()
	return func() { close(quit); <-ended }
}

// pause keeps what has come for a while, for c does not bring any more.
func (t *transport) pause(in *arriving, c *link.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.arriving != in || in.conn != c {
		return // another has taken over
	}
	in.conn = nil
	in.idle = time.AfterFunc(keepTime, func() { t.expire(in) })
}

// expire drops what nobody has gone on with.
func (t *transport) expire(in *arriving) {
	t.mu.Lock()
	mine := t.arriving == in && in.conn == nil && !t.stopped
	if mine {
		t.arriving = nil
		t.tasks.Add(1)
	}
	t.mu.Unlock()
	if !mine {
		return
	}
	defer t.tasks.Done()
	if have := in.have.Load(); have < in.request.Size {
		t.logger.Warn("cluster: a snapshot did not go on; what had come of it is dropped",
			"index", in.request.LastLogIndex, "have", have, "of", in.request.Size)
	}
	t.dropLogged(in)
}

// discard drops a snapshot that will not do, unless another has taken its place, and
// drops it. c, which has brought it, stays open, to be told why.
func (t *transport) discard(in *arriving, c *link.Conn) {
	t.mu.Lock()
	mine := t.arriving == in
	if mine && in.conn == c {
		in.conn = nil
	}
	if mine {
		t.arriving = nil
	}
	t.mu.Unlock()
	if mine {
		t.dropLogged(in)
	}
}

func (t *transport) dropLogged(in *arriving) {
	if err := t.drop(in); err != nil {
		t.logger.Warn(notRemoved, "err", err.Error())
	}
}

// drop removes what has come of a snapshot, when nobody touches it any more and Raft
// has answered, if it was asked. Only who has taken in out of transport.arriving
// calls it.
func (t *transport) drop(in *arriving) error {
	if in == nil {
		return nil
	}
	close(in.gone)
	t.mu.Lock()
	conn := in.conn
	if in.idle != nil {
		in.idle.Stop()
	}
	t.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
	in.turn <- struct{}{}
	if in.proved {
		<-in.settled
	}
	if in.arrival == nil {
		return nil
	}
	return in.arrival.Drop()
}

// abandon drops what has come when the transport is closed, and Raft has ended.
func (t *transport) abandon() error {
	t.mu.Lock()
	in := t.arriving
	t.arriving = nil
	t.mu.Unlock()
	return t.drop(in)
}
