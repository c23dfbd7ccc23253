package acl

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Instants are unix seconds inside the package. These two stand for "at no
// time" and "at all times before".
const (
	never  = math.MaxInt64
	always = math.MinInt64
)

// Bounds of one window. They keep Next cheap: it may have to pass every
// exception.
const (
	maxWeekly = 200
	maxExcept = 400
)

// A Window is a set of instants: those at which the clocks of its zone show
// one of its hours on one of its days, and that are not before its beginning or
// at or after its end. It never changes, but for what it remembers of the last
// instant that was asked about, and is safe for concurrent use.
type Window struct {
	text   string // for people: "Mon-Fri 08:00-17:00 Europe/Madrid"
	zone   *zone  // of schedule and except; nil if every hour of every day is meant
	hours  schedule
	except []int64 // days since 1970-01-01 on which no run starts; sorted
	from   int64   // unix seconds; always if there is no beginning
	until  int64   // unix seconds; never if there is no end

	// What is remembered: of the last instant that was asked about, and of the last that
	// was looked at for what comes after such.
	last, after atomic.Uint64
}

// ParseWindow makes a window of the parts of a `when`, each of which may be
// empty: lines such as "Mon-Fri 08:00-17:00", the IANA zone they are meant in,
// dates on which no run starts, and a beginning and an end in RFC 3339 or as
// "2026-06-03T10:00 Europe/Madrid". The error says what is wrong with which.
func ParseWindow(lines []string, tz string, except []string, from, until string) (*Window, error) {
	parts := windowParts{from: always, until: never}
	for _, s := range lines {
		w, err := parseWeekly(s)
		if err != nil {
			return nil, fmt.Errorf("acl: weekly: %w", err)
		}
		parts.add(s, w)
	}
	var err error
	if tz != "" {
		if parts.zone, err = loadZone(tz); err != nil {
			return nil, fmt.Errorf("acl: tz: %w", err)
		}
	}
	for _, s := range except {
		day, err := parseDate(s)
		if err != nil {
			return nil, fmt.Errorf("acl: except: %w", err)
		}
		parts.except = append(parts.except, day)
	}
	zones := zoneCache{}
	if from != "" {
		if parts.from, err = parseInstant(from, zones, nil); err != nil {
			return nil, fmt.Errorf("acl: from: %w", err)
		}
	}
	if until != "" {
		if parts.until, err = parseInstant(until, zones, nil); err != nil {
			return nil, fmt.Errorf("acl: until: %w", err)
		}
	}
	if p := parts.check(); p != nil {
		return nil, fmt.Errorf("acl: window: %w", p)
	}
	return parts.window(), nil
}

// windowParts are the parts of a window that is being read.
type windowParts struct {
	texts       []string
	lines       []weekly
	zone        *zone
	except      []int64
	from, until int64
}

func (p *windowParts) add(text string, w weekly) {
	p.texts = append(p.texts, strings.Join(strings.Fields(text), " "))
	p.lines = append(p.lines, w)
}

// check returns what is wrong with the parts together, nil if nothing is.
func (p *windowParts) check() *problem {
	switch {
	case len(p.lines) > 0 && p.zone == nil:
		return problemf("hours without a time zone").Hint("add tz, an IANA zone such as Europe/Madrid")
	case len(p.lines) == 0 && p.zone != nil:
		return problemf("a time zone without hours").Hint("add weekly, or leave tz out: from and until carry their own")
	case len(p.lines) == 0 && len(p.except) > 0:
		return problemf("exceptions without hours to make them from").Hint(`add weekly, "Mon-Sun 00:00-24:00" for all days`)
	case len(p.lines) == 0 && p.from == always && p.until == never:
		return problemf("a window without any bound is open at all times").Hint("add weekly, from or until, or leave when out")
	case p.outOfRange():
		return problemf("a bound or an exception outside the years 1970 to 2199").Hint("leave the bound out if it means always")
	case p.from >= p.until:
		return problemf("the window ends before it begins, or at once").Hint("from must be earlier than until")
	case len(p.lines) > maxWeekly:
		return problemf("%d lines of hours, at most %d are possible", len(p.lines), maxWeekly).Hint("write days with the same hours in one line")
	case len(p.except) > maxExcept:
		return problemf("%d exceptions, at most %d are possible", len(p.except), maxExcept).Hint("leave out those that are past")
	}
	return nil
}

// outOfRange says whether a time is so far away that it can only be a slip, or
// a way of saying never that nanoseconds in 64 bits could not hold.
func (p *windowParts) outOfRange() bool {
	const day = 24 * 60 * 60
	outside := func(u int64) bool { return u < 0 || u >= 7258118400 } // 2200-01-01
	return p.from != always && outside(p.from) || p.until != never && outside(p.until) ||
		slices.ContainsFunc(p.except, func(d int64) bool { return outside(d * day) })
}

// window compiles checked parts.
func (p *windowParts) window() *Window {
	w := &Window{zone: p.zone, hours: compile(p.lines), except: slices.Clone(p.except), from: p.from, until: p.until}
	slices.Sort(w.except)
	w.except = slices.Compact(w.except)
	var text []string
	if w.zone != nil {
		text = append(text, strings.Join(p.texts, "; "), w.zone.name)
	}
	if w.from != always {
		text = append(text, "from "+utc(w.from).Format(time.RFC3339))
	}
	if w.until != never {
		text = append(text, "until "+utc(w.until).Format(time.RFC3339))
	}
	w.text = strings.Join(text, " ")
	return w
}

