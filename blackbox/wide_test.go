package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const exampleComs = "presence/example.com/+"

// Who watches by a filter with wildcards is listed and counted to each owner who lets them
// see something, within five seconds, and to no other; not told is by what filter, nor whom
// else they watch. It ends with the time for which it was asked, with the owner's word, and
// with its session. Also R5.1.2.
func TestS33WhoWatchesByWildcardsIsListed(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, hers, a := s.person(bob, "pc"), s.person(carol, "pc"), s.person(alice, "secret-device")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	hers.Publish("$me/policy/presence", 1, to(zoe))
	for _, c := range []*mq.Client{pc, hers} {
		for _, topic := range []string{ownWatchers, ownStats} {
			c.Subscribe(topic, 1)
		}
		takes(c, 2)
	}
	s.advance(10 * time.Second)
	ask := func(offer string) *mq.Packet {
		t.Helper()
		return a.TrySubscribe(mq.Properties{mq.User("evt-expires", "600"), mq.User("evt-visibility", offer)}, mq.Filter{Filter: exampleComs, QoS: 1})
	}
	if ack := ask("anonymous"); ack.Codes[0] != 0x83 {
		t.Errorf("to hide by wildcards: %#02x", ack.Codes[0])
	}
	ack := ask("anonymous,identified")
	if granted := ack.Properties.User(); ack.Codes[0] != 1 || !slices.Equal(granted, []string{"evt-expires=600"}) {
		t.Errorf("she is granted %q, %#02x", granted, ack.Codes[0])
	}
	if all := takes(a, 1); len(all) != 1 || all[0].Topic != bobsPresence {
		t.Errorf("she sees %v", all)
	}
	s.advance(5 * time.Second)
	list, counts := "", ""
	for _, p := range takes(pc, 2) {
		if p.Topic == ownWatchers {
			list = string(p.Payload)
		} else {
			counts = string(p.Payload)
		}
	}
	if counts != `{"identified":1,"pseudonymous":0,"anonymous":0,"pending":0,"polite":0,"fetchers24h":0,"total":1}` {
		t.Errorf("bob is told %s", counts)
	}
	l := readWatchers(t, list)
	if len(l.Watchers) != 1 || l.Watchers[0].address() != alice || l.Watchers[0].Status != "active" || l.Watchers[0].Expires == nil || *l.Watchers[0].Expires != 595 || l.Total != 1 {
		t.Errorf("bob sees %s", list)
	}
	winfo := s.own(bob, ownXML)
	for _, word := range []string{"device", "+", "#", "carol"} {
		if contains(list+strings.ReplaceAll(winfo, "watcherinfo+xml", ""), word) {
			t.Errorf("bob is told of %q: %s %s", word, list, winfo)
		}
	}
	if list := attributes(t, winfo, "watcher"); len(list) != 1 || list[0]["status"] != "active" {
		t.Errorf("as XML bob sees %s", winfo)
	}
	if got := drain(hers); len(got) != 0 || contains(s.own(carol, ownWatchers)+s.own(carol, ownStats), "alice") || !contains(s.own(carol, ownStats), `"total":0`) {
		t.Errorf("carol, who shows her nothing, is told %v, %s", got, s.own(carol, ownWatchers))
	}

	told := func(what string, want ...string) {
		t.Helper()
		s.advance(5 * time.Second)
		var rows []string
		for _, r := range readWatchers(t, s.own(bob, ownWatchers)).Watchers {
			rows = append(rows, r.address())
		}
		if !slices.Equal(rows, want) {
			t.Errorf("%s: bob sees %v, want %v", what, rows, want)
		}
	}
	pc.Publish("$ctl/deny", 1, `{"kind":"presence","watcher":"pres:`+alice+`"}`)
	told("denied")
	pc.Publish("$ctl/withdraw", 1, `{"kind":"presence","watcher":"pres:`+alice+`"}`)
	told("let in again", alice)
	s.advance(10 * time.Minute)
	told("her time is over")
	drain(a)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
	a.Quiet()
	ask("identified")
	told("she has asked again", alice)
	s.drop(a)
	told("her connection is lost")
	if ack := s.person(zoe, "pc").TrySubscribe(mq.Properties{mq.User("evt-expires", "0")}, mq.Filter{Filter: exampleComs, QoS: 1}); ack.Codes[0] != 0x83 || !contains(ack.Properties.Text(mq.PropReasonString), "by its name") {
		t.Errorf("once, by wildcards: %#02x %q", ack.Codes[0], ack.Properties.Text(mq.PropReasonString))
	}
}

