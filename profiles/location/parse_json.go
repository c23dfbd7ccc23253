package location

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Bounds of one publication.
const (
	maxWord    = 64
	maxCivic   = 64  // elements
	maxElement = 255 // bytes of one, as in RFC 4776
	maxNote    = 1024
	maxNotes   = 20
	maxRing    = 16      // positions of a polygon, the first again at the end (RFC 5491)
	maxTrack   = 200     // earlier positions
	maxReach   = 1 << 21 // metres; no circle is coarsened to more
	maxSpeed   = 1e6     // metres a second
	minAlt     = -1e5
	maxAlt     = 1e9
)

// precision is what positions are rounded to, in degrees: about a centimetre.
// What a source writes beyond that is noise, and a digit of it could be bent
// to carry something.
const precision = 1e-7

func parse(r kind.Resource, doc kind.Document) (any, error) {
	tree, err := jsontree.Parse(doc.Body, doc.JSON())
	if err != nil {
		return nil, kind.RefuseJSON(err)
	}
	var p parser
	root := tree.Root()
	var d *document
	if doc.ContentType == TypeGeoJSON || doc.ContentType == "" && isGeoJSON(root) {
		d = p.geoJSON(r, root)
	} else {
		d = p.document(r, root)
	}
	if p.unsupported != nil {
		return nil, p.unsupported
	}
	if err := tree.Err(); err != nil {
		return nil, kind.RefuseJSON(err)
	}
	return d, nil
}

// A parser makes a document of a tree. unsupported is the first thing in it
// that is not wrong, and yet not understood here.
type parser struct{ unsupported *kind.Refusal }

func (p *parser) refuse(n *jsontree.Node, format string, args ...any) {
	if p.unsupported == nil {
		p.unsupported = kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, n.Pointer(), fmt.Sprintf(format, args...))
	}
}

func newDocument() *document { return &document{heading: -1, speed: -1} }

func (p *parser) document(r kind.Resource, n *jsontree.Node) *document {
	d := newDocument()
	m := n.Members()
	r.CheckEntity(m.Take("entity"))
	d.at = m.Take("at").Time()
	if s := m.Take("shape"); s != nil {
		d.shape = p.shape(s)
	}
	p.short(d, n, m)
	p.motion(d, m)
	d.civic = readCivic(m.Take("civic"))
	d.rules = readRules(m.Take("rules"))
	p.track(d, m.Take("track"))
	d.ext = readExtensions(m)
	return d
}

// short reads a position that is written without a shape: "lat", "lon",
// "altitude", "accuracy".
func (p *parser) short(d *document, n *jsontree.Node, m *jsontree.Members) {
	lat, lon, alt, accuracy := m.Take("lat"), m.Take("lon"), m.Take("altitude"), m.Take("accuracy")
	if lat == nil && lon == nil && alt == nil && accuracy == nil {
		return
	}
	switch {
	case d.shape != nil:
		n.Fault(`the position is said twice: leave out either "shape" or "lat" and "lon"`)
		return
	case lat == nil || lon == nil:
		n.Fault(`a position has both "lat" and "lon"`)
		return
	}
	pos := position{lat: readLat(lat), lon: readLon(lon)}
	if alt != nil {
		pos.alt, pos.hasAlt = rounded(alt.Float(minAlt, maxAlt), 0.01), true
	}
	d.shape = circle(pos.canonical(), readRadius(accuracy))
}

// motion reads what a source knows about its position beside where that is.
func (*parser) motion(d *document, m *jsontree.Members) {
	d.method = readWord(m.Take("method"))
	if h := m.Take("heading"); h != nil && h.Kind() != jsontree.Null {
		d.heading = math.Mod(h.Float(0, 360), 360)
	}
	if s := m.Take("speed"); s != nil && s.Kind() != jsontree.Null {
		d.speed = s.Float(0, maxSpeed)
	}
}

func readWord(n *jsontree.Node) string {
	s := n.Text(1, maxWord)
	if strings.TrimSpace(s) != s {
		n.Fault("blanks around %q", s)
	}
	return s
}

