package broker

import (
	"encoding/binary"
	"slices"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/store"
)

// A record is one session as the Machine knows it. Everything in it follows
// from the log and is in the store; this copy saves reading it. The Machine's
// goroutine alone touches it.
type record struct {
	client    string
	principal string
	session   uint64 // its number; a session that begins anew gets a new one
	epoch     uint64 // of its latest connection; greater than any before, of any session

	version    uint8
	recvMax    uint16
	expiry     uint32 // seconds after the connection's end; 0: ends with it
	subs       uint32 // how many subscriptions the store has
	node       string // that holds the connection; empty while there is none
	life       uint64 // the node's incarnation
	offlineAt  int64  // when the latest connection ended, log time; 0 while connected
	seenAt     int64  // if its node died: when that was last heard of, log time; else 0
	will       *event.Will
	willAt     int64 // when a delayed will is due; 0 for none
	queue      queue
	queueDirty bool // queue differs from its stored form
	isOver     bool // it is in Machine.over
	over       bool // its session has ended
	wildcards  int  // how many of what is counted of it are subscriptions with wildcards, if it has a user

	// inbound are the packet ids of QoS 2 publishes not yet released; nil
	// until there is one. At most 65,535; the protocol allows far fewer.
	inbound map[uint16]struct{}

	// marks are the newest marks of the queue by resource, as far as they are
	// in it; nil until there is one.
	marks map[string]uint64

	// refs counts the entries of the queue by reference; nil until one has one.
	// It follows from what is in the queue alone, however it came there.
	refs map[string]int

	// What streams owe it, oldest first; nil for nothing. Of those of its queue's
	// numbers that fall to them, direct are the ones that something else has which
	// was queued meanwhile, and is not over.
	debts      debts
	direct     spans
	told       uint64 // what ready was when this node's loop was last told; not state
	debtsDirty bool   // debts differ from their stored form

	// Of entries of the log: the one by which it was away and first owed something;
	// and what addedIn has queued for it while it was away.
	parked, addedIn uint64
	added           uint64
	addedBytes      int64
	groups          []*group     // of its shared subscriptions
	user            *userCount   // of its principal, nil if it has none, and of a group
	use             *domainCount // of its principal's domain, nil if it has none; of a group's its founder's
	copies          []uint64     // entries of the queue that it was given as a member of them, ascending: at most sharedAtOnce
}

// remember takes note of the packet id of a QoS 2 publish.
func (r *record) remember(id uint16) {
	if r.inbound == nil {
		r.inbound = map[uint16]struct{}{}
	}
	r.inbound[id] = struct{}{}
}

// forgetCopy takes note that an entry that it was given as one of a group is gone.
func (r *record) forgetCopy(seq uint64) {
	if i, is := slices.BinarySearch(r.copies, seq); is {
		r.copies = slices.Delete(r.copies, i, i+1)
	}
	if len(r.copies) == 0 {
		r.copies = nil
	}
}

func (r *record) connected() bool { return r.node != "" }
func (r *record) durable() bool   { return r.expiry > 0 }

// A queue is where a durable session stands. Entries are numbered without
// gaps; the store holds those from below to next that are not over.
type queue struct {
	below, sent, next uint64   // see opened
	maybe             uint64   // see opened; at least sent
	done              spans    // over although not below below
	received          []uint64 // taken by the client, PUBCOMP outstanding; ascending
	count             uint64   // entries in the store
	bytes             int64    // what they are charged for
	dropped           uint64   // lost to the bound since the client was told
	dues              []due    // ascending; not stored: see due
	recent            recent   // not stored
}

const recordVersion = 1

func (r *record) key(buf []byte) []byte {
	return append(store.Key(buf, store.Sessions), r.client...)
}

// append appends r as stored: what decodeRecord reads.
//
//	1 or 2 u8 | protocol version u8 | session 8 bytes | epoch 8 bytes |
//	receive maximum u16 | expiry u32 | life 8 bytes | offline at 8 bytes |
//	will at 8 bytes | [if 2: seen at 8 bytes] |
//	principal, node, with their lengths in front | [will]
func (r *record) append(b []byte) []byte {
	form := byte(recordVersion)
	if r.seenAt != 0 {
		form = recordSeen
	}
	b = append(b, form, r.version)
	b = binary.BigEndian.AppendUint64(b, r.session)
	b = binary.BigEndian.AppendUint64(b, r.epoch)
	b = binary.BigEndian.AppendUint16(b, r.recvMax)
	b = binary.BigEndian.AppendUint32(b, r.expiry)
	b = binary.BigEndian.AppendUint64(b, r.life)
	b = binary.BigEndian.AppendUint64(b, uint64(r.offlineAt))
	b = binary.BigEndian.AppendUint64(b, uint64(r.willAt))
	if form == recordSeen {
		b = binary.BigEndian.AppendUint64(b, uint64(r.seenAt))
	}
	b = store.AppendName(store.AppendName(b, r.principal), r.node)
	if r.will != nil {
		b = r.will.Append(b)
	}
	return b
}

const recordSeen = 2

const recordFixed = 2 + 8 + 8 + 2 + 4 + 8 + 8 + 8

