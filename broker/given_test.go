package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker/event"
	"github.com/bellwire/bellwire/internal/bubble"
)

// givers are rules under which every client is given subscriptions: cmd/ID and news.
func givers(text string) *rules {
	r := parseRules(text)
	r.given = func(who Who, _ string) []Given {
		return []Given{
			{Entry: "cmd", Subscription: event.Subscription{Filter: "cmd/" + who.Client + "/#", QoS: 1}},
			{Entry: "news", Subscription: event.Subscription{Filter: "news", QoS: 0, RetainHandling: 2, NoLocal: true}},
		}
	}
	return r
}

// withGivers is a node under such rules.
func withGivers(t *testing.T, text string) *node {
	t.Helper()
	n := newNode(t, Limits{})
	n.policies["given"] = givers(text)
	n.policy("given")
	return n
}

// Who begins a session has what the policy gives, with its options, and what is retained there,
// without having subscribed, whether or not the session lasts; who comes back to one has it
// still, and not anew, nor what it has unsubscribed from; a clean start begins again.
func TestGiven(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := withGivers(t, "allow * #")
		p, _ := n.connect("p", true, 0)
		must(t, p.publish("cmd/c/kept", "kept", 1, retain))
		must(t, p.publish("news", "old", 1, retain))
		c, _ := n.connect("c", true, expiry)
		c.await(1) // before anything else: what is retained may come after what is new
		must(t, p.publish("cmd/c/1", "one", 2))
		must(t, p.publish("cmd/d/1", "another's", 2))
		must(t, p.publish("news", "new", 1))
		must(t, c.publish("news", "own", 1))
		c.want("cmd/c/kept=kept q1 retain", "cmd/c/1=one q1", "news=new q0")
		c.ackAll()
		if existed, err := c.s.Unsubscribe([]string{"news"}); err != nil || !existed[0] {
			t.Fatal(existed, err)
		}
		must(t, p.publish("news", "unheard", 1))
		c.s.Close(false, false, 0)
		n.tick()
		c, present := n.connect("c", false, expiry)
		must(t, p.publish("news", "newer", 1))
		must(t, p.publish("cmd/c/2", "two", 1))
		if present {
			c.want("cmd/c/2=two q1")
		} else {
			c.await(3)
			if got := c.await(0); !slices.Contains(got, "news=newer q0") || !slices.Contains(got, "cmd/c/2=two q1") {
				t.Errorf("a session that begins has got %q", got)
			}
		}
		c.ackAll()
		c, _ = n.connect("c", true, expiry)
		c.await(1)
		must(t, p.publish("news", "newest", 1))
		c.want("cmd/c/kept=kept q1 retain", "news=newest q0")
	}
}

// What the rules do not permit, or there is no room for, is not given, and counted; a window
// closes what is given like any subscription.
func TestGivenWithinTheRules(t *testing.T) {
	n := withGivers(t, "allow * cmd/+/a\nallow * news subscribe 08:00-12:30\nallow p #")
	c, _ := n.connect("c", true, 0)
	p, _ := n.connect("p", true, 0)
	must(t, p.publish("cmd/c/a", "not given", 1))
	must(t, p.publish("news", "open", 1))
	c.want("news=open q0 expires1800")
	if refused := n.stats.GivenRefused.Load(); refused != 1 {
		t.Errorf("%d were counted, want 1", refused)
	}
	n.pass(60 * 60 * 1e9)
	must(t, p.publish("news", "closed", 1))
	c.want("news=open q0 expires1800")
}

