package presence

import (
	"slices"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// Bounds of one publication.
const (
	maxElements   = 100 // of each part
	maxExtensions = 100
)

// parseJSON reads application/evt-presence+json.
func parseJSON(r kind.Resource, doc kind.Document) (*document, error) {
	tree, err := jsontree.Parse(doc.Body, doc.JSON())
	if err != nil {
		return nil, kind.RefuseJSON(err)
	}
	return read(r, tree, doc.XML())
}

// read makes a document of what was written in JSON, or of the same said in
// XML. Elements that it has as they are written in XML are within those limits, each.
func read(r kind.Resource, tree *jsontree.Document, elements xmltree.Limits) (*document, error) {
	p := jsonParser{ids: map[string]bool{}, elements: elements}
	d := p.document(r, tree.Root())
	if err := tree.Err(); err != nil {
		return nil, kind.RefuseJSON(err)
	}
	return d, nil
}

// A jsonParser makes a document of a tree.
type jsonParser struct {
	ids      map[string]bool // used in the document
	elements xmltree.Limits  // of what is written in XML
}

func (p *jsonParser) document(r kind.Resource, n *jsontree.Node) *document {
	d := &document{}
	m := n.Members()
	r.CheckEntity(m.Take("entity"))
	basic := m.Take("basic")
	tuples := m.Take("tuples")
	for _, t := range tuples.List(maxElements) {
		d.tuples = append(d.tuples, p.element(t, tuple))
	}
	if b := basic.OneOf(open, closed); b != "" && tuples == nil {
		// The shortest publication there is.
		d.tuples = []element{{id: "default", basic: b, contact: contact{priority: -1}}}
	}
	for _, e := range m.Take("persons").List(maxElements) {
		d.persons = append(d.persons, p.element(e, person))
	}
	for _, e := range m.Take("devices").List(maxElements) {
		d.devices = append(d.devices, p.element(e, device))
	}
	if notes := m.Take("notes"); notes != nil {
		d.notes = readNote(notes)
	}
	// What fell silent the composer says, not a source. It is read so that
	// what is written can be.
	for _, l := range m.Take("lost").List(maxElements) {
		d.lost = append(d.lost, l.Text(1, kind.MaxSource))
	}
	d.ext = p.extensions(m)
	return d
}

func (p *jsonParser) element(n *jsontree.Node, of part) element {
	e := element{contact: contact{priority: -1}}
	m := n.Members()
	id := m.Take("id")
	switch of {
	case tuple:
		if id == nil {
			id = m.Need("id")
		}
		e.basic = m.Take("basic").OneOf(open, closed)
		if c := m.Take("contact"); c != nil {
			e.contact = readContact(c)
		}
	case device:
		e.deviceID = uri(m.Need("deviceID"))
	}
	if id != nil {
		e.id = id.Text(1, maxWord)
		if e.id != "" && p.ids[e.id] {
			id.Refuse(kind.ReasonDuplicateID, "another element has the id %q", e.id)
		}
		p.ids[e.id] = true
	}
	e.timestamp = m.Take("timestamp").Time()
	for i := range attributes {
		a := &attributes[i]
		if a.parts&of == 0 {
			continue
		}
		if v := m.Take(a.name); v != nil {
			if at, ok := a.readAttr(v); ok {
				e.attrs = append(e.attrs, at)
			}
		}
	}
	if c := e.attr("class"); c != nil {
		e.class = c.value.Text()
	}
	e.ext = p.extensions(m)
	return e
}

// readContact reads {"uri", "priority"}. A priority that is none is as if it
// were absent, which is the lowest (RFC 3863 section 4.1.5).
func readContact(n *jsontree.Node) contact {
	c := contact{priority: -1}
	m := n.Members()
	c.uri = uri(m.Need("uri"))
	if p := m.Take("priority"); p != nil && p.Kind() != jsontree.Null {
		if f, ok := p.Value.Float(); ok && f >= 0 && f <= 1 {
			c.priority = f
		} else if !ok {
			p.Float(0, 1) // no number: tell
		}
	}
	for _, rest := range m.Rest() {
		rest.Fault(`not known here: a contact has "uri" and "priority"`)
	}
	return c
}

// extensions reads "ext", and takes what is left over for more of them.
func (p *jsonParser) extensions(m *jsontree.Members) []extension {
	var all []extension
	for _, n := range m.Take("ext").List(maxExtensions) {
		xm := n.Members()
		x := extension{space: xm.Need("ns").Text(1, maxURI), name: xm.Need("name").Text(1, maxWord)}
		text := xm.Need("xml")
		if s := text.String(); s != "" {
			e, err := xmltree.Parse([]byte(s), p.elements)
			switch {
			case err != nil:
				text.FaultOf(err)
			case !e.Is(x.space, x.name):
				text.Fault("the element is {%s}%s, not {%s}%s", e.Space, e.Local, x.space, x.name)
			default:
				x.text = string(e.Append(nil))
			}
		}
		for _, rest := range xm.Rest() {
			rest.Fault(`not known here: an extension has "ns", "name" and "xml"`)
		}
		all = append(all, x)
	}
	for _, n := range m.Rest() {
		all = append(all, extension{name: n.Name(), text: n.Value.String()})
	}
	return sortedExtensions(all)
}

// sortedExtensions sorts extensions in place, and drops repeated ones.
func sortedExtensions(all []extension) []extension {
	slices.SortFunc(all, extension.compare)
	return slices.Compact(all)
}
