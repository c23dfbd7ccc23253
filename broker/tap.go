package broker

import "github.com/bellwire/bellwire/broker/event"

// A Tap is shown each event that reaches subscribers here, after it was handed
// to their connections, with the fate it had for each session that is connected
// here and subscribes to its topic. It is for somebody who watches, not for the
// path of an event: nil costs nothing, anything else a list per event.
//
// It is called from many goroutines, must not block, and keeps neither e nor
// what e points to. Events from before a subscription began, and retained ones
// sent because it began, are not shown.
type Tap func(e *event.Event, fates []Fate)

// A Fate is what became of an event for one session.
type Fate struct {
	Who       Who
	Permitted bool // else withheld by the policy, or by a closed window
}

// show tells the tap what deliver did with e. It asks the same cached answers
// for the same instant, so it gets the same answers.
func (a *audience) show(b *Broker, e *event.Event, now int64) {
	if e.Expired(now) {
		return
	}
	fates := make([]Fate, 0, len(a.hearers))
	for i := range a.hearers {
		h := &a.hearers[i]
		if e.Position != 0 && e.Position <= h.since {
			continue
		}
		if h.own != nil && e.Origin == h.s.number && !h.own.any {
			continue
		}
		ok, _ := h.permitted(b, e.Topic, now)
		fates = append(fates, Fate{Who: h.s.who, Permitted: ok})
	}
	b.config.Tap(e, fates)
}
