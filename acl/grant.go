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
	// Allowed says that some rule covers the whole filter at some instant,
	// the one asked about or a later one. What is delivered is decided topic
	// by topic and instant by instant: denies and closed windows narrow it.
	Allowed bool

	// Windowed says that time has a part in it already for the filter as a
	// whole. Single topics may be windowed even if it is false.
	Windowed bool

	// Outside is what the subscription is to get while it is closed.
	Outside Outside

	Rule string // the rule that covers the filter or refuses it; may be empty
	Line int

	// Reason says why not; empty if Allowed. It begins with PARTIAL if rules
	// cover only Covered, some parts of the filter.
	Reason  string
	Covered []string
}

// maxCovered is how many covered parts a refusal names.
const maxCovered = 3

// Grant answers whether who may subscribe to filter, asking at the instant at:
// if not then, will it be allowed later? A window that can never open again is
// no window, and rules that deny the whole filter whenever it is allowed refuse
// it (looking maxEdges ahead, a year or so).
// The filter of a shared subscription is asked about without its `$share/group/`.
func (p *Policy) Grant(who Who, filter string, at time.Time) Grant {
	d, flips := p.decide(who, Subscribe, filter, seconds(at))
	g := Grant{
		Allowed:  d.Allow || flips,
		Windowed: d.Windowed,
		Outside:  d.Outside,
		Rule:     d.Rule,
		Line:     d.Line,
	}
	if g.Allowed {
		return g
	}
	g.Reason = d.Reason
	if d.Rule != "" {
		return g
	}
	g.Covered = p.covered(who, filter)
	if len(g.Covered) > 0 {
		g.Reason = "PARTIAL: only a part of the filter is allowed: " + listed(g.Covered, maxCovered)
	}
	return g
}

// covered returns the parts of filter that rules allow at some time, the
// widest first.
func (p *Policy) covered(who Who, filter string) []string {
	var parts []string
	for _, own := range p.allows(who, Subscribe) {
		if topic.Overlaps(own, filter) {
			parts = append(parts, intersect(own, filter))
		}
	}
	return widest(parts)
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
