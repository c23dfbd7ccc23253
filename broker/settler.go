package broker

import (
	"errors"
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

	over, received []uint64 // what the Settle under way tells; owned by it
	untold         uint64   // how many that are
}

// note says that there is something to tell; urgent, that a client waits.
func (t *settleState) note(s *Session, urgent bool) {
	if !s.durable {
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
	cmd, untold := s.out.settle()
	t.over, t.received, t.untold = cmd.Done, cmd.Received, untold // read by Complete, which comes after
	if err := s.b.propose(cmd, call{c: s}, true); err != nil {
		t.mu.Lock()
		t.flying = false
		t.mu.Unlock()
	}
}

// settle gathers what the log has not been told, and how many deliveries it will
// know to be over by that.
func (o *outbox) settle() (cmd *event.Settle, untold uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	cmd = &event.Settle{Session: o.s.number, Epoch: o.s.epoch, Below: o.below, Sent: o.sent}
	for seq := o.below; seq < o.sent; seq++ {
		switch o.slotOf(seq) {
		case slotOver:
			cmd.Done = append(cmd.Done, seq)
		case slotReceived:
			cmd.Received = append(cmd.Received, seq)
		}
	}
	return cmd, o.untold
}

// Complete implements Completer for the session's Settle commands: what the
// log knows the client has received is released.
func (s *Session) Complete(_ uint64, err error, w *Wave) {
	t, o := &s.settling, &s.out
	if err == nil {
		o.mu.Lock()
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
	if !s.durable {
		return
	}
	// A Settle that is under way said less, and comes first. An error means
	// that the node is closing: what it would have told is redelivered.
	cmd, _ := s.out.settle()
	_ = s.b.propose(cmd, call{}, true)
}
