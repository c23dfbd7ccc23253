package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/bellwire/bellwire/acl"
	"github.com/bellwire/bellwire/authn"
)

// users runs a verb about users of a file.
func userVerb(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"user"}, args...), strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), code
}

const anyToken = `"d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272"`

// Who changes the file at the same time as others changes what those have made of it.
func TestUsersAreEditedInTurn(t *testing.T) {
	path := writeFile(t, "policy.yaml", "users:\n  gone@example.com: {token_sha256: "+anyToken+"}\nrules:\n  - {id: all, allow: [subscribe], who: [anyone], topic: [\"#\"]}\n")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			args := []string{"add", fmt.Sprintf("u%d@example.com", i), "--token", "--policy", path}
			if i == 7 {
				args = []string{"rm", "gone@example.com", "--policy", path}
			}
			if _, why, code := userVerb(t, "", args...); code != 0 {
				t.Errorf("%v: %d %s", args, code, why)
			}
		})
	}
	wg.Wait()
	text := readFile(t, path)
	if got := strings.Count(text, "token_sha256"); got != 7 || strings.Contains(text, "gone@") {
		t.Errorf("the file is\n%s", text)
	}
}

// Who adds a user to a file that everybody may read is told so; the mode stays.
func TestUserAddTellsWhoMayRead(t *testing.T) {
	path := writeFile(t, "policy.yaml", "rules: []\n")
	for mode, told := range map[os.FileMode]bool{0o644: true, 0o640: false, 0o600: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, why, code := userVerb(t, "secret\n", "add", "cy@example.com", "--replace", "--policy", path)
		if info, err := os.Stat(path); code != 0 || strings.Contains(why, "chmod o-r") != told || err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %o: %d %s", mode, code, why)
		}
	}
}

