package acl

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
)

// A reference is a window by the letter of its definition: it asks package
// time what the clocks show and compares, and knows no intervals, tables or
// edges.
type reference struct {
	lines       []weekly
	loc         *time.Location
	except      []string // 2026-12-25
	from, until time.Time
}

func (r *reference) open(t time.Time, shown wall) bool {
	if !r.from.IsZero() && t.Before(r.from) || !r.until.IsZero() && !t.Before(r.until) {
		return false
	}
	for _, l := range r.lines {
		if l.start <= shown.minute && shown.minute < l.end && r.starts(l, shown.today) ||
			shown.minute+24*60 < l.end && r.starts(l, shown.yesterday) {
			return true
		}
	}
	return false
}

// starts says whether a run of l starts on day.
func (r *reference) starts(l weekly, day date) bool {
	return l.days>>((int(day.weekday)+6)%7)&1 == 1 && !slices.Contains(r.except, day.name)
}

// A wall is what the clock and the calendar on it show.
type wall struct {
	minute           int // of the day
	today, yesterday date
}

type date struct {
	midnight time.Time // as if it were UTC
	weekday  time.Weekday
	name     string // 2026-12-25
}

// read returns what local shows; last, what was read before, saves work on the
// same day.
func read(local time.Time, last wall) wall {
	year, month, d := local.Date()
	shown := wall{minute: local.Hour()*60 + local.Minute(), today: last.today, yesterday: last.yesterday}
	if midnight := time.Date(year, month, d, 0, 0, 0, 0, time.UTC); !midnight.Equal(last.today.midnight) {
		shown.today, shown.yesterday = newDate(midnight), newDate(midnight.AddDate(0, 0, -1))
	}
	return shown
}

func newDate(midnight time.Time) date {
	return date{midnight, midnight.Weekday(), midnight.Format(time.DateOnly)}
}

// compiled returns the window that claims to be r.
func (r *reference) compiled(z *zone) *Window {
	p := windowParts{lines: r.lines, texts: []string{"reference"}, zone: z, from: always, until: never}
	for _, s := range r.except {
		day, err := parseDate(s)
		if err != nil {
			panic(err)
		}
		p.except = append(p.except, day)
	}
	if !r.from.IsZero() {
		p.from = r.from.Unix()
	}
	if !r.until.IsZero() {
		p.until = r.until.Unix()
	}
	return p.window()
}

// distinctZones loads every zone and link there is, and returns one of each
// set of names with the same rules.
func distinctZones(t *testing.T) []*zone {
	t.Helper()
	seen := map[[32]byte]bool{}
	var zones []*zone
	for _, name := range zoneNames() {
		z, err := loadZone(name)
		if err != nil {
			t.Fatal(err)
		}
		key := sha256.Sum256(fmt.Append(nil, z.spans))
		if !seen[key] {
			seen[key] = true
			zones = append(zones, z)
		}
	}
	return zones
}

