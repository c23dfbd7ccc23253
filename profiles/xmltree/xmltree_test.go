package xmltree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf16"
)

// What is well-formed is read, with names in their namespaces, and written in
// one form however it was written.
func TestOneForm(t *testing.T) {
	const want = `<x:a xmlns:x="u:1" xmlns:x2="u:2" id="7" xml:lang="en" x2:b="&lt;&quot;&#xA;">t&amp;x<c/><x:d x2:e="">z</x:d></x:a>`
	for _, text := range []string{
		want,
		`<?xml version="1.0" encoding="UTF-8"?><a xmlns="u:1" xmlns:q="u:2" xml:lang='en' q:b='&#60;"&#10;' id="7">t<!-- c -->&amp;<![CDATA[x]]><c xmlns=""></c><d q:e="">z</d></a>`,
		"\ufeff<p:a xmlns:p=\"u:1\" id='7' xmlns:q=\"u:2\" q:b='&lt;&quot;&#xA;' xml:lang='en'>t&amp;x<c/><q:d xmlns:q='u:1' r:e='' xmlns:r='u:2'>z</q:d></p:a>\n<!-- end -->",
	} {
		e, err := Parse([]byte(text), Limits{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := string(e.Append(nil)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
		if v, ok := e.Attr(XMLSpace, "lang"); v != "en" || !ok || !e.Is("u:1", "a") || len(e.Elements()) != 2 || e.Text() != "t&x" {
			t.Errorf("%s: %+v", text, e)
		}
		if _, ok := e.Attr("", "b"); ok {
			t.Errorf("%s: an attribute without a prefix has no namespace", text)
		}
	}
}

// UTF-16 is read by its byte order mark, whatever its declaration calls it.
func TestUTF16(t *testing.T) {
	const text = `<?xml version="1.0" encoding="UTF-16"?><a>é𝄞</a>`
	units := utf16.Encode([]rune(text))
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		data := order.AppendUint16(nil, 0xfeff)
		for _, u := range units {
			data = order.AppendUint16(data, u)
		}
		e, err := Parse(data, Limits{})
		if err != nil || e.Text() != "é𝄞" {
			t.Errorf("%v: %v, %v", order, e, err)
		}
		if _, err := Parse(data[:len(data)-1], Limits{}); !errors.Is(err, ErrSyntax) {
			t.Errorf("half a character: %v", err)
		}
		if _, err := Parse(order.AppendUint16(data, 0xd800), Limits{}); !errors.Is(err, ErrSyntax) {
			t.Errorf("half a pair: %v", err)
		}
	}
}

// What is not well-formed, or declares what could be expanded, is refused.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		err  error
		want string
	}{
		{"", ErrSyntax, "too early"},
		{"<a>", ErrSyntax, "too early"},
		{"<a></b>", ErrSyntax, "ends nothing"},
		{"<p:a xmlns:p='u'></q:a>", ErrSyntax, "ends nothing"},
		{"</a>", ErrSyntax, "ends nothing"},
		{"<a/><b/>", ErrSyntax, "follows"},
		{"<a/>x", ErrSyntax, "outside"},
		{"x<a/>", ErrSyntax, "outside"},
		{"<p:a/>", ErrSyntax, `"p" is not declared`},
		{"<a p:b=''/>", ErrSyntax, `"p" is not declared`},
		{"<a><b xmlns:p='u'/><p:c/></a>", ErrSyntax, `"p" is not declared`},
		{"<a b='1' b='2'/>", ErrSyntax, "twice"},
		{"<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", ErrSyntax, "twice"},
		{"<a xmlns:p='u' xmlns:p='v'/>", ErrSyntax, "twice"},
		{"<a xmlns='u' xmlns='v'/>", ErrSyntax, "twice"},
		{"<a xmlns:p=''/>", ErrSyntax, "cannot be declared"},
		{"<a xmlns:xml='u'/>", ErrSyntax, "cannot be declared"},
		{"<a xmlns:xmlns='u'/>", ErrSyntax, "cannot be declared"},
		{"<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", ErrSyntax, "cannot be declared"},
		{"<:a/>", ErrSyntax, "no name"},
		{"<a b/>", ErrSyntax, ""},
		{"<a b=c/>", ErrSyntax, ""},
		{"<a>&nbsp;</a>", ErrSyntax, "entity"},
		{"<a>\x00</a>", ErrSyntax, ""},
		{"<a>\xff</a>", ErrSyntax, "UTF-8"},
		{"<?xml version='1.0' encoding='ISO-8859-1'?><a/>", ErrSyntax, "UTF-8"},
		{"<?xml version='1.0' encoding='UTF-16'?><a/>", ErrSyntax, "UTF-8"},
		{"<!DOCTYPE a><a/>", ErrDTD, "line 1"},
		{`<!DOCTYPE a [<!ENTITY b "&c;&c;"><!ENTITY c SYSTEM "file:///etc/passwd">]><a>&b;</a>`, ErrDTD, ""},
		{"<a><!ENTITY b 'c'></a>", ErrDTD, ""},
	} {
		e, err := Parse([]byte(c.text), Limits{})
		if e != nil || !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, %v, want %v with %q", c.text, e, err, c.err, c.want)
		}
	}
}

