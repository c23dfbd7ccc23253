package blackbox

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// refusedWith opens a connection and wants a CONNACK of that code.
func refusedWith(t *testing.T, addr string, version byte, m mq.Connect, code byte) {
	t.Helper()
	c := mq.Dial(t, addr, version)
	c.Send(m)
	if p := c.Expect(mq.CONNACK); p.Code != code {
		t.Errorf("%s: got %v, want code %#02x", m.ClientID, p, code)
	}
}

// An operator bans a user, a client id, an address, sees who is banned, and lets them in
// again; whoever is banned is told by each version's word, and by HTTP, and only who knows
// the password that a user is; a ban is in the audit and outlives a kill; others notice nothing.
func TestBans(t *testing.T) {
	t.Parallel()
	const eve, root = "eve@example.com", "root@example.org"
	path := writeFile(t, "policy.yaml", usersOf(bob, eve, root)+"groups:\n  operators: [root@example.org]\nrules:\n  - {id: all, allow: [publish, subscribe], who: [anyone], topic: [\"#\"]}\n")
	s := serve(t, "--policy", path, "--test-clock", "2026-03-09T12:00:00Z", "--allow-anonymous")
	verb := s.verb
	e, other := s.open(v5, as(eve, clean("eves"))), s.open(v5, as(bob, durable(v5, "bobs")))
	e4 := s.open(v4, as(eve, clean("eves4")))
	verb(0, "ban", "add", "--user", "eve", "--reason", "has left")
	e.ClosedWith(0x98)
	e4.Closed()
	verb(0, "ban", "add", "--client", "c1", "--for", "1h")
	verb(0, "ban", "add", "--address", "198.51.100.0/24")
	if out := verb(2, "ban", "add"); !strings.Contains(out, "--client") {
		t.Errorf("a ban of nobody: %s", out)
	}
	other.Quiet()
	wrong := as(eve, clean("eves"))
	wrong.Password = []byte("wrong")
	s.restart()
	refusedWith(t, s.ready.MQTT, v5, as(eve, clean("eves")), 0x8A)
	refusedWith(t, s.ready.MQTT, v4, as(eve, clean("eves")), 5)
	refusedWith(t, s.ready.MQTT, v5, wrong, 0x86)
	refusedWith(t, s.ready.MQTT, v5, clean("c1"), 0x8A)
	if a := s.ask(eve, "GET", "/v1/audit", ""); a.status != 403 {
		t.Errorf("by HTTP: %d %s", a.status, a.body)
	}
	if a := s.ask(bob, "GET", "/v1/bans", ""); a.status != 403 {
		t.Errorf("who is no operator sees bans: %d", a.status)
	}
	other = s.open(v5, as(bob, durable(v5, "bobs")))
	var list []struct{ Client, User, Address, Until, Reason, By string }
	if err := json.Unmarshal([]byte(verb(0, "ban", "ls", "-o", "json")), &list); err != nil || len(list) != 3 {
		t.Fatalf("%v %+v", err, list)
	}
	if list[2].User != eve || list[2].Reason != "has left" || list[2].By != "local" || list[2].Until != "" || list[1].Until != "2026-03-09T13:00:00Z" || list[0].Address != "198.51.100.0/24" {
		t.Errorf("%+v", list)
	}
	for body, want := range map[string]int{
		`{}`: 422, `{"address":"x"}`: 422, `{"address":"0.0.0.0/0"}`: 422, `{"user":"a b@"}`: 422, `{"client":"c","seconds":99999999999}`: 422, `{"clients":"c"}`: 400,
		`{"client":"past","until":"2026-03-09T11:00:00Z"}`: 422, `{"client":"ok","seconds":60}`: 201,
	} {
		if a := s.ask(root, "POST", "/v1/bans", body); a.status != want {
			t.Errorf("%s: %d %s, want %d", body, a.status, a.body, want)
		}
	}
	verb(0, "ban", "rm", "--user", eve)
	verb(0, "ban", "rm", "--address", "198.51.100.7/24")
	if out := verb(3, "ban", "rm", "--user", eve); !strings.Contains(out, "bellwire: no such ban: it has ended, or there never was one of exactly these\n") {
		t.Errorf("ended twice: %s", out)
	}
	s.open(v5, as(eve, clean("eves"))).Quiet()
	s.setClock("2026-03-09T13:00:00Z")
	s.open(v5, clean("c1")).Quiet()
	other.Quiet()
	if out := verb(0, "audit", "-o", "json"); !strings.Contains(out, "ban client c1") || !strings.Contains(out, "unban address 198.51.100.0/24") {
		t.Errorf("the audit says %s", out)
	}
	if got := s.metric("bellwire_connects_total", `result="banned"`); got != 3 {
		t.Errorf("%v CONNECTs are counted as banned, want 3", got)
	}
}

