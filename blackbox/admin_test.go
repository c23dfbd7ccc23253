package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const (
	admCom = "adm@example.com"
	admNet = "adm@example.net"
)

// administered serves two tenants with people.
func administered(t *testing.T, args ...string) *server {
	t.Helper()
	users := usersOf(bob, boss, "eve@example.com", alice)
	return serve(t, append([]string{"--policy", writeFile(t, "policy.yaml", strings.Replace(tenantPolicy(), "users:\n", users, 1))}, args...)...)
}

// subState is what somebody is told of a subscription of theirs.
type subState struct{ SID, State, Reason, Origin, By, Note string }

func readState(t *testing.T, text []byte) (is subState) {
	t.Helper()
	if err := json.Unmarshal(text, &is); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return is
}

// shownOf returns what is shown next of a topic, whatever else comes before.
func shownOf(c *mq.Client, topic string) []byte {
	for {
		if p := c.Receive(); p.Topic == topic {
			return p.Payload
		}
	}
}

// change asks for what an administrator may.
func (s *server) change(who, domain, verb, body string) answer {
	s.t.Helper()
	a := s.ask(who, "POST", "/v1/domains/"+domain+"/subscriptions/"+verb, body)
	a.body = strings.TrimSpace(a.body)
	return a
}

const bossToBob = `{"kind":"presence","watcher":"boss","target":"bob","note":"the rota"}`

