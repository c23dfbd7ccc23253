package blackbox

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const (
	ownWatchers = "$me/watchers/presence"
	ownXML      = "$me/winfo/presence"
	ownStats    = "$me/stats/presence"
	ownRules    = "$me/policy/watcher"

	carolsPresence = "presence/example.com/carol"
)

// A watcherRow is what an owner is shown of one watcher.
type watcherRow struct {
	Origin, By                                                   string
	ID, URI, Status, Event, Visibility, Style, Since, Note, Name string

	Auth    int
	Expires *int
	Fetches int `json:"fetches24h"`
}

// A watcherList is what an owner is shown of all.
type watcherList struct {
	Version, Total int
	Full           bool
	Watchers       []watcherRow
}

func (l *watcherList) String() string {
	var rows []string
	for _, r := range l.Watchers {
		rows = append(rows, fmt.Sprintf("%s %s %s", r.Visibility, r.Status, r.Event))
	}
	slices.Sort(rows)
	return strings.Join(rows, ", ")
}

func readWatchers(t *testing.T, text string) (l watcherList) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return l
}

// own is what somebody is shown of their own who subscribes to it now.
func (s *server) own(who, topic string) string {
	s.t.Helper()
	c := s.person(who, "looks")
	c.Subscribe(topic, 1)
	p := c.Receive()
	c.Disconnect()
	c.Closed()
	return string(p.Payload)
}

// watchersOf is the list of an owner's watchers, with one at least.
func (s *server) watchersOf(t *testing.T, who string) watcherList {
	t.Helper()
	text := s.own(who, ownWatchers)
	l := readWatchers(t, text)
	if len(l.Watchers) == 0 {
		t.Fatalf("%s sees nobody: %s", who, text)
	}
	return l
}

// showAnybody is showAll, also to who does not say who they are.
var showAnybody = strings.Replace(showAll, `"if":{"identity":[{"many":{}}]},`, "", 1)

// demanding is showAnybody of an owner who demands to know so much of who watches.
func demanding(visibility string) string {
	return strings.Replace(showAnybody, `"rules"`, `"defaults":{"minVisibility":"`+visibility+`"},"rules"`, 1)
}

// under asks for a resource, as somebody seen so, and returns the code and the reason.
func under(c *mq.Client, topic, visibility string) (code byte, reason string) {
	var props mq.Properties
	if visibility != "" {
		props = mq.Properties{mq.User("evt-visibility", visibility)}
	}
	ack := c.TrySubscribe(props, mq.Filter{Filter: topic, QoS: 1})
	return ack.Codes[0], ack.Properties.Text(mq.PropReasonString)
}

// address is what a URI of a watcher names.
func (r *watcherRow) address() string { return strings.TrimPrefix(r.URI, "pres:") }

var pseudonymForm = regexp.MustCompile(`^p-[a-z2-7]{24}@example\.net$`)

// noName fails the test if a text says who alice is.
func noName(t *testing.T, what, text string) {
	t.Helper()
	if strings.Contains(strings.ToLower(text), "alice") {
		t.Errorf("%s: it is told who watches: %s", what, text)
	}
}

