package acl

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker/topic"
	_ "github.com/bellwire/bellwire/internal/fixedseed"
)

// The small world in which policies are made up: few enough people, topics and
// windows that rules meet.
var (
	worldWho = []string{
		"anyone", "anonymous", "*@*", "*@example.com", "*@example.net", "group:staff", "group:guests",
		"ana@example.com", "bo@example.com", "zoe@example.net",
	}
	worldPeople   = []string{"", "ana@example.com", "bo@example.com", "cy@example.com", "zoe@example.net", "+/#@example.net"}
	worldClients  = []string{"", "c1", "a/b"}
	worldPatterns = []string{
		"#", "+", "+/#", "a/#", "a/+", "a/b", "a/b/#", "a/+/c", "+/b/c", "{local}/#", "a/{local}", "a/{local}-{client}/c",
		"{domain}/{local}/x", "a/{client}", "$SYS/#", "$SYS/+/x", "a//b", "a/+/+/d",
	}
	worldTopics = []string{
		"a", "a/b", "a/b/c", "a/ana", "a/bo", "a/ana-c1/c", "ana/x", "example.com/ana/x", "a/c1", "a/a%2Fb", "$SYS/up/x", "$SYS",
		"a//b", "b", "a/x/y/d", "a/%2B%2F%23", "%2B%2F%23/x",
	}
	worldFilters = []string{"#", "+", "+/#", "a/#", "a/+", "a/b/#", "a/+/c", "ana/#", "ana/+", "$SYS/#", "$SYS/+/x", "+/b/c", "a/b/c/#"}
	worldWhen    = []string{
		"", "", // most rules have none
		`{weekly: ["Mon-Fri 08:00-17:00"], tz: America/Chicago}`,
		`{weekly: ["Mon-Fri 08:00-12:00", "Mon-Fri 12:00-17:00"], tz: America/Chicago}`,
		`{weekly: ["Mon-Sun 00:00-12:00"], tz: Europe/Madrid}`,
		`{weekly: ["Mon-Sun 12:00-24:00"], tz: Europe/Madrid}`,
		`{weekly: ["Sat,Sun 22:00-06:00"], tz: Europe/Madrid, except: ["2026-03-28"]}`,
		`{weekly: ["Mon-Sun 00:00-24:00"], tz: UTC, except: ["2026-03-30", "2026-03-31"]}`,
		`{weekly: ["Sun 02:15-02:45"], tz: Europe/Madrid}`,
		`{from: "2026-03-29T12:34:56Z"}`,
		`{until: "2026-03-29T12:34:56Z"}`,
		`{weekly: ["Mon-Sun 06:00-05:00"], tz: Australia/Lord_Howe, from: "2026-03-28T00:00:00Z", until: "2026-04-05T15:00:00Z"}`,
	}
)

// A drawn rule, as it stands in a file.
type drawn struct {
	limit bool
	text  string
}

// drawRules draws up to eight rules and limits.
func drawRules(t *rapid.T) []drawn {
	n := rapid.IntRange(1, 8).Draw(t, "rules")
	var rules []drawn
	some := func(words []string, most int, label string) string {
		list := rapid.SliceOfNDistinct(rapid.SampledFrom(words), 1, most, rapid.ID[string]).Draw(t, label)
		return `["` + strings.Join(list, `", "`) + `"]`
	}
	for i := range n {
		when := rapid.SampledFrom(worldWhen).Draw(t, "when")
		if when != "" {
			when = ", when: " + when
		}
		who, topics := some(worldWho, 3, "who"), some(worldPatterns, 3, "topics")
		kind := rapid.SampledFrom([]string{"allow", "allow", "allow", "deny", "limit"}).Draw(t, "kind")
		actions := rapid.SampledFrom([]string{"[subscribe]", "[publish, subscribe]"}).Draw(t, "actions")
		switch kind {
		case "limit":
			rules = append(rules, drawn{true, fmt.Sprintf("{id: r%d, topic: %s, only: {who: %s%s}}", i, topics, who, when)})
		case "deny":
			rules = append(rules, drawn{false, fmt.Sprintf("{id: r%d, deny: %s, who: %s, topic: %s%s}", i, actions, who, topics, when)})
		default:
			outside := rapid.SampledFrom([]string{"hold", "announce", "end"}).Draw(t, "outside")
			rules = append(rules, drawn{false, fmt.Sprintf("{id: r%d, allow: %s, who: %s, topic: %s%s, outside: %s}", i, actions, who, topics, when, outside)})
		}
	}
	return rules
}

