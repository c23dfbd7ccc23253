package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A heapRoom has the garbage collector reckon with what a node really has for it to do.
//
// The collector lets as much garbage gather as there is memory in use: that is what its work is
// spread over. Memtables are memory in use to it, up to 128 MiB each of the log's newest entries
// and 64 MiB each of the state, and no work at all: they are a few blocks without a pointer. So
// whoever publishes enough had a node hold as much garbage beside them, and take twice its
// memory. Memtables are left out of the reckoning here, as they are where Pebble has them
// outside of Go's heap (with cgo, which ours are built without, and where nothing is changed): garbage may be as much as all the rest
// that is in use, and heapFree at least, so that a small node does not collect the more often.
//
// Whoever sets GOGC or GOMEMLIMIT has said how it is to be, and nothing is changed.
type heapRoom struct {
	memtables func() uint64 // bytes of them
	percent   int           // in force
	cycle     uint64        // of the collector, that was looked at last

	stop  chan struct{} // nil if nothing runs
	tasks sync.WaitGroup
}

const (
	heapFree = 64 << 20 // bytes
	heapLook = time.Second
)

// run looks after each collection until close.
func (h *heapRoom) run(memtables func() uint64) {
	if !memtablesInHeap || os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	h.memtables, h.percent, h.stop = memtables, 100, make(chan struct{})
	h.tasks.Go(func() {
		tick := time.NewTicker(heapLook)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				h.look()
			case <-h.stop:
				return
			}
		}
	})
}

// close ends run. What is in force stays so.
func (h *heapRoom) close() {
	if h.stop != nil {
		close(h.stop)
		h.tasks.Wait()
	}
}

// look puts another percentage in force, if there was a collection and it is to be one.
func (h *heapRoom) look() {
	read := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(read)
	if cycle := read[0].Value.Uint64(); cycle != h.cycle {
		h.cycle = cycle
		if percent := collectAt(read[1].Value.Uint64(), h.memtables()); percent != h.percent {
			h.percent = percent
			debug.SetGCPercent(percent)
		}
	}
}

// collectAt returns of how many percent of live bytes, memtables among them, garbage may be.
// It is in steps, for to set it stops the process for a moment.
func collectAt(live, memtables uint64) int {
	const step = 10
	room := max(live-min(live, memtables), heapFree)
	percent := int(100 * room / max(live, 1))
	return min(max(percent/step*step, step), 100)
}
