package inbox

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/kind"
)

// Who is removed from the operator's policy leaves no message, no policy, no id and
// no contact to whoever is given the name later; the senders of what nobody had are
// told that it failed, as from an inbox that there never was. What there is of it is
// more than one piece, and begins while a device is being given it.
func TestForgotten(t *testing.T) {
	var left probe
	inner := brokertest.NewWith(t, broker.Limits{SettleEvery: time.Millisecond}, func() []broker.Profile { return []broker.Profile{prober{New(im.New(), Limits{}), &left}} })
	n, phone, ann := befriendedOn(&node{inner, t})
	users := func(names string) {
		t.Helper()
		n.Must(n.SetPolicy(context.Background(), []byte("users "+names)))
		n.Settle()
	}
	users(alice + " " + bob)
	n.Must(phone.Publish(inboxOfAlice, "hello", 1)) // alice does not want it, and is bob's contact
	const sent = 3*pieceMessages + 1
	for i := range sent {
		n.Must(ann.Publish(inboxOfBob, fmt.Sprint("for the first bob ", i), 1, brokertest.Property("evt-id", fmt.Sprint(i))))
	}
	phone.Stall()
	phone.Subscribe(inboxOfBob, 1) // it is given a piece, and takes nothing
	midway := n.Copy()

	users(alice)
	n.Pass(broker.ForgetAfter - time.Minute)
	ann.Take(0) // nothing has failed yet
	n.Pass(time.Minute)
	for range sent/pieceMessages + 2 {
		n.Pass(time.Second)
	}
	for _, g := range ann.Take(sent) {
		if m := read(t, g); m.Disposition != "failed" || m.Reason != reasonUnavailable {
			t.Errorf("alice is told %s", g)
		}
	}
	left.keys = []string{
		inboxOfBob, senderKey(kind.Of(bob)), contactKey(kind.Of(bob), kind.Of(alice)), broker.PolicyKey(bob),
		idKey(inboxOfBob, kind.Of(alice), "7", kind.Addr{}),
	}
	for i := range uint64(sent + 1) {
		left.keys = append(left.keys, keptKey(inboxOfBob, i), slotKey(inboxOfBob, i))
	}
	n.Must(ann.Publish(inboxOfAlice, "has it looked for them", 1))
	if len(left.found) > 0 {
		t.Errorf("left are %q", left.found)
	}
	n.CheckReplay(midway)

	users(alice + " " + bob)
	other := n.Connect("other", bob, time.Hour)
	other.Subscribe(inboxOfBob, 1)
	other.Take(0)
	n.Must(ann.Publish(inboxOfBob, "by default only contacts write", 1))
	if m := read(t, ann.Take(1)[0]); m.Reason != reasonUnavailable {
		t.Errorf("alice is a contact of the new bob, or permitted: %+v", m)
	}
	n.Must(other.Publish(inboxOfAlice, "hello", 1))
	n.Must(ann.Publish(inboxOfBob, "first", 1))
	if m := read(t, other.Take(1)[0]); m.Body != "first" || m.ISeq != 1 {
		t.Errorf("the new bob is sent %+v, want the first message of his inbox", m)
	}
}

// A probe is which of some keys there are, as of the publication that came last.
type probe struct{ keys, found []string }

type prober struct {
	*Profile
	probe *probe
}

func (p prober) Admit(pub *broker.Publication) error {
	p.probe.found = nil
	for _, key := range p.probe.keys {
		if pub.Get(key) != nil {
			p.probe.found = append(p.probe.found, key)
		}
	}
	return p.Profile.Admit(pub)
}
