package blackbox

import (
	"encoding/json"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// hoursOf is a policy that shows alice services from eight to five, on terms.
func hoursOf(terms string) string {
	return rulesOf(`{"id":"h","if":{"identity":[{"one":"pres:alice@example.net"}],
		"weekly":{"tz":"UTC","windows":[{"days":["mon","tue"],"start":"08:00","end":"17:00"}]}},"then":{"handling":"allow"` + terms + `},"show":{"services":["*"]}}`)
}

// A windowState is what somebody is told of a subscription and its window.
type windowState struct {
	State, Reason, Window, Next string
	RetryAfter                  int `json:"retry-after"`
}

// within takes n packets, each within a second, and returns the states and documents in it.
func within(t *testing.T, try *attempt, c *mq.Client, n int) (states []windowState, shown []*mq.Packet) {
	t.Helper()
	for range n {
		p := try.arrives(c)
		if p == nil {
			t.Fatalf("%d of %d come in time", len(states)+len(shown), n)
		}
		c.Acknowledge(p)
		if !strings.HasPrefix(p.Topic, "$me/sub/") {
			shown = append(shown, p)
			continue
		}
		var s windowState
		if err := json.Unmarshal(p.Payload, &s); err != nil {
			t.Fatalf("%s: %v", p.Payload, err)
		}
		states = append(states, s)
	}
	return states, shown
}

// hours starts a server a quarter of an hour before five, where bob is open and alice
// watches him, on terms.
func hours(t *testing.T, try *attempt, terms string) (s *server, pc, a *mq.Client) {
	t.Helper()
	s = kinds(t, "2026-03-09T16:45:00Z")
	pc, a = s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, hoursOf(terms))
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`, mq.User("evt-expires", day)))
	try.begin()
	a.Subscribe("$me/sub/#", 1)
	a.Subscribe(bobsPresence, 1)
	if states, shown := within(t, try, a, 2); len(states) != 1 || states[0].State != "active" || len(shown) != 1 || isNeutral(shown[0], bob) {
		t.Fatalf("alice is told %v, and shown %v", states, shown)
	}
	return s, pc, a
}

// A watcher is warned before the hours close, told when they do, and when they open again,
// if that is what the owner wants, and who asks is told the same.
func TestS22HoursAreAnnounced(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		s, pc, a := hours(t, try, `,"outside":"announce","warnBefore":300,"reveal":true`)
		s.setClock("2026-03-09T16:54:59Z")
		a.Quiet()
		try.begin()
		s.setClock("2026-03-09T16:55:00Z")
		if states, _ := within(t, try, a, 1); len(states) != 1 || states[0] != (windowState{State: "active", Window: "open", Next: "2026-03-09T17:00:00Z"}) {
			t.Errorf("warned by %+v", states)
		}
		try.begin()
		s.setClock("2026-03-09T17:00:00Z")
		closed := windowState{State: "active", Window: "closed", Next: "2026-03-10T08:00:00Z"}
		if states, shown := within(t, try, a, 2); len(states) != 1 || states[0] != closed || len(shown) != 1 || !isNeutral(shown[0], bob) {
			t.Errorf("when it closes alice is told %+v, and shown %v", states, shown)
		}
		pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`, mq.User("evt-expires", day)))
		a.Quiet()
		var asked windowState
		if got := s.fetch(alice, "/v1/me/sub/presence/example.com/bob", ""); json.Unmarshal([]byte(got.body), &asked) != nil || asked != closed {
			t.Errorf("asked, it is %+v", got)
		}
		try.begin()
		s.setClock("2026-03-10T08:00:00Z")
		if states, shown := within(t, try, a, 2); len(states) != 1 || states[0].Window != "open" || len(shown) != 1 || isNeutral(shown[0], bob) {
			t.Errorf("when it opens alice is told %+v, and shown %v", states, shown)
		}
	})
}

// A subscription ends with the hours, if that is what the owner wants: with when to try
// again, also for who is away, and it is refused until then.
func TestS22HoursEndSubscriptions(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		s, pc, a := hours(t, try, `,"outside":"end"`)
		keeps := mq.Connect{ClientID: "away", Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 7*86400)}}
		away := s.open(v5, as(alice, keeps))
		try.begin()
		away.Subscribe("$me/sub/#", 1)
		away.Subscribe(bobsPresence, 1)
		within(t, try, away, 2)
		away.Disconnect()
		away.Closed()
		try.begin()
		s.setClock("2026-03-09T17:00:00Z")
		states, shown := within(t, try, a, 1)
		for len(states) == 0 { // what it sees may go first
			states, shown = within(t, try, a, 1)
		}
		if states[0] != (windowState{State: "terminated", Reason: "probation", RetryAfter: 15 * 3600}) {
			t.Errorf("alice is told %+v, shown %v", states, shown)
		}
		for _, p := range drain(a) {
			if !isNeutral(p, bob) {
				t.Errorf("alice is sent %v", p)
			}
		}
		pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`, mq.User("evt-expires", day)))
		if ack := a.TrySubscribe(nil, mq.Filter{Filter: bobsPresence, QoS: 1}); ack.Codes[0] != 0x87 || !contains(ack.Properties.Text(mq.PropReasonString), "probation: retry-after=54000") {
			t.Errorf("while it is closed: %v", ack)
		}
		a.Quiet()
		try.begin()
		away = s.open(v5, as(alice, keeps))
		if states, shown := within(t, try, away, 1); len(states) != 1 || states[0].State != "terminated" || states[0].Reason != "probation" {
			t.Errorf("back, alice is told %+v, shown %v", states, shown)
		}
		away.Quiet()
		s.setClock("2026-03-10T08:00:00Z")
		a.Quiet()
		try.begin()
		a.Subscribe(bobsPresence, 1)
		if states, shown := within(t, try, a, 2); len(states) != 1 || states[0].State != "active" || len(shown) != 1 || !contains(string(shown[0].Payload), `"closed"`) {
			t.Errorf("asked for anew alice is told %+v, and shown %v", states, shown)
		}
	})
}
