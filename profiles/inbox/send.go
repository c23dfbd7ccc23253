package inbox

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/pace"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Reasons of failures, as reports have them.
const (
	reasonUnavailable = "unavailable" // there is no such inbox, or the sender is not to know
	reasonForbidden   = "forbidden"   // its owner refuses, and says so
	reasonExpired     = "expired"
)

// idPurpose is what the ids are derived for of messages whose senders give them none.
const idPurpose = "id of a message"

// send takes a message, or reports to its sender why not. Everything is judged
// before anything is changed.
func (p *Profile) send(tx *broker.ProfileTx, pub *broker.Publication, r *request) error {
	m, now, names := r.message, tx.Now(), alias.BookOf(tx, nil)
	to := readerOf(names.Get, m.To, r.sender, now)
	if m.ID == "" {
		m.ID = tx.Tag(idPurpose)
	} else if known := readID(tx.Get(p.idOf(&m, to.Addr))); known != nil && known.at+int64(Remember) > now {
		answer(pub, m.ID)
		return nil
	}
	from, limits := readSender(tx.Get(senderKey(r.sender))), p.limitsIn(tx)
	if err := from.charge(&limits, now); err != nil {
		tx.Over("im.perSecond")
		return err
	}
	goes := p.placeOf(tx.Get, to, m.From, kind.MaySend, kind.Instant(now), tx.Level())
	if !goes.known && tx.Level() >= broker.LevelHours {
		if err := from.chargeStranger(&limits, now); err != nil {
			tx.Over("im.strangersPerHour")
			return err
		}
	}
	topicName := p.inboxOf(goes.inbox).Topic()
	box, expires, failed := readBox(tx.Get(topicName)), p.expires(&m, pub.Event, now), ""
	doc := p.kind.Deliver(m, box.iseq+1, kind.Instant(now))
	switch {
	case expires <= now:
		failed = reasonExpired
	case goes.nowhere != "":
		failed = goes.nowhere
	case len(box.kept) >= limits.Kept || box.bytes()+len(doc.Body) > limits.KeptBytes:
		tx.Over("im.kept")
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("quota: the inbox of %s is full", m.To)}
	}
	if m.From == r.sender { // who knows a pseudonym may write to it anyway
		from.noteContact(tx, &limits, m.From, m.To)
	}
	tx.Set(senderKey(r.sender), from.encode())
	if failed != "" {
		answer(pub, m.ID)
		p.report(tx, m, kind.Failed, failed)
		return nil
	}
	if to.hidden {
		names.Use(m.To, r.sender)
	}
	if goes.inbox != to.Addr {
		p.rememberForwarded(tx, &limits, m, to.Addr)
	}
	box.iseq++
	e := pub.Event
	e.Topic, e.Payload, e.Props, e.QoS, e.Retain = topicName, doc.Body, event.AppendContentType(nil, doc.ContentType), max(e.QoS, 1), false
	e.At, e.Expires = now, expires
	box.remember(tx, &limits, topicName, p.idOf(&m, goes.inbox), &m, goes.inbox)
	box.keep(tx, topicName, &m, e)
	box.save(tx, topicName)
	answer(pub, m.ID)
	tx.RouteExcept(e, refOf(topicName, box.iseq), func(session uint64) bool {
		// One that is being given older ones gets it after them.
		return box.copies > 0 && tx.Get(copyKey(topicName, session)) != nil
	})
	return nil
}

// answer tells the sender the message's id. Nothing else: whether it was let in,
// and what place it has among what others write, is the owner's to know.
func answer(pub *broker.Publication, id string) {
	pub.Answer = event.AppendUserProperty(nil, "evt-id", id)
}

// expires returns when a message does: the earlier of what it says and what its
// publication says, and no later than the kind lets it.
func (p *Profile) expires(m *kind.Message, e *event.Event, now int64) int64 {
	s := p.kind.Semantics()
	at := now + int64(s.DefaultExpires)
	if !m.Expires.IsZero() {
		at = min(kind.Nanos(m.Expires), now+int64(s.MaxExpires))
	}
	if e.Expires != 0 {
		at = min(at, e.Expires)
	}
	return at
}

// charge takes a message off what a sender may send now.
func (s *sender) charge(l *Limits, now int64) error {
	if each := time.Second / time.Duration(l.Rate); pace.Take(&s.busy, now, each, l.Burst) > 0 {
		return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf("rate: at most %d messages a second, %d at once", l.Rate, l.Burst)}
	}
	return nil
}

// noteContact notes to whom a sender has written: from them they let messages
// in, unless their policy says otherwise.
func (s *sender) noteContact(tx *broker.ProfileTx, l *Limits, from, to kind.Addr) {
	key := contactKey(from, to)
	if from == to || s.contacts >= uint64(l.Contacts) || tx.Get(key) != nil {
		return
	}
	s.contacts++
	tx.Set(key, []byte{1})
}

// remember notes that a message has come to owner's inbox, and forgets the oldest ones.
func (b *box) remember(tx *broker.ProfileTx, l *Limits, topicName, key string, m *kind.Message, owner kind.Addr) {
	known := knownID{iseq: b.iseq, at: tx.Now(), wants: m.Wants, sent: m.Sent}
	if m.To != owner {
		known.to = m.To.String()
	}
	tx.Set(key, known.encode())
	tx.Set(slotKey(topicName, b.nextID), append(binary.BigEndian.AppendUint64(nil, b.iseq), key...))
	b.nextID++
	// Two for each that comes: so the list gets shorter where it is too long,
	// and no message costs more than that.
	for range 2 {
		if !b.forget(tx, l, topicName) {
			return
		}
	}
}