// canonical is the one position that stands for the place: as others could be
// written, a place would have two circles.
func (p position) canonical() position {
	p.lat, p.lon = rounded(p.lat, precision), rounded(p.lon, precision)
	if p.lon >= 180 {
		p.lon -= 360
	}
	if math.Abs(p.lat) == 90 {
		p.lon = 0
	}
	return p
}

// rounded returns the multiple of unit that is nearest to f, and never -0.
func rounded(f, unit float64) float64 {
	per := math.Round(1 / unit)
	return math.Round(f*per)/per + 0
}

func readLat(n *jsontree.Node) float64 { return n.Float(-90, 90) }
func readLon(n *jsontree.Node) float64 { return n.Float(-180, 180) }

// readRadius reads metres, to the centimetre; 0 if absent.
func readRadius(n *jsontree.Node) float64 {
	if n == nil || n.Kind() == jsontree.Null {
		return 0
	}
	return rounded(n.Float(0, maxReach), 0.01)
}

// circle returns the circle around a position, the position itself if that is
// known exactly.
func circle(pos position, radius float64) *shape {
	if radius == 0 {
		return &shape{pos: pos}
	}
	return &shape{form: formCircle, pos: pos, radius: radius}
}

func (p *parser) shape(n *jsontree.Node) *shape {
	m := n.Members()
	kindOf := m.Need("type")
	p.crs(m.Take("crs"))
	var s *shape
	switch what := kindOf.Text(1, maxWord); what {
	case "Point":
		s = &shape{pos: readPos(m.Need("pos"), latFirst)}
	case "Circle":
		radius := m.Need("radius")
		s = circle(readPos(m.Need("pos"), latFirst), readRadius(radius))
	case "Polygon":
		s = &shape{form: formPolygon, ring: p.ring(m.Need("posList"), latFirst)}
	case "":
		return nil
	default:
		p.refuse(kindOf, "%q is not understood here: write Point, Circle or Polygon", what)
		return nil
	}
	if c := m.Take("confidence"); c != nil {
		if s.confidence = c.Float(0, 1); s.confidence == 0 && c.Kind() == jsontree.Number {
			c.Fault("how likely the target is within must be greater than 0, and at most 1")
		}
	}
	faultRest(m, "a shape has a type, a crs, pos or posList, radius and confidence")
	return s
}

// crs refuses systems of coordinates other than WGS 84.
func (p *parser) crs(n *jsontree.Node) {
	switch s := n.Text(1, 255); s {
	case "", crs2D, crs3D, "urn:ogc:def:crs:EPSG::4326", "urn:ogc:def:crs:EPSG::4979":
	default:
		p.refuse(n, "%q is not understood here: write positions in %s, latitude first", s, crs2D)
	}
}

// WGS 84, without height and with it.
const (
	crs2D = "EPSG:4326"
	crs3D = "EPSG:4979"
)

// Orders of the two coordinates.
const (
	latFirst = false
	lonFirst = true
)

// readPos reads [latitude, longitude] and perhaps a height, or with longitude
// first.
func readPos(n *jsontree.Node, lonFirst bool) position {
	list := n.List(3)
	if len(list) < 2 {
		if n != nil && n.Kind() == jsontree.Array && n.Len() < 2 {
			n.Fault("a position has two numbers, or three with the height in metres")
		}
		return position{}
	}
	lat, lon := list[0], list[1]
	if lonFirst {
		lat, lon = lon, lat
	}
	p := position{lat: readLat(lat), lon: readLon(lon)}
	if len(list) > 2 {
		p.alt, p.hasAlt = rounded(list[2].Float(minAlt, maxAlt), 0.01), true
	}
	return p.canonical()
}

