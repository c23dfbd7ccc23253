package location

import (
	"errors"
	"math"
	"slices"

	"github.com/golang/geo/s1"
	"github.com/golang/geo/s2"
)

// checkRing says whether a ring goes round clockwise, or what is wrong with it.
//
// Lines between positions are straight in degrees, as RFC 7946 section 3.1.1
// has them: it is arithmetic on whole numbers of 1e-7 degrees, which gives
// every node the same verdict. Geometry on the sphere goes by sines, and those
// may differ between processors in the last bit.
func checkRing(ring []position) (clockwise bool, err error) {
	n := len(ring) - 1
	if ring[0] != ring[n] {
		return false, errors.New("the polygon is open: write the first position again at the end")
	}
	corners := make([]corner, n)
	for i, p := range ring[:n] {
		if math.Abs(p.lat) == 90 {
			return false, errors.New("no corner of a polygon is at a pole")
		}
		corners[i] = corner{x: math.Round(p.lon * 1e7), y: math.Round(p.lat * 1e7)}
	}
	if !unwrap(corners) {
		return false, errors.New("the polygon goes around a pole, or half around the earth in one line")
	}
	if extent(corners) > maxExtent {
		return false, errors.New("the polygon is more than 20 degrees wide or high")
	}
	for i := range corners {
		if simple := simpleAt(corners, i); !simple {
			return false, errors.New("the polygon crosses or touches itself")
		}
	}
	return area(corners) < 0, nil
}

// maxExtent is 20 degrees: where somebody is whom nobody could find within two
// thousand kilometres is not known.
const maxExtent = 20e7

// A corner is a position in a plane, in units of 1e-7 degrees.
type corner struct{ x, y float64 }

// unwrap moves corners beyond the antimeridian to the other side's, so that
// each line is the short way; false if there is no such way, or it does not end
// where it began.
func unwrap(corners []corner) bool {
	const turn = 360e7
	for i := 1; i < len(corners); i++ {
		before := corners[i-1].x
		corners[i].x += math.Round((before-corners[i].x)/turn) * turn
		if math.Abs(corners[i].x-before) == turn/2 {
			return false
		}
	}
	return math.Abs(corners[0].x-corners[len(corners)-1].x) < turn/2
}

// extent returns how far corners are apart at most, in each direction.
func extent(corners []corner) float64 {
	low, high := corners[0], corners[0]
	for _, c := range corners {
		low.x, low.y, high.x, high.y = min(low.x, c.x), min(low.y, c.y), max(high.x, c.x), max(high.y, c.y)
	}
	return max(high.x-low.x, high.y-low.y)
}

// simpleAt says whether the line from corner i meets no other but its
// neighbours, and those at their common corners only.
func simpleAt(corners []corner, i int) bool {
	n := len(corners)
	a, b := corners[i], corners[(i+1)%n]
	if a == b {
		return false
	}
	// A line that turns back on itself lies on its neighbour.
	if c := corners[(i+2)%n]; side(a, b, c) == 0 && (c.x-b.x)*(b.x-a.x) <= 0 && (c.y-b.y)*(b.y-a.y) <= 0 {
		return false
	}
	for j := i + 2; j < n; j++ {
		if (j+1)%n == i {
			continue
		}
		if meet(a, b, corners[j], corners[(j+1)%n]) {
			return false
		}
	}
	return true
}

// side is positive if c is to the left of the line from a to b, 0 if on it. The
// conversions keep compilers from fusing the operations, which would round
// differently on some processors.
func side(a, b, c corner) float64 {
	return float64((b.x-a.x)*(c.y-a.y)) - float64((b.y-a.y)*(c.x-a.x))
}

// meet says whether two lines have a point in common.
func meet(a, b, c, d corner) bool {
	s1, s2 := sign(side(a, b, c)), sign(side(a, b, d))
	s3, s4 := sign(side(c, d, a)), sign(side(c, d, b))
	if s1*s2 < 0 && s3*s4 < 0 {
		return true
	}
	return s1 == 0 && within(a, b, c) || s2 == 0 && within(a, b, d) || s3 == 0 && within(c, d, a) || s4 == 0 && within(c, d, b)
}

func sign(f float64) int {
	switch {
	case f > 0:
		return 1
	case f < 0:
		return -1
	}
	return 0
}

// within says whether c, which is on the line through a and b, is between them.
func within(a, b, c corner) bool {
	return min(a.x, b.x) <= c.x && c.x <= max(a.x, b.x) && min(a.y, b.y) <= c.y && c.y <= max(a.y, b.y)
}

// area is twice the area that corners go round, positive if counter-clockwise.
func area(corners []corner) float64 {
	sum := 0.0
	for i := 1; i+1 < len(corners); i++ {
		sum += side(corners[0], corners[i], corners[i+1])
	}
	return sum
}

// earthRadius is that of a sphere with the earth's mean radius, in metres.
const earthRadius = 6_371_000

func (p position) point() s2.Point { return s2.PointFromLatLng(s2.LatLngFromDegrees(p.lat, p.lon)) }

func metres(a s1.Angle) float64 { return a.Radians() * earthRadius }

// distance returns how far apart two positions are, in metres, on the surface.
func (p position) distance(q position) float64 { return metres(p.point().Distance(q.point())) }

// middle returns the middle of a shape, and how far the shape reaches from it.
func (s *shape) middle() (position, float64) {
	if s.form != formPolygon {
		return s.pos, s.radius
	}
	var sum s2.Point
	corners := s.ring[:len(s.ring)-1]
	for _, p := range corners {
		sum = s2.Point{Vector: sum.Add(p.point().Vector)}
	}
	at := s2.LatLngFromPoint(s2.Point{Vector: sum.Normalize()})
	middle := position{lat: at.Lat.Degrees(), lon: at.Lng.Degrees()}.canonical()
	farthest := slices.MaxFunc(corners, func(a, b position) int {
		return sign(middle.distance(a) - middle.distance(b))
	})
	return middle, middle.distance(farthest)
}
