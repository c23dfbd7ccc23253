package mqtt

import (
	"errors"
	"math"
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
)

// An ack is an acknowledgement that we owe: PUBACK, PUBREC or PUBCOMP.
type ack struct {
	err    error // what became of it, if done
	id     uint16
	packet byte
	done   bool
}

// acks are the acknowledgements that we owe a client, in the order in which
// what they acknowledge came. Outcomes arrive in any order and from any
// goroutine; acknowledgements leave in this one (5.0 4.6).
//
// It is a ring: an acknowledgement's tag is its number, and the number its
// place. Its lock is the connection's. It is at most receiveMaximum
// long, twice that for MQTT 5; the reader sees to that.
type acks struct {
	ring       []ack  // its length is a power of two, or 0
	head, tail uint64 // tags of the oldest that is owed, and of the next

	answers map[uint64][]byte // User Properties that go with one, by tag; mostly nil

	// later is why the publish with the tag laterTag was refused for now: the
	// client is to send it again. Until it has been told, what it publishes is
	// refused for the same reason. Taken, that would come to subscribers before what
	// its publisher sent first and sends again, and a client whose connection ends
	// before its turn to be told could not even know. Nil: nothing was.
	later    error
	laterTag uint64

	// What of an MQTT 5 client's is under way, which is what counts against
	// our Receive Maximum: publishes of QoS 1, and the packet ids of those of
	// QoS 2 until PUBCOMP. (Whether a QoS 2 publish is a repeat and must not
	// be routed again is the session's to know.)
	qos1 int
	qos2 idSet
}

const (
	minRing  = 8
	keepRing = 64
)

func (a *acks) len() int { return int(a.tail - a.head) }

// push takes the next place and returns its tag.
func (a *acks) push(packet byte, id uint16) uint64 {
	if a.len() == len(a.ring) {
		a.grow()
	}
	tag := a.tail
	a.ring[tag&uint64(len(a.ring)-1)] = ack{id: id, packet: packet}
	a.tail++
	return tag
}

func (a *acks) grow() {
	ring := make([]ack, max(minRing, 2*len(a.ring)))
	for t := a.head; t < a.tail; t++ {
		ring[t&uint64(len(ring)-1)] = a.ring[t&uint64(len(a.ring)-1)]
	}
	a.ring = ring
}

// settle notes what became of tag.
func (a *acks) settle(tag uint64, err error) {
	k := &a.ring[tag&uint64(len(a.ring)-1)]
	k.done, k.err = true, err
	if errors.Is(err, broker.ErrNoCommit) || errors.Is(err, broker.ErrDiskFull) {
		a.later, a.laterTag = err, max(a.laterTag, tag)
	}
}

// pop returns the oldest acknowledgement, if it may leave, and the properties
// that go with it.
func (a *acks) pop() (k ack, props []byte, ok bool) {
	if a.head == a.tail {
		return k, nil, false
	}
	p := &a.ring[a.head&uint64(len(a.ring)-1)]
	if !p.done {
		return k, nil, false
	}
	if a.answers != nil {
		if props = a.answers[a.head]; props != nil {
			delete(a.answers, a.head)
		}
		if len(a.answers) == 0 {
			a.answers = nil
		}
	}
	k, *p = *p, ack{}
	if a.later != nil && a.head == a.laterTag {
		a.later = nil
	}
	a.head++
	return k, props, true
}

// shrink gives back memory when nothing is owed: what a burst took, and with
// idle also what a steady flow takes.
func (a *acks) shrink(idle bool) {
	if a.head == a.tail && (idle || len(a.ring) > keepRing) {
		a.ring = nil
	}
	if idle {
		a.qos2.shrink()
	}
}

// begin notes a publish that came, unless it repeats one that is under way,
// and returns how many are.
func (a *acks) begin(qos byte, id uint16) (under int) {
	if qos == 1 {
		a.qos1++
	} else {
		a.qos2.add(id)
	}
	return a.qos1 + a.qos2.len()
}

// end notes that an acknowledgement with that code leaves.
func (a *acks) end(packet byte, id uint16, code byte) {
	switch {
	case packet == packets.Puback:
		a.qos1--
	case packet == packets.Pubcomp, code >= codeUnspecified:
		a.qos2.remove(id)
	}
}

