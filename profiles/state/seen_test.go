package state_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/alias"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/watchers"
)

const (
	watchersTopic = "$me/watchers/presence"
	statsTopic    = "$me/stats/presence"
	carols        = "presence/example.com/carol"
	carol         = "carol@example.com"
)

// A watcherDoc is what an owner is shown of watchers.
type watcherDoc struct {
	Version  int
	Full     bool
	Total    int
	Watchers []watcherRow
}

type watcherRow struct {
	ID, URI, Status, Event, Visibility, Style, Since, Note, Name string
	Expires                                                      *int
	Fetches                                                      int `json:"fetches24h"`
}

func (d watcherDoc) String() string {
	var rows []string
	for _, r := range d.Watchers {
		rows = append(rows, fmt.Sprintf("%s %s %s", strings.TrimPrefix(r.URI, "pres:"), r.Status, r.Event))
	}
	return fmt.Sprintf("%d %v %v", d.Version, d.Full, rows)
}

func readDoc(t *testing.T, payload string) (d watcherDoc) {
	t.Helper()
	if err := json.Unmarshal([]byte(payload), &d); err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	return d
}

func ownOf(t *testing.T, n *brokertest.Node, who, topicName string) string {
	t.Helper()
	shown, err := n.Fetch(broker.Who{Principal: who}, topicName)
	if err != nil {
		t.Fatal(err)
	}
	return string(shown.Payload)
}

func watchersOf(t *testing.T, n *brokertest.Node, who string) watcherDoc {
	t.Helper()
	return readDoc(t, ownOf(t, n, who, watchersTopic))
}

func newNodeOfNames(t *testing.T) *brokertest.Node {
	t.Helper()
	return brokertest.New(t, func() []broker.Profile { return append(presences(), &alias.Profile{}) })
}

// demanding is a policy that shows all to everybody who shows so much of themselves.
func demanding(visibility string) string {
	return `{"v":1,"defaults":{"minVisibility":"` + visibility + `"},"rules":[{"id":"all","then":{"handling":"allow"},"show":{"services":["*"],"note":true}}]}`
}

