package acl

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// A Grant answers whether a SUBSCRIBE may be granted.
type Grant struct {
	// Allowed says that some rule allows the whole filter at some instant, the
	// one asked about or a later one. What is delivered is decided topic by
	// topic and instant by instant: what denies, limits and closed windows
	// leave of it may be nothing.
	Allowed bool

	// Windowed says that time has a part in what is delivered: a window of a
	// rule that allows the filter, or of one that denies or limits some of it.
	Windowed bool

	// Outside is what the subscription is to get while the whole filter is
	// closed to it.
	Outside Outside

	Rule string // the rule that allows it, or would have; may be empty
	Line int

	// Reason says why not; empty if Allowed. It begins with PARTIAL if rules
	// allow only Covered, some parts of the filter.
	Reason  string
	Covered []string
}

// maxCovered is how many covered parts a refusal names.
const maxCovered = 3

// Grant answers whether who may subscribe to filter, asking at the instant at:
// will it be allowed then or later? A window that cannot open again is none.
// The filter of a shared subscription is asked about without its
// `$share/group/`.
func (p *Policy) Grant(who Who, filter string, at time.Time) Grant {
	q := query{who: who, what: Subscribe}
	p.index.find(&q, filter)
	return p.grant(&q, filter, seconds(at))
}

func (p *Policy) grant(q *query, filter string, u int64) Grant {
	q.setTimed(u)
	if r := q.allowed; r != nil {
		return Grant{
			Allowed: true, Windowed: p.cuts.overlaps(q.who, Subscribe, filter),
			Outside: q.outside(), Rule: r.id, Line: r.pos.Line,
		}
	}
	if q.opens == 0 {
		g := Grant{Windowed: p.partlyWindowed(q.who, filter), Reason: noRule[Subscribe], Covered: p.covered(q.who, filter)}
		if len(g.Covered) > 0 {
			g.Reason = "PARTIAL: only a part of the filter is allowed: " + listed(g.Covered, maxCovered)
		}
		return g
	}
	best := q.soonest(u)
	g := Grant{Windowed: true, Outside: q.outside(), Rule: best.rule.id, Line: best.rule.pos.Line}
	if g.Allowed = best.next != never || best.open; !g.Allowed {
		g.Reason = best.rule.over
	}
	return g
}

// soonest returns the allow rule with a window that is open at u or opens
// first. There must be one, and timed stand as of u.
func (q *query) soonest(u int64) *timed {
	var best *timed
	var bestOpens int64
	for i := range q.n {
		t := q.timed(i)
		if t.rule.effect != allow {
			continue
		}
		opens := t.next
		if t.open {
			opens = u
		}
		if best == nil || opens < bestOpens || opens == bestOpens && t.rule.rank < best.rule.rank {
			best, bestOpens = t, opens
		}
	}
	return best
}

// maxParts bounds the work of a refusal, which its client can have repeated:
// widest compares each part with each.
const maxParts = 100

// covered returns the parts of filter that rules allow at some time, without
// those that others cover; of very many, some.
func (p *Policy) covered(who Who, filter string) []string {
	var parts []string
	for _, own := range p.allows(who, Subscribe) {
		if topic.Overlaps(own, filter) {
			parts = append(parts, intersect(own, filter))
		}
		if len(parts) == maxParts {
			break
		}
	}
	return widest(parts)
}

// partlyWindowed says whether time has a part in what is delivered of a filter that no
// rule allows as a whole: who has subscribed to it under another policy is still sent what
// rules allow of it.
func (p *Policy) partlyWindowed(who Who, filter string) bool {
	for _, r := range p.rules {
		if r.effect != allow || r.when == nil || !r.matches(who, Subscribe) {
			continue
		}
		for _, pattern := range r.patterns {
			if own, ok := pattern.filterFor(who); ok && topic.Overlaps(own, filter) {
				return true
			}
		}
	}
	return p.cuts.overlaps(who, Subscribe, filter)
}

// allows returns the filters that rules allow who at some time.
func (p *Policy) allows(who Who, what Action) []string {
	var filters []string
	for _, r := range p.rules {
		if r.effect != allow || !r.matches(who, what) {
			continue
		}
		for _, pattern := range r.patterns {
			if filter, ok := pattern.filterFor(who); ok {
				filters = append(filters, filter)
			}
		}
	}
	return filters
}

// widest returns filters, sorted, without those that another one covers.
func widest(filters []string) []string {
	slices.Sort(filters)
	filters = slices.Compact(filters)
	var kept []string
	for i, f := range filters {
		covered := slices.IndexFunc(filters, func(other string) bool {
			return other != f && topic.Covers(other, f) && !(topic.Covers(f, other) && f < other)
		})
		if covered < 0 {
			kept = append(kept, filters[i])
		}
	}
	return kept
}

// intersect returns the filter that matches what both a and b match, which
// must overlap.
func intersect(a, b string) string {
	var levels []string
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; ; i++ {
		switch {
		case i < len(as) && as[i] == "#":
			return strings.Join(append(levels, bs[min(i, len(bs)):]...), "/")
		case i < len(bs) && bs[i] == "#":
			return strings.Join(append(levels, as[min(i, len(as)):]...), "/")
		case i >= len(as) || i >= len(bs):
			return strings.Join(levels, "/")
		case as[i] == "+":
			levels = append(levels, bs[i])
		default:
			levels = append(levels, as[i])
		}
	}
}

// listed returns the first n of words in a row, and how many there are more.
func listed(words []string, n int) string {
	if more := len(words) - n; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:n], ", "), more)
	}
	return strings.Join(words, ", ")
}
