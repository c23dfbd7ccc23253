package acl

import (
	"sync"
	"time"
)

// A Decision answers whether somebody may do something at one instant.
type Decision struct {
	Allow bool

	// Until is the first later instant at which the answer is the other one;
	// zero if there is none. Until then it may be cached: it is the same at
	// every instant from the one asked about on. (Where windows relieve each
	// other without a gap for more than maxEdges edges, which takes a year or
	// so, Until is the last of these edges, and the answer is the same there.)
	Until time.Time

	// Windowed says that time has a part in the answer: it would be another
	// one at some other time, or at least a window had to be asked.
	Windowed bool

	// Outside is what a live subscription is to get while the answer is no
	// because of a window: the mildest of what the rules say that allow it at
	// other times.
	Outside Outside

	// Rule and Line name what decided: the rule that allows or denies, the
	// limit that cuts, or the rule whose window is closed. Of several it is
	// always the same one. Empty and 0 if no rule has to do with it.
	Rule string
	Line int

	// Reason says why not, without naming topic or principal; empty if Allow.
	Reason string
}

// maxEdges is how many edges of windows are looked at for the one at which an
// answer changes. Windows that touch are passed over, so there must be an end.
const maxEdges = 1000

// Decide answers whether who may do what on topic at the instant at. The same
// question always gets the same answer. If topic is a filter, the question is
// whether all of it is allowed; a rule that denies a part has no say in that,
// but in what is delivered.
//
// It allocates next to nothing; nothing if no more than a dozen rules with windows have
// to do with the topic.
func (p *Policy) Decide(who Who, what Action, topic string, at time.Time) Decision {
	d, _ := p.decide(who, what, topic, seconds(at))
	return d
}

// decide is Decide; flips says that the answer is the other one at Until.
func (p *Policy) decide(who Who, what Action, topic string, u int64) (d Decision, flips bool) {
	q := query{who: who, what: what}
	p.index.find(&q, topic)
	d, flips = q.decide(u)
	q.done()
	return d, flips
}

// A query gathers the rules that have to do with one question, reduced to what
// the answer can depend on.
type query struct {
	who  Who
	what Action

	allowed *rule   // allows at all times
	mildest Outside // of all rules that allow at all times
	barred  *rule   // denies at all times: no window can help
	opens   int     // how many of the timed rules allow

	// The rules with a window: n of them, the first few in few, so that a
	// query need not be on the heap (a slice of few would put it there).
	n    int
	few  [12]timed
	more *[]timed // one of spare; nil if few is enough
}

// spare are lists that queries have had as more: under a policy with hundreds of
// windows each decision fills one.
var spare = sync.Pool{New: func() any { return new([]timed) }}

// done gives back what q has taken. q is not to be used any more.
func (q *query) done() {
	if q.more != nil {
		clear(*q.more) // what is kept is to hold no policy
		*q.more = (*q.more)[:0]
		spare.Put(q.more)
	}
}

// A timed is a rule with a window, and where that stands at the instant that is looked
// at while an answer is searched: each is asked once, and again when it has changed.
type timed struct {
	rule *rule
	next int64 // the window's next edge
	open bool
}

// consider takes r into account if it has to do with who and what. Of equals
// it keeps the one with the least rank, so that order does not matter.
func (q *query) consider(r *rule) {
	if r.matches(q.who, q.what) {
		q.add(r, r.excludes(q.who))
	}
}

// add is consider of a rule that has to do with them, and excludes who or not.
func (q *query) add(r *rule, excludes bool) {
	switch {
	case excludes, r.effect == deny && r.when == nil:
		// What a rule denies is blamed on it before any limit.
		if b := q.barred; b == nil || r.effect < b.effect || r.effect == b.effect && r.rank < b.rank {
			q.barred = r
		}
	case r.when == nil && r.effect == allow:
		if q.allowed == nil || r.outside < q.mildest {
			q.mildest = r.outside
		}
		if q.allowed == nil || r.rank < q.allowed.rank {
			q.allowed = r
		}
	case r.when != nil:
		q.addTimed(r)
	}
}

func (q *query) addTimed(r *rule) {
	// Two patterns of one rule may match; two rules that do the same under the same
	// window are one question. Where there are many they are several: to look for each
	// among all the others would take longer than to answer it.
	for i := 0; i < q.n && q.n <= len(q.few); i++ {
		if t := q.timed(i); t.rule.when == r.when && t.rule.effect == r.effect && t.rule.outside == r.outside {
			if r.rank < t.rule.rank {
				t.rule = r
			}
			return
		}
	}
	if q.n < len(q.few) {
		q.few[q.n].rule = r
	} else {
		if q.more == nil {
			q.more = spare.Get().(*[]timed)
		}
		*q.more = append(*q.more, timed{rule: r})
	}
	q.n++
	if r.effect == allow {
		q.opens++
	}
}

// timed returns the i-th rule with a window.
func (q *query) timed(i int) *timed {
	if i < len(q.few) {
		return &q.few[i]
	}
	return &(*q.more)[i-len(q.few)]
}

