package state_test

import (
	"testing"

	"github.com/bellwire/bellwire/broker"
)

// A year that nobody will see is no time in the past: what holds until then is
// shown once.
func TestFarYears(t *testing.T) {
	n := newNode(t)
	owner := n.Connect(bob)
	owner.Publish(policy, `{"v":1,"delegates":[{"one":"pres:ann@example.net","read":true,"sources":["x"],"until":"9999-01-01T00:00:00Z"}]}`)
	owner.Publish(bobs+"/pc", `{"basic":"open","persons":[{"id":"p","activities":{"is":["meeting"],"until":"9999-12-31T23:59:59Z"}}]}`)
	for _, topic := range []string{bobs} {
		shown, err := n.Broker.Fetch(broker.Who{Principal: ann}, topic)
		if err != nil || shown.Until <= n.Now().UnixNano() {
			t.Errorf("%s is shown until %d, %v", topic, shown.Until, err)
		}
	}
}
