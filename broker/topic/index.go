package topic

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// An Index maps filters to who subscribes to them, and answers for a name the
// list that build made of all who match. The package comment
// describes the design.
//
// All methods may be called by any number of goroutines at once, and by build
// and the functions given to Match.
type Index[K comparable, V, M any] struct {
	build func(topic string, matches []Entry[K, V]) M
	text  textHash
	key   func(K) uint64
	seed  maphash.Seed
	mask  uint64     // all ones, but in tests, which want collisions
	pool  *sync.Pool // not in the struct: a Pool that is used is kept by the runtime, and all it is part of

	lists cache[M]

	// now is what Lookup and Match read. mu is held by who replaces it, and
	// by nobody else.
	now atomic.Pointer[version[K, V]]
	mu  sync.Mutex

	swept int // the cache's next row to sweep; guarded by mu

	// changed tells of the last changes to wildcard filters, the n-th in place
	// n mod recent. It is written before the version that contains the change
	// is published. So who has that version finds each change up to its own,
	// or sees by the number that the place is another's.
	changed [recent]atomic.Pointer[change]

	built atomic.Uint64
}

// An Entry is one subscription: what Set was told.
type Entry[K comparable, V any] struct {
	Filter string
	Key    K
	Value  V
}

// A version is the index at one moment. It never changes.
type version[K comparable, V any] struct {
	exact *table[string, *set[K, V]] // by the whole filter
	wild  *node[K, V]                // never nil
	n     int                        // subscriptions in both
	weigh int                        // Weight of them all
	deep  int                        // DeepLevels of all wildcard filters, each once

	changes uint64 // to wildcard filters, and calls of Invalidate
}

// A change says that the subscribers of a wildcard filter have changed.
type change struct {
	n      uint64
	filter string
}

// recent is how many changes to wildcard filters a cached list may have missed
// and still be checked against each of them, rather than built anew. A check
// takes 10 to 20 ns, and a short list a µs to build: beyond this, checking is
// not cheaper.
const recent = 64

// NewIndex returns an empty index.
//
// build makes the list for a name of the entries that match it, in no
// particular order, which differs from one process to the next: who needs one
// sorts. It owns topic, but matches only until it returns. It is called by
// whoever looks up a name whose list is not there; two may do so at once.
//
// limit bounds the lists that are kept: a list of n matches of a topic of b bytes counts as
// 1 + n/16 + b/128.
// If there is no room, the loser is a list not used lately. The limit is divided
// among up to 64 parts, and a list that is over its part's share is kept alone
// in it. Below 1 none are kept. A list costs about 70 bytes beside its name and
// what build returns. It may be kept until it is due again or pushed out, so
// what it refers to lives as long; see Stats.
func NewIndex[K comparable, V, M any](build func(topic string, matches []Entry[K, V]) M, limit int) *Index[K, V, M] {
	x := &Index[K, V, M]{build: build, seed: maphash.MakeSeed(), mask: ^uint64(0)}
	x.text = func(s string) uint64 { return x.hash(s) }
	x.key = func(k K) uint64 { return maphash.Comparable(x.seed, k) & x.mask }
	x.pool = &sync.Pool{New: func() any { return new(scratch[K, V]) }}
	x.lists.init(limit)
	x.now.Store(&version[K, V]{wild: &node[K, V]{}})
	return x
}

func (x *Index[K, V, M]) hash(s string) uint64 { return maphash.String(x.seed, s) & x.mask }

// Set subscribes key to filter as value, in place of what it was before, and
// says whether it was. filter must be valid, and of a shared subscription the
// rest that SplitShare returns; it is copied. Lookups that begin after Set has
// returned see it.
func (x *Index[K, V, M]) Set(filter string, key K, value V) (replaced bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	v := x.now.Load()
	s, c := x.find(v, filter), *v
	if s == nil {
		s = &set[K, V]{filter: strings.Clone(filter)}
		c.deep += DeepLevels(filter)
	}
	s, replaced = s.with(key, value, x.key)
	if !replaced {
		c.n++
		c.weigh += Weight(filter)
	}
	x.put(&c, s.filter, s)
	return replaced
}

// Delete undoes Set and says whether there was anything to undo. Lookups that
// begin after Delete has returned see it.
func (x *Index[K, V, M]) Delete(filter string, key K) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	v := x.now.Load()
	old := x.find(v, filter)
	s, had := old.without(key, x.key)
	if had {
		c := *v
		c.weigh -= Weight(filter)
		if c.n--; s == nil {
			c.deep -= DeepLevels(filter)
		}
		x.put(&c, old.filter, s)
	}
	return had
}

func (x *Index[K, V, M]) find(v *version[K, V], filter string) *set[K, V] {
	if HasWildcard(filter) {
		return v.wild.find(x.text, filter)
	}
	s, _ := v.exact.find(x.hash(filter), filter)
	return s
}

// put publishes c, a copy of the version there is that counts what is to be, with the set s
// for filter, nil for none; then no list that s makes wrong is found again. x.mu is held.
func (x *Index[K, V, M]) put(c *version[K, V], filter string, s *set[K, V]) {
	if HasWildcard(filter) {
		p, deep := filterPath(filter)
		c.wild = c.wild.put(x.text, p, deep, s)
		c.changes++
		x.changed[c.changes%recent].Store(&change{c.changes, filter})
		x.now.Store(c)
		x.swept = x.lists.sweep(x.swept, c.changes)
		return
	}
	h := x.hash(filter)
	if s == nil {
		c.exact = c.exact.without(h, filter)
	} else {
		c.exact = c.exact.with(h, filter, s, x.text)
	}
	x.now.Store(c)
	x.lists.drop(h, filter)
}

