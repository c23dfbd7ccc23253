package topic

import "math/bits"

// A table is a persistent map: a change returns a new table that shares all
// but the path to the change with the old one, which stays as it was and may
// be read meanwhile. nil is the empty table.
//
// It is a hash trie of 32-way nodes with the pairs inside the nodes (CHAMP).
// A change of a table of n pairs copies log32(n) nodes. It must hold that equal
// maps have one shape: below the root, no node holds a single pair and nothing
// else. So deleting gives back all that adding took.
//
// The caller hashes, and passes the same hash for the same key to the same
// table always. Keys whose whole hashes are equal share a node at the bottom,
// which is searched one by one.
type table[K comparable, V any] struct {
	pairsAt uint32         // bit i: a pair has the digit i here
	belowAt uint32         // bit i: a node holds the pairs with digit i
	pairs   []pair[K, V]   // by digit; at the bottom, in no order
	below   []*table[K, V] // by digit
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

const (
	digit  = 5  // bits of the hash that a node looks at
	bottom = 64 // the shift at which no bits are left
)

// find returns the value of key.
func (t *table[K, V]) find(hash uint64, key K) (value V, ok bool) {
	for shift := 0; t != nil; shift += digit {
		bit := bitOf(hash, shift)
		switch {
		case shift >= bottom:
			if i := t.search(key); i >= 0 {
				return t.pairs[i].value, true
			}
			return value, false
		case t.belowAt&bit != 0:
			t = t.below[rank(t.belowAt, bit)]
		case t.pairsAt&bit != 0:
			if p := &t.pairs[rank(t.pairsAt, bit)]; p.key == key {
				return p.value, true
			}
			return value, false
		default:
			return value, false
		}
	}
	return value, false
}

// with returns a table in which key has value. hashOf is asked for the hashes
// of keys that are already there and have to move.
func (t *table[K, V]) with(hash uint64, key K, value V, hashOf func(K) uint64) *table[K, V] {
	return t.withAt(0, hash, pair[K, V]{key, value}, hashOf)
}

func (t *table[K, V]) withAt(shift int, hash uint64, p pair[K, V], hashOf func(K) uint64) *table[K, V] {
	if t == nil {
		t = &table[K, V]{}
	}
	if shift >= bottom {
		if i := t.search(p.key); i >= 0 {
			return &table[K, V]{pairs: replaced(t.pairs, i, p)}
		}
		return &table[K, V]{pairs: inserted(t.pairs, len(t.pairs), p)}
	}
	bit := bitOf(hash, shift)
	c := *t
	if t.belowAt&bit != 0 {
		i := rank(t.belowAt, bit)
		c.below = replaced(t.below, i, t.below[i].withAt(shift+digit, hash, p, hashOf))
		return &c
	}
	i := rank(t.pairsAt, bit)
	if t.pairsAt&bit == 0 {
		c.pairsAt |= bit
		c.pairs = inserted(t.pairs, i, p)
		return &c
	}
	old := t.pairs[i]
	if old.key == p.key {
		c.pairs = replaced(t.pairs, i, p)
		return &c
	}
	var both *table[K, V]
	both = both.withAt(shift+digit, hashOf(old.key), old, hashOf)
	both = both.withAt(shift+digit, hash, p, hashOf)
	c.pairsAt &^= bit
	c.pairs = removed(t.pairs, i)
	c.belowAt |= bit
	c.below = inserted(t.below, rank(c.belowAt, bit), both)
	return &c
}

// without returns a table without key: t itself if it is not there.
func (t *table[K, V]) without(hash uint64, key K) *table[K, V] {
	return t.withoutAt(0, hash, key)
}

func (t *table[K, V]) withoutAt(shift int, hash uint64, key K) *table[K, V] {
	if t == nil {
		return nil
	}
	bit := bitOf(hash, shift)
	i := -1
	switch {
	case shift >= bottom:
		i = t.search(key)
	case t.belowAt&bit != 0:
		return t.withoutBelow(shift, hash, key)
	case t.pairsAt&bit != 0:
		if at := rank(t.pairsAt, bit); t.pairs[at].key == key {
			i = at
		}
	}
	if i < 0 {
		return t
	}
	if len(t.pairs) == 1 && t.below == nil {
		return nil
	}
	c := *t
	if shift < bottom {
		c.pairsAt &^= bit
	}
	c.pairs = removed(t.pairs, i)
	return &c
}

// withoutBelow deletes key from the node below t on its path. A node that is
// left with a single pair is dissolved: its pair moves up.
func (t *table[K, V]) withoutBelow(shift int, hash uint64, key K) *table[K, V] {
	bit := bitOf(hash, shift)
	i := rank(t.belowAt, bit)
	old := t.below[i]
	kid := old.withoutAt(shift+digit, hash, key)
	if kid == old {
		return t
	}
	c := *t
	if kid.below != nil || len(kid.pairs) > 1 {
		c.below = replaced(t.below, i, kid)
		return &c
	}
	c.belowAt &^= bit
	c.below = removed(t.below, i)
	c.pairsAt |= bit
	c.pairs = inserted(t.pairs, rank(c.pairsAt, bit), kid.pairs[0])
	return &c
}

// each calls f for every pair, in no particular order.
func (t *table[K, V]) each(f func(key K, value V)) {
	if t == nil {
		return
	}
	for i := range t.pairs {
		f(t.pairs[i].key, t.pairs[i].value)
	}
	for _, kid := range t.below {
		kid.each(f)
	}
}

// only returns the single pair's value of a table that holds one pair.
func (t *table[K, V]) only() (value V, ok bool) {
	if t == nil || t.below != nil || len(t.pairs) != 1 {
		return value, false
	}
	return t.pairs[0].value, true
}

func (t *table[K, V]) search(key K) int {
	for i := range t.pairs {
		if t.pairs[i].key == key {
			return i
		}
	}
	return -1
}

func bitOf(hash uint64, shift int) uint32 { return 1 << (hash >> shift & (1<<digit - 1)) }

// rank is the place in a node's slice of what bit stands for.
func rank(bitmap, bit uint32) int { return bits.OnesCount32(bitmap & (bit - 1)) }

// The following copy; their argument is shared with other versions.

func replaced[T any](s []T, i int, v T) []T {
	c := make([]T, len(s))
	copy(c, s)
	c[i] = v
	return c
}

func inserted[T any](s []T, i int, v T) []T {
	c := make([]T, len(s)+1)
	copy(c, s[:i])
	c[i] = v
	copy(c[i+1:], s[i:])
	return c
}

// removed returns nil rather than an empty slice.
func removed[T any](s []T, i int) []T {
	if len(s) == 1 {
		return nil
	}
	c := make([]T, len(s)-1)
	copy(c, s[:i])
	copy(c[i:], s[i+1:])
	return c
}
