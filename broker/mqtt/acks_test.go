package mqtt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// Acknowledgements leave in the order of the publishes, each once and with its
// own outcome, in whatever order the outcomes come.
func TestAcksLeaveInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		c := offline(5)
		in := newInput(false)
		var want strings.Builder
		var tags []uint64
		errs := map[uint64]error{}
		next := 1
		var w broker.Wave
		var got strings.Builder
		for range 300 {
			if len(tags) < 100 && r.IntN(2) == 0 {
				packet := []byte{packets.Puback, packets.Pubrec, packets.Pubcomp}[r.IntN(3)]
				id := uint16(next)
				next++
				tag, _, err := c.owe(in, packet, id)
				if err != nil {
					t.Fatal(err)
				}
				tags = append(tags, tag)
				code := byte(0)
				if r.IntN(4) == 0 {
					errs[tag], code = broker.ErrRefused, codeNotAuthorized
					if packet == packets.Pubcomp {
						errs[tag], code = broker.ErrNoPacketID, codeSuccess // it is complete
					}
				}
				fmt.Fprintf(&want, "%d:%d:%x ", packet, id, code)
				if packet == packets.Pubrec && code == 0 {
					c.acks.qos2.remove(id) // as its PUBCOMP would
				}
			} else if len(tags) > 0 {
				i := r.IntN(len(tags))
				c.Complete(tags[i], errs[tags[i]], &w)
				tags = append(tags[:i], tags[i+1:]...)
			}
			readAcks(t, c.taken(), &got)
		}
		for _, tag := range tags {
			c.Complete(tag, errs[tag], &w)
		}
		readAcks(t, c.taken(), &got)
		if got.String() != want.String() {
			t.Fatalf("round %d\n got %s\nwant %s", round, &got, &want)
		}
		if c.acks.len() != 0 || c.acks.qos1 != 0 || c.acks.qos2.len() != 0 {
			t.Errorf("round %d: %d owed, %d and %d under way at the end", round, c.acks.len(), c.acks.qos1, c.acks.qos2.len())
		}
		in.release()
	}
}

func readAcks(t *testing.T, b []byte, s *strings.Builder) {
	t.Helper()
	for len(b) > 0 {
		at, size, err := frameSize(b)
		if err != nil || size == 0 {
			t.Fatalf("% x: %v", b, err)
		}
		code := byte(0)
		if size > at+2 {
			code = b[at+2]
		}
		fmt.Fprintf(s, "%d:%d:%x ", b[0]>>4, uint16(b[at])<<8|uint16(b[at+1]), code)
		b = b[size:]
	}
}

// What a profile answers goes out with the acknowledgement it belongs to, to a
// client that wants it and takes packets of that size, and with no other.
//
// MQTT 5: 3.4.2-3, 3.5.2-3.
func TestAnswerGoesWithItsAcknowledgement(t *testing.T) {
	props := event.AppendUserProperty(nil, "evt-etag", "x1")
	with := append([]byte{packets.Puback << 4, byte(4 + len(props)), 0, 2, 0, byte(len(props))}, props...)
	plain := []byte{packets.Puback << 4, 2, 0, 2}
	for _, x := range []struct {
		version     byte
		problemInfo bool
		maxPacket   int
		want        []byte
	}{
		{5, true, 1 << 20, with},
		{5, false, 1 << 20, plain},
		{5, true, 16, plain},
		{4, true, 1 << 20, plain},
	} {
		c := offline(x.version)
		c.problemInfo, c.maxPacket = x.problemInfo, x.maxPacket
		in := newInput(false)
		var tags []uint64
		for id := range uint16(3) {
			tag, _, err := c.owe(in, packets.Puback, id+1)
			if err != nil {
				t.Fatal(err)
			}
			tags = append(tags, tag)
		}
		var w broker.Wave
		c.Answer(tags[1], props)
		for _, tag := range []uint64{tags[1], tags[2], tags[0]} {
			c.Complete(tag, nil, &w)
		}
		want := slices.Concat([]byte{packets.Puback << 4, 2, 0, 1}, x.want, []byte{packets.Puback << 4, 2, 0, 3})
		if got := c.taken(); !bytes.Equal(got, want) || c.acks.answers != nil {
			t.Errorf("%+v: got % x, want % x", x, got, want)
		}
		in.release()
	}
}

