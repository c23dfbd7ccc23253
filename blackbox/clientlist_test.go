package blackbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Operators, and they alone, see which clients there are, connected and away, by pages, and by
// what they ask for; it is in the audit. After a kill they are as they were, all away.
func TestClientsAreListed(t *testing.T) {
	t.Parallel()
	const root = "root@example.org"
	path := writeFile(t, "policy.yaml", usersOf(bob, root)+"groups:\n  operators: [root@example.org]\nrules:\n  - {id: all, allow: [publish, subscribe], who: [anyone], topic: [\"#\"]}\n")
	s := serve(t, "--policy", path, "--test-clock", "2026-03-09T12:00:00Z", "--allow-anonymous", "--domain", "example.com")
	verb := s.verb
	away := s.open(v5, as(bob, durable(v5, "bobs/1")))
	away.Subscribe("plain/#", 1)
	away.Disconnect()
	s.open(v4, as(bob, clean("bobs/2")))
	pub := s.open(v5, clean("pub"))
	pub.Publish("plain/a", 1, "1")
	type client struct {
		ID, User, Node, Protocol, Away string
		Waiting                        int
	}
	list := func(args ...string) (ids string) {
		t.Helper()
		var all []client
		if err := json.Unmarshal([]byte(verb(0, append([]string{"clients", "ls", "-o", "json"}, args...)...)), &all); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			ids += fmt.Sprintf(" %s(%s %s %s %s %d)", c.ID, c.User, c.Node, c.Protocol, c.Away, c.Waiting)
		}
		return strings.TrimSpace(ids)
	}
	const one, two, three = "bobs/1(bob@example.com  5 2026-03-09T12:00:00Z 1)", "bobs/2(bob@example.com n1 3.1.1  0)", "pub( n1 5  0)"
	for args, want := range map[string]string{
		"": one + " " + two + " " + three, "--away": one, "--connected --user bob": two, "--user bob@example.com": one + " " + two, "--user eve": "",
		"--prefix bobs/": one + " " + two, "--node n1": two + " " + three, "--node n2": "", "--most 2": one + " " + two,
	} {
		if got := list(strings.Fields(args)...); !strings.HasPrefix(got, want) || len(got) > len(want) && args != "--most 2" {
			t.Errorf("%s: got %s, want %s", args, got, want)
		}
	}
	if got := verb(0, "clients", "show", "bobs/1"); !strings.Contains(got, "away since 2026-03-09T12:00:00Z") || !strings.Contains(got, "plain/#") {
		t.Errorf("shown is %s", got)
	}
	verb(3, "clients", "show", "bobs/")
	verb(2, "clients", "ls", "--away", "--connected")
	if a := s.ask(bob, "GET", "/v1/clients", ""); a.status != 403 {
		t.Errorf("others: %d %s", a.status, a.body)
	}
	for query, want := range map[string]int{"usr=bob": 400, "state=gone": 400, "user=a@b@c": 422, "user=a&user=b": 400, "after=zz": 200} {
		if a := s.ask(root, "GET", "/v1/clients?"+query, ""); a.status != want {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if got := verb(0, "audit"); !strings.Contains(got, "clients bobs/1") {
		t.Errorf("the audit has\n%s", got)
	}
	s.restart()
	if got := list("--connected"); got != "" {
		t.Errorf("after a kill connected are %s", got)
	}
	if got := list("--away"); got != one {
		t.Errorf("after a kill away are %s", got)
	}
}
