package location

import (
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// The content types that are read; the first is written.
const (
	TypeJSON    = "application/evt-location+json"
	TypeGeoJSON = "application/geo+json"
)

// ReasonRetention is the reason of a refusal: the document says itself that by
// now nobody may have it any more.
const ReasonRetention = "retention"

// A Kind is the kind of resource called location.
type Kind struct{ key []byte }

// New returns the kind. The key chooses between circles that hide equally well;
// it must be the same on all nodes for good, and no client's: whoever knows it
// learns a little more from a circle than it is to tell.
func New(key []byte) *Kind { return &Kind{key: append([]byte(nil), key...)} }

var _ kind.Kind = (*Kind)(nil)

func (*Kind) Name() string      { return "location" }
func (*Kind) Scheme() string    { return "pres" }
func (*Kind) Accepts() []string { return []string{TypeJSON, TypeGeoJSON} }

func (*Kind) Semantics() kind.Semantics {
	return kind.Semantics{
		Mode: kind.ModeState, Coalesce: true, Retain: true, MaxBytes: maxBytes, Burst: 10, Interval: time.Second,
		DefaultExpires: 15 * time.Minute, MinExpires: 30 * time.Second, MaxExpires: 24 * time.Hour,
	}
}

const maxBytes = 64 << 10

// DefaultPolicy shows nobody anything: what is told of where somebody is cannot
// be taken back.
func (*Kind) DefaultPolicy(kind.Addr) []byte {
	return []byte(`{"v":1,"kind":"location","defaults":{"handling":"block"}}`)
}

// The permissions of RFC 6772 section 6.5, and unknown.
const (
	permCivic   = "civic"   // how much of an address
	permRadius  = "radius"  // metres; 0 shows the position itself
	permUnknown = "unknown" // members that this package does not know, by name
)

// MaxRadius is the greatest radius, in metres, that an owner can choose.
const MaxRadius = 1_000_000

// The levels of permCivic.
const (
	levelCountry = 1 + iota
	levelRegion
	levelCity
	levelBuilding
	levelFull
)

var permissions = []kind.Permission{
	{Name: permCivic, Type: kind.PermMax, Words: []string{"none", "country", "region", "city", "building", "full"}},
	{Name: permRadius, Type: kind.PermMin, Max: MaxRadius},
	{Name: permUnknown, Type: kind.PermSet},
}

func (*Kind) Permissions() []kind.Permission { return permissions }

// Parse reads a document about r. One without a content type is GeoJSON if its
// root says so by its type, else the JSON of this package.
func (*Kind) Parse(r kind.Resource, doc kind.Document) (any, error) {
	if err := doc.CheckSize(maxBytes, "a location document has at most %d bytes"); err != nil {
		return nil, err
	}
	switch doc.ContentType {
	case TypeJSON, TypeGeoJSON, "":
		return parse(r, doc)
	}
	return nil, kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, "",
		"location is published as "+strings.Join((*Kind)(nil).Accepts(), " or "))
}

// Neutral says nothing about anywhere.
func (*Kind) Neutral(r kind.Resource) *kind.Composed {
	return &kind.Composed{Resource: r, Value: neutral}
}

var neutral = &document{}

// Retained returns an error, an ErrInvalid with ReasonRetention, if what Parse
// returned may not be kept any more at the instant now: its own rules say so,
// or it has none and is a day old (RFC 4119 section 2.2.2). It is asked once,
// when the document comes in.
func (*Kind) Retained(v any, now time.Time) error {
	d := v.(*document)
	end := d.rules.retention
	if end.IsZero() && !d.at.IsZero() {
		end = d.at.Add(defaultRetention)
	}
	if end.IsZero() || now.Before(end) {
		return nil
	}
	return kind.Refuse(kind.ErrInvalid, ReasonRetention, "/rules/retention",
		"nobody may keep this since "+end.UTC().Format(time.RFC3339)+": publish where you are now")
}

const defaultRetention = 24 * time.Hour
