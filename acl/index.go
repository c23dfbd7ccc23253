package acl

import (
	"slices"
	"strings"
)

// An index finds the rules that have to do with a topic by walking the topic's
// levels once. It is built when the policy is and only read afterwards.
//
// The same walk answers two questions. For a name: which patterns match it? For
// a filter: which patterns match everything that it matches? For a level "+" of
// a filter is met by no word and no template, only by "+" and "#", and a "#" by
// "#" alone.
type index struct{ root branch }

// A branch holds what may follow after some levels.
type branch struct {
	words     map[string]*branch
	plus      *branch
	templates []templateBranch
	ends      rules // of patterns that end here
	tails     rules // of patterns that go on with "#"
}

type templateBranch struct {
	level  level
	branch *branch
}

// rules are the rules with a pattern at one place of the index. Few are tried
// one by one; of many, those for named people are found by name, and of those that
// do the same to the same people at the same times there is one: what is asked is
// what can be answered differently, not each rule there is.
type rules struct {
	all    []*rule            // nil if byName is not
	byName map[string][]*rule // nil if there are few
	rest   []*rule            // those that byName does not hold; only if it is not nil
}

const (
	fewRules = 8

	// maxNamed bounds what byName holds in a whole index. Rules for more names
	// than that are tried one by one, as if they were few.
	maxNamed = 200_000
)

func newIndex(all []*rule) index {
	var x index
	for _, r := range all {
		for _, p := range r.patterns {
			x.root.add(p.levels, r)
		}
	}
	room := maxNamed
	x.root.finish(&room)
	return x
}

func (b *branch) add(levels []level, r *rule) {
	if len(levels) == 0 {
		b.ends.add(r)
		return
	}
	l := levels[0]
	if l.text == "#" {
		b.tails.add(r)
		return
	}
	b.step(l).add(levels[1:], r)
}

// step returns the branch after level l, making it if there is none.
func (b *branch) step(l level) *branch {
	switch {
	case l.text == "+":
		if b.plus == nil {
			b.plus = &branch{}
		}
		return b.plus
	case l.parts != nil:
		for _, t := range b.templates {
			if t.level.text == l.text {
				return t.branch
			}
		}
		t := templateBranch{level: l, branch: &branch{}}
		b.templates = append(b.templates, t)
		return t.branch
	}
	next, ok := b.words[l.text]
	if !ok {
		next = &branch{}
		if b.words == nil {
			b.words = map[string]*branch{}
		}
		b.words[l.text] = next
	}
	return next
}

// finish prepares b and what follows for reading.
func (b *branch) finish(room *int) {
	b.ends.finish(room)
	b.tails.finish(room)
	if b.plus != nil {
		b.plus.finish(room)
	}
	for _, t := range b.templates {
		t.branch.finish(room)
	}
	for _, next := range b.words {
		next.finish(room)
	}
}

func (r *rules) add(one *rule) {
	if n := len(r.all); n == 0 || r.all[n-1] != one { // a rule may name a topic twice
		r.all = append(r.all, one)
	}
}

func (r *rules) finish(room *int) {
	if len(r.all) <= fewRules {
		return
	}
	r.byName = map[string][]*rule{}
	for _, one := range r.all {
		if one.effect == limit || !one.who.byName() || one.who.size() > *room {
			r.rest = append(r.rest, one)
			continue
		}
		*room -= one.who.size()
		for _, name := range one.who.names() {
			r.byName[name] = append(r.byName[name], one)
		}
	}
	for name, all := range r.byName {
		r.byName[name] = distinct(all, func(*audience) likeness { return likeness{} })
	}
	r.all, r.rest = nil, distinct(r.rest, (*audience).likeness)
}

// A class is what rules with a pattern in common have in common if one can stand for
// all of them: that with the least rank, which is the one to be named.
type class struct {
	effect  effect
	actions [2]bool
	when    *Window // windows that are equal are one
	outside Outside
	who     likeness
}

