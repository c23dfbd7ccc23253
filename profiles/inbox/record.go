package inbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
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
	out := binary.BigEndian.AppendUint64([]byte{recordVersion}, uint64(b.wake))
	for _, n := range []uint64{b.iseq, b.firstID, b.nextID, uint64(len(b.kept))} {
		out = binary.AppendUvarint(out, n)
	}
	for _, k := range b.kept {
		out = binary.AppendUvarint(binary.AppendUvarint(out, k.iseq), uint64(k.size))
		out = binary.BigEndian.AppendUint64(out, uint64(k.expires))
	}
	return out
}

// readBox reads what encode wrote; nil is an inbox to which nothing came.
func readBox(data []byte) *box {
	b := &box{}
	if data == nil {
		return b
	}
	r := newReader(data)
	b.wake = r.int64()
	b.iseq, b.firstID, b.nextID = r.uvarint(), r.uvarint(), r.uvarint()
	for range r.uvarint() {
		b.kept = append(b.kept, kept{iseq: r.uvarint(), size: int(r.uvarint()), expires: r.int64()})
	}
	r.end()
	return b
}

// appendKept is what is stored of a message that is kept.
//
//	version u8 = 1; from, to, id: strings; sent 8; wants u8; then the event
func appendKept(m *kind.Message, e *event.Event) []byte {
	b := []byte{recordVersion}
	for _, s := range []string{m.From.String(), m.To.String(), m.ID} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(kind.Nanos(m.Sent)))
	return e.Append(append(b, byte(m.Wants)))
}

// readKept reads what appendKept wrote; ok is false of nil.
func readKept(data []byte) (m kind.Message, e *event.Event, ok bool) {
	if data == nil {
		return m, nil, false
	}
	r := newReader(bytes.Clone(data)) // the event aliases it
	m.From, m.To, m.ID = kind.Of(r.text()), kind.Of(r.text()), r.text()
	m.Sent = instant(r.int64())
	m.Wants = kind.Dispositions(r.byte())
	e = new(event.Event)
	if err := e.Decode(r.b); err != nil {
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
	b = binary.BigEndian.AppendUint64(b, uint64(k.at))
	b = binary.BigEndian.AppendUint64(b, uint64(kind.Nanos(k.sent)))
	return append(b, byte(k.wants), byte(k.told))
}

// readID reads what encode wrote, nil of nil.
func readID(data []byte) *knownID {
	if data == nil {
		return nil
	}
	r := newReader(data)
	k := &knownID{iseq: r.uvarint(), at: r.int64(), sent: instant(r.int64())}
	k.wants, k.told = kind.Dispositions(r.byte()), kind.Dispositions(r.byte())
	r.end()
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
	return binary.AppendUvarint(binary.BigEndian.AppendUint64([]byte{recordVersion}, uint64(s.busy)), s.contacts)
}

func readSender(data []byte) *sender {
	if data == nil {
		return &sender{}
	}
	r := newReader(data)
	s := &sender{busy: r.int64(), contacts: r.uvarint()}
	r.end()
	return s
}

func instant(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.Unix(0, at).UTC()
}

// A reader takes fields from a record and panics when they end too early, or
// the record is of a later version: it is damage that checksums have let
// through, or this program is too old, and going on would make this node's state
// another than its peers'.
type reader struct{ b []byte }

var errShort = errors.New("inbox: a record that ends too early, or too late")

func newReader(b []byte) *reader {
	r := &reader{b}
	if v := r.byte(); v != recordVersion {
		panic(fmt.Sprintf("inbox: a record of version %d", v))
	}
	return r
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		panic(errShort)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) byte() byte   { return r.take(1)[0] }
func (r *reader) int64() int64 { return int64(binary.BigEndian.Uint64(r.take(8))) }
func (r *reader) text() string { return string(r.take(r.uvarint())) }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		panic(errShort)
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) end() {
	if len(r.b) > 0 {
		panic(errShort)
	}
}
