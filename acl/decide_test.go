package acl

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const office = `, when: {weekly: ["Mon-Fri 08:00-17:00"], tz: America/Chicago}`

// thousandRules returns a policy of a thousand rules: for single people, for
// groups and for single topics, with and without windows, and a few for all.
func thousandRules() string {
	var b strings.Builder
	b.WriteString("groups:\n")
	for i := range 50 {
		fmt.Fprintf(&b, "  team-%d: [ana-%d, bo-%d, eve-%d]\n", i, i, i, i)
	}
	b.WriteString("rules:\n")
	for i := range 997 {
		when := ""
		if i%2 == 0 {
			when = office
		}
		switch i % 4 {
		case 0, 1:
			fmt.Fprintf(&b, "  - {id: r%d, allow: [subscribe], who: [person-%d], topic: [\"shared/#\"]%s}\n", i, i, when)
		case 2:
			fmt.Fprintf(&b, "  - {id: r%d, allow: [subscribe], who: [\"group:team-%d\"], topic: [\"shared/+/news\"]%s}\n", i, i%50, when)
		case 3:
			fmt.Fprintf(&b, "  - {id: r%d, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"plant/%d/#\"]%s}\n", i, i, when)
		}
	}
	fmt.Fprintf(&b, "  - {id: own, allow: [publish, subscribe], who: [\"*@example.com\"], topic: [\"home/{local}/#\"]}\n")
	fmt.Fprintf(&b, "  - {id: office, allow: [subscribe], who: [\"*@example.com\"], topic: [\"office/#\"]%s}\n", office)
	fmt.Fprintf(&b, "  - {id: lunch, deny: [subscribe], who: [\"*@*\"], topic: [\"office/noise\"], when: {weekly: [\"Mon-Fri 12:00-13:00\"], tz: America/Chicago}}\n")
	return b.String()
}

var decisions = []struct {
	name, who, topic string
	what             Action
	allow            bool
}{
	{"own topic", "ana-1@example.com", "home/ana-1/kitchen/temp", Publish, true},
	{"no rule", "ana-1@example.com", "home/ana-2/kitchen/temp", Publish, false},
	{"window", "ana-1@example.com", "office/door", Subscribe, true},
	{"two windows", "ana-1@example.com", "office/noise", Subscribe, true},
	{"by name among 500", "person-500@example.com", "shared/x", Subscribe, true},
	{"by group among 250", "ana-2@example.com", "shared/x/news", Subscribe, true},
	{"one of 250 topics", "ana-1@example.com", "plant/3/line/7", Publish, true},
}

// 2026-07-01 13:30Z is a Wednesday, 08:30 in Chicago.
var morning = time.Date(2026, 7, 1, 13, 30, 0, 0, time.UTC)

// Decisions allocate nothing, whether they find one rule of a thousand or none.
func TestDecideDoesNotAllocate(t *testing.T) {
	p := mustParse(t, thousandRules())
	for _, c := range decisions {
		who := Who{Principal: c.who, Client: "c1"}
		if d := p.Decide(who, c.what, c.topic, morning); d.Allow != c.allow {
			t.Errorf("%s: %+v, want %v", c.name, d, c.allow)
		}
		if n := testing.AllocsPerRun(100, func() { p.Decide(who, c.what, c.topic, morning) }); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// Rules that do the same under the same window are one question to ask: the
// first by id is named, and the mildest outside counts, in any order.
func TestRulesUnderOneWindow(t *testing.T) {
	rule := func(id, outside string, topics ...string) string {
		return "  - {id: " + id + ", allow: [subscribe], who: [anyone], topic: [\"" + strings.Join(append(topics, "x"), `", "`) + "\"]" + office + ", outside: " + outside + "}\n"
	}
	for _, c := range []struct{ rules, name, outside string }{
		{rule("a", "end") + rule("b", "announce"), "a", "announce"},
		{rule("b", "announce") + rule("a", "end"), "a", "announce"},
		{rule("a", "hold") + rule("b", "end"), "a", "hold"},
		{rule("b", "end") + rule("a", "end"), "a", "end"},
		{rule("b", "end", "#") + rule("a", "end"), "a", "end"}, // b is found first
	} {
		p := mustParse(t, "rules:\n"+c.rules)
		for _, at := range []time.Time{morning, morning.Add(12 * time.Hour)} {
			if d := p.Decide(Who{}, Subscribe, "x", at); d.Rule != c.name || d.Outside.String() != c.outside {
				t.Errorf("at %s: by %s, outside %s, want %s, %s\n%s", at, d.Rule, d.Outside, c.name, c.outside, c.rules)
			}
			if g := p.Grant(Who{}, "x", at); g.Rule != c.name || g.Outside.String() != c.outside {
				t.Errorf("granted at %s: by %s, outside %s, want %s, %s\n%s", at, g.Rule, g.Outside, c.name, c.outside, c.rules)
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p := mustParse(b, thousandRules())
	for _, c := range decisions {
		who := Who{Principal: c.who, Client: "c1"}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(who, c.what, c.topic, morning)
			}
		})
	}
}

// BenchmarkDecideOfMany is a decision to which all of 500 rules have something to say:
// rules for one topic, with that many different windows, for a domain of which who asks
// is one, and for a group.
func BenchmarkDecideOfMany(b *testing.B) {
	for _, windows := range []int{12, 100, 500} {
		b.Run(fmt.Sprint(windows, " windows"), func(b *testing.B) {
			var text strings.Builder
			text.WriteString("groups: {staff: [ana-1, bo]}\nrules:\n")
			for i := range 500 {
				who, n := [...]string{"*@example.com", "group:staff", "*@*"}[i%3], i%windows
				fmt.Fprintf(&text, "  - {id: r%d, allow: [subscribe], who: [%q], topic: [\"plant/#\"], when: {weekly: [\"Mon-Fri %02d:%02d-17:00\"], tz: America/Chicago}}\n",
					i, who, n%12, n/12)
			}
			p := mustParse(b, text.String())
			who := Who{Principal: "ana-1@example.com", Client: "c1"}
			b.ReportAllocs()
			for b.Loop() {
				if !p.Decide(who, Subscribe, "plant/3/line/7", morning).Allow {
					b.Fatal("denied")
				}
			}
		})
	}
}

func BenchmarkNextEdge(b *testing.B) {
	p := mustParse(b, thousandRules())
	for b.Loop() {
		p.NextEdge(morning)
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(thousandRules())
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("policy.yaml", text, "example.com"); err != nil {
			b.Fatal(err)
		}
	}
}
