package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bellwire/bellwire/broker"
	"github.com/bellwire/bellwire/broker/brokertest"
	"github.com/bellwire/bellwire/profiles/kind"
	"github.com/bellwire/bellwire/profiles/presence"
	"github.com/bellwire/bellwire/profiles/state"
)

// allow is a rule that shows services to those it names.
func allow(id, show string, who ...string) string {
	return rule(id, "allow", show, "", who...)
}

func rule(id, handling, show, more string, who ...string) string {
	var ids []string
	for _, w := range who {
		ids = append(ids, `{"one":"pres:`+w+`"}`)
	}
	return fmt.Sprintf(`{"id":%q,"if":{"identity":[%s]%s},"then":{"handling":%q},"show":{%s}}`, id, strings.Join(ids, ","), more, handling, show)
}

func rules(rules ...string) string { return `{"v":1,"rules":[` + strings.Join(rules, ",") + `]}` }

// All faults of a policy are told at once, each with its place, and the old one
// stays.
func TestPolicyFaults(t *testing.T) {
	n, pc, watcher := pair(t)
	pc.Publish(bobs, open)
	wants(t, n, watcher, "open")
	refuses(t, pc.TryPublish(policy, `{"v":2,"rules":[
		{"id":"a","if":{"identity":[]},"then":{"handling":"maybe"}},
		{"id":"a","if":{"identity":[{"one":"bob"}],"weekly":{"tz":"Mars/Olympus","windows":[{"days":["mon"],"start":"08:00","end":"08:00"}]}},"then":{"handling":"allow"}}],
		"limits":[{"id":"l","only":{}}],
		"delegates":[{"one":"pres:a@b.c","sources":["~x"]}]}`), broker.ErrPayload,
		"duplicate-id", "/v", "/rules/0/if/identity", "/rules/0/then/handling", "/rules/1/if/weekly/tz", "/rules/1/if/identity/0/one", "/limits/0/only", "/delegates/0/sources/0")
	wants(t, n, watcher)
	watcher.Unsubscribe(bobs)
	watcher.Subscribe(bobs, 1)
	wants(t, n, watcher, "open")
	pc.Publish(policy, "")
	wants(t, n, watcher, "nothing")
}

// Whoever may see nothing is sent the same octets with the same flags at the
// same time, whatever the reason: politely blocked, a
// window that is closed, a policy of nothing, nobody home.
func TestNothingLooksAlike(t *testing.T) {
	reasons := map[string]string{
		"polite": rules(rule("r", "polite-block", `"services":["*"]`, "", ann)),
		"window": rules(rule("r", "allow", `"services":["*"]`, `,"weekly":{"tz":"UTC","windows":[{"days":["sun"],"start":"08:00","end":"17:00"}]}`, ann)),
		"limit": `{"v":1,"rules":[` + allow("r", `"services":["*"]`, ann) +
			`],"limits":[{"id":"l","only":{"weekly":{"tz":"UTC","windows":[{"days":["sun"],"start":"08:00","end":"17:00"}]}}}]}`,
		"shown nothing": rules(rule("r", "allow", "", "", ann)),
		"none":          "",
		"gone":          everything,
	}
	traces := map[string]string{}
	for name, document := range reasons {
		n := newNode(t)
		pc := n.Connect(bob)
		if document != "" {
			pc.Publish(policy, document)
		}
		if name == "gone" {
			pc.Publish(bobs, open)
			pc.Publish(bobs, "")
		} else {
			pc.Publish(bobs, open)
		}
		var trace []string
		for _, qos := range []uint8{0, 1} {
			for _, expiry := range []uint32{0, 3600} {
				c := n.Connect(ann, brokertest.ClientID(fmt.Sprint("ann", qos, expiry)), brokertest.Expiry(expiry))
				c.Subscribe(bobs, qos)
				n.Settle()
				if name != "gone" {
					pc.Publish(bobs, closed)
					pc.Publish(bobs, open)
				}
				n.Settle()
				c.Lose()
				if name != "gone" {
					pc.Publish(bobs, closed)
				}
				trace = append(trace, fmt.Sprintf("%+v", c.Take()))
				c = n.Connect(ann, brokertest.ClientID(c.Name), brokertest.Expiry(expiry))
				n.Settle()
				c.Subscribe(bobs, qos)
				n.Settle()
				trace = append(trace, fmt.Sprintf("%+v", c.Take()))
			}
		}
		traces[name] = strings.Join(trace, "\n")
	}
	for name, trace := range traces {
		if trace != traces["none"] {
			t.Errorf("%s looks like\n%s\nand no policy like\n%s", name, trace, traces["none"])
		}
	}
	if !strings.Contains(traces["none"], neutral(t, bob)[1:]) {
		t.Errorf("nothing looks like %s", traces["none"])
	}
}

