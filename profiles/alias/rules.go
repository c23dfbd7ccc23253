package alias

import (
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

// Rules are what a watcher lets those see whom she watches beside her address, or
// the pseudonym in its place (RFC 2778, visibility rules). It is her document
// $me/policy/watcher:
//
//	{"v": 1, "displayName": "Alice", "revealSince": true, "revealExpiry": false,
//	 "pseudonyms": {"expires": 86400, "uses": 20}}
//
// The zero Rules are those of who has set none: no name, both instants, and pseudonyms
// that take any number of messages.
type Rules struct {
	Name        string // what she wants to be called; empty: not said
	HideSince   bool
	HideExpires bool

	Expires time.Duration // how long a pseudonym lasts after its last subscription; 0: not said
	Uses    uint64        // how many messages may come to one; 0: any number
}

// Bounds of rules.
const (
	MaxName    = 128 // bytes
	maxExpires = 365 * 24 * time.Hour
	maxUses    = 1_000_000
)

// Kind is the kind under which a watcher's rules are set: $me/policy/watcher.
const Kind = "watcher"

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
	kind.Resource{Kind: Kind, Addr: owner}.CheckEntity(m.Take("entity"))
	if k := m.Take("kind"); k != nil {
		k.OneOf(Kind)
	}
	r.Name = m.Take("displayName").Text(1, MaxName)
	if n := m.Take("revealSince"); n != nil {
		r.HideSince = !n.Bool()
	}
	if n := m.Take("revealExpiry"); n != nil {
		r.HideExpires = !n.Bool()
	}
	if n := m.Take("pseudonyms"); n != nil {
		of := n.Members()
		if e := of.Take("expires"); e != nil {
			r.Expires = time.Duration(e.Int(60, int64(maxExpires/time.Second))) * time.Second
		}
		if u := of.Take("uses"); u != nil {
			r.Uses = uint64(u.Int(1, maxUses))
		}
		for _, rest := range of.Rest() {
			rest.Fault("no such member here: there are expires and uses")
		}
	}
	for _, n := range m.Rest() {
		n.Fault("no such member here: there are entity, kind, displayName, revealSince, revealExpiry and pseudonyms")
	}
	if err := doc.Err(); err != nil {
		return Rules{}, kind.RefuseJSON(err)
	}
	return r, nil
}

// ReadSet reads rules that were set; nil are none. It shows the least of what it cannot
// read, which a newer version has set.
func ReadSet(document []byte, owner kind.Addr) Rules {
	if document == nil {
		return Rules{}
	}
	r, err := ReadRules(document, owner)
	if err != nil {
		return Rules{HideSince: true, HideExpires: true}
	}
	return r
}

func (r Rules) lasts() time.Duration {
	if r.Expires != 0 {
		return r.Expires
	}
	return Lasts
}

// Over returns a row without what its watcher keeps to herself. Her name goes with
// her address only: with a pseudonym it would say whose that is.
func (r *Rules) Over(row watchers.Row) watchers.Row {
	if row.Visibility == watchers.Identified {
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