// policyOf parses rules in the order given.
func policyOf(t *rapid.T, rules []drawn) *Policy {
	var b strings.Builder
	b.WriteString("groups: {staff: [ana, bo], guests: [zoe@example.net]}\n")
	for _, limits := range []bool{false, true} {
		head := "rules:\n"
		if limits {
			head = "limits:\n"
		}
		for _, r := range rules {
			if r.limit == limits {
				b.WriteString(head + "  - " + r.text + "\n")
				head = ""
			}
		}
	}
	p, err := Parse("policy.yaml", []byte(b.String()), "example.com")
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	return p
}

func drawWho(t *rapid.T) Who {
	return Who{
		Principal: rapid.SampledFrom(worldPeople).Draw(t, "principal"),
		Client:    rapid.SampledFrom(worldClients).Draw(t, "client"),
	}
}

// drawInstant draws an instant in the fortnight in which things happen: both
// of Madrid's and Lord Howe's changes of the clock lie in it.
func drawInstant(t *rapid.T) time.Time {
	from := time.Date(2026, 3, 24, 0, 0, 0, 0, time.UTC)
	return from.Add(time.Duration(rapid.Int64Range(0, int64(15*24*time.Hour)).Draw(t, "instant")))
}

// about returns the rules that have to do with a question, found one by one.
func about(p *Policy, who Who, what Action, name string) []*rule {
	var rules []*rule
	for _, r := range p.rules {
		if r.actions[what] && slices.ContainsFunc(r.patterns, func(pattern *pattern) bool {
			filter, ok := pattern.filterFor(who)
			return ok && topic.Covers(filter, name)
		}) {
			rules = append(rules, r)
		}
	}
	return rules
}

// plainly returns the answer to a question, as a function of the instant, by
// the letter of the rules: it knows no index, no Until and no order.
func plainly(p *Policy, who Who, what Action, name string) func(at time.Time) bool {
	rules := about(p, who, what, name)
	return func(at time.Time) bool {
		allowed, cut := false, false
		for _, r := range rules {
			open := r.when == nil || r.when.Open(at)
			switch listed := r.who.has(who.Principal); r.effect {
			case allow:
				allowed = allowed || listed && open
			case deny:
				cut = cut || listed && open
			case limit:
				cut = cut || !listed || !open
			}
		}
		return allowed && !cut
	}
}

// named returns the id of the rule that a decision has to name, and what it
// has to say of Outside where a window has a part in it.
func named(p *Policy, who Who, what Action, name string, at time.Time) (id string, outside Outside) {
	var allows, always, open, denies, excludes, denying, closed []*rule
	live, all := []Outside{}, []Outside{}
	for _, r := range about(p, who, what, name) {
		listed, isOpen := r.who.has(who.Principal), r.when == nil || r.when.Open(at)
		add := func(list *[]*rule, is bool) {
			if is {
				*list = append(*list, r)
			}
		}
		switch r.effect {
		case allow:
			add(&allows, listed)
			add(&always, listed && r.when == nil)
			add(&open, listed && isOpen)
			if listed {
				all = append(all, r.outside)
			}
			if listed && (isOpen || !r.when.Next(at).IsZero()) {
				live = append(live, r.outside)
			}
		case deny:
			add(&denies, listed && r.when == nil)
			add(&denying, listed && isOpen)
		case limit:
			add(&excludes, !listed)
			add(&closed, listed && !isOpen)
		}
	}
	if len(live) > 0 {
		outside = slices.Min(live)
	} else if len(all) > 0 {
		outside = slices.Min(all)
	}
	opening := func(r *rule) int64 {
		if next := r.when.Next(at); !next.IsZero() {
			return next.Unix()
		}
		return never
	}
	switch {
	case len(denies) > 0:
		return least(denies), outside
	case len(allows) == 0:
		return "", outside
	case len(excludes) > 0:
		return least(excludes), outside
	case len(open) == 0:
		first := slices.MinFunc(allows, func(a, b *rule) int {
			return cmp.Or(cmp.Compare(opening(a), opening(b)), strings.Compare(a.id, b.id))
		})
		return first.id, outside
	case len(denying) > 0:
		return least(denying), outside
	case len(closed) > 0:
		return least(closed), outside
	case len(always) > 0:
		return least(always), outside
	}
	return least(open), outside
}

