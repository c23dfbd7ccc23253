package mqtt

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Limits change while clients are connected: rates hold for them from then on, what they were
// told when they came stays, and who comes then is told what is new. Nobody is sent away by a
// change, whatever was used of another rate; limits with faults change nothing.
func TestLimitsChange(t *testing.T) {
	n := newNode(t, Limits{MessageRate: 1000, Packet: 2000, ReceiveMaximum: 7})
	set := func(l Limits) {
		t.Helper()
		if err := n.srv.SetLimits(l); err != nil {
			t.Fatal(err)
		}
	}
	publish := packet(0x30, "t", props5(), []byte("x"))
	there := n.connect(5, "there")
	for range 500 {
		there.send(publish)
	}
	there.ping()
	if err := n.srv.SetLimits(Limits{MessageRate: -1, Packet: -5, KeepAlive: 100 * time.Hour}); err == nil || !strings.Contains(err.Error(), "packet") || !strings.Contains(err.Error(), "keepAlive") {
		t.Errorf("with two faults: %v", err)
	}
	if got := n.srv.Limits(); got.MessageRate != 1000 || got.Packet != 2000 {
		t.Errorf("in force are %+v", got)
	}

	set(Limits{MessageRate: 1, Packet: 500, ReceiveMaximum: 3})
	for range 10 { // what it had of the other rate is not held against it
		there.send(publish)
	}
	there.ping()
	n.pass(time.Second)
	there.send(packet(0x30, "t", props5(), bytes.Repeat([]byte("x"), 1900))) // it was told 2,000
	there.ping()
	fresh := n.dial()
	fresh.version = 5
	fresh.send(connectBytes(5, "fresh", func(*packets.Packet) {}))
	if got := fresh.next(); !strings.Contains(got, "500") || !strings.HasPrefix(strings.ToLower(got), "connack 00") {
		t.Errorf("who comes now is told %s", got)
	}
	fresh.send(packet(0x30, "t", props5(), bytes.Repeat([]byte("x"), 600)))
	if got := fresh.next(); !strings.HasPrefix(got, "DISCONNECT 95") {
		t.Errorf("and with a larger packet: %s", got)
	}
	there.send(publish, publish)
	if got := there.next(); !strings.HasPrefix(got, "DISCONNECT 96") {
		t.Errorf("who is faster now than it may be: %s", got)
	}
	set(Limits{})
	free := n.connect(5, "free")
	for range 2000 {
		free.send(publish)
	}
	free.ping()
}

// So do the rates by which clients connect and sign in: each begins anew where it is another.
func TestConnectingLimitsChange(t *testing.T) {
	n, from := at(t, Limits{ConnectRate: 1000, PerAddressRate: 1000, FailedLogins: 1000})
	connects := func(addr string) string {
		c := from(addr)
		c.version = 5
		c.send(connectBytes(5, "", func(*packets.Packet) {}))
		b, err := c.read()
		if err != nil {
			return "closed"
		}
		return fmt.Sprintf("%02x", b[3])
	}
	guess := func() error {
		_, err := n.srv.SignIn("bob", []byte("guess"), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:1")))
		return err
	}
	tooMany := func(err error) bool { _, is := err.(*TooManyLogins); return is }
	for range 20 {
		if got := connects("192.0.2.1"); got != "00" {
			t.Fatalf("got %s", got)
		}
		if err := guess(); tooMany(err) {
			t.Fatal(err)
		}
	}
	if err := n.srv.SetLimits(Limits{ConnectRate: 1, PerAddressRate: 3, FailedLogins: 2}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"00", "00", "00", "closed"} {
		if got := connects("192.0.2.1"); got != want {
			t.Errorf("connection %d of that address: %s, want %s", i, got, want)
		}
	}
	for i := range 8 {
		want := "00"
		if i == 7 {
			want = "9f" // ten in a burst
		}
		if got := connects(fmt.Sprint("192.0.2.", 10+i)); got != want {
			t.Errorf("connection %d: %s, want %s", i, got, want)
		}
	}
	for i := range 3 {
		if got := tooMany(guess()); got != (i == 2) {
			t.Errorf("guess %d: too many is %t", i, got)
		}
	}
	if err := n.srv.SetLimits(Limits{FailedLogins: -1, FlapRate: 1, FlapBan: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if tooMany(guess()) {
		t.Error("without a bound it is one too many")
	}
	for range 2 {
		c := from("192.0.2.77")
		c.version = 5
		c.send(connectBytes(5, "flaps", func(*packets.Packet) {}))
		if got := c.next(); !strings.HasPrefix(got, "CONNACK 00") {
			t.Fatalf("got %s", got)
		}
		c.send([]byte{packets.Disconnect << 4, 0})
		c.end()
	}
	eventually(t, "a ban", func() bool {
		return n.broker.Banned("flaps", "", netip.MustParseAddr("192.0.2.77")) && n.srv.Stats().Flapping.Load() == 1
	})
}

// A principal may have rates of its own in place of everybody's, wider or narrower, which
// change like those.
func TestPrincipalsHaveRates(t *testing.T) {
	of := &PrincipalRates{Of: map[string]Rates{"bob@example.com": {Messages: -1}, "eve@example.com": {Bytes: 10}}}
	n := newNode(t, Limits{MessageRate: 1, Principals: of, Packet: 500})
	publish := packet(0x30, "t", props5(), bytes.Repeat([]byte("x"), 90))
	burst := func(user string, many int) string {
		c := n.connect(5, user, as(user, "secret of "+user))
		for range many {
			c.send(publish)
		}
		c.send([]byte{packets.Pingreq << 4, 0})
		return c.next()
	}
	for user, want := range map[string]string{"bob": "PINGRESP", "ann": "DISCONNECT 96", "eve": "DISCONNECT 96"} {
		many := 200
		if user == "eve" {
			many = 10 // as many as everybody may send at once, but more than 500 bytes
		}
		if got := burst(user, many); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", user, got, want)
		}
	}
	if err := n.srv.SetLimits(Limits{Principals: &PrincipalRates{Of: map[string]Rates{"bob@example.com": {Messages: 1}}}}); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"bob": "DISCONNECT 96", "ann": "PINGRESP"} {
		if got := burst(user, 20); !strings.HasPrefix(got, want) {
			t.Errorf("%s then: %s, want %s", user, got, want)
		}
	}
}
