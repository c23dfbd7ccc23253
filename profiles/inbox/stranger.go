package inbox

import (
	"fmt"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/internal/pace"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Messages to strangers.
//
// Who writes to people that do not know them has a rate of its own, an hour's and not a
// second's. A sender is no stranger to an owner who lets the message in, and
//
//   - has written to them before (a contact), or is known to them by a pseudonym only, or
//   - lets them send by a rule that names them, or their domain, or has them read as a
//     delegate, or is themselves.
//
// To everybody else they are one: to whom lets in all who have an identity, and has not
// answered; to whom lets nobody in, or not them, or not now; to who is not there.
//
// All of it follows from the state and the log's time, so it is judged in Apply, exactly
// and alike on all nodes, and is as it was after a restart. It could be judged before the
// log, as sources are; but then several nodes would let through as much each, and of 20 an
// hour that is no bound any more.
//
// It tells nobody who exists. A message that is not let in counts whoever it was to, so
// whoever is past the bound is refused for a blocked sender, for one to whom a window is
// closed and for nobody alike; who is not is let in, and that the reports tell anyway. What
// a sender can tell who is past it is whether an owner that lets them in means them or
// anybody.

// knows says whether from, whom an owner lets in, is no stranger to them.
func (p *Profile) knows(get func(key string) []byte, owner reader, from kind.Addr, at time.Time) bool {
	in := p.input(get, owner, from)
	if in.Contact {
		return true
	}
	of := p.policyOf(owner.Addr, get(broker.PolicyKey(owner.Addr.String())))
	return of != nil && of.Means(from, kind.MaySend, at, in)
}

// chargeStranger takes a message off what a sender may send to strangers now.
func (s *sender) chargeStranger(l *Limits, now int64) error {
	wait := pace.Take(&s.strange, now, time.Hour/time.Duration(l.Strangers), l.Strangers)
	if wait == 0 {
		return nil
	}
	return &broker.Refusal{Cause: broker.ErrQuota, Reason: fmt.Sprintf(
		"rate: at most %d messages an hour to people who have not written to you and name you in no rule of theirs: the next in %d s",
		l.Strangers, (wait+time.Second-1)/time.Second)}
}