func least(rules []*rule) string {
	return slices.MinFunc(rules, func(a, b *rule) int { return strings.Compare(a.id, b.id) }).id
}

// Decide answers as the rules say, its answer holds at every minute until
// Until, and is the other one then.
func TestDecideIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(t, drawRules(t))
		who, at := drawWho(t), drawInstant(t)
		what := rapid.SampledFrom([]Action{Publish, Subscribe}).Draw(t, "action")
		name := rapid.SampledFrom(worldTopics).Draw(t, "topic")
		if what == Subscribe && rapid.Bool().Draw(t, "as filter") {
			name = rapid.SampledFrom(worldFilters).Draw(t, "filter")
		}
		d, flips := p.decide(who, what, name, seconds(at))
		if d != p.Decide(who, what, name, at) {
			t.Fatal("asked twice, answered differently")
		}
		plain := plainly(p, who, what, name)
		if want := plain(at); d.Allow != want {
			t.Fatalf("%s %s by %q at %s: %v, want %v", what, name, who, at, d.Allow, want)
		}
		id, outside := named(p, who, what, name, at)
		if d.Rule != id || d.Windowed && d.Outside != outside {
			t.Fatalf("%s %s by %q at %s: by %s, outside %s, want %s, %s", what, name, who, at, d.Rule, d.Outside, id, outside)
		}
		if !d.Windowed && !d.Until.IsZero() || flips && d.Until.IsZero() {
			t.Fatalf("inconsistent: %+v", d)
		}
		end := at.Add(9 * 24 * time.Hour)
		switch {
		case flips:
			if !d.Until.After(at) || plain(d.Until.Add(-time.Nanosecond)) != d.Allow || plain(d.Until) == d.Allow {
				t.Fatalf("no change at %s", d.Until)
			}
			if d.Until.Before(end) {
				end = d.Until
			}
		case !d.Until.IsZero() && d.Until.Before(at.Add(300*24*time.Hour)):
			t.Fatalf("the search ended at %s already", d.Until)
		}
		for m := at.Truncate(time.Minute).Add(time.Minute); m.Before(end); m = m.Add(time.Minute) {
			if plain(m) != d.Allow {
				t.Fatalf("%v at %s until %s, but not at %s", d.Allow, at, d.Until, m)
			}
		}
	})
}

// The order of rules in a file changes nothing: neither the answer nor the
// rule that is named for it.
func TestOrderOfRulesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRules(t)
		one, other := policyOf(t, rules), policyOf(t, rapid.Permutation(rules).Draw(t, "order"))
		who, at := drawWho(t), drawInstant(t)
		for _, name := range worldTopics {
			for _, what := range []Action{Publish, Subscribe} {
				a, b := one.Decide(who, what, name, at), other.Decide(who, what, name, at)
				a.Line, b.Line = 0, 0
				if a != b {
					t.Fatalf("%s %s: %+v, in another order %+v", what, name, a, b)
				}
			}
		}
		for _, filter := range worldFilters {
			a, b := one.Grant(who, filter, at), other.Grant(who, filter, at)
			a.Line, b.Line = 0, 0
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("%s: %+v, in another order %+v", filter, a, b)
			}
		}
		if a, b := one.NextEdge(at), other.NextEdge(at); !a.Equal(b) {
			t.Fatalf("next edge %s, in another order %s", a, b)
		}
	})
}