// distinct returns the first rule of each class, if there are many: they come in the
// order of their ranks.
func distinct(all []*rule, who func(*audience) likeness) []*rule {
	if len(all) <= fewRules {
		return all
	}
	kept, known := all[:0], map[class]bool{}
	for _, r := range all {
		c := class{r.effect, r.actions, r.when, r.outside, who(r.who)}
		if !known[c] {
			known[c] = true
			kept = append(kept, r)
		}
	}
	return slices.Clip(kept)
}

// find adds to q the rules whose patterns match topic, a name, or cover it, a
// filter.
func (x *index) find(q *query, topic string) {
	if topic == "#" {
		topic = "+/#" // the same names: every name has a first level
	}
	// A wildcard in the first level never matches a $ (5 [MQTT-4.7.2-1]).
	if strings.HasPrefix(topic, "$") {
		x.root.findWords(q, topic)
		return
	}
	x.root.find(q, topic, true)
}

// find walks on with rest, which more says there is.
func (b *branch) find(q *query, rest string, more bool) {
	b.tails.find(q)
	if !more {
		b.ends.find(q)
		return
	}
	word, after, further := strings.Cut(rest, "/")
	if word == "#" && !further {
		return
	}
	if b.plus != nil {
		b.plus.find(q, after, further)
	}
	b.findWords(q, rest)
}

// findWords is find without the wildcards of b itself.
func (b *branch) findWords(q *query, rest string) {
	word, after, further := strings.Cut(rest, "/")
	if next, ok := b.words[word]; ok {
		next.find(q, after, further)
	}
	for i := range b.templates {
		if t := &b.templates[i]; t.level.matches(word, q.who) {
			t.branch.find(q, after, further)
		}
	}
}

func (r *rules) find(q *query) {
	if r.byName == nil {
		for _, one := range r.all {
			q.consider(one)
		}
		return
	}
	for _, one := range r.byName[q.who.Principal] {
		if one.actions[q.what] {
			q.add(one, false) // it is about them, and no limit
		}
	}
	for _, one := range r.rest {
		q.consider(one)
	}
}

// overlaps says whether some topic that filter matches has to do with a rule
// of the index that who and what do.
func (x *index) overlaps(who Who, what Action, filter string) bool {
	o := overlap{who: who, what: what}
	return o.below(&x.root, filter, true, true)
}

// An overlap is one search for a rule whose pattern shares a topic with a
// filter.
type overlap struct {
	who   Who
	what  Action
	which func(*rule) bool // which of their rules count; nil for all
}

// below says whether there is one at b or below, where rest of the filter
// follows, which more says there is. In the first level wildcards, of patterns
// and of the filter, are not about names that begin with $.
func (o *overlap) below(b *branch, rest string, more, first bool) bool {
	word, after, further := strings.Cut(rest, "/")
	hidden := first && strings.HasPrefix(word, "$")
	if !hidden && o.any(&b.tails) {
		return true
	}
	if !more {
		return o.any(&b.ends)
	}
	all := word == "#" && !further // it also matches what ends here
	if all && !first && o.any(&b.ends) {
		return true
	}
	if all {
		after, further = "#", true
	}
	wild := all || word == "+"
	if b.plus != nil && !hidden && o.below(b.plus, after, further, false) {
		return true
	}
	for i := range b.templates {
		t := &b.templates[i]
		matches := t.level.matches(word, o.who)
		if wild {
			matches = !first || !strings.HasPrefix(t.level.text, "$")
		}
		if matches && o.below(t.branch, after, further, false) {
			return true
		}
	}
	if !wild {
		next, ok := b.words[word]
		return ok && o.below(next, after, further, false)
	}
	for name, next := range b.words {
		if (!first || !strings.HasPrefix(name, "$")) && o.below(next, after, further, false) {
			return true
		}
	}
	return false
}

// any says whether a rule of r has to do with who and what.
func (o *overlap) any(r *rules) bool {
	matches := func(one *rule) bool { return one.matches(o.who, o.what) && (o.which == nil || o.which(one)) }
	return slices.ContainsFunc(r.all, matches) || slices.ContainsFunc(r.rest, matches) ||
		slices.ContainsFunc(r.byName[o.who.Principal], matches)
}
