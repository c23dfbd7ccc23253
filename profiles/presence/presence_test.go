package presence

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

var (
	bob = kind.Resource{Kind: "presence", Addr: kind.Of("bob@example.com")}
	one = time.Date(2026, 3, 9, 13, 0, 0, 0, time.UTC)
)

type sample struct {
	name string
	body []byte
}

func samples(t testing.TB) []sample {
	t.Helper()
	paths, err := filepath.Glob("testdata/samples/*.xml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no samples: ", err)
	}
	var all []sample
	for _, p := range paths {
		body, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sample{filepath.Base(p), body})
	}
	return all
}

func checkRefusal(t testing.TB, err error) {
	t.Helper()
	r, ok := errors.AsType[*kind.Refusal](err)
	if !ok || r.Reason == "" || len(r.Faults) == 0 || r.Faults[0].What == "" ||
		!errors.Is(err, kind.ErrInvalid) && !errors.Is(err, kind.ErrUnsupported) && !errors.Is(err, kind.ErrTooBig) {
		t.Errorf("%T: %v", err, err)
	}
}

func pub(source, body string) kind.Publication {
	return kind.Publication{Source: source, Publisher: bob.Addr, Published: one, Doc: kind.Document{ContentType: TypeJSON, Body: []byte(body)}}
}

// shown is what everybody with grant g is shown of pubs at the instant at, with
// the made-up ids put back to what they stand for.
func shown(t *testing.T, at time.Time, g kind.Grant, pubs ...kind.Publication) string {
	t.Helper()
	k := New([]byte("key"))
	c, err := k.Compose(at, bob, pubs)
	if err != nil {
		t.Fatal(err)
	}
	v := k.View(c, g)
	text := string(k.Encode(v).Body)
	d := v.Value.(*document)
	for _, e := range slices.Concat(d.tuples, d.persons) {
		if e.origin.source != "" {
			text = strings.ReplaceAll(text, `"`+e.id+`"`, `"`+e.origin.source+"."+e.origin.id+`"`)
		}
	}
	return text
}

func grant(text string) kind.Grant {
	var perms []kind.Perm
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		for _, p := range permissions {
			if p.Name != name {
				continue
			}
			perm := kind.Perm{Name: name, Type: p.Type, N: int64(slices.Index(p.Words, value))}
			if p.Type == kind.PermSet {
				perm.Set = strings.Split(value, ",")
			}
			perms = append(perms, perm)
		}
	}
	return kind.NewGrant(perms...)
}

type supported struct{ name, want, yet string }

