package acl

import (
	"strings"
	"testing"
	"time"
)

// Of what is told of clients rules allow more than anybody is shown: who is told of whom, and
// who of addresses, is explained as the broker has it.
func TestClientsAreExplained(t *testing.T) {
	p := parsed(t, `
groups: {operators: [op]}
roles:
  - {id: x, who: [cy@y.org, cy@x.org], domain: x.org}
tenants:
  - {domain: z.org}
rules:
  - {id: sys, allow: [subscribe], who: [anyone], topic: ["$SYS/#"]}
  - {id: night, allow: [subscribe], who: [anyone], topic: ["w/#"]}
`)
	const all = clientsTree + "#"
	for _, c := range []struct {
		who, topic string
		allow      bool
		says       string // empty: nothing of clients
	}{
		{"op@x.org", all, true, "clients of all domains, and their addresses"},
		{"op@x.org", clientsTree + "z.org/+/address", true, "clients of all domains, and their addresses"},
		{"cy@y.org", all, true, "clients of x.org alone, and their addresses"},
		{"cy@y.org", "$SYS/+/clients/+/+/address", true, "clients of x.org alone, and their addresses"},
		{"cy@x.org", clientsTree + "x.org/c1/connected", true, "clients of x.org alone"},
		{"cy@y.org", clientsTree + "y.org/+/connected", false, "is told of clients of no other domain"},
		{"cy@y.org", clientsTree + "-/+/connected", false, "is told of clients of no other domain"},
		{"bo@x.org", all, true, "no clients of a domain that is a tenant or has administrators (roles), and no addresses"},
		{"", "$SYS/#", true, "and no addresses"},
		{"bo@x.org", clientsTree + "+/+/address", false, "addresses of clients go to operators"},
		{"bo@x.org", clientsTree + "x.org/+/connected", false, "of clients of x.org, which is a tenant or has administrators"},
		{"bo@x.org", clientsTree + "z.org/#", false, "of clients of z.org"},
		{"bo@x.org", clientsTree + "y.org/#", true, "no addresses"},
		{"bo@x.org", "$SYS/broker/uptime", true, ""},
		{"bo@x.org", "w/#", true, ""},
	} {
		e, err := p.Explain(Who{Principal: c.who}, Subscribe, c.topic, time.Unix(0, 0))
		text := e.Text()
		if err != nil || e.Allow != c.allow || !strings.Contains(text, c.says) || c.says == "" && strings.Contains(text, "domain") {
			t.Errorf("%s, %s: %v\n%s\nwant %v, %q", c.who, c.topic, err, text, c.allow, c.says)
		}
		if wide := strings.Contains(c.topic, "+/+/") || strings.Contains(c.topic, "$SYS/#"); !wide && c.says != "" && c.topic != all && ClientsOf(c.topic) == "" {
			t.Errorf("%s is of no domain", c.topic)
		}
	}
}
