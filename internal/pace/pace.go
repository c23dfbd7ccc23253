// Package pace holds each of many to a rate, and remembers a bounded number of them.
package pace

import (
	"hash/maphash"
	"sync"
	"time"
)

// Take takes one of what there is at a rate of one for each interval, and so many at once, at
// the instant now, unless there is none. It returns how long one has to wait, 0 if it was
// taken. Busy is until when what was taken lasts (the generic cell rate algorithm): it is all
// that has to be remembered. Instants are unix nanoseconds.
func Take(busy *int64, now int64, each time.Duration, atOnce int) (wait time.Duration) {
	until := max(*busy, now) + int64(each)
	if over := until - now - int64(each)*int64(atOnce); over > 0 {
		return time.Duration(over)
	}
	*busy = until
	return 0
}

// Kept is how many each of a Table's two parts remembers.
const Kept = 1 << 16

// A Table knows of each who takes something until when what they took lasts. Its zero value is
// ready. For any goroutine.
//
// Two parts, the present one and the one before, hold what is remembered: when the present one
// has been in use for as long as anything in it counts, or is full, the older is forgotten. So
// whoever comes, memory does not grow, and nothing looks at all there is; past so many at once
// some take more than they may.
type Table struct {
	mu       sync.Mutex       // guards the following
	now, old map[uint64]int64 // by hash, until when what was taken lasts: unix nanoseconds
	turned   int64            // when now began
	longest  time.Duration    // the longest that something lasts
}

// seed makes hashes that nobody can foretell.
var seed = maphash.MakeSeed()

// Take is Take for who, a name in parts.
func (t *Table) Take(now int64, each time.Duration, atOnce int, who ...string) (wait time.Duration) {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, part := range who {
		h.WriteString(part)
		h.WriteByte(0)
	}
	key := h.Sum64()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.longest = max(t.longest, each*time.Duration(atOnce))
	if t.now == nil || len(t.now) >= Kept || now-t.turned >= int64(max(t.longest, time.Second)) {
		t.old, t.now, t.turned = t.now, map[uint64]int64{}, now
	}
	busy, known := t.now[key]
	if !known {
		busy = t.old[key]
	}
	if wait = Take(&busy, now, each, atOnce); wait == 0 {
		t.now[key] = busy
	}
	return wait
}
