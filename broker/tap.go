package broker

import "github.com/bellwire/bellwire/broker/event"

// A Tap watches what becomes of events for the clients that are connected here.
// It is for somebody who looks on, not for the path of an event: nil costs
// nothing, anything else a call per delivery.
//
// Its methods are called from many goroutines, some with locks held: they must
// not block nor call the broker's methods that do, and keep neither e nor what
// e points to.
type Tap interface {
	// Routed is shown each event once, after it was handed to those that get
	// it at once; heard is how many of the sessions that subscribe to its topic
	// may have it now, those included that get it through their queue. What was
	// delivered at once has been shown by then.
	Routed(e *event.Event, heard int)

	// Delivered is called for each delivery that Stats.Delivered counts, state
	// sent at an opening included.
	Delivered(to Who, e *event.Event)

	// Withheld is called for each delivery that Stats.Withheld counts. now is
	// the instant for which the policy was asked.
	Withheld(from Who, e *event.Event, now int64)
}

// delivered counts a delivery that the sink took.
func (s *Session) delivered(d *Delivery) {
	s.b.stats.Delivered[d.QoS].Add(1)
	if tap := s.b.config.Tap; tap != nil {
		tap.Delivered(s.who, d.Event)
	}
}

// withheld counts a delivery of e that was not permitted at now; shut says that a
// window is why.
func (s *Session) withheld(e *event.Event, shut bool, now int64) {
	s.b.stats.Withheld.Add(1)
	if shut {
		s.b.stats.Shut.Add(1)
	}
	if tap := s.b.config.Tap; tap != nil {
		tap.Withheld(s.who, e, now)
	}
}

// routed tells the tap what deliver did with e. It asks the same cached answers
// for the same instant, so it gets the same answers.
func (a *audience) routed(b *Broker, e *event.Event, now int64) {
	heard := 0
	for i := range a.hearers {
		h := &a.hearers[i]
		if e.Position != 0 && e.Position <= h.since || h.s.closed.Load() {
			continue
		}
		if h.own != nil && e.Origin == h.s.number && !h.own.any {
			continue
		}
		if ok, _ := h.permitted(b, e.Topic, now); ok {
			heard++
		}
	}
	b.config.Tap.Routed(e, heard)
}
