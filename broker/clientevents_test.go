package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/broker/topic"
	"github.com/bellwire/bellwire/internal/bubble"
)

// clientRules let everybody read what is told of clients, and publish anything.
func clientRules() *rules { return parseRules("allow * #\nallow * $SYS/#") }

func from(address string) func(*ConnectRequest) {
	return func(r *ConnectRequest) {
		r.Origin = event.Origin{Address: address, Listener: "mqtt", KeepAlive: 60}
	}
}

func as(principal string) func(*ConnectRequest) {
	return func(r *ConnectRequest) { r.Principal = principal }
}

// news is what a client was told of others, in short, and where in the log each stands.
func news(t *testing.T, of []got) (told []string, places []string) {
	t.Helper()
	for _, g := range of {
		name, is := strings.CutPrefix(g.topic, clientsTree)
		if !is {
			told = append(told, g.topic)
			continue
		}
		var c clientChange
		if err := json.Unmarshal([]byte(g.payload), &c); err != nil || g.qos != 0 || g.retain {
			t.Fatalf("%v: %v", g, err)
		}
		if c.Address != "" {
			name += " " + c.Address
		}
		if c.Code != nil {
			name += fmt.Sprintf(" %#x", *c.Code)
		}
		if c.Reason != "" {
			name += " " + c.Reason
		}
		told = append(told, name)
		places = append(places, fmt.Sprintf("%d.%d %s", c.Index, c.Order, name))
	}
	return told, places
}

func (c *client) wantNews(want ...string) {
	c.n.t.Helper()
	c.n.tick()
	if told, _ := news(c.n.t.(*testing.T), c.awaitGot(0)); !slices.Equal(told, want) {
		c.n.t.Errorf("client %s was told\n %s, want\n %s", c.id, strings.Join(told, "\n "), strings.Join(want, "\n "))
	}
}

// It is told who comes and who goes, and why: a connection is over before the one that takes
// its place begins, and before its will is published. What a client id has of a topic's
// signs is escaped.
func TestClientsAreTold(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["sys"] = clientRules()
	n.policy("sys")
	o, _ := n.connect("o", true, 0)
	o.subscribe("$SYS/bellwire/clients/#", 1)
	o.subscribe("will", 0)
	gone := func(r *ConnectRequest) { r.Will = &event.Will{Topic: "will"} }
	first, _ := n.connect("a/+#%", true, 0, as("ana@example.com"), gone, from("192.0.2.1:5"))
	second, _ := n.connect("a/+#%", false, 60, as("ana@example.com"))
	if err := first.awaitEnd(); !errors.Is(err, ErrStale) {
		t.Fatal(err)
	}
	second.s.CloseFor(0x8D, true, false, 0)
	n.tick()
	third, present := n.connect("a/+#%", false, 60, as("ana@example.com"))
	third.s.Close(false, false, 0)
	b, _ := n.connect("b", true, 0, gone)
	b.s.Close(true, false, 0)
	n.tick()
	const a = "example.com/a%2F%2B%23%25/"
	o.wantNews(a+"connected", a+"disconnected 0x8e", "will", a+"connected", a+"disconnected 0x8d",
		a+"connected", a+"disconnected 0x0", "-/b/connected", "-/b/disconnected connection lost", "will")

	var c map[string]any
	if err := json.Unmarshal([]byte(o.awaitGot(6)[5].payload), &c); err != nil {
		t.Fatal(err)
	}
	index := c["index"]
	delete(c, "index")
	want := map[string]any{
		"client": "a/+#%", "user": "ana@example.com", "node": "n1", "protocol": 5., "session_expiry": 60., "keep_alive": 0.,
		"clean_start": false, "session_present": present, "at": "2026-03-09T12:00:00Z", "order": 1.,
	}
	if fmt.Sprint(c) != fmt.Sprint(want) || index == nil {
		t.Errorf("%v, want %v", c, want)
	}
}

