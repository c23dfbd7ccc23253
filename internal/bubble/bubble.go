// Package bubble runs tests in bubbles of testing/synctest, in a way that the
// race detector survives.
//
// Go 1.26 lends one context of the race detector to all timers of a bubble
// (runtime/time.go, unlockAndRun: bubble.timers.raceCtx). A timer with a channel
// that nobody waits at is run by whoever looks at the channel next, or stops the
// timer; in a bubble, where many timers are due at the same instant, two
// goroutines do that at once on two processors, or one does while the bubble's
// root runs the others. Then the detector itself is in a race, and the process
// dies in it: "ThreadSanitizer: CHECK failed: tsan_rtl.cpp:346", or with SIGSEGV,
// or with a fault that looks like anybody's. See https://go.dev/issue/78156.
//
// With one processor it cannot come to that: timers run on the stack of the
// scheduler, which nothing preempts. The detector finds as much: it goes by what
// happened before what, not by what happened at once. So under the race detector,
// and only there, bubbles have one processor. Once the runtime is mended (TestDue
// passes without), this package goes.
package bubble

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Test is synctest.Test, which nothing else in this tree may call. It may be
// called from tests that run in parallel.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if underRace {
		processors.limit()
		defer processors.restore()
	}
	synctest.Test(t, f)
}

// processors counts the bubbles that want one processor, and knows how many the
// process had before the first of them.
var processors limiter

type limiter struct {
	mu      sync.Mutex
	bubbles int
	before  int
}

func (l *limiter) limit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bubbles == 0 {
		l.before = runtime.GOMAXPROCS(1)
	}
	l.bubbles++
}

func (l *limiter) restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bubbles--; l.bubbles == 0 {
		runtime.GOMAXPROCS(l.before)
	}
}
