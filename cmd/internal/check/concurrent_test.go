package main

import (
	"slices"
	"testing"
)

// A package is under the race detector if any of its files, a test's too, starts a
// goroutine or locks.
func TestConcurrent(t *testing.T) {
	root := writeTree(t, map[string]string{
		"starts/a.go":        "package starts\nfunc f() { go f() }\n",
		"locks/a.go":         "package locks\nimport \"sync\"\nvar mu sync.Mutex\n",
		"counts/a.go":        "package counts\nimport n \"sync/atomic\"\nvar i n.Int64\n",
		"tests/a.go":         "package tests\n",
		"tests/a_test.go":    "package tests\nfunc g() { func() { go g() }() }\n",
		"bubble/a_test.go":   "package bubble\nimport _ \"" + module + "/internal/bubble\"\n",
		"alone/a.go":         "package alone\n// go f() here, and \"sync\" there, are words\nvar s = \"go f()\"\n",
		"alone/below/b.go":   "package below\nfunc f() { go f() }\n",
		"alone/other/c.go":   "package other\nimport \"strings\"\nvar _ = strings.Cut\n",
		"alone/a_test.go":    "package alone\n",
		"alone/testdata/d.s": "go",
	})
	var all []string
	for _, name := range []string{"starts", "locks", "counts", "tests", "bubble", "alone", "alone/below", "alone/other"} {
		all = append(all, module+"/"+name)
	}
	got, err := concurrent(root, all)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, name := range []string{"starts", "locks", "counts", "tests", "bubble", "alone/below"} {
		want = append(want, module+"/"+name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Of this tree it finds what is known to have goroutines, and not what has none.
func TestConcurrentHere(t *testing.T) {
	got, err := concurrent("../../..", []string{module + "/broker", module + "/cluster", module + "/profiles/xmltree", module + "/cmd/bellwire"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{module + "/broker", module + "/cluster", module + "/cmd/bellwire"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
