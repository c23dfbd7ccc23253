package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// causes has each cause of trouble told to the operator once, and again each reminder while
// it lasts: a bridge tries for as long as its peer is away, and what fails every half minute
// for a weekend is told once, not 5,000 times. What is told no more is in the log at
// Debug, and counted all the same.
type causes struct {
	mu   sync.Mutex // guards the following
	told map[string]*logPace
}

const reminder = time.Hour

// level returns at which level trouble is logged that cause names, and how often that was
// not told since it last was.
func (c *causes) level(cause string, now time.Time) (level slog.Level, untold int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pace := c.told[cause]
	if pace == nil {
		if c.told == nil {
			c.told = map[string]*logPace{}
		}
		pace = &logPace{every: reminder}
		c.told[cause] = pace
	}
	untold, ok := pace.note(now)
	if !ok {
		return slog.LevelDebug, 0
	}
	return slog.LevelWarn, untold
}

// over forgets all causes: a connection has settled, and what fails now is news.
func (c *causes) over() {
	c.mu.Lock()
	c.told = nil
	c.mu.Unlock()
}

// cause names what a connection failed by, alike for each try that fails by the same: errors
// tell addresses of ours and times, too, which differ.
func (f *failed) cause() string {
	last := f.err
	for next := errors.Unwrap(last); next != nil; next = errors.Unwrap(last) {
		last = next
	}
	what := fmt.Sprintf("%T", last)
	switch last.(type) {
	case syscall.Errno:
		what = last.Error()
	}
	if r, ok := last.(*refusal); ok { // without its Reason String, which may be another each time
		what = codeText(r.code, "")
	}
	return failureNames[f.kind] + " " + f.todo + " " + what
}

// tell counts why there is no connection, and tells the operator.
func (b *Bridge) tell(ctx context.Context, err error, wait time.Duration) {
	f, ok := errors.AsType[*failed](err)
	if !ok {
		f = &failed{kind: FailLost, err: err}
	}
	b.stats.failed[f.kind].Add(1)
	b.note(State{Peer: b.tried, Why: f.Error(), Todo: f.todo})
	level, untold := b.causes.level(b.tried+" "+f.cause(), b.c.Now())
	attrs := []any{"bridge", b.c.Name, "err", f.Error(), "reason", failureNames[f.kind], "waiting", b.Waiting(), "again_in", wait.Round(time.Millisecond).String()}
	if untold > 0 {
		attrs = append(attrs, "untold", untold)
	}
	if f.todo != "" {
		attrs = append(attrs, "todo", f.todo)
	}
	b.c.Logger.Log(ctx, level, "the bridge has no connection; what is published at QoS 1 and 2 waits", attrs...)
}
