package broker

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker/event"
)

// guests is a profile for tests: who publishes to guest/{name} calls at name's, and
// $me/callers/guest says to whom how often somebody has called: by numbered documents,
// once in five seconds.
type guests struct{}

func (guests) Prefix() string           { return "guest" }
func (guests) Admit(*Publication) error { return nil }
func (guests) Watch(Who, string) error  { return &Refusal{Reason: "nobody reads there"} }

func (guests) Apply(tx *ProfileTx, p *Publication) error {
	owner := strings.TrimPrefix(p.Event.Topic, "guest/")
	tx.Set(owner, binary.BigEndian.AppendUint64(nil, callsOf(tx.Get(owner))+1))
	tx.OwnChanged("callers", owner)
	return nil
}

func callsOf(v []byte) uint64 {
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

func (guests) Own(name string) OwnView {
	if name == "callers" {
		return callers{}
	}
	return nil
}

type callers struct{}

func (callers) Pace() (burst int, interval time.Duration) { return 1, 5 * time.Second }

func (callers) Show(keys Keys, who Who, _ int64) Shown {
	return Shown{Visible: true, Payload: fmt.Appendf(nil, "%d calls", callsOf(keys.Get(who.Principal)))}
}

// Next tells how many calls there have been in all, and then how many more.
func (callers) Next(keys Keys, who Who, _ int64, n uint64, last any) (s Shown, now any, send bool) {
	calls := callsOf(keys.Get(who.Principal))
	before, known := last.(uint64)
	switch {
	case !known:
		return Shown{Visible: true, Payload: fmt.Appendf(nil, "#%d all %d", n, calls)}, calls, true
	case before == calls:
		return Shown{}, nil, false
	}
	return Shown{Visible: true, Payload: fmt.Appendf(nil, "#%d +%d", n, calls-before)}, calls, true
}

const ownCallers = "$me/callers/guest"

func (c *client) call(whom string) {
	c.n.t.Helper()
	if err := c.publish("guest/"+whom+"@x.org", "x", 1); err != nil {
		c.n.t.Fatal(err)
	}
}

// What is somebody's own is shown to their sessions alone, by documents that follow
// each other, no oftener than its pace lets it, and whole to whoever begins.
func TestOwnIsShownToItsOwner(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		for qos := range uint8(2) {
			t.Run(fmt.Sprintf("expiry %d QoS %d", expiry, qos), func(t *testing.T) {
				n := newNodeWith(t, Limits{}, guests{})
				bob, ann, eve := n.person("bob", expiry), n.person("ann", expiry), n.person("eve", 0)
				bob.subscribe(ownCallers, qos)
				ann.subscribe(ownCallers, qos)
				is := func(payload string, retain bool) string {
					s := fmt.Sprintf("%s=%s q%d", ownCallers, payload, qos)
					if retain {
						s += " retain"
					}
					return s
				}
				bob.want(is("#0 all 0", true))
				ann.want(is("#0 all 0", true))
				eve.call("bob")
				bob.want(is("#0 all 0", true), is("#1 +1", false))
				for range 3 { // within the pace: held, and told together
					eve.call("bob")
				}
				bob.want(is("#0 all 0", true), is("#1 +1", false))
				n.pass(5 * time.Second)
				bob.want(is("#0 all 0", true), is("#1 +1", false), is("#2 +3", false))
				ann.want(is("#0 all 0", true))
				n.pass(5 * time.Second)
				eve.call("ann")
				ann.want(is("#0 all 0", true), is("#1 +1", false))
				bob.subscribe(ownCallers, qos) // asks for it anew
				bob.want(is("#0 all 0", true), is("#1 +1", false), is("#2 +3", false), is("#0 all 4", true))
				_, _ = bob.s.Unsubscribe([]string{ownCallers})
				n.pass(5 * time.Second)
				eve.call("bob")
				bob.want(is("#0 all 0", true), is("#1 +1", false), is("#2 +3", false), is("#0 all 4", true))
			})
		}
	}
}