// No outcome but success is ever told as success to an MQTT 5 client, nor to a
// 3.1.1 client if the publish is worth sending again.
func TestLostIsNeverYes(t *testing.T) {
	const hang = 0x100
	for _, x := range []struct {
		err    error
		packet byte
		v4, v5 int // code, plus hang if the connection ends
	}{
		{nil, packets.Puback, 0, 0},
		{broker.ErrRefused, packets.Puback, codeBusy, codeNotAuthorized},
		{&broker.Refusal{Reason: "r"}, packets.Pubrec, codeBusy, codeNotAuthorized},
		{errBadTopic, packets.Puback, codeBusy, codeBadTopic},
		{broker.ErrBadEvent, packets.Puback, codeBusy, codeImplementation},
		{broker.ErrQuota, packets.Puback, codeBusy, codeQuota},
		{broker.ErrDiskFull, packets.Puback, hang | codeBusy, codeQuota},
		{broker.ErrNoCommit, packets.Puback, hang | codeBusy, codeImplementation},
		{broker.ErrUnknown, packets.Puback, hang | codeBusy, hang | codeBusy},
		{broker.ErrFailed, packets.Puback, hang | codeBusy, codeUnspecified},
		{errors.New("a bug"), packets.Pubrec, hang | codeBusy, codeUnspecified},
		{broker.ErrStale, packets.Puback, hang | codeTakenOver, hang | codeTakenOver},
		{broker.ErrClosing, packets.Puback, hang | codeShuttingDown, hang | codeShuttingDown},
		{broker.ErrSessionEnded, packets.Puback, hang | codeAdministrative, hang | codeAdministrative},
		{broker.ErrNoPacketID, packets.Pubcomp, 0, 0}, // its exchange is over
		{broker.ErrNoCommit, packets.Pubcomp, hang | codeBusy, hang | codeBusy},
		{broker.ErrUnknown, packets.Pubcomp, hang | codeBusy, hang | codeBusy},
	} {
		for version, want := range map[byte]int{4: x.v4, 5: x.v5} {
			a := answerTo(x.err, x.packet, version)
			got := int(a.code)
			if a.hangUp {
				got |= hang
			}
			if got != want {
				t.Errorf("%v, %s, version %d: got %#x, want %#x", x.err, packets.PacketNames[x.packet], version, got, want)
			}
			where := x.packet
			if a.hangUp {
				where = packets.Disconnect
			}
			if version == 5 && legal(where, a.code) != a.code {
				t.Errorf("%v: code %#x is not legal in %s", x.err, a.code, packets.PacketNames[where])
			}
		}
	}
}

// An idSet is a set, whatever its size.
func TestIDSet(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var s idSet
	model := map[uint16]bool{}
	for i := range 200_000 {
		id := uint16(r.IntN(300))
		if i/20_000%2 == 1 {
			id = uint16(r.IntN(20))
		}
		switch r.IntN(3) {
		case 0:
			if got := s.add(id); got == model[id] {
				t.Fatalf("add %d: new %v", id, got)
			}
			model[id] = true
		case 1:
			if got := s.remove(id); got != model[id] {
				t.Fatalf("remove %d: %v", id, got)
			}
			delete(model, id)
		default:
			if got := s.has(id); got != model[id] {
				t.Fatalf("has %d: %v", id, got)
			}
		}
		if s.len() != len(model) {
			t.Fatalf("%d elements, want %d", s.len(), len(model))
		}
	}
}
