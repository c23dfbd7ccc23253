package raftlog

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/internal/bubble"
)

// A watchdog barks once its time has passed, and not when it is stopped before.
// However late a step is noticed, it counts as one: a process that stood still is
// no disk that hangs.
func TestWatchdog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var barked atomic.Int32
		start := time.Now()
		w := watch(time.Second, func() { barked.Add(1) })
		<-time.After(999 * time.Millisecond)
		if synctest.Wait(); barked.Load() != 0 {
			t.Errorf("barked after %v", time.Since(start))
		}
		<-time.After(time.Millisecond)
		if synctest.Wait(); barked.Load() != 1 {
			t.Errorf("silent after %v", time.Since(start))
		}
		w.stop()

		w = watch(time.Second, func() { barked.Add(1) })
		<-time.After(100 * time.Millisecond)
		w.stepped() // as if the process had been stopped until long after the step
		<-time.After(700 * time.Millisecond)
		w.stop()
		<-time.After(time.Hour)
		if synctest.Wait(); barked.Load() != 1 {
			t.Error("barked for a process that stood still, or when it had been stopped")
		}
	})
}
