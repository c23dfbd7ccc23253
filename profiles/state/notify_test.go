package state_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// A node may notify each watcher so often at most, where the owner says nothing else: what
// comes sooner is shown as it is by then. That there is nothing to see any more is shown at
// once, and so is what another grant shows.
func TestNotifyInterval(t *testing.T) {
	var all []*state.Profile
	every := func(d time.Duration) {
		for _, p := range all {
			p.NotifyEvery(d)
		}
	}
	n := brokertest.New(t, func() []broker.Profile {
		profiles := presences()
		for _, p := range profiles {
			if p, ok := p.(*state.Profile); ok {
				all = append(all, p)
			}
		}
		every(5 * time.Second)
		return profiles
	})
	stay := []brokertest.PublishOption{brokertest.Retain, seconds(86400)}
	pc, watcher, rare := n.Connect(bob), n.Connect("eve@example.net"), n.Connect(ann)
	both := strings.Replace(rated(1, ""), `"rules":[`, `"rules":[`+allow("eve", `"services":["*"],"note":true`, "eve@example.net")+`,`, 1)
	pc.Publish(policy, both)
	pc.Publish(bobs, note(0), stay...)
	watcher.Subscribe(bobs, 1)
	rare.Subscribe(bobs, 1)
	n.Settle()
	_, _ = watcher.Take(), rare.Take()
	shown := func(c *brokertest.Client, want ...string) {
		t.Helper()
		n.Settle()
		got := c.Take()
		for i := range got {
			if i >= len(want) || !strings.Contains(got[i].Payload, want[i]) {
				t.Errorf("%d: %s, want %q", i, got[i].Payload, want)
			}
		}
		if len(got) < len(want) {
			t.Errorf("shown are %d, want %q", len(got), want)
		}
	}

	n.Pass(10 * time.Second)
	pc.Publish(bobs, note(1), stay...)
	shown(watcher, "n1.")
	for i := range 4 {
		pc.Publish(bobs, note(i+2), stay...)
		shown(watcher)
		n.Pass(time.Second)
	}
	n.Pass(2 * time.Second)
	shown(watcher, "n5.")
	shown(rare) // its owner's word is a minute
	n.Pass(time.Minute)
	shown(rare, "n5.")

	pc.Publish(bobs, note(6), stay...)
	shown(watcher, "n6.")
	pc.Publish(policy, `{"v":1,"rules":[]}`)
	shown(watcher, `"basic":"closed"`)
	pc.Publish(policy, both)
	shown(watcher, "n6.")

	every(0)
	for i := range 3 {
		pc.Publish(bobs, note(7+i), stay...)
		shown(watcher, fmt.Sprintf("n%d.", 7+i))
	}
}

// What came too soon is shown when its time has come to whoever watches, also to who has no name.
func TestNotifyIntervalNameless(t *testing.T) {
	n := brokertest.New(t, func() []broker.Profile {
		p := state.NewWith(presence.New([]byte("key")), quick)
		p.NotifyEvery(5 * time.Second)
		return []broker.Profile{p}
	})
	pc, nobody := n.Connect(bob), n.Connect("")
	pc.Publish(policy, demanding("anonymous"))
	pc.Publish(bobs, open)
	nobody.Subscribe(bobs, 1)
	wants(t, n, nobody, "open")
	n.Pass(10 * time.Second)
	pc.Publish(bobs, closed)
	wants(t, n, nobody, "closed")
	pc.Publish(bobs, open)
	wants(t, n, nobody)
	n.Pass(10 * time.Second)
	wants(t, n, nobody, "open")
}
