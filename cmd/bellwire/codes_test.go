package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The registry is sorted, without repeats, and each entry tells its reader
// what happened, what to do, and more.
func TestCodesGiveAdvice(t *testing.T) {
	if !slices.IsSortedFunc(codes, func(a, b codeEntry) int { return int(a.code - b.code) }) {
		t.Error("codes is not sorted")
	}
	seen := map[code]bool{}
	for _, e := range codes {
		if seen[e.code] {
			t.Errorf("%s stands twice in the registry", e.code)
		}
		seen[e.code] = true
		if e.code < 1000 || e.code > 9999 {
			t.Errorf("%s: want four digits, the first not 0", e.code)
		}
		if e.exit == 0 {
			t.Errorf("%s: an error cannot exit with 0", e.code)
		}
		if len(e.title) < 10 || len(e.todo) < 10 || len(e.more) < 60 {
			t.Errorf("%s: title, advice and page have to say something", e.code)
		}
		if strings.HasSuffix(e.todo, ".") || strings.Contains(e.todo, "\n") {
			t.Errorf("%s: the advice is one line without a final stop: %q", e.code, e.todo)
		}
	}
}

// Every code in the registry is used by shipped code, and every BW-NNNN that
// any room's code prints is in the registry.
func TestCodesAreUsedAndKnown(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^\t(bw[A-Z]\w*)\s+code = (\d{4})`)
	printed := regexp.MustCompile(`\bBW-(\d{4})\b`)
	named := regexp.MustCompile(`\bbw[A-Z]\w*`)
	known, used, names := map[string]bool{}, map[string]bool{}, map[string]string{}
	registry := readFile(t, "codes.go")
	for _, m := range declared.FindAllStringSubmatch(registry, -1) {
		names[m[1]] = m[2]
	}
	for _, e := range codes {
		known[strings.TrimPrefix(e.code.String(), "BW-")] = true
	}
	for name, number := range names {
		if !known[number] {
			t.Errorf("%s has no entry in the registry", name)
		}
	}
	if len(names) != len(codes) {
		t.Errorf("%d constants for %d entries", len(names), len(codes))
	}
	eachShippedFile(t, "../..", func(path, text string) {
		if strings.HasSuffix(path, "cmd/bellwire/codes.go") {
			return
		}
		for _, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "//") {
				continue
			}
			for _, m := range printed.FindAllStringSubmatch(line, -1) {
				used[m[1]] = true
				if !known[m[1]] {
					t.Errorf("%s prints BW-%s, which the registry does not know", path, m[1])
				}
			}
			for _, name := range named.FindAllString(line, -1) {
				used[names[name]] = true
			}
		}
	})
	for number := range known {
		if !used[number] {
			t.Errorf("BW-%s is in the registry and nothing uses it", number)
		}
	}
}

func eachShippedFile(t *testing.T, root string, visit func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			visit(filepath.ToSlash(path), readFile(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
