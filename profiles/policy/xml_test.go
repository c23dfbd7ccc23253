package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/xmltree"
)

// Samples after RFC 4745 section 7 and RFC 5025 section 6.
const (
	commonPolicy = `<?xml version="1.0" encoding="UTF-8"?>
<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule id="r1"><conditions><identity><one id="pres:alice@example.net"/></identity><sphere value="home work"/>
<validity><from>2026-03-09T08:00:00-05:00</from><until>2026-03-09T17:00:00-05:00</until></validity></conditions><actions/><transformations/></rule>
<rule id="r2"><conditions><identity><many><except domain="example.org"/><except id="pres:mallory@example.net"/></many></identity></conditions><actions/><transformations/></rule></ruleset>`
	presRules = `<?xml version="1.0" encoding="UTF-8"?>
<cr:ruleset xmlns="urn:ietf:params:xml:ns:pres-rules" xmlns:pr="urn:ietf:params:xml:ns:pres-rules" xmlns:cr="urn:ietf:params:xml:ns:common-policy">
 <cr:rule id="a"><cr:conditions><cr:identity><cr:one id="pres:alice@example.net"/></cr:identity></cr:conditions><cr:actions><pr:sub-handling>allow</pr:sub-handling></cr:actions>
 <cr:transformations><pr:provide-services><pr:service-uri-scheme>im</pr:service-uri-scheme></pr:provide-services><pr:provide-activities>true</pr:provide-activities><pr:provide-note>false</pr:provide-note><pr:provide-user-input>bare</pr:provide-user-input></cr:transformations></cr:rule></cr:ruleset>`
)

