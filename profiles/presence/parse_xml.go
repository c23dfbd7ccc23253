package presence

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// The namespaces of PIDF and of what RFC 4479 and 4480 add to it.
const (
	nsPIDF  = "urn:ietf:params:xml:ns:pidf"
	nsModel = "urn:ietf:params:xml:ns:pidf:data-model"
	nsRPID  = "urn:ietf:params:xml:ns:pidf:rpid"
)

// parsePIDF reads application/pidf+xml: it says the same in JSON, and has that
// read. So there is one place that knows what is valid, and faults point into
// the twin.
func parsePIDF(r kind.Resource, doc kind.Document) (*document, error) {
	root, err := xmltree.Parse(doc.Body, doc.XML())
	if err != nil {
		return nil, kind.RefuseXML(err)
	}
	if !root.Is(nsPIDF, "presence") {
		what := fmt.Sprintf("the document is a {%s}%s: want presence in %s", root.Space, root.Local, nsPIDF)
		return nil, kind.Refuse(kind.ErrInvalid, kind.ReasonNamespace, "", what)
	}
	t := twin{}
	v := t.presence(root)
	if t.fault != nil {
		return nil, t.fault
	}
	return read(r, jsontree.NewDocument(v), doc.XML())
}

// A twin says in JSON what an XML document says. fault is the first thing that
// JSON cannot say wrong in the same way.
type twin struct{ fault *kind.Refusal }

func (t *twin) refuse(pointer, format string, args ...any) {
	if t.fault == nil {
		t.fault = kind.Refuse(kind.ErrInvalid, kind.ReasonSchema, pointer, fmt.Sprintf(format, args...))
	}
}

// An object is one that is being made.
type object struct {
	names  []string
	values []jsontree.Value
}

func (o *object) has(name string) bool {
	_, ok := o.value().Find(name)
	return ok
}

func (o *object) add(name string, v jsontree.Value) {
	o.names, o.values = append(o.names, name), append(o.values, v)
}

func (o *object) addString(name, s string) { o.add(name, jsontree.OfString(s)) }

func (o *object) value() jsontree.Value { return jsontree.OfObject(o.names, o.values) }

func (t *twin) presence(root *xmltree.Element) jsontree.Value {
	var o object
	var lists [3][]jsontree.Value
	var texts []note
	var ext []jsontree.Value
	if entity, ok := root.Attr("", "entity"); ok {
		o.addString("entity", strings.TrimSpace(entity))
	}
	for _, e := range root.Elements() {
		switch {
		case e.Is(nsPIDF, "tuple"):
			lists[0] = append(lists[0], t.element(e, tuple, fmt.Sprintf("/tuples/%d", len(lists[0]))))
		case e.Is(nsModel, "person"):
			lists[1] = append(lists[1], t.element(e, person, fmt.Sprintf("/persons/%d", len(lists[1]))))
		case e.Is(nsModel, "device"):
			lists[2] = append(lists[2], t.element(e, device, fmt.Sprintf("/devices/%d", len(lists[2]))))
		case e.Is(nsPIDF, "note"):
			texts = append(texts, xmlNote(e)...)
		default:
			ext = append(ext, xmlExtension(e)...)
		}
	}
	for i, name := range []string{"tuples", "persons", "devices"} {
		if len(lists[i]) > 0 {
			o.add(name, jsontree.OfList(lists[i]...))
		}
	}
	if len(texts) > 0 {
		o.add("notes", notes(texts))
	}
	if len(ext) > 0 {
		o.add("ext", jsontree.OfList(ext...))
	}
	return o.value()
}

// xmlNote returns the note of an element, none if it is empty.
func xmlNote(e *xmltree.Element) []note {
	if strings.TrimSpace(e.Text()) == "" {
		return nil
	}
	lang, _ := e.Attr(xmltree.XMLSpace, "lang")
	return []note{{lang, e.Text()}}
}

