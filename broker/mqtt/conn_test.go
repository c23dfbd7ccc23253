package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
)

const welcome5 = "CONNACK 00 receive=256 packet=262144 aliases=16"

// A streamListener hides that its connections are TCP.
type streamListener struct{ net.Listener }

func (l streamListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

// A client of each version connects, subscribes, publishes with each QoS, gets
// its events and leaves: over plain TCP, and over what is any net.Conn. What it
// publishes itself it gets before the PUBACK, but after the PUBREC.
func TestConversation(t *testing.T) {
	t.Run("tcp", func(t *testing.T) { converse(t, newNode(t, Limits{})) })
	t.Run("stream", func(t *testing.T) {
		converse(t, newNode(t, Limits{}, func(n *node, _ *Config) {
			n.wrap = func(l net.Listener) net.Listener { return streamListener{l} }
		}))
	})
}

func converse(t *testing.T, n *node) {
	for _, version := range []byte{4, 5} {
		v5 := version == 5
		c := n.dial()
		c.version = version
		c.send(connectBytes(version, "c"))
		props := []byte{}
		if v5 {
			c.want(welcome5)
			props = []byte{0}
		} else {
			c.want("CONNACK 00")
		}
		c.send(packet(0x82, u16(1), props, "a/+", 2))
		c.want("SUBACK id=1 02")
		c.send(packet(0x30, "a/b", props, []byte("zero")))
		c.want("PUBLISH a/b=zero q0")
		c.send(packet(0x32, "a/b", u16(7), props, []byte("one")))
		c.want("PUBLISH a/b=one q1 id=1")
		c.want("PUBACK id=7 00")
		c.send(packet(0x40, u16(1)))
		c.send(packet(0x34, "a/b", u16(8), props, []byte("two")))
		c.want("PUBREC id=8 00")
		c.want("PUBLISH a/b=two q2 id=2")
		c.send(packet(0x62, u16(8)))
		c.want("PUBCOMP id=8 00")
		c.send(packet(0x50, u16(2)))
		c.want("PUBREL id=2 00")
		c.send(packet(0x70, u16(2)))
		c.send(packet(0xa2, u16(3), props, "a/+"))
		if v5 {
			c.want("UNSUBACK id=3 00")
		} else {
			c.want("UNSUBACK id=3")
		}
		c.send(packet(0x30, "a/b", props, []byte("nobody")))
		c.ping()
		c.send([]byte{0xe0, 0})
		c.want("closed")
	}
	if got := n.srv.stats.Ends[0].Load(); got != 2 {
		t.Errorf("%d normal ends counted, want 2", got)
	}
	if got := n.srv.stats.PacketsIn[packets.Publish].Load(); got != 8 {
		t.Errorf("%d PUBLISHes counted, want 8", got)
	}
}

// Packets arrive whole whatever the pieces are that they came in.
func TestPiecesBecomePackets(t *testing.T) {
	n := newNode(t, Limits{})
	big := bytes.Repeat([]byte{'x'}, 200_000)
	for _, pieces := range []int{1, 2, 3, 7, 1000, 4095, 4096, 4097, 65536} {
		c := n.dial()
		c.version = 5
		var all []byte
		all = append(all, connectBytes(5, "pieces")...)
		all = append(all, packet(0x82, u16(1), props5(), "t", 0)...)
		all = append(all, packet(0x30, "t", props5(), []byte("small"))...)
		if pieces > 100 {
			all = append(all, packet(0x30, "t", props5(), big)...)
		}
		all = append(all, packet(0x30, "t", props5(), []byte("last"))...)
		all = append(all, 0xc0, 0)
		for b := range slices.Chunk(all, pieces) {
			c.send(b)
		}
		c.want(welcome5, "SUBACK id=1 00", "PUBLISH t=small q0")
		if pieces > 100 {
			c.want("PUBLISH t=200000 bytes q0")
		}
		c.want("PUBLISH t=last q0", "PINGRESP")
		c.end()
	}
}

// Keep alive: a client is closed between one and a half times what it asked
// for and a second more, with 0x8D and its will; packets count, bytes do not.
func TestKeepAlive(t *testing.T) {
	n := newNode(t, Limits{})
	witness := n.connect(5, "witness")
	witness.send(packet(0x82, u16(1), props5(), "wills/#", 0))
	witness.want("SUBACK id=1 00")
	will := func(pk *packets.Packet) {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "wills/"+pk.Connect.ClientIdentifier, []byte("gone")
	}
	idle := n.connect(5, "idle", keepAlive(2), will)
	busy := n.connect(5, "busy", keepAlive(2), will)
	trickle := n.connect(4, "trickle", keepAlive(2), will)
	long := n.connect(5, "long", keepAlive(43691), will)
	longest := n.connect(5, "longest", keepAlive(65535), will)
	never := n.connect(5, "never", keepAlive(0), will)

	n.pass(2 * time.Second)
	trickle.send([]byte{0x30, 100, 0})
	n.pass(750 * time.Millisecond)
	busy.ping()
	trickle.send([]byte{1})
	n.rest()
	n.pass(250 * time.Millisecond)
	idle.ping() // three seconds have not passed for it for sure
	n.rest()
	n.pass(3 * time.Second)
	idle.ping()
	busy.ping()
	n.rest()
	witness.want("PUBLISH wills/trickle=gone q0")
	if got := trickle.next(); got != "closed" {
		t.Errorf("who trickles bytes got %s", got)
	}
	n.pass(4 * time.Second)
	for i, c := range []*client{idle, busy} {
		if got := c.next(); got != "DISCONNECT 8d reason=\"BW-1004 no packet for one and a half times the keep alive\"" {
			t.Errorf("%d: got %s", i, got)
		}
	}
	got := []string{witness.next(), witness.next()}
	slices.Sort(got)
	if want := []string{"PUBLISH wills/busy=gone q0", "PUBLISH wills/idle=gone q0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	passed := 10 * time.Second
	for _, x := range []struct {
		c    *client
		name string
		at   time.Duration
	}{{long, "long", 43691 * time.Second * 3 / 2}, {longest, "longest", 65535 * time.Second * 3 / 2}} {
		n.pass(x.at - passed)
		if n := n.srv.stats.Ends[codeKeepAlive].Load(); x.name == "long" && n != 3 || x.name == "longest" && n != 4 {
			t.Errorf("%s was closed before its time: %d ended", x.name, n)
		}
		n.pass(time.Second)
		if got := x.c.next(); !strings.HasPrefix(got, "DISCONNECT 8d") {
			t.Errorf("%s: got %s", x.name, got)
		}
		witness.want("PUBLISH wills/" + x.name + "=gone q0")
		passed = x.at + time.Second
	}
	never.ping()
}

// A connection has ten seconds for its CONNECT; one that is silent, or
// trickles, is closed and holds nobody up.
func TestConnectTimeout(t *testing.T) {
	n := newNode(t, Limits{})
	var silent []*client
	for i := range 200 {
		c := n.dial()
		if i%2 == 0 {
			c.send([]byte{0x10, 100, 0})
		}
		silent = append(silent, c)
	}
	eventually(t, "all sockets", func() bool { return n.srv.stats.Sockets.Load() == 200 && n.srv.stats.BytesIn.Load() == 300 })
	n.rest()
	n.pass(10 * time.Second)
	if got := n.srv.stats.Sockets.Load(); got != 200 {
		t.Errorf("%d sockets after ten seconds, want 200", got)
	}
	c := n.connect(5, "real")
	n.pass(time.Second)
	for _, s := range silent {
		if got := s.next(); got != "closed" {
			t.Fatalf("got %s", got)
		}
	}
	eventually(t, "the end of the silent ones", func() bool { return n.srv.stats.Sockets.Load() == 1 })
	c.ping()
}

// A later connection of the same client id gets its CONNACK at once, though
// the earlier one's socket is full; an earlier one that reads is told 0x8E.
func TestTakeoverDoesNotWait(t *testing.T) {
	n := newNode(t, Limits{})
	for _, version := range []byte{4, 5} {
		old := n.connect(version, "same")
		fresh := n.connect(version, "same")
		if want := map[byte]string{4: "closed", 5: `DISCONNECT 8e reason="BW-1008 session taken over"`}[version]; old.next() != want {
			t.Errorf("version %d: the earlier one was not told %s", version, want)
		}
		stall(n, fresh, "same")
		last := n.connect(version, "same")
		last.ping()
		last.end()
	}
	eventually(t, "the end of the stalled ones", func() bool {
		n.pass(time.Second)
		return n.srv.stats.Sockets.Load() == 0
	})
}

// stall subscribes c, which does not read, to a topic and fills its socket.
func stall(n *node, c *client, id string) {
	n.t.Helper()
	props := []byte{}
	if c.version == 5 {
		props = []byte{0}
	}
	c.send(packet(0x82, u16(1), props, "flood/"+id, 0))
	c.want("SUBACK id=1 00")
	p := n.connect(4, "flooder")
	payload := bytes.Repeat([]byte{'x'}, 60_000)
	before := n.srv.stats.Dropped[DropFull].Load()
	for n.srv.stats.Dropped[DropFull].Load() == before {
		p.send(packet(0x30, "flood/"+id, payload))
		p.ping()
	}
	p.end()
}

// A subscriber that stops reading hurts nobody: the others get everything, the
// publisher its acknowledgements, what is kept for it is bounded, and after a
// minute its connection ends.
func TestStoppedReaderHurtsNobody(t *testing.T) {
	n := newNode(t, Limits{})
	good := n.connect(5, "good")
	good.send(packet(0x82, u16(1), props5(), "flood/#", 1))
	good.want("SUBACK id=1 01")
	done := make(chan struct{})
	var count atomic.Int64
	go func() { // reads and acknowledges all of the time
		defer close(done)
		for {
			b, err := good.read()
			if err != nil {
				return
			}
			if b[0]>>4 != packets.Publish {
				continue
			}
			count.Add(1)
			if b[0]&6 != 0 {
				at, _, _ := frameSize(b)
				id := b[at+2+int(b[at+1])+int(b[at])<<8:]
				good.send([]byte{0x40, 2, id[0], id[1]})
			}
		}
	}()
	bad := n.connect(5, "bad")
	stall(n, bad, "bad")
	flooded := n.srv.stats.PacketsIn[packets.Publish].Load()

	p := n.connect(5, "publisher")
	payload := bytes.Repeat([]byte{'x'}, 1000)
	for i := range 2000 {
		p.send(packet(0x32, "flood/bad", u16(i%100+1), props5(), payload))
		p.want(fmt.Sprintf("PUBACK id=%d 00", i%100+1))
	}
	if n.srv.stats.Stalled.Load() < 1 {
		t.Error("nobody is stalled")
	}
	n.srv.each(func(c *conn) {
		c.mu.Lock()
		if c.out.n > n.srv.Limits().Output+70_000 {
			t.Errorf("%d bytes wait for %s, want at most %d and one event", c.out.n, c.client, n.srv.Limits().Output)
		}
		c.mu.Unlock()
	})
	n.pass(59 * time.Second)
	if got := n.srv.stats.Ends[codeQuota].Load(); got != 0 {
		t.Error("ended before its minute was over")
	}
	n.pass(2 * time.Second)
	left := 60 // seconds more, should the kernel have taken something meanwhile: then its time began anew
	eventually(t, "the end", func() bool {
		if left--; left > 0 {
			n.pass(time.Second)
		}
		return n.srv.stats.Ends[codeQuota].Load() == 1
	})
	n.pass(2 * time.Second)
	eventually(t, "the reset", func() bool { return n.srv.stats.Stalled.Load() == 0 })
	eventually(t, "everything at who reads", func() bool { return count.Load() == int64(flooded)+2000 })
	good.send([]byte{0xe0, 0})
	<-done
}

// A QoS 1 subscriber that is slow gets everything, in order, once it reads:
// what did not fit its output stayed in the session and was asked for.
func TestSlowReaderGetsAll(t *testing.T) {
	n := newNode(t, Limits{Output: 64 << 10})
	s := n.connect(5, "slow", keep(3600))
	s.send(packet(0x82, u16(1), props5(), "t", 1))
	s.want("SUBACK id=1 01")
	p := n.connect(5, "publisher")
	payload := bytes.Repeat([]byte{'x'}, 30_000)
	const least, most = 400, 1000
	events := 0 // how much the sockets take is the machine's
	for ; events < least || events < most && n.srv.stats.Full.Load() == 0; events++ {
		p.send(packet(0x32, "t", u16(1), props5(), []byte(fmt.Sprintf("%05d", events)), payload))
		p.want("PUBACK id=1 00")
	}
	for i := range events {
		b, err := s.read()
		if err != nil {
			t.Fatal(err)
		}
		at, _, _ := frameSize(b)
		if got, want := string(b[at+6:at+11]), fmt.Sprintf("%05d", i); got != want {
			t.Fatalf("got event %s, want %s", got, want)
		}
		s.send(packet(0x40, u16(uint16(b[at+3])<<8|uint16(b[at+4]))))
	}
	s.ping()
	if n.srv.stats.Full.Load() == 0 {
		t.Error("the output was never full: the test shows nothing")
	}
}

// Receive Maximum towards us: as many as announced may be under way; one more
// ends an MQTT 5 connection with 0x93. Of 3.1.1 clients no more is read, and
// their keep alive does not run meanwhile.
func TestReceiveMaximum(t *testing.T) {
	n := newNode(t, Limits{ReceiveMaximum: 10})
	c := n.dial()
	c.version = 5
	c.send(connectBytes(5, "c"))
	c.want("CONNACK 00 receive=10 packet=262144 aliases=16")
	old := n.connect(4, "old", keepAlive(2))
	n.log.gate.Lock()
	for i := range 10 {
		c.send(packet(byte(0x32+2*(i%2)), "t", u16(i+1), props5()))
	}
	c.send(packet(0x34, "t", u16(2), props5())) // a repeat does not count
	c.ping()
	for i := range 30 {
		old.send(packet(0x32, "t", u16(i+1)))
	}
	old.send([]byte{0xc0, 0})
	eventually(t, "the reader of the old client waits", func() bool { return n.hasWaited("old") && n.owed("old") == 10 })
	n.pass(10 * time.Second)
	n.log.gate.Unlock()
	for i := range 10 {
		c.want(fmt.Sprintf("%s id=%d 00", []string{"PUBACK", "PUBREC"}[i%2], i+1))
	}
	c.want("PUBREC id=2 00")
	pings, acked := 0, 0
	for range 31 {
		switch got := old.next(); got {
		case "PINGRESP": // not in order with the others
			pings++
		case fmt.Sprintf("PUBACK id=%d 00", acked+1):
			acked++
		default:
			t.Fatalf("after %d acknowledgements got %s", acked, got)
		}
	}
	if pings != 1 {
		t.Errorf("%d PINGRESPs, want 1", pings)
	}

	// Five of QoS 2 are still under way: five of QoS 1 more are allowed.
	n.log.gate.Lock()
	for i := range 5 {
		c.send(packet(0x32, "t", u16(100+i), props5()))
	}
	c.ping()
	c.send(packet(0x32, "t", u16(200), props5()))
	c.want("DISCONNECT 93 reason=\"BW-8001 more publishes under way than the Receive Maximum\"", "closed")
	n.log.gate.Unlock()
}

// A QoS 2 publish that is repeated before its PUBREL is routed once, whether
// or not the session outlives the connection.
func TestQoS2RepeatIsRoutedOnce(t *testing.T) {
	n := newNode(t, Limits{})
	w := n.connect(5, "witness")
	w.send(packet(0x82, u16(1), props5(), "t", 0))
	w.want("SUBACK id=1 00")
	for _, version := range []byte{4, 5} {
		for _, expiry := range []uint32{0, 3600} {
			with := func(pk *packets.Packet) {
				if expiry > 0 {
					keep(expiry)(pk)
				}
			}
			c := n.connect(version, fmt.Sprintf("c%d%d", version, expiry), with)
			props := []byte{}
			if version == 5 {
				props = []byte{0}
			}
			c.send(packet(0x34, "t", u16(5), props, []byte("a")), packet(0x3c, "t", u16(5), props, []byte("a")))
			c.want("PUBREC id=5 00", "PUBREC id=5 00")
			c.send(packet(0x34, "t", u16(5), props, []byte("a")))
			c.want("PUBREC id=5 00")
			c.send(packet(0x62, u16(5)), packet(0x34, "t", u16(5), props, []byte("b")))
			c.want("PUBCOMP id=5 00", "PUBREC id=5 00")
			c.send(packet(0x62, u16(5)))
			c.want("PUBCOMP id=5 00")
			w.want("PUBLISH t=a q0", "PUBLISH t=b q0")
			c.end()
		}
	}
}

// Our packet ids and the client's are two spaces.
func TestPacketIDsDoNotCollide(t *testing.T) {
	n := newNode(t, Limits{})
	c := n.connect(5, "c")
	c.send(packet(0x82, u16(1), props5(), "t", 1))
	c.want("SUBACK id=1 01")
	n.connect(5, "p").send(packet(0x30, "u", props5()), packet(0x32, "t", u16(1), props5(), []byte("ours")))
	c.want("PUBLISH t=ours q1 id=1")
	c.send(packet(0x82, u16(1), props5(), "x", 0), packet(0x32, "y", u16(1), props5()), packet(0x34, "z", u16(1), props5()))
	got := []string{c.next(), c.next(), c.next()}
	slices.Sort(got)
	if want := []string{"PUBACK id=1 00", "PUBREC id=1 00", "SUBACK id=1 00"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Topic aliases: towards us one is resolved before anything else; towards the
// client they are used within its maximum, and the codec's view of the stream
// is the topic again.
func TestTopicAliases(t *testing.T) {
	n := newNode(t, Limits{TopicAliases: 3})
	c := n.connect(5, "c", func(pk *packets.Packet) { pk.Properties.TopicAliasMaximum = 2 })
	c.send(packet(0x82, u16(1), props5(), "topic/#", 0))
	c.want("SUBACK id=1 00")
	alias := func(a byte) []byte { return props5(packets.PropTopicAlias, 0, a) }
	p := n.connect(5, "p")
	p.send(packet(0x30, "topic/1", alias(1), []byte("a")), packet(0x30, "", alias(1), []byte("b")),
		packet(0x30, "topic/2", alias(1), []byte("c")), packet(0x30, "", alias(1), []byte("d")),
		packet(0x32, "forbidden/x", u16(1), alias(3)), packet(0x32, "", u16(2), alias(3)),
		packet(0x30, "topic/3", alias(2), []byte("e")), packet(0x30, "", alias(2), []byte("f")))
	p.want("PUBACK id=1 87 reason=\"BW-4001 a rule forbids it\"", "PUBACK id=2 87 reason=\"BW-4001 a rule forbids it\"")
	c.want("PUBLISH topic/1=a q0 alias=1", "PUBLISH =b q0 alias=1", "PUBLISH topic/2=c q0 alias=2", "PUBLISH =d q0 alias=2",
		"PUBLISH topic/3=e q0", "PUBLISH topic/3=f q0")
}

// A will is published for every end but DISCONNECT 0x00.
func TestWills(t *testing.T) {
	n := newNode(t, Limits{})
	w := n.connect(5, "witness")
	w.send(packet(0x82, u16(1), props5(), "will", 0))
	w.want("SUBACK id=1 00")
	will := func(pk *packets.Packet) {
		pk.Connect.WillFlag, pk.Connect.WillTopic, pk.Connect.WillPayload = true, "will", []byte(pk.Connect.ClientIdentifier)
	}
	for _, x := range []struct {
		name    string
		version byte
		end     func(c *client)
		will    bool
	}{
		{"normal5", 5, func(c *client) { c.send([]byte{0xe0, 0}) }, false},
		{"normal5long", 5, func(c *client) { c.send([]byte{0xe0, 1, 0}) }, false},
		{"normal4", 4, func(c *client) { c.send([]byte{0xe0, 0}) }, false},
		{"withwill", 5, func(c *client) { c.send([]byte{0xe0, 1, 4}) }, true},
		{"error", 5, func(c *client) { c.send([]byte{0xe0, 1, 0x80}) }, true},
		{"closed", 5, func(c *client) { c.conn.Close() }, true},
		{"reset", 4, func(c *client) { c.conn.(*net.TCPConn).SetLinger(0); c.conn.Close() }, true},
		{"protocol", 5, func(c *client) { c.send([]byte{0, 0}) }, true},
		{"taken", 5, func(c *client) { n.connect(5, "taken") }, true},
	} {
		c := n.connect(x.version, x.name, will)
		x.end(c)
		if !x.will {
			c.want("closed")
			continue
		}
		w.want("PUBLISH will=" + x.name + " q0")
	}
	w.ping()
}

// Properties that a publisher sets arrive as they were, in their order;
// Message Expiry counts down, and options of the subscription are kept.
func TestPropertiesPassThrough(t *testing.T) {
	n := newNode(t, Limits{})
	c := n.connect(5, "c")
	c.send(packet(0x82, u16(1), props5(packets.PropSubscriptionIdentifier, 7), "t/#", 1|8),
		packet(0x82, u16(2), props5(packets.PropSubscriptionIdentifier, 9), "t/+", 0))
	c.want("SUBACK id=1 01", "SUBACK id=2 00")
	p := n.connect(5, "p")
	p.send(packet(0x33, "t/1", u16(1), props5(
		packets.PropUser, 0, 1, 'k', 0, 1, '1',
		packets.PropMessageExpiryInterval, 0, 0, 0, 60,
		packets.PropResponseTopic, 0, 1, 'r',
		packets.PropUser, 0, 1, 'j', 0, 1, '2',
		packets.PropTopicAlias, 0, 1,
		packets.PropCorrelationData, 0, 2, 1, 2,
		packets.PropPayloadFormat, 1,
		packets.PropUser, 0, 1, 'k', 0, 1, '3'), []byte("x")))
	p.want("PUBACK id=1 00")
	c.want("PUBLISH t/1=x q1 id=1 retain expiry=60 format=1 response=r correlation=0102 ids=[7 9] k:1 j:2 k:3")

	n.mu.Lock()
	n.now = n.now.Add(20 * time.Second)
	n.mu.Unlock()
	late := n.connect(5, "late")
	late.send(packet(0x82, u16(1), props5(), "t/1", 0))
	late.want("SUBACK id=1 00", "PUBLISH t/1=x q0 retain expiry=40 format=1 response=r correlation=0102 k:1 j:2 k:3")
	old := n.connect(4, "old")
	old.send(packet(0x82, u16(1), "t/1", 0))
	old.want("SUBACK id=1 00", "PUBLISH t/1=x q0 retain")
}

// Reason Strings are not sent to who does not want them.
//
// MQTT 5: 3.1.2-29.
func TestProblemInformation(t *testing.T) {
	n := newNode(t, Limits{})
	c := n.connect(5, "c", func(pk *packets.Packet) {
		pk.Properties.RequestProblemInfo, pk.Properties.RequestProblemInfoFlag = 0, true
	})
	c.send(packet(0x32, "forbidden/x", u16(4), props5()))
	c.want("PUBACK id=4 87")
	c.send([]byte{0, 0})
	c.want("DISCONNECT 81", "closed")
}

// A server that closes says so, and waits for its clients; those that do not
// leave are cut off when the context is done.
func TestCloseTellsClients(t *testing.T) {
	n := newNode(t, Limits{})
	c5, c4 := n.connect(5, "c5"), n.connect(4, "c4")
	silent := n.dial()
	eventually(t, "three sockets", func() bool { return n.srv.stats.Sockets.Load() == 3 })
	ctx, cancel := context.WithCancel(context.Background())
	closed := make(chan error)
	go func() { closed <- n.srv.Close(ctx) }()
	c5.want(`DISCONNECT 8b reason="BW-1003 server shutting down"`, "closed")
	c4.want("closed")
	silent.want("closed")
	c4.conn.Close()
	silent.conn.Close()
	// c5 keeps its end open.
	eventually(t, "one socket", func() bool { return n.srv.stats.Sockets.Load() == 1 })
	cancel()
	if err := <-closed; !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v, want the context's error", err)
	}
	if _, err := net.Dial("tcp", n.addr); err == nil {
		t.Error("still listening")
	}
}

// A bug in the protocol's own code costs one connection.
func TestPanicEndsOneConnection(t *testing.T) {
	n := newNode(t, Limits{}, func(_ *node, cfg *Config) { cfg.Clock = func() time.Time { panic("a bug") } })
	healthy := n.connect(5, "healthy")
	c := n.connect(5, "c")
	c.send(packet(0x82, u16(1), props5(), "t", 0))
	c.want("SUBACK id=1 00")
	healthy.send(packet(0x82, u16(1), props5(), "t", 0))
	healthy.want("SUBACK id=1 00")
	c.send(packet(0x30, "t", props5(), []byte("before")), packet(0x30, "t", props5(packets.PropMessageExpiryInterval, 0, 0, 0, 1)))
	c.want("PUBLISH t=before q0", "DISCONNECT 80 reason=\"BW-9001 internal error\"", "closed")
	healthy.want("PUBLISH t=before q0")
	healthy.ping()
	if got := n.srv.stats.Panics.Load(); got != 1 {
		t.Errorf("%d panics counted, want 1", got)
	}
}

// A flakyListener fails at times.
type flakyListener struct {
	net.Listener
	errs chan error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Err: err}
	default:
		return l.Listener.Accept()
	}
}

// Running out of descriptors, and clients that give up, do not end the accept
// loop.
func TestAcceptSurvives(t *testing.T) {
	errs := make(chan error, 10)
	n := newNode(t, Limits{}, func(n *node, _ *Config) {
		n.wrap = func(l net.Listener) net.Listener { return &flakyListener{l, errs} }
	})
	c := n.connect(5, "before")
	for _, err := range []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.ENFILE, syscall.EMFILE} {
		errs <- err
	}
	n.connect(5, "wakes") // the accept that was under way
	n.connect(5, "after").ping()
	c.ping()
	if got := n.srv.stats.AcceptErrors.Load(); got != 4 {
		t.Errorf("%d errors counted, want 4", got)
	}
}

