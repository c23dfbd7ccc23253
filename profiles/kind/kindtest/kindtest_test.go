package kindtest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	_ "github.com/bellwire/bellwire/internal/fixedseed"
	"github.com/bellwire/bellwire/profiles/kind"
)

// A board is the smallest kind: each source publishes lines "word" or
// "word:secret", and the board has them all, sorted. A grant shows words it
// names, and secrets if it has "secrets". breaks makes it break a law.
type board struct {
	breaks string
	asked  *int // by a board that remembers
}

type line struct{ word, secret string }

func (b board) Name() string      { return "board" }
func (b board) Scheme() string    { return "pres" }
func (b board) Accepts() []string { return []string{"text/plain"} }

func (b board) Semantics() kind.Semantics {
	return kind.Semantics{MaxBytes: 1000, DefaultExpires: time.Hour, MinExpires: time.Second, MaxExpires: time.Hour}
}

func (b board) Weight(doc kind.Document, value any) int {
	switch b.breaks {
	case "weight":
		return len(doc.Body) / 512
	}
	return kind.BaseWeight(doc) + len(value.([]line))
}

func (b board) DefaultPolicy(kind.Addr) []byte { return []byte(`{"v": 1}`) }

func (b board) Permissions() []kind.Permission {
	return []kind.Permission{{Name: "secrets", Type: kind.PermBool}, {Name: "words", Type: kind.PermSet}}
}

func (b board) Parse(_ kind.Resource, doc kind.Document) (any, error) {
	switch {
	case doc.ContentType != "text/plain" && b.breaks != "unsupported":
		return nil, kind.ErrUnsupported
	case len(doc.Body) > 1000 && b.breaks != "too big":
		return nil, kind.ErrTooBig
	case bytes.ContainsAny(doc.Body, "\x00\xff"):
		if b.breaks == "error" {
			return nil, kind.ErrStale
		}
		return nil, kind.ErrInvalid
	}
	var lines []line
	for l := range strings.FieldsSeq(strings.TrimPrefix(string(doc.Body), "board of ")) {
		if !strings.Contains(l, "@") {
			word, secret, _ := strings.Cut(l, ":")
			lines = append(lines, line{word, secret})
		}
	}
	if b.breaks == "roundtrip" && len(lines) > 2 {
		lines = lines[1:]
	}
	return lines, nil
}

func (b board) Compose(now time.Time, r kind.Resource, pubs []kind.Publication) (*kind.Composed, error) {
	c := &kind.Composed{Resource: r}
	var all []line
	for _, p := range pubs {
		live := p.Live(now) || b.breaks == "lost" && !p.Lost.IsZero() || b.breaks == "expired" && p.Lost.IsZero()
		if !live {
			continue
		}
		if !p.Expires.IsZero() && (c.Expires.IsZero() || p.Expires.Before(c.Expires)) && b.breaks != "expires" {
			c.Expires = p.Expires
		}
		if p.Published.After(c.Modified) {
			c.Modified = p.Published
		}
		if b.breaks == "mutates" && len(p.Doc.Body) > 0 {
			p.Doc.Body[0] = 'x'
		}
		v, err := b.Parse(r, p.Doc)
		if err != nil {
			return nil, err
		}
		all = append(all, v.([]line)...)
	}
	if b.breaks != "order" {
		all = sorted(all)
	}
	c.Value = all
	return c, nil
}

func sorted(lines []line) []line {
	lines = slices.Clone(lines)
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.word+":"+a.secret, b.word+":"+b.secret) })
	return slices.Compact(lines)
}

func (b board) Neutral(r kind.Resource) *kind.Composed {
	c := &kind.Composed{Resource: r}
	if b.breaks == "neutral" {
		c.Value = []line{{word: "gone"}}
	}
	if b.breaks == "size" && len(r.Addr.Local) > 20 {
		c.Value = []line{{word: "long"}}
	}
	return c
}

