package blocklist_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	_ "github.com/bellwire/bellwire/internal/fixedseed"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/blocklist"
	"github.com/bellwire/bellwire/profiles/im"
	"github.com/bellwire/bellwire/profiles/inbox"
	"github.com/bellwire/bellwire/profiles/location"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

const (
	bob  = "bob@example.com"
	ann  = "ann@example.net"
	eve  = "eve@example.net"
	bobs = "presence/example.com/bob"
	list = "$me/blocklist"

	all      = `{"v":1,"rules":[{"id":"all","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},"show":{"services":["*"],"radius":0}}]}`
	messages = `{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"send":true,"typing":true,"receipts":true}}]}`
)

func profiles() []broker.Profile {
	all := []broker.Profile{
		state.New(presence.New([]byte("key"))), state.New(location.New([]byte("key"))), inbox.New(im.New(), inbox.Limits{}), &alias.Profile{},
	}
	return append(all, blocklist.For(all))
}

// everybody is a node on which bob, who is there, lets everybody do everything.
func everybody(t *testing.T) (n *brokertest.Node, pc *brokertest.Client) {
	t.Helper()
	n = brokertest.New(t, profiles)
	pc = n.Connect(bob)
	pc.Publish("$me/policy/presence", all)
	pc.Publish("$me/policy/location", all)
	pc.Publish("$me/policy/im", messages)
	pc.Publish(bobs, `{"basic":"open"}`, brokertest.Retain)
	pc.Publish("location/example.com/bob", `{"lat":40,"lon":-3,"accuracy":20}`, brokertest.Retain)
	return n, pc
}

func block(style, who string) string {
	return fmt.Sprintf(`{"v":1,"style":%q,"blocked":[{"one":"pres:%s"}]}`, style, who)
}

// words says what somebody was sent, in order: of states the state and reason, of
// documents whether there is something in it.
func words(n *brokertest.Node, c *brokertest.Client) string {
	n.Settle()
	var all []string
	for _, g := range c.Take() {
		word := "something"
		switch {
		case strings.HasPrefix(g.Topic, "$me/sub/"):
			word = strings.Join([]string{member(g.Payload, "state"), member(g.Payload, "reason")}, " ")
		case strings.HasSuffix(g.Topic, "/reports"):
			word = member(g.Payload, "disposition") + " " + member(g.Payload, "reason")
		case !strings.Contains(g.Payload, `"basic":"open"`) && !strings.Contains(g.Payload, `"shape"`) && !strings.HasPrefix(g.Topic, "im/"):
			word = "nothing"
		}
		all = append(all, strings.TrimSpace(g.Topic[:2]+" "+word))
	}
	return strings.Join(all, ", ")
}

