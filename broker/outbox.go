package broker

import (
	"slices"
	"sync"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// An outbox is what a session is sent at QoS 1 and 2: numbered deliveries of
// which a window is under way at once.
//
// Numbers run without gaps; the packet id of a delivery is its number mod
// 65535 + 1 (5.0 2.2.1 leaves the choice to us). For a durable session the
// numbers are those of its queue in the store, so another life of the node, or
// another node, resumes with the same ids without having been told them. For
// other sessions they count what was heard, and end with the connection.
//
// What must hold:
//
//   - Deliveries go out in the order of their numbers, and again in that order
//     after a resume; at most ReceiveMax are under way, and the span from the
//     oldest one under way to the newest is less than 65,535, so that no packet
//     id stands for two (the window stalls rather than reuse one).
//   - A queue is read by whoever made room (Settle, Drained, Start), never by
//     the delivery loop, and not under mu: a slow disk delays one client. While
//     somebody reads, or entries were left behind, the loop only moves next;
//     when the reader has caught up with next, under mu, the loop hands over
//     directly again.
//   - Whether the client may have it, and whether it has expired, is asked as
//     the last thing before each is sent, first time or again. What may not be
//     sent is over, as if the client had acknowledged it; a profile that wants to
//     know what was taken is not told that it was. What had been sent at QoS 2 is
//     completed first, or its packet id would be taken at the client for good.
type outbox struct {
	s          *Session
	recvMax    uint64     // how many may be under way at once
	untoldMax  uint64     // how many may be over before the log knows; 0 for any number
	mu         sync.Mutex // guards the following; taken before the sink's own
	started    bool
	stopped    bool
	full       bool   // the sink takes no more for now
	pulling    bool   // somebody reads the queue
	below      uint64 // all before are over
	sent       uint64 // next number to send
	next       uint64 // next number to come
	ready      uint64 // those from here on are not in the queue yet, though they have come (see debt)
	begun      uint64 // those before were under way on an earlier connection
	dupBelow   uint64 // those before may have been
	inherited  bool   // begun and dupBelow are by what an earlier connection here knew
	resumed    uint64 // those before came while the client was away, or earlier
	underWay   uint64
	untold     uint64            // how many are over and the log does not know
	passed     []uint64          // those of them that were passed over and a profile wants to know of, ascending
	held       bool              // there was no room because it knows too few
	slots      []slot            // ring over [below, sent), by number; length a power of two
	done       spans             // over before this connection
	newest     map[string]uint64 // newest mark not yet sent, by resource
	backlog    []held            // of a session without a queue: [sent, next); of another: documents beside it
	marked     map[string]bool   // resources that have a mark in it
	backlogLen int64             // bytes held there
	beside     beside            // documents that are under way beside the queue
	lending    lending           // of what it was given as one of a group
}

// A slot says where one delivery stands.
type slot uint8

const (
	slotFree     slot = iota
	slotSent1         // QoS 1: awaits PUBACK
	slotSent2         // QoS 2: awaits PUBREC
	slotReceived      // PUBREC came; the log is being told
	slotReleased      // PUBREL was sent; awaits PUBCOMP
	slotOver
	slotTold // over, and the log knows
)

// A held is a delivery that waits in memory for the window: an event, or a mark
// for a resource, which is rendered when it is sent.
type held struct {
	event  *event.Event // never changed, its Frames neither: other sessions may hold the same one
	mark   string
	named  bool // it is a mark: see showing
	qos    uint8
	retain bool
	ids    []uint32
	until  int64
	at     uint64 // of a document beside the queue: it goes out before the entry of that number

	// Of what the session was given as one of a group.
	group, entry uint64
}

const maxSpan = 65534

// open begins with what the log knows of the queue and, if a connection of the
// session has just been ended on this node, with what that one knew.
func (o *outbox) open(s *Session, a *opened, recvMax int, before *Session) {
	o.s, o.recvMax = s, uint64(max(recvMax, 1))
	if s.durable {
		o.recvMax, o.untoldMax = a.inFlight, a.untold
	}
	o.below, o.next, o.begun, o.dupBelow, o.resumed = a.below, a.next, a.sent, a.maybe, a.next
	o.ready = a.ready
	o.done = a.done
	if before != nil {
		o.inherit(&before.out)
	}
	o.sent = o.below
	for _, seq := range a.received {
		if seq >= o.below {
			o.setSlot(seq, slotReleased)
		}
	}
	if before != nil {
		s.settling.note(s, o.late()) // only now: whoever tells reads what is set here
	}
}

// inherit takes over what the log has not been told yet: how far the earlier
// connection, which is stopped, had come, what its client had acknowledged, and what is
// not to count as that.
func (o *outbox) inherit(before *outbox) {
	before.mu.Lock()
	defer before.mu.Unlock()
	o.begun = max(before.sent, min(before.begun, o.next))
	o.dupBelow = max(before.sent, min(before.dupBelow, o.next))
	o.inherited = true
	if before.below > o.below {
		// The others that the log has not been told of are counted when they come by.
		o.untold = before.below - o.below - o.done.within(o.below, before.below)
		o.below = before.below
	}
	o.passed, o.lending.returned = slices.Clone(before.passed), slices.Clone(before.lending.returned)
	for _, s := range before.done {
		o.done = o.done.add(s.from, s.to)
	}
	for seq := before.below; seq < before.sent; seq++ {
		if v := before.slotOf(seq); v == slotOver || v == slotTold {
			o.done = o.done.add(seq, seq+1)
		}
	}
}

// start sends what an earlier connection left under way, then the rest.
func (o *outbox) start(w *Wave) {
	o.s.begun.Store(true)
	o.mu.Lock()
	o.started = true
	o.mu.Unlock()
	o.fill(w)
}

// stop ends deliveries.
func (o *outbox) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = true
	o.backlog = nil
}