// What a watcher offers to be seen as and what an owner demands gives what the table
// says; of several offers the first that he takes.
func TestS11WhoIsSeenHasAWinner(t *testing.T) {
	t.Parallel()
	const refused = ""
	for demand, want := range map[string]map[string]string{
		"anonymous":    {"identified": "identified", "pseudonymous": "pseudonymous", "anonymous": "anonymous", "anonymous,identified": "anonymous"},
		"pseudonymous": {"identified": "identified", "pseudonymous": "pseudonymous", "anonymous": refused, "anonymous,identified": "identified"},
		"identified":   {"identified": "identified", "pseudonymous": refused, "anonymous": refused, "anonymous,identified": "identified"},
	} {
		t.Run(demand, func(t *testing.T) {
			t.Parallel()
			s := kinds(t, "2026-03-09T12:00:00Z")
			pc := s.person(bob, "pc")
			pc.Publish("$me/policy/presence", 1, demanding(demand))
			pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
			seen, total := map[string]int{}, 0
			for offer, who := range map[string]string{"identified": alice, "pseudonymous": carol, "anonymous": zoe, "anonymous,identified": boss} {
				c := s.person(who, "pc")
				code, reason := under(c, bobsPresence, offer)
				as := want[offer]
				if as == refused {
					if code != 0x87 || !contains(reason, "identity-required") {
						t.Errorf("offered %s: %#02x %q", offer, code, reason)
					}
					c.Quiet()
					continue
				}
				if p := c.Receive(); code != 1 || !contains(string(p.Payload), `"open"`) {
					t.Errorf("offered %s: %#02x, shown %s", offer, code, p.Payload)
				}
				seen[as]++
				total++
			}
			got := map[string]int{}
			for _, r := range s.watchersOf(t, bob).Watchers {
				got[r.Visibility]++
			}
			if fmt.Sprint(got) != fmt.Sprint(seen) {
				t.Errorf("bob sees %v, want %v", got, seen)
			}
			want := fmt.Sprintf(`{"identified":%d,"pseudonymous":%d,"anonymous":%d,"pending":0,"polite":0,"fetchers24h":0,"total":%d}`,
				seen["identified"], seen["pseudonymous"], seen["anonymous"], total)
			if counts := s.own(bob, ownStats); counts != want {
				t.Errorf("counted are %s, want %s", counts, want)
			}
		})
	}
}

// Each other wish that conflicts has its winner: the count is true within five seconds;
// who is denied is told, unless politely; who fetches again and again is seen to for a
// day; a lone anonymous watcher is
// hidden if the owner wants no way to find out who it is.
func TestS11OtherConflictsHaveAWinner(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, z := s.person(bob, "pc"), s.person(alice, "pc"), s.person(zoe, "pc")
	pc.Publish("$me/policy/presence", 1, showAnybody)

	pc.Subscribe(ownStats, 1)
	takes(pc, 1)
	under(a, bobsPresence, "anonymous")
	s.advance(5 * time.Second)
	if all := takes(pc, 1); !contains(string(all[len(all)-1].Payload), `"anonymous":1,"pending":0,"polite":0,"fetchers24h":0,"total":1`) {
		t.Errorf("bob is sent %v", all)
	}
	pc.Publish("$me/policy/presence", 1, strings.Replace(showAnybody, `"rules"`, `"anonymousShownFrom":5,"rules"`, 1))
	if counts := s.own(bob, ownStats); counts != `{"identified":0,"pseudonymous":0,"anonymous":"<5","pending":0,"polite":0,"fetchers24h":0}` {
		t.Errorf("counted are %s", counts)
	}
	if list := s.own(bob, ownWatchers); !contains(list, `"watchers":[],"total":0}`) {
		t.Errorf("bob sees %s", list)
	}

	fetchAgain(s, carol, 12)
	if l := s.watchersOf(t, bob); len(l.Watchers) != 1 || l.Watchers[0].Event != "fetch" || l.Watchers[0].Fetches != 12 || l.Watchers[0].address() != carol {
		t.Errorf("bob sees %+v", l)
	}

	for style, told := range map[string][]string{"refuse": {"terminated rejected"}, "polite": nil} {
		under(z, bobsPresence, "")
		z.Subscribe(bobsSubscription, 1)
		takes(z, 2)
		pc.Publish("$me/policy/presence", 1, to(alice, zoe))
		takes(z, 0)
		pc.Publish("$me/policy/presence", 1, strings.Replace(about(map[string]string{"refuse": "block", "polite": "polite-block"}[style], ""), "alice@example.net", zoe, 1))
		if states, _ := hears(t, z, len(told)); !slices.Equal(states, told) {
			t.Errorf("%s: told %v, want %v", style, states, told)
		}
		z.Unsubscribe(bobsPresence)
		z.Unsubscribe(bobsSubscription)
		pc.Publish("$me/policy/presence", 1, showAnybody)
	}
}

