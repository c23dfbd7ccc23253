package topic

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// A cache keeps the lists of names, at most limit of them by weight. It knows
// nothing of what makes a list wrong: that is Index's.
//
// It is a hash table of rows of seven places. A row is one cache line: a word
// with a byte of each list's hash, and the lists. To find one reads two lines,
// the row and the list, and takes no lock. Who changes a row locks its stripe;
// rows are dealt to stripes in turn. Each stripe has its share of the limit.
// There are twice as many places as lists may be, so that few are turned out
// of a full row while there is room in others (1 to 2 % when full).
//
// A list gives way if it was not used since the hand of its stripe last passed
// (second chance). So names that are asked for once, however many, displace
// each other and not those in use.
type cache[M any] struct {
	rows    []row[M]
	stripes []stripe // a power of two; row i is in stripe i mod len
	share   int      // weight of a stripe
}

const places = 7

type row[M any] struct {
	tags  atomic.Uint64 // byte i: tag of list i, 0 if there is none; byte 7: unused
	lists [places]atomic.Pointer[list[M]]
}

type stripe struct {
	mu      sync.Mutex // guards the following, and changes to rows
	weight  int        // of all lists in the stripe's rows
	lists   int
	hand    int // the stripe's row to look for a victim next
	evicted uint64
	_       [24]byte // 64 in all: stripes do not share a cache line
}

// A list is what build returned for a topic.
type list[M any] struct {
	topic  string
	made   M
	weight int
	used   atomic.Bool   // since the hand passed
	seen   atomic.Uint64 // it holds as of this version.changes
}

const (
	// matchesPerWeight is how many matches make a list count as one more, and
	// bytesPerWeight how many bytes of its topic: these may be 65,535.
	matchesPerWeight = 16
	bytesPerWeight   = 128

	// A stripe for each weightPerStripe of the limit, up to maxStripes.
	weightPerStripe = 1024
	maxStripes      = 64
)

func (c *cache[M]) init(limit int) {
	if limit < 1 {
		return
	}
	n := 1
	for n < maxStripes && limit >= 2*n*weightPerStripe {
		n *= 2
	}
	perStripe := (2*limit/places)/n + 1
	c.stripes = make([]stripe, n)
	c.rows = make([]row[M], n*perStripe)
	c.share = limit / n
}

// place returns the row for hash and its number, and the tag. They use
// different bits.
func (c *cache[M]) place(hash uint64) (r *row[M], i int, tag uint64) {
	i = int(hash >> 32 * uint64(len(c.rows)) >> 32)
	if tag = hash & 0xff; tag == 0 {
		tag = 1
	}
	return &c.rows[i], i, tag
}

// candidates returns a word whose byte i has its top bit set if the tag of list
// i is tag, and sometimes if it is not.
func (r *row[M]) candidates(tag uint64) uint64 {
	const ones = 0x0001010101010101
	diff := r.tags.Load() ^ tag*ones
	return (diff - ones) & ^diff & (ones << 7)
}

// find returns the list of topic, nil if there is none. It takes no lock.
func (c *cache[M]) find(hash uint64, topic string) *list[M] {
	if len(c.rows) == 0 {
		return nil
	}
	r, _, tag := c.place(hash)
	for found := r.candidates(tag); found != 0; found &= found - 1 {
		l := r.lists[bits.TrailingZeros64(found)/8].Load()
		if l != nil && l.topic == topic {
			if !l.used.Load() { // a write each time would keep the line from other cores
				l.used.Store(true)
			}
			return l
		}
	}
	return nil
}