// An administrator provides somebody of the domain with a subscription: all sessions of
// theirs get what its owner shows them, those that there are, those that wait and those that
// come; they are told who has done it, and so is the owner; and they end it as their own.
// Never more than the owner permits. For others only an invitation can be made. Also S21.
func TestADM3AdministratorProvides(t *testing.T) {
	t.Parallel()
	s := administered(t)
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","notes":{"en":"one"}}`, mq.User("evt-expires", day)))
	away := s.open(v5, as(boss, durable(v5, "away")))
	away.Disconnect()
	here := s.person(boss, "here")
	here.Subscribe("$me/sub/"+bobsPresence, 1)
	here.ReceiveText("$me/sub/"+bobsPresence, "")

	// Who may not, whom not, and what not.
	for _, c := range []struct {
		who, domain, body string
		status            int
		says              string
	}{
		{"eve@example.com", "example.com", bossToBob, 403, "neither"},
		{admNet, "example.com", bossToBob, 403, "neither"},
		{admCom, "example.com", `{"kind":"presence","watcher":"alice@example.net","target":"bob"}`, 403, "invited"},
		{admCom, "example.com", `{"kind":"presence","watcher":"nobody","target":"bob"}`, 404, "no such user"},
		{admCom, "example.com", `{"kind":"presence","watcher":"bob","target":"bob"}`, 403, "own"},
		{admCom, "example.com", `{"kind":"im","watcher":"boss","target":"bob"}`, 400, ""},
		{admCom, "example.com", `{"kind":"presence","watcher":"boss","target":"bob","note":"` + strings.Repeat("x", 257) + `"}`, 400, "256"},
		{admCom, "example.com", `{"kind":"presence","watcher":"boss","target":"bob","until":"2020-01-01T00:00:00Z"}`, 403, "over"},
		{admCom, "example.com", `{"kind":"presence","watcher":"boss","target":"bob","until":"1970-01-01T00:00:00Z"}`, 403, "over"},
		{admCom, "example.com", `{"kind":"presence","watcher":"boss","target":"bob","sid":"s-"}`, 400, "sid"},
	} {
		if a := s.change(c.who, c.domain, "provision", c.body); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%s %s: %d %s, want %d %q", c.who, c.body, a.status, a.body, c.status, c.says)
		}
	}
	here.Quiet()

	if a := s.change(admCom, "example.com", "provision", bossToBob); a.status != 200 || a.body != `{"state":"active"}` {
		t.Fatalf("%d %s", a.status, a.body)
	}
	shown := func(c *mq.Client, what, want string) {
		t.Helper()
		if is := string(shownOf(c, bobsPresence)); !strings.Contains(is, want) {
			t.Errorf("%s: shown %s, want %q", what, is, want)
		}
	}
	for what, c := range map[string]*mq.Client{
		"a session that comes": s.open(v5, as(boss, clean("new"))), "one that was away": s.open(v5, as(boss, durable(v5, "away"))),
		"one that comes and stays": s.open(v4, as(boss, durable(v4, "stays"))),
	} {
		shown(c, what, `"one"`)
	}
	state := func(c *mq.Client) subState { return readState(t, shownOf(c, "$me/sub/"+bobsPresence)) }
	if is := state(here); is.State != "active" || is.Origin != "admin" || is.By != admCom {
		t.Errorf("boss is told %+v", is)
	}
	if row := s.watchersOf(t, bob).Watchers[0]; row.address() != boss || row.By != admCom || row.Origin != "admin" || row.Note != "the rota" || row.Status != "active" {
		t.Errorf("bob is shown %+v", row)
	}
	for _, who := range []string{bob, boss} {
		if a := s.ask(who, "GET", "/v1/audit", ""); strings.Count(a.body, `"by":"adm@example.com","door":"http","what":"provision presence","about":"`+who) == 0 {
			t.Errorf("%s reads in the audit %s", who, a.body)
		}
	}
	if a := s.ask(admCom, "GET", "/v1/domains/example.com/subscriptions?target=bob", ""); !strings.Contains(a.body, `"by":"adm@example.com"`) {
		t.Errorf("listed %s", a.body)
	}
	pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","notes":{"en":"two"}}`, mq.User("evt-expires", day)))
	again := s.open(v5, as(boss, clean("again")))
	shown(again, "what changes", `"two"`)

	// It outlasts a restart, and sessions.
	s.kill()
	s.start()
	again = s.open(v5, as(boss, clean("again")))
	shown(again, "after a restart", `"two"`)
	back := s.open(v5, as(boss, durable(v5, "away")))
	shown(back, "after a restart, the session that stays", `"two"`)

	// Boss does not want it: no session of his has it any more.
	back.Subscribe("$me/sub/"+bobsPresence, 1)
	if is := state(back); is.State != "active" {
		t.Errorf("boss is told %+v", is)
	}
	again.Unsubscribe(bobsPresence)
	if is := state(back); is.State != "terminated" || is.By != admCom {
		t.Errorf("boss is told %+v", is)
	}
	pc = s.person(bob, "pc")
	pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open","notes":{"en":"three"}}`, mq.User("evt-expires", day)))
	again.Quiet()
	back.Quiet()
	s.open(v5, as(boss, clean("last"))).Quiet()

	// Bob does not want it: it is refused, and what there is ends.
	if a := s.change(admCom, "example.com", "provision", bossToBob); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	shown(again, "provided again", `"three"`)
	pc.Publish("$me/policy/presence", 1, `{"v":1,"rules":[{"id":"no","if":{"identity":[{"many":{}}]},"then":{"handling":"block"}}]}`)
	for is := state(back); is.State != "terminated" || is.Reason != "rejected"; is = state(back) {
	}
	if a := s.change(admCom, "example.com", "provision", bossToBob); a.status != 403 || !strings.Contains(a.body, "rejected") {
		t.Errorf("%d %s", a.status, a.body)
	}
	last := s.open(v5, as(boss, clean("last")))
	last.Quiet()
	// Undecided it waits for him, like any other; politely blocked nobody can tell.
	pc.Publish("$me/policy/presence", 1, `{"v":1,"rules":[{"id":"ask","if":{"identity":[{"many":{}}]},"then":{"handling":"confirm"}}]}`)
	if a := s.change(admCom, "example.com", "provision", bossToBob); a.status != 200 || a.body != `{"state":"pending"}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	last.Quiet()
	pc.Publish("$ctl/approve", 1, `{"kind":"presence","watcher":"pres:boss@example.com"}`)
	shown(last, "approved", `"three"`)
	if a := s.change(admCom, "example.com", "cancel", `{"kind":"presence","target":"bob","watcher":"boss"}`); a.body != `{"matched":1}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	s.open(v5, as(boss, clean("new"))).Quiet()
}

