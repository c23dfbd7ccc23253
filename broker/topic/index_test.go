package topic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/internal/effort"
	_ "github.com/bellwire/bellwire/internal/fixedseed"
)

// newTestIndex returns an index whose lists are sorted lines "filter key value".
func newTestIndex(limit int) *Index[string, int, []string] {
	return NewIndex(func(_ string, matches []Entry[string, int]) []string {
		lines := make([]string, 0, len(matches))
		for _, m := range matches {
			lines = append(lines, fmt.Sprint(m.Filter, " ", m.Key, " ", m.Value))
		}
		slices.Sort(lines)
		return lines
	}, limit)
}

// A model is the dumb index: everything in one map, matched one by one.
type model map[[2]string]int // filter, key

func (m model) lookup(name string) []string {
	lines := []string{}
	for at, value := range m {
		if dumbMatch(at[0], name) {
			lines = append(lines, fmt.Sprint(at[0], " ", at[1], " ", value))
		}
	}
	slices.Sort(lines)
	return lines
}

// Whatever is set, deleted and looked up in whatever order, the answers are
// those of a map that is searched from end to end: with and without a cache,
// with one far too small, and with hashes that collide.
func TestIndexAgainstModel(t *testing.T) {
	levels := rapid.SampledFrom([]string{"", "a", "b", "c", "$a", "+"})
	filters := rapid.Custom(func(t *rapid.T) string {
		f := strings.Join(rapid.SliceOfN(levels, 1, 5).Draw(t, "levels"), "/")
		switch rapid.IntRange(0, 2).Draw(t, "end") {
		case 0:
			f += "/#"
		case 1:
			if f == "" {
				f = "#"
			}
		}
		if ValidFilter(f) != nil {
			f = "a"
		}
		return f
	})
	names := rapid.Map(filters, func(f string) string {
		return strings.NewReplacer("+", "a", "#", "b").Replace(f)
	})
	keys := rapid.Map(rapid.IntRange(0, 40), strconv.Itoa)
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]int{0, 1, 10, 1000, 5000}).Draw(t, "limit")
		x := newTestIndex(limit)
		x.mask = rapid.SampledFrom([]uint64{^uint64(0), 0, 3, 0xffff << 48}).Draw(t, "mask")
		m := model{}
		seen := map[string]bool{"a": true}
		check := func(f, k string) {
			want, had := m[[2]string{f, k}]
			if got, ok := x.Value(f, k); got != want || ok != had {
				t.Fatalf("Value(%q, %s) = %d, %v; want %d, %v", f, k, got, ok, want, had)
			}
		}
		set := func(f, k string, v int) {
			_, had := m[[2]string{f, k}]
			m[[2]string{f, k}] = v
			if got := x.Set(f, k, v); got != had {
				t.Fatalf("Set(%q, %s) = %v, want %v", f, k, got, had)
			}
			check(f, k)
		}
		remove := func(f, k string) {
			_, had := m[[2]string{f, k}]
			delete(m, [2]string{f, k})
			if got := x.Delete(f, k); got != had {
				t.Fatalf("Delete(%q, %s) = %v, want %v", f, k, got, had)
			}
			check(f, k)
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				set(filters.Draw(t, "filter"), keys.Draw(t, "key"), rapid.IntRange(0, 9).Draw(t, "value"))
			},
			"crowd": func(t *rapid.T) { // past the bounds of a small set, and back
				f := filters.Draw(t, "filter")
				for i := range rapid.IntRange(1, 3*manyIn).Draw(t, "n") {
					set(f, strconv.Itoa(i), i)
				}
			},
			"thin": func(t *rapid.T) {
				f := filters.Draw(t, "filter")
				for i := range rapid.IntRange(1, 3*manyIn).Draw(t, "n") {
					remove(f, strconv.Itoa(i))
				}
			},
			"delete": func(t *rapid.T) {
				if len(m) > 0 && rapid.Bool().Draw(t, "present") {
					all := slices.SortedFunc(maps.Keys(m), func(a, b [2]string) int {
						return strings.Compare(a[0]+" "+a[1], b[0]+" "+b[1])
					})
					at := rapid.SampledFrom(all).Draw(t, "which")
					remove(at[0], at[1])
					return
				}
				remove(filters.Draw(t, "filter"), keys.Draw(t, "key"))
			},
			"lookup": func(t *rapid.T) {
				seen[names.Draw(t, "name")] = true
			},
			"invalidate": func(*rapid.T) { x.Invalidate() },
			"": func(t *rapid.T) {
				for name := range seen {
					want := m.lookup(name)
					if got := x.LookupString(name); !slices.Equal(got, want) {
						t.Fatalf("LookupString(%q) = %q, want %q", name, got, want)
					}
					if got := x.Lookup([]byte(name)); !slices.Equal(got, want) {
						t.Fatalf("Lookup(%q) = %q, want %q", name, got, want)
					}
					n := 0
					x.Match(name, func(f, k string, v int) {
						if m[[2]string{f, k}] != v || !dumbMatch(f, name) {
							t.Fatalf("Match(%q) has %q %s %d", name, f, k, v)
						}
						n++
					})
					if n != len(want) {
						t.Fatalf("Match(%q) had %d, want %d", name, n, len(want))
					}
				}
				if x.Len() != len(m) {
					t.Fatalf("Len() = %d, want %d", x.Len(), len(m))
				}
				checkShape(t, x)
			},
		})
	})
}

