package jsontree

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits bound a document. Zero means the default.
type Limits struct {
	Bytes   int // of the document; 65,536
	Depth   int // of lists and objects inside each other; MaxDepth
	Members int // members and elements in all; MaxMembers
}

// The defaults of Limits.
const (
	MaxDepth   = 32
	MaxMembers = 2000
)

func (l Limits) orDefaults() Limits {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&l.Bytes, 64<<10)
	set(&l.Depth, MaxDepth)
	set(&l.Members, MaxMembers)
	return l
}

// Parse reads a JSON text (RFC 8259) in UTF-8. A name that comes twice in an
// object is a fault, as is half of a surrogate pair. The error is a Faults: of
// names that come twice all are told, of other faults the first, for what comes
// after it means nothing. ErrTooBig is in it if a limit was passed.
func Parse(data []byte, limits Limits) (*Document, error) {
	limits = limits.orDefaults()
	if len(data) > limits.Bytes {
		return nil, Faults{{What: fmt.Sprintf("%d bytes, at most %d are possible", len(data), limits.Bytes), err: ErrTooBig}}
	}
	p := parser{data: data, limits: limits}
	if i := invalidUTF8(data); i >= 0 {
		p.pos = i
		p.fail("this is not UTF-8")
		return nil, p.faults
	}
	p.space()
	root, ok := p.value(0)
	if ok {
		p.space()
		if p.pos < len(p.data) {
			p.fail("something follows the end of the document")
		}
	}
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	return &Document{root: root}, nil
}

