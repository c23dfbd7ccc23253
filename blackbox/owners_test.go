package blackbox

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

const day = "86400"

// forOne is a rule for one watcher.
func forOne(id, who, rest string) string {
	return `{"id":"` + id + `","if":{"identity":[{"one":"pres:` + who + `"}]},` + rest + `}`
}

func rulesOf(rules ...string) string { return `{"v":1,"rules":[` + strings.Join(rules, ",") + `]}` }

// What would alice see on Saturday at eight? Bob asks, by HTTP and on the command
// line, and when it is Saturday she sees just that. Nobody else is told.
func TestS10PreviewIsWhatIsSeen(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-13T12:00:00Z") // a Friday
	pc, a := s.person(bob, "pc"), s.person(alice, "pc")
	pc.Publish("$me/policy/presence", 1, rulesOf(
		forOne("weekdays", alice, `"then":{"handling":"allow"},"show":{"services":["*"]}`),
		`{"id":"weekend","if":{"identity":[{"one":"pres:alice@example.net"}],"weekly":{"tz":"UTC","windows":[{"days":["sat"],"start":"18:00","end":"22:00"}]}},
		  "then":{"handling":"allow"},"show":{"services":["*"],"persons":["*"],"note":true,"activities":true}}`))
	state := retained(bobsPresence+"/pc", `{"basic":"open","persons":[{"id":"me","activities":["dining"]}],"notes":{"en":"at Jo's"}}`, mq.User("evt-expires", day))
	pc.PublishMessage(state)
	a.Subscribe(bobsPresence, 1)
	a.Acknowledge(a.Receive())

	var told struct {
		Handling, View, Because, Until, Type string
		Rules                                []string
		Document                             json.RawMessage
	}
	const eight = "2026-03-14T20:00:00Z"
	query := "?watcher=" + url.QueryEscape(alice) + "&at=" + url.QueryEscape(eight)
	got := s.fetch(bob, "/v1/me/preview/presence"+query, "")
	if err := json.Unmarshal([]byte(got.body), &told); got.status != 200 || err != nil {
		t.Fatalf("%+v: %v", got, err)
	}
	if told.Handling != "allow" || told.View != "filtered" || !slices.Equal(told.Rules, []string{"weekdays", "weekend"}) || told.Until != "2026-03-14T22:00:00Z" {
		t.Errorf("bob is told %+v", told)
	}
	// Of whom bob has said nothing what the server's default does.
	if got := s.fetch(bob, "/v1/me/preview/presence?watcher="+url.QueryEscape(zoe), ""); !strings.Contains(got.body, `"handling":"polite-block","view":"neutral"`) || !strings.Contains(got.body, "the server's default is polite-block (watch.default)") {
		t.Errorf("of zoe bob is told %+v", got)
	}
	for _, who := range []string{alice, mallory} {
		if got := s.fetch(who, "/v1/me/preview/presence"+query+"&of="+url.QueryEscape(bob), ""); got.status != 403 {
			t.Errorf("%s is told what others see of bob: %+v", who, got)
		}
	}
	if got := s.fetch("", "/v1/me/preview/presence"+query, ""); got.status != 401 {
		t.Errorf("nobody is told %+v", got)
	}
	if got := s.fetch(bob, "/v1/me/preview/presence?at=tomorrow", ""); got.status != 400 {
		t.Errorf("at no instant: %+v", got)
	}
	out, errs, code := run(t, "policy", "preview", "presence", "--watcher", alice, "--at", eight, "--server", "http://"+s.ready.HTTP, "-u", bob, "-P", "token-"+bob)
	if code != 0 || !strings.Contains(out, string(told.Document)) || !strings.Contains(out, "granted by weekdays, weekend") {
		t.Errorf("the command ends with %d and says %s%s", code, out, errs)
	}
	a.Quiet() // it was no watching
	s.setClock("2026-03-14T19:00:00Z")
	pc.PublishMessage(state) // it had expired
	s.setClock(eight)
	p := latest(t, a, bobsPresence)
	if string(p.Payload) != string(told.Document) || p.Properties.Text(mq.PropContentType) != told.Type {
		t.Errorf("it was to be\n%s, and is\n%s", told.Document, p.Payload)
	}
	if !contains(string(p.Payload), "at Jo's") || !contains(string(p.Payload), "dining") {
		t.Errorf("the weekend shows %s", p.Payload)
	}
}

// faces starts a server at which bob has two personas: boss sees work, and carol, his
// sister, family.
func faces(t *testing.T) (s *server, pc, work, family *mq.Client) {
	t.Helper()
	s = kinds(t, "2026-03-09T12:00:00Z")
	pc = s.person(bob, "pc")
	show := `"show":{"services":["*"],"persons":["*"],"devices":["*"],"all":true,"lost":true}`
	pc.Publish("$me/policy/presence", 1, rulesOf(
		forOne("w", boss, `"then":{"handling":"allow","persona":"work"},`+show), forOne("f", carol, `"then":{"handling":"allow","persona":"family"},`+show)))
	work, family = s.person(boss, "pc"), s.person(carol, "pc")
	work.Subscribe(bobsPresence, 1)
	family.Subscribe(bobsPresence, 1)
	return s, pc, work, family
}

