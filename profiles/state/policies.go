package state

import (
	"bytes"
	"sync"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// policies are owners' policies as they were read last, with what they answered:
// resources change far more often than who may see them, and to read a policy
// costs more than to show a resource to fifty people. They are a cache of pure
// functions: what is in it changes no answer.
type policies struct {
	kind kind.Kind

	mu   sync.Mutex // guards the following
	kept map[kind.Addr]*ownPolicy
}

// An ownPolicy is what an owner's document says.
type ownPolicy struct {
	document []byte
	policy   *policy.Policy // nil if this version cannot read it: it shows nothing to anybody

	mu      sync.Mutex // guards the following
	answers map[kind.Addr]answer
}

// An answer holds for one input from an instant on until another.
type answer struct {
	decision policy.Decision // until its Until
	from     time.Time
	in       policy.Input
}

// Bounds of the cache. The loser is any.
const (
	policiesKept = 1 << 14
	answersKept  = 1 << 10 // of one owner
)

// of returns the policy that an owner's document is. It keeps document, which
// must not change.
func (c *policies) of(owner kind.Addr, document []byte) *ownPolicy {
	c.mu.Lock()
	was := c.kept[owner]
	c.mu.Unlock()
	if was != nil && bytes.Equal(was.document, document) {
		return was
	}
	p, err := policy.Parse(document, c.kind, owner)
	if err != nil {
		p = nil
	}
	is := &ownPolicy{document: document, policy: p}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = map[kind.Addr]*ownPolicy{}
	}
	makeRoom(c.kept, policiesKept)
	c.kept[owner] = is
	return is
}

// decide is Evaluate of the policy.
func (p *ownPolicy) decide(watcher kind.Addr, at time.Time, in policy.Input) policy.Decision {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.answers[watcher]; ok && a.in == in && !at.Before(a.from) && (a.decision.Until.IsZero() || at.Before(a.decision.Until)) {
		return a.decision
	}
	d := p.policy.Evaluate(watcher, at, in)
	if p.answers == nil {
		p.answers = map[kind.Addr]answer{}
	}
	makeRoom(p.answers, answersKept)
	p.answers[watcher] = answer{d, at, in}
	return d
}

// makeRoom removes any one of m if there are most.
func makeRoom[V any](m map[kind.Addr]V, most int) {
	if len(m) < most {
		return
	}
	for one := range m {
		delete(m, one)
		return
	}
}
