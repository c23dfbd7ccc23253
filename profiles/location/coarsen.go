package location

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/bellwire/bellwire/profiles/kind"
)

// coarsened returns the circle that stands for a shape where a radius of metres
// is shown. It is no smaller than the shape is: one that cannot be located to
// less than five kilometres is not shown within one.
func (k *Kind) coarsened(s *shape, metres int64, target kind.Addr) *shape {
	if s.coarse >= metres {
		return s
	}
	middle, reach := s.middle()
	metres = max(metres, atLeast(reach))
	c := &shape{form: formCircle, radius: float64(metres), coarse: metres}
	if math.Abs(middle.lat) > polar {
		c.pos = position{lat: math.Copysign(90, middle.lat)}
		c.radius = max(c.radius, polarRadius)
		return c
	}
	cell := cellOf(middle, metres)
	corners := cell.landmarks()
	c.pos = corners[0]
	if len(corners) == 2 && k.second(cell, target) {
		c.pos = corners[1]
	}
	return c
}

// atLeast returns the least power of two that is not less than f: what a source
// says of its own error changes from one fix to the next, and the grid must
// not.
func atLeast(f float64) int64 {
	n := int64(1)
	for float64(n) < f {
		n *= 2
	}
	if f == 0 {
		return 0
	}
	return n
}

// Beyond this latitude there are no bands: everybody is around the pole.
const (
	polar       = 85      // degrees
	polarRadius = 556_000 // metres from there to the pole, and a little more
)

// A band is a zone of latitudes in which the cells of the grid have the same
// width in degrees, so that they are narrower the farther they are from the
// equator, by no more than the half. Up to 70 degrees the bands are those of
// RFC 6772 section 7.5, which ends there; the others go on likewise.
//
// Cosines are written down: computed ones may differ in the last digit on
// another processor, and a grid must not.
type band struct {
	until  float64 // degrees from the equator
	origin float64 // where the grid begins
	cos    float64 // of origin
}

var bands = []band{
	{25, 0, 1},
	{50, 25, 0.9063077870366499},
	{60, 45, 0.7071067811865476},
	{65, 55, 0.5735764363510462},
	{math.Nextafter(70, 71), 60, 0.5000000000000001},
	{76, 70, 0.3420201433256688},
	{80, 76, 0.24192189559966767},
	{83, 80, 0.17364817766693041},
	{math.Nextafter(polar, 90), 83, 0.12186934340514749},
}

func bandOf(lat float64) band {
	for _, b := range bands {
		if math.Abs(lat) < b.until {
			b.origin = math.Copysign(b.origin, lat)
			return b
		}
	}
	panic("location: no band holds a latitude of the pole")
}

// A cell is one of the grid for circles of one size, and a place in it.
type cell struct {
	metres int64
	origin float64 // latitude at which the grid begins
	d1, d2 float64 // width and height in degrees
	i, j   float64 // which cell, from the origin; whole numbers
	x, y   float64 // where in it: [0, 1) from its south-west corner
}

// cellOf finds the cell that holds p (RFC 6772 section 7.5, steps 4 and 5; but
// with floor((n-o)/d2) where the text has floor(n-o/d2)). The explicit
// conversions keep products from being fused with sums.
func cellOf(p position, metres int64) cell {
	km := float64(metres) / 1000
	b := bandOf(p.lat)
	c := cell{metres: metres, origin: b.origin, d1: float64(km*180) / float64(math.Pi*6367.5*b.cos), d2: km / 110.6}
	x, y := p.lon/c.d1, (p.lat-c.origin)/c.d2
	c.i, c.j = math.Floor(x), math.Floor(y)
	c.x, c.y = x-c.i, y-c.j
	return c
}

// landmarks returns the corners of the cell that are near enough to the place
// in it for a circle around them to hold it: one, or two that are as good as
// each other (RFC 6772 section 7.5, steps 6 and 7).
func (c *cell) landmarks() []position {
	_, corners := c.which()
	at := make([]position, len(corners))
	for n, corner := range corners {
		p := position{lat: c.origin + float64((c.j+corner.north)*c.d2), lon: (c.i + corner.east) * c.d1}
		p.lat = max(-90, min(90, p.lat))
		p.lon -= math.Floor((p.lon+180)/360) * 360
		p.lat, p.lon = rounded(p.lat, 1e-6), rounded(p.lon, 1e-6)
		at[n] = p.canonical()
	}
	return at
}

// A vertex is a corner of a cell: 0 or 1 cells to the east and north.
type vertex struct{ east, north float64 }

var (
	southWest = vertex{0, 0}
	southEast = vertex{1, 0}
	northWest = vertex{0, 1}
	northEast = vertex{1, 1}
)

// which returns the case of RFC 6772 section 7.5 step 6 that the place is, C1
// to C8, and the corners to choose from. Near a corner it is that corner; else
// the two of the side that is nearest.
func (c *cell) which() (name int, corners []vertex) {
	const p, q = 0.2887, 0.7113 // the square root of 3, by 6; and 1 less that
	west, east, south, north := c.x < p, c.x >= q, c.y < p, c.y >= q
	switch {
	case west && south:
		return 1, []vertex{southWest}
	case east && south:
		return 3, []vertex{southEast}
	case west && north:
		return 6, []vertex{northWest}
	case east && north:
		return 8, []vertex{northEast}
	}
	switch fromNorth, fromEast := 1-c.y, 1-c.x; {
	case c.y < c.x && c.y < fromEast:
		return 2, []vertex{southWest, southEast}
	case c.x <= c.y && c.x < fromNorth:
		return 4, []vertex{southWest, northWest}
	case fromEast <= c.y && fromEast < fromNorth:
		return 5, []vertex{southEast, northEast}
	}
	return 7, []vertex{northWest, northEast}
}

// second says which of two corners it is for this target in this cell: by a
// coin that falls the same way each time, for whoever could have it thrown
// again would learn which two there are, and that is nearly where.
func (k *Kind) second(c cell, target kind.Addr) bool {
	name, _ := c.which()
	mac := hmac.New(sha256.New, k.key)
	b := []byte("location landmark 1\n")
	for _, s := range []string{target.Local, target.Domain} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	for _, n := range []int64{c.metres, int64(c.origin), int64(c.i), int64(c.j), int64(name)} {
		b = binary.AppendVarint(b, n)
	}
	mac.Write(b)
	return mac.Sum(nil)[0]&1 == 1
}
