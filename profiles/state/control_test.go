package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/broker/event"
)

const confirm = `{"v":1,"defaults":{"handling":"confirm"}}`

// Whoever is undecided waits. An approval is a rule in the owner's policy: it lets them
// in at once, tells them, and shows how things are; a second one takes the place of the
// first; denying takes its place, too, and ends what there is.
func TestApproveAndDeny(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		pc.Publish(policy, confirm)
		pc.Publish(bobs, open)
		watcher.Subscribe("$me/sub/#", qos)
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "pending")
		ask := func(verb, body string) map[string]string {
			t.Helper()
			answer, err := pc.PublishAnswer("$ctl/"+verb, `{"kind":"presence","watcher":"pres:`+ann+`"`+body+`}`)
			if err != nil {
				t.Fatal(err)
			}
			return answer
		}
		for range 2 {
			if a := ask("approve", ""); a["rule"] != "r-1" || a["matched"] != "1" {
				t.Errorf("approved: %v", a)
			}
		}
		saw(t, n, watcher, "open", "active")
		if shown, _ := n.Fetch(broker.Who{Principal: bob}, policy); strings.Count(string(shown.Payload), `"r-1"`) != 1 || !strings.HasPrefix(string(shown.Payload), confirm[:len(confirm)-1]) {
			t.Errorf("the policy is %s", shown.Payload)
		}
		ask("deny", `,"style":"polite"`)
		saw(t, n, watcher, "nothing")
		ask("approve", "")
		saw(t, n, watcher, "open")
		ask("deny", `,"style":"ignore"`)
		saw(t, n, watcher, "pending")
		ask("deny", `,"style":"refuse"`)
		saw(t, n, watcher, "terminated rejected")
		if a := ask("approve", ""); a["matched"] != "0" {
			t.Errorf("what is over is approved: %v", a)
		}
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "active", "open")
		n.CheckReplay(nil)
	})
}

// Who ends a subscription may bar its watcher for some time; who is let in again after
// that has to ask.
func TestRevoke(t *testing.T) {
	n := newNode(t)
	pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(3600))
	pc.Publish(policy, everything)
	watcher.Subscribe("$me/sub/#", 1)
	watcher.Subscribe(bobs, 1)
	saw(t, n, watcher, "active", "nothing")
	pc.Publish("$ctl/revoke", `{"kind":"presence","watcher":"ann@example.net"}`)
	pc.Publish(bobs, open)
	saw(t, n, watcher, "terminated deactivated")
	watcher.Subscribe(bobs, 1)
	saw(t, n, watcher, "active", "open")
	shown, _ := n.Fetch(broker.Who{Principal: ann}, bobsState)
	sid := readTold(t, string(shown.Payload)).SID
	pc.Publish("$ctl/revoke", fmt.Sprintf(`{"kind":"presence","sid":%q,"until":%q}`, sid, n.Now().Add(time.Hour).Format(time.RFC3339)))
	saw(t, n, watcher, "terminated probation again in 3600")
	n.Pass(time.Minute)
	if err := watcher.TrySubscribe(bobs, 1); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "retry-after=3540") {
		t.Errorf("before it may: %v", err)
	}
	n.Pass(time.Hour)
	watcher.Subscribe(bobs, 1)
	saw(t, n, watcher, "active", "open")
	n.CheckReplay(nil)
}

