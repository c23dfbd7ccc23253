package presence

import (
	"github.com/bellwire/bellwire/profiles/kind"
)

// View cuts a document to what g shows (RFC 5025 section 3.3), and puts in what its
// owner has this watcher see in place of the truth.
func (k *Kind) View(c *kind.Composed, g kind.Grant) *kind.Composed {
	v := *c
	v.Class = g.Class()
	from := c.Value.(*document)
	d := &document{
		tuples:  filter(from.tuples, tuple, g),
		persons: filter(from.persons, person, g),
		devices: filter(from.devices, device, g),
		ext:     knownExtensions(from.ext, g),
	}
	if shows(g, permNote) {
		d.notes = from.notes
	}
	if g.Has(permLost) {
		d.lost = from.lost
	}
	if d.empty() || from == neutral {
		v.Value = neutral
		return &v
	}
	d.override(g)
	k.finish(d, c.Resource, v.Class)
	v.Value = d
	return &v
}

// shows says whether g shows the attribute with that name.
func shows(g kind.Grant, name string) bool { return g.Has(permAll) || g.Has(name) }

// filter returns those elements that g shows, and of them what it shows.
func filter(elements []element, of part, g kind.Grant) []element {
	var shown []element
	for i := range elements {
		if e := &elements[i]; e.chosen(of, g) {
			shown = append(shown, e.filtered(g))
		}
	}
	return shown
}

// chosen says whether g shows the element at all. It goes by what was
// published, for a view of a view must choose the same.
func (e *element) chosen(of part, g kind.Grant) bool {
	name := map[part]string{tuple: permServices, person: permPersons, device: permDevices}[of]
	if !g.Has(name) {
		return false
	}
	has := func(prefix, value string) bool { return value != "" && g.Allows(name, prefix+value) }
	return g.Allows(name, kind.Everything) || has("class:", e.class) || has("id:", e.origin.id) ||
		of == tuple && (has("", e.contact.scheme()) || has("uri:", e.contact.uri)) ||
		of == device && has("deviceID:", e.deviceID)
}

// filtered returns the element as g shows it. Contact, basic, timestamp, the
// class of a service and the id of a device are always shown once the element
// is.
func (e *element) filtered(g kind.Grant) element {
	f := *e
	f.attrs = nil
	for _, a := range e.attrs {
		switch {
		case a.name == permUserInput && !g.Has(permAll):
			level := g.Max(permUserInput)
			if level == 0 {
				continue
			}
			a.value = inputAt(a.value, level)
		case a.name != "serviceClass" && !shows(g, a.name):
			continue
		}
		f.attrs = append(f.attrs, a)
	}
	f.ext = knownExtensions(e.ext, g)
	return f
}

// knownExtensions returns the extensions that g names.
func knownExtensions(all []extension, g kind.Grant) []extension {
	var shown []extension
	for _, x := range all {
		if g.Has(permAll) || g.Allows(permUnknown, x.token()) {
			shown = append(shown, x)
		}
	}
	return shown
}
