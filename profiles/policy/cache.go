package policy

import (
	"bytes"
	"sync"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// A Cache keeps owners' policies of one kind as they were read last, and what
// they answered: what watchers watch changes far more often than who may see it,
// and to read a policy costs more than to show a resource to fifty people. Both
// are pure functions, so what is in it changes no answer, on no node. Safe for
// concurrent use.
type Cache struct {
	of For

	mu      sync.Mutex // guards the following
	read    map[kind.Addr]reading
	bytes   int // charged for read
	answers map[question]answer
}

// A reading is what a document says; nil if this version cannot read it.
type reading struct {
	document []byte
	policy   *Policy
}

type question struct {
	policy  *Policy
	watcher kind.Addr
	in      Input
}

// An answer holds from an instant on until its decision's end.
type answer struct {
	decision Decision
	from     time.Time
}

// Bounds of a cache. The loser is any.
const (
	cacheBytes   = 16 << 20 // of documents, each with what it is charged besides
	readingBytes = 1 << 10
	cacheAnswers = 1 << 17
)

// NewCache returns a cache of policies for a kind.
func NewCache(of For) *Cache {
	return &Cache{of: of, read: map[kind.Addr]reading{}, answers: map[question]answer{}}
}

// Read returns the policy that an owner's document is, nil if it is none. It
// keeps document, which must not change.
func (c *Cache) Read(owner kind.Addr, document []byte) *Policy {
	c.mu.Lock()
	was, ok := c.read[owner]
	c.mu.Unlock()
	if ok && bytes.Equal(was.document, document) {
		return was.policy
	}
	p, err := Parse(document, c.of, owner)
	if err != nil {
		p = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(owner)
	for other := range c.read {
		if c.bytes+len(document)+readingBytes <= cacheBytes {
			break
		}
		c.drop(other)
	}
	c.read[owner] = reading{document, p}
	c.bytes += len(document) + readingBytes
	return p
}

// drop forgets an owner's policy. Requires mu.
func (c *Cache) drop(owner kind.Addr) {
	if r, ok := c.read[owner]; ok {
		c.bytes -= len(r.document) + readingBytes
		delete(c.read, owner)
	}
}

// Evaluate is p's.
func (c *Cache) Evaluate(p *Policy, w kind.Addr, at time.Time, in Input) Decision {
	q := question{p, w, in}
	c.mu.Lock()
	a, ok := c.answers[q]
	c.mu.Unlock()
	if ok && !at.Before(a.from) && (a.decision.Until.IsZero() || at.Before(a.decision.Until)) {
		return a.decision
	}
	d := p.Evaluate(w, at, in)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) >= cacheAnswers {
		for other := range c.answers {
			delete(c.answers, other)
			break
		}
	}
	c.answers[q] = answer{d, at}
	return d
}
