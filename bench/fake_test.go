package bench

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
)

// A fake is a broker of exact topics, and of those who may have them, that can
// be told to be a bad one. What it
// does wrong it counts, so that a test can say what the generator must find.
type fake struct {
	listeners []net.Listener // of its nodes; added before the first client comes
	wg        sync.WaitGroup

	mu         sync.Mutex // guards the following, and every write
	conns      []net.Conn
	clients    map[string][]string // names, by the listener to which they came
	absent     []string            // the names of those who have said that they leave
	subs       map[string][]*fakeClient
	deliveries int
	faults     uint64  // injected so far
	stamps     []stamp // of all messages, as they came
	retained   map[string][]byte
	policies   [][]byte

	// What a bad broker does; set before the first client comes.
	spoil     func(f *fake, to *fakeClient, frame []byte) // in place of sending frame
	mute      bool                                        // neither acknowledges nor delivers
	refuse    byte                                        // CONNACK code
	grant     byte                                        // added to the QoS that SUBACK grants
	receive   uint16                                      // Receive Maximum told to MQTT 5 clients, if not 0
	hangUp    int                                         // closes the connection that would have this delivery
	doubleAck bool                                        // acknowledges everything twice
	reason    byte                                        // of acknowledgements to MQTT 5 clients
	leaks     bool                                        // shows everything to everybody
	forgets   bool                                        // has no state for a subscription
}

type fakeClient struct {
	net.Conn
	at      string // the listener
	name    string
	version byte
	barred  bool
	qos     byte
	id      uint16
	held    []byte
}

func newFake(t *testing.T, f *fake) (addr string) {
	t.Helper()
	f.subs, f.retained, f.clients = map[string][]*fakeClient{}, map[string][]byte{}, map[string][]string{}
	addr = f.listen(t)
	t.Cleanup(func() {
		f.mu.Lock()
		for _, l := range f.listeners {
			l.Close()
		}
		for _, c := range f.conns {
			c.Close()
		}
		f.mu.Unlock()
		f.wg.Wait()
	})
	return addr
}

// listen makes the broker listen at one more address, as another node would.
func (f *fake) listen(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.listeners = append(f.listeners, l)
	addr = l.Addr().String()
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(&fakeClient{Conn: c, at: addr}) })
		}
	})
	return addr
}

func (f *fake) serve(c *fakeClient) {
	defer c.Close()
	var in []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for {
			first, body, used, err := nextFrame(in)
			if err != nil {
				return
			}
			if used == 0 {
				break
			}
			f.mu.Lock()
			f.packet(c, first, body)
			f.mu.Unlock()
			in = in[used:]
		}
	}
}

func (f *fake) packet(c *fakeClient, first byte, body []byte) {
	switch first & 0xF0 {
	case typeConnect:
		c.version = body[6]
		c.name = clientID(body)
		f.clients[c.at] = append(f.clients[c.at], c.name)
		c.signIn(body)
		answer := []byte{0, f.refuse}
		if c.version == v5 {
			var props []byte
			if f.receive > 0 {
				// A user property and a maximum packet size stand in its way.
				props = append(props, 0x26, 0, 1, 'a', 0, 2, 'b', 'c', 0x27, 0, 1, 0, 0, 0x21)
				props = binary.BigEndian.AppendUint16(props, f.receive)
			}
			answer = append(appendVarint(answer, len(props)), props...)
		}
		c.Write(appendFrame(nil, typeConnack, answer))
	case typeSubscribe:
		f.subscribe(c, body)
	case typePublish:
		f.publish(c, first, body)
	case typePubrec:
		c.Write(appendAck(nil, typePubrel|0x02, binary.BigEndian.Uint16(body)))
	case typePubrel:
		f.ack(c, typePubcomp, binary.BigEndian.Uint16(body))
	case typeDisconnect:
		f.absent = append(f.absent, c.name)
		c.Close()
	}
}

// clientID reads it out of a CONNECT.
func clientID(body []byte) string {
	at := 10
	if body[6] == v5 {
		n, w, _ := varint(body[at:])
		at += w + n
	}
	return string(body[at+2 : at+2+int(binary.BigEndian.Uint16(body[at:]))])
}

