package policy

import (
	"slices"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// StaticUntil returns the first instant after at at which what Evaluate says of the life
// of a subscription may be another: its handling, and its terms. Windows that open and
// close have no part in that. Zero means never.
func (p *Policy) StaticUntil(w kind.Addr, at time.Time, in Input) time.Time {
	q := p.ask(w, in)
	if q.owner || q.hidden || in.Blocked != 0 {
		return time.Time{}
	}
	life := func(at time.Time) Decision {
		if slices.ContainsFunc(q.reads, at.Before) {
			return p.most()
		}
		return q.life(at, q.counting(at))
	}
	d := life(at)
	step := q.cost()
	for work := step; ; work += step {
		next := q.staticEdge(at)
		if next.IsZero() || work > maxWork {
			return next
		}
		if e := life(next); e.Handling != d.Handling || e.Named != d.Named || e.Terms != d.Terms {
			return next
		}
		at = next
	}
}

func (q *query) staticEdge(at time.Time) (next time.Time) {
	for _, until := range q.reads {
		if at.Before(until) {
			next = earliest(next, until)
		}
	}
	for _, r := range q.rules {
		if r.if_.everValid(at) {
			next = earliest(next, r.if_.validityEdge(at))
		}
	}
	return next
}

// Life is the handling as the life of a subscription follows from it: a refusal whose
// style is polite is PoliteBlock, and one that is ignored is Confirm, for as long as it
// is said so.
func (d *Decision) Life() (h Handling, ignored bool) {
	if d.Handling == Block && !d.Hidden {
		switch d.Style {
		case Polite:
			return PoliteBlock, false
		case Ignore:
			return Confirm, true
		}
	}
	return d.Handling, false
}

// HandlingOf returns what a word stands for; ok is false if it is none.
func HandlingOf(word string) (h Handling, ok bool) {
	h, ok = handlings[word]
	return h, ok
}
