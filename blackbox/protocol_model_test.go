package blackbox

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/internal/effort"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A protocolModel is what MQTT says a broker does, for a few clients that act one after
// the other: it foretells each packet that each of them gets, and its order. What it
// leaves out is what several things at once would make of it.
type protocolModel struct {
	t        *testing.T
	rng      *rand.Rand
	addr     string
	base     string // what topics and client ids begin with
	people   []*modelClient
	retained map[string]message
	illegal  []malformation // those that end a connection
	witness  *mq.Client     // gets all there is
	steps    []string       // what was done, told when it fails
	payloads int
}

// A message is what is published.
type message struct {
	topic, payload string
	qos            byte
	retain         bool
	from           string // client id, of what is retained
}

// A modelClient is a client id, its session, and its connection if it has one.
type modelClient struct {
	id      string
	c       *mq.Client
	v       byte
	exists  bool // the session
	durable bool // it outlives its connection
	subs    map[string]modelSub
	owed    []*owed
	window  int             // Receive Maximum
	taken   map[uint16]bool // packet ids of QoS 2 publishes before PUBREL
	will    *message
}

type modelSub struct {
	qos     byte
	noLocal bool
	id      uint32
}

// owed is a delivery of QoS 1 or 2 that is not complete.
type owed struct {
	message
	ids    []uint32
	packet uint16
	state  deliveryState
}

func (o *owed) String() string {
	return fmt.Sprintf("%q at QoS %d id=%d %s", o.payload, o.qos, o.packet, [...]string{"unsent", "sent", "released"}[o.state])
}

type deliveryState byte

const (
	unsent deliveryState = iota
	sent
	released // PUBREC has come, and PUBREL gone out
)

var modelTopics = []string{"a", "a/b", "a/c", "b"}

// Packets legal and illegal, of several clients of all versions, one after the other and
// drawn by a seed: each client gets exactly what a simple model of the protocol says,
// whether sessions are there, each acknowledgement and code, each delivery with its
// flags, identifiers and order, and nothing else.
//
// MQTT 5: 3.1.2-4, 3.1.2-5, 3.1.2-6, 3.2.2-2, 3.2.2-3, 3.3.1-1, 3.3.1-8, 3.3.1-12, 3.3.4-2, 3.3.4-4, 3.3.4-9, 4.3.3-10, 4.4.0-1, 4.5.0-1, 4.6.0-5.
// MQTT 3.1.1: 3.1.2-4, 3.1.2-6, 3.2.2-2, 3.2.2-3, 3.3.1-1, 3.3.1-8, 3.3.1-9, 4.3.3-2, 4.4.0-1, 4.5.0-1, 4.6.0-6.
func TestProtocolModel(t *testing.T) {
	t.Parallel()
	s := serve(t, "--allow-anonymous")
	illegal := slices.DeleteFunc(malformations(t), func(m malformation) bool { return m.file == "connect" })
	effort.Seeds(t, func(t *testing.T, seed uint64) {
		m := &protocolModel{
			t: t, rng: rand.New(rand.NewPCG(seed, 65)), addr: s.ready.MQTT, base: fmt.Sprint("model", seed, "."),
			retained: map[string]message{}, illegal: illegal,
		}
		m.witness = mq.Open(t, m.addr, v5, clean(m.base+"witness"))
		m.witness.Subscribe(m.base+"a/#", 0)
		m.witness.Subscribe(m.base+"b", 0)
		for i := range 4 {
			m.people = append(m.people, &modelClient{id: fmt.Sprint(m.base, i)})
		}
		defer func() {
			if t.Failed() {
				t.Logf("what was done:\n%s", strings.Join(m.steps, "\n"))
			}
		}()
		for range 80 {
			m.step()
		}
		m.end()
	})
}

func (m *protocolModel) note(p *modelClient, format string, args ...any) {
	m.steps = append(m.steps, fmt.Sprintf("%s (%d): ", p.id, p.v)+fmt.Sprintf(format, args...))
}

// step has one client do something.
func (m *protocolModel) step() {
	m.t.Helper()
	p := m.people[m.rng.IntN(len(m.people))]
	if p.c == nil || m.rng.IntN(12) == 0 {
		m.connect(p)
		return
	}
	switch m.rng.IntN(14) {
	case 0, 1, 2:
		m.subscribe(p)
	case 3:
		m.unsubscribe(p)
	case 4, 5, 6:
		m.publish(p, byte(m.rng.IntN(2)))
	case 7, 8:
		m.publish2(p)
	case 9, 10, 11:
		m.acknowledge(p)
	case 12:
		m.leave(p)
	default:
		m.breakRules(p)
	}
}

