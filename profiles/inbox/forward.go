package inbox

import (
	"slices"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// How messages go to another inbox than the one they are sent to.
//
// A rule of an owner's that lets messages in may say to whose inbox they go ("forward"),
// at the times and under the conditions that it has like any other. They are kept and
// numbered there, and only there. Whoever that is lets them in or not as if they were sent
// to them: each policy on the way judges who has sent the message, and none whose it was
// sent to. So a forward carries nothing past anybody's policy or blocklist, and nobody is
// sent what its sender could not have sent them.
//
// The sender learns nothing of it. The envelope, the acknowledgement and all reports name
// whom the message was sent to; what of it is told is what both owners let be told; and
// whatever keeps it from arriving, a message to nobody fails with.

// MostForwards is how many times a message is forwarded at most. It fails if it is to go
// further, or to where it has been.
const MostForwards = 4

// A place is where a message goes.
type place struct {
	inbox   kind.Addr // whose
	nowhere string    // the reason its sender is told that it goes to none; empty: it goes there
	known   bool      // it goes there, and its sender is no stranger to whom it was sent to
}

// placeOf returns where that goes which from sends to an inbox: a message if what is
// kind.MaySend, or that they are writing one.
func (p *Profile) placeOf(get func(key string) []byte, to reader, from kind.Addr, what string, at time.Time, level broker.Level) place {
	d := p.judge(get, to, from, at)
	if !d.Grant.Has(what) {
		return place{inbox: to.Addr, nowhere: failure(&d, level)}
	}
	goes := place{inbox: to.Addr, known: what == kind.MaySend && p.knows(get, to, from, at)}
	been := []kind.Addr{to.Addr}
	for level >= broker.LevelOwners && !d.Forward.IsZero() {
		next := d.Forward
		if len(been) > MostForwards || slices.Contains(been, next) {
			return place{inbox: to.Addr, nowhere: reasonUnavailable}
		}
		been = append(been, next)
		if d = p.judge(get, reader{Addr: next}, from, at); !d.Grant.Has(what) {
			return place{inbox: to.Addr, nowhere: reasonUnavailable}
		}
	}
	goes.inbox = been[len(been)-1]
	return goes
}

var _ broker.Foreseer = (*Profile)(nil)

// Foresee says what an owner's policy makes of a message from who: a policy.Explanation.
// What becomes of it where it is forwarded to is another's to know.
func (p *Profile) Foresee(get func(key string) []byte, who broker.Who, topicName string, at int64) (owner string, why any) {
	t, err := p.topic(topicName)
	if err != nil {
		return "", nil
	}
	of := p.policyOf(t.Addr, get(broker.PolicyKey(t.Addr.String())))
	if of == nil {
		return t.Addr.String(), policy.Explanation{Because: "the policy is of another version of the program: it lets nobody in"}
	}
	from := kind.Of(who.Principal)
	return t.Addr.String(), of.Explain(from, kind.Instant(at), p.input(get, reader{Addr: t.Addr}, from))
}

// idOf is where it is remembered that a message has come to owner's inbox.
func (p *Profile) idOf(m *kind.Message, owner kind.Addr) string {
	as := m.To
	if as == owner {
		as = kind.Addr{}
	}
	return idKey(p.inboxOf(owner).Topic(), m.From, m.ID, as)
}

// rememberForwarded notes that a message has come to owner's inbox that goes on to
// another's: should it come again it is known here, wherever it would go then. What becomes
// of it is the other's to say.
func (p *Profile) rememberForwarded(tx *broker.ProfileTx, l *Limits, m kind.Message, owner kind.Addr) {
	topicName := p.inboxOf(owner).Topic()
	b := readBox(tx.Get(topicName))
	m.Wants = 0
	b.remember(tx, l, topicName, p.idOf(&m, owner), &m, owner)
	b.save(tx, topicName)
}
