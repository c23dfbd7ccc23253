package location

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/kind/kindtest"
)

// Location obeys the laws of all kinds.
func TestLaws(t *testing.T) {
	kindtest.Test(t, kindtest.Suite{
		New:       func() kind.Kind { return New([]byte("key")) },
		Documents: documents,
		Tokens:    map[string][]string{permUnknown: {"floor", "w3w"}},
		Reveals:   reveals,
		Same: func(parsed, composed any) bool {
			return bytes.Equal(parsed.(*document).encode(bob), composed.(*document).encode(bob))
		},
	})
}

// documents makes up publications in each of the forms.
func documents(kind.Resource) *rapid.Generator[kind.Document] {
	return rapid.Custom(func(t *rapid.T) kind.Document {
		pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
		lat := pick("lat", "44.8848", "44.9", "-33.857", "0", "90", "-84.99", "71.5")
		lon := pick("lon", "-93.214", "-93.3", "151.215", "180", "-180", "0")
		more := pick("at", "", `,"at":"2026-03-09T13:00:01Z"`, `,"at":"2026-03-09T13:00:02Z"`, `,"at":"2027-01-01T00:00:00Z"`) +
			pick("civic", "", `,"civic":{"country":"US"}`, `,"civic":{"country":"US","A1":"Minnesota","A3":"Minneapolis","RD":"Glumack","ROOM":"7"}`, `,"civic":{"FLR":"2"}`) +
			pick("method", "", `,"method":"GPS"`, `,"method":"Manual"`, `,"method":"dreams"`) +
			pick("motion", "", `,"heading":360,"speed":0`, `,"speed":2.5`) +
			pick("rules", "", `,"rules":{}`, `,"rules":{"retransmission":true,"noteWell":"x"}`, `,"rules":{"retention":"2026-03-09T13:00:08Z"}`)
		if rapid.IntRange(0, 3).Draw(t, "geojson") == 0 {
			return kind.Document{ContentType: TypeGeoJSON, Body: fmt.Appendf(nil,
				`{"type":"Feature","geometry":{"type":"Point","coordinates":[%s,%s]},"properties":{"accuracy":20%s}}`, lon, lat, more)}
		}
		more += pick("floor", "", `,"floor":"2"`, `,"floor":{"b":1,"a":[]}`) + pick("w3w", "", `,"w3w":"a.b.c"`)
		where := pick("shape", "", "short", "accurate", "high", "circle", "polygon")
		switch where {
		case "short":
			where = fmt.Sprintf(`"lat":%s,"lon":%s`, lat, lon)
		case "accurate":
			where = fmt.Sprintf(`"lat":%s,"lon":%s,"accuracy":%s`, lat, lon, pick("accuracy", "3", "700", "90000", "1048576"))
		case "high":
			where = fmt.Sprintf(`"lat":%s,"lon":%s,"altitude":3`, lat, lon)
		case "circle":
			where = fmt.Sprintf(`"shape":{"type":"Circle","pos":[%s,%s],"radius":50,"confidence":0.95}`, lat, lon)
		case "polygon":
			where = `"shape":{"type":"Polygon","posList":[[44.89,-93.23],[44.87,-93.23],[44.87,-93.20],[44.89,-93.23]]}`
		default:
			return kind.Document{ContentType: TypeJSON, Body: []byte("{" + strings.TrimPrefix(more, ",") + "}")}
		}
		return kind.Document{ContentType: TypeJSON, Body: []byte("{" + where + more + "}")}
	})
}

// reveals returns what less says that more does not.
func reveals(more, less any) string {
	m, l := more.(*document), less.(*document)
	switch {
	case l == neutral:
		return ""
	case l.shape != nil && m.shape == nil:
		return "where"
	case l.shape != nil && m.shape.coarse > 0 && (l.shape.coarse == 0 || l.shape.coarse < m.shape.coarse || l.shape.radius < m.shape.radius):
		return fmt.Sprintf("a circle of %v", l.shape.radius)
	case l.shape != nil && l.shape.coarse == 0 && (l.method != m.method || l.heading != m.heading || l.speed != m.speed):
		return "how"
	case !l.at.Equal(m.at) && !l.at.Equal(m.at.Truncate(coarseTime)):
		return "when " + l.at.Format(time.RFC3339)
	}
	for _, e := range l.civic {
		if !slices.Contains(m.civic, e) {
			return e.name
		}
	}
	for _, x := range l.ext {
		if !slices.Contains(m.ext, x) {
			return x.name
		}
	}
	return ""
}

