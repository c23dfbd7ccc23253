package bench

import (
	"fmt"
	"math/bits"
	"net/netip"
	"time"
)

// A load is a running traffic scenario.
//
// It keeps to the closed loop's rule: a publisher sends while fewer deliveries
// than window x fan-out are owed to its subscribers and, at QoS 1 and 2, fewer
// than window of its messages are unacknowledged.
type load struct {
	Load
	*loop
	pubs  []*publisher
	subs  []*subscriber
	tally Tally

	hungry  []*publisher // their window may have opened since they last sent
	sending bool
	end     int64    // of the part that runs now
	due     schedule // of the open loop
	lag     *latency
}

// A publisher sends to one topic.
type publisher struct {
	*conn
	number  uint32
	topic   string
	subs    []*subscriber
	message template
	seq     uint64 // of the next message
	owed    int    // deliveries that the window waits for
	unacked int    // messages that the window waits for
	ids     idSet
	moved   int64 // when it last sent, or had an acknowledgement or delivery
	hungry  bool  // is in load.hungry
}

// A subscriber holds one filter, the topic of one publisher.
type subscriber struct {
	*conn
	from  *publisher
	track track
}

func newLoad(order Load, l *loop) *load {
	ld := &load{Load: order, loop: l, lag: newLatency()}
	l.handle = ld.packet
	sc := order.Scenario
	pad := padding(sc.Payload)
	for i := range sc.Publishers {
		p := &publisher{number: uint32(i), topic: fmt.Sprintf("bench/%d", i)}
		p.conn = &conn{version: order.Version, name: fmt.Sprintf("bench-p%d", i), pub: p}
		p.message = newTemplate(order.Version, p.topic, sc.QoS, false, len(pad))
		ld.pubs = append(ld.pubs, p)
		for range sc.FanOut {
			s := &subscriber{from: p}
			s.conn = &conn{
				version: order.Version, name: fmt.Sprintf("bench-s%d", len(ld.subs)),
				filter: p.topic, qos: sc.QoS, durable: sc.Durable, sub: s,
			}
			p.subs = append(p.subs, s)
			ld.subs = append(ld.subs, s)
		}
	}
	if order.Rate > 0 {
		ld.due = schedule{every: time.Duration(float64(time.Second) / order.Rate)}
	}
	return ld
}

// connect sets everybody up: subscribers first, or the first messages would
// find nobody.
func (ld *load) connect(to netip.AddrPort) error {
	var subs, pubs []*conn
	for _, s := range ld.subs {
		subs = append(subs, s.conn)
	}
	for _, p := range ld.pubs {
		pubs = append(pubs, p.conn)
	}
	if err := ld.open(subs, to, ld.Setup); err != nil {
		return err
	}
	return ld.open(pubs, to, ld.Setup)
}

// run keeps the load up for d.
func (ld *load) run(d time.Duration) error {
	ld.end = ld.now() + int64(d)
	stallCheck := ld.now()
	ld.sending = true
	ld.due.next = ld.now()
	for _, p := range ld.pubs {
		ld.feed(p)
	}
	for now := ld.now(); now < ld.end; now = ld.now() {
		if err := ld.turn(ld.wait(now), ld.send); err != nil {
			return err
		}
		if now-stallCheck > int64(ld.Stall)/16 {
			stallCheck = now
			ld.writeOff(now)
		}
	}
	return nil
}

// drain sends no more and returns when all is accounted for and no more comes,
// or nothing at all has come for the drain time: only then is something missing
// lost and not merely late.
func (ld *load) drain() error {
	const quiet = 100 * time.Millisecond // what came twice may come late
	ld.sending = false
	before, since := ld.reads, ld.now()
	for {
		if err := ld.turn(turnWait, ld.send); err != nil {
			return err
		}
		now := ld.now()
		if ld.reads != before {
			before, since = ld.reads, now
		}
		patience := int64(ld.Drain)
		if t := ld.count(); t.Undelivered == 0 && t.Unacked == 0 {
			patience = int64(quiet)
		}
		if now-since > patience {
			return nil
		}
	}
}

// wait is how long the next turn may sleep. An open loop does not sleep at all
// when its next message is near: epoll counts in milliseconds.
func (ld *load) wait(now int64) time.Duration {
	if ld.Rate == 0 {
		return turnWait
	}
	if left := time.Duration(ld.due.next - now); left > 2*time.Millisecond {
		return min(left-time.Millisecond, turnWait)
	}
	return 0
}

// send is the thinking of each turn: everybody who may sends what he may.
func (ld *load) send() error {
	switch {
	case !ld.sending:
	case ld.Rate > 0:
		ld.sendDue()
	default:
		ld.sendHungry()
	}
	return nil
}

func (ld *load) sendHungry() {
	now := ld.now()
	kept := ld.hungry[:0]
	for _, p := range ld.hungry {
		if p.blocked {
			kept = append(kept, p)
			continue
		}
		p.hungry = false
		for ld.mayMore(p, ld.Window) {
			ld.publish(p, now)
		}
	}
	ld.hungry = kept
}

// openLoopSlack is how many windows an open loop may have outstanding: it is
// there to bound memory, and a broker that needs it is behind for good.
const openLoopSlack = 16

// sendDue sends what the schedule says. A message that has to wait keeps the
// time at which it was due: that wait is part of its latency.
func (ld *load) sendDue() {
	now := min(ld.now(), ld.end-1)
	for ld.due.next <= now {
		p := ld.pubs[ld.due.count%len(ld.pubs)]
		if p.blocked || !ld.mayMore(p, ld.Window*openLoopSlack) {
			return
		}
		ld.publish(p, ld.due.next)
		ld.due.count++
		ld.due.next += int64(ld.due.every)
	}
}

