package mqtttest

import (
	"errors"
	"os"
	"testing"
	"time"
)

// A Client is a connection that belongs to a test: whatever goes wrong ends
// the test. It is for the test's own goroutine.
type Client struct {
	*Conn
	t      testing.TB
	inbox  []*Packet // read while something else was awaited, in order
	lastID uint16
}

// Dial opens a TCP connection that the test closes at its end.
func Dial(t testing.TB, addr string, version byte) *Client {
	t.Helper()
	c, err := DialConn(addr, version, 0)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	return Wrap(t, c)
}

// DialSlow is Dial with a small receive buffer, for a client that will stop
// reading.
func DialSlow(t testing.TB, addr string, version byte) *Client {
	t.Helper()
	c, err := DialConn(addr, version, 4096)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	return Wrap(t, c)
}

// Wrap makes a connection one of a test, which closes it at its end.
func Wrap(t testing.TB, c *Conn) *Client {
	t.Cleanup(func() { c.Close() })
	return &Client{Conn: c, t: t}
}

// Open dials and connects; the broker must accept.
func Open(t testing.TB, addr string, version byte, m Connect) *Client {
	t.Helper()
	c, _ := OpenAck(t, addr, version, m)
	return c
}

// OpenAck is Open that also returns the CONNACK.
func OpenAck(t testing.TB, addr string, version byte, m Connect) (*Client, *Packet) {
	t.Helper()
	c := Dial(t, addr, version)
	return c, c.Connect(m)
}

// Connect sends CONNECT and returns the CONNACK, which must accept.
func (c *Client) Connect(m Connect) *Packet {
	c.t.Helper()
	c.Send(m)
	p := c.Expect(CONNACK)
	if p.Code != 0 {
		c.t.Fatalf("connect as %q: %v", m.ClientID, p)
	}
	return p
}

// Send writes the messages in one write.
func (c *Client) Send(ms ...Message) {
	c.t.Helper()
	if err := c.Write(ms...); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// TrySend is Send for a connection that the broker may already have ended.
func (c *Client) TrySend(ms ...Message) { _ = c.Write(ms...) }

// ID returns the next packet identifier of this client.
func (c *Client) ID() uint16 {
	c.lastID++
	if c.lastID == 0 {
		c.lastID = 1
	}
	return c.lastID
}

// Next returns the next packet, whatever it is.
func (c *Client) Next() *Packet {
	c.t.Helper()
	if len(c.inbox) > 0 {
		p := c.inbox[0]
		c.inbox = c.inbox[1:]
		return p
	}
	p, err := c.Read(Patience)
	if err != nil {
		c.t.Fatalf("waiting for a packet: %v", err)
	}
	return p
}

// Expect returns the next packet, which must be of this type.
func (c *Client) Expect(want Type) *Packet {
	c.t.Helper()
	if p := c.next(want.String()); p.Type != want {
		c.t.Fatalf("got %v, want %v", p, want)
	} else {
		return p
	}
	return nil
}

// ExpectID returns the next packet, which must be of this type and carry id.
func (c *Client) ExpectID(want Type, id uint16) *Packet {
	c.t.Helper()
	p := c.Expect(want)
	if p.ID != id {
		c.t.Fatalf("got %v, want %v id=%d", p, want, id)
	}
	return p
}

func (c *Client) next(what string) *Packet {
	c.t.Helper()
	if len(c.inbox) > 0 {
		return c.Next()
	}
	p, err := c.Read(Patience)
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", what, err)
	}
	return p
}

// Await returns the first packet of this type, and keeps what comes before it
// for later. A non-zero id must match too.
func (c *Client) Await(want Type, id uint16) *Packet {
	c.t.Helper()
	is := func(p *Packet) bool { return p.Type == want && (id == 0 || p.ID == id) }
	for i, p := range c.inbox {
		if is(p) {
			c.inbox = append(c.inbox[:i:i], c.inbox[i+1:]...)
			return p
		}
	}
	for {
		p, err := c.Read(Patience)
		if err != nil {
			c.t.Fatalf("waiting for %v id=%d: %v (before it came %v)", want, id, err, c.inbox)
		}
		if is(p) {
			return p
		}
		c.inbox = append(c.inbox, p)
	}
}

// Arrives waits at most this long for a packet and returns nil when none came.
// It is for rates and latencies; that nothing comes is better shown by Quiet.
func (c *Client) Arrives(within time.Duration) *Packet {
	c.t.Helper()
	if len(c.inbox) > 0 {
		return c.Next()
	}
	p, err := c.Read(within)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		c.t.Fatalf("waiting for a packet: %v", err)
	}
	return p
}

// Quiet shows that the broker had sent nothing more: PINGRESP is the next
// packet after PINGREQ.
func (c *Client) Quiet() {
	c.t.Helper()
	c.Send(Ping)
	if p := c.next("PINGRESP"); p.Type != PINGRESP {
		c.t.Fatalf("got %v, want nothing", p)
	}
}

// Closed waits until the broker has ended the connection, and returns the
// packets that came before.
func (c *Client) Closed() []*Packet {
	c.t.Helper()
	before := c.inbox
	c.inbox = nil
	for {
		p, err := c.Read(Patience)
		if errors.Is(err, ErrClosed) {
			return before
		}
		if err != nil {
			c.t.Fatalf("waiting for the broker to close: %v (before it came %v)", err, before)
		}
		before = append(before, p)
	}
}

// ClosedWith is Closed with exactly one packet before: in MQTT 5 DISCONNECT
// with this code, in 3.1.1 none.
func (c *Client) ClosedWith(code byte) {
	c.t.Helper()
	got := c.Closed()
	if c.Version < 5 {
		if len(got) > 0 {
			c.t.Fatalf("got %v, want the connection closed without a word", got)
		}
		return
	}
	if len(got) != 1 || got[0].Type != DISCONNECT || got[0].Code != code {
		c.t.Fatalf("got %v before the close, want DISCONNECT code=%#02x", got, code)
	}
}

// Disconnect sends DISCONNECT with code 0 and waits for the close.
func (c *Client) Disconnect() {
	c.t.Helper()
	c.Send(Bye)
	c.Closed()
}
