package acl

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const tenantPolicy = `groups: {operators: [root@example.org]}
rules:
  - {id: all, allow: [publish], who: ["*@*"], topic: ["shared/#"], when: {weekly: ["Mon-Fri 08:00-17:00"], tz: UTC}}
  - {id: no-siren, deny: [publish, subscribe], who: [anyone], topic: ["plant/7/siren"]}
roles:
  - {id: com, who: ["*@example.com"], domain: example.com}
  - {id: net, who: [bob@example.com], domain: example.net}
tenants:
  - {domain: example.com, topics: ["plant/7/#", "own/+"], quotas: {sessions: 3}}
`

func parseWithOwners(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	return p.WithOwners("location", "presence")
}

// Whatever a domain says of its own, nothing changes for anybody else on topics that are
// not its own, nor for its people there; what it allows, the operator's denials cut; and
// the order of parts makes no difference.
func TestPartReachesNowhereElse(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	p := parseWithOwners(t, tenantPolicy)
	words := []string{
		"plant/7/#", "plant/7/siren", "plant/+/x", "plant/8/x", "own/a", "own/a/b", "#", "shared/x", "presence/example.com/#", "location/example.com/bob",
		"location/example.net/dee", "location/#", "{local}/7/x", "plant/{local}/x",
	}
	names := []string{"plant/7/siren", "plant/7/x", "plant/8/x", "own/a", "own/a/b", "shared/x", "presence/example.com/bob", "location/example.com/bob", "location/example.net/dee", "bob/7/x"}
	whose := []string{"bob@example.com", "cy@example.com", "dee@example.net", "root@example.org", ""}
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	opened, cut := 0, 0
	for range 2_000 {
		text := "rules:\n"
		for i := range 3 {
			effect := []string{"allow", "deny"}[rng.IntN(2)]
			text += fmt.Sprintf("  - {id: r%d, %s: [publish, subscribe], who: [%s], topic: [%q, %q]}\n", i, effect,
				[]string{"bob", `"*@example.com"`}[rng.IntN(2)], words[rng.IntN(len(words))], words[rng.IntN(len(words))])
		}
		text += fmt.Sprintf("limits:\n  - {id: l, topic: [%q], only: {who: [bob]}}\n", words[rng.IntN(len(words))])
		part, err := ParsePart("part.yaml", []byte(text), "example.com", nil)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		other, err := ParsePart("part.yaml", []byte("rules: []"), "example.net", nil) // no tenant
		if err != nil {
			t.Fatal(err)
		}
		with, turned := p.With([]*Part{part, other}), p.With([]*Part{other, part})
		for range 20 {
			who, name := Who{Principal: whose[rng.IntN(len(whose))]}, names[rng.IntN(len(names))]
			what := Action(rng.IntN(2))
			own := strings.HasPrefix(name, "plant/7/") || name == "own/a"
			owned := own || strings.Contains(name, "/example.com/")
			was, is := p.Decide(who, what, name, at), with.Decide(who, what, name, at)
			if again := turned.Decide(who, what, name, at); again != is {
				t.Fatalf("seed %d: the order of parts counts: %+v, %+v\n%s", seed, is, again, text)
			}
			left, leaves := p.Ceiling(who, what, name, at).Allow, with.Ceiling(who, what, name, at).Allow
			switch {
			case !owned && was != is, !owned && left != leaves:
				t.Fatalf("seed %d: %v %v %s was %+v, is %+v, though it is not of the domain\n%s", seed, who, what, name, was, is, text)
			case is.Allow && !was.Allow && (!own || who.domain() != "example.com" || name == "plant/7/siren"):
				t.Fatalf("seed %d: %v may %v %s by\n%s", seed, who, what, name, text)
			case leaves && !left:
				t.Fatalf("seed %d: more is left to owners by\n%s", seed, text)
			}
			if is.Allow && !was.Allow {
				opened++
			}
			if left && !leaves {
				cut++
			}
		}
	}
	if opened == 0 || cut == 0 {
		t.Errorf("seed %d: parts have opened %d answers and cut %d", seed, opened, cut)
	}
}

