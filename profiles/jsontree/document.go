package jsontree

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrTooBig is in the Faults of a document that passes one of its Limits. ErrTooDeep and
// ErrTooMany are ErrTooBig, too, and say which, where it was not the bytes.
var (
	ErrTooBig  = errors.New("document too big")
	ErrTooDeep = fmt.Errorf("%w", ErrTooBig)
	ErrTooMany = fmt.Errorf("%w", ErrTooBig)
)

// maxFaults bounds what is told of one document.
const maxFaults = 100

// A Fault is one thing that is wrong with a document.
type Fault struct {
	Pointer string // RFC 6901, "" for the whole document
	What    string // what is wrong, and what to write instead
	Reason  string // a token of the caller's, empty for most: "duplicate-id"
	err     error
}

func (f Fault) String() string {
	if f.Pointer == "" {
		return f.What
	}
	return f.Pointer + ": " + f.What
}

// Faults are all that is wrong with a document, in the order found.
type Faults []Fault

// Error tells the first fault, and how many follow.
func (fs Faults) Error() string {
	switch len(fs) {
	case 0:
		return "no fault"
	case 1:
		return fs[0].String()
	}
	return fmt.Sprintf("%s (and %d more)", fs[0], len(fs)-1)
}

// Unwrap returns the sentinels of the faults that have one.
func (fs Faults) Unwrap() []error {
	var errs []error
	for _, f := range fs {
		if f.err != nil {
			errs = append(errs, f.err)
		}
	}
	return errs
}

// Pointers returns where the faults are, for tests and answers.
func (fs Faults) Pointers() []string {
	var at []string
	for _, f := range fs {
		at = append(at, f.Pointer)
	}
	return at
}

// A Document is a parsed document that is being read: a tree of values, and
// what was found wrong or odd on the way.
type Document struct {
	root             Value
	faults, warnings Faults
}

// NewDocument returns a document of a value that was made, not parsed, to be
// read like one.
func NewDocument(root Value) *Document { return &Document{root: root} }

// Root is where reading begins.
func (d *Document) Root() *Node { return &Node{Value: d.root, doc: d} }

// Err returns the faults noted so far as a Faults, nil if there are none.
func (d *Document) Err() error {
	if len(d.faults) == 0 {
		return nil
	}
	return d.faults
}

// Warnings returns what was noted as odd, though accepted.
func (d *Document) Warnings() Faults { return d.warnings }

// A Node is a value in its document. Methods that read note a fault if the
// value is not what is asked for, and return the zero value. A nil Node is a
// member that is absent: everything reads as zero, and nothing is noted.
type Node struct {
	Value
	doc   *Document
	up    *Node
	name  string // of a member
	index int    // of an element, if name is "" and up is a list
}

// Pointer is the node's place (RFC 6901).
func (n *Node) Pointer() string {
	var steps []*Node
	for at := n; at != nil && at.up != nil; at = at.up {
		steps = append(steps, at)
	}
	var b []byte
	for _, s := range slices.Backward(steps) {
		b = append(b, '/')
		if s.up.Kind() == Object {
			b = appendToken(b, s.name)
		} else {
			b = strconv.AppendInt(b, int64(s.index), 10)
		}
	}
	return string(b)
}

var tokenEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func appendToken(b []byte, name string) []byte {
	if len(name) > 80 {
		name = strings.ToValidUTF8(name[:80], "") + "…"
	}
	return append(b, tokenEscapes.Replace(name)...)
}

// Fault notes that something is wrong with the node.
func (n *Node) Fault(format string, args ...any) { n.Refuse("", format, args...) }

// Refuse is Fault with a reason: a token that the document's sender is told.
func (n *Node) Refuse(reason, format string, args ...any) {
	n.fault(Fault{Reason: reason}, format, args...)
}

// FaultOf is Fault with what is wrong with the node's text, which Faults wrap.
func (n *Node) FaultOf(err error) { n.fault(Fault{err: err}, "%v", err) }

func (n *Node) fault(f Fault, format string, args ...any) {
	if n != nil && len(n.doc.faults) < maxFaults {
		f.Pointer, f.What = n.Pointer(), fmt.Sprintf(format, args...)
		n.doc.faults = append(n.doc.faults, f)
	}
}

// Warn notes that something about the node is odd, though accepted.
func (n *Node) Warn(format string, args ...any) {
	if n != nil && len(n.doc.warnings) < maxFaults {
		n.doc.warnings = append(n.doc.warnings, Fault{Pointer: n.Pointer(), What: fmt.Sprintf(format, args...)})
	}
}

// is says whether the node is of the kind, and notes a fault if not.
func (n *Node) is(k Kind) bool {
	if n == nil {
		return false
	}
	if n.kind != k {
		n.Fault("want %s, found %s", k, n.kind)
		return false
	}
	return true
}

