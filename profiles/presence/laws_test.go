package presence

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	_ "github.com/bellwire/bellwire/internal/fixedseed"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/kind/kindtest"
)

// Presence obeys the laws of all kinds.
func TestLaws(t *testing.T) {
	kindtest.Test(t, kindtest.Suite{
		New:       func() kind.Kind { return New([]byte("key")) },
		Documents: documents,
		Tokens: map[string][]string{
			permServices: {"im", "tel", "class:biz", "id:t1", "uri:im:bob@example.com"},
			permPersons:  {"class:biz", "id:me"},
			permDevices:  {"deviceID:urn:x:1", "class:biz"},
			permUnknown:  {"{u:1}x", "colour", "{u:1}y"},
		},
		Overrides: map[string][]string{
			"activities": {`["busy"]`, `null`}, "note": {`"elsewhere"`, `{"en": "x", "": "y"}`, `null`}, "basic": {`"closed"`, `"open"`},
			"mood": {`["calm"]`}, "placeIs": {`{"audio": "quiet"}`, `null`}, "timeOffset": {`60`}, "userInput": {`"idle"`, `null`}, "relationship": {`"friend"`, `null`},
			"sphere": {`"home"`}, "privacy": {`["text"]`}, "statusIcon": {`null`}, "placeType": {`["office"]`},
		},
		Reveals: reveals,
		Same: func(parsed, composed any) bool {
			r := kind.Resource{Kind: "presence", Addr: kind.Addr{Local: "x", Domain: "y"}}
			return bytes.Equal(parsed.(*document).encode(r), composed.(*document).encode(r))
		},
	})
}

// documents makes up publications, in JSON and sometimes in XML.
func documents(r kind.Resource) *rapid.Generator[kind.Document] {
	return rapid.Custom(func(t *rapid.T) kind.Document {
		if rapid.IntRange(0, 9).Draw(t, "xml") == 0 {
			return kind.Document{ContentType: TypePIDF, Body: []byte(fmt.Sprintf(
				`<presence xmlns=%q xmlns:x="u:1"><tuple id="t1"><status><basic>%s</basic><x:x>%s</x:x></status><contact priority="0.5">tel:1</contact></tuple><x:y/></presence>`,
				nsPIDF, rapid.SampledFrom([]string{open, closed}).Draw(t, "basic"), rapid.SampledFrom([]string{"1", "2"}).Draw(t, "x")))}
		}
		return kind.Document{ContentType: TypeJSON, Body: []byte(drawDocument(t))}
	})
}

func drawDocument(t *rapid.T) string {
	var members []string
	list := func(name string, draw func(i int) string, most int) {
		var elements []string
		for i := range rapid.IntRange(0, most).Draw(t, name) {
			elements = append(elements, draw(i))
		}
		if elements != nil {
			members = append(members, fmt.Sprintf("%q:[%s]", name, strings.Join(elements, ",")))
		}
	}
	list("tuples", func(i int) string {
		return object_(t, fmt.Sprintf(`"id":"t%d"`, i), `"basic":"open"`, `"basic":"closed"`, `"contact":{"uri":"im:bob@example.com","priority":0.8}`,
			`"contact":{"uri":"tel:1","priority":0.5}`, `"class":"biz"`, `"class":"home"`, `"deviceID":["urn:x:1"]`, `"serviceClass":"electronic"`, `"relationship":"self"`)
	}, 2)
	list("persons", func(i int) string {
		return object_(t, `"mood":["happy"]`, `"activities":["meeting"]`, `"activities":{"is":["meeting"],"until":"2026-03-09T13:00:08Z"}`,
			`"activities":{"is":["away"],"from":"2026-03-09T13:00:07Z","note":"x"}`, `"sphere":"work"`, `"sphere":"home"`, `"timeOffset":-300`,
			`"placeIs":{"audio":"noisy"}`, `"class":"biz"`, `"statusIcon":"http://x/y"`, `"privacy":["text"]`, fmt.Sprintf(`"id":"p%d"`, i))
	}, 2)
	list("devices", func(i int) string {
		return object_(t, fmt.Sprintf(`"deviceID":"urn:x:%d"`, rapid.IntRange(1, 2).Draw(t, "device")), `"userInput":"active"`, `"userInput":"idle"`, `"class":"biz"`)
	}, 2)
	if rapid.IntRange(0, 3).Draw(t, "notes") == 0 {
		members = append(members, `"notes":{"en":"`+rapid.SampledFrom([]string{"a", "b"}).Draw(t, "note")+`"}`)
	}
	if rapid.IntRange(0, 3).Draw(t, "short") == 0 {
		members = append(members, `"basic":"open"`)
	}
	if rapid.IntRange(0, 3).Draw(t, "unknown") == 0 {
		members = append(members, `"colour":`+rapid.SampledFrom([]string{`"red"`, `{"b":1,"a":2}`}).Draw(t, "colour"))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// object_ draws an element that has the first member, if that is an id, and
// some of the others, none by one name twice; and some that all elements have.
func object_(t *rapid.T, members ...string) string {
	members = append(members, `"note":"n1"`, `"note":{"fr":["n2","n3"]}`, `"timestamp":"2026-03-09T13:00:01Z"`, `"timestamp":"2026-03-09T13:00:02Z"`,
		`"timestamp":"2027-01-01T00:00:00Z"`, `"userInput":{"value":"idle","idleThreshold":600,"lastInput":"2026-03-09T12:40:00Z"}`,
		`"ext":[{"ns":"u:1","name":"x","xml":"<x xmlns='u:1'/>"}]`, `"colour":"red"`, `"colour":"blue"`)
	drawn := rapid.SliceOfN(rapid.SampledFrom(members), 0, 5).Draw(t, "members")
	if strings.HasPrefix(members[0], `"id"`) || strings.HasPrefix(members[0], `"deviceID"`) {
		drawn = append([]string{members[0]}, drawn...)
	}
	var kept []string
	for _, m := range drawn {
		name, _, _ := strings.Cut(m, ":")
		if !slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(k, name+":") }) {
			kept = append(kept, m)
		}
	}
	return "{" + strings.Join(kept, ",") + "}"
}

