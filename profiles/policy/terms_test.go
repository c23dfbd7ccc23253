package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/profiles/kind"
)

// A spoken is a rule that says something of the subscription, and the persona.
type spoken struct {
	id, persona, style  string
	rank, most, handles int
	open                bool
}

func (s spoken) text() string {
	then := []string{fmt.Sprintf(`"handling":%q`, []string{"block", "allow"}[s.handles])}
	if s.persona != "" {
		then = append(then, fmt.Sprintf(`"persona":%q`, s.persona))
	}
	if s.style != "" {
		then = append(then, fmt.Sprintf(`"style":%q`, s.style))
	}
	if s.most > 0 {
		then = append(then, fmt.Sprintf(`"maxExpires":%d`, s.most))
	}
	sphere := "work"
	if !s.open {
		sphere = "home"
	}
	return fmt.Sprintf(`{"id":%q,"rank":%d,"if":{"sphere":[%q]},"then":{%s},"show":{"note":true}}`, s.id, s.rank, sphere, strings.Join(then, ","))
}

// Against a dumb reading: of what rules say the greatest rank decides, then the id, of
// open rules for the persona and of those that make the handling for the terms; numbers
// are the greatest, and none if one has none. So a rule more of the same handling never
// makes a subscription shorter, and the order of rules makes no difference.
func TestTermsByRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []spoken
		for i := range rapid.IntRange(1, 5).Draw(t, "rules") {
			rules = append(rules, spoken{
				id: fmt.Sprint(i), rank: rapid.IntRange(-1, 1).Draw(t, "rank"), open: rapid.Bool().Draw(t, "open"), handles: rapid.IntRange(0, 1).Draw(t, "handling"),
				persona: rapid.SampledFrom([]string{"", "work", "family"}).Draw(t, "persona"), style: rapid.SampledFrom([]string{"", "refuse", "ignore", "polite"}).Draw(t, "style"),
				most: rapid.SampledFrom([]int{0, 60, 600}).Draw(t, "most"),
			})
		}
		decide := func(rules []spoken) Decision {
			var texts []string
			for _, r := range rules {
				texts = append(texts, r.text())
			}
			p, err := Parse([]byte(`{"v":1,"rules":[`+strings.Join(texts, ",")+`]}`), pres, bob)
			if err != nil {
				t.Fatal(err)
			}
			return p.Evaluate(kind.Of("ana@example.com"), time.Unix(0, 0), Input{Sphere: "work"})
		}
		d := decide(rules)
		byRank := slices.SortedFunc(slices.Values(rules), func(a, b spoken) int { return cmp.Or(b.rank-a.rank, strings.Compare(a.id, b.id)) })
		first := func(of func(spoken) string, counts func(spoken) bool) string {
			for _, r := range byRank {
				if counts(r) && of(r) != "" {
					return of(r)
				}
			}
			return ""
		}
		handles := slices.MaxFunc(rules, func(a, b spoken) int { return a.handles - b.handles }).handles
		makes := func(r spoken) bool { return r.handles == handles }
		most, bounded := 0, true
		for _, r := range rules {
			if makes(r) {
				most, bounded = max(most, r.most), bounded && r.most > 0
			}
		}
		if !bounded {
			most = 0
		}
		style := cmp.Or(first(func(r spoken) string { return r.style }, makes), "refuse")
		if d.MaxExpires != time.Duration(most)*time.Second || d.Style.String() != style {
			t.Fatalf("%+v: %+v, want %d s, %s", rules, d, most, style)
		}
		if d.View == ViewFiltered {
			if want := first(func(r spoken) string { return r.persona }, func(r spoken) bool { return r.open }); d.Grant.Persona() != want {
				t.Fatalf("%+v: persona %q, want %q", rules, d.Grant.Persona(), want)
			}
		}
		if shuffled := decide(rapid.Permutation(rules).Draw(t, "shuffled")); !shuffled.equal(&d) {
			t.Fatalf("in another order %+v, not %+v", shuffled, d)
		}
		if less := decide(rules[:len(rules)-1]); len(rules) > 1 && less.Handling == d.Handling && d.MaxExpires != 0 && (less.MaxExpires == 0 || less.MaxExpires > d.MaxExpires) {
			if makes(rules[len(rules)-1]) && less.MaxExpires != 0 {
				t.Fatalf("%s makes a subscription shorter: %s, before %s", rules[len(rules)-1].text(), d.MaxExpires, less.MaxExpires)
			}
		}
	})
}