// An owner ends what somebody watches by wildcards, by the id in their list or the address, by
// MQTT, HTTP and bellwire: it shows everybody else, and of them what it shows of who is away,
// also to who comes back after a kill of the server, until they ask again; whom the owner has
// barred not before the bar is over. The watcher is told nothing.
func TestR5_1_16WildcardIsRevoked(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, hers := s.person(bob, "pc"), s.person(carol, "pc")
	for _, c := range []*mq.Client{pc, hers} {
		c.Publish("$me/policy/presence", 1, showAll)
	}
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	hers.PublishMessage(retained("presence/example.com/carol", `{"basic":"open"}`))
	connect := func() *mq.Client {
		return s.open(v5, as(alice, mq.Connect{ClientID: "phone", Properties: mq.Properties{mq.Number(mq.PropSessionExpiry, 86400)}}))
	}
	a := connect()
	a.Subscribe("$me/sub/#", 1)
	shown := func(what string, least int, want ...string) {
		t.Helper()
		var got []string
		for _, p := range takes(a, least) {
			state := "open"
			if isNeutral(p, strings.Split(p.Topic, "/")[2]+"@example.com") {
				state = "nothing"
			}
			got = append(got, p.Topic+" "+state)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: she is shown %v, want %v", what, got, want)
		}
	}
	const bobIs, carolIs = "presence/example.com/bob ", "presence/example.com/carol "
	ask := func() {
		t.Helper()
		a.Subscribe(exampleComs, 1)
	}
	idOf := func() string { return s.watchersOf(t, bob).Watchers[0].ID }
	ask()
	shown("at first", 2, bobIs+"open", carolIs+"open")
	pc.Publish("$ctl/revoke", 1, fmt.Sprintf(`{"kind":"presence","sid":%q}`, idOf()))
	shown("revoked by MQTT", 1, bobIs+"nothing")
	if l := s.watchersOf(t, bob); l.Total != 0 || len(l.Watchers) != 1 || l.Watchers[0].Status != "terminated" || l.Watchers[0].Event != "deactivated" {
		t.Errorf("bob sees %s", &l)
	}
	if l := s.watchersOf(t, carol); l.Total != 1 || l.Watchers[0].Status != "active" {
		t.Errorf("carol sees %s", &l)
	}
	s.kill()
	s.start()
	a = connect()
	for _, p := range takes(a, 2) { // her session goes on: the state of both
		if p.Topic == bobsPresence && !isNeutral(p, bob) {
			t.Errorf("after a kill she is shown %s", p.Payload)
		}
	}
	pc, hers = s.person(bob, "pc"), s.person(carol, "pc")
	pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`))
	hers.PublishMessage(retained("presence/example.com/carol", `{"basic":"closed"}`))
	shown("both change", 1, carolIs+"open") // which is: something
	ask()
	shown("she asks again", 2, bobIs+"open", carolIs+"open")
	if got := s.ask(bob, "POST", "/v1/presence/subscriptions/revoke", `{"watcher":"pres:`+alice+`","until":"2026-03-09T12:30:00Z"}`); got.status != 200 || !contains(got.body, `"matched":1`) {
		t.Errorf("by HTTP: %d %s", got.status, got.body)
	}
	shown("revoked by HTTP", 1, bobIs+"nothing")
	ask()
	shown("she asks, and is barred", 2, bobIs+"nothing", carolIs+"open")
	if ack := a.TrySubscribe(nil, mq.Filter{Filter: bobsPresence}); ack.Codes[0] != 0x87 || !contains(ack.Properties.Text(mq.PropReasonString), "retry-after") {
		t.Errorf("by name: %#02x %s", ack.Codes[0], ack.Properties.Text(mq.PropReasonString))
	}
	s.advance(30 * time.Minute)
	shown("the bar is over", 1, bobIs+"open")
	if status, body := s.fetchOf(alice, "/v1/me/sub/"+bobsPresence); status != 404 {
		t.Errorf("she is told of it: %d %s", status, body)
	}
}

// fetchOf is fetch without an entity tag.
func (s *server) fetchOf(who, path string) (status int, body string) {
	s.t.Helper()
	a := s.fetch(who, path, "")
	return a.status, a.body
}

// On each node of three owners learn within seconds of who watches by wildcards on another,
// end that, learn that they ask again,
// and that the node they were connected to is gone.
func TestClusterOwnersLearnOfWildcards(t *testing.T) {
	t.Parallel()
	p := loopback()
	p.policy = courtPolicy()
	c := p.start(t)
	c.await("the level that has requests", func(all []member) bool {
		return allVote(all) && !slices.ContainsFunc(all, func(m member) bool { return m.Level < m.Supports })
	})
	owner := c.nodes[0].person(bob, "pc")
	owner.Publish("$me/policy/presence", 1, showAll)
	owner.Subscribe(ownStats, 1)
	counted := func(what, want string, within time.Duration) {
		t.Helper()
		began := time.Now()
		for !time.Now().After(began.Add(within)) {
			if p := owner.Arrives(within); p != nil {
				if owner.Acknowledge(p); contains(string(p.Payload), want) {
					t.Logf("%s: told after %v", what, time.Since(began))
					return
				}
			}
		}
		t.Fatalf("%s: bob is not told %s within %v", what, want, within)
	}
	counted("at first", `"total":0`, patience)
	watcher := c.nodes[1].person(alice, "pc")
	watcher.Subscribe(exampleComs, 1)
	counted("she has come", `"identified":1`, patience)
	owner.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	for p := watcher.Receive(); isNeutral(p, bob); p = watcher.Receive() { // until he is there
	}
	owner.Publish("$ctl/revoke", 1, `{"kind":"presence","watcher":"pres:`+alice+`"}`)
	for p := watcher.Receive(); !isNeutral(p, bob); p = watcher.Receive() { // until he is not
	}
	counted("revoked", `"identified":0`, patience)
	watcher.Subscribe(exampleComs, 1)
	counted("she has asked again", `"identified":1`, patience)
	c.nodes[1].kill()
	watcher.Close()
	counted("her node is gone", `"identified":0`, 2*time.Minute) // whoever leads has to miss it for as long as it leads
	c.nodes[1].start()
	c.caughtUp()
	c.alike()
}

// Who fetches by HTTP is listed and counted to the owner within seconds, as who has it sent
// once over MQTT is: by name and with how often, for a day; also when the owner was away.
// Whoever gives no name is somebody. Also S11.
func TestR5_1_11FetchersByHTTPAreListed(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z", "--allow-anonymous")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAnybody)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	pc.Disconnect()
	for range 3 {
		if a := s.fetch(carol, "/v1/presence/example.com/bob", ""); a.status != 200 || !contains(a.body, `"open"`) {
			t.Errorf("carol is answered %d %s", a.status, a.body)
		}
	}
	s.fetch("", "/v1/presence/example.com/bob", "")
	s.fetch(boss, "/v1/presence/example.com", "")
	s.fetch(bob, "/v1/presence/example.com/bob", "")
	fetchAgain(s, zoe, 3)
	s.advance(3 * time.Second)
	listed := func() string {
		t.Helper()
		var rows []string
		for _, r := range readWatchers(t, s.own(bob, ownWatchers)).Watchers {
			rows = append(rows, fmt.Sprintf("%s %s %s %d", r.address(), r.Status, r.Event, r.Fetches))
		}
		slices.Sort(rows)
		return strings.Join(rows, ", ")
	}
	const want = "anonymous@anonymous.invalid terminated fetch 1, boss@example.com terminated fetch 1, carol@example.com terminated fetch 3, zoe@example.net terminated fetch 3"
	if is := listed(); is != want {
		t.Errorf("bob sees %s, want %s", is, want)
	}
	if counts := s.own(bob, ownStats); !contains(counts, `"fetchers24h":4,"total":0`) {
		t.Errorf("counted are %s", counts)
	}
	s.advance(25 * time.Hour)
	if is := listed(); is != "" {
		t.Errorf("a day later bob sees %s", is)
	}
}
