package kind

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// An Override is what an owner has somebody see in place of a part of what was
// published: busy, and not in a meeting. Null is nothing in its place.
type Override struct {
	Name  string // of a member of the kind's documents
	Value jsontree.Value
}

// An Overrider is a kind of which parts can be overridden in views. Its View does
// what Grant.Overrides says after it has cut what the grant does not show.
type Overrider interface {
	// ReadOverride reads what stands in a policy for the part that n is named after,
	// in the form in which View writes it; it notes a fault in n if that is no part
	// that can be overridden: what a document is about, the ids in it and its
	// timestamps are not the owner's to make up.
	ReadOverride(n *jsontree.Node) jsontree.Value
}

// A Zoned kind knows from its documents what the clocks show where an owner is.
type Zoned interface {
	// Offset returns how many minutes they are ahead of UTC; ok is false if the
	// document says none, or several.
	Offset(c *Composed) (minutes int, ok bool)
}

// A Prioritized kind knows which of several documents its owner would rather have
// seen.
type Prioritized interface {
	// Priority returns that of what Parse returned; the greater is preferred.
	Priority(value any) float64
}

// As returns the grant as it is for a watcher of a persona (empty for none), with
// overrides, of which no two have one name. What it covers is the same.
func (g Grant) As(persona string, overrides []Override) Grant {
	g.persona = persona
	g.overrides = slices.SortedFunc(slices.Values(overrides), func(a, b Override) int { return strings.Compare(a.Name, b.Name) })
	return g
}

// Persona is which of the owner's personas is seen: empty for what they publish for
// all, Everything for all of them together.
func (g Grant) Persona() string { return g.persona }

// Overrides are what is seen in place of the truth, by name. They must not be
// changed.
func (g Grant) Overrides() []Override { return g.overrides }

// Same says whether g and h show the same of everything.
func (g Grant) Same(h Grant) bool {
	return g.Is(h) || g.persona == h.persona && g.Covers(h) && h.Covers(g) &&
		slices.EqualFunc(g.overrides, h.overrides, func(a, b Override) bool { return a.Name == b.Name && a.Value.Equal(b.Value) })
}