func member(payload, name string) string {
	_, rest, _ := strings.Cut(payload, `"`+name+`":"`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// Whoever is blocked is so at once, of all kinds, and notices by the style: whatever the
// policies say, by name or wildcard, on whatever session; and others notice nothing.
func TestBlockedOfAllKinds(t *testing.T) {
	for style, want := range map[string]struct{ live, wild, report, anew string }{
		"":       {"lo nothing, pr nothing", "pr nothing", "im failed unavailable", ""},
		"polite": {"lo nothing, pr nothing", "pr nothing", "im failed unavailable", ""},
		"refuse": {"$m terminated rejected, $m terminated rejected", "pr nothing", "im failed forbidden", "rejected"},
		"ignore": {"$m pending, $m pending", "pr nothing", "im failed unavailable", ""},
	} {
		for _, expiry := range []uint32{0, 3600} {
			t.Run(fmt.Sprintf("%s expiry %d", style, expiry), func(t *testing.T) {
				n, pc := everybody(t)
				watcher, wild, other := n.Connect(ann, brokertest.Expiry(expiry)), n.Connect(ann, brokertest.Expiry(expiry)), n.Connect(eve)
				for _, c := range []*brokertest.Client{watcher, other} {
					c.Subscribe("$me/sub/#", 1)
					c.Subscribe(bobs, 1)
					c.Subscribe("location/example.com/bob", 1)
				}
				watcher.Subscribe("im/example.net/ann/reports", 1)
				wild.Subscribe("presence/example.com/+", 1)
				if got := words(n, watcher) + words(n, wild) + words(n, other); strings.Count(got, "something") != 5 {
					t.Fatalf("before: %s", got)
				}
				document := block(style, ann)
				if style == "" {
					document = strings.Replace(document, `"style":"",`, "", 1)
				}
				answer, err := pc.PublishAnswer(list, document)
				if err != nil || answer["evt-etag"] == "" {
					t.Fatalf("%v, %v", answer, err)
				}
				got := strings.Split(words(n, watcher), ", ")
				if sorted(got) != want.live {
					t.Errorf("%s, expiry %d: %s, want %s", style, expiry, sorted(got), want.live)
				}
				if got := words(n, wild); got != want.wild {
					t.Errorf("%s, by a wildcard: %s, want %s", style, got, want.wild)
				}
				if got := words(n, other); got != "" {
					t.Errorf("%s, somebody else: %s", style, got)
				}
				middle := n.Copy()
				if err := watcher.TryPublish("im/example.com/bob", "hello"); err != nil {
					t.Errorf("%s: %v", style, err)
				}
				if got := words(n, watcher); got != want.report {
					t.Errorf("%s, a message: %s, want %s", style, got, want.report)
				}
				watcher.Unsubscribe(bobs)
				if err := watcher.TrySubscribe(bobs, 1); (err != nil) != (want.anew != "") || err != nil && !strings.Contains(err.Error(), want.anew) {
					t.Errorf("%s, anew: %v", style, err)
				}
				pc.Publish(bobs, `{"basic":"open","notes":{"en":"news"}}`, brokertest.Retain)
				if got := words(n, watcher) + words(n, wild); strings.Contains(got, "something") {
					t.Errorf("%s, later: %s", style, got)
				}
				n.Crash()
				back := n.Connect(ann)
				_ = back.TrySubscribe(bobs, 1)
				if got := words(n, back); strings.Contains(got, "something") {
					t.Errorf("%s, by replay: %s", style, got)
				}
				n.CheckReplay(middle)
			})
		}
	}
}

func sorted(words []string) string {
	for i := range words {
		for j := i; j > 0 && words[j] < words[j-1]; j-- {
			words[j], words[j-1] = words[j-1], words[j]
		}
	}
	return strings.Join(words, ", ")
}

// Who is taken off the list has what the policy gives them: somebody whom it was polite to
// at once, whose subscription had not ended.
func TestUnblocked(t *testing.T) {
	n, pc := everybody(t)
	watcher := n.Connect(ann, brokertest.Expiry(3600))
	watcher.Subscribe("$me/sub/#", 1)
	watcher.Subscribe(bobs, 1)
	_ = words(n, watcher)
	for range 3 {
		pc.Publish(list, block("polite", ann))
		if got := words(n, watcher); got != "pr nothing" {
			t.Errorf("blocked: %s", got)
		}
		pc.Publish(list, "")
		if got := words(n, watcher); got != "pr something" {
			t.Errorf("free again: %s", got)
		}
	}
	pc.Publish(list, block("refuse", ann))
	pc.Publish(list, "")
	if got := words(n, watcher); got != "$m terminated rejected" {
		t.Errorf("what has ended comes back: %s", got)
	}
	watcher.Subscribe(bobs, 1)
	if got := words(n, watcher); got != "$m active, pr something" {
		t.Errorf("asked for anew: %s", got)
	}
}

// A delegate who is blocked is none: what they published is gone, they publish no more, and
// they read neither the owner's presence nor the inbox.
func TestBlockedDelegate(t *testing.T) {
	n, pc := everybody(t)
	for of, document := range map[string]string{"presence": all, "im": messages} {
		pc.Publish("$me/policy/"+of, strings.TrimSuffix(document, "}")+`,"delegates":[{"one":"pres:`+ann+`","sources":["desk"],"read":true}]}`)
	}
	delegate, other := n.Connect(ann, brokertest.Expiry(3600)), n.Connect(eve)
	delegate.Publish(bobs+"/desk", `{"basic":"open"}`, brokertest.Retain)
	pc.Publish(bobs, "", brokertest.Retain)
	delegate.Subscribe(bobs, 1)
	delegate.Subscribe("im/example.com/bob", 1)
	other.Subscribe(bobs, 1)
	_ = words(n, delegate) + words(n, other)
	pc.Publish(list, block("polite", ann))
	if got := words(n, other); got != "pr nothing" {
		t.Errorf("what the delegate said: %s", got)
	}
	if got := words(n, delegate); got != "pr nothing" {
		t.Errorf("the delegate sees %s", got)
	}
	if err := delegate.TryPublish(bobs+"/desk", `{"basic":"open"}`); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("publishes: %v", err)
	}
	other.Publish("im/example.com/bob", "for bob alone")
	if got := words(n, delegate); got != "" {
		t.Errorf("reads the inbox: %s", got)
	}
	n.CheckReplay(nil)
}

// The list is its owner's to see and to change, as a policy is: with its tag as a
// condition, and with all faults of a bad one, which changes nothing.
func TestListIsItsOwners(t *testing.T) {
	n, pc := everybody(t)
	phone, watcher := n.Connect(bob), n.Connect(ann)
	phone.Subscribe(list, 1)
	watcher.Subscribe("$me/#", 1)
	watcher.Subscribe(list, 1)
	n.Settle()
	_, _ = phone.Take(), watcher.Take()
	first, err := pc.PublishAnswer(list, block("polite", eve))
	if err != nil {
		t.Fatal(err)
	}
	n.Settle()
	if got := phone.Take(); len(got) != 1 || got[0].Payload != block("polite", eve) {
		t.Errorf("its owner is shown %v", got)
	}
	if got := watcher.Take(); len(got) != 0 {
		t.Errorf("somebody else is shown %v", got)
	}
	if _, err := pc.PublishAnswer(list, block("polite", ann), brokertest.Property("evt-etag", "0")); !errors.Is(err, broker.ErrCondition) || !strings.Contains(err.Error(), first["evt-etag"]) {
		t.Errorf("not as it was: %v", err)
	}
	err = pc.TryPublish(list, `{"v":2,"blocked":[{"one":"nobody"},{"style":"rude"}]}`)
	if !errors.Is(err, broker.ErrPayload) {
		t.Errorf("a bad list: %v", err)
	}
	for _, at := range []string{"/v", "/blocked/0/one", "/blocked/1", "/blocked/1/style"} {
		if !strings.Contains(fmt.Sprint(err), at) {
			t.Errorf("of the fault at %s nothing is said: %v", at, err)
		}
	}
	if _, err := pc.PublishAnswer(list, "", brokertest.Property("evt-etag", first["evt-etag"])); err != nil {
		t.Errorf("as it was: %v", err)
	}
	if err := n.Connect("").TryPublish(list, block("polite", ann)); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("nobody's: %v", err)
	}
	if err := pc.TryPublish("$me/policy/blocklist", block("polite", ann)); !errors.Is(err, broker.ErrBadEvent) {
		t.Errorf("as a policy of a kind: %v", err)
	}
}

