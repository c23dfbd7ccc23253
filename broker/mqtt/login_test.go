package mqtt

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A connection ends when the proof has expired that it was let in by, with 0xA0, by the
// node's clock and in the order in which they expire; others do not, nor does a session
// that is resumed with another proof.
func TestConnectionsExpire(t *testing.T) {
	start := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	n := newNode(t, Limits{}, func(_ *node, c *Config) {
		c.Authenticate = func(l Login) (Identity, error) { // the password is for how long
			d, err := time.ParseDuration(string(l.Password))
			if err != nil {
				return Identity{}, broker.ErrBadCredentials
			}
			who := Identity{Principal: l.User}
			if d > 0 {
				who.Until = start.Add(d)
			}
			return who, nil
		}
	})
	in := func(id, last string) *client { return n.connect(5, id, asUser(id, last), keepAlive(0)) }
	hour, minute, ever, left := in("hour", "1h"), in("minute", "1m"), in("ever", "0s"), in("left", "1m")
	renewed := in("renewed", "1m")
	old := n.connect(4, "old", asUser("old", "1m"))
	in("renewed", "2h")
	if got := renewed.next(); !strings.HasPrefix(got, "DISCONNECT 8e") {
		t.Errorf("taken over: %s", got)
	}
	left.send([]byte{0xe0, 0})
	if got := left.next(); got != "EOF" && got != "closed" {
		t.Errorf("who leaves: %s", got)
	}
	move := func(d time.Duration) {
		n.mu.Lock()
		n.now = start.Add(d)
		n.mu.Unlock()
		n.pass(2 * Tick)
	}
	move(time.Minute - time.Nanosecond)
	n.rest()
	eventually(t, "five are connected", func() bool { return n.srv.Stats().Clients.Load() == 5 })
	move(time.Minute)
	if got := minute.next(); !strings.HasPrefix(got, "DISCONNECT a0") {
		t.Errorf("after a minute: %s", got)
	}
	if got := old.next(); got != "EOF" && got != "closed" {
		t.Errorf("one of 3.1.1: %s", got)
	}
	move(time.Hour)
	if got := hour.next(); !strings.HasPrefix(got, "DISCONNECT a0") {
		t.Errorf("after an hour: %s", got)
	}
	move(1000 * time.Hour)
	ever.send([]byte{0xc0, 0})
	if got := ever.next(); got != "PINGRESP" {
		t.Errorf("who has proved it for good: %s", got)
	}
	eventually(t, "nobody's life is remembered", func() bool {
		n.srv.lifetimes.mu.Lock()
		defer n.srv.lifetimes.mu.Unlock()
		return len(n.srv.lifetimes.conns) == 0
	})
}

// A client that names no user is held to the rate of failures under the name that its
// token claims; and that a login cannot be judged is neither its failure nor told as one.
func TestClaimedNames(t *testing.T) {
	n := newNode(t, Limits{FailedLogins: 2}, func(_ *node, c *Config) {
		c.Claims = func(password []byte) string { return strings.TrimSuffix(string(password), "!") }
		c.Authenticate = func(l Login) (Identity, error) {
			switch {
			case string(l.Password) == "down":
				return Identity{}, ErrUnavailable
			case strings.HasSuffix(string(l.Password), "!"):
				return Identity{Principal: "x"}, nil
			}
			return Identity{}, broker.ErrBadCredentials
		}
	})
	from := addressOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80")))
	try := func(password string) error {
		_, err := n.srv.signIn(Login{Password: []byte(password), From: &ConnInfo{}}, from)
		return err
	}
	for range 2 {
		if err := try("ana"); err == nil {
			t.Error("a wrong token is accepted")
		}
	}
	if err := try("ana!"); err == nil {
		t.Error("ana's right one after two is looked at")
	}
	if err := try("bob!"); err != nil {
		t.Errorf("bob, of whom nothing was wrong: %v", err)
	}
	c := n.raw()
	for range 5 {
		_ = try("down")
	}
	if err := c.Write(mq.Connect{Clean: true, User: "", Password: []byte("down")}); err != nil {
		t.Fatal(err)
	}
	if got := ended(t)(c.Read(patience)); got != "CONNACK 88" {
		t.Errorf("who cannot be judged: %s", got)
	}
}

// However much there is to say of why somebody is refused, a CONNACK that does has at most 512
// bytes: the reason is cut at a whole character, and what is short is told whole.
func TestRefusalsAreShort(t *testing.T) {
	n := newNode(t, Limits{}, func(_ *node, c *Config) {
		c.Authenticate = func(l Login) (Identity, error) {
			return Identity{}, &broker.Refusal{Reason: string(l.Password)}
		}
	})
	for _, why := range []string{"no", strings.Repeat("x", 480), strings.Repeat("x", 3000), "x" + strings.Repeat("é", 1500)} {
		c := n.dial()
		c.send(mq.Connect{Clean: true, User: "u", Password: []byte(why)}.Encode(5))
		got, err := c.read()
		if err != nil || len(got) > mostRefusal || !utf8.Valid(got[max(bytes.Index(got, []byte("BW-")), 0):]) {
			t.Errorf("%d bytes of reason: %d bytes of CONNACK, %v, want at most %d: %q", len(why), len(got), err, mostRefusal, got)
		}
		if want := min(len(why), mostRefusal-32); len(got) < want || len(why) < 100 && !strings.HasSuffix(string(got), why) {
			t.Errorf("%d bytes of reason: %q", len(why), got)
		}
	}
}
