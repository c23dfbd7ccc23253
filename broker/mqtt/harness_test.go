package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/goleak"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/store"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/disk"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("BELLWIRE_CHILD"); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// A soloLog is the least that orders batches: one node, nothing kept, an entry
// for each batch.
type soloLog struct {
	m       *broker.Machine
	now     func() time.Time
	batches chan []byte
	done    chan struct{}
	gate    sync.Mutex // held by a test that lets nothing be ordered
}

func (l *soloLog) Submit(b []byte, _ func(error)) { l.batches <- bytes.Clone(b) }
func (l *soloLog) Leader() bool                   { return true }

// pass waits while a test holds the gate.
func (l *soloLog) pass() {
	l.gate.Lock()
	defer l.gate.Unlock()
}

func (l *soloLog) run() {
	defer close(l.done)
	for b := range l.batches {
		l.pass()
		l.m.Apply(l.m.Applied()+1, 1, l.now().UnixNano(), [][]byte{b})
	}
}

// rules are a policy for tests: everybody may do everything but what concerns
// a topic below forbidden/ and topics that begin with '$'; what is below hours/ until
// the end of the day only.
type rules struct{}

func (rules) Decide(_ broker.Who, _ broker.Action, name string, at int64) broker.Decision {
	if topic.Match("hours/#", name) {
		const day = int64(24 * time.Hour)
		return broker.Decision{Allow: true, Windowed: true, Until: at - at%day + day}
	}
	if topic.Match("forbidden/#", name) || name[0] == '$' {
		return broker.Decision{Reason: "a rule forbids it"}
	}
	return broker.Decision{Allow: true}
}

func (r rules) Grant(who broker.Who, filter string, at int64) broker.Decision {
	return r.Decide(who, broker.ActSubscribe, filter, at)
}

func (rules) Ceiling(broker.Who, broker.Action, string, int64) broker.Decision {
	return broker.Decision{Allow: true}
}

func (rules) NextEdge(int64) int64 { return 0 }

func (rules) Authenticate(user string, password []byte) (string, error) {
	if string(password) != "secret of "+user {
		return "", broker.ErrBadCredentials
	}
	return user + "@example.com", nil
}

// A node is a server on a real broker, with a clock and a wheel that only the
// test moves.
type node struct {
	t      testing.TB
	broker *broker.Broker
	log    *soloLog
	srv    *Server
	addr   string
	ticks  chan time.Time
	at     time.Time // of the last tick
	wrap   func(net.Listener) net.Listener
	full   atomic.Bool // the disk; see broker.CheckDisk

	mu  sync.Mutex
	now time.Time
}

func quiet() *slog.Logger {
	if os.Getenv("BELLWIRE_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

func (n *node) clock() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

func newNode(t testing.TB, limits Limits, with ...func(*node, *Config)) *node {
	t.Helper()
	n := &node{t: t, ticks: make(chan time.Time), at: time.Unix(1000, 0), now: time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)}
	st, err := store.Open(store.Options{Dir: "state", FS: disk.Memory(), Newest: uint8(broker.NewestLevel), Logger: quiet(), Die: func(r string) { panic(r) }})
	if err != nil {
		t.Fatal(err)
	}
	n.broker, err = broker.New(broker.Config{
		Node: "n1", Store: st, Now: n.clock, Logger: quiet(), Reserved: []string{"presence"},
		Patience: time.Minute, // a slow machine makes no outcome unknown
		Compile:  func([]byte, string) (broker.Authorizer, error) { return rules{}, nil },
		Free: func() (free, total uint64) {
			if n.full.Load() {
				return 0, 1 << 40
			}
			return 1 << 40, 1 << 40
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.log = &soloLog{m: n.broker.Machine(), now: n.clock, batches: make(chan []byte, 16), done: make(chan struct{})}
	go n.log.run()
	if err := n.broker.Start(context.Background(), n.log); err != nil {
		t.Fatal(err)
	}
	if err := n.broker.Raise(context.Background(), broker.NewestLevel); err != nil { // as what starts a cluster does
		t.Fatal(err)
	}
	if err := n.broker.SetPolicy(context.Background(), []byte("any")); err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Broker: n.broker, Limits: limits, Clock: n.clock, Ticks: n.ticks, Logger: quiet(), AllowAnonymous: true,
		Authenticate: func(l Login) (Identity, error) {
			principal, err := n.broker.Authenticate(l.User, l.Password)
			return Identity{Principal: principal}, err
		},
	}
	for _, f := range with {
		f(n, &cfg)
	}
	n.srv, err = New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := n.listen()
	n.tick(0)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		n.pass(0)
		go n.passUntil(ctx)
		if err := n.srv.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		stats := &n.srv.stats
		if a, b, c, d := stats.Sockets.Load(), stats.Clients.Load(), stats.Stalled.Load(), n.srv.clients.Load(); a|b|c|d != 0 {
			t.Errorf("after Close %d sockets, %d clients, %d stalled, %d places taken", a, b, c, d)
		}
		n.broker.Close()
		close(n.log.batches)
		<-n.log.done
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) listen() <-chan error {
	n.t.Helper()
	l, err := Listen(context.Background(), "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	if n.wrap != nil {
		l = n.wrap(l)
	}
	n.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- n.srv.Serve(l) }()
	return served
}

// tick moves the wheel by d at once, or by a second if d is more; it returns
// when it has turned.
func (n *node) tick(d time.Duration) {
	n.at = n.at.Add(d)
	select {
	case n.ticks <- n.at:
	case <-n.srv.stopped:
	}
}

// pass moves the wheel by d, tick by tick.
func (n *node) pass(d time.Duration) {
	for ; d > 0; d -= Tick {
		n.tick(Tick)
	}
	n.tick(0) // when this one is taken, the one before is done
}

// passUntil moves the wheel until ctx is done or the server closed.
func (n *node) passUntil(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.srv.stopped:
			return
		case <-time.After(time.Millisecond):
			n.tick(Tick)
		}
	}
}