// A schedule says when the messages of an open loop are due.
type schedule struct {
	every time.Duration
	next  int64
	count int
}

// mayMore says whether p may send one more.
func (ld *load) mayMore(p *publisher, window int) bool {
	if p.owed >= window*len(p.subs) {
		return false
	}
	return ld.Scenario.QoS == 0 || p.unacked < min(window, p.window)
}

// publish sends p's next message, stamped with at.
func (ld *load) publish(p *publisher, at int64) {
	if p.owed == 0 && p.unacked == 0 {
		p.moved = ld.now()
	}
	var id uint16
	if ld.Scenario.QoS > 0 {
		id = p.ids.take()
		p.unacked++
	}
	p.out = p.message.append(p.out, id, stamp{at: at, seq: p.seq, pub: p.number})
	p.seq++
	p.owed += len(p.subs)
	ld.touch(p.conn)
}

// feed notes that p may have room for more.
func (ld *load) feed(p *publisher) {
	p.moved = ld.at
	if !p.hungry {
		p.hungry = true
		ld.hungry = append(ld.hungry, p)
	}
}

// writeOff gives up what has made no progress. What is written off and comes
// after all is still counted as delivered or acknowledged.
func (ld *load) writeOff(now int64) {
	for _, p := range ld.pubs {
		if (p.owed > 0 || p.unacked > 0) && now-p.moved > int64(ld.Stall) {
			p.owed, p.unacked = 0, 0
			ld.tally.Stalls++
			ld.feed(p)
		}
	}
}

// packet handles one packet from the broker.
func (ld *load) packet(c *conn, first byte, body []byte) error {
	if !c.ready {
		return ld.greet(c, first, body)
	}
	switch kind := first & 0xF0; kind {
	case typePublish:
		if c.sub == nil {
			ld.tally.Strays++
			return nil
		}
		return ld.delivered(c.sub, first, body)
	case typePubrel:
		id, _, err := parseAck(body)
		c.out = appendAck(c.out, typePubcomp, id)
		ld.touch(c)
		return err
	case typePuback, typePubrec, typePubcomp:
		if c.pub == nil {
			return fmt.Errorf("%w: type %d to a client that publishes nothing", errFrame, first>>4)
		}
		return ld.acked(c.pub, kind, body)
	}
	return fmt.Errorf("%w: packet type %d", errFrame, first>>4)
}

// delivered enters a delivery, and acknowledges it.
func (ld *load) delivered(s *subscriber, first byte, body []byte) error {
	d, err := parsePublish(first, body, s.version)
	if err != nil {
		return err
	}
	if d.qos > 0 {
		ack := byte(typePuback)
		if d.qos == 2 {
			ack = typePubrec
		}
		s.out = appendAck(s.out, ack, d.id)
		ld.touch(s.conn)
	}
	p := s.from
	if string(d.topic) != p.topic {
		ld.tally.Strays++
		return nil
	}
	sent := p.message.frame[p.message.stampAt:]
	if len(d.payload) != len(sent) || string(d.payload[stampSize:]) != string(sent[stampSize:]) {
		ld.tally.Corrupt++
		return nil
	}
	st := readStamp(d.payload)
	if st.pub != p.number || st.seq >= p.seq {
		ld.tally.Corrupt++
		return nil
	}
	switch s.track.record(st.seq) {
	case again:
		ld.tally.Duplicates++
		return nil
	case late:
		ld.tally.Inversions++
	}
	ld.tally.Delivered++
	ld.lag.record(ld.at - st.at)
	p.owed = max(p.owed-1, 0)
	ld.feed(p)
	return nil
}

// acked enters an acknowledgement of one of p's messages.
func (ld *load) acked(p *publisher, kind byte, body []byte) error {
	id, reason, err := parseAck(body)
	if err != nil {
		return err
	}
	if kind == typePubrec && reason < 0x80 {
		p.out = appendAck(p.out, typePubrel|0x02, id)
		ld.touch(p.conn)
		return nil
	}
	if !p.ids.put(id) {
		return fmt.Errorf("%w: packet id %d acknowledged, which is not in flight", errFrame, id)
	}
	if reason >= 0x80 {
		ld.tally.Refused++
	} else {
		ld.tally.Acked++
	}
	p.unacked = max(p.unacked-1, 0)
	ld.feed(p)
	return nil
}

// count completes the tally.
func (ld *load) count() Tally {
	t := ld.tally
	for _, p := range ld.pubs {
		t.Sent += p.seq
		t.Unacked += uint64(p.ids.len())
		for _, s := range p.subs {
			t.Undelivered += s.track.missing(p.seq)
		}
	}
	return t
}

// An idSet is the packet ids of a publisher that are in flight.
type idSet struct {
	used [1024]uint64
	last uint16
}

// take returns an id that is not in flight. There is always one: a window is
// far below 65,535, and what was written off is a few windows at most.
func (s *idSet) take() uint16 {
	for {
		s.last++
		if w, bit := &s.used[s.last>>6], uint64(1)<<(s.last&63); s.last != 0 && *w&bit == 0 {
			*w |= bit
			return s.last
		}
	}
}

// put ends the flight of id, and says whether it was in flight.
func (s *idSet) put(id uint16) bool {
	w, bit := &s.used[id>>6], uint64(1)<<(id&63)
	was := *w&bit != 0
	*w &^= bit
	return was
}

func (s *idSet) len() int {
	n := 0
	for _, w := range s.used {
		n += bits.OnesCount64(w)
	}
	return n
}