// A window that closes looks like an owner who goes, and one that closes while
// he is away like nothing at all.
func TestClosingLooksLikeGoing(t *testing.T) {
	for _, qos := range []uint8{0, 1} {
		for _, expiry := range []uint32{0, 3600} {
			var traces [2]string
			for i := range traces {
				n := newNode(t)
				pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
				pc.Publish(policy, rules(rule("r", "allow", `"services":["*"]`, `,"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"08:00","end":"17:00"}]}`, ann)))
				pc.Publish(bobs, open)
				watcher.Subscribe(bobs, qos)
				n.Settle()
				if i == 0 {
					n.Pass(4*time.Hour + 59*time.Minute)
					pc.Disconnect()
				}
				n.Pass(5 * time.Hour) // past 17:00
				for _, g := range watcher.Take() {
					traces[i] += fmt.Sprintf("%+v\n", g)
				}
			}
			if traces[0] != traces[1] || strings.Count(traces[0], "\n") != 2 {
				t.Errorf("QoS %d, expiry %d: he went:\n%sthe window closed:\n%s", qos, expiry, traces[0], traces[1])
			}
		}
	}
}

// Nor does what is sent when a window opens tell that it was not the owner who came.
func TestOpeningLooksLikeComing(t *testing.T) {
	for _, qos := range []uint8{0, 1} {
		for _, expiry := range []uint32{0, 3600} {
			var traces [2]string
			for i, opens := range []string{"08:00", "18:00"} {
				n := newNode(t)
				pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
				pc.Publish(policy, rules(rule("r", "allow", `"services":["*"]`, `,"weekly":{"tz":"UTC","windows":[{"days":["mon"],"start":"`+opens+`","end":"20:00"}]}`, ann)))
				if i == 1 {
					pc.Publish(bobs, open)
				}
				watcher.Subscribe(bobs, qos)
				n.Settle()
				n.Pass(6 * time.Hour) // 18:00
				if i == 0 {
					pc.Publish(bobs, open)
				}
				n.Settle()
				for _, g := range watcher.Take() {
					traces[i] += fmt.Sprintf("%+v\n", g)
				}
			}
			if traces[0] != traces[1] || strings.Count(traces[0], "\n") != 2 {
				t.Errorf("QoS %d, expiry %d: he came:\n%sthe window opened:\n%s", qos, expiry, traces[0], traces[1])
			}
		}
	}
}

// A document is made once for all who are shown the same.
func TestRenderedOnceForAClass(t *testing.T) {
	n := newNode(t)
	pc := n.Connect(bob)
	pc.Publish(policy, rules(allow("a", `"services":["*"]`, "w0@x.org", "w1@x.org"), allow("b", `"services":["*"]`, "w2@x.org"), allow("c", `"services":["im"]`, "w3@x.org")))
	var octets []*byte
	var watchers []*brokertest.Client
	for i := range 6 {
		w := n.Connect(fmt.Sprintf("w%d@x.org", i))
		w.Subscribe(bobs, uint8(i%2))
		watchers = append(watchers, w)
	}
	n.Settle()
	pc.Publish(bobs, open)
	n.Settle()
	for _, w := range watchers {
		octets = append(octets, w.Octets(bobs))
	}
	if octets[0] == nil || octets[0] != octets[1] || octets[0] != octets[2] {
		t.Error("equal grants were rendered more than once")
	}
	if octets[3] == octets[0] {
		t.Error("another grant shows the same memory")
	}
	if octets[4] == nil || octets[4] != octets[5] {
		t.Error("nothing was rendered more than once")
	}
}

