package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/profiles/kind"
)

// manyRules is an owner's policy of 500 rules, the most there may be, of which two have to do with ann: one for her domain, and one for her within hours.
func manyRules() []byte {
	var b strings.Builder
	b.WriteString(`{"v":1,"rules":[`)
	for i := range 497 {
		fmt.Fprintf(&b, `{"id":"r%d","if":{"identity":[{"one":"pres:u%d@x.org"}]},"then":{"handling":"allow"}},`, i, i)
	}
	b.WriteString(`{"id":"net","if":{"identity":[{"many":{"domain":"example.net"}}]},"then":{"handling":"polite-block"}},
 {"id":"ann","if":{"identity":[{"one":"pres:ann@example.net"}],"weekly":{"tz":"Europe/Madrid","windows":[{"days":["mon","tue","wed","thu","fri"],"start":"08:00","end":"17:00"}]}},"then":{"handling":"allow"},"show":{"note":true}},
 {"id":"others","if":{"identity":[{"many":{"domain":"example.org"}}]},"then":{"handling":"block"}}]}`)
	return []byte(b.String())
}

// BenchmarkDecision is a decision of an owner's policy: kept, and not, of one with
// 500 rules.
func BenchmarkDecision(b *testing.B) {
	if _, err := Parse(manyRules(), pres, bob); err != nil {
		b.Fatal(err)
	}
	c := NewCache(pres)
	p := c.Read(bob, manyRules())
	ann, at := kind.Addr{Local: "ann", Domain: "example.net"}, time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	if d := p.Evaluate(ann, at, Input{}); d.View != ViewFiltered {
		b.Fatalf("%+v", d)
	}
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Evaluate(p, ann, at, Input{})
		}
	})
	b.Run("rules=500", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Evaluate(ann, at, Input{})
		}
	})
}
