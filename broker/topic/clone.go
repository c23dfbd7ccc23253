package topic

// Clone returns an index of the same subscriptions, in a time that does not depend
// on how many there are: what the two share neither ever changes. It has a cache of
// its own, of the size that limit says (see NewIndex), and builds with the same
// function.
func (x *Index[K, V, M]) Clone(limit int) *Index[K, V, M] {
	c := NewIndex(x.build, limit)
	c.seed, c.mask = x.seed, x.mask // hashes are part of what is shared
	c.now.Store(x.now.Load())
	return c
}

// Count returns how many subscribe to filter, and to no other that matches the
// same names.
func (x *Index[K, V, M]) Count(filter string) int { return x.find(x.now.Load(), filter).len() }