// checkShape fails if the tree, a set or the cache breaks a rule it states.
func checkShape[K comparable, V, M any](t interface{ Fatalf(string, ...any) }, x *Index[K, V, M]) {
	v := x.now.Load()
	n, nodes, filters := 0, 0, 0
	count := func(s *set[K, V], filter string) {
		if s == nil {
			return
		}
		filters++
		n += s.len()
		held := 0
		s.each(func(K, V) { held++ })
		if held != s.len() || held == 0 {
			t.Fatalf("%q: the set says %d, holds %d", filter, s.len(), held)
		}
		if s.filter != filter {
			t.Fatalf("%q is found where %q belongs", s.filter, filter)
		}
		if s.crowd != nil {
			checkTable(t, s.crowd.members, 0)
		}
	}
	checkTable(t, v.exact, 0)
	v.exact.each(func(f string, s *set[K, V]) { count(s, f) })
	exact := filters
	var walk func(at *node[K, V], above string)
	walk = func(at *node[K, V], above string) {
		nodes++
		kids := 0
		below := func(kid *node[K, V]) {
			kids++
			label := kid.label
			if at != v.wild {
				label = above + "/" + label
			}
			walk(kid, label)
		}
		if at.plus != nil {
			below(at.plus)
		}
		checkTable(t, at.kids, 0)
		at.kids.each(func(level string, kid *node[K, V]) {
			if first, _ := levelAt(kid.label, 0); first != level || level == "+" {
				t.Fatalf("kid %q under the key %q", kid.label, level)
			}
			below(kid)
		})
		if at != v.wild && kids < 2 && at.here == nil && at.deep == nil {
			t.Fatalf("node %q has no set and %d kids", above, kids)
		}
		count(at.here, above)
		deep := above + "/#"
		if at == v.wild {
			deep = "#"
		}
		count(at.deep, deep)
	}
	walk(v.wild, "")
	if n != v.n {
		t.Fatalf("Len() = %d, the trees hold %d", v.n, n)
	}
	if wild := filters - exact; nodes-1 > 2*wild {
		t.Fatalf("%d nodes for %d wildcard filters", nodes, wild)
	}
	checkCache(t, &x.lists)
}

func checkTable[K comparable, V any](t interface{ Fatalf(string, ...any) }, b *table[K, V], depth int) {
	if b == nil {
		return
	}
	if depth > 0 && len(b.below) == 0 && len(b.pairs) < 2 {
		t.Fatalf("table: a node of one pair at depth %d", depth)
	}
	if len(b.below) == 0 && len(b.pairs) == 0 {
		t.Fatalf("table: an empty node")
	}
	for _, kid := range b.below {
		checkTable(t, kid, depth+1)
	}
}

