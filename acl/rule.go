package acl

import "github.com/bellwire/bellwire/yamltree"

// An Action is what somebody wants to do on a topic.
type Action uint8

const (
	Publish Action = iota
	Subscribe
)

func (a Action) String() string { return [...]string{"publish", "subscribe"}[a] }

// Outside says what a live subscription gets while its window is closed. They
// are in order of mildness: where several rules apply, the mildest counts.
type Outside uint8

const (
	Hold     Outside = iota // nothing; the state of things when it opens
	Announce                // an event that says so, and until when
	End                     // an event that says so, and the subscription ends
)

func (o Outside) String() string { return [...]string{"hold", "announce", "end"}[o] }

// An effect is what a rule does to those whom and what it matches.
type effect uint8

const (
	allow effect = iota
	deny
	limit // denies to everybody who is not in its audience, and at all other times
)

func (e effect) String() string { return [...]string{"rule", "rule", "limit"}[e] }

// A rule is an entry of `rules` or `limits`.
type rule struct {
	id       string
	rank     int // its place among all ids in order: what is cited does not depend on the file's order
	pos      yamltree.Pos
	effect   effect
	actions  [2]bool // by Action
	who      *audience
	patterns []*pattern
	when     *Window // nil: at all times
	outside  Outside
	of, file string // whose part it is of, and what that is called; empty for the operator's own

	// What is told to whom the rule refuses, made when the policy is, so that
	// refusing allocates nothing.
	refusal string // it denies, or the limit leaves who out
	closed  string // its window is closed
	over    string // its window has closed for good
}

func (r *rule) prepare() {
	switch r.effect {
	case deny:
		r.refusal = "rule " + r.id + " denies it"
	case limit:
		r.refusal = "limit " + r.id + " allows it to others only"
	}
	if r.when == nil {
		return
	}
	name := r.effect.String() + " " + r.id
	window := " (" + r.when.text + r.when.exceptions() + ")"
	r.closed = "the window of " + name + " is closed" + window
	r.over = "the window of " + name + " has closed for good" + window
}

// matches says whether the rule has a say in what who does with what, as far
// as those go. A limit always has.
func (r *rule) matches(who Who, what Action) bool {
	return r.actions[what] && (r.effect == limit || r.who.has(who.Principal))
}

// excludes says whether r is a limit that leaves who out.
func (r *rule) excludes(who Who) bool {
	return r.effect == limit && !r.who.has(who.Principal)
}
