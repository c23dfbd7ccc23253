package mqtt

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A rawTransport carries a connection over a socket: it reads and writes the
// socket itself and uses Go's poller to wait for it, so that a buffer is
// needed only once there is something to read, and a write never waits unless
// it is asked to.
type rawTransport struct {
	conn socket
	raw  syscall.RawConn

	// The calls into raw, made once: a function literal in each call would be
	// garbage with every packet.
	onRead, onWrite func(fd uintptr) bool

	// Of the read under way.
	hungry  bool
	in      *input
	readErr error

	// Of the write under way.
	out      [][]byte
	wait     bool
	wrote    int
	writeErr error
}

func newRawTransport(conn socket) (transport, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	t := &rawTransport{conn: conn, raw: raw}
	t.onRead, t.onWrite = t.tryRead, t.tryWrite
	return t, nil
}

func (t *rawTransport) read(hungry bool) (*input, error) {
	t.hungry = hungry
	if err := t.raw.Read(t.onRead); err != nil {
		return nil, err
	}
	in := t.in
	t.in = nil
	return in, t.readErr
}

// tryRead takes a buffer for as long as it takes to find that there is
// nothing to read.
func (t *rawTransport) tryRead(fd uintptr) bool {
	in := newInput(t.hungry)
	for {
		n, err := syscall.Read(int(fd), in.buf)
		switch {
		case n > 0:
			in.n = n
			t.in, t.readErr = in, nil
			return true
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			in.release()
			return false
		case err == nil:
			err = io.EOF
		}
		in.release()
		t.in, t.readErr = nil, err
		return true
	}
}

func (t *rawTransport) write(bufs [][]byte, wait bool) (int, error) {
	t.out, t.wait, t.wrote, t.writeErr = bufs, wait, 0, nil
	err := t.raw.Write(t.onWrite)
	t.out = nil
	if err == nil {
		err = t.writeErr
	}
	return t.wrote, err
}

func (t *rawTransport) tryWrite(fd uintptr) bool {
	for {
		var n int
		var err error
		if len(t.out) == 1 {
			n, err = syscall.Write(int(fd), t.out[0])
		} else {
			n, err = unix.Writev(int(fd), t.out)
		}
		switch err {
		case nil:
			t.wrote = n
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return !t.wait
		}
		t.writeErr = err
		return true
	}
}

func (t *rawTransport) owes() bool { return false }

func (t *rawTransport) wake() { t.conn.SetReadDeadline(time.Unix(1, 0)) }
func (t *rawTransport) calm() { t.conn.SetReadDeadline(time.Time{}) }

func (t *rawTransport) probe() { probe(t.conn) }

func (t *rawTransport) finish() { t.conn.CloseWrite() }

func (t *rawTransport) close(reset bool) {
	if tcp, ok := t.conn.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	t.conn.Close()
}

func (t *rawTransport) remote() net.Addr { return t.conn.RemoteAddr() }

func (t *rawTransport) security() *tls.ConnectionState { return nil }
