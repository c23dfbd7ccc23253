package acl

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// WhoCan answers who may do what on a topic, or all of a filter, at an instant: kinds
// of principals ("*@example.com", anonymous), addresses that may though their kind may
// not, and !those that may not though their kind may; as in the `exactly` of a test.
func (p *Policy) WhoCan(what Action, name string, at time.Time) ([]string, error) {
	name, err := checkTopic(what, name)
	if err != nil {
		return nil, err
	}
	run := testRun{policy: p, used: map[string]bool{}}
	answers, _ := run.whoCan(ask{what, name}, new(selfTest), at)
	return answers, nil
}

// CanWhat answers what who may do at an instant by rules: an action and a filter each,
// and !an action and a filter for each part of them that is denied.
func (p *Policy) CanWhat(who Who, at time.Time) []string {
	run := testRun{policy: p, used: map[string]bool{}}
	answers, _ := run.canWhat(who, at)
	return answers
}

// A Diff is what one policy says that another does not.
type Diff struct {
	Entries   []Change        `json:"entries"`   // of the file, in the order of their kinds and names
	Decisions []ChangedAnswer `json:"decisions"` // by who, action, topic

	// Asked is how many questions were compared: each of everybody whom either policy
	// names, somebody of each domain, anybody and anonymous, about each topic of a rule
	// or limit. Partial says that there are more of them, or of Decisions, than
	// maxAsked and MaxChanges.
	Asked   int  `json:"asked"`
	Partial bool `json:"partial,omitempty"`
}

// A Change is one entry of a policy file that another one has not, or otherwise.
type Change struct {
	What string `json:"what"` // rule, limit, group, user, role, tenant
	Name string `json:"name"`
	Line int    `json:"line,omitempty"` // in the newer file, or the older if it was removed
	Was  string `json:"was,omitempty"`  // empty: it was added
	Is   string `json:"is,omitempty"`   // empty: it is removed
}

// place is where it stands between before and after, empty of what has no line, as users.
func (c Change) place(before, after string) string {
	if c.Line == 0 {
		return ""
	}
	return fmt.Sprintf("%sline %d%s", before, c.Line, after)
}

// A ChangedAnswer is a question that two policies answer otherwise.
type ChangedAnswer struct {
	Who    string    `json:"who"` // an address, anonymous, *@* or *@domain for others
	Action string    `json:"action"`
	Topic  string    `json:"topic"`
	At     time.Time `json:"at"`              // the first instant at which they differ
	Was    bool      `json:"was"`             // allowed
	Is     bool      `json:"is"`              //
	Rule   string    `json:"rule,omitempty"`  // by which the newer one decides
	Owner  bool      `json:"owner,omitempty"` // allowed means: left to the owner
}

// Bounds of a Diff.
const (
	MaxChanges = 1_000
	maxAsked   = 200_000
	diffSpan   = 7 * 24 * time.Hour // compared from the instant on
	diffEdges  = 64                 // instants compared of one question
)

// Compare says what is has that was has not: entries, and answers in the week from at
// on.
func Compare(was, is *Policy, at time.Time) Diff {
	d := Diff{Entries: []Change{}, Decisions: []ChangedAnswer{}}
	d.entries(was, is)
	d.answers(was, is, everybody(was, is), []*Policy{was, is}, at)
	return d
}

// entries compares what stands in the files.
func (d *Diff) entries(was, is *Policy) {
	before, after := was.entries(), is.entries()
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if e, old := after[key], before[key]; e.Is != old.Is {
			e.Was = old.Is
			d.Entries = append(d.Entries, e)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if e := before[key]; after[key].Is == "" {
			e.Was, e.Is = e.Is, ""
			d.Entries = append(d.Entries, e)
		}
	}
	slices.SortStableFunc(d.Entries, func(a, b Change) int {
		return strings.Compare(a.What+"\x00"+a.Name, b.What+"\x00"+b.Name)
	})
}