// What a rule denies at all times is denied, whatever other rules say.
func TestDenyWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := append(drawRules(t), drawn{text: `{id: no, deny: [publish, subscribe], who: [anyone], topic: ["a/#"]}`})
		p := policyOf(t, rapid.Permutation(rules).Draw(t, "order"))
		who, at := drawWho(t), drawInstant(t)
		for _, name := range worldTopics {
			d := p.Decide(who, Publish, name, at)
			if topic.Match("a/#", name) && (d.Allow || !d.Until.IsZero() || d.Windowed) {
				t.Fatalf("%s: %+v", name, d)
			}
		}
	})
}

// A ceiling is what would be decided if everything were allowed besides.
func TestCeilingIsDecideWithAllAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := drawRules(t)
		p := policyOf(t, rules)
		all := policyOf(t, append(rules, drawn{text: `{id: all, allow: [publish, subscribe], who: [anyone], topic: ["#", "$SYS/#"]}`}))
		who, at := drawWho(t), drawInstant(t)
		for _, name := range worldTopics {
			for _, what := range []Action{Publish, Subscribe} {
				got, want := p.Ceiling(who, what, name, at), all.Decide(who, what, name, at)
				if got.Allow != want.Allow || !got.Until.Equal(want.Until) || got.Reason != want.Reason {
					t.Fatalf("%v %s: got %+v, want %+v", what, name, got, want)
				}
			}
		}
	})
}

// What is always allowed is allowed: each topic that the filter matches, at each
// instant, for good.
func TestAlwaysMeansAlways(t *testing.T) {
	always := 0
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(t, drawRules(t))
		who := drawWho(t)
		filter := rapid.SampledFrom(slices.Concat(worldFilters, worldTopics)).Draw(t, "filter")
		if !p.Always(who, filter) {
			return
		}
		always++
		for _, name := range worldTopics {
			if !topic.Match(filter, name) {
				continue
			}
			at := drawInstant(t)
			if d := p.Decide(who, Subscribe, name, at); !d.Allow || !d.Until.IsZero() {
				t.Fatalf("%s is always allowed, and of %s at %v the policy says %+v", filter, name, at, d)
			}
		}
	})
	if always == 0 {
		t.Error("nothing was always allowed")
	}
}

// A SUBSCRIBE is granted exactly if some rule allows the whole filter now or
// at a later instant; and it is windowed if time has a part in any topic of it.
func TestGrantMeansSomeInstant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(t, drawRules(t))
		who, at := drawWho(t), drawInstant(t)
		filter := rapid.SampledFrom(slices.Concat(worldFilters, worldTopics)).Draw(t, "filter")
		g := p.Grant(who, filter, at)
		allows := plainly(&Policy{rules: slices.DeleteFunc(slices.Clone(p.rules), func(r *rule) bool { return r.effect != allow })}, who, Subscribe, filter)
		ever := false
		for m := at; !ever && m.Before(at.Add(16*24*time.Hour)); m = m.Truncate(time.Minute).Add(time.Minute) {
			ever = allows(m)
		}
		// All that can open again does so within a fortnight.
		if g.Allowed != ever {
			t.Fatalf("granted %v (%s), allowed at some instant %v", g.Allowed, g.Reason, ever)
		}
		if (g.Reason == "") != g.Allowed {
			t.Fatalf("granted %v with reason %q", g.Allowed, g.Reason)
		}
		for _, part := range g.Covered {
			if err := topic.ValidFilter(part); err != nil || !topic.Covers(filter, part) || part == filter {
				t.Fatalf("%q is no part of %q: %v", part, filter, err)
			}
			if !slices.ContainsFunc(p.allows(who, Subscribe), func(own string) bool { return topic.Covers(own, part) }) {
				t.Fatalf("%q is not covered", part)
			}
		}
		for _, name := range worldTopics {
			if !g.Windowed && topic.Match(filter, name) { // also of what was granted by another policy
				if d, flips := p.decide(who, Subscribe, name, seconds(at)); flips {
					t.Fatalf("%s changes at %s, but %s is not windowed", name, d.Until, filter)
				}
			}
		}
	})
}

