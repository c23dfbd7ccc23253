package policy

import (
	"errors"
	"strings"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/profiles/jsontree"
)

// Bounds of one rule's times.
const (
	maxWindows    = 100
	maxExceptions = 400
	maxValidity   = 50
)

var days = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// presentity is the zone that stands for the owner's own.
const presentity = "presentity"

// A weekly is hours of a week, by the clocks of a zone or by those of the owner,
// wherever they are.
type weekly struct {
	in  *acl.Window // of the owner's clocks it is what those would show if they were in UTC
	own bool
}

// never says whether the hours do not come while the owner's presence says what it
// says now. A nil weekly always holds.
func (w *weekly) never(in Input) bool { return w != nil && w.own && !in.Zoned }

func (w *weekly) open(at time.Time, in Input) bool {
	return !w.never(in) && w.in.Open(w.shown(at, in))
}

// next returns the first instant after at at which open gives another answer; zero
// if there is none.
func (w *weekly) next(at time.Time, in Input) time.Time {
	if w.never(in) {
		return time.Time{}
	}
	next := w.in.Next(w.shown(at, in))
	if w.own && !next.IsZero() {
		next = next.Add(-time.Duration(in.Offset) * time.Minute)
	}
	return next
}

// shown is the instant at which the clocks of the window's zone show what those
// that count do at at.
func (w *weekly) shown(at time.Time, in Input) time.Time {
	if w.own {
		at = at.Add(time.Duration(in.Offset) * time.Minute)
	}
	return at
}

func (w *weekly) String() string {
	if w.own {
		return strings.TrimSuffix(w.in.String(), "UTC") + "where the owner is"
	}
	return w.in.String()
}

// readWeekly reads {"tz", "windows": [{"days", "start", "end"}], "exceptDates"}.
// Each part is tried on its own, so that each fault has its place.
func (r *reader) readWeekly(n *jsontree.Node) *weekly {
	m := n.Members()
	defer faultRest(m, "tz", "windows", "exceptDates")
	tz := m.Need("tz")
	zone := r.readZone(tz)
	windows := m.Need("windows")
	var lines []string
	for _, w := range windows.List(maxWindows) {
		if line := readHours(w); line != "" {
			lines = append(lines, line)
		}
	}
	if windows != nil && windows.Kind() == jsontree.Array && windows.Len() == 0 {
		windows.Fault("without hours it would never open: write when, or leave out the rule")
	}
	var except []string
	for _, d := range m.Take("exceptDates").List(maxExceptions) {
		date := d.Text(1, 20)
		if date != "" && tryWindow(d, []string{"Mon 00:00-24:00"}, "UTC", date) {
			except = append(except, date)
		}
	}
	if zone == "" || len(lines) == 0 {
		return nil // and a fault is noted
	}
	w := &weekly{own: zone == presentity}
	if w.own {
		zone = "UTC"
	}
	var err error
	if w.in, err = acl.ParseWindow(lines, zone, except, "", ""); err != nil {
		n.Fault("%v", plain(err))
	}
	return w
}

func (r *reader) readZone(n *jsontree.Node) string {
	s := n.Text(1, 100)
	switch {
	case s == "":
		return ""
	case s == presentity && r.first:
		n.Fault("the owner's own zone is not published anywhere yet: write an IANA zone such as Europe/Madrid")
		return ""
	case s == presentity:
		r.mustJudge(n, r.zones, "the owner's own zone is judged for presence only, which says it: write an IANA zone such as Europe/Madrid")
		return s
	case !tryWindow(n, []string{"Mon 00:00-24:00"}, s):
		return ""
	}
	return s
}

// readHours returns a window in the words of package acl, empty after a fault.
func readHours(n *jsontree.Node) string {
	m := n.Members()
	defer faultRest(m, "days", "start", "end")
	listed := m.Need("days")
	var names []string
	for _, d := range listed.List(len(days)) {
		if name := d.OneOf(days...); name != "" {
			names = append(names, name)
		}
	}
	if listed != nil && listed.Kind() == jsontree.Array && listed.Len() == 0 {
		listed.Fault("on no day it would never open: write which")
	}
	start, end := readTimeOfDay(m.Need("start")), readTimeOfDay(m.Need("end"))
	if len(names) == 0 || start == "" || end == "" {
		return ""
	}
	line := strings.Join(names, ",") + " " + start + "-" + end
	if !tryWindow(n, []string{line}, "UTC") {
		return ""
	}
	return line
}

// readTimeOfDay reads what package acl will judge as a time of day. What that
// would take for something else in a line of its own is refused here.
func readTimeOfDay(n *jsontree.Node) string {
	s := n.Text(1, 20)
	if strings.ContainsFunc(s, func(r rune) bool { return r != ':' && (r < '0' || r > '9') }) {
		n.Fault(`%q is not a time of day: write hours and minutes, such as "08:30"`, s)
		return ""
	}
	return s
}

// readValidity reads a list of {"from", "until"}, of which one must be open.
func readValidity(n *jsontree.Node) []*acl.Window {
	windows := []*acl.Window{}
	for _, v := range n.List(maxValidity) {
		m := v.Members()
		from, until := m.Take("from").Text(1, 40), m.Take("until").Text(1, 40)
		w, err := acl.ParseWindow(nil, "", nil, from, until)
		if err != nil && v.Kind() == jsontree.Object {
			v.Fault("%v", plain(err))
		}
		windows = append(windows, w)
		faultRest(m, "from", "until")
	}
	if n.Kind() == jsontree.Array && n.Len() == 0 {
		n.Fault(`no time is in an empty list: leave out "validity" if it always holds`)
	}
	return windows
}

// tryWindow says whether the parts make a window, and faults n if they do not.
func tryWindow(n *jsontree.Node, lines []string, tz string, except ...string) bool {
	_, err := acl.ParseWindow(lines, tz, except, "", "")
	if err != nil {
		n.Fault("%v", plain(err))
	}
	return err == nil
}

// plain returns what an error of package acl says about the value itself:
// where the value stands the pointer tells.
func plain(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}
