package broker

import (
	"sync"
	"sync/atomic"
)

// Seats number the shared subscriptions in the index of local subscriptions, and
// keep whose turn it is, by filter: lists of who gets what come and go.
type seats struct {
	last atomic.Uint64
	here map[string]*muster // by filter; the delivery loop's

	mu       sync.Mutex
	byFilter map[string]*turns
}

func (s *seats) next() uint64 { return sharedKeys | s.last.Add(1) }

// turns returns the turns of a filter, for one more seat.
func (s *seats) turns(filter string) *turns {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byFilter[filter]
	if t == nil {
		t = new(turns)
		if s.byFilter == nil {
			s.byFilter = map[string]*turns{}
		}
		s.byFilter[filter] = t
	}
	t.seats++
	return t
}

// leave undoes turns.
func (s *seats) leave(filter string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byFilter[filter]
	if t == nil {
		return
	}
	if t.seats--; t.seats == 0 {
		delete(s.byFilter, filter)
	}
}
