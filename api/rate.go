package api

import (
	"net"
	"net/http"
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
	askersKept    = 10_000 // of whom is known how much they asked for; the loser is any
)

// How much else somebody may ask for, if nothing else is said: a resource by its name, what
// is their own, a preview.
const (
	fetchesAtOnce   = 100
	fetchesInterval = time.Second / 5
)

// NewRate returns one that gives each asker so many fetches at once, and perSecond more
// each second; 0 of either means 100, and 5.
func NewRate(atOnce, perSecond int) *Rate {
	r := &Rate{atOnce: fetchesAtOnce, interval: fetchesInterval}
	if atOnce != 0 {
		r.atOnce = atOnce
	}
	if perSecond != 0 {
		r.interval = time.Second / time.Duration(perSecond)
	}
	return r
}

// A Rate bounds what each asker is given. Its zero value is ready, and that of lists. For
// any goroutine.
type Rate struct {
	Refused atomic.Uint64 // what was asked for too soon

	mu       sync.Mutex           // guards the following
	atOnce   int                  // 0: as lists
	interval time.Duration        // in which it is one more
	busy     map[string]time.Time // until when somebody has used up what they may have
}

// Change has it give other bounds from now on, as NewRate takes them. Who has used up what they
// had waits no longer than by the bounds before.
func (r *Rate) Change(atOnce, perSecond int) {
	to := NewRate(atOnce, perSecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.atOnce, r.interval = to.atOnce, to.interval
}

// bounds returns how many an asker may have at once, and after how long one more. With mu held.
func (r *Rate) bounds() (atOnce int, interval time.Duration) {
	if r.atOnce == 0 {
		return listsAtOnce, listsInterval
	}
	return r.atOnce, r.interval
}

// take notes that who asks. It returns 0, or how long they have to wait.
func (r *Rate) take(who string, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := r.busy[who]
	if busy.Before(now) {
		busy = now
	}
	atOnce, interval := r.bounds()
	busy = busy.Add(interval)
	if over := busy.Sub(now) - time.Duration(atOnce)*interval; over > 0 {
		r.Refused.Add(1)
		return over
	}
	if r.busy == nil {
		r.busy = map[string]time.Time{}
	}
	if _, known := r.busy[who]; !known && len(r.busy) >= askersKept {
		r.makeRoom(now)
	}
	r.busy[who] = busy
	return 0
}

// allow answers who asks too often, says when to ask again, and returns false for them. Who
// says no name is one by network address. A nil Rate lets everybody.
func (r *Rate) allow(w http.ResponseWriter, q *http.Request, principal string, now func() time.Time, what string) bool {
	if r == nil {
		return true
	}
	who := principal
	if who == "" {
		host, _, _ := net.SplitHostPort(q.RemoteAddr)
		who = "?" + host
	}
	wait := r.take(who, now())
	if wait > 0 {
		r.mu.Lock()
		atOnce, interval := r.bounds()
		r.mu.Unlock()
		retryAfter(w, wait)
		refuse(w, http.StatusTooManyRequests, "too many %s (%d at once, and %d more each second)", what, atOnce, time.Second/interval)
	}
	return wait == 0
}

// makeRoom forgets who has waited long enough, or else anybody. Requires mu.
func (r *Rate) makeRoom(now time.Time) {
	for who, busy := range r.busy {
		if !busy.After(now) {
			delete(r.busy, who)
		}
	}
	for who := range r.busy {
		if len(r.busy) < askersKept {
			return
		}
		delete(r.busy, who)
	}
}
