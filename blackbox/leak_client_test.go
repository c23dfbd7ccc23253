package blackbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	law "github.com/bellwire/bellwire/internal/letter"
	mq "github.com/bellwire/bellwire/mqtttest"
)

// A leakClient is a client of a run, connected or not.
type leakClient struct {
	who, id string // who is empty for anonymous
	version byte
	durable bool
	group   string // of shared subscriptions: it has no others
	node    int
	conn    *mq.Conn // nil: it is not connected
	lazy    bool     // it acknowledges nothing at QoS 1 on this connection
	lastID  uint16
	since   int  // the act in which it connected
	anew    bool // its session has begun with this connection

	subs map[string]*leakSub // of its session
	past []*leakSub          // that it has ended

	waits    map[uint16]bool       // what it has published and is not acknowledged, and whether the policy let it
	answers  map[uint16]*mq.Packet // acknowledgements that somebody waits for
	known    map[uint16]bool       // deliveries at QoS 2 that are not complete, of its session
	here     map[*leakEvent]int    // what it was sent on this connection
	last     map[string]*leakEvent // of plain topics, on this connection
	shown    map[string][]string   // of resources, on this connection: what words it was sent last
	document map[string]string     // what it was sent last of them
	aliases  []string              // on this connection, from 1
	owed     map[*leakEvent]bool   // what waits for it, while it is away
	expected bool                  // it has just come back: what was owed must have come
}

// A leakSub is a subscription of a session.
type leakSub struct {
	filter    string
	called    string // what its client has named, if that was rewritten
	qos       byte
	from      int  // the act in which it was made
	until     int  // in which it was ended; 0: it is there
	uncertain bool // it may have ended: nothing is demanded for it
	nameless  bool // it is of somebody without a name
	revoked   bool // it was revoked, or a rule blocks its watcher: it is to be shown nothing more
	given     bool // the policy gave it when the session began
	deaf      bool // it has nothing that its own client publishes
	later     bool // it has not the state that there was when it began
}

func (s *leakSub) shared() bool { return strings.HasPrefix(s.filter, "$share/") }

// single says whether it is of one client.
func (s *leakSub) single() bool { return !s.shared() }

// plain is the filter without a group.
func (s *leakSub) plain() string {
	if s.shared() {
		return strings.SplitN(s.filter, "/", 3)[2]
	}
	return s.filter
}

// matches says whether what is sent on a topic may be for it: to somebody without a name no
// resource is but by its own.
func (s *leakSub) matches(topic string) bool {
	return law.Matches(s.plain(), topic) && (!s.nameless || s.named() || !isResource(topic))
}

// isResource says whether a topic is that of a resource that its owner shows.
func isResource(topic string) bool {
	kind, _, _ := strings.Cut(topic, "/")
	return slices.Contains(leakKinds[:2], kind)
}

// named says whether the subscription asks an owner: it names a resource.
func (s *leakSub) named() bool { return !strings.ContainsAny(s.filter, "+#") }

// populate connects everybody and has them subscribe.
func (r *leak) populate() {
	for i, who := range append(slices.Clone(leakPeople), "") {
		local, _, _ := strings.Cut(who, "@")
		if who == "" {
			local = "anybody"
		}
		add := func(name string, version byte, durable bool, group string) *leakClient {
			c := &leakClient{who: who, id: local + "-" + name, version: version, durable: durable, group: group, node: (len(r.clients) + i) % len(r.nodes)}
			r.clients = append(r.clients, c)
			return c
		}
		if who != "" {
			r.consoles[who] = add("console", v5, false, "")
		}
		add("clean", v5, false, "")
		add("durable", v5, true, "")
		add("old", v4, who != "", "")
		if i%2 == 0 {
			add("member", v5, false, "g")
		}
	}
	for i := range r.nodes {
		b := &leakClient{who: leakOperator, id: fmt.Sprint("barrier-", i, "-console"), version: v5, node: i}
		r.clients, r.barriers = append(r.clients, b), append(r.barriers, b)
	}
	for _, c := range r.clients {
		r.connect(c, false)
	}
	for _, c := range r.clients {
		if c.who != leakOperator {
			r.subscribeSome(c)
		}
	}
	for _, b := range r.barriers {
		r.subscribe(b, "barrier/+", 0)
	}
	r.settle()
}