// xmlSupport says of each sample document in XML what becomes of it: what is
// shown to whom everything is, or the reason of its refusal. What is not
// supported yet is marked so, and behaves as it says.
var xmlSupport = []supported{
	{name: "p01-default-ns.xml", want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.a1","basic":"open","contact":{"uri":"tel:+15550100","priority":0.8}}]}`},
	{name: "p02-prefixed-whitespace-contact.xml", want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.a1","basic":"open","contact":{"uri":"im:bob@mobile.example.net","priority":1},"ext":[{"ns":"http://ext.example.org/p","name":"tag","xml":"<x:tag xmlns:x=\"http://ext.example.org/p\">in tuple, before contact</x:tag>"}]}],"ext":[{"ns":"http://ext.example.org/p","name":"extra","xml":"<x:extra xmlns:x=\"http://ext.example.org/p\">after the tuples</x:extra>"}]}`},
	{name: "p03-empty-presence.xml", want: `neutral`},
	{name: "p04-status-extension-only.xml", want: `{"entity":"pres:bob@example.com","tuples":[{"id":"pc.a1","timestamp":"2026-03-09T13:00:00Z","ext":[{"ns":"http://ext.example.org/p","name":"mode","xml":"<x:mode xmlns:x=\"http://ext.example.org/p\">grey</x:mode>"}]}]}`},
	{name: "p05-mustunderstand.xml", want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.a1","basic":"open","contact":{"uri":"tel:+15550100","priority":0.725}}],"ext":[{"ns":"http://ext.example.org/p","name":"ignorable","xml":"<x:ignorable xmlns:x=\"http://ext.example.org/p\">yes</x:ignorable>"}]}`},
	{name: "p06-rpid-full.xml", want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.mail1","basic":"open","contact":{"uri":"mailto:bob@example.com","priority":1},"class":"biz"},{"id":"pc.im1","basic":"open","contact":{"uri":"im:bob@example.com","priority":0.8},"deviceID":["urn:uuid:0d0b2c5e-0000-4000-8000-000000000001"],"note":{"en":"Do not disturb","fr":"Ne pas deranger"},"relationship":"self","serviceClass":"electronic","timestamp":"2026-03-09T13:00:00Z"}],"persons":[{"id":"pc.me","activities":{"from":"2026-03-09T12:00:00Z","is":["lunch","meeting"],"note":{"":"Offsite"},"until":"2026-03-09T17:00:00Z"},"mood":["happy","hopeful"],"note":{"":"Back at five"},"placeIs":{"audio":"noisy"},"placeType":["office"],"privacy":["unknown"],"sphere":"bowling league","timeOffset":{"description":"America/Chicago","value":-300},"timestamp":"2026-03-09T12:05:00Z"}],"devices":[{"deviceID":"urn:uuid:0d0b2c5e-0000-4000-8000-000000000001","note":{"":"PC"},"userInput":{"idleThreshold":600,"lastInput":"2026-03-09T12:40:00Z","value":"idle"}}],"notes":{"":"In Tokyo next week"}}`},
	{name: "p07-no-entity.xml", want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.a1","basic":"open","contact":{"uri":"sip:bob@example.com"},"deviceID":["mac:8asd7d7d70"]}],"persons":[{"id":"pc.me","activities":["on-the-phone"]}]}`},
	{
		name: "p08-timed-status.xml", yet: "timed-status is passed on, and does not become the status when its time comes",
		want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.a1","basic":"open","contact":{"uri":"sip:bob@example.com"},"ext":[{"ns":"urn:ietf:params:xml:ns:pidf:timed-status","name":"timed-status","xml":"<x:timed-status xmlns:x=\"urn:ietf:params:xml:ns:pidf:timed-status\" from=\"2026-08-15T10:20:00-05:00\" until=\"2026-08-22T19:30:00-05:00\"><x:basic>closed</x:basic></x:timed-status>"}]}]}`,
	},
	{
		name: "p09-caps.xml", yet: "capabilities are passed on to whom unknown attributes are shown, and have no permission of their own",
		want: `{"entity":"pres:press12@plant.example.com"`,
	},
	{name: "n01-missing-status.xml", want: "schema"},
	{name: "n02-empty-status.xml", want: "schema"},
	{name: "n03-bad-basic.xml", want: "schema"},
	{name: "n04-duplicate-id.xml", want: "duplicate-id"},
	{name: "n05-lowercase-t.xml", want: "schema"},
	{name: "n06-priority-out-of-range.xml", want: `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.a1","basic":"open","contact":{"uri":"im:b@example.com"}}]}`},
	{name: "n07-doctype-entity.xml", want: "dtd-forbidden"},
	{name: "n08-wrong-namespace.xml", want: "namespace"},
}

// The sample documents behave as the requirements say.
func TestSamples(t *testing.T) {
	all := samples(t)
	if len(all) != len(xmlSupport) {
		t.Fatalf("%d samples, and %d are told of", len(all), len(xmlSupport))
	}
	k := New([]byte("key"))
	for _, s := range all {
		i := slices.IndexFunc(xmlSupport, func(c supported) bool { return c.name == s.name })
		if i < 0 {
			t.Fatalf("%s is not told of", s.name)
		}
		c := xmlSupport[i]
		if c.yet != "" {
			t.Logf("not supported yet: %s: %s", s.name, c.yet)
		}
		r := bob
		if strings.HasPrefix(c.name, "p09") {
			r.Addr = kind.Of("press12@plant.example.com")
		}
		v, err := k.Parse(r, kind.Document{ContentType: TypePIDF, Body: s.body})
		if err != nil {
			checkRefusal(t, err)
			if refusal, _ := errors.AsType[*kind.Refusal](err); refusal.Reason != c.want {
				t.Errorf("%s: %v, want %s", s.name, err, c.want)
			}
			continue
		}
		p := kind.Publication{Source: "pc", Published: one, Value: v}
		if r != bob {
			composed, err := k.Compose(one, r, []kind.Publication{p})
			if text := string(k.Encode(k.View(composed, kind.Most(permissions))).Body); err != nil || !strings.HasPrefix(text, c.want) || strings.Count(text, "caps") < 2 {
				t.Errorf("%s: %s, %v", s.name, text, err)
			}
			continue
		}
		want := c.want
		if want == "neutral" {
			want = neutralBob
		}
		if got := shown(t, one, kind.Most(permissions), p); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", s.name, got, want)
		}
	}
}

const neutralBob = `{"entity":"pres:bob@example.com","basic":"closed","tuples":[{"id":"none","basic":"closed"}]}`

// RFC 5025 section 6, applied to the full sample: a service by its scheme, the
// person, activities, bare user input, one unknown attribute; all else is gone.
func TestRFC5025Example(t *testing.T) {
	body, err := os.ReadFile("testdata/samples/p06-rpid-full.xml")
	if err != nil {
		t.Fatal(err)
	}
	p := kind.Publication{Source: "pc", Published: one, Doc: kind.Document{ContentType: TypePIDF, Body: body}}
	got := shown(t, one, grant("services=im persons=* activities userInput=bare unknown={http://ext.example.org/p}foo"), p)
	const want = `{"entity":"pres:bob@example.com","basic":"open","tuples":[{"id":"pc.im1","basic":"open","contact":{"uri":"im:bob@example.com","priority":0.8},"serviceClass":"electronic","timestamp":"2026-03-09T13:00:00Z"}],` +
		`"persons":[{"id":"pc.me","activities":{"from":"2026-03-09T12:00:00Z","is":["lunch","meeting"],"note":{"":"Offsite"},"until":"2026-03-09T17:00:00Z"},"timestamp":"2026-03-09T12:05:00Z"}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Several devices are one document, which says what each grant shows and what
// time has left of it.
func TestComposition(t *testing.T) {
	all := kind.Most(permissions)
	lost := func(p kind.Publication) kind.Publication { p.Lost = one; return p }
	at := func(p kind.Publication, d time.Duration) kind.Publication { p.Published = one.Add(d); return p }
	ends := func(p kind.Publication, d time.Duration) kind.Publication { p.Expires = one.Add(d); return p }
	phone := pub("phone", `{"tuples":[{"id":"t1","basic":"open","contact":{"uri":"tel:1","priority":0.5}}]}`)
	pc := pub("pc", `{"tuples":[{"id":"t1","basic":"closed","contact":{"uri":"im:bob@example.com","priority":0.8}}]}`)
	for _, c := range []struct {
		name  string
		now   time.Duration
		grant kind.Grant
		pubs  []kind.Publication
		want  string // without the entity
	}{
		{"nothing", 0, all, nil, `"basic":"closed","tuples":[{"id":"none","basic":"closed"}]}`},
		{"the shortest", 0, all, []kind.Publication{pub("pc", `{"basic":"open"}`)}, `"basic":"open","tuples":[{"id":"pc.default","basic":"open"}]}`},
		{"two devices with one id, one open", 0, all, []kind.Publication{phone, pc}, `"basic":"open","tuples":[{"id":"phone.t1","basic":"open","contact":{"uri":"tel:1","priority":0.5}},{"id":"pc.t1","basic":"closed","contact":{"uri":"im:bob@example.com","priority":0.8}}]}`},
		{"the phone fell silent, told to whom it is shown", 0, all, []kind.Publication{lost(phone), pc}, `"basic":"closed","tuples":[{"id":"pc.t1","basic":"closed","contact":{"uri":"im:bob@example.com","priority":0.8}}],"lost":["phone"]}`},
		{"the phone fell silent", 0, grant("services=*"), []kind.Publication{lost(phone), pc}, `"basic":"closed","tuples":[{"id":"pc.t1","basic":"closed","contact":{"uri":"im:bob@example.com","priority":0.8}}]}`},
		{"all fell silent", 0, grant("services=*"), []kind.Publication{lost(phone)}, `"basic":"closed","tuples":[{"id":"none","basic":"closed"}]}`},
		{"at its expiry it is gone", time.Minute, all, []kind.Publication{ends(phone, time.Minute)}, `"basic":"closed","tuples":[{"id":"none","basic":"closed"}]}`},
		{
			"the greatest priority first, none last", 0, all,
			[]kind.Publication{pub("pc", `{"tuples":[{"id":"a","basic":"open","contact":{"uri":"a:1"}},{"id":"b","basic":"open","contact":{"uri":"b:1","priority":0}},{"id":"c","basic":"open","contact":{"uri":"c:1","priority":1}},{"id":"d","basic":"open","contact":{"uri":"d:1","priority":1.5}}]}`)},
			`"basic":"open","tuples":[{"id":"pc.c","basic":"open","contact":{"uri":"c:1","priority":1}},{"id":"pc.b","basic":"open","contact":{"uri":"b:1","priority":0}},`,
		},
		{"services by scheme", 0, grant("services=tel"), []kind.Publication{phone, pc}, `"basic":"open","tuples":[{"id":"phone.t1","basic":"open","contact":{"uri":"tel:1","priority":0.5}}]}`},
		{"services by class, which is not shown", 0, grant("services=class:biz"), []kind.Publication{pub("pc", `{"tuples":[{"id":"a","basic":"open","class":"biz"},{"id":"b","basic":"open","class":"home"}]}`)}, `"basic":"open","tuples":[{"id":"pc.a","basic":"open"}]}`},
		{"a newer one of a source", 0, all, []kind.Publication{pub("pc", `{"basic":"open"}`), at(pub("pc", `{"basic":"closed"}`), time.Second)}, `"basic":"closed","tuples":[{"id":"pc.default","basic":"closed"}]}`},
		{"a meeting that has not begun", 0, all, []kind.Publication{pub("pc", `{"persons":[{"id":"me","activities":{"is":["meeting"],"from":"2026-03-09T14:00:00Z"},"mood":["calm"]}]}`)}, `"persons":[{"id":"pc.me","mood":["calm"]}]}`},
		{"a meeting that is over", time.Hour, all, []kind.Publication{pub("pc", `{"persons":[{"id":"me","activities":{"is":["meeting"],"until":"2026-03-09T14:00:00Z"},"mood":["calm"]}]}`)}, `"persons":[{"id":"pc.me","mood":["calm"]}]}`},
		{
			"sources that agree are one person", 0, all,
			[]kind.Publication{
				pub("pc", `{"persons":[{"id":"me","activities":["meeting"],"note":"a"}]}`), pub("calendar", `{"persons":[{"id":"him","activities":["meeting"],"sphere":"work","note":"b"}]}`),
			},
			`"persons":[{"id":"`,
		},
		{
			"sources that contradict each other are two, the newer first", 0, all,
			[]kind.Publication{
				pub("pc", `{"persons":[{"id":"me","activities":["meeting"],"timestamp":"2026-03-09T12:00:00Z"}]}`), pub("calendar", `{"persons":[{"id":"him","activities":["away"],"timestamp":"2026-03-09T12:30:00Z"}]}`),
			},
			`"persons":[{"id":"calendar.him","activities":["away"],"timestamp":"2026-03-09T12:30:00Z"},{"id":"pc.me","activities":["meeting"],"timestamp":"2026-03-09T12:00:00Z"}]}`,
		},
		{
			"what contradicts is not shown: nor that it does", 0, grant("persons=* mood"),
			[]kind.Publication{
				pub("pc", `{"persons":[{"id":"me","activities":["meeting"],"mood":["calm"]}]}`), pub("calendar", `{"persons":[{"id":"him","activities":["away"]}]}`),
			},
			`"persons":[{"id":"`,
		},
		{
			"one device, known to two, used by somebody", 0, all,
			[]kind.Publication{
				pub("pc", `{"devices":[{"deviceID":"urn:x:1","userInput":"active","class":"old","timestamp":"2026-03-09T12:00:00Z"}]}`), pub("watch", `{"devices":[{"deviceID":"urn:x:1","userInput":"idle","class":"new","timestamp":"2026-03-09T12:30:00Z"}]}`),
			},
			`"devices":[{"deviceID":"urn:x:1","class":"new","userInput":"active","timestamp":"2026-03-09T12:30:00Z"}]}`,
		},
		{
			"a clock that is ahead does not make it the newest", 0, all,
			[]kind.Publication{
				at(pub("pc", `{"devices":[{"deviceID":"urn:x:1","class":"old","timestamp":"2036-03-09T12:00:00Z"}]}`), -time.Hour), pub("watch", `{"devices":[{"deviceID":"urn:x:1","class":"new"}]}`),
			},
			`"devices":[{"deviceID":"urn:x:1","class":"new"}]}`,
		},
		{"user input, bare", 0, grant("devices=* userInput=bare"), []kind.Publication{pub("pc", `{"devices":[{"deviceID":"urn:x:1","userInput":{"value":"idle","idleThreshold":600,"lastInput":"2026-03-09T12:40:00Z"}}]}`)}, `"devices":[{"deviceID":"urn:x:1","userInput":"idle"}]}`},
		{"user input, thresholds", 0, grant("devices=* userInput=thresholds"), []kind.Publication{pub("pc", `{"devices":[{"deviceID":"urn:x:1","userInput":{"value":"idle","idleThreshold":600,"lastInput":"2026-03-09T12:40:00Z"}}]}`)}, `"devices":[{"deviceID":"urn:x:1","userInput":{"idleThreshold":600,"value":"idle"}}]}`},
		{"user input, full", 0, grant("devices=* userInput=full"), []kind.Publication{pub("pc", `{"devices":[{"deviceID":"urn:x:1","userInput":{"value":"idle","lastInput":"2026-03-09T12:40:00Z"}}]}`)}, `"devices":[{"deviceID":"urn:x:1","userInput":{"lastInput":"2026-03-09T12:40:00Z","value":"idle"}}]}`},
		{"user input, not granted", 0, grant("devices=*"), []kind.Publication{pub("pc", `{"devices":[{"deviceID":"urn:x:1","userInput":"idle"}]}`)}, `"devices":[{"deviceID":"urn:x:1"}]}`},
		{"notes of two, in two languages", 0, all, []kind.Publication{pub("pc", `{"notes":{"en":"hi","fr":"salut"}}`), at(pub("phone", `{"notes":{"en":["hello","hi"]}}`), time.Second)}, `"notes":{"en":["hello","hi"],"fr":"salut"}}`},
		{"notes, not granted", 0, grant("services=*"), []kind.Publication{pub("pc", `{"notes":"hi","basic":"open"}`)}, `"basic":"open","tuples":[{"id":"pc.default","basic":"open"}]}`},
		{"nothing of it is granted", 0, grant("devices=*"), []kind.Publication{phone}, `"basic":"closed","tuples":[{"id":"none","basic":"closed"}]}`},
		{"unknown members are kept, one of each name", 0, all, []kind.Publication{pub("pc", `{"colour":"red"}`), at(pub("phone", `{"colour":"blue","shape":1}`), time.Second)}, `"colour":"blue","shape":1}`},
		{"unknown members, not granted", 0, grant("services=* unknown=shape"), []kind.Publication{pub("pc", `{"basic":"open","colour":"red","tuples":[{"id":"t","shape":1,"colour":2}]}`)}, `"tuples":[{"id":"pc.t","shape":1}]}`},
		{"what a device says fell silent does not count", 0, all, []kind.Publication{pub("pc", `{"basic":"open","lost":["phone"]}`)}, `"basic":"open","tuples":[{"id":"pc.default","basic":"open"}]}`},
	} {
		got := shown(t, one.Add(c.now), c.grant, c.pubs...)
		if want := `{"entity":"pres:bob@example.com",` + c.want; !strings.HasPrefix(got, want) || strings.HasSuffix(want, "}") && got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, want)
		}
	}
}

