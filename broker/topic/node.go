package topic

import "strings"

// A node is a place in the tree of wildcard filters. Nodes never change.
//
// The tree is keyed by levels, and a label is a run of them: between two
// filters that part at the fifth level there is no node for the first four. It
// must hold that every node but the root has a set or at least two kids. So
// there are fewer than two nodes to a filter, and a client that subscribes to
// filters of a hundred levels cannot make us hold a hundred nodes for each.
//
// Exact filters are not here: they are found by their whole name at once.
type node[K comparable, V any] struct {
	label string                      // levels from the parent's to this one's, '+' included; the root's means nothing
	here  *set[K, V]                  // of the filter that ends here
	deep  *set[K, V]                  // of the filter that goes on with "#", and nothing else
	plus  *node[K, V]                 // the kid whose label begins with the level "+"
	kids  *table[string, *node[K, V]] // the others, by their label's first level
}

// A path is what is left of a filter or a name on its way down the tree. at is
// where the next level begins in s; beyond len(s) there is none.
type path struct {
	s  string
	at int
}

func (p path) done() bool { return p.at > len(p.s) }

func (p path) level() (level string, rest path) {
	level, next := levelAt(p.s, p.at)
	return level, path{p.s, next}
}

// filterPath splits filter into the path to its node and whether it goes on
// from there with "#".
func filterPath(filter string) (p path, deep bool) {
	switch {
	case filter == "#":
		return path{"", 1}, true
	case strings.HasSuffix(filter, "/#"):
		return path{filter[:len(filter)-2], 0}, true
	}
	return path{filter, 0}, false
}

// take follows the label's levels. As a filter's they must be the same; as a
// name's (wild) a '+' in the label stands for any level. It returns how many
// bytes of label were followed, with the '/' after them, and what is left of p.
func (p path) take(label string, wild bool) (taken int, rest path) {
	l := path{label, 0}
	for !l.done() && !p.done() {
		want, nextL := l.level()
		have, nextP := p.level()
		if want != have && !(wild && want == "+") {
			break
		}
		l, p = nextL, nextP
	}
	return l.at, p
}

// A textHash is how an index hashes strings.
type textHash func(string) uint64

// kid returns the kid whose label begins with the level of a filter.
func (n *node[K, V]) kid(hash textHash, level string) *node[K, V] {
	if level == "+" {
		return n.plus
	}
	return n.literal(hash, level)
}

func (n *node[K, V]) literal(hash textHash, level string) *node[K, V] {
	if n.kids == nil {
		return nil
	}
	kid, _ := n.kids.find(hash(level), level)
	return kid
}

// find returns the set of one filter, nil if nobody has it.
func (n *node[K, V]) find(hash textHash, filter string) *set[K, V] {
	p, deep := filterPath(filter)
	for !p.done() {
		level, _ := p.level()
		kid := n.kid(hash, level)
		if kid == nil {
			return nil
		}
		taken, rest := p.take(kid.label, false)
		if taken <= len(kid.label) {
			return nil
		}
		n, p = kid, rest
	}
	if deep {
		return n.deep
	}
	return n.here
}

// put returns a copy of n in which the filter at p has the set s. nil deletes
// it; then it must be there. The copy may break the rule of node: its parent calls settled.
func (n *node[K, V]) put(hash textHash, p path, deep bool, s *set[K, V]) *node[K, V] {
	c := *n
	switch {
	case p.done() && deep:
		c.deep = s
		return &c
	case p.done():
		c.here = s
		return &c
	}
	level, _ := p.level()
	kid := n.kid(hash, level)
	if kid == nil {
		leaf := node[K, V]{label: strings.Clone(p.s[p.at:])}
		c.setKid(hash, level, leaf.put(hash, path{"", 1}, deep, s))
		return &c
	}
	taken, rest := p.take(kid.label, false)
	if taken <= len(kid.label) {
		kid = kid.split(hash, taken)
	}
	c.setKid(hash, level, kid.put(hash, rest, deep, s).settled())
	return &c
}

// setKid makes kid, or nobody, n's kid whose label begins with level.
func (n *node[K, V]) setKid(hash textHash, level string, kid *node[K, V]) {
	switch {
	case level == "+":
		n.plus = kid
	case kid == nil:
		n.kids = n.kids.without(hash(level), level)
	default:
		// The key is a part of kid's own label: a part of the caller's
		// string would keep the whole of it alive.
		key, _ := levelAt(kid.label, 0)
		n.kids = n.kids.with(hash(key), key, kid, hash)
	}
}

// split returns a node of the first taken bytes of n's label, the last of them
// a '/', whose only kid is the rest of n.
func (n *node[K, V]) split(hash textHash, taken int) *node[K, V] {
	lower := *n
	lower.label = strings.Clone(n.label[taken:])
	upper := &node[K, V]{label: strings.Clone(n.label[:taken-1])}
	level, _ := levelAt(lower.label, 0)
	upper.setKid(hash, level, &lower)
	return upper
}

// settled restores the rule of node for what put left: nil if there is nothing
// in n, n and its kid in one if there is nothing else.
func (n *node[K, V]) settled() *node[K, V] {
	if n.here != nil || n.deep != nil {
		return n
	}
	kid := n.plus
	if n.kids != nil {
		only, single := n.kids.only()
		if kid != nil || !single {
			return n
		}
		kid = only
	}
	if kid == nil {
		return nil
	}
	c := *kid
	c.label = n.label + "/" + kid.label
	return &c
}

// match appends to out the sets of all filters below n, which is the root, that
// match name. Their order is no particular one.
func (n *node[K, V]) match(hash textHash, name string, out []*set[K, V]) []*set[K, V] {
	p := path{name, 0}
	if name != "" && name[0] == '$' {
		// Wildcards in the first level do not see it.
		level, _ := p.level()
		return n.literal(hash, level).matchLabel(hash, p, out)
	}
	return n.matchBelow(hash, p, out)
}

func (n *node[K, V]) matchBelow(hash textHash, p path, out []*set[K, V]) []*set[K, V] {
	if n.deep != nil {
		out = append(out, n.deep)
	}
	if p.done() {
		if n.here != nil {
			out = append(out, n.here)
		}
		return out
	}
	out = n.plus.matchLabel(hash, p, out)
	level, _ := p.level()
	return n.literal(hash, level).matchLabel(hash, p, out)
}

func (n *node[K, V]) matchLabel(hash textHash, p path, out []*set[K, V]) []*set[K, V] {
	if n == nil {
		return out
	}
	taken, rest := p.take(n.label, true)
	if taken <= len(n.label) {
		return out
	}
	return n.matchBelow(hash, rest, out)
}