func (o *outbox) slot(seq uint64) *slot { return &o.slots[seq&uint64(len(o.slots)-1)] }

// setSlot notes where seq stands, growing the ring as needed.
func (o *outbox) setSlot(seq uint64, v slot) {
	if span := seq - o.below + 1; span > uint64(len(o.slots)) {
		size := max(8, len(o.slots))
		for uint64(size) < span {
			size *= 2
		}
		grown := make([]slot, size)
		for i := range uint64(len(o.slots)) {
			n := o.below + i
			grown[n&uint64(size-1)] = *o.slot(n)
		}
		o.slots = grown
	}
	*o.slot(seq) = v
}

func (o *outbox) slotOf(seq uint64) slot {
	if seq-o.below >= uint64(len(o.slots)) {
		return slotFree
	}
	return *o.slot(seq)
}

// room says whether one more may be under way.
func (o *outbox) room() bool {
	if o.untoldMax != 0 && o.untold >= o.untoldMax {
		o.held = true
		return false
	}
	return o.takes() && o.sent-o.below < maxSpan && !o.beside.has(packetID(o.sent))
}

// takes says whether the client takes one more.
func (o *outbox) takes() bool { return o.started && !o.stopped && !o.full && o.underWay < o.recvMax }

// late says that the log should be told at once what is over, so that it is told
// before there is no room for want of it.
func (o *outbox) late() bool {
	return o.untoldMax != 0 && o.untold > o.untoldMax/2 || o.hungry()
}

// over notes that seq is over. The log is to be told.
func (o *outbox) over(seq uint64) {
	o.untold++
	o.repaid(seq)
	o.gone(seq)
}

// gone notes that seq is over, as the log knows.
func (o *outbox) gone(seq uint64) {
	o.setSlot(seq, slotOver)
	if seq >= o.sent {
		o.sent = seq + 1
	}
	for o.below < o.sent {
		v := o.slotOf(o.below)
		if v != slotOver && v != slotTold {
			break
		}
		*o.slot(o.below) = slotFree
		o.below++
	}
}

// hear takes a delivery of QoS 1 or 2 for a session without a queue.
func (o *outbox) hear(d *Delivery, until int64, w *Wave) {
	o.mu.Lock()
	if o.stopped {
		o.mu.Unlock()
		return
	}
	o.next++
	if o.sent == o.next-1 && o.room() && !o.s.b.holds(d.Event.Topic) && o.send(d, w) {
		o.mu.Unlock()
		return
	}
	slow := o.hold(held{event: w.keep(d.Event), qos: d.QoS, retain: d.Retain, ids: d.IDs, until: until})
	o.mu.Unlock()
	if slow {
		o.endSlow()
	}
}

