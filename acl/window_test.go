package acl

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// The computed vectors of the requirements: every boundary of sixteen windows
// around changes of the clock, days that do not exist and exceptions.
func TestWindowVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/windows.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name   string
		Window struct {
			TZ          string
			From, Until string
			ExceptDates []string
			Weekly      []struct {
				Days       []string
				Start, End string
			}
		}
		ScanFrom, ScanTo string
		Boundaries       [][]string
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 16 {
		t.Fatalf("%d cases, want 16", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var lines []string
			for _, w := range c.Window.Weekly {
				lines = append(lines, strings.Join(w.Days, ",")+" "+w.Start+"-"+w.End)
			}
			w, err := ParseWindow(lines, c.Window.TZ, c.Window.ExceptDates, c.Window.From, c.Window.Until)
			if err != nil {
				t.Fatal(err)
			}
			at := mustTime(t, "2006-01-02T15:04-07:00", c.ScanFrom)
			end := mustTime(t, "2006-01-02T15:04-07:00", c.ScanTo)
			state := func(word string) string {
				return at.UTC().Format("2006-01-02T15:04Z") + " " + word
			}
			got := []string{state("initially-closed")}
			if w.Open(at) {
				got[0] = state("initially-open")
			}
			for at = w.Next(at); !at.IsZero() && !at.After(end); at = w.Next(at) {
				if w.Open(at) {
					got = append(got, state("open"))
				} else {
					got = append(got, state("close"))
				}
			}
			var want []string
			for _, b := range c.Boundaries {
				want = append(want, b[0]+" "+b[1])
			}
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

func mustTime(t *testing.T, layout, s string) time.Time {
	t.Helper()
	at, err := time.Parse(layout, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// What is no window is refused, and the message says what to write instead.
func TestWindowFaults(t *testing.T) {
	const madrid = "Europe/Madrid"
	office := []string{"Mon-Fri 08:00-17:00"}
	for _, c := range []struct {
		lines       []string
		tz          string
		except      []string
		from, until string
		want        string
	}{
		{office, "+05:00", nil, "", "", "an offset is not a zone"},
		{office, "CST", nil, "", "", "abbreviations mean different zones"},
		{office, "Europe/Madird", nil, "", "", `did you mean "Europe/Madrid"?`},
		{office, "europe/madrid", nil, "", "", `did you mean "Europe/Madrid"?`},
		{office, "Local", nil, "", "", "unknown time zone"},
		{office, "../zoneinfo.zip", nil, "", "", "unknown time zone"},
		{office, "", nil, "", "", "add tz"},
		{nil, madrid, nil, "", "", "add weekly"},
		{nil, "", []string{"2026-12-25"}, "", "", "add weekly"},
		{nil, "", nil, "", "", "open at all times"},
		{[]string{"Mon-Fri"}, madrid, nil, "", "", "is not days and hours"},
		{[]string{"Mon-Fri 08:00"}, madrid, nil, "", "", "not a range of hours"},
		{[]string{"Mon-Fri 8:00-17:00"}, madrid, nil, "", "", `write two digits: "08:00"`},
		{[]string{"Mon-Fri 08:00-25:00"}, madrid, nil, "", "", `no clock shows "25:00"`},
		{[]string{"Mon-Fri 08:60-09:00"}, madrid, nil, "", "", `no clock shows "08:60"`},
		{[]string{"Mon-Fri 08:00-24:01"}, madrid, nil, "", "", `no clock shows "24:01"`},
		{[]string{"Mon-Fri 08:00-08:00"}, madrid, nil, "", "", "starts when it ends"},
		{[]string{"Mon-Fri 24:00-08:00"}, madrid, nil, "", "", "starts at 24:00"},
		{[]string{"Mon-Fri 0a:00-08:00"}, madrid, nil, "", "", "not a time of day"},
		{[]string{"Monday 08:00-17:00"}, madrid, nil, "", "", `did you mean "Mon"?`},
		{[]string{"Tus 08:00-17:00"}, madrid, nil, "", "", `did you mean "Tue"?`},
		{[]string{"Mon, 08:00-17:00"}, madrid, nil, "", "", `unknown day ""`},
		{office, madrid, []string{"2026-02-29"}, "", "", "not a date of the calendar"},
		{office, madrid, []string{"25.12.2026"}, "", "", "such as 2026-12-25"},
		{office, madrid, nil, "2026-06-05T10:00:00Z", "2026-06-05T10:00:00Z", "from must be earlier"},
		{nil, "", nil, "2026-06-05T10:00", "", "say in which zone"},
		{nil, "", nil, "2026-06-05T10:00:00.5Z", "", "whole seconds"},
		{nil, "", nil, "10:00 Europe/Madrid", "", "has no date"},
		{nil, "", nil, "2026-03-29T02:30 Europe/Madrid", "", "they skip it"},
		{nil, "", nil, "2026-10-25T02:30 Europe/Madrid", "", "write 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00"},
		{nil, "", nil, "tomorrow", "", "is not an instant"},
		{nil, "", nil, "", "2200-01-01T00:00:00Z", "outside the years"},
		{nil, "", nil, "1969-12-31T23:59:59Z", "", "outside the years"},
		{office, madrid, []string{"0026-12-25"}, "", "", "outside the years"},
	} {
		w, err := ParseWindow(c.lines, c.tz, c.except, c.from, c.until)
		if err == nil {
			t.Errorf("%v %q: accepted as %s", c.lines, c.tz, w)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v %q: %q does not say %q", c.lines, c.tz, err, c.want)
		}
	}
}

// Links are zones, and stay as they were written.
func TestZoneLinks(t *testing.T) {
	at := mustTime(t, time.RFC3339, "2026-07-01T13:00:00Z")
	for _, tz := range []string{"US/Central", "America/Chicago", "Etc/GMT+5"} {
		w, err := ParseWindow([]string{"Wed 08:00-09:00"}, tz, nil, "", "")
		if err != nil {
			t.Fatal(err)
		}
		if !w.Open(at) || w.Open(at.Add(-time.Nanosecond)) || w.Open(at.Add(time.Hour)) {
			t.Errorf("%s: not open from 13:00Z to 14:00Z", tz)
		}
		if want := "Wed 08:00-09:00 " + tz; w.String() != want {
			t.Errorf("described as %q, want %q", w, want)
		}
	}
}

// The zones inside the program are those that Zones says they are: the ones
// Go came with when they were copied.
func TestZonesVersion(t *testing.T) {
	root := goRoot(t)
	theirs, err := os.ReadFile(root + "/lib/time/zoneinfo.zip")
	if err != nil {
		t.Skipf("missing: %s/lib/time/zoneinfo.zip, part of a full Go installation", root)
	}
	script, err := os.ReadFile(root + "/lib/time/update.bash")
	if err != nil {
		t.Skipf("missing: %s/lib/time/update.bash, part of a full Go installation", root)
	}
	_, version, _ := strings.Cut(string(script), "\nDATA=")
	version, _, _ = strings.Cut(version, "\n")
	switch same := string(theirs) == zoneData; {
	case same && version != Zones:
		t.Errorf("Zones is %s, but the copy is %s", Zones, version)
	case !same && version == Zones:
		t.Errorf("the copy is not Go's zoneinfo.zip of %s", Zones)
	case !same:
		t.Logf("Go has %s now, we have %s: consider copying lib/time/zoneinfo.zip", version, Zones)
	}
}

// A window that nothing bounds but its end or beginning has one edge, one that
// is open at all hours has none, and exceptions far away are found.
func TestWindowNext(t *testing.T) {
	allDay := []string{"Mon-Sun 00:00-24:00"}
	for _, c := range []struct {
		name        string
		lines       []string
		tz          string
		except      []string
		from, until string
		at, want    string // want empty: never
	}{
		{"open for good", allDay, "Europe/Madrid", nil, "", "", "2026-01-01T00:00:00Z", ""},
		{"open for good over midnight", []string{"Mon-Sun 06:00-18:00", "Mon-Sun 18:00-06:00"}, "Europe/Madrid", nil, "", "", "2026-01-01T00:00:00Z", ""},
		{"until", nil, "", nil, "", "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"},
		{"after until", nil, "", nil, "", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", ""},
		{"before from", nil, "", nil, "2026-02-01T00:00:00Z", "", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"},
		{"after from", nil, "", nil, "2026-02-01T00:00:00Z", "", "2026-02-01T00:00:00Z", ""},
		{"from in closed hours", []string{"Mon 10:00-11:00"}, "UTC", nil, "2026-02-03T10:30:00Z", "", "2020-01-01T00:00:00Z", "2026-02-09T10:00:00Z"},
		{"never open before until", []string{"Mon 10:00-11:00"}, "UTC", nil, "2026-02-03T10:30:00Z", "2026-02-05T00:00:00Z", "2020-01-01T00:00:00Z", ""},
		{"exception in a hundred years", allDay, "Europe/Madrid", []string{"2126-01-01"}, "", "", "2026-01-01T00:00:00Z", "2125-12-31T23:00:00Z"},
		{"end of that exception", allDay, "Europe/Madrid", []string{"2126-01-01"}, "", "", "2126-01-01T12:00:00Z", "2126-01-01T23:00:00Z"},
		{"for good after it", allDay, "Europe/Madrid", []string{"2126-01-01"}, "", "", "2126-01-01T23:00:00Z", ""},
		{"exceptions in a row", []string{"Fri 20:00-02:00"}, "UTC", []string{"2026-07-03", "2026-07-10"}, "", "", "2026-06-27T02:00:00Z", "2026-07-17T20:00:00Z"},
		{"nothing before the year 1", []string{"Mon 10:00-11:00"}, "Europe/Madrid", nil, "", "", "0001-01-01T00:00:00Z", "0001-01-01T10:14:44Z"},
	} {
		w, err := ParseWindow(c.lines, c.tz, c.except, c.from, c.until)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if next := w.Next(mustTime(t, time.RFC3339, c.at)); !next.IsZero() {
			got = next.Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%s: next after %s is %q, want %q", c.name, c.at, got, c.want)
		}
	}
}

// An explanation names exceptions if and only if they make a difference to what
// it says, and never one that does not.
func TestExceptionsAreExplained(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	start := mustTime(t, time.DateOnly, "2026-03-20") // the clocks change on the 29th
	lines := []string{"Mon-Sun 22:00-06:00", "Mon-Fri 08:00-17:00", "Sat,Sun 00:00-24:00", "Sun 01:00-03:00"}
	for range 500 {
		var except []string
		for range random.IntN(4) {
			except = append(except, start.AddDate(0, 0, random.IntN(20)).Format(time.DateOnly))
		}
		chosen := []string{lines[random.IntN(len(lines))], lines[random.IntN(len(lines))]}
		w, err1 := ParseWindow(chosen, "Europe/Madrid", except, "", "")
		usual, err2 := ParseWindow(chosen, "Europe/Madrid", nil, "", "")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		at := start.Add(time.Duration(random.IntN(20*24*60)) * time.Minute)
		differs := w.Open(at) != usual.Open(at) || !w.Next(at).Equal(usual.Next(at)) ||
			w.Open(at) && !w.Next(w.Next(at)).Equal(usual.Next(usual.Next(at)))
		text := w.explainExcept(seconds(at))
		if (text != "") != differs {
			t.Fatalf("%s except %s at %s: %q, and they differ: %t", w, except, at, text, differs)
		}
		if text == "" {
			continue
		}
		names, _, _ := strings.Cut(strings.TrimPrefix(text, "but for except "), " it would ")
		for name := range strings.SplitSeq(names, ", ") {
			if !slices.Contains(except, name) {
				t.Fatalf("%s except %s at %s: %q names %q", w, except, at, text, name)
			}
		}
	}
}

func BenchmarkWindowOpen(b *testing.B) {
	for _, c := range []struct {
		name   string
		except []string
		at     string
	}{
		{"plain", nil, "2026-07-01T13:00:00Z"},
		{"exceptions", []string{"2026-01-01", "2026-07-01", "2026-12-25"}, "2026-07-01T13:00:00Z"},
		{"beyond the table", nil, "2126-07-01T13:00:00Z"},
	} {
		w, err := ParseWindow([]string{"Mon-Fri 08:00-12:00", "Mon-Fri 13:00-17:00", "Sat 22:00-02:00"}, "America/Chicago", c.except, "", "")
		if err != nil {
			b.Fatal(err)
		}
		at, _ := time.Parse(time.RFC3339, c.at)
		b.Run("Open/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.Open(at)
			}
		})
		b.Run("Next/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.Next(at)
			}
		})
	}
}

// goRoot returns the directory of the Go installation.
func goRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("missing: the go command on the PATH")
	}
	return strings.TrimSpace(string(out))
}

