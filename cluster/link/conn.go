package link

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	frameHead = 4 + 1 + 8

	// MaxBody is the size of the largest frame's body: Raft puts up to 64
	// entries, of a little more than 1 MiB each, into one message.
	MaxBody = 80 << 20

	// writeTime is how long one write may wait for the other end. Then the
	// connection is closed.
	writeTime = 10 * time.Second
)

// A Conn is a connection to another node. One goroutine may read while any number
// write; frames of one goroutine arrive in order.
type Conn struct {
	Peer  Member // who is at the other end, as it says and its certificate proves
	Plane Plane

	nc net.Conn
	r  *bufio.Reader

	mu    sync.Mutex // guards the following
	w     *bufio.Writer
	watch *time.Timer // closes nc if a write takes too long
	head  [frameHead]byte
}

func newConn(nc net.Conn, peer Member, plane Plane) *Conn {
	c := &Conn{Peer: peer, Plane: plane, nc: nc, r: bufio.NewReaderSize(nc, 64<<10), w: bufio.NewWriterSize(nc, 64<<10)}
	c.watch = time.AfterFunc(time.Hour, func() { _ = nc.Close() })
	c.watch.Stop()
	return c
}

// Write sends a frame. parts are its body, one after the other.
func (c *Conn) Write(kind byte, id uint64, parts ...[]byte) error {
	return c.write(kind, id, true, parts)
}

// Queue is Write, but what it writes may stay behind until the next Write or Flush.
func (c *Conn) Queue(kind byte, id uint64, parts ...[]byte) error {
	return c.write(kind, id, false, parts)
}

// Flush sends what Queue has left behind.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.Reset(writeTime)
	defer c.watch.Stop()
	return c.w.Flush()
}

func (c *Conn) write(kind byte, id uint64, flush bool, parts [][]byte) error {
	size := frameHead - 4
	for _, p := range parts {
		size += len(p)
	}
	if size > MaxBody+frameHead-4 {
		return fmt.Errorf("a frame of %d bytes, of at most %d", size, MaxBody)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.Reset(writeTime)
	defer c.watch.Stop()
	binary.BigEndian.PutUint32(c.head[:], uint32(size))
	c.head[4] = kind
	binary.BigEndian.PutUint64(c.head[5:], id)
	_, err := c.w.Write(c.head[:])
	for _, p := range parts {
		if err == nil {
			_, err = c.w.Write(p)
		}
	}
	if err == nil && flush {
		err = c.w.Flush()
	}
	return err // a bufio.Writer that has failed fails for ever
}

// Read waits for a frame. body is the caller's.
func (c *Conn) Read() (kind byte, id uint64, body []byte, err error) {
	var head [frameHead]byte
	if _, err = io.ReadFull(c.r, head[:]); err != nil {
		return 0, 0, nil, err
	}
	size := int(binary.BigEndian.Uint32(head[:])) - (frameHead - 4)
	if size < 0 || size > MaxBody {
		return 0, 0, nil, fmt.Errorf("a frame of %d bytes, of at most %d", size, MaxBody)
	}
	body, err = readBody(c.r, size)
	return head[4], binary.BigEndian.Uint64(head[5:]), body, err
}

// readBody reads size bytes. Memory is taken as they come: a length is but a claim.
func readBody(r io.Reader, size int) ([]byte, error) {
	const step = 1 << 20
	body := make([]byte, min(size, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			return nil, err
		}
		have = len(body)
		if have == size {
			return body, nil
		}
		grown := make([]byte, min(size, 2*have))
		copy(grown, body)
		body = grown
	}
}

// Close ends the connection. Reads and writes fail from then on.
func (c *Conn) Close() error {
	c.watch.Stop()
	return c.nc.Close()
}