// hold adds to the backlog and says whether that is too much for it: then
// nothing is sent any more. mu is held.
func (o *outbox) hold(h held) (slow bool) {
	o.backlog = append(o.backlog, h)
	o.backlogLen += h.size()
	limits := &o.s.b.limits
	most := limits.VolatileEvents
	if o.s.durable {
		most = owedKept
	}
	if len(o.backlog) <= most && o.backlogLen <= limits.VolatileBytes {
		return false
	}
	o.stopped, o.backlog = true, nil
	return true
}

// unhold takes note that the oldest of the backlog, h, leaves it. mu is held.
func (o *outbox) unhold(h *held) {
	o.backlogLen -= h.size()
	if h.mark != "" {
		delete(o.marked, h.mark)
	}
	*h = held{} // the list may go on in the same memory
}

// topic returns the topic that a held delivery is about.
func (h *held) topic() string {
	if h.mark != "" {
		return h.mark
	}
	return h.event.Topic
}

// giveUp ends the connection of a client for which too much waits elsewhere.
func (o *outbox) giveUp() {
	o.mu.Lock()
	o.stopped, o.backlog = true, nil
	o.mu.Unlock()
	o.endSlow()
}

func (o *outbox) endSlow() {
	o.s.b.stats.SlowEnded.Add(1)
	o.s.closed.Store(true)
	o.s.sink.End(ErrSlow)
}

// size is what a held delivery is charged for, in bytes.
func (h *held) size() int64 {
	if h.mark != "" {
		return int64(len(h.mark) + 32 + idBytes*len(h.ids))
	}
	return int64(h.event.Size() + idBytes*len(h.ids))
}

// send sends number o.sent as d, unless the sink is full. mu is held.
func (o *outbox) send(d *Delivery, w *Wave) bool {
	seq := o.sent
	d.PacketID = packetID(seq)
	d.Dup = seq < o.dupBelow
	switch o.s.sink.Deliver(d, w) {
	case Full:
		o.full = true
		return false
	case TooLarge:
		o.s.b.stats.TooLarge.Add(1)
		if d.QoS == 2 && seq < o.begun { // the client took larger ones before
			o.finish(seq)
			return true
		}
		o.over(seq)
		o.s.settling.note(o.s, false)
		return true
	}
	o.s.delivered(d)
	o.sent++
	o.underWay++
	if d.QoS == 1 {
		o.setSlot(seq, slotSent1)
	} else {
		o.setSlot(seq, slotSent2)
	}
	return true
}

func packetID(seq uint64) uint16 { return uint16(seq%65535) + 1 }

