package kind

import "github.com/bellwire/bellwire/profiles/jsontree"

// CheckEntity notes a fault in a document that says in n that it is about
// somebody else than r. One about nobody (n is nil) is about whom it is
// published for.
func (r Resource) CheckEntity(n *jsontree.Node) {
	s := n.Text(1, 4096)
	if s == "" {
		return
	}
	a, err := ParseAddr(s)
	switch {
	case err != nil:
		n.Fault("%v", err)
	case a != r.Addr:
		n.Refuse(ReasonEntityMismatch, "this is published for %s and about %s", r.Addr, a)
	}
}
