package broker

import "github.com/bellwire/bellwire/broker/event"

// How what is delivered is kept for clients that do not take it at once.
//
// An event that the delivery loop hands out is in memory that is used again, so a session
// without a queue, in which it waits for the window, keeps a copy. Slow readers mostly hear the
// same: a thousand that have 8 MiB waiting each would have 8 GiB of copies of the same 8 MiB. So
// all who are handed one event keep one copy of it. What must hold:
//
//   - It never changes. Sessions send it by goroutines of their own, at the same time; and a
//     sink keeps encoded forms in the event that it is given (Frames). So each sends a copy of
//     the struct, which has the same topic, properties and payload, and no frames.
//   - Each session is charged for all of it: whether a client is slow must not depend on
//     others, and those may leave.

// share says that what is handed out from here on is e, to whoever is to have it; nil ends
// that. In the delivery loop.
func (w *Wave) share(e *event.Event) { w.common, w.kept = e, nil }

// keep returns a copy of e for somebody who keeps it and does not change it.
func (w *Wave) keep(e *event.Event) *event.Event {
	if w.common != e {
		return clone(e)
	}
	if w.kept == nil {
		w.kept = clone(e)
	}
	return w.kept
}

// heldEvent returns the event of h as a sink may be given it, until heldSent.
func (w *Wave) heldEvent(h *held) *event.Event {
	w.held = *h.event
	return &w.held
}

// heldSent lets go of it.
func (w *Wave) heldSent() { w.held = event.Event{} }