// While nobody subscribes nothing is made of it, and nobody is left over when they have gone.
func TestClientsAreToldToNobody(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["sys"] = clientRules()
	n.policy("sys")
	steps := 0
	deliver := n.machine.deliver
	n.log.mu.Lock()
	n.machine.deliver = func(a *applied) {
		for i := range a.steps {
			if a.steps[i].kind == stepClient {
				steps++
			}
		}
		deliver(a)
	}
	n.log.mu.Unlock()
	comes := func() {
		a, _ := n.connect("a", true, 0)
		a.s.Close(false, false, 0)
		n.tick()
	}
	comes()
	o, _ := n.connect("o", true, 0)
	for _, filter := range []string{"#", "+/bellwire/#", "$SYS/broker/#", "$SYS/bellwire/nodes/#"} {
		o.subscribe(filter, 0)
	}
	comes()
	if steps != 0 {
		t.Errorf("%d steps for nobody", steps)
	}
	for _, filter := range []string{"$SYS/#", "$SYS/+/clients/-/a/connected"} {
		o.subscribe(filter, 0)
	}
	comes()
	if steps != 2 {
		t.Errorf("%d steps, want 2", steps)
	}
	if _, err := o.s.Unsubscribe([]string{"$SYS/#"}); err != nil {
		t.Fatal(err)
	}
	o.s.Close(false, false, 0)
	n.tick()
	steps = 0
	if comes(); steps != 0 || n.clientsWatched.Load() != 0 {
		t.Errorf("%d steps, %d watch, when they have gone", steps, n.clientsWatched.Load())
	}
}

// Addresses go to operators, and to administrators of the client's domain; who administers a
// domain is told of no other; and of a tenant's people nobody else is told anything, whatever
// rules allow. All this is so for who subscribes to all of it.
func TestClientsAreToldToWhomTheyConcern(t *testing.T) {
	n := newNode(t, Limits{})
	r := clientRules()
	r.operators = map[string]bool{"op@example.net": true}
	r.admins = map[string][]string{"cy@example.net": {"example.com"}}
	r.tenants = map[string]bool{"tenant.example": true}
	n.policies["sys"] = r
	n.policy("sys")
	watchers := map[string]*client{}
	for _, who := range []string{"op@example.net", "cy@example.net", "ana@example.com", "eve@tenant.example", ""} {
		c, _ := n.connect("of "+who, true, 0, as(who))
		c.subscribe("$SYS/#", 0)
		c.subscribe("$SYS/bellwire/clients/+/+/address", 0)
		watchers[who] = c
	}
	for i, who := range []string{"bob@example.com", "eve@tenant.example", "dan@elsewhere.example", ""} {
		n.connect(fmt.Sprint("c", i), true, 0, as(who), from(fmt.Sprintf("192.0.2.%d:1883", i)))
	}
	n.tick()
	for who, want := range map[string]string{
		"op@example.net":     "c0 c0@ c1 c1@ c2 c2@ c3 c3@",
		"cy@example.net":     "c0 c0@",
		"ana@example.com":    "c2 c3",
		"eve@tenant.example": "c2 c3",
		"":                   "c2 c3",
	} {
		var told []string
		for _, g := range watchers[who].awaitGot(0) {
			parts := strings.Split(g.topic, "/")
			if id := parts[4]; strings.HasPrefix(id, "of ") {
				continue
			} else if parts[5] == clientAddress {
				told = append(told, id+"@")
			} else {
				told = append(told, id)
			}
			if strings.Contains(g.payload, "192.0.2.") != (parts[5] == clientAddress) {
				t.Errorf("%q: %s", who, g)
			}
		}
		if got := strings.Join(told, " "); got != want {
			t.Errorf("%q was told of %q, want %q", who, got, want)
		}
	}
}

