package brokertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/topic"
)

// A device is one client id of a principal, connected or not.
type device struct {
	principal, name string
	expiry          uint32
	*Client         // nil while it is not connected

	filters map[string]uint8 // of its session
	last    map[string]Got   // what it was sent on this connection, by topic
}

func (d *device) connected() bool { return d.Client != nil && d.Client.Ended() == nil }

// A world is a node with devices.
type world struct {
	t       *rapid.T
	s       Suite
	n       *Node
	devices []*device
}

// newWorld gives everybody two devices: one whose session outlives its
// connection, and one whose session does not.
func newWorld(t *rapid.T, s Suite) *world {
	w := &world{t: t, s: s, n: New(t, func() []broker.Profile { return []broker.Profile{s.New()} })}
	for _, p := range slices.Concat(s.Owners, s.Watchers) {
		for i, expiry := range []uint32{0, 24 * 3600} {
			w.devices = append(w.devices, &device{principal: p, name: fmt.Sprint(p, i), expiry: expiry})
		}
	}
	return w
}

// connect connects a device, anew if it is connected.
func (w *world) connect(d *device, receiveMax uint16, clean bool) {
	if d.connected() {
		w.n.clients = slices.DeleteFunc(w.n.clients, func(c *Client) bool { return c == d.Client })
	}
	options := []ConnectOption{ClientID(d.name), Expiry(d.expiry), ReceiveMax(receiveMax)}
	if clean {
		options = append(options, Clean)
	}
	d.Client = w.n.Connect(d.principal, options...)
	if !d.Present {
		d.filters = map[string]uint8{}
	}
	d.last = map[string]Got{} // who is back is shown all there is
}

// relive kills the node.
func (w *world) relive(keep bool) {
	w.n.relive(keep)
	for _, d := range w.devices {
		w.gone(d)
	}
}

func (w *world) gone(d *device) {
	d.Client = nil
}

// some draws one of the devices that ok says, nil if there is none.
func (w *world) some(t *rapid.T, ok func(*device) bool) *device {
	var of []*device
	var names []string
	for _, d := range w.devices {
		if ok(d) {
			of, names = append(of, d), append(names, d.name)
		}
	}
	if len(of) == 0 {
		t.Skip("no such device")
	}
	return of[slices.Index(names, rapid.SampledFrom(names).Draw(t, "device"))]
}

func (w *world) someConnected(t *rapid.T) *device { return w.some(t, (*device).connected) }

func (w *world) owns(d *device) bool { return slices.Contains(w.s.Owners, d.principal) }

var durations = []time.Duration{time.Second, 16 * time.Second, time.Minute, 20 * time.Minute, time.Hour, 5 * time.Hour, 26 * time.Hour}

// A history is a world, and what its owners permit.
type history struct {
	*world
	policies map[string]Policy // by owner
	middle   *Copy
}

// histories runs one history and checks it.
func histories(t *rapid.T, s Suite) {
	h := &history{world: newWorld(t, s), policies: map[string]Policy{}}
	for _, owner := range s.Owners {
		h.policies[owner] = s.Default(owner)
	}
	for _, d := range h.devices {
		h.connect(d, 10, false)
	}
	t.Repeat(map[string]func(*rapid.T){
		"":          h.check,
		"connect":   h.reconnect,
		"end":       h.end,
		"publish":   h.publish,
		"publish 2": h.publish, // rapid draws actions with equal chances
		"publish 3": h.publish,
		"policy":    h.permit,
		"intrude":   h.intrude,
		"subscribe": h.subscribe,
		"watch":     h.subscribe,
		"leave":     h.unsubscribe,
		"stall":     h.stall,
		"pass":      func(t *rapid.T) { h.n.Pass(rapid.SampledFrom(durations).Draw(t, "duration")) },
		"look":      h.compare,
		"die":       func(t *rapid.T) { h.relive(rapid.Bool().Draw(t, "flushed")) },
		"copy":      func(*rapid.T) { h.middle = h.n.Copy() },
	})
	for _, d := range h.devices {
		if !d.connected() {
			h.connect(d, 10, false)
		}
	}
	h.check(t)
	h.compare(t)
	h.n.CheckReplay(h.middle)
}

func (h *history) reconnect(t *rapid.T) {
	h.connect(h.some(t, func(*device) bool { return true }), uint16(rapid.IntRange(1, 4).Draw(t, "receive maximum")), rapid.IntRange(0, 4).Draw(t, "clean") == 0)
}

func (h *history) end(t *rapid.T) {
	d := h.someConnected(t)
	d.close(rapid.Bool().Draw(t, "lost"))
	h.gone(d)
}

func (h *history) publish(t *rapid.T) {
	d := h.some(t, func(d *device) bool { return d.connected() && h.owns(d) })
	p := h.s.Publish(d.principal).Draw(t, "publication")
	if err := p.publish(d.Client); err != nil && !errors.Is(err, broker.ErrRefused) {
		t.Fatalf("%s publishes %+v: %v", d.name, p, err)
	}
}

