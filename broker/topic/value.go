package topic

// Value returns what key is subscribed to filter as, and whether it is.
func (x *Index[K, V, M]) Value(filter string, key K) (value V, ok bool) {
	s := x.find(x.now.Load(), filter)
	switch {
	case s == nil:
	case s.crowd != nil:
		return s.crowd.members.find(x.key(key), key)
	default:
		if i := s.search(key); i >= 0 {
			return s.few[i].value, true
		}
	}
	return value, false
}