// offer tells the outbox of a durable session that its queue has grown by q,
// which is e. h is what is known of the session as a subscriber of the topic,
// nil for nothing. In the delivery loop.
func (s *Session) offer(q *queued, e *event.Event, h *hearer, now int64, w *Wave) {
	o := &s.out
	if !s.durable {
		s.offerLent(q, e, now, w)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next = q.seq + 1
	if o.sent != q.seq || o.pulling || len(o.backlog) > 0 || !o.room() || o.s.b.holds(e.Topic) {
		return
	}
	reason, until := s.fitEntry(e, q.group, q.deadline, h, now)
	switch {
	case reason == fit:
	case q.group != 0 && reason != expired:
		o.giveBack(q.seq)
		return
	default:
		if q.named {
			o.passed = append(o.passed, q.seq)
		}
		s.skip(reason, q.seq, e, now)
		return
	}
	d := &w.delivery
	*d = Delivery{Event: e, QoS: q.qos, Retain: q.retain, IDs: q.ids}
	d.limitTo(e, until, now)
	o.send(d, w)
}

// offerMark tells the outbox of a durable session that its queue has grown by a
// mark. If it is held the change is shown later, by another mark. In the
// delivery loop.
func (s *Session) offerMark(q *queued, held bool, now int64, w *Wave) {
	o := &s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next = q.seq + 1
	if o.sent != q.seq || o.pulling || !o.room() || o.s.b.holds(q.mark) {
		if o.newest == nil {
			o.newest = map[string]uint64{}
		}
		o.newest[q.mark] = q.seq
		return
	}
	if held {
		s.skip(fit, q.seq, nil, now)
		return
	}
	o.sendMark(q.seq, q.mark, q.retain, q.ids, now, w)
}

// sendMark sends what a mark stands for, and returns false if there is no room.
// mu is held.
func (o *outbox) sendMark(seq uint64, topicName string, named bool, ids []uint32, now int64, w *Wave) bool {
	if newest, ok := o.newest[topicName]; ok && newest > seq {
		o.s.skip(fit, seq, nil, now) // the state will be shown by a later one
		return true
	}
	if seq < o.resumed {
		// The scan of a session that is back shows it all it may see. What
		// waited must add nothing to that, no DUP and no second copy, or who may
		// see nothing could tell that there was something.
		o.s.skip(fit, seq, nil, now)
		return true
	}
	d := &w.delivery
	j, send := o.render(d, topicName, named, named, now)
	if !send {
		o.s.skip(fit, seq, nil, now)
		return true
	}
	if d.IDs = ids; !o.send(d, w) {
		return false
	}
	o.s.note(topicName, &j)
	delete(o.newest, topicName)
	return true
}

// A fitness says whether a queued event may be sent now.
type fitness uint8

const (
	fit fitness = iota
	expired
	withheld
	shut // withheld because a window is closed
	unsubscribed
)

// unfit asks, as the last thing before sending. h may be nil. What has expired
// besides being withheld is withheld: for that there is no exception.
func (s *Session) unfit(e *event.Event, deadline int64, h *hearer, now int64) fitness {
	if deadline != 0 && now >= deadline {
		return shut
	}
	if h == nil {
		if h = s.b.local.LookupString(e.Topic).find(s.number); h == nil {
			return unsubscribed
		}
	}
	if ok, until := h.permitted(s.b, e.Topic, now); !ok && until != 0 {
		return shut
	} else if !ok || !s.b.mayStill(e) {
		return withheld
	}
	if e.Expired(now) {
		return expired
	}
	return fit
}

// unfitBegun is unfit, which says why, for an event that an earlier connection was
// sent: what was begun in time is brought to its end, also when it has expired
// since or its subscription has ended (5.0 [MQTT-3.10.4-3]).
func (s *Session) unfitBegun(why fitness, e *event.Event, now int64) fitness {
	switch why {
	case expired:
		return fit
	case unsubscribed:
		if d := s.b.decide(s.who, ActSubscribe, e.Topic, now); d.Allow {
			if !s.b.mayStill(e) {
				return withheld
			}
			return fit
		} else if d.Until == 0 {
			return withheld
		}
		return shut
	}
	return why
}

// finish ends a QoS 2 delivery that an earlier connection was sent and that may
// not be sent again, or is too large for what the client takes now. Whether the client has it nobody knows; if so it waits for
// PUBREL, and would take for the same event whatever comes with that packet id, so
// this is brought to its end as if its PUBREC had come: PUBREL for an id that it
// does not know is no error of either's (5.0 3.7.2.1). mu is held.
func (o *outbox) finish(seq uint64) {
	o.setSlot(seq, slotReceived)
	o.sent++
	o.underWay++
	o.s.settling.note(o.s, false)
}

// skip ends a delivery that may not be sent: e, which is nil for a mark, at now.
// mu of the outbox is held.
func (s *Session) skip(why fitness, seq uint64, e *event.Event, now int64) {
	switch why {
	case expired:
		s.b.stats.Expired.Add(1)
	case withheld, shut:
		s.withheld(e, why == shut, now)
	}
	s.out.over(seq)
	s.settling.note(s, false)
}

// fill sends what there is room for.
func (o *outbox) fill(w *Wave) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pulling {
		return // whoever pulls looks again before it stops
	}
	if o.s.durable {
		o.pull(w)
		return
	}
	now := o.s.b.now()
	n := 0
	for n < len(o.backlog) && o.room() {
		h := &o.backlog[n]
		if o.s.b.holds(h.topic()) || !o.sendHeld(h, now, w) {
			break
		}
		o.unhold(h)
		n++
	}
	// What is left stays where it is until the list grows out of its memory: to move all of it
	// with each acknowledgement would cost 16 µs where 9,000 wait, and so costs 0.3 (BenchmarkBacklog).
	if o.backlog = o.backlog[n:]; len(o.backlog) == 0 {
		o.backlog = nil
	}
}