// What cannot be understood, is about nobody, or would not be true is refused, and
// changes nothing.
func TestControlsAreChecked(t *testing.T) {
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, strings.Replace(rules(allow("all", `"services":["*"]`, ann)), `"rules"`, `"delegates":[{"one":"pres:del@example.net","read":true}],"rules"`, 1))
	before, _ := n.Fetch(broker.Who{Principal: bob}, policy)
	for body, want := range map[string]error{
		`{`:                                 broker.ErrPayload,
		`{"watcher":"ann@example.net"}`:     broker.ErrPayload,
		`{"kind":"presence"}`:               broker.ErrPayload,
		`{"kind":"presence","watcher":"x"}`: broker.ErrPayload,
		`{"kind":"presence","sid":"s-x"}`:   broker.ErrCondition,
		`{"kind":"mood","watcher":"a@b.c"}`: broker.ErrBadEvent,
		`{"kind":"presence","watcher":"ann@example.net","whatever":1}`:                     broker.ErrPayload,
		`{"kind":"presence","watcher":"ann@example.net","style":"rude"}`:                   broker.ErrPayload,
		`{"kind":"presence","watcher":"del@example.net","style":"refuse"}`:                 broker.ErrCondition,
		`{"kind":"presence","watcher":"ann@example.net","if":{"identity":[]}}`:             broker.ErrPayload,
		`{"kind":"presence","watcher":"eve@example.net","ifMatch":"1"}`:                    broker.ErrCondition,
		`{"kind":"presence","watcher":"eve@example.net","if":{"validity":[{"from":"x"}]}}`: broker.ErrPayload,
	} {
		if err := pc.TryPublish("$ctl/deny", body); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
	if err := pc.TryPublish("$ctl/dance", `{"kind":"presence"}`); !errors.Is(err, broker.ErrBadEvent) {
		t.Errorf("no such verb: %v", err)
	}
	if err := n.Connect("").TryPublish("$ctl/approve", `{"kind":"presence","watcher":"ann@example.net"}`); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("nobody approves: %v", err)
	}
	if after, _ := n.Fetch(broker.Who{Principal: bob}, policy); string(after.Payload) != string(before.Payload) {
		t.Errorf("the policy is %s", after.Payload)
	}
}

// Who is let in by a rule for many is denied alone: that beats all others, of whatever rank,
// and reaches what there is. Nobody else is touched. What is withdrawn is as if it had never
// been, and to approve takes its place, too.
func TestDeniedAlone(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher, other := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry)), n.Connect("eve@example.net")
		mine := `{"v":1,"rules":[{"id":"net","rank":9,"if":{"identity":[{"many":{"domain":"example.net"}}]},"then":{"handling":"allow"},"show":{"services":["*"]}},` +
			`{"id":"z","rank":99,"then":{"handling":"allow"},"show":{"note":true}}]}`
		pc.Publish(policy, mine)
		pc.Publish(bobs, open)
		watcher.Subscribe("$me/sub/#", qos)
		watcher.Subscribe(bobs, qos)
		other.Subscribe(bobs, qos)
		saw(t, n, watcher, "active", "open")
		saw(t, n, other, "open")
		ask := func(verb, more string) {
			t.Helper()
			answer, err := pc.PublishAnswer("$ctl/"+verb, `{"kind":"presence","watcher":"pres:`+ann+`"`+more+`}`)
			if err != nil || answer["rule"] != "r-1" {
				t.Fatalf("%s: %v, %v", verb, answer, err)
			}
		}
		ask("deny", `,"style":"polite"`)
		saw(t, n, watcher, "nothing")
		ask("withdraw", "")
		saw(t, n, watcher, "open")
		if is := ownOf(t, n, bob, policy); is != mine {
			t.Errorf("withdrawn, the policy is %s", is)
		}
		ask("deny", `,"style":"ignore"`)
		saw(t, n, watcher, "pending")
		ask("approve", "")
		saw(t, n, watcher, "open", "active")
		middle := n.Copy()
		until := n.Now().Add(time.Hour).Format(time.RFC3339)
		ask("deny", `,"style":"polite","if":{"validity":[{"from":"2026-01-01T00:00:00Z","until":"`+until+`"}]}`)
		saw(t, n, watcher, "nothing")
		n.Pass(time.Hour)
		saw(t, n, watcher, "open") // what is denied for a time is not for longer
		ask("deny", "")
		saw(t, n, watcher, "terminated rejected")
		if err := watcher.TrySubscribe(bobs, qos); !errors.Is(err, broker.ErrRefused) || !strings.Contains(err.Error(), "rejected") {
			t.Errorf("denied, it subscribes: %v", err)
		}
		ask("withdraw", "")
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "active", "open")
		saw(t, n, other)
		if err := pc.TryPublish("$ctl/withdraw", `{"kind":"presence","watcher":"ann@example.net"}`); !errors.Is(err, broker.ErrCondition) || !strings.Contains(err.Error(), "no-such-decision") {
			t.Errorf("withdrawn twice: %v", err)
		}
		n.CheckReplay(middle)
	})
}

