package blackbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// usersOf writes users, whose tokens are token- and their name as it is here.
func usersOf(names ...string) string {
	text := "users:\n"
	for _, name := range names {
		text += "  " + name + ": {token_sha256: " + hashOf("token-"+name) + "}\n"
	}
	return text
}

// Two tenants, each with an administrator whom the operator's file has as a user.
const tenantRules = `groups:
  operators: [root@example.org]
rules:
  - {id: no-siren, deny: [publish], who: [anyone], topic: ["plant/+/siren"]}
roles:
  - {id: com, who: [adm@example.com], domain: example.com}
  - {id: net, who: [adm@example.net], domain: example.net}
tenants:
  - {domain: example.com, topics: ["plant/7/#"]}
  - {domain: example.net, topics: ["plant/8/#"]}
`

func tenantPolicy() string {
	return usersOf("root@example.org", "adm@example.com", "adm@example.net") + tenantRules
}

// An administrator of a domain puts its own policy in force, compares it, takes it back and
// ends it, by the verbs: its users can sign in, and may do what it says about the topics
// that the operator gave the domain. What reaches outside is a fault, all at once, and what
// the operator forbids stays forbidden.
func TestAdministratorChangesWhatIsTheDomains(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", writeFile(t, "policy.yaml", tenantPolicy()))
	want := func(who string, wantCode int, wantText string, verb ...string) {
		t.Helper()
		out, errs, code := run(t, append(append([]string{"acl"}, verb...), "--server", s.ready.HTTP, "-u", who, "-P", "token-"+who)...)
		if code != wantCode || !strings.Contains(out+errs, wantText) {
			t.Errorf("acl %v as %s: exit code %d, want %d and %q\n%s%s", verb, who, code, wantCode, wantText, out, errs)
		}
	}
	const adm, domain = "adm@example.com", "--domain=example.com"
	own := usersOf("bob@example.com") + `rules:
  - {id: seven, allow: [publish, subscribe], who: ["*@example.com"], topic: ["plant/7/#"]}
tests:
  - {as: bob, allow: [publish plant/7/door], deny: [publish plant/7/siren, publish plant/8/door]}
`
	file := writeFile(t, "own.yaml", own)
	outside := writeFile(t, "outside.yaml", usersOf("dee@example.net")+`rules:
  - {id: a, allow: [subscribe], who: [anyone], topic: ["plant/#"]}
  - {id: b, deny: [publish], who: ["*@example.com"], topic: ["location/example.net/#"]}
`)
	want(adm, 2, "plant/#", "apply", outside, domain)
	want(adm, 2, "location/example.net/#", "apply", outside, domain)
	want(adm, 2, "dee@example.net", "apply", outside, domain)
	want(adm, 9, "expected allow", "apply", writeFile(t, "failing.yaml", own+"  - {name: x, as: bob, allow: [publish other]}\n"), domain)
	if _, refused, err := mq.DialConnect(s.ready.MQTT, v5, as("bob@example.com", clean("bob"))); err == nil && refused.Code != 0x86 || refused == nil {
		t.Errorf("bob signs in before he is a user: %v, %v", refused, err)
	}
	want(adm, 0, "stays in force", "apply", file, domain, "--dry-run")
	want(adm, 0, "bob@example.com", "diff", file, domain)
	want(adm, 0, "policy 1 in force · 1 test passed", "apply", file, domain)
	want(adm, 7, "policy 1 of example.com is in force, not 9", "apply", withoutRules(t, own), domain, "--if-match", "9")
	bob := s.open(v5, as("bob@example.com", clean("bob")))
	try := func(name string) byte { return bob.TryPublish(mq.Publish{Topic: name, QoS: 1}) }
	if ok, siren, eight := try("plant/7/door"), try("plant/7/siren"), try("plant/8/door"); ok >= 0x80 || siren != 0x87 || eight != 0x87 {
		t.Errorf("bob publishes to his domain's topic %#02x, to what the operator denies %#02x, to another's %#02x", ok, siren, eight)
	}
	want(adm, 0, "example.com:seven", "explain", "--as", "bob@example.com", "publish", "plant/7/door")
	want(adm, 0, "publish plant/7/#", "can", "bob@example.com")
	want(adm, 0, "policy 2 in force", "apply", withoutRules(t, own), domain, "--if-match", "1")
	want(adm, 0, "- rule   seven", "diff", domain)
	if code := try("plant/7/door"); code != 0x87 {
		t.Errorf("bob publishes by a rule that is gone: %#02x", code)
	}
	want(adm, 0, adm, "history", domain)
	want(adm, 0, "policy 3 in force", "rollback", "1", domain)
	if code := try("plant/7/door"); code >= 0x80 {
		t.Errorf("the rule is back, and bob may not: %#02x", code)
	}
	// The operator sees it, takes its topics away, and is told what that does.
	want("root@example.org", 0, "3 ", "history", domain)
	less := writeFile(t, "less.yaml", strings.Replace(tenantPolicy(), "plant/7/#", "plant/9/#", 1))
	want("root@example.org", 0, "without effect now: example.com:seven", "apply", less)
	if code := try("plant/7/door"); code != 0x87 {
		t.Errorf("bob publishes to what is not the domain's any more: %#02x", code)
	}
	want("root@example.org", 0, "in force", "apply", writeFile(t, "policy.yaml", tenantPolicy()))
	if code := try("plant/7/door"); code >= 0x80 {
		t.Errorf("the topics are back, and bob may not: %#02x", code)
	}
	s.kill()
	s.start()
	bob = s.open(v5, as("bob@example.com", clean("bob")))
	if code := try("plant/7/door"); code >= 0x80 {
		t.Errorf("after a restart bob may not: %#02x", code)
	}
	want(adm, 0, "in force", "apply", domain, "--end")
	if end := bob.Expect(mq.DISCONNECT); end.Code != 0x98 && end.Code != 0x87 {
		t.Errorf("bob, who is no user any more, is told %v", end)
	}
}