// decodeRecord reads a stored session. The record owns its memory.
func decodeRecord(client string, b []byte) (*record, error) {
	if len(b) < recordFixed || b[0] != recordVersion && b[0] != recordSeen {
		return nil, event.ErrDamaged
	}
	seen := b[0] == recordSeen
	r := &record{
		client: client, version: b[1],
		session: store.Uint64At(b, 2), epoch: store.Uint64At(b, 10),
		recvMax: binary.BigEndian.Uint16(b[18:]), expiry: binary.BigEndian.Uint32(b[20:]),
		life: store.Uint64At(b, 24), offlineAt: int64(store.Uint64At(b, 32)), willAt: int64(store.Uint64At(b, 40)),
	}
	b = slices.Clone(b[recordFixed:])
	if seen {
		if len(b) < 8 {
			return nil, event.ErrDamaged
		}
		if r.seenAt = int64(store.Uint64At(b, 0)); r.seenAt == 0 {
			return nil, event.ErrDamaged
		}
		b = b[8:]
	}
	var ok1, ok2 bool
	r.principal, b, ok1 = cutName(b)
	r.node, b, ok2 = cutName(b)
	if !ok1 || !ok2 {
		return nil, event.ErrDamaged
	}
	if len(b) > 0 {
		r.will = new(event.Will)
		if err := r.will.Decode(b); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func cutName(b []byte) (name string, rest []byte, ok bool) {
	if len(b) < 2 {
		return "", nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return "", nil, false
	}
	return string(b[2 : 2+n]), b[2+n:], true
}

func (q *queue) append(b []byte) []byte {
	b = append(b, recordVersion)
	for _, v := range [...]uint64{q.below, q.sent - q.below, q.maybe - q.below, q.next - q.below, q.count, uint64(q.bytes), q.dropped} {
		b = binary.AppendUvarint(b, v)
	}
	bounds := make([]uint64, 0, 2*len(q.done))
	for _, s := range q.done {
		bounds = append(bounds, s.from, s.to)
	}
	return appendSeqs(appendSeqs(b, bounds, q.below), q.received, q.below)
}

func appendSeqs(b []byte, seqs []uint64, base uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(seqs)))
	for _, s := range seqs {
		b = binary.AppendUvarint(b, s-base)
		base = s
	}
	return b
}

func (q *queue) decode(b []byte) error {
	if len(b) == 0 || b[0] != recordVersion {
		return event.ErrDamaged
	}
	u := uvarints{left: b[1:]}
	q.below = u.take()
	q.sent = q.below + u.take()
	q.maybe = q.below + u.take()
	q.next = q.below + u.take()
	q.count, q.bytes, q.dropped = u.take(), int64(u.take()), u.take()
	bounds := u.takeSeqs(q.below)
	q.received = u.takeSeqs(q.below)
	if u.short || len(u.left) != 0 || len(bounds)%2 != 0 {
		return event.ErrDamaged
	}
	for i := 0; i < len(bounds); i += 2 {
		q.done = append(q.done, span{bounds[i], bounds[i+1]})
	}
	return nil
}

// Uvarints are numbers that a form has one after the other. Past the end they
// are 0, and short is set.
type uvarints struct {
	left  []byte
	short bool
}

func (u *uvarints) take() uint64 {
	v, n := binary.Uvarint(u.left)
	if n <= 0 {
		u.short, u.left = true, nil
		return 0
	}
	u.left = u.left[n:]
	return v
}

// takeSeqs reads what appendSeqs has written.
func (u *uvarints) takeSeqs(base uint64) (seqs []uint64) {
	n := u.take()
	if n > uint64(len(u.left)) {
		u.short = true
		return nil
	}
	for ; n > 0; n-- {
		base += u.take()
		seqs = append(seqs, base)
	}
	return seqs
}

// A storedSub is a subscription as the store has it. While its retained events
// are still on their way to a durable session, replaying is set: those after
// position, of what was retained up to since.
//
//	version u8 | since 8 bytes | flags u8: 0 replaying, 1 ends, 2 first |
//	[ends 8 bytes] | [first 8 bytes] | position, with its length in front | subscription
type storedSub struct {
	event.Subscription
	since     uint64 // place in the log at which the subscription began
	replaying bool
	position  string
	ends      int64 // the log time at which it ends with its window; 0 for never (see endsAt)

	// first is the queue's next at which it began: what had been queued before,
	// the node may have passed over while there was no subscription.
	first uint64

	group uint64 // of a shared subscription, by its number; it is stored with the group
}

const (
	subReplaying = 1 << 0
	subEnds      = 1 << 1
	subFirst     = 1 << 2
	subFlags     = 7
)

func subKey(buf []byte, session uint64, filter string) []byte {
	return append(store.AppendUint64(store.Key(buf, store.Subs), session), filter...)
}

func (s *storedSub) append(b []byte) []byte {
	b = append(b, recordVersion)
	b = binary.BigEndian.AppendUint64(b, s.since)
	var flags byte
	if s.replaying {
		flags |= subReplaying
	}
	if s.ends != 0 {
		flags |= subEnds
	}
	if s.first != 0 {
		flags |= subFirst
	}
	b = append(b, flags)
	if s.ends != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(s.ends))
	}
	if s.first != 0 {
		b = binary.BigEndian.AppendUint64(b, s.first)
	}
	b = store.AppendName(b, s.position)
	return s.Subscription.Append(b)
}

// decodeSub reads a stored subscription. It owns its memory.
func decodeSub(b []byte) (s storedSub, err error) {
	if len(b) < 10 || b[0] != recordVersion {
		return s, event.ErrDamaged
	}
	flags := b[9]
	if flags&^subFlags != 0 {
		return s, event.ErrDamaged
	}
	s.since, s.replaying = store.Uint64At(b, 1), flags&subReplaying != 0
	b = slices.Clone(b[10:])
	if flags&subEnds != 0 {
		if len(b) < 8 {
			return s, event.ErrDamaged
		}
		s.ends, b = int64(store.Uint64At(b, 0)), b[8:]
	}
	if flags&subFirst != 0 {
		if len(b) < 8 {
			return s, event.ErrDamaged
		}
		s.first, b = store.Uint64At(b, 0), b[8:]
	}
	var ok bool
	if s.position, b, ok = cutName(b); !ok {
		return s, event.ErrDamaged
	}
	return s, s.Subscription.Decode(b)
}
