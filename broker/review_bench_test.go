package broker

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// BenchmarkPolicyChange is how long another client waits at worst for the acknowledgement of an
// event while a policy changes, or the node hears of a leader again, where many subscribe.
func BenchmarkPolicyChange(b *testing.B) {
	const clients, filters = 10_000, 100
	n := newNode(b, Limits{})
	n.policies["a"], n.policies["b"] = parseRules("allow * #"), parseRules("allow * #")
	n.policy("a")
	pub, _ := n.connect("pub", true, 0)
	for i := range clients {
		s := n.connectNowhere(fmt.Sprint("c", i), 0, &nowhere{})
		start(s)
		subs := make([]event.Subscription, filters)
		for k := range subs {
			subs[k] = event.Subscription{Filter: fmt.Sprint("f/", i, "/", k)}
		}
		s.Subscribe(subs, func([]SubResult, *Wave) {})
	}
	must(b, pub.publish("other", "x", 1))
	for _, x := range []struct {
		what string
		act  func(round int)
	}{
		{"policy", func(round int) { n.policy([]string{"b", "a"}[round%2]) }},
		{"anew", func(int) { n.loop.call(func(*Wave) { n.loop.showAnew() }) }},
	} {
		b.Run(x.what, func(b *testing.B) {
			worst := worstWait(b, pub, func() {
				for round := 0; b.Loop(); round++ {
					x.act(round)
					n.passEdges() // which does reviews, too
				}
			})
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
		})
	}
}
