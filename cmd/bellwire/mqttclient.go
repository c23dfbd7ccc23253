package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"
)

// receiveAhead is how many messages may have left the socket and not yet been
// printed. When there are more, nothing is read, and TCP tells the server.
const receiveAhead = 64

// A target is where to connect to and how.
type target struct {
	network, address string
	bind             string
	tls              *tls.Config // nil: plain TCP
	timeout          time.Duration
	dial             func(context.Context) (net.Conn, error) // tests only; nil: the network
}

func (t target) String() string {
	scheme := "mqtt"
	switch {
	case t.network == "unix":
		scheme = "unix"
	case t.tls != nil:
		scheme = "mqtts"
	}
	return scheme + "://" + t.address
}

func (t target) open(ctx context.Context) (net.Conn, error) {
	if t.dial != nil {
		return t.dial(ctx)
	}
	d := net.Dialer{}
	if t.bind != "" {
		local, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(t.bind, "0"))
		if err != nil {
			return nil, fail(bwUsage, "-A %s: %w", t.bind, err)
		}
		d.LocalAddr = local
	}
	c, err := d.DialContext(ctx, t.network, t.address)
	if err != nil {
		return nil, fail(bwUnreachable, "cannot connect to %s: %w", t, plain(err))
	}
	if t.tls == nil {
		return c, nil
	}
	secure := tls.Client(c, t.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fail(bwTLS, "cannot agree on TLS with %s: %w", t, err)
	}
	return secure, nil
}

// plain takes the words "dial tcp 127.0.0.1:1: connect:" off a network error:
// the line it goes into has said that already.
func plain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		var tried string
		if op.Addr != nil {
			tried = " (tried " + op.Addr.String() + ")"
		}
		text := op.Err.Error()
		if i := strings.LastIndex(text, ": "); i >= 0 && strings.HasPrefix(text, "connect") {
			text = text[i+2:]
		}
		return fmt.Errorf("%s%s", text, tried)
	}
	return err
}

// A client is one connection, from CONNACK to its end.
type client struct {
	*paho.Client
	connack *paho.Connack
	lost    chan error // takes the reason why the connection ended, once
}

// connect opens a connection and waits for CONNACK. state lives as long as the
// session, which may be longer. receive is called for each message, one after
// the other; while it does not return, at most receiveAhead more are read.
func connect(ctx context.Context, to target, connect *paho.Connect, state session.SessionManager,
	receive func(paho.PublishReceived) (bool, error), debug io.Writer,
) (*client, error) {
	ctx, cancel := context.WithTimeout(ctx, to.timeout)
	defer cancel()
	conn, err := to.open(ctx)
	if err != nil {
		return nil, err
	}
	c := &client{lost: make(chan error, 1)}
	ended := func(err error) {
		select {
		case c.lost <- err:
		default: // the first reason is the one; what follows are its effects
		}
	}
	c.Client = paho.NewClient(paho.ClientConfig{
		Conn: watch(conn), Session: state,
		PingHandler:       pinger{func() { ended(fail(bwLost, "%s does not answer any more", to)) }},
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){receive},
		OnClientError:     func(err error) { ended(fail(bwLost, "the connection to %s broke: %w", to, plain(err))) },
		OnServerDisconnect: func(d *paho.Disconnect) {
			ended(refusal("the server ended the connection", d.ReasonCode, reasonString(d.Properties)))
		},
		// Waiting has its own limits, here and in publisher.
		PacketTimeout: 1 << 62,
	})
	if debug != nil {
		c.SetDebugLogger(log.New(debug, "", log.Ltime|log.Lmicroseconds))
	}
	c.connack, err = c.Connect(ctx, connect)
	switch {
	case c.connack != nil && c.connack.ReasonCode >= 0x80:
		return nil, refusal(to.String()+" does not let this client in", c.connack.ReasonCode, c.connack.Properties.ReasonString)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fail(bwNoAnswer, "%s took the connection and has not answered for %s", to, to.timeout)
	case errors.Is(err, context.Canceled):
		return nil, err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fail(bwNoAnswer, "%s closed the connection without an answer: it may not speak MQTT 5", to)
	case err != nil:
		return nil, fail(bwNoAnswer, "%s answered with something else than a CONNACK: %w", to, err)
	}
	return c, nil
}

