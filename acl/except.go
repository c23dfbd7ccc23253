package acl

import (
	"fmt"
	"slices"
	"time"
)

// maxDates is how many dates an explanation names.
const maxDates = 3

// explainExcept says what the window's exceptions have to do with how it stands
// at u, with its next change, or with its next opening; empty if nothing.
func (w *Window) explainExcept(u int64) string {
	if len(w.except) == 0 {
		return ""
	}
	without := Window{zone: w.zone, hours: w.hours, from: w.from, until: w.until}
	next, usual := w.nextAt(u), without.nextAt(u)
	open := w.openAt(u)
	switch {
	case !open && without.openAt(u):
		return w.butFor(u, next, "it would be open")
	case open && next != usual:
		return w.butFor(next, w.nextAt(next), "it would stay open")
	case open && next != never:
		next, usual = w.nextAt(next), without.nextAt(next)
	}
	if next == usual {
		return ""
	}
	return w.butFor(usual, next, "it would open "+w.clock()(utc(u), utc(usual)))
}

// butFor names the exceptions that keep the window closed at an instant, and
// those that go on to do so until next.
func (w *Window) butFor(at, next int64, otherwise string) string {
	first := w.startOf(at)
	last := first
	if next != never {
		last = max(first, w.dayOf(next)-1)
	}
	var dates []string
	for _, day := range w.except {
		if first <= day && day <= last {
			dates = append(dates, dateText(day))
		}
	}
	return fmt.Sprintf("but for except %s %s", listed(dates, maxDates), otherwise)
}

// startOf returns the first of the days in except on which a run would have
// started that u were in.
func (w *Window) startOf(u int64) int64 {
	day := w.dayOf(u)
	offset, _ := w.zone.at(u)
	ofDay := int32(floorMod(floorDiv(u+offset, 60), dayMinutes))
	before := day - 1
	if _, left := slices.BinarySearch(w.except, before); left && within(w.hours.days[weekday(before)], ofDay+dayMinutes) {
		return before
	}
	return day
}

// dayOf returns the day that the zone's clocks show at u, from 1970-01-01.
func (w *Window) dayOf(u int64) int64 {
	offset, _ := w.zone.at(u)
	return floorDiv(u+offset, dayMinutes*60)
}

// exceptions names the window's exceptions for a line that is read without the
// file: the date, or how many there are.
func (w *Window) exceptions() string {
	switch n := len(w.except); n {
	case 0:
		return ""
	case 1:
		return ", except " + dateText(w.except[0])
	default:
		return fmt.Sprintf(", except %d dates", n)
	}
}

// dateText writes a day counted from 1970-01-01.
func dateText(day int64) string { return utc(day * dayMinutes * 60).Format(time.DateOnly) }
