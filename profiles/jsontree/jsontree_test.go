package jsontree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func root(t *testing.T, text string) *Node {
	t.Helper()
	doc, err := Parse([]byte(text), Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return doc.Root()
}

// Every fault is told with its place, and what a name that comes twice hides is
// no excuse for the next one.
func TestFaultsHavePlaces(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, `the document ends too early (line 1, column 1)`},
		{`{`, `a member begins with its name in quotes (line 1, column 2)`},
		{`[1,]`, `/1: no value begins with ']' (line 1, column 4)`},
		{`{"a":1,}`, `a member begins with its name in quotes (line 1, column 8)`},
		{"{\"a\":\n  x}", `/a: no value begins with 'x' (line 2, column 3)`},
		{`{"a" 1}`, `/a: a colon follows a member's name (line 1, column 6)`},
		{`{"a":{"b/c":[0,{"~":tru}]}}`, `/a/b~1c/1/~0: no value begins with 't' (line 1, column 21)`},
		{`[1 2]`, `here is a comma or "]" missing (line 1, column 4)`},
		{`[1} `, `here is a comma or "]" missing (line 1, column 3)`},
		{`1 2`, `something follows the end of the document (line 1, column 3)`},
		{`01`, `something follows the end of the document (line 1, column 2)`},
		{`-`, `here is a digit missing (line 1, column 2)`},
		{`1.`, `here is a digit missing (line 1, column 3)`},
		{`1e+`, `here is a digit missing (line 1, column 4)`},
		{`NaN`, `no value begins with 'N' (line 1, column 1)`},
		{`"a`, `the document ends inside a string (line 1, column 3)`},
		{`"a\`, `no such escape (line 1, column 4)`},
		{`"\x"`, `no such escape (line 1, column 3)`},
		{`"\u12"`, `\u takes four hexadecimal digits (line 1, column 4)`},
		{`"\u+123"`, `\u takes four hexadecimal digits (line 1, column 4)`},
		{`"\ud800"`, `half of a surrogate pair (line 1, column 8)`},
		{`"\udc00\ud800"`, `half of a surrogate pair (line 1, column 14)`},
		{"\"a\tb\"", `control characters must be escaped in a string (line 1, column 3)`},
		{"\"\\n\x01\"", `control characters must be escaped in a string (line 1, column 4)`},
		{"[\"\xff\"]", `this is not UTF-8 (line 1, column 3)`},
		{"\ufeff{}", `no value begins with '\ufeff' (line 1, column 1)`},
		{`{"a":1,"b":{"a":1,"a":2},"a":3}`, `/b/a: this member comes twice|/a: this member comes twice`},
		{`{"a":1,"\u0061":2}`, `/a: this member comes twice`},
	} {
		_, err := Parse([]byte(c.text), Limits{})
		faults, ok := errors.AsType[Faults](err)
		if !ok {
			t.Errorf("%q: %v, want faults", c.text, err)
			continue
		}
		var got []string
		for _, f := range faults {
			got = append(got, f.String())
		}
		if g := strings.Join(got, "|"); g != c.want {
			t.Errorf("%q:\ngot  %s\nwant %s", c.text, g, c.want)
		}
	}
}

// At each limit a document passes, one further it does not, and it is said to
// be too big.
func TestLimits(t *testing.T) {
	manyNames := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"m%d":0`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	for _, c := range []struct {
		name        string
		at, further string
	}{
		{"depth", strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat("[", 33) + strings.Repeat("]", 33)},
		{"depth of objects", strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32), strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33)},
		{"elements", "[" + strings.Repeat("0,", 1999) + "0]", "[" + strings.Repeat("0,", 2000) + "0]"},
		{"members", manyNames(2000), manyNames(2001)},
		{"bytes", `"` + strings.Repeat("a", 65534) + `"`, `"` + strings.Repeat("a", 65535) + `"`},
	} {
		if _, err := Parse([]byte(c.at), Limits{}); err != nil {
			t.Errorf("%s, at the limit: %v", c.name, err)
		}
		if _, err := Parse([]byte(c.further), Limits{}); !errors.Is(err, ErrTooBig) {
			t.Errorf("%s, one further: %v, want ErrTooBig", c.name, err)
		}
	}
	if _, err := Parse([]byte(`{"a":1,"a":2}`), Limits{}); errors.Is(err, ErrTooBig) {
		t.Error("a name that comes twice is not too big")
	}
}

