package mqtttest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Patience is how long a client waits for what it expects. It is long because
// it is only ever used up by a test that fails, on a machine with other work.
const Patience = 30 * time.Second

// ErrClosed means that the broker ended the connection, in order or by reset.
var ErrClosed = errors.New("closed by the broker")

// A Conn is one connection to a broker. One goroutine may write while another
// reads.
type Conn struct {
	Net     net.Conn
	Version byte // 3, 4 (which is 3.1.1) or 5

	aliases    map[uint32]string // what the broker's topic aliases stand for
	aliasLimit uint32            // of them, as our CONNECT said

	buf  []byte    // received, not yet a whole packet
	back []*Packet // put back, to be read before anything else
}

// NewConn speaks version over nc.
func NewConn(nc net.Conn, version byte) *Conn { return &Conn{Net: nc, Version: version} }

// DialConn opens a TCP connection. A receive buffer of 0 leaves it to the
// system; a small one makes a reader that stops felt at the broker soon.
func DialConn(addr string, version byte, receiveBuffer int) (*Conn, error) {
	d := net.Dialer{Timeout: Patience}
	if receiveBuffer > 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			})
			return errors.Join(err, failed)
		}
	}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewConn(nc, version), nil
}

// DialConnect dials, sends CONNECT and returns what the broker answered. The
// connection is open whatever the answer's code is, and nil with an error.
func DialConnect(addr string, version byte, m Connect) (*Conn, *Packet, error) {
	c, err := DialConn(addr, version, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Write(m); err != nil {
		c.Close()
		return nil, nil, err
	}
	p, err := c.Read(Patience)
	if err == nil && p.Type != CONNACK {
		err = fmt.Errorf("got %v, want CONNACK", p)
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, p, nil
}

// Close ends the connection without DISCONNECT.
func (c *Conn) Close() error { return c.Net.Close() }

// Reset ends the connection with a TCP reset, as a crashed client's host does.
func (c *Conn) Reset() error {
	if tcp, ok := c.Net.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return c.Net.Close()
}

// Write sends the messages in one write.
func (c *Conn) Write(ms ...Message) error {
	var b []byte
	for _, m := range ms {
		if connect, ok := m.(Connect); ok {
			c.aliasLimit, _ = connect.Properties.Number(PropTopicAliasMaximum)
		}
		b = append(b, m.Encode(c.Version)...)
	}
	if err := c.Net.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	_, err := c.Net.Write(b)
	return err
}

// Read returns the next packet. It fails with ErrClosed when the broker ended
// the connection, with os.ErrDeadlineExceeded when nothing whole came within
// the time (what did come is kept for the next call), and with another error
// when the broker sent what the standard forbids.
func (c *Conn) Read(within time.Duration) (*Packet, error) {
	if len(c.back) > 0 {
		p := c.back[0]
		c.back = c.back[1:]
		return p, nil
	}
	// An error here means that the connection has ended: reading tells how.
	_ = c.Net.SetReadDeadline(time.Now().Add(within))
	for {
		p, n, err := cut(c.buf, c.Version)
		if err != nil {
			return nil, err
		}
		if p != nil {
			c.buf = c.buf[n:]
			return p, c.resolve(p)
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// Waits says whether a whole packet has come that the next Read returns at once.
func (c *Conn) Waits() bool {
	if len(c.back) > 0 {
		return true
	}
	if len(c.buf) < 2 {
		return false
	}
	n, rest, err := readVarint(c.buf[1:])
	return err == nil && uint32(len(rest)) >= n || err != nil && !errors.Is(err, errCut)
}

// resolve puts the topic of a PUBLISH in the place of its alias. The broker may
// use an alias only up to the number that we allowed, and only after it has
// told its topic on this connection.
func (c *Conn) resolve(p *Packet) error {
	alias, ok := p.Properties.Number(PropTopicAlias)
	if !ok {
		return nil
	}
	if alias == 0 || alias > c.aliasLimit {
		return fmt.Errorf("%v: topic alias %d, allowed are %d", p, alias, c.aliasLimit)
	}
	if p.Topic == "" {
		if p.Topic = c.aliases[alias]; p.Topic == "" {
			return fmt.Errorf("%v: topic alias %d was not told on this connection", p, alias)
		}
		return nil
	}
	if c.aliases == nil {
		c.aliases = map[uint32]string{}
	}
	c.aliases[alias] = p.Topic
	return nil
}

// PutBack makes Read return these packets again, in this order, before others.
func (c *Conn) PutBack(ps ...*Packet) { c.back = append(ps, c.back...) }

func (c *Conn) fill() error {
	chunk := make([]byte, 16<<10)
	n, err := c.Net.Read(chunk)
	c.buf = append(c.buf, chunk[:n]...)
	switch {
	case n > 0:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		if len(c.buf) > 0 {
			return fmt.Errorf("%w in the middle of a packet: % x", ErrClosed, clip(c.buf))
		}
		return ErrClosed
	}
	return err
}

// cut takes the first whole packet off b; nil without error asks for more.
func cut(b []byte, version byte) (*Packet, int, error) {
	if len(b) < 2 {
		return nil, 0, nil
	}
	n, rest, err := readVarint(b[1:])
	if errors.Is(err, errCut) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("remaining length % x: %w", clip(b), err)
	}
	if uint32(len(rest)) < n {
		return nil, 0, nil
	}
	p, err := Decode(b[0], rest[:n], version)
	return p, len(b) - len(rest) + int(n), err
}