// A watcher who falls behind is shown how things are when there is room again,
// as far as that is permitted then: never what was withdrawn meanwhile.
func TestSlowWatcher(t *testing.T) {
	for _, qos := range []uint8{0, 1} {
		for _, expiry := range []uint32{0, 3600} {
			t.Run(fmt.Sprintf("QoS %d expiry %d", qos, expiry), func(t *testing.T) {
				n := newNode(t)
				pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
				pc.Publish(policy, everything)
				watcher.Subscribe(bobs, qos)
				wants(t, n, watcher, "nothing")
				watcher.Stall()
				for i := range 50 {
					pc.Publish(bobs, []string{open, closed}[i%2])
				}
				pc.Publish(bobs, open)
				n.Pass(time.Minute) // what changes too often is held back for a moment
				watcher.Resume()
				wants(t, n, watcher, "open")

				watcher.Stall()
				pc.Publish(bobs, `{"basic":"open","notes":{"en":"at the pub"}}`)
				n.Settle()
				pc.Publish(policy, rules())
				n.Settle()
				watcher.Resume()
				wants(t, n, watcher, "nothing")
			})
		}
	}
}

// By wildcard one is shown who lets one see, and learns nothing of others.
func TestWildcard(t *testing.T) {
	n := newNode(t)
	for i, document := range []string{everything, rules(), everything, rules(rule("r", "polite-block", "", "", ann)), ""} {
		c := n.Connect(fmt.Sprintf("p%d@example.com", i))
		if document != "" {
			c.Publish(policy, document)
		}
		if i != 2 {
			c.Publish(fmt.Sprintf("presence/example.com/p%d", i), open)
		}
	}
	for _, filter := range []string{"presence/example.com/+", "presence/#", "+/+/+", "#"} {
		for _, qos := range []uint8{0, 1} {
			watcher := n.Connect(ann)
			watcher.Subscribe(filter, qos)
			n.Settle()
			var got []string
			for _, g := range watcher.Take() {
				local := strings.TrimPrefix(g.Topic, "presence/example.com/")
				got = append(got, local+" "+summary(t, local+"@example.com", g.Payload))
			}
			slices.Sort(got)
			if want := []string{"p0 open", "p2 nothing", "p3 nothing"}; !slices.Equal(got, want) {
				t.Errorf("%s at QoS %d: got %v, want %v", filter, qos, got, want)
			}
		}
	}
}