// Bob demands to know who it is: who asks not to be seen is refused, and the owner's
// list, counts and audit are to the byte what they were. Where he does not she is granted
// what she asked for, as nobody, at once. Also R5.1.14.
func TestS13GrantedAsAskedOrRefused(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, demanding("identified"))
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	traces := func() string {
		return strings.Join([]string{s.own(bob, ownWatchers), s.own(bob, ownXML), s.own(bob, ownStats), s.own(bob, "$me/policy/presence"), s.fetch(bob, "/v1/audit", "").body}, "\n")
	}
	before := traces()
	for _, offer := range []string{"anonymous", "pseudonymous", "anonymous,pseudonymous"} {
		if code, reason := under(a, bobsPresence, offer); code != 0x87 || !contains(reason, "identity-required") {
			t.Errorf("%s: %#02x %q", offer, code, reason)
		}
	}
	a.Quiet()
	s.advance(5 * time.Second)
	if after := traces(); after != before {
		t.Errorf("refused, she leaves\n%s, before there was\n%s", after, before)
	}
	if is := stateOf(t, s, alice).words(); is != "none" {
		t.Errorf("refused, she has a subscription: %s", is)
	}
	pc.Publish("$me/policy/presence", 1, demanding("anonymous"))
	if code, _ := under(a, bobsPresence, "anonymous"); code != 1 || !contains(string(a.Receive().Payload), `"open"`) {
		t.Errorf("asked for and possible: %#02x", code)
	}
	noName(t, "granted", traces())
	if l := s.watchersOf(t, bob); l.String() != "anonymous active subscribe" {
		t.Errorf("bob sees %v", &l)
	}
}

// Bob lets in who shows no name: he is told that somebody is there, and not who. When he
// will no longer have that, it ends, and he still does not learn who it was. Also R5.1.3.
func TestS14ThatSomebodyWatchesIsKnown(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, bobHears := s.heard(bob, "127.0.0.1")
	a := s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, demanding("anonymous"))
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	for _, topic := range []string{ownWatchers, ownXML, ownStats} {
		pc.Subscribe(topic, 1)
	}
	takes(pc, 3)
	a.Subscribe("$me/sub/#", 1)
	under(a, bobsPresence, "anonymous")
	takes(a, 2)
	s.advance(5 * time.Second)
	if p := latestOf(takes(pc, 3), ownStats); !contains(p, `"anonymous":1`) || !contains(p, `"total":1`) {
		t.Errorf("counted are %s", p)
	}
	pc.Publish("$me/policy/presence", 1, demanding("identified"))
	if states, shown := hears(t, a, 1); !slices.Equal(states, []string{"terminated rejected"}) || len(shown) > 0 {
		t.Errorf("alice is told %v, shown %v", states, shown)
	}
	pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
	a.Quiet()
	s.advance(5 * time.Second)
	all := takes(pc, 3)
	if p := latestOf(all, ownStats); !contains(p, `"total":0`) {
		t.Errorf("then counted are %s", p)
	}
	if l := readWatchers(t, latestOf(all, ownWatchers)); l.String() != "anonymous terminated rejected" {
		t.Errorf("then bob sees %v", &l)
	}
	noName(t, "all that bob was sent", string(bobHears.all))
}

// fetchAgain has somebody ask for bob's presence once, so many times.
func fetchAgain(s *server, who string, times int) {
	s.t.Helper()
	c := s.person(who, "fetches")
	for range times {
		c.SubscribeTo(mq.Properties{mq.User("evt-expires", "0")}, mq.Filter{Filter: bobsPresence, QoS: 1})
		s.advance(time.Minute) // more often is bounded
	}
	drain(c)
}

// latestOf is the last payload of a topic; empty if there is none.
func latestOf(all []*mq.Packet, topic string) (payload string) {
	for _, p := range all {
		if p.Topic == topic {
			payload = string(p.Payload)
		}
	}
	return payload
}

