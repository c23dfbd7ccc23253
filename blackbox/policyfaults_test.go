package blackbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A file with faults of whatever class is answered 422, by the operator's door and by a
// domain's, with every fault and its place; and nothing is another after it: the number,
// the text, the history, and what it decides.
func TestFaultyPoliciesChangeNothing(t *testing.T) {
	t.Parallel()
	const (
		root = "root@example.org"
		adm  = "adm@example.com"
	)
	s := serve(t, "--policy", writeFile(t, "policy.yaml", tenantPolicy()))
	own := usersOf("bob@example.com") + "rules:\n  - {id: seven, allow: [publish], who: [bob], topic: [\"plant/7/#\"]}\n"
	if got := s.ask(adm, "PUT", "/v1/domains/example.com/policy", own); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	type door struct {
		who, path, can, base string
	}
	doors := []door{
		{root, "/v1/policy", "/v1/policy/can?as=adm@example.com", tenantPolicy()},
		{adm, "/v1/domains/example.com/policy", "/v1/policy/can?as=bob@example.com", own},
	}
	state := func(d door) string {
		is, history, can := s.ask(d.who, "GET", d.path, ""), s.ask(d.who, "GET", d.path+"/versions", ""), s.ask(root, "GET", d.can, "")
		if is.status != 200 || history.status != 200 || can.status != 200 {
			t.Fatalf("%d %d %d %s", is.status, history.status, can.status, can.body)
		}
		return strings.Join([]string{is.etag, is.body, history.body, can.body}, "\n")
	}
	for _, c := range []struct {
		class, text string
		places      []string // line and column of each
	}{
		{"no YAML", "rules: [\n", []string{"1:8"}},
		{"no mapping", "- a\n", []string{"1:1"}},
		{"a key twice", "rules: []\nrules: []\n", []string{"2:1"}},
		{"unknown keys", "ruls: []\nusers: {}\ngrups: {}\n", []string{"1:1", "3:1"}},
		{"another type", "rules: 7\n", []string{"1:8"}},
		{"rules without what they need, and with too much", "rules:\n  - {id: a}\n  - {id: b, allow: [fly], who: [\"*@example.com\"], topic: [\"plant/7/#\"], colour: red}\n", []string{"2:5", "2:5", "2:5", "3:21", "3:73"}},
		{"an id twice", "rules:\n  - {id: a, deny: [publish], who: [\"*@example.com\"], topic: [\"plant/7/x\"]}\n  - {id: a, deny: [publish], who: [\"*@example.com\"], topic: [\"plant/7/x\"]}\n", []string{"3:5"}},
		{"filters and addresses", "rules:\n  - {id: a, deny: [publish], who: [\"a b\"], topic: [\"plant/7/#/x\"]}\n", []string{"2:36", "2:52"}},
		{"windows", "rules:\n  - id: a\n    deny: [publish]\n    who: [\"*@example.com\"]\n    topic: [\"plant/7/x\"]\n    when: {weekly: [\"Mon-Fri 25:00-26:00\"], tz: Mars/Olympus}\n", []string{"6:21", "6:49"}},
	} {
		for _, d := range doors {
			t.Run(c.class+" at "+d.path, func(t *testing.T) {
				was := state(d)
				got := s.ask(d.who, "PUT", d.path, c.text)
				var told struct {
					Faults []struct {
						Line, Column int
						What         string
					}
				}
				if err := json.Unmarshal([]byte(got.body), &told); err != nil || got.status != 422 {
					t.Fatalf("%d %s", got.status, got.body)
				}
				var places []string
				for _, f := range told.Faults {
					places = append(places, fmt.Sprintf("%d:%d", f.Line, f.Column))
					if f.What == "" {
						t.Errorf("a fault that says nothing: %s", got.body)
					}
				}
				if !slices.Equal(places, c.places) {
					t.Errorf("faults at %v, want %v: %s", places, c.places, got.body)
				}
				if is := state(d); is != was {
					t.Errorf("it was\n%s\nand is\n%s", was, is)
				}
			})
		}
	}
}
