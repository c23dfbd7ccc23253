package location

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/jsontree"
)

// A document is where somebody is as one source says it, or what a grant shows
// of that. It never changes once it is made.
type document struct {
	at    time.Time // zero if not said
	shape *shape    // nil: not said
	civic []civic   // sorted by compare
	rules rules
	ext   []extension // sorted by name

	// With the shape, as the source said it. Negative if not said.
	method         string
	heading, speed float64 // degrees from north, clockwise; metres a second

	track []fix // earlier positions, oldest first; of a publication only
}

// A form is what a shape is.
type form uint8

const (
	formPoint form = iota
	formCircle
	formPolygon
)

var formNames = [...]string{formPoint: "Point", formCircle: "Circle", formPolygon: "Polygon"}

// A shape is where the target is, somewhere within. Positions are multiples of
// precision.
type shape struct {
	form       form
	pos        position   // of a point, or the middle of a circle
	radius     float64    // of a circle: metres, greater than 0
	ring       []position // of a polygon: closed, counter-clockwise
	confidence float64    // how likely it is within; 0 if not said

	// coarse is the radius that the shape was coarsened to, in metres: it is
	// not coarsened to less again, for its middle is no position. 0: it was
	// not.
	coarse int64
}

// A position is in degrees: latitude in [-90, 90], longitude in [-180, 180).
// Each place on earth is one position: at a pole the longitude is 0.
type position struct {
	lat, lon float64
	alt      float64 // metres above the ellipsoid
	hasAlt   bool
}

// A fix is an earlier position of a track.
type fix struct {
	at  time.Time
	pos position
}

// A civic is one element of a civic address (RFC 5139): {"A3", "Minneapolis"}.
type civic struct{ name, value string }

// levels says from which level on an element is shown (RFC 6772 section 6.5.1).
// What is not here is shown at the level "full".
var levels = map[string]int64{
	"country": levelCountry,
	"A1":      levelRegion,
	"A2":      levelCity, "A3": levelCity,
	"A4": levelBuilding, "A5": levelBuilding, "A6": levelBuilding, "PRM": levelBuilding, "PRD": levelBuilding,
	"RD": levelBuilding, "STS": levelBuilding, "STP": levelBuilding, "POD": levelBuilding, "POM": levelBuilding,
	"RDSEC": levelBuilding, "RDBR": levelBuilding, "RDSUBBR": levelBuilding, "HNO": levelBuilding, "HNS": levelBuilding,
	"HNP": levelBuilding, "LMK": levelBuilding, "LOC": levelBuilding, "PC": levelBuilding, "BLD": levelBuilding,
}

func (c civic) level() int64 {
	if l, ok := levels[c.name]; ok {
		return l
	}
	return levelFull
}

// compare puts what is less exact first.
func (c civic) compare(d civic) int {
	return cmp.Or(cmp.Compare(c.level(), d.level()), strings.Compare(c.name, d.name))
}

// Rules are what whoever receives a document must heed (RFC 4119 section
// 2.2.2).
type rules struct {
	retransmission bool
	retention      time.Time // nobody may have it from then on; zero if not said
	noteWell       jsontree.Value
}

func (r *rules) empty() bool {
	return !r.retransmission && r.retention.IsZero() && r.noteWell.Kind() == jsontree.Null
}

// An extension is a member that this package does not know.
type extension struct {
	name string
	text string // JSON, in one form
}

// silent says whether the document says nothing of where anybody is.
func (d *document) silent() bool { return d.shape == nil && len(d.civic)+len(d.ext) == 0 }

// methods are ways to find a position (RFC 4119 section 6.1), the better first.
var methods = []string{"GPS", "A-GPS", "DGPS", "Galileo", "GLONASS", "802.11", "Triangulation", "TA", "Cell", "DHCP", "Derived", "Manual"}

// rank is the place of the document's method among methods, one that is not
// known there last.
func (d *document) rank() int {
	if i := slices.Index(methods, d.method); i >= 0 {
		return i
	}
	return len(methods)
}