// On every node the same is told in the same order, with the same places, whatever the node
// that a client comes to, takes over at or dies with; of a dead node's clients that it was the
// node.
func TestClientsAreToldAlikeOnAllNodes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		for _, m := range n {
			m.policies["sys"] = clientRules()
		}
		n[0].policy("sys")
		if err := n[0].Raise(context.Background(), NewestLevel); err != nil {
			t.Fatal(err)
		}
		l.settle()
		var told [3]*client
		for i, m := range n {
			told[i], _ = m.connect(fmt.Sprint("o", i), true, 0)
			l.settle()
		}
		for _, c := range told {
			c.subscribe("$SYS/bellwire/clients/#", 0)
		}
		l.settle()
		for i := range 20 {
			for k, m := range n {
				m.connect(fmt.Sprint("c", (i+k)%4), i%2 == 0, 60, from("192.0.2.1:1"))
			}
		}
		l.settle()
		l.cutOff(n[2])
		l.lead().NodeLost("n3")
		told[0].wait("what is lost with n3", func() bool {
			return len(told[0].got) > 0 && strings.Contains(told[0].got[len(told[0].got)-1].payload, "node lost")
		})
		elapse(time.Second)
		l.heal(n[2])
		l.settle()
		want, _ := news(t, told[0].awaitGot(0))
		if lost := strings.Count(strings.Join(want, "\n"), "node lost"); lost == 0 {
			t.Error("nobody was lost with the node")
		}
		_, at := news(t, told[0].awaitGot(0))
		if !slices.IsSortedFunc(at, comparePlaces) || len(at) != len(slices.Compact(slices.Clone(at))) {
			t.Errorf("places are not in order:\n %s", strings.Join(at, "\n "))
		}
		_, second := news(t, told[1].awaitGot(0))
		if !slices.Equal(at, second) {
			t.Errorf("n1 told\n %s, n2\n %s", strings.Join(at, "\n "), strings.Join(second, "\n "))
		}
		_, third := news(t, told[2].awaitGot(0))
		if len(third) == 0 || len(third) > len(at) || !slices.Equal(at[:len(third)], third) {
			t.Errorf("n1 told\n %s, n3 before its end\n %s", strings.Join(at, "\n "), strings.Join(third, "\n "))
		}
	})
}

func comparePlaces(a, b string) int {
	place := func(s string) (at [2]uint64) {
		if _, err := fmt.Sscanf(s, "%d.%d", &at[0], &at[1]); err != nil {
			panic(err)
		}
		return at
	}
	pa, pb := place(a), place(b)
	return slices.Compare(pa[:], pb[:])
}

// Below the level that brings them the log has none of what only the connection knows.
func TestClientsAreToldBelowTheirLevel(t *testing.T) {
	n := bareNode(t, Limits{})
	n.policies["sys"] = clientRules()
	n.policies["sys"].operators = map[string]bool{"o": true}
	n.serve()
	t.Cleanup(func() { n.stop(true) })
	n.policy("sys")
	o, _ := n.connect("o", true, 0)
	o.subscribe("$SYS/bellwire/clients/#", 0)
	a, _ := n.connect("a", true, 0, from("192.0.2.1:1"))
	a.s.CloseFor(0x8D, true, false, 0)
	n.tick()
	o.wantNews("-/a/connected", "-/a/disconnected")
	if p := o.awaitGot(0)[0].payload; strings.Contains(p, "keep_alive") {
		t.Errorf("it was told %s", p)
	}
}

// Of a client whose id is so long that no topic has room for it, nothing is told: a name of more
// than 65,535 bytes cannot be written, and would spoil the connection of whoever is told.
func TestClientsWithEndlessNamesAreNotTold(t *testing.T) {
	n := newNode(t, Limits{})
	n.policies["sys"] = clientRules()
	n.policy("sys")
	o, _ := n.connect("o", true, 0)
	o.subscribe("$SYS/bellwire/clients/#", 0)
	long, _ := n.connect(strings.Repeat("/", topic.MaxBytes/3), true, 0)
	long.s.Close(false, false, 0)
	n.connect("b", true, 0)
	o.wantNews("-/b/connected")
}
