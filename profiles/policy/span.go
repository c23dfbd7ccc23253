package policy

import (
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// A Span is what the clock makes of what a watcher is shown: whether there is something,
// and until when that is so.
type Span struct {
	Shown  bool // the view is not empty
	Closed bool // as Decision.Closed

	// Until is the first later instant at which one of these is another, zero for
	// never. Windows that touch are one, and so are those that relieve each other. It is
	// Exact unless the search for it has cost maxWork: then nothing may change there, and
	// asking again goes on from it.
	Until time.Time
	Exact bool
}

// Span returns the one that the instant at is in for the watcher w.
func (p *Policy) Span(w kind.Addr, at time.Time, in Input) Span {
	q := p.ask(w, in)
	d := q.decide(at)
	s := Span{Shown: d.View == ViewFiltered, Closed: d.Closed}
	step := q.cost()
	for work := step; ; work += step {
		if s.Until = q.edge(at); s.Until.IsZero() {
			return s
		}
		if e := q.decide(s.Until); (e.View == ViewFiltered) != s.Shown || e.Closed != s.Closed {
			s.Exact = true
			return s
		}
		if work > maxWork {
			return s
		}
		at = s.Until
	}
}

// Tells says whether a window does more to the subscription than to close what is shown:
// its watcher is told of that, or it ends.
func (t *Terms) Tells() bool {
	return t.Outside == Announce || t.Outside == End || t.WarnBefore > 0
}

// Tells says whether that is so of some watcher.
func (p *Policy) Tells() bool { return p.tells }

// Asks says whether what the owner's presence says can have an effect on what somebody
// is shown, and when: see AsksPresence.
func (p *Policy) Asks() bool { return p.asks }