// overlaps finds what topic.Overlaps finds.
func TestIndexOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(t, drawRules(t))
		who := drawWho(t)
		x := newIndex(p.rules)
		for _, filter := range slices.Concat(worldFilters, worldTopics) {
			want := slices.ContainsFunc(p.rules, func(r *rule) bool {
				return r.matches(who, Publish) && slices.ContainsFunc(r.patterns, func(pattern *pattern) bool {
					own, ok := pattern.filterFor(who)
					return ok && topic.Overlaps(own, filter)
				})
			})
			got := x.overlaps(who, Publish, filter)
			// Where who has no name for a hole, a wildcard of the filter
			// still meets it: that costs a look at an edge, no more.
			if got != want && (want || who.Principal != "" && who.Client != "") {
				t.Fatalf("%q: %v, want %v", filter, got, want)
			}
		}
	})
}

// Between two edges no decision changes.
func TestNextEdgeIsWhenDecisionsChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(t, drawRules(t))
		who, at := drawWho(t), drawInstant(t)
		name := rapid.SampledFrom(worldTopics).Draw(t, "topic")
		for range 20 {
			edge := p.NextEdge(at)
			d := p.Decide(who, Subscribe, name, at)
			if edge.IsZero() != d.Until.IsZero() && !d.Until.IsZero() || !edge.IsZero() && !d.Until.IsZero() && d.Until.Before(edge) {
				t.Fatalf("at %s the next edge is %s, the answer changes at %s", at, edge, d.Until)
			}
			if edge.IsZero() {
				return
			}
			at = edge
		}
	})
}

// Where nothing may have opened nothing has: no topic of the filter is allowed at the
// end that was denied at any instant between. And a close alone opens nothing.
func TestMayOpenMissesNothing(t *testing.T) {
	var none, some int
	rapid.Check(t, func(t *rapid.T) {
		p := policyOf(t, drawRules(t))
		who, after := drawWho(t), drawInstant(t)
		filter := rapid.SampledFrom(slices.Concat(worldFilters, worldTopics)).Draw(t, "filter")
		upto := after.Add(rapid.SampledFrom([]time.Duration{1, time.Minute, 5 * time.Hour, 12 * time.Hour, 30 * time.Hour}).Draw(t, "span"))
		may := p.MayOpen(who, filter, after, upto)
		if may {
			some++
			return
		}
		none++
		for _, name := range worldTopics {
			if !topic.Match(filter, name) || !p.Decide(who, Subscribe, name, upto).Allow {
				continue
			}
			for m := after; m.Before(upto); m = m.Truncate(time.Minute).Add(time.Minute) {
				if !p.Decide(who, Subscribe, name, m).Allow {
					t.Fatalf("%s was denied at %v, is allowed at %v, and nothing of %s has opened since %v", name, m, upto, filter, after)
				}
			}
		}
	})
	if none == 0 || some == 0 {
		t.Errorf("something may have opened %d times, nothing %d times", some, none)
	}
	p := mustParse(t, `rules:
  - {id: day, allow: [subscribe], who: [anyone], topic: ["a/#"], when: {weekly: ["Mon-Sun 08:00-17:00"], tz: UTC}}
  - {id: noon, deny: [subscribe], who: [anyone], topic: [a/b], when: {weekly: ["Mon-Sun 12:00-13:00"], tz: UTC}}
`)
	at := func(hour int) time.Time { return time.Date(2026, 3, 9, hour, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		filter string
		hour   int
		want   bool
	}{{"a/#", 17, false}, {"a/c", 17, false}, {"a/#", 8, true}, {"a/#", 12, false}, {"a/#", 13, true}, {"a/c", 13, false}, {"a/b", 13, true}, {"b", 8, false}} {
		if got := p.MayOpen(Who{}, c.filter, at(c.hour).Add(-1), at(c.hour)); got != c.want {
			t.Errorf("%s at %d: %v, want %v", c.filter, c.hour, got, c.want)
		}
	}
}
