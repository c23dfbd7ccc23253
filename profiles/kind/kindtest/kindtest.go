// Package kindtest holds the laws of package kind as a test that runs against
// any kind: its own documents, made up at random, go in, and what comes out is
// checked against what every kind has to obey.
//
//	func TestLaws(t *testing.T) {
//		kindtest.Test(t, kindtest.Suite{New: …, Documents: …, Tokens: …, Reveals: …, Same: …})
//	}
//
// A failure is shrunk to a small case and names the law.
package kindtest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// A Suite is a kind, and what has to be known to test it.
type Suite struct {
	// New makes the kind. It is called twice: what a kind answers must not
	// depend on what it was asked before.
	New func() kind.Kind

	// Documents makes up documents that the kind accepts for r. Give it few
	// words to choose from, so that sources agree, contradict and repeat each
	// other.
	Documents func(r kind.Resource) *rapid.Generator[kind.Document]

	// Tokens are what a PermSet may have, by its name; "*" is added.
	Tokens map[string][]string

	// Overrides are what may stand in a policy's "overrides", each as JSON by its name,
	// of a kind that is a kind.Overrider.
	Overrides map[string][]string

	// Reveals returns what less says that more does not, empty if there is
	// nothing. Both are values of composed documents. Names that are made up
	// for each view do not count.
	Reveals func(more, less any) string

	// Same says whether a parsed document says what the value of a composed
	// one does, as far as it is written.
	Same func(parsed, composed any) bool
}

// Test checks all laws.
func Test(t *testing.T, s Suite) {
	t.Run("default policy", s.defaultPolicy)
	for _, law := range laws {
		t.Run(law.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				if err := law.holds(s, t); err != nil {
					t.Fatalf("%s: %v", law.says, err)
				}
			})
		})
	}
}

// defaultPolicy checks that the kind's default policy is one, and opens the
// resource to nobody who has no identity.
func (s Suite) defaultPolicy(t *testing.T) {
	k := s.New()
	for _, owner := range addresses {
		p, err := policy.Parse(k.DefaultPolicy(owner), k, owner)
		if err != nil {
			t.Fatal(err)
		}
		if w := p.Warnings(); len(w) > 0 {
			t.Errorf("the default policy of %s has warnings: %v", owner, w)
		}
		if d := p.Evaluate(kind.Addr{}, base, policy.Input{}); d.View == policy.ViewFiltered {
			t.Errorf("the default policy of %s shows %+v to anybody", owner, d.Grant)
		}
		if d := p.Evaluate(owner, base, policy.Input{}); d.View != policy.ViewFiltered {
			t.Errorf("the default policy of %s shows its owner nothing", owner)
		}
	}
}

// A law holds for what it draws, or returns how it is broken.
type law struct {
	name, says string
	holds      func(s Suite, t *rapid.T) error
}

var laws = []law{
	{"order", "composing does not depend on the order of publications", Suite.order},
	{"nothing", "composing nothing gives the neutral document", Suite.nothing},
	{"neutral", "the neutral document follows from the address, and its size from the address's", Suite.neutral},
	{"dead", "what has expired or is lost adds nothing", Suite.dead},
	{"expires", "a composed document holds until it says that it may change", Suite.expires},
	{"idempotent", "a view of a view is that view", Suite.idempotent},
	{"overridden", "a view of a view with overrides is that view, and of nothing they make nothing", Suite.overridden},
	{"monotone", "a greater grant shows no less, and the empty one the neutral document", Suite.monotone},
	{"classes", "grants of one class show the same octets", Suite.classes},
	{"roundtrip", "what is encoded parses, and says the same", Suite.roundTrip},
	{"pure", "one question has one answer, and no argument is changed", Suite.pure},
	{"weight", "a document weighs the same each time, no less than its octets, and what is made of it no more than it", Suite.weight},
	{"refused", "what is not accepted is refused with the right error", Suite.refused},
}

// base is about when the documents of a suite are published.
var base = time.Date(2026, 3, 9, 13, 0, 0, 0, time.UTC)

