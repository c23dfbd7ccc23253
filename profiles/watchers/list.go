package watchers

import (
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Content types of lists and counts.
const (
	ListType  = "application/evt-watchers+json"
	XMLType   = "application/watcherinfo+xml" // RFC 3858
	StatsType = "application/evt-watcherstats+json"
)

// Bounds of one list. What an owner is pushed holds as many of the newest as fit
// into it and says how many there are; by pages all can be read.
const (
	MaxRows  = 1000
	MaxBytes = 60 << 10 // of JSON: with what is around it no document passes 64 KiB
)

// A Status is where in its life a subscription is (RFC 3857 section 4.7.1).
type Status string

const (
	Pending    Status = "pending"
	Active     Status = "active"
	Waiting    Status = "waiting"
	Terminated Status = "terminated"
)

// A Row is what an owner is shown of one watcher: nothing of her devices, of where
// she is, of whom else she watches.
type Row struct {
	ID         string
	Watcher    kind.Addr // zero: she is anonymous
	Status     Status
	Event      string // what brought it about: "approved", "rejected", …, as RFC 3858; "fetch"
	Visibility Visibility
	Auth       int    // how surely she was authenticated; 0: not said
	Style      string // how the owner has put her off: "polite", …; empty if not
	Since      time.Time
	Expires    time.Time // zero: it does not, or she does not say
	Fetches    int       // in the last 24 hours
	Note       string    // what she wrote with her request: a stranger's words
	Name       string    // what she wants to be called; empty if she has not said
	By         string    // the administrator who has subscribed for her; empty: she has
}

// A List is a document about an owner's watchers.
type List struct {
	Version uint64 // 0 for the first that somebody is sent, and one more for each
	Full    bool   // it has all; else those that have changed since the last
	Of      kind.Addr
	Kind    string
	Scheme  string // of the URIs: "pres"
	Rows    []Row
	Total   int // how many watchers there are, whatever Rows holds
	At      time.Time

	More bool   // there are others beside Rows
	Rest string // where all can be read a page at a time: it is told if there are others

	// Next, of a page, returns what to ask for those with that come after the first so many
	// rows; nil if it is no page.
	Next func(rows int) string
}

// nobody is how an anonymous watcher is called where a URI must be (as RFC 3323
// section 4.1.1.3 has it): it can be nobody's address.
var nobody = kind.Addr{Local: "anonymous", Domain: "anonymous.invalid"}

func (r *Row) uri(scheme string) string {
	if r.Watcher.IsZero() {
		return nobody.URI(scheme)
	}
	return r.Watcher.URI(scheme)
}

// JSON writes the list: as many rows from the front as there is room for. "more"
// says that there are others, "rest" where they are, and "next", in a page, what to ask for.
func (l *List) JSON() []byte {
	var w jsontree.Writer
	w.Open('{')
	w.Name("version")
	w.Int(int64(l.Version))
	w.Name("full")
	w.Bool(l.Full)
	w.Member("resource", l.Of.URI(l.Scheme))
	w.Member("kind", l.Kind)
	w.Name("watchers")
	w.Open('[')
	written := 0
	for i := range l.Rows {
		row := l.Rows[i].JSON(l.Scheme, l.At)
		if written == MaxRows || len(w.Bytes())+len(row) > MaxBytes {
			break
		}
		w.Raw(string(row))
		written++
	}
	w.Close(']')
	w.Name("total")
	w.Int(int64(l.Total))
	if written < len(l.Rows) || l.More || l.Next == nil && l.Full && written < l.Total {
		w.Name("more")
		w.Bool(true)
		if l.Rest != "" {
			w.Member("rest", l.Rest)
		}
		if l.Next != nil {
			w.Member("next", l.Next(written))
		}
	}
	w.Close('}')
	return w.Bytes()
}

// JSON writes one row as it is at an instant.
func (r *Row) JSON(scheme string, at time.Time) []byte {
	var w jsontree.Writer
	w.Open('{')
	w.Member("id", r.ID)
	w.Member("uri", r.uri(scheme))
	w.Member("status", string(r.Status))
	w.Member("event", r.Event)
	w.Member("visibility", r.Visibility.String())
	if r.Auth > 0 {
		w.Name("auth")
		w.Int(int64(r.Auth))
	}
	if r.Style != "" {
		w.Member("style", r.Style)
	}
	if !r.Since.IsZero() {
		w.Member("since", jsontree.FormatTime(r.Since))
	}
	if !r.Expires.IsZero() {
		w.Name("expires")
		w.Int(r.remaining(at))
	}
	w.Name("fetches24h")
	w.Int(int64(r.Fetches))
	if r.Note != "" {
		w.Member("note", r.Note)
	}
	if r.Name != "" {
		w.Member("name", r.Name)
	}
	if r.By != "" {
		w.Member("origin", "admin")
		w.Member("by", r.By)
	}
	w.Close('}')
	return w.Bytes()
}

// remaining is for how many more seconds the subscription lasts.
func (r *Row) remaining(at time.Time) int64 { return max(0, int64(r.Expires.Sub(at)/time.Second)) }
