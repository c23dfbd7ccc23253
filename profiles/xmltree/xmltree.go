// Package xmltree reads XML documents that strangers wrote into a tree.
//
// The tokens come from encoding/xml, raw; matching of tags, namespaces and
// bounds are done here, because its own handling of namespaces takes an
// undeclared prefix for a namespace and lets two attributes have one name. A
// document type declaration is refused as soon as it is met, so that entities
// are never declared and nothing is ever expanded or fetched.
//
// Everything is a pure function of the bytes.
package xmltree

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Why a document was not read, told by errors.Is. ErrTooDeep and ErrTooMany are ErrTooBig, too,
// and say which of the Limits it was.
var (
	ErrSyntax  = errors.New("not well-formed XML")
	ErrDTD     = errors.New("document type declaration")
	ErrTooBig  = errors.New("document too big")
	ErrTooDeep = fmt.Errorf("%w", ErrTooBig)
	ErrTooMany = fmt.Errorf("%w", ErrTooBig)
)

// Limits bound a document. Zero means the default.
type Limits struct {
	Bytes int // of the document; 65,536
	Depth int // of elements inside each other; MaxDepth
	Nodes int // elements, attributes and pieces of text in all; MaxNodes
}

// The defaults of Limits.
const (
	MaxDepth = 32
	MaxNodes = 2000
)

// maxAttrs bounds the attributes of one element, declarations of namespaces included, and the
// declarations that hold at one place: each name is looked up among those, so a document
// takes no longer than so many times its size.
const maxAttrs = 64

// The namespaces that every document has.
const (
	XMLSpace   = "http://www.w3.org/XML/1998/namespace" // of xml:lang
	xmlnsSpace = "http://www.w3.org/2000/xmlns/"
)

// An Element is one element. It never changes once Parse has returned it.
type Element struct {
	Space, Local string
	Attrs        []Attr // without declarations of namespaces
	Nodes        []Node // in the order of the document
}

// An Attr is one attribute. Space is empty unless its name has a prefix.
type Attr struct{ Space, Local, Value string }

// A Node is a child element or, if Element is nil, a piece of text.
type Node struct {
	Element *Element
	Text    string
}

// Attr returns the value of an attribute, and whether there is one.
func (e *Element) Attr(space, local string) (value string, ok bool) {
	for _, a := range e.Attrs {
		if a.Space == space && a.Local == local {
			return a.Value, true
		}
	}
	return "", false
}

// Is says whether the element has this name.
func (e *Element) Is(space, local string) bool { return e.Space == space && e.Local == local }

// Elements returns the child elements, in order.
func (e *Element) Elements() []*Element {
	var children []*Element
	for _, n := range e.Nodes {
		if n.Element != nil {
			children = append(children, n.Element)
		}
	}
	return children
}

// Text returns the element's own text, without that of its children.
func (e *Element) Text() string {
	var b strings.Builder
	for _, n := range e.Nodes {
		b.WriteString(n.Text)
	}
	return b.String()
}

// Parse reads a document in UTF-8, or in UTF-16 with a byte order mark. The
// error wraps ErrSyntax, ErrDTD or ErrTooBig and says where.
func Parse(data []byte, limits Limits) (*Element, error) {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&limits.Bytes, 64<<10)
	set(&limits.Depth, MaxDepth)
	set(&limits.Nodes, MaxNodes)
	if len(data) > limits.Bytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are possible", ErrTooBig, len(data), limits.Bytes)
	}
	text, label, err := decoded(data)
	if err != nil {
		return nil, err
	}
	p := parser{limits: limits, scopes: []scope{{prefix: "xml", space: XMLSpace}}}
	p.d = xml.NewDecoder(bytes.NewReader(text))
	p.d.CharsetReader = func(named string, r io.Reader) (io.Reader, error) {
		if strings.EqualFold(named, label) {
			return r, nil
		}
		return nil, fmt.Errorf("encoding %q is not possible: write UTF-8", named)
	}
	return p.document()
}

// decoded returns the text in UTF-8, and what its declaration may call its
// encoding instead.
func decoded(data []byte) (text []byte, label string, err error) {
	little := bytes.HasPrefix(data, []byte{0xff, 0xfe})
	if !little && !bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		text = bytes.TrimPrefix(data, []byte("\ufeff"))
		if !utf8.Valid(text) {
			return nil, "", fmt.Errorf("%w: neither UTF-8 nor UTF-16 with a byte order mark", ErrSyntax)
		}
		return text, "utf-8", nil
	}
	data = data[2:]
	if len(data)%2 != 0 {
		return nil, "", fmt.Errorf("%w: half a character at the end", ErrSyntax)
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = uint16(data[2*i])<<8 | uint16(data[2*i+1])
		if little {
			units[i] = units[i]>>8 | units[i]<<8
		}
	}
	for _, r := range utf16.Decode(units) {
		if r == utf8.RuneError {
			return nil, "", fmt.Errorf("%w: half of a surrogate pair", ErrSyntax)
		}
		text = utf8.AppendRune(text, r)
	}
	return text, "utf-16", nil
}

// A scope binds a prefix to a namespace, for elements at depth and below.
type scope struct {
	prefix, space string
	depth         int
}

type parser struct {
	d      *xml.Decoder
	limits Limits
	nodes  int
	scopes []scope
	open   []*Element
	tags   []xml.Name // as written, of open
}