// connect connects a client; who is connected takes itself over.
func (r *leak) connect(c *leakClient, discard bool) {
	r.t.Helper()
	old := c.conn
	m := mq.Connect{ClientID: c.id, Clean: discard || !c.durable, User: c.who}
	if c.who != "" {
		m.Password = []byte(leakToken(c.who))
	}
	if c.version == v5 {
		m.Clean = discard
		expiry := uint32(0)
		if c.durable {
			expiry = 60 * 24 * 3600
		}
		m.Properties = mq.Properties{mq.Number(mq.PropSessionExpiry, expiry)}
	}
	conn, ack, err := mq.DialConnect(r.nodes[c.node].ready.MQTT, c.version, m)
	if err != nil || ack.Code != 0 {
		r.fail("%s connects: %v %v", c.id, ack, err)
	}
	if old != nil {
		r.readToEnd(c) // judged as what came before
	}
	c.conn, c.since = conn, r.serial
	c.waits, c.answers, c.here, c.last, c.shown = map[uint16]bool{}, map[uint16]*mq.Packet{}, map[*leakEvent]int{}, map[string]*leakEvent{}, map[string][]string{}
	c.document, c.aliases = map[string]string{}, nil
	if c.anew = !ack.SessionPresent; c.anew {
		c.subs, c.past, c.known, c.owed = map[string]*leakSub{}, nil, map[uint16]bool{}, map[*leakEvent]bool{}
		r.give(c)
	}
	c.expected = ack.SessionPresent && old == nil
	c.lazy = c.durable && r.rnd.Chance(6)
	if c.lazy || old != nil {
		clear(c.owed)
	}
	r.tell("%s connects (discard %v, present %v, lazy %v), has %v", c.id, discard, ack.SessionPresent, c.lazy, c.filters())
	if c.group != "" {
		r.refuseGiven(c)
	}
}

// away notes that a client is not connected any more.
func (r *leak) away(c *leakClient) {
	c.conn.Close()
	c.conn = nil
	if !c.durable {
		c.subs, c.past = map[string]*leakSub{}, nil
	}
}

func (c *leakClient) id16() uint16 {
	for {
		c.lastID++
		if _, used := c.waits[c.lastID]; c.lastID != 0 && !used {
			return c.lastID
		}
	}
}

func (c *leakClient) write(r *leak, ms ...mq.Message) {
	r.t.Helper()
	if err := c.conn.Write(ms...); err != nil {
		r.fail("%s writes: %v", c.id, err)
	}
}

// read reads what a client is sent until the answer to its PINGREQ.
func (r *leak) read(c *leakClient) (any bool) {
	r.t.Helper()
	for {
		p, err := c.conn.Read(3 * patience)
		if err != nil {
			r.fail("%s reads: %v", c.id, err)
		}
		if p.Type == mq.PINGRESP {
			return any
		}
		any = true
		r.take(c, p)
	}
}

// readToEnd reads what a connection was sent before it was ended.
func (r *leak) readToEnd(c *leakClient) {
	for {
		p, err := c.conn.Read(3 * patience)
		if err != nil {
			return
		}
		if p.Type == mq.PUBLISH {
			r.judge(c, p)
		}
	}
}

// await reads until an acknowledgement comes.
func (r *leak) await(c *leakClient, id uint16) *mq.Packet {
	r.t.Helper()
	c.answers[id] = nil
	defer delete(c.answers, id)
	for c.answers[id] == nil {
		p, err := c.conn.Read(3 * patience)
		if err != nil {
			r.fail("%s waits for an acknowledgement: %v", c.id, err)
		}
		r.take(c, p)
	}
	return c.answers[id]
}

// take does with a packet what a client does.
func (r *leak) take(c *leakClient, p *mq.Packet) {
	switch p.Type {
	case mq.PUBLISH:
		if p.QoS() == 2 && c.known[p.ID] {
			c.write(r, mq.Ack{Type: mq.PUBREC, ID: p.ID}) // it has come before
			return
		}
		r.judge(c, p)
		switch {
		case p.QoS() == 2:
			c.known[p.ID] = true
			c.write(r, mq.Ack{Type: mq.PUBREC, ID: p.ID})
		case p.QoS() == 1 && !c.lazy:
			c.write(r, mq.Ack{Type: mq.PUBACK, ID: p.ID})
		}
	case mq.PUBREL:
		delete(c.known, p.ID)
		c.write(r, mq.Ack{Type: mq.PUBCOMP, ID: p.ID})
	case mq.PUBREC:
		r.acknowledged(c, p)
		if p.Code < 0x80 {
			c.write(r, mq.Ack{Type: mq.PUBREL, ID: p.ID})
		}
	case mq.PUBACK:
		r.acknowledged(c, p)
	case mq.SUBACK, mq.UNSUBACK:
		if _, waits := c.answers[p.ID]; waits {
			c.answers[p.ID] = p
		}
	case mq.PUBCOMP:
		delete(c.waits, p.ID)
	default:
		r.fail("%s is sent %v", c.id, p)
	}
}