// entries returns what a policy is made of, by kind and name.
func (p *Policy) entries() map[string]Change {
	all := map[string]Change{}
	add := func(c Change) { all[c.What+"\x00"+c.Name] = c }
	for _, r := range p.rules {
		add(Change{What: r.effect.String(), Name: r.id, Line: r.pos.Line, Is: r.describe()})
	}
	for _, g := range p.groups {
		add(Change{What: "group", Name: g.name, Line: g.line, Is: "[" + strings.Join(slices.Sorted(maps.Keys(g.members)), ", ") + "]"})
	}
	for _, o := range p.roles {
		add(Change{What: "role", Name: o.id, Line: o.line, Is: o.describe()})
	}
	for _, i := range p.issuers {
		add(Change{What: "issuer", Name: i.Name, Line: i.line, Is: i.describe()})
	}
	for i, l := range p.logins { // their order counts
		add(Change{What: "login", Name: fmt.Sprintf("%02d %s", i+1, strings.Join(l.Listeners, ",")), Line: l.line, Is: l.describe()})
	}
	for _, t := range p.tenants {
		add(Change{What: "tenant", Name: t.domain, Line: t.line, Is: t.describe()})
	}
	p.durability.each(func(f placed, lists string) {
		add(Change{What: "durability", Name: f.filter, Line: f.line, Is: lists})
	})
	for i, w := range p.rewrites { // their order counts
		add(Change{What: "rewrite", Name: fmt.Sprintf("%04d %s", i+1, w.source), Line: w.line, Is: w.describe()})
	}
	for _, g := range p.givens {
		add(Change{What: "subscription", Name: g.id, Line: g.line, Is: g.describe()})
	}
	if p.HasDelays() {
		add(Change{What: "delayed", Line: p.delays.line, Is: p.delays.describe()})
	}
	for name := range p.users {
		// Credentials are compared, not shown.
		add(Change{What: "user", Name: name, Is: "credential " + shortCredential(p.Credential(name, ""))})
	}
	return all
}

// shortCredential tells credentials apart and proves nothing.
func shortCredential(c string) string { return fmt.Sprintf("%.6x", c) }

// describe writes the rule in one line: equal for rules that say the same.
func (r *rule) describe() string {
	var parts []string
	if r.effect != limit {
		var actions []string
		for _, a := range []Action{Publish, Subscribe} {
			if r.actions[a] {
				actions = append(actions, a.String())
			}
		}
		word := "allow"
		if r.effect == deny {
			word = "deny"
		}
		parts = append(parts, word+" "+strings.Join(actions, ","))
	}
	var topics []string
	for _, p := range r.patterns {
		topics = append(topics, p.text)
	}
	slices.Sort(topics)
	parts = append(parts, "who "+strings.Join(r.who.words(), ","), "topic "+strings.Join(topics, ","))
	if r.when != nil {
		when := "when " + r.when.text
		for _, day := range r.when.except {
			when += " except " + dateText(day)
		}
		parts = append(parts, when)
	}
	if r.effect == allow {
		parts = append(parts, "outside "+r.outside.String())
	}
	return strings.Join(parts, "; ")
}

