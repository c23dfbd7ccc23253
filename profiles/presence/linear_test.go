package presence

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// plainNotes, plainJoined and plainDistinct are notes, joiner and distinct as one would
// write them first: they compare each with each.
func plainNotes(all []note) jsontree.Value {
	var langs []string
	for _, n := range all {
		if !slices.Contains(langs, n.lang) {
			langs = append(langs, n.lang)
		}
	}
	slices.Sort(langs)
	values := make([]jsontree.Value, len(langs))
	for i, lang := range langs {
		var texts []string
		for _, n := range all {
			if n.lang == lang && !slices.Contains(texts, n.text) {
				texts = append(texts, n.text)
			}
		}
		if values[i] = jsontree.OfStrings(texts); len(texts) == 1 {
			values[i] = jsontree.OfString(texts[0])
		}
	}
	if langs == nil {
		return jsontree.Value{}
	}
	return jsontree.OfObject(langs, values)
}

func plainJoined(lists [][]extension) (all []extension) {
	for _, more := range lists {
		for _, x := range more {
			same := func(y extension) bool { return x == y || x.space == "" && y.space == "" && x.name == y.name }
			if !slices.ContainsFunc(all, same) {
				all = append(all, x)
			}
		}
	}
	slices.SortFunc(all, extension.compare)
	return all
}

func plainDistinct(persons []element) (kept []element) {
	for _, p := range persons {
		if !slices.ContainsFunc(kept, func(q element) bool { return q.says(&p) }) {
			kept = append(kept, p)
		}
	}
	return kept
}

func words(values ...string) *rapid.Generator[string] { return rapid.SampledFrom(values) }

// extensions makes up those of one place, as they are parsed: sorted, of each member one.
func extensions() *rapid.Generator[[]extension] {
	one := rapid.Custom(func(t *rapid.T) extension {
		return extension{space: words("", "", "urn:x").Draw(t, "space"), name: words("a", "b", "c").Draw(t, "name"), text: words("1", "2").Draw(t, "text")}
	})
	return rapid.Custom(func(t *rapid.T) []extension {
		return sortedExtensions(rapid.SliceOfNDistinct(one, 0, 4, func(x extension) extension { return x.place() }).Draw(t, "ext"))
	})
}

// What is joined, told apart and listed in one go is what comparing each with each gives.
func TestLinearIsPlain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) note {
			return note{words("", "de", "en").Draw(t, "lang"), words("x", "y", "z").Draw(t, "text")}
		}), 0, 8).Draw(t, "notes")
		if got, want := notes(all).String(), plainNotes(all).String(); got != want {
			t.Errorf("notes %v: %s, want %s", all, got, want)
		}

		lists := rapid.SliceOfN(extensions(), 0, 5).Draw(t, "extensions")
		var j joiner
		for _, l := range lists {
			j.add(l)
		}
		if got, want := j.sorted(), plainJoined(lists); !reflect.DeepEqual(got, want) {
			t.Errorf("joined %v: %v, want %v", lists, got, want)
		}

		persons := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) element {
			var e element
			for _, name := range []string{"mood", "sphere"} {
				if v := words("", "a", "b").Draw(t, name); v != "" {
					e.attrs = append(e.attrs, attr{name: name, value: jsontree.OfString(v)})
				}
			}
			switch rapid.IntRange(0, 3).Draw(t, "placeIs") {
			case 0:
				e.attrs = append(e.attrs, attr{name: "placeIs", value: jsontree.OfObject([]string{"audio", "text"}, []jsontree.Value{jsontree.OfString("q"), jsontree.OfString("r")})})
			case 1:
				e.attrs = append(e.attrs, attr{name: "placeIs", value: jsontree.OfObject([]string{"text", "audio"}, []jsontree.Value{jsontree.OfString("r"), jsontree.OfString("q")})})
			}
			slices.SortFunc(e.attrs, func(a, b attr) int { return strings.Compare(a.name, b.name) })
			e.ext = extensions().Draw(t, "ext")
			return e
		}), 0, 8).Draw(t, "persons")
		if got, want := distinct(persons), plainDistinct(persons); !reflect.DeepEqual(got, want) {
			t.Errorf("distinct %+v:\n%+v, want\n%+v", persons, got, want)
		}
	})
}
