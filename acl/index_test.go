package acl

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/effort"
)

// one returns a policy of one rule for everybody on one topic.
func one(t *testing.T, pattern string) *Policy {
	return mustParse(t, fmt.Sprintf("rules:\n  - {id: r, allow: [publish, subscribe], who: [anyone], topic: [%q]}\n", pattern))
}

// Every pattern is found for every name it matches and every filter it covers,
// and for no other.
func TestIndexFindsWhatCovers(t *testing.T) {
	for _, text := range worldPatterns {
		p := one(t, text)
		for _, principal := range worldPeople {
			for _, client := range worldClients {
				who := Who{Principal: principal, Client: client}
				own, ok := p.rules[0].patterns[0].filterFor(who)
				for _, name := range slices.Concat(worldTopics, worldFilters) {
					want := ok && topic.Covers(own, name)
					if got := p.Decide(who, Subscribe, name, time.Time{}).Allow; got != want {
						t.Errorf("%q for %q covers %q: %v, want %v", text, own, name, got, want)
					}
				}
			}
		}
	}
}

// Where many rules share a topic, those for named people are found by name,
// and those for others and all limits as well.
func TestManyRulesAtOnePlace(t *testing.T) {
	var b strings.Builder
	b.WriteString("groups: {few: [p1, p2], more: [p2, p3, p4]}\nrules:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  - {id: r%d, allow: [publish], who: [p%d], topic: [x]}\n", i, i)
	}
	b.WriteString(`  - {id: few, deny: [publish], who: ["group:few"], topic: [x]}
  - {id: more, allow: [subscribe], who: ["group:more"], topic: [x]}
  - {id: net, allow: [subscribe], who: ["*@example.net"], topic: [x]}
  - {id: all, allow: [subscribe], who: [anonymous], topic: [x]}
limits:
  - {id: named, topic: [x], only: {who: [p1, p2, p3, p4, p5, "*@example.net", anonymous]}}
`)
	p := mustParse(t, b.String())
	if p.index.root.words["x"].ends.byName == nil {
		t.Fatal("too few rules to be found by name")
	}
	allowed := 0
	for _, principal := range []string{"", "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p19", "p20", "zoe@example.net", "p1@example.net"} {
		if principal != "" && !strings.Contains(principal, "@") {
			principal += "@example.com"
		}
		for _, what := range []Action{Publish, Subscribe} {
			who := Who{Principal: principal}
			got, want := p.Decide(who, what, "x", morning).Allow, plainly(p, who, what, "x")(morning)
			if got != want {
				t.Errorf("%s by %s: %v, want %v", what, who, got, want)
			}
			if want {
				allowed++
			}
		}
	}
	if allowed != 9 {
		t.Errorf("%d allowed, want 9", allowed)
	}
}

// What stands for a placeholder fills its place and no more.
func TestPlaceholdersStayInPlace(t *testing.T) {
	for _, c := range []struct {
		pattern, principal, client, topic string
		want                              bool
	}{
		{"home/{local}/x", "ana@example.com", "", "home/ana/x", true},
		{"home/{local}/x", "a/b@example.com", "", "home/a/b/x", false},
		{"home/{local}/x", "a/b@example.com", "", "home/a%2Fb/x", true},
		{"home/{local}/x", "a/b@example.com", "", "home/a%2fb/x", false},
		{"home/{local}/x", "+@example.com", "", "home/ana/x", false},
		{"home/{local}/x", "+@example.com", "", "home/%2B/x", true},
		{"home/{local}/#", "#@example.com", "", "home/ana/x", false},
		{"home/{local}", "#@example.com", "", "home/%23", true},
		{"{local}/x", "$sys@example.com", "", "$sys/x", false},
		{"{local}/x", "$sys@example.com", "", "%24sys/x", true},
		{"{local}/x", "a$b@example.com", "", "a$b/x", true},
		{"{local}/x", "%24sys@example.com", "", "%24sys/x", false},
		{"{local}/x", "%24sys@example.com", "", "%2524sys/x", true},
		{"{domain}/{local}/x", "ana@example.com", "", "example.com/ana/x", true},
		{"{domain}/x", "ana@example.com", "", "example.net/x", false},
		{"c/{client}", "ana@example.com", "c1", "c/c1", true},
		{"c/{client}", "", "c1", "c/c1", true},
		{"c/{client}", "ana@example.com", "", "c/", false},
		{"c/{client}/x", "ana@example.com", "", "c//x", false},
		{"c/{client}", "ana@example.com", "a\nb", "c/a%0Ab", true},
		{"c/{local}", "", "c1", "c/", false},
		{"c/{local}", "", "c1", "c/anonymous", false},
		{"{local}-{client}", "a@example.com", "b", "a-b", true},
		{"{local}-{client}", "a@example.com", "b", "a-c", false},
		{"{local}-{client}", "a@example.com", "b", "a-b-", false},
		{"x{local}y/z", "a@example.com", "", "xay/z", true},
		{"x{local}y/z", "a@example.com", "", "xay", false},
	} {
		who := Who{Principal: c.principal, Client: c.client}
		if got := one(t, c.pattern).Decide(who, Publish, c.topic, time.Time{}).Allow; got != c.want {
			t.Errorf("%q for %+v matches %q: %v, want %v", c.pattern, who, c.topic, got, c.want)
		}
	}
}

