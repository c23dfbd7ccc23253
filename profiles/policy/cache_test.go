package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
)

// What is kept answers as what is read anew would, and a document that takes
// another's place takes its answers' too.
func TestCacheChangesNoAnswer(t *testing.T) {
	c := NewCache(pres)
	owner, ann := bob, addr(t, "ann@example.net")
	allow := []byte(`{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"pres:ann@example.net"}],"validity":[{"from":"2026-03-09T10:00:00Z","until":"2026-03-09T11:00:00Z"}]},"then":{"handling":"allow"},"show":{"note":true}}]}`)
	deny := []byte(`{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"pres:ann@example.net"}]},"then":{"handling":"block"}}]}`)
	start := time.Date(2026, 3, 9, 9, 0, 0, 0, time.UTC)
	for i := range 400 {
		document := [][]byte{allow, deny}[i/7%2]
		at := start.Add(time.Duration(i*37%180) * time.Minute) // there and back
		fresh, err := Parse(document, pres, owner)
		if err != nil {
			t.Fatal(err)
		}
		got, want := c.Evaluate(c.Read(owner, document), ann, at, Input{}), fresh.Evaluate(ann, at, Input{})
		if !got.equal(&want) || !got.Until.Equal(want.Until) {
			t.Fatalf("at %s: got %+v, want %+v", at, got, want)
		}
	}
	if p := c.Read(owner, []byte(`{`)); p != nil || c.Read(owner, []byte(`{`)) != nil {
		t.Error("what is no policy was read")
	}
}

// However many owners there are and however large what they upload, and however
// many watch, what is kept is bounded.
func TestCacheIsBounded(t *testing.T) {
	c := NewCache(pres)
	large := []byte(`{"v":1,"label":"` + strings.Repeat("x", 60<<10) + `"}`)
	for i := range 400 {
		c.Read(kind.Addr{Local: fmt.Sprint("u", i), Domain: "example.com"}, large)
	}
	total := 0
	for _, r := range c.read {
		total += r.bytes()
	}
	if total != c.bytes || total > cacheBytes || len(c.read) < 50 {
		t.Errorf("%d policies with %d bytes are kept, %d are counted", len(c.read), total, c.bytes)
	}
	p := c.Read(bob, []byte(`{"v":1}`))
	for i := range cacheAnswers + 100 {
		c.Evaluate(p, kind.Addr{Local: fmt.Sprint(i), Domain: "example.net"}, time.Unix(0, 0), Input{})
	}
	if got := len(c.answers[p]); got != c.kept || got > cacheAnswers {
		t.Errorf("%d answers are kept, %d are counted", got, c.kept)
	}
	for i := range 100 {
		p = c.Read(bob, fmt.Appendf(nil, `{"v":1,"label":"%d"}`, i))
		c.Evaluate(p, bob, time.Unix(0, 0), Input{})
	}
	if got := len(c.answers[p]); got != 1 || c.kept != 1 {
		t.Errorf("of policies that others have taken the place of %d answers are kept, want only the present one's", c.kept)
	}
	if len(c.answers) != len(c.read) {
		t.Errorf("%d policies have answers, %d are kept", len(c.answers), len(c.read))
	}
	old := p
	c.Read(bob, []byte(`{"v":1}`))
	if c.Evaluate(old, bob, time.Unix(0, 0), Input{}); c.kept != 0 {
		t.Errorf("an answer of a policy is kept that is not: %d", c.kept)
	}
}

// The default of a kind is parsed once, and is each owner's own all the same.
func TestDefaultIsParsedOnce(t *testing.T) {
	k := presence.New(nil)
	c := NewCache(k)
	read := func(who string) *Policy { return c.Read(kind.Of(who), k.DefaultPolicy(kind.Of(who))) }
	ana, bob := read("ana@example.com"), read("bob@example.com")
	if ana == bob || ana.Owner() != kind.Of("ana@example.com") || bob.Owner() != kind.Of("bob@example.com") {
		t.Errorf("the policies of ana and bob are %s's and %s's", ana.Owner(), bob.Owner())
	}
	for _, p := range []*Policy{ana, bob} {
		for _, who := range []string{"ana@example.com", "bob@example.com", ""} {
			want, err := Parse(k.DefaultPolicy(p.Owner()), k, p.Owner())
			if err != nil {
				t.Fatal(err)
			}
			got, should := p.Evaluate(kind.Of(who), time.Unix(0, 0), Input{}), want.Evaluate(kind.Of(who), time.Unix(0, 0), Input{})
			if !got.equal(&should) {
				t.Errorf("of %s for %q: %+v, want %+v", p.Owner(), who, got, should)
			}
		}
	}
	other := 0
	allocated := testing.AllocsPerRun(100, func() { other++; read(fmt.Sprintf("p%d@example.com", other)) })
	if parsed := testing.AllocsPerRun(100, func() { _, _ = Parse(k.DefaultPolicy(kind.Of("x@example.com")), k, kind.Of("x@example.com")) }); allocated > parsed/2 {
		t.Errorf("to read the default of one more owner allocates %v times, parsing it %v", allocated, parsed)
	}
}
