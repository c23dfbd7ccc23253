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
		return &webSocket{Conn: websocket.NetConn(context.Background(), c, websocket.MessageBinary), c: c}, nil
	}
}

// A webSocket is a connection whose deadlines are those of reads and writes under way. One
// that passes between them must not end it, as those of websocket.NetConn could, whose timers
// go on. One goroutine at a time reads and sets the read deadline; likewise for writing.
type webSocket struct {
	net.Conn
	c               *websocket.Conn
	readBy, writeBy time.Time
}

func (w *webSocket) SetReadDeadline(t time.Time) error {
	w.readBy = t
	return nil
}

func (w *webSocket) SetWriteDeadline(t time.Time) error {
	w.writeBy = t
	return nil
}

func (w *webSocket) Read(b []byte) (int, error) {
	return within(w.Conn.SetReadDeadline, w.readBy, w.Conn.Read, b)
}

func (w *webSocket) Write(b []byte) (int, error) {
	return within(w.Conn.SetWriteDeadline, w.writeBy, w.Conn.Write, b)
}

// within does what has a deadline.
func within(set func(time.Time) error, by time.Time, do func([]byte) (int, error), b []byte) (int, error) {
	if err := set(by); err != nil {
		return 0, err
	}
	n, err := do(b)
	if errors.Is(err, context.Canceled) { // so it says that the time is over
		err = os.ErrDeadlineExceeded
	}
	return n, errors.Join(err, set(time.Time{}))
}

// Close ends the connection at once: MQTT has said DISCONNECT.
func (w *webSocket) Close() error { return w.c.CloseNow() }
