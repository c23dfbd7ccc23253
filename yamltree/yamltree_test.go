package yamltree

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cockroachdb/datadriven"
)

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
		r, n := Read("f.yaml", []byte(c.text), Form{})
		if err := r.Err(); err != nil || n.Kind != List {
			t.Errorf("%q: %+v, %v", c.text, n, err)
			continue
		}
		var got []string
		for _, item := range n.List {
			if item.Kind != Scalar {
				got = nil
				break
			}
			got = append(got, item.Text)
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

// What a file of a simple kind is read as, and all that is wrong with others.
// The kind has the keys name (a value), tags (values), people (a mapping) and
// steps (a list of mappings with the key do).
//
// -rewrite records what is; commit only a difference you understand.
func TestConversations(t *testing.T) {
	form := Form{
		Advise: func(line string) string {
			if strings.Contains(line, "@") {
				return "quote it"
			}
			return ""
		},
		Hide: func(lines []string) []string {
			hidden := make([]string, len(lines))
			for i, line := range lines {
				hidden[i] = strings.ReplaceAll(line, "mine", "…")
			}
			return hidden
		},
	}
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "read" {
				t.Fatalf("unknown command %s", d.Cmd)
			}
			r, top := Read("f.yaml", []byte(strings.ReplaceAll(d.Input, "→", "\t")), form)
			text := readSimple(r, top)
			if err := r.Err(); err != nil {
				return err.(*FileError).Report()
			}
			return text
		})
	})
}

// readSimple shows the values of a file of the simple kind.
func readSimple(r *Reader, top *Node) string {
	var out strings.Builder
	if top == nil || top.Kind == Null {
		return "nothing\n"
	}
	f, ok := r.Table(top, "a file", "name", "tags", "people", "steps")
	if !ok {
		return ""
	}
	if f["name"] != nil {
		if text, ok := r.Text(f["name"], "name"); ok {
			fmt.Fprintf(&out, "name %q at %v\n", text, f["name"].Pos)
		}
	}
	if f["tags"] != nil {
		for _, v := range r.Values(f["tags"], "tags") {
			fmt.Fprintf(&out, "tag %q at %v\n", v.Text, v.Pos)
		}
	}
	for _, k := range r.Keys(f["people"], "people", 2) {
		if text, ok := r.Text(k.Value, "a person"); ok {
			fmt.Fprintf(&out, "person %q at %v: %q\n", k.Name, k.Pos, text)
		}
	}
	for _, n := range r.Items(f["steps"], "steps", 2) {
		if s, ok := r.Table(n, "a step", "do"); ok {
			fmt.Fprintf(&out, "step at %v, do: %v\n", n.Pos, s["do"] != nil)
		}
	}
	return out.String()
}

// Files that are made to cost much are refused at once, by their tokens; what
// is within the bounds is not.
func TestHostile(t *testing.T) {
	repeat := strings.Repeat
	numbered := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	indented := func(depth int) string {
		var b strings.Builder
		for i := range depth {
			b.WriteString(repeat(" ", i) + "a:\n")
		}
		return b.String()
	}
	for _, c := range []struct{ name, text, want string }{
		{"brackets within", repeat("[", maxDepth) + repeat("]", maxDepth), ""},
		{"brackets", repeat("[", maxDepth+1), "nested more than 16 deep"},
		{"braces", repeat("{a: ", 50_000), "nested more than"},
		{"dashes within", repeat("- ", maxDepth) + "a", ""},
		{"dashes", repeat("- ", maxDepth+1) + "a", "nested more than"},
		{"anchors", "a: " + repeat("&a\n ", 50_000), "nested more than"},
		{"tags", "a: " + repeat("!a\n ", 50_000), "nested more than"},
		{"indentation within", indented(maxDepth), ""},
		{"indentation", indented(maxDepth + 1), "nested more than"},
		{"keys of one mapping within", "a:\n" + numbered("  a%d: b\n", MaxKeys), ""},
		{"keys of one mapping", "a:\n" + numbered("  a%d: b\n", MaxKeys+1), "more than 10000 keys in one mapping"},
		{"keys", numbered("- {a: b, c: d, e: f, g: %d}\n", maxPairs/4+1), "more than 60000 keys"},
		{"questions", repeat("? ", 20_000), "a key after `?`"},
		{"documents", repeat("---\n", 20_000), "a second document"},
		{"directives", repeat("%YAML 1.2\n", 10_000), "a YAML directive"},
		{"size within", "#" + repeat(" ", MaxFile-1), ""},
		{"size", "#" + repeat(" ", MaxFile), "the file has 1048577 bytes, at most 1048576 are possible"},
		{"carriage returns", repeat("a: b\r", 10_000), "carriage return"},
		{"NUL", "a: b\x00\n", "f.yaml:1:5: control character U+0000"},
		{"control characters", "a: \"\x1b[2J\"\n", "control character U+001B"},
		{"merge keys", "a: &a {b: c}\nd: {<<: *a}\n", "merge key"},
		{"not UTF-8", "a: \xff\n", "f.yaml:1:4: not UTF-8"},
		{"alias of itself", "a: &a [*a]\n", "no anchor &a above"},
		{"alias cycle", "a: &a {b: *c}\nc: &c {d: *a}\n", "no anchor &c above"},
		{"many faults", repeat("- !t x\n", MaxFaults+7), "f.yaml: and 7 more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, top := Read("f.yaml", []byte(c.text), Form{})
			err := r.Err()
			if c.want == "" {
				if err != nil || top == nil {
					t.Fatalf("refused: %.300v", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted: %+v", top)
			}
			checkFaults(t, err, []byte(c.text))
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%.300q does not say %q", err, c.want)
			}
		})
	}
}

