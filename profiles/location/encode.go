package location

import (
	"fmt"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Encode writes application/evt-location+json.
func (*Kind) Encode(c *kind.Composed) kind.Document {
	return kind.Document{ContentType: TypeJSON, Body: c.Value.(*document).encode(c.Resource)}
}

func (d *document) encode(r kind.Resource) []byte {
	var w jsontree.Writer
	w.Open('{')
	w.Member("entity", r.Addr.URI("pres"))
	if !d.at.IsZero() {
		w.Member("at", jsontree.FormatTime(d.at))
	}
	if d.shape != nil {
		w.Name("shape")
		d.shape.write(&w)
		d.writeMotion(&w)
	}
	if len(d.civic) > 0 {
		w.Name("civic")
		w.Open('{')
		for _, e := range d.civic {
			w.Member(e.name, e.value)
		}
		w.Close('}')
	}
	d.rules.write(&w)
	for _, x := range d.ext {
		w.Name(x.name)
		w.Raw(x.text)
	}
	w.Close('}')
	return w.Bytes()
}

func (d *document) writeMotion(w *jsontree.Writer) {
	if d.method != "" {
		w.Member("method", d.method)
	}
	if d.heading >= 0 {
		w.Name("heading")
		w.Float(d.heading)
	}
	if d.speed >= 0 {
		w.Name("speed")
		w.Float(d.speed)
	}
}

func (s *shape) write(w *jsontree.Writer) {
	w.Open('{')
	w.Member("type", formNames[s.form])
	crs := crs2D
	if s.pos.hasAlt {
		crs = crs3D
	}
	w.Member("crs", crs)
	switch s.form {
	case formPolygon:
		w.Name("posList")
		w.Open('[')
		for _, p := range s.ring {
			p.write(w)
		}
		w.Close(']')
	case formCircle:
		w.Name("pos")
		s.pos.write(w)
		w.Name("radius")
		w.Float(s.radius)
	default:
		w.Name("pos")
		s.pos.write(w)
	}
	if s.confidence > 0 {
		w.Name("confidence")
		w.Float(s.confidence)
	}
	w.Close('}')
}

func (p position) write(w *jsontree.Writer) {
	w.Open('[')
	w.Float(p.lat)
	w.Float(p.lon)
	if p.hasAlt {
		w.Float(p.alt)
	}
	w.Close(']')
}

func (r *rules) write(w *jsontree.Writer) {
	if r.empty() {
		return
	}
	w.Name("rules")
	w.Open('{')
	w.Name("retransmission")
	w.Bool(r.retransmission)
	if !r.retention.IsZero() {
		w.Member("retention", jsontree.FormatTime(r.retention))
	}
	if r.noteWell.Kind() != jsontree.Null {
		w.Name("noteWell")
		w.Value(r.noteWell)
	}
	w.Close('}')
}

// storedVersion is the version of the form that Store writes.
const storedVersion = 1

// Store returns what is to be kept of a publication, in one form whatever it
// was published as: a byte that says which form, then the document as Encode
// writes it. A track is not in it.
func (*Kind) Store(r kind.Resource, v any) []byte {
	return append([]byte{storedVersion}, v.(*document).encode(r)...)
}

// Restore reads what Store returned. An error means that the bytes are damaged,
// or of a later version.
func (k *Kind) Restore(r kind.Resource, b []byte) (any, error) {
	if len(b) == 0 || b[0] != storedVersion {
		return nil, fmt.Errorf("location: a stored document of an unknown form")
	}
	return k.Parse(r, kind.Document{ContentType: TypeJSON, Body: b[1:]})
}
