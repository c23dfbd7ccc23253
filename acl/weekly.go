package acl

import (
	"math/bits"
	"slices"
	"strings"
	"time"
)

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
)

// A weekly is one line of a window's `weekly`: on these days from start to
// end, in minutes of the day on which it starts. end is greater than start and
// at most a day later: what ends on the next day ends after dayMinutes.
type weekly struct {
	days       uint8 // bit 0 is Monday
	start, end int
}

// dayNames in the order of weekly.days.
var dayNames = [7]string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// parseWeekly reads "Mon-Fri 08:00-17:00", "Sat,Sun 22:00-02:00" or
// "Fri-Mon,Wed 00:00-24:00". An end at or before the start is on the next day.
func parseWeekly(s string) (weekly, error) {
	fields := strings.Fields(s)
	if len(fields) != 2 {
		return weekly{}, problemf("%q is not days and hours", s).Hint(`write for example "Mon-Fri 08:00-17:00"`)
	}
	days, err := parseDays(fields[0])
	if err != nil {
		return weekly{}, err
	}
	from, to, ok := strings.Cut(fields[1], "-")
	if !ok {
		return weekly{}, problemf("%q is not a range of hours", fields[1]).Hint(`write for example "08:00-17:00"`)
	}
	start, err := parseMinute(from)
	if err != nil {
		return weekly{}, err
	}
	end, err := parseMinute(to)
	if err != nil {
		return weekly{}, err
	}
	switch {
	case start == dayMinutes:
		return weekly{}, problemf("%q starts at 24:00", s).Hint("write 00:00, and the next day")
	case start == end:
		return weekly{}, problemf("%q starts when it ends", s).Hint(`for the whole day write "00:00-24:00"`)
	case end < start:
		end += dayMinutes
	}
	return weekly{days: days, start: start, end: end}, nil
}

// parseDays reads a comma-separated list of days and ranges of days. A range
// may run over Sunday: Fri-Mon has four days.
func parseDays(s string) (uint8, error) {
	var days uint8
	for item := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		from, err := parseDay(first)
		if err != nil {
			return 0, err
		}
		to, err := parseDay(last)
		if err != nil {
			return 0, err
		}
		for d := from; ; d = (d + 1) % 7 {
			days |= 1 << d
			if d == to {
				break
			}
		}
	}
	return days, nil
}

func parseDay(s string) (int, error) {
	for d, name := range dayNames {
		if strings.EqualFold(s, name) {
			return d, nil
		}
	}
	p := problemf("unknown day %q", s)
	for _, name := range dayNames {
		if len(s) > 3 && strings.EqualFold(s[:3], name) {
			return 0, p.Hint("did you mean %q?", name)
		}
	}
	return 0, p.Near(s, dayNames[:], "days are Mon, Tue, Wed, Thu, Fri, Sat, Sun")
}

// parseMinute reads "08:30", and "24:00" for the end of a day.
func parseMinute(s string) (int, error) {
	if len(s) == 4 && s[1] == ':' && isDigits(s[:1]) && isDigits(s[2:]) {
		return 0, problemf("%q is not a time of day", s).Hint("write two digits: %q", "0"+s)
	}
	if len(s) != 5 || s[2] != ':' || !isDigits(s[:2]) || !isDigits(s[3:]) {
		return 0, problemf("%q is not a time of day", s).Hint(`write hours and minutes, such as "08:30"`)
	}
	h := int(s[0]-'0')*10 + int(s[1]-'0')
	m := int(s[3]-'0')*10 + int(s[4]-'0')
	if m > 59 || h > 24 || h == 24 && m > 0 {
		return 0, problemf("no clock shows %q", s).Hint("times run from 00:00 to 24:00")
	}
	return h*60 + m, nil
}

func isDigits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// A run is a stretch of minutes, half-open.
type run struct{ start, end int32 }

// A schedule is the weekly part of a window, compiled: which minutes of the
// week are in it, and where in a day that may change.
type schedule struct {
	week []run    // minutes of the week from Monday, merged, sorted
	days [7][]run // by the day they start on, from that day's midnight, merged, sorted; may end on the next day

	// edges are the minutes of each day at which the answer may change. 0 is
	// always among them, for a day may be an exception.
	edges [7][]int32
}