// rest returns when no connection handles input: keep alive does not run for
// those that do.
func (n *node) rest() {
	n.t.Helper()
	eventually(n.t, "rest", func() bool {
		busy := false
		n.srv.each(func(c *conn) { busy = busy || c.busy.Load() })
		return !busy
	})
}

// hasWaited says whether the reader of a client has begun to wait for something of ours.
func (n *node) hasWaited(client string) (has bool) {
	n.srv.each(func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		has = has || c.client == client && c.changed != nil
	})
	return has
}

// owed returns how many acknowledgements we owe a client.
func (n *node) owed(client string) int {
	owed := -1
	n.srv.each(func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.client == client {
			owed = c.acks.len()
		}
	})
	return owed
}

// A client is a raw MQTT client.
type client struct {
	t       testing.TB
	conn    net.Conn
	version byte
	buf     []byte
}

func (n *node) dial() *client {
	n.t.Helper()
	c, err := net.Dial("tcp", n.addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return &client{t: n.t, conn: c, version: 4}
}

// connect connects a client and takes the CONNACK.
func (n *node) connect(version byte, id string, with ...func(*packets.Packet)) *client {
	n.t.Helper()
	c := n.dial()
	c.version = version
	c.send(connectBytes(version, id, with...))
	if got := c.next(); !strings.HasPrefix(got, "CONNACK 00") {
		n.t.Fatalf("client %s: got %s, want to be connected", id, got)
	}
	return c
}

func connectBytes(version byte, id string, with ...func(*packets.Packet)) []byte {
	pk := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version}
	pk.Connect.ProtocolName = []byte("MQTT")
	pk.Connect.Clean, pk.Connect.ClientIdentifier = true, id
	for _, f := range with {
		f(pk)
	}
	var b bytes.Buffer
	if err := pk.ConnectEncode(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func keep(expiry uint32) func(*packets.Packet) {
	return func(pk *packets.Packet) {
		pk.Connect.Clean = false
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = expiry, true
	}
}

func keepAlive(seconds uint16) func(*packets.Packet) {
	return func(pk *packets.Packet) { pk.Connect.Keepalive = seconds }
}

// u16 is a number of two bytes in packet.
type u16 uint16

// packet builds a packet: strings get a length of two bytes, ints are bytes,
// u16 two of them, []byte is taken as it is.
func packet(first byte, parts ...any) []byte {
	var body []byte
	for _, p := range parts {
		switch v := p.(type) {
		case int:
			body = append(body, byte(v))
		case byte:
			body = append(body, v)
		case u16:
			body = append(body, byte(v>>8), byte(v))
		case string:
			body = append(append(body, byte(len(v)>>8), byte(len(v))), v...)
		case []byte:
			body = append(body, v...)
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	b := make([]byte, maxHeader)
	b[0] = first
	n := 1 + putVarint(b[1:], len(body))
	return append(b[:n], body...)
}

func (c *client) send(b ...[]byte) {
	c.t.Helper()
	c.conn.SetWriteDeadline(deadline())
	if _, err := c.conn.Write(bytes.Join(b, nil)); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func deadline() time.Time { return time.Now().Add(patience) }

// read returns the next packet, whole, or an error.
func (c *client) read() ([]byte, error) {
	c.conn.SetReadDeadline(deadline())
	for {
		if len(c.buf) >= 2 {
			_, size, err := frameSize(c.buf)
			if err != nil {
				c.t.Fatalf("the server sent a bad frame: % x", c.buf)
			}
			if size > 0 && size <= len(c.buf) {
				p := c.buf[:size:size]
				c.buf = c.buf[size:]
				return p, nil
			}
		}
		b := make([]byte, 64<<10)
		n, err := c.conn.Read(b)
		c.buf = append(c.buf, b[:n]...)
		if err != nil && n == 0 { // TLS may tell the end with the last bytes
			if len(c.buf) > 0 {
				c.t.Fatalf("the server ended in the middle of a packet: % x", c.buf)
			}
			return nil, err
		}
	}
}

// next returns the next packet in words, or "closed".
func (c *client) next() string {
	c.t.Helper()
	p, err := c.read()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Fatal("nothing came")
	case err != nil:
		return "closed"
	}
	return words(c.t, c.version, p)
}

// want takes packets and compares them.
func (c *client) want(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.next(); got != w {
			c.t.Fatalf("got  %s\nwant %s", got, w)
		}
	}
}

// end closes the connection and waits until the server has seen it.
func (c *client) end() {
	c.conn.(*net.TCPConn).CloseWrite()
	for {
		if _, err := c.read(); err != nil {
			return
		}
	}
}

// ping shows that the client is still connected, and that everything before
// has been handled.
func (c *client) ping() {
	c.t.Helper()
	c.send([]byte{0xc0, 0})
	c.want("PINGRESP")
}

// words says what a packet from the server is.
func words(t testing.TB, version byte, b []byte) string {
	t.Helper()
	pk := packets.Packet{ProtocolVersion: version}
	if err := pk.FixedHeader.Decode(b[0]); err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	at, size, err := frameSize(b)
	if err != nil || size != len(b) {
		t.Fatalf("% x: frame of %d bytes, %v", b, size, err)
	}
	pk.FixedHeader.Remaining = size - at
	body := b[at:]
	name := packets.PacketNames[pk.FixedHeader.Type]
	var s strings.Builder
	s.WriteString(strings.ToUpper(name))
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(body)
		fmt.Fprintf(&s, " %02x", pk.ReasonCode)
		if pk.SessionPresent {
			s.WriteString(" present")
		}
	case packets.Publish:
		err = pk.PublishDecode(body)
		fmt.Fprintf(&s, " %s=%s q%d", pk.TopicName, short(pk.Payload), pk.FixedHeader.Qos)
		if pk.FixedHeader.Qos > 0 {
			fmt.Fprintf(&s, " id=%d", pk.PacketID)
		}
		if pk.FixedHeader.Retain {
			s.WriteString(" retain")
		}
		if pk.FixedHeader.Dup {
			s.WriteString(" dup")
		}
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		switch pk.FixedHeader.Type {
		case packets.Puback:
			err = pk.PubackDecode(body)
		case packets.Pubrec:
			err = pk.PubrecDecode(body)
		case packets.Pubrel:
			err = pk.PubrelDecode(body)
		default:
			err = pk.PubcompDecode(body)
		}
		fmt.Fprintf(&s, " id=%d %02x", pk.PacketID, pk.ReasonCode)
	case packets.Suback:
		err = pk.SubackDecode(body)
		fmt.Fprintf(&s, " id=%d % x", pk.PacketID, pk.ReasonCodes)
	case packets.Unsuback:
		err = pk.UnsubackDecode(body)
		fmt.Fprintf(&s, " id=%d % x", pk.PacketID, pk.ReasonCodes)
	case packets.Disconnect:
		err = pk.DisconnectDecode(body)
		fmt.Fprintf(&s, " %02x", pk.ReasonCode)
	case packets.Pingresp:
	default:
		t.Fatalf("a server sent % x", b)
	}
	if err != nil {
		t.Fatalf("% x: %v", b, err)
	}
	propertyWords(&s, &pk.Properties)
	return strings.TrimRight(s.String(), " ")
}

func short(b []byte) string {
	if len(b) > 100 {
		return fmt.Sprintf("%d bytes", len(b))
	}
	return string(b)
}

func propertyWords(s *strings.Builder, p *packets.Properties) {
	say := func(is bool, format string, args ...any) {
		if is {
			fmt.Fprintf(s, " "+format, args...)
		}
	}
	say(p.ServerReference != "", "server=%s", p.ServerReference)
	say(p.ReasonString != "", "reason=%q", p.ReasonString)
	say(p.AssignedClientID != "", "assigned")
	say(p.SessionExpiryIntervalFlag, "session-expiry=%d", p.SessionExpiryInterval)
	say(p.ServerKeepAliveFlag, "keep-alive=%d", p.ServerKeepAlive)
	say(p.ReceiveMaximum != 0, "receive=%d", p.ReceiveMaximum)
	say(p.MaximumPacketSize != 0, "packet=%d", p.MaximumPacketSize)
	say(p.TopicAliasMaximum != 0, "aliases=%d", p.TopicAliasMaximum)
	say(p.SharedSubAvailableFlag, "shared=%d", p.SharedSubAvailable)
	say(p.TopicAliasFlag, "alias=%d", p.TopicAlias)
	say(p.MessageExpiryInterval != 0, "expiry=%d", p.MessageExpiryInterval)
	say(p.PayloadFormatFlag, "format=%d", p.PayloadFormat)
	say(p.ContentType != "", "type=%s", p.ContentType)
	say(p.ResponseTopic != "", "response=%s", p.ResponseTopic)
	say(len(p.CorrelationData) > 0, "correlation=%x", p.CorrelationData)
	say(len(p.SubscriptionIdentifier) > 0, "ids=%v", slices.Sorted(slices.Values(p.SubscriptionIdentifier)))
	for _, u := range p.User {
		say(true, "%s:%s", u.Key, u.Val)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !ok() {
		select {
		case <-limit.C:
			t.Fatalf("%s did not come about", what)
		case <-time.After(time.Millisecond):
		}
	}
}