// xmlExtension returns the extension that an element is; none if something in
// it that is not understood here must be (RFC 3863 section 4.3.3).
func xmlExtension(e *xmltree.Element) []jsontree.Value {
	if e.Space == "" || mustUnderstand(e) {
		return nil
	}
	var o object
	o.addString("ns", e.Space)
	o.addString("name", e.Local)
	o.addString("xml", string(e.Append(nil)))
	return []jsontree.Value{o.value()}
}

func mustUnderstand(e *xmltree.Element) bool {
	if v, ok := e.Attr(nsPIDF, "mustUnderstand"); ok && (v == "1" || v == "true") {
		return true
	}
	for _, c := range e.Elements() {
		if mustUnderstand(c) {
			return true
		}
	}
	return false
}

// element says what a tuple, person or device says.
func (t *twin) element(e *xmltree.Element, of part, pointer string) jsontree.Value {
	var o object
	var texts []note
	var ext []jsontree.Value
	if id, ok := e.Attr("", "id"); ok {
		o.addString("id", id)
	}
	once := func(c *xmltree.Element, name string, v jsontree.Value) {
		if o.has(name) {
			t.refuse(pointer, "%s comes twice", c.Local)
			return
		}
		o.add(name, v)
	}
	status := false
	for _, c := range e.Elements() {
		switch {
		case of == tuple && c.Is(nsPIDF, "status"):
			if status {
				t.refuse(pointer, "status comes twice")
			}
			status = true
			ext = append(ext, t.status(c, &o, pointer)...)
		case of == tuple && c.Is(nsPIDF, "contact"):
			once(c, "contact", t.contact(c, pointer))
		case of == tuple && c.Is(nsModel, "deviceID"):
			once(c, "deviceID", jsontree.OfStrings([]string{strings.TrimSpace(c.Text())}))
		case of == device && c.Is(nsModel, "deviceID"):
			once(c, "deviceID", jsontree.OfString(strings.TrimSpace(c.Text())))
		case c.Is(nsOf(of), "timestamp"):
			once(c, "timestamp", jsontree.OfString(strings.TrimSpace(c.Text())))
		case c.Is(nsOf(of), "note"):
			texts = append(texts, xmlNote(c)...)
		default:
			name, v, ok := rpid(c, of)
			if !ok || o.has(name) {
				ext = append(ext, xmlExtension(c)...)
				continue
			}
			o.add(name, v)
		}
	}
	if of == tuple && !status {
		t.refuse(pointer, "a tuple has a status")
	}
	if len(texts) > 0 {
		o.add("note", notes(texts))
	}
	if len(ext) > 0 {
		o.add("ext", jsontree.OfList(ext...))
	}
	return o.value()
}

// nsOf is the namespace of the notes and timestamps of a part.
func nsOf(of part) string {
	if of == tuple {
		return nsPIDF
	}
	return nsModel
}

// status adds basic to the tuple o, and returns what else a status says.
func (t *twin) status(e *xmltree.Element, o *object, pointer string) []jsontree.Value {
	var ext []jsontree.Value
	children := e.Elements()
	if len(children) == 0 {
		t.refuse(pointer, "a status says something: write basic")
	}
	for _, c := range children {
		switch {
		case c.Is(nsPIDF, "basic") && o.has("basic"):
			t.refuse(pointer, "basic comes twice")
		case c.Is(nsPIDF, "basic"):
			o.addString("basic", c.Text())
		default:
			ext = append(ext, xmlExtension(c)...)
		}
	}
	return ext
}

func (t *twin) contact(e *xmltree.Element, pointer string) jsontree.Value {
	var o object
	o.addString("uri", strings.TrimSpace(e.Text()))
	if p, ok := e.Attr("", "priority"); ok {
		f, ok := decimal(p)
		if !ok {
			t.refuse(pointer, "%q is no priority: want a number from 0 to 1", p)
		}
		o.add("priority", jsontree.OfFloat(f))
	}
	return o.value()
}

// decimal reads an xs:decimal, which has no exponent and no names.
func decimal(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' && r != '-' && r != '+' }) {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}