func checkCache[M any](t interface{ Fatalf(string, ...any) }, c *cache[M]) {
	total, heaviest, n := 0, 0, 0
	for i := range c.rows {
		for at := range places {
			tag := c.rows[i].tags.Load() >> (8 * at) & 0xff
			l := c.rows[i].lists[at].Load()
			if (tag != 0) != (l != nil) {
				t.Fatalf("cache: tag %d with list %v", tag, l)
			}
			if l != nil {
				n++
				total += l.weight
				heaviest = max(heaviest, l.weight)
			}
		}
	}
	var s Stats
	c.stats(&s)
	if s.Lists != n || s.Weight != total {
		t.Fatalf("cache says %d lists of weight %d, holds %d of %d", s.Lists, s.Weight, n, total)
	}
	for i := range c.stripes {
		if p := &c.stripes[i]; p.weight > c.share && p.lists > 1 {
			t.Fatalf("cache: a stripe of weight %d, %d lists, may have %d", p.weight, p.lists, c.share)
		}
	}
}

// A filter with a wildcard makes only those lists anew that it matches, and an
// exact one only its own.
func TestChangeLeavesOtherListsAlone(t *testing.T) {
	x := newTestIndex(1000)
	names := []string{"a", "a/b", "a/c", "b", "$x/b"}
	lookAll := func() {
		for _, n := range names {
			x.LookupString(n)
		}
	}
	lookAll()
	tests := []struct {
		filter string
		built  uint64
	}{
		{"a/b", 1},
		{"zzz", 0},
		{"+/zzz", 0},
		{"a/+", 2},
		{"a/#", 3},
		{"+/b", 1},
		{"#", 4},
		{"$x/#", 1},
	}
	for _, tt := range tests {
		for _, change := range []func(){
			func() { x.Set(tt.filter, "k", 1) },
			func() { x.Set(tt.filter, "k", 2) },
			func() { x.Delete(tt.filter, "k") },
			func() { x.Delete(tt.filter, "k") }, // nothing to delete, nothing to build
		} {
			before := x.Stats().Built
			n := x.now.Load()
			change()
			want := tt.built
			if x.now.Load() == n {
				want = 0
			}
			lookAll()
			if got := x.Stats().Built - before; got != want {
				t.Errorf("%q: %d lists built, want %d", tt.filter, got, want)
			}
		}
	}
}

// A list that has missed more changes than are remembered is built anew, and
// one that has missed as many as are is not.
func TestListsTooOldAreBuiltAnew(t *testing.T) {
	x := newTestIndex(1000)
	for _, tt := range []struct {
		changes int
		built   uint64
	}{{recent, 0}, {recent + 1, 1}, {3 * recent, 1}, {1, 0}} {
		x.LookupString("a")
		before := x.Stats().Built
		for i := range tt.changes {
			x.Set("b/+", "k", i)
		}
		x.LookupString("a")
		if got := x.Stats().Built - before; got != tt.built {
			t.Errorf("after %d changes: %d lists built, want %d", tt.changes, got, tt.built)
		}
	}
}

// After Invalidate, whatever build depends on is seen, and nothing is held.
func TestInvalidate(t *testing.T) {
	policy := 1
	x := NewIndex(func(string, []Entry[int, int]) int { return policy }, 100)
	x.LookupString("a")
	policy = 2
	if got := x.LookupString("a"); got != 1 {
		t.Fatalf("before: %d, want the cached 1", got)
	}
	x.Invalidate()
	if got := x.Stats().Lists; got != 0 {
		t.Errorf("%d lists held after Invalidate, want 0", got)
	}
	if got := x.LookupString("a"); got != 2 {
		t.Errorf("after: %d, want 2", got)
	}
}

// A list that was begun before Invalidate and ended after it is not found.
func TestInvalidateDuringBuild(t *testing.T) {
	policy, once := 1, true
	var x *Index[int, int, int]
	x = NewIndex(func(string, []Entry[int, int]) int {
		read := policy
		if once {
			once = false
			policy = 2
			x.Invalidate()
		}
		return read
	}, 100)
	if got := x.LookupString("a"); got != 1 {
		t.Fatalf("the first list: %d, want 1", got)
	}
	if got := x.LookupString("a"); got != 2 {
		t.Errorf("the next: %d, want 2", got)
	}
}

