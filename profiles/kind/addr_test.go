package kind

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/broker/topic"
	_ "github.com/bellwire/bellwire/internal/fixedseed"
)

// All spellings of an address are one address, with one topic and one URI.
func TestSpellingsOfOneAddress(t *testing.T) {
	for _, c := range []struct {
		spellings  []string
		topic, uri string
	}{
		{
			[]string{
				"bob@example.com", "Bob@EXAMPLE.com", "bob@example.com.", "pres:bob@example.com", "PRES:bob@example.com",
				"im:bob@example.com", "evt:b%6Fb@example.com", "pres:bob@example.com?subject=x@y/z#1",
			},
			"presence/example.com/bob", "pres:bob@example.com",
		},
		{
			[]string{"jürgen@bücher.example", "pres:j%C3%BCrgen@xn--bcher-kva.example", "ＪÜRGEN@BÜCHER.example"},
			"presence/xn--bcher-kva.example/jürgen", "pres:j%C3%BCrgen@xn--bcher-kva.example",
		},
		{[]string{"a+b@example.com", "pres:a+b@example.com"}, "presence/example.com/a%2Bb", "pres:a+b@example.com"},
		{[]string{"$sys@example.com"}, "presence/example.com/%24sys", "pres:$sys@example.com"},
		{[]string{"100%@example.com", "pres:100%25@example.com"}, "presence/example.com/100%25", "pres:100%25@example.com"},
		{[]string{"pres:a%2Fb%23c@example.com"}, "presence/example.com/a%2Fb%23c", "pres:a%2Fb%23c@example.com"},
		{[]string{"pres:a%3Ab@example.com", "pres:a:b@example.com"}, "presence/example.com/a:b", "pres:a:b@example.com"},
		{[]string{"l3.press12@plant.example.com"}, "presence/plant.example.com/l3.press12", "pres:l3.press12@plant.example.com"},
	} {
		for _, s := range c.spellings {
			a, err := ParseAddr(s)
			if err != nil {
				t.Errorf("%s: %v", s, err)
				continue
			}
			r := Resource{Kind: "presence", Addr: a}
			if r.Topic() != c.topic || a.URI("pres") != c.uri || Of(a.String()) != a {
				t.Errorf("%s: %s, %s, want %s, %s", s, r.Topic(), a.URI("pres"), c.topic, c.uri)
			}
			if back, err := ParseTopic(r.Topic()); err != nil || back.Resource != r || back.Source != "" {
				t.Errorf("%s: its topic reads as %+v, %v", s, back, err)
			}
			if back, err := ParseAddr(a.URI("im")); err != nil || back != a {
				t.Errorf("%s: its URI reads as %v, %v", s, back, err)
			}
		}
	}
}

// What is no address is refused, with what to write instead.
func TestNoAddress(t *testing.T) {
	for s, want := range map[string]string{
		"":                                 "no domain",
		"bob":                              "no domain",
		"pres:bob":                         "no domain",
		"@example.com":                     "nothing before",
		"bob@":                             "not a domain",
		"bob/x@example.com":                "%2F",
		"bob#x@example.com":                "%23",
		"pres:bob/x@example.com":           "%2F",
		"pres:bob%4@example.com":           "hexadecimal",
		"pres:bob%zz@example.com":          "hexadecimal",
		"pres:bob%FF@example.com":          "no name",
		"pres:bob%40evil@example.com":      `"@"`,
		"a b@example.com":                  "no name",
		"*@example.com":                    `"*"`,
		"bob@exa_mple.com":                 "not a domain",
		"sip:bob@example.com":              "nobody here",
		"mailto:bob@example.com":           "nobody here",
		"a:b@example.com":                  "nobody here",
		"https:":                           "no URI",
		strings.Repeat("a", 1020) + "@b.c": "1024 bytes",
		strings.Repeat("a", 4000):          "at most 1023",
	} {
		a, err := ParseAddr(s)
		if !errors.Is(err, ErrAddress) || !a.IsZero() {
			t.Errorf("%q: %v, %v, want ErrAddress", short(s), a, err)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", short(s), err, want)
		}
	}
}

// Where only URIs will do, a bare address is refused, and a scheme of others is
// nobody's.
func TestURIs(t *testing.T) {
	if _, _, err := ParseURI("bob@example.com"); !errors.Is(err, ErrAddress) {
		t.Errorf("bare: %v", err)
	}
	if scheme, a, err := ParseURI("mailto:bob@example.com"); scheme != "mailto" || !a.IsZero() || err != nil {
		t.Errorf("mailto: %s, %v, %v", scheme, a, err)
	}
	if scheme, a, err := ParseURI("IM:bob@example.com"); scheme != "im" || a.String() != "bob@example.com" || err != nil {
		t.Errorf("im: %s, %v, %v", scheme, a, err)
	}
}

