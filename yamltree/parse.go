package yamltree

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on a file. The parser recurses once per level and once per key of a
// block mapping, and copies the keys that follow at each: what is deeper or
// longer is refused by its tokens, before the parser sees it.
const (
	// MaxFile is the size of the largest file, in bytes.
	MaxFile = 1 << 20
	// MaxKeys is how many keys one mapping may have.
	MaxKeys = 10_000

	maxDepth = 16     // of brackets, or of dashes on one line
	maxPairs = 60_000 // keys of the whole file
)

const byteOrderMark = "\ufeff"

// readYAML returns the one document of data, nil if there is none or if f has
// been told why there is no reading it.
func readYAML(data []byte, form Form, f *faults) *Node {
	src, ok := plainText(data, f)
	if !ok {
		return nil
	}
	tree, err := parseYAML(src, f)
	if err != nil {
		f.add(syntaxFault(err, src, form))
		return nil
	}
	if tree == nil {
		return nil
	}
	c := converter{faults: f, anchors: map[string]*Node{}}
	return c.node(tree)
}

// plainText returns data as text with lines that end in LF, for the library
// counts CR LF within quotes twice. It checks what YAML asks of the bytes, and
// that lines end as everybody counts them.
func plainText(data []byte, f *faults) (string, bool) {
	if len(data) > MaxFile {
		f.add(Fault{What: fmt.Sprintf("the file has %d bytes, at most %d are possible", len(data), MaxFile)})
		return "", false
	}
	text := strings.TrimPrefix(string(data), byteOrderMark)
	for i, r := range text {
		var what, hint string
		switch {
		case r == utf8.RuneError:
			what, hint = "not UTF-8", "save the file as UTF-8"
		case r == '\r' && !strings.HasPrefix(text[i:], "\r\n"):
			what, hint = "a carriage return without a line feed", "end lines with LF or CR LF"
		case r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			what, hint = fmt.Sprintf("control character %U", r), "remove it"
		default:
			continue
		}
		start := strings.LastIndexByte(text[:i], '\n') + 1
		f.add(Fault{
			Line: strings.Count(text[:i], "\n") + 1, Column: utf8.RuneCountInString(text[start:i]) + 1,
			What: what, Hint: hint,
		})
		return "", false
	}
	return unixLines(text), true
}

// unixLines returns text with lines that end in LF.
func unixLines(text string) string { return strings.ReplaceAll(text, "\r\n", "\n") }

// parseYAML returns the body of the document in src, nil if it is empty or if
// its tokens are refused. The library has panicked on odd input before: then
// the file is at fault, and not the node that read it.
func parseYAML(src string, f *faults) (tree ast.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			tree, err = nil, fmt.Errorf("the YAML parser gave up: %v", p)
		}
	}()
	tokens := lexer.Tokenize(src)
	if fault, bad := checkTokens(tokens); bad {
		f.add(fault)
		return nil, nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, err
	}
	if len(file.Docs) == 0 {
		return nil, nil
	}
	return file.Docs[0].Body, nil
}

// checkTokens returns the first reason not to parse tokens.
func checkTokens(tokens token.Tokens) (Fault, bool) {
	var (
		line   int // of the last token
		dashes int // on that line
		marks  int // anchors and tags without a value between
		flow   int // brackets open
		pairs  int
		blocks []blockMap
	)
	for i, t := range tokens {
		if t.Position.Line != line {
			line, dashes = t.Position.Line, 0
		}
		fault := func(format string, args ...any) (Fault, bool) {
			return Fault{Line: t.Position.Line, Column: t.Position.Column, What: fmt.Sprintf(format, args...)}, true
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType:
			dashes++
			for len(blocks) > 0 && blocks[len(blocks)-1].column > t.Position.Column {
				blocks = blocks[:len(blocks)-1]
			}
		case token.MappingKeyType:
			return fault("a key after `?`")
		case token.DirectiveType:
			return fault("a YAML directive")
		case token.DocumentHeaderType, token.DocumentEndType:
			if i > 0 && i < len(tokens)-1 {
				return fault("a second document: a file holds one")
			}
		case token.MappingValueType:
			pairs++
			if flow == 0 && i > 0 {
				column := tokens[i-1].Position.Column
				if blocks = countKey(blocks, column); blocks[len(blocks)-1].keys > MaxKeys {
					return fault("more than %d keys in one mapping", MaxKeys)
				}
			}
		}
		if t.Type == token.AnchorType || t.Type == token.TagType {
			marks++
		} else if t.Type != token.StringType || i == 0 || tokens[i-1].Type != token.AnchorType {
			marks = 0 // the string after an anchor is its name
		}
		switch {
		case flow > maxDepth || dashes > maxDepth || marks > maxDepth || len(blocks) > maxDepth:
			return fault("nested more than %d deep", maxDepth)
		case pairs > maxPairs:
			return fault("more than %d keys", maxPairs)
		}
	}
	return Fault{}, false
}

// A blockMap is a mapping by indentation that is open while tokens are read.
type blockMap struct{ column, keys int }

// countKey counts a key at column: a further one of an open mapping, or the
// first one of a new mapping inside.
func countKey(blocks []blockMap, column int) []blockMap {
	for len(blocks) > 0 && blocks[len(blocks)-1].column > column {
		blocks = blocks[:len(blocks)-1]
	}
	if n := len(blocks); n == 0 || blocks[n-1].column < column {
		blocks = append(blocks, blockMap{column: column})
	}
	blocks[len(blocks)-1].keys++
	return blocks
}