// When the process has no descriptors left, clients wait in the listener's
// queue, those that are connected go on, and what is given up is used at once.
func TestOutOfDescriptors(t *testing.T) {
	n := newNode(t, Limits{})
	c := n.connect(5, "before")
	stopFirst := holdClients(t, n, "first", 20)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("missing: /proc/self/fd, run on Linux")
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	low := was
	low.Cur = uint64(len(open) + 12) // what starting a process takes, and a few clients
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)
	connected, _, stopSecond := startClients(t, n, "second", 20)
	defer stopSecond()
	eventually(t, "an error of accept", func() bool { return n.srv.stats.AcceptErrors.Load() > 0 })
	c.ping()
	stopFirst()
	connected()
	c.ping()
}

// One client too many is told 0x89 (3.1.1: 3), and a place that is given up
// can be taken again.
func TestConnectionLimit(t *testing.T) {
	n := newNode(t, Limits{Connections: 2, Handshakes: 2})
	shaken := func(many int) {
		t.Helper()
		eventually(t, fmt.Sprint(many, " handshakes"), func() bool { n.srv.mu.Lock(); defer n.srv.mu.Unlock(); return n.srv.handshakes == many })
	}
	a := n.connect(5, "a")
	n.connect(4, "b")
	for version, want := range map[byte]string{5: "CONNACK 89 reason=\"BW-1003 too many clients\"", 4: "CONNACK 03"} {
		c := n.dial()
		c.version = version
		c.send(connectBytes(version, "c"))
		c.want(want, "closed")
		c.end()
	}
	a.end()
	eventually(t, "a place", func() bool { return n.srv.clients.Load() == 1 })
	shaken(0) // those that were refused are over
	n.connect(5, "c")

	shaken(0)
	silent := []*client{n.dial(), n.dial()}
	shaken(2)
	if c, err := net.Dial("tcp", n.addr); err == nil { // or it was reset at once
		defer c.Close()
		c.SetReadDeadline(deadline())
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("one handshake too many: %v", err)
		}
	}
	eventually(t, "one turned away", func() bool { return n.srv.stats.TurnedAway[TurnawayHandshakes].Load() == 1 })
	silent[0].end()
}