// Alice is another to each whom she watches as a pseudonym, and the same to each every
// time, also after a restart; on another server, which knows another secret, she is
// others: they do not follow from addresses. Bob reaches nobody by the one that is for
// carol. She can turn it, and show herself.
func TestS15PseudonymsArePairwise(t *testing.T) {
	t.Parallel()
	names := func(s *server, a *mq.Client) (towards map[string]string) {
		towards = map[string]string{}
		for who, topic := range map[string]string{bob: bobsPresence, carol: carolsPresence} {
			s.person(who, "pc").Publish("$me/policy/presence", 1, showAll)
			if code, reason := under(a, topic, "pseudonymous"); code != 1 {
				t.Fatalf("%#02x %s", code, reason)
			}
			text := s.own(who, ownWatchers)
			noName(t, who, text)
			r := readWatchers(t, text).Watchers[0]
			if towards[who] = r.address(); !pseudonymForm.MatchString(r.address()) {
				t.Errorf("%s sees %q", who, r.URI)
			}
		}
		return towards
	}
	s := kinds(t, "2026-03-09T12:00:00Z")
	a := s.person(alice, "pc")
	first := names(s, a)
	elsewhere := kinds(t, "2026-03-09T12:00:00Z")
	other := names(elsewhere, elsewhere.person(alice, "pc"))
	if all := []string{first[bob], first[carol], other[bob], other[carol]}; len(slices.Compact(slices.Sorted(slices.Values(all)))) != 4 {
		t.Errorf("two of them are the same: %v", all)
	}
	b := s.person(bob, "pc")
	b.Subscribe("im/#", 1)
	b.Publish("im/example.net/"+strings.TrimSuffix(first[carol], "@example.net"), 1, "Is that you?")
	if l := readLetter(t, b.Receive()); l.Disposition != "failed" {
		t.Errorf("bob writes to carol's, and is told %+v", l)
	}
	s.restart()
	a = s.person(alice, "pc")
	if again := names(s, a); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("again they are %v, were %v", again, first)
	}
	a.Publish("$ctl/rotate", 1, `{"kind":"presence","entity":"pres:bob@example.com"}`)
	if is := stateOf(t, s, alice).words(); is != "terminated deactivated" {
		t.Errorf("turned, it is %s", is)
	}
	if turned := names(s, a); turned[bob] == first[bob] || turned[carol] != first[carol] {
		t.Errorf("turned towards bob, they are %v, were %v", turned, first)
	}
	a.Publish("$ctl/reveal", 1, `{"kind":"presence","entity":"pres:bob@example.com"}`)
	if r := s.watchersOf(t, bob).Watchers[0]; r.address() != alice || r.Status != "active" {
		t.Errorf("shown, bob sees %+v", r)
	}
	noName(t, "carol", s.own(carol, ownWatchers))
}

// Bob writes to alice's pseudonym and she has it; she answers in its name, and he learns
// no other. When its time is over he is told what he is told of an address that nobody
// has.
func TestS16PseudonymReceivesAndSends(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, bobHears := s.heard(bob, "127.0.0.1")
	a := s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	a.Publish(ownRules, 1, `{"v":1,"displayName":"Alice","pseudonyms":{"expires":3600}}`)
	under(a, bobsPresence, "pseudonymous")
	takes(a, 1)
	pc.Subscribe(ownWatchers, 1)
	name := readWatchers(t, string(pc.Receive().Payload)).Watchers[0].address()
	pc.Subscribe("im/#", 1)
	a.Subscribe("im/#", 1)
	inbox := "im/example.net/" + strings.TrimSuffix(name, "@example.net")
	pc.Publish(inbox, 1, `{"id":"1","body":"Who are you?"}`)
	takeBody(t, a, "im/example.net/alice", bob, "Who are you?")
	send(a, bobsInbox, `{"id":"2","body":"A friend."}`, mq.User("evt-from", name))
	takeBody(t, pc, bobsInbox, name, "A friend.")
	if code := s.person(zoe, "pc").TryPublish(mq.Publish{Topic: bobsInbox, QoS: 1, Payload: []byte("x"), Properties: mq.Properties{mq.User("evt-from", name)}}); code != 0x87 {
		t.Errorf("zoe writes in its name: %#02x", code)
	}

	told := func(to string) string {
		pc.Publish(to, 1, `{"id":"3","body":"Still there?"}`)
		p := pc.Receive()
		pc.Acknowledge(p)
		return fmt.Sprintf("%s %v %v", strings.ReplaceAll(string(p.Payload), strings.TrimPrefix(to, "im/example.net/"), "TO"), p.Flags, p.Properties)
	}
	a.Unsubscribe(bobsPresence)
	s.advance(time.Hour - time.Second)
	drain(pc)
	pc.Publish(inbox, 1, "Just in time")
	takeBody(t, a, "im/example.net/alice", bob, "Just in time")
	s.advance(time.Second)
	drain(pc)
	if is, unknown := told(inbox), told("im/example.net/p-aaaaaaaaaaaaaaaaaaaaaaaa"); is != unknown || !contains(is, `"failed"`) {
		t.Errorf("over, bob is told\n%s, of one that nobody has\n%s", is, unknown)
	}
	a.Quiet()
	noName(t, "all that bob was sent", string(bobHears.all))
}

