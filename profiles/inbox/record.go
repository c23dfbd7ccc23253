package inbox

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/profiles/fields"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Keys. That of an inbox's record is its topic; no topic begins like the others.
func keptKey(topicName string, iseq uint64) string {
	return "\x02m" + topicName + "\x00" + string(binary.BigEndian.AppendUint64(nil, iseq))
}

// idKey is where it is remembered that from has sent a message with an id to an inbox.
// as is whom it was sent to if that is not the inbox's owner: a pseudonym of theirs, or
// somebody whose messages they are sent. Nothing that is sent to one of them is taken
// for what is sent to another: that would tell the sender that they are one.
func idKey(topicName string, from kind.Addr, id string, as kind.Addr) string {
	key := "\x02i" + topicName + "\x00" + from.String() + "\x00" + id
	if as.IsZero() {
		return key
	}
	return key + asMark + as.String()
}

// asMark is in no id.
const asMark = "\x00"

func slotKey(topicName string, n uint64) string {
	return "\x02o" + topicName + "\x00" + string(binary.BigEndian.AppendUint64(nil, n))
}

func senderKey(from kind.Addr) string { return "\x02s" + from.String() }

// contactKey is there if owner has written to who.
func contactKey(owner, who kind.Addr) string {
	return "\x02c" + owner.String() + "\x00" + who.String()
}

// A box is the record of an inbox.
//
//	version u8 = 2, wake 8, iseq, first id, next id, copies: uvarints, count
//	uvarint, then for each message kept: iseq, size, taken: uvarints, expires 8
//
// Version 1 has neither copies nor taken.
type box struct {
	wake            int64 // when the profile is woken for it, 0 for never
	iseq            uint64
	firstID, nextID uint64 // the slots of remembered ids are those from first to below next
	copies          uint64 // how many devices are being given what is kept
	kept            []kept // by iseq
}

// A kept is a message that no device has yet, or that one has while others are
// being given what is kept.
type kept struct {
	iseq    uint64
	size    int
	taken   uint64 // the place in the log at which a device had it; 0 for none
	expires int64
}

const (
	recordVersion = 1
	boxVersion    = 2
	toVersion     = 2
)

func (b *box) bytes() (sum int) {
	for _, k := range b.kept {
		sum += k.size
	}
	return sum
}

// keep keeps a message, which is the newest, as it goes to devices.
func (b *box) keep(tx *broker.ProfileTx, topicName string, m *kind.Message, e *event.Event) {
	b.kept = append(b.kept, kept{iseq: b.iseq, size: len(e.Payload), expires: e.Expires})
	tx.Set(keptKey(topicName, b.iseq), appendKept(m, e))
}

// from returns the index of the first message kept whose number is iseq or
// greater.
func (b *box) from(iseq uint64) int {
	at, _ := slices.BinarySearchFunc(b.kept, iseq, func(k kept, iseq uint64) int { return cmp.Compare(k.iseq, iseq) })
	return at
}

// take notes that a device has a message and returns it; ok is false if it is
// not kept, or one had it before. It is forgotten, unless others are being given
// what is kept: one that began before now is to have it, too.
func (b *box) take(tx *broker.ProfileTx, topicName string, iseq uint64) (m kind.Message, ok bool) {
	at := b.from(iseq)
	if at == len(b.kept) || b.kept[at].iseq != iseq || b.kept[at].taken != 0 {
		return m, false
	}
	m, _, ok = readKept(tx.Get(keptKey(topicName, iseq)))
	if b.copies > 0 {
		b.kept[at].taken = tx.Position()
	} else {
		b.drop(tx, topicName, at)
	}
	return m, ok
}

// drop forgets the message kept at an index.
func (b *box) drop(tx *broker.ProfileTx, topicName string, at int) {
	tx.Set(keptKey(topicName, b.kept[at].iseq), nil)
	b.kept = slices.Delete(b.kept, at, at+1)
}

// copied notes that a device has been given what is kept. What was kept for its
// sake alone is forgotten with the last of them.
func (b *box) copied(tx *broker.ProfileTx, topicName string) {
	if b.copies--; b.copies > 0 {
		return
	}
	b.kept = slices.DeleteFunc(b.kept, func(k kept) bool {
		if k.taken == 0 {
			return false
		}
		tx.Set(keptKey(topicName, k.iseq), nil)
		return true
	})
}

// save stores the record, and asks to be woken when the first message that is
// kept expires.
func (b *box) save(tx *broker.ProfileTx, topicName string) {
	next := int64(0)
	for _, k := range b.kept {
		if next == 0 || k.expires < next {
			next = k.expires
		}
	}
	if next != b.wake {
		if b.wake != 0 {
			tx.Cancel(b.wake, topicName)
		}
		if next != 0 {
			tx.WakeAt(next, topicName)
		}
		b.wake = next
	}
	tx.Set(topicName, b.encode())
}

func (b *box) encode() []byte {
	out := fields.AppendInt64([]byte{boxVersion}, b.wake)
	for _, n := range []uint64{b.iseq, b.firstID, b.nextID, b.copies, uint64(len(b.kept))} {
		out = binary.AppendUvarint(out, n)
	}
	for _, k := range b.kept {
		out = binary.AppendUvarint(binary.AppendUvarint(out, k.iseq), uint64(k.size))
		out = fields.AppendInt64(binary.AppendUvarint(out, k.taken), k.expires)
	}
	return out
}

