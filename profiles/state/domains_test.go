package state_test

import (
	"fmt"
	"testing"
	"time"
)

// Of the domains that somebody has watched in, and does no more, nothing is remembered: who
// names domains makes none of them up for good.
func TestDomainsAreForgotten(t *testing.T) {
	n := newNode(t)
	c := n.Connect(ann)
	for _, shares := range []bool{false, true} {
		if shares {
			c.Subscribe("$share/g/plain", 1)
		}
		for i := range 20 {
			topicName := fmt.Sprintf("presence/d%d.example/bob", i)
			c.Subscribe(topicName, 1)
			c.Unsubscribe(topicName)
		}
		n.Pass(2 * time.Minute)
		if all := n.Domains(); len(all) != 1 {
			t.Errorf("with a group %v: %d domains are remembered: %v", shares, len(all), all)
		}
	}
}
