package jsontree

import (
	"math"
	"slices"
	"strconv"
)

// A Kind is one of the six kinds of JSON values.
type Kind uint8

const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// kindNames are for people.
var kindNames = [...]string{
	Null: "null", Bool: "true or false", Number: "a number", String: "a string", Array: "a list", Object: "an object",
}

func (k Kind) String() string { return kindNames[k] }

// A Value is one JSON value. The zero Value is null. It never changes.
type Value struct {
	kind  Kind
	text  string   // String: what it says; Number: as it was written; Bool: "true" or "false"
	items []Value  // Array: the elements; Object: the members' values
	names []string // Object: the members' names, as items in the order written; no two are equal
}

// Kind says what the value is.
func (v Value) Kind() Kind { return v.kind }

// Text returns what a string says, or a number as it was written; empty for
// other kinds.
func (v Value) Text() string {
	if v.kind == String || v.kind == Number {
		return v.text
	}
	return ""
}

// True says whether the value is true itself: no other value stands for it.
func (v Value) True() bool { return v.kind == Bool && v.text == "true" }

// Len is the number of elements of a list or members of an object, else 0.
func (v Value) Len() int { return len(v.items) }

// At returns element i of a list, or the value of member i of an object.
func (v Value) At(i int) Value { return v.items[i] }

// Name returns the name of member i of an object.
func (v Value) Name(i int) string { return v.names[i] }

// Find returns the value of the member with that name; ok is false if there is
// none, or v is no object.
func (v Value) Find(name string) (member Value, ok bool) {
	if i := slices.Index(v.names, name); i >= 0 {
		return v.items[i], true
	}
	return Value{}, false
}

// Float returns a number; ok is false for other kinds, and for numbers that no
// float64 holds, such as 1e999.
func (v Value) Float() (f float64, ok bool) {
	if v.kind != Number {
		return 0, false
	}
	f, err := strconv.ParseFloat(v.text, 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// Int returns a number that is whole, however it is written (5, 5.0, 0.5e1),
// and exact in a float64; ok is false for all others.
func (v Value) Int() (n int64, ok bool) {
	f, ok := v.Float()
	const exact = 1 << 53
	if !ok || f != math.Trunc(f) || f < -exact || f > exact {
		return 0, false
	}
	return int64(f), true
}

// OfString returns a string value.
func OfString(s string) Value { return Value{kind: String, text: s} }

// OfInt returns a whole number.
func OfInt(n int64) Value { return Value{kind: Number, text: strconv.FormatInt(n, 10)} }

// OfFloat returns a number; f must be finite.
func OfFloat(f float64) Value {
	return Value{kind: Number, text: strconv.FormatFloat(f, 'f', -1, 64)}
}

// OfBool returns true or false.
func OfBool(yes bool) Value { return Value{kind: Bool, text: strconv.FormatBool(yes)} }

// OfList returns a list of values.
func OfList(items ...Value) Value { return Value{kind: Array, items: items} }

// OfObject returns an object; names and values belong together by index, and no
// name may come twice.
func OfObject(names []string, values []Value) Value {
	return Value{kind: Object, names: names, items: values}
}

// OfStrings returns a list of strings.
func OfStrings(list []string) Value {
	v := Value{kind: Array}
	for _, s := range list {
		v.items = append(v.items, OfString(s))
	}
	return v
}

// Equal says whether two values say the same: members in any order, numbers as
// they are written.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.text != w.text || len(v.items) != len(w.items) {
		return false
	}
	for i, item := range v.items {
		other := w.items[i]
		if v.kind == Object {
			var ok bool
			if other, ok = w.Find(v.names[i]); !ok {
				return false
			}
		}
		if !item.Equal(other) {
			return false
		}
	}
	return true
}
