package location

import (
	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
)

// isGeoJSON says whether the root of a document is one of RFC 7946's objects.
// No document of this package's own form has a type.
func isGeoJSON(n *jsontree.Node) bool {
	t, ok := n.Find("type")
	return ok && t.Kind() == jsontree.String
}

// geoJSON reads a Feature, or a geometry without one: a Point, a Polygon, or a
// LineString, which is a track. What a Feature's properties say is what the
// members of our own form do, under the same names; others are ignored.
func (p *parser) geoJSON(r kind.Resource, n *jsontree.Node) *document {
	d := newDocument()
	m := n.Members()
	if c := m.Take("crs"); c != nil && c.Kind() != jsontree.Null {
		p.refuse(c, "GeoJSON has positions in WGS 84, longitude first, and no crs (RFC 7946 section 4)")
	}
	geometry, of := n, m
	var properties *jsontree.Members
	if t, _ := n.Find("type"); t.Text() == "Feature" {
		m.Take("type")
		if geometry = m.Need("geometry"); geometry == nil || geometry.Kind() == jsontree.Null {
			geometry = nil // a Feature that is nowhere
		}
		of = geometry.Members()
		if props := m.Take("properties"); props != nil && props.Kind() != jsontree.Null {
			properties = props.Members()
		}
	}
	if properties == nil {
		properties = &jsontree.Members{}
	}
	p.properties(d, r, properties)
	p.geometry(d, geometry, of, properties)
	return d
}

func (p *parser) properties(d *document, r kind.Resource, m *jsontree.Members) {
	r.CheckEntity(m.Take("entity"))
	if d.at = m.Take("at").Time(); d.at.IsZero() {
		d.at = m.Take("timestamp").Time()
	}
	p.motion(d, m)
	d.civic = readCivic(m.Take("civic"))
	d.rules = readRules(m.Take("rules"))
}

// geometry reads n, whose members are m.
func (p *parser) geometry(d *document, n *jsontree.Node, m *jsontree.Members, properties *jsontree.Members) {
	if n == nil {
		return
	}
	kindOf := m.Need("type")
	radius := readRadius(properties.Take("accuracy"))
	switch what := kindOf.Text(1, maxWord); what {
	case "Point":
		d.shape = circle(readPos(m.Need("coordinates"), lonFirst), radius)
	case "Polygon":
		rings := m.Need("coordinates").List(maxRing)
		if len(rings) != 1 {
			p.refuse(n, "a polygon of %d rings: here it has one, and no holes", len(rings))
			return
		}
		d.shape = &shape{form: formPolygon, ring: p.ring(rings[0], lonFirst)}
	case "LineString":
		p.line(d, m.Need("coordinates"), properties.Take("coordTimes"), radius)
	case "":
	default:
		p.refuse(kindOf, "%q is not understood here: write Point, Polygon or LineString", what)
	}
}

// line reads a track: positions, and for each the instant.
func (p *parser) line(d *document, n, times *jsontree.Node, radius float64) {
	positions, instants := n.List(maxTrack+1), times.List(maxTrack+1)
	if len(positions) == 0 {
		n.Fault("a track has positions")
		return
	}
	if len(instants) != len(positions) {
		n.Fault(`%d positions and %d instants: the property "coordTimes" has one for each`, len(positions), len(instants))
		return
	}
	for i := range positions {
		d.track = append(d.track, fix{at: instants[i].Time(), pos: readPos(positions[i], lonFirst)})
	}
	last := d.track[len(d.track)-1]
	d.track = d.track[:len(d.track)-1]
	d.at, d.shape = last.at, circle(last.pos, radius)
	checkOrder(n, d)
}