func (b board) View(c *kind.Composed, g kind.Grant) *kind.Composed {
	v := *c
	v.Class = g.Class()
	if b.breaks == "class" {
		v.Class = kind.Class{}
	}
	var shown []line
	for i, l := range lines(c.Value) {
		if b.breaks == "idempotent" && i%2 == 1 {
			continue
		}
		allowed := g.Allows("words", l.word)
		switch b.breaks {
		case "monotone":
			allowed = allowed && len(g.Set("words")) < 3
		case "stars":
			allowed = slices.Contains(g.Set("words"), l.word) || slices.Equal(g.Set("words"), []string{"*"})
		case "empty":
			allowed = allowed || g.IsZero()
		}
		if !allowed {
			continue
		}
		if !g.Has("secrets") {
			l.secret = ""
		}
		if b.breaks == "invents" {
			l.word += "!"
		}
		shown = append(shown, l)
	}
	if b.breaks == "changes" && len(lines(c.Value)) > 0 {
		lines(c.Value)[0].secret = ""
	}
	v.Value = sorted(shown)
	return &v
}

func lines(v any) []line {
	l, _ := v.([]line)
	return l
}

func (b board) Encode(c *kind.Composed) kind.Document {
	text := "board of " + c.Resource.Addr.URI("pres")
	for _, l := range lines(c.Value) {
		text += " " + l.word
		if l.secret != "" {
			text += ":" + l.secret
		}
	}
	if b.breaks == "swells" {
		text += strings.Repeat(" ", 1000*len(lines(c.Value)))
	}
	if b.breaks == "remembers" {
		*b.asked++
		text += strings.Repeat(" ", *b.asked%3)
	}
	return kind.Document{ContentType: "text/plain", Body: []byte(text)}
}

func suite(breaks string) Suite {
	return Suite{
		New: func() kind.Kind { return board{breaks: breaks, asked: new(int)} },
		Documents: func(kind.Resource) *rapid.Generator[kind.Document] {
			return rapid.Custom(func(t *rapid.T) kind.Document {
				words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c:1", "c:2", "d"}), 0, 4).Draw(t, "words")
				return kind.Document{ContentType: "text/plain", Body: []byte(strings.Join(words, " "))}
			})
		},
		Tokens: map[string][]string{"words": {"a", "b", "c"}},
		Reveals: func(more, less any) string {
			for _, l := range lines(less) {
				if !slices.ContainsFunc(lines(more), func(m line) bool { return m.word == l.word && (m.secret == l.secret || l.secret == "") }) {
					return fmt.Sprint(l)
				}
			}
			return ""
		},
		Same: func(parsed, composed any) bool { return slices.Equal(lines(parsed), lines(composed)) },
	}
}

// A kind that obeys passes.
func TestBoardObeys(t *testing.T) { Test(t, suite("")) }

// Each law bites: a kind that breaks it is found out, by that law.
func TestLawsBite(t *testing.T) {
	for _, c := range []struct{ breaks, law string }{
		{"order", "order"},
		{"neutral", "nothing"},
		{"size", "neutral"},
		{"expired", "dead"},
		{"lost", "dead"},
		{"expires", "expires"},
		{"idempotent", "idempotent"},
		{"class", "idempotent"},
		{"empty", "monotone"},
		{"monotone", "monotone"},
		{"invents", "monotone"},
		{"stars", "classes"},
		{"roundtrip", "roundtrip"},
		{"changes", "pure"},
		{"mutates", "pure"},
		{"remembers", "pure"},
		{"unsupported", "refused"},
		{"too big", "refused"},
		{"error", "refused"},
		{"weight", "weight"},
		{"swells", "weight"},
	} {
		i := slices.IndexFunc(laws, func(l law) bool { return l.name == c.law })
		found := rapid.Custom(func(t *rapid.T) error { return laws[i].holds(suite(c.breaks), t) })
		broken := false
		for seed := 0; seed < 3000 && !broken; seed++ {
			broken = found.Example(seed) != nil
		}
		if !broken {
			t.Errorf("a kind that breaks %q passes the law %q", c.breaks, c.law)
		}
	}
}