// Of many rules that do the same to the same people at the same times one stands for
// all: whatever is asked, the answer, who is named for it, and until when it holds are
// those of all of them, one by one.
func TestOneForAllAlike(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	fewer := 0
	for range effort.RoundsOfOne(30, 100, 3000) {
		var b strings.Builder
		b.WriteString("groups: {few: [p1, p2], more: [p2, p3], some: [p1, p3]}\nrules:\n")
		for i := range 60 {
			when := ""
			if rnd.IntN(8) != 0 {
				when = fmt.Sprintf(`, when: {weekly: ["Mon-Fri %02d:00-17:00"], tz: %s}`, 8+rnd.IntN(3), pick("Europe/Madrid", "America/Chicago"))
			}
			effect := pick("allow", "allow", "allow", "deny")
			if effect == "deny" && when == "" {
				continue // it would decide all by itself
			}
			outside, actions := "", pick("subscribe", "publish", "publish, subscribe")
			if effect == "allow" && actions != "publish" {
				outside = ", outside: " + pick("hold", "announce", "end")
			}
			who := pick(`p1`, `p1, p2`, `"group:few"`, `"group:few", "group:more"`, `"group:few", "group:more", "group:some"`, `"*@example.com"`, `"*@*"`, `anyone`, `anonymous`, `"*@example.net", "*@example.com"`)
			fmt.Fprintf(&b, "  - {id: r%d, %s: [%s], who: [%s], topic: [x]%s%s}\n", rnd.IntN(1e9)*100+i, effect, actions, who, when, outside)
		}
		p := mustParse(t, b.String())
		unnamed := 0
		for _, r := range p.rules {
			if !r.who.byName() {
				unnamed++
			}
		}
		if len(p.index.root.words["x"].ends.rest) < unnamed {
			fewer++
		}
		for range 20 {
			who := Who{Principal: pick("", "p1@example.com", "p2@example.com", "p3@example.com", "p4@example.com", "zoe@example.net")}
			what := Action(rnd.IntN(2))
			at := morning.Add(time.Duration(rnd.IntN(14*24*60)) * time.Minute)
			q := query{who: who, what: what}
			for _, r := range p.rules {
				q.consider(r)
			}
			want, _ := q.decide(seconds(at))
			if got := p.Decide(who, what, "x", at); got != want {
				t.Fatalf("%s by %s at %s: %+v, want %+v\n%s", what, who, at, got, want, b.String())
			}
			upto := at.Add(time.Duration(rnd.IntN(600)) * time.Minute)
			opens := slices.ContainsFunc(p.rules, func(r *rule) bool {
				return r.matches(who, Subscribe) && r.relieved(seconds(at), seconds(upto))
			})
			if got := p.MayOpen(who, "x", at, upto); got != opens {
				t.Fatalf("may open to %s from %s to %s: %v, want %v\n%s", who, at, upto, got, opens, b.String())
			}
		}
	}
	if fewer == 0 {
		t.Error("no rule stood for others")
	}
}
