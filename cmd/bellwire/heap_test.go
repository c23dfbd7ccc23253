package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// Garbage may be as much as what is in use besides memtables, and 64 MiB at least.
func TestCollectAt(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, memtables uint64
		want            int
	}{
		{0, 0, 100},
		{20 * mib, 0, 100},           // a small node, as ever
		{500 * mib, 0, 100},          // many clients
		{300 * mib, 260 * mib, 20},   // 64 MiB of 300
		{600 * mib, 300 * mib, 50},   // as much as the rest
		{100 * mib, 260 * mib, 60},   // more memtables since than were in use then
		{2000 * mib, 1990 * mib, 10}, // no less, or it would collect without end
		{1000 * mib, 1000 * mib, 10},
	} {
		if got := collectAt(c.live, c.memtables); got != c.want {
			t.Errorf("%d MiB in use, %d of memtables: %d %%, want %d", c.live/mib, c.memtables/mib, got, c.want)
		}
	}
}

// What memtables take has no garbage gather beside it.
func TestMemtablesAreNotCollectedFor(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	memtable := make([]byte, 256<<20)
	runtime.GC()
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(goal)
	if over := goal[0].Value.Uint64() - goal[1].Value.Uint64(); over < 256<<20 {
		t.Fatalf("%d bytes of garbage may gather by itself, and there is nothing to show", over)
	}
	h := heapRoom{memtables: func() uint64 { return uint64(len(memtable)) }, percent: 100}
	h.look()
	metrics.Read(goal)
	if over := goal[0].Value.Uint64() - goal[1].Value.Uint64(); over > 128<<20 {
		t.Errorf("%d bytes of garbage may gather", over)
	}
	runtime.KeepAlive(memtable)
}
