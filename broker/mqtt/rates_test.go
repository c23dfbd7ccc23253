package mqtt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
)

// A rate lets its burst through at once, then as many as it says, and no more in
// any time than both together.
func TestRate(t *testing.T) {
	for _, r := range []rate{{1, 1, 1}, perSecond(1), perSecond(7), {10, loginSpan, 10}, {3, 7, 2}} {
		var b bucket
		took := int64(0)
		for now := int64(100); now < 100+20*r.span; now++ {
			for b.take(r, now) {
				took++
			}
			if most := r.burst + (now-100)*r.count/r.span; took != most {
				t.Fatalf("%+v: %d taken in %d ticks, want %d", r, took, now-100, most)
			}
		}
		now := 100 + 20*r.span
		for b.take(r, now) {
		}
		if b.giveBack(r); !b.take(r, now) || b.take(r, now) {
			t.Errorf("%+v: what was given back is not there once", r)
		}
	}
}

// Past the rate of connects one more is refused with 0x9F, or what older versions
// have for it, before it is asked who it is; a second later there is room again.
func TestConnectRate(t *testing.T) {
	n := newNode(t, Limits{ConnectRate: 1})
	held := n.connect(5, "held")
	for i := range 9 {
		n.connect(4, fmt.Sprint(i))
	}
	wrong := func(pk *packets.Packet) {
		pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = true, true
		pk.Connect.Username, pk.Connect.Password = []byte("bob"), []byte("wrong")
	}
	for v, want := range map[byte]string{5: "CONNACK 9f", 4: "CONNACK 03"} {
		c := n.dial()
		c.version = v
		c.send(connectBytes(v, "one more", wrong))
		if got := c.next(); !strings.HasPrefix(strings.ToLower(got), strings.ToLower(want)) {
			t.Errorf("version %d: got %s, want %s", v, got, want)
		}
	}
	n.pass(time.Second)
	n.connect(5, "a second later")
	held.send([]byte{packets.Pingreq << 4, 0})
	if got := held.next(); got != "PINGRESP" {
		t.Errorf("who is connected: got %s", got)
	}
}

// A client that publishes faster than it may is told and let go; others are not.
func TestMessageRate(t *testing.T) {
	n := newNode(t, Limits{MessageRate: 1})
	slow, fast := n.connect(5, "slow"), n.connect(5, "fast")
	publish := packet(0x30, "t", props5(), []byte("x"))
	for range 10 {
		fast.send(publish)
		slow.send(publish)
	}
	fast.send(publish)
	if got := fast.next(); !strings.HasPrefix(got, "DISCONNECT 96") {
		t.Errorf("got %s, want DISCONNECT 96", got)
	}
	slow.ping() // all of its ten are read before time goes on
	for range 5 {
		n.pass(time.Second)
		slow.send(publish, []byte{packets.Pingreq << 4, 0})
		if got := slow.next(); got != "PINGRESP" {
			t.Fatalf("got %s, want to go on", got)
		}
	}
}

// A strangerListener gives connections the address that it is told.
type strangerListener struct {
	net.Listener
	next chan string
}

type stranger struct {
	net.Conn
	addr net.Addr
}

func (s stranger) RemoteAddr() net.Addr { return s.addr }

func (l strangerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return stranger{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(<-l.next), 1))}, nil
}