var addresses = []kind.Addr{
	{Local: "bob", Domain: "example.com"},
	{Local: "ana", Domain: "example.net"},
	{Local: "l3.press12", Domain: "plant.example.com"},
	{Local: "jürgen/x", Domain: "xn--bcher-kva.example"},
}

func (s Suite) resource(t *rapid.T) kind.Resource {
	return kind.Resource{Kind: s.New().Name(), Addr: rapid.SampledFrom(addresses).Draw(t, "address")}
}

// publications draws up to four, of different sources, and the instant at which
// they are looked at.
func (s Suite) publications(t *rapid.T, r kind.Resource) (now time.Time, pubs []kind.Publication) {
	second := func(label string, from, to int) time.Time {
		return base.Add(time.Duration(rapid.IntRange(from, to).Draw(t, label)) * time.Second)
	}
	for _, source := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"pc", "phone", "~c1", "calendar"}), 0, 4, rapid.ID[string]).Draw(t, "sources") {
		p := kind.Publication{
			Source: source, Publisher: r.Addr, ETag: source + "-1", Published: second("published", -5, 5),
			Doc: s.Documents(r).Draw(t, "document"),
		}
		switch rapid.IntRange(0, 5).Draw(t, "end") {
		case 0:
			p.Lost = second("lost", 0, 5)
		case 1, 2:
			p.Expires = second("expires", 0, 20)
		}
		pubs = append(pubs, p)
	}
	return second("now", 5, 10), pubs
}

func (s Suite) grant(t *rapid.T, label string) kind.Grant {
	var perms []kind.Perm
	for _, p := range s.New().Permissions() {
		perm := kind.Perm{Name: p.Name, Type: p.Type}
		switch granted := rapid.IntRange(0, 3).Draw(t, label+" "+p.Name) > 0; {
		case !granted:
			continue
		case p.Type == kind.PermMax:
			perm.N = rapid.Int64Range(1, p.Most()).Draw(t, "level")
		case p.Type == kind.PermMin:
			perm.N = rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, p.Max)).Draw(t, "min")
		case p.Type == kind.PermSet:
			tokens := append([]string{kind.Everything}, s.Tokens[p.Name]...)
			perm.Set = rapid.SliceOfN(rapid.SampledFrom(tokens), 1, 3).Draw(t, "set")
		}
		perms = append(perms, perm)
	}
	return kind.NewGrant(perms...)
}

// composed draws publications and composes them.
func (s Suite) composed(t *rapid.T) (kind.Kind, *kind.Composed, error) {
	k, r := s.New(), s.resource(t)
	now, pubs := s.publications(t, r)
	c, err := k.Compose(now, r, pubs)
	return k, c, err
}

func (s Suite) order(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	now, pubs := s.publications(t, r)
	one, err := k.Compose(now, r, pubs)
	if err != nil {
		return err
	}
	shuffled := rapid.Permutation(pubs).Draw(t, "shuffled")
	other, err := k.Compose(now, r, shuffled)
	if err != nil {
		return err
	}
	if !one.Expires.Equal(other.Expires) || !one.Modified.Equal(other.Modified) {
		return fmt.Errorf("expires %s and %s, modified %s and %s", one.Expires, other.Expires, one.Modified, other.Modified)
	}
	return sameOctets(k, one, other)
}

func (s Suite) nothing(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	c, err := k.Compose(base, r, nil)
	if err != nil {
		return err
	}
	if !c.Expires.IsZero() || !c.Modified.IsZero() {
		return fmt.Errorf("of nothing: expires %s, modified %s", c.Expires, c.Modified)
	}
	return sameOctets(k, c, k.Neutral(r))
}

func (s Suite) neutral(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	uri := r.Addr.URI(k.Scheme())
	other := kind.Resource{Kind: r.Kind, Addr: kind.Addr{
		Local:  strings.Repeat("x", rapid.IntRange(1, 40).Draw(t, "length")),
		Domain: rapid.SampledFrom([]string{"a.example", "example.org"}).Draw(t, "domain"),
	}}
	a, b := k.Encode(k.Neutral(r)), k.Encode(k.Neutral(other))
	if x, y := len(a.Body)-len(uri), len(b.Body)-len(other.Addr.URI(k.Scheme())); x != y || a.ContentType != b.ContentType {
		return fmt.Errorf("beside the address %d and %d octets, %s and %s", x, y, a.ContentType, b.ContentType)
	}
	if again := s.New().Encode(s.New().Neutral(r)); !bytes.Equal(again.Body, a.Body) {
		return fmt.Errorf("%s, and then %s", a.Body, again.Body)
	}
	return nil
}

