package inbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/blocklist"
	"github.com/bellwire/bellwire/profiles/im"
)

const robert = "robert@example.com"

// lets is a rule that lets who do all there is to do; more is added to what it says then.
func lets(id, who, more string) string {
	return fmt.Sprintf(`{"id":%q,"if":{"identity":[{"one":"im:%s"}]},"then":{"handling":"allow"%s},"show":{"send":true,"typing":true,"receipts":true}}`, id, who, more)
}

func forward(to string) string { return `,"forward":"im:` + to + `"` }

func rules(of ...string) string { return `{"v":1,"rules":[` + strings.Join(of, ",") + `]}` }

// forwarding is a node on which what alice sends to bob goes to robert, whose policy is
// his; each has a device that reads and alice one that gets reports.
func forwarding(t *testing.T, roberts string) (n *node, bobs, robs, ann client) {
	t.Helper()
	n = &node{brokertest.NewWith(t, broker.Limits{SettleEvery: time.Millisecond}, func() []broker.Profile {
		messages := []broker.Profile{New(im.New(), Limits{})}
		return append(messages, blocklist.For(messages))
	}), t}
	t.Cleanup(func() { n.CheckReplay(n.Copy()) })
	bobs, robs, ann = n.Connect("phone", bob, time.Hour), n.Connect("pc", robert, time.Hour), n.Connect("laptop", alice, time.Hour)
	n.Must(bobs.Publish("$me/policy/im", rules(lets("alice", alice, forward(robert))), 1))
	if roberts != "" {
		n.Must(robs.Publish("$me/policy/im", roberts, 1))
	}
	bobs.Subscribe("im/#", 1)
	robs.Subscribe("im/#", 1)
	ann.Subscribe("im/#", 1)
	return n, bobs, robs, ann
}

// noRobert fails the test if alice was told that there is a robert.
func noRobert(t *testing.T, got ...brokertest.Got) {
	t.Helper()
	for _, g := range got {
		if strings.Contains(g.Topic+g.Payload+g.Props, "robert") {
			t.Errorf("it is told where it went: %+v", g)
		}
	}
}

// What is sent to bob comes to robert once, in the order of his inbox, from and to whom it
// was sent, and never to bob's devices; reports name bob, and nothing names robert.
func TestForwarded(t *testing.T) {
	n, bobs, robs, ann := forwarding(t, rules(lets("alice", alice, "")))
	const wants = `"wants":["delivered","displayed"]`
	n.Must(ann.Publish(inboxOf(robert), `{"id":"0","body":"zero"}`, 1))
	for range 2 { // the second time it has come before
		answer, err := ann.Ask(inboxOfBob, `{"id":"1",`+wants+`,"body":"one"}`, 1)
		n.Must(err)
		if answer["evt-id"] != "1" || len(answer) != 1 {
			t.Errorf("alice is told %v", answer)
		}
	}
	got := robs.Take(2)
	if text := bodies(t, got); text != "zero one" {
		t.Errorf("robert has %s", text)
	}
	if g := got[1]; g.Topic != inboxOf(robert) || !strings.Contains(g.Payload, `"from":"im:alice@example.net","to":["im:bob@example.com"]`) {
		t.Errorf("robert has %+v", g)
	}
	bobs.Take(0)
	reports := ann.Take(1)
	n.Must(robs.Publish(inboxOfAlice+"/reports", `{"id":"1","disposition":"displayed"}`, 1))
	reports = append(reports, ann.Take(1)...)
	for i, what := range []string{"delivered", "displayed"} {
		if m := read(t, reports[i]); m.Recipient != "im:"+bob || m.Disposition != what || m.ID != "1" {
			t.Errorf("alice is told %s", reports[i])
		}
	}
	noRobert(t, reports...)

	// Bob takes it back: the same message is still known, others are bob's.
	n.Must(bobs.Publish("$me/policy/im", rules(lets("alice", alice, "")), 1))
	n.Must(ann.Publish(inboxOfBob, `{"id":"1",`+wants+`,"body":"one"}`, 1))
	n.Must(ann.Publish(inboxOfBob, `{"id":"2","body":"two"}`, 1))
	if text := bodies(t, bobs.Take(1)); text != "two" {
		t.Errorf("bob has %s", text)
	}
	robs.Take(0)
	ann.Take(0)
}

// Of what alice is writing robert is shown as of her messages, under his own topic.
func TestTypingIsForwarded(t *testing.T) {
	n, bobs, robs, ann := forwarding(t, rules(lets("alice", alice, "")))
	for _, qos := range []uint8{0, 2} {
		n.Must(ann.Publish(inboxOfBob+"/typing", "active", qos))
		if g := robs.Take(1)[0]; g.Topic != inboxOf(robert)+"/typing" || read(t, g).From != "im:"+alice {
			t.Errorf("robert is shown %+v", g)
		}
	}
	bobs.Take(0)
}

