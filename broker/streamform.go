package broker

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// How streams and debts are stored, and read at a start.

var streamsKey = append([]byte{byte(store.Meta)}, "streams"...)

// append appends what is stored of all streams together: what decode reads.
//
//	version u8 | era, newest stream's id, uvarints
func (s *streams) append(b []byte) []byte {
	b = append(b, recordVersion)
	return binary.AppendUvarint(binary.AppendUvarint(b, s.era), s.lastID)
}

func (s *streams) decode(b []byte) error {
	if len(b) == 0 || b[0] != recordVersion {
		return event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	s.era, s.lastID = u.take(), u.take()
	if u.short || len(u.left) > 0 {
		return event.ErrDamaged
	}
	s.stored = [2]uint64{s.era, s.lastID}
	return nil
}

// append appends s as stored: what decode reads.
//
//	version u8 | first, next, before, total, floor, uvarints | over u8 | filter
func (s *stream) append(b []byte) []byte {
	b = append(b, recordVersion)
	for _, v := range [...]uint64{s.first, s.next, s.before, s.total, s.floor} {
		b = binary.AppendUvarint(b, v)
	}
	return append(append(b, asByte(s.over)), s.filter...)
}

func (s *stream) decode(b []byte) error {
	if len(b) == 0 || b[0] != recordVersion {
		return event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	s.first, s.next, s.before, s.total, s.floor = u.take(), u.take(), u.take(), u.take(), u.take()
	s.over = u.takeFlag()
	if u.short || len(u.left) == 0 {
		return event.ErrDamaged
	}
	s.filter = string(u.left)
	return nil
}

// A streamed is one entry of a stream.
type streamed struct {
	position uint64 // the event's place in the log
	before   uint64 // what all entries before it are charged for, in bytes
	qos      uint8
	retain   bool
	expires  int64 // 0 for never
	size     uint64
	body     uint64
	topic    string
}

// append appends e as stored: what decodeStreamed reads.
//
//	version u8 | flags u8: 0-1 QoS, 2 retain, 5 expires | position 8 bytes |
//	[expires 8 bytes] | before, size, body number, uvarints | topic
func (e *streamed) append(b []byte) []byte {
	flags := e.qos
	if e.retain {
		flags |= entryRetain
	}
	if e.expires != 0 {
		flags |= entryExpires
	}
	b = append(b, recordVersion, flags)
	b = binary.BigEndian.AppendUint64(b, e.position)
	if e.expires != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(e.expires))
	}
	for _, v := range [...]uint64{e.before, e.size, e.body} {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, e.topic...)
}

// decodeStreamed reads an entry of a stream. It owns its memory.
func decodeStreamed(b []byte) (e streamed, err error) {
	if len(b) < 10 || b[0] != recordVersion {
		return e, event.ErrDamaged
	}
	flags := b[1]
	if flags&^(3|entryRetain|entryExpires) != 0 {
		return e, event.ErrDamaged
	}
	e.qos, e.retain, e.position = flags&3, flags&entryRetain != 0, store.Uint64At(b, 2)
	b = b[10:]
	if flags&entryExpires != 0 {
		if len(b) < 8 {
			return e, event.ErrDamaged
		}
		e.expires, b = int64(store.Uint64At(b, 0)), b[8:]
		if e.expires == 0 {
			return e, event.ErrDamaged
		}
	}
	u := uvarints{left: b}
	e.before, e.size, e.body = u.take(), u.take(), u.take()
	if u.short || e.body == 0 || len(u.left) == 0 {
		return e, event.ErrDamaged
	}
	e.topic = string(u.left)
	return e, nil
}

func mustStreamed(b []byte) streamed {
	e, err := decodeStreamed(b)
	if err != nil {
		panic(fatal{"entry of a stream: " + err.Error()})
	}
	return e
}

// debts are all of one session's.
type debts []debt

// append appends d as stored: what decode reads.
//
//	version u8 | how many, uvarint | of each:
//	  open u8 | number, left, bytes, uvarints |
//	  how many subscriptions, uvarint, and each with its length in front |
//	  how many joins, uvarint, and of each: member u8 |
//	    stream, next, before, counted, total, identifiers, uvarints
func (d debts) append(b []byte) []byte {
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, uint64(len(d)))
	for i := range d {
		b = d[i].append(b)
	}
	return b
}