// connect connects a client: perhaps anew, with a will, or in the place of an older
// connection.
func (m *protocolModel) connect(p *modelClient) {
	m.t.Helper()
	older, olderWill := p.c, p.will
	p.v = []byte{v5, v5, v4, 3}[m.rng.IntN(4)]
	connect := mq.Connect{ClientID: p.id, Clean: m.rng.IntN(3) == 0}
	p.window, p.will = 65_535, nil
	keeps := !connect.Clean
	if p.v == v5 {
		if keeps = m.rng.IntN(3) > 0; keeps {
			connect.Properties = append(connect.Properties, mq.Number(mq.PropSessionExpiry, 1000))
		}
		if m.rng.IntN(2) == 0 {
			p.window = max(p.underWay(), 1+m.rng.IntN(4))
			connect.Properties = append(connect.Properties, mq.Number(mq.PropReceiveMaximum, uint32(p.window)))
		}
	}
	if m.rng.IntN(2) == 0 {
		p.will = &message{topic: m.topic(), payload: m.payload(), qos: byte(m.rng.IntN(3)), retain: m.rng.IntN(4) == 0}
		connect.Will = &mq.Will{Topic: p.will.topic, Payload: []byte(p.will.payload), QoS: p.will.qos, Retain: p.will.retain}
	}
	m.note(p, "connect clean=%t keeps=%t window=%d will=%v, in the place of another: %t", connect.Clean, keeps, p.window, p.will, older != nil)
	// A session that ends with its connection is gone when that is taken over.
	present := p.exists && !connect.Clean && (older == nil || p.durable)
	p.c = mq.Dial(m.t, m.addr, p.v)
	ack := p.c.Connect(connect)
	if want := present && p.v > 3; ack.SessionPresent != want {
		m.t.Fatalf("%s: got %v, want session=%t", p.id, ack, want)
	}
	if older != nil {
		older.ClosedWith(0x8E)
	}
	if !present {
		p.subs, p.owed, p.taken = map[string]modelSub{}, nil, map[uint16]bool{}
	}
	p.exists, p.durable = true, keeps
	for _, o := range p.owed {
		switch o.state {
		case sent:
			m.receive(p, o, true)
		case released:
			p.c.ExpectID(mq.PUBREL, o.packet)
		}
	}
	m.pump(p)
	if olderWill != nil && older != nil {
		m.deliver(p.id, *olderWill, p)
	}
}

// underWay is how many deliveries count against the window.
func (p *modelClient) underWay() (n int) {
	for _, o := range p.owed {
		if o.state != unsent {
			n++
		}
	}
	return n
}

// waits says whether something waits for room in the window: what else is to come then
// would depend on more than the model knows.
func (p *modelClient) waits() bool { return p.underWay() < len(p.owed) }

// pump receives what the window has room for.
func (m *protocolModel) pump(p *modelClient) {
	m.t.Helper()
	for _, o := range p.owed {
		if p.c != nil && o.state == unsent && p.underWay() < p.window {
			m.receive(p, o, false)
		}
	}
}

// receive takes the next packet, which must be this delivery.
func (m *protocolModel) receive(p *modelClient, o *owed, again bool) {
	m.t.Helper()
	got := p.c.Await(mq.PUBLISH, 0)
	m.judge(p, got, o, again)
	if !again {
		for _, other := range p.owed {
			if other != o && other.state != unsent && other.packet == got.ID && got.QoS() > 0 {
				m.t.Fatalf("%s: got %v, and its id is that of %q", p.id, got, other.payload)
			}
		}
		o.packet, o.state = got.ID, sent
	}
}

// judge holds a delivery against what it should be.
func (m *protocolModel) judge(p *modelClient, got *mq.Packet, o *owed, again bool) {
	m.t.Helper()
	ids := got.Properties.Numbers(mq.PropSubscriptionID)
	slices.Sort(ids)
	wantIDs := o.ids
	if p.v < v5 {
		wantIDs = nil
	}
	if got.Topic != o.topic || string(got.Payload) != o.payload || got.QoS() != o.qos || got.Dup() != again ||
		got.Retain() != o.retain || !slices.Equal(ids, wantIDs) || again && got.ID != o.packet {
		m.t.Fatalf("%s: got %v with identifiers %v, want %+v, again: %t; it is owed %v", p.id, got, ids, *o, again, p.owed)
	}
}