// reveals returns what less says that more does not. What nobody published, the
// neutral document, says nothing.
func reveals(more, less any) string {
	m, l := more.(*document), less.(*document)
	if l == neutral {
		return ""
	}
	for _, p := range []struct {
		of         string
		more, less []element
	}{{"tuple", m.tuples, l.tuples}, {"person", merged(m.persons), merged(l.persons)}, {"device", m.devices, l.devices}} {
		for i := range p.less {
			e := &p.less[i]
			same := func(f element) bool { return f.origin == e.origin }
			if !slices.ContainsFunc(p.more, same) && p.of != "person" {
				return p.of + " " + e.origin.id
			}
			for j := range e.attrs {
				a := &e.attrs[j]
				if !slices.ContainsFunc(p.more, func(f element) bool { return (p.of == "person" || same(f)) && f.covers(a) }) {
					return p.of + " " + a.name
				}
			}
			for _, x := range e.ext {
				if !slices.ContainsFunc(p.more, func(f element) bool { return (p.of == "person" || same(f)) && slices.Contains(f.ext, x) }) {
					return p.of + " " + x.token()
				}
			}
		}
	}
	for _, n := range listNotes(l.notes) {
		if !slices.Contains(listNotes(m.notes), n) {
			return "note " + n.text
		}
	}
	for _, x := range l.ext {
		if !slices.Contains(m.ext, x) {
			return x.token()
		}
	}
	for _, s := range l.lost {
		if !slices.Contains(m.lost, s) {
			return "lost " + s
		}
	}
	return ""
}

// covers says whether the element says what a does: of notes and of user input
// it may say more.
func (e *element) covers(a *attr) bool {
	had := e.attr(a.name)
	switch {
	case had == nil:
		return false
	case a.name == permNote:
		return !slices.ContainsFunc(listNotes(a.value), func(n note) bool { return !slices.Contains(listNotes(had.value), n) })
	case a.name == permUserInput:
		return had.value.Equal(a.value) || inputAt(had.value, inputThresholds).Equal(a.value) || inputAt(had.value, inputBare).Equal(a.value)
	}
	return had.equal(a)
}

// Whatever the bytes, a document is read, and what is written of it reads as
// the same, composes, and shows no more by less.
func FuzzParse(f *testing.F) {
	r := kind.Resource{Kind: "presence", Addr: kind.Of("bob@example.com")}
	for _, s := range samples(f) {
		f.Add(s.body)
	}
	f.Add([]byte(`{"basic":"open"}`))
	f.Add([]byte(`{"entity":"pres:bob@example.com","tuples":[{"id":"a","basic":"open","contact":{"uri":"im:b@c.d","priority":0.5},"note":{"en":["a","b"]},"timestamp":"2026-03-09T13:00:00Z","ext":[{"ns":"u","name":"x","xml":"<x xmlns='u'/>"}],"z":1}],"persons":[{"activities":{"is":["a"],"from":"2026-03-09T13:00:00Z","note":"x"},"placeIs":{"audio":"x"},"timeOffset":{"value":1,"description":"x"}}],"devices":[{"deviceID":"u:1","userInput":{"value":"idle","idleThreshold":1}}],"notes":"x","lost":["y"]}`))
	k := New([]byte("key"))
	now := time.Date(2026, 3, 9, 13, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := k.Parse(r, kind.Document{Body: body})
		if err != nil {
			checkRefusal(t, err)
			return
		}
		c, err := k.Compose(now, r, []kind.Publication{{Source: "pc", Published: now, Value: v}})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []kind.Grant{{}, kind.Most(permissions), kind.NewGrant(kind.Perm{Name: permPersons, Type: kind.PermSet, Set: []string{"*"}})} {
			doc := k.Encode(k.View(c, g))
			if len(doc.Body) > k.Semantics().MaxBytes {
				return // escapes made it longer
			}
			again, err := k.Parse(r, doc)
			if err != nil {
				t.Fatalf("%s\nwas written of %q: %v", doc.Body, body, err)
			}
			if got := again.(*document).encode(r); !bytes.Equal(got, doc.Body) {
				t.Fatalf("%s\nreads as %s", doc.Body, got)
			}
		}
	})
}
