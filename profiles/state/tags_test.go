package state_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/broker/secret"
)

// Who publishes twice cannot tell from the tags what was ordered in between, nor which
// is the newer; every node and every replay has the same ones. A tag from before there
// was a secret is still good, once.
func TestTagsTellNothing(t *testing.T) {
	n := brokertest.NewAt(t, broker.LevelSecret-1, presences)
	publish := func(pc *brokertest.Client, payload string, with ...brokertest.PublishOption) string {
		t.Helper()
		answer, err := pc.PublishAnswer(bobs+"/pc", payload, append(with, brokertest.Retain)...)
		if err != nil {
			t.Fatal(err)
		}
		return answer["evt-etag"]
	}
	pc := n.Connect(bob)
	first, second := publish(pc, open), publish(pc, closed)
	if a, b := position(first), position(second); a == 0 || b <= a {
		t.Errorf("tags %s and %s below level %d, want places in the log", first, second, broker.LevelSecret)
	}
	if err := n.Raise(context.Background(), broker.NewestLevel); err != nil {
		t.Fatal(err)
	}
	middle := n.Copy()
	last := publish(pc, open, etag(second))
	if _, err := pc.PublishAnswer(bobs+"/pc", closed, etag(second), brokertest.Retain); err == nil {
		t.Error("a tag from before the level is good twice")
	}
	seen := map[string]bool{}
	greater, most := 0, 200
	for i := range most {
		tag := publish(pc, open, etag(last))
		if len(tag) != secret.NameLen || seen[tag] || position(tag) != 0 {
			t.Fatalf("tag %d is %q", i, tag)
		}
		if tag > last {
			greater++
		}
		seen[tag], last = true, tag
	}
	// As likely above as below: 60 and 140 are more than five deviations away.
	if greater < 60 || greater > 140 {
		t.Errorf("%d of %d tags are greater than the one before", greater, most)
	}
	n.CheckReplay(middle)
	n.CheckReplay(nil)
	n.Crash()
	pc = n.Connect(bob)
	publish(pc, closed, etag(last))

	other := newNode(t)
	there := publish(other.Connect(bob), open)
	for range 10 { // the places in its log, and more
		if seen[there] {
			t.Errorf("two clusters have the tag %s", there)
		}
		there = publish(other.Connect(bob), open)
	}
}

// position returns the place in the log that a tag is, 0 for none.
func position(tag string) uint64 {
	p, _ := strconv.ParseUint(tag, 36, 64)
	if p == 0 || strconv.FormatUint(p, 36) != tag {
		return 0
	}
	return p
}
