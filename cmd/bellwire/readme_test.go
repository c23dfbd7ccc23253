package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/acl"
)

// README is true: the policies in it pass, with its users filled in as well,
// and the command lines in it are understood.
func TestReadme(t *testing.T) {
	readme := readFile(t, "../../README.md")
	policy := block(t, readme, "yaml")
	if got := bellwire(t, "", "acl", "test", writeFile(t, "policy.yaml", policy)); got.code != 0 {
		t.Errorf("the policy: %+v", got)
	}
	hash := strings.TrimSpace(bellwire(t, "secret\n", "user", "hash").stdout)
	users := regexp.MustCompile(`(?m)^#`).ReplaceAllString(policy, "")
	for placeholder, value := range map[string]string{`password_hash: "…"`: fmt.Sprintf("password_hash: %q", hash), `token_sha256: "…"`: fmt.Sprintf("token_sha256: %q", acl.HashToken([]byte("t")))} {
		if !strings.Contains(users, placeholder) {
			t.Errorf("no %q to fill in", placeholder)
		}
		users = strings.Replace(users, placeholder, value, 1)
	}
	if got := bellwire(t, "", "acl", "test", writeFile(t, "users.yaml", users)); got.code != 0 {
		t.Errorf("the policy with its users filled in: %+v\n%s", got, users)
	}
	ana := writeFile(t, "ana.json", block(t, readme, "json"))
	if got := bellwire(t, "", "policy", "preview", "presence", ana, "--as", "ana@example.com", "--watcher", "bo@example.com"); got.code != 0 || !strings.Contains(got.stdout, "colleagues") {
		t.Errorf("the owner's policy: %+v", got)
	}

	lines := regexp.MustCompile(`(?m)^    \$ (?:go run \./cmd/)?bellwire (.*)`).FindAllStringSubmatch(readme, -1)
	if len(lines) < 12 {
		t.Errorf("%d command lines found", len(lines))
	}
	for _, line := range lines {
		if err := understood(shellWords(line[1])); err != nil {
			t.Errorf("bellwire %s: %v", line[1], err)
		}
	}
}

// understood says what is wrong with a command line, without carrying it out.
func understood(args []string) error {
	root := rootCommand()
	cmd, rest, err := root.Find(mosquittoArgs(root, args))
	if err != nil {
		return err
	}
	group := cmd.HasSubCommands() && cmd.Name() != "backup" // which is a verb and has one more
	if !cmd.Runnable() || group {
		return fmt.Errorf("%s is no verb", cmd.CommandPath())
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// block returns the first block of text in a language.
func block(t *testing.T, page, language string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "```"+language+"\n")
	text, _, ended := strings.Cut(rest, "```")
	if !ok || !ended {
		t.Fatalf("no block of %s", language)
	}
	return text
}