// Presence keeps what every profile owes its owners and its watchers.
func TestProfile(t *testing.T) {
	const mia = "mia@example.com"
	const eve = "eve@example.net"
	watchers := []string{ann, eve}
	office := `,"weekly":{"tz":"UTC","windows":[{"days":["mon","tue","wed","thu","fri"],"start":"08:00","end":"17:00"}]}`
	nothing := func(_ string, _ time.Time, payload string) error {
		for _, owner := range []string{bob, mia} {
			if payload == neutral(t, owner) {
				return nil
			}
		}
		return errors.New("nothing is permitted")
	}
	atWork := func(at time.Time) bool {
		return at.Weekday() != time.Saturday && at.Weekday() != time.Sunday && at.Hour() >= 8 && at.Hour() < 17
	}
	// some permits a document only without the words, to who, when.
	some := func(document string, who []string, when func(time.Time) bool, not ...string) brokertest.Policy {
		return brokertest.Policy{Document: document, Permits: func(watcher string, at time.Time, payload string) error {
			if !slices.Contains(who, watcher) || !when(at) {
				return nothing(watcher, at, payload)
			}
			for _, word := range not {
				if strings.Contains(payload, word) {
					return fmt.Errorf("%s is not permitted", word)
				}
			}
			return nil
		}}
	}
	always := func(time.Time) bool { return true }
	blind := func(document string) brokertest.Policy {
		return brokertest.Policy{Document: document, Permits: nothing}
	}
	blinds := []brokertest.Policy{
		blind(rules()), blind(`{"v":1,"defaults":{"handling":"confirm"}}`),
		blind(rules(rule("r", "polite-block", `"all":true,"services":["*"]`, "", watchers...))),
		blind(rules(rule("r", "allow", "", "", watchers...))),
		blind(rules(rule("r", "allow", `"services":["*"]`, `,"validity":[{"from":"2027-01-01T00:00:00Z","until":"2027-01-02T00:00:00Z"}]`, watchers...))),
	}
	policies := append([]brokertest.Policy{
		{Permits: nothing},
		some(rules(allow("a", `"services":["*"],"note":true`, ann)), []string{ann}, always, "SECRET", "persons"),
		some(rules(allow("a", `"services":["im"],"persons":["*"],"activities":true`, eve, mia)), []string{eve, mia}, always, "tel:", "SECRET", "NOTE"),
		some(rules(rule("o", "allow", `"services":["*"]`, office, watchers...)), watchers, atWork, "SECRET", "NOTE", "persons"),
		some(`{"v":1,"rules":[`+allow("a", `"services":["*"]`, watchers...)+`],"limits":[{"id":"l","only":{`+office[1:]+`}}]}`, watchers, atWork, "SECRET", "NOTE"),
	}, blinds...)
	brokertest.TestProfile(t, brokertest.Suite{
		New:    func() broker.Profile { return presences()[0] },
		Owners: []string{bob, mia}, Watchers: watchers,
		Topic:   func(owner string) string { return kind.Resource{Kind: "presence", Addr: kind.Of(owner)}.Topic() },
		Policy:  func(string) *rapid.Generator[brokertest.Policy] { return rapid.SampledFrom(policies) },
		Blind:   func(string) *rapid.Generator[brokertest.Policy] { return rapid.SampledFrom(blinds) },
		Default: func(string) brokertest.Policy { return brokertest.Policy{Permits: nothing} },
		Publish: func(owner string) *rapid.Generator[brokertest.Publication] {
			topic := kind.Resource{Kind: "presence", Addr: kind.Of(owner)}.Topic()
			return rapid.Custom(func(t *rapid.T) brokertest.Publication {
				p := brokertest.Publication{Topic: topic + rapid.SampledFrom([]string{"", "", "/phone", "/typing"}).Draw(t, "source"), Retain: rapid.Bool().Draw(t, "retain")}
				p.Payload = rapid.SampledFrom([]string{
					"", open, closed, `{"basic":"Open"}`,
					`{"tuples":[{"id":"a","basic":"open","contact":{"uri":"im:x@y.z","priority":0.8},"note":{"en":"NOTE"}},{"id":"b","basic":"closed","contact":{"uri":"tel:1"}}]}`,
					`{"basic":"open","persons":[{"id":"me","activities":["meeting"],"mood":["SECRET"]}],"notes":{"en":"NOTE"}}`,
					`{"basic":"open","persons":[{"id":"me","activities":{"is":["lunch"],"until":"2026-03-09T12:30:00Z"}}]}`,
				}).Draw(t, "document")
				switch rapid.IntRange(0, 6).Draw(t, "property") {
				case 0:
					p.Properties = [][2]string{{"evt-expires", rapid.SampledFrom([]string{"30", "60", "29", "9999999"}).Draw(t, "seconds")}}
				case 1:
					p.Properties = [][2]string{{"evt-bind", rapid.SampledFrom([]string{"connection", "none"}).Draw(t, "bind")}}
				case 2:
					p.Properties = [][2]string{{"evt-etag", "nobody's"}}
				}
				return p
			})
		},
	})
}

