package presence

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// A document is what one source has published, what all have together, or what
// a grant shows of that. It never changes once it is made.
type document struct {
	tuples  []element
	persons []element // one for each that was published; written merged
	devices []element
	notes   jsontree.Value // as readNote returns it; null if there are none
	ext     []extension
	lost    []string // names of sources that fell silent, sorted
}

// A part is one of the three components of RFC 4479, as bits.
type part uint8

const (
	tuple part = 1 << iota
	person
	device
)

// The two values of basic.
const (
	open   = "open"
	closed = "closed"
)

// An element is a tuple, a person or a device.
type element struct {
	id        string // as published; keyed in what watchers see
	basic     string // of a tuple: open, closed or empty
	contact   contact
	deviceID  string    // of a device: what it is known by
	timestamp time.Time // zero if not given
	attrs     []attr    // sorted by name, no name twice
	ext       []extension

	// What is not written. origin tells elements of one resource apart, and
	// class is what the element is chosen by in grants, whether or not it is
	// shown. when is for the order of age. own says that the owner has published
	// it, and not a delegate.
	origin origin
	own    bool
	class  string
	when   time.Time
}

// An origin is where an element comes from.
type origin struct{ source, id string }

func (o origin) compare(p origin) int {
	return cmp.Or(strings.Compare(o.source, p.source), strings.Compare(o.id, p.id))
}

// A contact is how to reach a service.
type contact struct {
	uri      string  // empty if there is none
	priority float64 // 0 to 1, the greater first; negative if not given: last
}

// scheme is what a grant names services by: "im".
func (c contact) scheme() string {
	scheme, _, _ := strings.Cut(c.uri, ":")
	return strings.ToLower(scheme)
}

// An attr is something known about an element beside what is always shown.
type attr struct {
	name  string
	value jsontree.Value // as its reader in attributes returns it
	note  jsontree.Value // of a timed one; null if there is none

	from, until time.Time // when it holds, half-open; zero if always
}

func (a *attr) equal(b *attr) bool {
	return a.name == b.name && a.value.Equal(b.value) && a.note.Equal(b.note) && a.from.Equal(b.from) && a.until.Equal(b.until)
}

// current says whether the attribute holds at the instant at.
func (a *attr) current(at time.Time) bool {
	return !at.Before(a.from) && (a.until.IsZero() || at.Before(a.until))
}

// An extension is something that this package does not know: an element of
// another namespace, or a member of that name.
type extension struct {
	space string // empty for a member
	name  string
	text  string // XML or JSON, in one form
}

// token is what a grant names the extension by.
func (x extension) token() string {
	if x.space == "" {
		return x.name
	}
	return "{" + x.space + "}" + x.name
}

func (x extension) compare(y extension) int {
	return cmp.Or(strings.Compare(x.space, y.space), strings.Compare(x.name, y.name), strings.Compare(x.text, y.text))
}

func (e *element) attr(name string) *attr {
	for i := range e.attrs {
		if e.attrs[i].name == name {
			return &e.attrs[i]
		}
	}
	return nil
}

// with returns the element with a in place of its attribute of that name.
func (e element) with(a attr) element {
	attrs := slices.DeleteFunc(slices.Clone(e.attrs), func(b attr) bool { return b.name == a.name })
	i, _ := slices.BinarySearchFunc(attrs, a.name, func(b attr, name string) int { return strings.Compare(b.name, name) })
	e.attrs = slices.Insert(attrs, i, a)
	return e
}

// empty says whether the document says nothing at all.
func (d *document) empty() bool {
	return len(d.tuples)+len(d.persons)+len(d.devices)+len(d.ext)+len(d.lost) == 0 && d.notes.Kind() == jsontree.Null
}

func (d *document) summary() string {
	summary := ""
	for _, t := range d.tuples {
		if t.basic == open {
			return open
		}
		summary = cmp.Or(summary, t.basic)
	}
	return summary
}