func invalidUTF8(data []byte) int {
	if utf8.Valid(data) {
		return -1
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// A parser goes over the bytes once. Its recursion is bounded by Limits.Depth.
type parser struct {
	data    []byte
	pos     int
	limits  Limits
	members int
	path    []step // to what is being read
	faults  Faults
}

// A step of a path is the name of a member or, if that is nil, an index.
type step struct {
	name  *string
	index int
}

func (p *parser) pointer() string {
	var b []byte
	for _, s := range p.path {
		b = append(b, '/')
		if s.name != nil {
			b = appendToken(b, *s.name)
		} else {
			b = strconv.AppendInt(b, int64(s.index), 10)
		}
	}
	return string(b)
}

// fail notes a fault that ends the reading, with its line and column.
func (p *parser) fail(format string, args ...any) {
	p.failWith(nil, format, args...)
}

func (p *parser) failWith(err error, format string, args ...any) {
	line, column := 1, 1
	for _, c := range string(p.data[:min(p.pos, len(p.data))]) {
		column++
		if c == '\n' {
			line, column = line+1, 1
		}
	}
	what := fmt.Sprintf("%s (line %d, column %d)", fmt.Sprintf(format, args...), line, column)
	p.faults = append(p.faults, Fault{Pointer: p.pointer(), What: what, err: err})
}

func (p *parser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end: no JSON text has one.
func (p *parser) peek() byte {
	if p.pos < len(p.data) {
		return p.data[p.pos]
	}
	return 0
}

// value reads one value; ok is false after a fault that ends the reading.
func (p *parser) value(depth int) (v Value, ok bool) {
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth == p.limits.Depth {
			p.failWith(ErrTooDeep, "more than %d lists and objects inside each other", p.limits.Depth)
			return Value{}, false
		}
		p.pos++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		s, ok := p.string()
		return Value{kind: String, text: s}, ok
	case c == '-' || '0' <= c && c <= '9':
		s, ok := p.number()
		return Value{kind: Number, text: s}, ok
	case p.word("null"):
		return Value{}, true
	case p.word("true"):
		return Value{kind: Bool, text: "true"}, true
	case p.word("false"):
		return Value{kind: Bool, text: "false"}, true
	case p.pos == len(p.data):
		p.fail("the document ends too early")
	default:
		p.fail("no value begins with %q", p.rune())
	}
	return Value{}, false
}

func (p *parser) rune() rune {
	r, _ := utf8.DecodeRune(p.data[p.pos:])
	return r
}

func (p *parser) word(w string) bool {
	if len(p.data)-p.pos < len(w) || string(p.data[p.pos:p.pos+len(w)]) != w {
		return false
	}
	p.pos += len(w)
	return true
}

// member counts one more member or element.
func (p *parser) member() bool {
	if p.members++; p.members > p.limits.Members {
		p.failWith(ErrTooMany, "more than %d members in all", p.limits.Members)
		return false
	}
	return true
}

func (p *parser) array(depth int) (v Value, ok bool) {
	v.kind = Array
	if p.space(); p.peek() == ']' {
		p.pos++
		return v, true
	}
	for {
		p.path = append(p.path, step{index: len(v.items)})
		p.space()
		if !p.member() {
			return v, false
		}
		item, ok := p.value(depth)
		if !ok {
			return v, false
		}
		p.path = p.path[:len(p.path)-1]
		v.items = append(v.items, item)
		if done, ok := p.next(']'); done || !ok {
			return v, ok
		}
	}
}

func (p *parser) object(depth int) (v Value, ok bool) {
	v.kind = Object
	if p.space(); p.peek() == '}' {
		p.pos++
		return v, true
	}
	var seen map[string]bool // only of objects with many members
	for {
		p.space()
		if p.peek() != '"' {
			p.fail("a member begins with its name in quotes")
			return v, false
		}
		name, ok := p.string()
		if !ok || !p.member() {
			return v, false
		}
		p.path = append(p.path, step{name: &name})
		if p.repeated(v.names, name, &seen) {
			p.faults = append(p.faults, Fault{Pointer: p.pointer(), What: "this member comes twice"})
		}
		if p.space(); p.peek() != ':' {
			p.fail("a colon follows a member's name")
			return v, false
		}
		p.pos++
		p.space()
		item, ok := p.value(depth)
		if !ok {
			return v, false
		}
		p.path = p.path[:len(p.path)-1]
		v.names, v.items = append(v.names, name), append(v.items, item)
		if done, ok := p.next('}'); done || !ok {
			return v, ok
		}
	}
}

// repeated says whether name is one of names. Two thousand members in one
// object must not cost two million comparisons.
func (p *parser) repeated(names []string, name string, seen *map[string]bool) bool {
	if *seen == nil {
		if len(names) < 16 {
			for _, n := range names {
				if n == name {
					return true
				}
			}
			return false
		}
		*seen = make(map[string]bool, 2*len(names))
		for _, n := range names {
			(*seen)[n] = true
		}
	}
	twice := (*seen)[name]
	(*seen)[name] = true
	return twice
}

// next reads the comma before another member or the end of what they are in.
func (p *parser) next(end byte) (done, ok bool) {
	p.space()
	switch p.peek() {
	case ',':
		p.pos++
		return false, true
	case end:
		p.pos++
		return true, true
	}
	p.fail("here is a comma or %q missing", string(end))
	return false, false
}

// number reads the number that begins here (RFC 8259 section 6).
func (p *parser) number() (string, bool) {
	start := p.pos
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' {
		p.pos++
	} else if !p.digits() {
		return "", false
	}
	if p.peek() == '.' {
		p.pos++
		if !p.digits() {
			return "", false
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return "", false
		}
	}
	return string(p.data[start:p.pos]), true
}

func (p *parser) digits() bool {
	start := p.pos
	for '0' <= p.peek() && p.peek() <= '9' {
		p.pos++
	}
	if p.pos == start {
		p.fail("here is a digit missing")
		return false
	}
	return true
}

// string reads the string whose quote is next (RFC 8259 section 7).
func (p *parser) string() (string, bool) {
	p.pos++
	start := p.pos
	for ; p.pos < len(p.data); p.pos++ {
		switch c := p.data[p.pos]; {
		case c == '"':
			s := string(p.data[start:p.pos])
			p.pos++
			return s, true
		case c == '\\':
			return p.escaped(append([]byte(nil), p.data[start:p.pos]...))
		case c < ' ':
			p.fail("control characters must be escaped in a string")
			return "", false
		}
	}
	p.fail("the document ends inside a string")
	return "", false
}

// escaped reads the rest of a string that has escapes; b is what came before.
func (p *parser) escaped(b []byte) (string, bool) {
	for p.pos < len(p.data) {
		c := p.data[p.pos]
		p.pos++
		switch {
		case c == '"':
			return string(b), true
		case c < ' ':
			p.pos--
			p.fail("control characters must be escaped in a string")
			return "", false
		case c != '\\':
			b = append(b, c)
			continue
		}
		e := p.peek()
		p.pos++
		switch e {
		case '"', '\\', '/':
			b = append(b, e)
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, ok := p.codePoint()
			if !ok {
				return "", false
			}
			b = utf8.AppendRune(b, r)
		default:
			p.pos--
			p.fail("no such escape")
			return "", false
		}
	}
	p.fail("the document ends inside a string")
	return "", false
}

// codePoint reads the digits of \u, and its other half if it is a surrogate.
func (p *parser) codePoint() (rune, bool) {
	r, ok := p.hex4()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	if p.word(`\u`) {
		low, ok := p.hex4()
		if !ok {
			return 0, false
		}
		if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
			return r, true
		}
	}
	p.fail("half of a surrogate pair")
	return 0, false
}

func (p *parser) hex4() (rune, bool) {
	if len(p.data)-p.pos >= 4 {
		if n, err := strconv.ParseUint(string(p.data[p.pos:p.pos+4]), 16, 16); err == nil {
			p.pos += 4
			return rune(n), true
		}
	}
	p.fail(`\u takes four hexadecimal digits`)
	return 0, false
}
