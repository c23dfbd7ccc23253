package policy

import (
	"slices"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// A Decision says what a watcher may do and see.
type Decision struct {
	Handling Handling
	View     View
	Grant    kind.Grant // zero unless View is ViewFiltered

	// Forward is to whose inbox a message goes that is let in; zero: the owner's.
	Forward kind.Addr

	// Hidden says that the watcher is refused because it shows less of itself than
	// the owner demands: the same watcher, identified, may not be.
	Hidden bool

	// Blocked says that it is Input.Blocked that has decided, and no rule.
	Blocked bool

	// Closed says that rules allow the watcher something, and not now: what it sees
	// then is by Outside.
	Closed bool

	Terms

	// Closes says that at Until what the watcher sees is closed. It is not said where
	// Until may be an edge that changes nothing.
	Closes bool
	// Named says that a rule is about the watcher, or that they are the owner or a
	// delegate, or may not ask because they show no identity: else Handling is that of
	// whom no rule names.
	Named bool

	// Until is the first later instant at which, everything else being the
	// same, one of the above is another; zero if it holds for good. (Where
	// windows relieve each other without any effect, it may be one of these
	// edges, and the decision is the same there: never too late, and asking
	// again goes on from it.)
	Until time.Time
}

// equal says whether two decisions are the same but for their end.
func (d *Decision) equal(e *Decision) bool {
	return d.Handling == e.Handling && d.Named == e.Named && d.View == e.View && d.Hidden == e.Hidden && d.Blocked == e.Blocked && d.Closed == e.Closed && d.Terms == e.Terms && d.Forward == e.Forward && d.Grant.Same(e.Grant)
}

// Most is the decision about who sees everything for good.
func (p *Policy) most() Decision {
	return Decision{Handling: Allow, Named: true, View: ViewFiltered, Grant: p.everything}
}

// Evaluate decides about the watcher w, zero for somebody without an identity,
// at the instant at.
func (p *Policy) Evaluate(w kind.Addr, at time.Time, in Input) Decision {
	q := p.ask(w, in)
	d := q.decide(at)
	d.Until, d.Closes = q.until(at, &d)
	return d
}

// Now is Evaluate but for the decision's end, which costs most.
func (p *Policy) Now(w kind.Addr, at time.Time, in Input) Decision {
	q := p.ask(w, in)
	return q.decide(at)
}

// Means says whether w may do what at the instant at because the owner means them: they are
// the owner, or a delegate who reads, or a rule that counts then and lets them do it names
// them, or their domain. Other rules are for anybody.
func (p *Policy) Means(w kind.Addr, what string, at time.Time, in Input) bool {
	q := p.ask(w, in)
	if q.owner || slices.ContainsFunc(q.reads, at.Before) {
		return true
	}
	return slices.ContainsFunc(q.counting(at), func(r *rule) bool {
		return r.if_.who.names(w) && r.show.Has(what) && r.if_.open(at, in)
	})
}

// A query is the part of a policy that has to do with one watcher. What is in
// it has an effect or none by time alone.
type query struct {
	policy *Policy
	who    kind.Addr
	in     Input
	owner  bool        // who sees everything for good
	hidden bool        // who may see nothing, because they show too little of themselves
	reads  []time.Time // until when they see everything, as a delegate
	rules  []*rule
	limits []*limit
}

func (p *Policy) ask(w kind.Addr, in Input) query {
	q := query{policy: p, who: w, in: in, owner: w == p.owner && !w.IsZero(), hidden: in.visibility(w) < p.demanded}
	if q.owner || q.hidden || in.Blocked != 0 {
		return q
	}
	for i := range p.delegates {
		if d := &p.delegates[i]; d.who == w && d.read {
			if d.until.IsZero() {
				q.owner = true
				return q
			}
			q.reads = append(q.reads, d.until)
		}
	}
	var buf [64]int32
	for _, i := range p.ruleOf.find(w, buf[:0]) {
		if r := &p.rules[i]; r.if_.concerns(w, in) {
			q.rules = append(q.rules, r)
		}
	}
	for _, i := range p.limitOf.find(w, buf[:0]) {
		if l := &p.limits[i]; l.who.concerns(w, in) {
			q.limits = append(q.limits, l)
		}
	}
	return q
}

func (q *query) decide(at time.Time) Decision {
	switch {
	case q.owner || slices.ContainsFunc(q.reads, at.Before):
		return q.policy.most()
	case q.in.Blocked != 0:
		return q.in.Blocked.decision()
	case q.hidden:
		return Decision{Hidden: true, Named: true, Terms: q.policy.terms}
	}
	rules := q.counting(at)
	d := q.life(at, rules)
	if d.Handling < PoliteBlock {
		d.View = ViewNone
		return d
	}
	live, shows := Block, false
	var buf [16]*rule
	open := buf[:0]
	var in guise
	for _, r := range rules {
		if r.if_.everValid(at) && r.if_.open(at, q.in) {
			live, shows = max(live, r.handling), shows || !r.show.IsZero()
			open = append(open, r)
			in.add(r)
		}
	}
	switch {
	case live < Allow || q.cut(at):
		d.View, d.Closed = ViewNeutral, d.Handling == Allow && d.Named
	case !shows:
		d.View = ViewNeutral
	default:
		show := q.policy.unions.of(open)
		d.View, d.Grant, d.Forward = ViewFiltered, in.wear(show), in.goes(show)
	}
	return d
}

// life is decide as far as the life of a subscription follows from it: the handling, by
// which of rules, those that count, and the terms.
func (q *query) life(at time.Time, rules []*rule) Decision {
	d := Decision{Handling: q.policy.handling, Terms: q.policy.terms}
	for _, r := range rules {
		if !r.if_.everValid(at) {
			continue
		}
		if !d.Named {
			d.Handling, d.Named = Block, true
		}
		d.Handling = max(d.Handling, r.handling)
	}
	if q.policy.hasTerms {
		d.Terms = q.terms(at, d.Handling, rules)
	}
	return d
}

// counting returns the rules that count at the instant at: the one that decides alone if
// there is one, of several the first by rank, and else those that never do.
func (q *query) counting(at time.Time) []*rule {
	if !q.policy.hasAlone {
		return q.rules
	}
	first := -1
	for i, r := range q.rules {
		if r.alone && r.if_.valid(at) && (first < 0 || r.place < q.rules[first].place) {
			first = i
		}
	}
	if first >= 0 {
		return q.rules[first : first+1]
	}
	return slices.DeleteFunc(slices.Clone(q.rules), func(r *rule) bool { return r.alone })
}

// terms returns what the rules that make the handling say of the subscription.
func (q *query) terms(at time.Time, handling Handling, rules []*rule) Terms {
	var c chosen
	for _, r := range rules {
		if r.handling == handling && r.if_.everValid(at) {
			c.add(r)
		}
	}
	return c.over(q.policy.terms)
}

// cut says whether a limit is closed.
func (q *query) cut(at time.Time) bool {
	return slices.ContainsFunc(q.limits, func(l *limit) bool { return l.closed(q.who, at, q.in) })
}

func (l *limit) closed(w kind.Addr, at time.Time, in Input) bool {
	return l.shut(w, in) || !l.only.open(at, in)
}

// shut says whether the limit is closed at all times.
func (l *limit) shut(w kind.Addr, in Input) bool {
	return !l.only.asked(w, in) || !l.only.inSphere(in) || l.only.weekly.never(in)
}

// maxWork bounds the search for an edge that matters, in conditions looked at: a
// policy is uploaded by whoever owns an address, and evaluated for each of the
// watchers in the delivery loop. It is less than 0.1 ms, and some more where lists are
// joined that were not joined last: see unions.
const maxWork = 500

// until returns the first instant after at at which the decision is not d, or
// an edge before it when the search has cost maxWork; and whether what d shows is
// closed then.
func (q *query) until(at time.Time, d *Decision) (next time.Time, closes bool) {
	step := q.cost() + q.listed()
	for work := step; ; work += step {
		next := q.edge(at)
		if next.IsZero() || work > maxWork {
			return next, false
		}
		if e := q.decide(next); !e.equal(d) {
			return next, d.View == ViewFiltered && e.Closed
		}
		at = next
	}
}

// cost is how many conditions edge and decide look at together, at most. By it is found what
// the log keeps (Span, StaticUntil): it is the same in all versions.
func (q *query) cost() int {
	n := len(q.reads)
	for _, r := range q.rules {
		n += r.if_.cost()
	}
	for _, l := range q.limits {
		n += l.only.cost()
	}
	return 2 * n
}

// tokensAsOne is how many tokens of lists cost as much to join as a condition to look at.
const tokensAsOne = 4

// listed is what it costs to join what the rules show.
func (q *query) listed() int {
	n := 0
	for _, r := range q.rules {
		n += r.listed
	}
	return n / tokensAsOne
}

// edge returns the first instant after at at which the decision may be another
// one; zero if there is none.
//
// Between the edges of validities the same rules count, and only weekly windows
// open and close. Most of these cannot matter: nothing is shown whatever is
// open, or what a rule grants is granted anyway. Without passing over them a
// rule that repeats itself every week and changes nothing would never let the
// search end. A rule that decides alone counts here as any other does, and so do those
// beside it: that makes edges at which nothing changes, and misses none, for it has no
// windows.
func (q *query) edge(at time.Time) time.Time {
	var next time.Time
	for _, until := range q.reads {
		if at.Before(until) {
			next = earliest(next, until)
		}
	}
	handling, live, mostLive := Block, Block, Block
	shows := false          // some rule that might be open
	var timed, open []*rule // those with windows, and those that stay open
	for _, r := range q.rules {
		if !r.if_.everValid(at) {
			continue
		}
		next = earliest(next, r.if_.validityEdge(at))
		handling = max(handling, r.handling)
		if !r.if_.valid(at) || !r.if_.inSphere(q.in) || r.if_.weekly.never(q.in) {
			continue
		}
		mostLive, shows = max(mostLive, r.handling), shows || !r.show.IsZero()
		if r.if_.weekly != nil {
			timed = append(timed, r)
			continue
		}
		live, open = max(live, r.handling), append(open, r)
	}
	closed := false // some limit, whatever the hour
	for _, l := range q.limits {
		next = earliest(next, l.only.validityEdge(at))
		closed = closed || l.shut(q.who, q.in) || !l.only.valid(at)
	}
	if handling < Allow || mostLive < Allow || !shows || closed {
		return next
	}
	var show kind.Grant
	if len(timed) > 0 {
		show = q.policy.staying.of(open)
	}
	for _, r := range timed {
		if r.handling == Allow && live < Allow || !show.Covers(r.show) || r.persona != "" || r.overrides != nil || !r.forward.IsZero() {
			next = earliest(next, r.if_.weekly.next(at, q.in))
		}
	}
	for _, l := range q.limits {
		if l.only.weekly != nil {
			next = earliest(next, l.only.weekly.next(at, q.in))
		}
	}
	return next
}
