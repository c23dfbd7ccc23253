package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/life"
	owners "github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// A crowd is a profile whose resources can be given very many watchers at once: by what
// is published to crowds.
type crowd struct {
	*state.Profile

	came  *int                                 // so many
	waken func(tx *broker.ProfileTx, f func()) // nil: f
}

// Wake may be measured.
func (c crowd) Wake(tx *broker.ProfileTx, id string) {
	if c.waken == nil {
		c.Profile.Wake(tx, id)
		return
	}
	c.waken(tx, func() { c.Profile.Wake(tx, id) })
}

const (
	crowds  = "presence/example.com/crowd"
	atATime = 1000
)

func watcherNumber(i int) string { return fmt.Sprintf("w%06d@example.net", i) }

func (c crowd) Admit(pub *broker.Publication) error {
	if pub.Event.Topic == crowds {
		return nil
	}
	return c.Profile.Admit(pub)
}

// Apply has atATime more watch bob.
func (c crowd) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	if pub.Event.Topic != crowds {
		return c.Profile.Apply(tx, pub)
	}
	b := life.Book{
		Tx: tx, Limits: life.Limits{}.WithDefaults(), Key: [32]byte{1},
		Judge: func(string, string, string) life.Verdict { return life.Verdict{Handling: owners.Allow} },
		Noted: func(string, bool) {}, Hold: func(*life.Entry) {}, Release: func(string) {},
	}
	for range atATime {
		if _, _, err := b.Subscribe(life.Request{Topic: bobs, Watcher: watcherNumber(*c.came), Session: 1<<40 + uint64(*c.came)}); err != nil {
			return err
		}
		*c.came++
	}
	return nil
}

// newCrowd starts a node at which so many watch bob, who lets everybody.
func newCrowd(t testing.TB, watchers int, waken func(tx *broker.ProfileTx, f func())) (*brokertest.Node, *brokertest.Client) {
	t.Helper()
	came := 0
	n := brokertest.New(t, func() []broker.Profile {
		return []broker.Profile{crowd{state.New(presence.New([]byte("key"))), &came, waken}}
	})
	pc := n.Connect(bob)
	pc.Publish(policy, everything)
	for range watchers / atATime {
		pc.Publish(crowds, "more")
	}
	return n, pc
}

// What is pushed has the newest and says where the rest is; by pages all can be read, each
// once, though some come to the front meanwhile. A page's end is good for its owner only.
func TestPagesOfWatchers(t *testing.T) {
	n, pc := newCrowd(t, 3000, nil)
	var pushed struct {
		Total    int
		More     bool
		Rest     string
		Watchers []watcherRow
	}
	if err := json.Unmarshal([]byte(ownOf(t, n, bob, watchersTopic)), &pushed); err != nil {
		t.Fatal(err)
	}
	if pushed.Total != 3000 || !pushed.More || pushed.Rest != "/v1/me/watchers/presence" || len(pushed.Watchers) == 0 || len(pushed.Watchers) > 1000 {
		t.Errorf("pushed are %d of %d, more: %t at %q", len(pushed.Watchers), pushed.Total, pushed.More, pushed.Rest)
	}
	seen, after, pages := map[string]int{}, "", 0
	for ; pages == 0 || after != ""; pages++ {
		shown, err := n.FetchPage(broker.Who{Principal: bob}, watchersTopic, after)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Next     string
			Watchers []watcherRow
		}
		if err := json.Unmarshal(shown.Payload, &page); err != nil || len(shown.Payload) > 64<<10 {
			t.Fatalf("%d bytes: %v", len(shown.Payload), err)
		}
		for _, r := range page.Watchers {
			seen[r.URI]++
		}
		if after = page.Next; pages == 0 {
			if _, err := n.FetchPage(broker.Who{Principal: ann}, watchersTopic, after); !errors.Is(err, broker.ErrTopicName) {
				t.Errorf("another goes on there: %v", err)
			}
			pc.Publish("$ctl/revoke", `{"kind":"presence","watcher":"pres:`+watcherNumber(2000)+`"}`) // on the first page
		}
	}
	if len(seen) != 3000 || pages < 3 {
		t.Errorf("on %d pages are %d", pages, len(seen))
	}
	for uri, times := range seen {
		if times != 1 {
			t.Errorf("%s stands on them %d times", uri, times)
		}
	}
	if _, err := n.FetchPage(broker.Who{Principal: bob}, statsTopic, "x"); !errors.Is(err, broker.ErrTopicName) {
		t.Errorf("counts have another page: %v", err)
	}
}
