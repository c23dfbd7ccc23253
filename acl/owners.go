package acl

import (
	"slices"
	"strings"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

// WithOwners returns p as Explain, Sweep and Test are to speak for it where
// topics have owners: below the first levels kinds, at $me/policy/ and one of
// them, and at $me/blocklist, rules allow nothing, and what none denies and no limit cuts is left to the
// owner (Ceiling). Of Decide and the like it changes nothing: who asks those says
// which is meant.
func (p *Policy) WithOwners(kinds ...string) *Policy {
	with := *p
	with.kinds = kinds
	return &with
}

// owned says whether a topic, or all that a filter matches, has owners.
func (p *Policy) owned(name string) bool {
	of, own := strings.CutPrefix(name, "$me/policy/")
	if !own {
		of, _, own = strings.Cut(name, "/")
	}
	return own && slices.Contains(p.kinds, of) || name == "$me/blocklist" && p.kinds != nil
}

// owners stands for what the owners of things allow, for Ceiling.
var owners = &rule{effect: allow, rank: -1}

// Ceiling is Decide for topics whose owners decide: it answers whether the
// operator leaves to who what an owner may allow. No rule has to allow it; one
// that denies it, or a limit that is closed to who, cuts it.
func (p *Policy) Ceiling(who Who, what Action, topic string, at time.Time) Decision {
	if !p.bounded {
		return Decision{Allow: true}
	}
	d, _ := p.leave(who, what, topic, seconds(at))
	return d
}

// leave is Ceiling; flips is as of decide.
func (p *Policy) leave(who Who, what Action, topic string, u int64) (d Decision, flips bool) {
	q := query{who: who, what: what, allowed: owners}
	p.ceiling.find(&q, topic)
	return q.decide(u)
}

// judge is what the server does about a topic, for whoever asks about it: decide for plain
// topics, as far as what is told of clients concerns who; and leave for those with owners.
func (p *Policy) judge(who Who, what Action, topic string, u int64) (d Decision, flips bool) {
	if p.owned(topic) {
		return p.leave(who, what, topic, u)
	}
	d, flips = p.decide(who, what, topic, u)
	if d.Allow || flips {
		if why := p.untold(who, what, topic); why != "" {
			return Decision{Reason: why}, false
		}
	}
	return d, flips
}

// What is said of what is left to owners.
const (
	leftToOwner = "no rule denies it and no limit cuts it: the operator leaves it to the owner"
	neverShared = "a shared subscription is not possible to what is shown to each as its owner permits"
)

// explainLeft says what is meant by what is left to the owner.
func (p *Policy) explainLeft(e *Explanation) {
	if e.Windowed {
		e.because("the operator leaves it to the owner at this time")
	} else {
		e.because(leftToOwner)
	}
	if topic.HasWildcard(e.Topic) && p.ceiling.overlaps(e.Who, Subscribe, e.Topic) {
		e.because("rules or limits about parts of it may forbid those: ask about one topic")
	}
	if e.Until.IsZero() {
		return
	}
	if next := e.explainNext(p, clockOf(p.rule(e.then.Rule))); next != "" {
		e.lines = append(e.lines, "  next     "+next)
	}
}
