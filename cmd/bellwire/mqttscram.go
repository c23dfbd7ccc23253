package main

import (
	"net"
	"sync"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/authn"
	"github.com/bellwire/bellwire/bw"
)

// How our own clients prove who they are by SCRAM-SHA-256 (5.0 4.12). A connection that does not
// has an exchange too, which refuses: nobody has asked for what a server sends then.

// A secret is what somebody proves to know, and does not send.
type secret struct{ user, password string }

// An exchange answers the AUTH packets of one connection.
type exchange struct {
	proof *authn.ScramProof // nil: there is nothing to prove
	conn  net.Conn

	mu     sync.Mutex // guards failed
	failed error      // why the exchange, and with it the connection, is over
}

// begin returns the exchange of a connection, and its CONNECT. s is nil for who proves nothing.
func (s *secret) begin(conn net.Conn, packet *paho.Connect) (*exchange, *paho.Connect, error) {
	e := &exchange{conn: conn}
	if s == nil {
		return e, packet, nil
	}
	var err error
	if e.proof, err = authn.NewScramProof(s.user, s.password); err != nil {
		return nil, nil, fail(bw.Usage, "--scram: %w", err)
	}
	first, err := e.proof.Step(nil)
	if err != nil {
		return nil, nil, err
	}
	with, properties := *packet, *packet.Properties
	properties.AuthMethod, properties.AuthData = authn.Scram, first
	with.Properties = &properties
	return e, &with, nil
}

// Authenticate answers an AUTH. It is paho's to call, and what it returns is sent: that
// there is nothing to say it can only show by ending the connection.
func (e *exchange) Authenticate(a *paho.Auth) *paho.Auth {
	answer, err := e.step(a.Properties.AuthMethod, a.Properties.AuthData)
	if err != nil {
		e.mu.Lock()
		e.failed = err
		e.mu.Unlock()
		e.conn.Close()
	}
	return &paho.Auth{ReasonCode: 0x18, Properties: &paho.AuthProperties{AuthMethod: authn.Scram, AuthData: answer}}
}

func (e *exchange) step(method string, message []byte) (answer []byte, err error) {
	switch {
	case e.proof == nil:
		return nil, fail(bw.NoAnswer, "the server sends an AUTH, which nobody has asked for").do("does it want --scram?")
	case method != authn.Scram:
		return nil, fail(bw.NoAnswer, "the server goes on by another method, %q", safe(method)).do("it is not an MQTT 5 server as it should be")
	}
	if answer, err = e.proof.Step(message); err != nil {
		return nil, notProved("%w", err)
	}
	return answer, nil
}

// Authenticated is paho's to call, and says nothing: see proved.
func (e *exchange) Authenticated() {}

// failure is why the exchange is over; nil if it is not.
func (e *exchange) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed
}

// proved says what is wrong with a server that has let somebody in: it has to prove, too, that
// it knows them. Its CONNACK does that (5.0 4.12).
func (e *exchange) proved(k *paho.Connack) error {
	if e.proof == nil {
		return nil
	}
	if k.Properties == nil || k.Properties.AuthMethod != authn.Scram {
		return notProved("its CONNACK is not by %s", authn.Scram)
	}
	if _, err := e.proof.Step(k.Properties.AuthData); err != nil {
		return notProved("%w", err)
	}
	if !e.proof.Proved() {
		return notProved("its last message is not the one that is due")
	}
	return nil
}

func notProved(format string, args ...any) *fault {
	f := fail(bw.NoAnswer, "the server does not prove that it knows who you are: "+format, args...)
	f.todo = "it may be another server than you mean: check -h and -p, and use TLS (--cafile)"
	return f
}