// withoutRules is a domain's policy without its rules.
func withoutRules(t *testing.T, own string) string {
	head, _, _ := strings.Cut(own, "rules:\n")
	return writeFile(t, "without.yaml", head+"rules: []\n")
}

// An administrator of one domain learns nothing of another, by whatever he tries: the
// answers about a domain, a user, a version that there is and one that there is not are the
// same, byte for byte; so are those about what belongs to another domain and about what
// belongs to none. Who is no party learns nothing over MQTT either.
func TestS18ProbingAdministratorLearnsNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, "--policy", writeFile(t, "policy.yaml", tenantPolicy()))
	const adm = "adm@example.net"
	own := usersOf("bob@example.com") + "rules:\n  - {id: seven, allow: [publish, subscribe], who: [bob], topic: [\"plant/7/#\"]}\nlimits:\n  - {id: home, topic: [\"location/example.com/#\", \"im/example.com/#\"], only: {who: [\"*@example.com\"]}}\n"
	if a := s.ask("adm@example.com", "PUT", "/v1/domains/example.com/policy", own); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	bob := s.open(v5, as("bob@example.com", clean("bob")))
	bob.Publish("plant/7/door", 1, "open")
	same := func(what, method, is, isNot, body string) {
		t.Helper()
		a, b := s.ask(adm, method, is, body), s.ask(adm, method, isNot, body)
		b.body = strings.NewReplacer("example.xyz", "example.com", "eve@", "bob@").Replace(b.body)
		if a != b || a.status < 400 {
			t.Errorf("%s: %s %s answers\n%d %s\nand %s\n%d %s", what, method, is, a.status, a.body, isNot, b.status, b.body)
		}
	}
	for _, rest := range []string{"/policy", "/policy/versions", "/policy/versions/1", "/policy/diff", "/usage", "/audit", "/subscriptions", "/invitations"} {
		same("a domain", "GET", "/v1/domains/example.com"+rest, "/v1/domains/example.xyz"+rest, "")
	}
	same("a domain", "PUT", "/v1/domains/example.com/policy", "/v1/domains/example.xyz/policy", "rules: []\n")
	same("a domain", "DELETE", "/v1/domains/example.com/policy", "/v1/domains/example.xyz/policy", "")
	same("a domain", "POST", "/v1/domains/example.com/policy/rollback", "/v1/domains/example.xyz/policy/rollback", `{"to":1}`)
	same("a user", "GET", "/v1/policy/can?as=bob@example.com", "/v1/policy/can?as=eve@example.xyz", "")
	same("a user", "GET", "/v1/policy/explain?as=bob@example.com&action=publish&topic=x", "/v1/policy/explain?as=eve@example.xyz&action=publish&topic=x", "")
	for _, name := range []string{"plant/7/door", "location/example.com/bob", "nothing/at/all"} {
		if a := s.ask(adm, "GET", "/v1/policy/who?action=subscribe&topic="+name, ""); strings.Contains(a.body, "example.com") || strings.Contains(a.body, "bob") {
			t.Errorf("who may subscribe to %s: %s", name, a.body)
		}
	}
	// Tests of a domain's own are a way to ask, too.
	probe := "tests:\n  - {who_can: subscribe plant/7/door, exactly: [\"*@example.net\"]}\n"
	if a := s.ask(adm, "PUT", "/v1/domains/example.net/policy?dry_run", probe); a.status != 422 || strings.Contains(a.body, "bob") || strings.Contains(a.body, "example.com") {
		t.Errorf("a test that probes: %d %s", a.status, a.body)
	}
	// What is refused because of another domain's policy says no more than that.
	c := s.open(v5, as(adm, clean("probe")))
	c.Send(mq.Publish{Topic: "im/example.com/bob", QoS: 1, ID: c.ID(), Payload: []byte(`{}`)})
	refused := c.Expect(mq.PUBACK)
	if text := refused.Properties.Text(mq.PropReasonString); strings.Contains(text, "home") || refused.Code != 0x87 {
		t.Errorf("%v says %q", refused, text)
	} else if a := s.ask(adm, "GET", "/v1/policy/denials/"+explainID(t, refused), ""); a.status != 200 || strings.Contains(a.body, "home") || strings.Contains(a.body, "policy of") {
		t.Errorf("explained: %d %s", a.status, a.body)
	}
	for _, f := range []string{"$adm/example.com/watchers", "$adm/#", "plant/7/door"} {
		if code := c.TrySubscribe(nil, mq.Filter{Filter: f, QoS: 1}).Codes[0]; code < 0x80 {
			t.Errorf("%s is granted %#02x", f, code)
		}
	}
	c.Quiet()
}

