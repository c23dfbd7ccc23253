package watchers

import (
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Rules are what a watcher lets those see whom she watches beside her address, or
// the pseudonym in its place (RFC 2778, visibility rules). It is her document
// $me/policy/watcher:
//
//	{"v": 1, "displayName": "Alice", "revealSince": true, "revealExpiry": false}
//
// The zero Rules are those of who has set none: no name, and both instants.
type Rules struct {
	Name        string // what she wants to be called; empty: not said
	HideSince   bool
	HideExpires bool
}

// MaxName bounds a display name, in bytes.
const MaxName = 128

// RulesKind is the kind under which a watcher's rules are set: $me/policy/watcher.
const RulesKind = "watcher"

// ReadRules reads a document of owner's. The error is a *kind.Refusal with all
// faults.
func ReadRules(document []byte, owner kind.Addr) (r Rules, err error) {
	doc, err := jsontree.Parse(document, jsontree.Limits{Bytes: 4 << 10})
	if err != nil {
		return Rules{}, kind.RefuseJSON(err)
	}
	m := doc.Root().Members()
	if v := m.Need("v"); v != nil {
		v.Int(1, 1)
	}
	kind.Resource{Kind: RulesKind, Addr: owner}.CheckEntity(m.Take("entity"))
	if k := m.Take("kind"); k != nil {
		k.OneOf(RulesKind)
	}
	r.Name = m.Take("displayName").Text(1, MaxName)
	if n := m.Take("revealSince"); n != nil {
		r.HideSince = !n.Bool()
	}
	if n := m.Take("revealExpiry"); n != nil {
		r.HideExpires = !n.Bool()
	}
	for _, n := range m.Rest() {
		n.Fault("no such member here: there are entity, kind, displayName, revealSince and revealExpiry")
	}
	if err := doc.Err(); err != nil {
		return Rules{}, kind.RefuseJSON(err)
	}
	return r, nil
}

// Over returns a row without what its watcher keeps to herself. Her name goes with
// her address only: with a pseudonym it would say whose that is.
func (r *Rules) Over(row Row) Row {
	if row.Visibility == Identified {
		row.Name = r.Name
	}
	if r.HideSince {
		row.Since = time.Time{}
	}
	if r.HideExpires {
		row.Expires = time.Time{}
	}
	return row
}
