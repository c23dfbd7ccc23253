package raftlog

import (
	"sync"
	"time"
)

// watchSteps is in how many steps a watchdog's time passes; mostSteps is how many it
// takes at most, however much is done meanwhile.
const watchSteps, mostSteps = 4, 8

// A watchdog barks when something is not done in time, and nothing else either: a
// commit may need several syncs, one after the other, of the log and of its directory,
// and wait behind another's. A disk that completes them is slow. It begins to count
// anew when something was done, but not for ever: one file may hang alone.
//
// Its time passes in steps, each of which begins when the one before has been
// noticed: so that a process which is stopped for a while (SIGSTOP, a machine
// that is paused) does not take that for the disk's fault. When it goes on, one
// step is over, and what it waits for has the time of the others.
type watchdog struct {
	step time.Duration
	done func() uint64 // counts what is done
	bark func()

	mu    sync.Mutex // guards the following
	timer *time.Timer
	seen  uint64 // of done, at the last step
	left  int    // steps; 0 when it has barked or was stopped
	most  int    // steps, whatever is done
}

// watch begins to wait.
func watch(limit time.Duration, done func() uint64, bark func()) *watchdog {
	w := &watchdog{step: limit / watchSteps, done: done, bark: bark, seen: done(), left: watchSteps, most: mostSteps}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.step, w.stepped)
	return w
}

func (w *watchdog) stepped() {
	w.mu.Lock()
	if w.left == 0 {
		w.mu.Unlock()
		return
	}
	w.left--
	w.most--
	if done := w.done(); done != w.seen {
		w.seen, w.left = done, watchSteps
	}
	w.left = min(w.left, w.most)
	over := w.left == 0
	if !over {
		w.timer.Reset(w.step)
	}
	w.mu.Unlock()
	if over {
		w.bark()
	}
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = 0
	w.timer.Stop()
}
