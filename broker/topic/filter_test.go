package topic

import (
	"strings"
	"testing"
)

// The examples of the standard (5, 4.7.1 to 4.7.3), and the corners in which
// brokers go wrong.
func TestMatch(t *testing.T) {
	tests := []struct {
		filter string
		yes    string
		no     string
	}{
		{"a", "a", "b a/ /a a/b A"},
		{"/", "/", "a a/ /a //"},
		{"a/b", "a/b", "a a/ a/b/ a/bc /a/b"},
		{"a/", "a/", "a a/b a//"},
		{"+", "a b", "/ /a a/ a/b $SYS $"},
		{"/+", "/a /", "a // /a/"},
		{"+/", "a/ /", "a a/b // $SYS/"},
		{"+/+", "/a a/ a/b /", "a a/b/c // $SYS/b"},
		{"a/+", "a/b a/", "a a/b/c a/b/ b/b"},
		{"a/+/c", "a/b/c a//c", "a/c a/b/d a/b/c/"},
		{"#", "a / /a a/b/c //", "$SYS $SYS/a $"},
		{"a/#", "a a/ a/b a/b/c a//", "b ab a$ /a b/a"},
		{"a/+/#", "a/ a/b a/b/c", "a b/b"},
		{"+/#", "a / a/b a/b/c", "$SYS $SYS/a"},
		{"/#", "/ /a // /a/b", "a a/"},
		{"+/x", "a/x /x", "$SYS/x a x"},
		{"$SYS/#", "$SYS $SYS/ $SYS/a/b", "SYS a $sys"},
		{"$SYS/+", "$SYS/a $SYS/", "$SYS $SYS/a/b"},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", "$SYS/monitor"},
		{"a/$b/+", "a/$b/c", "a/b/c"},
		{"+/+/#", "a/$b a/$b/c /", "$a/b a"},
		{"sport/tennis/player1/#", "sport/tennis/player1 sport/tennis/player1/ranking sport/tennis/player1/score/wimbledon", "sport/tennis/player2"},
	}
	for _, tt := range tests {
		for name := range strings.FieldsSeq(tt.yes) {
			if !Match(tt.filter, name) {
				t.Errorf("Match(%q, %q) = false, want true", tt.filter, name)
			}
		}
		for name := range strings.FieldsSeq(tt.no) {
			if Match(tt.filter, name) {
				t.Errorf("Match(%q, %q) = true, want false", tt.filter, name)
			}
		}
	}
}

func TestCovers(t *testing.T) {
	tests := []struct {
		outer, inner string
		want         bool
	}{
		{"a", "a", true},
		{"a/#", "a", true},
		{"a/#", "a/+", true},
		{"a/#", "a/+/b/#", true},
		{"a/+", "a/#", false},
		{"a/+/#", "a/#", false}, // a
		{"+/#", "#", true},
		{"#", "+/#", true},
		{"+", "#", false},
		{"+/+/#", "#", false},
		{"#", "$SYS/#", false},
		{"+/#", "$SYS/a", false},
		{"$SYS/#", "$SYS/+/a", true},
		{"$SYS/#", "#", false},
		{"#", "+/$a", true},
		{"+/b", "a/b", true},
		{"a/b", "+/b", false},
		{"a", "a/#", false},
		{"a/+", "a/", true},
		{"a/#", "b", false},
	}
	for _, tt := range tests {
		if got := Covers(tt.outer, tt.inner); got != tt.want {
			t.Errorf("Covers(%q, %q) = %v, want %v", tt.outer, tt.inner, got, tt.want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a/#", "a", true},
		{"a/#", "+", true},
		{"a/#", "+/b/c", true},
		{"a/+/#", "a", false},
		{"a/+", "+/b", true},
		{"a/+/c", "+/b", false},
		{"a/+", "b/#", false},
		{"#", "$SYS/#", false},
		{"+/a", "$SYS/a", false},
		{"$SYS/+", "$SYS/#", true},
		{"#", "+", true},
		{"a/b/#", "a/+", true},
		{"a/b/#", "a/#", true},
	}
	for _, tt := range tests {
		if got := Overlaps(tt.a, tt.b); got != tt.want {
			t.Errorf("Overlaps(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.want)
		}
		if got := Overlaps(tt.b, tt.a); got != tt.want {
			t.Errorf("Overlaps(%q, %q) = %v, want %v", tt.b, tt.a, got, tt.want)
		}
	}
}

// Match says the same as a recursive reading of the standard.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{
		{"a/#", "a"}, {"+/#", "$SYS"}, {"a/+/b", "a//b"}, {"#", "/"}, {"+/+", "/"}, {"a/b", "a/bc"}, {"", ""}, {"a/#/b", "a/#/b"}, {"#", "$"}, {"/#", ""}, {"a+", "ab"}, {"+a", "ba"}, {"a+", "a+"}, {"a#", "ab"}, {"#a", "b"}, {"#/a", "b/a"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, filter, name string) {
		if got, want := Match(filter, name), dumbMatch(filter, name); got != want {
			t.Errorf("Match(%q, %q) = %v, the dumb one says %v", filter, name, got, want)
		}
		if ValidName(name) == nil && Match(filter, name) && !Overlaps(filter, name) {
			t.Errorf("%q matches %q and does not overlap it", filter, name)
		}
	})
}

func dumbMatch(filter, name string) bool {
	f, n := strings.Split(filter, "/"), strings.Split(name, "/")
	if strings.HasPrefix(name, "$") && (f[0] == "+" || f[0] == "#" && len(f) == 1) {
		return false
	}
	return dumbLevels(f, n)
}

func dumbLevels(f, n []string) bool {
	switch {
	case len(f) == 1 && f[0] == "#":
		return true
	case len(f) == 0 || len(n) == 0:
		return len(f) == len(n)
	}
	return (f[0] == "+" || f[0] == n[0]) && dumbLevels(f[1:], n[1:])
}

// What Covers and Overlaps say of two filters is what enumerating all names
// up to five levels says, for filters up to four. The fifth level and a letter
// that no filter has stand for all that is deeper and other.
func FuzzCovers(f *testing.F) {
	names := allNames([]string{"", "a", "b", "$a", "other"}, 5)
	f.Add(uint64(0), uint64(0))
	f.Add(uint64(123456), uint64(654321))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		checkPair(t, smallFilter(a), smallFilter(b), names)
	})
}

