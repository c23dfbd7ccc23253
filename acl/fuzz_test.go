package acl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/yamltree"
)

// Whatever the bytes, a policy is made of them or every fault is told with a
// place in the file; and what is made answers.
func FuzzParse(f *testing.F) {
	f.Add([]byte(thousandRules()[:4000]))
	f.Add(Open())
	conversations, err := filepath.Glob("testdata/conversations/*")
	if err != nil || len(conversations) == 0 {
		f.Fatal("no conversations: ", err)
	}
	for _, name := range conversations {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range strings.Split(string(text), "\npolicy\n")[1:] {
			file, _, _ := strings.Cut(part, "\n----")
			f.Add([]byte(file))
		}
	}
	at := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("policy.yaml", data, "example.com")
		if err != nil {
			checkFaults(t, err)
			return
		}
		for _, who := range []Who{{}, {Principal: "ana@example.com", Client: "c/1"}} {
			for _, name := range []string{"a/b", "home/ana/x", "$SYS/x"} {
				d := p.Decide(who, Subscribe, name, at)
				if want := plainly(p, who, Subscribe, name)(at); d.Allow != want {
					t.Errorf("%s by %q: %v, want %v", name, who, d.Allow, want)
				}
				if _, err := p.Explain(who, Subscribe, name, at); err != nil {
					t.Error(err)
				}
			}
			p.Grant(who, "#", at)
		}
		if edge := p.NextEdge(at); !edge.IsZero() && !edge.After(at) {
			t.Errorf("next edge %s", edge)
		}
		if len(p.rules)*len(p.tests) < 1000 {
			p.Test()
		}
	})
}

// checkFaults checks what is acl's part of a fault: that there is one, in words
// that upset no terminal. Places, order and bounds are yamltree's.
func checkFaults(t *testing.T, err error) {
	t.Helper()
	e, ok := errors.AsType[*FileError](err)
	if !ok || len(e.Faults) == 0 {
		t.Fatalf("%T: %v", err, err)
	}
	for _, f := range e.Faults {
		if f.What == "" {
			t.Errorf("a fault without words at %d:%d", f.Line, f.Column)
		}
	}
	if report := e.Report(); !utf8.ValidString(report) || strings.ContainsAny(report, "\x00\x1b\x7f\r") {
		t.Errorf("the report could upset a terminal: %q", report)
	}
}

// A window is what its line says, at any instant, or is refused.
func FuzzWindow(f *testing.F) {
	f.Add("Mon-Fri 08:00-17:00", "America/Chicago", "2026-07-03", int64(1767225600), uint8(2))
	f.Add("Sat,Sun 22:00-02:00", "Australia/Lord_Howe", "2026-04-05", int64(1775314800), uint8(9))
	f.Add("Mon-Sun 00:00-24:00", "Africa/Cairo", "", int64(1776988800), uint8(3))
	f.Add("Fri 20:00-19:59", "Pacific/Apia", "2011-12-30", int64(1325239200), uint8(200))
	f.Fuzz(func(t *testing.T, line, tz, except string, u int64, steps uint8) {
		var dates []string
		if except != "" {
			dates = []string{except}
		}
		w, err := ParseWindow([]string{line}, tz, dates, "", "")
		if err != nil {
			return
		}
		ref := reference{except: dates, loc: w.zone.loc}
		if l, err := parseWeekly(line); err == nil {
			ref.lines = []weekly{l}
		}
		at := time.Unix(min(max(u, firstSecond+86400), lastSecond-86400*800), 0)
		open := func(at time.Time) bool {
			local := at.In(ref.loc)
			return ref.open(local, read(local, wall{}))
		}
		for range steps {
			was := w.Open(at)
			if want := open(at); was != want {
				t.Fatalf("%s at %s: %v, want %v", w, at.In(ref.loc), was, want)
			}
			next := w.Next(at)
			if next.IsZero() {
				return
			}
			if !next.After(at) || open(next) == was || open(next.Add(-time.Nanosecond)) != was {
				t.Fatalf("%s: no edge at %s", w, next.In(ref.loc))
			}
			for at.Add(time.Hour).Before(next) && at.Add(10*24*time.Hour).After(next) {
				if at = at.Add(time.Hour); open(at) != was {
					t.Fatalf("%s: an edge before %s was passed over", w, next.In(ref.loc))
				}
			}
			at = next
		}
	})
}