func publishFaces(pc *mq.Client) {
	for source, uri := range map[string]string{"/desk/@work": "sip:bob@work.example", "/home/@family": "tel:555", "/phone": "im:bob@example.com"} {
		pc.PublishMessage(retained(bobsPresence+source, `{"tuples":[{"id":"t1","basic":"open","contact":{"uri":"`+uri+`"}}]}`, mq.User("evt-expires", day)))
	}
}

func uris(d presenceDoc) (all []string) {
	for _, tu := range d.Tuples {
		all = append(all, tu.Contact.URI)
	}
	slices.Sort(all)
	return all
}

// Two personas behind one address: who is shown one sees nothing of the other, by
// notification and by fetch, and a delegate of the one source speaks for no other.
// Also S47.
func TestS36PersonasBehindOneAddress(t *testing.T) {
	t.Parallel()
	s, pc, work, family := faces(t)
	publishFaces(pc)
	for who, c := range map[string]*mq.Client{boss: work, carol: family} {
		want := []string{"im:bob@example.com", map[string]string{boss: "sip:bob@work.example", carol: "tel:555"}[who]}
		p := latest(t, c, bobsPresence)
		if got := uris(readPresence(t, p)); !slices.Equal(got, want) {
			t.Errorf("%s is shown %v, want %v", who, got, want)
		}
		if got := s.fetch(who, "/v1/presence/example.com/bob", ""); got.body != string(p.Payload) {
			t.Errorf("%s fetches %s, and was sent %s", who, got.body, p.Payload)
		}
	}
	// What happens to the one face makes no noise at the other.
	pc.PublishMessage(retained(bobsPresence+"/desk/@work", `{"tuples":[{"id":"t1","basic":"closed","contact":{"uri":"sip:bob@work.example"}}]}`))
	family.Quiet()
	if p := latest(t, work, bobsPresence); !contains(string(p.Payload), `"closed"`) {
		t.Errorf("boss is shown %s", p.Payload)
	}
	pc.PublishMessage(retained(bobsPresence+"/home/@family", ``))
	work.Quiet()
	if got := uris(readPresence(t, latest(t, family, bobsPresence))); !slices.Equal(got, []string{"im:bob@example.com"}) {
		t.Errorf("carol is shown %v", got)
	}
	refusedBy(t, work, retained(bobsPresence+"/desk/@work", `{"basic":"open"}`), 0x87)
	refusedBy(t, pc, retained(bobsPresence+"/desk/@Work", `{"basic":"open"}`), 0x90)
}

// The boss and the sister put what they were sent side by side: topic, flags,
// properties, the form of the document and of its ids are the same, the ids are not,
// and nothing says persona.
func TestS37NobodyCanTellFaces(t *testing.T) {
	t.Parallel()
	_, pc, work, family := faces(t)
	for _, source := range []string{"desk/@work", "home/@family"} {
		pc.PublishMessage(retained(bobsPresence+"/"+source, `{"tuples":[{"id":"t1","basic":"open","contact":{"uri":"im:bob@example.com"}}],"persons":[{"id":"me","mood":["calm"]}]}`, mq.User("evt-expires", day)))
	}
	a, b := latest(t, work, bobsPresence), latest(t, family, bobsPresence)
	id := regexp.MustCompile(`"id":"[a-z0-9]{21}"`)
	form := func(p *mq.Packet) string { return id.ReplaceAllString(string(p.Payload), "ID") }
	if form(a) != form(b) || a.Topic != b.Topic || a.Retain() != b.Retain() || a.QoS() != b.QoS() || len(a.Properties) != len(b.Properties) {
		t.Errorf("boss was sent %v\n%s\ncarol %v\n%s", a, a.Payload, b, b.Payload)
	}
	ids := id.FindAllString(string(a.Payload), -1)
	if len(ids) != 2 {
		t.Fatalf("ids %v in %s", ids, a.Payload)
	}
	for _, i := range ids {
		if strings.Contains(string(b.Payload), i) {
			t.Errorf("%s is in both", i)
		}
	}
	for _, p := range []*mq.Packet{a, b} {
		for _, word := range []string{"persona", "@work", "@family", "desk", "home"} {
			if strings.Contains(string(p.Payload), word) {
				t.Errorf("%q is in %s", word, p.Payload)
			}
		}
	}
}