// A change that comes while a list is built is not lost, whether it is to the
// list's own exact filter or to a wildcard filter.
func TestChangeDuringBuild(t *testing.T) {
	for _, filter := range []string{"a", "+"} {
		once := true
		var x *Index[int, int, int]
		x = NewIndex(func(_ string, m []Entry[int, int]) int {
			if once {
				once = false
				x.Set(filter, 1, 1)
			}
			return len(m)
		}, 100)
		if got := x.LookupString("a"); got != 0 {
			t.Fatalf("%q: the first list has %d, want 0", filter, got)
		}
		if got := x.LookupString("a"); got != 1 {
			t.Errorf("%q: the next has %d, want 1", filter, got)
		}
	}
}

// However many names are published to, and however long their lists, the cache
// keeps its bound; and the names in use keep their places.
func TestCacheIsBounded(t *testing.T) {
	for _, limit := range []int{1, 7, 100, 5000} {
		x := NewIndex(func(_ string, m []Entry[int, int]) int { return len(m) }, limit)
		for i := range 100 {
			x.Set("heavy/#", i, i)
		}
		for i := range 4 * limit {
			x.LookupString("light/" + strconv.Itoa(i))
			x.LookupString("heavy/" + strconv.Itoa(i))
		}
		checkCache(t, &x.lists)
		heaviest := 1 + 100/matchesPerWeight
		if s := x.Stats(); s.Weight > max(limit, heaviest) || s.Evicted == 0 {
			t.Errorf("limit %d: %+v", limit, s)
		}
	}
}

// A name's bytes count, too: of long ones there are fewer.
func TestLongNamesWeighMore(t *testing.T) {
	const limit = 1000
	x := NewIndex(func(_ string, m []Entry[int, int]) int { return 0 }, limit)
	for i := range 2 * limit {
		x.LookupString(strconv.Itoa(i) + strings.Repeat("x", MaxBytes-10))
	}
	checkCache(t, &x.lists)
	if s, most := x.Stats(), limit*bytesPerWeight/(MaxBytes-10); s.Lists > most || s.Lists == 0 {
		t.Errorf("%d names are kept, want %d at most", s.Lists, most)
	}
}

func TestNamesInUseKeepTheirPlace(t *testing.T) {
	const limit = 700
	x := NewIndex(func(_ string, m []Entry[int, int]) int { return 0 }, limit)
	hot := make([]string, limit/10)
	for i := range hot {
		hot[i] = "hot/" + strconv.Itoa(i)
	}
	var built uint64
	for i := range 20 * limit {
		x.LookupString("once/" + strconv.Itoa(i))
		before := x.Stats().Built
		x.LookupString(hot[i%len(hot)])
		built += x.Stats().Built - before
	}
	// Each hot name is looked up 200 times, while as many others pass as fill
	// the cache twenty times.
	if most := uint64(4 * len(hot)); built > most {
		t.Errorf("lists in use were built %d times, want at most %d", built, most)
	}
}

// The same within a row of the cache: all names have one hash here.
func TestNamesInUseKeepTheirPlaceInARow(t *testing.T) {
	x := NewIndex(func(_ string, m []Entry[int, int]) int { return 0 }, 1000)
	x.mask = 0
	for i := range 1000 {
		x.LookupString("once/" + strconv.Itoa(i))
		x.LookupString("hot/1")
		x.LookupString("hot/2")
	}
	if got := x.Stats().Built; got > 1000+4 {
		t.Errorf("%d lists built, want the 1000 and few more", got)
	}
	if got := x.Stats().Lists; got != places {
		t.Errorf("%d lists kept, want a row of %d", got, places)
	}
}

// The list that is dearest to build is kept, however long it is.
func TestListAboveTheLimitIsKept(t *testing.T) {
	x := NewIndex(func(_ string, m []Entry[int, int]) int { return len(m) }, 2)
	for i := range 100 {
		x.Set("a", i, i)
	}
	x.LookupString("b")
	for range 3 {
		x.LookupString("a")
	}
	if s := x.Stats(); s.Built != 2 || s.Lists != 1 {
		t.Errorf("%+v, want 2 built and the long one kept", s)
	}
}