// They count against the session's bound and the domain's quota like others, also of sessions
// that end with their connections, and are counted down when they end.
func TestGivenCount(t *testing.T) {
	n := newNode(t, Limits{SubscriptionsPerSession: 1})
	r := givers("allow * #")
	r.quota = map[string]DomainQuota{"example.com": {Subscriptions: 3}}
	n.policies["given"] = r
	n.policy("given")
	used := func() uint64 { return n.UseOf("example.com").Subscriptions.Used }
	a, _ := n.connect("a", true, 3600, as("a@example.com"))
	if got := used(); got != 1 {
		t.Errorf("a session that may have one uses %d", got)
	}
	b, _ := n.connect("b", true, 0, as("b@example.com"))
	if got := used(); got != 2 {
		t.Errorf("with another, which does not last, %d are used, want 2", got)
	}
	if err := b.trySubscribe("more", 0); !errors.Is(err, ErrQuota) {
		t.Errorf("one more: %v", err)
	}
	if _, err := b.s.Unsubscribe([]string{"cmd/b/#"}); err != nil {
		t.Fatal(err)
	}
	n.tick()
	if got := used(); got != 1 {
		t.Errorf("after it has unsubscribed %d are used, want 1", got)
	}
	b.subscribe("more", 0)
	b.s.Close(false, false, 0)
	a.s.Close(false, true, 0)
	n.tick()
	if got := used(); got != 0 {
		t.Errorf("of nobody %d are used", got)
	}
	if refused := n.stats.GivenRefused.Load(); refused != 2 {
		t.Errorf("%d were counted, want 2", refused)
	}
}

// What all filters of a node may take holds for them, too, where the session ends with its
// connection: what there is no room for is not given, and counted, and a SUBSCRIBE is told so.
func TestGivenWithinTheNodesBounds(t *testing.T) {
	n := newNode(t, Limits{Subscriptions: 3})
	n.policies["given"] = givers("allow * #")
	n.policy("given")
	a, _ := n.connect("a", true, 0, as("a@example.com"))
	b, _ := n.connect("b", true, 0, as("b@example.com"))
	must(t, a.publish("cmd/a/1", "one", 1))
	must(t, b.publish("cmd/b/1", "one", 1))
	must(t, b.publish("news", "new", 1))
	a.want("cmd/a/1=one q1", "news=new q0")
	b.want("cmd/b/1=one q1")
	if refused := n.stats.GivenRefused.Load(); refused != 1 {
		t.Errorf("%d were counted, want 1", refused)
	}
	if err := b.trySubscribe("news", 0); !errors.Is(err, ErrQuota) {
		t.Errorf("asked for by name: %v", err)
	}
	a.s.Close(false, false, 0)
	n.tick()
	b.subscribe("news", 0)
}

// It is so on every node, wherever the client comes and what is published there.
func TestGivenOnAllNodes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, n := newCluster(t, 1, 3)
		for _, m := range n {
			m.policies["given"] = givers("allow * #")
		}
		if err := n[0].Raise(context.Background(), NewestLevel); err != nil {
			t.Fatal(err)
		}
		n[0].policy("given")
		l.settle()
		var all []*client
		for i, m := range n {
			lasting, _ := m.connect(fmt.Sprint("d", i), true, 3600)
			passing, _ := m.connect(fmt.Sprint("c", i), true, 0)
			all = append(all, lasting, passing)
		}
		p, _ := n[0].connect("p", true, 0)
		l.settle()
		for _, c := range all {
			must(t, p.publish("cmd/"+c.id+"/1", "logged", 1))
			must(t, p.publish("cmd/"+c.id+"/0", "not logged", 0))
		}
		l.settle()
		for _, c := range all {
			got := c.await(2)
			slices.Sort(got)
			if want := "cmd/" + c.id + "/0=not logged q0 cmd/" + c.id + "/1=logged q1"; strings.Join(got, " ") != want {
				t.Errorf("%s got %q, want %q", c.id, got, want)
			}
		}
		roams, present := n[2].connect("d0", false, 3600)
		must(t, p.publish("cmd/d0/2", "again", 1))
		l.settle()
		if got := roams.await(1); !present || !slices.Contains(got, "cmd/d0/2=again q1") {
			t.Errorf("elsewhere it got %q", got)
		}
		l.checkDigests()
	})
}
