package presence

import (
	"bytes"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Weight counts two for an element, one for each attribute, contact and note, and what
// extensions take. A person weighs one more, for persons are compared.
func (*Kind) Weight(doc kind.Document, value any) int {
	d, n := value.(*document), kind.BaseWeight(doc)
	if typeOf(doc) == TypePIDF {
		n += kind.XMLWeight(doc.Body)
	} else { // references in XML within JSON, perhaps themselves escaped
		n += bytes.Count(doc.Body, []byte("&"))/8 + bytes.Count(doc.Body, []byte(`\u`))/8
	}
	n += weighElements(d.tuples) + weighElements(d.persons) + len(d.persons) + weighElements(d.devices)
	return n + len(listNotes(d.notes)) + len(d.lost) + weighExtensions(d.ext)
}

func weighElements(elements []element) (n int) {
	for i := range elements {
		e := &elements[i]
		n += 2 + weighExtensions(e.ext)
		if e.contact.uri != "" {
			n++
		}
		if !e.timestamp.IsZero() {
			n++
		}
		for j := range e.attrs {
			n += e.attrs[j].weight()
		}
	}
	return n
}

func (a *attr) weight() int { return 1 + nodes(a.value)/4 + nodes(a.note)/2 }

// nodes counts what a value has inside.
func nodes(v jsontree.Value) (n int) {
	for i := range v.Len() {
		n += 1 + nodes(v.At(i))
	}
	return n
}

func weighExtensions(all []extension) (n int) {
	for _, x := range all {
		n += kind.TextWeight(x.text)
		if x.space != "" {
			n += 1 + len(x.text)/128 // it was read twice, as JSON and as XML
		}
	}
	return n
}
