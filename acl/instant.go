package acl

import (
	"strings"
	"time"
)

// A zoneCache holds the zones of one file: hundreds of rules share a few.
type zoneCache map[string]*zone

func (c zoneCache) load(name string) (*zone, error) {
	if z, ok := c[name]; ok {
		return z, nil
	}
	z, err := loadZone(name)
	if err != nil {
		return nil, err
	}
	c[name] = z
	return z, nil
}

// ParseInstant reads an instant as people write it: RFC 3339
// ("2026-03-09T13:00:00Z"), the clock of a zone ("2026-03-09T08:00
// America/Chicago"), or, if now is not zero, today's clock of a zone ("08:00
// America/Chicago"). What that clock skips or shows twice is an error, which
// names the instants that could be meant.
func ParseInstant(s string, now time.Time) (time.Time, error) {
	u, err := parseInstant(s, zoneCache{}, &now)
	if err != nil {
		return time.Time{}, err
	}
	return utc(u), nil
}

// parseInstant returns unix seconds. now may be nil; the error is a problem.
func parseInstant(s string, zones zoneCache, now *time.Time) (int64, error) {
	fields := strings.Fields(s)
	if len(fields) == 3 { // date and time apart
		fields = []string{fields[0] + "T" + fields[1], fields[2]}
	}
	switch len(fields) {
	case 1:
		return parseRFC3339(fields[0])
	case 2:
		z, err := zones.load(fields[1])
		if err != nil {
			return 0, err
		}
		wall, err := parseWall(fields[0], z, now)
		if err != nil {
			return 0, err
		}
		return onlyInstant(wall, z)
	}
	return 0, problemf("%q is not an instant", s).Hint("%s", instantHint)
}

const instantHint = "write 2026-03-09T13:00:00Z, or 2026-03-09T08:00 America/Chicago"

func parseRFC3339(s string) (int64, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		p := problemf("%q is not an instant", s)
		if _, err := parseLocal(s); err == nil {
			return 0, p.Hint("say in which zone: %s Europe/Madrid, or add Z for UTC", s)
		}
		return 0, p.Hint("%s", instantHint)
	}
	if t.Nanosecond() != 0 {
		return 0, problemf("%q has a fraction of a second", s).Hint("whole seconds only")
	}
	return t.Unix(), nil
}

// parseWall returns what the clock shows, in local seconds since 1970.
func parseWall(s string, z *zone, now *time.Time) (int64, error) {
	if t, err := parseLocal(s); err == nil {
		return t.Unix(), nil
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if now == nil || now.IsZero() {
			return 0, problemf("%q has no date", s).Hint("write it as 2026-03-09T%s %s", s, z.name)
		}
		y, m, d := now.In(z.loc).Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.UTC).Unix(), nil
	}
	return 0, problemf("%q is not a date and time", s).Hint("%s", instantHint)
}

// parseLocal reads a date and time without a zone, as if it were UTC.
func parseLocal(s string) (time.Time, error) {
	t, err := time.Parse("2006-01-02T15:04", s)
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05", s)
	}
	return t, err
}

// onlyInstant returns the one instant at which the clocks of z show wall.
func onlyInstant(wall int64, z *zone) (int64, error) {
	shown := utc(wall).Format("2006-01-02T15:04:05")
	found := z.instants(wall)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, problemf("the clocks of %s never show %s: they skip it", z.name, shown).
			Hint("take a time before or after the change, or write it with an offset")
	}
	return 0, problemf("the clocks of %s show %s twice", z.name, shown).
		Hint("write %s or %s", z.clock(found[0]).Format(time.RFC3339), z.clock(found[len(found)-1]).Format(time.RFC3339))
}
