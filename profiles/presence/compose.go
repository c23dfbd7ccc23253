package presence

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// maxSkew is how far a timestamp may be ahead of its publication and still
// count for the order of age: a device whose clock is wrong would otherwise be
// the newest for ever. What it wrote stays as it is.
const maxSkew = 5 * time.Minute

// Compose joins what the live sources have published.
func (k *Kind) Compose(now time.Time, r kind.Resource, pubs []kind.Publication) (*kind.Composed, error) {
	c := &kind.Composed{Resource: r}
	d := &document{}
	var texts []note
	var exts joiner
	said := false
	known := onePerSource(pubs)
	for i := range known {
		p := &known[i]
		if p.Expired(now) {
			continue
		}
		c.Expires, said = sooner(c.Expires, p.Expires), true
		if !p.Lost.IsZero() {
			d.lost = append(d.lost, p.Source)
			continue
		}
		from, err := k.parsed(r, p)
		if err != nil {
			return nil, fmt.Errorf("presence: source %q: %w", p.Source, err)
		}
		if p.Published.After(c.Modified) {
			c.Modified = p.Published
		}
		own := p.Publisher == r.Addr
		d.tuples = append(d.tuples, current(from.tuples, p, own, now, &c.Expires)...)
		d.persons = append(d.persons, current(from.persons, p, own, now, &c.Expires)...)
		d.devices = append(d.devices, current(from.devices, p, own, now, &c.Expires)...)
		exts.add(from.ext)
		texts = append(texts, listNotes(from.notes)...)
	}
	if !said {
		return k.Neutral(r), nil
	}
	d.notes = notes(texts)
	d.ext = exts.sorted()
	slices.Sort(d.lost)
	d.devices = onePerDevice(d.devices)
	k.finish(d, r, kind.Class{})
	c.Value = d
	return c, nil
}

// onePerSource returns the newest publication of each source, the newest first,
// whatever the order in which they are given.
func onePerSource(pubs []kind.Publication) []kind.Publication {
	sorted := slices.SortedFunc(slices.Values(pubs), func(a, b kind.Publication) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), b.Published.Compare(a.Published), strings.Compare(b.ETag, a.ETag))
	})
	one := slices.CompactFunc(sorted, func(a, b kind.Publication) bool { return a.Source == b.Source })
	slices.SortStableFunc(one, func(a, b kind.Publication) int { return b.Published.Compare(a.Published) })
	return one
}

// A joiner joins extensions. Of a member with one name there can be only one: the
// first.
type joiner struct {
	all   []extension
	known map[extension]bool // of all, without what members say; nil while all are of one place
}

func (j *joiner) add(more []extension) {
	switch {
	case len(more) == 0:
	case j.all == nil:
		j.all = slices.Clone(more)
	default:
		if j.known == nil {
			j.known = make(map[extension]bool, len(j.all)+len(more))
			for _, x := range j.all {
				j.known[x.place()] = true
			}
		}
		for _, x := range more {
			if at := x.place(); !j.known[at] {
				j.known[at] = true
				j.all = append(j.all, x)
			}
		}
	}
}

func (j *joiner) sorted() []extension {
	slices.SortFunc(j.all, extension.compare)
	return j.all
}

