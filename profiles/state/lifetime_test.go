package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/life"
	owners "github.com/bellwire/bellwire/profiles/policy"
	"github.com/bellwire/bellwire/profiles/state"
)

// newLimited returns a node with other limits.
func newLimited(t *testing.T, l state.Limits) *brokertest.Node {
	t.Helper()
	n := newNode(t)
	if err := n.SetProfileSettings(context.Background(), "presence", l.Settings()); err != nil {
		t.Fatal(err)
	}
	return n
}

// A subscription lasts as long as was asked for, or granted; asking again refreshes it,
// and without that it ends at its time, and the watcher is told.
func TestSubscriptionExpires(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		pc.Publish(policy, everything)
		watcher.Subscribe("$me/sub/#", qos)
		ask := func(seconds string) map[string]string {
			t.Helper()
			answer, err := watcher.TrySubscribeWith(bobs, qos, "evt-expires", seconds)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		if a := ask("60"); a["evt-expires"] != "60" || a["evt-sid"] == "" {
			t.Errorf("the answer is %v", a)
		}
		saw(t, n, watcher, "active for 60", "nothing")
		n.Pass(45 * time.Second)
		ask("60")
		saw(t, n, watcher, "nothing") // the rest it has been told
		n.Pass(45 * time.Second)
		if got := stateOf(t, n, ann); got != "active for 15" {
			t.Errorf("refreshed, and 45 seconds later: %s", got)
		}
		n.Pass(14 * time.Second)
		pc.Publish(bobs, open)
		saw(t, n, watcher, "open")
		middle := n.Copy()
		n.Pass(time.Second)
		saw(t, n, watcher, "terminated timeout")
		pc.Publish(bobs, closed)
		saw(t, n, watcher)
		if a := ask("315360000"); a["evt-expires"] != fmt.Sprint(30*24*3600) {
			t.Errorf("ten years: granted are %s seconds", a["evt-expires"])
		}
		saw(t, n, watcher, "active for 2592000", "closed")
		for _, seconds := range []string{"29", "1", "-1", "x"} {
			_, err := watcher.TrySubscribeWith(bobs, qos, "evt-expires", seconds)
			if brief := seconds == "29" || seconds == "1"; !errors.Is(err, broker.ErrRefused) || brief != strings.Contains(err.Error(), "min-expires=30") {
				t.Errorf("%s seconds: %v", seconds, err)
			}
		}
		n.CheckReplay(middle)
	})
}

// An expiry of 0 shows the state once; who had a subscription has it no more.
func TestFetchBySubscribing(t *testing.T) {
	n := newNode(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, everything)
	pc.Publish(bobs, open)
	fetch := func() {
		t.Helper()
		if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-expires", "0"); err != nil {
			t.Fatal(err)
		}
	}
	fetch()
	saw(t, n, watcher, "open")
	pc.Publish(bobs, closed)
	saw(t, n, watcher)
	watcher.Subscribe(bobs, 1)
	saw(t, n, watcher, "closed")
	fetch()
	saw(t, n, watcher, "closed")
	pc.Publish(bobs, open)
	saw(t, n, watcher)
	n.CheckReplay(nil)
}

// What nobody decides is given up, at a time that is the watcher's and the address's;
// whoever is ignored is told the same at the same time, and so is who asked for an
// address that nobody has. The owner can still let in who waited: the next time they ask
// they are.
func TestGiveUp(t *testing.T) {
	traces := map[string]string{}
	for _, name := range []string{"undecided", "ignored", "no such address"} {
		n := newLimited(t, state.Limits{Default: owners.Confirm})
		watcher := n.Connect(ann, brokertest.Expiry(100*24*3600))
		pc := n.Connect(bob)
		switch name {
		case "undecided":
			pc.Publish(policy, confirm)
		case "ignored":
			pc.Publish(policy, rules(strings.Replace(rule("r", "block", "", "", ann), `"block"`, `"block","style":"ignore"`, 1)))
		}
		watcher.Subscribe("$me/sub/#", 1)
		answer, err := watcher.TrySubscribeWith(bobs, 1)
		if err != nil {
			t.Fatal(err)
		}
		trace := fmt.Sprint(len(answer["evt-sid"]), len(answer))
		if name != "no such address" {
			pc.Publish(bobs, open)
		}
		begun := n.Now()
		for range 9 * 24 {
			n.Pass(time.Hour)
			for _, g := range watcher.Take() {
				s := readTold(t, g.Payload)
				trace += fmt.Sprintf(" %s %s %d", n.Now().Sub(begun), s, len(g.Payload))
			}
		}
		traces[name] = trace
		if after := n.Now().Sub(begun); !strings.Contains(trace, "terminated giveup") || after < life.GiveUpAfter {
			t.Errorf("%s: %s", name, trace)
		}
		if name == "undecided" {
			if a, err := pc.PublishAnswer("$ctl/approve", `{"kind":"presence","watcher":"ann@example.net"}`); err != nil || a["matched"] != "1" {
				t.Errorf("who waits is approved: %v, %v", a, err)
			}
			saw(t, n, watcher) // it does not look otherwise than before
			if got := stateOf(t, n, ann); got != "terminated giveup" {
				t.Errorf("approved too late: %s", got)
			}
			watcher.Subscribe(bobs, 1)
			saw(t, n, watcher, "active", "open")
		}
		n.CheckReplay(nil)
	}
	// The secret of each node is another, and so are the times: they are compared in
	// profiles/life.
	for name, trace := range traces {
		if words(trace) != words(traces["undecided"]) {
			t.Errorf("%s looks like %q, undecided like %q", name, trace, traces["undecided"])
		}
	}
}