// keep puts l in the cache, in place of another list of its topic, if valid
// still says so when the stripe is locked.
func (c *cache[M]) keep(hash uint64, l *list[M], valid func() bool) {
	if len(c.rows) == 0 {
		return
	}
	r, i, tag := c.place(hash)
	s := c.stripe(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !valid() {
		return
	}
	at := r.search(l.topic)
	if at < 0 {
		at = r.victim(s.evicted)
		if r.lists[at].Load() != nil {
			s.evicted++
		}
	}
	remove(s, r, at)
	r.set(at, l, tag)
	s.lists++
	s.weight += l.weight
	c.makeRoom(s, i, l)
}

// drop removes the list of topic. Whoever looks for it from now on does not
// find it.
func (c *cache[M]) drop(hash uint64, topic string) {
	if len(c.rows) == 0 {
		return
	}
	r, i, _ := c.place(hash)
	s := c.stripe(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := r.search(topic); at >= 0 {
		remove(s, r, at)
	}
}

// sweep removes from row i the lists that have missed more changes than are
// remembered, and returns the row to sweep next. Nobody would find them true,
// but they may refer to much that is gone.
func (c *cache[M]) sweep(i int, now uint64) (next int) {
	if len(c.rows) == 0 {
		return 0
	}
	if c.rows[i].tags.Load() != 0 {
		c.removeIf(i, func(l *list[M]) bool { return now-l.seen.Load() > recent })
	}
	return (i + 1) % len(c.rows)
}

// clear removes all lists.
func (c *cache[M]) clear() {
	for i := range c.rows {
		c.removeIf(i, func(*list[M]) bool { return true })
	}
}

func (c *cache[M]) removeIf(i int, f func(*list[M]) bool) {
	r, s := &c.rows[i], c.stripe(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range places {
		if l := r.lists[at].Load(); l != nil && f(l) {
			remove(s, r, at)
		}
	}
}

func (c *cache[M]) stripe(row int) *stripe { return &c.stripes[row&(len(c.stripes)-1)] }

func (c *cache[M]) stats(s *Stats) {
	for i := range c.stripes {
		p := &c.stripes[i]
		p.mu.Lock()
		s.Evicted += p.evicted
		s.Lists += p.lists
		s.Weight += p.weight
		p.mu.Unlock()
	}
}

// The following are called with the stripe locked.

// makeRoom turns out lists of s until its share is kept, or only l is left.
// Two rounds are enough: the first takes away every second chance.
func (c *cache[M]) makeRoom(s *stripe, in int, l *list[M]) {
	stripe, rows := in&(len(c.stripes)-1), len(c.rows)/len(c.stripes)
	for range 2 * rows {
		if s.weight <= c.share {
			return
		}
		r := &c.rows[s.hand*len(c.stripes)+stripe]
		s.hand = (s.hand + 1) % rows
		for at := range places {
			v := r.lists[at].Load()
			if v == nil || v == l || v.used.Swap(false) || s.weight <= c.share {
				continue
			}
			remove(s, r, at)
			s.evicted++
		}
	}
}

// remove empties place at of r, which is in s.
func remove[M any](s *stripe, r *row[M], at int) {
	l := r.lists[at].Load()
	if l == nil {
		return
	}
	r.set(at, nil, 0)
	s.lists--
	s.weight -= l.weight
}

// victim returns the place in r for another list: a free one, or that of a list
// not used lately. It starts where turn says, for if it always started at the
// first, that one would lose whenever all are in use.
func (r *row[M]) victim(turn uint64) int {
	for at := range places {
		if r.lists[at].Load() == nil {
			return at
		}
	}
	first := int(turn % places)
	for i := range places {
		if at := (first + i) % places; !r.lists[at].Load().used.Swap(false) {
			return at
		}
	}
	return first
}

// search returns the place of topic's list in r, -1 if there is none.
func (r *row[M]) search(topic string) int {
	for at := range places {
		if l := r.lists[at].Load(); l != nil && l.topic == topic {
			return at
		}
	}
	return -1
}

// set puts l, or nothing, in place at. A reader who sees the tag without the
// list, or the other way round, does not find it: l was not there a moment ago.
func (r *row[M]) set(at int, l *list[M], tag uint64) {
	shift := 8 * at
	r.tags.Store(r.tags.Load()&^(0xff<<shift) | tag<<shift)
	r.lists[at].Store(l)
}
