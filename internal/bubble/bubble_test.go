package bubble

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// What kills the race detector of Go 1.26 in most runs when a bubble has
// two processors: timers that are due at one instant are run by the bubble's root,
// and by goroutines that look at channels of theirs.
func TestDue(t *testing.T) {
	for range 100 {
		Test(t, func(*testing.T) {
			var over sync.WaitGroup
			for range 500 {
				over.Add(1)
				own := time.NewTimer(time.Millisecond)
				time.AfterFunc(time.Millisecond, func() { <-own.C; over.Done() })
			}
			over.Wait()
		})
	}
}

// The processors come back when the last bubble has ended, and not before.
func TestProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	inside := before
	if underRace {
		inside = 1
	}
	var bubbles sync.WaitGroup
	gate := make(chan struct{}) // of no bubble, so that they wait for one another in real time
	for range 3 {
		arrived := make(chan struct{})
		bubbles.Go(func() {
			Test(t, func(*testing.T) {
				close(arrived)
				<-gate
				if got := runtime.GOMAXPROCS(0); got != inside {
					t.Errorf("in a bubble there are %d processors, want %d", got, inside)
				}
			})
		})
		<-arrived
	}
	close(gate)
	bubbles.Wait()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("after the bubbles there are %d processors, want %d as before", got, before)
	}
}