// ring reads the positions of a polygon.
func (p *parser) ring(n *jsontree.Node, lonFirst bool) []position {
	if n != nil && n.Kind() == jsontree.Array && n.Len() < 4 {
		n.Fault("%d positions: a polygon has at least three, and the first again at the end", n.Len())
		return nil
	}
	var ring []position
	for _, at := range n.List(maxRing) {
		pos := readPos(at, lonFirst)
		pos.alt, pos.hasAlt = 0, false
		ring = append(ring, pos)
	}
	if ring == nil {
		return nil
	}
	clockwise, err := checkRing(ring)
	switch {
	case err != nil:
		n.Fault("%v", err)
	case clockwise && lonFirst:
		slices.Reverse(ring) // RFC 7946 section 3.1.6: readers are to bear it
	case clockwise:
		n.Fault("the positions go round clockwise: write them counter-clockwise, as seen from above")
	}
	return ring
}

// readCivic reads an object of strings.
func readCivic(n *jsontree.Node) []civic {
	if n != nil && n.Len() > maxCivic {
		n.Fault("%d elements, at most %d are possible", n.Len(), maxCivic)
		return nil
	}
	var all []civic
	for _, e := range n.Members().Rest() {
		name := e.Name()
		switch {
		case name == "" || len(name) > 32 || strings.ContainsFunc(name, notAlphanumeric):
			e.Fault("no element of an address has this name (RFC 5139): write country, A1, A3, RD, HNO, …")
		case e.Kind() == jsontree.Null:
		default:
			value := strings.TrimSpace(e.Text(1, maxElement))
			if name == "country" && !isCountry(value) && e.Kind() == jsontree.String {
				e.Fault("%q is no country: write its two letters, such as US", value)
			}
			if value != "" {
				all = append(all, civic{name, value})
			}
		}
	}
	slices.SortFunc(all, civic.compare)
	return all
}

func notAlphanumeric(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

func isCountry(s string) bool {
	return len(s) == 2 && 'A' <= s[0] && s[0] <= 'Z' && 'A' <= s[1] && s[1] <= 'Z'
}

func readRules(n *jsontree.Node) rules {
	var r rules
	m := n.Members()
	if t := m.Take("retransmission"); t != nil {
		r.retransmission = t.Bool()
	}
	r.retention = m.Take("retention").Time()
	r.noteWell = kind.ReadTexts(m.Take("noteWell"), maxNotes, maxNote)
	faultRest(m, `the rules are "retransmission", "retention" and "noteWell"`)
	return r
}

// track reads earlier positions. If the document says none for the present, the
// last of them is it.
func (p *parser) track(d *document, n *jsontree.Node) {
	for _, at := range n.List(maxTrack) {
		m := at.Members()
		f := fix{at: m.Need("at").Time(), pos: readPos(m.Need("pos"), latFirst)}
		faultRest(m, `an earlier position has "at" and "pos"`)
		d.track = append(d.track, f)
	}
	if len(d.track) == 0 {
		return
	}
	if d.shape == nil {
		last := d.track[len(d.track)-1]
		d.track = d.track[:len(d.track)-1]
		if d.at.IsZero() {
			d.at = last.at
		}
		d.shape = &shape{pos: last.pos}
	}
	checkOrder(n, d)
}

// checkOrder faults a track whose instants do not follow each other: it would
// have been another way.
func checkOrder(n *jsontree.Node, d *document) {
	var before time.Time
	for _, f := range append(slices.Clone(d.track), fix{at: d.at}) {
		if !f.at.IsZero() && !f.at.After(before) {
			n.Fault("the position at %s does not come after the one before it", jsontree.FormatTime(f.at))
			return
		}
		if !f.at.IsZero() {
			before = f.at
		}
	}
}

// readExtensions takes what is left over.
func readExtensions(m *jsontree.Members) []extension {
	var all []extension
	for _, n := range m.Rest() {
		if n.Kind() != jsontree.Null {
			all = append(all, extension{n.Name(), n.Value.String()})
		}
	}
	return all
}

func faultRest(m *jsontree.Members, what string) {
	for _, rest := range m.Rest() {
		rest.Fault("not known here: %s", what)
	}
}
