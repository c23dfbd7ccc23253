package location_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/state"
)

// Served, a position that may not be kept any more is refused when it comes,
// and one that may is not there any more when its time is over.
func TestRetentionIsAskedAtTheDoor(t *testing.T) {
	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.New(location.New([]byte("key")))} })
	bob := n.Connect("bob@example.com")
	const topic = "location/example.com/bob"
	bob.Subscribe(topic, 1)
	err := bob.TryPublish(topic, `{"lat":1,"lon":2,"rules":{"retention":"2026-03-09T12:00:00Z"}}`, brokertest.Retain)
	if !errors.Is(err, broker.ErrPayload) || !strings.Contains(err.Error(), location.ReasonRetention) {
		t.Errorf("%v", err)
	}
	shown := func(want string) {
		t.Helper()
		n.Settle()
		if g, ok := bob.Shown(topic); !ok || !strings.Contains(g.Payload, want) || want == "" && g.Payload != `{"entity":"pres:bob@example.com"}` {
			t.Errorf("bob is shown %v, want %q", g, want)
		}
	}
	shown("")
	bob.Publish(topic, `{"lat":1,"lon":2,"rules":{"retention":"2026-03-09T12:05:00Z"}}`, brokertest.Retain)
	shown(`"pos":[1,2]`)
	n.Pass(5 * 60e9)
	shown("")
}
