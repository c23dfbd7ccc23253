package acl

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// An issuer is read with its defaults, and what is missing or cannot be trusted is told.
func TestIssuers(t *testing.T) {
	p := mustParse(t, `
issuers:
  - {issuer: "https://a.example", audience: [bellwire], keys: "https://a.example/jwks.json"}
  - issuer: b
    audience: [y, x, y]
    keys: /etc/bellwire/jwks.json
    algorithms: [RS256]
    principal: email
    domains: [Example.ORG, example.net]
    except: [mallory@example.org]
    leeway: 0s
`)
	if len(p.Issuers()) != 2 {
		t.Fatalf("%+v", p.Issuers())
	}
	a, b := p.Issuers()[0], p.Issuers()[1]
	if a.Claim != "sub" || !slices.Equal(a.Domains, []string{"example.com"}) || !slices.Equal(a.Algorithms, []string{"EdDSA", "ES256", "RS256"}) || a.Leeway != 30*time.Second {
		t.Errorf("by default: %+v", a)
	}
	if b.Claim != "email" || !slices.Equal(b.Audience, []string{"x", "y"}) || b.Leeway != 0 {
		t.Errorf("%+v", b)
	}
	for principal, want := range map[string]bool{"ana@example.org": true, "ana@example.net": true, "mallory@example.org": false, "mallory@example.net": true, "ana@example.com": false, "ana": false} {
		if got := b.Proves(principal); got != want {
			t.Errorf("b proves %s: %v", principal, got)
		}
	}
	const fine = `issuer: i, audience: [a], keys: /k`
	for _, c := range []struct{ entry, want string }{
		{"audience: [a], keys: /k", "without issuer"},
		{"issuer: i, audience: [a]", "without keys"},
		{"issuer: i, keys: /k", "without audience"},
		{`issuer: "", audience: [a], keys: /k`, "issuer is empty"},
		{`issuer: i, audience: [""], keys: /k`, "empty value"},
		{`issuer: i, audience: [a], keys: "http://login.example.com/k"`, "could be anybody's"},
		{`issuer: i, audience: [a], keys: "ftp://login.example.com/k"`, "could be anybody's"},
		{`issuer: i, audience: [a], keys: "https://u:p@login.example.com/k"`, "neither a URL"},
		{`issuer: i, audience: [a], keys: jwks.json`, "neither a URL"},
		{fine + ", algorithms: [none]", "none is no signature"},
		{fine + ", algorithms: [HS256]", "shared secret"},
		{fine + ", algorithms: [RS1]", "no algorithm"},
		{fine + `, domains: ["a b"]`, "domain"},
		{fine + `, except: ["a b"]`, "a b"},
		{fine + ", leeway: 1h", "want 0s to 5m0s"},
		{fine + ", leeway: 30", "want 0s to 5m0s"},
		{fine + ", secret: x", "secret"},
		{fine + "}\n  - {" + fine, "a second issuer"},
	} {
		_, err := Parse("policy.yaml", []byte("issuers:\n  - {"+c.entry+"}\n"), "example.com")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v does not say %q", c.entry, err, c.want)
		}
	}
	if _, err := Parse("policy.yaml", []byte("issuers:\n  - {"+fine+"}\n"), ""); err == nil || !strings.Contains(err.Error(), "domains") {
		t.Errorf("without any domain: %v", err)
	}
	for _, keys := range []string{"http://127.0.0.1:8080/k", "http://[::1]/k", "http://localhost/k", "https://login.example.com/k?x=1"} {
		mustParse(t, fmt.Sprintf("issuers:\n  - {issuer: i, audience: [a], keys: %q}\n", keys))
	}
}

// Who is proved by tokens has to prove it again when the issuer becomes another, or may
// no longer prove him; not when that concerns others.
func TestIssuedCredential(t *testing.T) {
	entry := func(more string) *Policy {
		return mustParse(t, "issuers:\n  - {issuer: i, audience: [a], keys: /k"+more+"}\n")
	}
	before := entry("")
	const ana = "ana@example.com"
	if before.Credential(ana, "") == "" || before.Credential("ana@example.org", "") != "" {
		t.Errorf("ana has %q, who is of another domain %q", before.Credential(ana, ""), before.Credential("ana@example.org", ""))
	}
	for more, same := range map[string]bool{
		"": true, ", except: [bob@example.com]": true, ", leeway: 1m": true, ", domains: [example.com, example.org]": true,
		", except: [ana@example.com]": false, ", domains: [example.org]": false, ", algorithms: [RS256]": false, ", principal: email": false,
	} {
		if got := entry(more).Credential(ana, "") == before.Credential(ana, ""); got != same {
			t.Errorf("%q: the same credential %v, want %v", more, got, same)
		}
	}
	if d := Compare(before, entry(", except: [ana@example.com]"), time.Unix(0, 0)); len(d.Entries) != 1 || d.Entries[0].What != "issuer" {
		t.Errorf("compared: %+v", d.Entries)
	}
}

// What somebody proves by one way is asked for again when that changes, and not when what
// else he could have shown does.
func TestCredentialByWay(t *testing.T) {
	policy := func(password, scram, issuer bool) *Policy {
		text := "users:\n  bob@example.com: {token_sha256: " + strings.Repeat("2", 64) + "}\n  ana@example.com:\n"
		if password {
			text += "    password_hash: \"" + cheap("hunter2") + "\"\n"
		}
		if scram {
			text += "    scram_sha256: \"" + verifierOf("saltsaltsaltsalt", 4096).String() + "\"\n"
		}
		if issuer {
			text += "issuers:\n  - {issuer: i, audience: [a], keys: /k}\n"
		}
		return mustParse(t, text)
	}
	before := policy(true, true, true)
	for way, changed := range map[string][3]bool{ // when the password goes, the verifier, the issuer
		ByPassword: {true, false, false}, ByScram: {false, true, false}, BySigned: {false, false, true}, ByToken: {}, ByCertificate: {}, "": {true, true, false},
	} {
		for i, is := range []*Policy{policy(false, true, true), policy(true, false, true), policy(true, true, false)} {
			if got := before.Credential("ana@example.com", way) != is.Credential("ana@example.com", way); got != changed[i] {
				t.Errorf("by %q, change %d: another credential %v, want %v", way, i, got, changed[i])
			}
		}
	}
	if before.Credential("bob@example.com", ByToken) == "" || before.Credential("bob@example.com", ByPassword) != "" || before.Credential("cy@example.com", ByPassword) != "" {
		t.Error("a token proves bob, and nothing else does; no password proves cy")
	}
}
