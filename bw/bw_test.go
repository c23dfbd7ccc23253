package bw

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
	if !slices.IsSortedFunc(registry, func(a, b Entry) int { return int(a.Code - b.Code) }) {
		t.Error("the registry is not sorted")
	}
	seen := map[Code]bool{}
	for _, e := range registry {
		if seen[e.Code] {
			t.Errorf("%s stands twice in the registry", e.Code)
		}
		seen[e.Code] = true
		if e.Code < 1000 || e.Code > 9999 {
			t.Errorf("%s: want four digits, the first not 0", e.Code)
		}
		if len(e.Title) < 10 || len(e.Todo) < 10 || len(e.More) < 60 {
			t.Errorf("%s: title, advice and page have to say something", e.Code)
		}
		if strings.HasSuffix(e.Todo, ".") || strings.Contains(e.Todo, "\n") {
			t.Errorf("%s: the advice is one line without a final stop: %q", e.Code, e.Todo)
		}
	}
}

// Every code in the registry is used by shipped code, and every BW-NNNN that
// any room's code prints is in the registry.
func TestCodesAreUsedAndKnown(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^\t([A-Z]\w*)\s+Code = (\d{4})`)
	printed := regexp.MustCompile(`\bBW-(\d{4})\b`)
	named := regexp.MustCompile(`\bbw\.([A-Z]\w*)`)
	known, used, names := map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, m := range declared.FindAllStringSubmatch(readFile(t, "bw.go"), -1) {
		names[m[1]] = m[2]
	}
	for _, e := range registry {
		known[strings.TrimPrefix(e.Code.String(), "BW-")] = true
	}
	for name, number := range names {
		if !known[number] {
			t.Errorf("%s has no entry in the registry", name)
		}
	}
	if len(names) != len(registry) {
		t.Errorf("%d constants for %d entries", len(names), len(registry))
	}
	for reason := 0x80; reason <= 0xFF; reason++ {
		used[strings.TrimPrefix(OfReason(byte(reason)).String(), "BW-")] = true
	}
	eachShippedFile(t, "..", func(path, text string) {
		if strings.HasPrefix(path, "../bw/") {
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
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				used[names[m[1]]] = true
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
