package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// A usage is what a domain's administrator is told of its quotas.
type usage map[string]struct{ Used, Max, Refused uint64 }

func (s *server) usage(who, domain string) (u usage) {
	s.t.Helper()
	a := s.ask(who, "GET", "/v1/domains/"+domain+"/usage", "")
	if err := json.Unmarshal([]byte(a.body), &u); a.status != 200 || err != nil {
		s.t.Fatalf("%d %s", a.status, a.body)
	}
	return u
}

const quotaRules = `rules:
  - {id: all, allow: [publish, subscribe], who: ["*@example.com", "*@example.net"], topic: ["plant/#"]}
roles:
  - {id: com, who: [adm@example.com], domain: example.com}
  - {id: net, who: [adm@example.net], domain: example.net}
tenants:
  - {domain: example.com, quotas: {%s}}
  - {domain: example.net}
`

func quotaPolicy(quotas string) string {
	return usersOf("adm@example.com", "adm@example.net", bob, boss, alice, zoe, "root@example.org") + "groups:\n  operators: [root@example.org]\n" + fmt.Sprintf(quotaRules, quotas)
}

// What a domain may have of subscriptions, retained topics, bytes that wait, watchers and
// publications a second is bounded, each with its answer, for it alone; its administrators
// see what is used, operators in the metrics, and a policy changes it at once, without an
// end to what there is. It outlasts a restart.
func TestQuotasOfADomain(t *testing.T) {
	t.Parallel()
	path := writeFile(t, "policy.yaml", quotaPolicy("subscriptions: 3, retained_topics: 1, queue_bytes: 2000, watchers: 1, publishes_per_second: 50"))
	s := serve(t, "--policy", path, "--test-clock", "2026-03-09T12:00:00Z")
	b, other := s.person(bob, "pc"), s.person(zoe, "pc")
	code := func(c *mq.Client, filter string) (byte, string) {
		ack := c.TrySubscribe(nil, mq.Filter{Filter: filter, QoS: 1})
		return ack.Codes[0], ack.Properties.Text(mq.PropReasonString)
	}
	for i := range 3 {
		b.Subscribe(fmt.Sprintf("plant/%d", i), 0)
	}
	if c, why := code(b, "plant/3"); c != 0x97 || !strings.Contains(why, "subscriptions") {
		t.Errorf("a subscription more: %#02x %q", c, why)
	}
	b.Unsubscribe("plant/0")
	away := s.open(v5, as(boss, durable(v5, "away")))
	away.Subscribe("plant/waits", 1)
	if c, _ := code(away, "plant/3"); c != 0x97 {
		t.Errorf("in another session: %#02x", c)
	}
	for i := range 4 {
		other.Subscribe(fmt.Sprintf("plant/%d", i), 0)
	}
	keep := func(c *mq.Client, name string) byte {
		return c.TryPublish(mq.Publish{Topic: name, QoS: 1, Retain: true, Payload: []byte("x")})
	}
	if first, again, more, others := keep(b, "plant/r1"), keep(b, "plant/r1"), keep(b, "plant/r2"), keep(other, "plant/r3"); first >= 0x80 || again >= 0x80 || more != 0x97 || others >= 0x80 {
		t.Errorf("retained: %#02x %#02x %#02x %#02x", first, again, more, others)
	}
	away.Disconnect()
	for range 10 {
		other.Publish("plant/waits", 1, strings.Repeat("x", 400))
	}
	b.Publish("$me/policy/presence", 1, showAll)
	if c, why := code(other, bobsPresence); c >= 0x80 {
		t.Errorf("the first watcher: %#02x %q", c, why)
	}
	if c, why := code(s.person(alice, "pc"), bobsPresence); c != 0x97 || !strings.Contains(why, "quota") || strings.Contains(why, "example.com") {
		t.Errorf("a watcher more: %#02x %q", c, why)
	}
	limited := 0
	for range 60 { // the clock stands
		if c := b.TryPublish(mq.Publish{Topic: "plant/fast", QoS: 1}); c == 0x97 {
			limited++
		} else if c != 0 && c != 0x10 {
			t.Fatalf("%#02x", c)
		}
	}
	if limited == 0 {
		t.Error("nothing bounds what is published in a second")
	}
	check := func(when string, most uint64) {
		t.Helper()
		u := s.usage(admCom, "example.com")
		for name, want := range map[string]uint64{"subscriptions": 3, "retained_topics": 1, "watchers": 1} {
			if u[name].Used != want {
				t.Errorf("%s: %s: %+v, want %d", when, name, u[name], want)
			}
		}
		if q := u["queue_bytes"]; q.Used < 1000 || q.Used > 2000 || q.Max != most {
			t.Errorf("%s: bytes that wait: %+v", when, q)
		}
	}
	check("then", 2000)
	for name, least := range map[string]uint64{"subscriptions": 2, "retained_topics": 1, "watchers": 1, "queue_bytes": 1, "publishes_per_second": uint64(limited)} {
		if u := s.usage(admCom, "example.com"); u[name].Refused < least {
			t.Errorf("%s: %+v", name, u[name])
		}
	}
	if u := s.usage(admNet, "example.net"); u["sessions"].Used == 0 || u["watchers"].Used != 0 || u["subscriptions"].Refused != 0 {
		t.Errorf("the other domain uses %+v", u)
	}
	// In the metrics that operators see, and nobody else.
	a := s.ask("root@example.org", "GET", "/metrics/domains", "")
	for _, line := range []string{
		`bellwire_domain_used{domain="example.com",quota="subscriptions"} 3`, `bellwire_domain_quota{domain="example.com",quota="watchers"} 1`,
		`bellwire_domain_refused_total{domain="example.com",quota="watchers"} 1`, `bellwire_domain_used{domain="other",quota="sessions"} 0`,
	} {
		if !strings.Contains(a.body, line) {
			t.Errorf("%s is not in %d %s", line, a.status, a.body)
		}
	}
	if a := s.ask(admCom, "GET", "/metrics/domains", ""); a.status != 403 {
		t.Errorf("an administrator reads %d %s", a.status, a.body)
	}
	if _, text := s.get("/metrics"); strings.Contains(text, "example.com") {
		t.Error("/metrics tells of a domain")
	}
	// Less than what there is ends nothing, and refuses what is new.
	put := func(quotas string) {
		t.Helper()
		if a := s.ask("root@example.org", "PUT", "/v1/policy", quotaPolicy(quotas)); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	put("subscriptions: 1, retained_topics: 1, queue_bytes: 1, watchers: 1, sessions: 1")
	check("with less", 1)
	if c, _ := code(b, "plant/9"); c != 0x97 {
		t.Errorf("one more: %#02x", c)
	}
	other.Publish("plant/1", 0, "still")
	b.ReceiveText("plant/1", "still")
	put("sessions: 100")
	b.Subscribe("plant/9", 0)
	b.Unsubscribe("plant/9")
	put("subscriptions: 3, retained_topics: 1, queue_bytes: 2000, watchers: 1")
	back := s.open(v5, as(boss, durable(v5, "away")))
	if p := back.Receive(); p.Topic != "plant/waits" {
		t.Errorf("what waited is %v", p)
	}
	back.Disconnect()
	s.kill()
	s.start()
	// The sessions of connections that died with the node end by the log, soon after it serves.
	var u usage
	until(t, "sessions of dead connections have ended", patience, func() bool {
		u = s.usage(admCom, "example.com")
		return u["sessions"].Used == 1 && u["subscriptions"].Used == 1
	})
	if u["retained_topics"].Used != 1 || u["queue_bytes"].Used == 0 {
		t.Errorf("after a restart: %+v", u)
	}
}

// People of one other domain have as many of a domain's watchers as they leave to everybody
// else, whether there is anybody whom they watch or not: then others of the same domain are
// refused, people of a third and of the domain itself are not. A kill changes nothing; what
// ends makes room.
func TestWatchersOfOneOtherDomain(t *testing.T) {
	t.Parallel()
	const cy = "cy@example.edu"
	path := writeFile(t, "policy.yaml", strings.Replace(quotaPolicy("watchers: 6"), "users:\n", usersOf(cy), 1))
	s := serve(t, "--policy", path, "--test-clock", "2026-03-09T12:00:00Z")
	watch := func(who string, c *mq.Client, n int, want byte) {
		t.Helper()
		ack := c.TrySubscribe(nil, mq.Filter{Filter: fmt.Sprintf("presence/example.com/u%d", n), QoS: 1})
		if ack.Codes[0] != want {
			t.Errorf("%s watches u%d: %#02x, want %#02x", who, n, ack.Codes[0], want)
		}
	}
	people := map[string]*mq.Client{}
	in := func(who string) *mq.Client {
		people[who] = s.open(v5, as(who, durable(v5, who+"/d")))
		return people[who]
	}
	a, z := in(alice), in(zoe)
	watch("alice", a, 0, 1)
	watch("zoe", z, 0, 1)
	watch("zoe", z, 1, 1)
	watch("alice", a, 2, 0x97)
	watch("zoe", z, 2, 0x97)
	s.kill()
	s.start()
	z = in(zoe)
	watch("zoe, after a kill,", z, 3, 0x97)
	watch("bob, who is of the domain,", in(bob), 4, 1)
	watch("cy, of a third,", in(cy), 4, 1)
	watch("cy, who leaves less than he has,", people[cy], 5, 0x97)
	watch("bob", people[bob], 5, 1)
	watch("bob, when there is no room,", people[bob], 6, 0x97)
	z.Unsubscribe("presence/example.com/u1")
	watch("bob", people[bob], 6, 1)
	if u := s.usage(admCom, "example.com")["watchers"]; u.Used != 6 || u.Refused == 0 {
		t.Errorf("used: %+v", u)
	}
}