// A reader may be so slow that the change it is about to check a list against
// has been written over. Then it must not take another change for it.
func TestChangeWrittenOverIsNoticed(t *testing.T) {
	x := newTestIndex(100)
	x.LookupString("a/b")
	l := x.lists.find(x.hash("a/b"), "a/b")
	seen := l.seen.Load()
	x.Set("a/+", "k", 1)
	now := x.now.Load().changes
	for i := range recent {
		x.Set("b/+", "k", i)
	}
	if x.holdsAfter(l, seen, now) {
		t.Error("a list that misses a/+ was said to hold")
	}
}

// Lists nobody asks for again do not keep what they refer to for ever: changes
// to wildcard filters remove them.
func TestOldListsAreSweptOut(t *testing.T) {
	x := newTestIndex(100)
	for i := range 50 {
		x.LookupString("a/" + strconv.Itoa(i))
	}
	for i := range recent + 1 + len(x.lists.rows) {
		x.Set("b/+", "k", i)
	}
	if got := x.Stats().Lists; got != 0 {
		t.Errorf("%d lists still there, want 0", got)
	}
}

// An index does not rely on the checks of filters: thousands of levels, empty
// levels and wildcards out of place do no harm, and leave nothing behind.
func TestHostileFilters(t *testing.T) {
	x := newTestIndex(100)
	deep := strings.Repeat("a/", 30000)
	filters := []string{
		deep + "+", deep + "#", deep + "a", strings.Repeat("+/", 30000) + "a", strings.Repeat("/", 65535), strings.Repeat("/", 65534) + "+",
		"a/#/b", "+/#/b", "a+", "#a", "++", "+/+b", "", "#", "/#", "/+", "+/", "//#", "$", "$/#", "$share/g/+", deep[:len(deep)-1],
	}
	m := model{}
	for _, f := range filters {
		x.Set(f, "k", 1)
		m[[2]string{f, "k"}] = 1
	}
	checkShape(t, x)
	names := append(filters, deep+"x", deep, "a/x/b", "x/#/b", "x/xb", "a", "/", "//", "$/x", "x")
	for _, name := range names {
		if HasWildcard(name) {
			continue
		}
		if got, want := x.LookupString(name), m.lookup(name); !slices.Equal(got, want) {
			t.Errorf("LookupString(%.20q): %d matches, want %d", name, len(got), len(want))
		}
	}
	for _, f := range filters {
		if !x.Delete(f, "k") {
			t.Errorf("%.20q was not there", f)
		}
		checkShape(t, x)
	}
	if v := x.now.Load(); v.exact != nil || v.wild.kids != nil || v.wild.plus != nil || v.wild.deep != nil || v.n != 0 {
		t.Errorf("something is left: %+v", v)
	}
}

// Filters of a hundred levels cost a node or two each, not a hundred.
func TestDeepFiltersAreCheap(t *testing.T) {
	x := newTestIndex(0)
	const n = 500
	for i := range n {
		x.Set(strings.Repeat(strconv.Itoa(i)+"/+/", Limit/2-1)+"a", "k", 1)
		x.Set(strings.Repeat(strconv.Itoa(i)+"/+/", Limit/2-1)+"b", "k", 1)
	}
	checkShape(t, x) // counts nodes
}

// What a filter's string was made of may be written over after Set.
func TestSetCopiesTheFilter(t *testing.T) {
	x := newTestIndex(100)
	var filters []string
	buffer := make([]byte, 0, 64)
	for _, f := range []string{"a/b", "a/+", "a/+/c", "a/#"} {
		buffer = append(buffer[:0], f...)
		x.Set(borrowed(buffer), "k", 1)
		filters = append(filters, f)
		clear(buffer)
	}
	buffer = append(buffer[:0], "a/b"...)
	first := x.Lookup(buffer)
	clear(buffer)
	m := model{}
	for _, f := range filters {
		m[[2]string{f, "k"}] = 1
	}
	for _, name := range []string{"a/b", "a/b/c", "a"} {
		if got, want := x.LookupString(name), m.lookup(name); !slices.Equal(got, want) {
			t.Errorf("LookupString(%q) = %q, want %q", name, got, want)
		}
	}
	if again := x.LookupString("a/b"); &again[0] != &first[0] {
		t.Error("the list for a/b was not found again")
	}
}