// takeBody receives a letter, wants it from whom and with that body, and acknowledges it.
func takeBody(t *testing.T, c *mq.Client, topic, from, body string) {
	t.Helper()
	p := c.Receive()
	c.Acknowledge(p)
	if l := readLetter(t, p); p.Topic != topic || l.From != "im:"+from || l.Body != body {
		t.Errorf("got %v %s, want %q from %s", p, p.Payload, body, from)
	}
}

// An owner counts three who show their names and two who do not exactly; whoever else asks
// is shown their own, for nobody can name another's.
func TestCountsAreExact(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAnybody)
	under(a, bobsPresence, "")
	for who, as := range map[string]string{carol: "identified", boss: "identified", zoe: "anonymous", mallory: "anonymous"} {
		under(s.person(who, "pc"), bobsPresence, as)
		under(s.person(who, "phone"), bobsPresence, as) // the same subscription
	}
	if counts := s.own(bob, ownStats); counts != `{"identified":3,"pseudonymous":0,"anonymous":2,"pending":0,"polite":0,"fetchers24h":0,"total":5}` {
		t.Errorf("counted are %s", counts)
	}
	if counts := s.own(alice, ownStats); !contains(counts, `"total":0`) {
		t.Errorf("alice, whom nobody watches, is shown %s", counts)
	}
	for _, topic := range []string{"$me/stats/presence/example.com/bob", "$me/stats/presence/bob@example.com"} {
		if code, _ := under(a, topic, ""); code < 0x80 {
			t.Errorf("alice subscribes to %s: %#02x", topic, code)
		}
	}
}

// Bob and alice each have an address of their own, and nothing that anybody is sent has
// either, in whatever form: documents, lists of watchers, reports, states, answers, the
// audit, and what an operator's rules let somebody see of all topics. That it would be
// found shows a contact that says it. Also R5.1.17, R5.1.18.
func TestS28NoAddressIsTold(t *testing.T) {
	t.Parallel()
	const bobsIP, alicesIP = "127.0.0.7", "127.0.0.9"
	s := prepareKinds(t, "2026-03-09T12:00:00Z")
	policy := s.args[slices.Index(s.args, "--policy")+1]
	text, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	const all = "rules:\n  - {id: all, allow: [subscribe], who: [mallory@example.com], topic: [\"#\", \"$SYS/#\"]}\n"
	if err := os.WriteFile(policy, append(text, all...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	pc, bobHears := s.heard(bob, bobsIP)
	a, aliceHears := s.heard(alice, alicesIP)
	m, everyHears := s.heard(mallory, "127.0.0.1")
	pc.Publish("$me/policy/presence", 1, undecided)
	pc.Publish("$me/policy/location", 1, `{"v":1,"rules":[{"id":"a","then":{"handling":"allow"},"show":{"radius":0}}]}`)
	pc.Publish("$me/policy/im", 1, letsIn(alice))
	m.SubscribeTo(nil, mq.Filter{Filter: "#", QoS: 1}, mq.Filter{Filter: "$SYS/#", QoS: 1})
	for _, c := range []*mq.Client{pc, a, m} {
		for _, filter := range []string{"$me/#", "$me/sub/#", "im/#", ownWatchers, ownXML, ownStats, "$me/audit", "$me/rsp"} {
			c.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1})
		}
	}
	a.Subscribe(bobsPresence, 1)
	a.Subscribe("location/example.com/bob", 1)
	m.Subscribe("presence/example.com/+", 1)
	fetched := func(who string) {
		for _, path := range []string{"/v1/presence/example.com/bob", "/v1/presence/example.com/+", "/v1/audit", "/v1/me/sub/presence/example.com/bob"} {
			for _, o := range []*overheard{bobHears, aliceHears} {
				o.all = append(o.all, fmt.Sprintf("%+v", s.fetch(who, path, ""))...)
			}
		}
	}
	fetched(alice)
	s.advance(5 * time.Second)
	pc.Publish("$ctl/approve", 1, `{"kind":"presence","watcher":"pres:alice@example.net"}`)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open","notes":{"en":"here"}}`, mq.User("evt-bind", "connection")))
	pc.PublishMessage(retained("location/example.com/bob", `{"lat":40.4168,"lon":-3.7038}`))
	under(a, "location/example.com/bob", "pseudonymous,identified")
	send(a, bobsInbox, `{"id":"1","wants":["delivered","displayed"],"body":"Hello"}`)
	bobHears.until(pc, `"body":"Hello"`)
	send(pc, bobsInbox+"/reports", `{"id":"1","disposition":"displayed"}`)
	send(a, "im/example.com/nobody", `{"id":"2","body":"Hello"}`)
	refusedBy(t, a, retained(bobsPresence, `{"basic":"closed"}`), 0x87)
	fetched(bob)
	s.advance(5 * time.Second)
	bobHears.until(pc, "pres:alice@example.net")
	for _, want := range []string{`"here"`, `"failed"`} {
		aliceHears.until(a, want)
	}
	if err := pc.Reset(); err != nil { // his connection is lost, which is noticed
		t.Fatal(err)
	}
	s.advance(time.Minute)
	fetched(alice)
	drain(a)
	drain(m)
	for who, o := range map[string]*overheard{"bob": bobHears, "alice": aliceHears, "mallory": everyHears} {
		for _, ip := range []string{bobsIP, alicesIP} {
			if form := formOf(string(o.all), ip); form != "" {
				t.Errorf("%s is told %s, as %q", who, ip, form)
			}
		}
	}
	pc, _ = s.heard(bob, bobsIP)
	pc.PublishMessage(retained(bobsPresence, `{"tuples":[{"id":"t","basic":"open","contact":{"uri":"sip:bob@`+bobsIP+`"}}]}`))
	aliceHears.until(a, "sip:bob@")
	if formOf(string(aliceHears.all), bobsIP) == "" {
		t.Error("what bob says himself was not found: nothing would have been")
	}
}

