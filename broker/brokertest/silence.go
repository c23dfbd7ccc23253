package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker"
)

// silence lives one history in two worlds. The watchers do the same in both;
// the owners, who show them nothing, do something in one only. What the
// watchers are sent must not tell which.
func silence(t *rapid.T, s Suite) {
	busy, idle := newWorld(t, s), newWorld(t, s)
	both := []*world{busy, idle}
	policies := map[string]Policy{}
	for _, owner := range s.Owners {
		policies[owner] = s.Blind(owner).Draw(t, "policy of "+owner)
		for _, w := range both {
			c := w.n.Connect(owner)
			if err := c.TryPublish(s.ownPolicy(), policies[owner].Document); err != nil {
				t.Fatalf("%s permits %s: %v", owner, policies[owner].Document, err)
			}
			c.Disconnect()
		}
	}
	watcher := func(d *device) bool { return !busy.owns(d) }
	// twins draws a watcher's device; it is the same in both worlds.
	twins := func(t *rapid.T, ok func(*device) bool) (twins []*device) {
		d := busy.some(t, func(d *device) bool { return watcher(d) && ok(d) })
		return []*device{d, idle.devices[slices.Index(busy.devices, d)]}
	}
	anybody := func(*device) bool { return true }
	check := func(t *rapid.T) {
		busy.n.Settle()
		idle.n.Settle()
		for i, d := range busy.devices {
			if watcher(d) && d.Client != nil {
				compareTraces(t, d.Take(), idle.devices[i].Take(), d.name)
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"": check,
		"connect": func(t *rapid.T) {
			for i, d := range twins(t, anybody) {
				both[i].connect(d, 10, false)
			}
		},
		"end": func(t *rapid.T) {
			lost := rapid.Bool().Draw(t, "lost")
			for i, d := range twins(t, (*device).connected) {
				d.close(lost)
				both[i].gone(d)
			}
		},
		"subscribe": func(t *rapid.T) {
			filter, qos := rapid.SampledFrom(s.filters()).Draw(t, "filter"), uint8(rapid.IntRange(0, 1).Draw(t, "QoS"))
			for _, d := range twins(t, (*device).connected) {
				d.Subscribe(filter, qos)
			}
		},
		"pass": func(t *rapid.T) {
			duration := rapid.SampledFrom(durations[:4]).Draw(t, "duration")
			for _, w := range both {
				w.n.Pass(duration)
			}
		},
		"die": func(*rapid.T) {
			for _, w := range both {
				w.relive(true)
			}
		},
		"appear": func(t *rapid.T) {
			busy.connect(busy.some(t, busy.owns), 10, false)
		},
		"disappear": func(t *rapid.T) {
			d := busy.some(t, func(d *device) bool { return d.connected() && busy.owns(d) })
			d.close(rapid.Bool().Draw(t, "lost"))
			busy.gone(d)
		},
		"publish": func(t *rapid.T) {
			d := busy.some(t, func(d *device) bool { return d.connected() && busy.owns(d) })
			p := s.Publish(d.principal).Draw(t, "publication")
			if err := p.publish(d.Client); err != nil && !errors.Is(err, broker.ErrRefused) {
				t.Fatalf("%s publishes %+v: %v", d.name, p, err)
			}
		},
	})
}

// compareTraces compares what a watcher was sent in the two worlds: all that a
// client can see of it, packet identifiers too.
func compareTraces(t *rapid.T, busy, idle []Got, name string) {
	trace := func(got []Got) string {
		var lines []string
		for _, g := range got {
			lines = append(lines, fmt.Sprintf("%s id %d %s", g, g.ID, g.Props))
		}
		return strings.Join(lines, "\n ")
	}
	if a, b := trace(busy), trace(idle); a != b {
		t.Fatalf("%s can tell that an owner does something:\nit was sent\n %s\nand else\n %s", name, a, b)
	}
}
