package state

import (
	"bytes"
	"sync"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/policy"
)

// policies are owners' policies as they were read last: resources change far
// more often than who may see them, and to read a policy costs more than to show
// a resource to fifty people. They are a cache of a pure function: what is in it
// changes no answer.
type policies struct {
	kind kind.Kind

	mu   sync.Mutex // guards the following
	kept map[kind.Addr]readPolicy
}

// A readPolicy is what a document says; nil if this version cannot read it, and
// then it shows nothing to anybody.
type readPolicy struct {
	document []byte
	policy   *policy.Policy
}

// policiesKept bounds how many are kept. The loser is any.
const policiesKept = 1 << 14

// of returns the policy that an owner's document is. It keeps document, which
// must not change.
func (c *policies) of(owner kind.Addr, document []byte) *policy.Policy {
	c.mu.Lock()
	was, ok := c.kept[owner]
	c.mu.Unlock()
	if ok && bytes.Equal(was.document, document) {
		return was.policy
	}
	p, err := policy.Parse(document, c.kind, owner)
	if err != nil {
		p = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= policiesKept {
		for one := range c.kept {
			delete(c.kept, one)
			break
		}
	}
	if c.kept == nil {
		c.kept = map[kind.Addr]readPolicy{}
	}
	c.kept[owner] = readPolicy{document, p}
	return p
}
