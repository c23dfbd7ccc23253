package policy

import (
	"slices"
	"sync/atomic"

	"github.com/bellwire/bellwire/profiles/kind"
)

// Unions keep what the rules that are open show together, as it was joined last: for most
// watchers of an owner they are the same ones, and what is kept of each of their decisions
// is then one grant for all. An owner may list thousands of things to be shown, each rule
// others: without it the grants of a thousand watchers would be a thousand such lists. For
// any goroutine.
type unions struct{ last atomic.Pointer[union] }

type union struct {
	rules []*rule
	show  kind.Grant
}

// of returns what rules show together.
func (u *unions) of(rules []*rule) kind.Grant {
	if len(rules) == 1 {
		return rules[0].show
	}
	if last := u.last.Load(); last != nil && slices.Equal(last.rules, rules) {
		return last.show
	}
	show := together(rules)
	u.last.Store(&union{slices.Clone(rules), show})
	return show
}

// together joins what rules show.
func together(rules []*rule) kind.Grant {
	shows := make([]kind.Grant, len(rules))
	for i, r := range rules {
		shows[i] = r.show
	}
	return kind.Together(shows...)
}
