package state_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
)

// cutsFrom has bob ask for something about a watcher, and says how many it was about.
func cutsFrom(t *testing.T, pc *brokertest.Client, verb, body string) string {
	t.Helper()
	answer, err := pc.PublishAnswer("$ctl/"+verb, `{"kind":"presence",`+body+`}`)
	must(t, err)
	return answer["matched"]
}

// An owner ends one subscription by wildcards that shows them: it shows everybody but them,
// whose place looks as if they were away, in every kind of session; until the watcher asks
// again. Nothing of it is told to the watcher, and others who watch by the same filter are
// not touched.
func TestWildcardIsRevoked(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, other := n.Connect(bob), n.Connect(carol)
		watcher, twin := n.Connect(ann, brokertest.ClientID("ann"), brokertest.Expiry(expiry)), n.Connect("eve@example.net", brokertest.Expiry(expiry))
		for _, c := range []*brokertest.Client{pc, other} {
			c.Publish(policy, everything)
		}
		pc.Publish(bobs, open)
		other.Publish(carols, open)
		watcher.Subscribe("$me/sub/#", qos)
		for _, c := range []*brokertest.Client{watcher, twin} {
			c.Subscribe(byWildcard, qos)
			wants(t, n, c, "open", "open")
		}
		id := ""
		for _, row := range watchersOf(t, n, bob).Watchers {
			if strings.Contains(row.URI, "ann") {
				id = row.ID
			}
		}
		if got := cutsFrom(t, pc, "revoke", fmt.Sprintf(`"sid":%q`, id)); got != "1" {
			t.Errorf("revoked are %q", got)
		}
		wants(t, n, watcher, "nothing")
		wants(t, n, twin)
		// However bob changes, she is sent nothing of it; and of carol what there is.
		pc.Publish(bobs, closed)
		other.Publish(carols, closed)
		wants(t, n, watcher, "closed")
		wants(t, n, twin, "closed", "closed")
		if l := watchersOf(t, n, bob); l.Total != 1 || !strings.Contains(l.String(), "ann@example.net terminated deactivated") {
			t.Errorf("bob sees %s of %d", l, l.Total)
		}
		if l := watchersOf(t, n, carol); l.Total != 2 || strings.Contains(l.String(), "terminated") {
			t.Errorf("carol sees %s of %d", l, l.Total)
		}
		if told, _ := n.Fetch(broker.Who{Principal: ann}, bobsState); len(told.Payload) > 0 {
			t.Errorf("she is told of a subscription to bob: %s", told.Payload)
		}
		if shown, err := n.Fetch(broker.Who{Principal: ann}, bobs); err != nil || summary(t, bob, string(shown.Payload)) != "closed" {
			t.Errorf("what she fetches: %v %s", err, shown.Payload)
		}
		middle := n.Copy()
		if expiry > 0 {
			watcher.Lose()
			pc.Publish(bobs, open)
			watcher = n.Connect(ann, brokertest.ClientID("ann"), brokertest.Expiry(expiry))
			n.Settle()
			for _, g := range watcher.Take() {
				if is := summary(t, bob, g.Payload); g.Topic == bobs && is != "nothing" {
					t.Errorf("back, she sees %s", is)
				}
			}
		}
		// Twice ends nothing more. She asks again.
		if got := cutsFrom(t, pc, "revoke", `"watcher":"ann@example.net"`); got != "0" {
			t.Errorf("revoked again are %q", got)
		}
		pc.Publish(bobs, closed)
		n.Settle()
		watcher.Take()
		watcher.Subscribe(byWildcard, qos)
		wants(t, n, watcher, "closed", "closed")
		if l := watchersOf(t, n, bob); l.Total != 2 || strings.Contains(l.String(), "terminated") {
			t.Errorf("asked again, bob sees %s of %d", l, l.Total)
		}
		n.CheckReplay(middle)
	})
}

// Whom an owner bars until an instant is not shown anything before, however they ask: by
// wildcards they see somebody who is away, by name they are refused and told when to ask
// again. Who has asked meanwhile is let in at that instant, and nobody else is.
func TestWildcardIsBarred(t *testing.T) {
	for _, asks := range []bool{false, true} {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann)
		pc.Publish(policy, everything)
		pc.Publish(bobs, open)
		watcher.Subscribe(byWildcard, 1)
		wants(t, n, watcher, "open")
		until := func(d time.Duration) string {
			return fmt.Sprintf(`"watcher":"ann@example.net","until":%q`, n.Now().Add(d).Format(time.RFC3339))
		}
		if got := cutsFrom(t, pc, "revoke", until(time.Hour)); got != "1" {
			t.Errorf("revoked are %q", got)
		}
		wants(t, n, watcher, "nothing")
		if err := watcher.TrySubscribe(bobs, 1); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "retry-after=3600") {
			t.Errorf("by name: %v", err)
		}
		if got := cutsFrom(t, pc, "revoke", until(2*time.Hour)); got != "0" {
			t.Errorf("barred for longer are %q", got)
		}
		n.Pass(90 * time.Minute)
		if asks {
			watcher.Subscribe("presence/#", 1)
		}
		wants(t, n, watcher, map[bool][]string{false: nil, true: {"nothing"}}[asks]...)
		n.Pass(30 * time.Minute)
		wants(t, n, watcher, map[bool][]string{false: nil, true: {"open"}}[asks]...)
		if l := watchersOf(t, n, bob); l.Total != map[bool]int{false: 0, true: 1}[asks] {
			t.Errorf("asked: %t, bob sees %s", asks, l)
		}
		n.CheckReplay(nil)
	}
}

