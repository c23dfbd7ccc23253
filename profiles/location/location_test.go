package location

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

var noon = time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)

func pub(source, body string) kind.Publication {
	return kind.Publication{Source: source, Published: noon, Doc: kind.Document{Body: []byte(body)}}
}

// shown is what everybody with grant g is shown of pubs at the instant at.
func shown(t *testing.T, at time.Time, g kind.Grant, pubs ...kind.Publication) string {
	t.Helper()
	k := New([]byte("key"))
	c, err := k.Compose(at, bob, pubs)
	if err != nil {
		t.Fatal(err)
	}
	return string(k.Encode(k.View(c, g)).Body)
}

// grant reads "civic=city radius=0 unknown=floor".
func grant(text string) kind.Grant {
	var perms []kind.Perm
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		i := slices.IndexFunc(permissions, func(p kind.Permission) bool { return p.Name == name })
		perm := kind.Perm{Name: name, Type: permissions[i].Type}
		switch perm.Type {
		case kind.PermMax:
			perm.N = int64(slices.Index(permissions[i].Words, value))
		case kind.PermMin:
			perm.N, _ = strconv.ParseInt(value, 10, 64)
		case kind.PermSet:
			perm.Set = strings.Split(value, ",")
		}
		perms = append(perms, perm)
	}
	return kind.NewGrant(perms...)
}

const (
	entity      = `{"entity":"pres:bob@example.com"`
	neutralBob  = entity + `}`
	everything  = "radius=0 civic=full unknown=*"
	minneapolis = `"civic":{"country":"US","A1":"Minnesota","A3":"Minneapolis","HNO":"4300","RD":"Glumack","ROOM":"7"}`
	gps         = `{"at":"2026-03-09T11:58:12Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.8848,-93.2140],"radius":50,"confidence":0.95},` +
		minneapolis + `,"method":"GPS","heading":90,"speed":1.5,"floor":"2","rules":{"noteWell":{"en":"do not pass on"}}}`
)