func (m *protocolModel) topic() string { return m.base + modelTopics[m.rng.IntN(len(modelTopics))] }

func (m *protocolModel) payload() string {
	m.payloads++
	return strconv.Itoa(m.payloads)
}

// deliver has each session get what it should of a message, after its publisher has been
// answered; from is the publisher's client id. Who is between two connections at that
// moment is not sent what has QoS 0.
func (m *protocolModel) deliver(from string, msg message, between ...*modelClient) {
	m.t.Helper()
	if msg.retain {
		msg.from = from
		m.retained[msg.topic] = msg
		if msg.payload == "" {
			delete(m.retained, msg.topic)
		}
	}
	// Wills and QoS 0 are not answered, and the end of a connection is told before it is
	// ordered: when the witness has it, all is done that the message brings about.
	if got := m.witness.Expect(mq.PUBLISH); got.Topic != msg.topic || string(got.Payload) != msg.payload || got.Retain() {
		m.t.Fatalf("the witness got %v, want %+v", got, msg)
	}
	for _, p := range m.people {
		o := p.copyOf(from, msg)
		switch {
		case o == nil:
		case o.qos == 0 && p.c != nil && !slices.Contains(between, p):
			m.judge(p, p.c.Await(mq.PUBLISH, 0), o, false)
		case o.qos > 0:
			p.owed = append(p.owed, o)
			m.pump(p)
		}
	}
}

// copyOf is what a session is to get of a message; nil for nothing.
func (p *modelClient) copyOf(from string, msg message) *owed {
	if !p.exists {
		return nil
	}
	o := &owed{message: message{topic: msg.topic, payload: msg.payload}}
	matches := false
	for filter, sub := range p.subs {
		if !modelMatches(filter, msg.topic) || sub.noLocal && p.id == from {
			continue
		}
		matches = true
		o.qos = max(o.qos, min(sub.qos, msg.qos))
		if sub.id > 0 {
			o.ids = append(o.ids, sub.id)
		}
	}
	if !matches {
		return nil
	}
	slices.Sort(o.ids)
	return o
}

// modelMatches is the matching of 4.7, for filters and names that are valid.
func modelMatches(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(n) || level != "+" && level != n[i]:
			return false
		}
	}
	return len(f) == len(n) || len(f) == len(n)+1 && f[len(f)-1] == "#"
}

// settled says whether a message of QoS 0 would come at once to whoever gets it.
func (m *protocolModel) settled(from string, msg message) bool {
	return !slices.ContainsFunc(m.people, func(p *modelClient) bool { return p.waits() && p.copyOf(from, msg) != nil })
}

// publish publishes with QoS 0 or 1.
func (m *protocolModel) publish(p *modelClient, qos byte) {
	m.t.Helper()
	msg := message{topic: m.topic(), payload: m.payload(), qos: qos, retain: m.rng.IntN(4) == 0}
	if msg.retain && m.rng.IntN(3) == 0 {
		msg.payload = ""
	}
	if qos == 0 && !m.settled(p.id, msg) {
		return
	}
	m.note(p, "publish %+v", msg)
	id := p.c.ID()
	p.c.Send(mq.Publish{Topic: msg.topic, QoS: qos, ID: id, Retain: msg.retain, Payload: []byte(msg.payload), Dup: qos > 0 && m.rng.IntN(4) == 0})
	if qos == 1 {
		m.accepted(p.c.Await(mq.PUBACK, id))
	}
	m.deliver(p.id, msg)
}

func (m *protocolModel) accepted(ack *mq.Packet) {
	m.t.Helper()
	if ack.Code != 0 && ack.Code != 0x10 {
		m.t.Fatalf("got %v", ack)
	}
}