// Whoever is shown no more than a circle or a city gets nothing from which more
// could be read: their documents are the same for every place, way and hour
// that these say.
func TestLessTellsLess(t *testing.T) {
	k := New([]byte("key"))
	rapid.Check(t, func(t *rapid.T) {
		doc := documents(bob).Draw(t, "document")
		at := base(t)
		c, err := k.Compose(at, bob, []kind.Publication{{Source: "phone", Published: at.Add(-time.Minute), Doc: doc}})
		if err != nil {
			t.Fatal(err)
		}
		g := kind.NewGrant(kind.Perm{Name: permRadius, Type: kind.PermMin, N: rapid.Int64Range(10_000, MaxRadius).Draw(t, "radius")},
			kind.Perm{Name: permCivic, Type: kind.PermMax, N: levelCity})
		text := string(k.Encode(k.View(c, g)).Body)
		for _, secret := range []string{"[44.8848,", ",-93.214]", "Polygon", "RD", "ROOM", "method", "speed", "heading", "altitude", "confidence", "EPSG:4979", ":01Z", ":02Z", "w3w", "floor"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s tells %s, of %s", text, secret, doc.Body)
			}
		}
	})
}

func base(t *rapid.T) time.Time {
	return time.Date(2026, 3, 9, 13, rapid.IntRange(0, 59).Draw(t, "minute"), 0, 0, time.UTC)
}

// Whatever the bytes, a document is read, and what is written of it reads as
// the same, is coarsened, and shows no more by less.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		gps, `{"lat":1,"lon":180}`, `{"type":"Point","coordinates":[1e2,-9e1,3]}`,
		`{"type":"Feature","geometry":{"type":"LineString","coordinates":[[1,2],[3,4]]},"properties":{"coordTimes":["2026-03-09T11:00:00Z","2026-03-09T11:00:01Z"]}}`,
		`{"shape":{"type":"Polygon","posList":[[44.89,-93.23],[44.87,-93.23],[44.87,-93.20],[44.89,-93.23]]}}`,
		`{"type":"Polygon","coordinates":[[[179,1],[-179,1],[-179,2],[179,1]]]}`,
		`{"track":[{"at":"2026-03-09T11:00:00Z","pos":[1,2]}],"rules":{"noteWell":{"en":"x"},"retention":"2026-03-10T11:00:00Z"}}`,
		`{"lat":89.9999999,"lon":-179.9999999,"accuracy":2097152}`,
	} {
		f.Add([]byte(s), int64(1000))
	}
	k := New([]byte("key"))
	f.Fuzz(func(t *testing.T, body []byte, radius int64) {
		v, err := k.Parse(bob, kind.Document{Body: body})
		if err != nil {
			checkRefusal(t, err)
			return
		}
		p := kind.Publication{Source: "pc", Published: noon, Value: v}
		c, err := k.Compose(noon, bob, []kind.Publication{p})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Track(bob, &p); err != nil {
			t.Fatal(err)
		}
		radius = max(1, min(radius, MaxRadius))
		coarse := kind.NewGrant(kind.Perm{Name: permRadius, Type: kind.PermMin, N: radius})
		for _, g := range []kind.Grant{{}, kind.Most(permissions), coarse} {
			view := k.View(c, g)
			doc := k.Encode(view)
			if len(doc.Body) > maxBytes {
				return // escapes made it longer
			}
			again, err := k.Parse(bob, doc)
			if err != nil {
				t.Fatalf("%s\nwas written of %q: %v", doc.Body, body, err)
			}
			if got := again.(*document).encode(bob); !bytes.Equal(got, doc.Body) {
				t.Fatalf("%s\nreads as %s", doc.Body, got)
			}
			if twice := k.Encode(k.View(view, g)); !bytes.Equal(twice.Body, doc.Body) {
				t.Fatalf("%s\nviewed again is %s", doc.Body, twice.Body)
			}
			if what := reveals(c.Value, view.Value); what != "" {
				t.Fatalf("%s tells %s", doc.Body, what)
			}
		}
	})
}
