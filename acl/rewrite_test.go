package acl

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/topic"
)

const rewriteFile = `
rewrite:
  - {action: publish,   source_topic: "x/#",      re: "^x/y/(.+)$",            dest_topic: "z/y/$1"}
  - {action: subscribe, source_topic: "x/#",      re: "^x/(.*)$",              dest_topic: "z/$1"}
  - {action: all,       source_topic: "y/+/z/#",  re: "^y/(.+)/z/(.+)$",       dest_topic: "y/z/$2$1"}
  - {action: publish,   source_topic: "x/once/#", re: "^x/once/([0-9]+)/(.*)$", dest_topic: "$delayed/$1/$2"}
  - {action: all,       source_topic: "mine/#",   re: "^mine/(.*)$",           dest_topic: "dev/${clientid}/${username}/$1"}
  - {action: publish,   source_topic: "+/to/#",   re: "^(.*)/to/(.*)$",        dest_topic: "$2"}
`

// A topic is rewritten by the last entry whose source matches, and by no other; placeholders
// stand for who asks as they do in rules; and what it may not become is refused, however it
// comes about.
func TestRewrite(t *testing.T) {
	p := mustParse(t, rewriteFile)
	bob := Who{Principal: "bob@example.com", Client: "a/b"}
	for _, c := range []struct {
		what     Action
		name, to string // to begins with ! for a refusal that has it
		line     int
	}{
		{Publish, "x/y/1", "z/y/1", 3},
		{Publish, "x/1", "x/1", 0},
		{Publish, "x", "x", 0},
		{Subscribe, "x/y/1", "z/y/1", 4},
		{Subscribe, "x/+/#", "z/+/#", 4},
		{Subscribe, "$share/g/x/a", "$share/g/z/a", 4},
		{Subscribe, "$share/g/a/x", "$share/g/a/x", 0},
		{Subscribe, "#", "#", 0},
		{Publish, "y/a/z/b", "y/z/ba", 5},
		{Subscribe, "y/a/z/b", "y/z/ba", 5},
		{Subscribe, "y/+/z/b", "!not valid", 5},
		{Publish, "x/once/60/x/y", "$delayed/60/x/y", 6},
		{Publish, "x/once/y", "x/once/y", 0}, // the last that matches decides, alone
		{Publish, "mine/t", "dev/a%2Fb/bob@example.com/t", 7},
		{Publish, "a/to/b", "b", 8},
		{Publish, "a/to/", "!not valid", 8},
		{Publish, "a/to/$SYS/x", "!begin with $", 8},
		{Publish, "a/to/$me/x", "!begin with $", 8},
		{Publish, "a/to/$adm/example.com/policy/put", "!begin with $", 8},
		{Publish, "a/to/presence/example.com/ana", "!owners", 8},
		{Publish, "presence/to/a", "presence/to/a", 0},
		{Publish, "$delayed/5/x/y/1", "$delayed/5/x/y/1", 0},
		{Publish, "$SYS/to/a", "$SYS/to/a", 0},
	} {
		to, line, err := p.Rewrite(bob, c.what, c.name)
		if want, refused := strings.CutPrefix(c.to, "!"); refused {
			if err == nil || !strings.Contains(err.Error(), want) || line != c.line {
				t.Errorf("%s %s: %q, line %d, %v, want that it is refused: %s", c.what, c.name, to, line, err, want)
			}
		} else if to != c.to || line != c.line || err != nil {
			t.Errorf("%s %s: %q, line %d, %v, want %q, line %d", c.what, c.name, to, line, err, c.to, c.line)
		}
	}
	if _, _, err := p.Rewrite(Who{Client: "c"}, Publish, "mine/t"); err == nil || !strings.Contains(err.Error(), "${username}") {
		t.Errorf("without a user: %v", err)
	}
}

// What is found is the last entry whose source matches, whatever sources there are.
func TestRewriteIndexAgainstAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	word := func(of ...string) string { return of[rng.IntN(len(of))] }
	for range 2_000 {
		var all []*rewrite
		for range 1 + rng.IntN(12) {
			var words []string
			for range 1 + rng.IntN(4) {
				words = append(words, word("a", "b", "", "+", "+"))
			}
			if rng.IntN(3) == 0 {
				words = append(words, "#")
			}
			w := &rewrite{source: strings.Join(words, "/")}
			w.on[rng.IntN(2)] = true
			w.on[rng.IntN(2)] = true
			all = append(all, w)
		}
		x := newRewriteIndex(all)
		for range 20 {
			var words []string
			for range 1 + rng.IntN(5) {
				words = append(words, word("a", "b", "", "c", "+"))
			}
			name, what := strings.Join(words, "/"), Action(rng.IntN(2))
			want := 0
			for i, w := range all {
				if w.on[what] && topic.Match(w.source, name) {
					want = i + 1
				}
			}
			got := 0
			if x.root[what] != nil {
				got = x.root[what].last(name, true)
			}
			if got != want {
				t.Fatalf("%q: entry %d of %v, want %d", name, got, all, want)
			}
		}
	}
}