// words leaves out times.
func words(trace string) string {
	var kept []string
	for _, w := range strings.Fields(trace) {
		if !strings.HasSuffix(w, "s") || !strings.Contains(w, "h") {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}

// Bounds: so many requests of one watcher wait, to one address, and so often may one be
// asked for again. Others can still ask.
func TestRequestsAreBounded(t *testing.T) {
	n := newLimited(t, state.Limits{Default: owners.Confirm, Life: life.Limits{PendingByWatcher: 3, PendingOf: 2, PerMinute: 4}})
	watcher := n.Connect(ann)
	topic := func(i int) string { return fmt.Sprintf("presence/example.com/p%d", i) }
	for i := range 3 {
		watcher.Subscribe(topic(i), 1)
	}
	refuses(t, watcher.TrySubscribe(topic(3), 1), broker.ErrQuota, "3 requests")
	watcher.Unsubscribe(topic(0))
	watcher.Subscribe(topic(3), 1)
	n.Connect("b@x.org").Subscribe(topic(1), 1)
	refuses(t, n.Connect("c@x.org").TrySubscribe(topic(1), 1), broker.ErrQuota)

	other := n.Connect("d@x.org")
	for range 5 {
		other.Subscribe(topic(7), 1)
		other.Unsubscribe(topic(7))
	}
	refuses(t, other.TrySubscribe(topic(7), 1), broker.ErrQuota, "rate")
	n.Pass(time.Minute)
	other.Subscribe(topic(7), 1)
	n.CheckReplay(nil)
}

// People of one domain ask those of others so often in an hour, by the log's time and after a
// restart; whom they ask makes no difference. It is counted, and others can still ask.
func TestDomainsAskSoOften(t *testing.T) {
	n := newLimited(t, state.Limits{Default: owners.Confirm, Life: life.Limits{ByDomain: 2}})
	n.Connect(bob).Publish(policy, confirm)
	const reason = "rate: your domain has asked for as much of others as it may in an hour, 2"
	for _, who := range []string{"a@x.org", "b@x.org"} {
		n.Connect(who).Subscribe(bobs, 1)
	}
	n.Restart()
	third := n.Connect("c@x.org")
	refuses(t, third.TrySubscribe(bobs, 1), broker.ErrQuota, reason)
	refuses(t, third.TrySubscribe("presence/example.com/nobody", 1), broker.ErrQuota, reason)
	third.Subscribe("presence/x.org/nobody", 1)
	n.Connect("a@y.org").Subscribe(bobs, 1)
	if got := n.Over("watch"); got != 2 {
		t.Errorf("counted %d", got)
	}
	middle := n.Copy()
	n.Pass(31 * time.Minute)
	third.Subscribe(bobs, 1)
	n.CheckReplay(middle)
}

// So many addresses one watcher watches, by all its sessions together, be there somebody or
// not; what has ended makes room, and others are not held up.
func TestAddressesOfAWatcherAreBounded(t *testing.T) {
	n := newLimited(t, state.Limits{Life: life.Limits{ByWatcher: 3}})
	n.Connect(bob).Publish(policy, everything)
	pc, phone, other := n.Connect(ann), n.Connect(ann, brokertest.Expiry(3600)), n.Connect("eve@example.net")
	pc.Subscribe(bobs, 1)
	phone.Subscribe(bobs, 1) // it is the same
	pc.Subscribe("presence/example.com/nobody", 1)
	phone.Subscribe("presence/example.com/somebody", 1)
	for _, name := range []string{"presence/example.com/carol", "presence/example.com/none"} {
		for _, c := range []*brokertest.Client{pc, phone} {
			refuses(t, c.TrySubscribe(name, 1), broker.ErrQuota, "you watch 3 addresses")
		}
	}
	other.Subscribe(bobs, 1)
	phone.Unsubscribe("presence/example.com/somebody")
	pc.Subscribe("presence/example.com/carol", 1)
	n.CheckReplay(nil)
}

// What is let in for a time is not for longer.
func TestHandlingEndsWithTime(t *testing.T) {
	n := newNode(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, confirm)
	pc.Publish(bobs, open)
	watcher.Subscribe("$me/sub/#", 1)
	until := n.Now().Add(time.Hour).Format(time.RFC3339)
	pc.Publish("$ctl/approve", `{"kind":"presence","watcher":"ann@example.net","if":{"validity":[{"from":"2026-01-01T00:00:00Z","until":"`+until+`"}]}}`)
	watcher.Subscribe(bobs, 1)
	saw(t, n, watcher, "active", "open")
	n.Pass(59 * time.Minute)
	saw(t, n, watcher)
	n.Pass(time.Minute)
	saw(t, n, watcher, "pending")
	pc.Publish(bobs, closed)
	saw(t, n, watcher)
	n.CheckReplay(nil)
}