// Whoever guesses at a password is refused unseen after so many tries, from all of
// his network, after a pause; the owner signs in from anywhere else, others from
// there too, and he from there again when the time has passed. To know the
// password is no try.
func TestFailedLogins(t *testing.T) {
	from := make(chan string, 1)
	n := newNode(t, Limits{FailedLogins: 3, PerAddress: -1, PerAddressRate: -1}, func(n *node, _ *Config) {
		n.wrap = func(l net.Listener) net.Listener { return strangerListener{l, from} }
	})
	login := func(addr, user, password string) string {
		t.Helper()
		from <- addr
		c := n.dial()
		c.version = 5
		c.send(connectBytes(5, "", func(pk *packets.Packet) {
			pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = true, true
			pk.Connect.Username, pk.Connect.Password = []byte(user), []byte(password)
		}))
		return c.next()[:len("CONNACK 00")]
	}
	const right, wrong = "secret of bob", "guess"
	expect := func(what, got, want string) {
		t.Helper()
		if strings.ToLower(got) != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	for range 5 {
		expect("the owner", login("192.0.2.1", "bob", right), "connack 00")
	}
	for i := range 3 {
		expect("a guess", login(fmt.Sprint("192.0.2.", i+7), "bob", wrong), "connack 86")
	}
	start := time.Now()
	expect("the right one after three guesses", login("192.0.2.99", "bob", right), "connack 86")
	if took := time.Since(start); took < firstPause {
		t.Errorf("refused after %v, want a pause of %v", took, firstPause)
	}
	if got := n.srv.Stats().LoginsRefused.Load(); got != 1 {
		t.Errorf("%d refused unseen, want 1", got)
	}
	signIn := func(addr, password string) error {
		_, err := n.srv.SignIn("bob", []byte(password), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	}
	if many, ok := errors.AsType[*TooManyLogins](signIn("192.0.2.1:80", right)); !ok || many.RetryAfter != 200*time.Second {
		t.Errorf("by another way: %+v, want to be told to wait for a third of ten minutes", many)
	}
	if err := signIn("192.0.3.1:80", right); err != nil {
		t.Errorf("by another way from elsewhere: %v", err)
	}
	for range 3 {
		if err := signIn("192.0.4.1:80", wrong); !errors.Is(err, broker.ErrBadCredentials) {
			t.Errorf("a guess by another way: %v", err)
		}
	}
	expect("the owner after three guesses by another way", login("192.0.4.2", "bob", right), "connack 86")
	expect("the owner from elsewhere", login("192.0.3.1", "bob", right), "connack 00")
	expect("the owner over IPv6", login("2001:db8::1", "bob", right), "connack 00")
	expect("somebody else from there", login("192.0.2.1", "eve", "secret of eve"), "connack 00")
	n.srv.wheel.now.Add(loginSpan / 3)
	expect("the owner after a while", login("192.0.2.1", "bob", right), "connack 00")
}

// The operator is told who fails to sign in as whom, from where, and when no look
// is taken at their passwords any more; but not a line for each of many, and never
// a password.
func TestFailedLoginsAreLogged(t *testing.T) {
	var log bytes.Buffer
	n := newNode(t, Limits{FailedLogins: 2}, func(_ *node, c *Config) { c.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	signIn := func(user, from string) {
		_, _ = n.srv.SignIn(user, []byte("secret guess"), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)))
	}
	lines := func() (all []string) {
		t.Helper()
		for line := range strings.Lines(log.String()) {
			var r struct {
				Msg, User, Addr, Reason string
				Unlogged                int
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil || r.Msg != "a login failed" || strings.Contains(line, "secret") || len(line) > 400 {
				t.Errorf("%v in %s", err, line)
			}
			all = append(all, fmt.Sprintf("%.20s from %s: %.15s, %d", r.User, r.Addr, r.Reason, r.Unlogged))
		}
		log.Reset()
		return all
	}
	for range 4 {
		signIn("bob", "192.0.2.1:1")
	}
	signIn("bob", "[2001:db8::1]:1")
	signIn("bob\n\x00", "127.0.0.1:1")
	want := []string{
		"bob from 192.0.2.1: bad credentials, 0", "bob from 192.0.2.1: bad credentials, 0", "bob from 192.0.2.1: too many failed, 0",
		"bob from 2001:db8::/64: bad credentials, 0", "bob\n\x00 from loopback: bad credentials, 0",
	}
	if got := lines(); !slices.Equal(got, want) {
		t.Errorf("logged are\n%q, want\n%q", got, want)
	}
	const many = 1000
	for i := range many {
		signIn(fmt.Sprint(i, strings.Repeat("x", 2000)), "192.0.2.1:1")
	}
	got := lines()
	if len(got) != int(loginLines.burst)-len(want) {
		t.Errorf("%d lines, want %d", len(got), int(loginLines.burst)-len(want))
	}
	n.srv.wheel.now.Add(ticksPerMinute)
	signIn("eve", "192.0.2.1:1")
	if next := fmt.Sprintf("eve from 192.0.2.1: bad credentials, %d", many-len(got)); !slices.Equal(lines(), []string{next}) {
		t.Errorf("after a minute not %q alone is logged", next)
	}
}

// However many names are tried, what is remembered is bounded, and who has just
// been refused is not forgotten for them.
func TestLoginsAreBounded(t *testing.T) {
	var l logins
	l.seed = maphash.MakeSeed()
	l.setRate(loginRate(1))
	a := address{netip.MustParseAddr("192.0.2.1")}
	l.try("bob", a, 1)
	for i := range 3 * loginsKept {
		l.try(fmt.Sprint(i), a, 1)
		if i%(loginsKept/2) == 0 {
			if _, ok := l.try("bob", a, 1); ok {
				t.Fatalf("after %d other names bob is forgotten", i)
			}
		}
	}
	if got := len(l.now) + len(l.old); got > 2*loginsKept {
		t.Errorf("%d are remembered, want %d at most", got, 2*loginsKept)
	}
	if pause, ok := l.try("bob", a, 1); ok || pause != mostPause {
		t.Errorf("refused after %v, %t, want the longest pause, %v", pause, ok, mostPause)
	}
	l.try("x", a, 2*loginSpan)
	l.try("x", a, 4*loginSpan)
	if len(l.now)+len(l.old) > 2 {
		t.Error("what is over is remembered")
	}
}

// A client that sends more bytes than it may is told and let go, in whichever sizes they
// come; one packet of the largest size passes always, and others are not held to it.
func TestByteRate(t *testing.T) {
	n := newNode(t, Limits{ByteRate: 100, Packet: 2000})
	big, many, calm := n.connect(5, "big"), n.connect(5, "many"), n.connect(4, "calm")
	publish := func(size int) []byte { return packet(0x30, "t", props5(), bytes.Repeat([]byte("x"), size)) }
	big.send(publish(1900))
	big.ping()
	big.send(publish(200))
	for range 21 {
		many.send(publish(90))
	}
	many.ping()
	many.send(publish(90), publish(90))
	for _, c := range []*client{big, many} {
		if got := c.next(); !strings.HasPrefix(got, "DISCONNECT 96") {
			t.Errorf("got %s, want DISCONNECT 96", got)
		}
	}
	for range 5 {
		n.rest()
		calm.send(packet(0x30, "t", bytes.Repeat([]byte("x"), 90)))
		calm.ping()
		n.pass(time.Second)
	}
	if got := n.srv.stats.Over[OverByteRate].Load(); got != 2 {
		t.Errorf("%d are counted, want 2", got)
	}
}

// What aliases stand for takes so many bytes at most, whatever their number; one that is set
// anew takes the place of its former topic. Towards the client there is an alias for what
// fits.
func TestAliasBytes(t *testing.T) {
	n := newNode(t, Limits{TopicAliases: 4})
	sub := n.connect(5, "sub", func(pk *packets.Packet) { pk.Properties.TopicAliasMaximum = 4 })
	sub.send(packet(0x82, u16(1), props5(), "#", 0))
	sub.want("SUBACK id=1 00")
	a, b, c := "a/"+strings.Repeat("x", 40_000), "b/"+strings.Repeat("x", 40_000), "c/"+strings.Repeat("x", 25_000)
	p := n.connect(5, "p")
	alias := func(n byte) []byte { return props5(packets.PropTopicAlias, 0, n) }
	p.send(packet(0x30, a, alias(1), []byte("1")), packet(0x30, b, alias(1), []byte("2")), // in its place
		packet(0x30, c, alias(2), []byte("3")), packet(0x30, "", alias(1), []byte("4")), packet(0x30, "", alias(2), []byte("5")))
	sub.want("PUBLISH "+a+"=1 q0 alias=1", "PUBLISH "+b+"=2 q0", "PUBLISH "+c+"=3 q0 alias=2", "PUBLISH "+b+"=4 q0", "PUBLISH =5 q0 alias=2")
	p.send(packet(0x30, a, alias(3), []byte("6")))
	p.want("DISCONNECT 97 reason=\"BW-8001 topics that aliases stand for have together at most 65535 bytes here\"", "closed")
	if got := n.srv.stats.Over[OverAliases].Load(); got != 1 {
		t.Errorf("%d are counted, want 1", got)
	}
}

// A topic, and a filter, has so many levels at most; one more is refused, each for itself.
func TestTopicLevels(t *testing.T) {
	n := newNode(t, Limits{TopicLevels: 3})
	c := n.connect(5, "c")
	for name, want := range map[string]string{"a/b/c": "00", "a/b/c/d": "97", "///": "97", "//": "00"} {
		c.send(packet(0x32, name, u16(7), props5(), []byte("x")))
		if got := c.next(); !strings.HasPrefix(got, "PUBACK id=7 "+want) {
			t.Errorf("publish to %s: %s, want %s", name, got, want)
		}
	}
	for filter, want := range map[string]string{"a/+/#": "00", "a/b/c/#": "97", "$share/g/a/b/c": "00", "$share/g/a/b/c/d": "97"} {
		c.send(packet(0x82, u16(8), props5(), filter, []byte{0}))
		if got := c.next(); !strings.HasPrefix(got, "SUBACK id=8 "+want) {
			t.Errorf("subscribe to %s: %s, want %s", filter, got, want)
		}
	}
	if got := n.srv.stats.Over[OverLevels].Load(); got != 4 {
		t.Errorf("%d are counted, want 4", got)
	}
}
