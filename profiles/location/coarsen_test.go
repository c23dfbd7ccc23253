package location

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	_ "github.com/bellwire/bellwire/internal/fixedseed"
	"github.com/bellwire/bellwire/profiles/kind"
)

var bob = kind.Resource{Kind: "location", Addr: kind.Of("bob@example.com")}

// The computed vectors of the requirements: the cells of the grid and the
// circles to choose from, and how likely somebody is within a place.
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/geo.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Obfuscation []struct {
			D1, D2, X, Y, Lon, Lat, O float64
			I, J                      float64
			Case, Name                string
			Centers                   map[string][2]float64
			Radius                    int64 `json:"radius_m"`
		}
		Containment []struct {
			Who         string
			Lat, Lon    float64
			Uncertainty float64 `json:"uncertainty_m"`
			Distance    float64 `json:"distance_m"`
			Probability float64
			Inside      bool
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Obfuscation) != 4 || len(file.Containment) != 5 {
		t.Fatalf("%d and %d vectors, want 4 and 5", len(file.Obfuscation), len(file.Containment))
	}
	near := func(a, b, within float64) bool { return math.Abs(a-b) <= within }
	for _, v := range file.Obfuscation {
		c := cellOf(position{lat: v.Lat, lon: v.Lon}, v.Radius)
		name, corners := c.which()
		if !near(c.d1, v.D1, 5e-7) || !near(c.d2, v.D2, 5e-7) || c.i != v.I || c.j != v.J || !near(c.x, v.X, 5e-5) ||
			!near(c.y, v.Y, 5e-5) || c.origin != v.O || fmt.Sprint("C", name) != v.Case {
			t.Errorf("%s: %+v, case C%d, want %+v", v.Name, c, name, v)
		}
		names := map[vertex]string{southWest: "SW", southEast: "SE", northWest: "NW", northEast: "NE"}
		for n, p := range c.landmarks() {
			want, ok := v.Centers[names[corners[n]]]
			if !ok || p.lon != want[0] || p.lat != want[1] {
				t.Errorf("%s: %s %v, want %v", v.Name, names[corners[n]], p, v.Centers)
			}
		}
		if len(corners) != len(v.Centers) {
			t.Errorf("%s: %d circles, want %d", v.Name, len(corners), len(v.Centers))
		}
		// The same through a document and a policy.
		text := shown(t, noon, grant(fmt.Sprint("radius=", v.Radius)), pub("phone", fmt.Sprintf(`{"lat":%v,"lon":%v}`, v.Lat, v.Lon)))
		found := false
		for _, want := range v.Centers {
			found = found || strings.Contains(text, fmt.Sprintf(`"pos":[%v,%v],"radius":%d}`, want[1], want[0], v.Radius))
		}
		if !found {
			t.Errorf("%s: %s, want one of %v", v.Name, text, v.Centers)
		}
	}
	msp := Circle{Lat: 44.8820, Lon: -93.2218, Radius: 2500}
	for _, v := range file.Containment {
		around := Circle{v.Lat, v.Lon, v.Uncertainty}
		p := msp.Holds(around)
		if d := msp.pos().distance(around.pos()); !near(d, v.Distance, 0.05) || !near(p, v.Probability, 5e-5) || p >= 0.5 != v.Inside {
			t.Errorf("%s: %.1f m, %.4f, want %.1f m, %.4f, %v", v.Who, d, p, v.Distance, v.Probability, v.Inside)
		}
	}
}