// publish2 goes a step in a QoS 2 publish: it begins, repeats, or releases one.
func (m *protocolModel) publish2(p *modelClient) {
	m.t.Helper()
	id := uint16(2001 + m.rng.IntN(3))
	if m.rng.IntN(2) == 0 {
		m.note(p, "release %d, known: %t", id, p.taken[id])
		p.c.Send(mq.Ack{Type: mq.PUBREL, ID: id})
		if comp := p.c.Await(mq.PUBCOMP, id); comp.Code != 0 {
			m.t.Fatalf("got %v", comp)
		}
		delete(p.taken, id)
		return
	}
	msg := message{topic: m.topic(), payload: m.payload(), qos: 2, retain: m.rng.IntN(6) == 0}
	m.note(p, "publish %d %+v, a repeat: %t", id, msg, p.taken[id])
	p.c.Send(mq.Publish{Topic: msg.topic, QoS: 2, ID: id, Retain: msg.retain, Dup: p.taken[id], Payload: []byte(msg.payload)})
	m.accepted(p.c.Await(mq.PUBREC, id))
	if !p.taken[id] {
		p.taken[id] = true
		m.deliver(p.id, msg)
	}
}

// subscribe subscribes to one filter, valid as a rule, and receives what is retained.
func (m *protocolModel) subscribe(p *modelClient) {
	m.t.Helper()
	filters := []string{"a", "a/b", "a/+", "a/#", "b/#", "a/+/#", "+", "a#", "a/#/b"} // the last three are none: their first level is more
	i := m.rng.IntN(len(filters))
	filter, valid := m.base+filters[i], i < len(filters)-3
	sub := modelSub{qos: byte(m.rng.IntN(3))}
	f := mq.Filter{Filter: filter, QoS: sub.qos}
	var props mq.Properties
	if p.v == v5 {
		f.RetainHandling = byte(m.rng.IntN(3))
		sub.noLocal = m.rng.IntN(2) == 0
		f.NoLocal = sub.noLocal
		if m.rng.IntN(2) == 0 {
			sub.id = uint32(1 + m.rng.IntN(300))
			props = mq.Properties{mq.Number(mq.PropSubscriptionID, sub.id)}
		}
	}
	var kept []*owed
	_, existed := p.subs[filter]
	for _, topic := range slices.Sorted(maps.Keys(m.retained)) {
		r := m.retained[topic]
		own := sub.noLocal && r.from == p.id
		if valid && modelMatches(filter, topic) && !own && (f.RetainHandling == 0 || f.RetainHandling == 1 && !existed) {
			o := &owed{message: message{topic: topic, payload: r.payload, qos: min(r.qos, sub.qos), retain: true}}
			if sub.id > 0 {
				o.ids = []uint32{sub.id}
			}
			kept = append(kept, o)
		}
	}
	if p.waits() || p.underWay()+len(kept) > p.window {
		return
	}
	m.note(p, "subscribe %+v %+v, existed: %t, of what is retained %d", f, sub, existed, len(kept))
	ack := p.c.TrySubscribe(props, f)
	want := sub.qos
	if !valid {
		want = map[bool]byte{true: 0x8F, false: 0x80}[p.v == v5]
	}
	if !slices.Equal(ack.Codes, []byte{want}) {
		m.t.Fatalf("%s: subscribe to %q: got %v, want %#02x", p.id, filter, ack, want)
	}
	if !valid {
		return
	}
	p.subs[filter] = sub
	for range kept {
		m.receiveKept(p, kept)
	}
}

// receiveKept receives one of what is retained, which may come in any order.
func (m *protocolModel) receiveKept(p *modelClient, kept []*owed) {
	m.t.Helper()
	got := p.c.Await(mq.PUBLISH, 0)
	i := slices.IndexFunc(kept, func(o *owed) bool { return o.topic == got.Topic && o.state == unsent })
	if i < 0 {
		m.t.Fatalf("%s: got %v, which is not retained or came already", p.id, got)
	}
	o := kept[i]
	m.judge(p, got, o, false)
	o.packet, o.state = got.ID, sent
	if o.qos > 0 {
		p.owed = append(p.owed, o)
	}
}

func (m *protocolModel) unsubscribe(p *modelClient) {
	m.t.Helper()
	if p.waits() {
		return
	}
	filter := m.base + []string{"a", "a/b", "a/+", "a/#", "b/#"}[m.rng.IntN(5)]
	_, existed := p.subs[filter]
	m.note(p, "unsubscribe %s, existed: %t", filter, existed)
	ack := p.c.Unsubscribe(filter)
	want := map[bool]byte{true: 0, false: 0x11}[existed]
	if p.v == v5 && !slices.Equal(ack.Codes, []byte{want}) {
		m.t.Fatalf("%s: unsubscribe from %q: got %v, want %#02x", p.id, filter, ack, want)
	}
	delete(p.subs, filter)
}