// At each limit a document passes, one further it does not.
func TestLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	flat := func(n int) string { return "<a>" + strings.Repeat("<b/>", n-1) + "</a>" }
	attrs := func(n int) string { return "<a>" + strings.Repeat("<b c='1'>x</b>", n/3) + "</a>" }
	wide := func(n int, each string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, each, i)
		}
		return b.String()
	}
	declaring := func(n int) string {
		return "<a " + wide(32, " xmlns:p%d='u'") + "><b " + wide(n-32, " xmlns:q%d='u'") + "/></a>"
	}
	for name, c := range map[string][2]string{
		"attributes": {"<a" + wide(64, " x%d='1'") + "/>", "<a" + wide(65, " x%d='1'") + "/>"},
		"namespaces": {declaring(64), declaring(65)},
		"pieces":     {"<a>" + strings.Repeat("x<!---->", 1999) + "</a>", "<a>" + strings.Repeat("x<!---->", 2000) + "</a>"},
		"depth":      {nested(32), nested(33)},
		"elements":   {flat(2000), flat(2001)},
		"nodes":      {attrs(1998), attrs(2001)},
		"bytes":      {"<a>" + strings.Repeat(" ", 65536-7) + "</a>", "<a>" + strings.Repeat(" ", 65537-7) + "</a>"},
	} {
		if _, err := Parse([]byte(c[0]), Limits{}); err != nil {
			t.Errorf("%s, at the limit: %v", name, err)
		}
		if _, err := Parse([]byte(c[1]), Limits{}); !errors.Is(err, ErrTooBig) {
			t.Errorf("%s, one further: %v", name, err)
		}
	}
}

// Whatever the bytes, what is read is written so that it reads the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`<a xmlns="u:1" xmlns:q="u:2" q:b="1">t<q:c/>&#65;</a>`, `<!DOCTYPE a><a/>`, `<?xml version="1.0"?><a xml:lang="en"/>`, "\xff\xfe<\x00a\x00/\x00>\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data, Limits{})
		if err != nil {
			if !errors.Is(err, ErrSyntax) && !errors.Is(err, ErrDTD) && !errors.Is(err, ErrTooBig) {
				t.Fatal(err)
			}
			return
		}
		text := e.Append(nil)
		again, err := Parse(text, Limits{Bytes: 1 << 24, Nodes: 1 << 16})
		if err != nil {
			t.Fatalf("%q: written as %q: %v", data, text, err)
		}
		if second := again.Append(nil); string(second) != string(text) {
			t.Fatalf("%q\nis not %q", second, text)
		}
		for i := range again.Attrs {
			if _, ok := e.Attr(again.Attrs[i].Space, again.Attrs[i].Local); !ok {
				t.Fatalf("%q: an attribute was made up", text)
			}
		}
		if !reflect.DeepEqual(again.Nodes, e.Nodes) && len(e.Elements()) != len(again.Elements()) {
			t.Fatalf("%q: other children", text)
		}
	})
}
