package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session"

	"github.com/bellwire/bellwire/bw"
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
	scram            *secret                                 // proved by SCRAM-SHA-256; nil: nothing is
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
			return nil, fail(bw.Usage, "-A %s: %w", t.bind, err)
		}
		d.LocalAddr = local
	}
	c, err := d.DialContext(ctx, t.network, t.address)
	if err != nil {
		return nil, fail(bw.Unreachable, "cannot connect to %s: %w", t, plain(err))
	}
	if t.tls == nil {
		return c, nil
	}
	secure := tls.Client(c, t.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fail(bw.TLS, "cannot agree on TLS with %s: %w", t, err).named(err, "-h")
	}
	return secure, nil
}

// named has a fault tell, if err is that a certificate is for other hosts, for which, and the flag that takes one.
func (f *fault) named(err error, flag string) *fault {
	wrong, ok := errors.AsType[x509.HostnameError](err)
	if !ok {
		return f
	}
	names := slices.Clone(wrong.Certificate.DNSNames)
	for _, ip := range wrong.Certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return f.do("the certificate is for no host at all: have one made with the server's name (for our own: bellwire cert node --host NAME)")
	}
	return f.do("name the server as its certificate does: %s with one of %s; or have a certificate made for this name, too", flag, strings.Join(names, ", "))
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
	auth, connect, err := to.scram.begin(conn, connect)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := &client{lost: make(chan error, 1)}
	trusted, told := false, make(chan struct{}) // trusted is for who waits for told
	ended := func(err error) {
		select {
		case c.lost <- err:
		default: // the first reason is the one; what follows are its effects
		}
	}
	c.Client = paho.NewClient(paho.ClientConfig{
		Conn: watch(conn), Session: state, AuthHandler: auth,
		PingHandler: pinger{func() { ended(fail(bw.Lost, "%s does not answer any more", to)) }},
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			if <-told; !trusted {
				return true, nil
			}
			return receive(p)
		}},
		OnClientError: func(err error) {
			if why := auth.failure(); why != nil {
				ended(why)
			}
			ended(fail(bw.Lost, "the connection to %s broke: %w", to, plain(err)))
		},
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
	if why := auth.failure(); why != nil {
		return nil, why
	}
	switch {
	case c.connack != nil && c.connack.ReasonCode >= 0x80:
		f := refusal(to.String()+" does not let this client in", c.connack.ReasonCode, c.connack.Properties.ReasonString)
		switch {
		case c.connack.ReasonCode == 0x8C && to.scram != nil:
			f.todo = "nobody proves who they are by SCRAM-SHA-256 there: go without --scram"
		case f.code == bw.BadCredentials && to.scram == nil && !connect.PasswordFlag:
			f.todo = noPassword
		case f.code == bw.BadCredentials && to.scram == nil:
			f.todo = orScram
		case c.connack.ReasonCode == 0x8A:
			f.todo = "an operator sees and ends it: bellwire ban ls, bellwire ban rm"
		}
		return nil, f
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fail(bw.NoAnswer, "%s took the connection and has not answered for %s", to, to.timeout)
	case errors.Is(err, context.Canceled):
		return nil, err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fail(bw.NoAnswer, "%s closed the connection without an answer: it may not speak MQTT 5", to)
	case err != nil && strings.Contains(err.Error(), "remote error: tls: "): // by TLS 1.3 the client learns it when it reads
		f := fail(bw.TLS, "%s ends the connection: %w", to, plain(err))
		switch {
		case strings.Contains(err.Error(), "certificate required"):
			f.todo = "it lets nobody in without a client certificate: give one with --cert and --key"
		case to.tls != nil && len(to.tls.Certificates) > 0 && strings.Contains(err.Error(), "certificate"):
			f.todo = "it does not take the certificate of --cert: it has to be of the listener's authorities, in force, and not revoked"
		}
		return nil, f
	case err != nil:
		return nil, fail(bw.NoAnswer, "%s answered with something else than a CONNACK: %w", to, err)
	}
	err = auth.proved(c.connack)
	trusted = err == nil
	close(told)
	if err != nil {
		c.close(ctx, &paho.Disconnect{})
		return nil, err
	}
	return c, nil
}

// orScram is what to do if a password, or token, proved nothing.
const orScram = "check -u and -P; the password of a device is its token; who has a verifier alone (scram_sha256) adds --scram"

