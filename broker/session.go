package broker

import (
	"github.com/bellwire/bellwire/broker/event"
)

// A Broker is one node's broker.
type Broker struct{}

// A Session is the live half of a client's session on the node that holds its
// connection.
type Session struct{}

// A ConnectRequest is what a protocol knows when a client has authenticated.
type ConnectRequest struct {
	Client     string
	Principal  string
	Version    uint8
	Clean      bool   // Clean Start
	Expiry     uint32 // seconds, event.Never for good
	ReceiveMax uint16 // 1 to 65535: QoS 1 and 2 deliveries under way at once
	Will       *event.Will
}

// Connect opens the session of a client: it is ordered like anything else,
// ends an older connection of the client id wherever that is, without waiting
// for it, and returns when this node has applied it. present says whether the
// session existed; dropped how many events its queue has lost to its bound
// since the client last heard. Nothing is delivered to sink before Start.
//
// Errors: ErrRefused with a Refusal (the will's topic is not permitted, a
// limit), ErrNoCommit, ErrUnknown, ErrClosing.
func (b *Broker) Connect(r ConnectRequest, sink Sink) (s *Session, present bool, dropped uint64, err error) {
	panic("not yet")
}

// Start begins deliveries: first what is under way from before, in its order
// with its packet ids, then the queue, then what happens. The protocol calls it
// once it has queued its CONNACK.
func (s *Session) Start(w *Wave) { panic("not yet") }

// Publish announces ev, whose Topic, Payload, Props, QoS, Retain and Expires
// the caller has set; the session fills in the rest and copies what it keeps:
// the memory is the caller's again on return, and ev may be reused. If logged
// is true, c hears of it by tag later; else it is over: a QoS 0 event was
// delivered or, with err, refused.
//
// packetID is that of a QoS 2 publish. Publish blocks while the backlog is
// full: that is the back-pressure on publishers. Called by the session's one
// reading goroutine.
func (s *Session) Publish(ev *event.Event, packetID uint16, c Completer, tag uint64, w *Wave) (logged bool, err error) {
	panic("not yet")
}

// Release ends a QoS 2 publish (PUBREL). As with Publish, c hears of it by tag
// (ErrNoPacketID if the id is not in use) unless logged is false.
func (s *Session) Release(packetID uint16, c Completer, tag uint64, w *Wave) (logged bool, err error) {
	panic("not yet")
}

// A SubResult is what became of one filter: Err nil means granted with the
// QoS asked for.
type SubResult struct{ Err error }

// Subscribe sets subscriptions (valid filters, not shared) and returns one
// result for each when all is in force: after it, whatever anybody publishes
// and is allowed to be seen reaches the session. acknowledge, which queues the
// SUBACK, is called before the first delivery that follows from it. It blocks
// until then.
func (s *Session) Subscribe(subs []event.Subscription, acknowledge func([]SubResult, *Wave)) {
	panic("not yet")
}

// Unsubscribe removes filters and says which existed. After it nothing is
// started for them any more. It blocks until the change is in force.
func (s *Session) Unsubscribe(filters []string) (existed []bool, err error) { panic("not yet") }

// A Settlement is what a client says of a delivery.
type Settlement uint8

const (
	Acked     Settlement = iota // PUBACK, or PUBREC >= 0x80: it is over
	Received                    // PUBREC: the client has it; PUBREL follows when that is safe
	Completed                   // PUBCOMP: it is over
)

// Settle records the client's answer to the delivery with packetID and sends
// what there is now room for. It returns ErrNoPacketID if none such is under
// way, in which case nothing changed. Never blocks.
func (s *Session) Settle(packetID uint16, what Settlement, w *Wave) error { panic("not yet") }

// Drained tells the session that its sink, which was Full, takes events again.
func (s *Session) Drained(w *Wave) { panic("not yet") }

// Close ends the connection: with willToo its will is published (every end
// but DISCONNECT 0x00). setExpiry changes the session's expiry first (5.0
// 3.14.2.2.2). It returns at once, may be called more than once, and nothing
// is delivered to the sink after it returns.
func (s *Session) Close(willToo, setExpiry bool, expiry uint32) { panic("not yet") }
