package mqtt

import (
	"errors"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
)

// An Exchange is how one client proves who it is by an authentication method of MQTT 5
// (5.0 4.12): before its CONNACK, and again whenever it likes to. It is of one
// goroutine.
type Exchange interface {
	// Step takes the client's Authentication Data, nil if it sent none, and returns
	// what to answer. When done, the client has proved to be Principal, and the answer
	// goes with that. An error means that it has not; it may say why, to the operator
	// (LoginReason). Nothing follows it. data is the caller's.
	Step(data []byte) (answer []byte, done bool, err error)

	// User is whom the client says it is: empty until it has.
	User() string

	// Principal is who the client has proved to be, once Step was done.
	Principal() string
}

// maxSteps is how many steps an exchange may have. None that we know has more than
// three.
const maxSteps = 8

// An exchange is enhanced authentication under way. It is over within
// Limits.ConnectTimeout, and a connection has one at a time.
type exchange struct {
	Exchange
	steps int
	who   Identity // what it has proved, once it is done

	// Of one before CONNACK: what the CONNECT was, and asks for. connect is nil if the
	// client is connected and authenticates again.
	connect  *connectPacket
	request  broker.ConnectRequest
	assigned bool
}

// errTooManySteps is how an exchange ends that comes to no end.
var errTooManySteps = errors.New("an exchange of too many steps")

// kept returns what accept needs of p, in memory of its own.
func (p *connectPacket) kept() *connectPacket {
	k := &connectPacket{}
	k.ProtocolVersion, k.Connect.Keepalive = p.ProtocolVersion, p.Connect.Keepalive
	k.Properties.TopicAliasMaximum = p.Properties.TopicAliasMaximum
	k.Properties.SessionExpiryInterval = p.Properties.SessionExpiryInterval
	return k
}

// beginAuth begins the exchange that a CONNECT with an Authentication Method asks for.
// A user name and a password beside it are not looked at: the method says who it is. A
// certificate is (Config.Proved).
func (c *conn) beginAuth(in *input, p *connectPacket, r broker.ConnectRequest, assigned bool) error {
	with := c.srv.enhanced(p.Properties.AuthenticationMethod, c.info())
	if with == nil {
		return c.refuseConnect(in, &fault{codeBadAuthMethod, "authentication method is not offered"})
	}
	c.method = strings.Clone(p.Properties.AuthenticationMethod)
	c.auth = &exchange{Exchange: with, connect: p.kept(), request: r, assigned: assigned}
	return c.stepAuth(in, p.Properties.AuthenticationData)
}

// handleBeforeConnack handles what comes while the exchange is under way that a CONNECT
// has begun: AUTH, or the client gives up; nothing else may (5.0 [MQTT-3.1.2-30]).
func (c *conn) handleBeforeConnack(in *input, packet byte, body []byte) error {
	err := protocolError("only AUTH and DISCONNECT may come before CONNACK")
	switch packet {
	case packets.Auth:
		err = c.handleAuth(in, body)
	case packets.Disconnect:
		if err = c.handleDisconnect(body); errors.Is(err, errLeft) {
			return err
		}
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return c.refuseConnect(in, f)
	}
	return err
}

// handleAuth goes on with an exchange, or begins one on a connection that is to be
// authenticated again (5.0 4.12.1). Meanwhile whatever was permitted is permitted.
func (c *conn) handleAuth(in *input, body []byte) error {
	if c.version < 5 {
		return malformed("AUTH is a packet of MQTT 5")
	}
	code, method, data, err := parseAuth(body)
	switch {
	case err != nil:
		return err
	case c.method == "":
		return protocolError("AUTH on a connection without an authentication method")
	case method != c.method:
		return protocolError("AUTH with another authentication method than CONNECT") // 5.0 [MQTT-4.12.0-5], [MQTT-4.12.1-1]
	case code == codeContinueAuth && c.auth != nil:
		return c.stepAuth(in, data)
	case code == codeReauthenticate && c.auth == nil:
		return c.beginReauth(in, data)
	}
	return protocolError("AUTH that does not continue what is under way")
}