// owe takes the next place among the acknowledgements, for a publish (packet
// is PUBACK or PUBREC) or a release (PUBCOMP).
//
// It holds the reader while too many are owed: nothing more is read, and the
// keep alive does not run. Of an MQTT 5 client that only holds a flood of
// PUBRELs: it has been told how many publishes are too many, and one more is a
// fault.
//
// later is why a publish is to be refused for now, nil if it is not: see acks.
func (c *conn) owe(in *input, packet byte, id uint16) (tag uint64, later, err error) {
	most := c.receiveMaximum()
	if c.version == 5 {
		most *= 2
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.acks.len() >= most && !c.ending {
		// What waits in our wave may be what the client waits for.
		c.mu.Unlock()
		in.wave.Flush()
		c.mu.Lock()
		if c.acks.len() >= most && !c.ending {
			c.wait()
		}
	}
	if c.ending {
		return 0, nil, errEnded
	}
	if c.version == 5 && packet != packets.Pubcomp {
		if c.acks.begin(packet-packets.Puback+1, id) > c.receiveMaximum() {
			c.srv.stats.Over[OverInFlight].Add(1)
			return 0, nil, &fault{codeReceiveMaximum, "more publishes under way than the Receive Maximum"}
		}
	}
	return c.acks.push(packet, id), c.acks.later, nil
}

// receiveMaximum is Limits.ReceiveMaximum. Who is of this process has all packet ids: a bridge
// brings what its peer has under way, which may be as much (3.1.1 has no such bound), and can
// hold none of it back, for the releases of some may come behind others.
func (c *conn) receiveMaximum() int {
	if c.by.Internal {
		return math.MaxUint16
	}
	return c.limits.ReceiveMaximum
}

// Answer keeps what goes with the acknowledgement of that tag; see
// broker.Answerer.
func (c *conn) Answer(tag uint64, props []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A client that wants no problem information gets no User Property but in
	// PUBLISH, CONNACK and DISCONNECT (5.0 [MQTT-3.1.2-29]).
	if c.version < 5 || !c.problemInfo || c.ending {
		return
	}
	if c.acks.answers == nil {
		c.acks.answers = map[uint64][]byte{}
	}
	c.acks.answers[tag] = props
}

// Complete queues the acknowledgement with that tag, and those behind it that
// had to wait for it; see broker.Completer.
func (c *conn) Complete(tag uint64, err error, w *broker.Wave) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks.settle(tag, err)
	for {
		k, props, ok := c.acks.pop()
		if !ok {
			break
		}
		if !c.ending {
			c.putAnswer(k, props, w)
		}
		c.wakeReader()
	}
	c.acks.shrink(false)
}

// putAnswer queues one acknowledgement, or the end of the connection where
// none would be true. With mu held.
func (c *conn) putAnswer(k ack, props []byte, w *broker.Wave) {
	a := answerTo(k.err, k.packet, c.version)
	if c.version == 5 {
		c.acks.end(k.packet, k.id, a.code)
	}
	c.dirty(w)
	if a.hangUp {
		c.beginEnd(endTold, a.code, a.reason)
		return
	}
	if k.err != nil && k.packet != packets.Pubcomp {
		c.srv.stats.Dropped[DropRefused].Add(1)
	}
	c.putAck(k.packet, k.id, a.code, a.reason, props)
}

// An answer is what the sender of a QoS 1 or 2 PUBLISH, or of a PUBREL, is
// told: an acknowledgement with code and reason, which a 3.1.1 client does not
// see, or the end of its connection.
type answer struct {
	code   byte
	reason string
	hangUp bool // an MQTT 5 client is sent DISCONNECT with code first
}