// Zoe is told that bob is busy while alice sees the meeting; what a document is about
// is not to be made up, and the policy stays.
func TestS39OverridesForOne(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc, a, z := s.person(bob, "pc"), s.person(alice, "pc"), s.person(zoe, "pc")
	show := `"then":{"handling":"allow"},"show":{"services":["*"],"persons":["*"],"activities":true,"note":true}`
	policy := rulesOf(forOne("a", alice, show), forOne("z", zoe, show+`,"overrides":{"activities":["busy"],"note":null}`))
	pc.Publish("$me/policy/presence", 1, policy)
	a.Subscribe(bobsPresence, 1)
	z.Subscribe(bobsPresence, 1)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open","persons":[{"id":"me","activities":["meeting"],"note":"with the bank"}]}`))
	if p := latest(t, a, bobsPresence); !contains(string(p.Payload), `"activities":["meeting"]`) || !contains(string(p.Payload), "bank") {
		t.Errorf("alice is shown %s", p.Payload)
	}
	p := latest(t, z, bobsPresence)
	if !contains(string(p.Payload), `"activities":["busy"]`) || contains(string(p.Payload), "meeting") || contains(string(p.Payload), "bank") {
		t.Errorf("zoe is shown %s", p.Payload)
	}
	for _, bad := range []string{`"entity":"pres:alice@example.net"`, `"id":"x"`, `"timestamp":"2026-03-09T12:00:00Z"`} {
		reason := refusedBy(t, pc, mq.Publish{Topic: "$me/policy/presence", Payload: []byte(strings.Replace(policy, `"note":null`, bad, 1))}, 0x99)
		if !strings.Contains(reason, "/rules/1/overrides/") {
			t.Errorf("%s: %q", bad, reason)
		}
	}
	if got := s.fetch(zoe, "/v1/presence/example.com/bob", ""); got.body != string(p.Payload) {
		t.Errorf("zoe fetches %s", got.body)
	}
}

// A rule for fetching alone lets somebody fetch and not subscribe, and who may do
// neither is refused both. Also R2.3.1.
func TestR2_3_2FetchOnly(t *testing.T) {
	t.Parallel()
	s := kinds(t, "2026-03-09T12:00:00Z")
	pc := s.person(bob, "pc")
	pc.Publish("$me/policy/presence", 1, `{"v":1,"defaults":{"handling":"block"},"rules":[
		{"id":"a","if":{"identity":[{"one":"pres:alice@example.net"}],"op":["fetch"]},"then":{"handling":"allow"},"show":{"services":["*"]}}]}`)
	pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`))
	for who, status := range map[string]int{alice: 200, zoe: 403} {
		c := s.person(who, "pc")
		if got := c.TrySubscribe(nil, mq.Filter{Filter: bobsPresence, QoS: 1}).Codes; got[0] != 0x87 {
			t.Errorf("%s subscribes: %#02x, want 0x87", who, got)
		}
		got := s.fetch(who, "/v1/presence/example.com/bob", "")
		if got.status != status || (status == 200) != strings.Contains(got.body, `"open"`) {
			t.Errorf("%s fetches %+v, want %d", who, got, status)
		}
		c.Quiet()
	}
}

// What is held is not taken back: while the hours are closed the watcher is sent
// nothing, and how things are when they open.
func TestWindowHolds(t *testing.T) {
	t.Parallel()
	attempts(t, func(try *attempt) {
		s := kinds(t, "2026-03-09T16:59:00Z")
		pc, a := s.person(bob, "pc"), s.person(alice, "pc")
		pc.Publish("$me/policy/presence", 1, rulesOf(`{"id":"h","if":{"identity":[{"one":"pres:alice@example.net"}],
			"weekly":{"tz":"UTC","windows":[{"days":["mon","tue"],"start":"08:00","end":"17:00"}]}},"then":{"handling":"allow","outside":"hold"},"show":{"services":["*"]}}`))
		pc.PublishMessage(retained(bobsPresence, `{"basic":"open"}`, mq.User("evt-expires", day)))
		a.Subscribe(bobsPresence, 1)
		if p := a.Receive(); !contains(string(p.Payload), `"open"`) {
			t.Errorf("alice is shown %s", p.Payload)
		}
		s.setClock("2026-03-09T17:00:00Z")
		a.Quiet()
		pc.PublishMessage(retained(bobsPresence, `{"basic":"closed"}`, mq.User("evt-expires", day)))
		a.Quiet()
		z := s.person(alice, "late")
		z.Subscribe(bobsPresence, 1)
		z.Quiet()
		try.begin()
		s.setClock("2026-03-10T08:00:00Z")
		for _, c := range []*mq.Client{a, z} {
			p := try.arrives(c)
			if p == nil || !contains(string(p.Payload), `"closed"`) {
				t.Fatalf("when it opens alice is sent %v", p)
			}
			c.Acknowledge(p)
		}
	})
}
