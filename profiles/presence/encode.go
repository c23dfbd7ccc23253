package presence

import (
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Encode writes application/evt-presence+json.
func (k *Kind) Encode(c *kind.Composed) kind.Document {
	return kind.Document{ContentType: TypeJSON, Body: c.Value.(*document).encode(c.Resource)}
}

func (d *document) encode(r kind.Resource) []byte {
	var w jsontree.Writer
	w.Open('{')
	w.Member("entity", r.Addr.URI("pres"))
	if s := d.summary(); s != "" {
		w.Member("basic", s)
	}
	writeElements(&w, "tuples", d.tuples)
	writeElements(&w, "persons", merged(d.persons))
	writeElements(&w, "devices", d.devices)
	if d.notes.Kind() != jsontree.Null {
		w.Name("notes")
		w.Value(d.notes)
	}
	if len(d.lost) > 0 {
		w.Name("lost")
		w.Value(jsontree.OfStrings(d.lost))
	}
	writeExtensions(&w, d.ext)
	w.Close('}')
	return w.Bytes()
}

func writeElements(w *jsontree.Writer, name string, elements []element) {
	if len(elements) == 0 {
		return
	}
	w.Name(name)
	w.Open('[')
	for i := range elements {
		elements[i].write(w)
	}
	w.Close(']')
}

func (e *element) write(w *jsontree.Writer) {
	w.Open('{')
	if e.deviceID != "" {
		w.Member("deviceID", e.deviceID)
	} else if e.id != "" {
		w.Member("id", e.id)
	}
	if e.basic != "" {
		w.Member("basic", e.basic)
	}
	if e.contact.uri != "" {
		w.Name("contact")
		w.Open('{')
		w.Member("uri", e.contact.uri)
		if e.contact.priority >= 0 {
			w.Name("priority")
			w.Float(e.contact.priority)
		}
		w.Close('}')
	}
	for i := range e.attrs {
		w.Name(e.attrs[i].name)
		w.Value(e.attrs[i].written())
	}
	if !e.timestamp.IsZero() {
		w.Member("timestamp", jsontree.FormatTime(e.timestamp))
	}
	writeExtensions(w, e.ext)
	w.Close('}')
}

// writeExtensions writes XML elements as a list, members as what they are.
func writeExtensions(w *jsontree.Writer, all []extension) {
	listed := false
	for _, x := range all {
		if x.space == "" {
			continue
		}
		if !listed {
			w.Name("ext")
			w.Open('[')
			listed = true
		}
		w.Open('{')
		w.Member("ns", x.space)
		w.Member("name", x.name)
		w.Member("xml", x.text)
		w.Close('}')
	}
	if listed {
		w.Close(']')
	}
	for _, x := range all {
		if x.space == "" {
			w.Name(x.name)
			w.Raw(x.text)
		}
	}
}