// Each address has its share of connections, at once and in a minute; loopback
// is not counted.
func TestAddressLimits(t *testing.T) {
	var s addresses
	var turned [turnaways]int
	l, err := Limits{PerAddress: 3, PerAddressRate: 5}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	at := func(addr string) address { return addressOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))) }
	enter := func(addr string, now int64, want bool) {
		t.Helper()
		why, ok := s.enter(at(addr), now, &l)
		if ok != want {
			t.Errorf("tick %d, %s: let in %v, want %v", now, addr, ok, want)
		}
		if !ok {
			turned[why]++
		}
	}
	for range 3 {
		enter("192.0.2.1:1", 1, true)
	}
	enter("192.0.2.1:1", 1, false)
	enter("[::ffff:192.0.2.1]:1", 1, false) // the same
	enter("192.0.2.2:1", 1, true)
	s.leave(at("192.0.2.1:9"))
	enter("192.0.2.1:1", 2, true)
	s.leave(at("192.0.2.1:9"))
	enter("192.0.2.1:1", 3, true)
	s.leave(at("192.0.2.1:9"))
	enter("192.0.2.1:1", 3, false) // a sixth within the minute
	enter("192.0.2.1:1", 3+ticksPerMinute/5, true)
	for range 3 {
		enter("[2001:db8::1]:1", 10, true)
	}
	enter("[2001:db8::ffff:2]:1", 10, false) // of the same /64
	enter("[2001:db8:0:1::1]:1", 10, true)
	for range 1000 {
		enter("127.0.0.1:1", 10, true)
		enter("[::1]:1", 10, true)
	}
	if turned[TurnawayAddress] != 3 || turned[TurnawayRate] != 1 {
		t.Errorf("turned away %v, want 3 for their number and 1 for the rate", turned)
	}
	s.leave(at("[2001:db8:0:1::1]:9"))
	enter("198.51.100.1:1", 10*ticksPerMinute, true)
	if _, kept := s.by[at("[2001:db8:0:1::1]:1")]; kept {
		t.Error("who has no connection and no debt is not forgotten")
	}
	if s.by[at("192.0.2.1:1")] == nil {
		t.Error("who has connections is forgotten")
	}
}

