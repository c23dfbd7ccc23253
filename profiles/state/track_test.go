package state_test

import (
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/state"
)

// What a device tells of the way it came is events: who watches sees them before
// the state, as far as they would see a state; who comes later sees the state,
// and whose view does not move is not told that something did.
func TestTrackIsShownToWhoWatches(t *testing.T) {
	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.New(location.New([]byte("key")))} })
	const bobs = "location/example.com/bob"
	owner := n.Connect(bob)
	exact, circle, none := n.Connect(ann), n.Connect("cid@example.net"), n.Connect("zoe@example.net")
	durable := n.Connect("dan@example.net", brokertest.Expiry(3600))
	owner.Publish("$me/policy/location", `{"v":1,"rules":[
 {"id":"exact","if":{"identity":[{"one":"pres:ann@example.net"},{"one":"pres:dan@example.net"}]},"then":{"handling":"allow"},"show":{"radius":0}},
 {"id":"circle","if":{"identity":[{"one":"pres:cid@example.net"}]},"then":{"handling":"allow"},"show":{"radius":100000}}]}`)
	owner.Publish(bobs+"/phone", `{"lat":44.8810,"lon":-93.2218}`)
	watchers := []*brokertest.Client{exact, circle, none, durable}
	for _, c := range watchers {
		c.Subscribe(bobs, 1)
	}
	n.Settle()
	for _, c := range watchers {
		if got := c.Take(); len(got) != 1 {
			t.Fatalf("%s was sent %v at first", c.Principal, got)
		}
	}
	owner.Publish(bobs+"/phone", `{"lat":44.8823,"lon":-93.2218,"track":[
 {"at":"2026-03-09T12:00:00Z","pos":[44.8821,-93.2218]},{"at":"2026-03-09T12:00:01Z","pos":[44.8822,-93.2218]}]}`)
	n.Settle()
	for c, want := range map[*brokertest.Client][]string{exact: {"44.8821", "44.8822", "44.8823"}, circle: nil, none: nil, durable: {"44.8821", "44.8822", "44.8823"}} {
		got := c.Take()
		if len(got) != len(want) {
			t.Errorf("%s was sent %d documents, want %d: %v", c.Principal, len(got), len(want), got)
			continue
		}
		for i := range want {
			if !strings.Contains(got[i].Payload, want[i]) {
				t.Errorf("%s: document %d is %s, want %s in it", c.Principal, i, got[i].Payload, want[i])
			}
		}
	}
	late := n.Connect(ann)
	late.Subscribe(bobs, 1)
	n.Settle()
	if got := late.Take(); len(got) != 1 || !strings.Contains(got[0].Payload, "44.8823") {
		t.Errorf("who comes later was sent %v", got)
	}
}
