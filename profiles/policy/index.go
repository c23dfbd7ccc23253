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