// An owner cannot approve whom they have blocked: it would have no effect, and is said.
func TestBlockedAreNotApproved(t *testing.T) {
	n, pc := everybody(t)
	pc.Publish(list, block("polite", ann))
	err := pc.TryPublish("$ctl/approve", `{"kind":"presence","watcher":"pres:`+ann+`"}`)
	if !errors.Is(err, broker.ErrCondition) || !strings.Contains(err.Error(), "blocked") {
		t.Errorf("approved: %v", err)
	}
	n.CheckReplay(nil)
}

// Of who is forgotten the list goes, from all kinds; whoever is given the name begins
// without.
func TestForgotten(t *testing.T) {
	n, pc := everybody(t)
	if err := n.SetPolicy(t.Context(), []byte("users "+bob+" "+ann)); err != nil {
		t.Fatal(err)
	}
	pc.Publish(list, block("refuse", ann))
	n.Settle()
	if err := n.SetPolicy(t.Context(), []byte("users "+ann)); err != nil {
		t.Fatal(err)
	}
	n.Pass(25 * time.Hour)
	if err := n.SetPolicy(t.Context(), []byte("users "+bob+" "+ann)); err != nil {
		t.Fatal(err)
	}
	again := n.Connect(bob)
	again.Publish("$me/policy/presence", all)
	again.Subscribe(list, 1)
	n.Settle()
	if got := again.Take(); len(got) != 1 || got[0].Payload != "" {
		t.Errorf("the next bob has the list %v", got)
	}
	if err := n.Connect(ann).TrySubscribe(bobs, 1); err != nil {
		t.Errorf("the next bob refuses: %v", err)
	}
	n.CheckReplay(nil)
}
