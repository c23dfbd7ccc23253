//go:build linux

package state_test

import (
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker"
)

// BenchmarkWatcherList is what the whole list of who watches an owner costs: the delivery loop
// makes it, for each session of the owner that is new.
func BenchmarkWatcherList(b *testing.B) {
	for _, watchers := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint("watchers=", watchers), func(b *testing.B) {
			n, _ := newCrowd(b, watchers, nil)
			for b.Loop() {
				if _, err := n.Fetch(broker.Who{Principal: bob}, watchersTopic); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