func (s Suite) dead(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	now, pubs := s.publications(t, r)
	live := slices.DeleteFunc(slices.Clone(pubs), func(p kind.Publication) bool { return !p.Live(now) })
	expired := slices.DeleteFunc(slices.Clone(pubs), func(p kind.Publication) bool { return p.Expired(now) })
	all, err := k.Compose(now, r, pubs)
	if err != nil {
		return err
	}
	without, err := k.Compose(now, r, expired)
	if err != nil {
		return err
	}
	if err := sameOctets(k, all, without); err != nil {
		return err
	}
	// That a source is lost may be told, to whom the owner shows it; nothing
	// of what it said is.
	of, err := k.Compose(now, r, live)
	if err != nil {
		return err
	}
	if len(live) == 0 {
		return sameOctets(k, k.View(all, s.grantWithout(t, "lost")), k.Neutral(r))
	}
	g := s.grantWithout(t, "lost")
	return sameOctets(k, k.View(all, g), k.View(of, g))
}

// grantWithout draws a grant that leaves out one permission.
func (s Suite) grantWithout(t *rapid.T, name string) kind.Grant {
	return kind.NewGrant(slices.DeleteFunc(slices.Clone(s.grant(t, "grant").Perms()), func(p kind.Perm) bool { return p.Name == name })...)
}

func (s Suite) expires(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	now, pubs := s.publications(t, r)
	c, err := k.Compose(now, r, pubs)
	if err != nil {
		return err
	}
	if !c.Expires.IsZero() && !c.Expires.After(now) {
		return fmt.Errorf("composed at %s, expires at %s", now, c.Expires)
	}
	later := now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "later")))
	if !c.Expires.IsZero() && !later.Before(c.Expires) {
		later = c.Expires.Add(-1)
	}
	again, err := k.Compose(later, r, pubs)
	if err != nil {
		return err
	}
	if err := sameOctets(k, c, again); err != nil {
		return fmt.Errorf("at %s and at %s, though it expires at %s: %w", now, later, c.Expires, err)
	}
	return nil
}

func (s Suite) idempotent(t *rapid.T) error {
	k, c, err := s.composed(t)
	if err != nil {
		return err
	}
	g := s.grant(t, "grant")
	v := k.View(c, g)
	if v.Class != g.Class() {
		return fmt.Errorf("class %s, want that of the grant, %s", v.Class, g.Class())
	}
	return sameOctets(k, v, k.View(v, g))
}

func (s Suite) overridden(t *rapid.T) error {
	k, c, err := s.composed(t)
	if err != nil {
		return err
	}
	o, can := k.(kind.Overrider)
	if !can {
		return nil
	}
	var overrides []kind.Override
	for _, name := range slices.Sorted(maps.Keys(s.Overrides)) {
		if rapid.IntRange(0, 2).Draw(t, name) > 0 {
			continue
		}
		text := rapid.SampledFrom(s.Overrides[name]).Draw(t, "instead")
		doc, err := jsontree.Parse([]byte(fmt.Sprintf("{%q:%s}", name, text)), jsontree.Limits{})
		if err != nil {
			return err
		}
		v := o.ReadOverride(doc.Root().Members().Take(name))
		if err := doc.Err(); err != nil {
			return fmt.Errorf("%s: %s: %w", name, text, err)
		}
		overrides = append(overrides, kind.Override{Name: name, Value: v})
	}
	plain := s.grant(t, "grant")
	g := plain.As(rapid.SampledFrom([]string{"", "work"}).Draw(t, "persona"), overrides)
	v := k.View(c, g)
	if v.Class != g.Class() {
		return fmt.Errorf("class %s, want that of the grant, %s", v.Class, g.Class())
	}
	if err := sameOctets(k, v, k.View(v, g)); err != nil {
		return err
	}
	neutral := k.Encode(k.Neutral(c.Resource)).Body
	if shown := k.Encode(k.View(c, plain)).Body; bytes.Equal(shown, neutral) != bytes.Equal(k.Encode(v).Body, neutral) {
		return fmt.Errorf("without overrides %s, with them %s", shown, k.Encode(v).Body)
	}
	doc := k.Encode(v)
	parsed, err := k.Parse(c.Resource, doc)
	if err != nil || !s.Same(parsed, v.Value) {
		return fmt.Errorf("%s reads as something else: %v", doc.Body, err)
	}
	return nil
}

