package jsontree

import (
	"slices"
	"strconv"
	"strings"
)

// Append appends the value to dst in the one form this package writes: no
// blanks, members in the order of their names' bytes, only those characters
// escaped that must be. Equal values have equal text.
func (v Value) Append(dst []byte) []byte {
	switch v.kind {
	case Null:
		return append(dst, "null"...)
	case Bool, Number:
		return append(dst, v.text...)
	case String:
		return AppendString(dst, v.text)
	case Array:
		dst = append(dst, '[')
		for i, item := range v.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.Append(dst)
		}
		return append(dst, ']')
	default:
		dst = append(dst, '{')
		for i, m := range v.sorted() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(AppendString(dst, v.names[m]), ':')
			dst = v.items[m].Append(dst)
		}
		return append(dst, '}')
	}
}

// sorted returns the members' indexes in the order of their names.
func (v Value) sorted() []int {
	order := make([]int, len(v.names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(v.names[a], v.names[b]) })
	return order
}

// String is Append as a string.
func (v Value) String() string { return string(v.Append(nil)) }

const lowerHex = "0123456789abcdef"

// AppendString appends s as a JSON string. Only quotes, backslashes and control
// characters are escaped. s must be UTF-8.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[done:i]...)
		done = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
		}
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}

// A Writer writes a document whose order of members the caller decides, with
// the commas put in. The zero Writer is ready. Its methods must be called in an
// order that makes sense; nothing checks it.
type Writer struct {
	buf   []byte
	comma bool // before the next value or name
}

// Bytes returns what was written.
func (w *Writer) Bytes() []byte { return w.buf }

func (w *Writer) sep() {
	if w.comma {
		w.buf = append(w.buf, ',')
	}
	w.comma = true
}

// Open begins an object or a list: c is '{' or '['.
func (w *Writer) Open(c byte) {
	w.sep()
	w.buf = append(w.buf, c)
	w.comma = false
}

// Close ends it: c is '}' or ']'.
func (w *Writer) Close(c byte) {
	w.buf = append(w.buf, c)
	w.comma = true
}

// Name begins a member.
func (w *Writer) Name(name string) {
	w.sep()
	w.buf = append(AppendString(w.buf, name), ':')
	w.comma = false
}

// String writes a string.
func (w *Writer) String(s string) {
	w.sep()
	w.buf = AppendString(w.buf, s)
}

// Bool writes true or false.
func (w *Writer) Bool(b bool) {
	w.sep()
	w.buf = strconv.AppendBool(w.buf, b)
}

// Int writes a whole number.
func (w *Writer) Int(n int64) {
	w.sep()
	w.buf = strconv.AppendInt(w.buf, n, 10)
}

// Float writes the shortest number, without an exponent, that reads as f.
func (w *Writer) Float(f float64) {
	w.sep()
	w.buf = strconv.AppendFloat(w.buf, f, 'f', -1, 64)
}

// Value writes v.
func (w *Writer) Value(v Value) {
	w.sep()
	w.buf = v.Append(w.buf)
}

// Raw writes a value that is JSON already, as Append writes it.
func (w *Writer) Raw(text string) {
	w.sep()
	w.buf = append(w.buf, text...)
}

// Member writes a member that is a string.
func (w *Writer) Member(name, s string) {
	w.Name(name)
	w.String(s)
}