// What there was no room for is shown also to who has subscribed to it again
// meanwhile, with a queue.
func TestOwedAcrossSubscriptions(t *testing.T) {
	n := newNode(t)
	watcher := n.Connect(ann, brokertest.Expiry(3600))
	watcher.Stall()
	watcher.Subscribe(bobs, 0)
	watcher.Subscribe("presence/example.com/+", 2)
	n.Settle()
	watcher.Resume()
	wants(t, n, watcher, "nothing")
}

// That time changes somebody whom one may not see is not told, by wildcard and
// with a queue neither.
func TestTimeTellsNobody(t *testing.T) {
	for _, qos := range []uint8{0, 1} {
		for _, expiry := range []uint32{0, 3600} {
			n := newNode(t)
			pc, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
			pc.Publish(policy, rules())
			watcher.Subscribe("presence/#", qos)
			own := n.Connect(bob)
			own.Subscribe(bobs, 0) // somebody for whom the time is noted
			pc.Publish(bobs, `{"basic":"open","persons":[{"id":"me","activities":{"is":["lunch"],"until":"2026-03-09T12:30:00Z"}}]}`)
			n.Pass(time.Hour)
			wants(t, n, watcher)
		}
	}
}

// Where an owner is in life the owner says: what a delegate publishes is shown,
// and neither opens a rule nor, by contradicting the owner, closes one.
func TestSphereIsTheOwners(t *testing.T) {
	const calendar = "calendar@example.com"
	sphere := func(s string) string { return `{"basic":"open","persons":[{"id":"p","sphere":"` + s + `"}]}` }
	n := newNode(t)
	owner, delegate, watcher := n.Connect(bob), n.Connect(calendar), n.Connect(ann)
	owner.Publish(policy, `{"v":1,"delegates":[{"one":"pres:`+calendar+`","sources":["calendar"]}],"rules":[`+
		rule("work", "allow", `"services":["*"]`, `,"sphere":["work"]`, ann)+`]}`)
	watcher.Subscribe(bobs, 1)
	wants(t, n, watcher, "nothing")
	delegate.Publish(bobs+"/calendar", sphere("work"), brokertest.Retain)
	wants(t, n, watcher)
	owner.Publish(bobs+"/pc", sphere("work"))
	wants(t, n, watcher, "open")
	delegate.Publish(bobs+"/calendar", sphere("home"), brokertest.Retain)
	wants(t, n, watcher)
	owner.Publish(bobs+"/phone", sphere("home"))
	wants(t, n, watcher, "nothing")
}

// A counting kind is presence, and counts how often it is composed.
type counting struct {
	*presence.Kind
	composed *atomic.Int64
}

func (k counting) Compose(now time.Time, r kind.Resource, pubs []kind.Publication) (*kind.Composed, error) {
	k.composed.Add(1)
	return k.Kind.Compose(now, r, pubs)
}

