package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/event"
)

// A feed prints lines about what happens, without making what happens wait: a
// terminal that is slower than the broker misses some, and is told how many.
type feed struct {
	lines chan string
	done  chan struct{}
	once  sync.Once

	mu     sync.Mutex // guards the following
	missed int
	closed bool
}

// feedAhead is how many lines may wait for the terminal.
const feedAhead = 1024

func newFeed(w io.Writer) *feed {
	f := &feed{lines: make(chan string, feedAhead), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for line := range f.lines {
			io.WriteString(w, line+"\n") // nobody is left to be told of an error
		}
	}()
	return f
}

// print adds a line, or counts it as missed.
func (f *feed) print(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.missed > 0 {
		select {
		case f.lines <- fmt.Sprintf("… %d lines not shown", f.missed):
			f.missed = 0
		default:
		}
	}
	select {
	case f.lines <- line:
	default:
		f.missed++
	}
}

// close prints what waits and returns. Lines that come later are lost.
func (f *feed) close() {
	f.once.Do(func() {
		f.mu.Lock()
		f.closed = true
		close(f.lines)
		f.mu.Unlock()
	})
	<-f.done
}

// tap is the line per event of a dev without a demo.
func (f *feed) tap(e *event.Event, fates []broker.Fate) {
	now := time.Now()
	heard := 0
	for _, fate := range fates {
		heard += bit(fate.Permitted)
	}
	f.print(fmt.Sprintf("%s %s %s  1 publisher → %s  %s",
		now.Format(time.TimeOnly), e.Topic, shown(e.Payload), plural(heard, "subscriber"), millis(now.Sub(time.Unix(0, e.At)))))
}

// shownBytes is how much of a payload is shown.
const shownBytes = 60

// shown is a payload for a terminal: printable, on one line, not too long.
func shown(payload []byte) string {
	if len(payload) == 0 {
		return "(null)"
	}
	text, more := payload, ""
	if len(text) > shownBytes {
		text, more = text[:shownBytes], fmt.Sprintf("… (%d bytes)", len(payload))
		for len(text) > 0 && !utf8.RuneStart(payload[len(text)]) {
			text = text[:len(text)-1]
		}
	}
	if !utf8.Valid(text) {
		return fmt.Sprintf("%x%s", text[:min(len(text), shownBytes/2)], more)
	}
	if strings.ContainsFunc(string(text), func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(string(text)) + more
	}
	return string(text) + more
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