// acknowledged compares what became of a publish with what the policy says.
func (r *leak) acknowledged(c *leakClient, p *mq.Packet) {
	if _, waits := c.answers[p.ID]; waits {
		c.answers[p.ID] = p
		return
	}
	may, waits := c.waits[p.ID]
	if !waits {
		r.fail("%s is sent %v for nothing", c.id, p)
	}
	if p.Type == mq.PUBACK || p.Code >= 0x80 {
		delete(c.waits, p.ID)
	}
	if refused := p.Code >= 0x80; c.version == v5 && refused == may {
		r.fail("%s publishes: %v, though the policy says %v", c.id, p, may)
	}
}

// subscribe subscribes, and notes what was granted.
func (r *leak) subscribe(c *leakClient, name string, qos byte) (code byte) {
	r.t.Helper()
	filter, ok := r.meant(c, "subscribe", name)
	if !ok {
		return r.refusedName(c, name)
	}
	id := c.id16()
	sub := &leakSub{filter: filter, qos: qos, from: r.serial, nameless: c.who == ""}
	if name != filter {
		sub.called = name
		r.sorts["rewritten subscriptions"]++
	}
	old := c.subs[filter]
	c.subs[filter] = sub // what comes before SUBACK is for it
	lifted := r.askAgain(c, sub)
	c.write(r, mq.Subscribe{ID: id, Filters: []mq.Filter{{Filter: name, QoS: qos}}})
	ack := r.await(c, id)
	r.tell("%s subscribes to %s (%s) at %d: %#02x %s", c.id, name, filter, qos, ack.Codes[0], ack.Properties.Text(mq.PropReasonString))
	if code = ack.Codes[0]; code >= 0x80 {
		delete(c.subs, filter)
		if old != nil {
			old.uncertain = true
			c.subs[filter] = old
		}
		maps.Copy(r.cuts, lifted)
		r.refusedRightly(c, sub, code)
		return code
	}
	r.doubt(c, sub)
	return code
}

// refusedRightly demands that what is permitted right now is granted.
func (r *leak) refusedRightly(c *leakClient, s *leakSub, code byte) {
	if code == 0x97 {
		return
	}
	if !s.named() || s.shared() {
		if r.mustGrant(c, s.plain()) {
			r.fail("%s is refused %s, the whole of which it may have: %#02x", c.id, s.filter, code)
		}
		return
	}
	topic := s.filter
	if h := r.holdingOf(topic); h == nil {
		if r.may(r.now(), c, topic) {
			r.fail("%s is refused %s, which it may have: %#02x", c.id, topic, code)
		}
	} else if h.kind != "im" && !r.cut(c.who, c.id, "subscribe", topic) {
		if v := r.verdict(h, c.who, "subscribe"); v.Handling == "allow" && v.Named && !(c.who == "" && r.watchesAnother(c, topic)) {
			r.fail("%s is refused %s, which its owner allows: %#02x", c.id, topic, code)
		}
	}
}

// watchesAnother says whether a client watches another resource by its name, as who has no name
// may only one at a time.
func (r *leak) watchesAnother(c *leakClient, topic string) bool {
	return slices.ContainsFunc(c.filters(), func(f string) bool { return f != topic && r.holdingOf(f) != nil })
}

// doubt notes what may end a subscription without a word.
func (r *leak) doubt(c *leakClient, s *leakSub) {
	for _, topic := range r.topicsOf(c) {
		if s.matches(topic) && r.now().policy.Ends(c.asks(), topic) {
			s.uncertain = true
		}
	}
	if h := r.holdingOf(s.filter); h != nil && h.pending[c.who] > fourDays {
		s.uncertain = true
	}
}

// filters are a client's, in order: maps have none.
func (c *leakClient) filters() []string { return slices.Sorted(maps.Keys(c.subs)) }