// close sends DISCONNECT and waits until the connection is gone. Who waits for
// a blocked output must not wait for this: it returns when ctx ends.
func (c *client) close(ctx context.Context, d *paho.Disconnect) error {
	closed := make(chan error, 1)
	go func() { closed <- c.Disconnect(d) }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// disconnectPacket returns the DISCONNECT that -D describes.
func (c *clientFlags) disconnectPacket() *paho.Disconnect {
	d := &paho.Disconnect{}
	d.InitProperties(c.props.of("disconnect"))
	return d
}

func reasonString(p *paho.DisconnectProperties) string {
	if p == nil {
		return ""
	}
	return p.ReasonString
}

// ours is how bellwire fills a Reason String: a code, what happened, and what
// to do.
var ours = regexp.MustCompile(`^BW-(\d{4}) ([^;]*)(?:; (.*))?$`)

// refusal turns a reason code (0x80 and above) and Reason String into a fault.
// A server that is bellwire says more than the number does.
func refusal(what string, number byte, text string) *fault {
	reason := reasonCode(number)
	f := fail(reason.code, "%s: %s", what, reason.name)
	if m := ours.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1]) // four digits
		if e, known := findCode(m[1]); known {
			f = fail(e.code, "%s: %s", what, m[2])
		} else {
			f = fail(reason.code, "%s: %s (BW-%04d)", what, m[2], n)
		}
		f.todo = m[3]
	} else if text != "" {
		f = fail(reason.code, "%s: %s: %s", what, reason.name, text)
	}
	return f
}

type reason struct {
	name string
	code code
}

// reasonCode names the reason codes of MQTT 5 that refuse (table 2-6) and says
// what they mean to us.
func reasonCode(n byte) reason {
	switch n {
	case 0x81:
		return reason{"malformed packet", bwRefused}
	case 0x82:
		return reason{"protocol error", bwRefused}
	case 0x83:
		return reason{"not accepted by this server", bwRefused}
	case 0x84:
		return reason{"MQTT 5 is not spoken there", bwRefused}
	case 0x85:
		return reason{"client id not valid", bwRefused}
	case 0x86:
		return reason{"bad user name or password", bwDenied}
	case 0x87:
		return reason{"not authorized", bwDenied}
	case 0x88:
		return reason{"server unavailable", bwBusy}
	case 0x89:
		return reason{"server busy", bwBusy}
	case 0x8A:
		return reason{"banned", bwDenied}
	case 0x8B:
		return reason{"server shutting down", bwBusy}
	case 0x8C:
		return reason{"bad authentication method", bwDenied}
	case 0x8D:
		return reason{"keep-alive timeout", bwLost}
	case 0x8E:
		return reason{"another client took the session over", bwTakenOver}
	case 0x8F:
		return reason{"topic filter invalid", bwRefused}
	case 0x90:
		return reason{"topic name invalid", bwRefused}
	case 0x93:
		return reason{"receive maximum exceeded", bwRefused}
	case 0x94:
		return reason{"topic alias invalid", bwRefused}
	case 0x95:
		return reason{"packet too large", bwLimit}
	case 0x96:
		return reason{"message rate too high", bwLimit}
	case 0x97:
		return reason{"quota exceeded", bwLimit}
	case 0x98:
		return reason{"administrative action", bwDenied}
	case 0x99:
		return reason{"payload format invalid", bwRefused}
	case 0x9A:
		return reason{"retain not supported", bwRefused}
	case 0x9B:
		return reason{"QoS not supported", bwRefused}
	case 0x9C, 0x9D:
		return reason{"use another server", bwBusy}
	case 0x9E:
		return reason{"shared subscriptions not supported", bwRefused}
	case 0x9F:
		return reason{"connection rate exceeded", bwLimit}
	case 0xA0:
		return reason{"maximum connect time", bwLimit}
	case 0xA1:
		return reason{"subscription identifiers not supported", bwRefused}
	case 0xA2:
		return reason{"wildcard subscriptions not supported", bwRefused}
	}
	return reason{fmt.Sprintf("reason code 0x%02X", n), bwRefused}
}
