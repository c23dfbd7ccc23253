package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/acl"
)

// runWith runs one command line and returns its exit code and output.
func runWith(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// What is wrong decides the exit code: 2 for a faulty file or question, 9 for
// a failed test; that something is denied is an answer like any other.
func TestACLExitCodes(t *testing.T) {
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	const rule = "rules:\n  - {id: a, allow: [publish], who: [anyone], topic: [x]}\n"
	passes := write(rule + "tests:\n  - {as: anonymous, allow: [publish x]}\n")
	fails := write(rule + "tests:\n  - {as: anonymous, deny: [publish x]}\n")
	faulty := write(rule + "rule: []\n")
	huge := write("#" + strings.Repeat(" ", acl.MaxFile))
	for _, c := range []struct {
		want int
		args []string
	}{
		{0, []string{"acl", "test", passes}},
		{9, []string{"acl", "test", fails}},
		{2, []string{"acl", "test", faulty}},
		{2, []string{"acl", "test", huge}},
		{2, []string{"acl", "test", passes + "x"}},
		{2, []string{"acl", "test"}},
		{0, []string{"acl", "explain", "--policy", passes, "--as", "a@b.example", "publish", "x"}},
		{0, []string{"acl", "explain", "--policy", passes, "--as", "a@b.example", "subscribe", "x"}},
		{2, []string{"acl", "explain", "--policy", faulty, "--as", "a@b.example", "subscribe", "x"}},
		{2, []string{"acl", "explain", "--policy", passes, "--as", "a@b.example", "--at", "noon", "subscribe", "x"}},
		{2, []string{"acl", "explain", "--policy", passes, "--as", "a@b.example", "-o", "yaml", "subscribe", "x"}},
	} {
		if code, _, stderr := runWith(t, "", c.args...); code != c.want {
			t.Errorf("%v: exit code %d, want %d\n%s", c.args, code, c.want, stderr)
		}
	}
}

// What `user hash` and `user token` print lets in who holds the secret.
func TestUserCredentialsLetIn(t *testing.T) {
	_, password, _ := runWith(t, "hunter2\n", "user", "hash")
	_, made, _ := runWith(t, "", "user", "token")
	fields := strings.Fields(made) // token T token_sha256 H
	policy, err := acl.Parse("policy.yaml", []byte("users:\n"+
		"  ana@example.com: {password_hash: \""+strings.TrimSpace(password)+"\"}\n"+
		"  thermo@example.com: {token_sha256: "+fields[3]+"}\n"), "")
	if err != nil {
		t.Fatal(err)
	}
	gate := acl.NewGate(1, 1)
	for _, c := range []struct {
		user, password string
		ok             bool
	}{
		{"ana@example.com", "hunter2", true},
		{"ana@example.com", "hunter2\n", false},
		{"thermo@example.com", fields[1], true},
		{"thermo@example.com", "hunter2", false},
	} {
		who, err := policy.Authenticate(context.Background(), gate, c.user, []byte(c.password))
		if (err == nil) != c.ok || c.ok && who != c.user {
			t.Errorf("%s with %q: %q, %v", c.user, c.password, who, err)
		}
	}
}