// place is what there is once: a member, whatever it says, or all of an element.
func (x extension) place() extension {
	if x.space == "" {
		x.text = ""
	}
	return x
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

// sooner returns the earlier of two instants, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// current returns the elements of a publication as they are at the instant now,
// knowing where they are from, and whether the owner has published them; expires
// moves to the first instant at which one of them is different.
func current(elements []element, p *kind.Publication, own bool, now time.Time, expires *time.Time) []element {
	of := make([]element, len(elements))
	for i, e := range elements {
		e.origin, e.own = origin{source: p.Source, id: e.id}, own
		if e.id == "" {
			e.origin.id = fmt.Sprintf("#%d", i)
		}
		e.when = e.timestamp
		if e.when.IsZero() || e.when.After(p.Published.Add(maxSkew)) {
			e.when = p.Published
		}
		var attrs []attr
		for _, a := range e.attrs {
			if now.Before(a.from) {
				*expires = sooner(*expires, a.from)
			} else if now.Before(a.until) {
				*expires = sooner(*expires, a.until)
			}
			if a.current(now) {
				attrs = append(attrs, a)
			}
		}
		e.attrs = attrs
		of[i] = e
	}
	return of
}

// onePerDevice keeps of each device what was said of it last. Whether it is
// used is an exception: that somebody is there counts above all that say
// otherwise.
func onePerDevice(devices []element) []element {
	sorted := slices.SortedFunc(slices.Values(devices), func(a, b element) int {
		return cmp.Or(strings.Compare(a.deviceID, b.deviceID), b.when.Compare(a.when), a.origin.compare(b.origin))
	})
	var kept []element
	for _, e := range sorted {
		n := len(kept)
		if n == 0 || kept[n-1].deviceID != e.deviceID {
			kept = append(kept, e)
			continue
		}
		input, had := e.attr(permUserInput), kept[n-1].attr(permUserInput)
		if input != nil && isActive(input.value) && (had == nil || !isActive(had.value)) {
			kept[n-1] = kept[n-1].with(*input)
		}
	}
	return kept
}

// finish gives the elements of a new document the ids that the class sees, and
// the order that follows from what is seen.
func (k *Kind) finish(d *document, r kind.Resource, class kind.Class) {
	for i := range d.tuples {
		d.tuples[i].id = k.id('t', r, class, d.tuples[i].origin)
	}
	for i := range d.persons {
		d.persons[i].id = k.id('p', r, class, d.persons[i].origin)
	}
	slices.SortFunc(d.tuples, func(a, b element) int {
		return cmp.Or(rank(a.basic)-rank(b.basic), cmp.Compare(b.contact.priority, a.contact.priority), strings.Compare(a.id, b.id))
	})
	slices.SortFunc(d.persons, byAge)
}

// byAge sorts the newest first, by what is seen of them: those without a timestamp
// come last, whenever they were published.
func byAge(a, b element) int {
	return cmp.Or(b.age().Compare(a.age()), strings.Compare(a.id, b.id))
}

// age is the timestamp as it counts for the order, zero if there is none.
func (e *element) age() time.Time {
	if e.timestamp.IsZero() {
		return time.Time{}
	}
	return e.when
}

// rank puts what is open first, for that is what a watcher is after.
func rank(basic string) int {
	return slices.Index([]string{open, "", closed}, basic)
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// id returns the name that watchers of a class know an element by: 20
// characters that tell nothing.
func (k *Kind) id(first byte, r kind.Resource, class kind.Class, o origin) string {
	mac := hmac.New(sha256.New, k.key)
	var b []byte
	b = append(b, "presence id 1\n"...)
	b = append(b, class[:]...)
	for _, s := range []string{string(first), r.Addr.Local, r.Addr.Domain, o.source, o.id} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	mac.Write(b)
	return string(idEncoding.AppendEncode([]byte{first}, mac.Sum(nil)[:12]))
}

// merged returns persons as they are written: one if they do not contradict
// each other, else each that says something of its own, newest first.
func merged(persons []element) []element {
	if len(persons) < 2 {
		return persons
	}
	sorted := slices.SortedFunc(slices.Values(persons), byAge)
	one := sorted[0]
	var texts []note
	var exts joiner
	for i := range sorted {
		p := &sorted[i]
		if i > 0 && one.contradicts(p) {
			return distinct(sorted)
		}
		for _, a := range p.attrs {
			if a.name == permNote {
				texts = append(texts, listNotes(a.value)...)
			}
			if i > 0 && one.attr(a.name) == nil {
				one = one.with(a)
			}
		}
		exts.add(p.ext)
		one.ext = exts.all
		one.id = min(one.id, p.id)
	}
	one.ext = exts.sorted()
	if texts != nil {
		had := *one.attr(permNote)
		had.value = notes(texts)
		one = one.with(had)
	}
	return []element{one}
}

// contradicts says whether e and p say different things about the same. Notes
// never do.
func (e *element) contradicts(p *element) bool {
	for i := range p.attrs {
		if had := e.attr(p.attrs[i].name); had != nil && !had.equal(&p.attrs[i]) && had.name != permNote {
			return true
		}
	}
	return slices.ContainsFunc(p.ext, func(x extension) bool {
		return slices.ContainsFunc(e.ext, func(y extension) bool { return x.space == "" && y.space == "" && x.name == y.name && x.text != y.text })
	})
}

// distinct leaves out persons who say what a newer one says. Who does is looked for
// among those who say the rarest of the things that a person says, for an owner can
// publish hundreds of persons who differ in little.
func distinct(persons []element) []element {
	var kept []element
	by := map[string][]int{} // of kept: who say a thing
	for i := range persons {
		p := &persons[i]
		things := p.things()
		if len(things) == 0 && len(kept) > 0 {
			continue // everybody says as much
		}
		var who []int
		for i, thing := range things {
			if have := by[thing]; i == 0 || len(have) < len(who) {
				who = have
			}
		}
		if slices.ContainsFunc(who, func(i int) bool { return kept[i].says(p) }) {
			continue
		}
		for _, thing := range things {
			by[thing] = append(by[thing], len(kept))
		}
		kept = append(kept, *p)
	}
	return kept
}

// things are what a person says, each in one form: who says the same has the same
// ones.
func (e *element) things() []string {
	all := make([]string, 0, len(e.attrs)+len(e.ext))
	for i := range e.attrs {
		a := &e.attrs[i]
		all = append(all, a.name+" "+oneForm(a.value))
	}
	for _, x := range e.ext {
		all = append(all, x.space+" "+x.name+" "+x.text)
	}
	return all
}

// oneForm is the same for values that are Equal: whatever the order of members.
func oneForm(v jsontree.Value) string {
	if v.Kind() != jsontree.Object {
		return v.String()
	}
	members := make([]string, v.Len())
	for i := range members {
		members[i] = jsontree.OfString(v.Name(i)).String() + oneForm(v.At(i))
	}
	slices.Sort(members)
	return strings.Join(members, ",")
}

// says says whether q says all that p does.
func (e *element) says(p *element) bool {
	for i := range p.attrs {
		if had := e.attr(p.attrs[i].name); had == nil || !had.equal(&p.attrs[i]) {
			return false
		}
	}
	return !slices.ContainsFunc(p.ext, func(x extension) bool { return !slices.Contains(e.ext, x) })
}