// readBox reads what encode wrote; nil is an inbox to which nothing came.
func readBox(data []byte) *box {
	b := &box{}
	if data == nil {
		return b
	}
	version := min(data[0], boxVersion)
	r := fields.Read(data, version)
	b.wake = r.Int64()
	b.iseq, b.firstID, b.nextID = r.Uvarint(), r.Uvarint(), r.Uvarint()
	if version > 1 {
		b.copies = r.Uvarint()
	}
	for range r.Uvarint() {
		k := kept{iseq: r.Uvarint(), size: int(r.Uvarint())}
		if version > 1 {
			k.taken = r.Uvarint()
		}
		k.expires = r.Int64()
		b.kept = append(b.kept, k)
	}
	r.End()
	return b
}

// A copying is how far a device has been given what was kept when it came, and
// what has come since. Its key is also the id of its wake.
//
//	version u8 = 1, begun, next: uvarints
type copying struct {
	begun uint64 // the place in the log: what another device had by then it is not given
	next  uint64 // the first iseq that it has not been given
}

func copyKey(topicName string, session uint64) string {
	return copyPrefix + topicName + "\x00" + string(binary.BigEndian.AppendUint64(nil, session))
}

const copyPrefix = "\x02p"

// copyOf is the reverse of copyKey; ok is false if the id is none.
func copyOf(id string) (topicName string, session uint64, ok bool) {
	rest, ok := strings.CutPrefix(id, copyPrefix)
	if !ok {
		return "", 0, false
	}
	at := len(rest) - 8
	return rest[:at-1], binary.BigEndian.Uint64([]byte(rest[at:])), true
}

func (c *copying) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint([]byte{recordVersion}, c.begun), c.next)
}

// readCopying reads what encode wrote, nil of nil.
func readCopying(data []byte) *copying {
	if data == nil {
		return nil
	}
	r := fields.Read(data, recordVersion)
	c := &copying{begun: r.Uvarint(), next: r.Uvarint()}
	r.End()
	return c
}

// appendKept is what is stored of a message that is kept.
//
//	version u8 = 1; from, to, id: strings; sent 8; wants u8; then the event
func appendKept(m *kind.Message, e *event.Event) []byte {
	b := []byte{recordVersion}
	for _, s := range []string{m.From.String(), m.To.String(), m.ID} {
		b = fields.AppendText(b, s)
	}
	b = fields.AppendInt64(b, kind.Nanos(m.Sent))
	return e.Append(append(b, byte(m.Wants)))
}

// readKept reads what appendKept wrote; ok is false of nil.
func readKept(data []byte) (m kind.Message, e *event.Event, ok bool) {
	if data == nil {
		return m, nil, false
	}
	r := fields.Read(bytes.Clone(data), recordVersion) // the event aliases it
	m.From, m.To, m.ID = kind.Of(r.Text()), kind.Of(r.Text()), r.Text()
	m.Sent = r.Time()
	m.Wants = kind.Dispositions(r.Byte())
	e = new(event.Event)
	if err := e.Decode(r.Rest()); err != nil {
		panic(fmt.Sprintf("inbox: a message that is kept: %v", err))
	}
	return m, e, true
}

// A knownID is what is remembered of a message that has come.
//
//	version u8 = 1, iseq uvarint, at 8, sent 8, wants u8, told u8
//
// Version 2 has behind that to whom, a string: it was not to the inbox's owner.
type knownID struct {
	iseq        uint64
	at          int64
	sent        time.Time
	wants, told kind.Dispositions
	to          string // whom it was sent to; empty: the inbox's owner
}

func (k *knownID) encode() []byte {
	version := byte(recordVersion)
	if k.to != "" {
		version = toVersion
	}
	b := binary.AppendUvarint([]byte{version}, k.iseq)
	b = fields.AppendInt64(b, k.at)
	b = fields.AppendInt64(b, kind.Nanos(k.sent))
	if b = append(b, byte(k.wants), byte(k.told)); k.to != "" {
		b = fields.AppendText(b, k.to)
	}
	return b
}

// readID reads what encode wrote, nil of nil.
func readID(data []byte) *knownID {
	if data == nil {
		return nil
	}
	version := min(data[0], toVersion)
	r := fields.Read(data, version)
	k := &knownID{iseq: r.Uvarint(), at: r.Int64(), sent: r.Time()}
	k.wants, k.told = kind.Dispositions(r.Byte()), kind.Dispositions(r.Byte())
	if version == toVersion {
		k.to = r.Text()
	}
	r.End()
	return k
}

// A sender is what is known of somebody who sends.
//
//	version u8 = 1, busy 8, contacts uvarint
//
// Version 2 has behind that strange, 8: they have written to strangers.
type sender struct {
	busy     int64  // until when, at their rate, what they have sent keeps them busy
	contacts uint64 // to how many they have written
	strange  int64  // as busy, of what they have sent to strangers; 0 for nothing
}

const strangeVersion = 2

func (s *sender) encode() []byte {
	if s.strange == 0 {
		return s.appendFirst([]byte{recordVersion})
	}
	return fields.AppendInt64(s.appendFirst([]byte{strangeVersion}), s.strange)
}

// appendFirst appends the fields of version 1.
func (s *sender) appendFirst(b []byte) []byte {
	return binary.AppendUvarint(fields.AppendInt64(b, s.busy), s.contacts)
}

func readSender(data []byte) *sender {
	if data == nil {
		return &sender{}
	}
	version := min(data[0], strangeVersion)
	r := fields.Read(data, version)
	s := &sender{busy: r.Int64(), contacts: r.Uvarint()}
	if version == strangeVersion {
		s.strange = r.Int64()
	}
	r.End()
	return s
}