// While some set and delete and others look up, no lookup sees less than what
// was done before it began. Each writer owns a filter, exact or not, that
// matches all names it checks; the value counts up, and what a reader finds may
// only be newer than what the writer had told before.
func TestLookupIsFresh(t *testing.T) {
	for _, limit := range []int{0, 3, 1000} {
		t.Run(strconv.Itoa(limit), func(t *testing.T) { testFresh(t, limit) })
	}
}

func testFresh(t *testing.T, limit int) {
	rounds := effort.Rounds(3000, 300_000)
	type lists = map[int]int
	var policy atomic.Int64
	x := NewIndex(func(_ string, m []Entry[int, int]) lists {
		l := lists{-1: int(policy.Load())}
		for _, e := range m {
			l[e.Key] = e.Value
		}
		return l
	}, limit)
	names := []string{"a/b", "a/c", "d/b"}
	filters := []string{"a/b", "a/c", "d/b", "a/+", "+/b", "#"}
	told := make([]atomic.Int64, len(filters)) // set, and Set has returned
	var toldPolicy atomic.Int64
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	for w, filter := range filters {
		writers.Go(func() {
			for i := 1; i <= rounds; i++ {
				x.Set(filter, w, i)
				told[w].Store(int64(i))
				if i%7 == 0 {
					// Not there counts as older than all, so a reader cannot
					// tell it from a lost Set; let it expect nothing.
					told[w].Store(0)
					x.Delete(filter, w)
				}
			}
		})
	}
	writers.Go(func() {
		for i := range rounds / 10 {
			policy.Store(int64(i))
			x.Invalidate()
			toldPolicy.Store(int64(i))
		}
	})
	for r := range 3 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 1))
			floor := make([]int64, len(filters))
			for !done.Load() {
				name := names[rng.IntN(len(names))]
				for w := range told {
					floor[w] = told[w].Load()
				}
				least := toldPolicy.Load()
				l := x.Lookup([]byte(name))
				if int64(l[-1]) < least {
					t.Errorf("%s: policy %d after %d was told", name, l[-1], least)
					return
				}
				for w, filter := range filters {
					// A Delete may have come between: then nothing is told
					// now, or something newer.
					if got := int64(l[w]); Match(filter, name) && got < floor[w] && !(got == 0 && told[w].Load() != floor[w]) {
						t.Errorf("%s: %s has %d after %d was told", name, filter, got, floor[w])
						return
					}
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	checkShape(t, x)
	for _, name := range names {
		l := x.LookupString(name)
		for w, filter := range filters {
			want := rounds
			if rounds%7 == 0 {
				want = 0
			}
			if Match(filter, name) && l[w] != want {
				t.Errorf("in the end %s: %s has %d, want %d", name, filter, l[w], want)
			}
		}
	}
}

// A deletion is seen as soon as it is over.
func TestDeleteIsFresh(t *testing.T) {
	x := NewIndex(func(_ string, m []Entry[int, int]) int { return len(m) }, 100)
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() { // keeps building and caching lists that are just going
			for !done.Load() {
				x.LookupString("a/b")
			}
		})
	}
	for i := range 5000 {
		filter := []string{"a/b", "a/+", "a/#"}[i%3]
		x.Set(filter, 1, i)
		if got := x.LookupString("a/b"); got != 1 {
			t.Fatalf("round %d: %d matches after Set(%q), want 1", i, got, filter)
		}
		x.Delete(filter, 1)
		if got := x.LookupString("a/b"); got != 0 {
			t.Fatalf("round %d: %d matches after Delete(%q), want 0", i, got, filter)
		}
	}
	done.Store(true)
	readers.Wait()
}

func TestCachedLookupAllocatesNothing(t *testing.T) {
	x := newTestIndex(100)
	x.Set("a/+", "k", 1)
	name := []byte("a/b")
	x.Lookup(name)
	if got := testing.AllocsPerRun(100, func() { x.Lookup(name) }); got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
	// Nor does checking it against a change elsewhere, beyond what Set does.
	set := testing.AllocsPerRun(100, func() { x.Set("b/+", "k", 1) })
	both := testing.AllocsPerRun(100, func() { x.Set("b/+", "k", 1); x.Lookup(name) })
	if both != set {
		t.Errorf("Set allocates %v times, Set and Lookup %v, want the same", set, both)
	}
}