func (h *history) permit(t *rapid.T) {
	d := h.some(t, func(d *device) bool { return d.connected() && h.owns(d) })
	p := h.s.Policy(d.principal).Draw(t, "policy")
	h.n.Settle()
	h.check(t) // what was sent so far was sent by the policy so far
	if err := d.TryPublish(h.s.ownPolicy(), p.Document); err != nil {
		t.Fatalf("%s permits %s: %v", d.name, p.Document, err)
	}
	h.policies[d.principal] = p
	if p.Document == "" {
		h.policies[d.principal] = h.s.Default(d.principal)
	}
}

// intrude has somebody publish for an owner, which is refused.
func (h *history) intrude(t *rapid.T) {
	owner := rapid.SampledFrom(h.s.Owners).Draw(t, "owner")
	d := h.some(t, func(d *device) bool { return d.connected() && d.principal != owner })
	p := h.s.Publish(owner).Draw(t, "publication")
	if err := p.publish(d.Client); !errors.Is(err, broker.ErrRefused) {
		t.Fatalf("%s publishes %+v, which is %s's to do: %v, want ErrRefused", d.name, p, owner, err)
	}
}

func (h *history) subscribe(t *rapid.T) {
	d := h.someConnected(t)
	filter, qos := rapid.SampledFrom(h.s.filters()).Draw(t, "filter"), uint8(rapid.IntRange(0, 2).Draw(t, "QoS"))
	d.Subscribe(filter, qos)
	d.filters[filter] = qos
}

func (h *history) unsubscribe(t *rapid.T) {
	d := h.some(t, func(d *device) bool { return d.connected() && len(d.filters) > 0 })
	filter := rapid.SampledFrom(slices.Sorted(maps.Keys(d.filters))).Draw(t, "filter")
	h.n.Settle()
	h.check(t)
	d.Unsubscribe(filter)
	delete(d.filters, filter)
	maps.DeleteFunc(d.last, func(name string, _ Got) bool { return !d.watches(name) })
}

func (d *device) watches(name string) bool {
	for filter := range d.filters {
		if topic.Match(filter, name) {
			return true
		}
	}
	return false
}

func (h *history) stall(t *rapid.T) {
	d := h.someConnected(t)
	if d.Client.isStalled() {
		d.Resume()
	} else {
		d.Stall()
	}
}

// check looks at what has been sent since it was last called.
func (h *history) check(t *rapid.T) {
	h.n.Settle()
	for _, d := range h.devices {
		if d.Client == nil {
			continue
		}
		for _, g := range d.Take() {
			h.checkGot(t, d, g)
		}
		if err := d.Ended(); err != nil {
			h.gone(d)
		}
	}
}

func (h *history) checkGot(t *rapid.T, d *device, g Got) {
	owner := h.s.ownerOf(g.Topic)
	switch {
	case owner == "":
		t.Fatalf("%s was sent %s, which is nobody's", d.name, g)
	case !d.watches(g.Topic):
		t.Fatalf("%s was sent %s, which it does not watch", d.name, g)
	}
	if d.principal != owner {
		if err := h.policies[owner].Permits(d.principal, h.n.Now(), g.Payload); err != nil {
			t.Fatalf("%s was sent %s at %s: %v, by the policy %s", d.name, g, h.n.Now().Format(time.RFC3339), err, h.policies[owner].Document)
		}
	}
	d.last[g.Topic] = g
}

// compare compares what everybody was sent last with what somebody is shown who
// comes new.
func (h *history) compare(t *rapid.T) {
	for _, d := range h.devices {
		if d.connected() && d.isStalled() {
			d.Resume()
		}
	}
	h.n.Pass(time.Minute) // what changes too often may be held back for a moment
	h.check(t)
	for _, p := range slices.Concat(h.s.Owners, h.s.Watchers) {
		named, wild := h.fresh(p)
		for _, d := range h.devices {
			if d.principal == p && d.connected() {
				h.compareWith(t, d, named, wild)
			}
		}
	}
}

// fresh returns what a new device of a principal is shown, by name and by
// wildcard.
func (h *history) fresh(principal string) (named, wild map[string]Got) {
	c, w := h.n.Connect(principal), h.n.Connect(principal)
	for _, owner := range h.s.Owners {
		c.Subscribe(h.s.Topic(owner), 0)
	}
	w.Subscribe(h.s.New().Prefix()+"/#", 0)
	h.n.Settle()
	defer c.Disconnect()
	defer w.Disconnect()
	return c.last(), w.last()
}

func (h *history) compareWith(t *rapid.T, d *device, named, wild map[string]Got) {
	for _, owner := range h.s.Owners {
		name := h.s.Topic(owner)
		want, has := wild[name]
		if _, exactly := d.filters[name]; exactly {
			want, has = named[name]
		}
		got, sent := d.last[name]
		if sent && !has {
			// What it saw once, it is told when it may see it no more.
			want, has = named[name]
		}
		_, exactly := d.filters[name]
		switch {
		case !d.watches(name):
		case exactly && !has: // undecided: whoever saw something before is told by another way
		case sent && !has && d.principal != owner && h.policies[owner].Permits(d.principal, h.n.Now(), got.Payload) == nil:
			// Undecided, and what it saw last is what whoever sees nothing is shown.
		case has != sent:
			t.Fatalf("%s: of %s it was sent last %v (%t), one who comes new %v (%t)", d.name, name, got, sent, want, has)
		case got.Payload != want.Payload || got.Props != want.Props:
			t.Fatalf("%s: it was sent last %s, one who comes new %s", d.name, got, want)
		}
	}
}