// Where a message goes is decided when it is sent, by the rules that hold then: by windows,
// validity and rank, and where limits leave nothing, nowhere.
func TestForwardedByTheClock(t *testing.T) {
	n, bobs, robs, ann := forwarding(t, rules(lets("alice", alice, "")))
	night := strings.Replace(lets("night", alice, forward(robert)), `"if":{`, `"if":{"weekly":{"tz":"UTC","windows":[{"days":["sun","mon","tue","wed","thu","fri","sat"],"start":"18:00","end":"06:00"}]},`, 1)
	n.Must(bobs.Publish("$me/policy/im", rules(lets("alice", alice, ""), night), 1)) // it is noon
	for i, to := range []client{bobs, robs, robs, bobs} {
		n.Must(ann.Publish(inboxOfBob, fmt.Sprint(i), 1))
		if text := bodies(t, to.Take(1)); text != fmt.Sprint(i) {
			t.Errorf("%s has %s, want %d", to.Name, text, i)
		}
		n.Pass(6 * time.Hour)
	}
	// The greater rank decides, then the id.
	n.Must(bobs.Publish("$me/policy/im", rules(lets("a", alice, forward("carol@example.com")), strings.Replace(lets("b", alice, forward(robert)), `{`, `{"rank":1,`, 1)), 1))
	n.Must(ann.Publish(inboxOfBob, "ranked", 1))
	if text := bodies(t, robs.Take(1)); text != "ranked" {
		t.Errorf("robert has %s", text)
	}
	bobs.Take(0)
	ann.Take(0)
}

// Whoever it is forwarded to decides whether its sender may write to them, whoever it was
// sent to; whoever is blocked by either reaches neither; and whatever keeps it from
// arriving looks as if bob did not want it.
func TestForwardIsNoWayAround(t *testing.T) {
	told := map[string]string{}
	for _, c := range []struct {
		name, bobs, roberts string
		block               string // who blocks alice
		style               string
		want                string
	}{
		{name: "robert has said nothing", want: "unavailable"},
		{name: "robert lets bob in", roberts: rules(lets("bob", bob, "")), want: "unavailable"},
		{name: "robert refuses alice", roberts: `{"v":1,"rules":[{"id":"no","if":{"identity":[{"one":"im:alice@example.net"}]},"then":{"handling":"block","style":"refuse"}}]}`, want: "unavailable"},
		{name: "robert has blocked alice", roberts: rules(lets("alice", alice, "")), block: robert, style: "refuse", want: "unavailable"},
		{name: "bob has blocked alice", roberts: rules(lets("alice", alice, "")), block: bob, style: "polite", want: "unavailable"},
		{name: "bob has blocked alice, and says so", roberts: rules(lets("alice", alice, "")), block: bob, style: "refuse", want: "forbidden"},
		{name: "robert sends it back", roberts: rules(lets("alice", alice, forward(bob))), want: "unavailable"},
		{name: "a rule that lets nobody in", bobs: `{"v":1,"rules":[{"id":"no","if":{"identity":[{"one":"im:alice@example.net"}]},"then":{"handling":"block","forward":"im:robert@example.com"},"show":{"send":true}}]}`, roberts: rules(lets("alice", alice, "")), want: "unavailable"},
	} {
		n, bobs, robs, ann := forwarding(t, c.roberts)
		if c.bobs != "" {
			n.Must(bobs.Publish("$me/policy/im", c.bobs, 1))
		}
		if c.block != "" {
			who := map[string]client{bob: bobs, robert: robs}[c.block]
			n.Must(who.Publish("$me/blocklist", `{"v":1,"blocked":[{"one":"im:alice@example.net","style":"`+c.style+`"}]}`, 1))
		}
		answer, err := ann.Ask(inboxOfBob, `{"id":"1","wants":["delivered"],"body":"Hello"}`, 1)
		n.Must(err)
		n.Must(ann.Publish(inboxOfBob+"/typing", "active", 0))
		report := ann.Take(1)[0]
		if m := read(t, report); m.Reason != c.want || m.Recipient != "im:"+bob {
			t.Errorf("%s: alice is told %s, want %s", c.name, report, c.want)
		}
		told[c.want+fmt.Sprint(answer, report)] = c.name
		bobs.Take(0)
		robs.Take(0)
	}
	if len(told) != 2 {
		t.Errorf("alice can tell: %v", told)
	}
}

// A message is forwarded so many times, and no further.
func TestForwardsAreBounded(t *testing.T) {
	n, bobs, _, ann := forwarding(t, "")
	person := func(i int) string { return fmt.Sprintf("p%d@example.com", i) }
	var last client
	for i := range MostForwards + 1 {
		last = n.Connect(person(i), person(i), time.Hour)
		last.Subscribe("im/#", 1)
		n.Must(last.Publish("$me/policy/im", rules(lets("alice", alice, forward(person(i+1)))), 1))
	}
	n.Must(bobs.Publish("$me/policy/im", rules(lets("alice", alice, forward(person(1)))), 1))
	n.Must(last.Publish("$me/policy/im", rules(lets("alice", alice, "")), 1))
	n.Must(ann.Publish(inboxOfBob, "as far as it goes", 1))
	if text := bodies(t, last.Take(1)); text != "as far as it goes" {
		t.Errorf("it came as %s", text)
	}
	n.Must(bobs.Publish("$me/policy/im", rules(lets("alice", alice, forward(person(0)))), 1))
	n.Must(ann.Publish(inboxOfBob, "too far", 1))
	if m := read(t, ann.Take(1)[0]); m.Reason != "unavailable" || m.Recipient != "im:"+bob {
		t.Errorf("alice is told %+v", m)
	}
	last.Take(0)
}

