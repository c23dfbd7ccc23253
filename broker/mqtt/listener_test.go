package mqtt

import (
	"context"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
)

// also serves one more listener, and returns its address.
func (n *node) also(by Listener) string {
	n.t.Helper()
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- n.srv.ServeAs(l, by) }()
	n.t.Cleanup(func() {
		l.Close()
		if err := <-served; err == nil {
			n.t.Error("ServeAs returned without an error")
		}
	})
	return l.Addr().String()
}

func asUser(user, password string) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = true, true
		pk.Connect.Username, pk.Connect.Password = []byte(user), []byte(password)
	}
}

// Each listener says for itself whether clients without credentials are let in, and
// whoever authenticates is told by which one a client has come.
func TestListenersDecideWhoMayBeAnonymous(t *testing.T) {
	seen := make(chan *ConnInfo, 1)
	n := newNode(t, Limits{}, func(_ *node, c *Config) {
		c.AllowAnonymous = false
		c.Authenticate = func(l Login) (Identity, error) {
			seen <- l.From
			if l.User != "ana" {
				return Identity{}, broker.ErrBadCredentials
			}
			return Identity{Principal: "ana@example.com"}, nil
		}
	})
	first := n.addr
	open := n.also(Listener{Name: "open", Anonymous: true})
	for _, c := range []struct {
		addr, name string
		anonymous  string
	}{{first, "mqtt", "CONNACK 87"}, {open, "open", "CONNACK 00"}} {
		n.addr = c.addr
		cl := n.dial()
		cl.version = 5
		cl.send(connectBytes(5, "nobody-"+c.name))
		if got := cl.next(); got[:len(c.anonymous)] != c.anonymous {
			t.Errorf("%s: without credentials: got %s, want %s", c.name, got, c.anonymous)
		}
		n.connect(5, "ana-"+c.name, asUser("ana", "any"))
		from := <-seen
		if from.Listener != c.name || from.Anonymous != (c.name == "open") || from.TLS != nil || from.Certificate() != nil || addressOf(from.Remote).IsValid() {
			t.Errorf("%s: Authenticate was told %+v", c.name, from)
		}
	}
}
