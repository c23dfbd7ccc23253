package location

import "math"

// A Circle is a place, or where somebody is taken to be.
type Circle struct {
	Lat, Lon float64 // degrees
	Radius   float64 // metres
}

// usual is how likely it is that a target is within the circle that a source
// draws around it, where the source does not say (RFC 7459 section 3.3).
const usual = 0.95

// Holds returns how likely somebody is within the place c who is taken to be
// within around: by how much of around is in c (RFC 7459 section 5.4). They
// count as inside from one half on (RFC 6447 section 6).
func (c Circle) Holds(around Circle) float64 {
	d := c.pos().distance(around.pos())
	if around.Radius == 0 {
		if d <= c.Radius {
			return usual
		}
		return 0
	}
	return usual * overlap(c.Radius, around.Radius, d) / (math.Pi * around.Radius * around.Radius)
}

func (c Circle) pos() position { return position{lat: c.Lat, lon: c.Lon} }

// overlap returns the area that two circles in a plane have in common, whose
// middles are d apart.
func overlap(r, u, d float64) float64 {
	switch {
	case d >= r+u:
		return 0
	case d <= math.Abs(r-u):
		return math.Pi * min(r, u) * min(r, u)
	}
	a := (d*d + u*u - r*r) / (2 * d * u)
	b := (d*d + r*r - u*u) / (2 * d * r)
	kite := (-d + u + r) * (d + u - r) * (d - u + r) * (d + u + r)
	return u*u*math.Acos(a) + r*r*math.Acos(b) - math.Sqrt(kite)/2
}