func (f *fake) subscribe(c *fakeClient, body []byte) {
	answer := body[:2:2]
	rest := body[2:]
	if c.version == v5 {
		answer, rest = append(answer, 0), rest[1:]
	}
	for len(rest) > 0 {
		n := 2 + int(binary.BigEndian.Uint16(rest))
		topic := string(rest[2:n])
		c.qos = rest[n]
		rest = rest[n+1:]
		code := c.qos + f.grant
		switch {
		case !c.barred || f.leaks:
			f.subs[topic] = append(f.subs[topic], c)
			if now := f.retained[topic]; now != nil && !f.forgets {
				c.state(topic, now) // before SUBACK, as it may
				f.leaked(c)
			}
		case c.version == v5: // one way to bar somebody, and another
			c.state(topic, nothing(topic))
		default:
			code = 0x80
		}
		answer = append(answer, code)
	}
	c.Write(appendFrame(nil, typeSuback, answer))
}

// leaked counts what somebody gets who should not.
func (f *fake) leaked(to *fakeClient) {
	if to.barred {
		f.faults++
	}
}

func (f *fake) ack(c *fakeClient, kind byte, id uint16) {
	frame := appendAck(nil, kind, id)
	if f.reason != 0 && c.version == v5 {
		frame = appendFrame(nil, kind, []byte{byte(id >> 8), byte(id), f.reason})
	}
	c.Write(frame)
	if f.doubleAck {
		c.Write(frame)
	}
}

func (f *fake) publish(c *fakeClient, first byte, body []byte) {
	d, err := parsePublish(first, body, c.version)
	if err != nil {
		c.Close()
		return
	}
	if string(d.topic) == "$me/policy/presence" {
		f.policies = append(f.policies, bytes.Clone(d.payload))
	} else if st, _, ok := stampIn(d.payload); ok {
		f.stamps = append(f.stamps, st)
	} else {
		f.stamps = append(f.stamps, readStamp(d.payload))
	}
	if first&1 != 0 {
		f.retained[string(d.topic)] = bytes.Clone(d.payload)
	}
	if f.mute {
		return
	}
	switch d.qos {
	case 1:
		f.ack(c, typePuback, d.id)
	case 2:
		f.ack(c, typePubrec, d.id)
	}
	for _, to := range f.subs[string(d.topic)] {
		f.deliveries++
		f.leaked(to)
		if f.deliveries == f.hangUp {
			to.Close()
			return
		}
		out := to.encode(d)
		if f.spoil != nil {
			f.spoil(f, to, out)
		} else {
			to.Write(out)
		}
	}
}

func (c *fakeClient) encode(d delivery) []byte {
	qos := min(d.qos, c.qos)
	body := appendString(nil, string(d.topic))
	if qos > 0 {
		c.id++
		body = binary.BigEndian.AppendUint16(body, max(c.id, 1))
	}
	if c.version == v5 {
		// An empty topic alias would be wrong here, a message expiry is not.
		body = append(body, 5, 0x02, 0, 0, 0, 9)
	}
	return appendFrame(nil, typePublish|qos<<1, append(body, d.payload...))
}

// every calls wrong for one delivery of n, and sends the others as they are.
func every(n int, wrong func(f *fake, to *fakeClient, frame []byte)) func(*fake, *fakeClient, []byte) {
	return func(f *fake, to *fakeClient, frame []byte) {
		if f.deliveries%n != 0 {
			to.Write(frame)
			return
		}
		f.faults++
		wrong(f, to, frame)
	}
}

func drop(*fake, *fakeClient, []byte) {}

func double(_ *fake, to *fakeClient, frame []byte) {
	to.Write(frame)
	frame[0] |= 0x08
	to.Write(frame)
}

// damage spoils the last byte of the payload.
func damage(_ *fake, to *fakeClient, frame []byte) {
	frame[len(frame)-1] ^= 1
	to.Write(frame)
}

// misroute spoils the last byte of the topic.
func misroute(_ *fake, to *fakeClient, frame []byte) {
	frame[bytes.Index(frame, []byte("bench/"))+6] ^= 1
	to.Write(frame)
}

// swap holds one delivery of n back until the client's next has gone out.
func swap(n int) func(*fake, *fakeClient, []byte) {
	return func(f *fake, to *fakeClient, frame []byte) {
		if to.held == nil && f.deliveries%n == 0 {
			to.held = frame
			return
		}
		to.Write(frame)
		if to.held != nil {
			f.faults++
			to.Write(to.held)
			to.held = nil
		}
	}
}

// holding counts the deliveries that swap has not let go.
func (f *fake) holding() (n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, cs := range f.subs {
		for _, c := range cs {
			if c.held != nil {
				n++
			}
		}
	}
	return n
}

// heard returns the stamps of all messages, as they came.
func (f *fake) heard() []stamp {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.stamps)
}

// told returns the policies that were published.
func (f *fake) told() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.policies)
}

func (f *fake) injected() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults
}
