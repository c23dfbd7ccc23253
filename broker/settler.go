package broker

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// A settler tells the log, now and then, what clients have taken of their
// queues. Acknowledgements are gathered, because losing one only redelivers;
// except for PUBREC, whose release waits for the log (or a crash would deliver
// the event a second time after the client has forgotten its packet id).
type settler struct {
	b     *Broker
	every time.Duration

	mu     sync.Mutex // guards the following
	dirty  []*Session
	timer  *time.Timer
	closed bool
}

func (t *settler) init(b *Broker) {
	t.b, t.every = b, b.limits.SettleEvery
}

// add notes that s has something to tell.
func (t *settler) add(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.dirty = append(t.dirty, s)
	if len(t.dirty) == 1 {
		t.timer = time.AfterFunc(t.every, t.flush)
	}
}

func (t *settler) flush() {
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = nil
	t.mu.Unlock()
	for _, s := range dirty {
		s.settling.tell(s)
	}
}

func (t *settler) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed, t.dirty = true, nil
	if t.timer != nil {
		t.timer.Stop()
	}
}

// A settleState is what one session has told the log. At most one Settle of a
// session is under way, so a slow log gathers more and not many.
type settleState struct {
	mu     sync.Mutex // guards the following; may be taken under the outbox's, not the reverse
	listed bool       // it is in the settler's list
	flying bool       // a Settle is under way
	again  bool       // there is more to tell at once when it lands
	ended  bool

	telling // what the Settle under way tells; owned by it
}

// note says that there is something to tell; urgent, that a client waits.
func (t *settleState) note(s *Session, urgent bool) {
	if !s.durable && !s.out.lending.owes.Load() {
		return
	}
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	if urgent {
		if t.flying {
			t.again = true
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		t.tell(s)
		return
	}
	listed := t.listed
	t.listed = true
	t.mu.Unlock()
	if !listed {
		s.b.settler.add(s)
	}
}

// tell proposes what there is to tell.
func (t *settleState) tell(s *Session) {
	t.mu.Lock()
	t.listed = false
	if t.flying || t.ended {
		t.again = true
		t.mu.Unlock()
		return
	}
	t.flying, t.again = true, false
	t.mu.Unlock()
	t.telling = s.out.telling() // read by Complete, which comes after
	if err := t.propose(s, call{c: s}); err != nil {
		t.mu.Lock()
		t.flying = false
		t.mu.Unlock()
	}
}

// A telling is what the log has not been told of a session's queue.
type telling struct {
	below, sent    uint64
	over, received []uint64
	passed         []uint64 // of those that are over
	returned       []uint64 // and of those that another is to have
	untold         uint64   // how many the log will know to be over by it
}

// telling gathers what the log has not been told.
func (o *outbox) telling() telling {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.s.durable {
		return o.lentTelling()
	}
	t := telling{below: o.below, sent: o.sent, passed: slices.Clone(o.passed), returned: slices.Clone(o.lending.returned), untold: o.untold}
	for seq := o.below; seq < o.sent; seq++ {
		switch o.slotOf(seq) {
		case slotOver:
			t.over = append(t.over, seq)
		case slotReceived:
			t.received = append(t.received, seq)
		}
	}
	return t
}

// inherited adds what is over of what an earlier connection was sent, and this one has not
// come by: the log may not have heard of it, and from now on nobody knows.
func (t *telling) inherited(o *outbox) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.inherited || !o.s.durable {
		return
	}
	for _, sp := range o.done {
		for seq := max(sp.from, o.sent); seq < sp.to; seq++ {
			t.over = append(t.over, seq)
		}
	}
}

// propose has the log told; heard is called when it was. What was passed over comes
// first, or it would count as taken, and so does what is returned.
func (t *telling) propose(s *Session, heard call) error {
	if len(t.passed) > 0 {
		if err := s.p.propose(&event.PassOver{Session: s.number, Epoch: s.epoch, Entries: t.passed}, call{}, true); err != nil {
			return err
		}
	}
	if len(t.returned) > 0 {
		if err := s.p.propose(&event.Return{Session: s.number, Epoch: s.epoch, Entries: t.returned}, call{}, true); err != nil {
			return err
		}
	}
	return s.p.propose(&event.Settle{
		Session: s.number, Epoch: s.epoch, Below: t.below, Sent: t.sent, Done: t.over, Received: t.received,
	}, heard, true)
}

// Complete implements Completer for the session's Settle commands: what the
// log knows the client has received is released.
func (s *Session) Complete(_ uint64, err error, w *Wave) {
	t, o := &s.settling, &s.out
	if err == nil && !s.durable {
		o.mu.Lock()
		o.lentTold(&t.telling)
		o.mu.Unlock()
	} else if err == nil {
		o.mu.Lock()
		o.returnedTold(&t.telling)
		for _, seq := range t.over {
			if seq >= o.below && o.slotOf(seq) == slotOver {
				o.setSlot(seq, slotTold)
			}
		}
		for _, seq := range t.received {
			if seq >= o.below && o.slotOf(seq) == slotReceived {
				o.setSlot(seq, slotReleased)
				if !o.stopped { // else the next connection does it
					s.sink.Release(packetID(seq), w)
				}
			}
		}
		o.untold -= t.untold
		if o.passed = o.passed[len(t.passed):]; len(o.passed) == 0 {
			o.passed = nil
		}
		held := o.held
		o.held = false
		o.mu.Unlock()
		if held { // the queue is not read here, in the delivery loop
			s.b.scans.start(s.goOn)
		}
	}
	if errors.Is(err, ErrUnknown) {
		t.note(s, false) // nobody knows whether the log was told: tell it again
	}
	t.mu.Lock()
	t.flying = false
	again := t.again && !t.ended
	t.mu.Unlock()
	if again {
		t.tell(s)
	}
}

// goOn sends what there was no room for because the log knew too little.
func (s *Session) goOn() {
	defer s.b.scans.ended()
	var w Wave
	s.moreRoom(&w)
	w.Flush()
}

// last tells what there is to tell before the connection's end is ordered.
func (t *settleState) last(s *Session) {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	if !s.durable && !s.out.lending.owes.Load() {
		return
	}
	// A Settle that is under way said less, and comes first. An error means
	// that the node is closing: what it would have told is redelivered.
	last := s.out.telling()
	last.inherited(&s.out)
	_ = last.propose(s, call{})
}
