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

var errTimeout = errors.New("no answer in time")

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

// connect returns the connection, dialling for at most wait.
func (c *caller) connect(wait time.Duration) (*session, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	pause := 20 * time.Millisecond
	for {
		s, others, err := c.attempt()
		if s != nil {
			return s, nil
		}
		var retry <-chan time.Time
		var again chan struct{}
		if others == nil {
			retry, again = time.After(pause), c.again
			pause = min(2*pause, 500*time.Millisecond)
		}
		select {
		case <-others:
		case <-retry:
		case <-again:
		case <-timer.C:
			if err == nil {
				err = fmt.Errorf("node %s: no connection in %v", c.id, wait)
			}
			return nil, err
		case <-c.t.done:
			return nil, errTransportClosed
		}
	}
}

// attempt returns the connection there is, or dials once. If somebody else dials,
// others is closed when they have.
func (c *caller) attempt() (s *session, others chan struct{}, err error) {
	c.mu.Lock()
	switch {
	case c.session != nil:
		defer c.mu.Unlock()
		return c.session, nil, nil
	case c.dialing != nil:
		defer c.mu.Unlock()
		return nil, c.dialing, c.refusal
	}
	c.dialing = make(chan struct{})
	c.mu.Unlock()

	conn, err := c.t.dial(c.id, c.plane)

	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.dialing)
	c.dialing, c.refusal = nil, err
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-c.t.done:
		_ = conn.Close()
		return nil, nil, errTransportClosed
	default:
	}
	c.session = &session{conn: conn, pending: map[uint64]func(byte, []byte, error){}}
	s = c.session
	c.t.tasks.Go(func() { c.read(s) })
	if c.plane == planeLog && !c.pusher {
		c.pusher = true
		c.t.tasks.Go(c.pushAll)
	}
	return s, nil, nil
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
	s, err := c.connect(wait)
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