// What a domain has put in force on one node is in force on all within a second, also if
// that node is killed at once.
func TestClusterDomainPolicyWithinASecond(t *testing.T) {
	t.Parallel()
	p := loopback()
	p.policy = trioPolicy + "tenants:\n  - {domain: example.com, topics: [gate]}\n"
	c := p.start(t)
	c.await("the level that has parts", func(all []member) bool {
		for _, m := range all {
			if m.Level < m.Supports {
				return false
			}
		}
		return allVote(all)
	})
	g := &gates{c: c}
	for i := range c.nodes {
		g.watch(i)
	}
	asks := func(i int, policy string) (status int) {
		t.Helper()
		r, err := http.NewRequest("PUT", "http://"+c.http[i]+"/v1/domains/example.com/policy", strings.NewReader(policy))
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth("ana", "sesame")
		client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, _ := io.ReadAll(res.Body); res.StatusCode != 200 && res.StatusCode != 429 {
			t.Fatalf("at n%d: %d %s", i+1, res.StatusCode, text)
		}
		return res.StatusCode
	}
	put := func(i int, policy string) {
		t.Helper()
		until(t, "it may be changed again: ten times a minute", 2*time.Minute, func() bool { return asks(i, policy) == 200 })
	}
	const shut, open = "limits:\n  - {id: shut, topic: [gate], only: {who: [nobody@example.com]}}\n", "rules: []\n"
	for i := range c.nodes {
		attempts(t, func(try *attempt) {
			put(i, shut)
			try.within(time.Second, g.become(false), "shut on all nodes")
			put((i+1)%len(c.nodes), open)
			try.within(time.Second, g.become(true), "open on all nodes")
		})
	}
	at := 0
	attempts(t, func(try *attempt) {
		if at > 0 {
			c.nodes[at-1].start()
			c.caughtUp()
			g.watch(at - 1)
			put(at, open)
			g.become(true)
		}
		put(at, shut)
		c.nodes[at].kill()
		g.watchers[at].Close()
		g.watchers[at] = nil
		try.within(time.Second, g.become(false), "shut on the others when the node that accepted it was killed")
		at++
	})
}

