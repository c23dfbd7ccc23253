package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A load is a running traffic scenario.
type load struct {
	Load
	*loop
	sources []*source
	windows []*window
	subs    []*conn // connected first, or the first messages would find nobody
	pubs    []*conn // some may be subscribers too
	absent  []*conn // whose sessions are there, and nobody with them
	tally   Tally

	hungry  []*window // may have room for more since they last sent
	sending bool
	end     int64    // of the part that runs now
	due     schedule // of the open loop
	random  *rand.Rand
	lag     *latency // from publish to delivery
	commit  *latency // from publish to acknowledgement
}

func newLoad(order Load, l *loop) *load {
	ld := &load{Load: order, loop: l, lag: newLatency(), commit: newLatency(), random: rand.New(rand.NewPCG(1, 2))}
	l.handle = ld.packet
	ld.build()
	if order.Rate > 0 {
		ld.due = schedule{every: time.Duration(float64(time.Second) / order.Rate)}
	}
	return ld
}

// connect sets everybody up.
func (ld *load) connect() error {
	if ld.Scenario.Permissions {
		return ld.introduce()
	}
	if err := ld.open(slices.Concat(ld.absent, ld.subs), ld.Setup); err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(ld.pubs), func(c *conn) bool { return c.ready })
	if err := ld.open(others, ld.Setup); err != nil {
		return err
	}
	for _, c := range ld.pubs {
		c.pub.window.receive = min(c.pub.window.receive, c.window)
	}
	return nil
}

