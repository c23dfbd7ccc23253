package policy

import (
	"slices"

	"github.com/bellwire/bellwire/profiles/kind"
)

// An index finds which rules or limits can be about a watcher, of a policy that
// has hundreds of them: most name somebody else. Zero is that of none.
type index struct {
	any    []int32 // of those that name no address and no domain
	domain map[string][]int32
	one    map[kind.Addr][]int32
}

// add enters the i-th, which is about who; they are entered in order.
func (x *index) add(i int, who *identity) {
	if who == nil || slices.ContainsFunc(who.many, func(m many) bool { return m.domain == "" }) {
		x.any = append(x.any, int32(i))
		return
	}
	for _, m := range who.many {
		if x.domain == nil {
			x.domain = map[string][]int32{}
		}
		if of := x.domain[m.domain]; len(of) == 0 || of[len(of)-1] != int32(i) {
			x.domain[m.domain] = append(of, int32(i))
		}
	}
	for _, a := range who.one {
		if x.one == nil {
			x.one = map[kind.Addr][]int32{}
		}
		if of := x.one[a]; len(of) == 0 || of[len(of)-1] != int32(i) {
			x.one[a] = append(of, int32(i))
		}
	}
}

// find appends to buf those that can be about w, each once, in order.
func (x *index) find(w kind.Addr, buf []int32) []int32 {
	if w.IsZero() {
		return append(buf, x.any...)
	}
	domain, one := x.domain[w.Domain], x.one[w]
	buf = append(append(append(buf, x.any...), domain...), one...)
	if len(domain)+len(one) > 0 && len(buf) > 1 {
		slices.Sort(buf)
		buf = slices.Compact(buf)
	}
	return buf
}

// names says whether an address is named by itself, in one of those that were entered.
func (x *index) names(w kind.Addr) bool {
	_, is := x.one[w]
	return is
}

// apart collects the addresses of which a set of watchers says something by itself and
// which an index does not name: those that are excepted, and those that are named beside all.
func (i *identity) apart(from map[kind.Addr]struct{}) map[kind.Addr]struct{} {
	if i == nil {
		return from
	}
	add := func(all []kind.Addr) {
		for _, a := range all {
			if from == nil {
				from = map[kind.Addr]struct{}{}
			}
			from[a] = struct{}{}
		}
	}
	for _, m := range i.many {
		add(m.except)
		if m.domain == "" {
			add(i.one)
		}
	}
	return from
}

// Names says whether something is said of an address by itself. Of two addresses of one
// domain of which nothing is, a decision says the same.
func (p *Policy) Names(w kind.Addr) bool {
	_, apart := p.apart[w]
	return apart || w == p.owner || p.ruleOf.names(w) || p.limitOf.names(w) ||
		slices.ContainsFunc(p.delegates, func(d delegate) bool { return d.who == w })
}

// Names says whether something is said of an address by itself; see Policy.Names.
func (l *Blocklist) Names(w kind.Addr) bool {
	if l == nil {
		return false
	}
	_, apart := l.apart[w]
	return apart || l.of.names(w)
}
