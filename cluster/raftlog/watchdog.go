package raftlog

import (
	"sync"
	"time"
)

// watchSteps is in how many steps a watchdog's time passes.
const watchSteps = 4

// A watchdog barks when something is not done in time.
//
// Its time passes in steps, each of which begins when the one before has been
// noticed: so that a process which is stopped for a while (SIGSTOP, a machine
// that is paused) does not take that for the disk's fault. When it goes on, one
// step is over, and what it waits for has the time of the others.
type watchdog struct {
	step time.Duration
	bark func()

	mu    sync.Mutex // guards the following
	timer *time.Timer
	left  int // steps; 0 when it has barked or was stopped
}

// watch begins to wait.
func watch(limit time.Duration, bark func()) *watchdog {
	w := &watchdog{step: limit / watchSteps, bark: bark, left: watchSteps}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.step, w.stepped)
	return w
}

func (w *watchdog) stepped() {
	w.mu.Lock()
	over := w.left == 1
	if w.left = max(0, w.left-1); w.left > 0 {
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
