package state_test

import (
	"context"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// Who is removed from the operator's policy leaves nothing to whoever is given the
// name later: neither presence, of whatever source, nor a policy by which somebody
// would see theirs. Nobody else loses anything, and a replay ends the same.
func TestForgotten(t *testing.T) {
	n := newNode(t)
	users := func(names string) {
		t.Helper()
		if err := n.SetPolicy(context.Background(), []byte("users "+names)); err != nil {
			t.Fatal(err)
		}
		n.Settle()
	}
	const cal, eve, eves = "cal@example.com", "eve@example.com", "presence/example.com/eve"
	users(bob + " " + ann + " " + cal + " " + eve)
	delegated := everything[:len(everything)-1] + `,"delegates":[{"one":"pres:` + cal + `","sources":["calendar"]}]}`
	for _, who := range []string{bob, eve} {
		c := n.Connect(who)
		c.Publish(policy, delegated)
		topicName := map[string]string{bob: bobs, eve: eves}[who]
		c.Publish(topicName, open, brokertest.Retain)
		n.Connect(cal).Publish(topicName+"/calendar", open, brokertest.Retain)
	}
	watcher := n.Connect(ann)
	watcher.Subscribe("presence/example.com/+", 1)
	wants(t, n, watcher, "open", "open")
	midway := n.Copy()

	users(ann + " " + cal + " " + eve)
	wants(t, n, watcher)
	n.Pass(broker.ForgetAfter - time.Minute) // what bob and eve published themselves has expired
	for _, topicName := range []string{bobs, eves} {
		n.Connect(cal).Publish(topicName+"/calendar", open, brokertest.Retain)
	}
	watcher = n.Connect(ann)
	watcher.Subscribe("presence/example.com/+", 1)
	wants(t, n, watcher, "open", "open")
	n.Pass(time.Minute)
	wants(t, n, watcher, "nothing")
	n.CheckReplay(midway)
	users(bob + " " + ann + " " + cal + " " + eve) // another bob
	n.Restart()
	watcher, again := n.Connect(ann), n.Connect(bob)
	watcher.Subscribe("presence/example.com/+", 1)
	wants(t, n, watcher, "open") // eve's
	again.Subscribe(policy, 1)
	n.Settle()
	if got, _ := again.Shown(policy); got.Payload != "" {
		t.Errorf("the new bob finds the policy %s", got.Payload)
	}
	again.Publish(bobs, open)
	wants(t, n, watcher)
	if err := n.Connect(cal).TryPublish(bobs+"/calendar", open); err == nil {
		t.Error("a delegate of the old bob publishes for the new one")
	}
	n.CheckReplay(nil)
}
