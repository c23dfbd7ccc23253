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
// It is a broker.Tap that prints a line for each event.
type feed struct {
	lines chan string
	done  chan struct{} // closed when everything is written

	mu     sync.Mutex // guards the following
	missed int        // lines since the last note that says how many
	last   string     // what end was given
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
		if f.missed > 0 { // closed: nobody writes it any more
			io.WriteString(w, notShown(f.missed)+"\n")
		}
		if f.last != "" {
			io.WriteString(w, f.last+"\n")
		}
	}()
	return f
}

func notShown(lines int) string { return fmt.Sprintf("… %s not shown", plural(lines, "line")) }

// print adds a line, or counts it as missed.
func (f *feed) print(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.missed > 0 {
		select {
		case f.lines <- notShown(f.missed):
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

// end prints what waits and then, if it is not empty, last: there is always
// room for it, and it is the last line. Lines that come later are lost. It
// returns when all is written; only the first call counts.
func (f *feed) end(last string) {
	f.mu.Lock()
	if !f.closed {
		f.closed, f.last = true, last
		close(f.lines)
	}
	f.mu.Unlock()
	<-f.done
}

// Routed prints the line per event of a dev without a demo.
func (f *feed) Routed(e *event.Event, heard int) {
	now := time.Now()
	f.print(fmt.Sprintf("%s %s %s  1 publisher → %s  %s",
		now.Format(time.TimeOnly), safe(e.Topic), shown(e.Payload), plural(heard, "subscriber"), millis(now.Sub(time.Unix(0, e.At)))))
}

// Delivered and Withheld print nothing: Routed has said it.
func (f *feed) Delivered(broker.Who, *event.Event)       {}
func (f *feed) Withheld(broker.Who, *event.Event, int64) {}

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