// noPassword is what to do if a user name without a password proved nothing.
const noPassword = "there was no password with it: give one with -P, or in the environment as BELLWIRE_PW"

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

// ours is how bellwire fills a Reason String: a code, what happened, and maybe
// the command that says more.
var ours = regexp.MustCompile(`^(BW-\d{4}) (.*?)(?:; (bellwire .*))?$`)

// refusal turns a reason code (0x80 and above) and Reason String into a fault.
// A server that is bellwire says more than the number does.
func refusal(what string, number byte, text string) *fault {
	text = safe(text)
	m := ours.FindStringSubmatch(text)
	if m == nil {
		if text != "" {
			text = ": " + text
		}
		return fail(bw.OfReason(number), "%s: %s%s", what, reasonName(number), text)
	}
	f := fail(bw.OfReason(number), "%s: %s", what, m[2])
	if e, known := bw.Find(m[1]); known {
		f.code = e.Code
	} else {
		f.what += " (" + m[1] + ")"
	}
	if f.todo = m[3]; f.todo == "" {
		f.todo = afterRefusal(m[2])
	}
	return f
}

// afterRefusal returns what to do about a refusal, by its reason, if there is better
// advice than that for all of its code; empty if there is not.
func afterRefusal(why string) string {
	if m := retryAfter.FindStringSubmatch(why); m != nil {
		if d, err := time.ParseDuration(m[1] + "s"); err == nil {
			return "ask again in " + d.String()
		}
	}
	for _, known := range refusals {
		if strings.Contains(why, known.says) {
			return known.todo
		}
	}
	return ""
}

var retryAfter = regexp.MustCompile(`^probation: retry-after=(\d+)`)

var refusals = []struct{ says, todo string }{
	{"identity-required: its owner", "let them know more of who you are: --visibility pseudonymous,identified"},
	{"identity-required", "say who you are: -u NAME@DOMAIN, and -P"},
	{"anonymous clients are not permitted", "say who you are: -u NAME@DOMAIN, and -P"},
	{"theirs, or a delegate's, to publish", "publish your own, or have them name you in the delegates of their policy"},
	{"theirs, or a delegate's, to read", "read your own, or have them name you in the delegates of their policy, with read"},
	{"no-such-subscription", "bellwire watchers ls lists those that there are"},
	{"min-expires=", "ask for as many seconds at least, such as --expires 30s"},
	{"evt-visibility is", "such as --visibility pseudonymous,identified"},
	{"in use by another principal", "use another client id: --id"},
	{"credentials are no longer valid", "ask the operator for new ones: the policy was changed"},
	{"does not know the user any more", "ask the operator: the policy was changed"},
	{"ended by an administrator", "ask the operator who ended it; nothing keeps you from connecting again"},
	{"client certificate is revoked", "get another certificate, and give it with --cert and --key"},
	{"a delay is of", "publish with a shorter delay, or have the operator raise delayed: {longest} in the policy"},
	{"blocked-source", "they have blocked you under another name: ask again in 30 days, or by your name"},
}

// reasonName names the reason codes of MQTT 5 that refuse (5.0 2.4).
func reasonName(n byte) string {
	if name, ok := reasonNames[n]; ok {
		return name
	}
	return fmt.Sprintf("reason code 0x%02X", n)
}

var reasonNames = map[byte]string{
	0x81: "malformed packet",
	0x82: "protocol error",
	0x83: "not accepted by this server",
	0x84: "MQTT 5 is not spoken there",
	0x85: "client id not valid",
	0x86: "bad user name or password",
	0x87: "not authorized",
	0x88: "server unavailable",
	0x89: "server busy",
	0x8A: "banned",
	0x8B: "server shutting down",
	0x8C: "bad authentication method",
	0x8D: "keep-alive timeout",
	0x8E: "another client took the session over",
	0x8F: "topic filter invalid",
	0x90: "topic name invalid",
	0x93: "receive maximum exceeded",
	0x94: "topic alias invalid",
	0x95: "packet too large",
	0x96: "message rate too high",
	0x97: "quota exceeded",
	0x98: "administrative action",
	0x99: "payload format invalid",
	0x9A: "retain not supported",
	0x9B: "QoS not supported",
	0x9C: "use another server",
	0x9D: "use another server",
	0x9E: "shared subscriptions not supported",
	0x9F: "connection rate exceeded",
	0xA0: "maximum connect time",
	0xA1: "subscription identifiers not supported",
	0xA2: "wildcard subscriptions not supported",
}
