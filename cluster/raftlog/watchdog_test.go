package raftlog

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bellwire/bellwire/disk"
	"github.com/bellwire/bellwire/internal/bubble"
)

// A watchdog barks once its time has passed, and not when it is stopped before.
// However late a step is noticed, it counts as one: a process that stood still is
// no disk that hangs.
func TestWatchdog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nothing := func() uint64 { return 0 }
		var barked atomic.Int32
		start := time.Now()
		w := watch(time.Second, nothing, func() { barked.Add(1) })
		<-time.After(999 * time.Millisecond)
		if synctest.Wait(); barked.Load() != 0 {
			t.Errorf("barked after %v", time.Since(start))
		}
		<-time.After(time.Millisecond)
		if synctest.Wait(); barked.Load() != 1 {
			t.Errorf("silent after %v", time.Since(start))
		}
		w.stop()

		w = watch(time.Second, nothing, func() { barked.Add(1) })
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

// A watchdog does not bark as long as things are done, but not for ever.
func TestWatchdogSeesWhatIsDone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var done atomic.Uint64
		barked := make(chan time.Duration, 1)
		start := time.Now()
		bark := func() { barked <- time.Since(start) }
		w := watch(time.Second, done.Load, bark)
		<-time.After(600 * time.Millisecond)
		done.Add(1) // noticed after 750 ms
		if after := <-barked; after != 1750*time.Millisecond {
			t.Errorf("something was done, and nothing since: it barks after %v, want 1.75s", after)
		}
		w.stop()

		start = time.Now()
		w = watch(time.Second, func() uint64 { return done.Add(1) }, bark)
		if after := <-barked; after != 2*time.Second {
			t.Errorf("something is done all the time: it barks after %v, want 2s", after)
		}
		w.stop()
	})
}

// A disk that takes two seconds for each sync is not given up by who waits three and a
// half for it: what is stored is there, however late.
func TestSlowDiskIsNotGivenUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const each = 2 * time.Second
		fs := disk.Memory()
		o := options(fs) // dies by panicking
		o.Stall, o.Now = 3500*time.Millisecond, time.Now
		db, l := open(t, o, never, 0)
		fs.Intercept(func(op disk.Op, name string) error {
			if op == disk.OpSync {
				<-time.After(each)
			}
			return nil
		})
		start := time.Now()
		for i := range uint64(10) {
			store(t, l, command(i+1, 1, "slow"))
		}
		if err := l.SetUint64([]byte("CurrentTerm"), 2); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 10*each {
			t.Errorf("ten entries and a term were stored in %v: the disk was not slow", took)
		}
		fs.Intercept(nil)
		if last, err := l.LastIndex(); err != nil || last != 10 {
			t.Errorf("the log ends at %d, %v", last, err)
		}
		closeDB(t, db)
	})
}
