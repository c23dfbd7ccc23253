package bench

import (
	"math/bits"
	"math/rand/v2"
	"time"
)

// A source is a topic and whoever publishes to it. Its messages are numbered, so
// that each subscriber's track tells what became of them.
type source struct {
	number  uint32
	topic   string
	from    *conn
	window  *window
	message template
	seq     uint64   // of the next message
	tracks  []*track // one for each delivery that a message should cause

	// Of a document, how it was shown first, and where its stamp was: but for
	// that all are alike.
	first   []byte
	firstAt int
}

// A window is what a closed loop keeps outstanding: for most rows one for each
// publisher. It has room while fewer deliveries than messages x fan-out are owed
// to subscribers and, at QoS 1 and 2, fewer than messages are unacknowledged.
type window struct {
	sources  []*source
	turn     int // whose turn it is, of sources; negative when that is left to chance
	left     int // messages that may be sent yet; negative for no end of them
	messages int // the limit
	fanOut   int // deliveries for a message, on average
	receive  int // the broker's own limit of unacknowledged messages

	owed    int
	unacked int
	moved   int64 // when it last sent into silence, or something came back
	hungry  bool  // is in load.hungry
}

// room says whether one more message may be sent, with the limit times slack.
func (w *window) room(slack int) bool {
	return w.left != 0 && w.owed < w.messages*slack*w.fanOut && w.unacked < min(w.messages*slack, w.receive)
}

func (w *window) idle() bool { return w.owed == 0 && w.unacked == 0 }

// spent says whether nothing is to be sent any more, nor to be waited for.
func (w *window) spent() bool { return w.left == 0 && w.idle() }

// pick chooses whose turn it is.
func (w *window) pick(r *rand.Rand) *source {
	switch {
	case len(w.sources) == 1:
		return w.sources[0]
	case w.turn >= 0:
		return w.sources[w.turn]
	}
	return w.sources[r.IntN(len(w.sources))]
}

// sent notes that whom pick chose has sent a message.
func (w *window) sent() {
	if w.turn >= 0 {
		w.turn = (w.turn + 1) % len(w.sources)
	}
	if w.left > 0 {
		w.left--
	}
}

// A publisher is a connection's sending side.
type publisher struct {
	window *window
	ids    idSet
	sent   []int64 // when what is in flight was published, by id; at QoS 0 there is none
}

// A subscriber is a connection's receiving side.
type subscriber struct {
	only   track // of the one source, if there is but one
	number uint32
	many   map[uint32]*track // by source, else
}

// track returns what has come from a source, nil when nothing should.
func (s *subscriber) track(source uint32) *track {
	if s.many != nil {
		return s.many[source]
	}
	if source != s.number {
		return nil
	}
	return &s.only
}

// A schedule says when the messages of an open loop are due.
type schedule struct {
	every time.Duration
	next  int64
	count int
}

// An idSet is the packet ids of a publisher that are in flight.
type idSet struct {
	used [1024]uint64
	last uint16
}

// take returns an id that is not in flight. There is always one: a window is
// far below 65,535, and what was written off is a few windows at most.
func (s *idSet) take() uint16 {
	for {
		s.last++
		if w, bit := &s.used[s.last>>6], uint64(1)<<(s.last&63); s.last != 0 && *w&bit == 0 {
			*w |= bit
			return s.last
		}
	}
}

// put ends the flight of id, and says whether it was in flight.
func (s *idSet) put(id uint16) bool {
	w, bit := &s.used[id>>6], uint64(1)<<(id&63)
	was := *w&bit != 0
	*w &^= bit
	return was
}

func (s *idSet) len() int {
	n := 0
	for _, w := range s.used {
		n += bits.OnesCount64(w)
	}
	return n
}
