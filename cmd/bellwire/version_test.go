package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

// A binary tells what can be known of where it is from, and says so where nothing
// is.
func TestRevision(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: modified}}
	}
	for _, c := range []struct {
		name string
		info debug.BuildInfo
		want string
	}{
		{"of a commit", debug.BuildInfo{Settings: vcs("false")}, "0123456789ab"},
		{"with changes", debug.BuildInfo{Main: debug.Module{Version: "v0.0.0-20261126+dirty"}, Settings: vcs("true")}, "0123456789ab+"},
		{"go run", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, noRevision},
		{"of a test", debug.BuildInfo{}, noRevision},
		{"of a module's version", debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}}, "v0.1.0"},
	} {
		if got := revisionOf(&c.info); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := bellwire(t, "", "version"); got.code != 0 || !strings.Contains(got.stdout, revision()) {
		t.Errorf("version: %+v, want %q in it", got, revision())
	}
}