// Lists that aliases repeat are counted each time.
func TestAliasesAreCounted(t *testing.T) {
	text := "- &a [" + strings.Repeat("x, ", 999) + "x]\n" + strings.Repeat("- *a\n", maxEntries/1000)
	r, top := Read("f.yaml", []byte(text), Form{})
	total := 0
	for _, n := range r.Items(top, "lists", 1000) {
		total += len(r.Values(n, "a list"))
	}
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "aliases counted") {
		t.Errorf("got %v", err)
	}
	if total != maxEntries {
		t.Errorf("%d entries handed out, want %d", total, maxEntries)
	}
}

// How lines end makes no difference, nor does a byte order mark: not to what
// values are, and not to where faults are.
func TestLineEnds(t *testing.T) {
	const text = "name: |\n  a\n  b\ntags: ['a\n\n  b', \"c\n  d\"]\npeople: {ana: x}\n"
	for _, tail := range []string{"", "nam: x\nsteps: y\n", "tags: *x\n"} {
		unix := []byte(text + tail)
		other := []byte("\ufeff" + strings.ReplaceAll(text+tail, "\n", "\r\n"))
		show := func(data []byte) string {
			r, top := Read("f.yaml", data, Form{})
			values := readSimple(r, top)
			if err := r.Err(); err != nil {
				return err.(*FileError).Report()
			}
			return values
		}
		if a, b := show(unix), show(other); a != b {
			t.Errorf("with LF:\n%s\nwith CR LF:\n%s", a, b)
		}
	}
}

// Whatever the bytes, there is a tree without cycles or every fault is told
// with a place in the file.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "a: b\n", "- [a, {b: c}]\n- *x\n", "&a a: &b [*a, *b]\n", "a: |\n  x\n\n y", "? a\n: b", "{a: b, <<: *c}",
		"\ufeffa: \"\\x1b\"\r\n", "a:\n  - b: 1:2\n   c", "--- !t\na: 'b\n", "[2026-01-01T05:59:59Z, a:b c]", "a: password: x",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, top := Read("f.yaml", data, Form{})
		if top == nil && r.Err() == nil {
			t.Fatal("neither a tree nor a fault")
		}
		if top != nil {
			checkTree(t, top, map[*Node]bool{})
			readSimple(r, top)
		}
		if err := r.Err(); err != nil {
			checkFaults(t, err, data)
		}
	})
}

// checkTree fails if n is among its own children. above holds its parents.
func checkTree(t *testing.T, n *Node, above map[*Node]bool) {
	if above[n] {
		t.Fatal("a node is its own child")
	}
	if len(above) > 1000 {
		t.Fatal("a tree without end")
	}
	above[n] = true
	seen := map[*Node]bool{} // aliases of one list: once is enough
	for _, c := range n.List {
		if !seen[c] {
			checkTree(t, c, above)
		}
		seen[c] = true
	}
	for _, k := range n.Keys {
		if !seen[k.Value] {
			checkTree(t, k.Value, above)
		}
		seen[k.Value] = true
	}
	delete(above, n)
}

func checkFaults(t *testing.T, err error, data []byte) {
	t.Helper()
	e, ok := errors.AsType[*FileError](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	if len(e.Faults) == 0 || len(e.Faults) > MaxFaults {
		t.Errorf("%d faults", len(e.Faults))
	}
	lines := strings.Count(string(data), "\n") + 1
	for i, f := range e.Faults {
		if f.What == "" || f.Line < 0 || f.Line > lines || f.Line > 0 && f.Column < 1 {
			t.Errorf("fault %d of a file of %d lines: %+v", i, lines, f)
		}
		if i > 0 && f.Line < e.Faults[i-1].Line {
			t.Errorf("fault %d is out of order", i)
		}
	}
	report := e.Report()
	if !utf8.ValidString(report) || strings.ContainsAny(report, "\x00\x1b\x7f\r") {
		t.Errorf("the report could upset a terminal: %q", report)
	}
	if len(report) > 200_000 {
		t.Errorf("a report of %d bytes", len(report))
	}
}

// A report keeps secrets to itself, whatever kind of file they stand in.
func TestReportHidesSecrets(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, line := range []string{
		"password: " + secret, "  api_token: {env: " + secret + "}", `{"Secret" : ` + secret + "}",
		"x: $argon2id$v=19$" + secret, "x: 4f3a" + strings.Repeat("0123456789", 4),
	} {
		r, _ := Read("f.yaml", []byte(line+"\nx: !t y\n"), Form{})
		err := r.Err()
		if err == nil {
			t.Fatalf("%q: no fault", line)
		}
		report := err.(*FileError).Report()
		if strings.Contains(report, secret) || strings.Contains(report, "0123456789") {
			t.Errorf("told:\n%s", report)
		}
	}
}