// run keeps the load up for d, or until it is spent.
func (ld *load) run(d time.Duration) error {
	ld.end = ld.now() + int64(d)
	stallCheck := ld.now()
	ld.sending = true
	ld.due.next = ld.now()
	for _, w := range ld.windows {
		ld.feed(w)
	}
	for now := ld.now(); now < ld.end && !ld.spent(); now = ld.now() {
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

// allow lets each publisher of a burst send n more.
func (ld *load) allow(n int) {
	if ld.Scenario.Burst == 0 {
		return
	}
	for _, w := range ld.windows {
		w.left = n * len(w.sources)
	}
}

func (ld *load) spent() bool {
	for _, w := range ld.windows {
		if !w.spent() {
			return false
		}
	}
	return true
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
	for _, w := range ld.hungry {
		w.hungry = false
		for w.room(1) {
			src := w.pick(ld.random)
			if src.from.blocked {
				w.hungry = true // and so it stays in the list
				kept = append(kept, w)
				break
			}
			ld.publish(src, now)
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
		w := ld.windows[ld.due.count%len(ld.windows)]
		src := w.pick(ld.random)
		if src.from.blocked || !w.room(openLoopSlack) {
			return
		}
		ld.publish(src, ld.due.next)
		ld.due.count++
		ld.due.next += int64(ld.due.every)
	}
}

// publish sends the next message of src, stamped with at.
func (ld *load) publish(src *source, at int64) {
	w, c := src.window, src.from
	if w.idle() {
		w.moved = ld.now()
	}
	var id uint16
	if ld.Scenario.QoS > 0 {
		id = c.pub.ids.take()
		c.pub.sent[id] = at
		w.unacked++
	}
	c.out = src.message.append(c.out, id, stamp{at: at, seq: src.seq, source: src.number})
	src.seq++
	w.owed += len(src.tracks)
	w.sent()
	ld.touch(c)
}

// feed notes that w has moved and may have room for more.
func (ld *load) feed(w *window) {
	w.moved = ld.at
	if !w.hungry {
		w.hungry = true
		ld.hungry = append(ld.hungry, w)
	}
}

// writeOff gives up what has made no progress. What is written off and comes
// after all is still counted as delivered or acknowledged.
func (ld *load) writeOff(now int64) {
	for _, w := range ld.windows {
		if !w.idle() && now-w.moved > int64(ld.Stall) {
			w.owed, w.unacked = 0, 0
			ld.tally.Stalls++
			ld.feed(w)
		}
	}
}

// packet handles one packet from the broker.
func (ld *load) packet(c *conn, first byte, body []byte) error {
	kind := first & 0xF0
	if kind == typePublish { // may come before SUBACK
		if c.sub == nil {
			ld.tally.Strays++
			return nil
		}
		return ld.delivered(c, first, body)
	}
	if !c.ready {
		return ld.greet(c, first, body)
	}
	switch kind {
	case typePubrel:
		id, _, err := parseAck(body)
		c.out = appendAck(c.out, typePubcomp, id)
		ld.touch(c)
		return err
	case typePuback, typePubrec, typePubcomp:
		if c.pub == nil {
			return fmt.Errorf("%w: type %d to a client that publishes nothing", errFrame, first>>4)
		}
		return ld.acked(c, kind, body)
	}
	return fmt.Errorf("%w: packet type %d", errFrame, first>>4)
}

// delivered enters a delivery, and acknowledges it.
func (ld *load) delivered(c *conn, first byte, body []byte) error {
	d, err := parsePublish(first, body, c.version)
	if err != nil {
		return err
	}
	if d.qos > 0 {
		ack := byte(typePuback)
		if d.qos == 2 {
			ack = typePubrec
		}
		c.out = appendAck(c.out, ack, d.id)
		ld.touch(c)
	}
	if c.barred && saysNothing(d.payload) {
		return nil
	}
	st, ok := ld.stampOf(d.payload)
	if !ok {
		ld.tally.Corrupt++
		return nil
	}
	src := ld.sources[st.source]
	track := c.sub.track(st.source)
	if track == nil || string(d.topic) != src.topic {
		ld.tally.Strays++
		return nil
	}
	switch track.record(st.seq) {
	case again:
		ld.tally.Duplicates++
		return nil
	case late:
		ld.tally.Inversions++
	}
	if st.seq == 0 && ld.Scenario.Permissions {
		ld.tally.States++
		return nil
	}
	ld.tally.Delivered++
	ld.lag.record(ld.at - st.at)
	src.window.owed = max(src.window.owed-1, 0)
	ld.feed(src.window)
	return nil
}

// stampOf finds the stamp of one of the messages that were sent; ok is false if
// the payload is not that of such a message.
func (ld *load) stampOf(payload []byte) (st stamp, ok bool) {
	at := 0
	if ld.Scenario.Permissions {
		st, at, ok = stampIn(payload)
	} else {
		sent := ld.sources[0].message.payload()
		if ok = len(payload) == len(sent) && string(payload[stampSize:]) == string(sent[stampSize:]); ok {
			st = readStamp(payload)
		}
	}
	if !ok || int(st.source) >= len(ld.sources) {
		return st, false
	}
	src := ld.sources[st.source]
	return st, st.seq < src.seq && (!ld.Scenario.Permissions || src.shows(payload, at))
}

// acked enters an acknowledgement of one of the messages from c.
func (ld *load) acked(c *conn, kind byte, body []byte) error {
	p := c.pub
	id, reason, err := parseAck(body)
	if err != nil {
		return err
	}
	if kind == typePubrec && reason < 0x80 {
		c.out = appendAck(c.out, typePubrel|0x02, id)
		ld.touch(c)
		return nil
	}
	if !p.ids.put(id) {
		return fmt.Errorf("%w: packet id %d acknowledged, which is not in flight", errFrame, id)
	}
	if reason >= 0x80 {
		ld.tally.Refused++
	} else {
		ld.tally.Acked++
		ld.commit.record(ld.at - p.sent[id])
	}
	p.window.unacked = max(p.window.unacked-1, 0)
	ld.feed(p.window)
	return nil
}

// count completes the tally.
func (ld *load) count() Tally {
	t := ld.tally
	for _, src := range ld.sources {
		t.Sent += src.seq
		for _, track := range src.tracks {
			t.Undelivered += track.missing(src.seq)
		}
	}
	for _, c := range ld.pubs {
		t.Unacked += uint64(c.pub.ids.len())
	}
	return t
}