// All faults are told, each at its place.
func TestRewriteFaults(t *testing.T) {
	_, err := Parse("policy.yaml", []byte(`rewrite:
  - {action: publsh, source_topic: "x/#", re: "^x/(.*)$", dest_topic: "y/$1"}
  - {action: all, source_topic: "x/#/y", re: "(", dest_topic: "y/$1"}
  - {action: all, source_topic: "$SYS/#", re: "a", dest_topic: "y"}
  - {action: all, source_topic: "im/#", re: "a", dest_topic: "y"}
  - {action: all, source_topic: "$share/g/a", re: "a", dest_topic: "y"}
  - {action: all, source_topic: "a", re: "(a)", dest_topic: "y/$2"}
  - {action: all, source_topic: "a", re: "a", dest_topic: "y/+"}
  - {action: all, source_topic: "a", re: "a", dest_topic: "y/${host}"}
  - {action: all, source_topic: "a", re: "a", dest_topic: "y$"}
  - {action: all, source_topic: "a", re: "a", dest_topic: "$SYS/a"}
  - {action: all, source_topic: "a", re: "a", dest_topic: "$delayed/1/a"}
  - {action: subscribe, source_topic: "a", re: "a", dest_topic: "presence/a"}
  - {action: all, source_topic: "a", re: "a"}
  - {action: all, source: "a", re: "a", dest_topic: "b"}
  - {action: all, source_topic: "a", re: "`+strings.Repeat("a", 1025)+`", dest_topic: "b"}
`), "")
	bad, ok := err.(*FileError)
	if !ok {
		t.Fatal(err)
	}
	for line := 2; line <= 16; line++ {
		if !strings.Contains(bad.Error(), fmt.Sprintf("policy.yaml:%d:", line)) {
			t.Errorf("no fault at line %d", line)
		}
	}
	for _, text := range []string{`did you mean "publish"`, `did you mean "source_topic"`, "RE2", "the expression has 1 groups"} {
		if !strings.Contains(bad.Error(), text) {
			t.Errorf("no word of %q in\n%v", text, bad)
		}
	}
}

// What is explained, tested and compared is what clients get.
func TestRewriteIsExplained(t *testing.T) {
	p := mustParse(t, rewriteFile+`
rules:
  - {id: z, allow: [publish], who: [anyone], topic: ["z/#"]}
tests:
  - {as: bob@example.com, client: c, allow: ["publish x/y/1"], deny: ["publish x/1", "publish a/to/$SYS/x"]}
`)
	if r := p.Test(); r.Failed > 0 {
		t.Errorf("%s", r)
	}
	e, err := p.ExplainRequest(Who{Principal: "bob@example.com"}, Publish, "x/y/1", time.Unix(0, 0))
	if err != nil || !e.Allow || e.Topic != "z/y/1" || e.Rewritten != "x/y/1" || !strings.Contains(e.Text(), "x/y/1, which is rewritten   policy.yaml:3") {
		t.Errorf("%v, %v", e.Text(), err)
	}
	text, err := e.MarshalJSON()
	if err != nil || !strings.Contains(string(text), `"topic":"z/y/1","rewritten":"x/y/1"`) {
		t.Errorf("%s, %v", text, err)
	}
	e, err = p.ExplainRequest(Who{}, Publish, "a/to/$SYS/x", time.Unix(0, 0))
	if err != nil || e.Allow || !strings.Contains(e.Text(), "policy.yaml:8") {
		t.Errorf("%v, %v", e.Text(), err)
	}
	if d := Compare(mustParse(t, ""), mustParse(t, rewriteFile), time.Unix(0, 0)).Entries; len(d) != 6 || d[0].What != "rewrite" {
		t.Errorf("%+v", d)
	}
}

func manyRewrites(b testing.TB) *Policy {
	var text strings.Builder
	text.WriteString("rewrite:\n")
	for i := range MaxRewrites {
		fmt.Fprintf(&text, "  - {action: all, source_topic: \"site/%d/+/#\", re: \"^site/([^/]+)/old/(.*)$\", dest_topic: \"new/$1/$2\"}\n", i)
	}
	p, err := Parse("policy.yaml", []byte(text.String()), "")
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// A topic that no entry has to do with costs no memory, however many there are.
func TestRewriteAllocatesNothing(t *testing.T) {
	p := manyRewrites(t)
	for _, name := range []string{"plant/7/temperature", "site/7", "site/none/a/b"} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = p.Rewrite(Who{}, Publish, name) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	none, many := mustParse(b, ""), manyRewrites(b)
	for _, c := range []struct {
		name, topic string
		p           *Policy
	}{
		{"none", "site/500/old/temperature", none},
		{"1000 others", "plant/500/old/temperature", many},
		{"1000, no match of the expression", "site/500/present/temperature", many},
		{"1000, rewritten", "site/500/old/temperature", many},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := c.p.Rewrite(Who{}, Publish, c.topic); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
