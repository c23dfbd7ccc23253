package state

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// A face is a resource as those see it who are shown one persona of its owner. The
// documents of two have nothing in common by which somebody could tell that they
// are of one owner: sources lose the persona in their names before they are
// composed, and what a kind calls their elements it makes of the grant's class,
// which is another for each persona.
type face struct {
	composed *kind.Composed
	from     time.Time // composed holds from here until its Expires
	views    map[kind.Class]rendered
	last     kind.Grant // of which lastView is the view, if that has a payload
	lastView rendered
}

// facesKept bounds the faces of a resource that are kept: rules can name as many
// personas as there are rules. The loser is any.
const facesKept = 16

// face returns the face of a persona at an instant. Requires mu.
func (r *resource) face(persona string, now time.Time) *face {
	f := r.faces[persona]
	if f != nil && !now.Before(f.from) && (f.composed.Expires.IsZero() || now.Before(f.composed.Expires)) {
		return f
	}
	c, err := r.kind.Compose(now, r.of, r.chosen(worn(r.publications(), persona), now))
	if err != nil { // a publication that this version cannot read
		c = r.kind.Neutral(r.of)
	}
	f = &face{composed: c, from: now}
	if len(r.faces) >= facesKept {
		clear(r.faces)
	}
	if r.faces == nil {
		r.faces = map[string]*face{}
	}
	r.faces[persona] = f
	return f
}

// worn returns the publications of which a persona's document is made: those for
// it, and those for all of sources that have none for it. The owner, who sees all
// personas together, sees them under the names that they are kept under.
func worn(pubs []kind.Publication, persona string) []kind.Publication {
	if persona == kind.Everything {
		return pubs
	}
	var of []kind.Publication
	for _, p := range pubs {
		by, source := kind.SplitKey(p.Source)
		switch {
		case by != "" && by != persona:
			continue
		case by == "" && persona != "" && slices.ContainsFunc(pubs, func(q kind.Publication) bool {
			return q.Source == kind.Topic{Source: source, Persona: persona}.Key()
		}):
			continue // it has its own word for them, even if that is over by now
		}
		p.Source = source
		of = append(of, p)
	}
	return of
}

// chosen returns those of the publications that count, by what the owner's policy
// says of their composition. Those that are lost are known to be so in any case.
func (r *resource) chosen(pubs []kind.Publication, now time.Time) []kind.Publication {
	how := policy.Merge
	if r.policy != nil {
		how = r.policy.Compose()
	}
	k, can := r.kind.(kind.Prioritized)
	if how == policy.Merge || how == policy.Priority && !can {
		return pubs
	}
	priority := func(p *kind.Publication) float64 {
		if how != policy.Priority {
			return 0
		}
		v := p.Value
		if v == nil {
			var err error
			if v, err = r.kind.Parse(r.of, p.Doc); err != nil {
				return -1
			}
		}
		return k.Priority(v)
	}
	var first *kind.Publication
	var of []kind.Publication
	for i := range pubs {
		p := &pubs[i]
		if !p.Live(now) {
			of = append(of, *p)
			continue
		}
		if first == nil || cmp.Or(cmp.Compare(priority(p), priority(first)), p.Published.Compare(first.Published), strings.Compare(first.Source, p.Source)) > 0 {
			first = p
		}
	}
	if first != nil {
		of = append(of, *first)
	}
	return of
}

// view returns what a grant shows, rendered once for its class. Requires the
// resource's mu.
func (f *face) view(r *resource, g kind.Grant) rendered {
	if f.lastView.payload == nil || !g.Is(f.last) { // most watchers get theirs from one rule
		f.last, f.lastView = g, f.viewOf(r, g)
	}
	return f.lastView
}

func (f *face) viewOf(r *resource, g kind.Grant) rendered {
	class := g.Class()
	if v, ok := f.views[class]; ok {
		return v
	}
	v := r.render(r.kind.View(f.composed, g))
	if same(v, r.neutral) {
		v = r.neutral
	}
	if f.views == nil || len(f.views) >= viewsKept {
		f.views = map[kind.Class]rendered{}
	}
	f.views[class] = v
	return v
}
