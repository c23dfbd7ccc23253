package topic

// A set holds who subscribes to one filter, and as what. It never changes, and
// is never empty: no set is a nil one.
//
// Most filters have one subscriber, so a few are a plain slice. A filter that
// thousands share becomes a table, so that joining it costs the same for the
// first and the last of them; a copied slice would make a storm of n joins cost
// n² copies.
type set[K comparable, V any] struct {
	filter string
	few    []pair[K, V] // nil if there is a crowd
	crowd  *crowd[K, V]
}

type crowd[K comparable, V any] struct {
	members *table[K, V]
	n       int
}

// A set of more than manyIn is a crowd; one of fewer than fewAgain is not. They
// differ, so that one who comes and goes does not cause a rebuild each time.
const (
	manyIn   = 16
	fewAgain = 9
)

func (s *set[K, V]) len() int {
	switch {
	case s == nil:
		return 0
	case s.crowd != nil:
		return s.crowd.n
	}
	return len(s.few)
}

// with returns a set in which key has value, and whether it had one before.
// s must not be nil.
func (s *set[K, V]) with(key K, value V, hashOf func(K) uint64) (c *set[K, V], had bool) {
	p := pair[K, V]{key, value}
	if s.crowd != nil {
		h := hashOf(key)
		n := s.crowd.n
		if _, had = s.crowd.members.find(h, key); !had {
			n++
		}
		return &set[K, V]{filter: s.filter, crowd: &crowd[K, V]{s.crowd.members.with(h, key, value, hashOf), n}}, had
	}
	if i := s.search(key); i >= 0 {
		return &set[K, V]{filter: s.filter, few: replaced(s.few, i, p)}, true
	}
	if len(s.few) < manyIn {
		return &set[K, V]{filter: s.filter, few: inserted(s.few, len(s.few), p)}, false
	}
	var members *table[K, V]
	for _, p := range s.few {
		members = members.with(hashOf(p.key), p.key, p.value, hashOf)
	}
	members = members.with(hashOf(key), key, value, hashOf)
	return &set[K, V]{filter: s.filter, crowd: &crowd[K, V]{members, len(s.few) + 1}}, false
}

// without returns a set without key, nil if nobody else is in it, and whether
// key was.
func (s *set[K, V]) without(key K, hashOf func(K) uint64) (c *set[K, V], had bool) {
	if s == nil {
		return nil, false
	}
	if s.crowd != nil {
		return s.withoutOfCrowd(key, hashOf)
	}
	i := s.search(key)
	switch {
	case i < 0:
		return s, false
	case len(s.few) == 1:
		return nil, true
	}
	return &set[K, V]{filter: s.filter, few: removed(s.few, i)}, true
}

func (s *set[K, V]) withoutOfCrowd(key K, hashOf func(K) uint64) (c *set[K, V], had bool) {
	members := s.crowd.members.without(hashOf(key), key)
	if members == s.crowd.members {
		return s, false
	}
	n := s.crowd.n - 1
	if n >= fewAgain {
		return &set[K, V]{filter: s.filter, crowd: &crowd[K, V]{members, n}}, true
	}
	few := make([]pair[K, V], 0, n)
	members.each(func(key K, value V) { few = append(few, pair[K, V]{key, value}) })
	return &set[K, V]{filter: s.filter, few: few}, true
}

func (s *set[K, V]) search(key K) int {
	for i := range s.few {
		if s.few[i].key == key {
			return i
		}
	}
	return -1
}

// each calls f for every subscriber, in no particular order.
func (s *set[K, V]) each(f func(key K, value V)) {
	if s.crowd != nil {
		s.crowd.members.each(f)
		return
	}
	for i := range s.few {
		f(s.few[i].key, s.few[i].value)
	}
}
