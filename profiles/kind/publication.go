package kind

import (
	"fmt"
	"time"
)

// A Document is content with its exact octets.
type Document struct {
	ContentType string // a media type without parameters, in lower case
	Body        []byte

	// Within are the bounds of the node where it comes in; nil for what was taken, which is
	// read within the most that they can be.
	Within *Bounds
}

// A Connection names one connection of a client: the broker counts the
// connections of a client id, and calls the number its epoch. The zero
// Connection is none.
type Connection struct {
	Client string
	Epoch  uint64
}

// IsZero says whether there is none.
func (c Connection) IsZero() bool { return c == Connection{} }

// A Publication is what one source of a resource has published last: soft
// state, which ends when it expires, when its source removes it, or some time
// after the connection ended that it is bound to.
type Publication struct {
	Source    string
	Publisher Addr   // who published it: the owner or a delegate
	ETag      string // unique for ever within the resource; a refresh gets a new one
	Published time.Time
	Expires   time.Time // zero: it does not
	Bound     Connection

	// Lost is when the source was given up: its connection had ended and it
	// did not come back in time. What a lost source published counts no more,
	// though the source is still known, until it expires. Zero: not lost.
	Lost time.Time

	Doc   Document
	Value any // of Kind.Parse; Compose parses Doc if it is nil
}

// Live says whether the publication counts at the instant at.
func (p *Publication) Live(at time.Time) bool {
	return p.Lost.IsZero() && !p.Expired(at)
}

// Expired says whether the publication has ended at the instant at, and is to
// be forgotten. At its expiry it has.
func (p *Publication) Expired(at time.Time) bool {
	return !p.Expires.IsZero() && !at.Before(p.Expires)
}

// Lose returns the publication as it is once its source is given up, because
// the connection c ended and none followed it in time; the publication itself
// if it is not bound to c. A connection's end is told late and twice by
// nature; the epoch decides, not the order in which things are heard: what
// another connection of the client has published since stays.
func (p *Publication) Lose(c Connection, at time.Time) *Publication {
	if p.Bound != c || c.IsZero() || !p.Lost.IsZero() {
		return p
	}
	lost := *p
	lost.Lost = at
	return &lost
}

// An Update is what a source wants done with its publication (RFC 3903 section
// 4.1):
//
//	             Doc   IfMatch
//	initial      yes   -        whatever was there is replaced
//	modify       yes   yes
//	refresh      -     yes      the document stays, its expiry moves
//	remove       -     maybe    Remove
type Update struct {
	Source    string
	Publisher Addr
	IfMatch   string
	Expires   time.Duration // asked for; 0: the kind's default
	Remove    bool
	Doc       *Document // nil: none
	Value     any       // of Kind.Parse(Doc)
	Bound     Connection
	ETag      string // for the publication that results; the caller makes it unique
	At        time.Time
}

// Publish returns the publication that u makes of old, which is the same
// source's (nil if there is none): nil after a removal. The errors are
// ErrStale, ErrTooBrief and ErrInvalid; old is never changed.
func (s Semantics) Publish(old *Publication, u Update) (*Publication, error) {
	if old != nil && old.Expired(u.At) {
		old = nil
	}
	switch {
	case u.IfMatch != "" && (old == nil || old.ETag != u.IfMatch):
		return nil, fmt.Errorf("%w: stale-etag: %q is not the present one: publish the whole document without a tag", ErrStale, short(u.IfMatch))
	case u.Remove && u.Doc != nil:
		return nil, Refuse(ErrInvalid, ReasonSchema, "", "a document that expires at once: leave out the document to remove what is published")
	case u.Remove:
		return nil, nil
	case u.Doc == nil && u.IfMatch == "":
		return nil, Refuse(ErrInvalid, ReasonSchema, "", "neither a document nor the entity tag of one")
	}
	expires, err := s.expiry(u.Expires)
	if err != nil {
		return nil, err
	}
	p := Publication{
		Source: u.Source, Publisher: u.Publisher, ETag: u.ETag, Published: u.At, Expires: u.At.Add(expires), Bound: u.Bound,
	}
	if u.Doc != nil {
		p.Doc, p.Value = *u.Doc, u.Value
		return &p, nil
	}
	// A refresh says that the old document still holds, not that it is new.
	p.Published, p.Doc, p.Value = old.Published, old.Doc, old.Value
	return &p, nil
}

// expiry returns what is granted of what was asked for: never more.
func (s Semantics) expiry(asked time.Duration) (time.Duration, error) {
	switch {
	case asked == 0:
		return s.DefaultExpires, nil
	case asked < s.MinExpires:
		return 0, fmt.Errorf("%w: min-expires=%d: %s are too brief", ErrTooBrief, int(s.MinExpires.Seconds()), asked)
	}
	return min(asked, s.MaxExpires), nil
}
