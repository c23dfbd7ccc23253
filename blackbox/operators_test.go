package blackbox

import (
	"strings"
	"testing"
)

// Whoever gives credentials that are not good is told so by every verb that asks a
// node, also those that would have answered without any, and on the node's machine:
// with exit code 4, and nothing else. Nothing is changed.
//
// Item 62.
func TestVerbsRefuseBadCredentials(t *testing.T) {
	s := serve(t, "--policy", writeFile(t, "policy.yaml", trioPolicy))
	verbs := [][]string{
		{"cluster", "status"},
		{"cluster", "status", "-o", "json"},
		{"cluster", "verify"},
		{"cluster", "join", "n2"},
		{"cluster", "join", "n2", "--wait", "1s"},
		{"cluster", "remove", "n1", "--yes"},
		{"cluster", "remove", "n1", "--dry-run"},
		{"cluster", "promote", "n1"},
		{"cluster", "transfer-leader"},
		{"node", "drain", "n1", "--force"},
		{"node", "resume", "n1"},
		{"acl", "history"},
		{"audit"},
	}
	ask := func(verb []string, creds ...string) (out, errs string, code int) {
		return run(t, append(append(append([]string{}, verb...), "--server", s.ready.HTTP), creds...)...)
	}
	wrong := [][]string{
		{"-u", "ana", "-P", "guess"}, {"-P", "sesame"}, {"-u", "ana"}, {"-u", "zoe", "-P", "sesame"}, {"-u", "ana@example.net", "-P", "sesame"},
	}
	for i, verb := range verbs {
		for _, creds := range wrong[:len(wrong)-i%len(wrong)] { // each meets the first of them, some all
			out, errs, code := ask(verb, creds...)
			if code != 4 || out != "" || !strings.Contains(errs, "bad user name or password") || !strings.Contains(errs, "BW-4002") {
				t.Errorf("%v %v: exit %d, %q and %q, want 4 and BW-4002", verb, creds, code, out, errs)
			}
		}
	}
	if out, errs, code := ask(verbs[0], "-u", "ana", "-P", "sesame"); code != 0 || !strings.Contains(out, "leader") || strings.Contains(out, "drain") {
		t.Errorf("status with good credentials: exit %d, %s%s", code, out, errs)
	}
	if _, errs, code := ask(verbs[0]); code != 0 {
		t.Errorf("status without credentials: exit %d, %s", code, errs)
	}
}