// What has the same id and is sent to both is two messages, of each of which is told: else
// whoever sends it learned that they are one. So is what comes to robert and waits until it
// expires, fills his inbox, or goes with him.
func TestTwoAddressesAreNotOne(t *testing.T) {
	n, _, robs, ann := forwarding(t, rules(lets("alice", alice, "")))
	const text = `{"id":"1","wants":["delivered","displayed"],"body":"Hello"}`
	n.Must(ann.Publish(inboxOfBob, text, 1))
	n.Must(ann.Publish(inboxOf(robert), text, 1))
	robs.Take(2)
	n.Must(robs.Publish(inboxOfAlice+"/reports", `{"id":"1","disposition":"displayed"}`, 1))
	told := map[string]int{}
	for _, g := range ann.Take(4) {
		m := read(t, g)
		told[m.Disposition+" "+m.Recipient]++
	}
	for _, who := range []string{bob, robert} {
		for _, what := range []string{"delivered", "displayed"} {
			if told[what+" im:"+who] != 1 {
				t.Errorf("alice is told %v", told)
			}
		}
	}
	// Of the one that it says, if it says so.
	for i, who := range []string{bob, robert} {
		id := fmt.Sprint("again", i)
		for _, to := range []string{bob, robert} {
			n.Must(ann.Publish(inboxOf(to), `{"id":"`+id+`","wants":["displayed"],"body":"Hello"}`, 1))
		}
		robs.Take(2)
		n.Must(robs.Publish(inboxOfAlice+"/reports", `{"id":"`+id+`","recipient":"im:`+who+`","disposition":"displayed"}`, 1))
		if m := read(t, ann.Take(1)[0]); m.Recipient != "im:"+who || m.ID != id {
			t.Errorf("alice is told %+v", m)
		}
	}
	err := robs.Publish(inboxOfAlice+"/reports", `{"id":"1","recipient":"im:carol@example.com","disposition":"displayed"}`, 1)
	if !errors.Is(err, broker.ErrPayload) || !strings.Contains(err.Error(), "from-mismatch") {
		t.Errorf("a report of carol's: %v", err)
	}
	robs.Disconnect()
	n.Must(ann.Publish(inboxOfBob, `{"id":"2","expires":"2026-03-09T12:00:30Z","body":"soon over"}`, 1))
	n.Pass(time.Minute)
	if m := read(t, ann.Take(1)[0]); m.Reason != "expired" || m.Recipient != "im:"+bob || m.ID != "2" {
		t.Errorf("alice is told %+v", m)
	}
}

// What becomes of a message is told if both let it be told.
func TestBothLetItBeTold(t *testing.T) {
	silent := strings.Replace(lets("alice", alice, ""), `,"receipts":true`, "", 1)
	for _, c := range []struct{ bobs, roberts string }{
		{strings.Replace(lets("alice", alice, forward(robert)), `,"receipts":true`, "", 1), lets("alice", alice, "")},
		{lets("alice", alice, forward(robert)), silent},
	} {
		n, bobs, robs, ann := forwarding(t, rules(c.roberts))
		n.Must(bobs.Publish("$me/policy/im", rules(c.bobs), 1))
		n.Must(ann.Publish(inboxOfBob, `{"id":"1","wants":["delivered","displayed"],"body":"Hello"}`, 1))
		robs.Take(1)
		n.Must(robs.Publish(inboxOfAlice+"/reports", `{"id":"1","disposition":"displayed"}`, 1))
		ann.Take(0)
	}
}

// Until all nodes know how, nothing is forwarded: what a policy has said before is done
// from then on.
func TestForwardsOnceAllNodesDo(t *testing.T) {
	n := &node{brokertest.NewAt(t, broker.LevelOwners-1, func() []broker.Profile { return []broker.Profile{New(im.New(), Limits{})} }), t}
	bobs, robs, ann := n.Connect("phone", bob, time.Hour), n.Connect("pc", robert, time.Hour), n.Connect("laptop", alice, time.Hour)
	n.Must(bobs.Publish("$me/policy/im", rules(lets("alice", alice, forward(robert))), 1))
	n.Must(robs.Publish("$me/policy/im", rules(lets("alice", alice, "")), 1))
	bobs.Subscribe("im/#", 1)
	robs.Subscribe("im/#", 1)
	n.Must(ann.Publish(inboxOfBob, "before", 1))
	bobs.Take(1)
	n.Must(n.Raise(context.Background(), broker.NewestLevel))
	middle := n.Copy()
	n.Must(ann.Publish(inboxOfBob, "after", 1))
	if text := bodies(t, robs.Take(1)); text != "after" {
		t.Errorf("robert has %s", text)
	}
	bobs.Take(0)
	n.CheckReplay(middle)
}