// words returns the entries of the audience, sorted.
func (a *audience) words() []string {
	words := slices.Collect(maps.Keys(a.people))
	for _, c := range []struct {
		has  bool
		word string
	}{{a.anyone, anyone}, {a.anonymous, anonymous}, {a.signedIn, signedIn}} {
		if c.has {
			words = append(words, c.word)
		}
	}
	for _, domain := range a.domains {
		words = append(words, "*@"+domain)
	}
	for _, g := range a.groups {
		words = append(words, "group:"+g.name)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// answers compares what the policies answer to people, about the topics that named speak of.
func (d *Diff) answers(was, is *Policy, people []somebody, named []*Policy, at time.Time) {
	for _, one := range people {
		for _, q := range questions(one.who, named...) {
			if d.Asked == maxAsked || len(d.Decisions) == MaxChanges {
				d.Partial = true
				return
			}
			d.Asked++
			if c, differs := compareAnswer(was, is, one.who, q, at); differs {
				c.Who = one.name
				d.Decisions = append(d.Decisions, c)
			}
		}
	}
}

// somebody is whom a question is about, by the name of his kind.
type somebody struct {
	name string
	who  Who
}

// everybody returns whom the policies name, and one of each kind that they speak of.
func everybody(policies ...*Policy) (all []somebody) {
	const nobody = "\x00" // nobody is called that
	all = []somebody{{anonymous, Who{}}, {signedIn, Who{Principal: nobody + "@" + nobody}}}
	var people, domains []string
	for _, p := range policies {
		run := testRun{policy: p}
		some, of := run.known(new(selfTest))
		people, domains = append(people, some...), append(domains, of...)
	}
	slices.Sort(people)
	slices.Sort(domains)
	for _, domain := range slices.Compact(domains) {
		all = append(all, somebody{"*@" + domain, Who{Principal: nobody + "@" + domain}})
	}
	for _, address := range slices.Compact(people) {
		all = append(all, somebody{address, Who{Principal: address}})
	}
	return all
}

// questions returns what there is to ask about somebody: each action on each topic of a
// rule or limit, as far as it is one for him.
func questions(who Who, policies ...*Policy) (all []ask) {
	seen := map[ask]bool{}
	for _, p := range policies {
		for _, r := range p.rules {
			for _, pattern := range r.patterns {
				filter, ok := pattern.filterFor(who)
				if !ok {
					continue
				}
				for _, q := range []ask{{Publish, filter}, {Subscribe, filter}} {
					if !seen[q] {
						seen[q] = true
						all = append(all, q)
					}
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b ask) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// compareAnswer returns the first difference of two policies about one question.
func compareAnswer(was, is *Policy, who Who, q ask, at time.Time) (c ChangedAnswer, differs bool) {
	end := at.Add(diffSpan)
	for range diffEdges {
		a, _ := was.judge(who, q.what, q.topic, seconds(at))
		b, _ := is.judge(who, q.what, q.topic, seconds(at))
		if a.Allow != b.Allow {
			return ChangedAnswer{
				Action: q.what.String(), Topic: q.topic, At: at.UTC(), Was: a.Allow, Is: b.Allow, Rule: b.Rule, Owner: is.owned(q.topic),
			}, true
		}
		if at = earlierEdge(a.Until, b.Until); at.IsZero() || !at.Before(end) {
			break
		}
	}
	return c, false
}

func earlierEdge(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Empty says that nothing is otherwise.
func (d Diff) Empty() bool { return len(d.Entries) == 0 && len(d.Decisions) == 0 }

// Text is the difference for people.
//
//   - rule   ward-day     policy.yaml:9   allow subscribe; who bo@x.org; topic ward/#; outside hold
//   - rule   ward-night
//     decisions that change
//     bo@x.org   may subscribe ward/#   from 2026-11-23T12:00:00Z on, by ward-day
func (d Diff) Text() string {
	var b strings.Builder
	for _, c := range d.Entries {
		switch {
		case c.Was == "":
			fmt.Fprintf(&b, "+ %-6s %s   %s%s\n", c.What, c.Name, c.place("", ": "), c.Is)
		case c.Is == "":
			fmt.Fprintf(&b, "- %-6s %s   %s\n", c.What, c.Name, c.Was)
		default:
			fmt.Fprintf(&b, "~ %-6s %s%s\n    was %s\n    is  %s\n", c.What, c.Name, c.place("   ", ""), c.Was, c.Is)
		}
	}
	if len(d.Entries) == 0 {
		b.WriteString("no rule, limit, role, group or user differs\n")
	}
	fmt.Fprintf(&b, "%d of %d decisions change\n", len(d.Decisions), d.Asked)
	if d.Partial {
		b.WriteString("  there are more, which were not compared or are not listed\n")
	}
	for _, c := range d.Decisions {
		verb := "may no longer"
		if c.Is {
			verb = "may now"
		}
		by := ""
		if c.Rule != "" {
			by = " (" + c.Rule + ")"
		}
		if c.Owner && c.Is {
			by += " if the owner permits"
		}
		kind := c.Action
		if c.Action == Publish.String() && topic.HasWildcard(c.Topic) {
			kind = "publish to all of"
		}
		fmt.Fprintf(&b, "  %s %s %s %s from %s on%s\n", c.Who, verb, kind, c.Topic, c.At.Format(time.RFC3339), by)
	}
	return b.String()
}
