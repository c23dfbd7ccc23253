package state_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/state"
)

// What a device tells of the way it came is events: who watches sees them before
// the state, as far as they would see a state; who comes later sees the state,
// and whose view does not move is not told that something did.
func TestTrackIsShownToWhoWatches(t *testing.T) {
	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.NewWith(location.New([]byte("key")), quick)} })
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

// What happened on the way while a window was closed is shown when it opens to whom the
// owner makes up for it: once, before the state, of publications that still count; to
// nobody else, and nothing of it before.
func TestBacklog(t *testing.T) {
	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.NewWith(location.New([]byte("key")), quick)} })
	const bobs = "location/example.com/bob"
	owner := n.Connect(bob)
	rule := func(who, then string) string {
		return `{"id":"` + who + `","if":{"identity":[{"one":"pres:` + who + `"}],"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"13:00","end":"14:00"},{"days":["mon"],"start":"15:00","end":"17:00"}]}},"then":{"handling":"allow"` + then + `},"show":{"radius":0}}`
	}
	owner.Publish("$me/policy/location", `{"v":1,"rules":[`+rule(ann, `,"backlog":true`)+`,`+rule("dan@example.net", `,"backlog":true`)+`,`+rule("cid@example.net", "")+`,`+
		rule("eve@example.net", `,"backlog":true,"maxRate":1`)+`,{"id":"zoe","if":{"identity":[{"one":"pres:zoe@example.net"}]},"then":{"handling":"allow","backlog":true},"show":{"radius":0}}]}`)
	made, durable := n.Connect(ann), n.Connect("dan@example.net", brokertest.Expiry(3600))
	not, seldom, always := n.Connect("cid@example.net"), n.Connect("eve@example.net"), n.Connect("zoe@example.net")
	watchers := map[*brokertest.Client][]string{made: {"44.8821", "44.8822", "44.8823"}, durable: {"44.8821", "44.8822", "44.8823"}, not: {"44.8823"}, seldom: {"44.8823"}, always: nil}
	for c := range watchers {
		c.Subscribe(bobs, 1)
	}
	owner.Publish(bobs+"/phone", `{"lat":44.8810,"lon":-93.2218,"track":[{"at":"2026-03-09T11:59:00Z","pos":[44.8809,-93.2218]}]}`, brokertest.Retain, seconds(86400))
	n.Pass(30 * time.Minute)
	for c := range watchers {
		_ = c.Take()
	}
	owner.Publish(bobs+"/phone", `{"lat":44.8823,"lon":-93.2218,"track":[
 {"at":"2026-03-09T12:00:00Z","pos":[44.8821,-93.2218]},{"at":"2026-03-09T12:00:01Z","pos":[44.8822,-93.2218]}]}`, brokertest.Retain, seconds(86400))
	n.Settle()
	for c := range watchers {
		if got := c.Take(); len(got) != 0 && c != always {
			t.Errorf("while it is closed %s is sent %v", c.Principal, got)
		}
	}
	n.Pass(30 * time.Minute)
	for c, want := range watchers {
		got := c.Take()
		if len(got) != len(want) {
			t.Errorf("when it opens %s is sent %d documents, want %d: %v", c.Principal, len(got), len(want), got)
			continue
		}
		for i := range want {
			if !strings.Contains(got[i].Payload, want[i]) {
				t.Errorf("%s: document %d is %s, want %s in it", c.Principal, i, got[i].Payload, want[i])
			}
		}
	}
	n.Pass(time.Hour) // it closes
	for c := range watchers {
		_ = c.Take()
	}
	n.Pass(time.Hour) // and opens: what happened before that was shown
	for c, want := range watchers {
		if got := c.Take(); len(got) != min(len(want), 1) {
			t.Errorf("the next time %s is sent %v", c.Principal, got)
		}
	}
}