// Ids tell a watcher nothing: neither which source they are of, nor that
// another class of watchers sees the same element.
func TestIdsTellNothing(t *testing.T) {
	k := New([]byte("key"))
	c, err := k.Compose(one, bob, []kind.Publication{pub("phone", `{"tuples":[{"id":"secret","basic":"open"}],"persons":[{"id":"secret2","mood":["calm"]}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, view := range []*kind.Composed{
		c, k.View(c, grant("services=* persons=*")), k.View(c, grant("services=* persons=* mood")), New([]byte("other")).View(c, grant("services=* persons=* mood")),
	} {
		text := string(k.Encode(view).Body)
		if strings.Contains(text, "secret") || strings.Contains(text, "phone") {
			t.Errorf("%s tells", text)
		}
		d := view.Value.(*document)
		for _, id := range []string{d.tuples[0].id, d.persons[0].id} {
			if seen[id] {
				t.Errorf("%s is seen by two", id)
			}
			seen[id] = true
		}
	}
}

// Until when a composed document holds: the first expiry, the first edge of
// what is limited in time.
func TestExpires(t *testing.T) {
	k := New(nil)
	expires := func(p kind.Publication, d time.Duration) kind.Publication { p.Expires = one.Add(d); return p }
	for _, c := range []struct {
		name string
		pubs []kind.Publication
		want time.Duration // 0: never
	}{
		{"nothing", nil, 0},
		{"for good", []kind.Publication{pub("pc", `{"basic":"open"}`)}, 0},
		{"the first of two", []kind.Publication{expires(pub("pc", `{"basic":"open"}`), time.Hour), expires(pub("phone", `{"basic":"open"}`), time.Minute)}, time.Minute},
		{"one is over already", []kind.Publication{expires(pub("pc", `{"basic":"open"}`), time.Hour), expires(pub("phone", `{"basic":"open"}`), 0)}, time.Hour},
		{"a meeting begins", []kind.Publication{pub("pc", `{"persons":[{"activities":{"is":["meeting"],"from":"2026-03-09T14:00:00Z","until":"2026-03-09T15:00:00Z"}}]}`)}, time.Hour},
		{"a meeting ends", []kind.Publication{pub("pc", `{"persons":[{"activities":{"is":["meeting"],"from":"2026-03-09T13:00:00Z","until":"2026-03-09T15:00:00Z"}}]}`)}, 2 * time.Hour},
	} {
		got, err := k.Compose(one, bob, c.pubs)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want := time.Time{}
		if c.want != 0 {
			want = one.Add(c.want)
		}
		if !got.Expires.Equal(want) {
			t.Errorf("%s: %s, want %s", c.name, got.Expires, want)
		}
	}
}

// The sphere that rules may depend on is what the owner published, if it is one.
func TestSphere(t *testing.T) {
	delegated := func(p kind.Publication) kind.Publication {
		p.Publisher = kind.Of("calendar@example.com")
		return p
	}
	for _, c := range []struct {
		pubs []kind.Publication
		want string
	}{
		{nil, ""},
		{[]kind.Publication{pub("pc", `{"persons":[{"sphere":"work"}]}`)}, "work"},
		{[]kind.Publication{pub("pc", `{"persons":[{"sphere":"work"}]}`), pub("calendar", `{"persons":[{"sphere":"WORK"},{"mood":["calm"]}]}`)}, "WORK"},
		{[]kind.Publication{pub("pc", `{"persons":[{"sphere":"work"}]}`), pub("calendar", `{"persons":[{"sphere":"home"}]}`)}, ""},
		{[]kind.Publication{pub("pc", `{"persons":[{"sphere":"work"}]}`), delegated(pub("calendar", `{"persons":[{"sphere":"home"}]}`))}, "work"},
		{[]kind.Publication{delegated(pub("calendar", `{"persons":[{"sphere":"home"}]}`))}, ""},
		{[]kind.Publication{pub("pc", `{"persons":[{"sphere":{"is":"work","until":"2026-03-09T13:00:00Z"}}]}`)}, ""},
	} {
		got, err := New(nil).Compose(one, bob, c.pubs)
		if err != nil || !strings.EqualFold(New(nil).Sphere(got), c.want) {
			t.Errorf("%v: %q, %v, want %q", c.pubs, New(nil).Sphere(got), err, c.want)
		}
	}
	c, _ := New(nil).Compose(one, bob, []kind.Publication{pub("pc", `{"basic":"open"}`)})
	if Summary(c) != open || Summary(New(nil).Neutral(bob)) != closed {
		t.Error("summary")
	}
}

// What is not a presence document is refused with the reason, and where.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, body, reason, pointers string }{
		{"not JSON", `{"basic":}`, "schema", "/basic"},
		{"not an object", `[]`, "schema", ""},
		{"another's", `{"entity":"pres:ana@example.com","basic":"open"}`, "entity-mismatch", "/entity"},
		{"no address", `{"entity":"bob"}`, "schema", "/entity"},
		{"members twice", `{"basic":"open","basic":"open"}`, "schema", "/basic"},
		{"basic in capitals", `{"basic":"Open","tuples":[{"id":"t","basic":"OPEN"}]}`, "schema", "/tuples/0/basic /basic"},
		{"tuple without id", `{"tuples":[{"basic":"open"}]}`, "schema", "/tuples/0"},
		{"duplicate id", `{"tuples":[{"id":"t","basic":"open"}],"persons":[{"id":"t"}]}`, "duplicate-id", "/persons/0/id"},
		{"device without id", `{"devices":[{"userInput":"idle"}]}`, "schema", "/devices/0"},
		{"timestamps", `{"tuples":[{"id":"t","timestamp":"2026-03-09t13:00:00z"},{"id":"u","timestamp":1}]}`, "schema", "/tuples/0/timestamp /tuples/1/timestamp"},
		{
			"contacts", `{"tuples":[{"id":"t","contact":{}},{"id":"u","contact":{"uri":"bob"}},{"id":"v","contact":{"uri":"im:a b"}},{"id":"w","contact":{"uri":"im:a","priority":"high","x":1}}]}`, "schema",
			"/tuples/0/contact /tuples/1/contact/uri /tuples/2/contact/uri /tuples/3/contact/priority /tuples/3/contact/x",
		},
		{"meeting that ends before it begins", `{"persons":[{"activities":{"is":["meeting"],"from":"2026-03-09T14:00:00Z","until":"2026-03-09T14:00:00Z"}}]}`, "schema", "/persons/0/activities"},
		{
			"attributes", `{"persons":[{"activities":"meeting","mood":[""],"placeIs":{"smell":"x"},"timeOffset":2000,"sphere":" x","userInput":"away","statusIcon":"x","note":{"en":1},"privacy":{"is":[],"x":1}}]}`, "schema",
			"/persons/0/activities /persons/0/mood/0 /persons/0/note/en /persons/0/placeIs/smell /persons/0/privacy/x /persons/0/sphere /persons/0/statusIcon /persons/0/timeOffset /persons/0/userInput",
		},
		{
			"details of attributes", `{"persons":[{"timeOffset":{"value":"x","y":1},"userInput":{"idleThreshold":-1,"lastInput":"x","z":1}}]}`, "schema",
			"/persons/0/timeOffset/value /persons/0/timeOffset/y /persons/0/userInput /persons/0/userInput/idleThreshold /persons/0/userInput/lastInput /persons/0/userInput/z",
		},
		{
			"extensions", `{"ext":[{},{"ns":"u","name":"x","xml":"<y xmlns='u'/>"},{"ns":"u","name":"x","xml":"<x"},{"ns":"u","name":"x","xml":"<x xmlns='u'/>","z":1}]}`, "schema",
			"/ext/0 /ext/0 /ext/0 /ext/1/xml /ext/2/xml /ext/3/z",
		},
		{"101 tuples", `{"tuples":[` + strings.Repeat(`{"id":"t"},`, 100) + `{"id":"t"}]}`, "schema", "/tuples"},
		{"33 levels", `{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "too-large", "/x" + strings.Repeat("/0", 31)},
		{"no number", `{"tuples":[{"id":"t","contact":{"uri":"a:b","priority":NaN}}]}`, "schema", "/tuples/0/contact/priority"},
		{"64 KiB and one", `{}` + strings.Repeat(" ", 65535), "too-large", ""},
	} {
		_, err := New(nil).Parse(bob, kind.Document{ContentType: TypeJSON, Body: []byte(c.body)})
		r, ok := errors.AsType[*kind.Refusal](err)
		if !ok || r.Reason != c.reason || strings.Join(r.Faults.Pointers(), " ") != c.pointers {
			t.Errorf("%s: %v, want %s at %s", c.name, err, c.reason, c.pointers)
			if ok {
				t.Errorf("at %s", strings.Join(r.Faults.Pointers(), " "))
			}
			continue
		}
		checkRefusal(t, err)
	}
	for _, body := range []string{
		`<presence xmlns="urn:ietf:params:xml:ns:pidf"><tuple id="a"><status><basic>open</basic><basic>open</basic></status></tuple></presence>`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf"><tuple id="a"><status><basic>open</basic></status><status><basic>open</basic></status></tuple></presence>`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf"><tuple id="a"><status><basic>open</basic></status><contact>a:b</contact><contact>a:b</contact></tuple></presence>`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf"><tuple id="a"><status><basic>open</basic></status><contact priority="1e0">a:b</contact></tuple></presence>`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:ana@example.com"/>`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf"><tuple><status><basic>open</basic></status></tuple></presence>`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf">`,
		`<presence xmlns="urn:ietf:params:xml:ns:pidf">` + strings.Repeat("<a>", 33) + strings.Repeat("</a>", 33) + `</presence>`,
	} {
		if _, err := New(nil).Parse(bob, kind.Document{ContentType: TypePIDF, Body: []byte(body)}); err == nil {
			t.Errorf("accepted: %s", body)
		} else {
			checkRefusal(t, err)
		}
	}
}

// A document of entities that would expand is refused at once.
func TestBillionLaughs(t *testing.T) {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE presence [<!ENTITY a0 "ha">`)
	for i := range 9 {
		b.WriteString(`<!ENTITY a` + string(rune('1'+i)) + ` "` + strings.Repeat("&a"+string(rune('0'+i))+";", 10) + `">`)
	}
	b.WriteString(`]><presence xmlns="urn:ietf:params:xml:ns:pidf"><note>&a9;</note></presence>`)
	_, err := New(nil).Parse(bob, kind.Document{Body: []byte(b.String())})
	if r, ok := errors.AsType[*kind.Refusal](err); !ok || r.Reason != kind.ReasonDTD {
		t.Errorf("%v", err)
	}
}

func BenchmarkView(b *testing.B) {
	k := New([]byte("key"))
	c, err := k.Compose(one, bob, []kind.Publication{
		pub("phone", `{"tuples":[{"id":"t1","basic":"open","contact":{"uri":"tel:1","priority":0.5}}],"persons":[{"id":"me","activities":["meeting"],"mood":["calm"]}]}`),
		pub("pc", `{"tuples":[{"id":"t1","basic":"closed","contact":{"uri":"im:bob@example.com","priority":0.8}}],"devices":[{"deviceID":"urn:x:1","userInput":"active"}]}`),
	})
	if err != nil {
		b.Fatal(err)
	}
	g := grant("services=* persons=* activities note userInput=bare")
	b.ReportAllocs()
	for b.Loop() {
		k.Encode(k.View(c, g))
	}
}
