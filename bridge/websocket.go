package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// WebSocketDial returns a Dial over WebSocket (5.0 6) for addresses that are URLs of ws:// or
// wss://; those of the latter by config, as TLSDial has it. Nothing is compressed, and no
// redirection is followed: the peer is who was said.
func WebSocketDial(config func() (*tls.Config, error)) func(context.Context, string) (net.Conn, error) {
	transport := &http.Transport{
		DialContext:       (&net.Dialer{KeepAlive: -1}).DialContext,
		DialTLSContext:    func(ctx context.Context, _, address string) (net.Conn, error) { return TLSDial(config)(ctx, address) },
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, res, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"mqtt"}})
		switch {
		case err != nil && res != nil:
			why := strings.TrimPrefix(err.Error(), "failed to WebSocket dial: ")
			return nil, &failed{FailRefused, fmt.Errorf("no WebSocket there: %s", why), "is the path of the address the one at which the peer has MQTT? most have it at /mqtt"}
		case err != nil:
			if u, ok := errors.AsType[*url.Error](err); ok {
				err = u.Err // the address is said by who tells it
			}
			return nil, err
		case c.Subprotocol() != "mqtt":
			_ = c.CloseNow()
			return nil, &failed{FailRefused, errors.New("a WebSocket, and not one of MQTT: it does not agree to the subprotocol mqtt"), "is the path of the address the one at which the peer has MQTT?"}
		}
		// A frame is read as it comes, whatever its size: what a packet may have, end.read
		// bounds.
		conn := websocket.NetConn(context.Background(), c, websocket.MessageBinary)
		return &webSocket{Conn: conn, c: c, reading: limited{set: conn.SetReadDeadline}, writing: limited{set: conn.SetWriteDeadline}}, nil
	}
}

// A webSocket is a connection whose deadlines are those of reads and writes, under way or begun
// later. One that passes between them must not end it, as those of websocket.NetConn could, whose
// timers go on. One goroutine at a time reads, and one writes; any may set deadlines.
type webSocket struct {
	net.Conn
	c                *websocket.Conn
	reading, writing limited
}

func (w *webSocket) SetReadDeadline(t time.Time) error  { return w.reading.limit(t) }
func (w *webSocket) SetWriteDeadline(t time.Time) error { return w.writing.limit(t) }

func (w *webSocket) Read(b []byte) (int, error)  { return w.reading.within(w.Conn.Read, b) }
func (w *webSocket) Write(b []byte) (int, error) { return w.writing.within(w.Conn.Write, b) }

// A limited is what has a deadline.
type limited struct {
	set func(time.Time) error // the connection's

	mu   sync.Mutex // guards the following, and calls of set
	by   time.Time
	busy bool // it is under way
}

func (l *limited) limit(by time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by = by; l.busy {
		return l.set(by)
	}
	return nil
}

// within does it.
func (l *limited) within(do func([]byte) (int, error), b []byte) (int, error) {
	if err := l.turn(true); err != nil {
		return 0, err
	}
	n, err := do(b)
	if errors.Is(err, context.Canceled) { // so it says that the time is over
		err = os.ErrDeadlineExceeded
	}
	return n, errors.Join(err, l.turn(false))
}

// turn has the connection know the deadline while it is of use.
func (l *limited) turn(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy = on; on {
		return l.set(l.by)
	}
	return l.set(time.Time{})
}

// Close ends the connection at once: MQTT has said DISCONNECT.
func (w *webSocket) Close() error { return w.c.CloseNow() }
