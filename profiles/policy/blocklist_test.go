package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/profiles/kind"
)

// Whom a list blocks follows from its entries in their order: an address, a domain, or
// everybody, without those who are excepted; nobody whom it does not name, and nobody
// without an address.
func TestBlocklist(t *testing.T) {
	l, err := ReadBlocklist([]byte(`{"v":1,"entity":"pres:bob@example.com","blocked":[
		{"one":"im:mallory@example.com","style":"refuse"},
		{"many":{"domain":"example.com","except":[{"id":"pres:ann@example.com"}]},"style":"ignore","label":"work"},
		{"many":{"domain":"spam.example"}}]}`), bob)
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]Blocking{
		"mallory@example.com": BlockingBy(Refuse), "zoe@example.com": BlockingBy(Ignore), "x@spam.example": BlockingBy(Polite),
		"ann@example.com": 0, "ann@example.net": 0, "": 0,
	} {
		if got := l.Of(kind.Of(who)); got != want {
			t.Errorf("%q: %d, want %d", who, got, want)
		}
	}
	if got := (*Blocklist)(nil).Of(bob); got != 0 {
		t.Errorf("no list blocks: %d", got)
	}
}

// All faults of a list are told at once, each with its place.
func TestBadBlocklist(t *testing.T) {
	_, err := ReadBlocklist([]byte(`{"v":2,"entity":"pres:eve@example.com","style":"rude","blokced":[],"blocked":[
		{"one":"mallory"},{"one":"pres:a@b.c","many":{}},{"many":{"domain":"*"}},{"style":"loud"},{"one":"pres:*@b.c"},{"one":"pres:a@b.c","until":"x"}]}`), bob)
	refused, ok := errors.AsType[*kind.Refusal](err)
	if !ok || !errors.Is(err, kind.ErrInvalid) {
		t.Fatalf("%v", err)
	}
	var at []string
	for _, f := range refused.Faults {
		at = append(at, f.Pointer)
	}
	for _, want := range []string{"/v", "/entity", "/style", "/blokced", "/blocked/0/one", "/blocked/1", "/blocked/2/many/domain", "/blocked/3", "/blocked/3/style", "/blocked/4/one", "/blocked/5/until"} {
		if !strings.Contains(" "+strings.Join(at, " ")+" ", " "+want+" ") {
			t.Errorf("no fault at %s: %v", want, at)
		}
	}
	many := `{"v":1,"blocked":[` + strings.TrimSuffix(strings.Repeat(`{"one":"pres:a@b.c"},`, MaxBlocked+1), ",") + `]}`
	if _, err := ReadBlocklist([]byte(many), bob); err == nil {
		t.Errorf("%d entries are taken", MaxBlocked+1)
	}
	if _, err := ReadBlocklist(make([]byte, MaxBytes+1), bob); !errors.Is(err, kind.ErrTooBig) {
		t.Errorf("too large: %v", err)
	}
}

// Whoever is blocked is decided about by the style alone, whatever the policy says; of
// nobody else does it change a decision; the owner cannot lock themselves out. So a list
// that is longer never shows more.
func TestBlockedBeforeAllRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, err := Parse([]byte(anyPolicy(t)), pres, bob)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 3, 9, rapid.IntRange(0, 23).Draw(t, "hour"), 0, 0, 0, time.UTC)
		in := Input{Sphere: rapid.SampledFrom([]string{"", "work"}).Draw(t, "sphere")}
		who := kind.Of("ann@example.com")
		free := p.Evaluate(who, at, in)
		for s := Refuse; s <= Ignore; s++ {
			in.Blocked = BlockingBy(s)
			d := p.Evaluate(who, at, in)
			h, ignored := d.Life()
			want := map[Style]Handling{Refuse: Block, Polite: PoliteBlock, Ignore: Confirm}[s]
			if h != want || ignored != (s == Ignore) || d.View == ViewFiltered || !d.Grant.IsZero() || !d.Until.IsZero() || !p.StaticUntil(who, at, in).IsZero() {
				t.Fatalf("blocked by %s, where it is %+v without: %+v", s, free, d)
			}
			if own := p.Evaluate(bob, at, in); own.View != ViewFiltered {
				t.Fatalf("the owner is blocked: %+v", own)
			}
			if e := p.Explain(who, at, in); !strings.Contains(e.Because, "$me/blocklist") {
				t.Fatalf("because %s", e.Because)
			}
		}
	})
}

// anyPolicy makes up a policy about ann, with delegates who read.
func anyPolicy(t *rapid.T) string {
	var rules []string
	for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
		rules = append(rules, fmt.Sprintf(`{"id":"%d","if":{%s},"then":{"handling":%q},"show":{"note":true}}`, i,
			rapid.SampledFrom([]string{
				``, `"identity":[{"one":"pres:ann@example.com"}]`, `"sphere":["work"]`,
				`"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]}`,
			}).Draw(t, "if"),
			rapid.SampledFrom([]string{"block", "confirm", "polite-block", "allow"}).Draw(t, "handling")))
	}
	return fmt.Sprintf(`{"v":1,"defaults":{"minVisibility":%q},"rules":[%s],"delegates":[%s]}`,
		rapid.SampledFrom([]string{"anonymous", "identified"}).Draw(t, "demands"), strings.Join(rules, ","),
		rapid.SampledFrom([]string{"", `{"one":"pres:ann@example.com","read":true}`, `{"one":"pres:ann@example.com","read":true,"until":"2026-03-10T00:00:00Z"}`}).Draw(t, "delegates"))
}

// A Span is what asking at every minute finds: it ends at the first at which something is
// shown that was not, or the other way, and not where windows relieve each other.
func TestSpanIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var windows []string
		for range rapid.IntRange(1, 4).Draw(t, "windows") {
			from := rapid.IntRange(0, 22).Draw(t, "from")
			to := rapid.IntRange(from+1, 23).Draw(t, "to")
			windows = append(windows, fmt.Sprintf(`{"days":["mon","tue"],"start":"%02d:00","end":"%02d:00"}`, from, to))
		}
		limit := ""
		if rapid.Bool().Draw(t, "limited") {
			limit = `{"id":"l","only":{"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"10:00","end":"14:00"}]}}}`
		}
		p, err := Parse([]byte(fmt.Sprintf(`{"v":1,"rules":[{"id":"r","if":{"weekly":{"tz":"UTC","windows":[%s]}},"then":{"handling":"allow"},"show":{"note":true}}],"limits":[%s]}`,
			strings.Join(windows, ","), limit)), pres, bob)
		if err != nil {
			t.Fatal(err)
		}
		who, at := kind.Of("ann@example.com"), time.Date(2026, 3, 9, rapid.IntRange(0, 23).Draw(t, "hour"), 30, 0, 0, time.UTC)
		s := p.Span(who, at, Input{})
		shows := func(at time.Time) bool { d := p.Now(who, at, Input{}); return d.View == ViewFiltered }
		if s.Shown != shows(at) || s.Shown == s.Closed || s.Shown && !s.Exact {
			t.Fatalf("at %s: %+v", at, s)
		}
		for next := at; next.Before(s.Until) && next.Before(at.Add(14*24*time.Hour)); next = next.Add(30 * time.Minute) {
			if shows(next) != s.Shown {
				t.Fatalf("%+v at %s ends at %s already", s, at, next)
			}
		}
		if s.Exact && shows(s.Until) == s.Shown {
			t.Fatalf("%+v at %s does not end then", s, at)
		}
		if !s.Exact && limit == "" {
			t.Fatalf("%+v at %s: no edge is found, and there is one each day", s, at)
		}
	})
}