// sendHeld sends the oldest of the backlog, or passes over it, and returns false
// if there is no room. mu is held.
func (o *outbox) sendHeld(h *held, now int64, w *Wave) bool {
	d := &w.delivery
	if h.group != 0 {
		return o.sendHeldLent(h, now, w)
	}
	if h.mark == "" {
		if why := o.s.unfit(h.event, h.until, nil, now); why != fit {
			o.s.skip(why, o.sent, h.event, now)
			return true
		}
		*d = Delivery{Event: w.heldEvent(h), QoS: h.qos, Retain: h.retain, IDs: h.ids}
		defer w.heldSent()
		d.limitTo(h.event, h.until, now)
		return o.send(d, w)
	}
	j, send := o.render(d, h.mark, h.named || o.s.names(h.mark), h.retain, now)
	if !send {
		o.s.skip(fit, o.sent, nil, now)
		return true
	}
	if d.IDs = h.ids; !o.send(d, w) {
		return false
	}
	o.s.note(h.mark, &j)
	return true
}

// paid takes note that the queue has what it is to have up to a number. In the
// delivery loop.
func (s *Session) paid(ready uint64) {
	s.out.mu.Lock()
	s.out.ready = ready
	s.out.mu.Unlock()
	s.b.scans.start(s.goOn) // the queue is not read here
}

// pullAtOnce is how many entries are read from the store in one go at most.
const pullAtOnce = 64

// pull sends entries of the queue until it has caught up or there is no room.
// mu is held, and released while it reads.
func (o *outbox) pull(w *Wave) {
	o.pulling = true
	defer func() { o.pulling = false }()
	ahead := uint64(0)
	for o.showWaiting(w) && o.sent < min(o.next, o.ready) && o.room() {
		// A client that acknowledges one makes room for one. Where entries are
		// over, more of what follows may be.
		n := min(max(o.recvMax-o.underWay, ahead), pullAtOnce)
		ahead = 4 * n
		from, until := o.sent, min(o.next, o.ready, o.sent+n, o.place())
		o.mu.Unlock()
		entries := o.s.b.readQueue(o.s.number, from, until)
		now := o.s.b.now()
		o.mu.Lock()
		if !o.sendEntries(entries, until, now, w) {
			return
		}
	}
}

// sendEntries sends what was read of the queue up to until, and returns false
// when there is no more room. Numbers that the store does not have are over:
// settled before, or pushed out by a bound.
func (o *outbox) sendEntries(entries []queueItem, until uint64, now int64, w *Wave) bool {
	for _, it := range entries {
		for o.sent < it.seq {
			o.gone(o.sent)
		}
		if o.done.has(it.seq) {
			o.over(it.seq)
			o.s.settling.note(o.s, false) // the log may not have heard
			continue
		}
		if !o.room() {
			return false
		}
		if o.slotOf(it.seq) == slotReleased {
			o.s.sink.Release(packetID(it.seq), w)
			o.underWay++
			o.sent++
			continue
		}
		if o.s.b.holds(it.topic()) {
			return false
		}
		if it.mark != "" {
			if !o.sendMark(it.seq, it.mark, it.retain, it.ids, now, w) {
				return false
			}
			continue
		}
		why, until := o.s.fitEntry(&it.event, it.group, it.deadline, nil, now)
		if it.seq < o.begun {
			why = o.s.unfitBegun(why, &it.event, now)
			if why != fit && it.qos == 2 && it.ref == "" {
				o.s.withheld(&it.event, why == shut, now)
				o.finish(it.seq)
				continue
			}
		}
		if why != fit && why != expired && it.group != 0 {
			o.giveBack(it.seq)
			continue
		}
		if why != fit {
			if it.ref != "" {
				o.passed = append(o.passed, it.seq)
			}
			o.s.skip(why, it.seq, &it.event, now)
			continue
		}
		d := &w.delivery
		*d = Delivery{Event: &it.event, QoS: it.qos, Retain: it.retain, IDs: it.ids}
		d.limitTo(&it.event, until, now)
		if !o.send(d, w) {
			return false
		}
	}
	for o.sent < until {
		o.gone(o.sent)
	}
	return true
}

