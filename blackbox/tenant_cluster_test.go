package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// tenantsOfThree are three nodes with two tenants, of which one has quotas.
func tenantsOfThree(t *testing.T, quotas string) *trio {
	t.Helper()
	p := loopback()
	policy := quotaPolicy(quotas)
	p.policy = strings.Replace(policy, "users:\n", trioPolicy[:strings.Index(trioPolicy, "groups:")], 1)
	p.policy = strings.Replace(p.policy, "operators: [", "operators: [ana@example.com, ", 1)
	c := p.start(t)
	c.await("the level that has quotas", func(all []member) bool {
		return allVote(all) && !slices.ContainsFunc(all, func(m member) bool { return m.Level < m.Supports })
	})
	return c
}

func nodeName(node int) string { return fmt.Sprint("n", node+1) }

// What a domain may have it may have in the cluster, not on each node: whatever node is
// asked for one more refuses it, also after the leader has been killed, and what a node
// has held that died is free again.
func TestClusterQuotas(t *testing.T) {
	t.Parallel()
	c := tenantsOfThree(t, "subscriptions: 3, retained_topics: 2, watchers: 2")
	code := func(m *mq.Client, filter string) byte {
		return m.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1}).Codes[0]
	}
	var of [clusterSize]*mq.Client
	for i, s := range c.nodes {
		of[i] = s.open(v5, as(boss, durable(v5, "boss-"+nodeName(i))))
		of[i].Subscribe("plant/"+nodeName(i), 1)
	}
	keep := func(m *mq.Client, name string) byte {
		return m.TryPublish(mq.Publish{Topic: name, QoS: 1, Retain: true, Payload: []byte("x")})
	}
	if a, b, more, again := keep(of[0], "plant/a"), keep(of[1], "plant/b"), keep(of[2], "plant/c"), keep(of[2], "plant/a"); a >= 0x80 || b >= 0x80 || more != 0x97 || again >= 0x80 {
		t.Errorf("retained: %#02x %#02x %#02x %#02x", a, b, more, again)
	}
	for i := range of {
		if got := code(of[i], "plant/more"); got != 0x97 {
			t.Errorf("n%d: a subscription more: %#02x", i+1, got)
		}
	}
	used := func(at int, quota string) uint64 { return c.nodes[at].usage(admCom, "example.com")[quota].Used }
	for i := range c.nodes {
		if subs, kept := used(i, "subscriptions"), used(i, "retained_topics"); subs != 3 || kept != 2 {
			t.Errorf("n%d: %d subscriptions and %d retained topics are used, want 3 and 2", i+1, subs, kept)
		}
	}

	lead := c.leader()
	c.nodes[lead].kill()
	next := (lead + 1) % clusterSize
	until(t, "one more is refused without the node that led", patience, func() bool { return code(of[next], "plant/more") == 0x97 })
	other := (lead + 2) % clusterSize
	if got := keep(of[other], "plant/c"); got != 0x97 {
		t.Errorf("one more retained topic: %#02x", got)
	}
	// The durable session of the node that died is another's now, and ends: then there is room.
	gone := c.nodes[next].open(v5, as(boss, durable(v5, "boss-"+nodeName(lead))))
	gone.Unsubscribe("plant/" + nodeName(lead))
	if got := code(of[other], "plant/more"); got >= 0x80 {
		t.Errorf("there is room, and one more is refused: %#02x", got)
	}
	c.nodes[lead].start()
	c.caughtUp()
	until(t, "who was away counts alike", patience, func() bool { return used(lead, "subscriptions") == 3 && used(lead, "retained_topics") == 2 })
	c.alike()
}

// A subscription that an administrator provides at one node is had by the sessions of all
// nodes, and by those that come, though the node where it was made is killed at once.
func TestClusterProvided(t *testing.T) {
	t.Parallel()
	c := tenantsOfThree(t, "sessions: 100")
	pc := c.nodes[0].person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","notes":{"en":"one"}}`, mq.User("evt-expires", day)))
	for i, s := range c.nodes {
		s.person(boss, nodeName(i))
	}
	shown := func(m *mq.Client, what, want string) {
		t.Helper()
		if is := string(shownOf(m, bobsPresence)); !strings.Contains(is, want) {
			t.Errorf("%s: shown %s, want %q", what, is, want)
		}
	}
	made := (c.leader() + 1) % clusterSize
	if a := c.nodes[made].change(admCom, "example.com", "provision", bossToBob); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	c.nodes[made].kill()
	began := time.Now()
	for i, s := range c.nodes {
		if i == made {
			continue
		}
		shown(s.person(boss, "new"), "a session that comes to "+nodeName(i), `"one"`)
	}
	t.Logf("sessions that came were shown it within %v", time.Since(began))
	alive := c.nodes[(made+1)%clusterSize]
	alive.person(bob, "pc2").PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","notes":{"en":"two"}}`, mq.User("evt-expires", day)))
	shown(alive.person(boss, "newer"), "what changed", `"two"`)
	c.nodes[made].start()
	c.caughtUp()
	back := c.nodes[made].person(boss, "back")
	shown(back, "at the node where it was made", `"two"`)
	// Who has it ends it, for all of his sessions on all nodes.
	back.Unsubscribe(bobsPresence)
	for _, s := range c.nodes {
		s.person(boss, "last").Quiet()
	}
	c.alike()
}
