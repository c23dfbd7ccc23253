package presence

import (
	"errors"
	"strings"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// The content types that are read; the first is written.
const (
	TypeJSON = "application/evt-presence+json"
	TypePIDF = "application/pidf+xml"
)

// A Kind is the kind of resource called presence.
type Kind struct{ key []byte }

// New returns the kind. The key makes the ids that watchers see; it must be the
// same on all nodes for good, and no client's: whoever knows it can try out
// which sources somebody has.
func New(key []byte) *Kind { return &Kind{key: append([]byte(nil), key...)} }

var _ kind.Kind = (*Kind)(nil)

func (*Kind) Name() string      { return "presence" }
func (*Kind) Scheme() string    { return "pres" }
func (*Kind) Accepts() []string { return []string{TypeJSON, TypePIDF} }

func (*Kind) Semantics() kind.Semantics {
	return kind.Semantics{
		Mode: kind.ModeState, Coalesce: true, Retain: true, MaxBytes: 64 << 10, Burst: 10, Interval: 5 * time.Second,
		DefaultExpires: time.Hour, MinExpires: 30 * time.Second, MaxExpires: 24 * time.Hour,
	}
}

// DefaultPolicy lets nobody see anything until the owner decides: a watcher's
// subscription is pending.
func (*Kind) DefaultPolicy(owner kind.Addr) []byte {
	return []byte(`{"v":1,"kind":"presence","defaults":{"handling":"confirm"}}`)
}

// Names of permissions that are asked for by name.
const (
	permServices  = "services"
	permPersons   = "persons"
	permDevices   = "devices"
	permAll       = "all"
	permUnknown   = "unknown"
	permUserInput = "userInput"
	permNote      = "note"
	permLost      = "lost"
)

// userInput's words (RFC 5025 section 3.3.2.11).
const (
	inputBare       = 1 + iota // whether it is idle
	inputThresholds            // and after how long that is said
	inputFull                  // and since when
)

// permissions are those of RFC 5025 section 3.3, and lost. Three show
// components, of which a few things are always shown; the others show one
// attribute of whatever component is shown.
var permissions = []kind.Permission{
	{Name: permServices, Type: kind.PermSet, Check: checkService},
	{Name: permPersons, Type: kind.PermSet, Check: checkToken},
	{Name: permDevices, Type: kind.PermSet, Check: checkToken},
	{Name: "activities", Type: kind.PermBool},
	{Name: "class", Type: kind.PermBool},
	{Name: "deviceID", Type: kind.PermBool},
	{Name: "mood", Type: kind.PermBool},
	{Name: "placeIs", Type: kind.PermBool},
	{Name: "placeType", Type: kind.PermBool},
	{Name: "privacy", Type: kind.PermBool},
	{Name: "relationship", Type: kind.PermBool},
	{Name: "statusIcon", Type: kind.PermBool},
	{Name: "sphere", Type: kind.PermBool},
	{Name: "timeOffset", Type: kind.PermBool},
	{Name: permUserInput, Type: kind.PermMax, Words: []string{"none", "bare", "thresholds", "full"}},
	{Name: permNote, Type: kind.PermBool},
	{Name: permUnknown, Type: kind.PermSet}, // "{namespace}name", or the name of a member
	{Name: permAll, Type: kind.PermBool},    // all attributes
	{Name: permLost, Type: kind.PermBool},   // which sources fell silent; for the owner
}

func (*Kind) Permissions() []kind.Permission { return permissions }

// checkService accepts the ways to name services: by the scheme of their
// contact ("im"), or by a prefix and its value.
func checkService(token string) error {
	if strings.HasPrefix(token, "uri:") || !strings.Contains(token, ":") {
		return nil
	}
	return checkToken(token)
}

// checkToken accepts the ways to name persons and devices.
func checkToken(token string) error {
	for _, prefix := range []string{"class:", "id:", "deviceID:"} {
		if strings.HasPrefix(token, prefix) && len(token) > len(prefix) {
			return nil
		}
	}
	return errors.New("write * for all, or class:…, id:… or deviceID:…; services also by uri:… or by their scheme, such as im")
}

// Parse reads a presence document about r. A document without a content type is
// JSON or XML by its first character.
func (k *Kind) Parse(r kind.Resource, doc kind.Document) (any, error) {
	if err := doc.CheckSize(k.Semantics().MaxBytes, "a presence document has at most %d bytes"); err != nil {
		return nil, err
	}
	switch typeOf(doc) {
	case TypeJSON:
		return parseJSON(r, doc)
	case TypePIDF:
		return parsePIDF(r, doc)
	}
	return nil, kind.Refuse(kind.ErrUnsupported, kind.ReasonUnsupported, "", "presence is published as "+TypeJSON+" or "+TypePIDF)
}

// typeOf returns a document's content type, JSON or XML by its first character if it
// has none.
func typeOf(doc kind.Document) string {
	switch {
	case doc.ContentType != "":
		return doc.ContentType
	case strings.HasPrefix(strings.TrimSpace(string(doc.Body[:min(len(doc.Body), 100)])), "<"):
		return TypePIDF
	}
	return TypeJSON
}

// Neutral is one closed tuple.
func (k *Kind) Neutral(r kind.Resource) *kind.Composed {
	return &kind.Composed{Resource: r, Value: neutral}
}

var neutral = &document{tuples: []element{{id: "none", basic: closed}}}

// Summary returns "open" if any service of a composed document is, "closed" if
// some are and none is open, and "" if it says nothing of services.
func Summary(c *kind.Composed) string { return c.Value.(*document).summary() }

// Sphere returns where the owner is in life, by what was published and not by
// what a grant shows: "work". It is the owner's to say: what a delegate has
// published is shown like the rest, but opens no rule. Empty if the owner has
// said nothing, or if their sources contradict each other: then no rule may
// depend on it (RFC 5025 section 3.1.2).
func (*Kind) Sphere(c *kind.Composed) string {
	sphere := ""
	for _, p := range c.Value.(*document).persons {
		a := p.attr("sphere")
		if a == nil || !p.own {
			continue
		}
		if s := a.value.Text(); sphere == "" {
			sphere = s
		} else if !strings.EqualFold(s, sphere) {
			return ""
		}
	}
	return sphere
}