// Nobody publishes what the broker shows, reads it without an identity, or reaches it
// by a wildcard.
func TestOwnIsOnlyShown(t *testing.T) {
	n := newNodeWith(t, Limits{}, guests{})
	bob, eve := n.person("bob", 0), n.person("eve", 0)
	bob.call("bob")
	if err := eve.publish(ownCallers, "x", 1); err == nil || !strings.Contains(err.Error(), "shown by the broker") {
		t.Errorf("somebody publishes there: %v", err)
	}
	if s, err := n.Fetch(bob.s.who, ownCallers); err != nil || string(s.Payload) != "1 calls" {
		t.Errorf("bob fetches %q, %v", s.Payload, err)
	}
	if s, err := n.Fetch(eve.s.who, ownCallers); err != nil || string(s.Payload) != "0 calls" {
		t.Errorf("eve fetches %q, %v: that is not hers", s.Payload, err)
	}
	nobody, _ := n.connect("nobody", false, 0, func(r *ConnectRequest) { r.Principal = "" })
	if err := nobody.s.maySubscribe(ownCallers, nil, n.now()); err == nil || !strings.Contains(err.Error(), "identity-required") {
		t.Errorf("nobody subscribes: %v", err)
	}
	if _, err := n.Fetch(Who{}, ownCallers); err == nil {
		t.Error("nobody fetches")
	}
	for _, filter := range []string{"#", "+/callers/guest", "$me/+/guest", "$me/callers/+"} {
		if eve.s.maySubscribe(filter, nil, n.now()) == nil {
			eve.subscribe(filter, 1)
		}
	}
	bob.call("bob")
	eve.call("eve")
	for _, got := range eve.await(0) {
		if strings.Contains(got, "calls") || strings.Contains(got, "#") {
			t.Errorf("eve is sent %s", got)
		}
	}
}

// A principal's sessions are found in the order of their numbers, however they come
// and go.
func TestSessionsOfAPrincipal(t *testing.T) {
	b := byPrincipal[string]{}
	for _, n := range []uint64{5, 1, 9, 3} {
		b.add("bob", n, fmt.Sprint(n))
		b.add("", n, "nobody's")
	}
	b.add("bob", 5, "5 again")
	b.remove("bob", 9)
	b.remove("bob", 8)
	b.remove("eve", 1)
	if got := fmt.Sprint(b.of("bob"), len(b.of("")), len(b.of("eve"))); got != "[1 3 5 again] 0 0" {
		t.Error(got)
	}
	for _, n := range []uint64{1, 3, 5} {
		b.remove("bob", n)
	}
	if len(b) != 0 {
		t.Errorf("%d principals are left", len(b))
	}
}

// What is shown to somebody's own sessions goes to a few of them by one task of the delivery
// loop, however many there are; all are shown it, by their own numbers.
func TestOwnIsShownToAFewAtOnce(t *testing.T) {
	for qos := range uint8(2) {
		n := newNodeWith(t, Limits{}, guests{})
		bob := func(id string, sink Sink) {
			s, _, _, err := n.Connect(ConnectRequest{Client: id, Principal: "bob@x.org", Version: 5, ReceiveMax: 100}, sink)
			must(t, err)
			start(s)
			s.Subscribe([]event.Subscription{{Filter: ownCallers, QoS: qos}}, func([]SubResult, *Wave) {})
		}
		const many = 50
		var all crowd
		for i := range many {
			bob(fmt.Sprint("one", i), oneOf{&all})
		}
		last, _ := n.connect("last", true, 3600, func(r *ConnectRequest) { r.Principal = "bob@x.org" })
		last.subscribe(ownCallers, qos)
		last.want(fmt.Sprintf("%s=#0 all 0 q%d retain", ownCallers, qos))
		n.catchUp()
		all.took()
		n.person("eve", 0).call("bob")
		n.catchUp()
		if total, widest, _ := all.took(); total != many || widest > ownAtOnce {
			t.Errorf("QoS %d: it was shown to %d, by one task to %d; want %d, and no more than %d", qos, total, widest, many, ownAtOnce)
		}
		last.want(fmt.Sprintf("%s=#0 all 0 q%d retain", ownCallers, qos), fmt.Sprintf("%s=#1 +1 q%d", ownCallers, qos))
	}
}