func (s Suite) monotone(t *rapid.T) error {
	k, c, err := s.composed(t)
	if err != nil {
		return err
	}
	if err := sameOctets(k, k.View(c, kind.Grant{}), k.Neutral(c.Resource)); err != nil {
		return fmt.Errorf("the empty grant: %w", err)
	}
	less := s.grant(t, "less")
	more := less.Union(s.grant(t, "more"))
	a, b := k.View(c, more), k.View(c, less)
	if missing := s.Reveals(a.Value, b.Value); missing != "" {
		return fmt.Errorf("%s shows %s, which %s does not\nmore: %s\nless: %s", less.Append(nil, k.Permissions()), missing,
			more.Append(nil, k.Permissions()), k.Encode(a).Body, k.Encode(b).Body)
	}
	if missing := s.Reveals(c.Value, a.Value); missing != "" {
		return fmt.Errorf("a view shows %s, which nobody published\nview: %s\nall: %s", missing, k.Encode(a).Body, k.Encode(c).Body)
	}
	return nil
}

func (s Suite) classes(t *rapid.T) error {
	k, c, err := s.composed(t)
	if err != nil {
		return err
	}
	g, h := s.grant(t, "one"), s.grant(t, "other")
	one, other := g.Union(h), h.Union(g)
	if one.Class() != other.Class() {
		return fmt.Errorf("%+v and %+v differ", one, other)
	}
	if err := sameOctets(k, k.View(c, one), k.View(c, other)); err != nil {
		return err
	}
	// "*" beside other tokens is "*".
	var plain []kind.Perm
	for _, p := range one.Perms() {
		if slices.Contains(p.Set, kind.Everything) {
			p.Set = []string{kind.Everything}
		}
		plain = append(plain, p)
	}
	return sameOctets(k, k.View(c, one), k.View(c, kind.NewGrant(plain...)))
}

func (s Suite) roundTrip(t *rapid.T) error {
	k, c, err := s.composed(t)
	if err != nil {
		return err
	}
	for _, c := range []*kind.Composed{c, k.View(c, s.grant(t, "grant")), k.View(c, kind.Most(k.Permissions())), k.Neutral(c.Resource)} {
		doc := k.Encode(c)
		if doc.ContentType != k.Accepts()[0] {
			return fmt.Errorf("written as %s, want %s", doc.ContentType, k.Accepts()[0])
		}
		v, err := k.Parse(c.Resource, doc)
		if err != nil {
			return fmt.Errorf("%s: %w", doc.Body, err)
		}
		if !s.Same(v, c.Value) {
			return fmt.Errorf("%s reads as something else", doc.Body)
		}
	}
	return nil
}

