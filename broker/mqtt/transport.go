package mqtt

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// A transport is the byte stream under a connection. There is one for sockets,
// which costs nothing while it is idle, and one for every other net.Conn; and on
// top of either, as its Listener wants it, one each for the PROXY protocol, TLS and
// WebSocket, in this order.
type transport interface {
	// read parks until the client has sent something and returns an input
	// that holds it. hungry says that the last read filled its buffer. Called
	// by the connection's goroutine only.
	read(hungry bool) (*input, error)

	// write gives the stream as much of bufs as it takes now and says how
	// many bytes that was; with wait it parks until it takes some. One call at
	// a time. It keeps nothing of bufs, but what it was offered and has not taken
	// must come first in the next call: it may have begun a frame with it. What
	// it owes goes first, also if bufs is empty.
	write(bufs [][]byte, wait bool) (int, error)

	// owes says that the stream has something of its own to write, an answer to
	// the client's end of it or what frames what was offered. A read after
	// which it is so returns, though with an empty input if nothing else came.
	owes() bool

	// wake makes the reads of now and later fail with errWoken, until calm.
	wake()
	calm()

	// probe has the kernel find out whether the other end is still there: it
	// is for clients without a keep alive, of whom nobody else would notice.
	probe()

	// finish says that no more is written; called once at most, as if it were a
	// write. close ends the stream in both
	// directions; with reset, what was not yet sent is thrown away.
	finish()
	close(reset bool)

	remote() net.Addr

	// security is the state of the stream's TLS, nil if it has none. Called once
	// something was read, and from then on by any goroutine.
	security() *tls.ConnectionState
}

// errWoken is what a read fails with that was woken up.
var errWoken = os.ErrDeadlineExceeded

// Sizes of the buffers that are attached to a connection while it has input:
// the large one to those that filled the small one, so that a thousand
// publishers that wait for the broker hold 4 MB and not 64.
const (
	smallInput = 4 << 10
	largeInput = 64 << 10
)

// An input is what was read from a client at once, and what handling it needs.
// It is pooled: a connection that has nothing to read has none.
type input struct {
	buf  []byte // all of the memory
	n    int    // bytes of buf that hold input
	wave broker.Wave
	ev   event.Event // reused by publishes, with its frames

	packets [16]uint32 // handled, by type, not yet in Stats
	payload uint64     // bytes of payloads in them
}

var (
	smallInputs = sync.Pool{New: func() any { return &input{buf: make([]byte, smallInput)} }}
	largeInputs = sync.Pool{New: func() any { return &input{buf: make([]byte, largeInput)} }}
)

func newInput(large bool) *input {
	if large {
		return largeInputs.Get().(*input)
	}
	return smallInputs.Get().(*input)
}

func (in *input) release() {
	in.n = 0
	if len(in.buf) == smallInput {
		smallInputs.Put(in)
	} else {
		largeInputs.Put(in)
	}
}

// A streamTransport carries a connection over any net.Conn. Such a stream
// cannot be asked whether it has something to read, or takes something now:
// the reader parks with a little buffer of its own, and all writing is done by
// the goroutine that the connection starts when a write takes nothing.
type streamTransport struct {
	conn net.Conn
	park [512]byte
}

func (t *streamTransport) read(hungry bool) (*input, error) {
	if hungry {
		in := newInput(true)
		n, err := t.conn.Read(in.buf)
		if n > 0 {
			in.n = n
			return in, nil
		}
		in.release()
		return nil, readError(err)
	}
	n, err := t.conn.Read(t.park[:])
	if n == 0 {
		return nil, readError(err)
	}
	in := newInput(false)
	in.n = copy(in.buf, t.park[:n])
	return in, nil
}

// readError makes sure that a read which returned nothing failed.
func readError(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

func (t *streamTransport) write(bufs [][]byte, wait bool) (int, error) {
	if !wait {
		return 0, nil
	}
	// Piece by piece, so that progress is seen.
	return t.conn.Write(bufs[0][:min(len(bufs[0]), largeInput)])
}

func (t *streamTransport) owes() bool { return false }

func (t *streamTransport) wake() { t.conn.SetReadDeadline(time.Unix(1, 0)) }
func (t *streamTransport) calm() { t.conn.SetReadDeadline(time.Time{}) }

func (t *streamTransport) probe() {
	// A stream over TCP (TLS, say) tells what it runs on.
	if c, ok := t.conn.(interface{ NetConn() net.Conn }); ok {
		probe(c.NetConn())
	}
	probe(t.conn)
}

// probe turns on TCP's own keep alive: a peer that is gone is found out within
// ten minutes.
func probe(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: time.Minute, Count: 5})
	}
}

func (t *streamTransport) finish() {
	if c, ok := t.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	t.conn.Close()
}

func (t *streamTransport) close(bool) { t.conn.Close() }

func (t *streamTransport) remote() net.Addr { return t.conn.RemoteAddr() }

func (t *streamTransport) security() *tls.ConnectionState {
	c, ok := t.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := c.ConnectionState()
	return &state
}

// newTransport returns the cheapest transport for a connection.
func newTransport(nc net.Conn) (transport, error) {
	if s, ok := nc.(socket); ok {
		t, err := newRawTransport(s)
		if err == nil || !errors.Is(err, errors.ErrUnsupported) {
			return t, err
		}
	}
	return &streamTransport{conn: nc}, nil
}

// A socket is a net.Conn of the kernel's: TCP or unix.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// dress puts on top of the transport of a connection what the listener wants.
func (by *Listener) dress(tr transport, turns turns, of *conn) transport {
	if by.TLS != nil {
		tr = newTLSTransport(tr, by.TLS, turns, of)
	}
	if by.WebSocket != nil {
		tr = &wsTransport{lower: tr, rules: by.WebSocket}
	}
	return tr
}

// sizeOf is how many bytes bufs are.
func sizeOf(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b)
	}
	return n
}
