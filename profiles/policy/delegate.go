package policy

import (
	"slices"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// MayPublish says whether who may publish as the owner's source with that name
// at the instant at, and until when (zero: as long as the policy stands). The
// owner may always.
func (p *Policy) MayPublish(who kind.Addr, source string, at time.Time) (ok bool, until time.Time) {
	return p.delegated(who, at, func(d *delegate) bool {
		return slices.Contains(d.sources, source) || slices.Contains(d.sources, kind.Everything)
	})
}

// MayRead says whether who sees at the instant at what the owner does, and
// until when (zero: as long as the policy stands).
func (p *Policy) MayRead(who kind.Addr, at time.Time) (ok bool, until time.Time) {
	return p.delegated(who, at, func(d *delegate) bool { return d.read })
}

// delegated says whether the owner, or one of the delegates that may, is who.
func (p *Policy) delegated(who kind.Addr, at time.Time, may func(*delegate) bool) (ok bool, until time.Time) {
	if who.IsZero() {
		return false, time.Time{}
	}
	if who == p.owner {
		return true, time.Time{}
	}
	for i := range p.delegates {
		d := &p.delegates[i]
		if d.who != who || !may(d) || !d.until.IsZero() && !at.Before(d.until) {
			continue
		}
		if d.until.IsZero() {
			return true, time.Time{}
		}
		if ok = true; d.until.After(until) {
			until = d.until
		}
	}
	return ok, until
}
