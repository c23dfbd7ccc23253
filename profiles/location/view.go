package location

import (
	"slices"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// coarseTime is what the instant of a document is rounded down to for those who
// are not shown the position itself: when somebody's device speaks is told by
// them to those who see it only.
const coarseTime = 15 * time.Minute

// View cuts a document to what g shows (RFC 6772 section 6.5).
func (k *Kind) View(c *kind.Composed, g kind.Grant) *kind.Composed {
	v := *c
	v.Class = g.Class()
	from := c.Value.(*document)
	d := newDocument()
	exact := false
	if radius, ok := g.Min(permRadius); ok && from.shape != nil {
		if exact = radius == 0; exact {
			d.shape, d.method, d.heading, d.speed = from.shape, from.method, from.heading, from.speed
		} else {
			d.shape = k.coarsened(from.shape, radius, c.Resource.Addr)
		}
	}
	level := g.Max(permCivic)
	d.civic = filter(from.civic, func(e civic) bool { return e.level() <= level })
	d.ext = filter(from.ext, func(x extension) bool { return g.Allows(permUnknown, x.name) })
	if d.silent() {
		v.Value = neutral
		return &v
	}
	d.rules = from.rules
	if d.at = from.at; !exact {
		d.at = d.at.Truncate(coarseTime)
	}
	v.Value = d
	return &v
}

// filter returns those that keep says to keep.
func filter[T any](all []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), func(e T) bool { return !keep(e) })
}