// Faults in limits are named, all of them, each with its bounds.
func TestLimitsAreChecked(t *testing.T) {
	_, err := Limits{ReceiveMaximum: 70_000, Packet: -1, TopicAliases: 65_536, KeepAlive: 24 * time.Hour}.WithDefaults()
	if err == nil {
		t.Fatal("accepted")
	}
	want := "limits.packet: -1, want 1 to 268435460\n" +
		"limits.receiveMaximum: 70000, want 1 to 65535\n" +
		"limits.topicAliases: 65536, want at most 65535 (negative for none)\n" +
		"limits.keepAlive: 24h0m0s, want 1s to 18h12m15s"
	if err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

var _ broker.Sink = (*conn)(nil)

// Shared subscriptions are announced as unavailable while they are; else nothing is
// said of them, and a client subscribes.
func TestSharedIsAnnounced(t *testing.T) {
	n := newNode(t, Limits{})
	n.srv.shared = func() bool { return false }
	c := n.dial()
	c.version = 5
	c.send(connectBytes(5, "c"))
	c.want(welcome5 + " shared=0")
	n.srv.shared = func() bool { return true }
	c = n.dial()
	c.version = 5
	c.send(connectBytes(5, "c2"))
	c.want(welcome5)
	c.send(packet(0x82, u16(1), props5(), "$share/g/a", 1))
	c.want("SUBACK id=1 01")
	c.send(packet(0xa2, u16(2), props5(), "$share/g/a", "$share/h/a"))
	c.want("UNSUBACK id=2 00 11")
}