// changes returns the instants from 2020 to 2035 at which the offset of loc
// changes, found by asking package time for every hour.
func changes(loc *time.Location) []int64 {
	offset := func(u int64) int {
		_, off := time.Unix(u, 0).In(loc).Zone()
		return off
	}
	from := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	to := time.Date(2036, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	var found []int64
	last := offset(from)
	for u := from; u < to; u += 3600 {
		lo, hi := u, u+3600
		now := offset(hi)
		if now == last {
			continue
		}
		last = now
		for hi-lo > 1 {
			if mid := (lo + hi) / 2; offset(mid) == offset(lo) {
				lo = mid
			} else {
				hi = mid
			}
		}
		found = append(found, hi)
	}
	return found
}

// around returns windows that have something to do with the change of offset
// at u: the stretch of wall time skipped or repeated, parts of it, its day, and
// nights before and after it, with and without exceptions.
func around(z *zone, u int64) []*reference {
	before, _ := z.lookup(u - 1)
	after, _ := z.lookup(u)
	lo, hi := u+min(before, after), u+max(before, after) // wall time
	mid := lo + (hi-lo)/120*60
	line := func(from, to int64) []weekly {
		day := floorDiv(from, 86400)
		w := weekly{days: 1 << weekday(day), start: int(floorMod(from, 86400) / 60), end: int((to - day*86400) / 60)}
		return []weekly{w}
	}
	name := func(wall int64) string { return utc(wall).Format(time.DateOnly) }
	at := func(wall int64, hour int64) int64 { return floorDiv(wall, 86400)*86400 + hour*3600 }
	night := func(wall int64) []weekly { return line(at(wall, 22), at(wall, 30)) }
	refs := []*reference{
		{lines: line(lo, hi)},
		{lines: line(mid, hi+3600)},
		{lines: line(lo-3600, mid)},
		{lines: line(lo-60, lo+60)},
		{lines: line(hi-60, hi+60)},
		{lines: line(at(lo, 0), at(lo, 24))},
		{lines: line(at(lo, 0), at(lo, 24)), except: []string{name(lo)}},
		{lines: night(lo - 86400)},
		{lines: append(night(lo), night(lo-86400)...), except: []string{name(lo)}},
		{lines: append(night(lo), night(lo-86400)...), except: []string{name(lo - 86400)}},
		{lines: []weekly{{days: 127, start: 0, end: 1440}}, except: []string{name(hi)}},
		{lines: line(lo, hi+7200), from: utc(u - 600), until: utc(u + 600)},
	}
	for _, r := range refs {
		r.loc = z.loc
	}
	return refs
}

// The compiled windows say what the definition says, minute for minute and
// edge for edge, at every change of every zone's clocks from 2020 to 2035. The
// short run walks four hours on either side of each; the long one four days.
func TestEveryChangeOfEveryZone(t *testing.T) {
	if testing.Short() {
		t.Skip("a few seconds")
	}
	reach := int64(effort.RoundsOfOne(20, 4*60, 4*24*60))
	zones, n := distinctZones(t), 0
	for _, z := range zones {
		for _, u := range changes(z.loc) {
			n++
			start := floorDiv(u, 60)*60 - reach*60
			compareMinutes(t, z, around(z, u), start, 2*reach)
			if t.Failed() {
				t.Fatalf("%s, change at %s", z.name, utc(u))
			}
		}
	}
	t.Logf("%d zones and links, %d of them different, %d changes", len(zoneNames()), len(zones), n)
	if len(zoneNames()) < 590 || n < 3000 {
		t.Errorf("too few: the test does not see what it should")
	}
}

// compareMinutes walks minutes from start, comparing the windows that refs
// compile to with refs themselves.
func compareMinutes(t *testing.T, z *zone, refs []*reference, start, minutes int64) {
	windows := make([]*Window, len(refs))
	next := make([]int64, len(refs)) // the edge each announced last
	last := make([]bool, len(refs))
	var shown wall
	for m := range minutes {
		u := start + m*60
		local := time.Unix(u, 0).In(z.loc)
		shown = read(local, shown)
		offset, _ := z.at(u)
		if _, off := local.Zone(); offset != int64(off) {
			t.Errorf("offset at %s is %d, want %d", utc(u), offset, off)
		}
		for i, r := range refs {
			want := r.open(local, shown)
			if m == 0 {
				windows[i] = r.compiled(z)
				next[i], last[i] = windows[i].nextAt(u), want
			}
			switch got := windows[i].openAt(u); {
			case got != want:
				t.Errorf("%+v is %v at %s, want %v", r, got, local, want)
			case want != last[i] && next[i] != u:
				t.Errorf("%+v: the edge at %s was announced for %d", r, local, next[i])
			case want == last[i] && next[i] <= u:
				t.Errorf("%+v: an edge was announced for %s, there is none", r, utc(next[i]))
			case want != last[i]:
				last[i], next[i] = want, windows[i].nextAt(u)
			}
		}
	}
}
