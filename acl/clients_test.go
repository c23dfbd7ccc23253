package acl

import (
	"errors"
	"slices"
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

// Whatever is asked about what is told of clients is answered as the broker does it: explain,
// its sweep, who may, what somebody may, and a policy's own tests.
func TestClientsAreAnsweredAlike(t *testing.T) {
	p := parsed(t, `
groups: {operators: [op@x.org]}
roles:
  - {id: x, who: [cy@y.org], domain: x.org}
tenants:
  - {domain: z.org}
rules:
  - {id: sys, allow: [subscribe], who: [anyone], topic: ["$SYS/#"]}
  - {id: own, allow: [subscribe], who: [bo@x.org], topic: ["$SYS/bellwire/clients/+/+/address", "$SYS/bellwire/clients/y.org/#"]}
  - {id: by-day, allow: [subscribe], who: [di@y.org], topic: ["w/#"], when: {weekly: ["Mon-Fri 08:00-17:00"], tz: UTC}}
tests:
  - {as: bo@x.org, allow: ["subscribe $SYS/#", "subscribe $SYS/bellwire/clients/y.org/c/connected"], deny: ["subscribe $SYS/bellwire/clients/x.org/#", "subscribe $SYS/bellwire/clients/y.org/c/address"]}
  - {as: cy@y.org, allow: ["subscribe $SYS/bellwire/clients/x.org/c/address"], deny: ["subscribe $SYS/bellwire/clients/y.org/#"]}
  - {at: 2026-03-09T12:00:00Z, who_can: "subscribe $SYS/bellwire/clients/x.org/+/connected", exactly: [op@x.org, cy@y.org]}
  - {at: 2026-03-09T12:00:00Z, who_can: "subscribe $SYS/bellwire/clients/y.org/+/connected", exactly: [anonymous, "*@*", "!cy@y.org"]}
  - {at: 2026-03-09T12:00:00Z, can_what: bo@x.org, exactly: ["subscribe $SYS/#"]}
  - {as: bo@x.org, allow: ["subscribe $SYS/bellwire/clients/z.org/#"], name: fails}
`)
	report := p.Test()
	for _, r := range report.Results {
		if want := r.Name == "fails"; len(r.Failed) > 0 != want {
			t.Errorf("%s: %v", r.Name, r.Failed)
		}
	}
	if text := report.String(); !strings.Contains(text, "of clients of z.org, which is a tenant") {
		t.Errorf("the failed test does not say why:\n%s", text)
	}
	at := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	for _, principal := range []string{"", "op@x.org", "cy@y.org", "bo@x.org", "di@y.org"} {
		for _, domain := range []string{"x.org", "y.org", "z.org", "none.org", noDomain} {
			for _, what := range []string{"connected", "disconnected", "address"} {
				who, topic := Who{Principal: principal}, clientsTree+domain+"/c/"+what
				want := p.Decide(who, Subscribe, topic, at).Allow && p.TellsClient(principal, domain, what == "address")
				e, err := p.Explain(who, Subscribe, topic, at)
				edges, err2 := p.Sweep(who, Subscribe, topic, at, at.AddDate(0, 1, 0))
				may, err3 := p.WhoCan(Subscribe, topic, at)
				if err := errors.Join(err, err2, err3); err != nil {
					t.Fatal(err)
				}
				listed := slices.Contains(may, who.String()) || principal != "" && slices.Contains(may, signedIn) && !slices.Contains(may, "!"+principal)
				if e.Allow != want || len(edges) != 1 || edges[0].Allow != want || listed != want {
					t.Errorf("%s, %s: explained %v, swept %v, among %v: %v; want %v", who, topic, e.Allow, edges, may, listed, want)
				}
			}
		}
	}
}

// A window that is closed to what somebody would be told nothing of opens nothing to them, and
// a rule about nothing else gives them nothing.
func TestClientsOfOthersNeverOpen(t *testing.T) {
	p := parsed(t, `
roles:
  - {id: x, who: [cy@y.org], domain: x.org}
rules:
  - {id: by-day, allow: [subscribe], who: [anyone], topic: ["$SYS/#"], when: {weekly: ["Mon-Fri 08:00-17:00"], tz: UTC}}
  - {id: addresses, allow: [subscribe], who: [anyone], topic: ["$SYS/bellwire/clients/+/+/address"]}
`)
	night := time.Date(2026, 3, 9, 4, 0, 0, 0, time.UTC)
	for who, edges := range map[string]int{"cy@y.org": 11, "bo@x.org": 1} {
		e, err := p.Explain(Who{Principal: who}, Subscribe, clientsTree+"x.org/#", night)
		all, err2 := p.Sweep(Who{Principal: who}, Subscribe, clientsTree+"x.org/#", night, night.AddDate(0, 0, 7))
		if err != nil || err2 != nil || e.Allow || e.Until.IsZero() != (edges == 1) || len(all) != edges {
			t.Errorf("%s: %v, swept %v, want %d", who, e.Text(), all, edges)
		}
		if can := p.CanWhat(Who{Principal: who}, night); len(can) > 0 != (edges > 1) {
			t.Errorf("%s may %v", who, can)
		}
	}
}
