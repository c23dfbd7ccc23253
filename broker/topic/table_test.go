package topic

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// A table says what a map says, and every earlier version goes on saying what
// it did: readers hold them.
func TestTableVersionsDoNotChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mask := rapid.SampledFrom([]uint64{^uint64(0), 0, 1, 0x1f << 59, 7 << 30}).Draw(t, "mask")
		hashOf := func(k int) uint64 { return uint64(k) * 0x9e3779b97f4a7c15 & mask }
		type version struct {
			table *table[int, int]
			want  map[int]int
		}
		versions := []version{{}}
		for range rapid.IntRange(1, 60).Draw(t, "changes") {
			// From any version, not only the newest.
			from := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "from")]
			k, v := rapid.IntRange(0, 30).Draw(t, "key"), rapid.Int().Draw(t, "value")
			next := version{want: maps.Clone(from.want)}
			if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
				delete(next.want, k)
				next.table = from.table.without(hashOf(k), k)
				if _, had := from.want[k]; !had && next.table != from.table {
					t.Fatalf("deleting %d, which is not there, made another table", k)
				}
			} else {
				if next.want == nil {
					next.want = map[int]int{}
				}
				next.want[k] = v
				next.table = from.table.with(hashOf(k), k, v, hashOf)
			}
			versions = append(versions, next)
		}
		for i, v := range versions {
			checkTable(t, v.table, 0)
			got := map[int]int{}
			v.table.each(func(k, v int) { got[k] = v })
			if !maps.Equal(got, v.want) {
				t.Fatalf("version %d holds %v, want %v", i, got, v.want)
			}
			for k := range 31 {
				value, ok := v.table.find(hashOf(k), k)
				if want, had := v.want[k]; ok != had || value != want {
					t.Fatalf("version %d: find(%d) = %d, %v; want %d, %v", i, k, value, ok, want, had)
				}
			}
			only, single := v.table.only()
			if single != (len(v.want) == 1) {
				t.Fatalf("version %d: only says %v of %d", i, single, len(v.want))
			}
			for _, want := range v.want {
				if single && only != want {
					t.Fatalf("version %d: only() = %d, want %d", i, only, want)
				}
			}
		}
	})
}
