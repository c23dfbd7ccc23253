package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
)

// A watchedConn is a connection that knows since when its reader has been
// waiting for the server, and sends each packet in one write.
//
// paho writes a packet in several pieces and holds the connection's lock
// meanwhile, if it has one: Unlock is where the packet is complete.
type watchedConn struct {
	net.Conn
	in *bufio.Reader

	mu  sync.Mutex // held while a packet is written
	out *bufio.Writer

	waiting atomic.Int64 // Unix time in ns since when Read has had nothing; 0: nobody reads
}

func watch(c net.Conn) *watchedConn {
	w := &watchedConn{Conn: c, out: bufio.NewWriterSize(c, 16<<10)}
	w.in = bufio.NewReaderSize(readerFunc(w.read), 16<<10)
	return w
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (w *watchedConn) read(p []byte) (int, error) {
	w.waiting.Store(time.Now().UnixNano())
	defer w.waiting.Store(0)
	return w.Conn.Read(p)
}

func (w *watchedConn) Read(p []byte) (int, error)  { return w.in.Read(p) }
func (w *watchedConn) Write(p []byte) (int, error) { return w.out.Write(p) }
func (w *watchedConn) Lock()                       { w.mu.Lock() }

// Unlock sends what was written since Lock. An error stays in the writer and
// is returned by the next Write.
func (w *watchedConn) Unlock() {
	w.out.Flush()
	w.mu.Unlock()
}

// goodbye is how long Close waits for the server to end its half.
const goodbye = 500 * time.Millisecond

// Close ends our half of the connection and waits until the server, which has
// then read all of it, ends its own. Who runs `sub -C 2` twice would otherwise
// be back before the server knows what the first has acknowledged.
func (w *watchedConn) Close() error {
	half, ok := w.Conn.(interface{ CloseWrite() error })
	if ok && half.CloseWrite() == nil && w.Conn.SetReadDeadline(time.Now().Add(goodbye)) == nil {
		_, _ = io.Copy(io.Discard, w.Conn)
	}
	return w.Conn.Close()
}

// silence returns for how long the reader has been waiting for the server in
// vain. While nobody reads, because what was received has not been taken yet,
// the server's silence means nothing: it is 0.
func (w *watchedConn) silence() time.Duration {
	since := w.waiting.Load()
	if since == 0 {
		return 0
	}
	return time.Since(time.Unix(0, since))
}

var errSilent = errors.New("the server is silent")

// A pinger keeps a connection alive and notices when the other side is gone.
//
// paho's own gives up when no PINGRESP was read within the keep-alive. That
// ends `sub | less` as soon as its reader pauses: the subscriber reads nothing
// then, by design, and the answer waits unread in the socket.
type pinger struct {
	silent func() // told first, before paho closes the connection and meets the errors of that
}

func (p pinger) Run(ctx context.Context, c net.Conn, keepAlive uint16) error {
	if keepAlive == 0 {
		return nil
	}
	interval := time.Duration(keepAlive) * time.Second
	w, ok := c.(*watchedConn)
	if !ok {
		return errors.New("pinger: not a watched connection")
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// Every ping asks for an answer, so that a healthy reader never waits
		// much longer than one interval.
		if w.silence() > interval*3/2 {
			p.silent()
			return errSilent
		}
		if _, err := packets.NewControlPacket(packets.PINGREQ).WriteTo(c); err != nil {
			return err
		}
	}
}

func (pinger) PacketSent()         {}
func (pinger) PacketReceived()     {}
func (pinger) PingResp()           {}
func (pinger) SetDebug(log.Logger) {}
