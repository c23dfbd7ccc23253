package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/internal/wire"
)

// An end is the connection to one of the two brokers. One goroutine reads; any may write.
type end struct {
	conn     net.Conn
	who      string // to people
	version  byte
	now      func() time.Time
	most     int           // bytes of the largest packet that is read
	patience time.Duration // without a packet; 0 for any
	limits   connack       // what the broker has said that it takes

	in    *bufio.Reader
	body  []byte       // of packets that in does not hold
	begun bool         // the packet that is read has had its time set
	idle  func() error // called before the reader waits for the broker; nil for nothing

	leaving atomic.Bool

	mu  sync.Mutex // guards the following; held while the broker takes nothing
	out *bufio.Writer
	buf []byte
}

// Sizes of an end's buffers. A packet that is larger than the one for reading is read into
// memory of its own, which is kept.
const (
	readBuffer  = 32 << 10
	writeBuffer = 32 << 10
)

// writeTime is how long a broker may take nothing of what it is sent, and leaveTime how long
// it may when we leave.
const (
	writeTime = 20 * time.Second
	leaveTime = time.Second
)

func newEnd(conn net.Conn, who string, most int, now func() time.Time) *end {
	e := &end{conn: conn, who: who, most: most, now: now}
	e.in = bufio.NewReaderSize(waiter{e}, readBuffer)
	e.out = bufio.NewWriterSize(deadlined{e}, writeBuffer)
	return e
}

// waiter is the connection of an end to its reader, each of whose packets has a time.
type waiter struct{ e *end }

func (w waiter) Read(b []byte) (int, error) {
	e := w.e
	if e.idle != nil {
		if err := e.idle(); err != nil {
			return 0, err
		}
	}
	if !e.begun {
		e.begun = true
		deadline := time.Time{}
		if e.patience > 0 {
			deadline = e.now().Add(e.patience)
		}
		if err := e.conn.SetReadDeadline(deadline); err != nil {
			return 0, err
		}
	}
	return e.conn.Read(b)
}

// deadlined is the connection of an end, each of whose writes has a time.
type deadlined struct{ e *end }

func (d deadlined) Write(b []byte) (int, error) {
	if err := d.e.within(writeTime); err != nil {
		return 0, err
	}
	if d.e.leaving.Load() { // looked at after the time is set, as leave sets it before its own
		if err := d.e.within(leaveTime); err != nil {
			return 0, err
		}
	}
	return d.e.conn.Write(b)
}

// within has what is written take no longer than that.
func (e *end) within(time time.Duration) error { return e.conn.SetWriteDeadline(e.now().Add(time)) }

// read returns the next packet. Its body is the reader's until the next read.
func (e *end) read() (first byte, body []byte, err error) {
	e.begun = false
	first, err = e.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := e.length()
	if err != nil {
		return 0, nil, err
	}
	if 1+wire.VarintLen(n)+n > e.most {
		return 0, nil, &failed{
			FailProtocol, fmt.Errorf("%s sends a packet of %d bytes, and %d is the most", e.who, 1+wire.VarintLen(n)+n, e.most),
			"raise packet.bytes under limits, or have less published there: until then nothing more is carried from it",
		}
	}
	if n <= readBuffer {
		body, err = e.in.Peek(n)
		if err == nil {
			_, err = e.in.Discard(n)
		}
		return first, body, whole(err)
	}
	if cap(e.body) < n {
		e.body = make([]byte, n)
	}
	_, err = io.ReadFull(e.in, e.body[:n])
	return first, e.body[:n], whole(err)
}

// whole is err of reading what a packet is not whole without.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (e *end) length() (n int, err error) {
	for i := range 4 {
		b, err := e.in.ReadByte()
		if err != nil {
			return 0, whole(err)
		}
		n |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			return n, nil
		}
	}
	return 0, malformed("a length of more than four bytes")
}

// write queues what encode appends. It is written with flush, or when there is much.
func (e *end) write(encode func(b []byte) []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.buf = encode(e.buf[:0])
	_, err := e.out.Write(e.buf)
	return err
}

func (e *end) ack(packet byte, id uint16, code byte) error {
	return e.write(func(b []byte) []byte { return appendAck(b, packet, id, code, e.version) })
}

// flush writes what is queued. If somebody else is writing it is theirs to flush that, after
// what they queue; to wait for them could be to wait for each other.
func (e *end) flush() error {
	if !e.mu.TryLock() {
		return nil
	}
	defer e.mu.Unlock()
	return e.out.Flush()
}

// ping says PINGREQ, unless the broker is being sent something else.
func (e *end) ping() error {
	if !e.mu.TryLock() {
		return nil
	}
	defer e.mu.Unlock()
	if _, err := e.out.Write([]byte{typePingreq << 4, 0}); err != nil {
		return err
	}
	return e.out.Flush()
}

// connect says CONNECT and returns when the broker has let us in.
func (e *end) connect(c connect, patience time.Duration) error {
	e.version, e.patience = c.version, patience
	err := e.write(c.append)
	if err == nil {
		err = e.flush()
	}
	if err != nil {
		// Who has hung up has said why before: by TLS 1.3 a client that is not
		// wanted learns it no sooner.
		if _, _, said := e.read(); said != nil && tlsFailed(said) != nil {
			return said
		}
		return err
	}
	// What is no broker says so with its first byte, and need not be waited for.
	if first, err := e.in.Peek(1); err == nil && first[0] != typeConnack<<4 {
		return malformed("it answers CONNECT with something else")
	}
	_, body, err := e.read()
	if err != nil {
		return fmt.Errorf("it does not answer CONNECT: %w", err)
	}
	if e.limits, err = parseConnack(body, e.version); err != nil {
		return err
	}
	code := e.limits.code
	if code > 0 && code < 0x80 { // as 3.1.1 says it, also to a version that it does not know
		if int(code) >= len(connackV3) {
			return malformed("a return code that there is none of")
		}
		code = connackV3[code]
	}
	if code >= 0x80 {
		return &refusal{code, e.limits.why}
	}
	return nil
}

// A refusal is a CONNACK that does not let us in.
type refusal struct {
	code byte
	why  string
}

func (r *refusal) Error() string { return "it refuses the connection: " + codeText(r.code, r.why) }

// leave says DISCONNECT, if the broker takes that soon.
func (e *end) leave() {
	e.leaving.Store(true)
	_ = e.within(leaveTime) // also for who is writing now
	_ = e.write(func(b []byte) []byte { return append(b, typeDisconnect<<4, 0) })
	_ = e.flush()
	e.conn.Close()
}