// The areas of RFC 7459 section 6.3, with the inputs that its figures follow
// from.
func TestOverlapOfRFC7459(t *testing.T) {
	if area := overlap(1950, 99.1, 1915.26); math.Abs(area-22030) > 30 {
		t.Errorf("%.0f m², want 22030", area)
	}
	if share := overlap(1950, 99.1, 1915.26) / (math.Pi * 99.1 * 99.1); math.Abs(share*usual-0.678) > 0.001 {
		t.Errorf("%.4f, want 0.678", share*usual)
	}
	for _, c := range []struct{ r, u, d, want float64 }{
		{100, 10, 0, math.Pi * 100}, {10, 100, 0, math.Pi * 100}, {10, 10, 20, 0}, {10, 10, 0, math.Pi * 100}, {10, 10, 1e9, 0},
	} {
		if got := overlap(c.r, c.u, c.d); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if (Circle{0, 0, 100}).Holds(Circle{0, 0, 0}) != usual || (Circle{0, 0, 100}).Holds(Circle{1, 0, 0}) != 0 {
		t.Error("a point is in a place or not")
	}
}

// The cosines that are written down are those of the bands.
func TestBands(t *testing.T) {
	until := 0.0
	for i, b := range bands {
		if math.Abs(b.cos-math.Cos(b.origin*math.Pi/180)) > 1e-15 || b.until <= until || b.origin > until {
			t.Errorf("band %d: %+v", i, b)
		}
		// Cells are never wider than at the band's edge, nor less than half as wide.
		if narrow := math.Cos(b.until*math.Pi/180) / b.cos; narrow < 0.5 || narrow > 1 {
			t.Errorf("band %d: cells are %.2f as wide at %v degrees", i, narrow, b.until)
		}
		until = b.until
	}
	for lat, origin := range map[float64]float64{
		0: 0, 24.999: 0, 25: 25, -25: -25, 49.999: 25, 50: 45, -60: -55, 65: 60, 70: 60, -70: -60, 70.001: 70, 85: 83, -85: -83,
	} {
		if got := bandOf(lat).origin; got != origin {
			t.Errorf("%v: origin %v, want %v", lat, got, origin)
		}
	}
}

func drawPosition(t *rapid.T) position {
	lat := rapid.OneOf(rapid.Float64Range(-90, 90), rapid.SampledFrom([]float64{90, -90, 85, -85, 84.99, 70, 70.00001, 50, 25, -25, 0})).Draw(t, "lat")
	lon := rapid.OneOf(rapid.Float64Range(-180, 180), rapid.SampledFrom([]float64{180, -180, 179.9999999, -179.9999999, 0})).Draw(t, "lon")
	return position{lat: lat, lon: lon}.canonical()
}

func drawRadius(t *rapid.T, label string) int64 {
	return rapid.OneOf(rapid.Int64Range(1, MaxRadius), rapid.SampledFrom([]int64{1, 10, 100, 1000, 10_000, 100_000, MaxRadius})).Draw(t, label)
}

// Wherever somebody is, the circle that is shown holds them; it is as large as
// was asked for, and larger only around the poles and where the source itself
// knows no better; its middle is a position that can be written.
func TestCircleHoldsTheTarget(t *testing.T) {
	k := New([]byte("key"))
	rapid.Check(t, func(t *rapid.T) {
		at, metres := drawPosition(t), drawRadius(t, "radius")
		s := circle(at, rapid.SampledFrom([]float64{0, 0.5, 30, 5000, 1e6, maxReach}).Draw(t, "error"))
		c := k.coarsened(s, metres, bob.Addr)
		if d := c.pos.distance(at); d > c.radius {
			t.Errorf("%v is %.0f m from %v, beyond %.0f", at, d, c.pos, c.radius)
		}
		if want := float64(max(metres, atLeast(s.radius))); c.radius != want && (math.Abs(at.lat) <= polar || c.radius != polarRadius) {
			t.Errorf("radius %v, want %v", c.radius, want)
		}
		if c.radius < s.radius || c.radius > maxReach || c.pos != c.pos.canonical() || c.form != formCircle || c.confidence != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// What is shown follows from the cell and the case: another place of the same
// cell and case has the same circle, so that no number of circles tells more.
func TestOneCircleForOneCell(t *testing.T) {
	k, again := New([]byte("key")), New([]byte("key"))
	rapid.Check(t, func(t *rapid.T) {
		at, metres := drawPosition(t), drawRadius(t, "radius")
		if math.Abs(at.lat) > polar {
			t.Skip("no cells")
		}
		c := cellOf(at, metres)
		other := position{
			lat: c.origin + (c.j+rapid.Float64Range(0, 1).Draw(t, "y"))*c.d2, lon: (c.i + rapid.Float64Range(0, 1).Draw(t, "x")) * c.d1,
		}
		if math.Abs(other.lat) >= polar || bandOf(other.lat) != bandOf(at.lat) || math.Abs(other.lon) >= 180 {
			t.Skip("the cell ends before")
		}
		d := cellOf(other, metres)
		one, _ := c.which()
		two, _ := d.which()
		if d.i != c.i || d.j != c.j || one != two {
			t.Skip("another cell or case")
		}
		x, y := k.coarsened(circle(at, 0), metres, bob.Addr), again.coarsened(circle(other, 0), metres, bob.Addr)
		if x.pos != y.pos || x.radius != y.radius {
			t.Errorf("%v and %v are in one cell, and have %+v and %+v", at, other, x, y)
		}
	})
}

// Who publishes the same place a thousand times, each time with another error
// that does not take it out of its cell, shows one circle: there is nothing to
// average. Of two circles that are as good the choice is the owner's for good,
// and over many owners it falls either way.
func TestNothingToAverage(t *testing.T) {
	k := New([]byte("key"))
	home := position{lat: 44.882, lon: -93.2218}
	circles := map[position]int{}
	for i := range 1000 {
		fix := position{lat: home.lat + 1e-4*math.Sin(float64(i)), lon: home.lon + 1e-4*math.Cos(float64(i))}
		circles[k.coarsened(circle(fix.canonical(), float64(5+i%40)), 10_000, bob.Addr).pos]++
	}
	if len(circles) != 1 {
		t.Errorf("%v", circles)
	}
	denver := circle(position{lat: 40, lon: -105}, 0)
	chosen := map[position]int{}
	for i := range 1000 {
		owner := kind.Addr{Local: fmt.Sprint("p", i), Domain: "example.com"}
		c := k.coarsened(denver, 100_000, owner)
		chosen[c.pos]++
		if New([]byte("key")).coarsened(denver, 100_000, owner).pos != c.pos {
			t.Fatalf("%s has two circles", owner)
		}
	}
	for at, n := range chosen {
		if len(chosen) != 2 || n < 400 {
			t.Errorf("%d of 1000 have %v, of %d", n, at, len(chosen))
		}
	}
}

// A place has one circle whichever way it is written.
func TestOnePlaceOnePosition(t *testing.T) {
	for _, c := range [][2]string{
		{`{"lat":10,"lon":180}`, `{"lat":10,"lon":-180}`},
		{`{"lat":90,"lon":17}`, `{"lat":90.0,"lon":-120.5}`},
		{`{"lat":-0.0,"lon":-0.0}`, `{"lat":0,"lon":0}`},
		{`{"lat":1.00000000001,"lon":2}`, `{"lat":1,"lon":2.00000000001}`},
		{`{"type":"Point","coordinates":[180,-90]}`, `{"lat":-90,"lon":0}`},
	} {
		for _, g := range []string{"radius=0", "radius=10", "radius=5000"} {
			a, b := shown(t, noon, grant(g), pub("phone", c[0])), shown(t, noon, grant(g), pub("phone", c[1]))
			if a != b || !strings.Contains(a, "pos") {
				t.Errorf("%s and %s: %s and %s", c[0], c[1], a, b)
			}
		}
	}
}
