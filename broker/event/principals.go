package event

import (
	"fmt"
	"maps"
	"slices"
)

// PrincipalBounds bound what one principal may have in place of what everybody may: 0 of any
// field means what everybody may.
type PrincipalBounds struct{ Sessions, Subscriptions, Wildcards, SubscriptionsPerSession uint64 }

// Unbounded is a bound that nobody reaches.
const Unbounded = 1 << 62

// MostPrincipals is how many principals may have bounds of their own.
const MostPrincipals = 1000

func (p *PrincipalBounds) fields() [4]*uint64 {
	return [...]*uint64{&p.Sessions, &p.Subscriptions, &p.Wildcards, &p.SubscriptionsPerSession}
}

// Principals is the binary form of bounds of single principals, empty for none; the same
// bounds have the same.
//
//	for each, in the order of names: name string, and uvarints: sessions, subscriptions,
//	filters with wildcards, subscriptions per session
func Principals(of map[string]PrincipalBounds) string {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(of)) {
		p := of[name]
		b = appendString(b, name)
		for _, n := range p.fields() {
			b = appendUint(b, *n)
		}
	}
	return string(b)
}

// ReadPrincipals reads what Principals returned; of anything else it says what is wrong.
func ReadPrincipals(form string) (map[string]PrincipalBounds, error) {
	if form == "" {
		return nil, nil
	}
	of, last := map[string]PrincipalBounds{}, ""
	r := &reader{b: []byte(form)}
	for len(r.b) > 0 && r.err == nil {
		var p PrincipalBounds
		name := r.string()
		for _, n := range p.fields() {
			if *n = r.uvarint(); *n > Unbounded {
				r.fail("a bound past all others")
			}
		}
		if name <= last || p == (PrincipalBounds{}) || len(of) >= MostPrincipals {
			r.fail("principals out of order, without a bound, or too many")
		}
		of[name], last = p, name
	}
	if r.err != nil {
		return nil, fmt.Errorf("bounds of principals: %w", r.err)
	}
	return of, nil
}
