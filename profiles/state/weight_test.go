package state_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/state"
)

// tuples is a document of n services, which weighs 2 for each of them and 2 for itself,
// and a little for its octets.
func tuples(n int) string {
	each := make([]string, n)
	for i := range each {
		each[i] = fmt.Sprintf(`{"id":"%d"}`, i)
	}
	return `{"tuples":[` + strings.Join(each, ",") + `]}`
}

// What all sources of a resource say together is bounded by what it takes to compose:
// who wants more is told how much there would be, and what to do, and nothing has
// changed. Less is always possible, and so is saying that what stands still holds.
func TestWeight(t *testing.T) {
	n, pc, watcher := pair(t)
	publish := func(source, payload string, with ...brokertest.PublishOption) (tag string, err error) {
		answer, err := pc.PublishAnswer(bobs+"/"+source, payload, append(with, brokertest.Retain)...)
		return answer["evt-etag"], err
	}
	must := func(tag string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return tag
	}
	shown := func() string {
		t.Helper()
		s, err := n.Fetch(broker.Who{Principal: ann}, bobs)
		if err != nil {
			t.Fatal(err)
		}
		return string(s.Payload)
	}
	first := must(publish("a", tuples(100))) // 204
	must(publish("b", tuples(100)))
	n.Settle()
	watcher.Take()
	before := shown()
	_, err := publish("c", tuples(60))
	refuses(t, err, broker.ErrQuota, "quota: ", "531 units, 123 of them this one", "at most 512", "remove a source")
	n.Settle()
	if got := watcher.Take(); len(got) != 0 || shown() != before {
		t.Errorf("what was refused is shown: %v", got)
	}
	must(publish("c", tuples(50))) // 511
	_, err = publish("d", open)
	refuses(t, err, broker.ErrQuota, "515 units, 4 of them this one")
	first = must(publish("a", "", etag(first), seconds(600)))
	if _, err := publish("a", tuples(99), etag(first)); err != nil {
		t.Errorf("a lighter document in the place of one: %v", err)
	}
	must(publish("b", ""))
	must(publish("d", tuples(80)))

	n.CheckReplay(n.Copy())
}

// What is lost weighs nothing, until its source says that it holds after all: that is
// refused if others have taken its place.
func TestWeightOfWhatIsLost(t *testing.T) {
	n, pc, _ := pair(t)
	phone := n.Connect(bob, brokertest.ClientID("phone"), brokertest.Expiry(3600))
	answer, err := phone.PublishAnswer(bobs+"/phone", tuples(100))
	if err != nil {
		t.Fatal(err)
	}
	pc.Publish(bobs+"/a", tuples(100))
	refuses(t, pc.TryPublish(bobs+"/b", tuples(100)), broker.ErrQuota, "612 units, 204 of them this one")
	phone.Lose()
	n.Pass(state.LostAfter)
	pc.Publish(bobs+"/b", tuples(100))
	pc.Publish(bobs+"/c", tuples(10))
	again := n.Connect(bob, brokertest.ClientID("phone"), brokertest.Expiry(3600))
	_, err = again.PublishAnswer(bobs+"/phone", "", etag(answer["evt-etag"]), seconds(600))
	refuses(t, err, broker.ErrQuota, "634 units, 204 of them this one")
	pc.Publish(bobs+"/b", "")
	if _, err = again.PublishAnswer(bobs+"/phone", "", etag(answer["evt-etag"]), seconds(600)); err != nil {
		t.Errorf("with room for it: %v", err)
	}
	refuses(t, pc.TryPublish(bobs+"/b", tuples(100)), broker.ErrQuota, "quota: ")
	n.CheckReplay(n.Copy())
}

// A resource from before anything was weighed has what it has, and may get less: its
// publications are weighed when one of them changes, on every node alike.
func TestWeightOfOlderRecords(t *testing.T) {
	n := brokertest.NewAt(t, broker.LevelWeights-1, presences)
	pc := n.Connect(bob)
	pc.Publish(policy, everything)
	for _, source := range []string{"a", "b", "c"} {
		pc.Publish(bobs+"/"+source, tuples(100), brokertest.Retain)
	}
	older := n.Copy()
	if err := n.Raise(context.Background(), broker.NewestLevel); err != nil {
		t.Fatal(err)
	}
	refuses(t, pc.TryPublish(bobs+"/d", open, brokertest.Retain), broker.ErrQuota, "616 units, 4 of them this one")
	refuses(t, pc.TryPublish(bobs+"/a", tuples(100)+" ", brokertest.Retain), broker.ErrQuota, "612 units, 204 of them this one")
	pc.Publish(bobs+"/a", tuples(90), brokertest.Retain)
	newer := n.Copy()
	pc.Publish(bobs+"/b", "", brokertest.Retain)
	pc.Publish(bobs+"/d", tuples(60), brokertest.Retain)
	refuses(t, pc.TryPublish(bobs+"/b", open, brokertest.Retain), broker.ErrQuota, "quota: ")
	n.CheckReplay(older)
	n.CheckReplay(newer)
}
