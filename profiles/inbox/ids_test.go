package inbox

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/broker/secret"
	"github.com/bellwire/bellwire/profiles/im"
)

// A message whose sender gives it no id gets one that tells neither whoever has it nor
// the sender how much was ordered in between. Below the level that brings a secret it
// is a place in the log; ids of senders stay as they are, and what has come is known by
// its id after the level has risen, too.
func TestIDsTellNothing(t *testing.T) {
	n := &node{brokertest.NewAt(t, broker.LevelSecret-1, func() []broker.Profile { return []broker.Profile{New(im.New(), Limits{})} }), t}
	phone, ann := n.Connect("phone", bob, time.Hour), n.Connect("ann", alice, time.Hour)
	n.Must(phone.Publish("$me/policy/im", `{"v":1,"rules":[{"id":"alice","if":{"identity":[{"one":"im:alice@example.net"}]},"then":{"handling":"allow"},"show":{"send":true}}]}`, 1))
	phone.Subscribe(inboxOfBob, 1)
	send := func(text string, with ...brokertest.PublishOption) (id string) {
		t.Helper()
		answer, err := ann.Ask(inboxOfBob, text, 1, with...)
		n.Must(err)
		return answer["evt-id"]
	}
	before, own := send("before"), send("own", brokertest.Property("evt-id", "7f3a"))
	if p, err := strconv.ParseUint(before, 36, 64); err != nil || p == 0 || own != "7f3a" {
		t.Errorf("ids %q and %q, want a place in the log and 7f3a", before, own)
	}
	n.Must(n.Raise(context.Background(), broker.NewestLevel))
	middle := n.Copy()
	if id := send("own", brokertest.Property("evt-id", "7f3a")); id != own {
		t.Errorf("sent again: %q, want %q", id, own)
	}
	seen := map[string]bool{}
	greater, most, last := 0, 150, ""
	for range most {
		id := send("after")
		if len(id) != secret.NameLen || seen[id] {
			t.Fatalf("id %q", id)
		}
		if id > last {
			greater++
		}
		seen[id], last = true, id
	}
	// As likely above as below: 44 and 106 are five deviations away.
	if greater < 44 || greater > 106 {
		t.Errorf("%d of %d ids are greater than the one before", greater, most)
	}
	for i, g := range phone.Take(2 + most) {
		var m struct{ ID string }
		if err := json.Unmarshal([]byte(g.Payload), &m); err != nil || i > 1 && !seen[m.ID] {
			t.Errorf("delivery %d has the id %q, %v", i, m.ID, err)
		}
		delete(seen, m.ID)
	}
	n.CheckReplay(middle)
}
