package state_test

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// What it takes to look at a resource that the asker of a list may not see, of which one
// list looks at up to 16,000: of those that the node has loaded, and after a restart..
func BenchmarkFetchAll(b *testing.B) {
	const resources = 1000
	n := brokertest.New(b, presences)
	for i := range resources {
		c := n.Connect(fmt.Sprintf("u%04d@example.com", i))
		c.Publish(fmt.Sprintf("presence/example.com/u%04d", i), open, brokertest.Retain)
		c.Disconnect()
	}
	look := func() {
		seen := 0
		_, err := n.FetchAll(broker.Who{Principal: ann}, "presence/example.com/+", "", func(string, broker.Shown) bool { seen++; return true })
		if err != nil || seen != 0 {
			b.Fatalf("%d are shown, %v", seen, err)
		}
	}
	for name, before := range map[string]func(){"kept": func() {}, "first": n.Restart} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				before()
				b.StartTimer()
				look()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/resources, "ns/resource")
		})
	}
}
