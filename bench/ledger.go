package bench

import "slices"

// A track is what one subscriber has had from one publisher. Its zero value has
// had nothing.
//
// It tells a message that came twice from one that came late, which a mere "last
// number seen" cannot, and it takes one comparison as long as all goes well.
type track struct {
	next  uint64 // above every number seen
	holes []span // numbers below next that have not come; sorted, apart, not empty
}

// A span is the numbers from lo up to, and without, hi.
type span struct{ lo, hi uint64 }

// An arrival is what a track has to say about one delivery.
type arrival int

const (
	inOrder arrival = iota
	late            // a higher number of the same publisher came earlier
	again           // this number came earlier
)

// record enters the delivery of number seq.
func (t *track) record(seq uint64) arrival {
	if seq == t.next {
		t.next++
		return inOrder
	}
	if seq > t.next {
		t.holes = append(t.holes, span{t.next, seq})
		t.next = seq + 1
		return inOrder
	}
	i, _ := slices.BinarySearchFunc(t.holes, seq, func(s span, seq uint64) int {
		switch {
		case s.hi <= seq:
			return -1
		case s.lo > seq:
			return 1
		}
		return 0
	})
	if i == len(t.holes) || seq < t.holes[i].lo {
		return again
	}
	t.fill(i, seq)
	return late
}

// fill takes seq out of hole i.
func (t *track) fill(i int, seq uint64) {
	h := t.holes[i]
	switch {
	case h.lo == seq && h.hi == seq+1:
		t.holes = slices.Delete(t.holes, i, i+1)
	case h.lo == seq:
		t.holes[i].lo++
	case h.hi == seq+1:
		t.holes[i].hi--
	default:
		t.holes[i].hi = seq
		t.holes = slices.Insert(t.holes, i+1, span{seq + 1, h.hi})
	}
}

// missing returns how many of the numbers below sent have not come.
func (t *track) missing(sent uint64) uint64 {
	n := sent - min(sent, t.next)
	for _, h := range t.holes {
		n += h.hi - h.lo
	}
	return n
}

// A Tally is what became of every message of a run, from its first to the end of
// the drain: not only of those in the measured time.
type Tally struct {
	Sent        uint64 // messages
	Acked       uint64 // messages whose exchange with the broker has ended; 0 at QoS 0
	Unacked     uint64 // the others at QoS 1 and 2
	Refused     uint64 // acknowledged with a reason that is an error
	Delivered   uint64 // deliveries, each counted once
	States      uint64 // what subscriptions began with; not among Delivered
	Undelivered uint64 // deliveries that should have come and did not
	Duplicates  uint64 // deliveries that had come before
	Inversions  uint64 // deliveries after a later one of the same publisher
	Strays      uint64 // deliveries of a topic that the client did not ask for
	Corrupt     uint64 // deliveries whose payload is not what was sent
	Stalls      uint64 // times that a publisher's window was written off
}

// fault says why a line does not count, or "" when it does. QoS 0 may lose and
// QoS 1 may repeat; nothing may invent, damage or reorder.
func (t Tally) fault(qos byte) string {
	switch {
	case t.Strays > 0:
		return "deliveries nobody asked for"
	case t.Corrupt > 0:
		return "damaged payloads"
	case t.Inversions > 0:
		return "wrong order"
	case t.Duplicates > 0 && qos != 1:
		return "duplicates"
	case t.Delivered == 0:
		return "nothing delivered"
	case qos == 0:
		return ""
	case t.Undelivered > 0:
		return "undelivered"
	case t.Unacked > 0:
		return "unacknowledged"
	case t.Refused > 0:
		return "refused"
	}
	return ""
}
