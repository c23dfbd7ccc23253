package xmltree

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Append appends the element as a document of its own, in one form: prefixes
// are made up in the order of their first use, declared on the element itself,
// attributes sorted. So elements that say the same have the same text, however
// they were written.
func (e *Element) Append(dst []byte) []byte {
	var w writer
	w.collect(e)
	return w.element(dst, e, true)
}

// A writer knows the namespaces that are in use, in the order of first use.
type writer struct{ spaces []string }

func (w *writer) collect(e *Element) {
	w.use(e.Space)
	for _, a := range sortedAttrs(e) {
		w.use(a.Space)
	}
	for _, c := range e.Elements() {
		w.collect(c)
	}
}

func (w *writer) use(space string) {
	if space != "" && space != XMLSpace && !slices.Contains(w.spaces, space) {
		w.spaces = append(w.spaces, space)
	}
}

func (w *writer) name(space, local string) string {
	switch space {
	case "":
		return local
	case XMLSpace:
		return "xml:" + local
	}
	return prefix(slices.Index(w.spaces, space)) + ":" + local
}

// prefix is x for the first namespace, then x2, x3, …
func prefix(i int) string {
	if i == 0 {
		return "x"
	}
	return "x" + strconv.Itoa(i+1)
}

func sortedAttrs(e *Element) []Attr {
	attrs := slices.Clone(e.Attrs)
	slices.SortFunc(attrs, func(a, b Attr) int { return cmp.Or(cmp.Compare(a.Space, b.Space), cmp.Compare(a.Local, b.Local)) })
	return attrs
}

func (w *writer) element(dst []byte, e *Element, top bool) []byte {
	name := w.name(e.Space, e.Local)
	dst = append(append(dst, '<'), name...)
	if top {
		for i, space := range w.spaces {
			dst = appendAttr(dst, "xmlns:"+prefix(i), space)
		}
	}
	for _, a := range sortedAttrs(e) {
		dst = appendAttr(dst, w.name(a.Space, a.Local), a.Value)
	}
	if len(e.Nodes) == 0 {
		return append(dst, "/>"...)
	}
	dst = append(dst, '>')
	for _, n := range e.Nodes {
		if n.Element != nil {
			dst = w.element(dst, n.Element, false)
		} else {
			dst = append(dst, textEscapes.Replace(n.Text)...)
		}
	}
	return append(append(append(dst, "</"...), name...), '>')
}

func appendAttr(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, ' '), name...), `="`...)
	return append(append(dst, attrEscapes.Replace(value)...), '"')
}

var (
	textEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;")
	attrEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", `"`, "&quot;", "\t", "&#x9;", "\n", "&#xA;", "\r", "&#xD;")
)