// Whoever is elsewhere is invited: sees the offer, and nothing flows until they subscribe,
// which is judged like any request; who declines is not asked again. The people concerned
// see who has done it. That somebody watches already, under whatever name, an invitation
// does not tell.
func TestADM3AdministratorInvites(t *testing.T) {
	t.Parallel()
	s := administered(t)
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open"}`, mq.User("evt-expires", day)))
	a := s.person(alice, "pc")
	a.Subscribe("$me/sub/#", 1)
	const invite = `{"kind":"presence","watcher":"alice@example.net","target":"bob","note":"for the rota"}`
	if got := s.change(admNet, "example.net", "invite", strings.Replace(invite, `"bob"`, `"bob@example.com"`, 1)); got.status != 403 {
		t.Errorf("to one of another domain: %d %s", got.status, got.body)
	}
	invited := func() {
		t.Helper()
		if got := s.change(admCom, "example.com", "invite", invite); got.status != 200 || got.body != `{"state":"invited"}` {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	invited()
	listed := func(who, domain string, want int) {
		t.Helper()
		if got := s.ask(who, "GET", "/v1/domains/"+domain+"/invitations", ""); got.status != 200 || strings.Count(got.body, `"target":"bob@example.com","watcher":"alice@example.net","by":"adm@example.com","note":"for the rota","until":"`) != want {
			t.Errorf("%s is told of %s: %d %s, want %d", who, domain, got.status, got.body, want)
		}
	}
	listed(admCom, "example.com", 1)
	listed(admNet, "example.net", 1) // of whom it is
	if got := s.ask(admNet, "GET", "/v1/domains/example.com/invitations", ""); got.status != 403 {
		t.Errorf("the other administrator: %d %s", got.status, got.body)
	}
	state := func() subState { return readState(t, shownOf(a, "$me/sub/"+bobsPresence)) }
	if is := state(); is != (subState{State: "invited", Origin: "admin", By: admCom, Note: "for the rota"}) {
		t.Errorf("alice is told %+v", is)
	}
	if got := s.fetch(alice, "/v1/me/sub/"+bobsPresence, ""); got.status != 200 || !strings.Contains(got.body, `"invited"`) {
		t.Errorf("%+v", got)
	}
	pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"closed"}`, mq.User("evt-expires", day)))
	a.Quiet()
	if got := s.ask(bob, "GET", "/v1/audit", ""); !strings.Contains(got.body, `"by":"adm@example.com","door":"http","what":"invite presence","about":"bob@example.com","result":"asked for: alice@example.net"`) {
		t.Errorf("bob reads %s", got.body)
	}
	if got := s.ask(admNet, "GET", "/v1/audit?domain=example.net", ""); strings.Contains(got.body, "bob") {
		t.Errorf("the other administrator reads %s", got.body)
	}
	// She accepts.
	a.Subscribe(bobsPresence, 1)
	listed(admCom, "example.com", 0)
	if is := string(shownOf(a, bobsPresence)); !strings.Contains(is, "closed") {
		t.Errorf("alice is shown %s", is)
	}
	invited() // answered alike
	a.Unsubscribe(bobsPresence)
	for is := state(); is.State != "invited"; is = state() {
	}
	listed(admCom, "example.com", 1)
	a.Publish("$ctl/decline", 1, `{"kind":"presence","entity":"pres:bob@example.com"}`)
	listed(admCom, "example.com", 0)
	if got := s.change(admCom, "example.com", "invite", invite); got.status != 403 || !strings.Contains(got.body, "declined") {
		t.Errorf("who has declined is invited: %d %s", got.status, got.body)
	}
	// Bounds: what one domain offers one person is half of what there may be.
	for i := range 27 {
		got := s.change(admCom, "example.com", "invite", strings.Replace(invite, `"bob"`, fmt.Sprintf(`"bob%d"`, i), 1))
		if want := map[bool]int{true: 200, false: 429}[i < 24]; got.status != want { // with the one that she has declined
			t.Errorf("invitation %d: %d %s, want %d", i, got.status, got.body, want)
		}
	}
}

// What is provided ends at its time, and what an invitation offers after a week.
func TestADM3ProvisionsEnd(t *testing.T) {
	t.Parallel()
	s := administered(t, "--test-clock", "2026-03-09T12:00:00Z")
	s.person(bob, "pc").Publish("$me/policy/presence", 1, showAll)
	c := s.open(v5, as(boss, durable(v5, "pc")))
	c.Subscribe("$me/sub/"+bobsPresence, 1)
	c.ReceiveText("$me/sub/"+bobsPresence, "")
	a := s.open(v5, as(alice, durable(v5, "pc-a")))
	a.Subscribe("$me/sub/"+bobsPresence, 1)
	a.ReceiveText("$me/sub/"+bobsPresence, "")
	until := strings.Replace(bossToBob, "}", `,"until":"2026-03-09T13:00:00Z"}`, 1)
	if got := s.change(admCom, "example.com", "provision", until); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got := s.change(admCom, "example.com", "invite", `{"kind":"presence","watcher":"alice@example.net","target":"bob"}`); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	state := func(c *mq.Client) string { return string(shownOf(c, "$me/sub/"+bobsPresence)) }
	if is := state(c); !strings.Contains(is, `"rem":3600`) {
		t.Errorf("boss is told %s", is)
	}
	if is := state(a); !strings.Contains(is, `"rem":604800`) {
		t.Errorf("alice is told %s", is)
	}
	s.advance(time.Hour)
	if is := state(c); !strings.Contains(is, `"timeout"`) {
		t.Errorf("boss is told %s", is)
	}
	s.advance(7 * 24 * time.Hour)
	if got := s.fetch(alice, "/v1/me/sub/"+bobsPresence, ""); got.status != 404 {
		t.Errorf("after a week alice is told %+v", got)
	}
}

// administers publishes a request of an administrator's and returns the code of the
// acknowledgement, and what is answered.
func administers(t *testing.T, c *mq.Client, topic, payload string) (code byte, status int, body string) {
	t.Helper()
	code = c.TryPublish(mq.Publish{Topic: topic, QoS: 1, Payload: []byte(payload), Properties: mq.Properties{
		mq.Text(mq.PropResponseTopic, "$me/rsp"), mq.Binary(mq.PropCorrelationData, []byte("c-1")),
	}})
	p := c.Receive()
	if p.Topic != "$me/rsp" || p.Properties.Text(mq.PropCorrelationData) != "c-1" {
		t.Fatalf("%s is answered %v", topic, p)
	}
	var reply struct {
		Status int
		Body   json.RawMessage
	}
	if err := json.Unmarshal(p.Payload, &reply); err != nil {
		t.Fatalf("%s: %s", topic, p.Payload)
	}
	return code, reply.Status, string(reply.Body)
}

// asks connects somebody who asks below $adm/.
func (s *server) asks(who string) *mq.Client {
	s.t.Helper()
	c := s.person(who, "asks")
	c.Subscribe("$me/rsp", 0)
	return c
}

// What administrators do they do over MQTT, by topics below $adm/, and by verbs: list,
// cancel, provide, invite, see what is used and what was looked at, and change the domain's
// policy. It is answered as over HTTP, and in the audit with its door; nobody else may, nor
// read what is answered.
func TestS21AdministratorByTopicsAndVerbs(t *testing.T) {
	t.Parallel()
	s := administered(t)
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, showAll)
	a := s.person(alice, "pc")
	a.Subscribe("$me/sub/"+bobsPresence, 1)
	a.ReceiveText("$me/sub/"+bobsPresence, "")
	c := s.asks(admCom)
	do := func(what, payload string, wantCode byte, wantStatus int, wantBody string) {
		t.Helper()
		code, status, body := administers(t, c, "$adm/example.com/"+what, payload)
		if code != wantCode || status != wantStatus || !strings.Contains(body, wantBody) {
			t.Errorf("%s %s: %#02x, %d %s, want %#02x, %d %s", what, payload, code, status, body, wantCode, wantStatus, wantBody)
		}
	}
	do("provision", bossToBob, 0, 200, `{"state":"active"}`)
	do("invite", `{"kind":"presence","watcher":"alice@example.net","target":"bob"}`, 0, 200, `{"state":"invited"}`)
	if is := readState(t, shownOf(a, "$me/sub/"+bobsPresence)); is.State != "invited" || is.By != admCom {
		t.Errorf("alice is told %+v", is)
	}
	do("invitations", `{"target":"bob"}`, 0, 200, `{"kind":"presence","target":"bob@example.com","watcher":"alice@example.net","by":"adm@example.com","until":"`)
	do("invitations", `{"target":"alice@example.net"}`, 0x87, 403, "not of a domain")
	do("subs", `{"target":"bob"}`, 0, 200, `"watcher":"boss@example.com"`)
	do("subs", ``, 0, 200, `"target":"bob@example.com"`)
	do("subs", `{"target":"alice@example.net"}`, 0x87, 403, "not of a domain")
	do("cancel", `{"kind":"presence","target":"bob","watcher":"boss"}`, 0, 200, `{"matched":1}`)
	do("provision", `{"kind":"presence","watcher":"nobody","target":"bob"}`, 0x83, 404, "no such user")
	do("provision", `{"kind":"presence","watcher":"alice@example.net","target":"bob"}`, 0x87, 403, "invited")
	do("usage", ``, 0, 200, `"sessions"`)
	do("usage", `{"of":"bob"}`, 0x99, 400, `of`)
	do("nothing", ``, 0x99, 400, `provision`)
	do("policy", ``, 0x83, 404, "no such policy")
	do("policy/put", `{"policy":"rules: [\n"}`, 0x99, 422, "faults")
	do("policy/put", `{"policy":"rules:\n  - {id: x, allow: [publish], who: [bob], topic: [\"plant/7/#\"]}\n"}`, 0, 200, `"number":1`)
	do("policy/put", `{"policy":"rules: []\n","ifMatch":9}`, 0x83, 412, "not 9")
	do("policy/put", `{"policy":"rules: []\n","dryRun":true}`, 0, 200, `"number":1`)
	do("policy", ``, 0, 200, `rules:\n`)
	do("policy/put", `{"policy":"rules: []\n"}`, 0, 200, `"number":2`)
	do("policy/versions", ``, 0, 200, `"number":2`)
	do("policy/diff", ``, 0, 200, `"entries"`)
	do("policy/rollback", `{"to":1}`, 0, 200, `"number":3`)
	do("policy/end", ``, 0, 200, `"number":4`)
	do("audit", `{"about":"bob@example.com"}`, 0, 200, `"door":"mqtt","what":"invite presence"`)
	do("audit", `{}`, 0, 200, `"door":"mqtt","what":"policy put","about":"*@example.com","result":"policy 4"`)
	for what, path := range map[string]string{
		"subs": "/v1/domains/example.com/subscriptions", "invitations": "/v1/domains/example.com/invitations", "usage": "/v1/domains/example.com/usage",
		"audit": "/v1/audit?domain=example.com", "policy/versions": "/v1/domains/example.com/policy/versions",
	} {
		_, _, is := administers(t, c, "$adm/example.com/"+what, "")
		want := strings.TrimSpace(s.ask(admCom, "GET", path, "").body)
		if is != want {
			t.Errorf("%s: over MQTT\n%s\nby HTTP\n%s", what, is, want)
		}
	}
	if code := c.TryPublish(mq.Publish{Topic: "$adm/example.com/usage", QoS: 2}); code != 0x83 {
		t.Errorf("at QoS 2: %#02x", code)
	}
	for _, who := range []string{bob, admNet} {
		other := s.asks(who)
		for _, what := range []string{"subs", "invitations", "usage", "audit", "policy", "policy/put", "policy/end", "cancel", "provision", "invite"} {
			payload := ""
			if what == "cancel" || what == "provision" || what == "invite" {
				payload = `{"kind":"presence","target":"bob","watcher":"boss"}`
			}
			if code, status, body := administers(t, other, "$adm/example.com/"+what, payload); code != 0x87 || status != 403 || strings.Contains(body, "boss") {
				t.Errorf("%s asks for %s: %#02x, %d %s", who, what, code, status, body)
			}
		}
		if code := other.TrySubscribe(nil, mq.Filter{Filter: "$adm/example.com/subs", QoS: 1}).Codes[0]; code != 0x87 {
			t.Errorf("%s subscribes: %#02x", who, code)
		}
		other.Quiet()
	}
	// By verbs.
	verb := func(wantCode int, wantText string, args ...string) {
		t.Helper()
		out, errs, code := run(t, append(append([]string{"admin"}, args...), "--domain=example.com", "--server", s.ready.HTTP, "-u", admCom, "-P", "token-"+admCom)...)
		if code != wantCode || !strings.Contains(out+errs, wantText) {
			t.Errorf("admin %v: exit code %d, want %d and %q\n%s%s", args, code, wantCode, wantText, out, errs)
		}
	}
	verb(0, "active", "provision", "boss", "bob")
	verb(0, "boss@example.com", "ls", "--target", "bob")
	verb(0, `"watcher":"boss@example.com"`, "ls", "-o", "json")
	verb(0, "canceled 1", "cancel", "bob", "boss")
	verb(3, "no such subscription", "cancel", "bob", "eve")
	verb(0, "invited", "invite", "carol@example.org", "bob", "location", "--note", "look")
	verb(0, "carol@example.org  bob@example.com  adm@example.com", "invitations")
	verb(0, `"note":"look"`, "invitations", "--target", "bob", "-o", "json")
	verb(0, "sessions", "usage")
	verb(0, "invite location", "audit")
	verb(0, "policy 5 in force", "policy", "put", writeFile(t, "own.yaml", "rules: []\n"))
	verb(0, "rules: []", "policy", "get")
	verb(0, "", "policy", "diff")
	verb(0, "policy 6 in force", "policy", "rollback", "1")
	verb(0, "6 ", "policy", "history")
	if _, errs, code := run(t, "admin", "usage", "--server", s.ready.HTTP); code != 2 || !strings.Contains(errs, "--domain") {
		t.Errorf("without a domain: %d %s", code, errs)
	}
}
