package broker

import (
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
)

// Who unsubscribes by a name ends what it stands for, has stood for, and is: whether the
// session outlasts its connection or not, and also after the node has lost its state. Of a
// name that is too long to be kept it is what it stands for now alone.
func TestUnsubscribeNamed(t *testing.T) {
	long := strings.Repeat("n", longestNamed+1)
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t, Limits{})
		c, _ := n.connect("c", true, expiry)
		named := func(name string) func(*event.Subscription) {
			return func(s *event.Subscription) { s.Named = name }
		}
		c.subscribe("a", 1, named("x"))
		c.subscribe("$share/g/b", 1, named("x"))
		c.subscribe("d", 1)
		c.subscribe("e", 1, named(long))
		c.subscribe("f", 1, named("f0"))
		if expiry > 0 {
			c.s.Close(false, false, 0)
			n.crash()
			c, _ = n.connect("c", false, expiry)
		}
		for _, step := range []struct {
			filters, named []string
			want           []bool
		}{
			{[]string{"new", "d2", "e2", "none"}, []string{"x", "d", long, "none"}, []bool{true, true, false, false}},
			{[]string{"a", "$share/g/b", "d", "e", "f"}, []string{"a", "$share/g/b", "d", "e", "f0"}, []bool{false, false, false, true, true}},
		} {
			if got, err := c.s.UnsubscribeNamed(step.filters, step.named); err != nil || !slices.Equal(got, step.want) {
				t.Errorf("expiry %d, by %.9q: %v, %v, want %v", expiry, step.named, got, err, step.want)
			}
		}
	}
}

// Below its level nobody keeps what is not known there.
func TestNamesNeedTheirLevel(t *testing.T) {
	n := bareNode(t, Limits{})
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	n.policy("all")
	c, _ := n.connect("c", true, 3600)
	c.subscribe("a", 1, func(s *event.Subscription) { s.Named = "x" })
	if ended, err := c.s.UnsubscribeNamed([]string{"y"}, []string{"x"}); err != nil || ended[0] {
		t.Errorf("%v %v", ended, err)
	}
}
