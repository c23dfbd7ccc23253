package broker

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// What administrators ask for: publications to $adm/, their domain and what they want. They
// are nobody's events: whoever administers (Config.Administer) answers, on this node, what
// it answers by other doors too. The answer goes to the request's Response Topic, if that is
// below $me/rsp, for the asking session alone; the acknowledgement says whether it is one of
// success. The connection's reading goroutine waits for it, so a client has one request
// under way, and pays for it by being read no further meanwhile.

// ownAdmin begins the topics of such requests.
const ownAdmin = "$adm/"

// administering bounds how long a request may take.
const administering = 30 * time.Second

// An Administrator answers what a principal asks for by a topic below $adm/. reply is the
// answer, also of a refusal; why, not nil for one, is what the acknowledgement says. It may
// block; what it is handed is its own.
type Administrator func(ctx context.Context, principal, topicName string, request []byte) (reply []byte, why error)

// administer has a request answered.
func (s *Session) administer(ev *event.Event, w *Wave) error {
	switch {
	case s.b.config.Administer == nil:
		return ErrBadEvent
	case s.who.Principal == "":
		return &Refusal{Reason: "identity-required: nobody knows who asks"}
	case ev.QoS == 2:
		// The log does not know its packet id, which it would be asked to release.
		return &Refusal{Cause: ErrCondition, Reason: "qos: administrators ask at QoS 0 or 1"}
	}
	w.Flush() // it may take its time: nobody else writes what this wave holds
	ctx, cancel := context.WithTimeout(context.Background(), administering)
	defer cancel()
	reply, why := s.b.config.Administer(ctx, s.who.Principal, cloneString(ev.Topic), slices.Clone(ev.Payload))
	if e := answerTo(ev, reply, nil); e != nil {
		s.b.loop.call(func(w *Wave) { s.answer(e, w) })
	}
	return why
}

// isAdministration says whether what is published to a topic is asked of the broker, and is no
// event.
func isAdministration(topicName string) bool { return strings.HasPrefix(topicName, ownAdmin) }
