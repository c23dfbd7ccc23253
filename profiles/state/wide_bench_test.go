package state_test

import (
	"context"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/life"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// A wideCrowd is a profile of which as many as may be watch a domain by wildcards, by what
// is published to crowds.
type wideCrowd struct {
	*state.Profile
	came *int
}

func (c wideCrowd) Admit(pub *broker.Publication) error {
	if pub.Event.Topic == crowds {
		return nil
	}
	return c.Profile.Admit(pub)
}

func (c wideCrowd) Apply(tx *broker.ProfileTx, pub *broker.Publication) error {
	if pub.Event.Topic != crowds {
		return c.Profile.Apply(tx, pub)
	}
	b := life.Book{Tx: tx, Limits: life.Limits{}.WithDefaults(), Key: [32]byte{1}, Widened: func(string) {}}
	for range atATime {
		if _, err := b.Widen("example.com/+", life.Request{Topic: byWildcard, Watcher: watcherNumber(*c.came), Session: 1<<40 + uint64(*c.came)}); err != nil {
			return err
		}
		*c.came++
	}
	return nil
}

// BenchmarkWatchedByWildcards is what the list and the counts of one owner cost while so
// many watch the domain by wildcards, whom the owner lets; anew: and somebody has come since
// the last was made.
func BenchmarkWatchedByWildcards(b *testing.B) {
	for _, many := range []int{0, 1000, 10_000} {
		came := 0
		n := brokertest.New(b, func() []broker.Profile {
			return []broker.Profile{wideCrowd{state.New(presence.New([]byte("key"))), &came}}
		})
		l := state.Limits{Life: life.Limits{Wides: 2 * many}}
		if err := n.SetProfileSettings(context.Background(), "presence", l.Settings()); err != nil {
			b.Fatal(err)
		}
		pc := n.Connect(bob)
		pc.Publish(policy, everything)
		for range many / atATime {
			pc.Publish(crowds, "more")
		}
		for _, topicName := range []string{watchersTopic, statsTopic} {
			b.Run(topicName[4:9]+"/"+map[int]string{0: "0", 1000: "1000", 10_000: "10000"}[many], func(b *testing.B) {
				for b.Loop() {
					if _, err := n.Fetch(broker.Who{Principal: bob}, topicName); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		if many == 0 {
			continue
		}
		watcher := n.Connect(ann)
		b.Run("anew/"+map[int]string{1000: "1000", 10_000: "10000"}[many], func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				watcher.Subscribe("presence/example.com/#", 0)
				watcher.Unsubscribe("presence/example.com/#")
				b.StartTimer()
				if _, err := n.Fetch(broker.Who{Principal: bob}, statsTopic); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
