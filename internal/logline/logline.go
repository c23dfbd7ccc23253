// Package logline bounds the lines of one kind in a log: whoever can have a line written
// with each request must not fill the disk with them, nor hide others among them.
package logline

import (
	"sync"
	"time"
)

// A Budget is how many lines there may be in a time. Those past it are counted, and how
// many there were is told with the next line. Most and Per are set before its first use,
// and Per is at least a nanosecond. For any goroutine.
type Budget struct {
	Most int           // lines
	Per  time.Duration // in each period of that length

	mu     sync.Mutex // guards the following
	period int64
	taken  int
	left   int // out, since the last line
}

// Take says whether there is room for a line at an instant, and how many were left out
// since the last.
func (b *Budget) Take(now time.Time) (left int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if period := now.UnixNano() / int64(b.Per); period != b.period {
		b.period, b.taken = period, 0
	}
	if b.taken >= b.Most {
		b.left++
		return 0, false
	}
	b.taken++
	left, b.left = b.left, 0
	return left, true
}
