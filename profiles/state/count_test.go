package state_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// What others are told of how many watch follows the count and the owner's policy, at most
// once in five seconds, in each kind of session; who is back is told what it is by then.
func TestPublishedCount(t *testing.T) {
	const counted = "$stats/" + bobs
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, other := n.Connect(bob), n.Connect("eve@example.net", brokertest.ClientID("eve"), brokertest.Expiry(expiry))
		telling := func(what string) {
			pc.Publish(policy, strings.Replace(everything, `"rules"`, what+`"rules"`, 1))
		}
		telling("")
		refuses(t, other.TrySubscribe(counted, qos), broker.ErrRefused, "not-published")
		telling(`"publishCount":{"round":1},`)
		other.Subscribe(counted, qos)
		told := func(want ...string) {
			t.Helper()
			n.Pass(5 * time.Second)
			var got []string
			for _, g := range other.Take() {
				got = append(got, g.Payload)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("told %q, want %q", got, want)
			}
		}
		told(`{"total":0}`)
		watcher := n.Connect(ann)
		watcher.Subscribe(bobs, 1)
		told(`{"total":1}`)
		pc.Publish(bobs, open)
		told() // it is no other number
		telling(`"publishCount":{"min":2},`)
		told("")
		telling(`"publishCount":{"min":1},`)
		told(`{"total":1}`)
		if expiry > 0 {
			other.Lose()
			watcher.Unsubscribe(bobs)
			other = n.Connect("eve@example.net", brokertest.ClientID("eve"), brokertest.Expiry(expiry))
			told("")
		}
		if _, err := n.Count(broker.Who{}, "presence/example.com/nobody"); !errors.Is(err, broker.ErrRefused) {
			t.Errorf("nobody's: %v", err)
		}
		n.CheckReplay(nil)
	})
}
