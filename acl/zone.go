package acl

import (
	"archive/zip"
	_ "embed"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"time"
)

// Zones is the version of the IANA time zone database inside the program. Two
// nodes with different ones may disagree about the same instant, which is why
// the cluster's feature level pins it.
const Zones = "2025c"

// zoneData is Go's own lib/time/zoneinfo.zip of that version, unchanged.
//
//go:embed zoneinfo.zip
var zoneData string

// zoneFiles is the zip's directory: a file for each zone and each link.
var zoneFiles = sync.OnceValue(func() map[string]*zip.File {
	r, err := zip.NewReader(strings.NewReader(zoneData), int64(len(zoneData)))
	if err != nil {
		panic(fmt.Sprintf("the zone database inside the program is damaged: %v", err))
	}
	files := make(map[string]*zip.File, len(r.File))
	for _, f := range r.File {
		if !strings.HasSuffix(f.Name, "/") {
			files[f.Name] = f
		}
	}
	return files
})

// The instants of which a zone's offsets are tabled, in unix seconds: 1970 to
// 2100. Others are looked up in package time, which for a zone with summer
// time interprets a rule for each question: right, but twenty times slower.
const (
	tableFrom = 0
	tableTo   = 4102444800
)

// A zone tells the local time of instants. It never changes.
type zone struct {
	name  string // as written: a link stays a link
	loc   *time.Location
	spans []span // sorted by from; the first starts at tableFrom
}

// A span is a stretch of time with one offset, up to the next span.
type span struct {
	from   int64 // unix seconds
	offset int64 // seconds to add to UTC for local time
}

// zones are those that were loaded, by name: at most as many as there are in the
// database. Tabling one takes half a millisecond.
var zones sync.Map

// loadZone returns the zone with that name, or a problem that says what to
// write instead.
func loadZone(name string) (*zone, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*zone), nil
	}
	z, err := readZone(name)
	if err == nil {
		zones.Store(name, z)
	}
	return z, err
}

func readZone(name string) (*zone, error) {
	f, ok := zoneFiles()[name]
	if !ok {
		return nil, unknownZone(name)
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("acl: zone %s: %w", name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("acl: zone %s: %w", name, err)
	}
	loc, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return nil, fmt.Errorf("acl: zone %s: %w", name, err)
	}
	return newZone(name, loc), nil
}

func newZone(name string, loc *time.Location) *zone {
	z := &zone{name: name, loc: loc}
	for u := int64(tableFrom); u < tableTo; {
		offset, until := z.lookup(u)
		if n := len(z.spans); n == 0 || z.spans[n-1].offset != offset {
			z.spans = append(z.spans, span{from: u, offset: offset})
		}
		u = until
	}
	return z
}

// at returns the offset at u, and until when at least it holds: the first
// later instant whose offset may be another one.
func (z *zone) at(u int64) (offset, until int64) {
	if u < tableFrom || u >= tableTo {
		return z.lookup(u)
	}
	// The last span that starts at or before u.
	lo, hi := 0, len(z.spans)
	for hi-lo > 1 {
		mid := int(uint(lo+hi) / 2)
		if z.spans[mid].from <= u {
			lo = mid
		} else {
			hi = mid
		}
	}
	if hi == len(z.spans) {
		return z.spans[lo].offset, tableTo
	}
	return z.spans[lo].offset, z.spans[hi].from
}

// lookup is at for any instant, by package time.
func (z *zone) lookup(u int64) (offset, until int64) {
	t := time.Unix(u, 0).In(z.loc)
	_, off := t.Zone()
	_, end := t.ZoneBounds()
	switch {
	case end.IsZero():
		return int64(off), never
	case end.Unix() <= u:
		// Where package time interprets a rule it takes every year to have
		// 365 days, and on the last day of a leap year returns a bound that
		// is past. No rule changes the clocks between that and midnight.
		const day = 24 * 60 * 60
		return int64(off), (floorDiv(u, day) + 1) * day
	}
	return int64(off), end.Unix()
}

// instants returns the instants at which the clocks of the zone show wall
// (local seconds since 1970-01-01 00:00): none if they skip it, two if they
// show it twice.
func (z *zone) instants(wall int64) []int64 {
	const day = 24 * 60 * 60 // no offset is as large
	var found []int64
	for u := wall - day; u <= wall+day; {
		offset, until := z.at(u)
		if v := wall - offset; u <= v && v < until {
			found = append(found, v)
		}
		u = until
	}
	return found
}

// clock returns t as the zone's clocks show it, for people to read.
func (z *zone) clock(u int64) time.Time { return time.Unix(u, 0).In(z.loc) }

// unknownZone explains why name is no zone.
func unknownZone(name string) *problem {
	p := problemf("unknown time zone %q", name)
	switch {
	case name == "":
		return p.Hint("write an IANA zone such as Europe/Madrid or UTC")
	case strings.ContainsAny(name[:1], "+-0123456789"):
		return p.Hint("an offset is not a zone, for it knows no summer time: write an IANA zone such as Europe/Madrid, or Etc/GMT-5 for a fixed +05:00")
	case len(name) <= 5 && strings.ToUpper(name) == name:
		return p.Hint("abbreviations mean different zones in different places: write an IANA zone such as America/Chicago")
	}
	return p.Near(name, zoneNames(), "write an IANA zone such as Europe/Madrid")
}

// zoneNames returns the names of all zones and links, sorted.
func zoneNames() []string {
	names := make([]string, 0, len(zoneFiles()))
	for name := range zoneFiles() {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