// The same for every pair of filters up to three levels, so that it does not
// depend on luck.
func TestCoversAndOverlapsOfAllSmallFilters(t *testing.T) {
	names := allNames([]string{"", "a", "$a", "other"}, 4)
	var filters []string
	for _, n := range allNames([]string{"", "a", "$a", "+", "#"}, 3) {
		if ValidFilter(n) == nil {
			filters = append(filters, n)
		}
	}
	matches := make(map[string][]bool)
	for _, f := range filters {
		for _, n := range names {
			matches[f] = append(matches[f], dumbMatch(f, n))
		}
	}
	for _, a := range filters {
		for _, b := range filters {
			covers, overlaps := true, false
			for i := range names {
				covers = covers && (matches[a][i] || !matches[b][i])
				overlaps = overlaps || matches[a][i] && matches[b][i]
			}
			if got := Covers(a, b); got != covers {
				t.Errorf("Covers(%q, %q) = %v, want %v", a, b, got, covers)
			}
			if got := Overlaps(a, b); got != overlaps {
				t.Errorf("Overlaps(%q, %q) = %v, want %v", a, b, got, overlaps)
			}
		}
	}
	t.Logf("%d filters, %d names", len(filters), len(names))
}

func checkPair(t *testing.T, a, b string, names []string) {
	covers, overlaps := true, false
	for _, n := range names {
		inA, inB := dumbMatch(a, n), dumbMatch(b, n)
		covers = covers && (inA || !inB)
		overlaps = overlaps || inA && inB
	}
	if got := Covers(a, b); got != covers {
		t.Errorf("Covers(%q, %q) = %v, want %v", a, b, got, covers)
	}
	if got := Overlaps(a, b); got != overlaps {
		t.Errorf("Overlaps(%q, %q) = %v, want %v", a, b, got, overlaps)
	}
}

// smallFilter makes a valid filter of up to four levels from the digits of n.
func smallFilter(n uint64) string {
	levels := make([]string, 1+n%4)
	n /= 4
	for i := range levels {
		alphabet := []string{"", "a", "b", "$a", "+", "#"}
		if i < len(levels)-1 {
			alphabet = alphabet[:5]
		}
		levels[i] = alphabet[n%uint64(len(alphabet))]
		n /= uint64(len(alphabet))
	}
	if s := strings.Join(levels, "/"); s != "" {
		return s
	}
	return "a"
}

// allNames returns every string of up to depth levels over the alphabet, but
// the empty one.
func allNames(alphabet []string, depth int) []string {
	row := alphabet
	all := append([]string(nil), row...)
	for range depth - 1 {
		var next []string
		for _, head := range row {
			for _, level := range alphabet {
				next = append(next, head+"/"+level)
			}
		}
		row = next
		all = append(all, row...)
	}
	names := all[:0]
	for _, n := range all {
		if n != "" {
			names = append(names, n)
		}
	}
	return names
}

func TestPureFunctionsAllocateNothing(t *testing.T) {
	name, filter := "presence/example.com/bob/"+strings.Repeat("ü/", 60), "$share/g/presence/+/bob/#"
	got := testing.AllocsPerRun(100, func() {
		_ = ValidName(name)
		_ = ValidFilter(filter)
		_, rest, _, _ := SplitShare(filter)
		_ = Match(rest, name)
		_ = Covers("presence/#", rest)
		_ = Overlaps("+/example.com/#", rest)
		_ = HasWildcard(rest)
	})
	if got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func BenchmarkMatch(b *testing.B) {
	for b.Loop() {
		if !Match("d/X/+/v", "d/X/48213/v") {
			b.Fatal("no match")
		}
	}
}

func BenchmarkValidName(b *testing.B) {
	for b.Loop() {
		if ValidName("presence/example.com/bob") != nil {
			b.Fatal("not valid")
		}
	}
}
