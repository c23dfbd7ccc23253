package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A court is an owner who decides about a watcher with a device on each node of a
// cluster.
type court struct {
	c       *trio
	devices [clusterSize]*mq.Client // nil: its node is down
}

// courtPolicy is trioPolicy, and knows who they are.
func courtPolicy() string {
	return strings.Replace(trioPolicy, "groups:", strings.TrimPrefix(usersOf(alice, bob), "users:\n")+"groups:", 1)
}

// asks has the watcher's device on node i ask to see bob.
func (k *court) asks(i int) {
	k.c.t.Helper()
	if k.devices[i] == nil {
		k.devices[i] = k.c.nodes[i].person(alice, fmt.Sprint("on node ", i))
		k.devices[i].Subscribe(bobsSubscription, 1)
	}
	k.devices[i].Subscribe(bobsPresence, 1)
}

// decides has bob, at node i, decide by verb, and returns how long it takes until
// all the watcher's devices are sent something on topic that says so. kill has the node
// killed as soon as it has acknowledged that.
func (k *court) decides(i int, verb, topic, says string, kill bool) (longest time.Duration) {
	k.c.t.Helper()
	owner := k.c.nodes[i].person(bob, "judge")
	owner.Publish("$ctl/"+verb, 1, `{"kind":"presence","watcher":"pres:alice@example.net"}`)
	began := time.Now()
	if kill {
		k.c.nodes[i].kill()
		k.devices[i].Close()
		k.devices[i] = nil
	} else {
		owner.Disconnect()
	}
	for at, d := range k.devices {
		for d != nil {
			p := d.Arrives(patience)
			if p == nil {
				k.c.t.Fatalf("%s at node %d: the device on node %d was sent nothing that says %q", verb, i, at, says)
			}
			d.Acknowledge(p)
			if p.Topic == topic && strings.Contains(string(p.Payload), says) {
				longest = max(longest, time.Since(began))
				break
			}
		}
	}
	return longest
}

// What an owner decides reaches live subscriptions on all nodes within a second, under
// load, whichever node it is decided at, and on the others if that node is killed as
// soon as it has acknowledged it: an approval, a revocation, another policy.
func TestClusterOwnersDecideWithinASecond(t *testing.T) {
	p := loopback()
	p.policy = courtPolicy()
	c := p.start(t)
	c.await("the level that has requests", func(all []member) bool {
		return allVote(all) && !slices.ContainsFunc(all, func(m member) bool { return m.Level < m.Supports })
	})
	k := &court{c: c}
	owner := c.nodes[0].person(bob, "pc")
	owner.PublishMessage(retained(bobsPresence, `{"basic":"open"}`, mq.User("evt-expires", "86400")))
	l := c.load()
	l.start()
	for round := range 2 * clusterSize {
		at, kill := round%clusterSize, round >= clusterSize
		attempts(t, func(try *attempt) {
			c.nodes[(at+1)%clusterSize].person(bob, "pc").Publish("$me/policy/presence", 1, undecided)
			for i := range c.nodes {
				k.asks(i)
			}
			took := k.decides(at, "approve", bobsPresence, `"open"`, kill)
			try.within(time.Second, took, fmt.Sprintf("approved at n%d, which was killed then, %v, it had reached all", at+1, kill))
			if kill {
				c.nodes[at].start()
				c.caughtUp()
			}
			took = k.decides((at+2)%clusterSize, "revoke", bobsSubscription, `"terminated"`, false)
			try.within(time.Second, took, fmt.Sprintf("revoked at n%d it had reached all", (at+2)%clusterSize+1))
		})
	}
	l.finish()
	c.alike()
}
