package acl

import (
	"slices"
	"strings"
	"time"
)

// A reader makes a policy of nodes and gathers what is wrong with them.
type reader struct {
	faults
	policy *Policy

	zones   zoneCache
	windows map[string]*Window // by all their parts: rules share what is equal
	groups  map[string]*group
	rules   map[string]*rule
	entries int // of lists, so far
}

// fail reports a fault at n.
func (r *reader) fail(n *node, format string, args ...any) {
	r.failAt(n.pos, problemf(format, args...))
}

func (r *reader) failAt(pos position, p *problem) {
	r.add(Fault{Line: pos.line, Column: pos.column, What: p.what, Hint: p.todo})
}

// report reports err, which a reader of values returned for n.
func (r *reader) report(n *node, err error) {
	p, ok := err.(*problem)
	if !ok {
		p = problemf("%v", err)
	}
	r.failAt(n.pos, p)
}

// table returns the values of n, a mapping with some of the keys, by key. A
// key without a value is a fault: YAML makes that of a comment by mistake. Of
// a faulty key the value is empty, and reading it reports nothing further.
func (r *reader) table(n *node, what string, keys ...string) (map[string]*node, bool) {
	switch {
	case n.empty:
		return nil, false
	case n.kind != table:
		r.failAt(n.pos, problemf("%s is %s, want a mapping", what, n.kind).hint("its keys are %s", strings.Join(keys, ", ")))
		return nil, false
	}
	values := map[string]*node{}
	meant := map[string]*node{}
	for _, k := range n.keys {
		switch {
		case !slices.Contains(keys, k.name):
			r.failAt(k.pos, problemf("unknown key %q in %s", shown(k.name), what).
				near(k.name, keys, "its keys are "+strings.Join(keys, ", ")))
			if near := nearest(k.name, keys); near != "" {
				meant[near] = &node{pos: k.pos, empty: true}
			}
		case values[k.name] != nil:
			r.failAt(k.pos, problemf("a second %q in %s", k.name, what))
		case k.value.kind == null && !k.value.empty:
			r.failAt(k.pos, problemf("%q is empty", k.name).hint("give it a value or remove it; an unquoted # begins a comment"))
			k.value.empty = true
			values[k.name] = k.value
		default:
			values[k.name] = k.value
		}
	}
	for name, n := range meant {
		if values[name] == nil {
			values[name] = n // it is there, if misspelt: that it is missing would be one fault too many
		}
	}
	return values, true
}

// keys returns the keys of n, a mapping of names of the file's own choice; n
// may be nil.
func (r *reader) keys(n *node, what string, most int) []key {
	if n == nil || n.kind == null {
		return nil
	}
	if n.kind != table {
		r.fail(n, "%s is %s, want a mapping", what, n.kind)
		return nil
	}
	if len(n.keys) > most {
		r.fail(n, "%d %s, at most %d are possible", len(n.keys), what, most)
		return nil
	}
	seen := map[string]bool{}
	for _, k := range n.keys {
		if seen[k.name] {
			r.failAt(k.pos, problemf("a second %q in %s", shown(k.name), what))
		}
		seen[k.name] = true
	}
	return n.keys
}

// items returns the items of n, a list of mappings; n may be nil.
func (r *reader) items(n *node, what string, most int) []*node {
	if n == nil || n.kind == null {
		return nil
	}
	if n.kind != list {
		r.failAt(n.pos, problemf("%s is %s, want a list", what, n.kind).hint("begin each item with a dash"))
		return nil
	}
	if len(n.list) > most {
		r.fail(n, "%d %s, at most %d are possible", len(n.list), what, most)
		return nil
	}
	return n.list
}

// values returns the items of n, a list of single values, or n itself if it is
// one. An empty list is a fault.
func (r *reader) values(n *node, what string) []*node {
	items := []*node{n}
	switch n.kind {
	case null:
		if !n.empty {
			r.fail(n, "%s: nothing", what)
		}
		return nil
	case list:
		items = n.list
		if len(items) == 0 {
			r.fail(n, "%s: an empty list", what)
		}
	}
	r.entries += len(items)
	if r.entries > maxEntries {
		r.fail(n, "more than %d entries in the lists of the file, aliases counted", maxEntries)
		return nil
	}
	var values []*node
	for _, item := range items {
		if item.empty {
			continue
		}
		if item.kind != scalar {
			r.fail(item, "%s holds %s, want single values", what, item.kind)
			continue
		}
		values = append(values, item)
	}
	return values
}

// text returns the text of n, a single value.
func (r *reader) text(n *node, what string) (string, bool) {
	switch {
	case n.empty:
		return "", false
	case n.kind != scalar:
		r.fail(n, "%s is %s, want a single value", what, n.kind)
		return "", false
	}
	return n.text, true
}

// readInstants returns the instants of an `at`: one, or a list.
func (r *reader) readInstants(n *node) []time.Time {
	var ats []time.Time
	for _, v := range r.values(n, "at") {
		u, err := parseInstant(v.text, r.zones, nil)
		if err != nil {
			r.report(v, err)
			continue
		}
		ats = append(ats, utc(u))
	}
	return ats
}