func (p *parser) document() (*Element, error) {
	var root *Element
	for {
		token, err := p.d.RawToken()
		if err == io.EOF {
			if root == nil || len(p.open) > 0 {
				return nil, p.fail("the document ends too early")
			}
			return root, nil
		}
		if err != nil {
			return nil, p.fail("%v", err)
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, p.failWith(ErrDTD, "declarations are not read")
		case xml.StartElement:
			e, err := p.start(t)
			if err != nil {
				return nil, err
			}
			if len(p.open) == 1 {
				if root != nil {
					return nil, p.fail("something follows the end of the document")
				}
				root = e
			}
		case xml.EndElement:
			n := len(p.tags)
			if n == 0 || p.tags[n-1] != t.Name {
				return nil, p.fail("</%s> ends nothing that is open", t.Name.Local)
			}
			for len(p.scopes) > 0 && p.scopes[len(p.scopes)-1].depth == n {
				p.scopes = p.scopes[:len(p.scopes)-1]
			}
			p.open, p.tags = p.open[:n-1], p.tags[:n-1]
		case xml.CharData:
			if err := p.text(t); err != nil {
				return nil, err
			}
		}
	}
}

func (p *parser) fail(format string, args ...any) error {
	return p.failWith(ErrSyntax, format, args...)
}

func (p *parser) failWith(err error, format string, args ...any) error {
	line, column := p.d.InputPos()
	return fmt.Errorf("%w: %s (line %d, column %d)", err, fmt.Sprintf(format, args...), line, column)
}

// node counts n more nodes.
func (p *parser) node(n int) error {
	if p.nodes += n; p.nodes > p.limits.Nodes {
		return p.failWith(ErrTooMany, "more than %d elements, attributes and pieces of text", p.limits.Nodes)
	}
	return nil
}

func (p *parser) text(t xml.CharData) error {
	if len(p.open) == 0 {
		if len(bytes.TrimSpace(t)) > 0 {
			return p.fail("text outside the document's element")
		}
		return nil
	}
	if len(t) == 0 {
		return nil
	}
	if err := p.node(1); err != nil {
		return err
	}
	e := p.open[len(p.open)-1]
	if n := len(e.Nodes); n > 0 && e.Nodes[n-1].Element == nil {
		e.Nodes[n-1].Text += string(t) // a comment or a CDATA section was between them
		return nil
	}
	e.Nodes = append(e.Nodes, Node{Text: string(t)})
	return nil
}

func (p *parser) start(t xml.StartElement) (*Element, error) {
	if err := p.node(1 + len(t.Attr)); err != nil {
		return nil, err
	}
	if len(t.Attr) > maxAttrs {
		return nil, p.failWith(ErrTooMany, "%d attributes of one element, at most %d are possible", len(t.Attr), maxAttrs)
	}
	if len(p.open) == p.limits.Depth {
		return nil, p.failWith(ErrTooDeep, "more than %d elements inside each other", p.limits.Depth)
	}
	p.tags = append(p.tags, t.Name)
	if err := p.declare(t.Attr); err != nil {
		return nil, err
	}
	space, err := p.resolve(t.Name, true)
	if err != nil {
		return nil, err
	}
	e := &Element{Space: space, Local: t.Name.Local}
	for _, a := range t.Attr {
		if isDeclaration(a.Name) {
			continue
		}
		space, err := p.resolve(a.Name, false)
		if err != nil {
			return nil, err
		}
		if _, twice := e.Attr(space, a.Name.Local); twice {
			return nil, p.fail("attribute %s comes twice", a.Name.Local)
		}
		e.Attrs = append(e.Attrs, Attr{Space: space, Local: a.Name.Local, Value: a.Value})
	}
	if n := len(p.open); n > 0 {
		p.open[n-1].Nodes = append(p.open[n-1].Nodes, Node{Element: e})
	}
	p.open = append(p.open, e)
	return e, nil
}

func isDeclaration(name xml.Name) bool {
	return name.Space == "xmlns" || name.Space == "" && name.Local == "xmlns"
}

// declare opens the scopes that the attributes of a start tag declare.
func (p *parser) declare(attrs []xml.Attr) error {
	depth := len(p.tags)
	for _, a := range attrs {
		if !isDeclaration(a.Name) {
			continue
		}
		prefix := ""
		if a.Name.Space == "xmlns" {
			prefix = a.Name.Local
		}
		for _, s := range p.scopes {
			if s.depth == depth && s.prefix == prefix {
				return p.fail("prefix %q is declared twice", prefix)
			}
		}
		switch {
		case prefix == "xmlns", (prefix == "xml") != (a.Value == XMLSpace), a.Value == xmlnsSpace, prefix != "" && a.Value == "":
			return p.fail("prefix %q cannot be declared so (Namespaces in XML, section 3)", prefix)
		}
		if len(p.scopes) > maxAttrs { // and xml, which every document has
			return p.failWith(ErrTooMany, "more than %d declarations of namespaces in elements inside each other", maxAttrs)
		}
		p.scopes = append(p.scopes, scope{prefix: prefix, space: a.Value, depth: depth})
	}
	return nil
}

// resolve returns the namespace of a name; one without a prefix has the default
// namespace if it is an element's, and none if it is an attribute's.
func (p *parser) resolve(name xml.Name, element bool) (string, error) {
	if strings.Contains(name.Local, ":") {
		return "", p.fail("%q is no name", name.Local)
	}
	if name.Space == "" && !element {
		return "", nil
	}
	for i := len(p.scopes) - 1; i >= 0; i-- {
		if p.scopes[i].prefix == name.Space {
			return p.scopes[i].space, nil
		}
	}
	if name.Space != "" {
		return "", p.fail("prefix %q is not declared", name.Space)
	}
	return "", nil
}
