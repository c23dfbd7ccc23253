package letter

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the zones that the server has, whatever the machine's are
)

// A window is a predicate on what a clock on the wall shows.
type window struct {
	zone   *time.Location
	hours  []hours
	except []string // dates on which nothing starts, as 2026-12-25
}

// zones are those that were loaded before.
var zones sync.Map

func loadZone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("letter: %w", err)
	}
	zones.Store(name, z)
	return z, nil
}

// Hours are on these days from one minute of the day to another; at or after the end of
// the day if they end on the next.
type hours struct {
	days       [7]bool // by time.Weekday
	start, end int
}

// open says whether the clocks of the zone show, at that instant, one of the hours, that
// began on one of its days.
func (w *window) open(at time.Time) bool {
	local := at.In(w.zone)
	minute := local.Hour()*60 + local.Minute()
	today := time.Date(local.Year(), local.Month(), local.Day(), 12, 0, 0, 0, time.UTC)
	yesterday := today.AddDate(0, 0, -1)
	for _, h := range w.hours {
		if w.starts(&h, today) && h.start <= minute && minute < h.end {
			return true
		}
		if w.starts(&h, yesterday) && minute+24*60 < h.end {
			return true
		}
	}
	return false
}

func (w *window) starts(h *hours, day time.Time) bool {
	return h.days[day.Weekday()] && !slices.Contains(w.except, day.Format(time.DateOnly))
}

// readHours reads when on those days something begins and ends.
func readHours(days []string, start, end string) (h hours, err error) {
	for _, d := range days {
		n := slices.Index(dayNames, strings.ToLower(d))
		if n < 0 {
			return h, fmt.Errorf("letter: no day is called %q", d)
		}
		h.days[n] = true
	}
	if h.start, err = readMinute(start); err != nil {
		return h, err
	}
	if h.end, err = readMinute(end); err != nil {
		return h, err
	}
	if h.end <= h.start {
		h.end += 24 * 60
	}
	return h, nil
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func readMinute(s string) (int, error) {
	var hour, minute int
	if n, err := fmt.Sscanf(s, "%02d:%02d", &hour, &minute); n != 2 || err != nil {
		return 0, fmt.Errorf("letter: %q is no time of day", s)
	}
	return hour*60 + minute, nil
}

// readLine reads days and hours as the operator writes them: "Mon-Fri 08:00-17:00".
func readLine(s string) (hours, error) {
	names, times, ok := strings.Cut(s, " ")
	start, end, ok2 := strings.Cut(times, "-")
	if !ok || !ok2 {
		return hours{}, fmt.Errorf("letter: %q is not days and hours", s)
	}
	var days []string
	for _, part := range strings.Split(names, ",") {
		first, last, isRange := strings.Cut(strings.ToLower(part), "-")
		if !isRange {
			days = append(days, first)
			continue
		}
		i := slices.Index(dayNames, first)
		if i < 0 || !slices.Contains(dayNames, last) {
			return hours{}, fmt.Errorf("letter: %q is no range of days", part)
		}
		for ; dayNames[i] != last; i = (i + 1) % 7 {
			days = append(days, dayNames[i])
		}
		days = append(days, last)
	}
	return readHours(days, start, end)
}

// A span is [from, until); either may be zero, for always.
type span struct{ from, until time.Time }

func (s span) open(at time.Time) bool {
	return (s.from.IsZero() || !at.Before(s.from)) && !s.over(at)
}

func (s span) over(at time.Time) bool { return !s.until.IsZero() && !at.Before(s.until) }