// Of two who change a policy that they have both read the first wins, and the other is
// told.
func TestDecisionsRace(t *testing.T) {
	n := newNode(t)
	pc, phone := n.Connect(bob), n.Connect(bob)
	answer, err := pc.PublishAnswer(policy, confirm)
	if err != nil || answer["evt-etag"] == "" {
		t.Fatalf("%v, %v", answer, err)
	}
	tag := answer["evt-etag"]
	approve := `{"kind":"presence","watcher":"ann@example.net","ifMatch":"` + tag + `"}`
	pc.Publish("$ctl/approve", approve)
	block := rules(rule("b", "block", "", "", ann))
	for body, topic := range map[string]string{approve: "$ctl/approve", block: policy} {
		err := phone.TryPublish(topic, body, brokertest.Property("evt-etag", tag))
		if !errors.Is(err, broker.ErrCondition) || !strings.Contains(err.Error(), "stale-etag") {
			t.Errorf("%s: %v", topic, err)
		}
	}
	phone.Publish("$ctl/approve", `{"kind":"presence","watcher":"eve@example.net"}`) // it means no version
}

// Whoever asks by a Response Topic of their own is answered there, with their
// Correlation Data; nobody else hears of it.
func TestControlsAreAnswered(t *testing.T) {
	n := newNode(t)
	pc, phone := n.Connect(bob), n.Connect(bob)
	pc.Subscribe("$me/rsp", 1)
	phone.Subscribe("$me/rsp", 1)
	asked := func(e *event.Event) {
		e.Props = event.AppendCorrelation(event.AppendResponse(e.Props, "$me/rsp"), []byte("7"))
	}
	pc.Publish("$ctl/approve", `{"id":"mine","kind":"presence","watcher":"ann@example.net"}`, asked)
	_ = pc.TryPublish("$ctl/revoke", `{"kind":"presence","sid":"s-none"}`, asked)
	n.Settle()
	got := pc.Take()
	if len(got) != 2 || len(phone.Take()) != 0 {
		t.Fatalf("answers: %v", got)
	}
	var a struct {
		ID, Rule string
		Matched  int
	}
	if err := json.Unmarshal([]byte(got[0].Payload), &a); err != nil || a.ID != "mine" || a.Rule != "r-1" {
		t.Errorf("%s: %v", got[0].Payload, err)
	}
	if _, correlation := event.Response([]byte(got[0].Props)); string(correlation) != "7" || !strings.Contains(got[1].Payload, "no-such-subscription") {
		t.Errorf("correlation %q, and the other: %s", correlation, got[1].Payload)
	}
}

// Who is approved in silence is told nothing: the first that there is to see tells.
func TestSilentApproval(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		pc.Publish(policy, confirm)
		watcher.Subscribe("$me/sub/#", qos)
		watcher.Subscribe(bobs, qos)
		saw(t, n, watcher, "pending")
		pc.Publish("$ctl/approve", `{"kind":"presence","watcher":"ann@example.net","silent":true}`)
		saw(t, n, watcher)
		if got := stateOf(t, n, ann); got != "pending" {
			t.Errorf("nothing was shown: %s", got)
		}
		pc.Publish(bobs, open)
		saw(t, n, watcher, "open", "active")
		pc.Publish(bobs, "")
		saw(t, n, watcher, "nothing")
		if got := stateOf(t, n, ann); got != "active" {
			t.Errorf("afterwards: %s", got)
		}
		n.CheckReplay(nil)
	})
}
