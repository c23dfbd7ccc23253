package cluster

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/bellwire/bellwire/cluster/link"
)

// A caller asks one node on one plane. It dials when there is something to ask and
// no connection, and ends a connection on which an answer does not come in time:
// what hangs is not asked again.
type caller struct {
	t     *transport
	id    string
	plane link.Plane
	again chan struct{} // the node may be there again
	tell  chan struct{} // there is something to push

	committed atomic.Pointer[commitment]

	mu      sync.Mutex // guards the following
	session *session
	dialing chan struct{} // closed when it is over; nil when nobody dials
	pusher  bool          // one runs
	refusal error         // of the last attempt to dial
}

// A commitment is what push tells.
type commitment struct{ index, term uint64 }

// A session is a connection with what is under way on it.
type session struct {
	conn *link.Conn

	mu      sync.Mutex // guards the following
	pending map[uint64]func(kind byte, body []byte, err error)
	next    uint64
	broken  error
}

var (
	errTimeout = errors.New("no answer in time")
	errGivenUp = errors.New("another node leads now")
)

func newCaller(t *transport, id string, plane link.Plane) *caller {
	return &caller{t: t, id: id, plane: plane, again: make(chan struct{}, 1), tell: make(chan struct{}, 1)}
}

// retry has who waits between two attempts to dial try at once.
func (c *caller) retry() {
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// connect returns the connection, dialling for at most wait, and no longer than
// until give is closed; nil is never.
func (c *caller) connect(wait time.Duration, give <-chan struct{}) (*session, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	pause := 20 * time.Millisecond
	for {
		s, dialling := c.attempt()
		if s != nil {
			return s, nil
		}
		select {
		case <-dialling:
		case <-timer.C:
			return nil, fmt.Errorf("node %s: no connection in %v", c.id, wait)
		case <-give:
			return nil, errGivenUp
		case <-c.t.done:
			return nil, errTransportClosed
		}
		s, err := c.outcome()
		if s != nil {
			return s, nil
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		case <-c.again:
		case <-timer.C:
			return nil, err
		case <-give:
			return nil, errGivenUp
		case <-c.t.done:
			return nil, errTransportClosed
		}
	}
}

// outcome returns the connection, or why the last attempt to have one failed.
func (c *caller) outcome() (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil && c.refusal == nil {
		return nil, fmt.Errorf("node %s: the connection ended at once", c.id)
	}
	return c.session, c.refusal
}

// attempt returns the connection there is, or sees to it that somebody dials:
// dialling is closed when they have.
func (c *caller) attempt() (s *session, dialling <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil && c.dialing == nil {
		done := make(chan struct{})
		c.dialing = done
		go c.dialOnce(done)
	}
	return c.session, c.dialing
}

// dialOnce dials. It ends with the links, at the latest.
func (c *caller) dialOnce(done chan struct{}) {
	conn, err := c.t.dial(c.id, c.plane)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(done)
	c.dialing, c.refusal = nil, err
	if err != nil {
		return
	}
	if !c.t.begin() {
		_ = conn.Close()
		c.refusal = errTransportClosed
		return
	}
	defer c.t.tasks.Done()
	s := &session{conn: conn, pending: map[uint64]func(byte, []byte, error){}}
	c.session = s
	c.t.tasks.Go(func() { c.read(s) })
	if c.plane == planeLog && !c.pusher {
		c.pusher = true
		c.t.tasks.Go(c.pushAll)
	}
}

// read hands out responses until the connection ends.
func (c *caller) read(s *session) {
	for {
		kind, id, body, err := s.conn.Read()
		if err != nil {
			c.end(s, err)
			return
		}
		s.mu.Lock()
		done := s.pending[id]
		delete(s.pending, id)
		s.mu.Unlock()
		if done != nil {
			done(kind, body, nil)
		}
	}
}

// end gives s up: what is under way on it fails with err.
func (c *caller) end(s *session, err error) {
	c.mu.Lock()
	if c.session == s {
		c.session = nil
	}
	c.mu.Unlock()
	_ = s.conn.Close()
	s.mu.Lock()
	pending := s.pending
	s.pending, s.broken = nil, err
	s.mu.Unlock()
	for _, done := range pending {
		done(0, nil, err)
	}
}

// drop ends the connection there is.
func (c *caller) drop(err error) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		c.end(s, err)
	}
}

// send sends a request. done is called once with what becomes of it, by another
// goroutine, unless an error is returned.
func (c *caller) send(s *session, kind byte, parts [][]byte, done func(byte, []byte, error)) error {
	err := c.queue(s, kind, parts, done)
	if err != nil {
		return err
	}
	if err := s.conn.Flush(); err != nil {
		c.end(s, err) // done is told, if it has not been
	}
	return nil
}

// queue is send, but the request may stay behind until the connection is flushed.
func (c *caller) queue(s *session, kind byte, parts [][]byte, done func(byte, []byte, error)) error {
	s.mu.Lock()
	if s.broken != nil {
		defer s.mu.Unlock()
		return s.broken
	}
	s.next++
	id := s.next
	s.pending[id] = done
	s.mu.Unlock()
	if err := s.conn.Queue(kind, id, parts...); err != nil {
		s.mu.Lock()
		_, ours := s.pending[id]
		delete(s.pending, id)
		s.mu.Unlock()
		c.end(s, err)
		if !ours {
			return nil // done has been called
		}
		return err
	}
	return nil
}

// call sends a request and waits for its response: for a connection for wait, for
// the answer for patience.
func (c *caller) call(wait, patience time.Duration, kind byte, parts [][]byte) ([]byte, error) {
	s, err := c.connect(wait, nil)
	if err != nil {
		return nil, err
	}
	type result struct {
		kind byte
		body []byte
		err  error
	}
	answer := make(chan result, 1)
	slow := time.AfterFunc(patience, func() { c.end(s, errTimeout) })
	defer slow.Stop()
	if err := c.send(s, kind, parts, func(kind byte, body []byte, err error) { answer <- result{kind, body, err} }); err != nil {
		return nil, err
	}
	switch r := <-answer; {
	case r.err != nil:
		return nil, fmt.Errorf("node %s: %w", c.id, r.err)
	case r.kind != frameReply:
		return nil, fmt.Errorf("node %s: %s", c.id, r.body)
	default:
		return r.body, nil
	}
}

// push notes what is committed, for pushAll to tell. It is not told to a node to
// which there is no connection.
func (c *caller) push(index, term uint64) {
	c.committed.Store(&commitment{index, term})
	select {
	case c.tell <- struct{}{}:
	default:
	}
}

// pushAll tells what is committed: always the newest, and what was meanwhile
// noted goes together.
func (c *caller) pushAll() {
	for {
		select {
		case <-c.t.done:
			return
		case <-c.tell:
		}
		c.mu.Lock()
		s := c.session
		c.mu.Unlock()
		if s == nil {
			continue
		}
		to := c.committed.Load()
		if err := s.conn.Write(frameAppend, untold, encodeAppend(&raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax},
			Term:      to.term, PrevLogEntry: to.index, PrevLogTerm: to.term, LeaderCommitIndex: to.index,
		})...); err != nil {
			c.end(s, err)
			continue
		}
		c.t.pushes.Add(1)
	}
}
