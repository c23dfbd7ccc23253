package presence

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// rpid says in JSON what an element of RFC 4480 says: the member's name and
// value. ok is false if the element is none, or may not stand there.
func rpid(e *xmltree.Element, of part) (name string, v jsontree.Value, ok bool) {
	if e.Space != nsRPID {
		return "", jsontree.Value{}, false
	}
	switch e.Local {
	case "activities":
		name, v = "activities", jsontree.OfStrings(xmlWords(e))
	case "mood":
		name, v = "mood", jsontree.OfStrings(xmlWords(e))
	case "place-type":
		name, v = "placeType", jsontree.OfStrings(xmlWords(e))
	case "privacy":
		name, v = "privacy", jsontree.OfStrings(xmlWords(e))
	case "relationship":
		name, v = "relationship", jsontree.OfString(xmlWord(e))
	case "service-class":
		name, v = "serviceClass", jsontree.OfString(xmlWord(e))
	case "sphere":
		name, v = "sphere", jsontree.OfString(xmlWord(e))
	case "class":
		name, v = "class", jsontree.OfString(strings.TrimSpace(e.Text()))
	case "status-icon":
		name, v = "statusIcon", jsontree.OfString(strings.TrimSpace(e.Text()))
	case "place-is":
		name, v = "placeIs", xmlPlaceIs(e)
	case "time-offset":
		name, v = "timeOffset", xmlOffset(e)
	case "user-input":
		name, v = "userInput", xmlUserInput(e)
	default:
		return "", jsontree.Value{}, false
	}
	i := slices.IndexFunc(attributes, func(a attribute) bool { return a.name == name })
	if attributes[i].parts&of == 0 {
		return "", jsontree.Value{}, false
	}
	if attributes[i].timed {
		v = xmlTimed(e, v)
	}
	return name, v, true
}

// xmlWords returns the words that child elements stand for: their names, or
// what `other` contains.
func xmlWords(e *xmltree.Element) []string {
	var words []string
	for _, c := range e.Elements() {
		switch text := strings.TrimSpace(c.Text()); {
		case c.Is(nsRPID, "note"):
		case c.Local == "other" && text != "":
			words = append(words, text)
		default:
			words = append(words, c.Local)
		}
	}
	return words
}

// xmlWord returns the word of an element that has one: as a child, or as text,
// which RFC 4480's own example of a sphere has though its schema has not.
func xmlWord(e *xmltree.Element) string {
	if words := xmlWords(e); len(words) > 0 {
		return words[0]
	}
	return strings.TrimSpace(e.Text())
}

func xmlPlaceIs(e *xmltree.Element) jsontree.Value {
	var o object
	for _, c := range e.Elements() {
		if w := xmlWord(c); c.Space == nsRPID && w != "" && !o.has(c.Local) && c.Local != "note" {
			o.addString(c.Local, w)
		}
	}
	return o.value()
}

// xmlOffset reads minutes, around which there may be blanks.
func xmlOffset(e *xmltree.Element) jsontree.Value {
	text := strings.TrimSpace(e.Text())
	v := jsontree.OfString(text) // no number: what reads it will say so
	if f, ok := decimal(text); ok {
		v = jsontree.OfFloat(f)
	}
	description, ok := e.Attr("", "description")
	if !ok {
		return v
	}
	var o object
	o.add("value", v)
	o.addString("description", strings.TrimSpace(description))
	return o.value()
}

func xmlUserInput(e *xmltree.Element) jsontree.Value {
	var o object
	o.addString("value", strings.TrimSpace(e.Text()))
	if t, ok := e.Attr("", "idle-threshold"); ok {
		v := jsontree.OfString(t)
		if f, ok := decimal(t); ok {
			v = jsontree.OfFloat(f)
		}
		o.add("idleThreshold", v)
	}
	// RFC 5025 calls "since" what RFC 4480 calls "last-input".
	for _, name := range []string{"last-input", "since"} {
		if at, ok := e.Attr("", name); ok && !o.has("lastInput") {
			o.addString("lastInput", strings.TrimSpace(at))
		}
	}
	return o.value()
}

// xmlTimed puts the time and the note of an element around its value.
func xmlTimed(e *xmltree.Element, v jsontree.Value) jsontree.Value {
	var o object
	o.add("is", v)
	for _, name := range []string{"from", "until"} {
		if at, ok := e.Attr("", name); ok {
			o.addString(name, strings.TrimSpace(at))
		}
	}
	var texts []note
	for _, c := range e.Elements() {
		if c.Is(nsRPID, "note") {
			texts = append(texts, xmlNote(c)...)
		}
	}
	if len(texts) > 0 {
		o.add("note", notes(texts))
	}
	if len(o.names) == 1 {
		return v
	}
	return o.value()
}