func (s Suite) pure(t *rapid.T) error {
	k, again := s.New(), s.New()
	r := s.resource(t)
	now, pubs := s.publications(t, r)
	bodies := make([][]byte, len(pubs))
	parsed := slices.Clone(pubs)
	for i, p := range pubs {
		bodies[i] = bytes.Clone(p.Doc.Body)
		v, err := k.Parse(r, p.Doc)
		if err != nil {
			return fmt.Errorf("%s: %w", p.Doc.Body, err)
		}
		parsed[i].Value = v
	}
	c, err := k.Compose(now, r, pubs)
	if err != nil {
		return err
	}
	before := k.Encode(c)
	kept := bytes.Clone(before.Body)
	g := s.grant(t, "grant")
	view := k.Encode(k.View(c, g))
	if !bytes.Equal(kept, before.Body) || !bytes.Equal(k.Encode(c).Body, kept) {
		return fmt.Errorf("the document was changed by View: %s, before %s", k.Encode(c).Body, kept)
	}
	for i, p := range pubs {
		if !bytes.Equal(p.Doc.Body, bodies[i]) {
			return fmt.Errorf("a publication was changed: %s, before %s", p.Doc.Body, bodies[i])
		}
	}
	// Another one, asked other things before, in the other order; and with
	// what was parsed before.
	again.Neutral(r)
	for _, from := range [][]kind.Publication{pubs, parsed} {
		d, err := again.Compose(now, r, from)
		if err != nil {
			return err
		}
		if !bytes.Equal(again.Encode(again.View(d, g)).Body, view.Body) || !bytes.Equal(again.Encode(d).Body, kept) {
			return fmt.Errorf("another %s answers %s, want %s", k.Name(), again.Encode(d).Body, kept)
		}
	}
	return nil
}

// octetsPerUnit is how long what is composed may be for each unit that was published,
// beside the neutral document.
const octetsPerUnit = 512

func (s Suite) weight(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	doc := s.Documents(r).Draw(t, "document")
	v, err := k.Parse(r, doc)
	if err != nil {
		return err
	}
	w := k.Weight(doc, v)
	if again := s.New().Weight(doc, v); w != again || w < kind.BaseWeight(doc) {
		return fmt.Errorf("%s weighs %d, and then %d, want no less than %d", doc.Body, w, again, kind.BaseWeight(doc))
	}
	c, err := k.Compose(base, r, []kind.Publication{{Source: "pc", Publisher: r.Addr, ETag: "1", Published: base, Doc: doc}})
	if err != nil {
		return err
	}
	if is, most := len(k.Encode(c).Body), len(k.Encode(k.Neutral(r)).Body)+w*octetsPerUnit; is > most {
		return fmt.Errorf("%s weighs %d and becomes %d octets, want %d at most", doc.Body, w, is, most)
	}
	return nil
}

func (s Suite) refused(t *rapid.T) error {
	k, r := s.New(), s.resource(t)
	doc := s.Documents(r).Draw(t, "document")
	if _, err := k.Parse(r, kind.Document{ContentType: "application/x-nobody", Body: doc.Body}); !errors.Is(err, kind.ErrUnsupported) {
		return fmt.Errorf("an unknown content type: %v, want ErrUnsupported", err)
	}
	big := append(bytes.Clone(doc.Body), bytes.Repeat([]byte(" "), k.Semantics().MaxBytes+1-len(doc.Body))...)
	if _, err := k.Parse(r, kind.Document{ContentType: doc.ContentType, Body: big}); !errors.Is(err, kind.ErrTooBig) {
		return fmt.Errorf("%d bytes: %v, want ErrTooBig", len(big), err)
	}
	damaged := bytes.Clone(doc.Body)
	if len(damaged) > 0 {
		i := rapid.IntRange(0, len(damaged)-1).Draw(t, "byte")
		damaged[i] = rapid.Byte().Draw(t, "damage")
		damaged = damaged[:rapid.IntRange(i, len(damaged)).Draw(t, "cut")]
	}
	if _, err := k.Parse(r, kind.Document{ContentType: doc.ContentType, Body: damaged}); err != nil &&
		!errors.Is(err, kind.ErrInvalid) && !errors.Is(err, kind.ErrUnsupported) && !errors.Is(err, kind.ErrTooBig) {
		return fmt.Errorf("%q: %v, want ErrInvalid, ErrUnsupported or ErrTooBig", damaged, err)
	}
	return nil
}

func sameOctets(k kind.Kind, a, b *kind.Composed) error {
	x, y := k.Encode(a), k.Encode(b)
	if x.ContentType != y.ContentType || !bytes.Equal(x.Body, y.Body) {
		return fmt.Errorf("%s\nis not %s", x.Body, y.Body)
	}
	return nil
}
