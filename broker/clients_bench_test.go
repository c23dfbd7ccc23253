package broker

import (
	"fmt"
	"testing"
)

// BenchmarkClients is one answer to who asks for the clients of somebody who has few, of as many
// sessions as an answer looks at.
func BenchmarkClients(b *testing.B) {
	n := newNode(b, Limits{})
	const sessions = 20_000
	for i := range sessions {
		n.connect(fmt.Sprintf("client-%05d", i), true, 3600)
	}
	for b.Loop() {
		seen, waiting := 0, uint64(0)
		n.Clients("", "", func(c ClientSession) bool {
			if seen++; seen%20 == 0 { // 1,000, as an answer lists
				waiting += n.Waiting(&c)
			}
			return true
		})
		if seen != sessions || waiting != 0 {
			b.Fatal(seen, waiting)
		}
	}
}