func compile(lines []weekly) schedule {
	var s schedule
	for _, w := range lines {
		for rest := w.days; rest != 0; rest &= rest - 1 {
			d := bits.TrailingZeros8(rest)
			s.days[d] = append(s.days[d], run{int32(w.start), int32(w.end)})
		}
	}
	for d := range s.days {
		s.days[d] = merge(s.days[d])
		next := (d + 1) % 7
		s.edges[d] = append(s.edges[d], 0)
		for _, r := range s.days[d] {
			at := int32(d * dayMinutes)
			s.edges[d] = append(s.edges[d], r.start)
			if r.end < dayMinutes {
				s.edges[d] = append(s.edges[d], r.end)
			} else {
				s.edges[next] = append(s.edges[next], r.end-dayMinutes)
			}
			if at+r.end <= weekMinutes {
				s.week = append(s.week, run{at + r.start, at + r.end})
			} else { // Sunday's run into Monday
				s.week = append(s.week, run{at + r.start, weekMinutes}, run{0, at + r.end - weekMinutes})
			}
		}
	}
	s.week = merge(s.week)
	for d := range s.edges {
		slices.Sort(s.edges[d])
		s.edges[d] = slices.Compact(s.edges[d])
	}
	return s
}

// merge sorts runs and joins those that touch or overlap.
func merge(runs []run) []run {
	slices.SortFunc(runs, func(a, b run) int { return int(a.start - b.start) })
	var merged []run
	for _, r := range runs {
		if n := len(merged); n > 0 && r.start <= merged[n-1].end {
			merged[n-1].end = max(merged[n-1].end, r.end)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// within says whether one of runs, sorted and apart, holds minute.
func within(runs []run, minute int32) bool {
	lo, hi := 0, len(runs) // runs[:lo] start at or before minute, runs[hi:] after
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if runs[mid].start <= minute {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && minute < runs[lo-1].end
}

// whole says whether every minute of the week is in the schedule.
func (s *schedule) whole() bool {
	return len(s.week) == 1 && s.week[0] == run{0, weekMinutes}
}

// open says whether minute (of wall time since 1970-01-01 00:00) is in the
// schedule, runs that started on a day in except left out.
func (s *schedule) open(minute int64, except []int64) bool {
	day := floorDiv(minute, dayMinutes)
	if !near(except, day) {
		return within(s.week, int32(floorMod(minute+3*dayMinutes, weekMinutes))) // 1970 began on a Thursday
	}
	ofDay := int32(floorMod(minute, dayMinutes))
	if _, left := slices.BinarySearch(except, day); !left && within(s.days[weekday(day)], ofDay) {
		return true
	}
	_, left := slices.BinarySearch(except, day-1)
	return !left && within(s.days[weekday(day-1)], ofDay+dayMinutes)
}

// edgeAfter returns the first minute after minute at which the answer of open
// may be another one.
func (s *schedule) edgeAfter(minute int64, except []int64) int64 {
	day := floorDiv(minute, dayMinutes)
	ofDay := int32(floorMod(minute, dayMinutes))
	if s.whole() && !near(except, day) {
		// Nothing changes before the next exception.
		i, _ := slices.BinarySearch(except, day)
		if i == len(except) {
			return never
		}
		return except[i] * dayMinutes
	}
	for _, e := range s.edges[weekday(day)] {
		if e > ofDay {
			return day*dayMinutes + int64(e)
		}
	}
	return (day + 1) * dayMinutes
}

// near says whether day or the day before is one of except, which is sorted.
func near(except []int64, day int64) bool {
	if len(except) == 0 {
		return false
	}
	i, _ := slices.BinarySearch(except, day-1)
	return i < len(except) && except[i] <= day
}

// weekday returns 0 for a Monday. day counts from 1970-01-01.
func weekday(day int64) int { return int(floorMod(day+3, 7)) }

// parseDate reads 2026-12-25 as days since 1970-01-01.
func parseDate(s string) (int64, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, problemf("%q is not a date of the calendar", s).Hint("write year, month and day, such as 2026-12-25")
	}
	return floorDiv(t.Unix(), dayMinutes*60), nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 { return a - floorDiv(a, b)*b }