// decide answers at u.
func (q *query) decide(u int64) (d Decision, flips bool) {
	switch {
	case q.barred != nil && (q.allowed != nil || q.opens > 0 || q.barred.effect == deny):
		return Decision{Rule: q.barred.id, Line: q.barred.pos.Line, Reason: q.barred.refusal}, false
	case q.allowed == nil && q.opens == 0:
		return Decision{Reason: noRule[q.what]}, false
	case q.allowed != nil && q.n == q.opens:
		return Decision{Allow: true, Rule: q.allowed.id, Line: q.allowed.pos.Line, Outside: q.mildest}, false
	}
	q.setTimed(u)
	d = q.state()
	d.Outside = q.outside()
	until, flips := q.flip(u, d.Allow)
	d.Until = instant(until)
	return d, flips
}

// setTimed has timed stand as of u.
func (q *query) setTimed(u int64) {
	for i := range q.n {
		t := q.timed(i)
		t.open, t.next = t.rule.when.stateAt(u)
	}
}

// noRule is the reason where no rule allows anything, by Action.
var noRule = [...]string{Publish: "no rule allows publishing to it", Subscribe: "no rule allows subscribing to it"}

// NoRule is the Reason of a Decision, or a Grant, where no rule allows anything.
func NoRule(what Action) string { return noRule[what] }

// state answers where windows decide, but for Until and Outside, as of the instant
// that timed stands at.
func (q *query) state() Decision {
	var cut, open, shut *timed // the rules to name: what denies, what allows, what would allow
	if q.allowed != nil {
		open = &timed{rule: q.allowed}
	}
	for i := range q.n {
		t := q.timed(i)
		switch {
		case t.rule.effect == allow && t.open:
			if open == nil || q.allowed == nil && t.rule.rank < open.rule.rank {
				open = t
			}
		case t.rule.effect == allow:
			if shut == nil || t.next < shut.next || t.next == shut.next && t.rule.rank < shut.rule.rank {
				shut = t
			}
		case t.open == (t.rule.effect == deny): // a deny rule that is open, a limit that is closed
			if cut == nil || t.rule.effect < cut.rule.effect || t.rule.effect == cut.rule.effect && t.rule.rank < cut.rule.rank {
				cut = t
			}
		}
	}
	switch {
	case open == nil:
		return shut.decision(shut.rule.closed)
	case cut == nil:
		return Decision{Allow: true, Windowed: true, Rule: open.rule.id, Line: open.rule.pos.Line}
	case cut.rule.effect == deny:
		return cut.decision(cut.rule.refusal)
	}
	return cut.decision(cut.rule.closed)
}

// decision is the refusal because of t's window.
func (t *timed) decision(reason string) Decision {
	if t.next == never && t.rule.effect != deny {
		reason = t.rule.over
	}
	return Decision{Windowed: true, Rule: t.rule.id, Line: t.rule.pos.Line, Reason: reason}
}

// flip returns the first instant after u at which the answer is no longer
// allowed, never and false if there is none; and the last edge it looked at and
// false if it has looked at maxEdges. timed must stand as of u.
func (q *query) flip(u int64, allowed bool) (until int64, flips bool) {
	for range maxEdges {
		now, holds := q.holdsUntil(u)
		if now != allowed {
			return u, true
		}
		if holds == never {
			return never, false
		}
		u = holds
		for i := range q.n {
			if t := q.timed(i); t.next <= u {
				t.open, t.next = t.rule.when.stateAfter(u)
			}
		}
	}
	return u, false
}

// holdsUntil returns the answer at u and an instant until which it certainly
// holds: as long as one window that cuts stays as it is, or if none does, until
// the first that may cut changes or the last that is open closes. Edges that
// cannot matter are passed over. timed must stand as of u.
func (q *query) holdsUntil(u int64) (allowed bool, until int64) {
	cut, lastCut, firstCut := false, u, int64(never)
	open, lastClose, firstOpen := q.allowed != nil, u, int64(never)
	for i := range q.n {
		t := q.timed(i)
		switch {
		case t.rule.effect == allow && t.open:
			open, lastClose = true, max(lastClose, t.next)
		case t.rule.effect == allow:
			firstOpen = min(firstOpen, t.next)
		case t.open == (t.rule.effect == deny): // it cuts
			cut, lastCut = true, max(lastCut, t.next)
		default:
			firstCut = min(firstCut, t.next)
		}
	}
	switch {
	case cut:
		return false, lastCut
	case !open:
		return false, firstOpen
	case q.allowed != nil:
		return true, firstCut
	}
	return true, min(firstCut, lastClose)
}

// outside returns what a subscription is to get at the instant that timed stands at,
// or would get, while no window is open: the mildest of what the allow rules say.
// Rules that have closed for good count only if all have.
func (q *query) outside() Outside {
	mild, mildOver := End+1, End
	if q.allowed != nil {
		mild = q.mildest
	}
	for i := range q.n {
		t := q.timed(i)
		switch {
		case t.rule.effect != allow:
		case t.next == never && !t.open:
			mildOver = min(mildOver, t.rule.outside)
		default:
			mild = min(mild, t.rule.outside)
		}
	}
	if mild > End {
		return mildOver
	}
	return mild
}

// NextEdge returns the first instant after after at which a window of any rule
// or limit opens or closes, zero if none ever will. Decisions and grants can
// only change then.
func (p *Policy) NextEdge(after time.Time) time.Time {
	u, edge := seconds(after), int64(never)
	for _, w := range p.windows {
		edge = min(edge, w.nextAt(u))
	}
	return instant(edge)
}