// What one publication shows by each grant. The first is what somebody sees who
// sees everything.
func TestViews(t *testing.T) {
	for _, c := range []struct{ name, grant, body, want string }{
		{
			"everything", everything, gps,
			`,"at":"2026-03-09T11:58:12Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.8848,-93.214],"radius":50,"confidence":0.95},` +
				`"method":"GPS","heading":90,"speed":1.5,"civic":{"country":"US","A1":"Minnesota","A3":"Minneapolis","HNO":"4300","RD":"Glumack","ROOM":"7"},` +
				`"rules":{"retransmission":false,"noteWell":{"en":"do not pass on"}},"floor":"2"}`,
		},
		{"nothing", "", gps, `}`},
		{
			"the city: no coordinates, and the time by the quarter", "civic=city", gps,
			`,"at":"2026-03-09T11:45:00Z","civic":{"country":"US","A1":"Minnesota","A3":"Minneapolis"},"rules":{"retransmission":false,"noteWell":{"en":"do not pass on"}}}`,
		},
		{"the country", "civic=country", `{"civic":{"A1":"Minnesota","country":"US"}}`, `,"at":"2026-03-09T12:00:00Z","civic":{"country":"US"}}`},
		{"the region", "civic=region", `{"civic":{"A1":"Minnesota","A2":"Hennepin"}}`, `,"at":"2026-03-09T12:00:00Z","civic":{"A1":"Minnesota"}}`},
		{"the building", "civic=building", `{"civic":{"A6":"x","FLR":"2","NAM":"Bob","SEAT":"3","X9":"y"}}`, `,"at":"2026-03-09T12:00:00Z","civic":{"A6":"x"}}`},
		{"the city, of whom only the street is known", "civic=city", `{"civic":{"RD":"Glumack"}}`, `}`},
		{"an address, of whom only the position is known", "civic=full", `{"lat":1,"lon":2}`, `}`},
		{"a position, of whom only the address is known", "radius=0", `{"civic":{"country":"US"}}`, `}`},
		{
			"a circle: nothing that tells more", "radius=10000", gps,
			`,"at":"2026-03-09T11:45:00Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.891501,-93.227397],"radius":10000},"rules":{"retransmission":false,"noteWell":{"en":"do not pass on"}}}`,
		},
		{
			"a circle of a source that knows no better: the next power of two", "radius=10", `{"lat":44.8848,"lon":-93.214,"accuracy":900}`,
			`,"at":"2026-03-09T12:00:00Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.88745,-93.207858],"radius":1024}}`,
		},
		{
			"height, exactly", "radius=0", `{"lat":1,"lon":2,"altitude":3.14159,"at":"2026-03-09T12:34:56Z"}`,
			`,"at":"2026-03-09T12:34:56Z","shape":{"type":"Point","crs":"EPSG:4979","pos":[1,2,3.14]}}`,
		},
		{
			"height, within a circle: none", "radius=100", `{"lat":1,"lon":2,"altitude":3}`,
			`,"at":"2026-03-09T12:00:00Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[1,2.000291],"radius":100}}`,
		},
		{
			"around the pole", "radius=100", `{"lat":88,"lon":2}`,
			`,"at":"2026-03-09T12:00:00Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[90,0],"radius":556000}}`,
		},
		{"what is not known here, by name", "unknown=floor", `{"lat":1,"lon":2,"floor":{"b":1,"a":2},"w3w":"a.b.c"}`, `,"at":"2026-03-09T12:00:00Z","floor":{"a":2,"b":1}}`},
		{
			"a polygon", "radius=0", `{"shape":{"type":"Polygon","posList":[[44.89,-93.23],[44.87,-93.23],[44.87,-93.20],[44.89,-93.20],[44.89,-93.23]]}}`,
			`,"at":"2026-03-09T12:00:00Z","shape":{"type":"Polygon","crs":"EPSG:4326","posList":[[44.89,-93.23],[44.87,-93.23],[44.87,-93.2],[44.89,-93.2],[44.89,-93.23]]}}`,
		},
		{
			"a polygon, as a circle", "radius=1000", `{"shape":{"type":"Polygon","posList":[[44.89,-93.23],[44.87,-93.23],[44.87,-93.20],[44.89,-93.20],[44.89,-93.23]]}}`,
			`,"at":"2026-03-09T12:00:00Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.868933,-93.207858],"radius":2048}}`,
		},
		{"one who does not know where they are", everything, `{"at":"2026-03-09T12:00:00Z"}`, `}`},
		{"null is nothing", everything, `{"providedBy":null,"heading":null,"lat":1,"lon":2,"civic":{"A1":null}}`, `,"at":"2026-03-09T12:00:00Z","shape":{"type":"Point","crs":"EPSG:4326","pos":[1,2]}}`},
	} {
		want := entity + c.want
		if got := shown(t, noon, grant(c.grant), pub("phone", c.body)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, want)
		}
	}
}

// GeoJSON has longitude first, our own form latitude: the same place, read from
// both.
func TestGeoJSON(t *testing.T) {
	const point = `"shape":{"type":"Point","crs":"EPSG:4326","pos":[44.8848,-93.214]}}`
	const ring = `[[-93.23,44.89],[-93.23,44.87],[-93.2,44.87],[-93.2,44.89],[-93.23,44.89]]`
	const polygon = `"shape":{"type":"Polygon","crs":"EPSG:4326","posList":[[44.89,-93.23],[44.87,-93.23],[44.87,-93.2],[44.89,-93.2],[44.89,-93.23]]}}`
	for _, c := range []struct{ name, body, want string }{
		{"our own form", `{"shape":{"type":"Point","pos":[44.8848,-93.214]}}`, `"at":"2026-03-09T12:00:00Z",` + point},
		{"a geometry", `{"type":"Point","coordinates":[-93.214,44.8848]}`, `"at":"2026-03-09T12:00:00Z",` + point},
		{"a feature", `{"type":"Feature","geometry":{"type":"Point","coordinates":[-93.214,44.8848]},"properties":null}`, `"at":"2026-03-09T12:00:00Z",` + point},
		{
			"a feature that says more", `{"type":"Feature","id":7,"bbox":[0,0,0,0],"geometry":{"type":"Point","coordinates":[-93.214,44.8848,256]},"properties":{"entity":"pres:bob@example.com","timestamp":"2026-03-09T11:00:00Z","accuracy":12,"speed":3,"method":"GPS","civic":{"country":"US"},"colour":"red"}}`,
			`"at":"2026-03-09T11:00:00Z","shape":{"type":"Circle","crs":"EPSG:4979","pos":[44.8848,-93.214,256],"radius":12},"method":"GPS","speed":3,"civic":{"country":"US"}}`,
		},
		{"a polygon", `{"type":"Polygon","coordinates":[` + ring + `]}`, `"at":"2026-03-09T12:00:00Z",` + polygon},
		{
			"a polygon the other way round", `{"type":"Polygon","coordinates":[[[-93.23,44.89],[-93.2,44.89],[-93.2,44.87],[-93.23,44.87],[-93.23,44.89]]]}`,
			`"at":"2026-03-09T12:00:00Z",` + polygon,
		},
		{
			"a track: the state is its last position", `{"type":"Feature","geometry":{"type":"LineString","coordinates":[[1,2],[3,4],[-93.214,44.8848]]},"properties":{"coordTimes":["2026-03-09T11:00:00Z","2026-03-09T11:00:01Z","2026-03-09T11:00:02Z"]}}`,
			`"at":"2026-03-09T11:00:02Z",` + point,
		},
		{"a feature that is nowhere", `{"type":"Feature","geometry":null,"properties":{"civic":{"country":"US"}}}`, `"at":"2026-03-09T12:00:00Z","civic":{"country":"US"}}`},
	} {
		for _, contentType := range []string{"", TypeGeoJSON} {
			if contentType != "" && c.name == "our own form" {
				continue
			}
			p := pub("phone", c.body)
			p.Doc.ContentType = contentType
			if got := shown(t, noon, grant(everything), p); got != entity+","+c.want {
				t.Errorf("%s:\ngot  %s\nwant %s,%s", c.name, got, entity, c.want)
			}
		}
	}
}