// keys returns the names of an object's members, in order.
func keys(t *testing.T, object json.RawMessage) (names []string) {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatal(err)
	}
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// attributes returns those of each element of that name in a document of RFC 3858, which
// has no other namespace and no other elements than that.
func attributes(t *testing.T, text, element string) (of []map[string]string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return of
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if e.Name.Space != "urn:ietf:params:xml:ns:watcherinfo" || !slices.Contains([]string{"watcherinfo", "watcher-list", "watcher"}, e.Name.Local) {
			t.Errorf("element %v", e.Name)
		}
		if e.Name.Local == element {
			m := map[string]string{}
			for _, a := range e.Attr {
				m[a.Name.Local] = a.Value
			}
			of = append(of, m)
		}
	}
}

// Of a watcher an owner is shown the address, how surely it was shown to be theirs, how
// the subscription stands, since and until when, and a name if they have given one;
// nothing else, whatever they do: of devices, their presence, or whom else they watch.
// Also R5.1.12.
func TestS33OwnerLearnsOfAWatcher(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, phone := s.person(bob, "pc"), s.person(alice, "secret-device"), s.person(alice, "other-device")
	pc.Publish("$me/policy/presence", 1, showAll)
	a.PublishMessage(retained("presence/example.net/alice", `{"basic":"open","notes":{"en":"at-the-dentist"}}`))
	for _, c := range []*mq.Client{a, phone} {
		c.SubscribeTo(mq.Properties{mq.User("evt-expires", "600")}, mq.Filter{Filter: bobsPresence, QoS: 1})
		c.Subscribe(carolsPresence, 1)
	}
	s.advance(10 * time.Second)
	members := []string{"auth", "event", "expires", "fetches24h", "id", "since", "status", "uri", "visibility"}
	attrs := map[string]string{"status": "active", "event": "subscribe", "expiration": "590", "duration-subscribed": "10"}
	check := func(name string) {
		t.Helper()
		text, winfo := s.own(bob, ownWatchers), s.own(bob, ownXML)
		var raw struct{ Watchers []json.RawMessage }
		if err := json.Unmarshal([]byte(text), &raw); err != nil || len(raw.Watchers) != 1 {
			t.Fatalf("bob sees %s, %v", text, err)
		}
		if got := keys(t, raw.Watchers[0]); !slices.Equal(got, members) {
			t.Errorf("of her bob sees %v, want %v", got, members)
		}
		r := readWatchers(t, text).Watchers[0]
		if r.URI != "pres:"+alice || r.Status != "active" || r.Auth != 20 || r.Since != "2026-03-09T12:00:00Z" || r.Expires == nil || *r.Expires != 590 || r.Name != name {
			t.Errorf("bob sees %+v", r)
		}
		list := attributes(t, winfo, "watcher")
		if len(list) != 1 || list[0]["id"] == "" || !strings.Contains(winfo, ">pres:"+alice+"<") {
			t.Fatalf("as XML bob sees %s", winfo)
		}
		delete(list[0], "id")
		if fmt.Sprint(list[0]) != fmt.Sprint(attrs) {
			t.Errorf("as XML bob sees %v, want %v", list[0], attrs)
		}
		for _, word := range []string{"device", "dentist", "carol", "127.0.0.1"} {
			if contains(text+winfo, word) {
				t.Errorf("bob is told of %s: %s %s", word, text, winfo)
			}
		}
	}
	check("")
	a.Publish(ownRules, 1, `{"v":1,"displayName":"Alice L."}`)
	members = append(members, "name")
	slices.Sort(members)
	attrs["display-name"] = "Alice L."
	check("Alice L.")
}

