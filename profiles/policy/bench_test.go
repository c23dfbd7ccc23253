package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// fiveHundred is a policy of that many rules: most name one person each, every tenth
// a domain.
func fiveHundred(b *testing.B) []byte {
	var rules []string
	for i := range MaxRules {
		who := fmt.Sprintf(`{"one":"pres:u%d@example.net"}`, i)
		if i%10 == 0 {
			who = fmt.Sprintf(`{"many":{"domain":"d%d.example"}}`, i)
		}
		rules = append(rules, fmt.Sprintf(`{"id":"%d","if":{"identity":[%s]},"then":{"handling":"allow"},"show":{"note":true}}`, i, who))
	}
	document := []byte(`{"v":1,"rules":[` + strings.Join(rules, ",") + `]}`)
	if len(document) > MaxBytes {
		b.Fatal(len(document))
	}
	return document
}

var decided Decision

// BenchmarkUncached is a decision by 500 rules, of which one is about the watcher.
func BenchmarkUncached(b *testing.B) {
	p, err := Parse(fiveHundred(b), pres, bob)
	if err != nil {
		b.Fatal(err)
	}
	who, at := kind.Addr{Local: "u251", Domain: "example.net"}, time.Date(2026, 3, 9, 15, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		decided = p.Evaluate(who, at, Input{Auth: AuthPassword})
	}
	if decided.View != ViewFiltered {
		b.Fatal(decided)
	}
}

// BenchmarkCached is the same, answered as it was before.
func BenchmarkCached(b *testing.B) {
	c := NewCache(pres)
	p := c.Read(bob, fiveHundred(b))
	who, at := kind.Addr{Local: "u251", Domain: "example.net"}, time.Date(2026, 3, 9, 15, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		decided = c.Evaluate(p, who, at, Input{Auth: AuthPassword})
	}
	if decided.View != ViewFiltered {
		b.Fatal(decided)
	}
}