// forget forgets the id that has been remembered longest, if it was long enough
// or there are too many.
func (b *box) forget(tx *broker.ProfileTx, l *Limits, topicName string) bool {
	slot := slotKey(topicName, b.firstID)
	oldest := tx.Get(slot)
	iseq, key := binary.BigEndian.Uint64(oldest), string(oldest[8:])
	// The same id may have come again after it had been remembered for long
	// enough: then it has a slot of its own.
	if id := readID(tx.Get(key)); id != nil && id.iseq == iseq {
		if b.nextID-b.firstID <= uint64(l.IDs) && id.at+int64(Remember) > tx.Now() {
			return false
		}
		tx.Set(key, nil)
	}
	tx.Set(slot, nil)
	b.firstID++
	return b.firstID < b.nextID
}

// refOf names a message of an inbox for Taken.
func refOf(topicName string, iseq uint64) string {
	return topicName + "\x00" + strconv.FormatUint(iseq, 10)
}

// Taken forgets a message that a device of the owner has, and tells its sender.
// That a delegate has it is nothing to either: the owner is still to get it.
func (p *Profile) Taken(tx *broker.ProfileTx, ref string, who broker.Who) {
	topicName, number, _ := strings.Cut(ref, "\x00")
	if !slices.Contains(p.Awaits(who), topicName) {
		return
	}
	iseq, _ := strconv.ParseUint(number, 10, 64)
	box := readBox(tx.Get(topicName))
	m, ok := box.take(tx, topicName, iseq)
	if !ok {
		return // another device had it before
	}
	box.save(tx, topicName)
	owner := kind.Of(who.Principal)
	key := p.idOf(&m, owner)
	if known := readID(tx.Get(key)); known != nil && known.iseq == iseq {
		p.tell(tx, m, owner, known, key, kind.Delivered)
	}
}

// Awaits names who's own inbox.
func (p *Profile) Awaits(who broker.Who) []string {
	from := kind.Of(who.Principal)
	if from.IsZero() {
		return nil
	}
	return []string{kind.Resource{Kind: p.kind.Name(), Addr: from}.Topic()}
}

// One device is given so much of what is kept at once: so many messages, and no
// more once they come to so many bytes. The rest is for later log entries, so
// that none is long.
const (
	pieceMessages = 64
	pieceBytes    = 128 << 10
)

// Subscribed gives a device that is new what no device has yet, in order, and
// then what has come in the meantime.
func (p *Profile) Subscribed(tx *broker.ProfileTx, _ broker.Who, session uint64, topicName string) {
	box, key := readBox(tx.Get(topicName)), copyKey(topicName, session)
	under := tx.Get(key) != nil // it subscribes anew before it had all
	if len(box.kept) == 0 && !under {
		return
	}
	c := &copying{begun: tx.Position()}
	if done := give(tx, box, topicName, session, c); done && !under {
		return
	} else if !under {
		box.copies++
		box.save(tx, topicName)
	} else if done {
		tx.Set(key, nil)
		box.copied(tx, topicName)
		box.save(tx, topicName)
		return
	}
	goOn(tx, key, c)
}

// goOn has a device given more with the next log entry.
func goOn(tx *broker.ProfileTx, key string, c *copying) {
	tx.Set(key, c.encode())
	tx.WakeAt(tx.Now(), key)
}

// give gives a device the next piece of what is kept and says whether that was
// the last. What waits in its queue already is not even read: who subscribes
// again and again has nothing done for it.
func give(tx *broker.ProfileTx, box *box, topicName string, session uint64, c *copying) (done bool) {
	n, size := 0, 0
	for _, k := range box.kept[box.from(c.next):] {
		if n == pieceMessages || size >= pieceBytes {
			c.next = k.iseq
			return false
		}
		ref := refOf(topicName, k.iseq)
		if k.taken != 0 && k.taken <= c.begun || tx.Queued(session, ref) {
			continue
		}
		n, size = n+1, size+k.size
		if _, e, ok := readKept(tx.Get(keptKey(topicName, k.iseq))); ok && !e.Expired(tx.Now()) {
			tx.Send(session, e, ref)
		}
	}
	return true
}

// Wake gives a device more of what is kept, or gives up the messages of an inbox
// that nobody took in time.
func (p *Profile) Wake(tx *broker.ProfileTx, id string) {
	if strings.HasPrefix(id, siftPrefix) {
		p.siftOn(tx, id)
		return
	}
	topicName, session, ok := copyOf(id)
	if !ok {
		p.expire(tx, id)
		return
	}
	c, box := readCopying(tx.Get(id)), readBox(tx.Get(topicName))
	switch {
	case c == nil: // it has had all since
	case tx.Subscribes(session, topicName) && !give(tx, box, topicName, session, c):
		goOn(tx, id, c)
	default:
		tx.Set(id, nil)
		box.copied(tx, topicName)
		box.save(tx, topicName)
	}
}

// expire gives up what nobody took in time, so much at once: if there is more
// that is due, it is woken for that with the next log entry.
func (p *Profile) expire(tx *broker.ProfileTx, topicName string) {
	box := readBox(tx.Get(topicName))
	box.wake = 0 // it has come
	for i, n := 0, 0; i < len(box.kept) && n < pieceMessages; {
		k := box.kept[i]
		if k.expires > tx.Now() {
			i++
			continue
		}
		n++
		if k.taken == 0 {
			if m, _, ok := readKept(tx.Get(keptKey(topicName, k.iseq))); ok {
				p.report(tx, m, kind.Failed, reasonExpired)
			}
		}
		box.drop(tx, topicName, i)
	}
	box.save(tx, topicName)
}
