package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// notes is a profile for tests: note/{domain}/{local} holds a line. Its owner
// publishes it, and in $me/policy/note who may read it, each with the hour of
// the day from and until which; others are shown nothing.
type notes struct{}

type noteRule struct{ From, Until int64 }

func (notes) Prefix() string { return "note" }

func (notes) Owner(name string) string {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return ""
	}
	return parts[2] + "@" + parts[1]
}

func (n notes) Admit(p *Publication) error {
	if own := n.topicOf(p); own != p.Event.Topic && p.Event.Topic != ownPolicy+"note" {
		return &Refusal{Reason: "not yours"}
	}
	return nil
}

func (notes) topicOf(p *Publication) string {
	local, domain, _ := strings.Cut(p.From.Principal, "@")
	return "note/" + domain + "/" + local
}

func (n notes) Apply(tx *ProfileTx, p *Publication) error {
	own := n.topicOf(p)
	key := own
	if p.Event.Topic != own {
		key = policyPrefix + p.From.Principal
	} else if text, ok := strings.CutPrefix(string(p.Event.Payload), "for a minute: "); ok {
		tx.Set(key, []byte(text))
		tx.WakeAt(tx.Now()+int64(time.Minute), own)
		tx.Changed(own)
		return nil
	}
	tx.Set(key, p.Event.Payload)
	tx.Changed(own)
	return nil
}

func (notes) Wake(tx *ProfileTx, id string) {
	tx.Set(id, nil)
	tx.Changed(id)
}

func (notes) Watch(Who, string) error { return nil }

type note struct {
	owner string
	text  []byte
	rules map[string]noteRule
}

func (n notes) Load(name string, record, policy []byte) Resource {
	r := &note{owner: n.Owner(name), text: record}
	_ = json.Unmarshal(policy, &r.rules)
	return r
}

func (*note) Neutral() Shown { return Shown{Nothing: true} }

func (r *note) Show(who Who, at int64) Shown {
	if who.Principal == r.owner {
		return Shown{Visible: true, Payload: r.text}
	}
	rule, ok := r.rules[who.Principal]
	if !ok {
		rule, ok = r.rules["*"]
	}
	if !ok {
		return Shown{Nothing: true}
	}
	hour := at % day / int64(time.Hour)
	midnight := at - at%day
	switch {
	case rule.Until == 0:
		return Shown{Visible: true, Payload: r.text}
	case hour < rule.From:
		return Shown{Nothing: true, Until: midnight + rule.From*int64(time.Hour)}
	case hour < rule.Until:
		return Shown{Visible: true, Nothing: len(r.text) == 0, Payload: r.text, Until: midnight + rule.Until*int64(time.Hour)}
	}
	return Shown{Nothing: true, Until: midnight + day + rule.From*int64(time.Hour)}
}

func newNotesNode(t *testing.T) *node { return newNodeWith(t, Limits{}, notes{}) }

// marksAndBeside runs a test at the two levels at which durable sessions are shown
// resources in different ways: to them it is the same.
func marksAndBeside(t *testing.T, test func(t *testing.T, level Level)) {
	for _, level := range []Level{levelBeside - 1, NewestLevel} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) { test(t, level) })
	}
}

func (n *node) person(id string, expiry uint32) *client {
	n.t.Helper()
	c, _ := n.connect(id, false, expiry, func(r *ConnectRequest) { r.Principal = id + "@x.org"; r.Client = id })
	return c
}

func allow(c *client, rules string) {
	c.n.t.Helper()
	if err := c.publish(ownPolicy+"note", rules, 1); err != nil {
		c.n.t.Fatal(err)
	}
}

// Watchers of one resource are shown different things, at once and at each
// change, and what is the same to them they are not sent again.
func TestResourceIsShownToEachWatcher(t *testing.T) { marksAndBeside(t, shownToEachWatcher) }

