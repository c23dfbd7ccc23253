package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/yamltree"
)

// What a configuration file says otherwise than at the start, and SIGHUP does not put in force, is named; where
// it stands, and in what order, is nothing.
func TestKeysThatNeedAStart(t *testing.T) {
	tree := func(text string) *yamltree.Node {
		_, top := yamltree.Read("bellwire.yaml", []byte(text), yamltree.Form{})
		return top
	}
	const before = "domain: example.com\nlimits: {connections: 5}\nhttp: {addr: \":1\", tls: {cert: a, key: b}}\nlisteners:\n  - {name: a, mqtts: \":2\", origins: [x, y]}\nbridges: []\n"
	for _, c := range []struct{ replace, by, want string }{
		{"", "", ""},
		{"domain: example.com\n", "# moved\n\ndomain: example.com\n", ""},
		{"{name: a, mqtts: \":2\", origins: [x, y]}", "{mqtts: \":2\", name: a, origins: [x, y]}", ""},
		{"connections: 5", "connections: 6", ""},
		{"bridges: []", "bridges: [{name: a}]", ""},
		{"{connections: 5}", "limits.yaml", "limits"},
		{"limits: {connections: 5}\n", "", ""},
		{"domain: example.com", "domain: example.net", "domain"},
		{"domain: example.com\n", "", "domain"},
		{"key: b", "key: c", "http"},
		{"[x, y]", "[y, x]", "listeners"},
		{"bridges: []", "pprof: true", "pprof"},
		{before, "", "domain http listeners"},
	} {
		got := laterKeys(tree(before), tree(strings.Replace(before, c.replace, c.by, 1)))
		if strings.Join(got, " ") != c.want || !slices.IsSorted(got) {
			t.Errorf("%q in place of %q: %v, want %s", c.by, c.replace, got, c.want)
		}
	}
	if got := laterKeys(tree("limits: a.yaml\n"), tree("limits: b.yaml\n")); len(got) != 1 {
		t.Errorf("another limits file: %v", got)
	}
}
