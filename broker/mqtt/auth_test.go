package mqtt

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// scramNode is a node on which bob and eve sign in by SCRAM-SHA-256, with the password
// "pencil" each.
func scramNode(t testing.TB, limits Limits, with ...func(*node, *Config)) *node {
	t.Helper()
	verifier, err := authn.HashScram([]byte("pencil"), acl.MinIterations, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := acl.Parse("policy.yaml", fmt.Appendf(nil, "users:\n  bob: {scram_sha256: %q}\n  eve: {scram_sha256: %q}\n", verifier, verifier), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	with = append(with, func(_ *node, c *Config) {
		c.AllowAnonymous = false
		c.Enhanced = func(method string, _ *ConnInfo) Exchange {
			if method != authn.Scram {
				return nil
			}
			return authn.NewScram(func(name string) (string, acl.Verifier, bool) { return p.Verifier(name, []byte("key")) })
		}
	})
	return newNode(t, limits, with...)
}

func (n *node) raw() *mq.Conn {
	n.t.Helper()
	c, err := mq.DialConn(n.addr, 5, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// signIn connects by SCRAM and says how that ended.
func (n *node) signIn(c *mq.Conn, user, password string, m mq.Connect) string {
	n.t.Helper()
	return ended(n.t)(c.Authenticate(m, &mq.Scram{User: user, Password: password}, false))
}

func again(t *testing.T, c *mq.Conn, user, password string) string {
	t.Helper()
	return ended(t)(c.Authenticate(mq.Connect{}, &mq.Scram{User: user, Password: password}, true))
}

// ended says in short how an exchange ended.
func ended(t testing.TB) func(*mq.Packet, error) string {
	return func(p *mq.Packet, err error) string {
		t.Helper()
		switch {
		case errors.Is(err, mq.ErrClosed):
			return "closed"
		case err != nil:
			t.Fatal(err)
		}
		return fmt.Sprintf("%v %02x", p.Type, p.Code)
	}
}

// Who proves a password by SCRAM is connected as that principal, is told what the
// standard wants, and may prove it again on the connection, with others' packets between;
// who proves nothing, or to be another, is not, or no more.
//
// MQTT 5: 4.12.0-2, 4.12.0-5.
func TestScramConnects(t *testing.T) {
	n := scramNode(t, Limits{})
	for _, c := range []struct{ user, password, want string }{
		{"bob", "pencil", "CONNACK 00"},
		{"bob@example.com", "pencil", "CONNACK 00"},
		{"bob", "pen", "CONNACK 86"},
		{"nobody", "pencil", "CONNACK 86"},
		{"", "pencil", "CONNACK 86"},
	} {
		if got := n.signIn(n.raw(), c.user, c.password, mq.Connect{Clean: true}); got != c.want {
			t.Errorf("%s with %s: %s, want %s", c.user, c.password, got, c.want)
		}
	}
	for _, c := range []struct{ user, password, want string }{
		{"bob", "pencil", "AUTH 00"},
		{"BOB", "pencil", "AUTH 00"},
		{"bob", "pen", "DISCONNECT 87"},
		{"eve", "pencil", "DISCONNECT 87"},
		{"nobody", "pencil", "DISCONNECT 87"},
	} {
		conn := n.raw()
		if got := n.signIn(conn, "bob", "pencil", mq.Connect{Clean: true}); got != "CONNACK 00" {
			t.Fatal(got)
		}
		for range 2 {
			if got := again(t, conn, c.user, c.password); got != c.want {
				t.Errorf("again as %s with %s: %s, want %s", c.user, c.password, got, c.want)
			}
			if c.want != "AUTH 00" {
				break
			}
			if err := conn.Write(mq.Ping); err != nil {
				t.Fatal(err)
			}
			if p, err := conn.Read(patience); err != nil || p.Type != mq.PINGRESP {
				t.Errorf("after it: %v, %v", p, err)
			}
		}
	}
	stats := n.srv.Stats()
	if got := stats.Reauths.Load(); got != 4 {
		t.Errorf("%d authenticated again, want 4", got)
	}
	failed := map[string]uint64{}
	stats.EachLoginFailure(func(reason string, c *atomic.Uint64) { failed[reason] = c.Load() })
	if failed["wrong_proof"] != 2 || failed["unknown_user"] != 3 || failed["other_principal"] != 1 {
		t.Errorf("failed: %v", failed)
	}
}

func auth(code byte, method, data string) mq.Reason {
	r := mq.Reason{Type: mq.AUTH, Code: code, Properties: mq.Properties{}}
	if method != "" {
		r.Properties = append(r.Properties, mq.Text(mq.PropAuthMethod, method))
	}
	if data != "" {
		r.Properties = append(r.Properties, mq.Binary(mq.PropAuthData, []byte(data)))
	}
	return r
}

func with(r mq.Reason, more ...mq.Property) mq.Reason {
	r.Properties = append(r.Properties, more...)
	return r
}

// What may not come is refused with the code for it, in each state that a connection can
// be in; and none of it harms who is connected.
//
// MQTT 5: 4.12.0-1, 4.12.0-4, 4.12.0-5, 4.12.0-7, 4.12.1-1, 4.12.1-2, 3.15.1-1, 3.15.2-1.
func TestAuthInEveryState(t *testing.T) {
	n := scramNode(t, Limits{})
	healthy := n.raw()
	if got := n.signIn(healthy, "eve", "pencil", mq.Connect{ClientID: "healthy", Clean: true}); got != "CONNACK 00" {
		t.Fatal(got)
	}
	const method, first = authn.Scram, "n,,n=bob,r=abc"
	connect := func(method, data string) mq.Connect {
		c := mq.Connect{ClientID: "c", Clean: true, Properties: mq.Properties{mq.Text(mq.PropAuthMethod, method)}}
		if data != "" {
			c.Properties = append(c.Properties, mq.Binary(mq.PropAuthData, []byte(data)))
		}
		return c
	}
	frame := func(b ...byte) mq.Raw { return append(mq.Raw{0xF0, byte(len(b))}, b...) }
	hostile := []struct {
		name                                   string
		m                                      mq.Message
		connecting, connected, again, password string
	}{
		{"of length 0", frame(), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"success", auth(0, method, first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"without a method", auth(0x18, "", first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"without properties", frame(0x18), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"of another method", auth(0x18, "PLAIN", first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"of a method in other letters", auth(0x18, "scram-sha-256", first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"again of another method", auth(0x19, "PLAIN", first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"again", auth(0x19, method, first), "CONNACK 82", "AUTH 18", "DISCONNECT 82", "DISCONNECT 82"},
		{"not a proof", auth(0x18, method, "c=biws,r=abc,p=AAAA"), "CONNACK 86", "DISCONNECT 82", "DISCONNECT 87", "DISCONNECT 82"},
		{"no data", auth(0x18, method, ""), "CONNACK 86", "DISCONNECT 82", "DISCONNECT 87", "DISCONNECT 82"},
		{"undefined code", auth(0x42, method, first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"property twice", with(auth(0x18, method, ""), mq.Text(mq.PropAuthMethod, method)), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"property of CONNECT", with(auth(0x18, method, ""), mq.Number(mq.PropReceiveMaximum, 1)), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"properties run past the end", frame(0x18, 9, 0x15), "CONNACK 81", "DISCONNECT 81", "DISCONNECT 81", "DISCONNECT 81"},
		{"method not UTF-8", frame(0x18, 4, 0x15, 0, 1, 0xff), "CONNACK 81", "DISCONNECT 81", "DISCONNECT 81", "DISCONNECT 81"},
		{"flags", mq.Raw{0xF1, 0}, "closed", "DISCONNECT 81", "DISCONNECT 81", "DISCONNECT 81"},
		{"a second CONNECT", connect(method, first), "CONNACK 82", "DISCONNECT 82", "DISCONNECT 82", "DISCONNECT 82"},
		{"PUBLISH", mq.Publish{Topic: "a"}, "CONNACK 82", "", "", ""},
		{"PINGREQ", mq.Ping, "CONNACK 82", "PINGRESP 00", "PINGRESP 00", "PINGRESP 00"},
		{"DISCONNECT", mq.Bye, "closed", "closed", "closed", "closed"},
		{"much data", auth(0x18, method, strings.Repeat("x", 5000)), "closed", "DISCONNECT 82", "DISCONNECT 87", "DISCONNECT 82"},
	}
	for _, h := range hostile {
		for state, want := range map[string]string{"connecting": h.connecting, "connected": h.connected, "again": h.again, "password": h.password} {
			c := n.raw()
			begin := func(m mq.Message, want string) {
				if err := c.Write(m); err != nil {
					t.Fatal(err)
				}
				if got := ended(t)(c.Read(patience)); got != want {
					t.Fatalf("%s: to begin with %s, want %s", state, got, want)
				}
			}
			switch state {
			case "connecting":
				begin(connect(method, first), "AUTH 18")
			case "password":
				begin(mq.Connect{ClientID: "p", Clean: true, User: "bob", Password: []byte("secret of bob")}, "CONNACK 00")
			default:
				if got := n.signIn(c, "bob", "pencil", mq.Connect{ClientID: "c", Clean: true}); got != "CONNACK 00" {
					t.Fatal(got)
				}
				if state == "again" {
					begin(auth(0x19, method, first), "AUTH 18")
				}
			}
			send := []mq.Message{h.m}
			if want == "" { // it is not answered: what follows is
				send, want = append(send, mq.Ping), "PINGRESP 00"
			}
			if err := c.Write(send...); err != nil {
				t.Fatal(err)
			}
			if got := ended(t)(c.Read(patience)); got != want {
				t.Errorf("%s, %s: %s, want %s", h.name, state, got, want)
			}
			c.Close()
		}
	}
	for _, c := range []struct {
		name, want string
		m          mq.Message
	}{
		{"unknown method", "CONNACK 8c", connect("GS2-KRB5", first)},
		{"empty method", "CONNACK 8c", connect("", first)},
		{"method in other letters", "CONNACK 8c", connect("scram-sha-256", first)},
		{"method with channel binding", "CONNACK 8c", connect("SCRAM-SHA-256-PLUS", first)},
		{"binding that there is not", "CONNACK 86", connect(method, "p=tls-exporter,,n=bob,r=abc")},
		{"not a first message", "CONNACK 86", connect(method, "x")},
		{"the first message later", "AUTH 18", connect(method, "")},
		{"a password beside it proves nothing", "AUTH 18", mq.Connect{User: "bob", Password: []byte("secret of bob"), Clean: true, Properties: connect(method, first).Properties}},
	} {
		conn := n.raw()
		if err := conn.Write(c.m); err != nil {
			t.Fatal(err)
		}
		if got := ended(t)(conn.Read(patience)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		conn.Close()
	}
	if got := again(t, healthy, "eve", "pencil"); got != "AUTH 00" {
		t.Errorf("who was connected all the time: %s", got)
	}
}

// A proof that another connection gave proves nothing.
func TestProofIsNotReplayed(t *testing.T) {
	n := scramNode(t, Limits{})
	s := mq.Scram{User: "bob", Password: "pencil"}
	connect := mq.Connect{Clean: true, Properties: mq.Properties{mq.Text(mq.PropAuthMethod, authn.Scram), mq.Binary(mq.PropAuthData, s.First())}}
	var proof []byte
	for i, want := range []string{"CONNACK 00", "CONNACK 86"} {
		c := n.raw()
		if err := c.Write(connect); err != nil {
			t.Fatal(err)
		}
		p, err := c.Read(patience)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if proof, err = s.Final([]byte(p.Properties.Text(mq.PropAuthData))); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Write(auth(0x18, authn.Scram, string(proof))); err != nil {
			t.Fatal(err)
		}
		if got := ended(t)(c.Read(patience)); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
}

// An exchange does not buy time: before CONNACK all of it has the time that a CONNECT
// has, and afterwards as much; the connection ends, and the place it took is free.
func TestExchangesAreBounded(t *testing.T) {
	n := scramNode(t, Limits{ConnectTimeout: 4 * time.Second, Handshakes: 1})
	first := string((&mq.Scram{User: "bob"}).First())
	connect := mq.Connect{Clean: true, Properties: mq.Properties{mq.Text(mq.PropAuthMethod, authn.Scram)}}
	c := n.raw()
	if err := c.Write(connect); err != nil {
		t.Fatal(err)
	}
	if got := ended(t)(c.Read(patience)); got != "AUTH 18" {
		t.Fatal(got)
	}
	n.rest()
	n.pass(3 * time.Second)
	if err := c.Write(auth(0x18, authn.Scram, first)); err != nil {
		t.Fatal(err)
	}
	if got := ended(t)(c.Read(patience)); got != "AUTH 18" {
		t.Fatal(got)
	}
	n.rest()
	n.pass(3 * time.Second)
	if got := ended(t)(c.Read(patience)); got != "closed" {
		t.Errorf("who does not come to the end: %s", got)
	}
	eventually(t, "the place is free", func() bool { return n.srv.Stats().Sockets.Load() == 0 })

	c = n.raw()
	if got := n.signIn(c, "bob", "pencil", mq.Connect{Clean: true}); got != "CONNACK 00" {
		t.Fatal(got)
	}
	if err := c.Write(auth(0x19, authn.Scram, first)); err != nil {
		t.Fatal(err)
	}
	if got := ended(t)(c.Read(patience)); got != "AUTH 18" {
		t.Fatal(got)
	}
	n.rest()
	n.pass(3 * time.Second)
	if got := again(t, c, "bob", "pencil"); got != "DISCONNECT 82" {
		t.Errorf("two at once: %s", got)
	}

	c = n.raw()
	if got := n.signIn(c, "bob", "pencil", mq.Connect{Clean: true}); got != "CONNACK 00" {
		t.Fatal(got)
	}
	if err := c.Write(auth(0x19, authn.Scram, first)); err != nil {
		t.Fatal(err)
	}
	if got := ended(t)(c.Read(patience)); got != "AUTH 18" {
		t.Fatal(got)
	}
	n.rest()
	n.pass(6 * time.Second)
	if got := ended(t)(c.Read(patience)); got != "DISCONNECT 87" {
		t.Errorf("a second one that comes to no end: %s", got)
	}
}

// Wrong proofs count like wrong passwords, and together with them: beyond the bound the
// right one is refused there too, and nowhere else.
func TestProofsAreHeldToTheRate(t *testing.T) {
	from := make(chan string, 1)
	n := scramNode(t, Limits{FailedLogins: 3, PerAddress: -1, PerAddressRate: -1}, func(n *node, _ *Config) {
		n.wrap = func(l net.Listener) net.Listener { return strangerListener{l, from} }
	})
	for i, c := range []struct{ addr, password, want string }{
		{"192.0.2.1", "pencil", "CONNACK 00"},
		{"192.0.2.1", "a", "CONNACK 86"},
		{"192.0.2.2", "b", "CONNACK 86"},
		{"192.0.2.1", "pencil", "CONNACK 00"},
		{"192.0.2.9", "c", "CONNACK 86"},
		{"192.0.2.1", "pencil", "CONNACK 86"},
		{"192.0.3.1", "pencil", "CONNACK 00"},
	} {
		from <- c.addr
		if got := n.signIn(n.raw(), "bob", c.password, mq.Connect{Clean: true}); got != c.want {
			t.Errorf("%d, %s from %s: %s, want %s", i, c.password, c.addr, got, c.want)
		}
	}
	if got := n.srv.Stats().LoginsRefused.Load(); got != 1 {
		t.Errorf("%d refused unseen, want 1", got)
	}
}

// A client that takes no packet so large as AUTH or CONNACK is told so, and not let in.
//
// MQTT 5: 3.15.2-2, 3.15.2-3, 3.1.2-24.
func TestSmallPacketsOfAuth(t *testing.T) {
	n := scramNode(t, Limits{})
	for size, want := range map[uint32]string{60: "CONNACK 95", 128: "CONNACK 00"} {
		m := mq.Connect{Clean: true, Properties: mq.Properties{mq.Number(mq.PropMaximumPacketSize, size)}}
		if got := n.signIn(n.raw(), "bob", "pencil", m); got != want {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
	}
}

// Who is banned is looked for while others sign in: the race detector has nothing to say.
func TestSignInBesideBans(t *testing.T) {
	n := scramNode(t, Limits{})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				n.srv.each((*conn).endIfOutlawed)
			}
		}
	}()
	for i := range 20 {
		c := n.raw()
		if got := n.signIn(c, "bob", "pencil", mq.Connect{ClientID: fmt.Sprint("b", i), Clean: true}); got != "CONNACK 00" {
			t.Fatalf("signed in: %s", got)
		}
		c.Close()
	}
	close(stop)
	<-done
}