// An address has one canonical form, which is its own.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"ana@example.com", "Ana", "JÖRG@bücher.example.", "a\x00@b", "ß@ß.example", "xn--a@xn--a", "İ@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		address, err := ParseAddress(s, "example.com")
		if err != nil {
			return
		}
		if again, err := ParseAddress(address, ""); again != address || err != nil {
			t.Errorf("%q becomes %q, and that %q (%v)", s, address, again, err)
		}
		if strings.Count(address, "@") != 1 || strings.ContainsAny(address, " \x00\n") {
			t.Errorf("%q becomes %q", s, address)
		}
	})
}

// A pattern matches for somebody what the filter made for him matches, and
// nobody's name reaches beyond its place.
func FuzzPattern(f *testing.F) {
	f.Add("home/{local}/#", "ana", "c1", "home/ana/x")
	f.Add("{client}/{local}-{client}", "a+b", "a/b", "a%2Fb/a%2Bb-a%2Fb")
	f.Add("$SYS/{local}", "$x", "#", "$SYS/%24x")
	f.Fuzz(func(t *testing.T, text, local, client, name string) {
		pattern, err := parsePattern(text)
		if err != nil || topic.ValidName(name) != nil || strings.Contains(local, "@") {
			return
		}
		who := Who{Principal: local + "@example.com", Client: client}
		all := &rule{id: "r", who: &audience{anyone: true}, actions: [2]bool{true, true}, patterns: []*patternType{pattern}}
		all.prepare()
		p := &Policy{rules: []*rule{all}, index: newIndex([]*rule{all})}
		got := p.Decide(who, Publish, name, time.Time{}).Allow
		filter, ok := pattern.filterFor(who)
		if want := ok && topic.Match(filter, name); got != want {
			t.Errorf("%q for %+v matches %q: %v, want %v (%q)", text, who, name, got, want, filter)
		}
		if ok && strings.Count(filter, "/") != strings.Count(text, "/") {
			t.Errorf("%q for %+v has other levels: %q", text, who, filter)
		}
	})
}

// patternType is pattern where a variable has that name.
type patternType = pattern

// Files that are made to cost much are refused at once. (Those that cost the
// reader of YAML are yamltree's.)
func TestHostilePolicies(t *testing.T) {
	repeat := strings.Repeat
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 8 {
		bomb += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i+1, i+1, repeat(fmt.Sprintf("*a%d, ", i), 9), i)
	}
	people := "groups:\n  all: &all [" + repeat("ana, ", 999) + "bo]\nrules:\n"
	for i := range 300 {
		people += fmt.Sprintf("  - {id: r%d, allow: [publish], who: *all, topic: [x]}\n", i)
	}
	for _, c := range []struct{ name, text, want string }{
		{"keys of one mapping", "users:\n" + numbered("  a%d: b\n", yamltree.MaxKeys+1), "more than 10000 keys in one mapping"},
		{"aliases of aliases", bomb, "unknown key"},
		{"aliases of lists", people, "aliases counted"},
		{"tag", "rules: !!python/object:os.system []\n", "a tag"},
		{"many faults", "rules:\n" + repeat("  - x\n", 1000), "and 900 more"},
		{"quotes", repeat("'", 100_001), "policy.yaml:1:1"},
		{"one long line", "a: " + repeat("x", 1_000_000), `unknown key "a"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Parse("policy.yaml", []byte(c.text), "example.com")
			if err == nil {
				t.Fatalf("accepted: %+v", p)
			}
			checkFaults(t, err)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%.300q does not say %q", err, c.want)
			}
			if n := len(err.(*FileError).Report()); n > 200_000 {
				t.Errorf("a report of %d bytes", n)
			}
		})
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// The largest files that are not refused are read in bearable time. (It is
// what the machine that applies a policy takes.)
func BenchmarkParseLargest(b *testing.B) {
	users := "users:\n" + numbered("  u%d: {token_sha256: 0000000000000000000000000000000000000000000000000000000000000000}\n", MaxUsers)
	rules := "rules:\n" + numbered("  - id: r%d\n    allow: [publish]\n    who: [anyone]\n    topic: [x]\n", MaxRules)
	keys := "users:\n" + numbered("  u%d: x\n", MaxUsers) + "groups:\n" + numbered("  g%d: x\n", yamltree.MaxKeys)
	for _, c := range []struct{ name, text string }{{"users", users}, {"rules", rules}, {"faulty keys", keys}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				Parse("policy.yaml", []byte(c.text), "example.com")
			}
		})
	}
}