// A document that is read note by note: what is missing, of the wrong type, out
// of range or left over is told with its place, all at once.
func TestReading(t *testing.T) {
	n := root(t, `{"id":7,"word":"Open","n":1.5,"at":"2026-03-09t13:00:00z","list":["a","",3],"left":1,"extra":{"x":1},"big":"abcdef"}`)
	m := n.Members()
	_ = m.Take("id").String()
	m.Take("word").OneOf("open", "closed")
	m.Take("n").Int(0, 9)
	m.Take("at").Time()
	m.Take("list").Strings(5, 10)
	m.Take("big").Text(1, 5)
	m.Need("absent").Bool()
	m.Take("nothing").Members().Need("below").Float(0, 1)
	var rest []string
	for _, r := range m.Rest() {
		rest = append(rest, r.Name())
		r.Warn("unknown")
	}
	if want := []string{"extra", "left"}; !slices.Equal(rest, want) {
		t.Errorf("left over: %q, want %q", rest, want)
	}
	faults, _ := errors.AsType[Faults](n.doc.Err())
	var got []string
	for _, f := range faults {
		got = append(got, f.String())
	}
	want := []string{
		`/id: want a string, found a number`,
		`/word: "Open" is not possible: write "open" or "closed"`,
		`/n: 1.5 is out of range: want a whole number from 0 to 9`,
		`/at: "2026-03-09t13:00:00z" is not an instant: write 2026-03-09T13:00:00Z, or an offset in place of Z`,
		`/list/1: a string of 0 bytes, want 1 to 10`,
		`/list/2: want a string, found a number`,
		`/big: a string of 6 bytes, want 1 to 5`,
		`"absent" is missing`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if w := n.doc.Warnings(); len(w) != 2 || w[0].Pointer != "/extra" || w[1].Pointer != "/left" {
		t.Errorf("warnings: %v", w)
	}
}

// Instants are RFC 3339 with capital letters, and nothing near it.
func TestTimes(t *testing.T) {
	at := time.Date(2026, 3, 9, 13, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-03-09T13:00:00Z":        at,
		"2026-03-09T08:00:00-05:00":   at,
		"2026-03-09T13:00:00.25Z":     at.Add(250 * time.Millisecond),
		"2026-03-09t13:00:00Z":        {},
		"2026-03-09T13:00:00z":        {},
		"2026-03-09T13:00:00,25Z":     {},
		"2026-03-09T3:00:00Z":         {},
		"2026-03-09T13:00:00":         {},
		"2026-03-09 13:00:00Z":        {},
		"2026-02-29T13:00:00Z":        {},
		"2026-03-09T13:00:00+25:00":   {},
		"0000-03-09T13:00:00Z":        {},
		"0001-01-01T00:00:00+01:00":   {},
		"9999-12-31T23:59:59-01:00":   {},
		"":                            {},
		strings.Repeat("9", 1000):     {},
		"2026-03-09T13:00:00Z, later": {},
	} {
		got, err := ParseTime(text)
		if !got.Equal(want) || (err != nil) != want.IsZero() {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

// Numbers are what they say however they are written, and no others.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		text  string
		whole int64
		ok    bool
	}{
		{"5", 5, true},
		{"5.0", 5, true},
		{"0.5e1", 5, true},
		{"-0", 0, true},
		{"9007199254740992", 1 << 53, true},
		{"5.5", 0, false},
		{"9007199254740994", 0, false},
		{"1e999", 0, false},
		{"1e-999", 0, true},
		{`"5"`, 0, false},
	} {
		if n, ok := root(t, c.text).Value.Int(); n != c.whole || ok != c.ok {
			t.Errorf("%s: %d %v, want %d %v", c.text, n, ok, c.whole, c.ok)
		}
	}
}

// What is written has one form: members in order, nothing escaped in vain.
func TestWriting(t *testing.T) {
	v := root(t, `{ "b" : [ 1.0 , true , null ], "a": "\u00e9\n\u0001\/<\"", "": {} }`).Value
	const want = `{"":{},"a":"é\n\u0001/<\"","b":[1.0,true,null]}`
	if got := v.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	var w Writer
	w.Open('{')
	w.Member("s", "x")
	w.Name("list")
	w.Open('[')
	w.Int(-1)
	w.Float(0.000001)
	w.Float(100000000000)
	w.Open('{')
	w.Close('}')
	w.Bool(false)
	w.Close(']')
	w.Name("v")
	w.Value(v)
	w.Close('}')
	if got, want := string(w.Bytes()), `{"s":"x","list":[-1,0.000001,100000000000,{},false],"v":`+want+`}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// Against encoding/json: what one accepts the other does, but for names that
// come twice, halves of surrogate pairs and limits, which are ours alone; what
// both read is the same; and what is written reads as what it was.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+3,true,null,"x\u00e9\ud83d\ude00"],"b":{}}`, `{"a":1,"a":2}`, `"\ud800"`, `[[[]]]`, `{"a":}`, "\"\x7f\u2028\"", `1e999`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := Parse(data, Limits{})
		if err != nil {
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) == 0 || faults[0].What == "" {
				t.Fatalf("%T: %v", err, err)
			}
			if json.Valid(data) && !errors.Is(err, ErrTooBig) && !strings.Contains(err.Error(), "twice") &&
				!strings.Contains(err.Error(), "surrogate") && !strings.Contains(err.Error(), "UTF-8") {
				t.Fatalf("valid, yet %v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted though not valid: %q", data)
		}
		want := decode(t, data)
		text := doc.Root().Append(nil)
		if got := decode(t, text); !reflect.DeepEqual(got, want) {
			t.Fatalf("reads as %v, want %v", got, want)
		}
		again, err := Parse(text, Limits{})
		if err != nil {
			// Escapes that were not necessary only ever shorten it.
			t.Fatalf("%q: written, not read: %v", text, err)
		}
		if !bytes.Equal(again.Root().Append(nil), text) || !again.Root().Equal(doc.Root().Value) {
			t.Fatalf("%q: not one form", text)
		}
	})
}

func decode(t *testing.T, data []byte) any {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return v
}
