package policy

import (
	"bytes"
	"strings"
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

	cold    coldness
	fillers *fillers
}

// A coldness says how often a look at an owner who has set a policy finds that it is not in
// memory, and must be parsed: always after a start, and of some owners for good where there
// are more than a cache holds. Who looks at an address that nobody has waits for as much as
// often, by a policy that was parsed for somebody else, or the time would tell that there is
// nobody. It has no part in any answer.
type coldness struct {
	share   float64 // of such looks that were cold of late, as a moving average
	owed    float64 // decoys
	given   int     // of these, in all
	decoys  [16][]byte
	parsed  int // policies that may serve as such, in all
	started bool
}

// A first look takes what parsing takes, which goes by how much a policy says: who times many
// could tell a short one from a long one. So what is parsed then is as if it were longer, up
// to the next multiple of coldQuantum bytes: the rest is a filler of that length, which says
// nothing to anybody. Those of most owners take the same then; that a policy has so many
// quanta is not hidden, nor what parsing one byte takes more than another.
const coldQuantum = 512

// fillers are policies of which the i-th is i+1 times fillerStep bytes long.
type fillers [coldQuantum / fillerStep][]byte

const fillerStep = 32

// newFillers makes fillers: in one as many rules as fit, of what most policies are made of, as
// each kind takes them. What is left is in their ids.
func newFillers() (all *fillers) {
	all = &fillers{}
	for i := range all {
		want := (i + 1) * fillerStep
		b := []byte(`{"v":1}`)
		for n := 9; n > 0; n-- {
			const rule = `{"id":"","if":{"identity":[{"one":"pres:a@b.example"}]},"then":{"handling":"block"}}`
			fixed := len(`{"v":1,"rules":[]}`) + n*(len(rule)+1) - 1
			if fixed+n > want {
				continue
			}
			b = []byte(`{"v":1,"rules":[`)
			for k := range n {
				id := (want - fixed) / n
				if k == 0 {
					id += (want - fixed) % n
				}
				b = append(b, `{"id":"`...)
				b = append(b, strings.Repeat(string(rune('a'+k)), id)...)
				b = append(b, rule[len(`{"id":"`):]...)
				b = append(b, ',')
			}
			b = append(b[:len(b)-1], "]}"...)
			break
		}
		all[i] = b
	}
	return all
}

// parseFirst is Parse for a first look: see coldQuantum.
func (c *Cache) parseFirst(document []byte, owner kind.Addr) (*Policy, error) {
	p, err := Parse(document, c.of, owner)
	if rest := coldQuantum - len(document)%coldQuantum; rest >= fillerStep {
		_, _ = Parse(c.fillers[rest/fillerStep-1], c.of, owner)
	}
	return p, err
}

// coldWeight is what one look counts in the share.
const coldWeight = 1.0 / 64

// looked takes note of a look at a policy that an owner has set.
func (c *coldness) looked(document []byte, cold bool) {
	if !c.started {
		c.started, c.share = true, 1
	}
	is := 0.0
	if cold {
		is = 1
		c.decoys[c.parsed%len(c.decoys)] = document
		c.parsed++
	}
	c.share += (is - c.share) * coldWeight
}

// decoy returns what is to be parsed with a look at somebody who has set none, nil for
// nothing.
func (c *coldness) decoy() []byte {
	if !c.started {
		return nil
	}
	if c.owed += c.share; c.owed < 1 {
		return nil
	}
	c.owed--
	c.given++
	return c.decoys[c.given%max(1, min(c.parsed, len(c.decoys)))]
}

// warmAfter is how often a policy that was parsed is read again with the same look.
const warmAfter = 4

// A reading is what a document says; nil if this version cannot read it.
type reading struct {
	document []byte
	policy   *Policy
	again    int // how often it was read since, up to warmAfter
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
	return &Cache{of: of, read: map[kind.Addr]reading{}, answers: map[*Policy]map[question]answer{}, fillers: newFillers()}
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
	p.owner, p.standard = owner, true
	return &p, nil
}

// Read returns the policy that an owner's document is, nil if it is none. It
// keeps document, which must not change.
func (c *Cache) Read(owner kind.Addr, document []byte) *Policy {
	c.mu.Lock()
	was, ok := c.read[owner]
	hit := ok && bytes.Equal(was.document, document)
	if hit && was.policy != nil && !was.policy.standard {
		if was.again < warmAfter {
			was.again++
			c.read[owner] = was
		} else {
			c.cold.looked(document, false)
		}
	}
	c.mu.Unlock()
	if hit {
		return was.policy
	}
	p, err := c.standardOf(owner, document)
	switch {
	case p != nil && !ok:
		c.mu.Lock()
		decoy := c.cold.decoy()
		c.mu.Unlock()
		if decoy != nil {
			_, _ = c.parseFirst(decoy, owner)
		}
	case p == nil && !ok:
		p, err = c.parseFirst(document, owner)
		c.mu.Lock()
		c.cold.looked(document, true)
		c.mu.Unlock()
	case p == nil: // it is another by now
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
	r := reading{document: document, policy: p}
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
