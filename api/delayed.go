package api

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Delayed is the events that wait for their time. Its methods may be called from many
// goroutines at once.
type Delayed interface {
	// List returns a page of what waits, of principal, or of all if it is empty, from
	// where a page before said to go on (After), if after is not empty. The error may be an
	// ErrBadName: no page of this list said so.
	List(ctx context.Context, principal, after string) (DelayedPage, error)

	// Remove takes back an event by its name, one of principal's unless it is empty. The
	// error may be an ErrNoDelayed, an ErrUnavailable.
	Remove(ctx context.Context, principal, name string) (DelayedEvent, error)
}

// ErrNoDelayed means that nothing waits under a name.
var ErrNoDelayed = errors.New("no such event waits")

// A DelayedEvent is one that waits.
type DelayedEvent struct {
	ID     string    `json:"id"`
	Topic  string    `json:"topic"`
	At     time.Time `json:"at"`             // when it is published
	User   string    `json:"user,omitempty"` // who has published it; empty for a client without credentials
	Client string    `json:"client"`
	QoS    uint8     `json:"qos"`
	Retain bool      `json:"retain,omitempty"`
	Size   int       `json:"size"` // of its payload, bytes
}

// A DelayedPage is a part of what waits.
type DelayedPage struct {
	Events []DelayedEvent `json:"events"`
	After  string         `json:"after,omitempty"` // where to go on, at this node; empty if there are no more
}

// registerDelayed adds /v1/delayed, which is about one's own events, and of operators, with
// ?all, about everybody's.
func registerDelayed(mux *routes, d Delayed, o *Operators) {
	who := func(next func(w http.ResponseWriter, r *http.Request, who, of string)) http.HandlerFunc {
		return o.known(func(w http.ResponseWriter, r *http.Request, who string, operator bool) {
			w.Header().Set("Cache-Control", "no-store")
			switch all := r.URL.Query().Has("all"); {
			case all && !operator:
				refuse(w, http.StatusForbidden, "%s is no operator: the policy's group operators does not list it", who)
			case all:
				next(w, r, who, "")
			case who == "local":
				refuse(w, http.StatusUnprocessableEntity, "who acts without a user name has no events of their own: ask for all: ?all (bellwire delayed ls --all)")
			default:
				next(w, r, who, who)
			}
		})
	}
	mux.HandleFunc("GET /v1/delayed", who(func(w http.ResponseWriter, r *http.Request, who, of string) {
		var after, all string // all is read by who
		if !readQuery(w, r.URL.Query(), map[string]*string{"after": &after, "all": &all}) {
			return
		}
		page, err := d.List(r.Context(), of, after)
		if of == "" && !o.audited(w, r, Look{By: who, What: "delayed", Result: resultOf(err)}) {
			return
		}
		answerDelayed(w, page, err)
	}))
	mux.HandleFunc("DELETE /v1/delayed/{id}", who(func(w http.ResponseWriter, r *http.Request, who, of string) {
		var all string // read by who
		if !readQuery(w, r.URL.Query(), map[string]*string{"all": &all}) {
			return
		}
		id := r.PathValue("id")
		if of == "" && !o.audited(w, r, Look{By: who, What: "delayed remove " + id, Result: "asked for"}) {
			return
		}
		one, err := d.Remove(r.Context(), of, id)
		answerDelayed(w, one, err)
	}))
}

func answerDelayed(w http.ResponseWriter, answer any, err error) {
	switch {
	case errors.Is(err, ErrNoDelayed):
		refuse(w, http.StatusNotFound, "%v", err)
	case errors.Is(err, ErrBadName):
		refuse(w, http.StatusBadRequest, "%v", err)
	case err != nil:
		refuseCluster(w, err)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}
