// Package pace holds each of many to a rate, and remembers a bounded number of them.
package pace

import (
	"hash/maphash"
	"sync"
	"time"
)

// Kept is how many each of a Table's two parts remembers.
const Kept = 1 << 16

// A Table knows of each who takes something until when what they took lasts: one instant, by
// the generic cell rate algorithm. Its zero value is ready. For any goroutine.
//
// Two parts, the present one and the one before, hold what is remembered: when the present one
// has been in use for as long as anything in it counts, or is full, the older is forgotten. So
// whoever comes, memory does not grow, and nothing looks at all there is; past so many at once
// some take more than they may.
type Table struct {
	mu       sync.Mutex       // guards the following
	now, old map[uint64]int64 // by hash, until when what was taken lasts: unix nanoseconds
	turned   int64            // when now began
	longest  time.Duration    // the most room that was asked with
}

// seed makes hashes that nobody can foretell.
var seed = maphash.MakeSeed()

// Take takes one from what who, a name in parts, has at the instant now, in unix nanoseconds:
// one more for each interval, and none while what was taken would last longer than room. It
// returns how long they have to wait, 0 if it was taken.
func (t *Table) Take(now int64, each, room time.Duration, who ...string) (wait time.Duration) {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, part := range who {
		h.WriteString(part)
		h.WriteByte(0)
	}
	key := h.Sum64()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.longest = max(t.longest, room)
	if t.now == nil || len(t.now) >= Kept || now-t.turned >= int64(max(t.longest, time.Second)) {
		t.old, t.now, t.turned = t.now, map[uint64]int64{}, now
	}
	busy, known := t.now[key]
	if !known {
		busy = t.old[key]
	}
	if busy = max(busy, now) + int64(each); busy > now+int64(room) {
		return time.Duration(busy - now - int64(room))
	}
	t.now[key] = busy
	return 0
}
