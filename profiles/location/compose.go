package location

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// maxSkew is how far a document's instant may be ahead of its publication and
// still count for the order of age: a device whose clock is wrong would
// otherwise be the newest for ever. What it wrote stays as it is.
const maxSkew = 5 * time.Minute

// Compose takes the newest position of the live sources, as one source said it:
// parts of two moments together would be a place where nobody was. Of two of
// one instant the better method counts. Who does not know where they are says
// nothing.
func (k *Kind) Compose(now time.Time, r kind.Resource, pubs []kind.Publication) (*kind.Composed, error) {
	var best candidate
	for i := range pubs {
		p := &pubs[i]
		if !p.Live(now) || !newestOfSource(pubs, p) {
			continue
		}
		d, err := k.parsed(r, p)
		if err != nil {
			return nil, fmt.Errorf("location: source %q: %w", p.Source, err)
		}
		if c := newCandidate(p, d); c.live(now) && (best.d == nil || c.before(&best)) {
			best = c
		}
	}
	if best.d == nil {
		return k.Neutral(r), nil
	}
	return &kind.Composed{Resource: r, Modified: best.p.Published, Expires: best.end(), Value: best.composed()}, nil
}

// newestOfSource says whether p is what its source published last.
func newestOfSource(pubs []kind.Publication, p *kind.Publication) bool {
	return !slices.ContainsFunc(pubs, func(q kind.Publication) bool {
		return q.Source == p.Source && cmp.Or(q.Published.Compare(p.Published), strings.Compare(q.ETag, p.ETag)) > 0
	})
}

func (k *Kind) parsed(r kind.Resource, p *kind.Publication) (*document, error) {
	if d, ok := p.Value.(*document); ok {
		return d, nil
	}
	v, err := k.Parse(r, p.Doc)
	if err != nil {
		return nil, err
	}
	return v.(*document), nil
}

// A candidate is a publication that may be the one that counts.
type candidate struct {
	p    *kind.Publication
	d    *document
	when time.Time // for the order of age
}

func newCandidate(p *kind.Publication, d *document) candidate {
	when := d.at
	if when.IsZero() || when.After(p.Published.Add(maxSkew)) {
		when = p.Published
	}
	return candidate{p, d, when}
}

// live says whether it says anything, and may still be kept.
func (c *candidate) live(now time.Time) bool {
	return !c.d.silent() && (c.d.rules.retention.IsZero() || now.Before(c.d.rules.retention))
}

// end is when it counts no more, zero if it does for good.
func (c *candidate) end() time.Time {
	at, keep := c.p.Expires, c.d.rules.retention
	if at.IsZero() || !keep.IsZero() && keep.Before(at) {
		return keep
	}
	return at
}

// before says whether c counts before e. No two sources are equal in it.
func (c *candidate) before(e *candidate) bool {
	return cmp.Or(
		e.when.Compare(c.when), c.d.rank()-e.d.rank(), e.p.Published.Compare(c.p.Published),
		strings.Compare(c.p.Source, e.p.Source),
	) < 0
}

// composed is the document as those see it who see everything: with the
// instant at which it came in, if the source told none.
func (c *candidate) composed() *document {
	d := *c.d
	d.track = nil
	if d.at.IsZero() {
		d.at = c.p.Published.UTC()
	}
	return &d
}

// HasTrack says whether a parsed document has earlier positions.
func (*Kind) HasTrack(value any) bool { return len(value.(*document).track) > 0 }

// Track returns the earlier positions of a publication, oldest first, each as a
// composed document that View and Encode take: events, which are shown to who
// watches now and kept nowhere. Two that follow each other may look the same in
// a view, which is then to be shown once.
func (k *Kind) Track(r kind.Resource, p *kind.Publication) ([]*kind.Composed, error) {
	d, err := k.parsed(r, p)
	if err != nil {
		return nil, fmt.Errorf("location: source %q: %w", p.Source, err)
	}
	events := make([]*kind.Composed, len(d.track))
	for i, f := range d.track {
		e := newDocument()
		e.at, e.shape, e.rules, e.method = f.at, &shape{pos: f.pos}, d.rules, d.method
		events[i] = &kind.Composed{Resource: r, Modified: p.Published, Value: e}
	}
	return events, nil
}