// beginReauth begins to authenticate a client again that is connected.
func (c *conn) beginReauth(in *input, data []byte) error {
	with := c.srv.enhanced(c.method, c.info())
	if with == nil {
		return &fault{codeBadAuthMethod, "authentication method is no longer offered"}
	}
	c.auth = &exchange{Exchange: with}
	now := c.srv.wheel.now.Load()
	c.mu.Lock()
	c.authBy = now + ticks(c.limits.ConnectTimeout)
	c.srv.wheel.set(&c.timer, c.nextDeadline(now))
	c.mu.Unlock()
	return c.stepAuth(in, data)
}

// stepAuth takes what the client sent for the exchange under way, and answers.
func (c *conn) stepAuth(in *input, data []byte) error {
	x := c.auth
	answer, done, err := c.step(x, data)
	switch {
	case err != nil && x.connect != nil:
		return c.refuseConnect(in, err)
	case err != nil:
		return &fault{codeNotAuthorized, "re-authentication failed"}
	case !done:
		return c.answerAuth(in, codeContinueAuth, answer)
	}
	c.auth = nil
	if x.connect == nil {
		return c.endReauth(in, x, answer)
	}
	x.request.Principal, x.request.Way = x.who.Principal, x.who.Way
	a := connackOf{assigned: x.assigned, proof: answer, until: x.who.Until}
	if err := c.fits(x.connect, &x.request, a); err != nil {
		return c.refuseConnect(in, err)
	}
	return c.open(in, x.connect, &x.request, a)
}

// step takes a step of x. What proves something is counted as a try to sign in, like a
// password; the step before it, which only says who is to be proved, is not. The error
// is a *fault that tells nothing.
func (c *conn) step(x *exchange, data []byte) (answer []byte, done bool, err error) {
	client, user := x.request.Client, x.User()
	if x.connect == nil {
		client = c.client
	}
	if user != "" {
		if pause, ok := c.srv.logins.try(user, c.addr, c.srv.wheel.now.Load()); !ok {
			c.srv.tooMany(user, client, c.addr, pause)
			c.pause(pause)
			return nil, false, &fault{codeBadCredentials, ""}
		}
	}
	if x.steps++; x.steps > maxSteps {
		err = errTooManySteps
	} else {
		answer, done, err = x.Step(data)
	}
	if err == nil && done {
		x.who = Identity{Principal: x.Principal()}
		if c.srv.proved != nil {
			x.who, err = c.srv.proved(Login{User: x.User(), Client: client, From: c.info()}, c.method, x.Principal())
		}
	}
	if err != nil {
		c.srv.loginFailed(x.User(), client, c.addr, err)
		return nil, false, &fault{codeBadCredentials, ""}
	}
	if user != "" {
		c.srv.logins.pardon(user, c.addr, c.srv.wheel.now.Load())
	}
	return answer, done, nil
}

// endReauth ends an exchange in which a client has proved again who it is. It has to be
// the same as before: the session is that principal's.
func (c *conn) endReauth(in *input, x *exchange, answer []byte) error {
	if x.who.Principal != c.principal {
		c.srv.loginFailed(x.User(), c.client, c.addr, errOther)
		return &fault{codeNotAuthorized, "re-authentication as another principal"}
	}
	c.mu.Lock()
	c.authBy = 0
	c.mu.Unlock()
	c.srv.stats.Reauths.Add(1)
	return c.answerAuth(in, codeSuccess, answer)
}

// A loginError is a reason for a failed login that is found here.
type loginError string

func (e loginError) Error() string       { return string(e) }
func (e loginError) LoginReason() string { return string(e) }

const errOther loginError = "other_principal"

// answerAuth queues an AUTH. Who takes no packet so large cannot go on.
func (c *conn) answerAuth(in *input, code byte, data []byte) error {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ReasonCode: code}
	pk.Properties.AuthenticationMethod, pk.Properties.AuthenticationData = c.method, data
	c.mu.Lock()
	fits := c.ending
	if !c.ending {
		c.dirty(&in.wave)
		fits = c.put(pk)
	}
	c.mu.Unlock()
	switch {
	case fits:
		return nil
	case !c.accepted:
		return c.refuseConnect(in, &fault{codeTooLarge, "Maximum Packet Size is smaller than AUTH"})
	}
	return &fault{codeTooLarge, "Maximum Packet Size is smaller than AUTH"}
}