// Users come and go, and whatever else stands in the file stays to the byte.
func TestUserAddAndRemoveKeepTheFile(t *testing.T) {
	const rest = "# who may what\nrules:   # all of it\n  - {id: all, allow: [subscribe], who: [anyone], topic: [\"#\"]}\n"
	const one, two = "  ana@example.com: {token_sha256: " + anyToken + "}  # the boss\n", "\n  # in the hall\n  Bob@example.com:\n    token_sha256: " + anyToken + "\n"
	for name, text := range map[string]string{
		"none":  rest,
		"one":   "users:\n" + one + rest,
		"two":   "# the users\nusers:\n" + one + two + "\n" + rest,
		"after": rest + "users:\n" + one + strings.TrimSuffix(two, "\n"),
		"wide":  "users:\n      ana@example.com: {token_sha256: " + anyToken + "}\n" + rest,
	} {
		path := writeFile(t, "policy.yaml", text)
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, why, code := userVerb(t, "secret\n", "add", "cy@example.com", "--policy", path); code != 0 {
			t.Errorf("%s: add: %d %s", name, code, why)
			continue
		}
		with := readFile(t, path)
		var added string
		for line := range strings.Lines(with) {
			if strings.Contains(line, "cy@example.com: {password_hash: ") {
				added = line
			}
		}
		stays := strings.Replace(with, added, "", 1)
		if added == "" || stays != text && stays != text+"\n" && stays != text+"users:\n" {
			t.Errorf("%s: the file is\n%s", name, with)
		}
		if out, _, _ := userVerb(t, "", "ls", "--policy", path); !strings.Contains(out, "cy@example.com  password\n") {
			t.Errorf("%s: ls: %s", name, out)
		}
		if _, why, code := userVerb(t, "other\n", "add", "CY@example.com", "--policy", path); code != 2 || !strings.Contains(why, "--replace") {
			t.Errorf("%s: twice: %d %s", name, code, why)
		}
		token, why, code := userVerb(t, "", "add", "cy@example.com", "--policy", path, "--replace", "--token")
		if code != 0 || len(strings.TrimSpace(token)) < 30 || strings.Contains(readFile(t, path), "password_hash") {
			t.Errorf("%s: replace: %d %q %s\n%s", name, code, token, why, readFile(t, path))
		}
		if _, why, code := userVerb(t, "", "rm", "cy@example.com", "--policy", path); code != 0 {
			t.Errorf("%s: rm: %d %s", name, code, why)
		}
		if is := readFile(t, path); is != text && is != text+"\n" {
			t.Errorf("%s: after all the file is\n%q, was\n%q", name, is, text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
}

// What cannot be changed by lines, and what would be no policy, is left alone, and said.
func TestUserRefusals(t *testing.T) {
	const flow = "users: {ana@example.com: {token_sha256: " + anyToken + "}, bob@example.com: {token_sha256: " + anyToken + "}}\n"
	for _, c := range []struct {
		text, stdin string
		args        []string
		says        string
	}{
		{flow, "secret", []string{"add", "cy@example.com"}, "one to a line"},
		{flow, "", []string{"rm", "bob@example.com"}, "one to a line"},
		{"{}\n", "secret", []string{"add", "cy@example.com"}, "one to a line"},
		{"users: {}\n", "secret", []string{"add", "cy@example.com"}, "one to a line"},
		{"rules: []\n", "", []string{"rm", "cy@example.com"}, "no user of"},
		{"rules: []\n", "secret", []string{"add", "cy"}, "has no domain"},
		{"rules: []\n", "", []string{"add", "cy@example.com"}, "empty"},
		{"rules: []\n", "secret", []string{"add", "a b@example.com"}, "is no name"},
		{"ruels: []\n", "secret", []string{"add", "cy@example.com"}, "ruels"},
		{"rules: []\n", "secret", []string{"add", "cy@example.com", "--scram", "--beside"}, "is no user of"},
		{"rules: []\n", "secret", []string{"add", "cy@example.com", "--beside"}, "give --scram"},
		{"rules: []\n", "secret", []string{"add", "cy@example.com", "--token", "--password"}, "--token and --password do not go together\n  leave one"},
		{"rules: []\n", "secret", []string{"add", "cy@example.com", "--scram", "--beside", "--replace"}, "--beside and --replace do not go"},
		{"users:\n  cy@example.com: {token_sha256: " + anyToken + "}\n", "secret", []string{"add", "cy@example.com", "--scram"}, "--scram --beside"},
		{"users:\n  cy@example.com:\n    token_sha256: >-\n      " + strings.Trim(anyToken, `"`) + "\n", "secret", []string{"add", "cy@example.com", "--scram", "--beside"}, "one to a line"},
	} {
		path := writeFile(t, "policy.yaml", c.text)
		_, why, code := userVerb(t, c.stdin, append(c.args, "--policy", path)...)
		if code == 0 || !strings.Contains(why, c.says) || readFile(t, path) != c.text {
			t.Errorf("%q, %v: exit code %d, %s\nthe file is %q", c.text, c.args, code, why, readFile(t, path))
		}
	}
}

// Where there is no file yet it is said how one begins, and that is one.
func TestUserOfNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	for _, args := range [][]string{{"ls"}, {"rm", "cy@example.com"}, {"add", "cy@example.com"}} {
		if _, why, code := userVerb(t, "secret", append(args, "--policy", path)...); code != exitUsage || !strings.Contains(why, "echo 'rules: []' > "+path) {
			t.Errorf("%v: %d %s", args, code, why)
		}
	}
	if err := os.WriteFile(path, []byte("rules: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, why, code := userVerb(t, "secret", "add", "cy@example.com", "--policy", path); code != 0 {
		t.Errorf("%d %s", code, why)
	}
}

// Who is added signs in, and who is removed does not, once the server has read the file.
func TestUserIsGoodForTheServer(t *testing.T) {
	path := writeFile(t, "policy.yaml", "rules: []\n")
	if _, why, code := userVerb(t, "secret", "add", "ana", "--domain", "example.com", "--policy", path); code != 0 {
		t.Fatalf("%d %s", code, why)
	}
	p, err := readPolicy(path, "") // which needs no domain to be read: the file has ana's
	if err != nil {
		t.Fatal(err)
	}
	if !p.Knows("ana@example.com") {
		t.Error("ana is no user")
	}
}

// Both credentials of one secret are made at once, and a verifier is put beside what a user has: comments and
// layout stay, and both ways are good for the server.
func TestUserAddScram(t *testing.T) {
	const rules = "rules: []  # none\n"
	const one, two, wide = "  ana@example.com: {token_sha256: " + anyToken + "}  # the boss\n", "  bob@example.com:\n    # of the hall\n    token_sha256: " + anyToken + "\n", "  \"é@example.com\": { # wide\n    token_sha256: " + anyToken + " }\n"
	path := writeFile(t, "policy.yaml", "users:\n"+one+two+wide+rules)
	for _, name := range []string{"ana@example.com", "bob@example.com", "é@example.com"} {
		before := readFile(t, path)
		if _, why, code := userVerb(t, "secret", "add", name, "--scram", "--beside", "--policy", path); code != 0 {
			t.Fatalf("%s: %d %s", name, code, why)
		}
		after := readFile(t, path)
		at := strings.Index(after, "scram_sha256: ")
		for strings.Contains(before, after[at:at+60]) {
			at += len("scram_sha256: ") + strings.Index(after[at+len("scram_sha256: "):], "scram_sha256: ")
		}
		end := at + strings.Index(after[at:], "\"") + 1
		end += strings.Index(after[end:], "\"") + 1
		if rest := after[:at] + strings.TrimPrefix(after[end:], ", "); rest != before && strings.Replace(rest, "    \n", "", 1) != before {
			t.Errorf("%s: the file is\n%s", name, after)
		}
		if _, why, code := userVerb(t, "secret", "add", name, "--scram", "--beside", "--policy", path); code != 2 || !strings.Contains(why, "has a verifier already") || readFile(t, path) != after {
			t.Errorf("%s twice: %d %s", name, code, why)
		}
	}
	if _, why, code := userVerb(t, "secret", "add", "cy@example.com", "--password", "--scram", "--policy", path); code != 0 {
		t.Fatalf("%d %s", code, why)
	}
	token, why, code := userVerb(t, "", "add", "dev@example.com", "--token", "--scram", "--policy", path)
	if code != 0 {
		t.Fatalf("%d %s", code, why)
	}
	if out, _, _ := userVerb(t, "", "ls", "--policy", path); !strings.Contains(out, "ana@example.com  scram token\nbob@example.com  token scram\n") || !strings.Contains(out, "cy@example.com  password scram\ndev@example.com  token scram\n") {
		t.Errorf("ls: %s", out)
	}
	p, err := readPolicy(path, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{"cy@example.com": "secret", "dev@example.com": strings.TrimSpace(token)} {
		if got, err := p.Authenticate(t.Context(), acl.NewGate(1, 1), name, []byte(secret)); err != nil || got != name {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		if !provesByScram(t, p, name, secret) {
			t.Errorf("%s: its verifier is not of its secret", name)
		}
	}
}

// provesByScram says whether a client that knows secret proves to be name.
func provesByScram(t *testing.T, p *acl.Policy, name, secret string) bool {
	t.Helper()
	client, err := authn.NewScramProof(name, secret)
	if err != nil {
		t.Fatal(err)
	}
	server := authn.NewScram(func(name string) (string, acl.Verifier, bool) { return p.Verifier(name, []byte("key")) })
	var answer []byte
	for done := false; !done && err == nil; {
		var message []byte
		if message, err = client.Step(answer); err == nil {
			answer, done, err = server.Step(message)
		}
	}
	return err == nil && server.Principal() == name
}

// A file that is replaced stays who it was: a server that does not run as root, who adds a user,
// can read it.
func TestReplacedFileKeepsItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("missing: root, to give a file to somebody else")
	}
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := errors.Join(os.WriteFile(path, []byte("rules: []\n"), 0o640), os.Chown(path, 12345, 12346)); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(path, []byte("rules: []\nusers: {}\n")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if of := info.Sys().(*syscall.Stat_t); of.Uid != 12345 || of.Gid != 12346 || info.Mode().Perm() != 0o640 {
		t.Errorf("it is %d's and %d's, mode %v", of.Uid, of.Gid, info.Mode())
	}
}
