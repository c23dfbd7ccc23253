package mqtt

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker/event"
)

// as is a CONNECT of a user whose password is right, or not.
func as(user, password string) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = true, true
		pk.Connect.Username, pk.Connect.Password = []byte(user), []byte(password)
	}
}

// at is a server whose clients come from the addresses that dialFrom says.
func at(t *testing.T, limits Limits) (n *node, dialFrom func(addr string) *client) {
	from := make(chan string, 1)
	n = newNode(t, limits, func(n *node, cfg *Config) {
		n.wrap = func(l net.Listener) net.Listener { return strangerListener{l, from} }
	})
	return n, func(addr string) *client {
		from <- addr
		return n.dial()
	}
}

// Who is banned is told so by each version's word for it; by user only after the
// password was looked at, and found to be right.
func TestBanned(t *testing.T) {
	n, from := at(t, Limits{})
	for _, b := range []event.Ban{{Client: "c1"}, {User: "eve@example.com"}, {Network: "192.0.2.0/24"}, {User: "bob@example.com", Network: "203.0.113.9/32"}} {
		if err := n.broker.Ban(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ addr, client, user, password, v5, v4 string }{
		{"203.0.113.1", "c1", "", "", "8a", "05"},
		{"203.0.113.1", "c1", "bob", "wrong", "8a", "05"}, // the client id is banned, whoever it is
		{"203.0.113.1", "x", "eve", "secret of eve", "8a", "05"},
		{"203.0.113.1", "x", "eve", "wrong", "86", "04"},
		{"203.0.113.1", "x", "nobody", "wrong", "86", "04"},
		{"192.0.2.7", "x", "bob", "wrong", "8a", "05"},
		{"203.0.113.9", "x", "bob", "secret of bob", "8a", "05"},
		{"203.0.113.9", "x", "ann", "secret of ann", "00", "00"},
		{"203.0.113.1", "x", "bob", "secret of bob", "00", "00"},
	} {
		for version, want := range map[byte]string{4: c.v4, 5: c.v5} {
			cl := from(c.addr)
			cl.version = version
			with := func(*packets.Packet) {}
			if c.user != "" {
				with = as(c.user, c.password)
			}
			id := c.client
			if id == "x" {
				id += c.user // no session is another's
			}
			cl.send(connectBytes(version, id, with))
			if got := strings.ToLower(cl.next()); !strings.HasPrefix(got, "connack "+want) {
				t.Errorf("%+v, version %d: %s", c, version, got)
			}
		}
	}
}

// Who is connected when they are banned is ended, and told by MQTT 5; others are not.
func TestBanEndsConnections(t *testing.T) {
	n, from := at(t, Limits{})
	open := func(version byte, addr, id, user string) *client {
		c := from(addr)
		c.version = version
		c.send(connectBytes(version, id, as(user, "secret of "+user)))
		if got := c.next(); !strings.HasPrefix(got, "CONNACK 00") {
			t.Fatalf("%s: %s", id, got)
		}
		return c
	}
	eve5, eve4 := open(5, "203.0.113.1", "e5", "eve"), open(4, "203.0.113.1", "e4", "eve")
	bob := open(5, "203.0.113.1", "b", "bob")
	for _, b := range []event.Ban{{User: "eve@example.com"}, {Client: "b", Network: "198.51.100.0/24"}} {
		if err := n.broker.Ban(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	n.srv.Outlawed()
	if got := eve5.next(); !strings.HasPrefix(got, "DISCONNECT 98") {
		t.Errorf("got %s, want DISCONNECT 98", got)
	}
	eve5.end()
	eve4.end()
	bob.ping()
}

// A client that connects and disconnects too often is banned: that client id of that user,
// or from that address, and nobody else; not on loopback; until its time is over.
func TestFlapping(t *testing.T) {
	n, from := at(t, Limits{FlapRate: 3, FlapBan: 10 * time.Minute, PerAddress: -1, PerAddressRate: -1})
	try := func(addr, id, user string) string {
		t.Helper()
		before := n.srv.stats.Sockets.Load()
		c := from(addr)
		c.version = 5
		with := func(*packets.Packet) {}
		if user != "" {
			with = as(user, "secret of "+user)
		}
		c.send(connectBytes(5, id, with))
		got := c.next()
		c.conn.Close()
		eventually(t, "the end of the connection", func() bool { return n.srv.stats.Sockets.Load() == before })
		return got[:len("CONNACK 00")]
	}
	settle := func(bans int) {
		t.Helper()
		eventually(t, fmt.Sprint(bans, " bans"), func() bool { all, auto := n.broker.BanCount(); return all == bans && auto == bans })
	}
	for range 4 {
		if got := try("203.0.113.1", "dev", "bob"); got != "CONNACK 00" {
			t.Fatalf("got %s before there were too many", got)
		}
	}
	settle(1)
	for range 4 {
		if got := try("203.0.113.1", "anon", ""); got != "CONNACK 00" {
			t.Fatalf("anonymous: got %s before there were too many", got)
		}
	}
	settle(2)
	for i, c := range []struct{ addr, id, user, want string }{
		{"203.0.113.1", "dev", "bob", "CONNACK 8A"},
		{"203.0.113.7", "dev", "bob", "CONNACK 8A"}, // wherever it is
		{"203.0.113.1", "dev", "ann", "CONNACK 00"}, // another's with the same id
		{"203.0.113.1", "other", "bob", "CONNACK 00"},
		{"203.0.113.1", "anon", "", "CONNACK 8A"},
		{"203.0.113.2", "anon", "", "CONNACK 00"}, // likewise
	} {
		if got := strings.ToUpper(try(c.addr, c.id, c.user)); got != c.want {
			t.Errorf("%d: %+v: got %s", i, c, got)
		}
	}
	var victim *client
	before := n.srv.stats.Sockets.Load()
	for i := range 10 { // it comes back each time that a stranger has taken its client id
		c := from([]string{"203.0.113.9", "203.0.113.10"}[i%2])
		c.version = 5
		c.send(connectBytes(5, "wanted", func(*packets.Packet) {}))
		if got := c.next(); !strings.HasPrefix(got, "CONNACK 00") {
			t.Fatalf("taken over %d times: got %s", i, got)
		}
		if victim != nil {
			victim.want(`DISCONNECT 8e reason="BW-1008 session taken over"`, "closed")
		}
		victim = c
	}
	victim.conn.Close()
	eventually(t, "the end of the last", func() bool { return n.srv.stats.Sockets.Load() == before })
	for range 10 {
		if got := try("127.0.0.1", "local", ""); got != "CONNACK 00" {
			t.Fatalf("loopback: got %s", got)
		}
	}
	settle(2)
	if got := n.srv.stats.Flapping.Load(); got != 2 {
		t.Errorf("%d clients are counted, want 2", got)
	}
	n.mu.Lock()
	n.now = n.now.Add(10 * time.Minute)
	n.mu.Unlock()
	n.pass(time.Minute)
	for _, id := range []string{"dev", "anon"} {
		user := map[string]string{"dev": "bob"}[id]
		if got := try("203.0.113.1", id, user); got != "CONNACK 00" {
			t.Errorf("%s, when its time is over: got %s", id, got)
		}
	}
}
