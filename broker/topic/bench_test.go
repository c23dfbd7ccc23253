package topic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// borrowed returns b's bytes as a string, as a parser does that does not copy.
func borrowed(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// What a broker would keep for a name: who gets a copy.
type fanout struct{ keys []int32 }

func newFanoutIndex(limit int) *Index[int32, uint64, *fanout] {
	return NewIndex(func(_ string, matches []Entry[int32, uint64]) *fanout {
		f := &fanout{keys: make([]int32, len(matches))}
		for i := range matches {
			f.keys[i] = matches[i].Key
		}
		return f
	}, limit)
}

// row e of the comparison with peers: half exact filters, half wildcards, all
// below one parent.
func fill(x *Index[int32, uint64, *fanout], n int) {
	for i := range n / 2 {
		x.Set("d/X/"+strconv.Itoa(i)+"/v", int32(i%100), 0)
		x.Set("d/X/"+strconv.Itoa(i)+"/+", int32((i+1)%100), 0)
	}
}

func BenchmarkSetUp100k(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		before := heap()
		x := newFanoutIndex(0)
		fill(x, n)
		b.ReportMetric(float64(heap()-before)/n, "heapB/filter")
		runtime.KeepAlive(x)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/filter")
}

// What the lists of 50,000 names hold, the names and an empty fanout each included.
func BenchmarkCacheMemory(b *testing.B) {
	const n = 50_000
	for b.Loop() {
		before := heap()
		x := newFanoutIndex(n)
		for i := range n {
			x.LookupString("d/X/" + strconv.Itoa(i) + "/v")
		}
		b.ReportMetric(float64(heap()-before)/float64(x.Stats().Lists), "heapB/list")
		b.ReportMetric(float64(x.Stats().Evicted), "evicted")
		runtime.KeepAlive(x)
	}
}

// heap returns the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkLookupCached(b *testing.B) {
	x := newFanoutIndex(1000)
	fill(x, 1000)
	name := []byte("d/X/123/v")
	b.ReportAllocs()
	for b.Loop() {
		if len(x.Lookup(name).keys) != 2 {
			b.Fatal("want 2 matches")
		}
	}
}

func BenchmarkLookupCachedParallel(b *testing.B) {
	x := newFanoutIndex(1000)
	fill(x, 1000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		name := []byte("d/X/123/v")
		for pb.Next() {
			x.Lookup(name)
		}
	})
}

// Names at random out of 50,000: what costs is that the lists are not in the
// processor's caches, and whether they are in ours.
func BenchmarkLookupRandom(b *testing.B) {
	for _, limit := range []int{100_000, 50_000, 25_000, 0} {
		b.Run(fmt.Sprintf("limit=%d", limit), func(b *testing.B) {
			x := newFanoutIndex(limit)
			fill(x, 100_000)
			names := make([][]byte, 50_000)
			for i := range names {
				names[i] = fmt.Appendf(nil, "d/X/%d/v", i)
				x.Lookup(names[i])
			}
			rng := rand.New(rand.NewPCG(1, 2))
			before := x.Stats().Built
			b.ReportAllocs()
			for b.Loop() {
				if len(x.Lookup(names[rng.IntN(len(names))]).keys) != 2 {
					b.Fatal("want 2 matches")
				}
			}
			b.ReportMetric(float64(x.Stats().Built-before)/float64(b.N), "built/op")
		})
	}
}

// A publisher goes over its names while others subscribe and unsubscribe: so
// many lookups to a change. It shows what precise invalidation is worth.
func BenchmarkChurn(b *testing.B) {
	for _, kind := range []string{"exact", "wildcard"} {
		for _, lookups := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/lookups=%d", kind, lookups), func(b *testing.B) {
				x := newFanoutIndex(10_000)
				fill(x, 100_000)
				for i := range 100 {
					x.Set("d/X/7/v", int32(i), 0)
				}
				names := make([][]byte, 100)
				for i := range names {
					names[i] = fmt.Appendf(nil, "d/X/%d/v", i)
					x.Lookup(names[i])
				}
				before := x.Stats()
				changes := 0
				n := 0
				b.ReportAllocs()
				for b.Loop() {
					if n++; n%lookups == 0 {
						changes++
						f := "d/X/" + strconv.Itoa(1000+changes%1000)
						if kind == "exact" {
							f += "/w"
						} else {
							f += "/+"
						}
						x.Set(f, int32(1000+changes%7), 1)
					}
					x.Lookup(names[n%len(names)])
				}
				after := x.Stats()
				b.ReportMetric(float64(after.Built-before.Built)/float64(b.N), "built/op")
			})
		}
	}
}

func BenchmarkSet(b *testing.B) {
	x := newFanoutIndex(1000)
	fill(x, 100_000)
	for _, kind := range []string{"v", "+"} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				f := "d/X/" + strconv.Itoa(i%50_000) + "/" + kind
				if i/50_000%2 == 0 {
					x.Set(f, 1000, 0)
				} else {
					x.Delete(f, 1000)
				}
			}
		})
	}
}

// One filter's subscribers come one by one; with publishes, the name is looked
// up after each, so that each list is built.
func BenchmarkJoin(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		for _, publish := range []bool{false, true} {
			b.Run(fmt.Sprintf("n=%d/publish=%v", n, publish), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					x := newFanoutIndex(1000)
					for i := range n {
						x.Set("d/X/1/v", int32(i), 0)
						if publish {
							x.LookupString("d/X/1/v")
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/join")
			})
		}
	}
}

// What a list of so many subscribers costs to build.
func BenchmarkBuild(b *testing.B) {
	for _, n := range []int{0, 1, 10, 1000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			x := newFanoutIndex(0)
			fill(x, 10_000)
			for i := range n {
				x.Set("room/+", int32(i), 0)
			}
			name := []byte("room/42")
			b.ReportAllocs()
			for b.Loop() {
				if len(x.Lookup(name).keys) != n {
					b.Fatal("wrong")
				}
			}
		})
	}
}

// BenchmarkDeepest looks up a topic whose list is not there among the filters that make that
// the longest, within what broker.Limits.DeepLevels allows of them.
func BenchmarkDeepest(b *testing.B) {
	x := NewIndex(func(_ string, m []Entry[int, int]) int { return len(m) }, 0)
	r := rand.New(rand.NewPCG(1, 1))
	add := func(levels, i int) {
		f := make([]string, levels)
		for l := range f {
			f[l] = []string{"+", "a"}[r.IntN(2)]
		}
		f[levels-1] = strconv.Itoa(i)
		x.Set(strings.Join(f, "/"), i, i)
	}
	for i := 0; x.DeepLevels() < 32_768; i++ {
		add(Limit, i)
	}
	for i := range 50_000 {
		add(freeLevels, i)
	}
	name := strings.Repeat("a/", Limit-1) + "z"
	for b.Loop() {
		x.LookupString(name)
	}
}
