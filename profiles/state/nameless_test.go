package state_test

import (
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// Who has no name watches one address at a time, by its name, also in a session that is back;
// by wildcards nothing is granted that is a resource's, and of all topics none is shown, nor
// counted to an owner.
func TestNamelessWatchOne(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		bobsPC, carolsPC := n.Connect(bob), n.Connect(carol)
		for topicName, pc := range map[string]*brokertest.Client{bobs: bobsPC, carols: carolsPC} {
			pc.Publish(policy, demanding("anonymous"))
			pc.Publish(topicName, open)
		}
		connect := func() *brokertest.Client {
			return n.Connect("", brokertest.ClientID("nobody"), brokertest.Expiry(expiry))
		}
		nobody := connect()
		for _, filter := range []string{byWildcard, "presence/#", "presence/+/bob", bobs + "/#"} {
			refuses(t, nobody.TrySubscribe(filter, qos), nil, "identity-required")
		}
		nobody.Subscribe("#", qos)
		wants(t, n, nobody)
		if l := watchersOf(t, n, bob); len(l.Watchers) != 0 {
			t.Errorf("bob is told that he is watched: %v", l)
		}
		nobody.Subscribe(bobs, qos)
		wants(t, n, nobody, "open")
		nobody.Subscribe(bobs, qos)
		wants(t, n, nobody, "open")
		refuses(t, nobody.TrySubscribe(carols, qos), broker.ErrQuota, "connect with a user name")
		if expiry > 0 {
			nobody.Disconnect()
			nobody = connect()
			n.Settle()
			nobody.Take()
		}
		refuses(t, nobody.TrySubscribe(carols, qos), broker.ErrQuota)
		_, err := nobody.TrySubscribeWith(carols, qos, "evt-expires", "0")
		refuses(t, err, broker.ErrQuota)
		if l := watchersOf(t, n, carol); len(l.Watchers) != 0 {
			t.Errorf("carol is told of what was refused: %v", l)
		}
		bobsPC.Publish(bobs, closed)
		carolsPC.Publish(carols, closed)
		wants(t, n, nobody, "closed")
		nobody.Unsubscribe(bobs)
		bobsPC.Publish(bobs, open)
		wants(t, n, nobody) // by # it is shown nothing
		nobody.Subscribe(carols, qos)
		wants(t, n, nobody, "closed")
		n.CheckReplay(nil)
	})
}