// What is offered and demanded is settled with the subscription: she is seen so, or
// refused; and who is refused has left no trace.
func TestVisibilityIsAgreed(t *testing.T) {
	for _, c := range []struct{ offer, demand, want string }{
		{"", "identified", "identified"},
		{"identified", "anonymous", "identified"},
		{"pseudonymous", "anonymous", "pseudonymous"},
		{"pseudonymous", "pseudonymous", "pseudonymous"},
		{"pseudonymous", "identified", ""},
		{"anonymous", "anonymous", "anonymous"},
		{"anonymous", "pseudonymous", ""},
		{"anonymous", "identified", ""},
		{"anonymous,pseudonymous", "pseudonymous", "pseudonymous"},
		{"anonymous,identified", "identified", "identified"},
	} {
		n := newNodeOfNames(t)
		pc, watcher := n.Connect(bob), n.Connect(ann)
		pc.Publish(policy, demanding(c.demand))
		pc.Publish(bobs, open)
		before := watchersOf(t, n, bob).String() + ownOf(t, n, bob, statsTopic)
		var options []string
		if c.offer != "" {
			options = []string{"evt-visibility", c.offer}
		}
		_, err := watcher.TrySubscribeWith(bobs, 1, options...)
		what := fmt.Sprintf("offered %q, demanded %q", c.offer, c.demand)
		if c.want == "" {
			refuses(t, err, nil, "identity-required")
			if after := watchersOf(t, n, bob).String() + ownOf(t, n, bob, statsTopic); after != before || stateOf(t, n, ann) != "none" {
				t.Errorf("%s: refused, and there is %s, %s", what, after, stateOf(t, n, ann))
			}
			n.CheckReplay(nil)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		wants(t, n, watcher, "open")
		d := watchersOf(t, n, bob)
		if len(d.Watchers) != 1 || d.Watchers[0].Visibility != c.want || d.Watchers[0].Status != "active" {
			t.Errorf("%s: bob sees %+v", what, d)
		} else if named := strings.Contains(ownOf(t, n, bob, watchersTopic), "pres:ann@"); named != (c.want == "identified") {
			t.Errorf("%s: bob sees who it is: %v", what, named)
		}
		var counts map[string]int
		if err := json.Unmarshal([]byte(ownOf(t, n, bob, statsTopic)), &counts); err != nil || counts[c.want] != 1 || counts["total"] != 1 {
			t.Errorf("%s: counted are %v, %v", what, counts, err)
		}
		n.CheckReplay(nil)
	}
}

// What the owner permits ann is not permitted to who he cannot see is ann; what he permits
// her pseudonym is.
func TestPolicyIsAboutWhoIsSeen(t *testing.T) {
	const annOnly = `{"v":1,"rules":[{"id":"a","if":{"identity":[{"one":"pres:%s"}]},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNodeOfNames(t)
		pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		pc.Publish(policy, fmt.Sprintf(annOnly, ann))
		pc.Publish(bobs, open)
		watcher.Subscribe(bobs, qos)
		wants(t, n, watcher, "open")
		for _, as := range []string{"pseudonymous", "anonymous"} {
			if _, err := watcher.TrySubscribeWith(bobs, qos, "evt-visibility", as); err != nil {
				t.Fatal(err)
			}
			wants(t, n, watcher, "nothing")
		}
		if _, err := watcher.TrySubscribeWith(bobs, qos, "evt-visibility", "pseudonymous"); err != nil {
			t.Fatal(err)
		}
		wants(t, n, watcher, "nothing")
		name := strings.TrimPrefix(watchersOf(t, n, bob).Watchers[0].URI, "pres:")
		if !watchers.IsPseudonym(kind.Of(name)) {
			t.Fatal(name)
		}
		pc.Publish(policy, fmt.Sprintf(annOnly, name))
		wants(t, n, watcher, "open")
		n.CheckReplay(nil)
	})
}

// An owner who comes to demand more ends what shows less, without being told who it was.
func TestDemandsGrow(t *testing.T) {
	for _, as := range []string{"pseudonymous", "anonymous"} {
		n := newNodeOfNames(t)
		pc, watcher := n.Connect(bob), n.Connect(ann)
		pc.Publish(policy, demanding("anonymous"))
		pc.Publish(bobs, open)
		watcher.Subscribe("$me/sub/#", 1)
		if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-visibility", as); err != nil {
			t.Fatal(err)
		}
		saw(t, n, watcher, "open", "active")
		pc.Publish(policy, demanding("identified"))
		saw(t, n, watcher, "terminated rejected")
		pc.Publish(bobs, closed)
		saw(t, n, watcher)
		d := watchersOf(t, n, bob)
		if len(d.Watchers) != 1 || d.Watchers[0].Status != "terminated" || d.Watchers[0].Event != "rejected" || strings.Contains(ownOf(t, n, bob, watchersTopic), "ann") {
			t.Errorf("%s: bob sees %s", as, ownOf(t, n, bob, watchersTopic))
		}
		n.CheckReplay(nil)
	}
}

// Who hides who they are is not shown what is for their name either when they ask but
// once, or by the change that ends it; when they ask by their name they are.
func TestHiddenIsNotShownWhatIsForTheName(t *testing.T) {
	const byName = `{"v":1,"rules":[{"id":"a","if":{"identity":[{"many":{}}]},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`
	for _, as := range []string{"pseudonymous", "anonymous"} {
		n := newNodeOfNames(t)
		pc, watcher := n.Connect(bob), n.Connect(ann)
		pc.Publish(policy, strings.Replace(byName, `{"many":{}}`, `{"one":"pres:`+ann+`"}`, 1))
		pc.Publish(bobs, open)
		ask := func(expires, as string) {
			t.Helper()
			if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-visibility", as, "evt-expires", expires); err != nil {
				t.Fatal(err)
			}
		}
		ask("0", as)
		wants(t, n, watcher, "nothing")
		ask("600", as)
		wants(t, n, watcher, "nothing")
		pc.Publish(policy, strings.Replace(byName, `"rules"`, `"defaults":{"minVisibility":"identified"},"rules"`, 1))
		wants(t, n, watcher)
		ask("0", "identified")
		wants(t, n, watcher, "open")
		n.CheckReplay(nil)
	}
}

// Who fetched by name, and then watches without one, is not given away by how often
// somebody has fetched.
func TestFetchesDoNotTellWhoHides(t *testing.T) {
	n := newNodeOfNames(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, demanding("anonymous"))
	ask := func(props ...string) {
		t.Helper()
		if _, err := watcher.TrySubscribeWith(bobs, 1, props...); err != nil {
			t.Fatal(err)
		}
	}
	ask("evt-expires", "0")
	if list := ownOf(t, n, bob, watchersTopic); !strings.Contains(list, `"fetches24h":1`) {
		t.Errorf("ann has fetched, and bob sees %s", list)
	}
	ask("evt-visibility", "anonymous")
	if list := ownOf(t, n, bob, watchersTopic); !strings.Contains(list, "anonymous") || strings.Contains(list, `"fetches24h":1`) {
		t.Errorf("somebody watches, and bob sees %s", list)
	}
}

// Who asks to be seen as less is never judged by the address instead: by wildcards that
// is all there is.
func TestWildcardsAreNoDowngrade(t *testing.T) {
	n := newNodeOfNames(t)
	watcher := n.Connect(ann)
	for offer, granted := range map[string]bool{"anonymous": false, "pseudonymous": false, "anonymous,pseudonymous": false, "anonymous,identified": true, "identified": true} {
		for _, filter := range []string{"presence/example.com/+", "presence/#"} {
			_, err := watcher.TrySubscribeWith(filter, 1, "evt-visibility", offer)
			if granted != (err == nil) || !granted && !strings.Contains(err.Error(), "wildcards") {
				t.Errorf("%s as %s: %v", filter, offer, err)
			}
		}
	}
}

// A list says nothing of the anonymous whom counts hide.
func TestHiddenCrowdIsNotCounted(t *testing.T) {
	n := newNodeOfNames(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, strings.Replace(demanding("anonymous"), `"rules"`, `"anonymousShownFrom":2,"rules"`, 1))
	if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-visibility", "anonymous"); err != nil {
		t.Fatal(err)
	}
	n.Connect(carol).Subscribe(bobs, 1)
	if list := ownOf(t, n, bob, watchersTopic); !strings.HasSuffix(list, `"total":1}`) || strings.Contains(list, "anonymous") {
		t.Errorf("bob sees %s", list)
	}
}

// An owner's list is whole at first, and then has what is new, at most once in five
// seconds, by numbers without gaps; nobody else's changes with it.
func TestWatcherList(t *testing.T) {
	n := newNodeOfNames(t)
	pc, watcher, other := n.Connect(bob), n.Connect(ann), n.Connect(carol)
	pc.Publish(policy, demanding("anonymous"))
	pc.Subscribe(watchersTopic, 1)
	other.Subscribe(watchersTopic, 1)
	lists := func(want ...string) {
		t.Helper()
		n.Settle()
		var got []string
		for _, g := range pc.Take() {
			got = append(got, readDoc(t, g.Payload).String())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("bob is sent %q, want %q", got, want)
		}
	}
	lists("0 true []")
	watcher.Subscribe(bobs, 1)
	lists("1 false [ann@example.net active subscribe]")
	other.Subscribe(bobs, 1)
	watcher.Unsubscribe(bobs)
	lists()
	n.Pass(5 * time.Second)
	lists("2 false [ann@example.net terminated unsubscribed carol@example.com active subscribe]")
	pc.Subscribe(watchersTopic, 1)
	lists("0 true [ann@example.net terminated unsubscribed carol@example.com active subscribe]")
	n.Settle()
	if got := other.Take(); len(got) != 2 || !strings.Contains(got[0].Payload, `"total":0`) {
		t.Errorf("carol is sent %v: her list, and what she watches", got)
	}
	n.CheckReplay(nil)
}

// What a watcher keeps to herself is not shown, from then on, and her name is if she is
// seen as who she is.
func TestWatchersRules(t *testing.T) {
	n := newNodeOfNames(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, demanding("anonymous"))
	if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-expires", "600", "evt-note", "It's me"); err != nil {
		t.Fatal(err)
	}
	if r := watchersOf(t, n, bob).Watchers[0]; r.Expires == nil || *r.Expires != 600 || r.Since == "" || r.Name != "" || r.Note != "It's me" {
		t.Errorf("bob sees %+v", r)
	}
	watcher.Publish("$me/policy/watcher", `{"v":1,"displayName":"Ann","revealExpiry":false,"revealSince":false}`)
	if r := watchersOf(t, n, bob).Watchers[0]; r.Expires != nil || r.Since != "" || r.Name != "Ann" {
		t.Errorf("bob sees %+v", r)
	}
	if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-visibility", "pseudonymous"); err != nil {
		t.Fatal(err)
	}
	if list := ownOf(t, n, bob, watchersTopic); strings.Contains(strings.ToLower(list), "ann") {
		t.Errorf("bob sees %s", list)
	}
}

// A watcher reveals herself, and is another to the owner; or asks for a fresh pseudonym,
// which ends what there is. Two owners see two pseudonyms. Whom the owner has blocked has
// no way round it.
func TestRevealAndRotate(t *testing.T) {
	n := newNodeOfNames(t)
	pc, pc2, watcher := n.Connect(bob), n.Connect(carol), n.Connect(ann)
	pc.Publish(policy, demanding("anonymous"))
	pc2.Publish(policy, demanding("anonymous"))
	under := func(topicName string) error {
		_, err := watcher.TrySubscribeWith(topicName, 1, "evt-visibility", "pseudonymous")
		return err
	}
	ask := func(verb string) error {
		_, err := watcher.PublishAnswer("$ctl/"+verb, `{"kind":"presence","entity":"pres:`+bob+`"}`)
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(under(bobs))
	must(under(carols))
	first, hers := watchersOf(t, n, bob).Watchers[0], watchersOf(t, n, carol).Watchers[0]
	if first.URI == hers.URI || first.ID == hers.ID {
		t.Errorf("bob and carol see the same: %v, %v", first, hers)
	}
	must(ask("reveal"))
	if r := watchersOf(t, n, bob).Watchers[0]; r.URI != "pres:"+ann || r.ID == first.ID || r.Status != "active" {
		t.Errorf("revealed, bob sees %+v", r)
	}
	refuses(t, ask("reveal"), broker.ErrCondition, "no-such-subscription")
	must(under(bobs))
	if r := watchersOf(t, n, bob).Watchers[0]; r.URI != first.URI || r.ID == first.ID {
		t.Errorf("hidden again, bob sees %+v, at first %+v", r, first)
	}
	must(ask("rotate"))
	if got := stateOf(t, n, ann); got != "terminated deactivated" {
		t.Errorf("turned, she is told %s", got)
	}
	must(under(bobs))
	second := watchersOf(t, n, bob).Watchers[0]
	if second.URI == first.URI || second.Status != "active" {
		t.Errorf("turned, bob sees %+v", second)
	}
	pc.Publish(policy, strings.Replace(demanding("anonymous"), `"rules":[`, `"rules":[{"id":"no","if":{"identity":[{"one":"`+second.URI+`"}]},"then":{"handling":"block"}},`, 1))
	pc.Publish(policy, `{"v":1,"rules":[{"id":"no","if":{"identity":[{"one":"`+second.URI+`"}]},"then":{"handling":"block"}},{"id":"all","if":{"identity":[{"many":{"except":[{"id":"`+second.URI+`"}]}}]},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`)
	if err := under(bobs); err == nil {
		t.Error("blocked, she watches under the same pseudonym")
	}
	must(ask("rotate"))
	refuses(t, under(bobs), nil, "blocked-source")
	n.Pass(alias.BarredFor)
	must(under(bobs))
	n.CheckReplay(nil)
}

// An owner approves, denies and ends by a subscription's id what shows no name, and the
// policy that comes of it names the pseudonym.
func TestDecidedByID(t *testing.T) {
	n := newNodeOfNames(t)
	pc, watcher := n.Connect(bob), n.Connect(ann)
	pc.Publish(policy, confirm)
	pc.Publish(bobs, open)
	if _, err := watcher.TrySubscribeWith(bobs, 1, "evt-visibility", "pseudonymous"); err != nil {
		t.Fatal(err)
	}
	row := watchersOf(t, n, bob).Watchers[0]
	ask := func(verb, whom string) (map[string]string, error) {
		return pc.PublishAnswer("$ctl/"+verb, `{"kind":"presence",`+whom+`}`)
	}
	if _, err := ask("revoke", `"watcher":"pres:`+ann+`"`); err != nil || stateOf(t, n, ann) != "pending" {
		t.Errorf("who is not seen to watch is revoked: %v, %s", err, stateOf(t, n, ann))
	}
	if a, err := ask("approve", `"sid":"`+row.ID+`"`); err != nil || a["matched"] != "1" || stateOf(t, n, ann) != "active" {
		t.Errorf("approved: %v, %v, %s", a, err, stateOf(t, n, ann))
	}
	if doc := ownOf(t, n, bob, policy); !strings.Contains(doc, row.URI) || strings.Contains(doc, "ann") {
		t.Errorf("the policy is %s", doc)
	}
	wants(t, n, watcher, "open")
	if a, err := ask("deny", `"watcher":"`+row.URI+`"`); err != nil || a["matched"] != "1" || stateOf(t, n, ann) != "terminated rejected" {
		t.Errorf("denied: %v, %v, %s", a, err, stateOf(t, n, ann))
	}
	n.CheckReplay(nil)
}