// A part's users can sign in, but not in the place of the operator's; whoever the operator's
// file makes an operator or another domain's administrator is neither as a user of a part.
func TestPartUsersAreNobodyElse(t *testing.T) {
	token := func(s string) string { return strings.Repeat(s, 64) }
	p := parseWithOwners(t, "users:\n  ana@example.com: {token_sha256: "+token("0")+"}\n"+tenantPolicy)
	part, err := ParsePart("part.yaml", []byte("users:\n  ana: {token_sha256: "+token("1")+"}\n  bob: {token_sha256: "+token("2")+"}\n"), "example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	with := p.With([]*Part{part})
	if !with.Knows("bob@example.com") || with.UserOf("bob@example.com") != "example.com" || with.UserOf("ana@example.com") != "" {
		t.Errorf("bob is of %q, ana of %q", with.UserOf("bob@example.com"), with.UserOf("ana@example.com"))
	}
	if with.Credential("ana@example.com", "") != p.Credential("ana@example.com", "") {
		t.Error("a part says who proves to be the operator's user")
	}
	if got := p.Idle(part); !slices.Equal(got, []string{"user ana@example.com"}) {
		t.Errorf("of no effect: %v", got)
	}
	_, err = ParsePart("part.yaml", []byte("users:\n  ana: {token_sha256: "+token("1")+"}\n"), "example.com", p)
	if err == nil || !strings.Contains(err.Error(), "part.yaml:2") || !strings.Contains(err.Error(), "ana@example.com") {
		t.Errorf("a part that adds the operator's user: %v", err)
	}
	if got := with.Administers("bob@example.com"); !slices.Equal(got, []string{"example.com"}) {
		t.Errorf("bob, whom his domain's part has, administers %v", got)
	}
	if p.Knows("bob@example.com") {
		t.Error("the operator's policy itself has changed")
	}
}

// What the operator takes away from a tenant its rules are about in vain, and that is told.
func TestPartIsIdle(t *testing.T) {
	part, err := ParsePart("part.yaml", []byte(`rules:
  - {id: seven, allow: [subscribe], who: [bob], topic: ["plant/7/x"]}
  - {id: both, allow: [subscribe], who: [bob], topic: ["plant/7/y", "other"]}
`), "example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := parseWithOwners(t, tenantPolicy)
	if got := p.Idle(part); !slices.Equal(got, []string{"both"}) {
		t.Errorf("of no effect: %v", got)
	}
	if got := parseWithOwners(t, "rules: []\n").Idle(part); len(got) != 2 {
		t.Errorf("of no tenant: %v", got)
	}
}

// A comparison of parts is about the domain's own people and entries.
func TestComparePart(t *testing.T) {
	p := parseWithOwners(t, tenantPolicy)
	part := func(text string) *Part {
		t.Helper()
		made, err := ParsePart("part.yaml", []byte(text), "example.com", p)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	one := part("rules:\n  - {id: r, allow: [subscribe], who: [bob], topic: [plant/7/x]}\n")
	two := part("rules:\n  - {id: r, allow: [subscribe], who: [\"*@example.com\"], topic: [plant/7/x]}\n")
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	d := ComparePart(p.With([]*Part{one}), p.With([]*Part{two}), one, two, "example.com", at)
	if len(d.Entries) != 1 || d.Entries[0].Name != "r" || len(d.Decisions) != 1 || d.Decisions[0].Who != "*@example.com" || !d.Decisions[0].Is {
		t.Errorf("%+v", d)
	}
	if d := ComparePart(p, p.With([]*Part{one}), nil, one, "example.com", at); len(d.Entries) != 1 || len(d.Decisions) != 1 || d.Decisions[0].Who != "bob@example.com" {
		t.Errorf("against none: %+v", d)
	}
}

// Whom the operator's file names, and an issuer or certificates may prove, is nobody whom a
// part could give a password: he would have what is allowed to the name. Who is only named
// is meant for the part's user; who is only proved is one of the domain's people.
func TestPartUsersAreNotTheOperators(t *testing.T) {
	const users = "users:\n  root: {token_sha256: %[1]s}\n  dev: {token_sha256: %[1]s}\n  member: {token_sha256: %[1]s}\n  admin: {token_sha256: %[1]s}\n  rosa: {token_sha256: %[1]s}\n"
	text := fmt.Appendf(nil, users, strings.Repeat("1", 64))
	part, err := ParsePart("part.yaml", text, "example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	const names = `groups: {gang: [member@example.com]}
rules:
  - {id: root-all, allow: [publish, subscribe], who: [root@example.com], topic: ["#"]}
  - {id: members, allow: [subscribe], who: ["group:gang"], topic: ["own/#"]}
roles:
  - {id: com, who: [admin@example.com], domain: example.com}
tenants:
  - {domain: example.com, topics: ["plant/7/#"]}
`
	issuer := func(more string) string {
		if more == "" {
			more = ", domains: [example.com]" // parseWithOwners has no domain of bare names
		}
		return "issuers:\n  - {issuer: i, audience: [a], keys: /k" + more + "}\n"
	}
	all := []string{"admin@example.com", "dev@example.com", "member@example.com", "root@example.com", "rosa@example.com"}
	others := []string{"dev@example.com", "rosa@example.com"}
	for _, c := range []struct {
		name, text string
		want       []string // the part's users
	}{
		{"nothing proves them", names, all},
		{"an issuer may", issuer("") + names, others},
		{"an issuer of others", issuer(", domains: [example.org]") + names, all},
		{"but for one", issuer(", domains: [example.com], except: [root@example.com]") + names, []string{"dev@example.com", "root@example.com", "rosa@example.com"}},
		{"certificates may", "logins:\n  - {listeners: [tls], by: [certificate], domains: [example.com]}\n" + names, others},
		{"passwords only", "logins:\n  - {listeners: [tls], by: [password]}\n" + names, all},
	} {
		p := parseWithOwners(t, c.text)
		with := p.With([]*Part{part})
		if got := with.Known(); !slices.Equal(got, c.want) {
			t.Errorf("%s: the users are %v, want %v", c.name, got, c.want)
		}
		_, err := ParsePart("part.yaml", text, "example.com", p)
		faults := 0
		if err != nil {
			faults = strings.Count(err.Error(), "is the operator's to say")
		}
		if want := len(all) - len(c.want); faults != want {
			t.Errorf("%s: %d faults, want %d: %v", c.name, faults, want, err)
		}
	}
}
