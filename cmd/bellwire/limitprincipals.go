package main

import (
	"maps"
	"strings"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/mqtt"
	"github.com/bellwire/bellwire/yamltree"
)

// Limits of single principals: under principals, by address, rows that hold for one in place
// of everybody's. Rows about all nodes are state, and those of a node its own, as everybody's
// are. A queue's bounds are not among them: streams have one for all.

// principalRows are the rows that a principal may have of its own, and where they go.
var principalRows = map[string]func(p *principalLimits, n int64){
	"sessions.perPrincipal":      func(p *principalLimits, n int64) { p.bounds.Sessions = ownBound(n) },
	"subs.perPrincipal":          func(p *principalLimits, n int64) { p.bounds.Subscriptions = ownBound(n) },
	"subs.wildcardsPerPrincipal": func(p *principalLimits, n int64) { p.bounds.Wildcards = ownBound(n) },
	"subs.perSession":            func(p *principalLimits, n int64) { p.bounds.SubscriptionsPerSession = ownBound(n) },
	"messages.perSecond":         func(p *principalLimits, n int64) { p.rates.Messages = int(n) },
	"bytes.perSecond":            func(p *principalLimits, n int64) { p.rates.Bytes = int(n) },
}

type principalLimits struct {
	bounds event.PrincipalBounds
	rates  mqtt.Rates
}

func ownBound(n int64) uint64 {
	if n == unlimited {
		return event.Unbounded
	}
	return uint64(n)
}

// readPrincipals reads limits of single principals into l; n may be nil.
func readPrincipals(r *yamltree.Reader, n *yamltree.Node, l *limits) {
	bounds, rates := map[string]event.PrincipalBounds{}, map[string]mqtt.Rates{}
	seen := map[string]bool{}
	for _, k := range r.Keys(n, "principals", event.MostPrincipals) {
		name, err := principalOf(k.Name)
		switch {
		case err != nil:
			r.FailAt(k.Pos, yamltree.Problemf("principals: %v", err).Hint("write an address, such as ops@example.com"))
		case seen[name]:
			r.FailAt(k.Pos, yamltree.Problemf("principals: %s stands there twice", name))
		}
		seen[name] = true
		p := readPrincipal(r, k)
		if p.bounds != (event.PrincipalBounds{}) {
			bounds[name] = p.bounds
		}
		if p.rates != (mqtt.Rates{}) {
			rates[name] = p.rates
		}
	}
	l.broker.Principals = event.Principals(bounds)
	if len(rates) > 0 {
		l.mqtt.Principals = &mqtt.PrincipalRates{Of: rates}
	}
}

// principalOf reads an address as a limits file has it: with or without a scheme.
func principalOf(text string) (string, error) {
	for _, scheme := range []string{"pres:", "im:"} {
		text = strings.TrimPrefix(text, scheme)
	}
	return acl.ParseAddress(text, "")
}

// readPrincipal reads the rows of one principal.
func readPrincipal(r *yamltree.Reader, k yamltree.Key) (p principalLimits) {
	var names []string
	for i := range limitRows { // in their order, for messages
		if principalRows[limitRows[i].name] != nil {
			names = append(names, limitRows[i].name)
		}
	}
	what := "limits of " + cut(k.Name)
	f, ok := r.Table(k.Value, what, names...)
	if ok && len(k.Value.Keys) == 0 {
		r.FailAt(k.Value.Pos, yamltree.Problemf("%s: there are none", what).Hint("give it a row, such as subs.perPrincipal: 20000, or remove it"))
	}
	for i := range limitRows {
		row := &limitRows[i]
		if value, ok := row.readFrom(r, f); ok && principalRows[row.name] != nil {
			principalRows[row.name](&p, value)
		}
	}
	return p
}

// samePrincipals says whether the same principals have the same limits of their own.
func samePrincipals(a, b *limits) bool {
	ratesOf := func(l *limits) map[string]mqtt.Rates {
		if l.mqtt.Principals == nil {
			return nil
		}
		return l.mqtt.Principals.Of
	}
	return a.broker.Principals == b.broker.Principals && maps.Equal(ratesOf(a), ratesOf(b))
}
