package acl

import "testing"

// What YAML holds to be single values are read as such, whatever is in them.
func TestScalars(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // nil: not a list of single values
	}{
		{"[2026-01-01T05:59:59Z, 2026-01-01T06:00:00Z]", []string{"2026-01-01T05:59:59Z", "2026-01-01T06:00:00Z"}},
		{"[a:b, a:1:2.0, 'a:b', \"a: b\", a:b c:d]", []string{"a:b", "a:1:2.0", "a:b", "a: b", "a:b c:d"}},
		{"- 2026-01-01T05:59:59Z\n- 2026-01-01T08:00 America/Chicago\n", []string{"2026-01-01T05:59:59Z", "2026-01-01T08:00 America/Chicago"}},
		{"[2026-12-25, 007, 1e3, yes, true, 0x10, ~x]", []string{"2026-12-25", "007", "1e3", "yes", "true", "0x10", "~x"}},
		{"[group:staff, ana@example.com, a/+/b, $SYS/x]", []string{"group:staff", "ana@example.com", "a/+/b", "$SYS/x"}},
		{"- |\n  a\n- >-\n  b\n  c\n", []string{"a\n", "b c"}},
		{"[a: b]", nil},
		{"[{a: b}]", nil},
		{"[[a]]", nil},
		{"[null]", nil},
		{"- a: b\n", nil},
	} {
		var f faults
		n := readYAML([]byte(c.text), &f)
		if len(f.list) > 0 || n == nil || n.kind != list {
			t.Errorf("%q: %+v, %+v", c.text, n, f.list)
			continue
		}
		var got []string
		for _, item := range n.list {
			if item.kind != scalar {
				got = nil
				break
			}
			got = append(got, item.text)
		}
		if len(got) != len(c.want) {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%q: %q, want %q", c.text, got[i], c.want[i])
			}
		}
	}
}