func shownToEachWatcher(t *testing.T, level Level) {
	for _, expiry := range []uint32{0, 3600} {
		for qos := range uint8(3) {
			t.Run(fmt.Sprintf("expiry %d QoS %d", expiry, qos), func(t *testing.T) {
				n := atLevel(t, level, notes{})
				bob, ann, eve := n.person("bob", 0), n.person("ann", expiry), n.person("eve", expiry)
				allow(bob, `{"ann@x.org":{}}`)
				ann.subscribe("note/x.org/bob", qos)
				eve.subscribe("note/x.org/bob", qos)
				q := min(qos, 1)
				ann.want(fmt.Sprintf("note/x.org/bob= q%d retain", q))
				eve.want(fmt.Sprintf("note/x.org/bob= q%d retain", q))
				if err := bob.publish("note/x.org/bob", "hello", 0); err != nil {
					t.Fatal(err)
				}
				ann.want(fmt.Sprintf("note/x.org/bob= q%d retain", q), fmt.Sprintf("note/x.org/bob=hello q%d", q))
				allow(bob, `{"eve@x.org":{}}`)
				ann.want(fmt.Sprintf("note/x.org/bob= q%d retain", q), fmt.Sprintf("note/x.org/bob=hello q%d", q), fmt.Sprintf("note/x.org/bob= q%d", q))
				eve.want(fmt.Sprintf("note/x.org/bob= q%d retain", q), fmt.Sprintf("note/x.org/bob=hello q%d", q))
			})
		}
	}
}

// A session that was away is shown how things are, once, not how they went;
// also if the node lived anew meanwhile.
func TestAwayIsShownTheState(t *testing.T) { marksAndBeside(t, awayIsShownTheState) }

func awayIsShownTheState(t *testing.T, level Level) {
	n := atLevel(t, level, notes{})
	bob, ann := n.person("bob", 0), n.person("ann", 3600)
	allow(bob, `{"ann@x.org":{}}`)
	ann.subscribe("note/x.org/+", 1)
	ann.s.Close(false, false, 0)
	for i := range 50 {
		if err := bob.publish("note/x.org/bob", fmt.Sprint("line ", i), 1); err != nil {
			t.Fatal(err)
		}
	}
	n.restart()
	ann = n.person("ann", 3600)
	got := ann.await(1)
	bob = n.person("bob", 0)
	if err := bob.publish("note/x.org/bob", "last", 1); err != nil {
		t.Fatal(err)
	}
	ann.ackAll()
	for !strings.Contains(strings.Join(got, " "), "last") {
		got = ann.await(len(got) + 1)
	}
	if got[0][:len("note/x.org/bob=line 49 q1")] != "note/x.org/bob=line 49 q1" || len(got) > 3 {
		t.Errorf("got %q, want line 49 and then last", got)
	}
}

// A window opens: the state at once, and how long that may be shown. It closes:
// nothing, at once. Nothing in between tells that there was a change.
func TestResourceWindow(t *testing.T) { marksAndBeside(t, resourceWindow) }

func resourceWindow(t *testing.T, level Level) {
	for _, expiry := range []uint32{0, 3600} {
		n := atLevel(t, level, notes{}) // at noon
		bob, boss := n.person("bob", 0), n.person("boss", expiry)
		allow(bob, `{"boss@x.org":{"From":8,"Until":17}}`)
		boss.subscribe("note/x.org/bob", 1)
		boss.want("note/x.org/bob= q1 retain")
		must(t, bob.publish("note/x.org/bob", "at work", 1))
		boss.want("note/x.org/bob= q1 retain", "note/x.org/bob=at work q1 expires18000")
		n.pass(5*time.Hour - time.Nanosecond)
		n.pass(time.Nanosecond)
		must(t, bob.publish("note/x.org/bob", "at the pub", 1))
		must(t, bob.publish("note/x.org/bob", "asleep", 1))
		n.pass(15 * time.Hour)
		want := []string{"note/x.org/bob= q1 retain", "note/x.org/bob=at work q1 expires18000", "note/x.org/bob= q1", "note/x.org/bob=asleep q1 expires32400"}
		if got := boss.await(4); !slices.Equal(got, want) {
			t.Errorf("expiry %d: got %q, want %q", expiry, got, want)
		}
	}
}

// A wildcard shows what is visible to the watcher, and nothing of the rest.
func TestWildcardShowsWhatIsVisible(t *testing.T) { marksAndBeside(t, wildcardShowsWhatIsVisible) }

