package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho"

	"github.com/bellwire/bellwire/bw"
	"github.com/bellwire/bellwire/profiles/kind"
)

// ownSubscriptions is the topic below which the server tells a watcher how its own
// subscriptions stand.
const ownSubscriptions = "$me/sub/"

// A standing is how the subscriptions of one run of a watch stand, as the server tells
// their watcher: it says so to people, and knows when nothing more will come.
//
// It is subscribed to in the SUBSCRIBE that asks for the resources themselves: the server
// shows it after it has answered that, so that nothing is heard of earlier subscriptions.
// It tells no more than it is told: of who is politely blocked, or ignored, the server
// says what it says of everybody.
type standing struct {
	notes io.Writer
	now   func() time.Time

	mu     sync.Mutex // guards the following: answered is called while others are heard
	of     map[string]*stands
	live   int    // how many of them may still show something
	became *fault // of the first that ended before its time
}

// stands is how one subscription does.
type stands struct {
	name string // for people: presence of ana@example.com
	sid  string
	said string

	// Until it is known whether SUBACK grants it, the end of a subscription may be that of
	// an earlier one: what was refused before the log has seen it leaves that as it was.
	granted bool
	early   *toldState
	until   time.Time // as it was said, zero for no end
	over    bool
}

// newStanding follows the subscriptions to topics.
func newStanding(topics []string, notes io.Writer, now func() time.Time) *standing {
	s := &standing{notes: notes, now: now, of: map[string]*stands{}}
	for _, name := range topics {
		is := &stands{name: name}
		if t, err := kind.ParseTopic(name); err == nil {
			is.name = t.Kind + " of " + t.Addr.String()
		}
		s.of[ownSubscriptions+name] = is
	}
	s.live = len(s.of)
	return s
}

// filters returns what is to be subscribed to besides topics.
func (s *standing) filters(topics []string) []string {
	var all []string
	for _, name := range topics {
		all = append(all, ownSubscriptions+name)
	}
	return all
}

// again begins anew: a session that is not there any more took its subscriptions along.
func (s *standing) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, is := range s.of {
		is.sid, is.over, is.granted, is.early = "", false, false, nil
	}
	s.live, s.became = len(s.of), nil
}

// answered notes what SUBACK says of a topic. What it refuses is no subscription, and has
// been told.
func (s *standing) answered(topic string, granted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.of[ownSubscriptions+topic]
	switch {
	case is == nil:
	case !granted:
		s.end(is, nil)
	case is.early != nil:
		s.ended(is, is.early)
	default:
		is.granted = true
	}
}

// over says whether nothing will be shown any more, and then what became of the
// subscriptions: nil if all lasted as long as they were granted.
func (s *standing) over() (over bool, became error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.live > 0 || s.became == nil:
		return s.live == 0, nil
	case len(s.of) == 1:
		return true, s.became
	}
	return true, &fault{code: s.became.code, what: fmt.Sprintf("all %d subscriptions are over", len(s.of)), todo: s.became.todo}
}

// end notes that a subscription is over. s.mu is held.
func (s *standing) end(is *stands, became *fault) {
	if is.over {
		return
	}
	is.over = true
	s.live--
	s.became = cmp.Or(s.became, became)
}

// A toldState is what the server tells of a subscription. Window and next there are only
// if their watcher may know.
type toldState struct {
	SID        string
	State      string
	Reason     string
	Rem        *int64 // seconds
	RetryAfter *int64 `json:"retry-after"`
	Window     string
	Next       time.Time
}

// hear takes what the server tells.
func (s *standing) hear(m *paho.Publish) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.of[m.Topic]
	var told toldState
	if is == nil || is.over || json.Unmarshal(m.Payload, &told) != nil {
		return // an empty one says that there is no subscription: to what is one's own nobody needs one
	}
	switch {
	case told.State == "terminated" && is.sid == "" && !is.granted:
		is.early = &told
	case told.State == "terminated" && told.Reason != "":
		s.ended(is, &told)
	case is.sid != "" && told.SID != is.sid:
		// Another session has one again; what ended this has been passed over.
		s.ended(is, &toldState{})
	case told.State != "terminated":
		is.sid = told.SID
		s.tell(is, &told)
	}
}

// tell says how a subscription stands, if that is news. s.mu is held.
func (s *standing) tell(is *stands, told *toldState) {
	said, more := told.State, ""
	switch {
	case told.State == "pending":
		said, more = "asked for", "; it is not decided yet, and nothing is shown until it is"
	case told.Window == "closed" && !told.Next.IsZero():
		said = "waiting: its window is closed until " + s.clock(told.Next)
	case told.Window == "closed":
		said = "waiting: its window is closed"
	}
	var until time.Time
	if told.Rem != nil {
		until = s.now().Add(time.Duration(*told.Rem) * time.Second)
	}
	// The end is told in whole seconds from now on, so the same one looks a little different each time.
	if said == is.said && until.IsZero() == is.until.IsZero() && until.Sub(is.until).Abs() < 2*time.Second {
		return
	}
	is.said, is.until = said, until
	if !until.IsZero() {
		said += ", until " + s.clock(until)
	}
	fmt.Fprintf(s.notes, "bellwire: %s: %s\n", safe(is.name), safe(said+more))
}

// ended says what became of a subscription. s.mu is held.
func (s *standing) ended(is *stands, told *toldState) {
	became := s.fate(is, told)
	if len(s.of) > 1 || became == nil {
		what := is.name + ": its time is over"
		if became != nil {
			what = became.Error()
		}
		fmt.Fprintf(s.notes, "bellwire: %s\n", safe(what))
	}
	s.end(is, became)
}

// fate is what the end of a subscription means to who watches, nil if it lasted as long
// as was granted.
func (s *standing) fate(is *stands, told *toldState) *fault {
	again := "they can be asked again: run this once more"
	if told.RetryAfter != nil {
		again = "they can be asked again at " + s.clock(s.now().Add(time.Duration(*told.RetryAfter)*time.Second))
	}
	switch told.Reason {
	case "timeout":
		return nil
	case "rejected":
		return fail(bw.ByOwner, "%s: its owner has refused: nothing is shown any more", is.name)
	case "deactivated", "probation":
		return fail(bw.ByOwner, "%s: its owner has ended the subscription", is.name).do("%s", again)
	case "giveup":
		return fail(bw.TimedOut, "%s: it was not decided, and is given up", is.name).do("%s", again)
	case "admin":
		return fail(bw.Denied, "%s: an administrator has ended the subscription", is.name).do("%s", again)
	}
	return fail(bw.Denied, "%s: the subscription has ended%s", is.name, strings.TrimSuffix(": "+told.Reason, ": ")).do("%s", again)
}

func (s *standing) clock(at time.Time) string { return clock(at, s.now()) }

// clock is an instant as people here read it: with its date if that is not today's.
func clock(at, now time.Time) string {
	at = at.In(now.Location())
	if at.YearDay() == now.YearDay() && at.Year() == now.Year() {
		return at.Format(time.TimeOnly)
	}
	return at.Format(time.DateTime)
}
