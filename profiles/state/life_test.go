package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

const bobsState = "$me/sub/" + bobs

// A told is what a watcher is told of its subscription.
type told struct {
	SID, State, Reason string
	Window, Next       string
	Rem                *int
	RetryAfter         *int `json:"retry-after"`
}

func readTold(t *testing.T, payload string) (s told) {
	t.Helper()
	if payload == "" {
		return told{State: "none"}
	}
	if err := json.Unmarshal([]byte(payload), &s); err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	return s
}

func (s told) String() string {
	words := s.State
	if s.Reason != "" {
		words += " " + s.Reason
	}
	if s.Rem != nil {
		words += fmt.Sprintf(" for %d", *s.Rem)
	}
	if s.RetryAfter != nil {
		words += fmt.Sprintf(" again in %d", *s.RetryAfter)
	}
	return words
}

// saw checks what a client was sent since it was last asked: documents in a word, and
// what it was told of its subscriptions.
func saw(t *testing.T, n *brokertest.Node, c *brokertest.Client, want ...string) {
	t.Helper()
	n.Settle()
	var got []string
	for _, g := range c.Take() {
		if strings.HasPrefix(g.Topic, "$me/sub/") {
			got = append(got, readTold(t, g.Payload).String())
		} else {
			got = append(got, summary(t, bob, g.Payload))
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s was sent %q, want %q", c.Principal, got, want)
	}
}

// stateOf returns what a watcher is told who asks.
func stateOf(t *testing.T, n *brokertest.Node, who string) string {
	t.Helper()
	shown, err := n.Fetch(broker.Who{Principal: who}, bobsState)
	if err != nil {
		t.Fatal(err)
	}
	return readTold(t, string(shown.Payload)).String()
}

// kinds of sessions: those that end with their connection, and those that do not.
func eachSession(t *testing.T, test func(t *testing.T, qos uint8, expiry uint32)) {
	for _, qos := range []uint8{0, 1} {
		for _, expiry := range []uint32{0, 3600} {
			t.Run(fmt.Sprintf("QoS %d expiry %d", qos, expiry), func(t *testing.T) { test(t, qos, expiry) })
		}
	}
}

// The owner's policy decides the life of a subscription, also of one that there is
// already: whoever is blocked is told, and has it no more; whoever is undecided waits,
// and is sent nothing; whoever is then let in is told, and shown how things are.
func TestHandlingOfLiveSubscriptions(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		pc.Publish(bobs, open)
		watcher.Subscribe("$me/sub/#", qos)
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "active", "nothing")
		handling := func(h string) { pc.Publish(policy, rules(rule("r", h, `"services":["*"]`, "", ann))) }
		handling("allow")
		saw(t, n, watcher, "open")
		handling("polite-block")
		saw(t, n, watcher, "nothing")
		handling("allow")
		saw(t, n, watcher, "open")
		handling("confirm")
		saw(t, n, watcher, "pending")
		pc.Publish(bobs, closed)
		saw(t, n, watcher)
		middle := n.Copy()
		handling("allow")
		saw(t, n, watcher, "closed", "active")
		handling("block")
		saw(t, n, watcher, "terminated rejected")
		if got := stateOf(t, n, ann); got != "terminated rejected" {
			t.Errorf("asked, it says %s", got)
		}
		handling("allow") // what has ended does not begin again
		pc.Publish(bobs, open)
		saw(t, n, watcher)
		handling("block")
		if err := watcher.TrySubscribe(bobs, qos); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "rejected") {
			t.Errorf("blocked, it subscribes: %v", err)
		}
		handling("allow")
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "active", "open")
		n.CheckReplay(middle)
	})
}

// A subscription is the watcher's, whichever of its sessions have it: it lasts as long
// as one does.
func TestSessionsShareASubscription(t *testing.T) {
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, everything)
	var devices []*brokertest.Client
	for i, expiry := range []uint32{0, 3600, 0} {
		d := n.Connect(ann, brokertest.ClientID(fmt.Sprint("ann", i)), brokertest.Expiry(expiry))
		d.Subscribe(bobs, 1)
		devices = append(devices, d)
	}
	shown, _ := n.Fetch(broker.Who{Principal: ann}, bobsState)
	first := readTold(t, string(shown.Payload)).SID
	devices[0].Disconnect()
	devices[2].Unsubscribe(bobs)
	devices[1].Lose()
	n.Settle()
	shown, _ = n.Fetch(broker.Who{Principal: ann}, bobsState)
	if s := readTold(t, string(shown.Payload)); s.State != "active" || s.SID != first {
		t.Errorf("one session is left, and away: %v", s)
	}
	n.Pass(time.Hour)
	if got := stateOf(t, n, ann); got != "terminated timeout" {
		t.Errorf("the last has ended: %s", got)
	}
	n.Pass(7 * 24 * time.Hour)
	if got := stateOf(t, n, ann); got != "none" {
		t.Errorf("a week later: %s", got)
	}
	n.CheckReplay(nil)
}

// Whoever ends a subscription is told that it is over, and nobody can tell of another's.
func TestUnsubscribedState(t *testing.T) {
	n := newNode(t)
	watcher, other := n.Connect(ann), n.Connect("eve@example.net")
	watcher.Subscribe(bobsState, 1)
	other.Subscribe("$me/sub/#", 1)
	saw(t, n, watcher, "none")
	watcher.Subscribe(bobs, 1)
	saw(t, n, watcher, "active", "nothing")
	watcher.Unsubscribe(bobs)
	saw(t, n, watcher, "terminated")
	saw(t, n, other)
	n.Pass(time.Minute)
	if got := stateOf(t, n, ann); got != "none" {
		t.Errorf("a minute later: %s", got)
	}
	if err := n.Connect("").TrySubscribe(bobsState, 1); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("nobody's: %v", err)
	}
}

// Who was shown something, and then became undecided, is shown that there is nothing once the
// policy does not keep them waiting any more: they may not go on believing what they saw.
func TestWithdrawnWhileUndecided(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		pc.Publish(policy, everything)
		pc.Publish(bobs, open)
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "open")
		pc.Publish(policy, `{"v":1,"defaults":{"handling":"confirm"}}`)
		saw(t, n, watcher)
		pc.Publish(policy, "")
		saw(t, n, watcher, "nothing")
		n.CheckReplay(nil)
	})
}