// syntaxFault makes a Fault of what the parser says, with advice where the
// cause is one of the usual ones.
func syntaxFault(err error, src string, form Form) Fault {
	e, ok := err.(yaml.Error)
	if !ok || e.GetToken() == nil || e.GetToken().Position == nil {
		return Fault{What: strings.SplitN(err.Error(), "\n", 2)[0]}
	}
	pos := e.GetToken().Position
	fault := Fault{Line: pos.Line, Column: pos.Column, What: "not YAML: " + shorten(e.GetMessage(), 200)}
	lines := strings.Split(src, "\n")
	if pos.Line < 1 || pos.Line > len(lines) {
		return fault
	}
	line := lines[pos.Line-1]
	if form.Advise != nil {
		fault.Hint = form.Advise(line)
	}
	if fault.Hint == "" && strings.Contains(line, "\t") {
		fault.Hint = "indent with spaces"
	}
	return fault
}

// A converter makes nodes of the library's tree.
type converter struct {
	faults  *faults
	anchors map[string]*Node // those whose value is complete: no cycle can arise
}

func (c *converter) node(n ast.Node) *Node {
	switch n := n.(type) {
	case nil:
		return &Node{}
	case *ast.NullNode:
		return &Node{Pos: positionOf(n.GetToken())}
	case *ast.MappingNode:
		return c.table(n, n.Values)
	case *ast.MappingValueNode:
		return c.table(n, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		made := &Node{Kind: List, Pos: positionOf(n.GetToken())}
		for _, v := range n.Values {
			if text, ok := rejoin(v); ok {
				made.List = append(made.List, &Node{Kind: Scalar, Pos: positionOf(firstToken(v)), Text: text})
				continue
			}
			made.List = append(made.List, c.node(v))
		}
		return made
	case *ast.AnchorNode:
		name := nameOf(n.Name)
		if _, twice := c.anchors[name]; twice {
			c.fail(n, "", "a second anchor &%s", name)
		}
		made := c.node(n.Value)
		c.anchors[name] = made
		return made
	case *ast.AliasNode:
		name := nameOf(n.Value)
		if made, ok := c.anchors[name]; ok {
			return made
		}
		c.fail(n, "quote it, if it is not meant to be an alias", "no anchor &%s above", name)
		return &Node{Pos: positionOf(n.GetToken()), empty: true}
	case *ast.TagNode:
		c.fail(n, "remove it: the place of a value says what it is", "a tag")
		return c.node(n.Value)
	case *ast.LiteralNode:
		return &Node{Kind: Scalar, Pos: positionOf(n.GetToken()), Text: n.Value.Value}
	case *ast.StringNode:
		return &Node{Kind: Scalar, Pos: positionOf(n.GetToken()), Text: n.Value}
	case ast.ScalarNode: // numbers, booleans: as they are written
		return &Node{Kind: Scalar, Pos: positionOf(n.GetToken()), Text: n.GetToken().Value}
	}
	c.fail(n, "", "unexpected YAML: %s", n.Type())
	return &Node{Pos: positionOf(n.GetToken())}
}

// rejoin returns the item of a list that YAML holds to be one value and the
// library for a mapping, as in [2026-01-01T05:59:59Z]: a colon separates only
// if a space follows.
func rejoin(n ast.Node) (text string, ok bool) {
	var pair *ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingValueNode:
		pair = n
	case *ast.MappingNode:
		if n.IsFlowStyle || len(n.Values) != 1 {
			return "", false
		}
		pair = n.Values[0]
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		t := n.GetToken()
		return t.Value, t.Type != token.SingleQuoteType && t.Type != token.DoubleQuoteType
	default:
		return "", false
	}
	key, value := pair.Key.GetToken(), firstToken(pair.Value)
	colon := pair.Start
	if colon == nil || value == nil || key.Type == token.SingleQuoteType || key.Type == token.DoubleQuoteType ||
		colon.Position.Line != value.Position.Line || colon.Position.Column+1 != value.Position.Column {
		return "", false
	}
	rest, ok := rejoin(pair.Value)
	return key.Value + ":" + rest, ok
}

// firstToken returns the token at which n begins.
func firstToken(n ast.Node) *token.Token {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	}
	return n.GetToken()
}

func (c *converter) table(n ast.Node, values []*ast.MappingValueNode) *Node {
	made := &Node{Kind: Table, Pos: positionOf(n.GetToken())}
	for i, v := range values {
		pos := positionOf(v.Key.GetToken())
		if m, block := n.(*ast.MappingNode); i == 0 && (!block || !m.IsFlowStyle) {
			made.Pos = pos
		}
		name := v.Key.GetToken().Value
		switch v.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		case *ast.MergeKeyNode:
			c.fail(v.Key, "repeat the keys, or give the whole value an anchor and use it by an alias", "a merge key")
			continue
		default:
			c.fail(v.Key, "", "a key that is no plain word")
			continue
		}
		made.Keys = append(made.Keys, Key{Name: name, Pos: pos, Value: c.node(v.Value)})
	}
	return made
}

func (c *converter) fail(n ast.Node, hint, format string, args ...any) {
	pos := positionOf(n.GetToken())
	c.faults.add(Fault{Line: pos.Line, Column: pos.Column, What: fmt.Sprintf(format, args...), Hint: hint})
}

func nameOf(n ast.Node) string {
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}

func positionOf(t *token.Token) Pos {
	if t == nil || t.Position == nil {
		return Pos{}
	}
	return Pos{t.Position.Line, t.Position.Column}
}