// Topics have one spelling; any other is refused, naming the right one if there
// is one.
func TestTopics(t *testing.T) {
	for _, c := range []struct{ name, addr, source, persona, want string }{
		{name: "presence/example.com/bob", addr: "bob@example.com"},
		{name: "presence/example.com/bob/phone", addr: "bob@example.com", source: "phone"},
		{name: "presence/example.com/bob/a%2Fb", addr: "bob@example.com", source: "a/b"},
		{name: "im/example.com/a%2Fb/reports", addr: "a/b@example.com", source: "reports"},
		{name: "presence/example.com", want: "2 levels"},
		{name: "presence/example.com/bob/phone/@work", addr: "bob@example.com", source: "phone", persona: "work"},
		{name: "presence/example.com/bob/a%2Fb/@x.y-z_1", addr: "bob@example.com", source: "a/b", persona: "x.y-z_1"},
		{name: "presence/example.com/bob/phone/work", want: "5 levels"},
		{name: "presence/example.com/bob/phone/@", want: "no name of a persona"},
		{name: "presence/example.com/bob/phone/@Work", want: "no name of a persona"},
		{name: "presence/example.com/bob/phone/@" + strings.Repeat("a", 65), want: "no name of a persona"},
		{name: "presence/example.com/bob/phone/@work/x", want: "6 levels"},
		{name: strings.Repeat("/", 1000), want: "6 levels"},
		{name: "presence/EXAMPLE.com/bob", want: `"presence/example.com/bob"`},
		{name: "presence/example.com./bob", want: `"presence/example.com/bob"`},
		{name: "presence/bücher.example/bob", want: "xn--bcher-kva"},
		{name: "presence/example.com/Bob", want: `"presence/example.com/bob"`},
		{name: "presence/example.com/b%6fb", want: `"presence/example.com/bob"`},
		{name: "presence/example.com/a%2fb", want: `"presence/example.com/a%2Fb"`},
		{name: "presence/example.com/$x", want: `"presence/example.com/%24x"`},
		{name: "presence/example.com/a%", want: "hexadecimal"},
		{name: "presence/example.com/a%FF", want: "not UTF-8"},
		{name: "presence/example.com/", want: "nothing before"},
		{name: "presence//bob", want: "not a domain"},
		{name: "presence/example.com/a%00b", want: "no name"},
		{name: "presence/example.com/bob/", want: "0 bytes"},
		{name: "presence/example.com/bob/a%2fb", want: `"a%2Fb"`},
		{name: "presence/example.com/bob/" + strings.Repeat("a", 257), want: "257 bytes"},
	} {
		got, err := ParseTopic(c.name)
		if c.want == "" {
			if err != nil || got.Addr.String() != c.addr || got.Source != c.source || got.Persona != c.persona || got.Name() != c.name {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
			if persona, source := SplitKey(got.Key()); persona != c.persona || source != c.source {
				t.Errorf("%s is kept as %q", c.name, got.Key())
			}
		} else if !errors.Is(err, ErrAddress) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrAddress with %q", short(c.name), err, c.want)
		}
	}
}

// A source without a name is nobody else's, and no device can take its name or
// one that means something else.
func TestSourceNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"phone": true, "a/b": true, "calendar": true, "typing2": true,
		"": false, "~phone": false, "@work": false, "reports": false, "typing": false, strings.Repeat("a", 257): false,
	} {
		if err := CheckSource(name); (err == nil) != ok {
			t.Errorf("%q: %v", short(name), err)
		}
	}
	if CheckSource(DefaultSource("phone")) == nil || DefaultSource("a") == DefaultSource("b") {
		t.Error("a default source can be named, or is another's")
	}
}

// Where a policy of the operator puts a name into a topic, it is the topic that
// this package gives its owner.
func TestTopicsAreThoseOfPolicies(t *testing.T) {
	p, err := acl.Parse("policy.yaml", []byte("rules:\n- id: own\n  allow: [publish]\n  who: anyone\n  topic: presence/{domain}/{local}\n"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		a := drawAddr(t)
		d := p.Decide(acl.Who{Principal: a.String()}, acl.Publish, Resource{Kind: "presence", Addr: a}.Topic(), noon)
		if !d.Allow {
			t.Errorf("%s may not publish to %s", a, Resource{Kind: "presence", Addr: a}.Topic())
		}
	})
}

func drawAddr(t *rapid.T) Addr {
	for {
		local := rapid.StringOfN(rapid.SampledFrom([]rune("ab%/+#$?:&='~.é日-_|{}")), 1, 12, -1).Draw(t, "local")
		canonical, err := acl.ParseAddress(local+"@"+rapid.SampledFrom([]string{"example.com", "plant.example.net"}).Draw(t, "domain"), "")
		if err == nil {
			return Of(canonical)
		}
	}
}

// Topics and URIs of any address lead back to it, and are what they claim.
func TestAddressesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Topic{Resource: Resource{Kind: "presence", Addr: drawAddr(t)}, Source: rapid.StringN(0, 20, 60).Draw(t, "source")}
		uri := want.Addr.URI("pres")
		if got, err := ParseAddr(uri); err != nil || got != want.Addr {
			t.Errorf("%s: %v, %v", uri, got, err)
		}
		if strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q is no URI", uri)
		}
		if topic.ValidName(want.Name()) != nil {
			t.Skip("a character that no topic has")
		}
		if got, err := ParseTopic(want.Name()); err != nil || got != want {
			t.Errorf("%s: %+v, %v", want.Name(), got, err)
		}
	})
}

// Whatever the bytes, what is accepted has one spelling.
func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"bob@example.com", "pres:a%2Fb@x.y", "ＪÜRGEN@bücher.example.", "im:%00@a.b", "sip:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddr(s)
		if err != nil {
			if !errors.Is(err, ErrAddress) || !a.IsZero() {
				t.Errorf("%v, %v", a, err)
			}
			return
		}
		for _, again := range []string{a.URI("pres"), a.URI("im")} {
			if b, err := ParseAddr(again); err != nil || a != b {
				t.Errorf("%q: %q: %v, %v", s, again, b, err)
			}
		}
		if b, err := ParseTopic(Resource{Kind: "k", Addr: a}.Topic()); err != nil || b.Addr != a {
			t.Errorf("%q: topic %v, %v", s, b, err)
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{"presence/example.com/bob/phone", "im/x.y/a%2Fb", "a/b/c/d/e", "k/x.y/%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTopic(s)
		if err == nil && got.Name() != s {
			t.Errorf("%q is spelt %q too", got.Name(), s)
		}
		if err != nil && !errors.Is(err, ErrAddress) {
			t.Error(err)
		}
	})
}