func (d *debt) append(b []byte) []byte {
	b = append(b, asByte(d.open))
	b = binary.AppendUvarint(b, d.number)
	b = binary.AppendUvarint(b, d.left)
	b = binary.AppendUvarint(b, uint64(d.bytes))
	b = binary.AppendUvarint(b, uint64(len(d.subs)))
	for i := range d.subs {
		sub := d.subs[i].Append(nil)
		b = append(binary.AppendUvarint(b, uint64(len(sub))), sub...)
	}
	b = binary.AppendUvarint(b, uint64(len(d.joins)))
	for i := range d.joins {
		j := &d.joins[i]
		b = append(b, asByte(j.member))
		for _, v := range [...]uint64{j.s.id, j.next, j.before, j.counted, j.total, j.ids} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

func asByte(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// decodeDebts reads what debts.append wrote; streams are found by their ids.
func decodeDebts(b []byte, streamByID func(uint64) *stream) (all debts, err error) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	n := u.take()
	for ; n > 0 && err == nil; n-- {
		var d debt
		err = d.decode(&u, streamByID)
		all = append(all, d)
	}
	if err != nil || u.short || len(u.left) > 0 {
		return nil, event.ErrDamaged
	}
	return all, nil
}

func (d *debt) decode(u *uvarints, streamByID func(uint64) *stream) error {
	d.open = u.takeFlag()
	d.number, d.left, d.bytes = u.take(), u.take(), int64(u.take())
	for n := u.take(); n > 0 && !u.short; n-- {
		size := u.take()
		if size > uint64(len(u.left)) {
			return event.ErrDamaged
		}
		var s event.Subscription
		if err := s.Decode(slices.Clone(u.left[:size])); err != nil {
			return err
		}
		s.Filter = strings.Clone(s.Filter)
		d.subs, u.left = append(d.subs, s), u.left[size:]
	}
	for n := u.take(); n > 0 && !u.short; n-- {
		j := join{member: u.takeFlag()}
		j.s = streamByID(u.take())
		j.next, j.before, j.counted, j.total, j.ids = u.take(), u.take(), u.take(), u.take(), u.take()
		if j.s == nil || j.next > j.counted || j.before > j.total {
			return event.ErrDamaged
		}
		d.joins = append(d.joins, j)
	}
	if u.short {
		return event.ErrDamaged
	}
	return nil
}

// takeFlag takes one byte, which is 0 or 1.
func (u *uvarints) takeFlag() bool {
	if len(u.left) == 0 || u.left[0] > 1 {
		u.short, u.left = true, nil
		return false
	}
	set := u.left[0] == 1
	u.left = u.left[1:]
	return set
}

// loadStreams reads streams, and what they owe sessions, which must be there.
func (m *Machine) loadStreams() error {
	m.eager = nil
	m.streams.reset()
	m.streamWeights.Store(nil)
	m.bound = m.limits.queueBound()
	if v, ok := m.store.Get(streamsKey, nil); ok {
		if err := m.streams.decode(v); err != nil {
			return fmt.Errorf("machine: streams: %w", err)
		}
	}
	err := m.each(store.Heads, "streams", func(key, value []byte) error {
		if len(key) != 8 {
			return event.ErrDamaged
		}
		s := &stream{id: store.Uint64At(key, 0), refs: map[uint64]int{}}
		if err := s.decode(value); err != nil {
			return err
		}
		m.streams.add(s)
		m.streamWeights.Store(m.streams.index)
		m.noteFat(s)
		return nil
	})
	if err != nil {
		return err
	}
	return m.each(store.Debts, "debts", func(key, value []byte) (err error) {
		if len(key) != 8 {
			return event.ErrDamaged
		}
		r := m.numbers[store.Uint64At(key, 0)]
		if r == nil {
			return event.ErrDamaged
		}
		if r.debts, err = decodeDebts(value, func(id uint64) *stream { return m.streams.byID[id] }); err != nil {
			return err
		}
		for i := range r.debts {
			for k := range r.debts[i].joins {
				j := &r.debts[i].joins[k]
				j.s.refer(j.next)
				if j.present() {
					j.s.members++
				}
			}
		}
		return nil
	})
}

// loadJoined counts the bodies that entries of streams refer to, and leaves out of
// the queues' index who has joined.
func (m *Machine) loadJoined() error {
	for _, r := range m.numbers { // in any order: each for itself
		if d := r.openDebt(); d != nil {
			m.leaveEager(r, d)
		}
	}
	return m.each(store.Streams, "streams", func(key, value []byte) error {
		e, err := decodeStreamed(value)
		if err != nil || len(key) != 16 {
			return event.ErrDamaged
		}
		m.segment(e.body).live++
		return nil
	})
}
