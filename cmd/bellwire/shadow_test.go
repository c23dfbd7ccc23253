package main

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/broker"
)

func shadowRules(t testing.TB, rules string) *acl.Policy {
	t.Helper()
	p, err := acl.Parse("policy.yaml", []byte("rules:\n"+rules), "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newShadow returns the shadow of one policy over another, and the clock it goes by.
func newShadow(in, tried *acl.Policy) (*shadow, *atomic.Int64) {
	clock := new(atomic.Int64)
	return &shadow{
		policy: tried, seen: map[shadowAsk]bool{}, over: make(chan struct{}), end: func() {}, force: func() *acl.Policy { return in },
		now: func() time.Time { return time.Unix(0, clock.Load()) }, client: in.KnowsClients() || tried.KnowsClients(),
	}, clock
}

const allOpen = "  - {id: all, allow: [publish, subscribe], who: [anyone], topic: [\"#\"]}\n"

// A question that was seen once is compared again when windows open and close: what
// differs later is found, and once.
func TestShadowSeesWindows(t *testing.T) {
	in := shadowRules(t, allOpen)
	s, clock := newShadow(in, shadowRules(t, "  - {id: day, allow: [publish, subscribe], who: [anyone], topic: [\"#\"], when: {weekly: [\"Mon-Sun 08:00-17:00\"], tz: UTC}}\n"))
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	clock.Store(noon.UnixNano())
	s.see(shadowAsk{what: acl.Publish, topic: "a"}, noon, true, "all")
	s.again()
	if got := s.report(); len(got.Differences) != 0 || got.Asked != 1 {
		t.Fatalf("at noon: %+v", got)
	}
	clock.Store(noon.Add(6 * time.Hour).UnixNano())
	s.again()
	s.again()
	if got := s.report().Differences; len(got) != 1 || got[0].Is || !got[0].Was || got[0].WasRule != "all" || got[0].Rule != "day" || !got[0].At.Equal(noon.Add(6*time.Hour)) {
		t.Errorf("at six: %+v", got)
	}
}

// Questions and differences are bounded, and what is left out is counted. Client ids make
// a difference only where a rule asks for them.
func TestShadowIsBounded(t *testing.T) {
	in, none := shadowRules(t, allOpen), shadowRules(t, "  []\n")
	s, _ := newShadow(in, none)
	for i := range shadowQuestions + 7 {
		s.see(shadowAsk{who: acl.Who{Client: fmt.Sprint(i)}, topic: fmt.Sprint("t/", i/2*2)}, time.Unix(0, 0), true, "all")
		s.see(shadowAsk{topic: fmt.Sprint("t/", i)}, time.Unix(0, 0), true, "all")
	}
	if got := s.report(); got.Asked != shadowQuestions || got.Missed == 0 || len(got.Differences) != shadowDifferences {
		t.Errorf("%d asked, %d missed, %d differ", got.Asked, got.Missed, len(got.Differences))
	}
	byClient, _ := newShadow(in, shadowRules(t, "  - {id: own, allow: [publish], who: [anyone], topic: [\"c/{client}\"]}\n"))
	byClient.see(shadowAsk{who: acl.Who{Client: "a"}, topic: "c/a"}, time.Unix(0, 0), true, "all")
	byClient.see(shadowAsk{who: acl.Who{Client: "b"}, topic: "c/a"}, time.Unix(0, 0), true, "all")
	if got := byClient.report(); got.Asked != 2 || len(got.Differences) != 1 || got.Differences[0].Client != "b" {
		t.Errorf("%+v", got)
	}
	large, _ := newShadow(in, none)
	topic := make([]byte, shadowBytes/4)
	for i := range 5 {
		topic[0] = byte('a' + i)
		large.see(shadowAsk{topic: string(topic)}, time.Unix(0, 0), true, "all")
	}
	if got := large.report(); got.Asked != 4 || got.Missed != 1 {
		t.Errorf("%d asked, %d missed", got.Asked, got.Missed)
	}
}

// BenchmarkShadow is what a decision costs that is not kept: without a shadow, and with
// one that knows the question.
func BenchmarkShadow(b *testing.B) {
	in := shadowRules(b, allOpen)
	for name, tried := range map[string]bool{"none": false, "tried": true} {
		b.Run(name, func(b *testing.B) {
			a := &authorizer{policy: in, operator: in, shadows: new(shadows)}
			if tried {
				s, _ := newShadow(in, shadowRules(b, allOpen))
				a.shadows.now.Store(s)
			}
			for b.Loop() {
				a.Decide(broker.Who{Principal: "ana@x.org", Client: "c"}, broker.ActPublish, "ward/3/alarm", 0)
			}
		})
	}
}