// Lookup returns the list for topic, which must be a valid name and is not
// kept. The list is never older than a Set, Delete or Invalidate that returned
// before Lookup was called. If it is cached, Lookup takes no lock and allocates
// nothing. It may be shared: do not change it.
func (x *Index[K, V, M]) Lookup(topic []byte) M {
	// LookupString copies the string before it keeps it, so this one need not
	// outlive the call.
	return x.LookupString(unsafe.String(unsafe.SliceData(topic), len(topic)))
}

// LookupString is Lookup for a string.
func (x *Index[K, V, M]) LookupString(topic string) M {
	h := maphash.String(x.seed, topic) & x.mask
	if l := x.lists.find(h, topic); l != nil && x.holds(l) {
		return l.made
	}
	return x.fill(h, strings.Clone(topic))
}

// holds says whether l is what would be built now. Changes to exact filters it
// need not look for: they remove their list from the cache before they are
// over.
func (x *Index[K, V, M]) holds(l *list[M]) bool {
	seen := l.seen.Load() // first: so it cannot be beyond now
	now := x.now.Load().changes
	return seen == now || x.holdsAfter(l, seen, now)
}

// holdsAfter checks l against the changes after seen, up to now. One that is
// not remembered, because it is too long ago or was an Invalidate, counts as one
// that concerns l.
func (x *Index[K, V, M]) holdsAfter(l *list[M], seen, now uint64) bool {
	for n := seen + 1; n <= now; n++ {
		c := x.changed[n%recent].Load()
		if c == nil || c.n != n || Match(c.filter, l.topic) {
			return false
		}
	}
	// Another lookup may have come further; then the next one checks again
	// what this one has.
	l.seen.Store(now)
	return true
}

// fill builds and keeps the list for topic.
func (x *Index[K, V, M]) fill(hash uint64, topic string) M {
	v := x.now.Load()
	tmp := x.pool.Get().(*scratch[K, V])
	x.matches(v, hash, topic, tmp)
	l := &list[M]{topic: topic, made: x.build(topic, tmp.entries), weight: 1 + len(tmp.entries)/matchesPerWeight + len(topic)/bytesPerWeight}
	l.seen.Store(v.changes)
	tmp.release(x.pool)
	x.built.Add(1)

	exact, _ := v.exact.find(hash, topic)
	x.lists.keep(hash, l, func() bool {
		now, _ := x.now.Load().exact.find(hash, topic)
		return now == exact
	})
	return l.made
}

// scratch is what collecting the matches of one name needs.
type scratch[K comparable, V any] struct {
	sets    []*set[K, V]
	entries []Entry[K, V]
}

// release gives t back, without what it refers to. A very large one is left to
// the collector.
func (t *scratch[K, V]) release(pool *sync.Pool) {
	if cap(t.entries) > 1<<14 {
		return
	}
	clear(t.sets)
	clear(t.entries)
	t.sets, t.entries = t.sets[:0], t.entries[:0]
	pool.Put(t)
}

// matches fills t with what matches topic in v.
func (x *Index[K, V, M]) matches(v *version[K, V], hash uint64, topic string, t *scratch[K, V]) {
	if s, ok := v.exact.find(hash, topic); ok {
		t.sets = append(t.sets, s)
	}
	t.sets = v.wild.match(x.text, topic, t.sets)
	n := 0
	for _, s := range t.sets {
		n += s.len()
	}
	t.entries = slices.Grow(t.entries, n)
	for _, s := range t.sets {
		s.each(func(key K, value V) { t.entries = append(t.entries, Entry[K, V]{s.filter, key, value}) })
	}
}

// Match calls f for each subscription whose filter matches topic, in no
// particular order. It sees the index at one moment, after every Set and Delete
// that had returned. It uses no cache and takes no lock.
func (x *Index[K, V, M]) Match(topic string, f func(filter string, key K, value V)) {
	v := x.now.Load()
	tmp := x.pool.Get().(*scratch[K, V])
	x.matches(v, x.hash(topic), topic, tmp)
	for _, e := range tmp.entries {
		f(e.Filter, e.Key, e.Value)
	}
	tmp.release(x.pool)
}

// Invalidate forgets all lists: what build depends on beside the subscriptions
// has changed, a policy for example. Lookups that begin after it has returned
// get lists whose building began after Invalidate did.
func (x *Index[K, V, M]) Invalidate() {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := *x.now.Load()
	c.changes++ // and not in changed: no list gets past it
	x.now.Store(&c)
	x.lists.clear()
}

// Len returns the number of subscriptions: pairs of filter and key.
func (x *Index[K, V, M]) Len() int { return x.now.Load().n }

// Weight returns the sum of the Weights of the filters of all subscriptions.
func (x *Index[K, V, M]) Weight() int { return x.now.Load().weigh }

// DeepLevels returns the sum of the DeepLevels of all filters, each once, however many
// subscribe to it.
func (x *Index[K, V, M]) DeepLevels() int { return x.now.Load().deep }

// Stats are counters of an index since it was made, but for those that say
// otherwise. How often a list was found at once is not counted: that would cost
// as much as finding it.
type Stats struct {
	Built   uint64 // lists built, because none was there that held
	Evicted uint64 // lists that lost their place to another
	Lists   int    // lists in the cache now
	Weight  int    // what they count, see NewIndex; the limit bounds it
}

// Stats returns the counters, each at its own moment.
func (x *Index[K, V, M]) Stats() Stats {
	s := Stats{Built: x.built.Load()}
	x.lists.stats(&s)
	return s
}
