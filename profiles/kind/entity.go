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

// ReadTexts reads a text, or texts by language (RFC 5646): "text", or {"en":
// "text"}, at most most of them, each of 1 to bytes bytes. It returns the
// second form, in which a text of no language has the name "", and null if
// there is none.
func ReadTexts(n *jsontree.Node, most, bytes int) jsontree.Value {
	switch {
	case n == nil || n.Kind() == jsontree.Null:
		return jsontree.Value{}
	case n.Kind() == jsontree.String:
		return jsontree.OfObject([]string{""}, []jsontree.Value{jsontree.OfString(n.Text(1, bytes))})
	case n.Len() > most:
		n.Fault("%d languages, at most %d are possible", n.Len(), most)
		return jsontree.Value{}
	}
	var langs []string
	var texts []jsontree.Value
	for _, t := range n.Members().Rest() {
		if len(t.Name()) > 35 {
			t.Fault("no language has so long a name (RFC 5646)")
		}
		langs, texts = append(langs, t.Name()), append(texts, jsontree.OfString(t.Text(1, bytes)))
	}
	if langs == nil {
		return jsontree.Value{}
	}
	return jsontree.OfObject(langs, texts)
}
