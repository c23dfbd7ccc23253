// Package event holds what travels through Bellwire: the Event, the Commands
// that the replicated log carries, and their versioned binary form.
//
// The form is ours alone (no client ever sees it) but it is on every disk:
// fields are only ever appended, a new meaning is a new kind of command, and
// the golden files under testdata/ hold each form that was ever written.
// Decoding aliases the bytes it is given; whoever keeps a decoded value keeps
// them.
package event

import "math"

// An Event is one thing that was announced on a topic. Whoever orders or
// delivers it first fills it in; after that only Frames changes.
type Event struct {
	Topic   string // a valid topic name, at most 65,535 bytes
	Payload []byte // opaque octets

	// Props are the MQTT 5 properties that a server forwards unaltered, in
	// wire form and in the order in which they came: Payload Format, Content
	// Type, Response Topic, Correlation Data, User Property (5.0 3.3.2.3).
	// Message Expiry is Expires; Topic Alias and Subscription Identifier
	// belong to one connection and are never here.
	Props []byte

	QoS    uint8 // as published, 0 to 2
	Retain bool  // as published

	// At is when the origin received the event: unix nanoseconds by the
	// origin's clock. Expires is the first instant at which it is no longer
	// sent, 0 for never.
	At, Expires int64

	// Origin is the number of the session that published, 0 for the broker's
	// own events. Client and Principal name it where they are known; they are
	// not part of the binary form.
	Origin            uint64
	Client, Principal string

	// Position is the event's place in the log (see PositionAt): greater for what was
	// ordered later, 0 for an event that was never ordered.
	Position uint64

	// Frames is a cache for whoever puts the event on a wire: one encoded
	// form per variant, empty if not yet made, of no meaning to anybody else.
	// One goroutine at a time delivers an event, and guards it by that.
	Frames [FrameVariants][]byte
}

// positionBits is what a Position leaves for the number within an entry.
const positionBits = 20

// PositionAt returns the position of the n-th command of a log entry.
func PositionAt(index uint64, n uint32) uint64 {
	return index<<positionBits | uint64(min(n, 1<<positionBits-1))
}

// EndOf returns the greatest position in a log entry.
func EndOf(index uint64) uint64 { return PositionAt(index, 1<<positionBits-1) }

// FrameVariants is the number of encoded forms of one event: protocol version
// (3.1.1 or 5) times QoS (0 to 2) times retain flag.
const FrameVariants = 12

// Reset makes e empty for reuse and keeps the memory of its frames.
func (e *Event) Reset() {
	for i := range e.Frames {
		if len(e.Frames[i]) > 0 { // most are never made: they are left alone
			e.Frames[i] = e.Frames[i][:0]
		}
	}
	e.Topic, e.Payload, e.Props = "", nil, nil
	e.QoS, e.Retain = 0, false
	e.At, e.Expires = 0, 0
	e.Origin, e.Client, e.Principal = 0, "", ""
	e.Position = 0
}

// momentary is how long an event lives whose Message Expiry Interval is 0: half a
// second. "If the Message Expiry Interval has passed and the Server has not managed
// to start onward delivery" it must go (5.0 [MQTT-3.3.2-5]): it is for whoever is
// there at once, and for nobody who comes later.
//
// Such an event is told from one that lives for a second by how long it lives.
// The interval begins when the packet is read, and At is taken a moment later: less
// than a quarter of a second, or the one is forwarded as the other.
const momentary = int64(5e8)

// ExpiresAt returns when an event expires whose interval, in seconds, begins at at.
func ExpiresAt(at int64, interval uint32) int64 {
	return at + max(int64(interval)*1e9, momentary)
}

// Remaining returns the Message Expiry Interval left at now, in seconds,
// rounded up so that a live event never announces 0, unless its publisher did,
// and whether the event has an expiry at all. An expired event has 0 left (5.0
// [MQTT-3.3.2-6]).
func (e *Event) Remaining(now int64) (seconds uint32, expires bool) {
	if e.Expires == 0 {
		return 0, false
	}
	left := e.Expires - now
	if left <= 0 || e.Momentary() {
		return 0, true
	}
	return SecondsUntil(e.Expires, now), true
}

// SecondsUntil is the Message Expiry Interval of what is to be gone by an instant after
// now: in seconds, rounded up.
func SecondsUntil(at, now int64) uint32 { return uint32(min((at-now-1)/1e9+1, math.MaxUint32)) }

// Momentary says whether the event's Message Expiry Interval is 0.
func (e *Event) Momentary() bool { return e.Expires != 0 && e.Expires-e.At <= 3*momentary/2 }

// Expired says whether the event may no longer be sent at now.
func (e *Event) Expired(now int64) bool { return e.Expires != 0 && now >= e.Expires }

// Size is what a queued event is charged for, in bytes.
func (e *Event) Size() int { return len(e.Topic) + len(e.Payload) + len(e.Props) + 32 }

// The binary form of an event:
//
//	flags u8: 0-1 QoS, 2 retain, 3 has Expires, 4 has Props
//	topic: uvarint length, bytes
//	origin: uvarint
//	[props: uvarint length, bytes]
//	at: 8 bytes   [expires: 8 bytes]
//	payload: uvarint length, bytes
const (
	flagQoS     = 3
	flagRetain  = 1 << 2
	flagExpires = 1 << 3
	flagProps   = 1 << 4
	flagsKnown  = 0x1f
)

// Append appends the binary form of e to b.
func (e *Event) Append(b []byte) []byte {
	flags := e.QoS & flagQoS
	if e.Retain {
		flags |= flagRetain
	}
	if e.Expires != 0 {
		flags |= flagExpires
	}
	if len(e.Props) > 0 {
		flags |= flagProps
	}
	b = append(b, flags)
	b = appendString(b, e.Topic)
	b = appendUint(b, e.Origin)
	if flags&flagProps != 0 {
		b = appendBytes(b, e.Props)
	}
	b = appendInt64(b, e.At)
	if flags&flagExpires != 0 {
		b = appendInt64(b, e.Expires)
	}
	return appendBytes(b, e.Payload)
}

// Decode reads the binary form of an event, which must be all of b, into e.
// Strings and slices of e alias b. Fields that are not part of the form are
// left as they are.
func (e *Event) Decode(b []byte) error {
	r := reader{b: b}
	e.decode(&r)
	return r.end()
}

func (e *Event) decode(r *reader) {
	flags := r.byte()
	if flags&^flagsKnown != 0 || flags&flagQoS == 3 {
		r.fail("event flags %#x", flags)
		return
	}
	e.QoS, e.Retain = flags&flagQoS, flags&flagRetain != 0
	e.Topic, e.Origin = r.string(), r.uvarint()
	e.Props = nil
	if flags&flagProps != 0 {
		e.Props = r.bytes()
	}
	e.At, e.Expires = r.int64(), 0
	if flags&flagExpires != 0 {
		e.Expires = r.int64()
	}
	e.Payload = r.bytes()
}
