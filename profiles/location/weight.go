package location

import "github.com/bellwire/bellwire/profiles/kind"

// Weight counts the corners of a polygon, earlier positions, parts of an address, and
// what extensions take.
func (*Kind) Weight(doc kind.Document, value any) int {
	d := value.(*document)
	n := kind.BaseWeight(doc) + len(d.track) + len(d.civic)
	if d.shape != nil {
		n += len(d.shape.ring)
	}
	for _, x := range d.ext {
		n += kind.TextWeight(x.text)
	}
	return n
}
