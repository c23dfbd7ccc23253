package presence

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

var (
	_ kind.Overrider   = (*Kind)(nil)
	_ kind.Zoned       = (*Kind)(nil)
	_ kind.Prioritized = (*Kind)(nil)
)

// overridden are the attributes that an owner may have somebody see in place of the
// truth: what they say about themselves. What names an element, chooses it or says
// when it was made is not among them.
var overridden = []string{
	"activities", "mood", permNote, "placeIs", "placeType", "privacy", "relationship", "sphere", "statusIcon", "timeOffset", permUserInput,
}

// overriddenBasic is the name of whether services are open.
const overriddenBasic = "basic"

// ReadOverride reads an attribute, or basic.
func (*Kind) ReadOverride(n *jsontree.Node) jsontree.Value {
	null := n.Kind() == jsontree.Null
	switch name := n.Name(); {
	case name == overriddenBasic:
		return jsontree.OfString(n.OneOf(open, closed))
	case !slices.Contains(overridden, name):
		n.Fault("cannot be overridden: what can are basic and %s; what a document is about, its ids and its timestamps are not to be made up", strings.Join(overridden, ", "))
		return jsontree.Value{}
	case null:
		return jsontree.Value{}
	case name == permUserInput:
		return readInputWord(n) // since when is a timestamp
	default:
		return attributeOf(name).read(n)
	}
}

// override puts into d, which is what g shows, what g says in place of the truth. A
// person is made up if none is shown, so that how it comes and goes tells nothing.
func (d *document) override(g kind.Grant) {
	for _, o := range g.Overrides() {
		if o.Name == overriddenBasic {
			for i := range d.tuples {
				d.tuples[i].basic = o.Value.Text()
			}
			continue
		}
		a := attributeOf(o.Name)
		switch {
		case o.Name == permNote:
			d.notes = o.Value
			d.without(permNote, tuple|person|device)
		case a.parts&person == 0:
			d.replace(d.tuples, a.name, o.Value)
		default:
			if len(d.persons) == 0 && o.Value.Kind() != jsontree.Null {
				d.persons = []element{{contact: contact{priority: -1}, origin: origin{id: "#"}}}
			}
			d.replace(d.persons, a.name, o.Value)
			d.without(a.name, tuple|device)
		}
	}
}

// replace gives each of elements, which are d's own, that value of an attribute.
func (d *document) replace(elements []element, name string, v jsontree.Value) {
	for i := range elements {
		if v.Kind() == jsontree.Null {
			elements[i] = elements[i].lacking(name)
		} else {
			elements[i] = elements[i].with(attr{name: name, value: v})
		}
	}
}

// without takes an attribute from all elements of some parts.
func (d *document) without(name string, of part) {
	for _, p := range []struct {
		part     part
		elements []element
	}{{tuple, d.tuples}, {person, d.persons}, {device, d.devices}} {
		if of&p.part != 0 {
			d.replace(p.elements, name, jsontree.Value{})
		}
	}
}

// lacking returns the element without an attribute.
func (e element) lacking(name string) element {
	e.attrs = slices.DeleteFunc(slices.Clone(e.attrs), func(a attr) bool { return a.name == name })
	return e
}

func attributeOf(name string) *attribute {
	return &attributes[slices.IndexFunc(attributes, func(a attribute) bool { return a.name == name })]
}

// Offset returns what the owner's own clocks are ahead of UTC. As with the sphere,
// it is theirs to say, and unknown if they say two things.
func (*Kind) Offset(c *kind.Composed) (minutes int, ok bool) {
	for _, p := range c.Value.(*document).persons {
		a := p.attr("timeOffset")
		if a == nil || !p.own {
			continue
		}
		v := a.value
		if inner, has := v.Find("value"); has {
			v = inner
		}
		n, whole := v.Int()
		if !whole || ok && int(n) != minutes {
			return 0, false
		}
		minutes, ok = int(n), true
	}
	return minutes, ok
}

// Priority is the greatest that a contact in a document has, negative if none has
// any.
func (*Kind) Priority(value any) float64 {
	greatest := -1.0
	for _, t := range value.(*document).tuples {
		greatest = max(greatest, t.contact.priority)
	}
	return greatest
}
