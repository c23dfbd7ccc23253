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
	bytes   int                             // charged for read
	answers map[*Policy]map[question]answer // of those in read
	kept    int                             // answers in all

	standard *Policy // somebody's, of whom the kind's default is in force; nil: nobody has asked
}

// A reading is what a document says; nil if this version cannot read it.
type reading struct {
	document []byte
	policy   *Policy
}

type question struct {
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
	cacheBytes   = 64 << 20 // that policies are charged for
	readingBytes = 1 << 10
	readingTimes = 16 // what is read takes about so much more than the document
	cacheAnswers = 1 << 17
)

func (r reading) bytes() int { return readingTimes*len(r.document) + readingBytes }

// NewCache returns a cache of policies for a kind.
func NewCache(of For) *Cache {
	return &Cache{of: of, read: map[kind.Addr]reading{}, answers: map[*Policy]map[question]answer{}}
}

// A defaulter is a kind that says what counts while an owner has said nothing.
type defaulter interface {
	DefaultPolicy(owner kind.Addr) []byte
}

// standardOf returns the kind's default for an owner, if document is that, nil if it is not.
// It is parsed once for all: whoever asks for addresses that nobody has, each a new one, is
// not to wait for that each time, and tell by it that nobody has them.
func (c *Cache) standardOf(owner kind.Addr, document []byte) (*Policy, error) {
	d, ok := c.of.(defaulter)
	if !ok || !bytes.Equal(document, d.DefaultPolicy(owner)) {
		return nil, nil
	}
	c.mu.Lock()
	of := c.standard
	c.mu.Unlock()
	if of == nil {
		var err error
		if of, err = Parse(document, c.of, owner); err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.standard = of
		c.mu.Unlock()
	}
	p := *of
	p.owner = owner
	return &p, nil
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
	p, err := c.standardOf(owner, document)
	if p == nil {
		p, err = Parse(document, c.of, owner)
	}
	if err != nil {
		p, err = ParseFirst(document, c.of, owner) // let in when there was no other form
	}
	if err != nil {
		p = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(owner)
	r := reading{document, p}
	for other := range c.read {
		if c.bytes+r.bytes() <= cacheBytes {
			break
		}
		c.drop(other)
	}
	c.read[owner] = r
	c.bytes += r.bytes()
	if p != nil {
		c.answers[p] = map[question]answer{}
	}
	return p
}

// drop forgets an owner's policy, and what it answered: a question would keep all of
// the policy in memory. Requires mu.
func (c *Cache) drop(owner kind.Addr) {
	if r, ok := c.read[owner]; ok {
		c.bytes -= r.bytes()
		c.kept -= len(c.answers[r.policy])
		delete(c.answers, r.policy)
		delete(c.read, owner)
	}
}

// Evaluate is p's.
func (c *Cache) Evaluate(p *Policy, w kind.Addr, at time.Time, in Input) Decision {
	q := question{w, in}
	c.mu.Lock()
	a, ok := c.answers[p][q]
	c.mu.Unlock()
	if ok && !at.Before(a.from) && (a.decision.Until.IsZero() || at.Before(a.decision.Until)) {
		return a.decision
	}
	d := p.Evaluate(w, at, in)
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.answers[p]
	if of == nil {
		return d // another has taken its place
	}
	if _, again := of[q]; !again {
		c.makeRoom()
		c.kept++
	}
	of[q] = answer{d, at}
	return d
}

// makeRoom sees to it that one more answer may be kept. Requires mu.
func (c *Cache) makeRoom() {
	for _, of := range c.answers {
		if c.kept < cacheAnswers {
			return
		}
		for q := range of {
			delete(of, q)
			c.kept--
			break
		}
	}
}
