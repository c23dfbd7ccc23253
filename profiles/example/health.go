// Package example is a kind of one's own, from the first line to the last: the
// health of devices, at health/{domain}/{local}. A copy of it is how to begin.
//
// What it says are pure functions of documents (kind.Kind). All the rest comes
// with being served: publications by source with entity tags and expiry, what
// a lost connection means, the owner's policy with its windows, a view for each
// watcher, the present state at once and each change as it happens.
//
//	broker.Config{Profiles: []broker.Profile{state.New(example.Health{})}}
//
// That it obeys the laws of all kinds, and keeps its owners' secrets in
// histories made up at random, its tests show: kindtest.Test and
// brokertest.TestProfile.
package example

import (
	"slices"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Health is how a device is: as its sources report it, the worst of them
// counts. A report:
//
//	{"state":"degraded","notes":["oil pressure low"]}
type Health struct{}

var _ kind.Kind = Health{}

// TypeJSON is the content type of a report, and of what watchers see.
const TypeJSON = "application/health+json"

// states are what a report can say, the worst last. Of a device of which
// nothing is known, or shown, the state is unknown.
var states = []string{"unknown", "ok", "degraded", "failed"}

// A report is what one source says, what all say together, or what a grant
// shows of that. It never changes once it is made.
type report struct {
	state int      // index into states
	notes []string // sorted, none twice
}

func (Health) Name() string      { return "health" }
func (Health) Scheme() string    { return "evt" }
func (Health) Accepts() []string { return []string{TypeJSON} }

func (Health) Semantics() kind.Semantics {
	return kind.Semantics{
		Mode: kind.ModeState, Coalesce: true, Retain: true, MaxBytes: 4 << 10,
		DefaultExpires: 10 * time.Minute, MinExpires: 10 * time.Second, MaxExpires: 24 * time.Hour,
	}
}

// Permissions: the state, and beside it the notes.
func (Health) Permissions() []kind.Permission {
	return []kind.Permission{{Name: "state", Type: kind.PermBool}, {Name: "notes", Type: kind.PermBool}}
}

// DefaultPolicy shows nothing to anybody until the owner decides.
func (Health) DefaultPolicy(kind.Addr) []byte {
	return []byte(`{"v":1,"kind":"health","defaults":{"handling":"confirm"}}`)
}

func (h Health) Parse(r kind.Resource, doc kind.Document) (any, error) {
	if err := doc.CheckSize(h.Semantics().MaxBytes, "a report has at most %d bytes"); err != nil {
		return nil, err
	}
	if doc.ContentType != "" && doc.ContentType != TypeJSON {
		return nil, kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, "", "health is published as "+TypeJSON)
	}
	tree, err := jsontree.Parse(doc.Body, doc.JSON())
	if err != nil {
		return nil, kind.RefuseJSON(err)
	}
	m := tree.Root().Members()
	if e := m.Take("entity"); e != nil && e.Text(1, 1023) != r.Addr.URI(h.Scheme()) {
		e.Refuse(kind.ReasonEntityMismatch, "this is published for %s", r.Addr.URI(h.Scheme()))
	}
	v := report{state: max(0, slices.Index(states, m.Need("state").OneOf(states...))), notes: m.Take("notes").Strings(20, 200)}
	for _, rest := range m.Rest() {
		rest.Fault(`not known here: a report has "state" and "notes"`)
	}
	slices.Sort(v.notes)
	v.notes = slices.Compact(v.notes)
	return v, kind.RefuseJSON(tree.Err())
}

// Weight: a note is what there may be many of.
func (Health) Weight(doc kind.Document, value any) int {
	return kind.BaseWeight(doc) + len(value.(report).notes)
}

func (h Health) Compose(now time.Time, r kind.Resource, pubs []kind.Publication) (*kind.Composed, error) {
	c, all := &kind.Composed{Resource: r}, report{}
	for i := range pubs {
		p := &pubs[i]
		if !p.Live(now) {
			continue
		}
		v, err := h.Parse(r, p.Doc)
		if err != nil {
			return nil, err
		}
		all.state = max(all.state, v.(report).state)
		all.notes = append(all.notes, v.(report).notes...)
		if p.Published.After(c.Modified) {
			c.Modified = p.Published
		}
		if c.Expires.IsZero() || !p.Expires.IsZero() && p.Expires.Before(c.Expires) {
			c.Expires = p.Expires
		}
	}
	slices.Sort(all.notes)
	all.notes = slices.Compact(all.notes)
	c.Value = all
	return c, nil
}

func (Health) Neutral(r kind.Resource) *kind.Composed {
	return &kind.Composed{Resource: r, Value: report{}}
}

func (h Health) View(c *kind.Composed, g kind.Grant) *kind.Composed {
	v, all := *c, c.Value.(report)
	v.Class, v.Value = g.Class(), report{}
	if g.Has("state") {
		v.Value = report{state: all.state}
	}
	if g.Has("state") && g.Has("notes") {
		v.Value = all
	}
	return &v
}

func (h Health) Encode(c *kind.Composed) kind.Document {
	v := c.Value.(report)
	names := []string{"entity", "state"}
	values := []jsontree.Value{jsontree.OfString(c.Resource.Addr.URI(h.Scheme())), jsontree.OfString(states[v.state])}
	if len(v.notes) > 0 {
		names, values = append(names, "notes"), append(values, jsontree.OfStrings(v.notes))
	}
	return kind.Document{ContentType: TypeJSON, Body: jsontree.OfObject(names, values).Append(nil)}
}
