package clustertest

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// An Addr is a port of a host.
type Addr struct {
	Host string
	Port int
}

// Network is "tcp".
func (Addr) Network() string { return "tcp" }

func (a Addr) String() string { return net.JoinHostPort(a.Host, fmt.Sprint(a.Port)) }

// A pair is a connection: its two ends and what travels between them.
type pair struct {
	net              *Network
	dialed, accepted *conn
}

// A conn is one end of a connection. It is guarded by the network's mu.
type conn struct {
	net           *Network
	pair          *pair
	local, remote Addr
	in, out       *stream

	err     error // why it can be used no more; nil while it can
	closed  bool  // nobody reads or writes here; err is net.ErrClosed
	writing bool  // somebody is in Write: the bytes of two calls do not mix

	reading, sending deadline
}

// A deadline is when a call that waits gives up.
type deadline struct {
	event  *event
	passed bool
}

// A stream is one direction of a connection.
type stream struct {
	net      *Network
	on, back *link // what it travels on, and its acknowledgements
	from, to *conn
	moved    sync.Cond // something has changed for who reads or writes

	flying []flight // sent, and not arrived; in order
	bytes  int      // of flying
	lasts  int      // how many more bytes are to arrive before the connection breaks; 0: any number. See Fray
	next   *event   // when the first arrives, or the connection is given up

	arrived []byte // and not read
	over    bool   // the end has arrived

	// What has arrived while acknowledgements were held back: so many bytes,
	// since when, and whether they came to an end that is gone.
	silent  int
	since   time.Time
	refused bool
}

// A flight is a segment on its way.
type flight struct {
	data      []byte
	last      bool // the end of the stream
	sent, due time.Time
}

// connect makes a connection. Requires mu.
func (n *Network) connect(from, to Addr) *pair {
	p := &pair{net: n}
	out, back := n.link(from.Host, to.Host), n.link(to.Host, from.Host)
	there, here := &stream{net: n, on: out, back: back}, &stream{net: n, on: back, back: out}
	p.dialed = &conn{net: n, pair: p, local: from, remote: to, in: here, out: there}
	p.accepted = &conn{net: n, pair: p, local: to, remote: from, in: there, out: here}
	for _, s := range []*stream{there, here} {
		s.moved.L = &n.mu
		s.on.ways[s] = struct{}{}
		if n.fray > 0 {
			s.lasts = 1 + s.on.rng.IntN(n.fray)
		}
	}
	there.from, there.to = p.dialed, p.accepted
	here.from, here.to = p.accepted, p.dialed
	n.pairs[p] = struct{}{}
	n.stats.Dialed++
	return p
}

// reset breaks a connection; both ends learn it at once. Requires mu.
func (p *pair) reset() {
	p.dialed.fail(syscall.ECONNRESET)
	p.accepted.fail(syscall.ECONNRESET)
}

// release forgets a connection of which nothing is left. Requires mu.
func (p *pair) release() {
	for _, c := range []*conn{p.dialed, p.accepted} {
		if c.err == nil || len(c.out.flying) > 0 || c.out.silent > 0 {
			return
		}
	}
	delete(p.net.pairs, p)
	for _, c := range []*conn{p.dialed, p.accepted} {
		delete(c.out.on.ways, c.out)
		p.net.cancel(c.out.next)
	}
}

// Read is net.Conn's.
func (c *conn) Read(b []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	s := c.in
	for {
		switch {
		case c.closed:
			return 0, c.fault("read", c.err)
		case c.reading.passed:
			return 0, c.fault("read", os.ErrDeadlineExceeded)
		case len(s.arrived) > 0 || len(b) == 0:
			k := copy(b, s.arrived)
			s.arrived = s.arrived[k:]
			s.moved.Broadcast() // there is room
			return k, nil
		case s.over:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.fault("read", c.err)
		}
		s.moved.Wait()
	}
}

// Write is net.Conn's.
func (c *conn) Write(b []byte) (done int, err error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	s := c.out
	for c.writing && c.err == nil {
		s.moved.Wait()
	}
	if c.err != nil {
		return 0, c.fault("write", c.err)
	}
	c.writing = true
	defer func() { c.writing = false; s.moved.Broadcast() }()
	for {
		room := c.net.window - s.bytes - max(len(s.arrived), s.silent)
		switch {
		case done == len(b):
			return done, nil
		case c.err != nil:
			return done, c.fault("write", c.err)
		case c.sending.passed:
			return done, c.fault("write", os.ErrDeadlineExceeded)
		case room <= 0:
			s.moved.Wait()
			continue
		}
		k := min(room, segment, len(b)-done)
		s.send(append([]byte(nil), b[done:done+k]...), false)
		done += k
	}
}

// Close is net.Conn's. What was written is still sent, but if something has
// arrived that was not read, the other end is told at once that it was not (RFC
// 2525, 2.17), as Linux does.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fault("close", net.ErrClosed)
	}
	c.leave()
	return nil
}

// leave has nobody read or write here any more. Requires mu.
func (c *conn) leave() {
	broken, unread := c.err != nil, len(c.in.arrived) > 0
	c.err, c.closed = net.ErrClosed, true
	c.in.arrived = nil
	c.reading.clear(c.net)
	c.sending.clear(c.net)
	c.in.moved.Broadcast()
	c.out.moved.Broadcast()
	switch {
	case broken:
	case unread:
		c.out.drop()
		if !c.out.on.cut() {
			c.out.to.fail(syscall.ECONNRESET)
		}
	default:
		c.out.send(nil, true)
	}
	c.pair.release()
}