func wildcardShowsWhatIsVisible(t *testing.T, level Level) {
	n := atLevel(t, level, notes{})
	for i := range 300 {
		p := n.person(fmt.Sprintf("p%03d", i), 0)
		must(t, p.publish(fmt.Sprintf("note/x.org/p%03d", i), "here", 1))
		if i%3 == 0 {
			allow(p, `{"ann@x.org":{}}`)
		}
	}
	for _, qos := range []uint8{0, 1} {
		for _, expiry := range []uint32{0, 3600} {
			ann, _ := n.connect(fmt.Sprint("ann", qos, expiry), false, expiry, func(r *ConnectRequest) { r.Principal = "ann@x.org" })
			ann.subscribe("#", qos)
			for seen := 0; seen < 100; {
				seen = len(ann.await(seen + 1))
				ann.ackAll()
			}
		}
	}
}

// A profile's wake comes at its time, also after a restart.
func TestProfileWakes(t *testing.T) {
	n := newNotesNode(t)
	bob := n.person("bob", 0)
	bob.subscribe("note/x.org/bob", 0)
	bob.want("note/x.org/bob= q0 retain")
	must(t, bob.publish("note/x.org/bob", "for a minute: gone soon", 1))
	bob.want("note/x.org/bob= q0 retain", "note/x.org/bob=gone soon q0")
	n.restart()
	bob = n.person("bob", 0)
	bob.subscribe("note/x.org/bob", 0)
	bob.want("note/x.org/bob=gone soon q0 retain")
	n.pass(time.Minute)
	bob.want("note/x.org/bob=gone soon q0 retain", "note/x.org/bob= q0")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Each principal is shown their own policy, and again when it changes; nobody
// another's.
func TestOwnPolicyIsShownToItsOwner(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNotesNode(t)
		bob, ann := n.person("bob", expiry), n.person("ann", expiry)
		allow(bob, `{"ann@x.org":{}}`)
		bob.subscribe(ownPolicy+"note", 1)
		ann.subscribe(ownPolicy+"note", 1)
		bob.want(`$me/policy/note={"ann@x.org":{}} q1 retain`)
		ann.want("$me/policy/note= q1 retain")
		allow(bob, `{}`)
		allow(ann, `{"eve@x.org":{}}`)
		bob.want(`$me/policy/note={"ann@x.org":{}} q1 retain`, "$me/policy/note={} q1")
		ann.want("$me/policy/note= q1 retain", `$me/policy/note={"eve@x.org":{}} q1`)
	}
	n := newNotesNode(t)
	nobody, _ := n.connect("nobody", false, 0, func(r *ConnectRequest) { r.Principal = "" })
	if err := nobody.s.maySubscribe(ownPolicy+"note", nil, n.now()); err == nil || !strings.Contains(err.Error(), "identity-required") {
		t.Errorf("nobody's own policy: %v", err)
	}
}

// The operator's denials cut what owners allow, at once and until they end; the
// operator need not allow anything.
func TestOperatorsCeiling(t *testing.T) {
	for _, filter := range []string{"note/x.org/bob", "note/x.org/+"} {
		for _, expiry := range []uint32{0, 3600} {
			n := newNotesNode(t)
			n.policies["none"] = parseRules("")
			n.policies["cut"] = parseRules("deny ann@x.org note/x.org/bob subscribe\ndeny bob@x.org note/# publish 18:00-23:00")
			n.policies["no policies"] = parseRules("deny bob@x.org $me/policy/note publish")
			n.policy("none")
			bob, ann := n.person("bob", 0), n.person("ann", expiry)
			allow(bob, `{"ann@x.org":{}}`)
			must(t, bob.publish("note/x.org/bob", "one", 1))
			ann.subscribe(filter, 1)
			ann.want("note/x.org/bob=one q1 retain")
			n.policy("cut")
			if got := ann.await(2); !strings.HasPrefix(got[1], "note/x.org/bob= q1") {
				t.Errorf("%s: cut off, ann got %q", filter, got)
			}
			must(t, bob.publish("note/x.org/bob", "two", 1))
			n.pass(6 * time.Hour)
			if err := bob.publish("note/x.org/bob", "three", 1); err == nil {
				t.Errorf("%s: bob published what the operator denies", filter)
			}
			n.policy("no policies")
			ann.ackAll()
			if got := ann.await(3); !strings.HasPrefix(got[2], "note/x.org/bob=two q1") {
				t.Errorf("%s: no longer cut off, ann got %q", filter, got)
			}
			if err := bob.publish(ownPolicy+"note", "{}", 1); err == nil {
				t.Errorf("%s: bob set a policy that the operator denies", filter)
			}
		}
	}
}
