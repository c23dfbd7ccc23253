package broker

import (
	"math"
	"slices"
)

// spans are sets of queue positions, as ascending intervals that do not touch:
// what a client acknowledged out of order, or what a bound pushed out, is long
// runs with few ends.
type spans []span

type span struct{ from, to uint64 } // from <= x < to

// find returns the index of the first span that ends after x.
func (s spans) find(x uint64) int {
	i, _ := slices.BinarySearchFunc(s, x, func(sp span, x uint64) int {
		if sp.to <= x {
			return -1
		}
		return 1
	})
	return i
}

func (s spans) has(x uint64) bool {
	i := s.find(x)
	return i < len(s) && s[i].from <= x
}

// after returns the first position from x on that is not in s.
func (s spans) after(x uint64) uint64 {
	if i := s.find(x); i < len(s) && s[i].from <= x {
		return s[i].to
	}
	return x
}

// next returns where the first span after x begins, which is in none.
func (s spans) next(x uint64) uint64 {
	if i := s.find(x); i < len(s) {
		return s[i].from
	}
	return math.MaxUint64
}

// within returns how many positions from from on and below to are in s.
func (s spans) within(from, to uint64) (n uint64) {
	for _, sp := range s[s.find(from):] {
		if sp.from >= to {
			break
		}
		n += min(sp.to, to) - max(sp.from, from)
	}
	return n
}

// add returns s with from to to added.
func (s spans) add(from, to uint64) spans {
	if from >= to {
		return s
	}
	i, _ := slices.BinarySearchFunc(s, from, func(sp span, x uint64) int {
		if sp.to < x { // one that ends where we begin is joined
			return -1
		}
		return 1
	})
	j := i
	for j < len(s) && s[j].from <= to {
		from, to = min(from, s[j].from), max(to, s[j].to)
		j++
	}
	return slices.Replace(s, i, j, span{from, to})
}

// first returns the first n spans of s.
func (s spans) first(n int) spans {
	if len(s) <= n {
		return s
	}
	return slices.Clone(s[:n])
}

// trim returns s without what lies below x, after moving x past a span that it
// touches.
func (s spans) trim(x uint64) (spans, uint64) {
	for len(s) > 0 && s[0].from <= x {
		x = max(x, s[0].to)
		s = s[1:]
	}
	if len(s) == 0 {
		return nil, x
	}
	return s, x
}
