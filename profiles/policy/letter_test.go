package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/bellwire/bellwire/internal/effort"
	"github.com/bellwire/bellwire/internal/letter"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/presence"
)

// Whole documents of each kind, made up at random, decide at any instant what they decide
// by the letter of the requirements: whoever asks, whatever they ask, in whatever zone the
// hours are, and while clocks are put back and forward.
func TestWholeDocumentsByTheLetter(t *testing.T) {
	people := []string{"ana@example.com", "bob@example.com", "cat@example.com", "zoe@example.net"}
	kinds := []For{presence.New(nil), location.New(nil), im.New()}
	for seed := range effort.RoundsOfOne(200, 2000, 100_000) {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		r := &letter.Random{Rand: rng, People: people, Inboxes: people[1:], Around: time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC).AddDate(0, rng.IntN(12), rng.IntN(30))}
		k := kinds[rng.IntN(len(kinds))]
		document, owner := r.Owner(k.Name()), people[0]
		want, err := letter.ReadOwner(document, k.Name(), owner, "confirm")
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, document)
		}
		p, err := Parse(document, k, kind.Of(owner))
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, document)
		}
		if !p.said {
			p.handling = Confirm // as the operator has it
		}
		for range 40 {
			a := letter.Asking{
				Watcher: append(people, "")[rng.IntN(len(people)+1)], Op: []string{"subscribe", "fetch", "publish"}[rng.IntN(3)], Contact: r.Chance(2),
				At: r.Around.Add(time.Duration(rng.IntN(20*24*3600)-5*24*3600) * time.Second),
			}
			if r.Chance(2) {
				a.At = a.At.Truncate(time.Hour) // when windows open and close
			}
			if k.Name() == "presence" {
				a.Sphere = []string{"", "work", "Home"}[rng.IntN(3)]
			}
			w := kind.Of(a.Watcher)
			in := Input{Sphere: a.Sphere, Contact: a.Contact, Auth: AuthOf(w), Op: map[string]Op{"subscribe": OpSubscribe, "fetch": OpFetch, "publish": OpPublish}[a.Op]}
			a.Auth = int(in.Auth)
			d, v := p.Evaluate(w, a.At, in), want.Decide(a)
			if got, should := saidOf(t, &d, k, v.All), verdictOf(&v); got != should {
				t.Fatalf("seed %d: %+v\ngot  %s\nwant %s\n%s", seed, a, got, should, document)
			}
			if now := p.Now(w, a.At, in); !now.Grant.Same(d.Grant) || now.Forward != d.Forward {
				t.Fatalf("seed %d: %+v: granted %v to %v, and evaluated as %v to %v\n%s", seed, a, now.Grant, now.Forward, d.Grant, d.Forward, document)
			}
			// Until then it is shown, and forwarded, alike.
			if soon := a.At.Add(time.Duration(rng.IntN(50*3600)) * time.Second); d.Until.IsZero() || soon.Before(d.Until) {
				if now := p.Now(w, soon, in); now.Handling != d.Handling || now.View != d.View || now.Forward != d.Forward || !now.Grant.Same(d.Grant) {
					t.Fatalf("seed %d: %+v: %+v until %v, and at %v %+v\n%s", seed, a, d, d.Until, soon, now, document)
				}
			}
		}
	}
}

// saidOf writes a decision as verdictOf does.
func saidOf(t *testing.T, d *Decision, k For, all bool) string {
	t.Helper()
	if all && d.View == ViewFiltered && d.Grant.Covers(kind.Most(k.Permissions())) {
		return "everything"
	}
	g, err := letter.ReadGrant(d.Grant.Append(nil, k.Permissions()))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s named %v closed %v, shown %v, forwarded to %q", d.Handling, d.Named, d.Closed, g, d.Forward.String())
}

func verdictOf(v *letter.Verdict) string {
	if v.All {
		return "everything"
	}
	return fmt.Sprintf("%s named %v closed %v, shown %v, forwarded to %q", v.Handling, v.Named, v.Closed, v.Shown, v.Forward)
}