// Alice keeps to herself until when, and since when, she watches: bob's lists do not have
// it, in either form, nor what he is sent afterwards, until she lets them.
func TestS34WatcherSaysWhatIsShown(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	a.SubscribeTo(mq.Properties{mq.User("evt-expires", "600")}, mq.Filter{Filter: bobsPresence, QoS: 1})
	for rules, want := range map[string]struct{ since, until bool }{
		`{"v":1,"revealExpiry":false}`:                     {true, false},
		`{"v":1,"revealExpiry":false,"revealSince":false}`: {false, false},
		`{"v":1,"revealSince":false}`:                      {false, true},
		``:                                                 {true, true},
	} {
		a.Publish(ownRules, 1, rules)
		r, list := s.watchersOf(t, bob).Watchers[0], attributes(t, s.own(bob, ownXML), "watcher")
		_, since := list[0]["duration-subscribed"]
		_, until := list[0]["expiration"]
		if (r.Since != "") != want.since || since != want.since || (r.Expires != nil) != want.until || until != want.until {
			t.Errorf("%s: bob sees %+v and %v", rules, r, list)
		}
	}
	a.Publish(ownRules, 1, `{"v":1,"revealExpiry":false}`)
	pc.Subscribe(ownWatchers, 1)
	takes(pc, 1)
	s.advance(10 * time.Second)
	a.Unsubscribe(bobsPresence)
	a.SubscribeTo(mq.Properties{mq.User("evt-expires", "600")}, mq.Filter{Filter: bobsPresence, QoS: 1})
	s.advance(10 * time.Second)
	for _, p := range takes(pc, 1) {
		if l := readWatchers(t, string(p.Payload)); len(l.Watchers) != 1 || l.Watchers[0].Expires != nil {
			t.Errorf("bob is sent %s", p.Payload)
		}
	}
}