// A queueItem is a queue entry with its event.
type queueItem struct {
	seq uint64
	entry
	event event.Event
}

// topic returns the topic that the item is about.
func (it *queueItem) topic() string {
	if it.mark != "" {
		return it.mark
	}
	return it.event.Topic
}

// readQueue reads entries of a session's queue, from from and below until.
func (b *Broker) readQueue(session, from, until uint64) []queueItem {
	items := make([]queueItem, 0, until-from)
	st := b.machine.store
	st.Scan(entryKey(nil, session, from), entryKey(nil, session, until), func(key, value []byte) bool {
		it := queueItem{seq: store.Uint64At(key, 9), entry: mustEntry(slices.Clone(value))}
		items = append(items, it)
		return true
	})
	kept := items[:0]
	for i := range items {
		it := &items[i]
		if it.mark != "" {
			kept = append(kept, *it)
			continue
		}
		body := it.inline
		if it.body != 0 {
			var ok bool
			if body, ok = b.bodyOf(session, it); !ok {
				continue // reclaimed since: the entry is over
			}
		}
		if err := it.event.Decode(body); err != nil {
			panic(fatal{"queued event: " + err.Error()})
		}
		kept = append(kept, *it)
	}
	return kept
}

// A Settlement is what a client says of a delivery.
type Settlement uint8

const (
	Acked     Settlement = iota // PUBACK: a QoS 1 delivery is over
	Rejected                    // PUBREC >= 0x80: a QoS 2 delivery is over
	Received                    // PUBREC: the client has it; PUBREL follows when that is safe
	Completed                   // PUBCOMP: it is over
)

// Settle records the client's answer to the delivery with packetID and sends
// what there is now room for. It returns ErrNoPacketID if none is under way and
// ErrWrongAck if the one that is cannot be answered so; then nothing changed. It
// may read from the disk.
func (s *Session) Settle(packetID uint16, what Settlement, w *Wave) error {
	o := &s.out
	o.mu.Lock()
	if o.beside.has(packetID) {
		err := o.settleBeside(packetID, what)
		o.mu.Unlock()
		if err == nil {
			s.moreRoom(w)
		}
		return err
	}
	seq := o.below + (uint64(packetID)+65535-1-o.below%65535)%65535
	if packetID == 0 || seq >= o.sent {
		o.mu.Unlock()
		return ErrNoPacketID
	}
	v := o.slotOf(seq)
	urgent := false
	switch {
	case what == Acked && v == slotSent1, what == Rejected && v == slotSent2, what == Completed && v == slotReleased:
		o.underWay--
		o.over(seq)
		urgent = o.late()
	case what == Received && v == slotSent2 && !s.durable:
		// Nobody outlives the connection to whom it could be sent twice.
		o.setSlot(seq, slotReleased)
		s.sink.Release(packetID, w)
		o.mu.Unlock()
		return nil
	case what == Received && v == slotSent2:
		o.setSlot(seq, slotReceived)
		urgent = true
	case what == Received && v == slotReceived:
		o.mu.Unlock()
		return nil // the release is on its way
	case what == Received && v == slotReleased:
		s.sink.Release(packetID, w)
		o.mu.Unlock()
		return nil
	case v == slotFree, v == slotOver, v == slotTold:
		o.mu.Unlock()
		return ErrNoPacketID
	default:
		o.mu.Unlock()
		return ErrWrongAck
	}
	o.mu.Unlock()
	s.settling.note(s, urgent)
	s.moreRoom(w)
	return nil
}

// Drained tells the session that its sink, which was Full, takes events again.
func (s *Session) Drained(w *Wave) {
	s.out.mu.Lock()
	s.out.full = false
	s.out.mu.Unlock()
	s.moreRoom(w)
}

func (s *Session) moreRoom(w *Wave) {
	s.out.fill(w)
	s.scanning.kick()
}

// waiting returns how many deliveries wait for the window, and whether the
// sink is full.
func (o *outbox) waiting() (n uint64, full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n = o.next - o.sent; o.s.durable {
		n += uint64(len(o.backlog))
	}
	return n, o.full
}