// String reads a string.
func (n *Node) String() string {
	if !n.is(String) {
		return ""
	}
	return n.text
}

// Text reads a string of at most most bytes; least is 1 if it may not be empty.
func (n *Node) Text(least, most int) string {
	s := n.String()
	if n != nil && n.kind == String && (len(s) < least || len(s) > most) {
		n.Fault("a string of %d bytes, want %d to %d", len(s), least, most)
		return ""
	}
	return s
}

// OneOf reads a string that must be one of words; case matters.
func (n *Node) OneOf(words ...string) string {
	s := n.String()
	if n != nil && n.kind == String && !slices.Contains(words, s) {
		n.Fault("%q is not possible: write %s", short(s), orList(words))
		return ""
	}
	return s
}

func orList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	if len(quoted) < 2 {
		return strings.Join(quoted, "")
	}
	return strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
}

func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// Bool reads true or false.
func (n *Node) Bool() bool { return n.is(Bool) && n.True() }

// Float reads a number in [least, most].
func (n *Node) Float(least, most float64) float64 {
	if !n.is(Number) {
		return 0
	}
	f, ok := n.Value.Float()
	if !ok || f < least || f > most {
		n.Fault("%s is out of range: want %g to %g", short(n.text), least, most)
		return 0
	}
	return f
}

// Int reads a whole number in [least, most].
func (n *Node) Int(least, most int64) int64 {
	if !n.is(Number) {
		return 0
	}
	i, ok := n.Value.Int()
	if !ok || i < least || i > most {
		n.Fault("%s is out of range: want a whole number from %d to %d", short(n.text), least, most)
		return 0
	}
	return i
}

// Time reads an instant as RFC 3339 writes it, with capital T and Z (RFC 3863
// section 4.1.7), in the years 1 to 9999. Zero if absent or wrong.
func (n *Node) Time() time.Time {
	s := n.String()
	if n == nil || n.kind != String {
		return time.Time{}
	}
	t, err := ParseTime(s)
	if err != nil {
		n.Fault("%v", err)
		return time.Time{}
	}
	return t
}

// ParseTime reads an instant as Node.Time does.
func ParseTime(s string) (time.Time, error) {
	// Package time also takes a lone digit for the hour and a comma for the
	// point of a fraction.
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || len(s) < 20 || s[13] != ':' || strings.Contains(s, ",") || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return time.Time{}, fmt.Errorf("%q is not an instant: write 2026-03-09T13:00:00Z, or an offset in place of Z", short(s))
	}
	return t.UTC(), nil
}

// FormatTime writes an instant as this package does: UTC, with as many
// digits of a second as there are.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// List returns the elements of a list of at most most.
func (n *Node) List(most int) []*Node {
	if !n.is(Array) {
		return nil
	}
	if n.Len() > most {
		n.Fault("%d elements, at most %d are possible", n.Len(), most)
		return nil
	}
	nodes := make([]*Node, n.Len())
	for i := range nodes {
		nodes[i] = &Node{Value: n.items[i], doc: n.doc, up: n, index: i}
	}
	return nodes
}

// Strings reads a list of at most most strings, each of 1 to bytes bytes.
func (n *Node) Strings(most, bytes int) []string {
	var list []string
	for _, item := range n.List(most) {
		if s := item.Text(1, bytes); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// Members returns the members of an object, to be taken one by one.
func (n *Node) Members() *Members {
	if !n.is(Object) {
		return &Members{}
	}
	return &Members{of: n, taken: make([]bool, n.Len())}
}

// Members are those of one object. The zero Members are none.
type Members struct {
	of    *Node
	taken []bool
}

// Take returns the member with that name, nil if there is none.
func (m *Members) Take(name string) *Node {
	if m.of == nil {
		return nil
	}
	i := slices.Index(m.of.names, name)
	if i < 0 {
		return nil
	}
	m.taken[i] = true
	return m.of.child(i)
}

func (n *Node) child(i int) *Node {
	return &Node{Value: n.items[i], doc: n.doc, up: n, name: n.names[i]}
}

// Need is Take, and notes a fault if there is no such member.
func (m *Members) Need(name string) *Node {
	n := m.Take(name)
	if n == nil && m.of != nil {
		m.of.Fault("%q is missing", name)
	}
	return n
}

// Rest returns the members that were not taken, in the order of their names.
func (m *Members) Rest() []*Node {
	if m.of == nil {
		return nil
	}
	var rest []*Node
	for _, i := range m.of.sorted() {
		if !m.taken[i] {
			rest = append(rest, m.of.child(i))
		}
	}
	return rest
}

// Name is the name of a member that Rest or Take returned.
func (n *Node) Name() string { return n.name }