// answerTo translates what became of a publish or a release into an answer.
func answerTo(err error, packet, version byte) answer {
	if err == nil {
		return answer{}
	}
	if code, reason, ended := endOf(err); ended {
		return answer{code, reason, true}
	}
	if packet == packets.Pubcomp {
		if errors.Is(err, broker.ErrNoPacketID) {
			// As a rule our PUBCOMP was lost with the connection, and the
			// client asks again: what it published has been routed, and a code
			// that refuses would have it published anew. What we keep of an
			// exchange that is over cannot tell this from an id that never
			// was, so both are complete; 0x92 is legal for either, and wanted
			// by neither (5.0 3.7.2.1).
			return answer{}
		}
		// PUBCOMP has no code for later; the client sends PUBREL again when
		// it resumes.
		return answer{codeBusy, err.Error(), true}
	}
	if version < 5 {
		// A 3.1.1 acknowledgement cannot say no: a server acknowledges or
		// hangs up (3.1.1 [MQTT-3.3.5-2]). What was refused would be refused
		// again, so hanging up would bring it back for ever. What was not
		// ordered is worth sending again, and only hanging up asks for that.
		final := errors.Is(err, broker.ErrRefused) || errors.Is(err, broker.ErrBadEvent) || errors.Is(err, errBadTopic) ||
			errors.Is(err, broker.ErrQuota) && !errors.Is(err, broker.ErrDiskFull)
		return answer{code: codeBusy, hangUp: !final}
	}
	if errors.Is(err, broker.ErrUnknown) {
		// Neither yes nor no would be true; a client that keeps its session
		// sends the publish again.
		return answer{codeBusy, "outcome unknown", true}
	}
	code, reason := refusal(err)
	return answer{code: code, reason: reason}
}

// whichBound is what an ErrQuota says of the bound that is reached; empty if nothing.
func whichBound(err error) string {
	_, which, _ := strings.Cut(err.Error(), broker.ErrQuota.Error()+": ")
	return which
}

// errBadTopic means that a client published where nobody can.
var errBadTopic = errors.New("not a topic to publish to")

// refusal translates why something was not done into a reason code and a
// Reason String.
func refusal(err error) (code byte, reason string) {
	var r *broker.Refusal
	switch {
	case errors.As(err, &r) && r.Cause == nil:
		return codeNotAuthorized, r.Reason
	case errors.As(err, &r):
		code, _ = refusal(r.Cause)
		return code, r.Reason
	case errors.Is(err, broker.ErrPayload):
		return codeBadPayload, ""
	case errors.Is(err, broker.ErrTopicName):
		return codeBadTopic, ""
	case errors.Is(err, broker.ErrCondition):
		return codeImplementation, ""
	case errors.Is(err, broker.ErrNotShared):
		return codeNoShared, ""
	case errors.Is(err, broker.ErrRefused):
		return codeNotAuthorized, ""
	case errors.Is(err, errBadTopic):
		return codeBadTopic, ""
	case errors.Is(err, broker.ErrBadEvent):
		return codeImplementation, whyBadEvent
	case errors.Is(err, broker.ErrDiskFull):
		return codeQuota, whyDiskFull
	case errors.Is(err, broker.ErrQuota):
		return codeQuota, whichBound(err)
	case errors.Is(err, broker.ErrNoCommit):
		// 0x88, server unavailable, would say it, but only CONNACK may carry
		// it. Elsewhere the Reason String has to.
		return codeImplementation, whyNoQuorum
	}
	return codeUnspecified, ""
}

// endOf says whether err means that the whole connection is over, and how that
// is told.
func endOf(err error) (code byte, reason string, ended bool) {
	switch {
	case errors.Is(err, broker.ErrStale):
		return codeTakenOver, "", true
	case errors.Is(err, broker.ErrClosing):
		return codeShuttingDown, "", true
	case errors.Is(err, broker.ErrSessionEnded):
		return codeAdministrative, "session ended", true
	case errors.Is(err, broker.ErrKicked):
		return codeAdministrative, err.Error(), true
	case errors.Is(err, broker.ErrAway):
		return codeUseAnother, err.Error(), true
	case errors.Is(err, broker.ErrMissed):
		return codeBusy, err.Error(), true
	case errors.Is(err, broker.ErrSlow):
		return codeQuota, "client too slow", true
	}
	return 0, "", false
}

// endCode translates the cause of an end into the code of the DISCONNECT.
func endCode(cause error) (code byte, reason string) {
	if code, reason, ended := endOf(cause); ended {
		return code, reason
	}
	code, reason = refusal(cause)
	return legal(packets.Disconnect, code), reason
}
