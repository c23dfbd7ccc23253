package life

import (
	"encoding/json"
	"time"

	"github.com/bellwire/bellwire/profiles/fields"
)

// StateType is the content type of what a watcher is told of its subscription.
const StateType = "application/json"

// A state is what a watcher is told.
type state struct {
	ID         string `json:"sid,omitempty"` // none of an invitation
	State      string `json:"state"`
	Reason     string `json:"reason,omitempty"`
	Window     string `json:"window,omitempty"` // open or closed
	Next       string `json:"next,omitempty"`   // when that changes
	Remaining  *int64 `json:"rem,omitempty"`    // seconds
	RetryAfter *int64 `json:"retry-after,omitempty"`
	Origin     string `json:"origin,omitempty"` // admin: by has provided it, or invites
	By         string `json:"by,omitempty"`
	Note       string `json:"note,omitempty"` // of who invites
}

// StateFor returns what its watcher is told of an entry at an instant, nil for nothing:
// nil entries say nothing, nor do those that a watcher was told of long ago. It tells
// nobody who is ignored from who waits, nor whom it is polite to from who is shown
// something. Of two with one mark the second is no news; of two that say the same it is if
// something has been announced since.
func (e *Entry) StateFor(at int64, window View) (text, mark []byte) {
	if e == nil || !e.Live() && at >= e.Since+int64(KeptFor) || e.Event == 0 {
		return nil, nil
	}
	s := state{ID: e.ID, State: e.visible().String()}
	if !e.Live() {
		s.Reason = e.Event.String()
		if e.Event == Unsubscribed {
			s.Reason = "" // it knows
		}
	}
	announced := int64(0)
	if e.visible() == Active {
		s.Window, s.Next, announced = window.word(), window.next(), e.Announced
	}
	if end := e.Expires(); e.Live() && end != 0 {
		s.Remaining = secondsTo(at, end)
	}
	if e.By != "" {
		s.Origin, s.By = originAdmin, e.By
	}
	if again := max(e.Barred, e.Opens); again > at {
		s.RetryAfter = secondsTo(at, again)
	}
	text = s.json()
	return text, fields.AppendInt64(fields.AppendText(nil, text), announced)
}

// originAdmin says that somebody's administrator has done what they have not asked for.
const originAdmin = "admin"

func (s *state) json() []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // texts and numbers
	}
	return text
}

// secondsTo returns how many seconds, begun ones counted, are left.
func secondsTo(at, end int64) *int64 {
	n := max(0, (end-at+int64(time.Second)-1)/int64(time.Second))
	return &n
}