// Who watches by name, too, loses both, and has back what they ask for by name, while it
// lasts; whom an owner shows nothing they cannot revoke; what is denied by the id of a
// subscription by wildcards is a rule, as for others.
func TestWildcardAndName(t *testing.T) {
	n := newNode(t)
	pc, watcher, second := n.Connect(bob), n.Connect(ann), n.Connect(ann)
	pc.Publish(policy, everything)
	pc.Publish(bobs, open)
	watcher.Subscribe(byWildcard, 1)
	second.Subscribe(bobs, 1)
	wants(t, n, watcher, "open")
	wants(t, n, second, "open")
	if got := cutsFrom(t, pc, "revoke", `"watcher":"ann@example.net"`); got != "1" {
		t.Errorf("revoked are %q", got)
	}
	pc.Publish(bobs, closed)
	wants(t, n, watcher, "nothing")
	wants(t, n, second)
	second.Subscribe(bobs, 1)
	wants(t, n, second, "closed")
	wants(t, n, watcher, "closed")
	second.Unsubscribe(bobs)
	wants(t, n, watcher, "nothing")
	wants(t, n, second)
	watcher.Unsubscribe(byWildcard)
	wants(t, n, watcher)
	watcher.Subscribe(byWildcard, 1)
	wants(t, n, watcher, "closed")
	pc.Publish(policy, handlingFor("block", ann))
	wants(t, n, watcher, "nothing")
	if got := cutsFrom(t, pc, "revoke", `"watcher":"ann@example.net"`); got != "0" {
		t.Errorf("whom he does not let see anything: %q", got)
	}
	pc.Publish(policy, everything)
	wants(t, n, watcher, "closed")
	id := watchersOf(t, n, bob).Watchers[0].ID
	if got := cutsFrom(t, pc, "deny", fmt.Sprintf(`"sid":%q,"style":"polite"`, id)); got != "1" || !strings.Contains(ownOf(t, n, bob, policy), "ann@example.net") {
		t.Errorf("denied by id: %q, %s", got, ownOf(t, n, bob, policy))
	}
	wants(t, n, watcher, "nothing")
	n.CheckReplay(nil)
}

var tupleID = regexp.MustCompile(`"id":"t[a-z0-9]+"`)

// Two people between whom nothing differs but that an owner has ended the wildcards of one,
// and has gone away to the other, are sent the same.
func TestRevokedLooksLikeAway(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		run := func(owner, topicName string, revokes bool) (sent []string) {
			pc := n.Connect(owner)
			pc.Publish(policy, everything)
			pc.Publish(topicName, open)
			c := n.Connect("w-"+owner, brokertest.ClientID("w-"+owner), brokertest.Expiry(expiry))
			c.Subscribe("presence/+/"+strings.Split(owner, "@")[0], qos)
			step := func() {
				n.Settle()
				for _, g := range c.Take() {
					g.Topic, g.Payload = "", tupleID.ReplaceAllString(strings.ReplaceAll(g.Payload, owner, "them"), "")
					sent = append(sent, fmt.Sprintf("%+v", g))
				}
				sent = append(sent, "")
			}
			step()
			if revokes {
				cutsFrom(t, pc, "revoke", `"watcher":"w-`+owner+`"`)
			} else {
				pc.Publish(topicName, "")
			}
			step()
			n.Pass(time.Minute)
			if revokes {
				pc.Publish(topicName, closed)
			}
			step()
			if expiry > 0 {
				c.Lose()
				c = n.Connect("w-"+owner, brokertest.ClientID("w-"+owner), brokertest.Expiry(expiry))
				step()
			}
			c.Unsubscribe("presence/+/" + strings.Split(owner, "@")[0])
			step()
			return sent
		}
		away, revoked := run(carol, carols, false), run(bob, bobs, true)
		if len(away) < 6 || fmt.Sprint(away) != fmt.Sprint(revoked) {
			t.Errorf("away:\n%q\nrevoked:\n%q", away, revoked)
		}
	})
}