// Whoever is kicked is told 0x98, their will is published, and their session waits for them,
// unless it is dropped.
func TestKickedByAnOperator(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	watcher := s.open(v5, clean("watcher"))
	watcher.Subscribe("will", 1)
	m := durable(v5, "a/b c")
	m.Will = &mq.Will{Topic: "will", Payload: []byte("gone"), QoS: 1}
	c := s.open(v5, m)
	c.Subscribe("t", 1)
	kick := func(want int, args ...string) string {
		t.Helper()
		_, stderr, code := run(t, append(append([]string{"kick"}, args...), "--server", s.ready.HTTP)...)
		if code != want {
			t.Fatalf("%v: exit code %d, %s", args, code, stderr)
		}
		return stderr
	}
	kick(0, "a/b c")
	c.ClosedWith(0x98)
	watcher.ReceiveText("will", "gone")
	watcher.Publish("t", 1, "kept")
	if why := kick(3, "a/b c"); !strings.Contains(why, "bellwire: no such client: it is not connected, since ") || !strings.Contains(why, "--drop-session") {
		t.Errorf("kicked again: %s", why)
	}
	c = s.open(v5, durable(v5, "a/b c"))
	c.ReceiveText("t", "kept")
	kick(0, "--drop-session", "a/b c")
	c.ClosedWith(0x98)
	if _, ack := mq.OpenAck(t, s.ready.MQTT, v5, durable(v5, "a/b c")); ack.SessionPresent {
		t.Error("a dropped session is there")
	}
}

// A ban holds on every node within a second, ends connections to all of them, and is known to
// a node that was down; a client is kicked wherever it is.
func TestClusterBans(t *testing.T) {
	t.Parallel()
	c := newTrio(t)
	one := func(i int, id string) *mq.Client { return c.nodes[i].open(v5, clean(id)) }
	far, stays, kicked := one(2, "far"), one(2, "stays"), one(1, "kicked")
	for i, at := range c.http {
		out, _, code := run(t, "clients", "ls", "--server", at, "-u", "ana", "-P", "sesame")
		if code != 0 || !strings.Contains(out, "at n3") || !strings.Contains(out, "at n2") || strings.Count(out, "\n") != 3 {
			t.Errorf("node %d: %d, %s", i, code, out)
		}
	}
	c.nodes[0].kill()
	at := c.http[1]
	verb := func(args ...string) {
		t.Helper()
		until(t, fmt.Sprint(args), 30*time.Second, func() bool { // there may be no leader yet
			_, _, code := run(t, append(args, "--server", at, "-u", "ana", "-P", "sesame")...)
			return code == 0 || code == 3 && args[0] == "kick" // whose answer was lost has gone by the second time
		})
	}
	verb("ban", "add", "--client", "far")
	far.ClosedWith(0x98)
	verb("kick", "kicked")
	kicked.ClosedWith(0x98)
	stays.Quiet()
	c.nodes[0].start()
	for i := range c.nodes {
		until(t, "the ban holds", patience, func() bool {
			cl := mq.Dial(t, c.nodes[i].ready.MQTT, v5)
			cl.Send(clean("far"))
			return cl.Expect(mq.CONNACK).Code == 0x8A
		})
	}
	c.alike()

	m := clean("by token")
	m.User, m.Password = "ana", []byte("sesame")
	ana := c.nodes[2].open(v5, m)
	verb("acl", "apply", writeFile(t, "policy.yaml", trioPolicy+"logins: [{listeners: [mqtt], by: [jwt]}]\n"))
	ana.ClosedWith(0x87)
	one(2, "anonymous").Quiet()
}

// A client that connects and disconnects without end is banned for a time, by itself: on
// all its listeners, also behind a proxy that says where it comes from.
func TestFlappingClientsAreBanned(t *testing.T) {
	t.Parallel()
	config := writeFile(t, "bellwire.yaml", `listeners: [{name: behind, mqtt: "127.0.0.1:0", proxy: [127.0.0.1]}]
limits: {flapping.perMinute: 5, flapping.ban: 2m}
`)
	s := serve(t, "--allow-anonymous", "-f", config, "--test-clock", "2026-03-09T12:00:00Z")
	try := func(addr, id string) byte {
		t.Helper()
		nc, err := net.Dial("tcp", s.ready.Listeners[0].Addr)
		if err == nil {
			_, err = fmt.Fprintf(nc, "PROXY TCP4 %s 198.51.100.1 56324 1883\r\n", addr)
		}
		if err != nil {
			t.Fatal(err)
		}
		c := mq.Wrap(t, mq.NewConn(nc, v5))
		defer c.Close()
		c.Send(clean(id))
		code := c.Expect(mq.CONNACK).Code
		if code == 0 {
			c.Disconnect()
		}
		return code
	}
	for i := range 6 {
		if code := try("192.0.2.1", "dev"); code != 0 {
			t.Fatalf("connection %d: %#02x", i, code)
		}
	}
	until(t, "it is banned", patience, func() bool { return s.metric("bellwire_bans") == 1 })
	if code := try("192.0.2.1", "dev"); code != 0x8A {
		t.Errorf("it is told %#02x, want 0x8A", code)
	}
	if code := try("192.0.2.2", "dev"); code != 0 {
		t.Errorf("another client of the same id, elsewhere, is told %#02x", code)
	}
	if got := s.metric("bellwire_flapping_total", `fate="banned"`); got != 1 {
		t.Errorf("%v are counted", got)
	}
	s.setClock("2026-03-09T12:02:00Z")
	if code := try("192.0.2.1", "dev"); code != 0 {
		t.Errorf("when its time is over: %#02x", code)
	}
}