// fail breaks an end: what has arrived can still be read, then there is err.
// Requires mu.
func (c *conn) fail(err error) {
	if c.err == nil {
		c.err = err
		if err == syscall.ECONNRESET {
			c.net.stats.Reset++
		}
	}
	c.out.drop()
	c.in.moved.Broadcast()
	c.out.moved.Broadcast()
	c.pair.release()
}

// fault dresses an error as package net does.
func (c *conn) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// LocalAddr is net.Conn's.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is net.Conn's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is net.Conn's.
func (c *conn) SetDeadline(t time.Time) error {
	return c.setDeadlines("set deadline", t, &c.reading, &c.sending)
}

// SetReadDeadline is net.Conn's.
func (c *conn) SetReadDeadline(t time.Time) error {
	return c.setDeadlines("set deadline", t, &c.reading)
}

// SetWriteDeadline is net.Conn's.
func (c *conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadlines("set deadline", t, &c.sending)
}

func (c *conn) setDeadlines(op string, t time.Time, which ...*deadline) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fault(op, net.ErrClosed)
	}
	for _, d := range which {
		d.clear(c.net)
		switch {
		case t.IsZero():
		case !t.After(c.net.now()):
			d.passed = true
		default:
			d.event = c.net.schedule(t, func() { d.passed = true; c.in.moved.Broadcast(); c.out.moved.Broadcast() })
		}
	}
	c.in.moved.Broadcast()
	c.out.moved.Broadcast()
	return nil
}

// clear takes a deadline back. Requires mu.
func (d *deadline) clear(n *Network) {
	n.cancel(d.event)
	*d = deadline{}
}

// send puts a segment on its way. Requires mu.
func (s *stream) send(data []byte, last bool) {
	now := s.net.now()
	f := flight{data: data, last: last, sent: now, due: s.net.due(s.on, now, len(data))}
	if s.on.cut() {
		s.net.stats.Held++
	}
	if n := len(s.flying); n > 0 && f.due.Before(s.flying[n-1].due) {
		f.due = s.flying[n-1].due
	}
	s.flying = append(s.flying, f)
	s.bytes += len(data)
	s.step()
}

// step has happen what is due: segments arrive, or the sender gives up.
// Requires mu.
func (s *stream) step() {
	now := s.net.now()
	for len(s.flying) > 0 && !s.on.cut() && !s.flying[0].due.After(now) {
		f := s.flying[0]
		s.flying = s.flying[1:]
		s.bytes -= len(f.data)
		s.arrive(f)
	}
	if at, waits := s.patience(); waits && !at.After(now) {
		s.net.stats.Expired++
		s.from.fail(syscall.ETIMEDOUT)
	}
	s.plan()
}

// arrive takes in a segment. Requires mu.
func (s *stream) arrive(f flight) {
	if s.lasts > 0 && len(f.data) >= s.lasts {
		f.data, f.last = f.data[:s.lasts], false
		defer s.from.pair.reset()
	}
	s.lasts -= min(s.lasts, len(f.data))
	s.net.stats.Bytes += uint64(len(f.data))
	if s.back.cut() {
		if s.silent == 0 {
			s.since = s.net.now()
		}
		s.silent += max(1, len(f.data))
	}
	switch {
	case s.to.err == nil:
		s.arrived = append(s.arrived, f.data...)
		s.over = s.over || f.last
		s.moved.Broadcast()
	case f.last && len(f.data) == 0:
		// The end of what nobody reads any more.
	case s.back.cut():
		s.refused = true
	default:
		s.from.fail(syscall.ECONNRESET)
	}
	s.from.pair.release()
}

// patience returns when the sender gives up, if it waits for anything that
// cannot come. Requires mu.
func (s *stream) patience() (at time.Time, waits bool) {
	switch {
	case s.silent > 0 && s.back.cut():
		return s.since.Add(s.net.timeout), true
	case len(s.flying) > 0 && s.on.cut():
		return s.flying[0].sent.Add(s.net.timeout), true
	}
	return time.Time{}, false
}

// plan schedules the next step. Requires mu.
func (s *stream) plan() {
	s.net.cancel(s.next)
	s.next = nil
	at, waits := s.patience()
	if len(s.flying) > 0 && !s.on.cut() {
		if due := s.flying[0].due; !waits || due.Before(at) {
			at, waits = due, true
		}
	}
	if waits {
		s.next = s.net.schedule(at, s.step)
	}
}

// sentAgain is called when a cut has been mended. A sender waits twice as long
// after each attempt, so what was held back comes up to as much later as it was
// held back. Requires mu.
func (s *stream) sentAgain() {
	if len(s.flying) == 0 {
		return
	}
	now := s.net.now()
	due := s.net.due(s.on, now, 0)
	if held := now.Sub(s.flying[0].sent); held > 0 {
		due = due.Add(time.Duration(s.on.rng.Int64N(int64(held))))
	}
	for i := range s.flying {
		if s.flying[i].due.Before(due) {
			s.flying[i].due = due
		}
	}
}

// acknowledged is called when the way back has been mended. Requires mu.
func (s *stream) acknowledged() {
	s.silent = 0
	if s.refused {
		s.refused = false
		s.from.fail(syscall.ECONNRESET)
	}
	s.moved.Broadcast()
	s.from.pair.release()
}

// drop forgets what is on its way. Requires mu.
func (s *stream) drop() {
	s.flying, s.bytes, s.silent, s.refused = nil, 0, 0, false
	s.plan()
}
