package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/api"
)

// An administrator who asks who is told of clients learns nothing of other domains: whether
// one has administrators, is a tenant, or is none, the answer is the same.
func TestClientsExplainedToAdministrators(t *testing.T) {
	policy, err := acl.Parse("policy.yaml", []byte(`roles:
  - {id: a, who: [cy@a.org], domain: a.org}
  - {id: b, who: [di@b.org], domain: b.org}
rules:
  - {id: sys, allow: [subscribe], who: [anyone], topic: ["$SYS/#"]}
`), "")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(topic string, domains []string) (string, error) {
		e, err := askPolicy(policy, "", api.PolicyQuestion{What: "explain", As: "bo@a.org", Action: "subscribe", Topic: "$SYS/bellwire/clients/" + topic, Text: true, Domains: domains}, time.Unix(0, 0))
		text, _ := e.(api.Explained)
		return text.Text, err
	}
	for _, domain := range []string{"b.org", "none.org", "-"} {
		if text, err := ask(domain+"/+/connected", []string{"a.org"}); !errors.Is(err, api.ErrNotYours) {
			t.Errorf("of %s: %q, %v", domain, text, err)
		}
	}
	for topic, want := range map[string]string{"a.org/+/connected": "DENY", "#": "ALLOW"} {
		if text, err := ask(topic, []string{"a.org"}); err != nil || !strings.HasPrefix(text, want) {
			t.Errorf("of %s: %q, %v", topic, text, err)
		}
	}
	if text, err := ask("b.org/+/connected", nil); err != nil || !strings.Contains(text, "of clients of b.org") {
		t.Errorf("an operator is told %q, %v", text, err)
	}
}