// What a window remembers of one instant changes no answer about another, and what does
// not fit is not remembered.
func TestWhatIsRememberedIsTrue(t *testing.T) {
	w, err := ParseWindow([]string{"Mon-Fri 08:00-17:00"}, "Europe/Madrid", []string{"2026-12-25"}, "", "2027-03-01T00:00:00Z")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	begin, end := morning.Unix(), int64(1_806_000_000)
	remembered := 0
	for range 20_000 {
		u := begin + rng.Int64N(end-begin)
		if rng.IntN(4) > 0 {
			u = begin + rng.Int64N(7*24*3600) // so that some are remembered
		}
		before := w.last.Load()
		open, next := w.stateAt(u)
		if w.last.Load() == before {
			remembered++
		}
		afterOpen, afterNext := w.stateAfter(u)
		if want := w.openAt(u); open != want || afterOpen != want || next != w.changesFrom(u, want) || afterNext != next {
			t.Fatalf("at %d: %v until %d, and %v until %d", u, open, next, afterOpen, afterNext)
		}
	}
	if remembered < 100 {
		t.Errorf("%d of 20,000 were remembered: nothing is shown", remembered)
	}
	for _, c := range []struct {
		u, next int64
		fits    bool
	}{
		{1, 2, true},
		{math.MaxUint32, never, true},
		{1000, 1000 + longest, true},
		{0, 5, false},
		{-5, 5, false},
		{math.MaxUint32 + 1, never, false},
		{1000, 1001 + longest, false},
	} {
		r := remember(c.u, true, c.next)
		open, next, ok := r.at(c.u)
		if (r != 0) != c.fits || ok != c.fits || ok && (!open || next != c.next) {
			t.Errorf("%+v: %#x, %v until %d %v", c, r, open, next, ok)
		}
		if _, _, ok := r.at(c.u - 1); ok {
			t.Errorf("%+v: known before", c)
		}
		if _, _, ok := r.at(c.next); ok && c.next != never {
			t.Errorf("%+v: known at the next edge", c)
		}
	}
}
