package main

import (
	"testing"

	"github.com/bellwire/bellwire/acl"
)

// A policy that was parsed before it was proposed is not parsed again when the log
// has it, and is used for nothing but the same bytes and the same domain.
func TestPolicyIsParsedOnce(t *testing.T) {
	const text = "users:\n  bob: {token_sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b}\n"
	s := &server{}
	p, err := acl.Parse("policy.yaml", []byte(text), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	compile := func(text, domain string) *acl.Policy {
		t.Helper()
		a, err := s.compile([]byte(text), domain)
		if err != nil {
			t.Fatal(err)
		}
		return a.(*authorizer).policy
	}
	s.parsed.keep([]byte(text), "example.com", p)
	if other := compile(text+"\n", "example.com"); other == p {
		t.Error("other bytes are taken for the same")
	}
	if other := compile(text, "example.org"); other == p || !other.Knows("bob@example.org") || other.Knows("bob@example.com") {
		t.Error("another domain is taken for the same")
	}
	compile(text, "example.com")
	if s.parsed.find([]byte(text), "example.com") != nil {
		t.Error("it is kept after it was used")
	}
	s.parsed.keep([]byte(text), "example.com", p)
	if s.parsed.find([]byte(text), "example.com") != p {
		t.Error("it is parsed again")
	}
}
