package presence

import (
	"slices"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// An attribute is a kind of attr: RPID's (RFC 4480) and PIDF's notes.
type attribute struct {
	name  string // of the JSON member, and of the permission that shows it
	parts part   // where it may stand
	timed bool   // may be limited in time: {"is": value, "from", "until", "note"}
	read  func(*jsontree.Node) jsontree.Value
}

var attributes = []attribute{
	{"activities", person, true, readWords},
	{"class", tuple | person | device, false, readWord},
	{"deviceID", tuple, false, readURIs},
	{"mood", person, true, readWords},
	{"note", tuple | person | device, false, readNote},
	{"placeIs", person, true, readPlaceIs},
	{"placeType", person, true, readWords},
	{"privacy", tuple | person, true, readWords},
	{"relationship", tuple, false, readWord},
	{"serviceClass", tuple, false, readWord}, // always shown
	{"sphere", person, true, readWord},
	{"statusIcon", tuple | person, true, readURI},
	{"timeOffset", person, true, readOffset},
	{"userInput", tuple | person | device, false, readUserInput},
}

// Bounds of one attribute.
const (
	maxWord  = 100
	maxWords = 20
	maxURI   = 1023
	maxNote  = 4096
	maxNotes = 50
)

// readAttr reads one attribute; ok is false if it says nothing.
func (a *attribute) readAttr(n *jsontree.Node) (at attr, ok bool) {
	at.name = a.name
	value := n
	if _, wrapped := n.Find("is"); a.timed && wrapped {
		m := n.Members()
		value = m.Take("is")
		at.from, at.until = m.Take("from").Time(), m.Take("until").Time()
		if !at.until.IsZero() && !at.from.Before(at.until) {
			n.Fault("it ends before it begins, or at once: from must be earlier than until")
		}
		if note := m.Take("note"); note != nil {
			at.note = readNote(note)
		}
		for _, rest := range m.Rest() {
			rest.Fault(`not known here: beside "is" there may be "from", "until" and "note"`)
		}
	}
	at.value = a.read(value)
	return at, at.value.Kind() != jsontree.Null
}

// writeValue returns the attribute's value as it is written.
func (a *attr) written() jsontree.Value {
	if a.from.IsZero() && a.until.IsZero() && a.note.Kind() == jsontree.Null {
		return a.value
	}
	names, values := []string{"is"}, []jsontree.Value{a.value}
	add := func(name string, v jsontree.Value) {
		names, values = append(names, name), append(values, v)
	}
	if !a.from.IsZero() {
		add("from", jsontree.OfString(jsontree.FormatTime(a.from)))
	}
	if !a.until.IsZero() {
		add("until", jsontree.OfString(jsontree.FormatTime(a.until)))
	}
	if a.note.Kind() != jsontree.Null {
		add("note", a.note)
	}
	return jsontree.OfObject(names, values)
}

func word(n *jsontree.Node) string {
	s := n.Text(1, maxWord)
	if strings.TrimSpace(s) != s {
		n.Fault("blanks around %q", s)
	}
	return s
}

func readWord(n *jsontree.Node) jsontree.Value {
	if s := word(n); s != "" {
		return jsontree.OfString(s)
	}
	return jsontree.Value{}
}

// readWords reads a set of words; null if there are none.
func readWords(n *jsontree.Node) jsontree.Value {
	var words []string
	for _, w := range n.List(maxWords) {
		if s := word(w); s != "" {
			words = append(words, s)
		}
	}
	if len(words) == 0 {
		return jsontree.Value{}
	}
	slices.Sort(words)
	return jsontree.OfStrings(slices.Compact(words))
}

// uri reads what has the form of an absolute URI, without judging its scheme.
func uri(n *jsontree.Node) string {
	s := n.Text(1, maxURI)
	if s != "" && !isURI(s) {
		n.Fault("%q is no URI", s)
		return ""
	}
	return s
}

func isURI(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	return ok && scheme != "" && rest != "" &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '<' || r == '>' || r == '"' })
}

func readURI(n *jsontree.Node) jsontree.Value {
	if s := uri(n); s != "" {
		return jsontree.OfString(s)
	}
	return jsontree.Value{}
}

func readURIs(n *jsontree.Node) jsontree.Value {
	var uris []string
	for _, u := range n.List(maxWords) {
		if s := uri(u); s != "" {
			uris = append(uris, s)
		}
	}
	if len(uris) == 0 {
		return jsontree.Value{}
	}
	slices.Sort(uris)
	return jsontree.OfStrings(slices.Compact(uris))
}

// readNote reads a note, or notes by language: "text", or {"en": "text", "fr":
// ["one", "two"]}. It returns the second form.
func readNote(n *jsontree.Node) jsontree.Value {
	if n.Kind() == jsontree.String {
		if s := n.Text(1, maxNote); s != "" {
			return notes([]note{{"", s}})
		}
		return jsontree.Value{}
	}
	var all []note
	for _, m := range n.Members().Rest() {
		if len(m.Name()) > 35 {
			m.Fault("no language has so long a name (RFC 5646)")
		}
		texts := []*jsontree.Node{m}
		if m.Kind() == jsontree.Array {
			texts = m.List(maxNotes)
		}
		for _, t := range texts {
			if s := t.Text(1, maxNote); s != "" {
				all = append(all, note{m.Name(), s})
			}
		}
	}
	return notes(all)
}