// What is wrong is refused: with its place, its reason and the right error.
func TestRefusals(t *testing.T) {
	nested := strings.Repeat("[", 33) + strings.Repeat("]", 33)
	shape := func(s string) string { return `{"shape":` + s + `}` }
	ring := func(s string) string { return shape(`{"type":"Polygon","posList":` + s + `}`) }
	seventeen := `[[0,0]`
	for i := range 15 {
		seventeen += fmt.Sprintf(`,[%d,%d]`, -i%2, i+1)
	}
	seventeen += `,[0,0]]`
	for _, c := range []struct {
		name, body string
		err        error
		reason, at string
	}{
		{"no JSON", `hello`, kind.ErrInvalid, "schema", ""},
		{"no object", `[1,2]`, kind.ErrInvalid, "schema", ""},
		{"not UTF-8", "{\"method\":\"\xff\"}", kind.ErrInvalid, "schema", ""},
		{"NaN", `{"lat":NaN,"lon":0}`, kind.ErrInvalid, "schema", "/lat"},
		{"infinity", `{"lat":1e999,"lon":0}`, kind.ErrInvalid, "schema", "/lat"},
		{"a number of many digits", `{"lat":` + strings.Repeat("9", 5000) + `,"lon":0}`, kind.ErrInvalid, "schema", "/lat"},
		{"latitude 91", `{"lat":91,"lon":0}`, kind.ErrInvalid, "schema", "/lat"},
		{"latitude -90.0000001", `{"lat":-90.0000001,"lon":0}`, kind.ErrInvalid, "schema", "/lat"},
		{"longitude 181", `{"lat":0,"lon":181}`, kind.ErrInvalid, "schema", "/lon"},
		{"longitude first", shape(`{"type":"Point","pos":[-93.214,44.8848]}`), kind.ErrInvalid, "schema", "/shape/pos/0"},
		{"latitude first, in GeoJSON", `{"type":"Point","coordinates":[44.8848,-93.214]}`, kind.ErrInvalid, "schema", "/coordinates/1"},
		{"latitude alone", `{"lat":1}`, kind.ErrInvalid, "schema", ""},
		{"a position as strings", `{"lat":"1","lon":"2"}`, kind.ErrInvalid, "schema", "/lat"},
		{"two positions", `{"lat":1,"lon":2,"shape":{"type":"Point","pos":[1,2]}}`, kind.ErrInvalid, "schema", ""},
		{"one number", shape(`{"type":"Point","pos":[1]}`), kind.ErrInvalid, "schema", "/shape/pos"},
		{"four numbers", shape(`{"type":"Point","pos":[1,2,3,4]}`), kind.ErrInvalid, "schema", "/shape/pos"},
		{"radius negative", shape(`{"type":"Circle","pos":[1,2],"radius":-1}`), kind.ErrInvalid, "schema", "/shape/radius"},
		{"radius of half the earth", shape(`{"type":"Circle","pos":[1,2],"radius":1e7}`), kind.ErrInvalid, "schema", "/shape/radius"},
		{"no radius", shape(`{"type":"Circle","pos":[1,2]}`), kind.ErrInvalid, "schema", "/shape"},
		{"confidence 0", shape(`{"type":"Circle","pos":[1,2],"radius":1,"confidence":0}`), kind.ErrInvalid, "schema", "/shape/confidence"},
		{"confidence in percent", shape(`{"type":"Circle","pos":[1,2],"radius":1,"confidence":95}`), kind.ErrInvalid, "schema", "/shape/confidence"},
		{"a shape without a type", shape(`{"pos":[1,2]}`), kind.ErrInvalid, "schema", "/shape"},
		{"a shape not known", shape(`{"type":"ArcBand","pos":[1,2]}`), kind.ErrUnsupported, "unsupported", "/shape/type"},
		{"a member not known in a shape", shape(`{"type":"Point","pos":[1,2],"acuracy":3}`), kind.ErrInvalid, "schema", "/shape/acuracy"},
		{"another system", shape(`{"type":"Point","crs":"EPSG:3857","pos":[1,2]}`), kind.ErrUnsupported, "unsupported", "/shape/crs"},
		{"another system, in GeoJSON", `{"type":"Point","coordinates":[1,2],"crs":{"type":"name","properties":{"name":"EPSG:3857"}}}`, kind.ErrUnsupported, "unsupported", "/crs"},
		{"many features", `{"type":"FeatureCollection","features":[]}`, kind.ErrUnsupported, "unsupported", "/type"},
		{"many points", `{"type":"MultiPoint","coordinates":[[1,2]]}`, kind.ErrUnsupported, "unsupported", "/type"},
		{"a hole", `{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]],[[0,0],[1,0],[1,1],[0,0]]]}`, kind.ErrUnsupported, "unsupported", ""},
		{"polygon open", ring(`[[0,0],[0,1],[1,1],[1,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon of two corners", ring(`[[0,0],[0,1],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon clockwise", ring(`[[0,0],[1,0],[1,1],[0,1],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon that crosses itself", ring(`[[0,0],[1,1],[0,1],[1,0],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon that touches itself", ring(`[[0,0],[0,2],[1,1],[2,1],[0,1],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon that is a line", ring(`[[0,0],[0,1],[0,2],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon that turns back", ring(`[[0,0],[0,2],[0,1],[1,1],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon with a corner twice", ring(`[[0,0],[0,1],[0,1],[1,1],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon of 17 positions", ring(seventeen), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon around the pole", ring(`[[80,0],[80,90],[80,180],[80,-90],[80,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon to the pole", ring(`[[80,0],[80,10],[90,10],[80,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"polygon as large as a continent", ring(`[[0,0],[0,40],[40,40],[40,0],[0,0]]`), kind.ErrInvalid, "schema", "/shape/posList"},
		{"another's", `{"entity":"pres:mallory@example.com","lat":1,"lon":2}`, kind.ErrInvalid, "entity-mismatch", "/entity"},
		{"another's, in GeoJSON", `{"type":"Feature","geometry":null,"properties":{"entity":"pres:mallory@example.com"}}`, kind.ErrInvalid, "entity-mismatch", "/properties/entity"},
		{"a name twice", `{"lat":1,"lat":2,"lon":3}`, kind.ErrInvalid, "schema", "/lat"},
		{"33 levels", `{"x":` + nested + `}`, kind.ErrTooBig, "too-large", "/x" + strings.Repeat("/0", 31)},
		{"many members", `{"x":[` + strings.Repeat("1,", 2000) + `1]}`, kind.ErrTooBig, "too-large", "/x/1999"},
		{"64 KiB and one", `{"x":"` + strings.Repeat("x", 65<<10) + `"}`, kind.ErrTooBig, "too-large", ""},
		{"lower-case t", `{"at":"2026-03-09t12:00:00z"}`, kind.ErrInvalid, "schema", "/at"},
		{"a country in words", `{"civic":{"country":"United States"}}`, kind.ErrInvalid, "schema", "/civic/country"},
		{"a country in small letters", `{"civic":{"country":"us"}}`, kind.ErrInvalid, "schema", "/civic/country"},
		{"an address as text", `{"civic":"Minneapolis"}`, kind.ErrInvalid, "schema", "/civic"},
		{"an element of an address with a blank", `{"civic":{"A 1":"x"}}`, kind.ErrInvalid, "schema", "/civic/A 1"},
		{"an element that is long", `{"civic":{"A1":"` + strings.Repeat("x", 256) + `"}}`, kind.ErrInvalid, "schema", "/civic/A1"},
		{"speed backwards", `{"lat":1,"lon":2,"speed":-1}`, kind.ErrInvalid, "schema", "/speed"},
		{"heading beyond north", `{"lat":1,"lon":2,"heading":361}`, kind.ErrInvalid, "schema", "/heading"},
		{"rules not known", `{"rules":{"retransmit":true}}`, kind.ErrInvalid, "schema", "/rules/retransmit"},
		{"yes for true", `{"rules":{"retransmission":"yes"}}`, kind.ErrInvalid, "schema", "/rules/retransmission"},
		{"a track backwards", `{"track":[{"at":"2026-03-09T12:00:01Z","pos":[1,2]},{"at":"2026-03-09T12:00:00Z","pos":[1,2]}]}`, kind.ErrInvalid, "schema", "/track"},
		{"a track after the present", `{"at":"2026-03-09T12:00:00Z","lat":1,"lon":2,"track":[{"at":"2026-03-09T12:00:00Z","pos":[1,2]}]}`, kind.ErrInvalid, "schema", "/track"},
		{"a track without instants", `{"type":"LineString","coordinates":[[1,2],[3,4]]}`, kind.ErrInvalid, "schema", "/coordinates"},
		{"a track that is long", `{"track":[` + strings.Repeat("1,", 200) + `1]}`, kind.ErrInvalid, "schema", "/track"},
	} {
		_, err := New(nil).Parse(bob, kind.Document{Body: []byte(c.body)})
		checkRefusal(t, err)
		r, _ := errors.AsType[*kind.Refusal](err)
		if !errors.Is(err, c.err) || r == nil || r.Reason != c.reason || r.Faults[0].Pointer != c.at {
			t.Errorf("%s: %v, want %v, %s at %q", c.name, err, c.err, c.reason, c.at)
		}
	}
}

func checkRefusal(t testing.TB, err error) {
	t.Helper()
	r, ok := errors.AsType[*kind.Refusal](err)
	if !ok || r.Reason == "" || len(r.Faults) == 0 || r.Faults[0].What == "" ||
		!errors.Is(err, kind.ErrInvalid) && !errors.Is(err, kind.ErrUnsupported) && !errors.Is(err, kind.ErrTooBig) {
		t.Errorf("%T: %v", err, err)
	}
}

// All faults are told at once.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := New(nil).Parse(bob, kind.Document{Body: []byte(`{"lat":91,"lon":181,"civic":{"country":"x"},"speed":-1}`)})
	if r, ok := errors.AsType[*kind.Refusal](err); !ok || !slices.Equal(r.Faults.Pointers(), []string{"/lat", "/lon", "/speed", "/civic/country"}) {
		t.Errorf("%v", err)
	}
}

// Polygons that are right, where it is easy to think otherwise.
func TestPolygons(t *testing.T) {
	for name, ring := range map[string]string{
		"across the antimeridian":        `[[10,179],[10,-179],[11,-179],[11,179],[10,179]]`,
		"that ends at it":                `[[10,179],[10,180],[11,180],[11,179],[10,179]]`,
		"not convex":                     `[[0,0],[0,4],[4,4],[1,1],[0,0]]`,
		"with a corner within a line":    `[[0,0],[0,1],[0,2],[2,2],[0,0]]`,
		"of the smallest size":           `[[0,0],[0,0.0000001],[0.0000001,0.0000001],[0,0]]`,
		"a spiral that does not cross":   `[[0,0],[0,9],[9,9],[9,2],[4,2],[4,5],[5,5],[5,3],[8,3],[8,8],[1,8],[1,0],[0,0]]`,
		"of 16 positions, a staircase":   `[[0,0],[0,8],[1,8],[1,7],[2,7],[2,6],[3,6],[3,5],[4,5],[4,4],[5,4],[5,3],[6,3],[6,2],[7,2],[0,0]]`,
		"far in the south, by the edge":  `[[-89,-10],[-89,5],[-80,5],[-89,-10]]`,
		"across Greenwich and the equat": `[[-1,-1],[-1,1],[1,1],[1,-1],[-1,-1]]`,
	} {
		body := `{"shape":{"type":"Polygon","posList":` + ring + `}}`
		v, err := New(nil).Parse(bob, kind.Document{Body: []byte(body)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := v.(*document).shape
		middle, reach := s.middle()
		for _, p := range s.ring {
			if d := middle.distance(p); d > reach || reach > maxReach {
				t.Errorf("%s: reaches %.0f m from %v, but not %v, %.0f m away", name, reach, middle, p, d)
			}
		}
	}
}

// The newest position counts, as one source said it, whatever the others say.
func TestComposition(t *testing.T) {
	at := func(p kind.Publication, d time.Duration) kind.Publication { p.Published = noon.Add(d); return p }
	ends := func(p kind.Publication, d time.Duration) kind.Publication { p.Expires = noon.Add(d); return p }
	lost := func(p kind.Publication) kind.Publication { p.Lost = noon; return p }
	here := func(source, instant, more string) kind.Publication {
		return pub(source, `{"at":"2026-03-09T`+instant+`Z","lat":1,"lon":`+strconv.Itoa(len(source))+more+`}`)
	}
	for _, c := range []struct {
		name    string
		now     time.Duration
		pubs    []kind.Publication
		want    string // part of what is shown; empty: the neutral document
		expires time.Duration
	}{
		{"nothing", 0, nil, "", 0},
		{"the newer", 0, []kind.Publication{here("phone", "11:00:00", ""), here("pc", "11:00:01", "")}, `[1,2]`, 0},
		{"the newer, though published before", 0, []kind.Publication{at(here("phone", "11:00:00", ""), time.Second), here("pc", "11:00:01", "")}, `[1,2]`, 0},
		{"without an instant: when it came in", 0, []kind.Publication{here("phone", "11:59:59", ""), pub("pc", `{"lat":1,"lon":2}`)}, `[1,2]`, 0},
		{"at one instant the better method", 0, []kind.Publication{here("pc", "11:00:00", `,"method":"Manual"`), here("phone", "11:00:00", `,"method":"GPS"`)}, `[1,5]`, 0},
		{"a clock that is ahead does not make it the newest", 0, []kind.Publication{at(here("phone", "23:00:00", ""), -time.Hour), here("pc", "11:30:00", "")}, `[1,2]`, 0},
		{"a clock that is a little ahead does", 0, []kind.Publication{here("phone", "12:04:00", ""), here("pc", "12:00:00", "")}, `[1,5]`, 0},
		{"who knows nothing says nothing", 0, []kind.Publication{here("phone", "11:00:00", ""), pub("pc", `{}`)}, `[1,5]`, 0},
		{"of one source the last", 0, []kind.Publication{at(here("phone", "11:00:00", ""), time.Second), here("phone", "11:30:00", `,"method":"GPS"`)}, `[1,5]}}`, 0},
		{"lost", 0, []kind.Publication{lost(here("phone", "11:00:00", ""))}, "", 0},
		{"until it expires", 0, []kind.Publication{ends(here("phone", "11:00:00", ""), time.Minute)}, `[1,5]`, time.Minute},
		{"then the other", time.Minute, []kind.Publication{ends(here("phone", "11:00:00", ""), time.Minute), here("pc", "10:00:00", "")}, `[1,2]`, 0},
		{"what may not be kept is not", 0, []kind.Publication{here("phone", "11:00:00", `,"rules":{"retention":"2026-03-09T12:00:00Z"}`)}, "", 0},
		{"until it may not be", 0, []kind.Publication{here("phone", "11:00:00", `,"rules":{"retention":"2026-03-09T12:00:05Z"}`)}, `[1,5]`, 5 * time.Second},
		{"two halves of two sources are not one", 0, []kind.Publication{here("phone", "11:00:01", ""), pub("pc", `{"at":"2026-03-09T11:00:00Z","civic":{"country":"US"}}`)}, `[1,5]}}`, 0},
	} {
		k := New([]byte("key"))
		composed, err := k.Compose(noon.Add(c.now), bob, c.pubs)
		if err != nil {
			t.Fatal(err)
		}
		got := string(k.Encode(composed).Body)
		expires := time.Time{}
		if c.expires != 0 {
			expires = noon.Add(c.expires)
		}
		if c.want == "" && got != neutralBob || !strings.Contains(got, c.want) || !composed.Expires.Equal(expires) {
			t.Errorf("%s: %s until %s, want %s until %s", c.name, got, composed.Expires, c.want, expires)
		}
	}
	if _, err := New(nil).Compose(noon, bob, []kind.Publication{pub("phone", `{"lat":91}`)}); !errors.Is(err, kind.ErrInvalid) || !strings.Contains(err.Error(), "phone") {
		t.Errorf("%v", err)
	}
}

// A document that says that it may not be kept, or is a day old and does not
// say that it may, is refused when it comes in.
func TestRetention(t *testing.T) {
	for body, ok := range map[string]bool{
		`{}`:                            true,
		`{"at":"2026-03-08T12:00:01Z"}`: true,
		`{"at":"2026-03-08T12:00:00Z"}`: false,
		`{"rules":{"retention":"2026-03-09T12:00:01Z"}}`:                             true,
		`{"rules":{"retention":"2026-03-09T12:00:00Z"}}`:                             false,
		`{"at":"2020-01-01T00:00:00Z","rules":{"retention":"2026-03-10T00:00:00Z"}}`: true,
	} {
		k := New(nil)
		v, err := k.Parse(bob, kind.Document{Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Retained(v, noon); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		} else if err != nil {
			checkRefusal(t, err)
		}
	}
}

// A track is shown to whom each position would be, and to those who are shown a
// circle it is the circle, once.
func TestTrack(t *testing.T) {
	k := New([]byte("key"))
	p := pub("phone", `{"at":"2026-03-09T12:00:03Z","lat":44.8823,"lon":-93.2218,"method":"GPS","civic":{"country":"US"},"track":[
		{"at":"2026-03-09T12:00:00Z","pos":[44.8820,-93.2218]},{"at":"2026-03-09T12:00:01Z","pos":[44.8821,-93.2218]},{"at":"2026-03-09T12:00:02Z","pos":[44.8822,-93.2218,256]}]}`)
	events, err := k.Track(bob, &p)
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for _, c := range []struct {
		grant string
		want  []string
	}{
		{"radius=0", []string{`44.882,-93.2218]},"method":"GPS"}`, `44.8821,-93.2218]},"method":"GPS"}`, `44.8822,-93.2218,256]},"method":"GPS"}`}},
		{"radius=10000", []string{`[44.891501,-93.227397],"radius":10000}}`}},
		{"civic=full", []string{neutralBob}},
		{"", []string{neutralBob}},
	} {
		var got []string
		for _, e := range events {
			got = append(got, string(k.Encode(k.View(e, grant(c.grant))).Body))
		}
		got = slices.Compact(got)
		if !slices.EqualFunc(got, c.want, strings.HasSuffix) {
			t.Errorf("%s: %q, want %q", c.grant, got, c.want)
		}
	}
	if state := shown(t, noon, grant(everything), p); !strings.Contains(state, "44.8823") || strings.Contains(state, "44.8822") {
		t.Errorf("the state is %s", state)
	}
	if _, err := k.Track(bob, &kind.Publication{Doc: kind.Document{Body: []byte(`{`)}}); !errors.Is(err, kind.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// What is kept reads as what was published, without its track; what is damaged
// or of a later version is not read.
func TestStoredForm(t *testing.T) {
	k := New([]byte("key"))
	v, err := k.Parse(bob, kind.Document{Body: []byte(strings.Replace(gps, `"method"`, `"track":[{"at":"2026-03-09T11:58:00Z","pos":[1,2]}],"method"`, 1))})
	if err != nil {
		t.Fatal(err)
	}
	stored := k.Store(bob, v)
	const want = "\x01" + `{"entity":"pres:bob@example.com","at":"2026-03-09T11:58:12Z","shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.8848,-93.214],"radius":50,"confidence":0.95},"method":"GPS","heading":90,"speed":1.5,"civic":{"country":"US","A1":"Minnesota","A3":"Minneapolis","HNO":"4300","RD":"Glumack","ROOM":"7"},"rules":{"retransmission":false,"noteWell":{"en":"do not pass on"}},"floor":"2"}`
	if string(stored) != want {
		t.Errorf("got  %q\nwant %q", stored, want)
	}
	back, err := k.Restore(bob, stored)
	if err != nil || string(k.Store(bob, back)) != want {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "\x02{}", "\x00{}", "\x01{", "\x01"} {
		if _, err := k.Restore(bob, []byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
