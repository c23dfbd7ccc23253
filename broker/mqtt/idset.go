package mqtt

// An idSet is a set of packet identifiers. Few are in use at once as a rule,
// and those are a list; a client that uses more than listed gets a bitmap, so
// that asking stays cheap whatever it does.
type idSet struct {
	list []uint16
	bits *[1 << 16 / 64]uint64
	n    int
}

const listed = 64

func (s *idSet) len() int { return s.n }

func (s *idSet) has(id uint16) bool {
	if s.bits != nil {
		return s.bits[id/64]&(1<<(id%64)) != 0
	}
	for _, v := range s.list {
		if v == id {
			return true
		}
	}
	return false
}

// add adds id and says whether it is new.
func (s *idSet) add(id uint16) bool {
	if s.has(id) {
		return false
	}
	s.n++
	if s.bits == nil && s.n > listed {
		s.bits = new([1 << 16 / 64]uint64)
		for _, v := range s.list {
			s.bits[v/64] |= 1 << (v % 64)
		}
		s.list = nil
	}
	if s.bits != nil {
		s.bits[id/64] |= 1 << (id % 64)
	} else {
		s.list = append(s.list, id)
	}
	return true
}

// remove removes id and says whether it was there.
func (s *idSet) remove(id uint16) bool {
	if !s.has(id) {
		return false
	}
	s.n--
	if s.bits != nil {
		s.bits[id/64] &^= 1 << (id % 64)
		if s.n == 0 {
			s.bits = nil
		}
		return true
	}
	for i, v := range s.list {
		if v == id {
			last := len(s.list) - 1
			s.list[i] = s.list[last]
			s.list = s.list[:last]
			break
		}
	}
	return true
}

// shrink gives back memory, if the set is empty.
func (s *idSet) shrink() {
	if s.n == 0 {
		*s = idSet{}
	}
}
