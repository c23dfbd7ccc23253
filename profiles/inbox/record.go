package inbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
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

func idKey(topicName string, from kind.Addr, id string) string {
	return "\x02i" + topicName + "\x00" + from.String() + "\x00" + id
}

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
//	version u8 = 1, wake 8, iseq, first id, next id: uvarints, count uvarint,
//	then for each message kept: iseq, size: uvarints, expires 8
type box struct {
	wake            int64 // when the profile is woken for it, 0 for never
	iseq            uint64
	firstID, nextID uint64 // the slots of remembered ids are those from first to below next
	kept            []kept // by iseq
}

// A kept is a message that no device has yet.
type kept struct {
	iseq    uint64
	size    int
	expires int64
}

const recordVersion = 1

func (b *box) bytes() (sum int) {
	for _, k := range b.kept {
		sum += k.size
	}
	return sum
}

// keep keeps a message, which is the newest, as it goes to devices.
func (b *box) keep(tx *broker.ProfileTx, topicName string, m *kind.Message, e *event.Event) {
	b.kept = append(b.kept, kept{b.iseq, len(e.Payload), e.Expires})
	tx.Set(keptKey(topicName, b.iseq), appendKept(m, e))
}

// take removes a message and returns it; ok is false if it is not kept.
func (b *box) take(tx *broker.ProfileTx, topicName string, iseq uint64) (m kind.Message, e *event.Event, ok bool) {
	at, found := slices.BinarySearchFunc(b.kept, iseq, func(k kept, iseq uint64) int {
		if k.iseq < iseq {
			return -1
		}
		return int(min(k.iseq-iseq, 1))
	})
	if !found {
		return m, nil, false
	}
	m, e, ok = readKept(tx.Get(keptKey(topicName, iseq)))
	tx.Set(keptKey(topicName, iseq), nil)
	b.kept = slices.Delete(b.kept, at, at+1)
	return m, e, ok
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
	out := fields.AppendInt64([]byte{recordVersion}, b.wake)
	for _, n := range []uint64{b.iseq, b.firstID, b.nextID, uint64(len(b.kept))} {
		out = binary.AppendUvarint(out, n)
	}
	for _, k := range b.kept {
		out = binary.AppendUvarint(binary.AppendUvarint(out, k.iseq), uint64(k.size))
		out = fields.AppendInt64(out, k.expires)
	}
	return out
}

// readBox reads what encode wrote; nil is an inbox to which nothing came.
func readBox(data []byte) *box {
	b := &box{}
	if data == nil {
		return b
	}
	r := fields.Read(data, recordVersion)
	b.wake = r.Int64()
	b.iseq, b.firstID, b.nextID = r.Uvarint(), r.Uvarint(), r.Uvarint()
	for range r.Uvarint() {
		b.kept = append(b.kept, kept{iseq: r.Uvarint(), size: int(r.Uvarint()), expires: r.Int64()})
	}
	r.End()
	return b
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
type knownID struct {
	iseq        uint64
	at          int64
	sent        time.Time
	wants, told kind.Dispositions
}

func (k *knownID) encode() []byte {
	b := binary.AppendUvarint([]byte{recordVersion}, k.iseq)
	b = fields.AppendInt64(b, k.at)
	b = fields.AppendInt64(b, kind.Nanos(k.sent))
	return append(b, byte(k.wants), byte(k.told))
}

// readID reads what encode wrote, nil of nil.
func readID(data []byte) *knownID {
	if data == nil {
		return nil
	}
	r := fields.Read(data, recordVersion)
	k := &knownID{iseq: r.Uvarint(), at: r.Int64(), sent: r.Time()}
	k.wants, k.told = kind.Dispositions(r.Byte()), kind.Dispositions(r.Byte())
	r.End()
	return k
}

// A sender is what is known of somebody who sends.
//
//	version u8 = 1, busy 8, contacts uvarint
type sender struct {
	busy     int64  // until when, at their rate, what they have sent keeps them busy
	contacts uint64 // to how many they have written
}

func (s *sender) encode() []byte {
	return binary.AppendUvarint(fields.AppendInt64([]byte{recordVersion}, s.busy), s.contacts)
}

func readSender(data []byte) *sender {
	if data == nil {
		return &sender{}
	}
	r := fields.Read(data, recordVersion)
	s := &sender{busy: r.Int64(), contacts: r.Uvarint()}
	r.End()
	return s
}
