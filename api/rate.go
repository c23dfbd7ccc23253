package api

import (
	"sync"
	"sync/atomic"
	"time"
)

// How many lists somebody may ask for: so many at once, and one more for each interval.
// One looks at up to 16,000 resources, which takes 30 to 80 ms of those that are loaded
// and more than a second of others.
const (
	listsAtOnce   = 20
	listsInterval = time.Second
	listersKept   = 10_000 // of whom is known how much they asked for; the loser is any
)

// A Rate bounds the lists that each asker is given. Its zero value is ready. For any
// goroutine.
type Rate struct {
	Refused atomic.Uint64 // lists that were asked for too soon

	mu   sync.Mutex
	busy map[string]time.Time // until when somebody has used up what they may have
}

// take notes that who asks for a list. It returns 0, or how long they have to wait.
func (r *Rate) take(who string, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := r.busy[who]
	if busy.Before(now) {
		busy = now
	}
	busy = busy.Add(listsInterval)
	if over := busy.Sub(now) - listsAtOnce*listsInterval; over > 0 {
		r.Refused.Add(1)
		return over
	}
	if r.busy == nil {
		r.busy = map[string]time.Time{}
	}
	if _, known := r.busy[who]; !known && len(r.busy) >= listersKept {
		r.makeRoom(now)
	}
	r.busy[who] = busy
	return 0
}

// makeRoom forgets who has waited long enough, or else anybody. Requires mu.
func (r *Rate) makeRoom(now time.Time) {
	for who, busy := range r.busy {
		if !busy.After(now) {
			delete(r.busy, who)
		}
	}
	for who := range r.busy {
		if len(r.busy) < listersKept {
			return
		}
		delete(r.busy, who)
	}
}
