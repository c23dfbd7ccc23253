package main

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bellwire/bellwire/yamltree"
)

// The page of the configuration file has a file with every key there is, and no fault.
func TestConfigurationPage(t *testing.T) {
	page := samples(readFile(t, "../../docs/configuration.md"))
	if len(page) != 1 {
		t.Fatalf("the page has %d files, want one", len(page))
	}
	f := serveFlags{config: writeFile(t, "bellwire.yaml", page[0].text)}
	told := faultsOf(f.readConfig(func(string) bool { return false }))
	for _, w := range told {
		if !strings.Contains(w, "no such file") { // there is no such bridge
			t.Error(w)
		}
	}
	if len(told) != 2 {
		t.Errorf("%d faults, want two of files that are not there", len(told))
	}
	_, top := yamltree.Read("page", []byte(page[0].text), yamltree.Form{})
	has := map[string][]string{}
	var collect func(of string, n *yamltree.Node)
	collect = func(of string, n *yamltree.Node) {
		for _, k := range n.Keys {
			has[of] = append(has[of], k.Name)
			collect(k.Name, k.Value)
		}
		for _, v := range n.List {
			collect(of, v)
		}
	}
	collect("", top)
	// What the reader would take is told by its fault about a key that it does not know.
	for where, file := range map[string]string{
		"": "x: 1\n", "listeners": "listeners: [{mqtt: \":1\", x: 1}]\n", "tls": "listeners: [{mqtts: \":1\", tls: {x: 1}}]\n", "http": "http: {addr: \":1\", x: 1}\n",
		"cluster": "cluster: {listen: \":1\", x: 1}\n", "bridges": "bridges: [{x: 1}]\n", "topics": "bridges: [{name: b, address: \"a:1\", topics: [{filter: x, direction: in, x: 1}]}]\n",
	} {
		told := strings.Join(faultsOf((&serveFlags{config: writeFile(t, "bellwire.yaml", file)}).readConfig(func(string) bool { return false })), " ")
		m := regexp.MustCompile(`its keys are (.*)`).FindStringSubmatch(told)
		if m == nil {
			t.Fatalf("%s: no keys in %q", where, told)
		}
		for key := range strings.SplitSeq(m[1], ", ") {
			if !slices.Contains(has[where], key) {
				t.Errorf("%s: %s is left out", where, key)
			}
		}
	}
}

// faultsOf returns what is wrong with a file, and what to do.
func faultsOf(err error) (all []string) {
	if bad, ok := errors.AsType[*yamltree.FileError](err); ok {
		for _, f := range bad.Faults {
			all = append(all, f.What+" "+f.Hint)
		}
	}
	return all
}
