package state_test

import (
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/profiles/state"
)

// A source publishes so many times at once and then at its rate; what is one too many is
// refused before the log, counted, and may be published later. Other sources, and other
// people's tries, use up nothing of it, and whoever was refused can still take back what
// was said.
func TestSourcesHaveARate(t *testing.T) {
	n := newLimited(t, state.Limits{SourceRate: 2, SourceBurst: 3})
	phone, desk, stranger := n.Connect(bob), n.Connect(bob), n.Connect(ann)
	tooMany := func(err error) {
		t.Helper()
		refuses(t, err, broker.ErrQuota, "rate: one source publishes at most 2 times a second, 3 times at once")
	}
	for range 3 { // what is his is nobody's but his to use up
		refuses(t, stranger.TryPublish(bobs+"/phone", open), nil, "theirs")
	}
	tooMany(stranger.TryPublish(bobs+"/phone", open))
	for range 3 {
		phone.Publish(bobs+"/phone", open)
	}
	before := n.Machine().Applied()
	tooMany(phone.TryPublish(bobs+"/phone", closed))
	tooMany(desk.TryPublish(bobs+"/phone", closed)) // it is the same source
	if after := n.Machine().Applied(); after != before {
		t.Errorf("the log went from %d to %d", before, after)
	}
	desk.Publish(bobs+"/desk", open)
	for range 3 {
		phone.Publish(bobs, open) // two clients have two sources without a name
		desk.Publish(bobs, open)
	}
	tooMany(phone.TryPublish(bobs, open))
	for range 5 {
		phone.Publish(policy, everything) // no source's
	}

	for range 3 {
		phone.Publish(bobs+"/phone", "")
	}
	tooMany(phone.TryPublish(bobs+"/phone", ""))
	n.Pass(500 * time.Millisecond)
	phone.Publish(bobs+"/phone", "")
	tooMany(phone.TryPublish(bobs+"/phone", open)) // it owes as much as it has had
	n.Pass(3 * time.Second)
	for range 3 {
		phone.Publish(bobs+"/phone", open)
	}
	tooMany(phone.TryPublish(bobs+"/phone", open))
	if got := n.Over("source.perSecond"); got < 6 {
		t.Errorf("counted %d", got)
	}

	l := state.Limits{SourceRate: 1, SourceBurst: 100}
	if err := n.SetProfileSettings(t.Context(), "presence", l.Settings()); err != nil {
		t.Fatal(err)
	}
	n.Settle()
	for range 90 {
		phone.Publish(bobs+"/phone", open)
	}
}
