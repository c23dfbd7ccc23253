package acl

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	"github.com/bellwire/bellwire/internal/letter"
)

// Whole policies, made up at random, decide at any instant what they decide by the letter:
// with roles for whoever asks, placeholders, denials, limits and windows in zones whose
// clocks are put back and forward meanwhile.
func TestWholePoliciesByTheLetter(t *testing.T) {
	people := []string{"ana@example.com", "bob@example.com", "cat@example.com", "zoe@example.net"}
	topics := []string{"w/a/x", "w/a/y", "w/b/y", "w/ana/x", "m/1", "m/kept", "c/c-1/t", "d/example.net/t", "w", "presence/example.com/ana", "location/example.com/bob", "im/example.com/bob", "$x/y"}
	for seed := range effort.RoundsOfOne(100, 800, 40_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		r := &letter.Random{Rand: rng, People: people, Names: true, Around: time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC).AddDate(0, rng.IntN(12), rng.IntN(30))}
		users := map[string]any{}
		for _, p := range people {
			users[p] = map[string]string{"token_sha256": HashToken([]byte(letter.TokenOf(p)))}
		}
		document := r.Operator(users, nil, nil)
		want, err := letter.ReadOperator(document)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, document)
		}
		p, err := Parse("policy", document, "example.com")
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, document)
		}
		for range 40 {
			who := letter.Somebody{Principal: append(people, "")[rng.IntN(len(people)+1)], Client: []string{"c-1", "c/2+$", "$3"}[rng.IntN(3)]}
			action, topic := []string{"publish", "subscribe"}[rng.IntN(2)], topics[rng.IntN(len(topics))]
			at := r.Around.Add(time.Duration(rng.IntN(20*24*3600)-5*24*3600) * time.Second)
			if r.Chance(2) {
				at = at.Truncate(time.Hour)
			}
			asks, what := Who{Principal: who.Principal, Client: who.Client}, map[string]Action{"publish": Publish, "subscribe": Subscribe}[action]
			if got, should := p.Decide(asks, what, topic, at), want.Allows(who, action, topic, at); got.Allow != should {
				t.Fatalf("seed %d: %+v %s %s at %s: got %+v, want %v\n%s", seed, who, action, topic, at, got, should, document)
			}
			if got, should := p.Ceiling(asks, what, topic, at), !want.Cuts(who, action, topic, at); got.Allow != should {
				t.Fatalf("seed %d: the ceiling for %+v %s %s at %s: got %+v, want %v\n%s", seed, who, action, topic, at, got, should, document)
			}
			checkNames(t, r, p, want, who, document)
		}
	}
}

// checkNames compares what somebody means by a name, what they are given, and that what a rule
// allows the whole of is granted.
func checkNames(t *testing.T, r *letter.Random, p *Policy, want *letter.Operator, who letter.Somebody, document []byte) {
	t.Helper()
	asks := Who{Principal: who.Principal, Client: who.Client}
	for action, names := range map[string][]string{"publish": letter.RandomNames, "subscribe": letter.RandomFilters} {
		what := map[string]Action{"publish": Publish, "subscribe": Subscribe}[action]
		name := names[r.IntN(len(names))]
		if what == Subscribe && r.Chance(3) {
			name = "$share/g/" + name
		}
		to, _, err := p.Rewrite(asks, what, name)
		if should, ok := want.Meant(who, action, name); (err == nil) != ok || ok && to != should {
			t.Fatalf("%+v who names %s to %s means %s (%v), want %s %v\n%s", who, name, action, to, err, should, ok, document)
		}
	}
	var given []letter.Given
	for _, g := range p.Given(asks, "192.0.2.7:1883") {
		given = append(given, letter.Given{Filter: g.Filter, QoS: g.QoS, NoLocal: g.NoLocal, AsWas: g.RetainAsPublished, Handling: g.RetainHandling})
		if want.Grants(who, g.Filter, r.Around) && !p.Grant(asks, g.Filter, r.Around).Allowed {
			t.Fatalf("%+v is refused %s\n%s", who, g.Filter, document)
		}
	}
	if should := want.Given(who, "192.0.2.7"); !slices.Equal(given, should) {
		t.Fatalf("%+v is given %v, want %v\n%s", who, given, should, document)
	}
}