// ofXML reads a policy in XML.
func ofXML(t *testing.T, text string) (*Policy, []string) {
	t.Helper()
	document, warnings, err := FromXML([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	p, err := Check(document, spheredKind{forKind: pres}, bob)
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return p, warnings.Pointers()
}

// What XML says is decided as it says, and what is written in XML is read as what it
// was written of.
func TestXML(t *testing.T) {
	monday := time.Date(2026, 3, 9, 13, 0, 0, 0, time.UTC)
	p, warnings := ofXML(t, presRules)
	if d := p.Evaluate(addr(t, "alice@example.net"), monday, Input{}); len(warnings) > 0 || d.Handling != Allow ||
		!d.Grant.Same(kind.NewGrant(kind.Perm{Name: "services", Type: kind.PermSet, Set: []string{"im"}}, kind.Perm{Name: "activities"}, kind.Perm{Name: "userInput", Type: kind.PermMax, N: 1})) {
		t.Errorf("%+v, warned of %v", d, warnings)
	}
	for _, text := range []string{commonPolicy, presRules} {
		p, _ := ofXML(t, text)
		written, warnings := p.XML()
		again, _ := ofXML(t, string(written))
		if len(warnings) > 0 {
			t.Errorf("%v of %s", warnings, written)
		}
		for _, who := range []string{"", "alice@example.net", "mallory@example.net", "a@example.org", "a@b.c"} {
			for _, at := range []time.Time{monday.Add(-time.Second), monday, monday.Add(9 * time.Hour)} {
				for _, sphere := range []string{"", "work", "x"} {
					got, want := again.Evaluate(kind.Of(who), at, Input{Sphere: sphere}), p.Evaluate(kind.Of(who), at, Input{Sphere: sphere})
					if !got.equal(&want) || !got.Until.Equal(want.Until) {
						t.Errorf("%q at %s: %+v, want %+v, by %s", who, at, got, want, written)
					}
				}
			}
		}
	}
}

// geoPolicy is after RFC 6772 sections 7.2 and 7.4.
const geoPolicy = `<?xml version="1.0" encoding="UTF-8"?>
<ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:gp="urn:ietf:params:xml:ns:geolocation-policy" xmlns:lp="urn:ietf:params:xml:ns:basic-location-profiles">
 <rule id="a"><conditions><identity><one id="pres:alice@example.net"/></identity></conditions><actions/><transformations><gp:set-retransmission-allowed>false
 </gp:set-retransmission-allowed><gp:provide-location profile="civic-transformation"><lp:provide-civic>city
 </lp:provide-civic></gp:provide-location><gp:provide-location profile="geodetic-transformation"><lp:provide-geo radius="9999.5"/></gp:provide-location></transformations></rule>
 <rule id="b"><conditions><identity><many domain="example.com"/></identity></conditions><transformations><gp:provide-location profile="civic-transformation"><lp:provide-civic>country</lp:provide-civic></gp:provide-location></transformations></rule></ruleset>`

// Policies of places in XML show what they say, are told of what has no effect here, and are
// written as they are read; what is not a level or a radius is a fault, and a condition on
// where somebody is never holds.
func TestGeoXML(t *testing.T) {
	k := location.New(nil)
	read := func(text string) (*Policy, []string, error) {
		document, warnings, err := FromXML([]byte(text))
		if err != nil {
			return nil, nil, err
		}
		p, err := Check(document, k, bob)
		return p, warnings.Pointers(), err
	}
	p, warnings, err := read(geoPolicy)
	if err != nil || !slices.Equal(warnings, []string{"/ruleset/rule[1]/transformations/set-retransmission-allowed"}) {
		t.Fatalf("warned of %q, %v", warnings, err)
	}
	written, told := p.XML()
	again, _, err := read(string(written))
	if err != nil || len(told) > 0 {
		t.Fatalf("%s: %v, %v", written, told, err)
	}
	civic := func(n int64) kind.Perm { return kind.Perm{Name: "civic", Type: kind.PermMax, N: n} }
	for who, want := range map[string]kind.Grant{
		"alice@example.net": kind.NewGrant(civic(3), kind.Perm{Name: "radius", Type: kind.PermMin, N: 10_000}),
		"carol@example.com": kind.NewGrant(civic(1)),
		"eve@example.org":   {},
	} {
		for _, of := range []*Policy{p, again} {
			if d := of.Evaluate(addr(t, who), time.Unix(0, 0), Input{}); !d.Grant.Same(want) || (d.Handling == Allow) == want.IsZero() {
				t.Errorf("%s: %+v, want %+v", who, d, want)
			}
		}
	}
	for old, is := range map[string]string{"city\n": "town\n", `radius="9999.5"`: `radius="-1"`, `"9999.5"`: `"NaN"`} {
		if _, _, err := read(strings.Replace(geoPolicy, old, is, 1)); !errors.Is(err, kind.ErrInvalid) {
			t.Errorf("%s: %v", is, err)
		}
	}
	p, warnings, err = read(strings.Replace(geoPolicy, `<identity><many domain="example.com"/></identity>`, `<gp:location-condition/>`, 1))
	if d := p.Evaluate(addr(t, "carol@example.com"), time.Unix(0, 0), Input{}); err != nil || d.View == ViewFiltered || len(warnings) != 2 {
		t.Errorf("by place: %+v, warned of %q, %v", d, warnings, err)
	}
}

// An empty identity is anybody (RFC 5025 section 3.1.1.2), an unknown condition never
// holds; both are told.
func TestXMLWarnings(t *testing.T) {
	in := func(conditions string) string {
		return strings.Replace(presRules, `<cr:identity><cr:one id="pres:alice@example.net"/></cr:identity>`, conditions, 1)
	}
	for conditions, want := range map[string]Handling{`<cr:identity/>`: Allow, `<x:moon xmlns:x="urn:x"/>`: Block} {
		p, warnings := ofXML(t, in(conditions))
		if d := p.Evaluate(kind.Addr{}, time.Unix(0, 0), Input{}); d.Handling != want || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "/ruleset/rule[1]/conditions/") {
			t.Errorf("%s: %s, warned of %v", conditions, d.Handling, warnings)
		}
	}
}

// What XML cannot say is told, and never said less narrowly.
func TestXMLIsNoWider(t *testing.T) {
	for document, want := range map[string]string{
		`{"v":1,"rules":[{"id":"r","if":{"auth":20},"then":{"handling":"allow"},"show":{"note":true}}]}`:                                                                        "/rules/0/if",
		`{"v":1,"rules":[{"id":"r","if":{"validity":[{"from":"2026-01-01T00:00:00Z"}]},"then":{"handling":"allow"},"show":{"note":true}}]}`:                                     "/rules/0/if",
		`{"v":1,"rules":[{"id":"r","then":{"handling":"allow","persona":"work"},"show":{"note":true}}]}`:                                                                        "/rules/0",
		`{"v":1,"rules":[{"id":"r","then":{"handling":"allow"},"show":{"note":true}}],"limits":[{"id":"l","only":{"sphere":["work"]}}]}`:                                        "/limits/0",
		`{"v":1,"rules":[{"id":"r","if":{"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]}},"then":{"handling":"allow"},"show":{"note":true}}]}`: "/rules/0/if",
	} {
		written, warnings := parse(t, document).XML()
		p, _ := ofXML(t, string(written))
		if d := p.Evaluate(addr(t, "a@b.c"), time.Unix(0, 0), Input{}); d.View == ViewFiltered || !slices.Contains(warnings.Pointers(), want) {
			t.Errorf("%s: warned of %v, written as %s", document, warnings, written)
		}
	}
}

// All faults of a document in XML are told at once, with where they are; entities are
// never looked at.
func TestBadXML(t *testing.T) {
	for text, want := range map[string][]string{
		`<ruleset/>`: {"/ruleset"},
		`<!DOCTYPE r [<!ENTITY a "b">]><ruleset xmlns="urn:ietf:params:xml:ns:common-policy"/>`: {""},
		`<ruleset xmlns="urn:ietf:params:xml:ns:common-policy">`:                                {""},
		`<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule><actions/><actions/></rule><rule id="b"><conditions><identity><one id="pres:a@b.c"><x/></one></identity><validity><until>x</until></validity></conditions></rule><x/></ruleset>`: {
			"/ruleset/rule[1]", "/ruleset/rule[1]", "/ruleset/rule[2]/conditions/identity/one", "/ruleset/rule[2]/conditions/validity", "/ruleset/rule[3]",
		},
	} {
		_, _, err := FromXML([]byte(text))
		r, ok := errors.AsType[*kind.Refusal](err)
		if !ok || !slices.Equal(r.Faults.Pointers(), want) {
			t.Errorf("%s: %v, want faults at %q", text, err, want)
		}
	}
}

func FuzzXML(f *testing.F) {
	f.Add([]byte(commonPolicy))
	f.Add([]byte(presRules))
	f.Add([]byte(geoPolicy))
	f.Fuzz(func(t *testing.T, data []byte) {
		document, _, err := FromXML(data)
		if err != nil {
			return
		}
		p, err := Parse(document, pres, bob)
		if err != nil {
			return
		}
		written, _ := p.XML()
		if _, err := xmltree.Parse(written, xmltree.Limits{Bytes: 1 << 20, Nodes: 1 << 20}); err != nil {
			t.Errorf("%s of %q: %v", written, data, err)
		}
	})
}