// What an administrator looks at and changes is written down, and shown at once to whom it
// concerns, over MQTT and HTTP, unless the operator's policy exempts who looks; others read
// nothing of it. It outlasts a restart.
func TestLooksAreAudited(t *testing.T) {
	t.Parallel()
	policy := strings.Replace(tenantPolicy(), "roles:\n", "roles:\n  - {id: sec, who: [sec@example.org], domain: example.com, unshown: true}\n", 1)
	policy = strings.Replace(policy, "users:\n", usersOf("sec@example.org", "bob@example.com", "eve@example.com"), 1)
	s := serve(t, "--policy", writeFile(t, "policy.yaml", policy))
	bob := s.open(v5, as("bob@example.com", clean("bob")))
	bob.Subscribe("$me/audit", 1)
	if first := string(bob.Receive().Payload); first != `{"entries":[],"v":1}` {
		t.Errorf("before anybody has looked: %s", first)
	}
	eve := s.open(v5, as("eve@example.com", clean("eve")))
	eve.Subscribe("$me/audit", 1)
	eve.Receive()
	const adm = "adm@example.com"
	if a := s.ask(adm, "GET", "/v1/policy/can?as=bob@example.com", ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if shown := string(bob.Receive().Payload); !strings.Contains(shown, `"by":"adm@example.com","door":"http","what":"can","about":"bob@example.com","result":"told"`) {
		t.Errorf("bob is shown %s", shown)
	}
	eve.Quiet()
	if a := s.ask("sec@example.org", "GET", "/v1/policy/can?as=bob@example.com", ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	bob.Quiet()
	if code := bob.TryPublish(mq.Publish{Topic: "$me/audit", QoS: 1}); code < 0x80 {
		t.Errorf("bob writes to the audit: %#02x", code)
	}
	if a := s.ask("adm@example.com", "PUT", "/v1/domains/example.com/policy", "rules: []\n"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	check := func() {
		t.Helper()
		own := s.ask("bob@example.com", "GET", "/v1/audit", "")
		if own.status != 200 || strings.Count(own.body, `"by"`) != 2 || strings.Contains(own.body, "sec@") || !strings.Contains(own.body, "policy put") {
			t.Errorf("bob reads %d %s", own.status, own.body)
		}
		if all := s.ask(adm, "GET", "/v1/audit?domain=example.com", ""); strings.Count(all.body, `"by"`) != 3 || !strings.Contains(all.body, `"by":"sec@example.org"`) {
			t.Errorf("the administrator reads %d %s", all.status, all.body)
		}
		out, errs, code := run(t, "audit", "--domain", "example.com", "--server", s.ready.HTTP, "-u", "root@example.org", "-P", "token-root@example.org")
		if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 3 || !strings.HasPrefix(lines[0], "3 ") {
			t.Errorf("exit code %d\n%s%s", code, out, errs)
		}
	}
	check()
	for who, path := range map[string]string{"eve@example.com": "/v1/audit?domain=example.com", "adm@example.net": "/v1/audit?domain=example.com"} {
		if a := s.ask(who, "GET", path, ""); a.status != 403 {
			t.Errorf("%s reads %d %s", who, a.status, a.body)
		}
	}
	s.kill()
	s.start()
	check()
}

// A domain has as many sessions as the operator gives it: one more is refused with 0x97,
// connected or not, and the next is accepted when one has ended. Other domains notice
// nothing; the domain's administrators see it, and no other's.
func TestQuotaOfSessions(t *testing.T) {
	t.Parallel()
	policy := strings.Replace(tenantPolicy(), `topics: ["plant/7/#"]`, `topics: ["plant/7/#"], quotas: {sessions: 2}`, 1)
	s := serve(t, "--policy", writeFile(t, "policy.yaml", policy))
	const adm, other = "adm@example.com", "adm@example.net"
	usage := func(want string) {
		t.Helper()
		if a := s.ask(adm, "GET", "/v1/domains/example.com/usage", ""); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%d %s, want %s", a.status, a.body, want)
		}
	}
	connect := func(user, id string) (*mq.Conn, byte) {
		t.Helper()
		c, ack, err := mq.DialConnect(s.ready.MQTT, v5, as(user, clean(id)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, ack.Code
	}
	first := s.open(v5, as(adm, clean("one")))
	if _, code := connect(adm, "two"); code != 0 {
		t.Fatalf("the second session: %#02x", code)
	}
	if _, code := connect(adm, "three"); code != 0x97 {
		t.Errorf("one session more than the quota: %#02x", code)
	}
	if _, code := connect(adm, "two"); code != 0 {
		t.Errorf("a session that there is: %#02x", code)
	}
	for _, id := range []string{"a", "b", "c"} {
		if _, code := connect(other, id); code != 0 {
			t.Errorf("another domain's session: %#02x", code)
		}
	}
	usage(`"sessions":{"used":2,"max":2,"refused":1}`)
	if a := s.ask(other, "GET", "/v1/domains/example.com/usage", ""); a.status != 403 {
		t.Errorf("another domain's administrator: %d %s", a.status, a.body)
	}
	first.Send(mq.Bye)
	first.Closed()
	for began := time.Now(); ; {
		if _, code := connect(adm, "four"); code == 0 {
			break
		} else if code != 0x97 || time.Since(began) > patience {
			t.Fatalf("when one has ended: %#02x", code)
		}
	}
	if a := s.ask(adm, "GET", "/v1/domains/example.com/usage", ""); !strings.Contains(a.body, `"used":2`) {
		t.Error(a.body)
	}
}

// An administrator lists the subscriptions to and from the addresses of his domain, and
// cancels one: its watcher is told, by whom, and gets nothing further. Both are written down,
// and shown to the owner; nobody else may do either, and nothing of another domain is listed
// or cancelled. Also ADM-2.
func TestADM1AdministratorListsAndCancelsSubscriptions(t *testing.T) {
	t.Parallel()
	policy := strings.Replace(tenantPolicy(), "users:\n", usersOf("bob@example.com", "eve@example.com", "alice@example.net", "carol@example.org"), 1)
	s := serve(t, "--policy", writeFile(t, "policy.yaml", policy))
	const topic, adm = "presence/example.com/bob", "adm@example.com"
	bob := s.open(v5, as("bob@example.com", clean("bob")))
	bob.Publish("$me/policy/presence", 1, showAll)
	alice := s.open(v5, as("alice@example.net", clean("alice")))
	alice.Subscribe(topic, 1)
	alice.Receive()
	elsewhere := s.open(v5, as("eve@example.com", clean("eve")))
	elsewhere.Subscribe("presence/example.org/carol", 1)
	elsewhere.Receive()
	type row struct{ Kind, Target, Watcher, SID, Status, Event string }
	list := func(who, query string) (rows []row) {
		t.Helper()
		a := s.ask(who, "GET", "/v1/domains/example.com/subscriptions"+query, "")
		var got struct{ Subscriptions []row }
		if a.status != 200 || json.Unmarshal([]byte(a.body), &got) != nil {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		return got.Subscriptions
	}
	to := list(adm, "?target=bob")
	if len(to) != 1 || to[0].Watcher != "alice@example.net" || to[0].Target != "bob@example.com" || to[0].Status != "active" || to[0].SID == "" {
		t.Errorf("to bob: %+v", to)
	}
	if all := list(adm, ""); len(all) != 2 || all[1].Watcher != "eve@example.com" && all[0].Watcher != "eve@example.com" {
		t.Errorf("to and from the domain: %+v", all)
	}
	if a := s.ask(adm, "GET", "/v1/domains/example.com/subscriptions?target=carol@example.org", ""); a.status != 403 {
		t.Errorf("of another domain: %d %s", a.status, a.body)
	}
	cancel := func(who, body string) answer {
		t.Helper()
		return s.ask(who, "POST", "/v1/domains/example.com/subscriptions/cancel", body)
	}
	const it = `{"kind":"presence","target":"bob@example.com","watcher":"alice@example.net"}`
	for _, who := range []string{"eve@example.com", "adm@example.net", "bob@example.com"} {
		if a, b := s.ask(who, "GET", "/v1/domains/example.com/subscriptions", ""), cancel(who, it); a.status != 403 || b.status != 403 {
			t.Errorf("%s lists %d %s and cancels %d %s", who, a.status, a.body, b.status, b.body)
		}
	}
	if code := bob.TryPublish(mq.Publish{Topic: "$ctl/presence/cancel", QoS: 1, Payload: []byte(`{"watcher":"alice@example.net"}`)}); code < 0x80 {
		t.Errorf("bob cancels as an administrator: %#02x", code)
	}
	if a := cancel(adm, strings.Replace(it, "bob@example.com", "carol@example.org", 1)); a.status != 403 {
		t.Errorf("of another domain: %d %s", a.status, a.body)
	}
	alice.Subscribe("$me/sub/"+topic, 1)
	if is := string(alice.Receive().Payload); !strings.Contains(is, `"active"`) {
		t.Errorf("alice is told %s", is)
	}
	if a := cancel(adm, it); a.status != 200 || strings.TrimSpace(a.body) != `{"matched":1}` {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for {
		p := alice.Receive()
		if p.Topic == topic {
			continue // what she is shown in its place is for its profile to say
		}
		if is := string(p.Payload); !strings.Contains(is, `"terminated"`) || !strings.Contains(is, `"reason":"admin"`) {
			t.Errorf("alice is told %s", is)
		}
		break
	}
	bob.PublishMessage(retained(topic+"/phone", `{"basic":"open"}`))
	alice.Quiet()
	own := s.ask("bob@example.com", "GET", "/v1/audit", "")
	if strings.Count(own.body, `"what":"subscriptions"`) != 2 || strings.Count(own.body, `"what":"cancel presence"`) != 1 {
		t.Errorf("bob reads in the audit: %s", own.body)
	}
}

// An administrator lists who watches the domain, or one address, by wildcards, and cuts one of
// them off from an address, whether or not its owner shows them anything: nothing further is
// sent of it, others are. Both are in the audit.
func TestADM2WildcardsAreListedAndCanceled(t *testing.T) {
	t.Parallel()
	policy := strings.Replace(tenantPolicy(), "users:\n", usersOf("bob@example.com", "eve@example.com", "alice@example.net"), 1)
	s := serve(t, "--policy", writeFile(t, "policy.yaml", policy))
	const topic, adm = "presence/example.com/bob", "adm@example.com"
	owner, other := s.open(v5, as("bob@example.com", clean("bob"))), s.open(v5, as("eve@example.com", clean("eve")))
	for _, c := range []*mq.Client{owner, other} {
		c.Publish("$me/policy/presence", 1, showAll)
	}
	owner.PublishMessage(retained(topic+"/phone", `{"basic":"open"}`))
	watcher := s.open(v5, as("alice@example.net", clean("alice")))
	watcher.Subscribe("presence/+/+", 1)
	other.Subscribe("presence/example.org/#", 1)
	list := func(query string) (rows []string, sid string) {
		t.Helper()
		a := s.ask(adm, "GET", "/v1/domains/example.com/subscriptions"+query, "")
		var got struct {
			Subscriptions []struct{ Kind, Target, Watcher, SID, Status, Event string }
		}
		if a.status != 200 || json.Unmarshal([]byte(a.body), &got) != nil {
			t.Fatalf("%s: %d %s", query, a.status, a.body)
		}
		for _, r := range got.Subscriptions {
			rows, sid = append(rows, strings.TrimSpace(r.Watcher+" "+r.Target+" "+r.Status+" "+r.Event)), r.SID
		}
		return rows, sid
	}
	if rows, _ := list(""); fmt.Sprint(rows) != "[alice@example.net *@example.com active eve@example.com *@example.org active]" {
		t.Errorf("of the domain: %v", rows)
	}
	rows, sid := list("?target=bob")
	if fmt.Sprint(rows) != "[alice@example.net bob@example.com active subscribe]" {
		t.Errorf("of bob: %v", rows)
	}
	cancel := func(body string) answer {
		t.Helper()
		return s.ask(adm, "POST", "/v1/domains/example.com/subscriptions/cancel", body)
	}
	if a := cancel(`{"kind":"presence","target":"*@example.com","sid":"` + sid + `"}`); a.status != 400 || !strings.Contains(a.body, "one address at a time") {
		t.Errorf("from all: %d %s", a.status, a.body)
	}
	owner.Publish("$me/policy/presence", 1, `{"v":1,"rules":[]}`)
	if a := cancel(`{"kind":"presence","target":"bob","sid":"` + sid + `"}`); a.status != 200 || strings.TrimSpace(a.body) != `{"matched":1}` {
		t.Errorf("cancelled: %d %s", a.status, a.body)
	}
	owner.Publish("$me/policy/presence", 1, showAll)
	drain(watcher)
	owner.PublishMessage(retained(topic+"/phone", `{"basic":"closed"}`))
	other.PublishMessage(retained("presence/example.com/eve/phone", `{"basic":"open"}`))
	for _, p := range takes(watcher, 1) {
		if p.Topic == topic && !isNeutral(p, "bob@example.com") {
			t.Errorf("cut off, she is sent %s", p.Payload)
		}
	}
	if rows, _ := list("?target=bob"); fmt.Sprint(rows) != "[alice@example.net bob@example.com terminated admin]" {
		t.Errorf("of bob: %v", rows)
	}
	if is := s.own("bob@example.com", ownWatchers); !contains(is, `"status":"terminated","event":"admin"`) {
		t.Errorf("bob sees %s", is)
	}
	if own := s.ask("bob@example.com", "GET", "/v1/audit", ""); strings.Count(own.body, `"what":"cancel presence"`) != 2 {
		t.Errorf("bob reads in the audit: %s", own.body)
	}
}
