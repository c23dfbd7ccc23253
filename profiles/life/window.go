package life

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/bellwire/bellwire/profiles/policy"
)

// What an owner's windows do to subscriptions.
//
// That a window closes or opens changes what is shown, which each node decides for itself
// when it shows it, and nothing here. But an owner may have the watcher told of it, some
// time before, too (outside: announce, warnBefore), or have the subscription end with it
// (outside: end). That is of the log: so it happens once, whichever node leads, also
// if the watcher is away, and also to who subscribes at that moment.
//
// There is one wake for each resource, however many watch it: at the first instant at
// which the clock changes something for one of them, as their verdicts say. Then all of
// its entries are looked at, so many with each log entry as there is room for, as when the
// policy changes, and the wake is set anew by what is found. Where nobody is told of
// anything there is none.
//
//	judged ──▶ Verdict.Edge ──▶ the resource's wake, if it is earlier ──▶ all entries judged anew ──▶ …
//
// What happens follows from what an entry says was told last, and what holds now: an edge
// that is passed twice happens once, windows that touch are none, and of several edges
// that were slept over the last counts. Only an end is not undone by a window that has
// opened again in the meantime. Time never goes back: it is the log's.

// A Window is what a watcher is told of when it is shown something.
type Window uint8

const (
	NoWindow Window = iota // nothing
	Open
	Closing // it closes soon, which the watcher was told
	Shut
)

// A Windowed is the part of a verdict that the clock changes.
type Windowed struct {
	Window Window

	// Edge is when Window may be another, or the rest; 0 for never. It is later than now.
	Edge int64

	// Closes is when the subscription is over because the window closes, 0 if it is
	// not. Ended says that it is over, or not to be had, now, and Opens when it may be
	// again: 0 for not known.
	Closes int64
	Ended  bool
	Opens  int64
}

// told says whether the watcher is told that a window is what it was not.
func (is Window) told(was Window) bool {
	return is != was && is != NoWindow && (was != NoWindow || is != Open)
}

// window has an entry follow its window, and says whether its watcher is to be told.
func (b *Book) window(e *Entry, v Verdict) (tell bool) {
	if !e.Live() {
		return false
	}
	was := e.Window
	e.Window, e.Closes = v.Window, v.Closes
	b.wakeBy(e.Topic, v.Edge)
	if !v.Window.told(was) || e.ID == "" {
		return false
	}
	e.Announced = b.Now()
	return e.visible() == Active
}

// closed ends an entry whose window has closed, if it ends with that, and says whether it
// has.
func (b *Book) closed(e *Entry, v Verdict) bool {
	if v.Handling != policy.Allow || !v.Ended && (e.Closes == 0 || e.Closes > b.Now()) {
		return false
	}
	b.end(e, Probation)
	e.Opens = v.Opens
	b.save(e)
	b.Told(e.principal(), e.Topic)
	return true
}

// shut returns what somebody is told who asks for what is not to be had before a window
// opens. What they may have had is over: the window has closed a moment ago.
func (b *Book) shut(e *Entry, v Verdict) error {
	if e.Live() {
		b.closed(e, v)
	}
	if v.Opens == 0 {
		return ErrBarred
	}
	return fmt.Errorf("%w: retry-after=%d", ErrBarred, *secondsTo(b.Now(), v.Opens))
}

// wakeBy has the entries of a resource looked at at an instant, or earlier.
func (b *Book) wakeBy(topic string, at int64) {
	if at == 0 {
		return
	}
	key := edgePrefix + topic
	if set := instantOf(b.Tx.Get(key)); set != 0 {
		if set <= at {
			return
		}
		b.Cancel(set, wakeEdge+topic)
	}
	b.WakeAt(at, wakeEdge+topic)
	b.Set(key, binary.AppendUvarint(nil, uint64(at)))
}

// passEdge looks at all entries of a resource, of whose windows one has an edge.
func (b *Book) passEdge(topic string) {
	b.Set(edgePrefix+topic, nil)
	b.sweep(topic, "", followPiece)
}

func instantOf(value []byte) int64 {
	if value == nil {
		return 0
	}
	at, _ := binary.Uvarint(value)
	return int64(at)
}

// A View is what a watcher may be told of its window; zero is nothing.
type View struct {
	Told bool  // it may be told something
	Open bool  // the window is
	Next int64 // when that changes; 0: not known, or never
}

func (v *View) word() string {
	switch {
	case !v.Told:
		return ""
	case v.Open:
		return "open"
	}
	return "closed"
}

func (v *View) next() string {
	if !v.Told || v.Next == 0 {
		return ""
	}
	return time.Unix(0, v.Next).UTC().Format(time.RFC3339)
}