// For who may see nothing nothing is composed: the time it takes would tell that
// there is something. Only a condition on the owner's sphere must know it.
func TestNothingIsComposedForNobody(t *testing.T) {
	const eve = "eve@example.net"
	k := counting{presence.New([]byte("key")), new(atomic.Int64)}
	n := brokertest.New(t, func() []broker.Profile { return []broker.Profile{state.NewWith(k, quick)} })
	owner := n.Connect(bob)
	for _, c := range []struct {
		policy    string
		ann, eves int64
	}{
		{"", 0, 0},
		{rules(allow("a", `"services":["*"]`, ann)), 1, 0},
		{rules(allow("a", `"services":["*"]`, ann), rule("b", "polite-block", "", "", eve)), 1, 0},
		{rules(allow("a", `"services":["*"]`, ann), rule("b", "allow", `"services":["*"]`, `,"sphere":["home"]`, eve)), 1, 1},
		{`{"v":1,"rules":[` + allow("a", `"services":["*"]`, ann, eve) + `],"limits":[{"id":"l","only":{"weekly":{"tz":"UTC","windows":[{"days":["sun"],"start":"08:00","end":"17:00"}]}}}]}`, 0, 0},
	} {
		for who, want := range map[string]int64{ann: c.ann, eve: c.eves} {
			owner.Publish(policy, c.policy)
			owner.Publish(bobs, open)
			n.Settle()
			before := k.composed.Load()
			if _, err := n.Fetch(broker.Who{Principal: who}, bobs); err != nil {
				t.Error(err)
			}
			if got := k.composed.Load() - before; got != want {
				t.Errorf("%s: composed %d times for %s, want %d", c.policy, got, who, want)
			}
		}
	}
}

// What time alone changes is shown no more often than what is published: a burst,
// then one change for each interval, and at last what stays true. A window that
// closes meanwhile is not delayed by it.
func TestTimeIsPaced(t *testing.T) {
	for _, expiry := range []uint32{0, 3600} {
		n := newNode(t)
		owner, watcher := n.Connect(bob), n.Connect(ann, brokertest.Expiry(expiry))
		owner.Publish(policy, rules(rule("r", "allow", `"services":["*"],"persons":["*"],"mood":true`,
			`,"validity":[{"from":"2026-03-09T12:00:00Z","until":"2026-03-09T12:00:51Z"}]`, ann)))
		var moods []string
		for i := range 90 {
			at := n.Now().Add(time.Duration(i+1) * 500 * time.Millisecond)
			moods = append(moods, fmt.Sprintf(`{"id":"p%d","mood":{"is":["m%d"],"from":%q}}`, i, i, at.Format(time.RFC3339Nano)))
		}
		watcher.Subscribe(bobs, 1)
		n.Settle()
		owner.Publish(bobs, `{"basic":"open","persons":[`+strings.Join(moods, ",")+`]}`)
		n.Settle()
		watcher.Take()
		shown := 0
		for range 96 { // 48 s
			n.Pass(500 * time.Millisecond)
			shown += len(watcher.Take())
		}
		// 10 in a row, of which the publication was one, and one for each 5 s.
		if shown < 10 || shown > 10+48/5+1 {
			t.Errorf("expiry %d: shown %d times, want some 19", expiry, shown)
		}
		n.Pass(2500 * time.Millisecond)
		watcher.Take()
		n.Pass(500 * time.Millisecond)
		wants(t, n, watcher, "nothing")
	}
}

// Who names a resource more often in one packet than it may be asked for in a minute is told of
// each what is so in the end, and it is so: granted it is, and shows what there is.
func TestNamedManyTimesInOnePacket(t *testing.T) {
	eachSession(t, func(t *testing.T, qos uint8, expiry uint32) {
		n := newNode(t)
		bobsPC, carolsPC := n.Connect(bob), n.Connect(carol)
		for _, pc := range []*brokertest.Client{bobsPC, carolsPC} {
			pc.Publish(policy, everything)
		}
		bobsPC.Publish(bobs, open)
		carolsPC.Publish(carols, open)
		eve := n.Connect("eve@example.net", brokertest.Expiry(expiry))
		filters := append(slices.Repeat([]string{bobs}, 30), carols)
		for i, r := range eve.TrySubscribeAll(qos, filters...) {
			if r.Err != nil {
				t.Fatalf("filter %d: %v", i, r.Err)
			}
		}
		n.Settle()
		shown := map[string]bool{}
		for _, g := range eve.Take() {
			shown[g.Topic] = true
		}
		if !shown[bobs] || !shown[carols] {
			t.Errorf("shown is %v", shown)
		}
		bobsPC.Publish(bobs, closed)
		wants(t, n, eve, "closed")
	})
}
