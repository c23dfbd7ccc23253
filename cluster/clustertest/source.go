package clustertest

import (
	"sync"
	"time"
)

// A Log is what batches are submitted to: a cluster.Node.
type Log interface {
	Submit(batch []byte, failed func(error))
}

const (
	inFlight    = 2
	resendAfter = 20 * time.Millisecond
)

// A Source submits numbered batches to a log as a broker does: two at a time,
// each until it is seen to be applied where it was submitted, in order. It is one
// life of one process.
type Source struct {
	name   string
	life   uint64
	ledger *Ledger

	mu      sync.Mutex // guards the following
	done    sync.Cond  // all that was added has been seen, or the source was stopped
	log     Log
	waiting []Batch
	flying  []Batch
	number  uint64 // of the last batch added
	failed  uint64 // times that a submission failed
	again   *time.Timer
	stopped bool
}

// NewSource returns a source. Lives of one name ascend, from 1 on.
func NewSource(ledger *Ledger, name string, life uint64) *Source {
	s := &Source{name: name, life: life, ledger: ledger}
	s.done.L = &s.mu
	return s
}

// Start has the source submit to log from now on.
func (s *Source) Start(log Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = log
	s.pump()
}

// Add submits one more batch when its turn comes.
func (s *Source) Add(payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	s.waiting = append(s.waiting, Batch{Name: s.name, Life: s.life, Number: s.number, Payload: payload})
	s.pump()
}

// Wait waits until all that was added has been seen, or the source is stopped.
func (s *Source) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.stopped && len(s.waiting)+len(s.flying) > 0 {
		s.done.Wait()
	}
}

// Pending returns how many batches have not been seen.
func (s *Source) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) + len(s.flying)
}

// Failed returns how often a submission failed.
func (s *Source) Failed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Stop ends the source, as the death of its process does.
func (s *Source) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.again != nil {
		s.again.Stop()
	}
	s.done.Broadcast()
}

// is says whether a batch is of this source. s may be nil.
func (s *Source) is(b Batch) bool { return s != nil && b.Name == s.name && b.Life == s.life }

// pump submits what there is room for. Requires mu.
func (s *Source) pump() {
	for s.log != nil && !s.stopped && len(s.flying) < inFlight && len(s.waiting) > 0 {
		b := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.flying = append(s.flying, b)
		s.ledger.submit(b)
		s.submit(b)
	}
}

// submit hands a batch to the log. Requires mu.
func (s *Source) submit(b Batch) {
	// failed may be called before Submit returns, and mu is held: it is noted in
	// another goroutine.
	s.log.Submit(b.Encode(), func(error) { time.AfterFunc(0, s.fail) })
}

// fail has all that flies submitted again, in order, a little later: which of it
// failed does not matter.
func (s *Source) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed++
	if s.stopped || s.again != nil {
		return
	}
	s.again = time.AfterFunc(resendAfter, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.again = nil
		for _, b := range s.flying {
			if !s.stopped {
				s.submit(b)
			}
		}
	})
}

// seen is called when a batch has been applied here.
func (s *Source) seen(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.flying) > 0 && s.flying[0].Number <= number {
		s.flying = s.flying[1:]
	}
	s.pump()
	if len(s.waiting)+len(s.flying) == 0 {
		s.done.Broadcast()
	}
}

// caughtUp is called with the last batch of this name in a state that was not
// reached step by step.
func (s *Source) caughtUp(last key) {
	if last.life == s.life {
		s.seen(last.number)
	}
}
