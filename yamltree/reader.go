package yamltree

import (
	"errors"
	"slices"
	"strings"

	"github.com/bellwire/bellwire/internal/nearest"
)

// A Form is what is particular to a kind of file.
type Form struct {
	// Advise says what to write instead of a line that is no YAML, empty if
	// it has nothing to say. May be nil.
	Advise func(line string) string

	// Hide returns the file's lines without the secrets that only who knows
	// this kind of file finds; what looks like one is left out anyway. It is
	// called if there are faults, and must not change its argument. May be nil.
	Hide func(lines []string) []string
}

// maxEntries is how many entries all lists of a file may have together, those
// that aliases repeat counted each time.
const maxEntries = 200_000

// A Reader hands out the values of one file and gathers what is wrong with
// them. It belongs to one goroutine.
type Reader struct {
	faults  faults
	file    string
	data    []byte
	form    Form
	entries int // of lists, so far
}

// Read parses the bytes of a file, which faults call name. The node is the
// value of its document, of kind Null for a file that holds none, and nil if
// the file is past reading: then Err says why. (What is not YAML has one
// fault: nobody knows what follows.)
func Read(name string, data []byte, form Form) (*Reader, *Node) {
	r := &Reader{file: name, data: data, form: form}
	top := readYAML(data, form, &r.faults)
	if top == nil && r.faults.told == 0 {
		top = &Node{}
	}
	return r, top
}

// Err returns everything that was found wrong so far as a *FileError, in the
// order of the file, or nil.
func (r *Reader) Err() error { return r.faults.err(r.file, r.data, r.form) }

// Told is how often a fault was reported so far. Who reads a value of several
// parts compares it before and after, for what faulty parts make together
// would be a guess.
func (r *Reader) Told() int { return r.faults.told }

// Fail reports a fault at n.
func (r *Reader) Fail(n *Node, format string, args ...any) {
	r.FailAt(n.Pos, Problemf(format, args...))
}

// FailAt reports a fault at pos.
func (r *Reader) FailAt(pos Pos, p *Problem) {
	r.faults.add(Fault{Line: pos.Line, Column: pos.Column, What: p.What, Hint: p.Todo})
}

// Report reports err, which a reader of values returned for n: a *Problem, or
// any error, which then gives no advice.
func (r *Reader) Report(n *Node, err error) {
	p, ok := errors.AsType[*Problem](err)
	if !ok {
		p = Problemf("%v", err)
	}
	r.FailAt(n.Pos, p)
}

// Table returns the values of n, a mapping with some of the keys, by key. A
// key without a value is a fault: YAML makes that of a comment by mistake. Of
// a faulty key the value is empty, and reading it reports nothing further.
func (r *Reader) Table(n *Node, what string, keys ...string) (map[string]*Node, bool) {
	switch {
	case n.empty:
		return nil, false
	case n.Kind != Table:
		r.FailAt(n.Pos, Problemf("%s is %s, want a mapping", what, n.Kind).Hint("its keys are %s", strings.Join(keys, ", ")))
		return nil, false
	}
	values := map[string]*Node{}
	meant := map[string]*Node{}
	for _, k := range n.Keys {
		switch {
		case !slices.Contains(keys, k.Name):
			r.FailAt(k.Pos, Problemf("unknown key %q in %s", shorten(k.Name, 80), what).
				Near(k.Name, keys, "its keys are "+strings.Join(keys, ", ")))
			if near := nearest.Name(k.Name, keys); near != "" {
				meant[near] = &Node{Pos: k.Pos, empty: true}
			}
		case values[k.Name] != nil:
			r.FailAt(k.Pos, Problemf("a second %q in %s", k.Name, what))
		case k.Value.Kind == Null && !k.Value.empty:
			r.FailAt(k.Pos, Problemf("%q is empty", k.Name).Hint("give it a value or remove it; an unquoted # begins a comment"))
			k.Value.empty = true
			values[k.Name] = k.Value
		default:
			values[k.Name] = k.Value
		}
	}
	for name, n := range meant {
		if values[name] == nil {
			values[name] = n // it is there, if misspelt: that it is missing would be one fault too many
		}
	}
	return values, true
}

// Keys returns the keys of n, a mapping of names of the file's own choice; n
// may be nil.
func (r *Reader) Keys(n *Node, what string, most int) []Key {
	if n == nil || n.Kind == Null {
		return nil
	}
	if n.Kind != Table {
		r.Fail(n, "%s is %s, want a mapping", what, n.Kind)
		return nil
	}
	if len(n.Keys) > most {
		r.Fail(n, "%d %s, at most %d are possible", len(n.Keys), what, most)
		return nil
	}
	seen := map[string]bool{}
	for _, k := range n.Keys {
		if seen[k.Name] {
			r.FailAt(k.Pos, Problemf("a second %q in %s", shorten(k.Name, 80), what))
		}
		seen[k.Name] = true
	}
	return n.Keys
}

// Items returns the items of n, a list of mappings; n may be nil.
func (r *Reader) Items(n *Node, what string, most int) []*Node {
	if n == nil || n.Kind == Null {
		return nil
	}
	if n.Kind != List {
		r.FailAt(n.Pos, Problemf("%s is %s, want a list", what, n.Kind).Hint("begin each item with a dash"))
		return nil
	}
	if len(n.List) > most {
		r.Fail(n, "%d %s, at most %d are possible", len(n.List), what, most)
		return nil
	}
	return n.List
}

// Values returns the items of n, a list of single values, or n itself if it is
// one. An empty list is a fault.
func (r *Reader) Values(n *Node, what string) []*Node {
	items := []*Node{n}
	switch n.Kind {
	case Null:
		if !n.empty {
			r.Fail(n, "%s: nothing", what)
		}
		return nil
	case List:
		items = n.List
		if len(items) == 0 {
			r.Fail(n, "%s: an empty list", what)
		}
	}
	r.entries += len(items)
	if r.entries > maxEntries {
		r.Fail(n, "more than %d entries in the lists of the file, aliases counted", maxEntries)
		return nil
	}
	var values []*Node
	for _, item := range items {
		if item.empty {
			continue
		}
		if item.Kind != Scalar {
			r.Fail(item, "%s holds %s, want single values", what, item.Kind)
			continue
		}
		values = append(values, item)
	}
	return values
}

// Text returns the text of n, a single value.
func (r *Reader) Text(n *Node, what string) (string, bool) {
	switch {
	case n.empty:
		return "", false
	case n.Kind != Scalar:
		r.Fail(n, "%s is %s, want a single value", what, n.Kind)
		return "", false
	}
	return n.Text, true
}