// Whoever is no party is told nothing when alice watches bob: subscribed to all that can be
// subscribed to, looking at their own lists, asking for his, and asking what alice does.
func TestR5_1_2NotObviousToOthers(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	m, hears := s.heard(mallory, "127.0.0.1")
	pc.Publish("$me/policy/presence", 1, to(alice))
	for _, filter := range []string{"#", "$SYS/#", "$me/#", "$me/sub/#", "presence/#", "presence/example.com/+"} {
		m.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1})
	}
	for _, topic := range []string{ownWatchers, ownXML, ownStats, "$me/audit"} {
		m.Subscribe(topic, 1)
		m.Acknowledge(m.Receive())
	}
	under(a, bobsPresence, "")
	s.advance(5 * time.Second)
	a.Unsubscribe(bobsPresence)
	under(a, bobsPresence, "")
	s.advance(5 * time.Second)
	m.Quiet()
	for _, topic := range []string{"$adm/example.com/watchers", "$me/watchers/presence/example.com/bob"} {
		if code, _ := under(m, topic, ""); code < 0x80 {
			t.Errorf("mallory subscribes to %s: %#02x", topic, code)
		}
	}
	for _, path := range []string{"/v1/domains/example.com/subscriptions", "/v1/me/sub/presence/example.com/bob", "/v1/audit"} {
		if got := s.fetch(mallory, path, ""); contains(got.body, "alice") || contains(got.body, `"active"`) {
			t.Errorf("mallory asks for %s: %+v", path, got)
		}
	}
	for _, topic := range []string{ownWatchers, ownXML, ownStats} {
		if text := s.own(mallory, topic); contains(text, "alice") || contains(text, "bob") || contains(text, `"total":1`) {
			t.Errorf("mallory is shown %s", text)
		}
	}
	noName(t, "all that mallory was sent", string(hears.all))
}

// Who has not said who they are is shown what a rule about anybody shows, and seen as
// somebody; without such a rule, or if bob wants to know who it is, refused.
func TestR5_1_3NobodyInParticular(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z", "--allow-anonymous")
	pc := s.person(bob, "pc")
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	nobody := s.open(v5, clean("nobody"))
	for policy, want := range map[string]byte{
		`{"v":1,"rules":[{"id":"all","then":{"handling":"allow"},"show":{"services":["*"]}}]}`:                                                  1,
		`{"v":1,"defaults":{"handling":"block"},"rules":[{"id":"all","then":{"handling":"allow"},"show":{"services":["*"]}}]}`:                  1,
		strings.Replace(to(alice), `"rules"`, `"defaults":{"handling":"block"},"rules"`, 1):                                                     0x87,
		`{"v":1,"defaults":{"minVisibility":"identified"},"rules":[{"id":"all","then":{"handling":"allow"},"show":{"services":["*"]}}]}`:        0x87,
		`{"v":1,"defaults":{"handling":"block"},"rules":[{"id":"all","if":{"auth":20},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`: 0x87,
	} {
		pc.Publish("$me/policy/presence", 1, policy)
		code, _ := under(nobody, bobsPresence, "")
		if code != want {
			t.Errorf("%s: %#02x, want %#02x", policy, code, want)
		}
		if want == 1 {
			if p := nobody.Receive(); !contains(string(p.Payload), `"open"`) {
				t.Errorf("%s: shown %s", policy, p.Payload)
			}
			if r := s.watchersOf(t, bob).Watchers[0]; r.Visibility != "anonymous" || r.URI != "pres:anonymous@anonymous.invalid" || r.Auth != 0 {
				t.Errorf("bob sees %+v", r)
			}
		}
		nobody.Unsubscribe(bobsPresence)
		drain(nobody)
	}
}

// Bob learns of a request within five seconds if he is there, and if he was not, when he
// is back, of the one that has run out meanwhile too; and of who has only fetched.
func TestOwnerLearnsOfSubscriptions(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, undecided)
	pc.Subscribe(ownWatchers, 1)
	takes(pc, 1)
	ask := func(c *mq.Client) {
		c.SubscribeTo(mq.Properties{mq.User("evt-expires", "60"), mq.User("evt-note", "It's me")}, mq.Filter{Filter: bobsPresence, QoS: 1})
	}
	ask(a)
	s.advance(5 * time.Second)
	l := readWatchers(t, string(takes(pc, 1)[0].Payload))
	if l.String() != "identified pending subscribe" || l.Watchers[0].address() != alice || l.Watchers[0].Note != "It's me" {
		t.Errorf("bob is sent %+v", l)
	}
	pc.Disconnect()
	pc.Closed()
	ask(s.person(zoe, "pc"))
	fetchAgain(s, carol, 12)
	s.advance(time.Hour)
	got := map[string]string{}
	for _, r := range s.watchersOf(t, bob).Watchers {
		got[r.address()] = fmt.Sprint(r.Status, " ", r.Event, " ", r.Fetches)
	}
	want := map[string]string{alice: "waiting timeout 0", zoe: "waiting timeout 0", carol: "terminated fetch 12"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("bob is back, and sees %v, want %v", got, want)
	}
}
