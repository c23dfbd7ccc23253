package broker

import (
	"math/rand/v2"
	"testing"
)

// What is known of the newest entries is what was added, whatever is taken away
// and wherever numbers jump, and there is never more of it than its bound.
func TestRecent(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var r recent
	all := map[uint64]brief{}
	plainFrom, next, below := uint64(0), uint64(5), uint64(5)
	for range 20_000 {
		switch rnd.IntN(10) {
		case 0:
			below += min(next-below, rnd.Uint64N(700))
			r.forget(below)
		case 1:
			if rnd.IntN(50) == 0 {
				r.add(next, &entry{mark: "presence/example.com/bob"})
				next++
				plainFrom = next
			}
		case 2:
			if rnd.IntN(50) == 0 {
				next += 3 // a node that has just started knows none of them
				plainFrom = next
			}
		default:
			e := brief{rnd.Uint64N(3), rnd.Uint64N(1000), rnd.Uint64N(2)}
			r.add(next, &entry{body: e.body, size: e.size, group: e.group})
			all[next] = e
			next++
		}
		if len(r.entries) > recentMost || cap(r.entries) > 2*recentMost {
			t.Fatalf("%d entries, room for %d", len(r.entries), cap(r.entries))
		}
		if from := max(plainFrom, below, next-min(next, recentMost/2)); from < next && !r.has(from, next) {
			t.Fatalf("%d to %d are not known, there are %d from %d", from, next, len(r.entries), r.from)
		}
		for seq := r.from; seq < r.from+uint64(len(r.entries)); seq++ {
			if got := r.at(seq); got.body != all[seq].body || got.size != all[seq].size || got.group != all[seq].group {
				t.Fatalf("entry %d is %+v, want %+v", seq, got, all[seq])
			}
		}
	}
}
