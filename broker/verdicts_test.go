package broker

import (
	"math/rand/v2"
	"testing"
)

// What is known is what was decided, for as long as it was said to hold, however many
// others took places; and the places are bounded.
func TestVerdicts(t *testing.T) {
	var v verdicts
	truth := func(list, session uint64, at int64) (d Decision) {
		d.Allow = (list+session+uint64(at)/10)%2 == 0
		d.Until = (at/10 + 1) * 10
		return d
	}
	rng := rand.New(rand.NewPCG(1, 1))
	found := 0
	for range 300_000 {
		list, session, at := 1+rng.Uint64N(200), 1+rng.Uint64N(2000), rng.Int64N(20)
		d := truth(list, session, at)
		if allow, until, known := v.find(list, session, at); known {
			found++
			if allow != d.Allow || until != d.Until {
				t.Fatalf("of %d and %d at %d it is known: %v until %d, decided was %v until %d", list, session, at, allow, until, d.Allow, d.Until)
			}
			continue
		}
		v.keep(list, session, at, &d, verdictsMost)
		if _, _, known := v.find(list, session, at); !known {
			t.Fatalf("of %d and %d it is not known what was decided last", list, session)
		}
	}
	if len(v.places) != verdictsMost {
		t.Errorf("%d places, want %d", len(v.places), verdictsMost)
	}
	if found < 1000 {
		t.Errorf("only %d were known", found)
	}
}
