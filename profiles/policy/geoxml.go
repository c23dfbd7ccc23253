package policy

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/bellwire/bellwire/profiles/jsontree"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// What RFC 6772 adds to rules in XML: how much is shown of where somebody is, of the address
// (civic) and of the position (radius), in section 6.5 in each in an element of its own whose
// profile says which of the two it is. What it has a recipient told of how long they may keep
// it, and that they may not pass it on (sections 6.1 to 6.4), has no effect here: the document
// that is published says that itself. Nor has its condition on where somebody is.
const (
	nsGeo      = "urn:ietf:params:xml:ns:geolocation-policy"
	nsLocation = "urn:ietf:params:xml:ns:basic-location-profiles"

	civicProfile = "civic-transformation"
	geoProfile   = "geodetic-transformation"

	showCivic, showRadius = "civic", "radius" // of kinds that have them
)

// civicWords are those of permission civic, from the least on. They are RFC 6772's, too.
var civicWords = []string{"none", "country", "region", "city", "building", "full"}

func isProvideLocation(e *xmltree.Element) bool { return e.Is(nsGeo, "provide-location") }

// showsPlace says whether a rule's transformations show where somebody is. RFC 6772 has no
// action that lets anybody in, as RFC 5025 has: that a rule shows a place is that.
func showsPlace(rule *xmltree.Element) bool {
	for _, part := range rule.Elements() {
		if part.Is(nsCommon, "transformations") && slices.ContainsFunc(part.Elements(), isProvideLocation) {
			return true
		}
	}
	return false
}

// place reads how much of a place is shown. What is not understood shows nothing.
func (x *importer) place(at string, e *xmltree.Element, m *making) {
	profile, _ := e.Attr("", "profile")
	of := e.Elements()
	switch {
	case len(of) != 1:
		x.fault(at, "it has one element, of its profile")
	case profile == civicProfile && of[0].Is(nsLocation, "provide-civic"):
		word := strings.TrimSpace(of[0].Text())
		if !slices.Contains(civicWords, word) {
			x.fault(at+"/provide-civic", "%.40q is none of %s", word, strings.Join(civicWords, ", "))
			return
		}
		m.add(showCivic, jsontree.OfString(word))
	case profile == geoProfile && of[0].Is(nsLocation, "provide-geo"):
		text, _ := of[0].Attr("", "radius")
		radius, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(radius >= 0) || radius > math.MaxInt32 {
			x.fault(at+"/provide-geo", "a radius is a number of metres, %.40q is none", text)
			return
		}
		m.add(showRadius, jsontree.OfInt(int64(math.Ceil(radius)))) // up: it shows less
	default:
		x.warn(at, "a profile that is not known here: it shows nothing")
	}
}

// placeXML writes a permission of a place, if it is one.
func placeXML(p kind.Perm, line func(string, ...string)) (is bool) {
	profile, text := "", ""
	switch p.Name {
	case showCivic:
		profile, text = civicProfile, `<lp:provide-civic>`+civicWords[min(max(p.N, 0), int64(len(civicWords)-1))]+`</lp:provide-civic>`
	case showRadius:
		profile, text = geoProfile, `<lp:provide-geo radius="`+strconv.FormatInt(p.N, 10)+`"/>`
	default:
		return false
	}
	line(`<gp:provide-location profile="` + profile + `">` + text + `</gp:provide-location>`)
	return true
}
