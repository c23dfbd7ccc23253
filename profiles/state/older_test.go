package state_test

import (
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// An olderDoor lets in every policy, as nodes of older versions let in some that
// this one refuses.
type olderDoor struct{ *state.Profile }

func (o olderDoor) Admit(p *broker.Publication) error {
	if strings.HasPrefix(p.Event.Topic, "$me/") {
		return nil
	}
	return o.Profile.Admit(p)
}

// A policy with members that are not known is refused where it comes in. One that
// is in the log, because another node let it in, does what it does there: on all
// nodes the same.
func TestOlderNodesLetInWhatIsNotKnown(t *testing.T) {
	document := strings.Replace(everything, `"then":{`, `"then":{"tint":1,`, 1)
	refuses(t, newNode(t).Connect(bob).TryPublish(policy, document), broker.ErrPayload, "/rules/0/then/tint: no such member here")

	n := brokertest.New(t, func() []broker.Profile {
		return []broker.Profile{olderDoor{state.NewWith(presence.New([]byte("key")), quick)}}
	})
	pc, watcher := n.Connect(bob), n.Connect(ann)
	watcher.Subscribe(bobs, 1)
	pc.Publish(bobs, open)
	wants(t, n, watcher, "nothing")
	pc.Publish(policy, document)
	wants(t, n, watcher, "open")
	refuses(t, pc.TryPublish(policy, `{"v":2}`), broker.ErrPayload, "/v") // Apply has the last word
	n.CheckReplay(nil)
}
