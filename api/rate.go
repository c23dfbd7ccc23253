package api

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/bellwire/bellwire/internal/pace"
)

// How many lists somebody may ask for: so many at once, and one more for each interval.
// One looks at up to 16,000 resources, which takes 30 to 80 ms of those that are loaded
// and more than a second of others.
const (
	listsAtOnce   = 20
	listsInterval = time.Second
)

// Bounds are of a Rate: so many at once, and one more for each interval.
type Bounds struct {
	AtOnce   int
	Interval time.Duration
}

func (b *Bounds) String() string {
	if b.Interval > time.Second {
		return fmt.Sprintf("%d at once, and one more each %v", b.AtOnce, b.Interval)
	}
	return fmt.Sprintf("%d at once, and %d more each second", b.AtOnce, time.Second/b.Interval)
}

// NewRate returns one with these bounds.
func NewRate(b Bounds) *Rate {
	r := new(Rate)
	r.Change(b)
	return r
}

// A Rate bounds what each asker is given. Its zero value is ready, and that of lists. For
// any goroutine. It remembers 131,072 askers at most (see pace.Table).
type Rate struct {
	Refused atomic.Uint64 // what was asked for too soon

	table  pace.Table
	bounds atomic.Pointer[Bounds] // nil: as lists
}

// Change has it give other bounds from now on. Who has used up what they had waits no longer
// than by the bounds before.
func (r *Rate) Change(to Bounds) { r.bounds.Store(&to) }

func (r *Rate) boundsNow() *Bounds {
	if b := r.bounds.Load(); b != nil {
		return b
	}
	return &Bounds{listsAtOnce, listsInterval}
}

// take notes that who, a name in parts, asks. It returns 0, or how long they have to wait.
func (r *Rate) take(now time.Time, b *Bounds, who ...string) time.Duration {
	wait := r.table.Take(now.UnixNano(), b.Interval, b.AtOnce, who...)
	if wait > 0 {
		r.Refused.Add(1)
	}
	return wait
}

// allow answers who asks too often, for anything or for of, says when to ask again, and
// returns false for them. Who says no name is one by network address. A nil Rate lets
// everybody.
func (r *Rate) allow(w http.ResponseWriter, q *http.Request, principal, of string, now func() time.Time, what string) bool {
	if r == nil {
		return true
	}
	who := principal
	if who == "" {
		host, _, _ := net.SplitHostPort(q.RemoteAddr)
		who = "?" + host
	}
	b := r.boundsNow()
	wait := r.take(now(), b, who, of)
	if wait > 0 {
		retryAfter(w, wait)
		refuse(w, http.StatusTooManyRequests, "too many %s (%v): subscribe to be told of changes, or ask again later", what, b)
	}
	return wait == 0
}