// acknowledge goes a step in one of the deliveries under way.
func (m *protocolModel) acknowledge(p *modelClient) {
	m.t.Helper()
	if p.underWay() == 0 {
		p.c.Quiet()
		return
	}
	i := m.rng.IntN(p.underWay())
	o := p.owed[i]
	code := byte(0)
	if p.v == v5 && m.rng.IntN(4) == 0 {
		code = 0x99
	}
	m.note(p, "acknowledge %q at QoS %d, state %d, code %#x", o.payload, o.qos, o.state, code)
	switch {
	case o.qos == 1:
		p.c.Send(mq.Ack{Type: mq.PUBACK, ID: o.packet, Code: code})
	case o.state == sent && code == 0:
		p.c.Send(mq.Ack{Type: mq.PUBREC, ID: o.packet})
		p.c.Await(mq.PUBREL, o.packet)
		o.state = released
		return
	case o.state == sent:
		p.c.Send(mq.Ack{Type: mq.PUBREC, ID: o.packet, Code: code})
	default:
		p.c.Send(mq.Ack{Type: mq.PUBCOMP, ID: o.packet})
	}
	p.owed = slices.Delete(p.owed, i, i+1)
	m.pump(p)
}

// leave ends a connection as a client does: by DISCONNECT, perhaps with the will, or by
// hanging up.
func (m *protocolModel) leave(p *modelClient) {
	m.t.Helper()
	switch m.rng.IntN(3) {
	case 0:
		m.note(p, "disconnect")
		p.c.Send(mq.Bye)
		p.will = nil
	case 1:
		if p.v == v5 {
			m.note(p, "disconnect with the will")
			p.c.Send(mq.Reason{Type: mq.DISCONNECT, Code: 4})
			break
		}
		fallthrough
	default:
		m.note(p, "hang up")
		if err := p.c.Net.(*net.TCPConn).CloseWrite(); err != nil {
			m.t.Fatal(err)
		}
	}
	if got := p.c.Closed(); len(got) > 0 {
		m.t.Fatalf("%s: got %v before the close, want nothing", p.id, got)
	}
	m.gone(p)
}

// gone is what the end of a connection means.
func (m *protocolModel) gone(p *modelClient) {
	m.t.Helper()
	p.c.Close()
	p.c, p.exists = nil, p.durable
	if !p.exists {
		p.subs, p.owed, p.taken = nil, nil, nil
	}
	if will := p.will; will != nil {
		p.will = nil
		m.deliver(p.id, *will)
	}
}

// breakRules sends what ends a connection, with the answer of its table; or an
// acknowledgement that the delivery does not have.
func (m *protocolModel) breakRules(p *modelClient) {
	m.t.Helper()
	v := max(p.v, v4)
	bad := m.illegal[m.rng.IntN(len(m.illegal))]
	want := bad.answers[v]
	code, isCode := strings.CutPrefix(want, "DISCONNECT ")
	ends := isCode && len(code) == 2 || want == "close" && v == v4
	if !ends || strings.Contains(bad.what, "where there was none") || p.v == 3 && strings.Contains(bad.what, "1010") {
		return
	}
	m.note(p, "%s: %s", bad.file, bad.what)
	p.c.TrySend(bad.encode(m.t, v))
	n, _ := strconv.ParseUint(code, 16, 8)
	p.c.ClosedWith(byte(n))
	m.gone(p)
}

// end completes all there is: who is away comes back, everything is acknowledged, and
// nothing is left over.
func (m *protocolModel) end() {
	m.t.Helper()
	for _, p := range m.people {
		if p.c == nil {
			m.connect(p)
		}
	}
	for _, p := range m.people {
		for len(p.owed) > 0 {
			m.acknowledge(p)
		}
	}
	for _, p := range m.people {
		p.c.Quiet()
		p.c.Disconnect()
		mq.Open(m.t, m.addr, v5, clean(p.id)).Disconnect()
	}
	c := mq.Open(m.t, m.addr, v5, clean(""))
	for topic := range m.retained {
		c.PublishMessage(mq.Publish{Topic: topic, QoS: 1, Retain: true})
	}
	c.Disconnect()
}