// A note is a text in a language, which may be unknown.
type note struct{ lang, text string }

// notes returns notes as they are written: by language, each text once, in the
// order given; null if there are none.
func notes(all []note) jsontree.Value {
	if len(all) == 0 {
		return jsontree.Value{}
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b note) int { return strings.Compare(a.lang, b.lang) })
	said := make(map[note]bool, len(sorted))
	sorted = slices.DeleteFunc(sorted, func(n note) bool {
		was := said[n]
		said[n] = true
		return was
	})
	var langs []string
	var values []jsontree.Value
	for len(sorted) > 0 {
		lang, n := sorted[0].lang, 0
		var texts []string
		for ; n < len(sorted) && sorted[n].lang == lang; n++ {
			texts = append(texts, sorted[n].text)
		}
		value := jsontree.OfStrings(texts)
		if n == 1 {
			value = jsontree.OfString(texts[0])
		}
		langs, values, sorted = append(langs, lang), append(values, value), sorted[n:]
	}
	return jsontree.OfObject(langs, values)
}

// listNotes is the inverse of notes.
func listNotes(v jsontree.Value) []note {
	var all []note
	for i := range v.Len() {
		texts := v.At(i)
		if texts.Kind() == jsontree.String {
			all = append(all, note{v.Name(i), texts.Text()})
			continue
		}
		for j := range texts.Len() {
			all = append(all, note{v.Name(i), texts.At(j).Text()})
		}
	}
	return all
}

// readPlaceIs reads how a place is for listening, watching and writing.
func readPlaceIs(n *jsontree.Node) jsontree.Value {
	m := n.Members()
	var names []string
	var values []jsontree.Value
	for _, name := range []string{"audio", "text", "video"} {
		if v := m.Take(name); v != nil {
			if w := readWord(v); w.Kind() != jsontree.Null {
				names, values = append(names, name), append(values, w)
			}
		}
	}
	for _, rest := range m.Rest() {
		rest.Fault("a place is described by audio, video and text")
	}
	if names == nil {
		return jsontree.Value{}
	}
	return jsontree.OfObject(names, values)
}

// readOffset reads minutes from UTC, alone or with a description.
func readOffset(n *jsontree.Node) jsontree.Value {
	const day = 24 * 60
	if n.Kind() != jsontree.Object {
		return number(n.Int(-day, day), n)
	}
	m := n.Members()
	minutes := m.Need("value")
	names, values := []string{"value"}, []jsontree.Value{number(minutes.Int(-day, day), minutes)}
	if d := m.Take("description"); d != nil {
		names, values = append(names, "description"), append(values, readWord(d))
	}
	for _, rest := range m.Rest() {
		rest.Fault(`not known here: write "value" and "description"`)
	}
	return jsontree.OfObject(names, values)
}

// number returns i, or null if the node it was read from is none.
func number(i int64, n *jsontree.Node) jsontree.Value {
	if n == nil || n.Kind() != jsontree.Number {
		return jsontree.Value{}
	}
	return jsontree.OfInt(i)
}

// readUserInput reads "idle", "active", or an object with the value, after how
// many seconds idle is said, and when there was input last.
func readUserInput(n *jsontree.Node) jsontree.Value {
	if n.Kind() == jsontree.String {
		return readInputWord(n)
	}
	m := n.Members()
	value := readInputWord(m.Need("value"))
	names, values := []string{"value"}, []jsontree.Value{value}
	if t := m.Take("idleThreshold"); t != nil {
		names, values = append(names, "idleThreshold"), append(values, number(t.Int(0, 1<<31), t))
	}
	if l := m.Take("lastInput"); l != nil {
		if at := l.Time(); !at.IsZero() {
			names, values = append(names, "lastInput"), append(values, jsontree.OfString(jsontree.FormatTime(at)))
		}
	}
	for _, rest := range m.Rest() {
		rest.Fault(`not known here: write "value", "idleThreshold" and "lastInput"`)
	}
	if len(names) == 1 {
		return value
	}
	return jsontree.OfObject(names, values)
}

func readInputWord(n *jsontree.Node) jsontree.Value {
	return jsontree.OfString(n.OneOf("idle", "active"))
}

// inputAt returns as much of user input as a level shows (RFC 5025 section
// 3.3.2.11).
func inputAt(v jsontree.Value, level int64) jsontree.Value {
	if level >= inputFull || v.Kind() != jsontree.Object {
		return v
	}
	value, _ := v.Find("value")
	threshold, ok := v.Find("idleThreshold")
	if level < inputThresholds || !ok {
		return value
	}
	return jsontree.OfObject([]string{"value", "idleThreshold"}, []jsontree.Value{value, threshold})
}

// isActive says whether user input says that somebody is there.
func isActive(v jsontree.Value) bool {
	return inputAt(v, inputBare).Text() == "active"
}
