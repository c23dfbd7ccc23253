package blackbox

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	mq "github.com/bellwire/bellwire/mqtttest"
)

// sightSteps is how many questions an administrator asks of a tenant that there is, and of
// one that there is not.
func sightSteps() int {
	if os.Getenv("BELLWIRE_SOAK") == "1" {
		return 2_000
	}
	return 110
}

// A tenant's administrator, who asks about another tenant by every door and verb there is,
// learns nothing of it, not even whether there is one: whatever that tenant does meanwhile,
// the answers about it are, to the byte, those about a domain that never was; so are those
// about people and subscriptions of theirs, and what the own domain shows has nothing of it.
// Also ADM-1.
func TestS18TenantsHaveNoSightOfEachOther(t *testing.T) {
	t.Parallel()
	s := administered(t)
	const there, never = "example.com", "example.xyz"
	r := rand.New(rand.NewPCG(18, 5))
	net := s.asks(admNet)
	com := s.asks(admCom)
	pc := s.person(bob, "pc")
	own := usersOf("own@example.com") + "rules: []\n"
	moves := []func(){
		func() { pc.Publish("$me/policy/presence", 1, showAll) },
		func() { pc.PublishMessage(retained(bobsPresence+"/pc", `{"basic":"open"}`)) },
		func() { s.ask(admCom, "PUT", "/v1/domains/"+there+"/policy", own) },
		func() { s.ask(admCom, "DELETE", "/v1/domains/"+there+"/policy", "") },
		func() { s.change(admCom, there, "provision", bossToBob) },
		func() {
			s.change(admCom, there, "cancel", `{"kind":"presence","target":"bob","watcher":"boss"}`)
		},
		func() { administers(t, com, "$adm/"+there+"/subs", "") },
		func() {
			s.change(admCom, there, "invite", `{"kind":"location","watcher":"zoe@example.org","target":"bob"}`)
		},
	}
	// Each question is about what there is, or is not; %D is the domain, %P somebody of it.
	type question struct {
		name string
		ask  func(domain, person string) string
	}
	byHTTP := func(method, path, body string) question {
		return question{method + " " + path, func(domain, person string) string {
			fill := strings.NewReplacer("%D", domain, "%P", person)
			return fmt.Sprint(s.ask(admNet, method, fill.Replace(path), fill.Replace(body)))
		}}
	}
	byTopic := func(what, payload string) question {
		return question{"$adm " + what, func(domain, person string) string {
			fill := strings.NewReplacer("%D", domain, "%P", person)
			code, status, body := administers(t, net, fill.Replace(what), fill.Replace(payload))
			return fmt.Sprintf("%#02x %d %s", code, status, body)
		}}
	}
	byVerb := func(args ...string) question {
		return question{strings.Join(args, " "), func(domain, person string) string {
			var full []string
			for _, a := range args {
				full = append(full, strings.NewReplacer("%D", domain, "%P", person).Replace(a))
			}
			out, errs, code := run(t, append(full, "--server", s.ready.HTTP, "-u", admNet, "-P", "token-"+admNet)...)
			return fmt.Sprint(code, out, errs)
		}}
	}
	file := writeFile(t, "theirs.yaml", "rules: []\n")
	const it = `{"kind":"presence","watcher":"%P","target":"%P"}`
	var questions []question
	for _, rest := range []string{"/policy", "/policy/versions", "/policy/versions/1", "/policy/diff", "/usage", "/subscriptions", "/subscriptions?target=%P", "/invitations", "/invitations?target=%P"} {
		questions = append(questions, byHTTP("GET", "/v1/domains/%D"+rest, ""))
	}
	for _, verb := range []string{"cancel", "provision", "invite"} {
		questions = append(questions, byHTTP("POST", "/v1/domains/%D/subscriptions/"+verb, it), byTopic("$adm/%D/"+verb, it),
			byTopic("$adm/%D/"+verb, `{"kind":"presence"`))
	}
	// In the name of the own domain, about the other's people.
	questions = append(questions,
		byHTTP("POST", "/v1/domains/example.net/subscriptions/provision", `{"kind":"presence","watcher":"%P","target":"alice"}`),
		byHTTP("POST", "/v1/domains/example.net/subscriptions/cancel", `{"kind":"presence","watcher":"alice","target":"%P"}`),
		byHTTP("POST", "/v1/domains/example.net/subscriptions/invite", `{"kind":"presence","watcher":"alice","target":"%P"}`),
		byHTTP("GET", "/v1/domains/example.net/subscriptions?target=%P", ""),
		byTopic("$adm/example.net/subs", `{"target":"%P"}`),
		byTopic("$adm/example.net/cancel", `{"kind":"presence","watcher":"alice","target":"%P"}`),
	)
	for _, what := range []string{"subs", "usage", "audit", "policy", "policy/versions", "policy/end", "policy/rollback", "policy/diff", "nothing"} {
		questions = append(questions, byTopic("$adm/%D/"+what, ""))
	}
	questions = append(questions, byTopic("$adm/%D/policy/put", `{"policy":"rules: []\n"}`), byTopic("$adm/%D/subs", `{"target":"%P"}`),
		byHTTP("GET", "/v1/audit?domain=%D", ""), byHTTP("GET", "/v1/audit?about=%P&domain=%D", ""),
		byHTTP("GET", "/v1/policy/can?as=%P", ""), byHTTP("GET", "/v1/policy/explain?as=%P&action=subscribe&topic=presence/%D/bob", ""),
		byHTTP("PUT", "/v1/domains/%D/policy", "rules: []\n"), byHTTP("DELETE", "/v1/domains/%D/policy", ""),
		byHTTP("POST", "/v1/domains/%D/policy/rollback", `{"to":1}`), byHTTP("GET", "/metrics/domains", ""),
	)
	questions = append(questions,
		byVerb("admin", "ls", "--domain=%D"), byVerb("admin", "usage", "--domain=%D"), byVerb("admin", "audit", "--domain=%D"),
		byVerb("admin", "cancel", "%P", "alice@example.net", "--domain=%D"), byVerb("admin", "provision", "%P", "%P", "--domain=%D"),
		byVerb("admin", "invite", "%P", "%P", "--domain=%D"), byVerb("admin", "policy", "get", "--domain=%D"), byVerb("admin", "policy", "put", file, "--domain=%D"),
		byVerb("admin", "policy", "diff", "--domain=%D"), byVerb("admin", "policy", "rollback", "1", "--domain=%D"), byVerb("acl", "can", "%P"),
	)
	people := []string{"bob", "boss", "eve", "own", "adm"}
	for step := range sightSteps() {
		moves[r.IntN(len(moves))]()
		q := questions[step%len(questions)]
		if step >= len(questions) {
			q = questions[r.IntN(len(questions))]
		}
		who := people[r.IntN(len(people))]
		is, isNot := q.ask(there, who+"@"+there), q.ask(never, "nobody@"+never)
		isNot = strings.NewReplacer("nobody@"+never, who+"@"+there, never, there).Replace(isNot)
		if is != isNot {
			t.Errorf("step %d: %s answers\n%s\nand of what is not there\n%s", step, q.name, is, isNot)
		}
		if strings.HasPrefix(is, "{200") && !strings.Contains(q.name, "/v1/audit?about") || strings.Contains(is, "seven") {
			t.Errorf("step %d: %s is granted: %s", step, q.name, is)
		}
	}
	// What is the own domain's has nothing of the other.
	for _, path := range []string{"/v1/domains/example.net/subscriptions", "/v1/audit?domain=example.net", "/v1/domains/example.net/policy/versions", "/v1/policy/who?action=subscribe&topic=presence/example.com/bob", "/metrics"} {
		if a := s.ask(admNet, "GET", path, ""); strings.Contains(a.body, "example.com") || strings.Contains(a.body, "bob") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	// Nor was anything of these questions written where the other's people would see them.
	if a := s.ask(admCom, "GET", "/v1/audit?domain=example.com", ""); strings.Contains(a.body, admNet) {
		t.Errorf("the other domain's audit: %s", a.body)
	}
	for _, f := range []string{"$adm/example.com/subs", "$adm/example.xyz/subs", "$adm/#"} {
		if code := net.TrySubscribe(nil, mq.Filter{Filter: f, QoS: 1}).Codes[0]; code != 0x87 {
			t.Errorf("%s: %#02x", f, code)
		}
	}
	net.Quiet()
}
