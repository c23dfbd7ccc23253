// Package location is the kind of resource that says where somebody is:
// location/example.com/bob.
//
// Each of bob's devices publishes where it takes him to be. The newest counts;
// a watcher sees of it what bob's policy shows to them: the position itself, a
// circle of a size that he chose, the country or the city, or nothing.
//
//	{"entity":"pres:bob@example.com","at":"2026-03-09T13:00:00Z",
//	 "shape":{"type":"Circle","crs":"EPSG:4326","pos":[44.8848,-93.214],"radius":50,"confidence":0.95},
//	 "civic":{"country":"US","A1":"Minnesota","A3":"Minneapolis"},
//	 "method":"GPS","rules":{"retransmission":false}}
//
// The form is a twin of PIDF-LO (RFC 4119, 5139, 5491): latitude comes first.
// application/geo+json (RFC 7946) is read too: there longitude comes first. A
// publication may be as short as {"lat":44.8848,"lon":-93.214,"accuracy":50}.
//
// # What a circle gives away
//
// Where bob stands within the circle that a watcher sees must not follow from
// it, nor from all that the watcher ever saw (RFC 6772 section 7.5). So the
// circle's middle is a corner of a fixed grid, whose cells are as wide as the
// radius; one place has one circle, however often it is published and with
// whatever error. Where two corners are equally near, a keyed hash of the owner
// and the cell chooses between them, the same way each time. So a thousand
// fixes of one place do not tell more than one does, and their mean is the
// middle of one circle.
//
// What would tell more than the circle is left out with it: height, speed,
// heading, how the position was found and how exactly, the outline of the
// place; and the time is told by the quarter of an hour.
//
// What remains is what no grid can hide: when the circle moves, bob has crossed
// an edge of the grid, or lives so near to one that his device takes him to be
// now on this side and now on that. And who is shown two sizes sees where they
// overlap.
//
// # Tracks
//
// A publication may have earlier positions with it: a device that was in a
// tunnel, or reports once a minute where it was each second. The state is the
// last position. Earlier ones are events (Track): who watches at that moment is
// shown them, as they would be shown a state, and nobody keeps them.
package location