// String describes the window on one line; exceptions are left out.
func (w *Window) String() string { return w.text }

// Bounds returns since when and until when the window may be open at all, zero for
// always and for good.
func (w *Window) Bounds() (from, until time.Time) {
	if w.from != always {
		from = utc(w.from)
	}
	if w.until != never {
		until = utc(w.until)
	}
	return from, until
}

// Open says whether t is in the window. It allocates nothing.
func (w *Window) Open(t time.Time) bool { return w.openAt(seconds(t)) }

// Next returns the first instant after t at which Open gives another answer
// than at t: the next opening if it is closed, the next close if it is open.
// Runs that touch are one. The zero Time means that there is none.
func (w *Window) Next(t time.Time) time.Time { return instant(w.nextAt(seconds(t))) }

func (w *Window) openAt(u int64) bool {
	if u < w.from || u >= w.until {
		return false
	}
	if w.zone == nil {
		return true
	}
	offset, _ := w.zone.at(u)
	return w.hours.open(floorDiv(u+offset, 60), w.except)
}

// nextAt is Next in unix seconds, never if there is none.
//
// Within a span of one offset the wall clock runs like any other, so the
// answer changes at an edge of the schedule or at the span's end; which of
// these candidates it is, openAt says. There are few: the schedule changes
// within a week or is the whole week, and exceptions are bounded.
func (w *Window) nextAt(u int64) int64 {
	_, next := w.stateAt(u)
	return next
}

// stateAt is openAt and nextAt. Nearly all ask about now: what held for the last
// instant that was asked about is remembered until its next edge, in one word, so that
// nobody waits and nothing is allocated.
func (w *Window) stateAt(u int64) (open bool, next int64) { return w.recall(&w.last, u) }

// stateAfter is stateAt for an instant at which nobody is now.
func (w *Window) stateAfter(u int64) (open bool, next int64) { return w.recall(&w.after, u) }

func (w *Window) recall(memory *atomic.Uint64, u int64) (open bool, next int64) {
	if open, next, ok := remembered(memory.Load()).at(u); ok {
		return open, next
	}
	open = w.openAt(u)
	next = w.changesFrom(u, open)
	if r := remember(u, open, next); r != 0 {
		memory.Store(uint64(r))
	}
	return open, next
}

// A remembered is the state of a window from one instant until its next edge: that
// instant in 32 bits, which last until 2106, for how long in 31, of which 0 is for ever,
// and whether it is open. 0 is nothing: what does not fit is not remembered.
type remembered uint64

const longest = 1<<31 - 1 // seconds, or 68 years

func remember(u int64, open bool, next int64) remembered {
	held := next - u
	if next == never {
		held = 0
	}
	if u <= 0 || u > math.MaxUint32 || held > longest {
		return 0
	}
	r := remembered(u)<<32 | remembered(held)<<1
	if open {
		r |= 1
	}
	return r
}

// at returns the state at u, and whether it is known.
func (r remembered) at(u int64) (open bool, next int64, ok bool) {
	from, held := int64(r>>32), int64(r>>1&longest)
	if next = from + held; held == 0 {
		next = never
	}
	return r&1 == 1, next, r != 0 && from <= u && u < next
}

// changesFrom returns the first instant after u at which the window is not open, or
// not closed, as it is at u.
func (w *Window) changesFrom(u int64, open bool) int64 {
	for u < w.until {
		if u < w.from {
			u = w.from
		} else {
			u = min(w.candidate(u), w.until)
		}
		if u == never {
			return never
		}
		if w.openAt(u) != open {
			return u
		}
	}
	return never
}

// candidate returns the first instant after u, not before from, at which the
// schedule may change.
func (w *Window) candidate(u int64) int64 {
	if w.zone == nil {
		return never
	}
	offset, spanEnd := w.zone.at(u)
	minute := w.hours.edgeAfter(floorDiv(u+offset, 60), w.except)
	if minute == never {
		return never
	}
	return min(minute*60-offset, spanEnd)
}

// since returns the last instant at or before u at which the window opened or
// closed, looking back about a year; always if that was longer ago.
func (w *Window) since(u int64) int64 {
	const day = 24 * 60 * 60
	for _, back := range []int64{9 * day, 400 * day} {
		last := int64(always)
		for at := w.nextAt(u - back); at <= u; at = w.nextAt(at) {
			last = at
		}
		if last != always {
			return last
		}
	}
	return always
}

// The years 1 to 9999, which is what RFC 3339 can write. Instants outside are
// taken for the nearest inside.
const (
	firstSecond = -62135596800
	lastSecond  = 253402300799
)

// seconds returns t in unix seconds: the second that t is in.
func seconds(t time.Time) int64 { return min(max(t.Unix(), firstSecond), lastSecond) }

// instant is the inverse of seconds; never becomes the zero Time.
func instant(u int64) time.Time {
	if u == never {
		return time.Time{}
	}
	return utc(u)
}

func utc(u int64) time.Time { return time.Unix(u, 0).UTC() }
